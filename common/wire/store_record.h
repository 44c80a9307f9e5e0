// SPDX-License-Identifier: Apache-2.0
// store_record: the records of a certificate store as bytes (docs/STORE.md). A store
// file comes from outside: it may be damaged, old, or made by somebody else. No I/O,
// no allocation; numbers are big-endian; each record begins with a version.
// Used by certstore/store*.c, which keep them in LMDB.
#ifndef DEPUTY_COMMON_WIRE_STORE_RECORD_H_
#define DEPUTY_COMMON_WIRE_STORE_RECORD_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/wire/scheme.h"

#define STORE_RECORD_VERSION 1u
#define STORE_MAX_LEVELS 8u     // primary, backup, more
#define STORE_MAX_PER_LEVEL 2u  // one ECDSA or EdDSA, one RSA
#define STORE_MAX_SLOTS 16u
#define STORE_MAX_ISSUERS 9u         // certificates after the leaf
#define STORE_MAX_STANDING 200u      // changes that stand for one subject
#define STORE_TEXT_MAX_LEN 255u      // bytes of each text of a change
#define STORE_LEAF_MAX_LEN 32768u    // bytes of a leaf
#define STORE_STAPLE_MAX_LEN 32768u  // bytes of an OCSP response
#define STORE_NAME_MAX_LEN 253u

_Static_assert(STORE_MAX_SLOTS == STORE_MAX_LEVELS * STORE_MAX_PER_LEVEL, "a slot for each");

// The longest record of each kind.
#define STORE_SLOT_LEN 91u
#define STORE_NAME_RECORD_MAX_LEN (2u + STORE_MAX_SLOTS * STORE_SLOT_LEN)
#define STORE_CHAIN_RECORD_MAX_LEN (144u + 32u * STORE_MAX_ISSUERS + STORE_LEAF_MAX_LEN)
#define STORE_STAPLE_RECORD_MAX_LEN (26u + STORE_STAPLE_MAX_LEN)
#define STORE_STATE_RECORD_MAX_LEN (13u + 8u * STORE_MAX_STANDING)
#define STORE_CHANGE_RECORD_MAX_LEN (42u + 4u * (1u + STORE_TEXT_MAX_LEN))
#define STORE_CA_RECORD_MAX_LEN (2u + STORE_TEXT_MAX_LEN)
#define STORE_REVOKED_RECORD_MAX_LEN 18u

// What a leaf says of itself, as both chains and names keep it.
struct store_facts {
  enum key_kind kind;
  bool has_delegation_usage;
  bool has_digital_signature;
  bool is_must_staple;
  int64_t not_before_s;
  int64_t not_after_s;
  uint8_t key_id[32];  // as struct cert_info
  uint8_t ca_id[32];
};

// A chain of a name: all that the choice for a handshake needs but states, staple
// and revocation, so that one look-up gives it.
struct store_slot {
  uint8_t level;
  uint64_t chain_id;
  struct store_facts facts;
};

// Slots are in the order in which they are tried: by level; within one the chain that
// is not RSA first.
struct store_name {
  size_t num_slots;
  struct store_slot slots[STORE_MAX_SLOTS];
};

struct store_chain {
  struct store_facts facts;
  int64_t added_s;
  uint8_t leaf_sha256[32];
  uint8_t ski[20];
  size_t num_issuers;
  struct bytes issuers;  // 32 bytes for each: the SHA-256 under which it is kept
  struct bytes leaf;     // DER
};

struct store_staple {
  int64_t this_update_s;
  int64_t next_update_s;
  int64_t fetched_s;
  struct bytes response;  // DER
};

// What a subject's changes that stand say together, as struct state; until `until_s`
// (0: no end), when one of them ends and the rest must be added up again.
struct store_words {
  uint8_t service;    // enum state_service
  uint8_t preferred;  // 0: silent, else 1 + level
  bool is_dc_off;
  bool is_compromised;
  int64_t until_s;
};

struct store_state {
  struct store_words words;
  size_t num_standing;
  uint64_t standing[STORE_MAX_STANDING];  // ids of changes, ascending
};

#define STORE_LEAVE 0xffu  // preferred, dc: nothing is said of it

// One change of states, as struct state_change; texts are borrowed.
struct store_change {
  uint8_t level;  // enum state_level
  uint8_t service;
  uint8_t preferred;
  uint8_t dc;  // 0 off, 1 on
  bool is_compromised;
  bool is_undone;
  int64_t author_uid;  // -1: not known
  int64_t at_s;
  int64_t until_s;  // 0: no end
  int64_t undone_at_s;
  struct bytes subject;  // a name; 32 bytes of id; empty for the fleet
  struct bytes reason;
  struct bytes author;
  struct bytes undone_by;
};

struct store_ca {
  struct bytes issuer;  // its name, for people
};

struct store_revoked {
  int64_t since_s;
  uint8_t reason;  // RFC 5280, section 5.3.1
  int64_t noted_s;
};

// Each pair is inverse: what decodes encodes to the same bytes.
//   decode: STATUS_FORMAT (damaged, or something that no writer writes), STATUS_LIMIT,
//           STATUS_REFUSED (a version that this program does not know). *out is then
//           undefined.
//   encode: STATUS_LIMIT when `max` is too small or a run is too long.
enum status store_name_decode(struct store_name *out, struct bytes in);
enum status store_name_encode(uint8_t *out, size_t max, size_t *out_len,
                              const struct store_name *name);
enum status store_chain_decode(struct store_chain *out, struct bytes in);
enum status store_chain_encode(uint8_t *out, size_t max, size_t *out_len,
                               const struct store_chain *chain);
enum status store_staple_decode(struct store_staple *out, struct bytes in);
enum status store_staple_encode(uint8_t *out, size_t max, size_t *out_len,
                                const struct store_staple *staple);
enum status store_state_decode(struct store_state *out, struct bytes in);
enum status store_state_encode(uint8_t *out, size_t max, size_t *out_len,
                               const struct store_state *state);
// store_words_decode reads only the words, for handshakes.
enum status store_words_decode(struct store_words *out, struct bytes in);
enum status store_change_decode(struct store_change *out, struct bytes in);
enum status store_change_encode(uint8_t *out, size_t max, size_t *out_len,
                                const struct store_change *change);
enum status store_ca_decode(struct store_ca *out, struct bytes in);
enum status store_ca_encode(uint8_t *out, size_t max, size_t *out_len, const struct store_ca *ca);
enum status store_revoked_decode(struct store_revoked *out, struct bytes in);
enum status store_revoked_encode(uint8_t *out, size_t max, size_t *out_len,
                                 const struct store_revoked *revoked);

// store_facts_equal: the same, to the last bit?
bool store_facts_equal(const struct store_facts *a, const struct store_facts *b);

// store_slot_comes_before is the order of a name's slots; false both ways for two that
// cannot stand beside each other.
bool store_slot_comes_before(const struct store_slot *a, const struct store_slot *b);

#endif  // DEPUTY_COMMON_WIRE_STORE_RECORD_H_
