// SPDX-License-Identifier: Apache-2.0
#include "common/wire/frame.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/unit/common/wire/vectors.h"

#define OVERHEAD (FRAME_HEADER_LEN + 4 + 3)  // header, opcode item, head of the payload item

// What the vectors' requests say, as a caller would fill it.
struct request {
  struct frame frame;
  uint8_t digest[64];
  uint8_t message[256];
  uint8_t ski[FRAME_SKI_LEN];
  uint8_t client_ip[4];
  uint8_t server_ip[16];
};

static void fill_digest(struct request *r) {
  const size_t len =
      vector_unhex(r->digest, sizeof(r->digest),
                   "b5cfd95be72a6bc2f4a78f116e5431e6de1159adf3262b79c24c104d937d8ac3");
  r->frame.payload = bytes_of(r->digest, len);
}

static void fill_ski(struct request *r, const char *ski) {
  r->frame.ski = bytes_of(r->ski, vector_unhex(r->ski, sizeof(r->ski), ski));
}

static void fill_request(struct request *r, size_t vector) {
  static const uint8_t tls13_start[] = "TLS 1.3, server CertificateVerify";
  memset(r, 0, sizeof(*r));
  r->frame.has_opcode = true;
  fill_digest(r);
  switch (vector) {
    case VECTOR_PING:
      r->frame.id = 1;
      r->frame.opcode = FRAME_OP_PING;
      r->frame.payload = bytes_text("hello");
      break;
    case VECTOR_ECDSA_REQUEST:
      r->frame.id = 0x01020304;
      r->frame.opcode = FRAME_OP_ECDSA_SHA256;
      fill_ski(r, VECTOR_P256_SKI);
      assert_int_equal(inet_pton(AF_INET, "192.0.2.1", r->client_ip), 1);
      assert_int_equal(inet_pton(AF_INET6, "2001:db8::1", r->server_ip), 1);
      r->frame.client_ip = bytes_of(r->client_ip, 4);
      r->frame.server_ip = bytes_of(r->server_ip, 16);
      r->frame.sni = bytes_text("www.example.com");
      break;
    case VECTOR_PSS_REQUEST:
      r->frame.id = 0xfffffffe;
      r->frame.opcode = FRAME_OP_PSS_SHA256;
      fill_ski(r, VECTOR_RSA_SKI);
      break;
    case VECTOR_UNKNOWN_KEY_REQUEST:
      r->frame.id = 4;
      r->frame.opcode = FRAME_OP_ECDSA_SHA384;
      fill_ski(r, "0102030405060708090a0b0c0d0e0f1011121314");
      break;
    case VECTOR_ED25519_REQUEST:
      r->frame.id = 5;
      r->frame.opcode = FRAME_OP_ED25519;
      fill_ski(r, VECTOR_ED25519_SKI);
      memset(r->message, 0x20, 64);
      memcpy(r->message + 64, tls13_start, sizeof(tls13_start));
      memcpy(r->message + 64 + sizeof(tls13_start), r->digest, 32);
      r->frame.payload = bytes_of(r->message, 64 + sizeof(tls13_start) + 32);
      break;
    default:
      fail_msg("vector %zu is no request", vector);
  }
}

static void assert_bytes(struct bytes got, struct bytes want) {
  assert_int_equal(got.len, want.len);
  if (want.len != 0) {
    assert_memory_equal(got.data, want.data, want.len);
  }
}

static void assert_same_frame(const struct frame *got, const struct frame *want) {
  assert_int_equal(got->id, want->id);
  assert_int_equal(got->has_opcode, want->has_opcode);
  assert_int_equal(got->opcode, want->opcode);
  assert_int_equal(got->has_region, want->has_region);
  assert_int_equal(got->region, want->region);
  assert_bytes(got->payload, want->payload);
  assert_bytes(got->extra, want->extra);
  assert_bytes(got->ski, want->ski);
  assert_bytes(got->key_digest, want->key_digest);
  assert_bytes(got->client_ip, want->client_ip);
  assert_bytes(got->server_ip, want->server_ip);
  assert_bytes(got->sni, want->sni);
  assert_bytes(got->cert_id, want->cert_id);
  assert_bytes(got->custom, want->custom);
}

// decode_packet reads header and body as a receiver does.
static enum status decode_packet(struct frame *out, struct bytes packet) {
  struct frame_header header;
  enum status st;
  assert_true(packet.len >= FRAME_HEADER_LEN);
  frame_header_decode(&header, packet.data);
  assert_int_equal(header.body_len, packet.len - FRAME_HEADER_LEN);
  assert_int_equal(header.major, FRAME_VERSION_MAJOR);
  assert_int_equal(header.minor, 0);
  st = frame_body_decode(out,
                         bytes_of(packet.data + FRAME_HEADER_LEN, packet.len - FRAME_HEADER_LEN));
  out->id = header.id;
  return st;
}

static void decodes_and_writes_requests_of_another_implementation(void **state) {
  static const size_t vectors[] = {VECTOR_PING, VECTOR_ECDSA_REQUEST, VECTOR_PSS_REQUEST,
                                   VECTOR_UNKNOWN_KEY_REQUEST, VECTOR_ED25519_REQUEST};
  (void)state;
  for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
    const struct vector_packet *vector = &vector_packets[vectors[i]];
    uint8_t want[VECTOR_PACKET_MAX_LEN];
    uint8_t got[VECTOR_PACKET_MAX_LEN];
    const size_t want_len = vector_packet_bytes(want, vector);
    size_t got_len = 0;
    struct request request;
    struct frame frame;

    vector_assert_sha256(bytes_of(want, want_len), vector->sha256);
    fill_request(&request, vectors[i]);
    assert_int_equal(frame_encode(got, sizeof(got), &got_len, &request.frame), STATUS_OK);
    assert_int_equal(got_len, want_len);
    assert_memory_equal(got, want, want_len);
    assert_int_equal(decode_packet(&frame, bytes_of(want, want_len)), STATUS_OK);
    assert_same_frame(&frame, &request.frame);
  }
}

static void decodes_and_writes_responses_of_another_implementation(void **state) {
  static const struct {
    size_t vector;
    uint32_t id;
    uint8_t opcode;
    size_t payload_len;
  } cases[] = {
      {VECTOR_PONG, 1, FRAME_OP_PONG, 5},
      {VECTOR_ECDSA_RESPONSE, 0x01020304, FRAME_OP_SUCCESS, 71},
      {VECTOR_PSS_RESPONSE, 0xfffffffe, FRAME_OP_SUCCESS, 256},
      {VECTOR_UNKNOWN_KEY_RESPONSE, 4, FRAME_OP_ERROR, 1},
      {VECTOR_ED25519_RESPONSE, 5, FRAME_OP_SUCCESS, 64},
  };
  (void)state;
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    const struct vector_packet *vector = &vector_packets[cases[i].vector];
    uint8_t want[VECTOR_PACKET_MAX_LEN];
    uint8_t got[VECTOR_PACKET_MAX_LEN];
    const size_t want_len = vector_packet_bytes(want, vector);
    size_t got_len = 0;
    struct frame frame;

    vector_assert_sha256(bytes_of(want, want_len), vector->sha256);
    assert_int_equal(decode_packet(&frame, bytes_of(want, want_len)), STATUS_OK);
    assert_int_equal(frame.id, cases[i].id);
    assert_int_equal(frame.opcode, cases[i].opcode);
    assert_int_equal(frame.payload.len, cases[i].payload_len);
    assert_int_equal(
        frame_encode_response(got, sizeof(got), &got_len, frame.id, frame.opcode, frame.payload),
        STATUS_OK);
    assert_int_equal(got_len, want_len);
    assert_memory_equal(got, want, want_len);
  }
}

static void error_packet_is_that_of_another_implementation(void **state) {
  uint8_t want[VECTOR_PACKET_MAX_LEN];
  uint8_t got[VECTOR_PACKET_MAX_LEN];
  size_t got_len = 0;
  (void)state;
  const size_t want_len = vector_packet_bytes(want, &vector_packets[VECTOR_UNKNOWN_KEY_RESPONSE]);
  assert_int_equal(frame_encode_error(got, sizeof(got), &got_len, 4, FRAME_ERROR_KEY_NOT_FOUND),
                   STATUS_OK);
  assert_int_equal(got_len, want_len);
  assert_memory_equal(got, want, want_len);
}

static void header_is_big_endian(void **state) {
  static const uint8_t data[FRAME_HEADER_LEN] = {0xfe, 0x07, 0x81, 0x02, 0x83, 0x04, 0x05, 0x86};
  struct frame_header header;
  (void)state;
  frame_header_decode(&header, data);
  assert_int_equal(header.major, 0xfe);
  assert_int_equal(header.minor, 7);
  assert_int_equal(header.body_len, 0x8102);
  assert_int_equal(header.id, 0x83040586);
}

// The packet without padding has n bytes; the rule decides how long it gets.
static void pads_to_1024_by_the_rule(void **state) {
  static const uint8_t zeros[2048] = {0};
  uint8_t packet[4096];
  (void)state;
  for (size_t n = OVERHEAD + 1; n < 1200; n++) {
    const size_t want = n >= 1024 ? n : n == 1023 ? 1026 : n == 1022 ? 1025 : 1024;
    size_t packet_len = 0;
    struct frame frame;
    assert_int_equal(frame_encode_response(packet, sizeof(packet), &packet_len, 9, FRAME_OP_SUCCESS,
                                           bytes_of(zeros, n - OVERHEAD)),
                     STATUS_OK);
    assert_int_equal(packet_len, want);
    if (n < 1024) {
      assert_int_equal(packet[n], FRAME_TAG_PADDING);
      assert_int_equal((packet[n + 1] << 8) | packet[n + 2], want - n - 3);
    }
    assert_int_equal(decode_packet(&frame, bytes_of(packet, packet_len)), STATUS_OK);
    assert_int_equal(frame.payload.len, n - OVERHEAD);
  }
}

static void longest_packet_goes_through_and_one_more_byte_does_not(void **state) {
  const size_t max_payload_len = 65528;
  uint8_t *payload = calloc(1, max_payload_len + 1);
  uint8_t *packet = malloc(FRAME_MAX_LEN + 64);
  size_t packet_len = 0;
  struct frame frame;
  (void)state;
  assert_non_null(payload);
  assert_non_null(packet);
  assert_int_equal(frame_encode_response(packet, FRAME_MAX_LEN + 64, &packet_len, 1, FRAME_OP_PONG,
                                         bytes_of(payload, max_payload_len)),
                   STATUS_OK);
  assert_int_equal(packet_len, FRAME_MAX_LEN);
  assert_int_equal(decode_packet(&frame, bytes_of(packet, packet_len)), STATUS_OK);
  assert_int_equal(frame.payload.len, max_payload_len);
  assert_int_equal(frame_encode_response(packet, FRAME_MAX_LEN + 64, &packet_len, 1, FRAME_OP_PONG,
                                         bytes_of(payload, max_payload_len + 1)),
                   STATUS_LIMIT);
  assert_int_equal(packet_len, 0);
  free(packet);
  free(payload);
}

static void item_longer_than_its_length_field_is_not_written(void **state) {
  const size_t payload_len = 65536 + 5;  // would be 5 in 16 bits
  uint8_t *payload = calloc(1, payload_len);
  uint8_t *packet = malloc(2 * FRAME_MAX_LEN);
  size_t packet_len = 1;
  (void)state;
  assert_non_null(payload);
  assert_non_null(packet);
  assert_int_equal(frame_encode_response(packet, (size_t)2 * FRAME_MAX_LEN, &packet_len, 1,
                                         FRAME_OP_PONG, bytes_of(payload, payload_len)),
                   STATUS_LIMIT);
  assert_int_equal(packet_len, 0);
  free(packet);
  free(payload);
}

static void needs_all_the_room_it_fills(void **state) {
  uint8_t packet[VECTOR_PACKET_MAX_LEN];
  struct request request;
  size_t packet_len = 0;
  (void)state;
  fill_request(&request, VECTOR_ECDSA_REQUEST);
  for (size_t max = 0; max < FRAME_PAD_TO_LEN; max++) {
    memset(packet, 0xee, sizeof(packet));
    assert_int_equal(frame_encode(packet, max, &packet_len, &request.frame), STATUS_LIMIT);
    assert_int_equal(packet_len, 0);
    for (size_t i = max; i < sizeof(packet); i++) {
      assert_int_equal(packet[i], 0xee);  // nothing past the end of the room
    }
  }
  assert_int_equal(frame_encode(packet, FRAME_PAD_TO_LEN, &packet_len, &request.frame), STATUS_OK);
}

static void does_not_write_what_it_would_not_read(void **state) {
  static const uint8_t zeros[64] = {0};
  const struct frame wrong[] = {
      {.ski = bytes_of(zeros, 19)},        {.ski = bytes_of(zeros, 21)},
      {.key_digest = bytes_of(zeros, 31)}, {.client_ip = bytes_of(zeros, 5)},
      {.server_ip = bytes_of(zeros, 15)},
  };
  uint8_t packet[VECTOR_PACKET_MAX_LEN];
  size_t packet_len = 0;
  (void)state;
  for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
    assert_int_equal(frame_encode(packet, sizeof(packet), &packet_len, &wrong[i]), STATUS_LIMIT);
  }
}

static void every_item_survives_the_way_there_and_back(void **state) {
  static const uint8_t ids[32] = {1, 2, 3};
  const struct frame frame = {
      .id = 0xdeadbeef,
      .has_opcode = true,
      .opcode = FRAME_OP_CUSTOM,
      .payload = bytes_text("payload"),
      .extra = bytes_text("extra"),
      .ski = bytes_of(ids, 20),
      .key_digest = bytes_of(ids, 32),
      .client_ip = bytes_of(ids, 16),
      .server_ip = bytes_of(ids, 4),
      .sni = bytes_text("a.test"),
      .cert_id = bytes_text("cert"),
      .custom = bytes_text("function"),
      .has_region = true,
      .region = 1,
  };
  static const uint8_t order[] = {0x11, 0x12, 0x14, 0x04, 0x01, 0x03,
                                  0x05, 0x02, 0x06, 0x13, 0x17, 0x20};
  uint8_t packet[VECTOR_PACKET_MAX_LEN];
  size_t packet_len = 0;
  size_t at = FRAME_HEADER_LEN;
  struct frame got;
  (void)state;
  assert_int_equal(frame_encode(packet, sizeof(packet), &packet_len, &frame), STATUS_OK);
  assert_int_equal(packet_len, FRAME_PAD_TO_LEN);
  assert_int_equal(decode_packet(&got, bytes_of(packet, packet_len)), STATUS_OK);
  assert_same_frame(&got, &frame);
  for (size_t i = 0; i < sizeof(order); i++) {
    assert_int_equal(packet[at], order[i]);
    at += 3 + (size_t)((packet[at + 1] << 8) | packet[at + 2]);
  }
  assert_int_equal(at, packet_len);
}

static enum status decode_hex(struct frame *out, uint8_t body[256], const char *hex) {
  const size_t len = vector_unhex(body, 256, hex);
  return frame_body_decode(out, bytes_of(body, len));
}

static void accepts_what_peers_may_send(void **state) {
  static const char ski[] = "0400140102030405060708090a0b0c0d0e0f1011121314";
  char text[512];
  uint8_t body[256];
  struct frame frame;
  (void)state;

  // Any order; unknown tags, also repeated; no padding.
  (void)snprintf(text, sizeof(text), "%s99000101990001020700001200021234110001f1", ski);
  assert_int_equal(decode_hex(&frame, body, text), STATUS_OK);
  assert_true(frame.has_opcode);
  assert_int_equal(frame.opcode, FRAME_OP_PING);
  assert_int_equal(frame.ski.len, 20);
  assert_int_equal(frame.payload.len, 2);

  // One or two stray bytes behind the last item.
  assert_int_equal(decode_hex(&frame, body, "110001f100"), STATUS_OK);
  assert_int_equal(decode_hex(&frame, body, "110001f11100"), STATUS_OK);
  assert_int_equal(frame.opcode, FRAME_OP_PING);
  assert_int_equal(decode_hex(&frame, body, "11"), STATUS_OK);
  assert_false(frame.has_opcode);

  // A key's name of the wrong length is as if it were not there.
  assert_int_equal(decode_hex(&frame, body, "040001aa010002bbbb110001f1"), STATUS_OK);
  assert_null(frame.ski.data);
  assert_null(frame.key_digest.data);

  // Tracing of other people, whatever is in it.
  assert_int_equal(decode_hex(&frame, body, "150001ff1600046e756c6c110001f1"), STATUS_OK);

  // Nothing at all: no opcode, which is the caller's to answer.
  assert_int_equal(frame_body_decode(&frame, bytes_of(NULL, 0)), STATUS_OK);
  assert_false(frame.has_opcode);
}

static void tells_an_empty_item_from_none(void **state) {
  uint8_t body[256];
  struct frame frame;
  (void)state;
  assert_int_equal(decode_hex(&frame, body, "120000"), STATUS_OK);
  assert_non_null(frame.payload.data);
  assert_int_equal(frame.payload.len, 0);
  assert_null(frame.extra.data);
  assert_null(frame.sni.data);
}

static void refuses_any_known_tag_twice(void **state) {
  static const uint8_t known[] = {0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x11,
                                  0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x20};
  (void)state;
  for (size_t i = 0; i < sizeof(known); i++) {
    const uint8_t tag = known[i];
    const bool is_ip = tag == 0x03 || tag == 0x05;
    const size_t len = is_ip ? 4 : 1;
    uint8_t body[64] = {0};
    struct frame frame;
    body[0] = tag;
    body[2] = (uint8_t)len;
    body[3 + len] = tag;
    body[3 + len + 2] = (uint8_t)len;
    assert_int_equal(frame_body_decode(&frame, bytes_of(body, 3 + len)), STATUS_OK);
    assert_int_equal(frame_body_decode(&frame, bytes_of(body, 2 * (3 + len))), STATUS_FORMAT);
  }
}

static void refuses_wrong_lengths_of_fixed_items(void **state) {
  static const char *const wrong[] = {
      "110000", "1100020102",                                            // opcode
      "170000", "1700020102",                                            // region
      "030000", "0300030a0000", "0300050a00000001",                      // client's address
      "050000", "0500030a0000", "05000f000102030405060708090a0b0c0d0e",  // server's address
  };
  (void)state;
  for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
    uint8_t body[256];
    struct frame frame;
    assert_int_equal(decode_hex(&frame, body, wrong[i]), STATUS_FORMAT);
  }
}

static void refuses_an_item_past_the_end(void **state) {
  static const char *const cut[] = {"110001", "1200051234", "120001", "99ffff00", "200001"};
  (void)state;
  for (size_t i = 0; i < sizeof(cut) / sizeof(cut[0]); i++) {
    uint8_t body[256];
    struct frame frame;
    assert_int_equal(decode_hex(&frame, body, cut[i]), STATUS_FORMAT);
  }
}

// A body that is cut is right only where an item ends, or up to two bytes on.
static void refuses_a_body_cut_inside_an_item(void **state) {
  uint8_t packet[VECTOR_PACKET_MAX_LEN];
  bool may_end[VECTOR_PACKET_MAX_LEN + 3] = {false};
  (void)state;
  const size_t len =
      vector_packet_bytes(packet, &vector_packets[VECTOR_ECDSA_REQUEST]) - FRAME_HEADER_LEN;
  const uint8_t *body = packet + FRAME_HEADER_LEN;
  for (size_t at = 0; at <= len;) {
    may_end[at] = may_end[at + 1] = may_end[at + 2] = true;
    if (at == len) {
      break;
    }
    at += 3 + (size_t)((body[at + 1] << 8) | body[at + 2]);
  }
  for (size_t cut = 0; cut <= len; cut++) {
    struct frame frame;
    assert_int_equal(frame_body_decode(&frame, bytes_of(body, cut)),
                     may_end[cut] ? STATUS_OK : STATUS_FORMAT);
  }
}

static void names_codes(void **state) {
  (void)state;
  assert_string_equal(frame_opcode_name(FRAME_OP_ECDSA_SHA256), "ecdsa_sha256");
  assert_string_equal(frame_opcode_name(FRAME_OP_PSS_SHA512), "pss_sha512");
  assert_string_equal(frame_opcode_name(FRAME_OP_ERROR), "error");
  assert_string_equal(frame_opcode_name(0x08), "unknown");
  assert_string_equal(frame_error_name(FRAME_ERROR_NOT_AUTHORISED), "not_authorised");
  assert_string_equal(frame_error_name(FRAME_ERROR_KEY_NOT_FOUND), "key_not_found");
  assert_string_equal(frame_error_name((enum frame_error)0x3f), "unknown");
}

static void only_errors_of_the_server_fail_over(void **state) {
  static const enum frame_error yes[] = {FRAME_ERROR_CRYPTOGRAPHY,   FRAME_ERROR_KEY_NOT_FOUND,
                                         FRAME_ERROR_READ,           FRAME_ERROR_VERSION,
                                         FRAME_ERROR_INTERNAL,       FRAME_ERROR_CERT_NOT_FOUND,
                                         FRAME_ERROR_REMOTE_CONFIG,  FRAME_ERROR_BUSY,
                                         FRAME_ERROR_NOT_AUTHORISED, (enum frame_error)0x3f};
  static const enum frame_error no[] = {
      FRAME_ERROR_NONE,       FRAME_ERROR_BAD_OPCODE, FRAME_ERROR_UNEXPECTED_OPCODE,
      FRAME_ERROR_FORMAT,     FRAME_ERROR_EXPIRED,    FRAME_ERROR_RATE,
      FRAME_ERROR_BAD_MESSAGE};
  (void)state;
  for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
    assert_true(frame_error_may_failover(yes[i]));
  }
  for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++) {
    assert_false(frame_error_may_failover(no[i]));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(decodes_and_writes_requests_of_another_implementation),
      cmocka_unit_test(decodes_and_writes_responses_of_another_implementation),
      cmocka_unit_test(error_packet_is_that_of_another_implementation),
      cmocka_unit_test(header_is_big_endian),
      cmocka_unit_test(pads_to_1024_by_the_rule),
      cmocka_unit_test(longest_packet_goes_through_and_one_more_byte_does_not),
      cmocka_unit_test(item_longer_than_its_length_field_is_not_written),
      cmocka_unit_test(needs_all_the_room_it_fills),
      cmocka_unit_test(does_not_write_what_it_would_not_read),
      cmocka_unit_test(every_item_survives_the_way_there_and_back),
      cmocka_unit_test(accepts_what_peers_may_send),
      cmocka_unit_test(tells_an_empty_item_from_none),
      cmocka_unit_test(refuses_any_known_tag_twice),
      cmocka_unit_test(refuses_wrong_lengths_of_fixed_items),
      cmocka_unit_test(refuses_an_item_past_the_end),
      cmocka_unit_test(refuses_a_body_cut_inside_an_item),
      cmocka_unit_test(names_codes),
      cmocka_unit_test(only_errors_of_the_server_fail_over),
  };
  return cmocka_run_group_tests_name("frame", tests, NULL, NULL);
}
