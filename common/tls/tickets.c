// SPDX-License-Identifier: Apache-2.0
// A ticket, as bytes:
//
//   name (16) | nonce (12) | AES-256-GCM of (session | ends_s (8) | leaf_sha256 (32)) | tag (16)
//
// with the name as associated data. Nonces are random: of one key far fewer than
// 2^32 tickets are made before it is rotated (NIST SP 800-38D, section 8.3).
//
// Keys live in slots that are never freed while the set lives. Handshakes read
// without a lock: a reader counts itself into a slot and then looks whether the
// slot is still in use; who rotates takes the slot out of use and then looks
// whether somebody is counted in. One of the two sees the other (both orders are
// sequentially consistent), so that no key changes under a reader, however often
// somebody rotates.
#include "common/tls/tickets.h"

#include <openssl/aead.h>
#include <openssl/bytestring.h>
#include <openssl/digest.h>
#include <openssl/err.h>
#include <openssl/hkdf.h>
#include <openssl/mem.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"

#define NAME_LEN TICKET_NAME_LEN
#define KEY_LEN 32u
#define NONCE_LEN 12u
#define TAG_LEN 16u
#define FACTS_LEN (8u + 32u)
#define OVERHEAD (NAME_LEN + NONCE_LEN + FACTS_LEN + TAG_LEN)
#define CACHE_LINE 64

// More slots than keys: a dropped key may still have a reader when the next is made.
#define NUM_SLOTS (2 * TICKET_MAX_KEYS + 2)
#define NO_SLOT 0xffu

struct slot {
  _Alignas(CACHE_LINE) _Atomic uint32_t num_readers;
  _Atomic bool is_used;
  bool is_made;  // holds a key; the rotating thread's only
  uint8_t name[NAME_LEN];
  uint8_t secret[TICKET_SECRET_LEN];  // of which name and key are; the rotating thread's only
  EVP_AEAD_CTX aead;
};

struct tickets {
  // The slots of the keys, current first, one byte each.
  _Atomic uint64_t order;
  struct ticket_hooks hooks;
  struct slot slots[NUM_SLOTS];
};

_Static_assert(TICKET_MAX_KEYS == 8, "order has a byte for each");
_Static_assert(TICKET_NUM_KEYS < TICKET_MAX_KEYS, "and for those of tickets_rotate");

static pthread_once_t index_once = PTHREAD_ONCE_INIT;
static int ctx_index = -1;

static void make_index(void) {
  ctx_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
  CHECK(ctx_index >= 0);
}

// --- keys ------------------------------------------------------------------------

static unsigned slot_at(uint64_t order, unsigned rank) {
  return (unsigned)(order >> (8 * rank)) & 0xffu;
}

// order_after is `order` with this slot before all others, of which TICKET_NUM_KEYS stay.
static uint64_t order_after(uint64_t order, unsigned first) {
  const uint64_t none = UINT64_MAX << (8 * TICKET_NUM_KEYS);

  return order << 8 | first | none;
}

static bool has_slot(uint64_t order, unsigned slot) {
  for (unsigned rank = 0; rank < TICKET_MAX_KEYS; rank++) {
    if (slot_at(order, rank) == slot) {
      return true;
    }
  }
  return false;
}

// slot_acquire borrows the key of a rank until slot_release; NULL: none there, or
// it is being dropped at this moment.
static struct slot *slot_acquire(struct tickets *tickets, unsigned rank) {
  const unsigned index = slot_at(atomic_load(&tickets->order), rank);
  struct slot *slot;

  if (index == NO_SLOT) {
    return NULL;
  }
  slot = &tickets->slots[index];
  atomic_fetch_add(&slot->num_readers, 1);
  if (!atomic_load(&slot->is_used)) {
    atomic_fetch_sub(&slot->num_readers, 1);
    return NULL;
  }
  return slot;
}

static void slot_release(struct slot *slot) { atomic_fetch_sub(&slot->num_readers, 1); }

// slot_wipe forgets the key of a slot nobody can read.
static void slot_wipe(struct slot *slot) {
  if (slot->is_made) {
    EVP_AEAD_CTX_cleanup(&slot->aead);
  }
  OPENSSL_cleanse(&slot->aead, sizeof slot->aead);
  OPENSSL_cleanse(slot->name, sizeof slot->name);
  OPENSSL_cleanse(slot->secret, sizeof slot->secret);
  slot->is_made = false;
}

// derive makes a name or a key of the secret: neither tells anything of the other.
static bool derive(uint8_t *out, size_t len, const char *what,
                   const uint8_t secret[TICKET_SECRET_LEN]) {
  return HKDF(out, len, EVP_sha256(), secret, TICKET_SECRET_LEN, NULL, 0, (const uint8_t *)what,
              strlen(what)) == 1;
}

static bool derive_name(uint8_t out[NAME_LEN], const uint8_t secret[TICKET_SECRET_LEN]) {
  return derive(out, NAME_LEN, "deputy ticket key name", secret);
}

static enum status slot_fill(struct slot *slot, const uint8_t secret[TICKET_SECRET_LEN]) {
  uint8_t key[KEY_LEN];
  int ok;

  ok = derive_name(slot->name, secret) &&
       derive(key, sizeof key, "deputy ticket key AES-256-GCM", secret) &&
       EVP_AEAD_CTX_init(&slot->aead, EVP_aead_aes_256_gcm(), key, sizeof key, TAG_LEN, NULL);
  OPENSSL_cleanse(key, sizeof key);
  slot->is_made = ok;
  if (!ok) {
    ERR_clear_error();
    return STATUS_CRYPTO;
  }
  memcpy(slot->secret, secret, TICKET_SECRET_LEN);
  return STATUS_OK;
}

// take_free_slot wipes all slots that are out of use and unread, and returns one of
// them, or NO_SLOT.
static unsigned take_free_slot(struct tickets *tickets) {
  unsigned found = NO_SLOT;

  for (unsigned i = 0; i < NUM_SLOTS; i++) {
    struct slot *slot = &tickets->slots[i];

    if (!atomic_load(&slot->is_used) && atomic_load(&slot->num_readers) == 0) {
      slot_wipe(slot);
      found = i;
    }
  }
  return found;
}

// put_key makes a key in a free slot. Nobody reads it before it is in the order.
static enum status put_key(unsigned *out, struct tickets *tickets,
                           const uint8_t secret[TICKET_SECRET_LEN]) {
  const unsigned slot = take_free_slot(tickets);
  enum status st = STATUS_OK;

  if (slot == NO_SLOT) {
    return STATUS_AGAIN;  // a thread has slept in each of them: next time
  }
  st = slot_fill(&tickets->slots[slot], secret);
  if (st == STATUS_OK) {
    atomic_store(&tickets->slots[slot].is_used, true);
    *out = slot;
  }
  return st;
}

// put_order makes this the order; slots that are not in it go out of use.
static void put_order(struct tickets *tickets, uint64_t order) {
  atomic_store(&tickets->order, order);
  for (unsigned i = 0; i < NUM_SLOTS; i++) {
    if (!has_slot(order, i)) {
      atomic_store(&tickets->slots[i].is_used, false);
    }
  }
}

enum status tickets_rotate(struct tickets *tickets) {
  enum status st = STATUS_OK;
  const uint64_t order = atomic_load(&tickets->order);
  uint8_t secret[TICKET_SECRET_LEN];
  unsigned next = NO_SLOT;

  RAND_bytes(secret, sizeof secret);
  TRY(put_key(&next, tickets, secret));
  put_order(tickets, order_after(order, next));

out:
  OPENSSL_cleanse(secret, sizeof secret);
  return st;
}

// find_key finds the slot of a key that is in use, or NO_SLOT.
static unsigned find_key(const struct tickets *tickets, const uint8_t name[NAME_LEN]) {
  for (unsigned i = 0; i < NUM_SLOTS; i++) {
    if (atomic_load(&tickets->slots[i].is_used) &&
        memcmp(tickets->slots[i].name, name, NAME_LEN) == 0) {
      return i;
    }
  }
  return NO_SLOT;
}

enum status tickets_set(struct tickets *tickets, const uint8_t *const *secrets, size_t num,
                        size_t current) {
  enum status st = STATUS_OK;
  const uint64_t before = atomic_load(&tickets->order);
  uint64_t order = UINT64_MAX;

  CHECK(num > 0 && num <= TICKET_MAX_KEYS && current < num);
  for (size_t i = 0; i < num; i++) {
    // The current one last, as each is put before the others.
    const uint8_t *secret = secrets[(current + 1 + i) % num];
    uint8_t name[NAME_LEN];
    unsigned slot = NO_SLOT;

    TRY(derive_name(name, secret) ? STATUS_OK : STATUS_CRYPTO);
    slot = find_key(tickets, name);
    if (slot == NO_SLOT) {
      TRY(put_key(&slot, tickets, secret));
    }
    order = order << 8 | slot;
  }

out:
  // On failure the new ones go again, and all is as it was.
  put_order(tickets, st == STATUS_OK ? order : before);
  return st;
}

size_t tickets_copy_secrets(const struct tickets *tickets,
                            uint8_t out[TICKET_MAX_KEYS][TICKET_SECRET_LEN]) {
  const uint64_t order = atomic_load(&tickets->order);
  size_t num = 0;

  for (unsigned rank = TICKET_MAX_KEYS; rank-- > 0;) {
    const unsigned slot = slot_at(order, rank);
    if (slot != NO_SLOT) {
      memcpy(out[num++], tickets->slots[slot].secret, TICKET_SECRET_LEN);
    }
  }
  return num;
}

const uint8_t *tickets_key_name(const struct tickets *tickets) {
  return tickets->slots[slot_at(atomic_load(&tickets->order), 0)].name;
}

enum status tickets_new(struct tickets **out, const struct ticket_hooks *hooks) {
  enum status st = STATUS_OK;
  struct tickets *tickets = aligned_alloc(CACHE_LINE, sizeof *tickets);

  *out = NULL;
  if (tickets == NULL) {
    return STATUS_MEMORY;
  }
  memset(tickets, 0, sizeof *tickets);
  tickets->hooks = *hooks;
  atomic_init(&tickets->order, UINT64_MAX);
  TRY(tickets_rotate(tickets));
  *out = tickets;
  tickets = NULL;

out:
  tickets_free(tickets);
  return st;
}

void tickets_free(struct tickets *tickets) {
  if (tickets == NULL) {
    return;
  }
  for (unsigned i = 0; i < NUM_SLOTS; i++) {
    slot_wipe(&tickets->slots[i]);
  }
  free(tickets);
}

// --- sealing -----------------------------------------------------------------------

static struct tickets *tickets_of(const SSL *ssl) {
  return SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), ctx_index);
}

static void write_facts(uint8_t out[FACTS_LEN], const struct ticket_facts *facts) {
  uint64_t ends_s = (uint64_t)facts->ends_s;

  for (int i = 0; i < 8; i++) {
    out[i] = (uint8_t)(ends_s >> (56 - 8 * i));
  }
  memcpy(out + 8, facts->leaf_sha256, sizeof facts->leaf_sha256);
}

static bool read_facts(struct ticket_facts *out, const uint8_t in[FACTS_LEN]) {
  CBS cbs;
  uint64_t ends_s = 0;

  CBS_init(&cbs, in, FACTS_LEN);
  if (!CBS_get_u64(&cbs, &ends_s) ||
      !CBS_copy_bytes(&cbs, out->leaf_sha256, sizeof out->leaf_sha256)) {
    return false;
  }
  out->ends_s = (int64_t)ends_s;
  return true;
}

static size_t on_max_overhead(SSL *ssl) {
  (void)ssl;
  return OVERHEAD;
}

static int on_seal(SSL *ssl, uint8_t *out, size_t *out_len, size_t max, const uint8_t *in,
                   size_t len) {
  struct tickets *tickets = tickets_of(ssl);
  struct ticket_facts facts = {0};
  uint8_t *nonce = out + NAME_LEN;
  uint8_t *body = nonce + NONCE_LEN;
  size_t sealed_len = 0;
  struct slot *slot;
  int ok;

  if (tickets == NULL || max < OVERHEAD || max - OVERHEAD < len) {
    return 0;
  }
  tickets->hooks.on_seal(ssl, &facts);
  do {
    slot = slot_acquire(tickets, 0);  // once more if it was dropped meanwhile
  } while (slot == NULL);
  memcpy(out, slot->name, NAME_LEN);
  RAND_bytes(nonce, NONCE_LEN);
  memcpy(body, in, len);
  write_facts(body + len, &facts);
  ok = EVP_AEAD_CTX_seal(&slot->aead, body, &sealed_len, max - NAME_LEN - NONCE_LEN, nonce,
                         NONCE_LEN, body, len + FACTS_LEN, out, NAME_LEN);
  slot_release(slot);
  *out_len = NAME_LEN + NONCE_LEN + sealed_len;
  return ok;
}

// --- opening -----------------------------------------------------------------------

// open_by tries the key of one rank. Nothing is written unless it opened.
static bool open_by(struct tickets *tickets, unsigned rank, uint8_t *out, size_t *out_len,
                    size_t max, const uint8_t *in, size_t len) {
  struct slot *slot = slot_acquire(tickets, rank);
  const uint8_t *nonce = in + NAME_LEN;
  bool is_open = false;

  if (slot == NULL) {
    return false;
  }
  if (memcmp(in, slot->name, NAME_LEN) == 0) {  // names are no secret
    is_open = EVP_AEAD_CTX_open(&slot->aead, out, out_len, max, nonce, NONCE_LEN, nonce + NONCE_LEN,
                                len - NAME_LEN - NONCE_LEN, in, NAME_LEN);
  }
  slot_release(slot);
  return is_open;
}

static enum ssl_ticket_aead_result_t on_open(SSL *ssl, uint8_t *out, size_t *out_len, size_t max,
                                             const uint8_t *in, size_t len) {
  struct tickets *tickets = tickets_of(ssl);
  struct ticket_facts facts = {0};
  size_t opened_len = 0;
  bool is_open = false;

  // Whatever is wrong with a ticket, the client gets a full handshake: it may be a
  // day old, of another host, or forged, and none of these is an error here.
  if (tickets == NULL || len < OVERHEAD) {
    return ssl_ticket_aead_ignore_ticket;
  }
  for (unsigned rank = 0; rank < TICKET_MAX_KEYS && !is_open; rank++) {
    is_open = open_by(tickets, rank, out, &opened_len, max, in, len);
  }
  ERR_clear_error();
  if (!is_open || opened_len < FACTS_LEN || !read_facts(&facts, out + opened_len - FACTS_LEN)) {
    return ssl_ticket_aead_ignore_ticket;
  }
  if (clock_wall_s() >= facts.ends_s || !tickets->hooks.may_resume(ssl, &facts)) {
    return ssl_ticket_aead_ignore_ticket;
  }
  *out_len = opened_len - FACTS_LEN;
  return ssl_ticket_aead_success;
}

static const SSL_TICKET_AEAD_METHOD ticket_method = {
    .max_overhead = on_max_overhead,
    .seal = on_seal,
    .open = on_open,
};

enum status tickets_attach(SSL_CTX *ctx, struct tickets *tickets, uint32_t lifetime_s) {
  (void)pthread_once(&index_once, make_index);
  if (!SSL_CTX_set_ex_data(ctx, ctx_index, tickets)) {
    return STATUS_MEMORY;
  }
  // Sessions kept by id (TLS 1.2) would pass by the hooks.
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_timeout(ctx, lifetime_s);                  // TLS 1.2
  SSL_CTX_set_session_psk_dhe_timeout(ctx, lifetime_s);  // TLS 1.3
  SSL_CTX_set_ticket_aead_method(ctx, &ticket_method);
  return STATUS_OK;
}
