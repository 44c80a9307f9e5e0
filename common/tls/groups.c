// SPDX-License-Identifier: Apache-2.0
#include "common/tls/groups.h"

#include <openssl/err.h>
#include <openssl/nid.h>
#include <string.h>

#include "common/tls/tls_error.h"

#if defined(BORINGSSL_API_VERSION) && BORINGSSL_API_VERSION >= 32
#define HAS_GROUP_IDS 1
#else
#define HAS_GROUP_IDS 0
#endif

#ifdef NID_X25519MLKEM768
#define MLKEM768_NID NID_X25519MLKEM768
#else
#define MLKEM768_NID NID_undef  // not in this library
#endif

static const struct row {
  const char *name;
  const char *other;  // how OpenSSL calls it
  uint16_t id;
  int nid;
} rows[] = {
    {"X25519MLKEM768", NULL, 0x11ec, MLKEM768_NID},    {"X25519", "x25519", 29, NID_X25519},
    {"P-256", "prime256v1", 23, NID_X9_62_prime256v1}, {"P-384", "secp384r1", 24, NID_secp384r1},
    {"P-521", "secp521r1", 25, NID_secp521r1},
};

static bool is_name(const char *name, const char *text, size_t len) {
  return name != NULL && strlen(name) == len && memcmp(name, text, len) == 0;
}

static const struct row *find(const char *text, size_t len) {
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    if (is_name(rows[i].name, text, len) || is_name(rows[i].other, text, len)) {
      return &rows[i];
    }
  }
  return NULL;
}

bool tls_groups_known(const char *name) {
  const struct row *row = find(name, strlen(name));
  return row != NULL && row->nid != NID_undef;
}

static bool has_group(const struct tls_groups *groups, uint16_t id) {
  for (size_t i = 0; i < groups->num; i++) {
    if (groups->ids[i] == id) {
      return true;
    }
  }
  return false;
}

static enum status add(struct tls_groups *out, const char *text, size_t len, struct errmsg *err) {
  const bool is_optional = len > 0 && text[0] == '?';
  const struct row *row = is_optional ? find(text + 1, len - 1) : find(text, len);

  if (row == NULL) {
    return errmsg_set(err, STATUS_CONFIG,
                      "\"%.*s\" is no key exchange group; there are X25519MLKEM768, X25519, P-256, "
                      "P-384 and P-521",
                      (int)(len > 64 ? 64 : len), text);
  }
  if (row->nid == NID_undef) {
    return is_optional
               ? STATUS_OK
               : errmsg_set(err, STATUS_CONFIG,
                            "this BoringSSL (%s) has no %s; with ?%s it is used where there is one",
                            tls_generation(), row->name, row->name);
  }
  if (has_group(out, row->id)) {
    return errmsg_set(err, STATUS_CONFIG, "%s is there twice", row->name);
  }
  out->ids[out->num] = row->id;  // there are fewer rows than places
  out->nids[out->num] = row->nid;
  out->num += 1;
  return STATUS_OK;
}

enum status tls_groups_parse(struct tls_groups *out, const char *text, struct errmsg *err) {
  struct tls_groups groups = {0};
  const char *at = text;

  _Static_assert(sizeof rows / sizeof rows[0] <= TLS_MAX_GROUPS, "each has a place");
  for (;;) {
    const size_t len = strcspn(at, ":");
    const enum status st = add(&groups, at, len, err);
    if (st != STATUS_OK) {
      return st;
    }
    if (at[len] == '\0') {
      break;
    }
    at += len + 1;
  }
  if (groups.num == 0) {
    return errmsg_set(err, STATUS_CONFIG, "this BoringSSL (%s) has none of \"%s\"",
                      tls_generation(), text);
  }
  *out = groups;
  return STATUS_OK;
}

enum status tls_groups_set_default(SSL_CTX *ctx, const struct tls_groups *groups) {
#if HAS_GROUP_IDS
  const int ok = SSL_CTX_set1_group_ids(ctx, groups->ids, groups->num);
#else
  static const struct tls_groups library = {.ids = {29, 23, 24}, .num = 3};

  if (tls_groups_equal(groups, &library)) {
    return STATUS_OK;  // any other list is copied for each connection
  }
  const int ok = SSL_CTX_set1_curves(ctx, groups->nids, groups->num);
#endif
  return ok ? STATUS_OK : STATUS_MEMORY;
}

enum status tls_groups_set(SSL *ssl, const struct tls_groups *groups) {
#if HAS_GROUP_IDS
  const int ok = SSL_set1_group_ids(ssl, groups->ids, groups->num);
#else
  const int ok = SSL_set1_curves(ssl, groups->nids, groups->num);
#endif
  return ok ? STATUS_OK : STATUS_MEMORY;
}
