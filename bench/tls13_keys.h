// SPDX-License-Identifier: Apache-2.0
// tls13_keys: the key schedule and the record protection of TLS 1.3 (RFC 8446,
// sections 7 and 5), on BoringSSL's primitives. For the load generator's own
// client (tls13_client.h), which keeps no key that is worth anything: nothing
// here is wiped, and nothing here belongs in a server.
//
// Threads: no state but the caller's.
#ifndef DEPUTY_BENCH_TLS13_KEYS_H_
#define DEPUTY_BENCH_TLS13_KEYS_H_

#include <openssl/aead.h>
#include <openssl/base.h>
#include <openssl/sha.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

#define TLS13_MAX_HASH_LEN 48u
#define TLS13_IV_LEN 12u
#define TLS13_TAG_LEN 16u
#define TLS13_RECORD_HEADER_LEN 5u
#define TLS13_MAX_PLAINTEXT_LEN 16384u
#define TLS13_MAX_CIPHERTEXT_LEN (TLS13_MAX_PLAINTEXT_LEN + 256u)

struct tls13_suite {
  uint16_t code;
  const char *name;  // "aes128"
  const EVP_MD *(*md)(void);
  const EVP_AEAD *(*aead)(void);
  size_t hash_len;
  size_t key_len;
};

// tls13_suite_find / _by_name borrow a static row or return NULL.
const struct tls13_suite *tls13_suite_find(uint16_t code);
const struct tls13_suite *tls13_suite_by_name(const char *name);

// A secret of the schedule; the suite knows how many of its bytes count.
struct tls13_secret {
  uint8_t data[TLS13_MAX_HASH_LEN];
};

// The running hash of the handshake, copied cheaply.
struct tls13_transcript {
  size_t hash_len;  // 32 or 48
  union {
    SHA256_CTX sha256;
    SHA512_CTX sha384;
  };
};
void tls13_transcript_init(struct tls13_transcript *t, const struct tls13_suite *suite);
void tls13_transcript_add(struct tls13_transcript *t, struct bytes message);
// tls13_transcript_hash leaves the running hash as it is.
void tls13_transcript_hash(const struct tls13_transcript *t, struct tls13_secret *out);

// tls13_extract is HKDF-Extract; no salt stands for zeros, no ikm for hash_len zeros.
// tls13_expand_label is HKDF-Expand-Label; tls13_derive is Derive-Secret over a
// transcript hash (NULL: of nothing). All of them: STATUS_CRYPTO, which means no memory.
enum status tls13_extract(const struct tls13_suite *suite, struct tls13_secret *out,
                          const struct tls13_secret *salt, struct bytes ikm);
enum status tls13_expand_label(const struct tls13_suite *suite, uint8_t *out, size_t out_len,
                               const struct tls13_secret *secret, const char *label,
                               struct bytes context);
enum status tls13_derive(const struct tls13_suite *suite, struct tls13_secret *out,
                         const struct tls13_secret *secret, const char *label,
                         const struct tls13_secret *transcript_hash);

// tls13_finished computes the verify_data of Finished and of PSK binders (sections
// 4.4.4 and 4.2.11.2) from the base secret.
enum status tls13_finished(const struct tls13_suite *suite, struct tls13_secret *out,
                           const struct tls13_secret *base,
                           const struct tls13_secret *transcript_hash);

// One direction of record protection. All-zero may be cleaned.
struct tls13_traffic {
  EVP_AEAD_CTX aead;
  uint8_t iv[TLS13_IV_LEN];
  uint64_t seq;
  bool is_on;
};
enum status tls13_traffic_start(struct tls13_traffic *t, const struct tls13_suite *suite,
                                const struct tls13_secret *secret);
void tls13_traffic_cleanup(struct tls13_traffic *t);

// tls13_record_seal writes one protected record of `type` around `content` (which
// may lie nowhere in `out`). `out` has room for tls13_sealed_len(content.len).
static inline size_t tls13_sealed_len(size_t content_len) {
  return TLS13_RECORD_HEADER_LEN + content_len + 1 + TLS13_TAG_LEN;
}
enum status tls13_record_seal(struct tls13_traffic *t, uint8_t *out, uint8_t type,
                              struct bytes content);

// tls13_record_open decrypts a record in place. `record` begins with its header,
// whose length fits. *out_content lies in it. STATUS_CRYPTO: it does not open;
// STATUS_FORMAT: it holds no type.
enum status tls13_record_open(struct tls13_traffic *t, uint8_t *out_type, struct bytes *out_content,
                              uint8_t *record, size_t record_len);

#endif  // DEPUTY_BENCH_TLS13_KEYS_H_
