// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/lasting.h"

#include <string.h>

static bool is_same(const char *a, const char *b) {
  return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

void lasting_compare(const struct options *now, const struct options *wanted,
                     void (*fn)(void *arg, const char *option), void *arg) {
  const char *audit = audit_log_change(&now->audit.log, &wanted->audit.log);
  const struct {
    const char *name;
    bool is_same;
  } rows[] = {
      {"workers", now->num_workers == wanted->num_workers},
      {"admin.socket", is_same(now->admin.socket, wanted->admin.socket)},
      {"admin.mode", is_same(now->admin.mode, wanted->admin.mode)},
      {"metrics.listen", is_same(now->metrics.listen, wanted->metrics.listen)},
      {audit == NULL ? "audit" : audit, audit == NULL},
      {"states", is_same(now->states, wanted->states)},
      {"store.path", is_same(now->store.path, wanted->store.path)},
      {"store.cache", now->store.max_cached == wanted->store.max_cached},
      {"user", is_same(now->user, wanted->user)},
      {"sandbox", sandbox_options_equal(&now->sandbox, &wanted->sandbox)},
      {"log", is_same(now->log, wanted->log)},
      {"access_log_file", is_same(now->access_log_file, wanted->access_log_file)},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    if (!rows[i].is_same) {
      fn(arg, rows[i].name);
    }
  }
}

static void exchange(void *a, void *b, size_t len) {
  uint8_t of_a[sizeof(struct options)];
  CHECK(len <= sizeof(of_a));
  memcpy(of_a, a, len);
  memcpy(a, b, len);
  memcpy(b, of_a, len);
}

#define EXCHANGE(field) exchange(&now->field, &wanted->field, sizeof(now->field))

void lasting_keep(struct options *now, struct options *wanted) {
  EXCHANGE(num_workers);
  EXCHANGE(admin);
  EXCHANGE(metrics);
  EXCHANGE(audit);
  EXCHANGE(states);
  EXCHANGE(store.path);
  EXCHANGE(store.max_cached);
  EXCHANGE(user);
  EXCHANGE(sandbox);
  EXCHANGE(log);
  EXCHANGE(access_log_file);
}
