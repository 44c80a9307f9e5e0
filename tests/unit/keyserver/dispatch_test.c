// SPDX-License-Identifier: Apache-2.0
// One packet in, one reply out, one audit line for all but pings.
#include "keyserver/dispatch.h"

#include <jansson.h>
#include <openssl/sha.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/tls/cert.h"
#include "tests/support/certs.h"
#include "tests/unit/keyserver/fixture.h"

static struct fixture fix;
static struct stats stats;
static struct dispatcher dispatcher;
static struct asker asker;
static const struct audit_subject subject = {.client = {.name = "proxy.test"},
                                             .address = "192.0.2.1:4711"};
static uint8_t out[DISPATCH_REPLY_LEN(FRAME_MAX_BODY_LEN)];
static uint8_t message[130];

static int setup(void **state) {
  static const char context[] = "TLS 1.3, server CertificateVerify";
  (void)state;
  fixture_load(&fix, NULL);
  fixture_asker(&asker, &fix, "proxy.test");
  memset(message, ' ', 64);
  memcpy(message + 64, context, sizeof context);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  fixture_cleanup(&fix);
  return 0;
}

static void open_audit(const char *path, bool must_audit) {
  memset(&stats, 0, sizeof stats);
  dispatcher = (struct dispatcher){.stats = &stats, .must_audit = must_audit};
  assert_int_equal(sink_open(&dispatcher.audit, path, 1 << 16, NULL), STATUS_OK);
}

// close_audit returns the lines that were written, as one text (free).
static char *close_audit(const char *path) {
  uint8_t *text = NULL;
  size_t len = 0;
  sink_close(dispatcher.audit);
  dispatcher.audit = NULL;
  assert_int_equal(file_read(&text, &len, path, 1 << 20, NULL), STATUS_OK);
  return (char *)text;
}

static struct frame dispatch(struct bytes packet) {
  struct frame_header header;
  struct dispatched done;
  struct frame reply = {0};

  frame_header_decode(&header, packet.data);
  assert_int_equal(packet.len, FRAME_HEADER_LEN + header.body_len);
  done =
      dispatch_packet(&dispatcher, &asker, NULL, &subject, &header,
                      bytes_of(packet.data + FRAME_HEADER_LEN, header.body_len), out, sizeof out);
  assert_true(done.reply_len >= FRAME_PAD_TO_LEN);
  assert_true(done.cost > 0);
  frame_header_decode(&header, out);
  assert_int_equal(done.reply_len, FRAME_HEADER_LEN + header.body_len);
  assert_int_equal(frame_body_decode(&reply, bytes_of(out + FRAME_HEADER_LEN, header.body_len)),
                   STATUS_OK);
  reply.id = header.id;
  return reply;
}

static struct bytes encode(uint8_t packet[FRAME_MAX_LEN], const struct frame *frame) {
  size_t len = 0;
  assert_int_equal(frame_encode(packet, FRAME_MAX_LEN, &len, frame), STATUS_OK);
  return bytes_of(packet, len);
}

static struct frame good_request(uint8_t digest[32]) {
  const struct key *key = NULL;
  uint8_t id[32];
  static uint8_t ski[20];

  assert_int_equal(key_identify(id, ski, fix.pkeys[FIX_P256]), STATUS_OK);
  key = keystore_find(fix.keys, ski);
  assert_non_null(key);
  SHA256(message, sizeof message, digest);
  return (struct frame){.id = 77,
                        .has_opcode = true,
                        .opcode = FRAME_OP_ECDSA_SHA256,
                        .payload = bytes_of(digest, 32),
                        .extra = bytes_of(message, sizeof message),
                        .ski = bytes_of(ski, sizeof ski),
                        .sni = bytes_text("a\n\"b")};
}

static void assert_error(const struct frame *reply, enum frame_error code) {
  assert_int_equal(reply->opcode, FRAME_OP_ERROR);
  assert_int_equal(reply->payload.len, 1);
  assert_int_equal(reply->payload.data[0], code);
}

static const char *member(const json_t *line, const char *name) {
  const char *text = json_string_value(json_object_get(line, name));
  return text == NULL ? "" : text;
}

static void signs_counts_and_audits(void **state) {
  uint8_t packet[FRAME_MAX_LEN];
  uint8_t digest[32];
  char hex[65];
  struct frame request = good_request(digest);
  struct frame reply;
  const char *path = test_path("audit-sign");
  char *text = NULL;
  json_t *line = NULL;
  (void)state;

  open_audit(path, true);
  reply = dispatch(encode(packet, &request));
  assert_int_equal(reply.id, 77);
  assert_int_equal(reply.opcode, FRAME_OP_SUCCESS);
  assert_int_equal(scheme_verify(scheme_by_name("ecdsa_secp256r1_sha256"), fix.pkeys[FIX_P256],
                                 bytes_of(message, sizeof message), reply.payload),
                   STATUS_OK);
  assert_int_equal(counter_get(&stats.num_signed[PURPOSE_TLS13]), 1);
  assert_int_equal(counter_get(&stats.num_by_kind[KEY_KIND_P256]), 1);
  text = close_audit(path);
  line = json_loads(text, 0, NULL);
  assert_non_null(line);
  assert_string_equal(member(line, "result"), "signed");
  assert_string_equal(member(line, "client"), "proxy.test");
  assert_string_equal(member(line, "peer"), "192.0.2.1:4711");
  assert_string_equal(member(line, "key"), "p256");
  assert_string_equal(member(line, "grant"), "proxy");
  assert_string_equal(member(line, "purpose"), "tls13");
  assert_string_equal(member(line, "opcode"), "ecdsa_sha256");
  assert_string_equal(member(line, "sni"), "a\n\"b");
  assert_string_equal(member(line, "message_sha256"), bytes_to_hex(hex, bytes_of(digest, 32)));
  json_decref(line);
  free(text);
}

static void answers_pings_without_an_audit_line(void **state) {
  uint8_t packet[FRAME_MAX_LEN];
  uint8_t big[60000] = {1, 2, 3};
  struct frame ping = {.id = 5, .has_opcode = true, .opcode = FRAME_OP_PING};
  struct frame reply;
  const char *path = test_path("audit-ping");
  char *text = NULL;
  (void)state;

  open_audit(path, true);
  reply = dispatch(encode(packet, &ping));
  assert_int_equal(reply.opcode, FRAME_OP_PONG);
  assert_int_equal(reply.payload.len, 0);
  ping.payload = bytes_of(big, sizeof big);
  reply = dispatch(encode(packet, &ping));
  assert_true(bytes_equal(reply.payload, ping.payload));
  assert_int_equal(counter_get(&stats.num_pings), 2);
  text = close_audit(path);
  assert_string_equal(text, "");
  free(text);
}

static void refuses_and_says_why(void **state) {
  uint8_t packet[FRAME_MAX_LEN];
  uint8_t digest[32];
  struct frame request = good_request(digest);
  struct frame reply = {0};
  struct bytes bytes = encode(packet, &request);
  const char *path = test_path("audit-refuse");
  char *text = NULL;
  (void)state;

  open_audit(path, true);
  packet[0] = 2;  // version
  reply = dispatch(bytes);
  assert_error(&reply, FRAME_ERROR_VERSION);
  packet[0] = 1;
  packet[9] = 0xFF;  // the first item runs past the end
  reply = dispatch(bytes);
  assert_error(&reply, FRAME_ERROR_FORMAT);
  assert_int_equal(reply.id, 77);
  digest[0] ^= 1;
  reply = dispatch(encode(packet, &request));
  assert_error(&reply, FRAME_ERROR_BAD_MESSAGE);
  assert_int_equal(counter_get(&stats.num_refusals[REFUSAL_VERSION]), 1);
  assert_int_equal(counter_get(&stats.num_refusals[REFUSAL_FORMAT]), 1);
  assert_int_equal(counter_get(&stats.num_refusals[REFUSAL_DIGEST_DIFFERS]), 1);
  assert_int_equal(counter_get(&stats.num_refused[PURPOSE_NONE]), 2);
  assert_int_equal(counter_get(&stats.num_refused[PURPOSE_TLS13]), 1);
  text = close_audit(path);
  assert_non_null(strstr(text, "\"reason\":\"version\""));
  assert_non_null(strstr(text, "\"reason\":\"format\""));
  assert_non_null(strstr(text, "\"reason\":\"digest_differs\""));
  free(text);
}

static void answers_every_cut_and_flipped_packet(void **state) {
  uint8_t packet[FRAME_MAX_LEN];
  uint8_t digest[32];
  struct frame request = good_request(digest);
  const size_t len = encode(packet, &request).len;
  (void)state;

  open_audit("/dev/null", true);
  for (size_t cut = FRAME_HEADER_LEN; cut < len; cut++) {
    const size_t body_len = cut - FRAME_HEADER_LEN;
    packet[2] = (uint8_t)(body_len >> 8);
    packet[3] = (uint8_t)body_len;
    (void)dispatch(bytes_of(packet, cut));
  }
  (void)encode(packet, &request);
  for (size_t at = FRAME_HEADER_LEN; at < 300; at++) {
    for (int bit = 0; bit < 8; bit++) {
      struct frame reply;
      packet[at] ^= (uint8_t)(1 << bit);
      reply = dispatch(bytes_of(packet, len));
      // What is signed all the same is the same message.
      if (reply.opcode == FRAME_OP_SUCCESS) {
        assert_int_equal(
            scheme_verify(scheme_by_name("ecdsa_secp256r1_sha256"), fix.pkeys[FIX_P256],
                          bytes_of(message, sizeof message), reply.payload),
            STATUS_OK);
      }
      packet[at] ^= (uint8_t)(1 << bit);
    }
  }
  sink_close(dispatcher.audit);
}

static void an_unwritable_audit_holds_signatures_back(void **state) {
  uint8_t packet[FRAME_MAX_LEN];
  uint8_t digest[32];
  struct frame request = good_request(digest);
  struct frame reply = {0};
  (void)state;

  for (int must_audit = 0; must_audit < 2; must_audit++) {
    open_audit("/dev/full", must_audit != 0);
    (void)dispatch(encode(packet, &request));
    (void)sink_flush(dispatcher.audit, 5000);
    for (int i = 0; i < 500 && !sink_is_failing(dispatcher.audit); i++) {
      (void)sink_flush(dispatcher.audit, 10);
    }
    assert_true(sink_is_failing(dispatcher.audit));
    reply = dispatch(encode(packet, &request));
    if (must_audit != 0) {
      assert_error(&reply, FRAME_ERROR_BUSY);
      assert_int_equal(counter_get(&stats.num_refusals[REFUSAL_AUDIT]), 1);
    } else {
      assert_int_equal(reply.opcode, FRAME_OP_SUCCESS);
      assert_int_equal(counter_get(&stats.num_unaudited), 1);
    }
    sink_close(dispatcher.audit);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(signs_counts_and_audits),
      cmocka_unit_test(answers_pings_without_an_audit_line),
      cmocka_unit_test(refuses_and_says_why),
      cmocka_unit_test(answers_every_cut_and_flipped_packet),
      cmocka_unit_test(an_unwritable_audit_holds_signatures_back),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
