// SPDX-License-Identifier: Apache-2.0
#include "proxy/admin/admin_view.h"

#include <string.h>

#include "common/base/clock.h"

// --- small parts -----------------------------------------------------------------

bool admin_put(json_t *object, const char *key, json_t *value) {
  return json_object_set_new(object, key, value) == 0;
}

json_t *admin_time(int64_t wall_s) {
  char text[CLOCK_RFC3339_LEN];
  return wall_s == 0 ? json_null() : json_string(clock_format_rfc3339(text, wall_s));
}

json_t *admin_hex(const uint8_t id[32]) {
  char text[65];
  return json_string(bytes_to_hex(text, bytes_of(id, 32)));
}

static json_t *text_or_null(const char *text) {
  return text == NULL ? json_null() : json_string(text);
}

const char *admin_name_of_ca(const struct certstore *store, const char *subject) {
  size_t num = 0;
  uint8_t id[32];
  if (bytes_from_hex(id, sizeof(id), subject) != STATUS_OK) {
    return NULL;
  }
  struct chain *const *chains = certstore_chains(store, &num);
  for (size_t i = 0; i < num; i++) {
    if (memcmp(chains[i]->info.ca_id, id, sizeof(id)) == 0) {
      return chains[i]->info.issuer;
    }
  }
  return NULL;
}

const char *admin_action(const struct state_change *change) {
  if (change->level == STATE_LEVEL_KEY || change->level == STATE_LEVEL_CA) {
    return state_service_name(change->service);
  }
  if (change->preferred != STATE_PREFERRED_LEAVE) {
    return change->preferred == 0 ? "prefer_none" : "prefer";
  }
  return change->dc == 0 ? "dc_off" : "dc_on";
}

json_t *admin_view_names_of(const struct cert_name *const *names, size_t num) {
  json_t *list = json_array();
  for (size_t i = 0; i < num && i < ADMIN_MAX_NAMES_SHOWN; i++) {
    if (json_array_append_new(list, json_string(names[i]->name)) != 0) {
      json_decref(list);
      return NULL;
    }
  }
  return list;
}

// --- chains ------------------------------------------------------------------------

static const char *service_word(const struct state *state) {
  return state_service_name(
      (enum state_service)atomic_load_explicit(&state->service, memory_order_relaxed));
}

static bool put_dc(json_t *object, const struct admin_host *host, const struct chain *chain) {
  // The control thread, which we are on, is the one that swaps and frees DCs.
  const struct tls_dc *dc = atomic_load(&chain->dc);
  const char *why = NULL;
  if (dc == NULL && !chain->info.may_delegate) {
    why = chain->info.kind == KEY_KIND_RSA ? "RSA leaf" : "leaf without DelegationUsage";
  } else if (dc == NULL && host->why_no_dc != NULL) {
    why = host->why_no_dc(host->arg, chain);
  }
  return admin_put(object, "dc_ends_at", admin_time(dc == NULL ? 0 : tls_dc_expiry_s(dc))) &&
         admin_put(object, "why_no_dc", text_or_null(dc == NULL && why == NULL ? "none yet" : why));
}

static bool put_identity(json_t *object, const struct chain *chain) {
  return admin_put(object, "label", json_string(chain->label)) &&
         admin_put(object, "path", json_string(chain->path)) &&
         admin_put(object, "subject", json_string(chain->info.subject)) &&
         admin_put(object, "issuer", json_string(chain->info.issuer)) &&
         admin_put(object, "serial", json_string(chain->info.serial)) &&
         admin_put(object, "kind", json_string(key_kind_name(chain->info.kind))) &&
         admin_put(object, "leaf_sha256", admin_hex(chain->info.sha256)) &&
         admin_put(object, "key_id", admin_hex(chain->info.key_id)) &&
         admin_put(object, "ca_id", admin_hex(chain->info.ca_id)) &&
         admin_put(object, "not_before", admin_time(chain->info.not_before_s)) &&
         admin_put(object, "not_after", admin_time(chain->info.not_after_s));
}

json_t *admin_view_chain(const struct admin_host *host, const struct chain *chain, int64_t now_s) {
  json_t *object = json_object();
  enum chain_fault fault = chain_judge(chain, now_s);
  bool is_ok = put_identity(object, chain) &&
               admin_put(object, "usable", json_boolean(fault == CHAIN_USABLE)) &&
               admin_put(object, "fault",
                         text_or_null(fault == CHAIN_USABLE ? NULL : chain_fault_name(fault))) &&
               admin_put(object, "key_service", json_string(service_word(chain->key_state))) &&
               admin_put(object, "ca_service", json_string(service_word(chain->ca_state))) &&
               admin_put(object, "must_staple", json_boolean(chain->info.is_must_staple)) &&
               admin_put(object, "staple_ends_at",
                         admin_time(chain->has_staple ? chain->staple_ends_s : 0)) &&
               put_dc(object, host, chain);
  if (!is_ok) {
    json_decref(object);
    return NULL;
  }
  return object;
}

// --- names -------------------------------------------------------------------------

static bool takes_rsa_only(void *arg, enum key_kind kind) {
  (void)arg;
  return kind == KEY_KIND_RSA;
}

// What answers for a name now.
struct answer {
  enum status st;
  struct choice choice;     // for clients that take every kind of key
  struct chain *chain_rsa;  // for those that take RSA only; NULL: nothing
  enum choice_reason reason;
};

static json_t *view_levels(const struct admin_host *host, const struct cert_name *name,
                           const struct answer *answer, int64_t now_s) {
  json_t *levels = json_array();
  for (size_t i = 0; i < name->num_levels; i++) {
    const struct cert_level *level = &name->levels[i];
    if (level->num_chains == 0) {
      continue;  // of a name of the store: spare3, but no spare2
    }
    json_t *chains = json_array();
    json_t *object = json_object();
    bool is_ok = admin_put(object, "label", json_string(level->chains[0]->label));
    for (size_t j = 0; j < level->num_chains && is_ok; j++) {
      const struct chain *chain = level->chains[j];
      json_t *view = admin_view_chain(host, chain, now_s);
      is_ok = admin_put(view, "serves", json_boolean(answer->choice.chain == chain)) &&
              admin_put(view, "serves_rsa_only", json_boolean(answer->chain_rsa == chain)) &&
              json_array_append(chains, view) == 0;
      json_decref(view);
    }
    is_ok = is_ok && json_object_set(object, "chains", chains) == 0 &&
            json_array_append(levels, object) == 0;
    json_decref(chains);
    json_decref(object);
    if (!is_ok) {
      json_decref(levels);
      return NULL;
    }
  }
  return levels;
}

// who_prefers names the level of states that speaks about this name's chains.
static const char *who_prefers(const struct certstore *store, const struct cert_name *name,
                               uint32_t *out_preferred) {
  *out_preferred = atomic_load(&name->state->preferred);
  if (*out_preferred != 0) {
    return "name";
  }
  *out_preferred = atomic_load(&certstore_fleet(store)->preferred);
  return *out_preferred != 0 ? "fleet" : NULL;
}

static const char *label_of(const struct cert_name *name, uint32_t preferred) {
  return preferred == 0 || preferred > name->num_levels ||
                 name->levels[preferred - 1].num_chains == 0
             ? NULL
             : name->levels[preferred - 1].chains[0]->label;
}

static const char *who_forbids_dc(const struct admin_host *host, const struct certstore *store,
                                  const struct cert_name *name) {
  if (atomic_load(&name->state->is_dc_off)) {
    return "name";
  }
  if (atomic_load(&certstore_fleet(store)->is_dc_off)) {
    return "fleet";
  }
  bool may = host->may_use_dc == NULL || host->may_use_dc(host->arg, name);
  return may ? NULL : "configuration";
}

json_t *admin_view_name(const struct admin_host *host, const struct cert_name *name,
                        int64_t now_s) {
  const struct certstore *store = host->store(host->arg);
  struct answer answer = {0};
  struct choice rsa = {0};
  uint32_t preferred = 0;
  const char *prefers = who_prefers(store, name, &preferred);
  const char *dc_off_by = who_forbids_dc(host, store, name);
  json_t *object = json_object();

  answer.st = certstore_choose(&answer.choice, store, name, now_s, NULL, NULL);
  answer.reason = choice_reason_of(store, name, answer.st, &answer.choice);
  if (certstore_choose(&rsa, store, name, now_s, takes_rsa_only, NULL) == STATUS_OK) {
    answer.chain_rsa = rsa.chain;
  }
  const struct chain *chain = answer.choice.chain;
  bool is_ok =
      admin_put(object, "name", json_string(name->name)) &&
      admin_put(object, "serves",
                text_or_null(chain == NULL ? NULL
                                           : name->levels[answer.choice.level].chains[0]->label)) &&
      admin_put(object, "why", json_string(choice_reason_name(answer.reason))) &&
      admin_put(object, "usable", json_boolean(chain != NULL && !answer.choice.is_last_resort)) &&
      admin_put(object, "preferred", text_or_null(label_of(name, preferred))) &&
      admin_put(object, "preferred_by", text_or_null(prefers)) &&
      admin_put(object, "dc", json_boolean(dc_off_by == NULL)) &&
      admin_put(object, "dc_off_by", text_or_null(dc_off_by)) &&
      admin_put(object, "levels", view_levels(host, name, &answer, now_s));
  if (!is_ok) {
    json_decref(object);
    return NULL;
  }
  return object;
}

// --- switches ------------------------------------------------------------------------

static json_t *view_undone(const struct state_change *change) {
  if (!change->is_undone) {
    return json_null();
  }
  json_t *object = json_object();
  if (!admin_put(object, "by", json_string(change->undone_by)) ||
      !admin_put(object, "at", admin_time(change->undone_at_s))) {
    json_decref(object);
    return NULL;
  }
  return object;
}

// view_to is the level of chains that a change prefers: its label where there is
// one name to ask, else its place (1: first).
static json_t *view_to(const struct certstore *store, const struct state_change *change) {
  if (change->preferred == STATE_PREFERRED_LEAVE || change->preferred == 0) {
    return json_null();
  }
  const struct cert_name *name =
      change->level == STATE_LEVEL_NAME ? certstore_find_exact(store, change->subject) : NULL;
  const char *label = name == NULL ? NULL : label_of(name, change->preferred);
  return label != NULL ? json_string(label) : json_sprintf("%u", (unsigned)change->preferred);
}

json_t *admin_view_change(const struct admin_host *host, const struct state_change *change) {
  const struct certstore *store = host->store(host->arg);
  const char *known_as =
      change->level == STATE_LEVEL_CA ? admin_name_of_ca(store, change->subject) : NULL;
  json_t *object = json_object();
  bool is_ok = admin_put(object, "id", json_integer((json_int_t)change->id)) &&
               admin_put(object, "level", json_string(state_level_name(change->level))) &&
               admin_put(object, "subject", json_string(change->subject)) &&
               admin_put(object, "known_as", text_or_null(known_as)) &&
               admin_put(object, "action", json_string(admin_action(change))) &&
               admin_put(object, "to", view_to(store, change)) &&
               admin_put(object, "compromised", json_boolean(change->is_compromised)) &&
               admin_put(object, "reason", json_string(change->reason)) &&
               admin_put(object, "author", json_string(change->author)) &&
               admin_put(object, "author_uid",
                         change->author_uid < 0 ? json_null() : json_integer(change->author_uid)) &&
               admin_put(object, "at", admin_time(change->at_s)) &&
               admin_put(object, "stands", json_boolean(!change->is_undone)) &&
               admin_put(object, "undone", view_undone(change));
  if (!is_ok) {
    json_decref(object);
    return NULL;
  }
  return object;
}

// --- drill -----------------------------------------------------------------------------

json_t *admin_view_drill(const struct drill_report *report, enum state_level level,
                         const char *subject) {
  json_t *object = json_object();
  bool is_ok =
      admin_put(object, "level", json_string(state_level_name(level))) &&
      admin_put(object, "subject", json_string(subject)) &&
      admin_put(object, "ready", json_boolean(report->num_without_backup == 0)) &&
      admin_put(object, "num_names", json_integer((json_int_t)report->num_names)) &&
      admin_put(object, "num_moved", json_integer((json_int_t)report->num_moved)) &&
      admin_put(object, "num_without_backup",
                json_integer((json_int_t)report->num_without_backup)) &&
      admin_put(object, "num_partly", json_integer((json_int_t)report->num_partly)) &&
      admin_put(object, "num_unusable_already",
                json_integer((json_int_t)report->num_unusable_already)) &&
      admin_put(object, "num_without_dc", json_integer((json_int_t)report->num_without_dc)) &&
      admin_put(object, "oldest_staple_ends_at", admin_time(report->oldest_staple_ends_s)) &&
      admin_put(object, "oldest_dc_ends_at", admin_time(report->oldest_dc_ends_s)) &&
      admin_put(object, "without_backup",
                admin_view_names_of(report->without_backup, report->num_without_backup)) &&
      admin_put(object, "moved", admin_view_names_of(report->moved, report->num_moved));
  if (!is_ok) {
    json_decref(object);
    return NULL;
  }
  return object;
}
