// SPDX-License-Identifier: Apache-2.0
#include "certstore/certstore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "certstore/certstore_private.h"

#define LABEL_MAX_LEN 63u  // RFC 1035, section 2.3.4

static bool is_rsa(enum key_kind kind) { return kind == KEY_KIND_RSA; }

// --- host names ----------------------------------------------------------------

// lower_host_byte returns the byte as the table has it, or 0 for one that no host
// name has. Underscores are in real names, though not in RFC 1123's.
static char lower_host_byte(uint8_t c) {
  if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.') {
    return (char)c;
  }
  return (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : 0);
}

bool host_read(struct host *out, struct bytes in, bool may_be_wildcard) {
  size_t len = in.len;
  if (len > 0 && in.data[len - 1] == '.') {
    len--;
  }
  if (len == 0 || len > CERTSTORE_NAME_MAX_LEN) {
    return false;
  }
  size_t i = 0;
  if (may_be_wildcard && len > 2 && in.data[0] == '*' && in.data[1] == '.') {
    out->text[i++] = '*';
  }
  out->first_dot = len;
  size_t label_len = i;
  for (; i < len; i++) {
    char c = lower_host_byte(in.data[i]);
    label_len = c == '.' ? 0 : label_len + 1;
    if (c == '\0' || label_len > LABEL_MAX_LEN ||
        (c == '.' && (i == 0 || i + 1 == len || out->text[i - 1] == '.'))) {
      return false;
    }
    if (c == '.' && out->first_dot == len) {
      out->first_dot = i;
    }
    out->text[i] = c;
  }
  out->text[len] = '\0';
  out->len = len;
  return true;
}

// --- building --------------------------------------------------------------------

enum status certstore_new(struct certstore **out, struct states *states) {
  enum status st = STATUS_OK;
  struct certstore *store = calloc(1, sizeof(*store));

  if (store == NULL) {
    return STATUS_MEMORY;
  }
  store->states = states;
  store->fleet = states_get(states, STATE_LEVEL_FLEET, "");
  store->pool = cert_pool_new();
  if (store->fleet == NULL || store->pool == NULL) {
    TRY(STATUS_MEMORY);
  }
  *out = store;
  store = NULL;

out:
  certstore_free(store);
  return st;
}

static void free_name(struct cert_name *name) {
  if (name != NULL) {
    free(name->name);
    free(name);
  }
}

void certstore_free(struct certstore *store) {
  if (store == NULL) {
    return;
  }
  for (size_t i = 0; i < store->num_names; i++) {
    free_name(store->names[i]);
  }
  for (size_t i = 0; i < store->num_chains; i++) {
    chain_free(store->chains[i]);
    free(store->chain_keys[i]);
  }
  free(store->names);
  free(store->chains);
  free(store->chain_keys);
  table_cleanup(&store->names_by_name);
  table_cleanup(&store->chains_by_path);
  table_cleanup(&store->chains_by_leaf);
  cert_pool_free(store->pool);  // after the chains: buffers leave it as they go
  free(store);
}

static enum status grow(void **array, size_t room, size_t element_len) {
  void *bigger = realloc(*array, room * element_len);
  if (bigger == NULL) {
    return STATUS_MEMORY;
  }
  *array = bigger;
  return STATUS_OK;
}

static enum status make_room_for_chain(struct certstore *store) {
  enum status st = STATUS_OK;
  if (store->num_chains < store->chains_room) {
    return STATUS_OK;
  }
  size_t room = store->chains_room == 0 ? 16 : store->chains_room * 2;
  TRY(grow((void **)&store->chains, room, sizeof(struct chain *)));
  TRY(grow((void **)&store->chain_keys, room, sizeof(char *)));
  store->chains_room = room;

out:
  return st;
}

enum status certstore_add_chain(struct chain **out, struct certstore *store, const char *label,
                                const char *path, const SSL_PRIVATE_KEY_METHOD *method,
                                struct errmsg *err) {
  enum status st = STATUS_OK;
  struct chain *chain = NULL;
  char *key = NULL;

  int key_len = asprintf(&key, "%s%c%s", label, '\0', path);
  if (key_len < 0) {
    key = NULL;
    TRY(errmsg_set(err, STATUS_MEMORY, "%s: no memory", path));
  }
  struct bytes key_bytes = bytes_of(key, (size_t)key_len);
  *out = table_find(&store->chains_by_path, key_bytes);
  if (*out != NULL) {
    goto out;
  }
  TRY(chain_load(&chain, label, path, store->states, method, store->pool, err));
  if (make_room_for_chain(store) != STATUS_OK ||
      table_put(&store->chains_by_path, key_bytes, chain) != STATUS_OK) {
    TRY(errmsg_set(err, STATUS_MEMORY, "%s: no memory", path));
  }
  // The same leaf may lie in two files; the first is found.
  (void)!table_put(&store->chains_by_leaf, bytes_of(chain->info.sha256, sizeof(chain->info.sha256)),
                   chain);
  store->chain_keys[store->num_chains] = key;
  store->chains[store->num_chains++] = chain;
  *out = chain;
  chain = NULL;
  key = NULL;

out:
  chain_free(chain);
  free(key);
  return st;
}

enum status certstore_add_name(struct cert_name **out, struct certstore *store, const char *name,
                               void *policy, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct host host;
  struct cert_name *made = NULL;

  if (!host_read(&host, bytes_text(name), true)) {
    return errmsg_set(err, STATUS_FORMAT,
                      "\"%.300s\" is not a host name: labels of letters, digits, - and _, at most "
                      "63 each and 253 in all, \"*.\" in front for a wildcard; write names with "
                      "other letters in their xn-- form",
                      name);
  }
  if (store->num_names == store->names_room) {
    size_t room = store->names_room == 0 ? 16 : store->names_room * 2;
    TRY(grow((void **)&store->names, room, sizeof(struct cert_name *)));
    store->names_room = room;
  }
  made = calloc(1, sizeof(*made));
  if (made == NULL || (made->name = strdup(host.text)) == NULL) {
    TRY(STATUS_MEMORY);
  }
  made->policy = policy;
  made->state = states_get(store->states, STATE_LEVEL_NAME, host.text);
  if (made->state == NULL) {
    TRY(STATUS_MEMORY);
  }
  TRY(table_put(&store->names_by_name, bytes_of(made->name, host.len), made));
  store->names[store->num_names++] = made;
  *out = made;
  made = NULL;

out:
  if (st == STATUS_EXISTS) {
    st = errmsg_set(err, st, "the name %s is there twice", host.text);
  } else if (st != STATUS_OK) {
    st = errmsg_set(err, st, "%s: no memory", host.text);
  }
  free_name(made);
  return st;
}

// A wildcard of ours needs a certificate with that very wildcard.
static bool covers(const struct cert_info *info, const char *name) {
  if (name[0] != '*') {
    return cert_info_covers(info, name);
  }
  for (size_t i = 0; i < info->num_names; i++) {
    if (strcmp(info->names[i], name) == 0) {
      return true;
    }
  }
  return false;
}

// A backup exists for the day a key or a CA dies: with the same key it would die
// too, with the same CA it well might.
static enum status check_against_earlier(const struct cert_name *name, const struct chain *chain,
                                         size_t num_levels, struct errmsg *warning,
                                         struct errmsg *err) {
  for (size_t i = 0; i < num_levels; i++) {
    const struct cert_level *level = &name->levels[i];
    for (size_t j = 0; j < level->num_chains; j++) {
      const struct chain *earlier = level->chains[j];
      if (memcmp(earlier->info.key_id, chain->info.key_id, sizeof(chain->info.key_id)) == 0) {
        return errmsg_set(err, STATUS_CONFIG,
                          "%s (%s) has the same key as %s (%s): a backup for %s must have a key "
                          "of its own",
                          chain->path, chain->label, earlier->path, earlier->label, name->name);
      }
      if (memcmp(earlier->info.ca_id, chain->info.ca_id, sizeof(chain->info.ca_id)) == 0) {
        (void)errmsg_set(warning, STATUS_OK,
                         "%s: %s (%s) is from the same CA as %s (%s): if %s is out of service, "
                         "so are both",
                         name->name, chain->path, chain->label, earlier->path, earlier->label,
                         chain->info.issuer);
      }
    }
  }
  return STATUS_OK;
}

// join_level puts the chain beside the one of another kind; ECDSA and EdDSA come
// before RSA, as they cost less and clients that take them take RSA as well.
static enum status join_level(const struct cert_name *name, struct cert_level *level,
                              struct chain *chain, struct errmsg *err) {
  struct chain *other = level->chains[0];
  if (level->num_chains == CERTSTORE_MAX_PER_LEVEL ||
      is_rsa(other->info.kind) == is_rsa(chain->info.kind)) {
    return errmsg_set(err, STATUS_CONFIG,
                      "%s and %s are both \"%s\" of %s: one level has at most one RSA chain and "
                      "one of another kind; give the second a label of its own",
                      other->path, chain->path, chain->label, name->name);
  }
  level->chains[1] = chain;
  if (is_rsa(other->info.kind)) {
    level->chains[0] = chain;
    level->chains[1] = other;
  }
  level->num_chains = 2;
  return STATUS_OK;
}

static enum status check_new_level(const struct cert_name *name, const struct chain *chain,
                                   struct errmsg *err) {
  if (name->num_levels == CERTSTORE_MAX_LEVELS) {
    return errmsg_set(err, STATUS_LIMIT, "%s: more than %u levels of chains", name->name,
                      CERTSTORE_MAX_LEVELS);
  }
  for (size_t i = 0; i < name->num_levels; i++) {
    if (strcmp(name->levels[i].chains[0]->label, chain->label) == 0) {
      return errmsg_set(err, STATUS_CONFIG,
                        "%s: the label \"%s\" is used by two levels that do not follow each other",
                        name->name, chain->label);
    }
  }
  return STATUS_OK;
}

enum status certstore_add_level(struct certstore *store, struct cert_name *name,
                                struct chain *chain, struct errmsg *warning, struct errmsg *err) {
  enum status st = STATUS_OK;
  (void)store;
  if (warning != NULL) {
    warning->text[0] = '\0';
  }
  if (!covers(&chain->info, name->name)) {
    TRY(errmsg_set(err, STATUS_CONFIG, "%s (%s) is not for %s: none of its %zu names covers it",
                   chain->path, chain->label, name->name, chain->info.num_names));
  }
  struct cert_level *last = name->num_levels > 0 ? &name->levels[name->num_levels - 1] : NULL;
  if (last != NULL && strcmp(last->chains[0]->label, chain->label) == 0) {
    TRY(check_against_earlier(name, chain, name->num_levels - 1, warning, err));
    TRY(join_level(name, last, chain, err));
  } else {
    TRY(check_new_level(name, chain, err));
    TRY(check_against_earlier(name, chain, name->num_levels, warning, err));
    name->levels[name->num_levels++] = (struct cert_level){{chain}, 1};
  }

out:
  return st;
}

enum status certstore_set_default(struct certstore *store, const char *name, struct errmsg *err) {
  const struct cert_name *found = certstore_find_exact(store, name);
  if (found == NULL) {
    return errmsg_set(err, STATUS_NOT_FOUND, "the default name \"%.300s\" is not among the names",
                      name);
  }
  store->fallback = found;
  return STATUS_OK;
}

// --- looking -----------------------------------------------------------------------

const struct cert_name *certstore_find(const struct certstore *store, struct bytes in) {
  const struct cert_name *found = certstore_find_named(store, in);
  return found != NULL ? found : store->fallback;
}

const struct cert_name *certstore_default(const struct certstore *store) { return store->fallback; }

const struct cert_name *certstore_find_named(const struct certstore *store, struct bytes in) {
  struct host host;
  if (!host_read(&host, in, false)) {
    return NULL;
  }
  const struct cert_name *found = table_find(&store->names_by_name, bytes_of(host.text, host.len));
  if (found == NULL && host.first_dot < host.len) {
    // "a.b" is found under "*.b": the star takes the place of the label's last byte.
    char *wildcard = &host.text[host.first_dot - 1];
    wildcard[0] = '*';
    found = table_find(&store->names_by_name, bytes_of(wildcard, host.len - host.first_dot + 1));
  }
  return found;
}

const struct cert_name *certstore_find_exact(const struct certstore *store, const char *name) {
  struct host host;
  if (!host_read(&host, bytes_text(name), true)) {
    return NULL;
  }
  return table_find(&store->names_by_name, bytes_of(host.text, host.len));
}

const struct cert_name *const *certstore_names(const struct certstore *store, size_t *out_num) {
  *out_num = store->num_names;
  return (const struct cert_name *const *)store->names;
}

struct chain *const *certstore_chains(const struct certstore *store, size_t *out_num) {
  *out_num = store->num_chains;
  return store->chains;
}

const struct chain *certstore_find_leaf(const struct certstore *store, const uint8_t sha256[32]) {
  return table_find(&store->chains_by_leaf, bytes_of(sha256, 32));
}

const struct state *certstore_fleet(const struct certstore *store) { return store->fleet; }

// --- choosing ------------------------------------------------------------------------

// One look at one name: what the functions below pass on.
struct look {
  int64_t now_s;
  bool (*takes)(void *arg, enum key_kind kind);
  void *arg;
  const struct supposition *supposed;
};

static bool fits(const struct look *look, const struct chain *chain) {
  return look->takes == NULL || look->takes(look->arg, chain->info.kind);
}

static bool is_gone(const struct look *look, unsigned level) {
  return look->supposed != NULL && look->supposed->is_level_gone && look->supposed->level == level;
}

static enum chain_fault judge(const struct look *look, const struct chain *chain) {
  return chain_judge_if(chain, look->now_s,
                        look->supposed != NULL ? look->supposed->out_of_service : NULL);
}

static struct chain *usable_in(const struct look *look, const struct cert_name *name,
                               unsigned index) {
  const struct cert_level *level = &name->levels[index];
  if (is_gone(look, index)) {
    return NULL;
  }
  for (size_t i = 0; i < level->num_chains; i++) {
    CHECK(level->chains[i] != NULL);
    if (judge(look, level->chains[i]) == CHAIN_USABLE && fits(look, level->chains[i])) {
      return level->chains[i];
    }
  }
  return NULL;
}

// last_resort finds the last chain whose validity has not ended; one whose validity
// has not begun fails with every client and is taken only if there is no other.
static enum status last_resort(struct choice *out, const struct look *look,
                               const struct cert_name *name) {
  for (unsigned i = (unsigned)name->num_levels; i-- > 0;) {
    for (size_t j = 0; j < name->levels[i].num_chains; j++) {
      struct chain *chain = name->levels[i].chains[j];
      CHECK(chain != NULL);
      if (look->now_s > chain->info.not_after_s || !fits(look, chain)) {
        continue;
      }
      bool has_begun = look->now_s >= chain->info.not_before_s;
      if (has_begun || out->chain == NULL) {
        out->chain = chain;
        out->level = i;
        out->is_last_resort = true;
      }
      if (has_begun) {
        return STATUS_OK;
      }
    }
  }
  return out->chain != NULL ? STATUS_OK : STATUS_NOT_FOUND;
}

// preferred_level returns 1 + the index, 0 if nobody said anything: the name's own
// word, else the fleet's.
static uint32_t preferred_level(const struct certstore *store, const struct cert_name *name) {
  uint32_t preferred = atomic_load_explicit(&name->state->preferred, memory_order_relaxed);
  return preferred != 0 ? preferred
                        : atomic_load_explicit(&store->fleet->preferred, memory_order_relaxed);
}

enum status choose_if(struct choice *out, const struct certstore *store,
                      const struct cert_name *name, int64_t now_s,
                      bool (*takes)(void *arg, enum key_kind kind), void *arg,
                      const struct supposition *supposed) {
  const struct look look = {now_s, takes, arg, supposed};
  *out = (struct choice){
      .may_use_dc = !atomic_load_explicit(&name->state->is_dc_off, memory_order_relaxed) &&
                    !atomic_load_explicit(&store->fleet->is_dc_off, memory_order_relaxed),
  };
  uint32_t preferred = preferred_level(store, name);
  if (preferred != 0 && preferred <= name->num_levels) {
    out->chain = usable_in(&look, name, preferred - 1);
    out->level = preferred - 1;
  }
  for (unsigned i = 0; i < name->num_levels && out->chain == NULL; i++) {
    out->chain = usable_in(&look, name, i);
    out->level = i;
  }
  return out->chain != NULL ? STATUS_OK : last_resort(out, &look, name);
}

enum status certstore_choose(struct choice *out, const struct certstore *store,
                             const struct cert_name *name, int64_t now_s,
                             bool (*takes)(void *arg, enum key_kind kind), void *arg) {
  return choose_if(out, store, name, now_s, takes, arg, NULL);
}

// What the rule reads of a chain, with other states behind it.
static void copy_judged(struct chain *out, const struct chain *chain, const struct state *key,
                        const struct state *ca) {
  out->info.kind = chain->info.kind;
  out->info.not_before_s = chain->info.not_before_s;
  out->info.not_after_s = chain->info.not_after_s;
  out->info.is_must_staple = chain->info.is_must_staple;
  out->has_staple = chain->has_staple;
  out->staple_ends_s = chain->staple_ends_s;
  out->is_revoked = chain->is_revoked;
  out->key_state = key;
  out->ca_state = ca;
}

enum status certstore_choose_by(struct choice *out, const struct certstore_words *words,
                                const struct cert_name *name, int64_t now_s,
                                bool (*takes)(void *arg, enum key_kind kind), void *arg) {
  const struct certstore store = {.fleet = &words->fleet};
  struct chain chains[CERTSTORE_MAX_LEVELS * CERTSTORE_MAX_PER_LEVEL];
  struct cert_name copy = {.num_levels = name->num_levels, .state = &words->name};
  size_t num = 0;

  for (size_t i = 0; i < name->num_levels; i++) {
    copy.levels[i].num_chains = name->levels[i].num_chains;
    for (size_t j = 0; j < name->levels[i].num_chains; j++) {
      copy_judged(&chains[num], name->levels[i].chains[j], &words->keys[i][j], &words->cas[i][j]);
      copy.levels[i].chains[j] = &chains[num++];
    }
  }
  enum status st = choose_if(out, &store, &copy, now_s, takes, arg, NULL);
  if (st == STATUS_OK) {
    const struct cert_level *level = &copy.levels[out->level];
    out->chain = name->levels[out->level].chains[out->chain == level->chains[0] ? 0 : 1];
  }
  return st;
}

const char *choice_reason_name(enum choice_reason reason) {
  static const char *const names[CHOICE_NUM_REASONS] = {
      [CHOICE_NAME_PREFERRED] = "name_preferred",
      [CHOICE_FLEET_PREFERRED] = "fleet_preferred",
      [CHOICE_FIRST_USABLE] = "first_usable",
      [CHOICE_LAST_RESORT] = "last_resort",
      [CHOICE_NONE] = "none",
  };
  CHECK((unsigned)reason < CHOICE_NUM_REASONS);
  return names[reason];
}

enum choice_reason choice_reason_of(const struct certstore *store, const struct cert_name *name,
                                    enum status st, const struct choice *choice) {
  if (st != STATUS_OK) {
    return CHOICE_NONE;
  }
  if (choice->is_last_resort) {
    return CHOICE_LAST_RESORT;
  }
  if (preferred_level(store, name) != choice->level + 1) {
    return CHOICE_FIRST_USABLE;
  }
  return atomic_load_explicit(&name->state->preferred, memory_order_relaxed) != 0
             ? CHOICE_NAME_PREFERRED
             : CHOICE_FLEET_PREFERRED;
}
