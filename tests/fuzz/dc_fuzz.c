// SPDX-License-Identifier: Apache-2.0
// Targets: dc_decode, dc_encode, dc_signing_input, dc_proof_input. What decodes
// is written to the same bytes, and the input of its signature is read back as
// this credential or refused, but is never of another purpose.
#include <stdint.h>
#include <stdlib.h>

#include "common/wire/dc.h"
#include "common/wire/signing_input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_signing_input(const struct dc *dc) {
  static const uint8_t certificate[] = {0x30, 0x02, 0x05, 0x00};  // a SEQUENCE is all it takes
  struct signing_input parsed;
  uint8_t *input = NULL;
  size_t input_len = 0;
  CHECK(dc_signing_input(&input, &input_len, bytes_of(certificate, sizeof(certificate)), dc) ==
        STATUS_OK);
  if (signing_input_parse(&parsed, bytes_of(input, input_len)) == STATUS_OK) {
    CHECK(parsed.purpose == PURPOSE_DC);
    CHECK(bytes_equal(parsed.certificate, bytes_of(certificate, sizeof(certificate))));
    CHECK(bytes_equal(parsed.dc.credential, dc->credential));
    CHECK(parsed.dc.algorithm == dc->algorithm);
  }
  free(input);
}

static void check_proof_input(const struct dc *dc) {
  static const uint8_t certificate_sha256[32] = {0};
  static uint8_t input[DC_PROOF_MAX_LEN];
  struct signing_input parsed;
  size_t input_len = 0;
  CHECK(dc_proof_input(input, &input_len, certificate_sha256, dc->valid_time_s, dc->verify_scheme,
                       dc->spki) == STATUS_OK);
  CHECK(signing_input_parse(&parsed, bytes_of(input, input_len)) == STATUS_FORMAT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  static uint8_t again[DC_MAX_LEN];
  size_t again_len = 0;
  struct dc dc;
  if (dc_decode(&dc, bytes_of(data, len)) != STATUS_OK) {
    CHECK(dc.spki.data == NULL && dc.credential.data == NULL && dc.signature.data == NULL);
    return 0;
  }
  CHECK(dc.spki.len > 0 && dc.spki.len <= DC_MAX_SPKI_LEN);
  CHECK(dc.signature.len > 0 && dc.signature.len <= DC_MAX_SIGNATURE_LEN);
  CHECK(dc.credential.data == data && dc.credential.len == DC_CREDENTIAL_HEADER_LEN + dc.spki.len);
  CHECK(dc_encode(again, sizeof(again), &again_len, &dc) == STATUS_OK);
  CHECK(bytes_equal(bytes_of(again, again_len), bytes_of(data, len)));
  check_signing_input(&dc);
  check_proof_input(&dc);
  return 0;
}
