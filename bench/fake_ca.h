// SPDX-License-Identifier: Apache-2.0
// fake_ca: a CA whose keys, leaves and OCSP responses all come out of a seed, signatures
// included, so that a run can be had again and a key server can be given the keys of some
// names without keeping two million of them. The CA's keys are as public as the seed:
// nobody trusts these.
//
// Threads: one object belongs to one thread; two of the same seed and level make the same.
#ifndef DEPUTY_BENCH_FAKE_CA_H_
#define DEPUTY_BENCH_FAKE_CA_H_

#include <openssl/bn.h>
#include <openssl/ec_key.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"

#define FAKE_CA_CERT_LEN 2048u  // room for one certificate
#define FAKE_CA_STAPLE_LEN 1024u
#define FAKE_CA_NAME_LEN 64u

struct fake_ca {
  // May be set after fake_ca_init.
  int64_t days;          // validity of leaves
  bool is_must_staple;   // leaves demand a staple (RFC 7633)
  bool is_public;        // leaves have all that those of public CAs have, at its true length
  const char *ocsp_url;  // that leaves name; NULL: none
  const char *crl_url;
  // To be read only.
  const char *seed;   // borrowed
  const char *level;  // borrowed; part of its names and of what is made from the seed
  int64_t not_before_s;
  char cn[FAKE_CA_NAME_LEN];  // of the intermediate
  uint8_t root_cert[FAKE_CA_CERT_LEN];
  size_t root_cert_len;
  uint8_t issuer_cert[FAKE_CA_CERT_LEN];
  size_t issuer_cert_len;
  // Internal.
  const EC_GROUP *group;
  BN_CTX *bn;
  EC_KEY *root;
  EC_KEY *issuer;  // may be lent
  uint8_t name_sha1[20];
  uint8_t key_sha1[20];
};

// fake_ca_init makes the root and an intermediate. STATUS_CRYPTO.
enum status fake_ca_init(struct fake_ca *out, const char *seed, const char *level,
                         int64_t not_before_s, struct errmsg *err);
void fake_ca_cleanup(struct fake_ca *ca);  // all-zero allowed

// fake_ca_leaf_key: new; NULL: no memory. fake_ca_leaf: false: no memory, or too long.
EC_KEY *fake_ca_leaf_key(const struct fake_ca *ca, uint64_t index);
bool fake_ca_leaf(const struct fake_ca *ca, uint8_t out[FAKE_CA_CERT_LEN], size_t *out_len,
                  const char *name, const EC_KEY *key, uint64_t index);

// fake_ca_staple makes an OCSP response that says "good", signed by the intermediate
// itself, as large CAs do (RFC 6960, section 4.2.2.2; no responder certificate in it).
struct fake_staple {
  struct bytes serial;  // the INTEGER's content
  uint64_t index;       // of what its nonce is made: no two responses may share one
  int64_t this_update_s;
  int64_t next_update_s;
};
bool fake_ca_staple(const struct fake_ca *ca, uint8_t out[FAKE_CA_STAPLE_LEN], size_t *out_len,
                    const struct fake_staple *staple);

#endif  // DEPUTY_BENCH_FAKE_CA_H_
