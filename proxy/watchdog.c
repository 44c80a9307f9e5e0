// SPDX-License-Identifier: Apache-2.0
#include "proxy/watchdog.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/net/ready.h"

// Rounds within the time that the service manager waits: one may be late.
#define ROUNDS 4
#define TICK_MIN_MS 1

struct watchdog {
  struct timer tick;
  int64_t tick_ms;
  unsigned num_late;  // ticks that the round under way has lasted
  size_t num_workers;
  _Atomic size_t num_missing;
  struct loop *workers[];
};

static void on_worker(void *arg) {
  struct watchdog *watchdog = arg;
  atomic_fetch_sub_explicit(&watchdog->num_missing, 1, memory_order_relaxed);
}

static void on_tick(void *arg) {
  struct watchdog *watchdog = arg;
  size_t num_missing = atomic_load_explicit(&watchdog->num_missing, memory_order_relaxed);

  timer_arm_ms(&watchdog->tick, watchdog->tick_ms);
  if (num_missing > 0) {
    watchdog->num_late += 1;
    if (watchdog->num_late == 2) {
      log_error(0, "worker_silent", "workers=%zu effect=no_watchdog_notice", num_missing);
    }
    return;
  }
  watchdog->num_late = 0;
  ready_notify("WATCHDOG=1");
  atomic_store_explicit(&watchdog->num_missing, watchdog->num_workers, memory_order_relaxed);
  for (size_t i = 0; i < watchdog->num_workers; i++) {
    loop_post(watchdog->workers[i], on_worker, watchdog);
  }
}

// What the environment says; 0: nobody waits for us.
static int64_t wanted_us(void) {
  const char *text = getenv("WATCHDOG_USEC");
  const char *pid = getenv("WATCHDOG_PID");
  char *end = NULL;
  long long us = 0;
  if (text == NULL || (pid != NULL && strtoll(pid, NULL, 10) != (long long)getpid())) {
    return 0;
  }
  errno = 0;
  us = strtoll(text, &end, 10);
  return errno != 0 || *end != '\0' || us < 0 ? 0 : us;
}

enum status watchdog_new(struct watchdog **out, struct loop *control, struct loop *const *workers,
                         size_t num_workers) {
  const int64_t us = wanted_us();
  struct watchdog *watchdog = NULL;

  *out = NULL;
  if (us == 0) {
    return STATUS_OK;
  }
  watchdog = calloc(1, sizeof(*watchdog) + num_workers * sizeof(struct loop *));
  if (watchdog == NULL || timer_init(&watchdog->tick, control, on_tick, watchdog) != STATUS_OK) {
    free(watchdog);
    return STATUS_MEMORY;
  }
  watchdog->num_workers = num_workers;
  for (size_t i = 0; i < num_workers; i++) {
    watchdog->workers[i] = workers[i];
  }
  watchdog->tick_ms = us / 1000 / ROUNDS > TICK_MIN_MS ? us / 1000 / ROUNDS : TICK_MIN_MS;
  timer_arm_ms(&watchdog->tick, 0);
  *out = watchdog;
  return STATUS_OK;
}

void watchdog_stop(struct watchdog *watchdog) {
  if (watchdog != NULL) {
    timer_cancel(&watchdog->tick);
  }
}

void watchdog_free(struct watchdog *watchdog) {
  if (watchdog != NULL) {
    timer_cleanup(&watchdog->tick);
    free(watchdog);
  }
}
