// SPDX-License-Identifier: Apache-2.0
// The vectors are those of RFC 8448: section 3, "Simple 1-RTT Handshake", and the
// binder of section 4.
#include "bench/tls13_keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#define CLIENT_HELLO                                                                         \
  "010000c00303cb34ecb1e78163ba1c38c6dacb196a6dffa21a8d9912ec18a2ef6283024dece7000006130113" \
  "031302010000910000000b0009000006736572766572ff01000100000a00140012001d001700180019010001" \
  "010102010301040023000000330026002400"                                                     \
  "1d002099381de560e4bd43d23d8e435a7dbafeb3c06e51c13cae4d5413691e529aaf2c002b0003020304000d" \
  "0020001e040305030603020308040805080604010501060102010402050206020202002d00020101001c00024001"
#define SERVER_HELLO                                                                               \
  "020000560303a6af06a4121860dc5e6e60249cd34c95930c8ac5cb1434dac155772ed3e26928001301000"          \
  "02e00330024001d0020c9828876112095fe66762bdbf7c672e156d6cc253b833df1dd69b1b04e751f0f002b0002030" \
  "4"
#define ENCRYPTED_EXTENSIONS \
  "080000240022000a00140012001d00170018001901000101010201030104001c0002400100000000"
#define CERTIFICATE                                                                          \
  "0b0001b9000001b50001b0308201ac30820115a003020102020102300d06092a864886f70d01010b0500300e" \
  "310c300a06035504031303727361301e170d3136303733303031323335395a170d3236303733303031323335" \
  "395a300e310c300a0603550403130372736130819f300d06092a864886f70d010101050003818d0030818902" \
  "818100b4bb498f8279303d980836399b36c6988c0c68de55e1bdb826d3901a2461eafd2de49a91d015abbc9a" \
  "95137ace6c1af19eaa6af98c7ced43120998e187a80ee0ccb0524b1b018c3e0b63264d449a6d38e22a5fda43" \
  "0846748030530ef0461c8ca9d9efbfae8ea6d1d03e2bd193eff0ab9a8002c47428a6d35a8d88d79f7f1e3f02" \
  "03010001a31a301830090603551d1304023000300b0603551d0f0404030205a0300d06092a864886f70d0101" \
  "0b05000381810085aad2a0e5b9276b908c65f73a7267170618a54c5f8a7b337d2df7a594365417f2eae8f8a5" \
  "8c8f8172f9319cf36b7fd6c55b80f21a03015156726096fd335e5e67f2dbf102702e608ccae6bec1fc63a42a" \
  "99be5c3eb7107c3c54e9b9eb2bd5203b1c3b84e0a8b2f759409ba3eac9d91d402dcc0cc8f8961229ac9187b4" \
  "2b4de10000"
#define CERTIFICATE_VERIFY                                                                   \
  "0f000084080400805a747c5d88fa9bd2e55ab085a61015b7211f824cd484145ab3ff52f1fda8477b0b7abc90" \
  "db78e2d33a5c141a078653fa6bef780c5ea248eeaaa785c4f394cab6d30bbe8d4859ee511f602957b15411ac" \
  "027671459e46445c9ea58c181e818e95b8c3fb0bf3278409d3be152a3da5043e063dda65cdf5aea20d53dfac" \
  "d42f74f3"
#define SERVER_FINISHED "140000209b9b141d906337fbd2cbdce71df4deda4ab42c309572cb7fffee5454b78f0718"
#define CLIENT_FINISHED "14000020a8ec436d677634ae525ac1fcebe11a039ec17694fac6e98527b642f2edd5ce61"
// The client's Finished as it went over the wire.
#define CLIENT_FINISHED_RECORD                                                               \
  "170303003575ec4dc238cce60b298044a71e219c56cc77b0517fe9b93c7a4bfc44d87f38f80338ac98fc46de" \
  "b384bd1caeacab6867d726c40546"

static const struct tls13_suite *suite;

static void unhex(struct tls13_secret *out, const char *hex) {
  assert_int_equal(bytes_from_hex(out->data, strlen(hex) / 2, hex), STATUS_OK);
}

static void assert_secret(const struct tls13_secret *secret, const char *hex) {
  char text[2 * TLS13_MAX_HASH_LEN + 1];
  assert_string_equal(bytes_to_hex(text, bytes_of(secret->data, suite->hash_len)), hex);
}

static void add(struct tls13_transcript *t, const char *hex) {
  uint8_t data[1024];
  const size_t len = strlen(hex) / 2;
  assert_true(len <= sizeof(data));
  assert_int_equal(bytes_from_hex(data, len, hex), STATUS_OK);
  tls13_transcript_add(t, bytes_of(data, len));
}

static void assert_derived(const struct tls13_secret *secret, const char *label,
                           const struct tls13_secret *hash, struct tls13_secret *out,
                           const char *hex) {
  assert_int_equal(tls13_derive(suite, out, secret, label, hash), STATUS_OK);
  assert_secret(out, hex);
}

// The secrets of the trace, made once.
static struct {
  struct tls13_secret handshake, client_handshake, server_handshake, master;
  struct tls13_secret client_application, server_application, resumption_master;
  struct tls13_secret before_finished, after_finished;
} s;

static int make_secrets(void **state) {
  struct tls13_secret early;
  struct tls13_secret derived;
  struct tls13_secret ecdhe;
  struct tls13_secret hash;
  struct tls13_transcript t;
  (void)state;
  suite = tls13_suite_by_name("aes128");
  assert_ptr_equal(suite, tls13_suite_find(0x1301));
  assert_int_equal(tls13_extract(suite, &early, NULL, (struct bytes){0}), STATUS_OK);
  assert_secret(&early, "33ad0a1c607ec03b09e6cd9893680ce210adf300aa1f2660e1b22e10f170f92a");
  assert_derived(&early, "derived", NULL, &derived,
                 "6f2615a108c702c5678f54fc9dbab69716c076189c48250cebeac3576c3611ba");
  unhex(&ecdhe, "8bd4054fb55b9d63fdfbacf9f04b9f0d35e6d63f537563efd46272900f89492d");
  assert_int_equal(tls13_extract(suite, &s.handshake, &derived, bytes_of(ecdhe.data, 32)),
                   STATUS_OK);
  assert_secret(&s.handshake, "1dc826e93606aa6fdc0aadc12f741b01046aa6b99f691ed221a9f0ca043fbeac");
  tls13_transcript_init(&t, suite);
  add(&t, CLIENT_HELLO);
  add(&t, SERVER_HELLO);
  tls13_transcript_hash(&t, &hash);
  assert_secret(&hash, "860c06edc07858ee8e78f0e7428c58edd6b43f2ca3e6e95f02ed063cf0e1cad8");
  assert_derived(&s.handshake, "c hs traffic", &hash, &s.client_handshake,
                 "b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21");
  assert_derived(&s.handshake, "s hs traffic", &hash, &s.server_handshake,
                 "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38");
  add(&t, ENCRYPTED_EXTENSIONS);
  add(&t, CERTIFICATE);
  add(&t, CERTIFICATE_VERIFY);
  tls13_transcript_hash(&t, &s.before_finished);
  add(&t, SERVER_FINISHED);
  tls13_transcript_hash(&t, &s.after_finished);
  assert_derived(&s.handshake, "derived", NULL, &derived,
                 "43de77e0c77713859a944db9db2590b53190a65b3ee2e4f12dd7a0bb7ce254b4");
  assert_int_equal(tls13_extract(suite, &s.master, &derived, (struct bytes){0}), STATUS_OK);
  add(&t, CLIENT_FINISHED);
  tls13_transcript_hash(&t, &hash);
  assert_derived(&s.master, "res master", &hash, &s.resumption_master,
                 "7df235f2031d2a051287d02b0241b0bfdaf86cc856231f2d5aba46c434ec196c");
  return 0;
}

static void derives_the_secrets_of_rfc_8448(void **state) {
  (void)state;
  assert_secret(&s.master, "18df06843d13a08bf2a449844c5f8a478001bc4d4c627984d5a41da8d0402919");
  assert_derived(&s.master, "c ap traffic", &s.after_finished, &s.client_application,
                 "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5");
  assert_derived(&s.master, "s ap traffic", &s.after_finished, &s.server_application,
                 "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643");
}

static void computes_finished_of_both_sides(void **state) {
  struct tls13_secret mac;
  (void)state;
  assert_int_equal(tls13_finished(suite, &mac, &s.server_handshake, &s.before_finished), STATUS_OK);
  assert_secret(&mac, &SERVER_FINISHED[8]);
  assert_int_equal(tls13_finished(suite, &mac, &s.client_handshake, &s.after_finished), STATUS_OK);
  assert_secret(&mac, &CLIENT_FINISHED[8]);
}

static void seals_a_record_byte_for_byte(void **state) {
  struct tls13_traffic traffic = {0};
  uint8_t content[36];
  uint8_t record[58];
  char text[2 * sizeof(record) + 1];
  (void)state;
  assert_int_equal(bytes_from_hex(content, sizeof(content), CLIENT_FINISHED), STATUS_OK);
  assert_int_equal(tls13_sealed_len(sizeof(content)), sizeof(record));
  assert_int_equal(tls13_traffic_start(&traffic, suite, &s.client_handshake), STATUS_OK);
  assert_int_equal(tls13_record_seal(&traffic, record, 22, bytes_of(content, sizeof(content))),
                   STATUS_OK);
  assert_string_equal(bytes_to_hex(text, bytes_of(record, sizeof(record))), CLIENT_FINISHED_RECORD);
  tls13_traffic_cleanup(&traffic);
}

static void opens_what_it_sealed_in_every_suite_and_in_order_only(void **state) {
  static const uint16_t codes[] = {0x1301, 0x1302, 0x1303};
  (void)state;
  for (size_t i = 0; i < 3; i++) {
    const struct tls13_suite *other = tls13_suite_find(codes[i]);
    struct tls13_traffic out = {0};
    struct tls13_traffic in = {0};
    uint8_t records[2][64];
    uint8_t type = 0;
    struct bytes content;
    assert_int_equal(tls13_traffic_start(&out, other, &s.master), STATUS_OK);
    assert_int_equal(tls13_traffic_start(&in, other, &s.master), STATUS_OK);
    const size_t len = tls13_sealed_len(5);
    assert_int_equal(tls13_record_seal(&out, records[0], 23, bytes_text("first")), STATUS_OK);
    assert_int_equal(tls13_record_seal(&out, records[1], 21, bytes_text("other")), STATUS_OK);
    uint8_t copy[64];
    memcpy(copy, records[1], len);
    assert_int_equal(tls13_record_open(&in, &type, &content, copy, len), STATUS_CRYPTO);
    assert_int_equal(tls13_record_open(&in, &type, &content, records[0], len), STATUS_OK);
    assert_int_equal(type, 23);
    assert_true(bytes_equal(content, bytes_text("first")));
    assert_int_equal(tls13_record_open(&in, &type, &content, records[1], len), STATUS_OK);
    assert_int_equal(type, 21);
    tls13_traffic_cleanup(&out);
    tls13_traffic_cleanup(&in);
  }
}

// RFC 8446, section 5.4: padding goes, and only padding is no record.
static void takes_padding_off(void **state) {
  struct tls13_traffic out = {0};
  struct tls13_traffic in = {0};
  uint8_t record[64];
  uint8_t type = 0;
  struct bytes content;
  (void)state;
  assert_int_equal(tls13_traffic_start(&out, suite, &s.master), STATUS_OK);
  assert_int_equal(tls13_traffic_start(&in, suite, &s.master), STATUS_OK);
  // The type's byte is 0, so it reads as padding of what is before it.
  assert_int_equal(tls13_record_seal(&out, record, 0, bytes_of("ab\x17\0\0", 5)), STATUS_OK);
  assert_int_equal(tls13_record_open(&in, &type, &content, record, tls13_sealed_len(5)), STATUS_OK);
  assert_int_equal(type, 23);
  assert_true(bytes_equal(content, bytes_text("ab")));
  assert_int_equal(tls13_record_seal(&out, record, 0, bytes_of("\0\0", 2)), STATUS_OK);
  assert_int_equal(tls13_record_open(&in, &type, &content, record, tls13_sealed_len(2)),
                   STATUS_FORMAT);
  tls13_traffic_cleanup(&out);
  tls13_traffic_cleanup(&in);
}

static void derives_a_resumption_psk_and_its_binder(void **state) {
  static const uint8_t nonce[] = {0, 0};
  struct tls13_secret psk;
  struct tls13_secret early;
  struct tls13_secret base;
  struct tls13_secret hash;
  struct tls13_secret binder;
  (void)state;
  assert_int_equal(tls13_expand_label(suite, psk.data, 32, &s.resumption_master, "resumption",
                                      bytes_of(nonce, sizeof(nonce))),
                   STATUS_OK);
  assert_secret(&psk, "4ecd0eb6ec3b4d87f5d6028f922ca4c5851a277fd41311c9e62d2c9492e1c4f3");
  assert_int_equal(tls13_extract(suite, &early, NULL, bytes_of(psk.data, 32)), STATUS_OK);
  assert_secret(&early, "9b2188e9b2fc6d64d71dc329900e20bb41915000f678aa839cbb797cb7d8332c");
  assert_derived(&early, "res binder", NULL, &base,
                 "69fe131a3bbad5d63c64eebcc30e395b9d8107726a13d074e389dbc8a4e47256");
  unhex(&hash, "63224b2e4573f2d3454ca84b9d009a04f6be9e05711a8396473aefa01e924a14");
  assert_int_equal(tls13_finished(suite, &binder, &base, &hash), STATUS_OK);
  assert_secret(&binder, "3add4fb2d8fdf822a0ca3cf7678ef5e88dae990141c5924d57bb6fa31b9e5f9d");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(derives_the_secrets_of_rfc_8448),
      cmocka_unit_test(computes_finished_of_both_sides),
      cmocka_unit_test(seals_a_record_byte_for_byte),
      cmocka_unit_test(opens_what_it_sealed_in_every_suite_and_in_order_only),
      cmocka_unit_test(takes_padding_off),
      cmocka_unit_test(derives_a_resumption_psk_and_its_binder),
  };
  return cmocka_run_group_tests(tests, make_secrets, NULL);
}
