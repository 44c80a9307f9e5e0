// SPDX-License-Identifier: Apache-2.0
// Targets: frame_header_decode, frame_body_decode, frame_encode. The input is a
// packet. What decodes is written again, decodes the same, and is then written
// to the same bytes.
#include <stdint.h>
#include <string.h>

#include "common/wire/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

// An empty item is not written, and so comes back as an absent one.
static void check_same(struct bytes a, struct bytes b) { CHECK(bytes_equal(a, b)); }

static void check_inside(struct bytes run, struct bytes body) {
  CHECK(run.data == NULL || (run.data >= body.data && run.len <= body.len &&
                             run.data + run.len <= body.data + body.len));
}

static void check_same_frame(const struct frame *a, const struct frame *b) {
  CHECK(a->id == b->id);
  CHECK(a->has_opcode == b->has_opcode && a->opcode == b->opcode);
  CHECK(a->has_region == b->has_region && a->region == b->region);
  check_same(a->payload, b->payload);
  check_same(a->extra, b->extra);
  check_same(a->ski, b->ski);
  check_same(a->key_digest, b->key_digest);
  check_same(a->client_ip, b->client_ip);
  check_same(a->server_ip, b->server_ip);
  check_same(a->sni, b->sni);
  check_same(a->cert_id, b->cert_id);
  check_same(a->custom, b->custom);
}

static void check_frame(const struct frame *frame, struct bytes body) {
  CHECK(frame->ski.data == NULL || frame->ski.len == FRAME_SKI_LEN);
  CHECK(frame->key_digest.data == NULL || frame->key_digest.len == FRAME_DIGEST_LEN);
  CHECK(frame->client_ip.data == NULL || frame->client_ip.len == 4 || frame->client_ip.len == 16);
  CHECK(frame->server_ip.data == NULL || frame->server_ip.len == 4 || frame->server_ip.len == 16);
  check_inside(frame->payload, body);
  check_inside(frame->extra, body);
  check_inside(frame->ski, body);
  check_inside(frame->key_digest, body);
  check_inside(frame->client_ip, body);
  check_inside(frame->server_ip, body);
  check_inside(frame->sni, body);
  check_inside(frame->cert_id, body);
  check_inside(frame->custom, body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  static uint8_t once[FRAME_MAX_LEN];
  static uint8_t twice[FRAME_MAX_LEN];
  size_t once_len = 0;
  size_t twice_len = 0;
  struct frame_header header;
  struct frame frame;
  struct frame again;
  if (len < FRAME_HEADER_LEN || len > FRAME_MAX_LEN) {
    return 0;
  }
  const struct bytes body = bytes_of(data + FRAME_HEADER_LEN, len - FRAME_HEADER_LEN);
  frame_header_decode(&header, data);
  if (frame_body_decode(&frame, body) != STATUS_OK) {
    return 0;
  }
  check_frame(&frame, body);
  CHECK(frame_opcode_name(frame.opcode) != NULL);
  frame.id = header.id;

  CHECK(frame_encode(once, sizeof(once), &once_len, &frame) == STATUS_OK);
  CHECK(once_len >= FRAME_PAD_TO_LEN && once_len <= FRAME_MAX_LEN);
  frame_header_decode(&header, once);
  CHECK(header.major == FRAME_VERSION_MAJOR && header.minor == 0);
  CHECK(header.body_len == once_len - FRAME_HEADER_LEN && header.id == frame.id);
  CHECK(frame_body_decode(&again, bytes_of(once + FRAME_HEADER_LEN, header.body_len)) == STATUS_OK);
  again.id = header.id;
  check_same_frame(&frame, &again);
  CHECK(frame_encode(twice, sizeof(twice), &twice_len, &again) == STATUS_OK);
  CHECK(bytes_equal(bytes_of(once, once_len), bytes_of(twice, twice_len)));
  return 0;
}
