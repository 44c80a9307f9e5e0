// SPDX-License-Identifier: Apache-2.0
// peers: the leaves and delegated credentials that servers have shown in a run,
// each parsed and checked once. A load generator meets the same certificate
// thousands of times; only the first meeting costs a parser and a signature check.
//
// Threads: one set belongs to one thread.
#ifndef DEPUTY_BENCH_PEERS_H_
#define DEPUTY_BENCH_PEERS_H_

#include <openssl/base.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/tls/cert.h"
#include "common/tls/dc_check.h"

#define PEERS_MAX 65536U  // different (leaf, DC) pairs of one run

struct peer {
  struct peer *next;  // in its bucket
  struct bytes leaf;  // copies
  struct bytes dc;    // data NULL: none
  char issuer[CERT_TEXT_LEN];
  enum key_kind leaf_kind;
  EVP_PKEY *leaf_key;
  enum dc_fault dc_fault;  // at the first meeting, DC_FAULT_NONE also without a DC
  uint16_t dc_scheme;
  int64_t dc_expiry_s;
  EVP_PKEY *dc_key;
};

struct peers;

enum status peers_new(struct peers **out);
void peers_free(struct peers *peers);

// peers_find borrows the peer of a leaf with a DC (data NULL for none), until
// peers_free. The DC is checked as a client must (RFC 9345, section 4.1.3), its
// delegation signature included, and as NSS does beyond that, at the first meeting. The
// certificate's own chain is not: that is the NSS client's job.
//   STATUS_FORMAT  the leaf cannot be read
//   STATUS_LIMIT, STATUS_MEMORY
enum status peers_find(struct peers *peers, const struct peer **out, struct bytes leaf,
                       struct bytes dc);

// peer_dc_fault: may a client take the DC of this peer at `now_s`?
enum dc_fault peer_dc_fault(const struct peer *peer, int64_t now_s);

#endif  // DEPUTY_BENCH_PEERS_H_
