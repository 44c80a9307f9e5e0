// SPDX-License-Identifier: Apache-2.0
// cert: what this project needs to know of a certificate, read once. Also PEM
// files and private keys into memory. BoringSSL's parser does the work.
#ifndef DEPUTY_COMMON_TLS_CERT_H_
#define DEPUTY_COMMON_TLS_CERT_H_

#include <openssl/base.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/secret.h"
#include "common/base/status.h"
#include "common/tls/cert_pool.h"
#include "common/wire/scheme.h"

#define CERT_FILE_MAX_LEN (256u << 10)  // bytes of PEM
#define CERT_MAX_IN_CHAIN 10u
#define CERT_MAX_LEN (32u << 10)  // bytes of one DER certificate
#define CERT_MAX_NAMES 256u
#define CERT_TEXT_LEN 128

struct cert_info {
  int64_t not_before_s;
  int64_t not_after_s;
  uint8_t sha256[32];  // of the DER certificate
  uint8_t key_id[32];  // SHA-256 of the SubjectPublicKeyInfo
  uint8_t ski[20];     // SHA-1 of the subjectPublicKey bits, computed: how the
                       // key server finds the key
  uint8_t ca_id[32];   // SHA-256 of the authority key identifier; without one, of
                       // the issuer's Name
  enum key_kind kind;
  bool has_delegation_usage;    // RFC 9345, section 4.2
  bool has_digital_signature;   // KeyUsage is there and says so
  bool is_must_staple;          // TLS Feature status_request, RFC 7633
  bool may_delegate;            // the two above and a key kind whose DCs clients take:
                                // never RSA (delegated-credentials: NSS refuses those)
  char subject[CERT_TEXT_LEN];  // one line, escaped
  char issuer[CERT_TEXT_LEN];   // its CN, else one line
  char serial[64];              // hex
  char **names;                 // dNSNames, lower case
  size_t num_names;
};

// cert_info_read fills `out` from a DER certificate; clean with
// cert_info_cleanup. STATUS_FORMAT, STATUS_LIMIT, STATUS_MEMORY.
enum status cert_info_read(struct cert_info *out, struct bytes der, struct errmsg *err);
void cert_info_cleanup(struct cert_info *info);

// cert_info_covers: does a dNSName of the certificate match `host` (exact or
// one-label wildcard, RFC 6125)?
bool cert_info_covers(const struct cert_info *info, const char *host);

// cert_chain_read reads the CERTIFICATE blocks of a PEM file, leaf first, as new
// CRYPTO_BUFFERs (all but the leaf from `pool`, if not NULL: leaves differ). Refuses a
// file that holds a private key (STATUS_REFUSED), an empty one, and one whose
// certificates do not follow each other by issuer (STATUS_FORMAT). To be given up with
// cert_chain_give and the same pool.
enum status cert_chain_read(CRYPTO_BUFFER *out[CERT_MAX_IN_CHAIN], size_t *out_num,
                            const char *path, struct cert_pool *pool, struct errmsg *err);
void cert_chain_give(CRYPTO_BUFFER *chain[CERT_MAX_IN_CHAIN], size_t num, struct cert_pool *pool);
void cert_chain_free(CRYPTO_BUFFER *chain[CERT_MAX_IN_CHAIN], size_t num);  // without a pool

// key_read reads one PEM (PKCS#8, PKCS#1, SEC1) or DER private key of at most
// CERT_FILE_MAX_LEN bytes and wipes what it read. STATUS_REFUSED: encrypted, or
// others may read the file; STATUS_FORMAT: no key, more than one, or a kind we
// do not sign with. The sentence names the file and the remedy.
enum status key_read(EVP_PKEY **out, const char *path, struct errmsg *err);

// key_parse is what key_read does with the DER; `name` stands for it in the
// sentence. STATUS_FORMAT.
enum status key_parse(EVP_PKEY **out, struct bytes der, const char *name, struct errmsg *err);

// key_identify computes the two ids of a public or private key.
enum status key_identify(uint8_t out_key_id[32], uint8_t out_ski[20], const EVP_PKEY *key);
// key_identify_spki is the same for its SubjectPublicKeyInfo. STATUS_FORMAT.
enum status key_identify_spki(uint8_t out_key_id[32], uint8_t out_ski[20], struct bytes spki);

// key_spki returns new DER of the public key (free with OPENSSL_free).
enum status key_spki(uint8_t **out, size_t *out_len, const EVP_PKEY *key);

#endif  // DEPUTY_COMMON_TLS_CERT_H_
