// SPDX-License-Identifier: Apache-2.0
// crl: may a certificate revocation list be believed, does it speak of this leaf, and what
// does it say? RFC 5280, sections 5 and 6.3. A list is read where it lies: nothing is
// allocated for its entries, so one of 64 MiB costs 64 MiB and a pass over it (some tenths
// of a second: not on an event loop). No I/O. Threads: any.
//
// Lists that would need another list beside them are refused: deltas, indirect ones, those
// for some reasons only. CAs of the Web have none of these.
#ifndef DEPUTY_COMMON_REVOCATION_CRL_H_
#define DEPUTY_COMMON_REVOCATION_CRL_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/revocation/sources.h"

#define CRL_DEFAULT_MAX_LEN ((size_t)64 << 20)  // bytes of one list
#define CRL_MAX_EXTENSIONS_LEN (64u << 10)      // bytes of a list's own extensions

enum crl_fault {
  CRL_NO_FAULT,
  CRL_MALFORMED,         // not a CertificateList in DER
  CRL_OTHER_ISSUER,      // of another issuer than the leaf's
  CRL_BAD_SIGNATURE,     // it does not verify
  CRL_WEAK_ALGORITHM,    // signed with SHA-1 or less, or with what we do not know
  CRL_ISSUER_UNFIT,      // the issuer's KeyUsage is without cRLSign
  CRL_NOT_YET_VALID,     // thisUpdate is in the future
  CRL_EXPIRED,           // nextUpdate has passed
  CRL_NO_END,            // no nextUpdate (section 5.1.2.5: MUST be there)
  CRL_REPLAYED,          // older than what is known already
  CRL_DELTA,             // only what has changed since another
  CRL_INDIRECT,          // speaks for other issuers
  CRL_NOT_COVERING,      // a part of the whole in which the leaf is not
  CRL_UNKNOWN_CRITICAL,  // a critical extension that we do not know
  CRL_NO_MEMORY,
  CRL_BAD_CERTIFICATE,  // the issuer we were given cannot be read
  CRL_NUM_FAULTS,
};
const char *crl_fault_name(enum crl_fault fault);  // "other_issuer"; static
const char *crl_fault_sentence(enum crl_fault fault);

// A list that may be believed. Borrows the bytes it was read from.
struct crl {
  int64_t this_update_s;
  int64_t next_update_s;
  struct bytes entries;    // of revokedCertificates; empty: nobody is
  struct bytes partition;  // IssuingDistributionPoint's value; empty: it speaks for all
};

struct crl_query {
  struct bytes issuer;  // DER certificate
  int64_t now_s;
  int64_t skew_s;
  int64_t min_this_update;  // an older list is a replay; 0: none known
};

// crl_open reads a list in DER and checks all that does not depend on a leaf.
enum crl_fault crl_open(struct crl *out, const struct crl_query *query, struct bytes list);

// crl_covers: does it speak of leaves with these sources (section 6.3.3 (b))? CRL_NO_FAULT,
// CRL_NOT_COVERING, CRL_INDIRECT, CRL_MALFORMED.
enum crl_fault crl_covers(const struct crl *crl, const struct leaf_sources *sources);

struct crl_entry {
  struct bytes serial;  // the INTEGER's content
  int64_t revoked_s;
  int reason;  // section 5.3.1; 0: not said
};

// crl_for_each calls `fn` with every entry until it says true, after which the rest is
// checked all the same: an entry with a critical extension that we do not know spoils the
// whole list (section 5.3). CRL_MALFORMED, CRL_INDIRECT, CRL_UNKNOWN_CRITICAL.
enum crl_fault crl_for_each(const struct crl *crl,
                            bool (*fn)(void *arg, const struct crl_entry *entry), void *arg);

// crl_find looks one serial number up; *is_found says whether it is there.
enum crl_fault crl_find(struct crl_entry *out, bool *is_found, const struct crl *crl,
                        struct bytes serial);

#endif  // DEPUTY_COMMON_REVOCATION_CRL_H_
