// SPDX-License-Identifier: Apache-2.0
#include "bench/peers.h"

#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "bench/tls13_hello.h"
#include "common/base/clock.h"

#define NUM_BUCKETS 1024U  // a power of two

struct peers {
  size_t num;
  const struct peer *last;  // most servers show one certificate
  struct peer *buckets[NUM_BUCKETS];
};

enum status peers_new(struct peers **out) {
  *out = calloc(1, sizeof(**out));
  return *out == NULL ? STATUS_MEMORY : STATUS_OK;
}

static void peer_free(struct peer *peer) {
  if (peer == NULL) {
    return;
  }
  free((void *)(uintptr_t)peer->leaf.data);
  free((void *)(uintptr_t)peer->dc.data);
  EVP_PKEY_free(peer->leaf_key);
  EVP_PKEY_free(peer->dc_key);
  free(peer);
}

void peers_free(struct peers *peers) {
  if (peers == NULL) {
    return;
  }
  for (size_t i = 0; i < NUM_BUCKETS; i++) {
    while (peers->buckets[i] != NULL) {
      struct peer *peer = peers->buckets[i];
      peers->buckets[i] = peer->next;
      peer_free(peer);
    }
  }
  free(peers);
}

// Certificates and DCs end in signatures: their last bytes differ.
static uint64_t mix_tail(uint64_t h, struct bytes in) {
  const size_t len = in.len < 16 ? in.len : 16;
  for (size_t i = 0; i < len; i++) {
    h = (h ^ in.data[in.len - 1 - i]) * 0x100000001b3ULL;
  }
  return h ^ in.len;
}

static size_t bucket_of(struct bytes leaf, struct bytes dc) {
  return (size_t)(mix_tail(mix_tail(0xcbf29ce484222325ULL, leaf), dc) & (NUM_BUCKETS - 1));
}

static bool is_peer(const struct peer *peer, struct bytes leaf, struct bytes dc) {
  return bytes_equal(peer->leaf, leaf) && bytes_equal(peer->dc, dc) &&
         (peer->dc.data == NULL) == (dc.data == NULL);
}

static EVP_PKEY *parse_leaf_key(struct bytes der) {
  const uint8_t *at = der.data;
  X509 *x509 = d2i_X509(NULL, &at, (long)der.len);
  EVP_PKEY *key = x509 == NULL ? NULL : X509_get_pubkey(x509);
  X509_free(x509);
  return key;
}

static void read_dc(struct peer *peer, const struct cert_info *info) {
  struct dc dc;
  CBS cbs;
  if (dc_check(&dc, &peer->dc_fault, peer->dc, peer->leaf, info, NULL, clock_wall_s(), 0) !=
      STATUS_OK) {
    return;
  }
  CBS_init(&cbs, dc.spki.data, dc.spki.len);
  peer->dc_key = EVP_parse_public_key(&cbs);
  peer->dc_scheme = dc.verify_scheme;
  peer->dc_expiry_s = dc_expiry_s(&dc, info->not_before_s);
  if (peer->dc_key == NULL) {
    peer->dc_fault = DC_FAULT_FORMAT;
  } else if (!tls13_hello_has_dc_scheme(dc.verify_scheme)) {
    peer->dc_fault = DC_FAULT_SCHEME;  // RFC 9345, section 4.1.1: one of those offered
  } else if (!tls13_hello_has_dc_scheme(dc.algorithm)) {
    peer->dc_fault = DC_FAULT_ALGORITHM;  // the RFC would take it; NSS and Firefox abort
  }
}

static enum status peer_new(struct peer **out, struct bytes leaf, struct bytes dc) {
  enum status st = STATUS_OK;
  struct cert_info info = {0};
  struct peer *peer = calloc(1, sizeof(*peer));
  if (peer == NULL) {
    return STATUS_MEMORY;
  }
  peer->leaf = bytes_of(bytes_copy(leaf), leaf.len);
  peer->dc = dc.data == NULL ? dc : bytes_of(bytes_copy(dc), dc.len);
  if (peer->leaf.data == NULL || (peer->dc.data == NULL && dc.data != NULL)) {
    st = STATUS_MEMORY;
    goto out;
  }
  TRY(cert_info_read(&info, leaf, NULL));
  memcpy(peer->issuer, info.issuer, sizeof(peer->issuer));
  peer->leaf_kind = info.kind;
  peer->leaf_key = parse_leaf_key(leaf);
  if (peer->leaf_key == NULL) {
    st = STATUS_FORMAT;
    goto out;
  }
  if (dc.data != NULL) {
    read_dc(peer, &info);
  }
  *out = peer;
  peer = NULL;

out:
  cert_info_cleanup(&info);
  peer_free(peer);
  ERR_clear_error();
  return st;
}

enum status peers_find(struct peers *peers, const struct peer **out, struct bytes leaf,
                       struct bytes dc) {
  if (peers->last != NULL && is_peer(peers->last, leaf, dc)) {
    *out = peers->last;
    return STATUS_OK;
  }
  struct peer **bucket = &peers->buckets[bucket_of(leaf, dc)];
  struct peer *peer = *bucket;
  while (peer != NULL && !is_peer(peer, leaf, dc)) {
    peer = peer->next;
  }
  if (peer == NULL) {
    if (peers->num == PEERS_MAX) {
      return STATUS_LIMIT;
    }
    enum status st = peer_new(&peer, leaf, dc);
    if (st != STATUS_OK) {
      return st;
    }
    peer->next = *bucket;
    *bucket = peer;
    peers->num += 1;
  }
  peers->last = peer;
  *out = peer;
  return STATUS_OK;
}

enum dc_fault peer_dc_fault(const struct peer *peer, int64_t now_s) {
  if (peer->dc_fault == DC_FAULT_NONE && peer->dc.data != NULL && now_s > peer->dc_expiry_s) {
    return DC_FAULT_EXPIRED;
  }
  return peer->dc_fault;
}
