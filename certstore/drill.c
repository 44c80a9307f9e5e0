// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>

#include "certstore/certstore_private.h"

static bool takes_rsa_only(void *arg, enum key_kind kind) {
  (void)arg;
  return kind == KEY_KIND_RSA;
}

// What a name answers with before and under the supposition.
struct pair {
  struct choice before;
  struct choice after;
  bool was_usable;
  bool is_usable;
};

static void choose_pair(struct pair *out, const struct certstore *store,
                        const struct cert_name *name, int64_t now_s,
                        bool (*takes)(void *arg, enum key_kind kind),
                        const struct supposition *supposed) {
  out->was_usable = choose_if(&out->before, store, name, now_s, takes, NULL, NULL) == STATUS_OK &&
                    !out->before.is_last_resort;
  out->is_usable = choose_if(&out->after, store, name, now_s, takes, NULL, supposed) == STATUS_OK &&
                   !out->after.is_last_resort;
}

static int64_t earlier(int64_t a, int64_t b) {
  if (a == 0 || b == 0) {
    return a != 0 ? a : b;
  }
  return a < b ? a : b;
}

static void count_backup(struct drill_report *report, const struct chain *backup) {
  if (backup->has_staple) {
    report->oldest_staple_ends_s = earlier(report->oldest_staple_ends_s, backup->staple_ends_s);
  }
  const struct tls_dc *dc = atomic_load(&backup->dc);
  if (dc == NULL) {
    report->num_without_dc++;
  } else {
    report->oldest_dc_ends_s = earlier(report->oldest_dc_ends_s, tls_dc_expiry_s(dc));
  }
}

// drill_name adds one name to the report. A level may answer RSA-only clients with
// a chain of its own, so these are asked for apart.
static void drill_name(struct drill_report *report, const struct certstore *store,
                       const struct cert_name *name, int64_t now_s,
                       const struct supposition *supposed) {
  struct pair any;
  struct pair rsa;
  choose_pair(&any, store, name, now_s, NULL, supposed);
  choose_pair(&rsa, store, name, now_s, takes_rsa_only, supposed);
  if (!any.was_usable) {
    report->num_unusable_already++;
    return;
  }
  bool is_moved = any.is_usable != any.was_usable || any.before.chain != any.after.chain ||
                  (rsa.was_usable && (!rsa.is_usable || rsa.before.chain != rsa.after.chain));
  if (!is_moved) {
    return;
  }
  report->moved[report->num_moved++] = name;
  if (!any.is_usable) {
    report->without_backup[report->num_without_backup++] = name;
    return;
  }
  if (rsa.was_usable && !rsa.is_usable) {
    report->num_partly++;
  }
  count_backup(report, any.after.chain);
}

static bool has_key_or_ca(const struct certstore *store, const struct state *state) {
  for (size_t i = 0; i < store->num_chains; i++) {
    if (store->chains[i]->key_state == state || store->chains[i]->ca_state == state) {
      return true;
    }
  }
  return false;
}

// suppose_level_gone fills in the level that the name is answered from now.
static void suppose_level_gone(struct supposition *out, const struct certstore *store,
                               const struct cert_name *name, int64_t now_s) {
  struct choice now;
  out->is_level_gone = choose_if(&now, store, name, now_s, NULL, NULL, NULL) == STATUS_OK;
  out->level = now.level;
}

enum status certstore_drill(struct drill_report *out, const struct certstore *store,
                            enum state_level level, const char *subject, int64_t now_s) {
  struct supposition supposed = {0};
  const struct cert_name *only = NULL;
  *out = (struct drill_report){.num_names = store->num_names};

  if (level == STATE_LEVEL_NAME) {
    only = certstore_find_exact(store, subject);
    if (only == NULL) {
      return STATUS_NOT_FOUND;
    }
  } else if (level != STATE_LEVEL_FLEET) {
    supposed.out_of_service = states_get(store->states, level, subject);
    if (supposed.out_of_service == NULL || !has_key_or_ca(store, supposed.out_of_service)) {
      return STATUS_NOT_FOUND;
    }
  }
  out->without_backup = calloc(store->num_names + 1, sizeof(struct cert_name *));
  out->moved = calloc(store->num_names + 1, sizeof(struct cert_name *));
  if (out->without_backup == NULL || out->moved == NULL) {
    drill_report_cleanup(out);
    return STATUS_MEMORY;
  }
  for (size_t i = 0; i < store->num_names; i++) {
    const struct cert_name *name = store->names[i];
    if (only != NULL && only != name) {
      continue;
    }
    if (level == STATE_LEVEL_NAME || level == STATE_LEVEL_FLEET) {
      suppose_level_gone(&supposed, store, name, now_s);
    }
    drill_name(out, store, name, now_s, &supposed);
  }
  return STATUS_OK;
}

void drill_report_cleanup(struct drill_report *report) {
  free(report->without_backup);
  free(report->moved);
  *report = (struct drill_report){0};
}
