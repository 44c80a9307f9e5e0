// SPDX-License-Identifier: Apache-2.0
// cert_store: the certificates that requests speak of, parsed once: those that the
// configuration names (found by SHA-256, part of a snapshot), and a bounded
// cache of those that requests bring along (kept over reloads).
//
// Threads: a set is immutable once loaded. A cache belongs to one loop; the
// certificates in it are counted without atomics and stay on that loop.
#ifndef DEPUTY_DCISSUER_CERT_STORE_H_
#define DEPUTY_DCISSUER_CERT_STORE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/tls/cert.h"
#include "common/wire/scheme.h"

#define CERT_MAX_FILES 1000000u  // in all folders

struct certificate {
  size_t num_refs;
  uint8_t *der;
  size_t der_len;
  struct cert_info info;
  // Every name it is good for: dNSNames, and IP addresses as text. A credential
  // made from it is good for all of them.
  char **hosts;
  size_t num_hosts;
  bool has_other_names;  // a URI, an e-mail address: nothing that a grant can name
  // What signs its credentials: the scheme of its key. NULL: none does.
  const struct scheme *algorithm;
};

// certificate_new parses DER. STATUS_FORMAT, STATUS_LIMIT, STATUS_MEMORY.
enum status certificate_new(struct certificate **out, struct bytes der, struct errmsg *err);
struct certificate *certificate_ref(struct certificate *certificate);
void certificate_unref(struct certificate *certificate);  // NULL allowed

struct cert_set;

// cert_set_load reads PEM files, and all *.pem and *.crt of folders; the first
// certificate of each counts. STATUS_SYSTEM, STATUS_FORMAT, STATUS_REFUSED,
// STATUS_LIMIT, STATUS_MEMORY, with the file's name in err.
enum status cert_set_load(struct cert_set **out, char *const *paths, size_t num_paths,
                          struct errmsg *err);
void cert_set_free(struct cert_set *set);
size_t cert_set_num(const struct cert_set *set);

// cert_set_find borrows the certificate, or returns NULL.
struct certificate *cert_set_find(const struct cert_set *set, const uint8_t sha256[32]);

struct cert_cache;

enum status cert_cache_new(struct cert_cache **out, size_t max);
void cert_cache_free(struct cert_cache *cache);
size_t cert_cache_num(const struct cert_cache *cache);

// cert_cache_get borrows the certificate of this DER, parsing it if it is new and
// dropping the one that was not asked for longest if there are too many. Take a
// reference to keep it. STATUS_FORMAT, STATUS_LIMIT, STATUS_MEMORY.
enum status cert_cache_get(struct certificate **out, struct cert_cache *cache, struct bytes der);

#endif  // DEPUTY_DCISSUER_CERT_STORE_H_
