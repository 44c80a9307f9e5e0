// SPDX-License-Identifier: Apache-2.0
#include "proxy/memory_watch.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"

#define STATM_MAX_LEN 256
#define ENOUGH_PERCENT 95

struct memory_watch {
  struct loop *loop;
  struct timer timer;
  int fd;  // of /proc/self/statm; -1: there is none
  int64_t page_len;
  int64_t max_bytes;
  int64_t trimmed_ms;  // 0: never
  _Atomic bool is_over;
};

bool memory_watch_next(bool is_over, int64_t bytes, int64_t max_bytes) {
  if (max_bytes == 0) {
    return false;
  }
  return is_over ? bytes > max_bytes / 100 * ENOUGH_PERCENT : bytes > max_bytes;
}

int64_t memory_watch_bytes(const struct memory_watch *watch) {
  char text[STATM_MAX_LEN];
  char *at = text;
  // proc(5): size, resident, shared (files and shared memory), in pages.
  unsigned long long pages[3];
  ssize_t len = watch->fd < 0 ? -1 : pread(watch->fd, text, sizeof(text) - 1, 0);
  if (len <= 0) {
    return -1;
  }
  text[len] = '\0';
  for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
    pages[i] = strtoull(at, &at, 10);
  }
  // The kernel's sums are some pages off, so that the difference may be below nothing.
  return pages[1] < pages[2] ? 0 : (int64_t)(pages[1] - pages[2]) * watch->page_len;
}

static bool may_trim(struct memory_watch *watch) {
  int64_t now_ms = loop_now_ms(watch->loop);
  if (watch->trimmed_ms != 0 && now_ms - watch->trimmed_ms < MEMORY_WATCH_TRIM_EVERY_MS) {
    return false;
  }
  watch->trimmed_ms = now_ms;
  return true;
}

static void look(void *arg) {
  struct memory_watch *watch = arg;
  bool was_over = memory_watch_is_over(watch);
  int64_t bytes = memory_watch_bytes(watch);
  bool is_over = memory_watch_next(was_over, bytes, watch->max_bytes);

  if (is_over && may_trim(watch)) {
    (void)malloc_trim(0);
    bytes = memory_watch_bytes(watch);
    is_over = memory_watch_next(was_over, bytes, watch->max_bytes);
  }
  if (is_over != was_over) {
    atomic_store_explicit(&watch->is_over, is_over, memory_order_relaxed);
    log_warn(0, is_over ? "memory_ceiling_reached" : "memory_ceiling_left", "bytes=%lld limit=%lld",
             (long long)bytes, (long long)watch->max_bytes);
  }
  if (watch->max_bytes != 0) {
    timer_arm_ms(&watch->timer, MEMORY_WATCH_EVERY_MS);
  }
}

enum status memory_watch_new(struct memory_watch **out, struct loop *loop) {
  struct memory_watch *watch = calloc(1, sizeof(*watch));
  *out = NULL;
  if (watch == NULL) {
    return STATUS_MEMORY;
  }
  watch->loop = loop;
  watch->page_len = sysconf(_SC_PAGESIZE);
  watch->fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (timer_init(&watch->timer, loop, look, watch) != STATUS_OK) {
    memory_watch_free(watch);
    return STATUS_MEMORY;
  }
  *out = watch;
  return STATUS_OK;
}

void memory_watch_free(struct memory_watch *watch) {
  if (watch == NULL) {
    return;
  }
  timer_cleanup(&watch->timer);
  if (watch->fd >= 0) {
    (void)close(watch->fd);
  }
  free(watch);
}

void memory_watch_set(struct memory_watch *watch, int64_t max_bytes) {
  if (max_bytes != 0 && memory_watch_bytes(watch) < 0) {
    log_error(0, "memory_ceiling", "reason=\"/proc/self/statm cannot be read\" effect=none");
    max_bytes = 0;
  }
  watch->max_bytes = max_bytes;
  look(watch);
}

bool memory_watch_is_over(const struct memory_watch *watch) {
  return atomic_load_explicit(&watch->is_over, memory_order_relaxed);
}
