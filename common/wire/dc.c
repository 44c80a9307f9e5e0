// SPDX-License-Identifier: Apache-2.0
// RFC 9345, section 4. What is written and what is read share the same two
// halves: the Credential, and the algorithm with the signature.
#include "common/wire/dc.h"

#include <stdlib.h>
#include <string.h>

#include "common/wire/writer.h"

#define NUM_SPACES 64u
#define SPACE 0x20

enum status dc_credential_decode(struct dc *out, CBS *cbs) {
  CBS start = *cbs;
  CBS spki;
  if (!CBS_get_u32(cbs, &out->valid_time_s) || !CBS_get_u16(cbs, &out->verify_scheme) ||
      !CBS_get_u24_length_prefixed(cbs, &spki) || CBS_len(&spki) == 0) {
    return STATUS_FORMAT;
  }
  if (CBS_len(&spki) > DC_MAX_SPKI_LEN) {
    return STATUS_LIMIT;
  }
  out->spki = bytes_of(CBS_data(&spki), CBS_len(&spki));
  out->credential = bytes_of(CBS_data(&start), CBS_len(&start) - CBS_len(cbs));
  return STATUS_OK;
}

enum status dc_decode(struct dc *out, struct bytes in) {
  enum status st = STATUS_OK;
  CBS cbs;
  CBS signature;

  *out = (struct dc){0};
  if (in.len > DC_MAX_LEN) {
    return STATUS_LIMIT;
  }
  CBS_init(&cbs, in.data, in.len);
  TRY(dc_credential_decode(out, &cbs));
  if (!CBS_get_u16(&cbs, &out->algorithm) || !CBS_get_u16_length_prefixed(&cbs, &signature) ||
      CBS_len(&signature) == 0 || CBS_len(&cbs) != 0) {
    TRY(STATUS_FORMAT);
  }
  if (CBS_len(&signature) > DC_MAX_SIGNATURE_LEN) {
    TRY(STATUS_LIMIT);
  }
  out->signature = bytes_of(CBS_data(&signature), CBS_len(&signature));

out:
  if (st != STATUS_OK) {
    *out = (struct dc){0};  // nobody goes on with half a credential
  }
  return st;
}

static bool has_right_spki(const struct dc *dc) {
  return dc->spki.len > 0 && dc->spki.len <= DC_MAX_SPKI_LEN;
}

static void add_credential(struct writer *w, const struct dc *dc) {
  writer_u32(w, dc->valid_time_s);
  writer_u16(w, dc->verify_scheme);
  writer_uint(w, dc->spki.len, 3);
  writer_bytes(w, dc->spki);
}

enum status dc_encode(uint8_t *out, size_t max, size_t *out_len, const struct dc *dc) {
  struct writer w = writer_of(out, max);
  *out_len = 0;
  if (!has_right_spki(dc) || dc->signature.len == 0 || dc->signature.len > DC_MAX_SIGNATURE_LEN) {
    return STATUS_LIMIT;
  }
  add_credential(&w, dc);
  writer_u16(&w, dc->algorithm);
  writer_u16(&w, (uint16_t)dc->signature.len);
  writer_bytes(&w, dc->signature);
  return writer_finish(&w, out_len);
}

// add_context writes what TLS 1.3 puts before all that is signed (RFC 8446,
// section 4.4.3): spaces, the context with its terminator as the separator.
static void add_context(struct writer *w, const char *context) {
  writer_fill(w, SPACE, NUM_SPACES);
  writer_bytes(w, bytes_of(context, strlen(context) + 1));
}

enum status dc_signing_input(uint8_t **out, size_t *out_len, struct bytes certificate,
                             const struct dc *dc) {
  struct writer w;
  size_t max;

  *out = NULL;
  *out_len = 0;
  if (certificate.len == 0 || certificate.len > DC_MAX_CERTIFICATE_LEN || !has_right_spki(dc)) {
    return STATUS_LIMIT;
  }
  max = NUM_SPACES + sizeof(DC_CONTEXT_SERVER) + certificate.len + DC_CREDENTIAL_HEADER_LEN +
        dc->spki.len + sizeof(dc->algorithm);
  w = writer_of(malloc(max), max);
  if (w.data == NULL) {
    return STATUS_MEMORY;
  }
  add_context(&w, DC_CONTEXT_SERVER);
  writer_bytes(&w, certificate);
  add_credential(&w, dc);
  writer_u16(&w, dc->algorithm);
  CHECK(!w.is_full && w.len == max);
  *out = w.data;
  *out_len = w.len;
  return STATUS_OK;
}

enum status dc_valid_time(uint32_t *out, int64_t not_before_s, int64_t now_s, int64_t lifetime_s) {
  int64_t age_s;
  int64_t valid_time_s;
  *out = 0;
  if (__builtin_sub_overflow(now_s, not_before_s, &age_s) ||
      __builtin_add_overflow(age_s, lifetime_s, &valid_time_s) || valid_time_s < 0 ||
      valid_time_s > UINT32_MAX) {
    return STATUS_LIMIT;
  }
  *out = (uint32_t)valid_time_s;
  return STATUS_OK;
}

int64_t dc_expiry_s(const struct dc *dc, int64_t not_before_s) {
  int64_t expiry_s;
  // A notBefore so late that it overflows is garbage of a peer, not of ours.
  if (__builtin_add_overflow(not_before_s, (int64_t)dc->valid_time_s, &expiry_s)) {
    return INT64_MAX;
  }
  return expiry_s;
}

enum status dc_proof_input(uint8_t out[DC_PROOF_MAX_LEN], size_t *out_len,
                           const uint8_t certificate_sha256[32], int64_t lifetime_s,
                           uint16_t scheme, struct bytes spki) {
  struct writer w = writer_of(out, DC_PROOF_MAX_LEN);
  *out_len = 0;
  if (lifetime_s < 0 || spki.len == 0 || spki.len > DC_MAX_SPKI_LEN) {
    return STATUS_LIMIT;
  }
  add_context(&w, DC_PROOF_CONTEXT);
  writer_bytes(&w, bytes_of(certificate_sha256, 32));
  writer_uint(&w, (uint64_t)lifetime_s, sizeof(lifetime_s));
  writer_u16(&w, scheme);
  writer_bytes(&w, spki);
  return writer_finish(&w, out_len);
}
