// SPDX-License-Identifier: Apache-2.0
// Target: ocsp_check. The input is the time (8 bytes), the leaf and the issuer (each after
// its length in 2 bytes), then a response. What is believed was checked: signed, of its
// time, about the leaf, and no staple unless it is good.
#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <stdint.h>

#include "common/revocation/ocsp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define SKEW_S 300

static struct bytes bytes_of_cbs(const CBS *cbs) { return bytes_of(CBS_data(cbs), CBS_len(cbs)); }

static void check(const struct ocsp_query *query, struct bytes response) {
  struct ocsp_answer answer;
  struct errmsg err = {0};
  const enum ocsp_fault fault = ocsp_check(&answer, query, response, &err);

  CHECK(fault < OCSP_NUM_FAULTS);
  CHECK((fault == OCSP_NO_FAULT) == (err.text[0] == '\0'));
  if (fault == OCSP_NO_FAULT) {
    CHECK(answer.is_signature_checked == (query->issuer.len > 0));
    CHECK(answer.this_update_s <= query->now_s + SKEW_S);
    CHECK(answer.next_update_s == 0 || query->now_s < answer.next_update_s + SKEW_S);
    CHECK(answer.this_update_s >= query->min_this_update);
  }
  if (ocsp_may_staple(&answer, fault, query->now_s)) {
    CHECK(fault == OCSP_NO_FAULT && answer.status == OCSP_GOOD && answer.is_signature_checked);
    CHECK(answer.this_update_s <= query->now_s && query->now_s < answer.next_update_s);
  }
  if (ocsp_says_revoked(&answer, fault)) {
    CHECK(answer.status == OCSP_REVOKED && answer.reason >= 0 && answer.reason <= 10);
  }
  CHECK(ERR_peek_error() == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  CBS cbs;
  CBS leaf;
  CBS issuer;
  uint64_t now_s = 0;
  struct ocsp_query query = {.skew_s = SKEW_S};

  CBS_init(&cbs, data, len);
  if (!CBS_get_u64(&cbs, &now_s) || !CBS_get_u16_length_prefixed(&cbs, &leaf) ||
      !CBS_get_u16_length_prefixed(&cbs, &issuer)) {
    return 0;
  }
  query.now_s = (int64_t)(now_s & 0xffffffffffu);
  query.leaf = bytes_of_cbs(&leaf);
  query.issuer = bytes_of_cbs(&issuer);
  check(&query, bytes_of_cbs(&cbs));
  query.nonce = bytes_of("0123456789abcdef", OCSP_NONCE_LEN);
  query.must_have_nonce = true;
  check(&query, bytes_of_cbs(&cbs));
  query = (struct ocsp_query){.leaf = query.leaf, .now_s = query.now_s, .skew_s = SKEW_S};
  check(&query, bytes_of_cbs(&cbs));
  return 0;
}
