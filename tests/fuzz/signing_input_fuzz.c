// SPDX-License-Identifier: Apache-2.0
// Target: signing_input_parse. What has a purpose has the form of that purpose
// as it is restated here, in other words; with one byte more it has none; and a
// credential input is written again to the same bytes.
#include <openssl/err.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire/scheme.h"
#include "common/wire/signing_input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static bool starts_with(struct bytes message, const char *context) {
  const size_t context_len = strlen(context) + 1;
  if (message.len < 64 + context_len) {
    return false;
  }
  for (size_t i = 0; i < 64; i++) {
    if (message.data[i] != ' ') {
      return false;
    }
  }
  return memcmp(message.data + 64, context, context_len) == 0;
}

static void check_tls13(const struct signing_input *input, struct bytes message) {
  CHECK(message.len == 130 || message.len == 146);
  CHECK(starts_with(message, "TLS 1.3, server CertificateVerify"));
  CHECK(input->transcript_hash.data == message.data + 98);
  CHECK(input->transcript_hash.len == message.len - 98);
}

static void check_tls12(const struct signing_input *input, struct bytes message) {
  static const struct {
    uint16_t group;
    size_t len;
  } forms[] = {{29, 100}, {23, 133}, {24, 165}, {25, 201}};
  bool is_found = false;
  for (size_t i = 0; i < 4; i++) {
    is_found = is_found || (forms[i].group == input->group && forms[i].len == message.len);
  }
  CHECK(is_found);
  CHECK(message.data[64] == 3 && message.data[65] == 0 && message.data[66] == input->group);
  CHECK(message.data[67] == message.len - 68);
  CHECK(input->group == 29 || message.data[68] == 4);
}

static void check_dc(const struct signing_input *input, struct bytes message) {
  uint8_t *again = NULL;
  size_t again_len = 0;
  CHECK(starts_with(message, "TLS, server delegated credentials"));
  CHECK(input->certificate.data[0] == 0x30);
  CHECK(input->dc.signature.data == NULL);
  CHECK(dc_signing_input(&again, &again_len, input->certificate, &input->dc) == STATUS_OK);
  CHECK(bytes_equal(bytes_of(again, again_len), message));
  free(again);
}

static void check_csr(const struct signing_input *input, struct bytes message) {
  CHECK(message.data[0] == 0x30 && message.len <= SIGNING_INPUT_MAX_CSR_LEN);
  CHECK(input->csr_spki.data > message.data &&
        input->csr_spki.data + input->csr_spki.len < message.data + message.len);
  CHECK(key_kind_of_spki(input->csr_spki) != KEY_KIND_NONE);
}

static void check_one_byte_more_is_nothing(struct bytes message) {
  static uint8_t longer[SIGNING_INPUT_MAX_LEN + 1];
  struct signing_input input;
  memcpy(longer, message.data, message.len);
  longer[message.len] = 0;
  CHECK(signing_input_parse(&input, bytes_of(longer, message.len + 1)) == STATUS_FORMAT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  const struct bytes message = bytes_of(data, len);
  struct signing_input input;
  const enum status st = signing_input_parse(&input, message);
  CHECK(ERR_peek_error() == 0);
  if (st != STATUS_OK) {
    CHECK(st == STATUS_FORMAT && input.purpose == PURPOSE_NONE && input.why != NULL);
    return 0;
  }
  CHECK(input.why == NULL);
  switch (input.purpose) {
    case PURPOSE_TLS13:
      check_tls13(&input, message);
      break;
    case PURPOSE_TLS12:
      check_tls12(&input, message);
      break;
    case PURPOSE_DC:
      check_dc(&input, message);
      break;
    case PURPOSE_CSR:
      check_csr(&input, message);
      break;
    default:
      CHECK(input.purpose == PURPOSE_NONE && false);  // parsing gives no other
  }
  check_one_byte_more_is_nothing(message);
  return 0;
}
