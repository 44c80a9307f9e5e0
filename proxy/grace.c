// SPDX-License-Identifier: Apache-2.0
#include "proxy/grace.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

struct item {
  struct item *next;
  void (*fn)(void *arg);
  void *arg;
};

struct grace {
  struct loop *control;
  struct loop **workers;
  size_t num_workers;
  struct item *waiting;  // for the next round
  struct item *passing;  // for the round under way
  _Atomic size_t num_missing;
  bool is_under_way;
};

static void run_items(struct item **items) {
  struct item *item = *items;
  *items = NULL;
  while (item != NULL) {
    struct item *next = item->next;
    item->fn(item->arg);
    free(item);
    item = next;
  }
}

static void begin_round(struct grace *grace);

static void on_all_passed(void *arg) {
  struct grace *grace = arg;
  grace->is_under_way = false;
  run_items(&grace->passing);
  if (grace->waiting != NULL && !grace->is_under_way) {
    begin_round(grace);
  }
}

static void on_worker_passes(void *arg) {
  struct grace *grace = arg;
  // Release what this worker has read; acquire what the others have, for the last.
  if (atomic_fetch_sub_explicit(&grace->num_missing, 1, memory_order_acq_rel) == 1) {
    loop_post(grace->control, on_all_passed, grace);
  }
}

static void begin_round(struct grace *grace) {
  grace->passing = grace->waiting;
  grace->waiting = NULL;
  grace->is_under_way = true;
  atomic_store_explicit(&grace->num_missing, grace->num_workers, memory_order_release);
  for (size_t i = 0; i < grace->num_workers; i++) {
    loop_post(grace->workers[i], on_worker_passes, grace);
  }
}

void grace_after(struct grace *grace, void (*fn)(void *arg), void *arg) {
  struct item *item = malloc(sizeof(*item));
  if (item == NULL) {
    return;
  }
  *item = (struct item){grace->waiting, fn, arg};
  grace->waiting = item;
  if (!grace->is_under_way) {
    begin_round(grace);
  }
}

enum status grace_new(struct grace **out, struct loop *control, struct loop *const *workers,
                      size_t num_workers) {
  struct grace *grace = calloc(1, sizeof(*grace));
  *out = NULL;
  if (grace == NULL) {
    return STATUS_MEMORY;
  }
  grace->control = control;
  grace->num_workers = num_workers;
  grace->workers = calloc(num_workers, sizeof(struct loop *));
  if (grace->workers == NULL) {
    free(grace);
    return STATUS_MEMORY;
  }
  for (size_t i = 0; i < num_workers; i++) {
    grace->workers[i] = workers[i];
  }
  *out = grace;
  return STATUS_OK;
}

void grace_free(struct grace *grace) {
  if (grace == NULL) {
    return;
  }
  run_items(&grace->passing);
  run_items(&grace->waiting);
  free(grace->workers);
  free(grace);
}
