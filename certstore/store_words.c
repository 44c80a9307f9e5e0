// SPDX-License-Identifier: Apache-2.0
// What the log of switches says of a subject. store_states.c writes it.
#include <string.h>

#include "certstore/store_private.h"

bool store_subject_key(uint8_t out[STORE_SUBJECT_KEY_MAX_LEN], size_t *out_len,
                       enum state_level level, struct bytes subject) {
  if (subject.len >= STORE_SUBJECT_KEY_MAX_LEN) {
    return false;
  }
  out[0] = (uint8_t)level;
  if (subject.len > 0) {
    memcpy(out + 1, subject.data, subject.len);
  }
  *out_len = 1 + subject.len;
  return true;
}

static bool stands(const struct store_change *change, int64_t now_s) {
  return !change->is_undone && (change->until_s == 0 || now_s < change->until_s);
}

static void say(struct store_words *words, const struct store_change *c) {
  if (c->level == STATE_LEVEL_KEY || c->level == STATE_LEVEL_CA) {
    words->service = c->service;
    words->is_compromised = c->is_compromised;
  } else {
    words->preferred = c->preferred != STORE_LEAVE ? c->preferred : words->preferred;
    words->is_dc_off = c->dc != STORE_LEAVE ? c->dc == 0 : words->is_dc_off;
  }
  if (c->until_s != 0 && (words->until_s == 0 || c->until_s < words->until_s)) {
    words->until_s = c->until_s;
  }
}

enum status store_fold(struct store_words *out, MDB_txn *txn, MDB_dbi log, uint64_t *ids,
                       size_t *num, int64_t now_s) {
  enum status st = STATUS_OK;
  size_t kept = 0;
  *out = (struct store_words){0};
  for (size_t i = 0; i < *num; i++) {
    uint8_t key[STORE_ID_LEN];
    struct bytes record;
    struct store_change change;
    TRY(store_get(txn, log, store_id_key(key, ids[i]), &record));
    TRY(store_change_decode(&change, record));
    if (stands(&change, now_s)) {
      say(out, &change);
      ids[kept++] = ids[i];
    }
  }
  *num = kept;

out:
  return st;
}

// find_state: STATUS_NOT_FOUND: nothing has ever been said of it.
static enum status find_state(struct bytes *out_record, const struct store_reader *reader,
                              enum state_level level, struct bytes subject) {
  uint8_t key[STORE_SUBJECT_KEY_MAX_LEN];
  size_t len = 0;
  return store_subject_key(key, &len, level, subject)
             ? store_reader_get(reader, TABLE_STATES, bytes_of(key, len), out_record)
             : STATUS_FORMAT;
}

// fold_again is for the time between a change's end and the next write of the subject.
static enum status fold_again(const struct store_reader *reader, struct store_words *out,
                              struct bytes record, int64_t now_s) {
  struct store_state state;
  enum status st = store_state_decode(&state, record);
  return st == STATUS_OK ? store_fold(out, reader->states, reader->store->tables[TABLE_LOG],
                                      state.standing, &state.num_standing, now_s)
                         : st;
}

enum status store_get_words(const struct store_reader *reader, struct store_words *out,
                            enum state_level level, struct bytes subject, int64_t now_s) {
  struct bytes record;
  enum status st = find_state(&record, reader, level, subject);
  *out = (struct store_words){0};
  if (st == STATUS_NOT_FOUND) {
    return STATUS_OK;
  }
  TRY(st);
  TRY(store_words_decode(out, record));
  if (out->until_s != 0 && now_s >= out->until_s) {
    TRY(fold_again(reader, out, record, now_s));
  }

out:
  return st;
}

enum status store_standing(const struct store_reader *reader, uint64_t out[STORE_MAX_STANDING],
                           size_t *out_num, enum state_level level, struct bytes subject,
                           int64_t now_s) {
  struct bytes record;
  struct store_state state;
  enum status st = find_state(&record, reader, level, subject);
  *out_num = 0;
  if (st == STATUS_NOT_FOUND) {
    return STATUS_OK;
  }
  TRY(st);
  TRY(store_state_decode(&state, record));
  TRY(store_fold(&state.words, reader->states, reader->store->tables[TABLE_LOG], state.standing,
                 &state.num_standing, now_s));
  memcpy(out, state.standing, state.num_standing * sizeof(out[0]));
  *out_num = state.num_standing;

out:
  return st;
}
