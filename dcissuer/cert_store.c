// SPDX-License-Identifier: Apache-2.0
#include "dcissuer/cert_store.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pool.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>

#include "common/base/sandbox.h"

// --- one certificate -----------------------------------------------------------

static enum status add_host(struct certificate *cert, const char *host) {
  char *copy = strdup(host);
  if (copy == NULL) {
    return STATUS_MEMORY;
  }
  cert->hosts[cert->num_hosts++] = copy;
  return STATUS_OK;
}

static enum status add_ip(struct certificate *cert, const ASN1_OCTET_STRING *ip) {
  char text[INET6_ADDRSTRLEN];
  int len = ASN1_STRING_length(ip);
  if ((len != 4 && len != 16) || inet_ntop(len == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(ip),
                                           text, sizeof(text)) == NULL) {
    return STATUS_FORMAT;
  }
  return add_host(cert, text);
}

// cert_info has the dNSNames; here come the rest.
static enum status add_other_names(struct certificate *cert, const GENERAL_NAMES *names) {
  for (size_t i = 0; i < sk_GENERAL_NAME_num(names); i++) {
    const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
    enum status st = STATUS_OK;
    if (name->type == GEN_IPADD) {
      st = add_ip(cert, name->d.iPAddress);
    } else if (name->type != GEN_DNS) {
      cert->has_other_names = true;
    }
    if (st != STATUS_OK) {
      return st;
    }
  }
  return STATUS_OK;
}

static enum status read_hosts(struct certificate *cert) {
  enum status st = STATUS_OK;
  const uint8_t *at = cert->der;
  X509 *x509 = d2i_X509(NULL, &at, (long)cert->der_len);
  GENERAL_NAMES *names = NULL;
  size_t num = 0;

  if (x509 == NULL) {
    TRY(STATUS_FORMAT);
  }
  names = X509_get_ext_d2i(x509, NID_subject_alt_name, NULL, NULL);
  num = names == NULL ? 0 : sk_GENERAL_NAME_num(names);
  if (num > CERT_MAX_NAMES) {
    TRY(STATUS_LIMIT);
  }
  cert->hosts = calloc(num + 1, sizeof(*cert->hosts));
  if (cert->hosts == NULL) {
    TRY(STATUS_MEMORY);
  }
  for (size_t i = 0; i < cert->info.num_names; i++) {
    TRY(add_host(cert, cert->info.names[i]));
  }
  if (names != NULL) {
    TRY(add_other_names(cert, names));
  }

out:
  GENERAL_NAMES_free(names);
  X509_free(x509);
  ERR_clear_error();
  return st;
}

enum status certificate_new(struct certificate **out, struct bytes der, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct certificate *cert = calloc(1, sizeof(*cert));

  *out = NULL;
  if (cert == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  cert->num_refs = 1;
  TRY(cert_info_read(&cert->info, der, err));
  cert->der = bytes_copy(der);
  cert->der_len = der.len;
  if (cert->der == NULL) {
    TRY(errmsg_set(err, STATUS_MEMORY, "no memory"));
  }
  st = read_hosts(cert);
  if (st != STATUS_OK) {
    TRY(errmsg_set(err, st, "its names cannot be read"));
  }
  // Clients take no credential of an RSA certificate (issue.c says so to who asks).
  cert->algorithm = cert->info.kind == KEY_KIND_RSA ? NULL : scheme_default(cert->info.kind);
  *out = cert;
  cert = NULL;

out:
  certificate_unref(cert);
  return st;
}

struct certificate *certificate_ref(struct certificate *certificate) {
  certificate->num_refs++;
  return certificate;
}

void certificate_unref(struct certificate *certificate) {
  if (certificate == NULL || --certificate->num_refs > 0) {
    return;
  }
  for (size_t i = 0; i < certificate->num_hosts; i++) {
    free(certificate->hosts[i]);
  }
  free(certificate->hosts);
  cert_info_cleanup(&certificate->info);
  free(certificate->der);
  free(certificate);
}

// --- the configured ones ---------------------------------------------------------

struct cert_set {
  struct certificate **items;  // by SHA-256, once loaded
  size_t num;
  size_t cap;
};

static enum status set_add(struct cert_set *set, const char *path, struct errmsg *err) {
  enum status st = STATUS_OK;
  CRYPTO_BUFFER *chain[CERT_MAX_IN_CHAIN] = {0};
  struct certificate *cert = NULL;
  size_t num = 0;

  if (set->num == set->cap) {
    size_t cap = set->cap == 0 ? 16 : set->cap * 2;
    struct certificate **items = NULL;
    if (cap > CERT_MAX_FILES) {
      TRY(errmsg_set(err, STATUS_LIMIT, "%s: more than %u certificates", path, CERT_MAX_FILES));
    }
    items = realloc(set->items, cap * sizeof(struct certificate *));
    if (items == NULL) {
      TRY(errmsg_set(err, STATUS_MEMORY, "no memory"));
    }
    set->items = items;
    set->cap = cap;
  }
  TRY(cert_chain_read(chain, &num, path, NULL, err));
  st = certificate_new(&cert, bytes_of(CRYPTO_BUFFER_data(chain[0]), CRYPTO_BUFFER_len(chain[0])),
                       err);
  if (st != STATUS_OK) {
    errmsg_prefix(err, "%s", path);
    goto out;
  }
  CHECK(set->items != NULL);  // for the analyzer, which takes num for cap
  set->items[set->num++] = cert;

out:
  cert_chain_free(chain, num);
  return st;
}

static int is_certificate_file(const struct dirent *entry) {
  const char *dot = strrchr(entry->d_name, '.');
  return entry->d_name[0] != '.' && dot != NULL &&
         (strcmp(dot, ".pem") == 0 || strcmp(dot, ".crt") == 0);
}

static enum status set_add_folder(struct cert_set *set, const char *folder, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct dirent **entries = NULL;
  int num = scandir(folder, &entries, is_certificate_file, alphasort);

  if (num < 0) {
    return errmsg_set(err, STATUS_SYSTEM, "%s: %s%s", folder, strerror(errno), sandbox_hint(errno));
  }
  for (int i = 0; i < num; i++) {
    char *path = NULL;
    if (st == STATUS_OK && asprintf(&path, "%s/%s", folder, entries[i]->d_name) < 0) {
      path = NULL;
      st = errmsg_set(err, STATUS_MEMORY, "no memory");
    }
    if (st == STATUS_OK) {
      st = set_add(set, path, err);
    }
    free(path);
    free(entries[i]);
  }
  free(entries);
  return st;
}

static int compare(const void *a, const void *b) {
  const struct certificate *const *left = a;
  const struct certificate *const *right = b;
  return memcmp((*left)->info.sha256, (*right)->info.sha256, sizeof((*left)->info.sha256));
}

enum status cert_set_load(struct cert_set **out, char *const *paths, size_t num_paths,
                          struct errmsg *err) {
  enum status st = STATUS_OK;
  struct cert_set *set = calloc(1, sizeof(*set));

  *out = NULL;
  if (set == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  for (size_t i = 0; i < num_paths; i++) {
    struct stat info;
    if (stat(paths[i], &info) != 0) {
      TRY(errmsg_set(err, STATUS_SYSTEM, "%s: %s%s", paths[i], strerror(errno),
                     sandbox_hint(errno)));
    }
    if (S_ISDIR(info.st_mode)) {
      TRY(set_add_folder(set, paths[i], err));
    } else {
      TRY(set_add(set, paths[i], err));
    }
  }
  if (set->num > 0) {
    qsort(set->items, set->num, sizeof(struct certificate *), compare);
  }
  *out = set;
  set = NULL;

out:
  cert_set_free(set);
  return st;
}

void cert_set_free(struct cert_set *set) {
  if (set == NULL) {
    return;
  }
  for (size_t i = 0; i < set->num; i++) {
    certificate_unref(set->items[i]);
  }
  free(set->items);
  free(set);
}

size_t cert_set_num(const struct cert_set *set) { return set->num; }

struct certificate *cert_set_find(const struct cert_set *set, const uint8_t sha256[32]) {
  size_t from = 0;
  size_t to = set->num;
  while (from < to) {
    size_t middle = from + (to - from) / 2;
    int order = memcmp(set->items[middle]->info.sha256, sha256, 32);
    if (order == 0) {
      return set->items[middle];
    }
    if (order < 0) {
      from = middle + 1;
    } else {
      to = middle;
    }
  }
  return NULL;
}

// --- the cache -----------------------------------------------------------------------

struct cached {
  TAILQ_ENTRY(cached) by_use;
  struct cached *next;  // in its slot
  struct certificate *certificate;
};

struct cert_cache {
  TAILQ_HEAD(cached_list, cached) by_use;  // last used first
  struct cached **slots;
  size_t num_slots;  // a power of two
  size_t num;
  size_t max;
};

enum status cert_cache_new(struct cert_cache **out, size_t max) {
  struct cert_cache *cache = calloc(1, sizeof(*cache));
  *out = NULL;
  if (cache == NULL) {
    return STATUS_MEMORY;
  }
  cache->max = max;
  cache->num_slots = 16;
  while (cache->num_slots < max) {
    cache->num_slots *= 2;
  }
  cache->slots = calloc(cache->num_slots, sizeof(struct cached *));
  if (cache->slots == NULL) {
    free(cache);
    return STATUS_MEMORY;
  }
  TAILQ_INIT(&cache->by_use);
  *out = cache;
  return STATUS_OK;
}

// A SHA-256 is as good as any hash, and nobody can make many of one slot cheaply
// enough to matter in a bounded cache.
static struct cached **slot_of(struct cert_cache *cache, const uint8_t sha256[32]) {
  uint64_t number = 0;
  memcpy(&number, sha256, sizeof(number));
  return &cache->slots[number & (cache->num_slots - 1)];
}

static void cache_drop_oldest(struct cert_cache *cache) {
  struct cached *cached = TAILQ_LAST(&cache->by_use, cached_list);
  struct cached **at = slot_of(cache, cached->certificate->info.sha256);
  while (*at != cached) {
    at = &(*at)->next;
  }
  *at = cached->next;
  TAILQ_REMOVE(&cache->by_use, cached, by_use);
  cache->num--;
  certificate_unref(cached->certificate);
  free(cached);
}

void cert_cache_free(struct cert_cache *cache) {
  if (cache == NULL) {
    return;
  }
  while (cache->num > 0) {
    cache_drop_oldest(cache);
  }
  free(cache->slots);
  free(cache);
}

size_t cert_cache_num(const struct cert_cache *cache) { return cache->num; }

enum status cert_cache_get(struct certificate **out, struct cert_cache *cache, struct bytes der) {
  uint8_t sha256[SHA256_DIGEST_LENGTH];
  struct cached *cached = NULL;
  struct cached **slot = NULL;
  enum status st = STATUS_OK;

  *out = NULL;
  if (der.len > CERT_MAX_LEN) {
    return STATUS_LIMIT;
  }
  SHA256(der.data, der.len, sha256);
  slot = slot_of(cache, sha256);
  for (cached = *slot; cached != NULL; cached = cached->next) {
    if (memcmp(cached->certificate->info.sha256, sha256, sizeof(sha256)) == 0) {
      TAILQ_REMOVE(&cache->by_use, cached, by_use);
      TAILQ_INSERT_HEAD(&cache->by_use, cached, by_use);
      *out = cached->certificate;
      return STATUS_OK;
    }
  }
  cached = calloc(1, sizeof(*cached));
  if (cached == NULL) {
    return STATUS_MEMORY;
  }
  st = certificate_new(&cached->certificate, der, NULL);
  if (st != STATUS_OK) {
    free(cached);
    return st;
  }
  if (cache->num == cache->max) {
    cache_drop_oldest(cache);
  }
  cached->next = *slot;
  *slot = cached;
  TAILQ_INSERT_HEAD(&cache->by_use, cached, by_use);
  cache->num++;
  *out = cached->certificate;
  return STATUS_OK;
}
