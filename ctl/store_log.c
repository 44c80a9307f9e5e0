// SPDX-License-Identifier: Apache-2.0
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "ctl/grid.h"
#include "ctl/store.h"

#define DAY_S ((int64_t)86400)
#define DEFAULT_KEEP 10000u
#define MAX_NUMBER 1000000000ll

bool ctl_is_ca_file(const char *typed) {
  return strchr(typed, '/') != NULL || access(typed, F_OK) == 0;
}

// --- CAs -----------------------------------------------------------------------------------

struct cas {
  const struct store_reader *reader;
  struct grid grid;
  json_t *list;
  int64_t now_s;
};

static bool on_ca(void *arg, const uint8_t ca_id[32], const struct store_ca *ca) {
  struct cas *cas = arg;
  struct store_words words;
  char hex[65];
  const struct bytes id = bytes_of(ca_id, 32);
  (void)bytes_to_hex(hex, id);
  (void)!store_get_words(cas->reader, &words, STATE_LEVEL_CA, id, cas->now_s);
  const char *service = state_service_name((enum state_service)words.service);
  if (cas->list != NULL) {
    json_t *issuer = json_stringn((const char *)ca->issuer.data, ca->issuer.len);
    json_t *row = json_pack("{s:s, s:o, s:s, s:b}", "id", hex, "issuer",
                            issuer != NULL ? issuer : json_string("?"), "service", service,
                            "compromised", words.is_compromised);
    return json_array_append_new(cas->list, row) == 0;
  }
  grid_add(&cas->grid, hex);
  grid_add(&cas->grid, service);
  grid_addf(&cas->grid, "%.*s", (int)ca->issuer.len, (const char *)ca->issuer.data);
  return true;
}

enum ctl_exit store_run_cas(const struct store_args *args) {
  static const char *const heading[] = {"ID", "SERVICE", "ISSUER", NULL};
  struct errmsg err = {0};
  struct store *store = NULL;
  struct store_reader *reader = NULL;
  struct cas cas = {.list = args->is_json ? json_array() : NULL, .now_s = clock_wall_s()};
  enum status st = STATUS_OK;

  TRY(store_begin(&store, &reader, args, STORE_READ, &err));
  cas.reader = reader;
  if (!args->is_json) {
    grid_init(&cas.grid, heading);
  }
  st = store_each_ca(reader, on_ca, &cas);
  if (!args->is_json) {
    (void)grid_print(&cas.grid, stdout);  // what could be read, even if not all
  }
  if (st != STATUS_OK) {
    TRY(errmsg_set(&err, st, "the store is damaged: see `deputyctl store verify`"));
  }
  if (args->is_json) {
    store_print_json(json_pack("{s:O}", "cas", cas.list));
  }

out:
  json_decref(cas.list);
  store_end(store, reader);
  return st == STATUS_OK ? CTL_DONE : store_complain(&err);
}

// --- the log, trimmed ------------------------------------------------------------------------

static enum status read_number(uint64_t *out, const char *option, const char *text,
                               struct errmsg *err) {
  char *rest = NULL;
  long long value = strtoll(text, &rest, 10);
  if (rest == text || *rest != '\0' || value < 0 || value > MAX_NUMBER) {
    return errmsg_set(err, STATUS_CONFIG, "--%s is no number: %.60s", option, text);
  }
  *out = (uint64_t)value;
  return STATUS_OK;
}

enum ctl_exit store_run_trim_log(const struct store_args *args) {
  struct errmsg err = {0};
  struct store *store = NULL;
  struct store_log_limits limits = {.max_num = DEFAULT_KEEP};
  uint64_t days = 0;
  uint64_t num = 0;
  enum status st = STATUS_OK;

  if (args->keep != NULL) {
    TRY(read_number(&limits.max_num, "keep", args->keep, &err));
  }
  if (args->older_than != NULL) {
    TRY(read_number(&days, "older-than", args->older_than, &err));
  }
  limits.max_age_s = (int64_t)days * DAY_S;
  TRY(store_begin(&store, NULL, args, STORE_STATES, &err));
  TRY(store_trim_log(store, &num, &limits, clock_wall_s(), &err));
  if (args->is_json) {
    store_print_json(json_pack("{s:I}", "forgotten", (json_int_t)num));
  } else {
    (void)printf("%" PRIu64 " changes forgotten\n", num);
  }

out:
  store_end(store, NULL);
  if (st != STATUS_OK) {
    (void)store_complain(&err);
  }
  return st == STATUS_OK ? CTL_DONE : st == STATUS_CONFIG ? CTL_USAGE : CTL_FAILED;
}

// --- a file of states taken over ---------------------------------------------------------------

// A change as the store has it. Its texts are those of `change`; the 32 bytes of an id are put
// into `id`.
static enum status convert(struct store_change *out, uint8_t id[32],
                           const struct state_change *change) {
  const bool has_id = change->level == STATE_LEVEL_KEY || change->level == STATE_LEVEL_CA;
  *out = (struct store_change){
      .level = (uint8_t)change->level,
      .service = (uint8_t)change->service,
      .preferred = STORE_LEAVE,
      .dc = change->dc < 0 ? STORE_LEAVE : (uint8_t)change->dc,
      .is_compromised = change->is_compromised,
      .is_undone = change->is_undone,
      .author_uid = change->author_uid,
      .at_s = change->at_s,
      .undone_at_s = change->undone_at_s,
      .subject = bytes_text(change->subject),
      .reason = bytes_text(change->reason),
      .author = bytes_text(change->author),
      .undone_by = bytes_text(change->undone_by),
  };
  if (has_id) {
    out->subject = bytes_of(id, 32);
    return bytes_from_hex(id, 32, change->subject);
  }
  if (change->preferred != STATE_PREFERRED_LEAVE) {
    out->preferred = (uint8_t)change->preferred;
    return change->preferred <= STORE_MAX_LEVELS ? STATUS_OK : STATUS_LIMIT;
  }
  return STATUS_OK;
}

static enum status take_over(struct store *store, const struct states *states, size_t *out_num,
                             struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct state_change *list = states_list(states, out_num);
  struct store_change *changes = calloc(*out_num + 1, sizeof(*changes));
  uint8_t(*ids)[32] = calloc(*out_num + 1, sizeof(*ids));

  if (changes == NULL || ids == NULL) {
    st = errmsg_set(err, STATUS_MEMORY, "no memory");
    goto out;
  }
  for (size_t i = 0; i < *out_num; i++) {
    st = convert(&changes[i], ids[i], &list[i]);
    if (st != STATUS_OK) {
      st = errmsg_set(err, st, "switch %" PRIu64 " is none that a store can have", list[i].id);
      goto out;
    }
  }
  TRY(store_take_over(store, changes, *out_num, clock_wall_s(), err));

out:
  free(changes);
  free(ids);
  return st;
}

enum ctl_exit store_run_import_states(const struct store_args *args) {
  struct errmsg err = {0};
  struct store *store = NULL;
  struct states *states = NULL;
  const char *path = args->words[0];
  uint8_t *text = NULL;
  size_t len = 0;
  size_t num = 0;
  enum status st = STATUS_OK;

  TRY(file_read(&text, &len, path, STATE_FILE_MAX_LEN, &err));
  TRY(states_new(&states));
  TRY(states_load(states, (const char *)text, len, path, &err));
  TRY(store_begin(&store, NULL, args, STORE_STATES, &err));
  TRY(take_over(store, states, &num, &err));
  if (args->is_json) {
    store_print_json(json_pack("{s:I}", "changes", (json_int_t)num));
  } else {
    (void)printf("%zu changes taken over\n", num);
  }

out:
  states_free(states);
  free(text);
  store_end(store, NULL);
  return st == STATUS_OK ? CTL_DONE : store_complain(&err);
}
