// SPDX-License-Identifier: Apache-2.0
#include "certstore/staple.h"

#include "common/revocation/ocsp.h"

static enum status status_of(enum ocsp_fault fault) {
  switch (fault) {
    case OCSP_NO_FAULT:
      return STATUS_OK;
    case OCSP_BAD_SIGNATURE:
    case OCSP_WEAK_ALGORITHM:
    case OCSP_SIGNER_FOREIGN:
    case OCSP_SIGNER_UNFIT:
    case OCSP_SIGNER_EXPIRED:
    case OCSP_SIGNER_IS_LEAF:
      return STATUS_CRYPTO;
    case OCSP_NOT_YET_VALID:
    case OCSP_EXPIRED:
    case OCSP_REPLAYED:
      return STATUS_EXPIRED;
    case OCSP_NO_MEMORY:
      return STATUS_MEMORY;
    default:
      return STATUS_FORMAT;
  }
}

enum status staple_check(struct staple_facts *out, struct bytes response, struct bytes leaf,
                         struct bytes issuer, int64_t now_s, struct errmsg *err) {
  const struct ocsp_query query = {.leaf = leaf, .issuer = issuer, .now_s = now_s};
  struct ocsp_answer answer;
  const enum ocsp_fault fault = ocsp_check(&answer, &query, response, err);

  *out = (struct staple_facts){.this_update_s = answer.this_update_s,
                               .next_update_s = answer.next_update_s,
                               .is_signature_checked = answer.is_signature_checked};
  if (ocsp_says_revoked(&answer, fault)) {
    out->is_revoked = answer.is_signature_checked;
    out->revoked_reason = answer.reason;
    return errmsg_set(err, STATUS_REFUSED, "it says that the leaf is revoked (reason %d)",
                      answer.reason);
  }
  if (fault != OCSP_NO_FAULT) {
    return status_of(fault);
  }
  if (answer.status != OCSP_GOOD) {
    return errmsg_set(err, STATUS_REFUSED, "it says that the CA does not know the leaf");
  }
  if (answer.next_update_s == 0) {
    return errmsg_set(err, STATUS_EXPIRED, "it has no nextUpdate, so nobody knows its end");
  }
  return STATUS_OK;
}
