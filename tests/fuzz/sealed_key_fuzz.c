// SPDX-License-Identifier: Apache-2.0
// Targets: sealed_key_unarmour, sealed_key_parse, sealed_key_encode,
// sealed_key_armour. An input is a file, or, when it has no armour, what is inside
// one. What parses encodes to the same bytes; what is armoured comes out again.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire/sealed_key.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_inside(struct bytes whole, struct bytes part) {
  CHECK(part.data >= whole.data && part.len <= whole.len &&
        part.data + part.len <= whole.data + whole.len);
}

static void parse(struct bytes in) {
  static struct sealed_key sealed;
  static uint8_t encoded[SEALED_KEY_MAX_LEN];
  struct errmsg err = {0};
  size_t encoded_len = 0;

  if (sealed_key_parse(&sealed, in, &err) != STATUS_OK) {
    CHECK(err.text[0] != '\0');
    return;
  }
  CHECK(sealed.policy.num_terms > 0 && sealed.num_recipients > 0);
  check_inside(in, sealed.label);
  check_inside(in, sealed.spki);
  check_inside(in, sealed.ciphertext);
  CHECK(sealed.head.data == in.data && sealed.bound.data == in.data);
  CHECK(sealed.head.len < sealed.bound.len && sealed.bound.len + sealed.ciphertext.len == in.len);
  for (size_t i = 0; i < sealed.num_recipients; i++) {
    const struct sealed_recipient *r = &sealed.recipients[i];
    CHECK(sealed_key_find(&sealed, r->key_id) == r);
    check_inside(in, bytes_of(r->content_key, SEALED_KEY_CONTENT_KEY_LEN + SEALED_KEY_TAG_LEN));
  }
  CHECK(sealed_key_encode(encoded, sizeof encoded, &encoded_len, &sealed) == STATUS_OK);
  CHECK(bytes_equal(bytes_of(encoded, encoded_len), in));
}

// rearmour: what was taken out goes in and comes out the same.
static void rearmour(struct bytes in) {
  char *text = NULL;
  uint8_t *again = NULL;
  size_t text_len = 0;
  size_t again_len = 0;

  CHECK(sealed_key_armour(&text, &text_len, in) == STATUS_OK);
  CHECK(strlen(text) == text_len);
  if (text_len <= SEALED_KEY_FILE_MAX_LEN) {
    CHECK(sealed_key_unarmour(&again, &again_len, bytes_of(text, text_len), NULL) == STATUS_OK);
    CHECK(bytes_equal(bytes_of(again, again_len), in));
  }
  free(again);
  free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  struct errmsg err = {0};
  uint8_t *inside = NULL;
  size_t inside_len = 0;

  if (sealed_key_unarmour(&inside, &inside_len, bytes_of(data, len), &err) == STATUS_OK) {
    parse(bytes_of(inside, inside_len));
    rearmour(bytes_of(inside, inside_len));
  } else {
    CHECK(err.text[0] != '\0' && inside == NULL);
    if (len > 0) {
      parse(bytes_of(data, len));
    }
  }
  free(inside);
  return 0;
}
