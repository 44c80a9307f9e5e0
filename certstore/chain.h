// SPDX-License-Identifier: Apache-2.0
// chain: one certificate chain, ready to be shown: facts, prepared TLS object,
// staple, the states of its key and CA, and the delegated credential of the
// moment. Immutable but for the two slots that say so. Made by the control
// thread; read by workers.
#ifndef DEPUTY_CERTSTORE_CHAIN_H_
#define DEPUTY_CERTSTORE_CHAIN_H_

#include <openssl/base.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "certstore/state.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/tls/cert.h"
#include "common/tls/credential.h"

struct chain {
  char *label;  // as configured: "primary", "backup", ...
  char *path;   // where it was read
  struct cert_info info;
  CRYPTO_BUFFER *certs[CERT_MAX_IN_CHAIN];
  size_t num_certs;
  struct cert_pool *pool;  // of all certs but the leaf; may be NULL
  bool has_staple;         // `tls` shows it
  int64_t staple_ends_s;   // nextUpdate; 0: none
  bool is_revoked;         // so said its CA, in an answer that it signed
  bool is_resume_off;      // ... for a reason that ends sessions, too
  struct tls_chain *tls;
  struct tls_chain *tls_bare;  // the same without the staple; NULL if `tls` has none
  const struct state *key_state;
  const struct state *ca_state;
  // The DC of the moment, or NULL. The control thread swaps it and gives up the
  // old one only when every worker has passed through its loop since
  // (proxy/grace.h); a worker that loads it uses it within one callback, or takes
  // a reference.
  _Atomic(struct tls_dc *) dc;
  // Of whoever keeps it supplied with DCs; the control thread's alone.
  void *supply;
  struct chain *supply_next;  // that has the same
  struct chain **supply_link;
};

// chain_load reads the PEM chain at `path` (leaf first) and the OCSP response at
// path + CHAIN_STAPLE_SUFFIX if there is one (staple.h has the checks). A response
// that does not pass is logged and not used: it never stops a load. `method` signs
// with the certificate's key and outlives the chain; NULL, for tools that only look,
// leaves `tls` NULL.
// STATUS_SYSTEM, STATUS_FORMAT, STATUS_LIMIT, STATUS_MEMORY, STATUS_REFUSED (a
// private key is in the file).
#define CHAIN_STAPLE_SUFFIX ".ocsp"
enum status chain_load(struct chain **out, const char *label, const char *path,
                       struct states *states, const SSL_PRIVATE_KEY_METHOD *method,
                       struct cert_pool *pool, struct errmsg *err);
// chain_make makes one of what is in memory (all borrowed): a store's record. The
// staple has been checked before; empty: none.
struct chain_parts {
  const char *label;
  const char *path;           // how logs call it
  const struct bytes *certs;  // DER, leaf first
  size_t num_certs;
  struct bytes staple;
  int64_t staple_ends_s;
  bool is_revoked;
  int revoked_reason;             // RFC 5280, section 5.3.1; 0: not said
  const struct state *key_state;  // these two outlive the chain
  const struct state *ca_state;
};
enum status chain_make(struct chain **out, const struct chain_parts *parts,
                       const SSL_PRIVATE_KEY_METHOD *method, struct cert_pool *pool,
                       struct errmsg *err);
void chain_free(struct chain *chain);

// chain_reason_ends_sessions: does a revocation for this reason (RFC 5280, section 5.3.1)
// mean that somebody else may have had the key? Then sessions that it authenticated are
// not resumed. All do but those that say why the key is good all the same:
// affiliationChanged, superseded, cessationOfOperation, privilegeWithdrawn. (A CA that
// says nothing may mean the worst.)
bool chain_reason_ends_sessions(int reason);

// chain_tls is what to show at `now_s`: a staple is served to its last good second,
// then left out. Threads: any.
static inline struct tls_chain *chain_tls(const struct chain *chain, int64_t now_s) {
  return chain->tls_bare != NULL && now_s >= chain->staple_ends_s ? chain->tls_bare : chain->tls;
}

// Why a chain is not usable now (design, "Which signature answers a handshake").
enum chain_fault {
  CHAIN_USABLE,
  CHAIN_EXPIRED,
  CHAIN_NOT_YET_VALID,
  CHAIN_REVOKED,    // its CA said so
  CHAIN_KEY_OUT,    // its key is out of service
  CHAIN_CA_OUT,     // its CA is out of service
  CHAIN_NO_STAPLE,  // must-staple and no good staple
  CHAIN_NUM_FAULTS,
};
const char *chain_fault_name(enum chain_fault fault);

// chain_judge decides; a key in service by word of its own outranks its CA's
// state. Of several faults the first in the order above is named. No lock, no
// allocation. Threads: any.
enum chain_fault chain_judge(const struct chain *chain, int64_t now_s);

// What a drill supposes (NULL: nothing): that this state of a key or CA says out
// of service, whatever it says now.
enum chain_fault chain_judge_if(const struct chain *chain, int64_t now_s,
                                const struct state *out_of_service);

#endif  // DEPUTY_CERTSTORE_CHAIN_H_
