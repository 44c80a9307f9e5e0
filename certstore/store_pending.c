// SPDX-License-Identifier: Apache-2.0
// What is filed by hash or name (leaves, keys, names) waits in memory and is put in order
// at the end of the transaction: each page of a large tree is then touched once, not once
// for each record, and a table that was empty gets pages that are full.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "certstore/store_txn.h"

#define ARENA_LEN (1u << 20)  // bytes of names, at a time

struct arena {
  struct arena *next;
  size_t len;
  char text[ARENA_LEN];
};

static enum status grow(void **array, size_t *room, size_t num, size_t len) {
  if (num < *room) {
    return STATUS_OK;
  }
  size_t more = *room == 0 ? 64 : *room * 2;
  void *bigger = realloc(*array, more * len);
  if (bigger == NULL) {
    return STATUS_MEMORY;
  }
  *array = bigger;
  *room = more;
  return STATUS_OK;
}

// --- leaves that wait ----------------------------------------------------------------

static size_t place_of(const struct store_txn *txn, const uint8_t hash[32]) {
  uint64_t start = 0;
  memcpy(&start, hash, sizeof(start));
  size_t at = (size_t)start & (txn->index_room - 1);
  while (txn->leaf_index[at] != 0 &&
         memcmp(txn->leaves[txn->leaf_index[at] - 1].hash, hash, 32) != 0) {
    at = (at + 1) & (txn->index_room - 1);
  }
  return at;
}

static enum status make_index(struct store_txn *txn) {
  if (txn->num_chains * 2 < txn->index_room) {
    return STATUS_OK;
  }
  size_t room = txn->index_room == 0 ? 256 : txn->index_room * 2;
  uint32_t *index = calloc(room, sizeof(*index));
  if (index == NULL || txn->num_chains >= UINT32_MAX - 1) {
    free(index);
    return STATUS_MEMORY;
  }
  free(txn->leaf_index);
  txn->leaf_index = index;
  txn->index_room = room;
  for (size_t i = 0; i < txn->num_chains; i++) {
    txn->leaf_index[place_of(txn, txn->leaves[i].hash)] = (uint32_t)(i + 1);
  }
  return STATUS_OK;
}

enum status store_txn_note_chain(struct store_txn *txn, const uint8_t leaf[32],
                                 const uint8_t key_id[32], uint64_t id) {
  enum status st = STATUS_OK;
  size_t room = txn->chains_room;
  TRY(make_index(txn));
  TRY(grow((void **)&txn->leaves, &room, txn->num_chains, sizeof(*txn->leaves)));
  room = txn->chains_room;
  TRY(grow((void **)&txn->keys, &room, txn->num_chains, sizeof(*txn->keys)));
  txn->chains_room = room;
  struct pending_hash *waiting = &txn->leaves[txn->num_chains];
  memcpy(waiting->hash, leaf, 32);
  waiting->chain_id = id;
  waiting = &txn->keys[txn->num_chains];
  memcpy(waiting->hash, key_id, 32);
  waiting->chain_id = id;
  txn->leaf_index[place_of(txn, leaf)] = (uint32_t)(txn->num_chains + 1);
  txn->num_chains++;

out:
  return st;
}

enum status store_txn_find_leaf(struct store_txn *txn, uint64_t *out, const uint8_t sha256[32],
                                struct errmsg *err) {
  struct bytes record;
  if (txn->index_room > 0) {
    uint32_t index = txn->leaf_index[place_of(txn, sha256)];
    if (index != 0) {
      *out = txn->leaves[index - 1].chain_id;
      return STATUS_OK;
    }
  }
  enum status st = store_txn_get(txn, TABLE_LEAVES, bytes_of(sha256, 32), &record);
  if (st == STATUS_OK && record.len == STORE_ID_LEN) {
    *out = store_id_of(record.data);
  } else if (st != STATUS_NOT_FOUND) {
    return store_txn_damaged(txn, "leaf", err);
  }
  return st;
}

// --- names that wait -----------------------------------------------------------------

static const char *keep_text(struct store_txn *txn, const char *text, size_t len) {
  struct arena *arena = txn->arena;
  if (arena == NULL || ARENA_LEN - arena->len < len + 1) {
    arena = malloc(sizeof(*arena));
    if (arena == NULL) {
      return NULL;
    }
    arena->next = txn->arena;
    arena->len = 0;
    txn->arena = arena;
  }
  char *kept = arena->text + arena->len;
  memcpy(kept, text, len);
  kept[len] = '\0';
  arena->len += len + 1;
  return kept;
}

enum status store_txn_note_name(struct store_txn *txn, const char *name, size_t len,
                                const struct store_slot *slot,
                                const struct store_addition *addition) {
  enum status st = STATUS_OK;
  TRY(grow((void **)&txn->names, &txn->names_room, txn->num_names, sizeof(*txn->names)));
  struct pending_name *waiting = &txn->names[txn->num_names];
  waiting->name = keep_text(txn, name, len);
  if (waiting->name == NULL) {
    return STATUS_MEMORY;
  }
  waiting->slot = *slot;
  waiting->source = addition->source;
  waiting->is_replacing = addition->is_replacing;
  txn->num_names++;

out:
  return st;
}

// --- names, in order -------------------------------------------------------------------

// report tells of an issue; false: the transaction ends.
static bool report(struct store_txn *txn, enum store_issue issue, const struct pending_name *name,
                   const struct store_slot *other, struct errmsg *err) {
  static const char *const sentences[STORE_NUM_ISSUES] = {
      [STORE_ISSUE_SAME_KEY] =
          "%s: its %s has the same key as its %s: a backup must have a key of its own, or it dies "
          "on the same day; refused",
      [STORE_ISSUE_SAME_CA] =
          "%s: its %s is from the same CA as its %s: if that CA is out of service, so are both",
      [STORE_ISSUE_EXPIRED_BACKUP] = "%s: its %s has expired%.0s",
      [STORE_ISSUE_OLDER] =
          "%s: this %s begins before the one that is there and is not filed (--replace files "
          "it)%.0s",
  };
  char sentence[ERRMSG_MAX_LEN];
  // The table's formats take the same three texts; %.0s passes over the last.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  (void)snprintf(sentence, sizeof(sentence), sentences[issue], name->name,
                 store_level_name(name->slot.level), store_level_name(other->level));
#pragma GCC diagnostic pop
  bool may_go_on = txn->on_issue != NULL
                       ? txn->on_issue(txn->issue_arg, issue, name->source, sentence)
                       : issue != STORE_ISSUE_SAME_KEY;
  if (!may_go_on) {
    (void)errmsg_set(err, STATUS_REFUSED, "%s", sentence);
  }
  return may_go_on;
}

static bool is_later(const struct store_facts *a, const struct store_facts *b) {
  return a->not_before_s != b->not_before_s ? a->not_before_s > b->not_before_s
                                            : a->not_after_s > b->not_after_s;
}

// insert puts the slot at its place, in place of one of the same level and kind.
static void insert(struct store_name *name, const struct store_slot *slot) {
  size_t at = 0;
  while (at < name->num_slots && store_slot_comes_before(&name->slots[at], slot)) {
    at++;
  }
  bool is_taken = at < name->num_slots && !store_slot_comes_before(slot, &name->slots[at]);
  if (!is_taken) {
    memmove(&name->slots[at + 1], &name->slots[at],
            (name->num_slots - at) * sizeof(name->slots[0]));
    name->num_slots++;
  }
  name->slots[at] = *slot;
}

// What is to become of a slot that was asked for.
enum verdict { FILE_IT, PASS_OVER, END };

static enum verdict against(struct store_txn *txn, const struct pending_name *waiting,
                            const struct store_slot *there, struct errmsg *err) {
  const struct store_slot *slot = &waiting->slot;
  bool has_same_key = memcmp(there->facts.key_id, slot->facts.key_id, 32) == 0;
  if (!store_slot_comes_before(there, slot) && !store_slot_comes_before(slot, there)) {
    if (there->chain_id == slot->chain_id || waiting->is_replacing ||
        is_later(&slot->facts, &there->facts)) {
      return FILE_IT;
    }
    return report(txn, STORE_ISSUE_OLDER, waiting, there, err) ? PASS_OVER : END;
  }
  if (there->level == slot->level) {
    return FILE_IT;
  }
  if (has_same_key) {
    return report(txn, STORE_ISSUE_SAME_KEY, waiting, there, err) ? PASS_OVER : END;
  }
  if (memcmp(there->facts.ca_id, slot->facts.ca_id, 32) == 0 &&
      !report(txn, STORE_ISSUE_SAME_CA, waiting, there, err)) {
    return END;
  }
  return FILE_IT;
}

static enum status merge(struct store_txn *txn, struct store_name *name,
                         const struct pending_name *waiting, struct errmsg *err) {
  enum verdict verdict = FILE_IT;
  for (size_t i = 0; i < name->num_slots && verdict == FILE_IT; i++) {
    verdict = against(txn, waiting, &name->slots[i], err);
  }
  if (verdict == FILE_IT && waiting->slot.level > 0 &&
      waiting->slot.facts.not_after_s < txn->now_s &&
      !report(txn, STORE_ISSUE_EXPIRED_BACKUP, waiting, &waiting->slot, err)) {
    verdict = END;
  }
  if (verdict == FILE_IT) {
    insert(name, &waiting->slot);
  }
  return verdict == END ? STATUS_REFUSED : STATUS_OK;
}

// By name; for one name in the order in which they came (which is that of memory).
static int compare_names(const void *a, const void *b) {
  const struct pending_name *one = *(const struct pending_name *const *)a;
  const struct pending_name *two = *(const struct pending_name *const *)b;
  int order = strcmp(one->name, two->name);
  return order != 0 ? order : (one > two) - (one < two);
}

static enum status write_name(struct store_txn *txn, const struct pending_name **group, size_t num,
                              unsigned flags, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct bytes key = bytes_text(group[0]->name);
  struct store_name name = {0};
  struct bytes record;
  size_t len = 0;

  st = flags == MDB_APPEND ? STATUS_NOT_FOUND : store_txn_get(txn, TABLE_NAMES, key, &record);
  if (st == STATUS_OK) {
    st = store_name_decode(&name, record);
  } else if (st == STATUS_NOT_FOUND) {
    st = STATUS_OK;
  }
  if (st != STATUS_OK) {
    return store_txn_damaged(txn, "name", err);
  }
  for (size_t i = 0; i < num; i++) {
    TRY(merge(txn, &name, group[i], err));
    store_txn_step(txn);
  }
  if (name.num_slots == 0) {
    goto out;  // all were passed over
  }
  TRY(store_name_encode(txn->record, STORE_NAME_RECORD_MAX_LEN, &len, &name));
  TRY(store_txn_put(txn, TABLE_NAMES, key, bytes_of(txn->record, len), flags, err));

out:
  return st;
}

static enum status write_names(struct store_txn *txn, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct pending_name **order = NULL;
  unsigned flags = store_num(txn->txn, txn->store->tables[TABLE_NAMES]) == 0 ? MDB_APPEND : 0;

  if (txn->num_names == 0) {
    return STATUS_OK;
  }
  order = malloc(txn->num_names * sizeof(struct pending_name *));
  if (order == NULL) {
    return store_txn_no_memory(err);
  }
  for (size_t i = 0; i < txn->num_names; i++) {
    order[i] = &txn->names[i];
  }
  qsort(order, txn->num_names, sizeof(struct pending_name *), compare_names);
  for (size_t i = 0; i < txn->num_names;) {
    size_t end = i + 1;
    while (end < txn->num_names && strcmp(order[end]->name, order[i]->name) == 0) {
      end++;
    }
    TRY(write_name(txn, order + i, end - i, flags, err));
    i = end;
  }

out:
  free(order);
  return st;
}

static int compare_hashes(const void *a, const void *b) {
  const struct pending_hash *one = a;
  const struct pending_hash *two = b;
  int order = memcmp(one->hash, two->hash, 32);
  return order != 0 ? order : (one->chain_id > two->chain_id) - (one->chain_id < two->chain_id);
}

static enum status write_leaves(struct store_txn *txn, struct errmsg *err) {
  enum status st = STATUS_OK;
  unsigned flags = store_num(txn->txn, txn->store->tables[TABLE_LEAVES]) == 0 ? MDB_APPEND : 0;
  qsort(txn->leaves, txn->num_chains, sizeof(*txn->leaves), compare_hashes);
  for (size_t i = 0; i < txn->num_chains; i++) {
    uint8_t id[STORE_ID_LEN];
    TRY(store_txn_put(txn, TABLE_LEAVES, bytes_of(txn->leaves[i].hash, 32),
                      store_id_key(id, txn->leaves[i].chain_id), flags, err));
    store_txn_step(txn);
  }

out:
  return st;
}

static enum status write_keys(struct store_txn *txn, struct errmsg *err) {
  enum status st = STATUS_OK;
  unsigned flags = store_num(txn->txn, txn->store->tables[TABLE_KEYS]) == 0 ? MDB_APPEND : 0;
  qsort(txn->keys, txn->num_chains, sizeof(*txn->keys), compare_hashes);
  for (size_t i = 0; i < txn->num_chains; i++) {
    uint8_t key[32 + STORE_ID_LEN];
    memcpy(key, txn->keys[i].hash, 32);
    (void)store_id_key(key + 32, txn->keys[i].chain_id);
    TRY(store_txn_put(txn, TABLE_KEYS, bytes_of(key, sizeof(key)), (struct bytes){0}, flags, err));
    store_txn_step(txn);
  }

out:
  return st;
}

enum status store_txn_flush(struct store_txn *txn, struct errmsg *err) {
  enum status st = STATUS_OK;
  txn->num_done = 0;
  txn->num_to_do = 2 * txn->num_chains + txn->num_names;
  if (txn->num_chains > 0) {
    TRY(write_leaves(txn, err));
    TRY(write_keys(txn, err));
  }
  TRY(write_names(txn, err));

out:
  return st;
}

void store_txn_forget_pending(struct store_txn *txn) {
  while (txn->arena != NULL) {
    struct arena *next = txn->arena->next;
    free(txn->arena);
    txn->arena = next;
  }
  free(txn->leaves);
  free(txn->keys);
  free(txn->leaf_index);
  free(txn->names);
}
