// SPDX-License-Identifier: Apache-2.0
#include "bench/tls13_hello.h"

#include <arpa/inet.h>
#include <openssl/bytestring.h>
#include <openssl/mem.h>
#include <string.h>

// Where the template's changing bytes are: the record's header (5), the message's
// (4), legacy_version (2), random (32), the length of legacy_session_id (1), that
// (32). The key share is the last extension, its key the last 32 bytes.
#define RANDOM_OFFSET 11U
#define SESSION_ID_OFFSET 44U
#define MESSAGE_LEN_OFFSET 6U
#define RECORD_LEN_OFFSET 3U
#define SHARE_LEN 32U
#define MAX_NAME_LEN 255U

// NSS's lists: what Firefox sends (delegated-credentials, section 5.2).
static const uint16_t signature_schemes[] = {0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806,
                                             0x0401, 0x0501, 0x0601, 0x0203, 0x0201};
static const uint16_t dc_schemes[] = {0x0403, 0x0503, 0x0603, 0x0203};

bool tls13_hello_has_dc_scheme(uint16_t scheme) {
  for (size_t i = 0; i < sizeof(dc_schemes) / sizeof(dc_schemes[0]); i++) {
    if (dc_schemes[i] == scheme) {
      return true;
    }
  }
  return false;
}

static bool is_ip(const char *name) {
  uint8_t address[16];
  return inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
}

static bool add_u16_list(CBB *cbb, const uint16_t *list, size_t num) {
  CBB inner;
  bool is_ok = CBB_add_u16_length_prefixed(cbb, &inner);
  for (size_t i = 0; i < num; i++) {
    is_ok = is_ok && CBB_add_u16(&inner, list[i]);
  }
  return is_ok && CBB_flush(cbb);
}

static bool add_scheme_extension(CBB *extensions, uint16_t type, const uint16_t *list, size_t num) {
  CBB body;
  return CBB_add_u16(extensions, type) && CBB_add_u16_length_prefixed(extensions, &body) &&
         add_u16_list(&body, list, num) && CBB_flush(extensions);
}

static bool add_name(CBB *extensions, const char *name) {
  CBB body;
  CBB list;
  CBB text;
  if (name == NULL || name[0] == '\0' || is_ip(name)) {
    return true;
  }
  return CBB_add_u16(extensions, TLS13_EXT_SERVER_NAME) &&
         CBB_add_u16_length_prefixed(extensions, &body) &&
         CBB_add_u16_length_prefixed(&body, &list) && CBB_add_u8(&list, 0) &&
         CBB_add_u16_length_prefixed(&list, &text) &&
         CBB_add_bytes(&text, (const uint8_t *)name, strlen(name)) && CBB_flush(extensions);
}

static bool add_alpn(CBB *extensions, const char *alpn) {
  CBB body;
  CBB list;
  CBB text;
  if (alpn == NULL) {
    return true;
  }
  return CBB_add_u16(extensions, TLS13_EXT_ALPN) &&
         CBB_add_u16_length_prefixed(extensions, &body) &&
         CBB_add_u16_length_prefixed(&body, &list) && CBB_add_u8_length_prefixed(&list, &text) &&
         CBB_add_bytes(&text, (const uint8_t *)alpn, strlen(alpn)) && CBB_flush(extensions);
}

static bool add_fixed(CBB *extensions) {
  static const uint8_t fixed[] = {
      0,
      TLS13_EXT_SUPPORTED_GROUPS,
      0,
      4,
      0,
      2,
      0,
      TLS13_GROUP_X25519,
      0,
      TLS13_EXT_SUPPORTED_VERSIONS,
      0,
      3,
      2,
      3,
      4,
      0,
      TLS13_EXT_PSK_MODES,
      0,
      2,
      1,
      1,  // psk_dhe_ke
  };
  return CBB_add_bytes(extensions, fixed, sizeof(fixed));
}

static bool add_share(CBB *extensions) {
  static const uint8_t head[] = {0, TLS13_EXT_KEY_SHARE, 0, 38,       0, 36,
                                 0, TLS13_GROUP_X25519,  0, SHARE_LEN};
  uint8_t *share = NULL;
  if (!CBB_add_bytes(extensions, head, sizeof(head)) ||
      !CBB_add_space(extensions, &share, SHARE_LEN)) {
    return false;
  }
  memset(share, 0, SHARE_LEN);
  return true;
}

static bool add_extensions(CBB *extensions, const struct tls13_hello_options *options) {
  static const uint8_t staple[] = {0, TLS13_EXT_STATUS_REQUEST, 0, 5, 1, 0, 0, 0, 0};
  if (!add_name(extensions, options->name) || !add_alpn(extensions, options->alpn) ||
      !add_fixed(extensions) ||
      !add_scheme_extension(extensions, TLS13_EXT_SIGNATURE_ALGORITHMS, signature_schemes,
                            sizeof(signature_schemes) / sizeof(signature_schemes[0]))) {
    return false;
  }
  if (options->offers_dc &&
      !add_scheme_extension(extensions, TLS13_EXT_DELEGATED_CREDENTIAL, dc_schemes,
                            sizeof(dc_schemes) / sizeof(dc_schemes[0]))) {
    return false;
  }
  if (options->offers_staple && !CBB_add_bytes(extensions, staple, sizeof(staple))) {
    return false;
  }
  return add_share(extensions);
}

static bool add_body(CBB *body, const struct tls13_hello_options *options) {
  static const uint8_t zeros[32] = {0};
  CBB inner;
  if (!CBB_add_u16(body, 0x0303) || !CBB_add_bytes(body, zeros, sizeof(zeros)) ||
      !CBB_add_u8_length_prefixed(body, &inner) || !CBB_add_bytes(&inner, zeros, sizeof(zeros)) ||
      !CBB_add_u16_length_prefixed(body, &inner)) {
    return false;
  }
  for (size_t i = 0; i < options->num_suites; i++) {
    if (!CBB_add_u16(&inner, options->suites[i]->code)) {
      return false;
    }
  }
  return CBB_add_u8_length_prefixed(body, &inner) && CBB_add_u8(&inner, 0) &&
         CBB_add_u16_length_prefixed(body, &inner) && add_extensions(&inner, options) &&
         CBB_flush(body);
}

enum status tls13_hello_init(struct tls13_hello *out, const struct tls13_hello_options *options) {
  CBB cbb;
  CBB record;
  CBB message;
  *out = (struct tls13_hello){0};
  if ((options->name != NULL && strlen(options->name) > MAX_NAME_LEN) ||
      (options->alpn != NULL && strlen(options->alpn) > MAX_NAME_LEN)) {
    return STATUS_LIMIT;
  }
  if (!CBB_init(&cbb, 512) || !CBB_add_u8(&cbb, 22) || !CBB_add_u16(&cbb, 0x0301) ||
      !CBB_add_u16_length_prefixed(&cbb, &record) || !CBB_add_u8(&record, 1) ||
      !CBB_add_u24_length_prefixed(&record, &message) || !add_body(&message, options) ||
      !CBB_finish(&cbb, &out->data, &out->len)) {
    CBB_cleanup(&cbb);
    return STATUS_MEMORY;
  }
  return STATUS_OK;
}

void tls13_hello_cleanup(struct tls13_hello *hello) {
  OPENSSL_free(hello->data);
  *hello = (struct tls13_hello){0};
}

enum status tls13_hello_write(const struct tls13_hello *hello, struct buffer *out,
                              const uint8_t random[32], const uint8_t session_id[32],
                              const uint8_t share[32]) {
  out->len = 0;
  enum status st = buffer_add(out, bytes_of(hello->data, hello->len));
  if (st == STATUS_OK) {
    memcpy(out->data + RANDOM_OFFSET, random, 32);
    memcpy(out->data + SESSION_ID_OFFSET, session_id, 32);
    memcpy(out->data + out->len - SHARE_LEN, share, SHARE_LEN);
  }
  return st;
}

// --- resumption --------------------------------------------------------------

static void grow_u16(uint8_t *at, size_t by) {
  const size_t value = ((size_t)at[0] << 8 | at[1]) + by;
  at[0] = (uint8_t)(value >> 8);
  at[1] = (uint8_t)value;
}

static void put_u16(uint8_t **p, size_t value) {
  *(*p)++ = (uint8_t)(value >> 8);
  *(*p)++ = (uint8_t)value;
}

// Finds the length of the list of extensions: behind session id, suites and
// compression methods, all of our own making.
static size_t find_extensions(const struct buffer *hello) {
  size_t at = SESSION_ID_OFFSET + 32;
  at += 2 + ((size_t)hello->data[at] << 8 | hello->data[at + 1]);
  return at + 1 + hello->data[at];
}

static enum status compute_binder(uint8_t *out, struct tls13_secret *out_early,
                                  const struct tls13_ticket *ticket, struct bytes truncated) {
  enum status st = STATUS_OK;
  struct tls13_secret base;
  struct tls13_secret hash;
  struct tls13_secret binder;
  struct tls13_transcript transcript;

  TRY(tls13_extract(ticket->suite, out_early, NULL,
                    bytes_of(ticket->psk.data, ticket->suite->hash_len)));
  TRY(tls13_derive(ticket->suite, &base, out_early, "res binder", NULL));
  tls13_transcript_init(&transcript, ticket->suite);
  tls13_transcript_add(&transcript, truncated);
  tls13_transcript_hash(&transcript, &hash);
  TRY(tls13_finished(ticket->suite, &binder, &base, &hash));
  memcpy(out, binder.data, ticket->suite->hash_len);

out:
  return st;
}

enum status tls13_hello_add_psk(struct buffer *hello, struct tls13_secret *out_early,
                                const struct tls13_ticket *ticket, int64_t now_ms) {
  const size_t hash_len = ticket->suite->hash_len;
  const size_t identities_len = 2 + ticket->ticket_len + 4;
  const size_t binders_len = 1 + hash_len;
  const size_t body_len = 2 + identities_len + 2 + binders_len;
  const uint32_t age = (uint32_t)(now_ms - ticket->received_ms) + ticket->age_add;
  enum status st = buffer_reserve(hello, 4 + body_len);
  if (st != STATUS_OK) {
    return st;
  }
  uint8_t *p = hello->data + hello->len;
  put_u16(&p, TLS13_EXT_PRE_SHARED_KEY);
  put_u16(&p, body_len);
  put_u16(&p, identities_len);
  put_u16(&p, ticket->ticket_len);
  memcpy(p, ticket->ticket, ticket->ticket_len);
  p += ticket->ticket_len;
  put_u16(&p, age >> 16);
  put_u16(&p, age & 0xffff);
  const uint8_t *truncated_end = p;
  put_u16(&p, binders_len);
  *p++ = (uint8_t)hash_len;
  // The lengths count the binders before there are any: section 4.2.11.2.
  grow_u16(hello->data + RECORD_LEN_OFFSET, 4 + body_len);
  grow_u16(hello->data + MESSAGE_LEN_OFFSET + 1, 4 + body_len);
  grow_u16(hello->data + find_extensions(hello), 4 + body_len);
  const uint8_t *message = hello->data + TLS13_RECORD_HEADER_LEN;
  hello->len += 4 + body_len;
  return compute_binder(p, out_early, ticket, bytes_of(message, (size_t)(truncated_end - message)));
}
