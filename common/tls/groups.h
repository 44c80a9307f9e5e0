// SPDX-License-Identifier: Apache-2.0
// groups: key exchange groups as an operator writes them, "X25519:P-256", in the form
// that the library in use takes. A "?" before one means: if the library has it, so that
// one configuration fits both generations of BoringSSL.
#ifndef DEPUTY_COMMON_TLS_GROUPS_H_
#define DEPUTY_COMMON_TLS_GROUPS_H_

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"

#define TLS_MAX_GROUPS 8u

// In order of preference.
struct tls_groups {
  uint16_t ids[TLS_MAX_GROUPS];  // IANA's numbers
  int nids[TLS_MAX_GROUPS];      // the library's; before API version 32 it wants these
  size_t num;
};

// tls_groups_parse: STATUS_CONFIG, with the sentence: one that is unknown to us or to the
// library, one that comes twice, none that is left, too many.
enum status tls_groups_parse(struct tls_groups *out, const char *text, struct errmsg *err);

static inline bool tls_groups_equal(const struct tls_groups *a, const struct tls_groups *b) {
  if (a->num != b->num) {
    return false;
  }
  for (size_t i = 0; i < a->num; i++) {
    if (a->ids[i] != b->ids[i]) {
      return false;
    }
  }
  return true;
}

// tls_groups_set_default sets them for all connections of a context, tls_groups_set for
// one, before its ClientHello has been answered. STATUS_MEMORY.
enum status tls_groups_set_default(SSL_CTX *ctx, const struct tls_groups *groups);
enum status tls_groups_set(SSL *ssl, const struct tls_groups *groups);

// tls_groups_known: does the library in use have this one?
bool tls_groups_known(const char *name);

#endif  // DEPUTY_COMMON_TLS_GROUPS_H_
