// SPDX-License-Identifier: Apache-2.0
#include "bench/tls13_client.h"

#include <openssl/curve25519.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/wire/scheme.h"

#define MESSAGE_HEADER_LEN 4U
#define SIGNED_TEXT "TLS 1.3, server CertificateVerify"

enum content_type {
  CONTENT_CHANGE_CIPHER_SPEC = 20,
  CONTENT_ALERT = 21,
  CONTENT_HANDSHAKE = 22,
  CONTENT_DATA = 23,
};

struct tls13_shared {
  struct tls13_options options;
  struct tls13_hello *hellos;  // one for each name
  struct peers *peers;
  uint8_t private_key[32];
  uint8_t public_key[32];
  uint64_t num_full;                 // handshakes that reached CertificateVerify
  struct tls13_secret derived[2];    // of the early secret without a PSK, by hash length
  const struct tls13_suite *any[2];  // a suite of that hash
};

static const uint8_t base_point[32] = {9};

// --- shared ------------------------------------------------------------------

static size_t hash_index(const struct tls13_suite *suite) { return suite->hash_len == 32 ? 0 : 1; }

static enum status derive_without_psk(struct tls13_shared *shared) {
  enum status st = STATUS_OK;
  shared->any[0] = tls13_suite_find(0x1301);
  shared->any[1] = tls13_suite_find(0x1302);
  for (size_t i = 0; i < 2; i++) {
    struct tls13_secret early;
    TRY(tls13_extract(shared->any[i], &early, NULL, (struct bytes){0}));
    TRY(tls13_derive(shared->any[i], &shared->derived[i], &early, "derived", NULL));
  }

out:
  return st;
}

static enum status write_hellos(struct tls13_shared *shared, struct errmsg *err) {
  const struct tls13_options *options = &shared->options;
  for (size_t i = 0; i < options->num_names; i++) {
    const struct tls13_hello_options hello = {.name = options->names[i],
                                              .alpn = options->alpn,
                                              .offers_dc = options->offers_dc,
                                              .offers_staple = options->offers_staple,
                                              .suites = options->suites,
                                              .num_suites = options->num_suites};
    enum status st = tls13_hello_init(&shared->hellos[i], &hello);
    if (st != STATUS_OK) {
      return errmsg_set(err, st, "no ClientHello can be made for the name \"%.300s\"",
                        options->names[i]);
    }
  }
  return STATUS_OK;
}

enum status tls13_shared_new(struct tls13_shared **out, const struct tls13_options *options,
                             struct errmsg *err) {
  enum status st = STATUS_OK;
  struct tls13_shared *shared = NULL;

  CHECK(options->num_suites > 0 && options->num_suites <= TLS13_MAX_SUITES);
  if (options->num_names == 0 || options->num_names > TLS13_MAX_NAMES) {
    return errmsg_set(err, STATUS_LIMIT, "%zu server names; there may be 1 to %u",
                      options->num_names, TLS13_MAX_NAMES);
  }
  shared = calloc(1, sizeof(*shared));
  if (shared == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  shared->options = *options;
  shared->hellos = calloc(options->num_names, sizeof(*shared->hellos));
  if (shared->hellos == NULL) {
    st = STATUS_MEMORY;
    goto out;
  }
  TRY(peers_new(&shared->peers));
  TRY(derive_without_psk(shared));
  TRY(write_hellos(shared, err));
  X25519_keypair(shared->public_key, shared->private_key);
  if (options->share == TLS13_SHARE_BASE) {
    memcpy(shared->public_key, base_point, sizeof(base_point));
  }
  shared->options.names = NULL;
  *out = shared;
  shared = NULL;

out:
  tls13_shared_free(shared);
  return st;
}

void tls13_shared_free(struct tls13_shared *shared) {
  if (shared == NULL) {
    return;
  }
  for (size_t i = 0; shared->hellos != NULL && i < shared->options.num_names; i++) {
    tls13_hello_cleanup(&shared->hellos[i]);
  }
  free(shared->hellos);
  peers_free(shared->peers);
  free(shared);
}

// --- small helpers -------------------------------------------------------------

static enum tls13_fault fail(struct tls13_client *c, enum tls13_fault fault) {
  c->state = TLS13_CLIENT_FAILED;
  c->fault = fault;
  return fault;
}

// What is left when a primitive fails is want of memory.
static enum tls13_fault fault_of(enum status st) {
  return st == STATUS_OK ? TLS13_OK : TLS13_FAULT_MEMORY;
}

static enum tls13_fault seal(struct tls13_client *c, enum content_type type, struct bytes content,
                             struct buffer *out) {
  const size_t len = tls13_sealed_len(content.len);
  if (buffer_reserve(out, len) != STATUS_OK ||
      tls13_record_seal(&c->write, out->data + out->len, (uint8_t)type, content) != STATUS_OK) {
    return fail(c, TLS13_FAULT_MEMORY);
  }
  out->len += len;
  return TLS13_OK;
}

// --- the handshake, message by message -----------------------------------------

// RFC 8446, section 7.1: from the early secret to the keys of the handshake.
static enum status derive_handshake(struct tls13_client *c, const uint8_t ecdhe[32]) {
  enum status st = STATUS_OK;
  struct tls13_secret derived;
  struct tls13_secret hash;

  if (c->is_resumed) {
    TRY(tls13_derive(c->suite, &derived, &c->psk_early, "derived", NULL));
  } else {
    derived = c->shared->derived[hash_index(c->suite)];
  }
  TRY(tls13_extract(c->suite, &c->handshake, &derived, bytes_of(ecdhe, 32)));
  tls13_transcript_hash(&c->transcript, &hash);
  TRY(tls13_derive(c->suite, &c->client_handshake, &c->handshake, "c hs traffic", &hash));
  TRY(tls13_derive(c->suite, &c->server_handshake, &c->handshake, "s hs traffic", &hash));
  TRY(tls13_traffic_start(&c->read, c->suite, &c->server_handshake));

out:
  return st;
}

static bool derive_ecdhe(const struct tls13_client *c, uint8_t out[32], const uint8_t share[32]) {
  switch (c->shared->options.share) {
    case TLS13_SHARE_FRESH:
      return X25519(out, c->private_key, share) == 1;
    case TLS13_SHARE_REUSED:
      return X25519(out, c->shared->private_key, share) == 1;
    case TLS13_SHARE_BASE:
      memcpy(out, share, 32);
      return true;
  }
  return false;
}

static bool was_offered(const struct tls13_client *c, const struct tls13_suite *suite) {
  for (size_t i = 0; i < c->shared->options.num_suites; i++) {
    if (c->shared->options.suites[i] == suite) {
      return true;
    }
  }
  return false;
}

static enum tls13_fault check_server_hello(struct tls13_client *c,
                                           const struct tls13_server_hello *hello) {
  // Section 4.1.3. An older version shows itself by its want of supported_versions.
  if (hello->version != 0x0304) {
    return TLS13_FAULT_VERSION;
  }
  if (hello->is_retry) {
    return TLS13_FAULT_RETRY;
  }
  c->suite = tls13_suite_find(hello->suite);
  if (c->suite == NULL || !was_offered(c, c->suite)) {
    return TLS13_FAULT_SUITE;
  }
  if (!bytes_equal(hello->session_id, bytes_of(c->session_id, sizeof(c->session_id)))) {
    return TLS13_FAULT_DECODE;
  }
  if (hello->group != TLS13_GROUP_X25519 || hello->share.len != 32) {
    return TLS13_FAULT_GROUP;
  }
  if (hello->has_psk &&
      (c->psk_suite == NULL || hello->psk != 0 || c->psk_suite->hash_len != c->suite->hash_len)) {
    return TLS13_FAULT_PSK;
  }
  return TLS13_OK;
}

static enum tls13_fault on_server_hello(struct tls13_client *c, struct bytes message,
                                        struct bytes body) {
  struct tls13_server_hello hello;
  uint8_t ecdhe[32];
  enum tls13_fault fault = tls13_server_hello_decode(&hello, body);
  if (fault == TLS13_OK) {
    fault = check_server_hello(c, &hello);
  }
  if (fault != TLS13_OK) {
    return fault;
  }
  c->is_resumed = hello.has_psk;
  tls13_transcript_init(&c->transcript, c->suite);
  tls13_transcript_add(&c->transcript, tls13_hello_message(&c->hello));
  tls13_transcript_add(&c->transcript, message);
  if (!derive_ecdhe(c, ecdhe, hello.share.data)) {
    return TLS13_FAULT_GROUP;  // section 7.4.2: not the all-zero secret
  }
  c->state = TLS13_CLIENT_EXTENSIONS;
  return fault_of(derive_handshake(c, ecdhe));
}

static enum tls13_fault on_extensions(struct tls13_client *c, struct bytes message,
                                      struct bytes body) {
  struct tls13_encrypted_extensions extensions;
  const enum tls13_fault fault = tls13_encrypted_extensions_decode(&extensions, body);
  tls13_transcript_add(&c->transcript, message);
  c->state = c->is_resumed ? TLS13_CLIENT_FINISHED : TLS13_CLIENT_CERTIFICATE;
  return fault;
}

static enum tls13_fault on_certificate(struct tls13_client *c, struct bytes message,
                                       struct bytes body) {
  struct tls13_certificate certificate;
  const enum tls13_fault fault = tls13_certificate_decode(&certificate, body);
  if (fault != TLS13_OK) {
    return fault;
  }
  if (certificate.dc.data != NULL && !c->shared->options.offers_dc) {
    return TLS13_FAULT_DC_UNASKED;
  }
  switch (peers_find(c->shared->peers, &c->peer, certificate.leaf, certificate.dc)) {
    case STATUS_OK:
      break;
    case STATUS_FORMAT:
      return TLS13_FAULT_CERTIFICATE;
    default:
      return TLS13_FAULT_MEMORY;
  }
  c->has_dc = certificate.dc.data != NULL;
  c->has_staple = certificate.staple.data != NULL;
  c->dc_fault = peer_dc_fault(c->peer, c->has_dc ? clock_wall_s() : 0);
  if (c->dc_fault != DC_FAULT_NONE) {
    return TLS13_FAULT_DC;
  }
  tls13_transcript_add(&c->transcript, message);
  c->state = TLS13_CLIENT_VERIFY;
  return TLS13_OK;
}

// Section 4.4.3: 64 spaces, the context, 0, the transcript's hash.
static enum tls13_fault check_signature(struct tls13_client *c, const struct scheme *scheme,
                                        EVP_PKEY *key, struct bytes signature) {
  uint8_t input[64 + sizeof(SIGNED_TEXT) + TLS13_MAX_HASH_LEN];
  struct tls13_secret hash;
  memset(input, 0x20, 64);
  memcpy(input + 64, SIGNED_TEXT, sizeof(SIGNED_TEXT));  // with its zero
  tls13_transcript_hash(&c->transcript, &hash);
  memcpy(input + 64 + sizeof(SIGNED_TEXT), hash.data, c->suite->hash_len);
  const struct bytes signed_bytes = bytes_of(input, 64 + sizeof(SIGNED_TEXT) + c->suite->hash_len);
  if (scheme_verify(scheme, key, signed_bytes, signature) != STATUS_OK) {
    ERR_clear_error();
    return TLS13_FAULT_SIGNATURE;
  }
  c->is_verified = true;
  return TLS13_OK;
}

static enum tls13_fault on_certificate_verify(struct tls13_client *c, struct bytes message,
                                              struct bytes body) {
  struct tls13_certificate_verify verify;
  enum tls13_fault fault = tls13_certificate_verify_decode(&verify, body);
  if (fault != TLS13_OK) {
    return fault;
  }
  const struct scheme *scheme = scheme_find(verify.scheme);
  c->verify_scheme = verify.scheme;
  // RFC 9345, section 4.1.3: with a DC, exactly its scheme.
  if (scheme == NULL || (c->has_dc ? verify.scheme != c->peer->dc_scheme
                                   : !scheme_fits_tls13(scheme, c->peer->leaf_kind))) {
    return TLS13_FAULT_SCHEME;
  }
  const uint32_t every = c->shared->options.verify_every;
  if (every != 0 && c->shared->num_full++ % every == 0) {
    fault = check_signature(c, scheme, c->has_dc ? c->peer->dc_key : c->peer->leaf_key,
                            verify.signature);
  }
  tls13_transcript_add(&c->transcript, message);
  c->state = TLS13_CLIENT_FINISHED;
  return fault;
}

static enum status derive_application(struct tls13_client *c) {
  enum status st = STATUS_OK;
  struct tls13_secret derived;
  struct tls13_secret traffic;

  TRY(tls13_derive(c->suite, &derived, &c->handshake, "derived", NULL));
  TRY(tls13_extract(c->suite, &c->master, &derived, (struct bytes){0}));
  tls13_transcript_hash(&c->transcript, &c->server_finished_hash);
  TRY(tls13_derive(c->suite, &traffic, &c->master, "c ap traffic", &c->server_finished_hash));
  TRY(tls13_traffic_start(&c->write, c->suite, &traffic));
  // The key for reading waits for a byte to read: many connections end here.
  tls13_traffic_cleanup(&c->read);

out:
  return st;
}

// Our ChangeCipherSpec (middlebox compatibility, as browsers do) and Finished.
static enum tls13_fault send_finished(struct tls13_client *c, struct buffer *out) {
  static const uint8_t change_cipher_spec[] = {CONTENT_CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1};
  uint8_t message[MESSAGE_HEADER_LEN + TLS13_MAX_HASH_LEN] = {TLS13_FINISHED, 0, 0,
                                                              (uint8_t)c->suite->hash_len};
  const struct bytes content = bytes_of(message, MESSAGE_HEADER_LEN + c->suite->hash_len);
  struct tls13_secret mac;
  struct tls13_secret hash;
  tls13_transcript_hash(&c->transcript, &hash);
  if (tls13_finished(c->suite, &mac, &c->client_handshake, &hash) != STATUS_OK ||
      tls13_traffic_start(&c->write, c->suite, &c->client_handshake) != STATUS_OK ||
      buffer_add(out, bytes_of(change_cipher_spec, sizeof(change_cipher_spec))) != STATUS_OK) {
    return TLS13_FAULT_MEMORY;
  }
  memcpy(message + MESSAGE_HEADER_LEN, mac.data, c->suite->hash_len);
  const enum tls13_fault fault = seal(c, CONTENT_HANDSHAKE, content, out);
  if (fault == TLS13_OK && derive_application(c) != STATUS_OK) {
    return TLS13_FAULT_MEMORY;
  }
  tls13_transcript_add(&c->transcript, content);  // for the resumption master secret
  return fault;
}

static enum tls13_fault on_finished(struct tls13_client *c, struct bytes message, struct bytes body,
                                    struct buffer *out) {
  struct tls13_secret expected;
  struct tls13_secret hash;
  tls13_transcript_hash(&c->transcript, &hash);
  if (tls13_finished(c->suite, &expected, &c->server_handshake, &hash) != STATUS_OK) {
    return TLS13_FAULT_MEMORY;
  }
  if (body.len != c->suite->hash_len || CRYPTO_memcmp(body.data, expected.data, body.len) != 0) {
    return TLS13_FAULT_FINISHED;
  }
  tls13_transcript_add(&c->transcript, message);
  c->state = TLS13_CLIENT_DONE;
  return send_finished(c, out);
}

// --- after the handshake ---------------------------------------------------------

static enum tls13_fault on_ticket(struct tls13_client *c, struct bytes body) {
  struct tls13_new_session_ticket message;
  struct tls13_ticket ticket;
  if (c->shared->options.on_ticket == NULL) {
    return TLS13_OK;
  }
  const enum tls13_fault fault = tls13_new_session_ticket_decode(&message, body);
  if (fault != TLS13_OK) {
    return fault;
  }
  if (message.ticket.len > sizeof(ticket.ticket) || message.lifetime_s == 0 ||
      message.nonce.len > TLS13_MAX_HASH_LEN) {
    return TLS13_OK;  // nothing for us; the caller sees that no ticket came
  }
  if (!c->has_resumption_master) {
    struct tls13_secret hash;
    tls13_transcript_hash(&c->transcript, &hash);
    if (tls13_derive(c->suite, &c->resumption_master, &c->master, "res master", &hash) !=
        STATUS_OK) {
      return TLS13_FAULT_MEMORY;
    }
    c->has_resumption_master = true;
  }
  // Section 4.6.1.
  if (tls13_expand_label(c->suite, ticket.psk.data, c->suite->hash_len, &c->resumption_master,
                         "resumption", message.nonce) != STATUS_OK) {
    return TLS13_FAULT_MEMORY;
  }
  ticket.suite = c->suite;
  ticket.lifetime_s = message.lifetime_s;
  ticket.age_add = message.age_add;
  ticket.received_ms = clock_monotonic_ms();
  ticket.ticket_len = message.ticket.len;
  memcpy(ticket.ticket, message.ticket.data, message.ticket.len);
  c->shared->options.on_ticket(c, &ticket);
  return TLS13_OK;
}

static enum tls13_fault on_message(struct tls13_client *c, struct bytes message,
                                   struct buffer *out) {
  static const uint8_t expected[] = {
      [TLS13_CLIENT_SERVER_HELLO] = TLS13_SERVER_HELLO,
      [TLS13_CLIENT_EXTENSIONS] = TLS13_ENCRYPTED_EXTENSIONS,
      [TLS13_CLIENT_CERTIFICATE] = TLS13_CERTIFICATE,
      [TLS13_CLIENT_VERIFY] = TLS13_CERTIFICATE_VERIFY,
      [TLS13_CLIENT_FINISHED] = TLS13_FINISHED,
  };
  const uint8_t type = message.data[0];
  const struct bytes body =
      bytes_of(message.data + MESSAGE_HEADER_LEN, message.len - MESSAGE_HEADER_LEN);
  if (c->state == TLS13_CLIENT_DONE) {
    switch (type) {
      case TLS13_NEW_SESSION_TICKET:
        return on_ticket(c, body);
      case TLS13_KEY_UPDATE:
        return TLS13_FAULT_KEY_UPDATE;
      default:
        return TLS13_FAULT_UNEXPECTED;
    }
  }
  if (type != expected[c->state]) {
    return c->state == TLS13_CLIENT_CERTIFICATE && type == TLS13_CERTIFICATE_REQUEST
               ? TLS13_FAULT_CERTIFICATE_REQUEST
               : TLS13_FAULT_UNEXPECTED;
  }
  switch (c->state) {
    case TLS13_CLIENT_SERVER_HELLO:
      return on_server_hello(c, message, body);
    case TLS13_CLIENT_EXTENSIONS:
      return on_extensions(c, message, body);
    case TLS13_CLIENT_CERTIFICATE:
      return on_certificate(c, message, body);
    case TLS13_CLIENT_VERIFY:
      return on_certificate_verify(c, message, body);
    default:
      return on_finished(c, message, body, out);
  }
}

// Takes whole messages off the front of `in`; *out_used says how much.
static enum tls13_fault take_messages(struct tls13_client *c, struct bytes in, size_t *out_used,
                                      struct buffer *out) {
  size_t at = 0;
  while (in.len - at >= MESSAGE_HEADER_LEN) {
    const uint8_t *p = in.data + at;
    const size_t len = MESSAGE_HEADER_LEN + ((size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3]);
    if (len > TLS13_MAX_MESSAGE_LEN) {
      return TLS13_FAULT_TOO_LONG;
    }
    if (in.len - at < len) {
      break;
    }
    const bool is_key_change =
        c->state == TLS13_CLIENT_SERVER_HELLO || c->state == TLS13_CLIENT_FINISHED;
    const enum tls13_fault fault = on_message(c, bytes_of(p, len), out);
    if (fault != TLS13_OK) {
      return fault;
    }
    at += len;
    // Section 5.1: no message may lie across a change of keys.
    if (is_key_change && at != in.len) {
      return TLS13_FAULT_UNEXPECTED;
    }
  }
  *out_used = at;
  return TLS13_OK;
}

static enum tls13_fault on_handshake(struct tls13_client *c, struct bytes in, struct buffer *out) {
  size_t used = 0;
  enum tls13_fault fault = TLS13_OK;
  if (in.len == 0) {
    return TLS13_FAULT_UNEXPECTED;  // section 5.1: no empty fragments
  }
  if (c->message.len == 0) {
    fault = take_messages(c, in, &used, out);
    if (fault == TLS13_OK &&
        buffer_add(&c->message, bytes_of(in.data + used, in.len - used)) != STATUS_OK) {
      fault = TLS13_FAULT_MEMORY;
    }
    return fault;
  }
  if (buffer_add(&c->message, in) != STATUS_OK) {
    return TLS13_FAULT_MEMORY;
  }
  fault = take_messages(c, bytes_of(c->message.data, c->message.len), &used, out);
  if (fault == TLS13_OK) {
    buffer_drop(&c->message, used);
  }
  return fault;
}

// --- records ---------------------------------------------------------------------

static enum tls13_fault on_alert(struct tls13_client *c, struct bytes content) {
  if (content.len != 2) {
    return TLS13_FAULT_DECODE;
  }
  c->alert = content.data[1];
  if (c->alert == 0 && c->state == TLS13_CLIENT_DONE) {
    c->is_peer_closed = true;
    return TLS13_OK;
  }
  return TLS13_FAULT_ALERT;
}

static enum status start_reading(struct tls13_client *c) {
  enum status st = STATUS_OK;
  struct tls13_secret traffic;

  TRY(tls13_derive(c->suite, &traffic, &c->master, "s ap traffic", &c->server_finished_hash));
  TRY(tls13_traffic_start(&c->read, c->suite, &traffic));

out:
  return st;
}

static enum tls13_fault on_protected(struct tls13_client *c, uint8_t *record, size_t len,
                                     struct buffer *out) {
  uint8_t type = 0;
  struct bytes content = {0};
  if (c->state == TLS13_CLIENT_SERVER_HELLO || len < tls13_sealed_len(0)) {
    return TLS13_FAULT_UNEXPECTED;
  }
  if (!c->read.is_on && start_reading(c) != STATUS_OK) {
    return TLS13_FAULT_MEMORY;
  }
  if (tls13_record_open(&c->read, &type, &content, record, len) != STATUS_OK) {
    ERR_clear_error();
    return TLS13_FAULT_RECORD;
  }
  if (type != CONTENT_HANDSHAKE && c->message.len > 0) {
    return TLS13_FAULT_UNEXPECTED;  // section 5.1: fragments follow each other
  }
  switch (type) {
    case CONTENT_HANDSHAKE:
      return on_handshake(c, content, out);
    case CONTENT_ALERT:
      return on_alert(c, content);
    case CONTENT_DATA:
      if (c->state != TLS13_CLIENT_DONE) {
        return TLS13_FAULT_UNEXPECTED;
      }
      if (c->shared->options.on_data != NULL && content.len > 0) {
        c->shared->options.on_data(c, content);
      }
      return TLS13_OK;
    default:
      return TLS13_FAULT_UNEXPECTED;
  }
}

static enum tls13_fault on_record(struct tls13_client *c, uint8_t *record, size_t len,
                                  struct buffer *out) {
  const struct bytes content =
      bytes_of(record + TLS13_RECORD_HEADER_LEN, len - TLS13_RECORD_HEADER_LEN);
  const bool is_plain = c->state == TLS13_CLIENT_SERVER_HELLO;
  switch (record[0]) {
    case CONTENT_DATA:
      return on_protected(c, record, len, out);
    case CONTENT_HANDSHAKE:
      return is_plain ? on_handshake(c, content, out) : TLS13_FAULT_UNEXPECTED;
    case CONTENT_ALERT:
      return is_plain ? on_alert(c, content) : TLS13_FAULT_UNEXPECTED;
    case CONTENT_CHANGE_CIPHER_SPEC:
      // Section 5: one byte 1, dropped, until the peer's Finished.
      return content.len == 1 && content.data[0] == 1 && c->state != TLS13_CLIENT_DONE
                 ? TLS13_OK
                 : TLS13_FAULT_UNEXPECTED;
    default:
      return TLS13_FAULT_DECODE;
  }
}

// The length of the record at `data`, of which at least the header is there; 0
// when it is no record: one that speaks another protocol is not waited for.
static size_t record_len(const uint8_t *data) {
  const size_t len = (size_t)data[3] << 8 | data[4];
  const bool is_type = data[0] >= CONTENT_CHANGE_CIPHER_SPEC && data[0] <= CONTENT_DATA;
  return !is_type || len > TLS13_MAX_CIPHERTEXT_LEN ? 0 : TLS13_RECORD_HEADER_LEN + len;
}

// Completes the record of which a part is kept, and no more: what follows is
// worked on where it lies. *out_used says how much of `data` went there.
static enum tls13_fault finish_record(struct tls13_client *c, const uint8_t *data, size_t len,
                                      size_t *out_used, struct buffer *out) {
  size_t at = 0;
  size_t want = TLS13_RECORD_HEADER_LEN;
  for (int step = 0; step < 2; step++) {
    if (c->record.len < want) {
      const size_t num = len - at < want - c->record.len ? len - at : want - c->record.len;
      if (buffer_add(&c->record, bytes_of(data + at, num)) != STATUS_OK) {
        return TLS13_FAULT_MEMORY;
      }
      at += num;
    }
    *out_used = at;
    if (c->record.len < want) {
      return TLS13_OK;
    }
    want = record_len(c->record.data);
    if (want == 0) {
      return TLS13_FAULT_DECODE;
    }
  }
  c->record.len = 0;  // its bytes stay where they are until the next one
  return on_record(c, c->record.data, want, out);
}

static enum tls13_fault feed(struct tls13_client *c, uint8_t *data, size_t len,
                             struct buffer *out) {
  size_t at = 0;
  if (c->record.len > 0) {
    const enum tls13_fault fault = finish_record(c, data, len, &at, out);
    if (fault != TLS13_OK) {
      return fault;
    }
  }
  while (len - at >= TLS13_RECORD_HEADER_LEN) {
    const size_t want = record_len(data + at);
    if (want == 0) {
      return TLS13_FAULT_DECODE;
    }
    if (len - at < want) {
      break;
    }
    const enum tls13_fault fault = on_record(c, data + at, want, out);
    if (fault != TLS13_OK) {
      return fault;
    }
    at += want;
  }
  if (at < len && buffer_add(&c->record, bytes_of(data + at, len - at)) != STATUS_OK) {
    return TLS13_FAULT_MEMORY;
  }
  return TLS13_OK;
}

enum tls13_fault tls13_client_feed(struct tls13_client *client, uint8_t *data, size_t len,
                                   struct buffer *out) {
  if (client->state == TLS13_CLIENT_IDLE || client->state == TLS13_CLIENT_FAILED) {
    return fail(client, TLS13_FAULT_UNEXPECTED);
  }
  const enum tls13_fault fault = feed(client, data, len, out);
  return fault == TLS13_OK ? TLS13_OK : fail(client, fault);
}

// --- start and end ---------------------------------------------------------------

// Makes ready for another connection; buffers keep their memory.
static void reset(struct tls13_client *c, struct tls13_shared *shared) {
  tls13_traffic_cleanup(&c->read);
  tls13_traffic_cleanup(&c->write);
  c->shared = shared;
  c->state = TLS13_CLIENT_SERVER_HELLO;
  c->fault = TLS13_OK;
  c->suite = NULL;
  c->peer = NULL;
  c->is_resumed = false;
  c->has_dc = false;
  c->is_verified = false;
  c->has_staple = false;
  c->is_peer_closed = false;
  c->alert = 0;
  c->dc_fault = DC_FAULT_NONE;
  c->verify_scheme = 0;
  c->psk_suite = NULL;
  c->has_resumption_master = false;
  c->hello.len = 0;
  c->record.len = 0;
  c->message.len = 0;
}

enum tls13_fault tls13_client_start(struct tls13_client *client, struct tls13_shared *shared,
                                    uint64_t name, const struct tls13_ticket *ticket,
                                    int64_t now_ms, struct buffer *out) {
  enum status st = STATUS_OK;
  uint8_t random[64];
  uint8_t fresh[32];
  const uint8_t *share = shared->public_key;

  reset(client, shared);
  (void)RAND_bytes(random, sizeof(random));  // BoringSSL's cannot fail
  memcpy(client->session_id, random + 32, 32);
  if (shared->options.share == TLS13_SHARE_FRESH) {
    X25519_keypair(fresh, client->private_key);
    share = fresh;
  }
  TRY(tls13_hello_write(&shared->hellos[name % shared->options.num_names], &client->hello, random,
                        client->session_id, share));
  if (ticket != NULL) {
    TRY(tls13_hello_add_psk(&client->hello, &client->psk_early, ticket, now_ms));
    client->psk_suite = ticket->suite;
  }
  TRY(buffer_add(out, bytes_of(client->hello.data, client->hello.len)));

out:
  return st == STATUS_OK ? TLS13_OK : fail(client, TLS13_FAULT_MEMORY);
}

enum tls13_fault tls13_client_send(struct tls13_client *client, struct bytes data,
                                   struct buffer *out) {
  if (client->state != TLS13_CLIENT_DONE) {
    return fail(client, TLS13_FAULT_UNEXPECTED);
  }
  while (data.len > 0) {
    const size_t len = data.len < TLS13_MAX_PLAINTEXT_LEN ? data.len : TLS13_MAX_PLAINTEXT_LEN;
    const enum tls13_fault fault = seal(client, CONTENT_DATA, bytes_of(data.data, len), out);
    if (fault != TLS13_OK) {
      return fault;
    }
    data = bytes_of(data.data + len, data.len - len);
  }
  return TLS13_OK;
}

enum tls13_fault tls13_client_close(struct tls13_client *client, struct buffer *out) {
  static const uint8_t close_notify[] = {1, 0};
  if (client->state != TLS13_CLIENT_DONE) {
    return fail(client, TLS13_FAULT_UNEXPECTED);
  }
  return seal(client, CONTENT_ALERT, bytes_of(close_notify, sizeof(close_notify)), out);
}

char *tls13_client_reason(const struct tls13_client *client, char out[TLS13_REASON_LEN]) {
  switch (client->fault) {
    case TLS13_FAULT_ALERT:
      (void)snprintf(out, TLS13_REASON_LEN, "alert_%u", client->alert);
      break;
    case TLS13_FAULT_DC:
      (void)snprintf(out, TLS13_REASON_LEN, "dc_%s", dc_fault_name(client->dc_fault));
      break;
    default:
      (void)snprintf(out, TLS13_REASON_LEN, "%s", tls13_fault_name(client->fault));
      break;
  }
  return out;
}

void tls13_client_cleanup(struct tls13_client *client) {
  tls13_traffic_cleanup(&client->read);
  tls13_traffic_cleanup(&client->write);
  buffer_cleanup(&client->hello);
  buffer_cleanup(&client->record);
  buffer_cleanup(&client->message);
}
