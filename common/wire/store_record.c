// SPDX-License-Identifier: Apache-2.0
#include "common/wire/store_record.h"

#include <openssl/bytestring.h>
#include <string.h>

#include "common/wire/writer.h"

#define FLAG_DELEGATION_USAGE 1u
#define FLAG_DIGITAL_SIGNATURE 2u
#define FLAG_MUST_STAPLE 4u
#define FLAG_DC_OFF 1u
#define FLAG_COMPROMISED 2u
#define FLAG_UNDONE 4u
#define NUM_SERVICES 3u
#define NUM_STATE_LEVELS 4u
#define STATE_LEVEL_KEY 1u
#define STATE_LEVEL_CA 2u
#define STATE_LEVEL_FLEET 3u
#define MAX_PREFERRED 64u

// --- parts -----------------------------------------------------------------------

// begin checks the version. (CBS_get_u8 and its kin leave the bytes where they are on
// failure, so a short record is told apart from one of another version.)
static enum status begin(CBS *cbs, struct bytes in) {
  uint8_t version = 0;
  CBS_init(cbs, in.data, in.len);
  if (!CBS_get_u8(cbs, &version)) {
    return STATUS_FORMAT;
  }
  return version == STORE_RECORD_VERSION ? STATUS_OK : STATUS_REFUSED;
}

// get_time reads seconds since 1970, in two's complement.
static bool get_time(CBS *cbs, int64_t *out) {
  uint64_t value = 0;
  if (!CBS_get_u64(cbs, &value)) {
    return false;
  }
  *out = (int64_t)value;
  return true;
}

static bool get_flags(CBS *cbs, uint8_t *out, unsigned known) {
  return CBS_get_u8(cbs, out) && (*out & ~known) == 0;
}

static bool get_run(CBS *cbs, struct bytes *out, size_t len) {
  CBS run;
  if (!CBS_get_bytes(cbs, &run, len)) {
    return false;
  }
  *out = bytes_of(CBS_data(&run), len);
  return true;
}

static bool get_text(CBS *cbs, struct bytes *out) {
  CBS text;
  if (!CBS_get_u8_length_prefixed(cbs, &text)) {
    return false;
  }
  *out = bytes_of(CBS_data(&text), CBS_len(&text));
  return true;
}

static void put_text(struct writer *w, struct bytes text) {
  w->is_full = w->is_full || text.len > STORE_TEXT_MAX_LEN;
  writer_u8(w, (uint8_t)text.len);
  writer_bytes(w, text);
}

static void put_u64(struct writer *w, uint64_t value) { writer_uint(w, value, 8); }
static void put_time(struct writer *w, int64_t value) { put_u64(w, (uint64_t)value); }

static struct writer begin_writing(uint8_t *out, size_t max) {
  struct writer w = writer_of(out, max);
  writer_u8(&w, STORE_RECORD_VERSION);
  return w;
}

// --- facts -----------------------------------------------------------------------

static bool get_facts(CBS *cbs, struct store_facts *out) {
  uint8_t kind = 0;
  uint8_t flags = 0;
  if (!CBS_get_u8(cbs, &kind) || kind > KEY_KIND_ED25519 ||
      !get_flags(cbs, &flags, FLAG_DELEGATION_USAGE | FLAG_DIGITAL_SIGNATURE | FLAG_MUST_STAPLE) ||
      !get_time(cbs, &out->not_before_s) || !get_time(cbs, &out->not_after_s) ||
      !CBS_copy_bytes(cbs, out->key_id, sizeof(out->key_id)) ||
      !CBS_copy_bytes(cbs, out->ca_id, sizeof(out->ca_id))) {
    return false;
  }
  out->kind = (enum key_kind)kind;
  out->has_delegation_usage = (flags & FLAG_DELEGATION_USAGE) != 0;
  out->has_digital_signature = (flags & FLAG_DIGITAL_SIGNATURE) != 0;
  out->is_must_staple = (flags & FLAG_MUST_STAPLE) != 0;
  return true;
}

static void put_facts(struct writer *w, const struct store_facts *facts) {
  writer_u8(w, (uint8_t)facts->kind);
  writer_u8(w, (uint8_t)((facts->has_delegation_usage ? FLAG_DELEGATION_USAGE : 0) |
                         (facts->has_digital_signature ? FLAG_DIGITAL_SIGNATURE : 0) |
                         (facts->is_must_staple ? FLAG_MUST_STAPLE : 0)));
  put_time(w, facts->not_before_s);
  put_time(w, facts->not_after_s);
  writer_bytes(w, bytes_of(facts->key_id, sizeof(facts->key_id)));
  writer_bytes(w, bytes_of(facts->ca_id, sizeof(facts->ca_id)));
}

bool store_facts_equal(const struct store_facts *a, const struct store_facts *b) {
  return a->kind == b->kind && a->has_delegation_usage == b->has_delegation_usage &&
         a->has_digital_signature == b->has_digital_signature &&
         a->is_must_staple == b->is_must_staple && a->not_before_s == b->not_before_s &&
         a->not_after_s == b->not_after_s && memcmp(a->key_id, b->key_id, sizeof(a->key_id)) == 0 &&
         memcmp(a->ca_id, b->ca_id, sizeof(a->ca_id)) == 0;
}

// --- names -----------------------------------------------------------------------

static unsigned rank(const struct store_slot *slot) {
  return slot->level * 2U + (slot->facts.kind == KEY_KIND_RSA ? 1 : 0);
}

bool store_slot_comes_before(const struct store_slot *a, const struct store_slot *b) {
  return rank(a) < rank(b);
}

enum status store_name_decode(struct store_name *out, struct bytes in) {
  enum status st = STATUS_OK;
  CBS cbs;
  uint8_t num = 0;
  TRY(begin(&cbs, in));
  if (!CBS_get_u8(&cbs, &num) || num == 0 || num > STORE_MAX_SLOTS) {
    return STATUS_FORMAT;
  }
  for (size_t i = 0; i < num; i++) {
    struct store_slot *slot = &out->slots[i];
    if (!CBS_get_u8(&cbs, &slot->level) || slot->level >= STORE_MAX_LEVELS ||
        !CBS_get_u64(&cbs, &slot->chain_id) || !get_facts(&cbs, &slot->facts) ||
        (i > 0 && !store_slot_comes_before(slot - 1, slot))) {
      return STATUS_FORMAT;
    }
  }
  out->num_slots = num;
  st = CBS_len(&cbs) == 0 ? STATUS_OK : STATUS_FORMAT;

out:
  return st;
}

enum status store_name_encode(uint8_t *out, size_t max, size_t *out_len,
                              const struct store_name *name) {
  struct writer w = begin_writing(out, max);
  w.is_full = w.is_full || name->num_slots > STORE_MAX_SLOTS;
  writer_u8(&w, (uint8_t)name->num_slots);
  for (size_t i = 0; i < name->num_slots && !w.is_full; i++) {
    writer_u8(&w, name->slots[i].level);
    put_u64(&w, name->slots[i].chain_id);
    put_facts(&w, &name->slots[i].facts);
  }
  return writer_finish(&w, out_len);
}

// --- chains ----------------------------------------------------------------------

enum status store_chain_decode(struct store_chain *out, struct bytes in) {
  enum status st = STATUS_OK;
  CBS cbs;
  uint8_t num = 0;
  TRY(begin(&cbs, in));
  if (!get_facts(&cbs, &out->facts) || !get_time(&cbs, &out->added_s) ||
      !CBS_copy_bytes(&cbs, out->leaf_sha256, sizeof(out->leaf_sha256)) ||
      !CBS_copy_bytes(&cbs, out->ski, sizeof(out->ski)) || !CBS_get_u8(&cbs, &num) ||
      num > STORE_MAX_ISSUERS || !get_run(&cbs, &out->issuers, (size_t)num * 32)) {
    return STATUS_FORMAT;
  }
  if (CBS_len(&cbs) > STORE_LEAF_MAX_LEN) {
    return STATUS_LIMIT;
  }
  out->num_issuers = num;
  out->leaf = bytes_of(CBS_data(&cbs), CBS_len(&cbs));
  st = out->leaf.len > 0 ? STATUS_OK : STATUS_FORMAT;

out:
  return st;
}

enum status store_chain_encode(uint8_t *out, size_t max, size_t *out_len,
                               const struct store_chain *chain) {
  struct writer w = begin_writing(out, max);
  w.is_full = w.is_full || chain->num_issuers > STORE_MAX_ISSUERS ||
              chain->issuers.len != chain->num_issuers * 32 ||
              chain->leaf.len > STORE_LEAF_MAX_LEN || chain->leaf.len == 0;
  put_facts(&w, &chain->facts);
  put_time(&w, chain->added_s);
  writer_bytes(&w, bytes_of(chain->leaf_sha256, sizeof(chain->leaf_sha256)));
  writer_bytes(&w, bytes_of(chain->ski, sizeof(chain->ski)));
  writer_u8(&w, (uint8_t)chain->num_issuers);
  writer_bytes(&w, chain->issuers);
  writer_bytes(&w, chain->leaf);
  return writer_finish(&w, out_len);
}

// --- staples ---------------------------------------------------------------------

enum status store_staple_decode(struct store_staple *out, struct bytes in) {
  enum status st = STATUS_OK;
  CBS cbs;
  TRY(begin(&cbs, in));
  if (!get_time(&cbs, &out->this_update_s) || !get_time(&cbs, &out->next_update_s) ||
      !get_time(&cbs, &out->fetched_s) || CBS_len(&cbs) == 0) {
    return STATUS_FORMAT;
  }
  if (CBS_len(&cbs) > STORE_STAPLE_MAX_LEN) {
    return STATUS_LIMIT;
  }
  out->response = bytes_of(CBS_data(&cbs), CBS_len(&cbs));

out:
  return st;
}

enum status store_staple_encode(uint8_t *out, size_t max, size_t *out_len,
                                const struct store_staple *staple) {
  struct writer w = begin_writing(out, max);
  w.is_full = w.is_full || staple->response.len == 0 || staple->response.len > STORE_STAPLE_MAX_LEN;
  put_time(&w, staple->this_update_s);
  put_time(&w, staple->next_update_s);
  put_time(&w, staple->fetched_s);
  writer_bytes(&w, staple->response);
  return writer_finish(&w, out_len);
}

// --- states ----------------------------------------------------------------------

static bool get_words(CBS *cbs, struct store_words *out) {
  uint8_t flags = 0;
  if (!CBS_get_u8(cbs, &out->service) || out->service >= NUM_SERVICES ||
      !get_flags(cbs, &flags, FLAG_DC_OFF | FLAG_COMPROMISED) ||
      !CBS_get_u8(cbs, &out->preferred) || out->preferred > MAX_PREFERRED ||
      !get_time(cbs, &out->until_s)) {
    return false;
  }
  out->is_dc_off = (flags & FLAG_DC_OFF) != 0;
  out->is_compromised = (flags & FLAG_COMPROMISED) != 0;
  return true;
}

enum status store_words_decode(struct store_words *out, struct bytes in) {
  CBS cbs;
  enum status st = begin(&cbs, in);
  if (st == STATUS_OK && !get_words(&cbs, out)) {
    st = STATUS_FORMAT;
  }
  return st;
}

enum status store_state_decode(struct store_state *out, struct bytes in) {
  enum status st = STATUS_OK;
  CBS cbs;
  uint8_t num = 0;
  TRY(begin(&cbs, in));
  if (!get_words(&cbs, &out->words) || !CBS_get_u8(&cbs, &num) || num > STORE_MAX_STANDING) {
    return STATUS_FORMAT;
  }
  for (size_t i = 0; i < num; i++) {
    if (!CBS_get_u64(&cbs, &out->standing[i]) ||
        (i > 0 && out->standing[i] <= out->standing[i - 1])) {
      return STATUS_FORMAT;
    }
  }
  out->num_standing = num;
  st = CBS_len(&cbs) == 0 ? STATUS_OK : STATUS_FORMAT;

out:
  return st;
}

enum status store_state_encode(uint8_t *out, size_t max, size_t *out_len,
                               const struct store_state *state) {
  struct writer w = begin_writing(out, max);
  const struct store_words *words = &state->words;
  w.is_full = w.is_full || state->num_standing > STORE_MAX_STANDING;
  writer_u8(&w, words->service);
  writer_u8(&w, (uint8_t)((words->is_dc_off ? FLAG_DC_OFF : 0) |
                          (words->is_compromised ? FLAG_COMPROMISED : 0)));
  writer_u8(&w, words->preferred);
  put_time(&w, words->until_s);
  writer_u8(&w, (uint8_t)state->num_standing);
  for (size_t i = 0; i < state->num_standing && !w.is_full; i++) {
    put_u64(&w, state->standing[i]);
  }
  return writer_finish(&w, out_len);
}

// --- changes ---------------------------------------------------------------------

// is_sound: do level, subject and words belong together?
static bool is_sound(const struct store_change *c) {
  bool has_id = c->level == STATE_LEVEL_KEY || c->level == STATE_LEVEL_CA;
  if (c->level >= NUM_STATE_LEVELS || c->service >= NUM_SERVICES ||
      (c->preferred > MAX_PREFERRED && c->preferred != STORE_LEAVE) ||
      (c->dc > 1 && c->dc != STORE_LEAVE)) {
    return false;
  }
  if (has_id) {
    return c->subject.len == 32 && c->preferred == STORE_LEAVE && c->dc == STORE_LEAVE;
  }
  return (c->level == STATE_LEVEL_FLEET
              ? c->subject.len == 0
              : c->subject.len > 0 && c->subject.len <= STORE_NAME_MAX_LEN) &&
         c->service == 0 && !c->is_compromised;
}

static bool get_change_texts(CBS *cbs, struct store_change *out) {
  return get_text(cbs, &out->subject) && get_text(cbs, &out->reason) &&
         get_text(cbs, &out->author) && get_text(cbs, &out->undone_by);
}

enum status store_change_decode(struct store_change *out, struct bytes in) {
  enum status st = STATUS_OK;
  CBS cbs;
  uint8_t flags = 0;
  TRY(begin(&cbs, in));
  if (!CBS_get_u8(&cbs, &out->level) || !CBS_get_u8(&cbs, &out->service) ||
      !CBS_get_u8(&cbs, &out->preferred) || !CBS_get_u8(&cbs, &out->dc) ||
      !get_flags(&cbs, &flags, FLAG_COMPROMISED | FLAG_UNDONE) ||
      !get_time(&cbs, &out->author_uid) || !get_time(&cbs, &out->at_s) ||
      !get_time(&cbs, &out->until_s) || !get_time(&cbs, &out->undone_at_s) ||
      !get_change_texts(&cbs, out) || CBS_len(&cbs) != 0) {
    return STATUS_FORMAT;
  }
  out->is_compromised = (flags & FLAG_COMPROMISED) != 0;
  out->is_undone = (flags & FLAG_UNDONE) != 0;
  st = is_sound(out) ? STATUS_OK : STATUS_FORMAT;

out:
  return st;
}

enum status store_change_encode(uint8_t *out, size_t max, size_t *out_len,
                                const struct store_change *change) {
  struct writer w = begin_writing(out, max);
  w.is_full = w.is_full || !is_sound(change);
  writer_u8(&w, change->level);
  writer_u8(&w, change->service);
  writer_u8(&w, change->preferred);
  writer_u8(&w, change->dc);
  writer_u8(&w, (uint8_t)((change->is_compromised ? FLAG_COMPROMISED : 0) |
                          (change->is_undone ? FLAG_UNDONE : 0)));
  put_time(&w, change->author_uid);
  put_time(&w, change->at_s);
  put_time(&w, change->until_s);
  put_time(&w, change->undone_at_s);
  put_text(&w, change->subject);
  put_text(&w, change->reason);
  put_text(&w, change->author);
  put_text(&w, change->undone_by);
  return writer_finish(&w, out_len);
}

// --- CAs, revocations --------------------------------------------------------------

enum status store_ca_decode(struct store_ca *out, struct bytes in) {
  CBS cbs;
  enum status st = begin(&cbs, in);
  if (st == STATUS_OK && (!get_text(&cbs, &out->issuer) || CBS_len(&cbs) != 0)) {
    st = STATUS_FORMAT;
  }
  return st;
}

enum status store_ca_encode(uint8_t *out, size_t max, size_t *out_len, const struct store_ca *ca) {
  struct writer w = begin_writing(out, max);
  put_text(&w, ca->issuer);
  return writer_finish(&w, out_len);
}

enum status store_revoked_decode(struct store_revoked *out, struct bytes in) {
  CBS cbs;
  enum status st = begin(&cbs, in);
  if (st == STATUS_OK && (!get_time(&cbs, &out->since_s) || !CBS_get_u8(&cbs, &out->reason) ||
                          !get_time(&cbs, &out->noted_s) || CBS_len(&cbs) != 0)) {
    st = STATUS_FORMAT;
  }
  return st;
}

enum status store_revoked_encode(uint8_t *out, size_t max, size_t *out_len,
                                 const struct store_revoked *revoked) {
  struct writer w = begin_writing(out, max);
  put_time(&w, revoked->since_s);
  writer_u8(&w, revoked->reason);
  put_time(&w, revoked->noted_s);
  return writer_finish(&w, out_len);
}
