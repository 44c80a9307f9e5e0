// SPDX-License-Identifier: Apache-2.0
#include "common/wire/proxy_protocol.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <cmocka.h>

#include "tests/unit/common/wire/vectors.h"

#define SIGNATURE "0d0a0d0a000d0a515549540a"
#define MAX_LEN 32768

static struct sockaddr_storage inet_address(const char *text, uint16_t port) {
  struct sockaddr_storage storage = {0};
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
  assert_int_equal(inet_pton(AF_INET, text, &in.sin_addr), 1);
  memcpy(&storage, &in, sizeof(in));
  return storage;
}

static struct sockaddr_storage inet6_address(const char *text, uint16_t port) {
  struct sockaddr_storage storage = {0};
  struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  assert_int_equal(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
  memcpy(&storage, &in6, sizeof(in6));
  return storage;
}

static struct sockaddr_storage unix_address(const char *path) {
  struct sockaddr_storage storage = {0};
  struct sockaddr_un un = {.sun_family = AF_UNIX};
  assert_true(strlen(path) <= sizeof(un.sun_path));
  memcpy(un.sun_path, path, strlen(path));
  memcpy(&storage, &un, sizeof(un));
  return storage;
}

static void set_ends(struct proxy_header *header, const struct sockaddr_storage *source,
                     const struct sockaddr_storage *destination) {
  header->source = (const struct sockaddr *)source;
  header->destination = (const struct sockaddr *)destination;
}

static void assert_encodes(const struct proxy_header *header, const char *hex) {
  uint8_t want[PROXY_V2_MAX_LEN];
  uint8_t got[PROXY_V2_MAX_LEN];
  size_t got_len = 0;
  const size_t want_len = vector_unhex(want, sizeof(want), hex);
  assert_int_equal(proxy_v2_encode(got, sizeof(got), &got_len, header), STATUS_OK);
  assert_int_equal(got_len, want_len);
  assert_memory_equal(got, want, want_len);
}

static enum status decode_hex(struct proxy_decoded *out, const char *hex) {
  static uint8_t data[MAX_LEN];
  size_t out_len = 0;
  const size_t len = vector_unhex(data, sizeof(data), hex);
  const enum status st = proxy_v2_decode(out, &out_len, bytes_of(data, len));
  assert_int_equal(out_len, st == STATUS_OK ? len : 0);
  return st;
}

static void assert_text(struct bytes got, const char *want) {
  assert_int_equal(got.len, strlen(want));
  assert_memory_equal(got.data, want, got.len);
}

static void writes_the_bytes_of_the_specification(void **state) {
  const struct sockaddr_storage client4 = inet_address("192.0.2.1", 54321);
  const struct sockaddr_storage server4 = inet_address("198.51.100.2", 443);
  const struct sockaddr_storage client6 = inet6_address("2001:db8::1", 54321);
  const struct sockaddr_storage server6 = inet6_address("2001:db8::2", 443);
  struct proxy_header header = {0};
  (void)state;

  set_ends(&header, &client4, &server4);
  assert_encodes(&header, SIGNATURE "2111000cc0000201c6336402d43101bb");
  set_ends(&header, &client6, &server6);
  assert_encodes(&header, SIGNATURE
                 "21210024"
                 "20010db8000000000000000000000001"
                 "20010db8000000000000000000000002"
                 "d43101bb");

  // ALPN h2; authority a.test; TLS: by TLS, not verified, version, cipher.
  set_ends(&header, &client4, &server4);
  header.alpn = bytes_text("h2");
  header.authority = bytes_text("a.test");
  header.has_tls = true;
  header.tls_version = "TLSv1.3";
  header.tls_cipher = "TLS_AES_128_GCM_SHA256";
  assert_encodes(&header, SIGNATURE
                 "21110045c0000201c6336402d43101bb"
                 "0100026832"
                 "020006612e74657374"
                 "2000280100000001"
                 "210007544c5376312e33"
                 "230016544c535f4145535f3132385f47434d5f534841323536");
}

static void tells_of_the_clients_certificate(void **state) {
  const struct sockaddr_storage end = inet_address("192.0.2.1", 1);
  struct proxy_header header = {.has_tls = true, .client_cn = bytes_text("anna")};
  struct proxy_decoded decoded;
  const struct {
    bool in_conn;
    bool in_session;
    bool is_verified;
    const char *hex;
  } rows[] = {
      {true, true, true, "0700000000"},   {true, false, true, "0300000000"},
      {false, true, true, "0500000000"},  {true, false, false, "0300000001"},
      {false, false, true, "0100000001"},  // nothing was there to be verified
  };
  (void)state;
  set_ends(&header, &end, &end);
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    char hex[200];
    (void)snprintf(hex, sizeof(hex),
                   SIGNATURE
                   "2111001bc0000201c00002010001000120000c%s22000461"
                   "6e6e61",
                   rows[i].hex);
    header.has_client_cert = rows[i].in_conn;
    header.has_client_cert_in_session = rows[i].in_session;
    header.is_client_verified = rows[i].is_verified;
    assert_encodes(&header, hex);
    assert_int_equal(decode_hex(&decoded, hex), STATUS_OK);
    assert_int_equal(decoded.has_client_cert, rows[i].in_conn);
    assert_int_equal(decoded.has_client_cert_in_session, rows[i].in_session);
    assert_int_equal(decoded.is_client_verified,
                     rows[i].is_verified && (rows[i].in_conn || rows[i].in_session));
    assert_text(decoded.client_cn, "anna");
  }
}

static void assert_line(const struct sockaddr_storage *source,
                        const struct sockaddr_storage *destination, const char *want) {
  struct proxy_header header = {.has_tls = true, .alpn = bytes_text("h2")};
  uint8_t line[PROXY_V1_MAX_LEN];
  size_t len = 0;
  set_ends(&header, source, destination);
  assert_int_equal(proxy_v1_encode(line, sizeof(line), &len, &header), STATUS_OK);
  assert_text(bytes_of(line, len), want);
  for (size_t max = 0; max < strlen(want); max++) {
    assert_int_equal(proxy_v1_encode(line, max, &len, &header), STATUS_LIMIT);
    assert_int_equal(len, 0);
  }
}

static void version_1_is_a_line(void **state) {
  const struct sockaddr_storage client4 = inet_address("192.0.2.1", 54321);
  const struct sockaddr_storage server4 = inet_address("198.51.100.2", 443);
  const struct sockaddr_storage long4 = inet_address("255.255.255.255", 65535);
  const struct sockaddr_storage mapped = inet6_address("::ffff:192.0.2.1", 54321);
  const struct sockaddr_storage client6 = inet6_address("2001:db8::1", 54321);
  const struct sockaddr_storage long6 =
      inet6_address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535);
  const struct sockaddr_storage path = unix_address("/run/client.sock");
  (void)state;
  assert_line(&client4, &server4, "PROXY TCP4 192.0.2.1 198.51.100.2 54321 443\r\n");
  assert_line(&mapped, &server4, "PROXY TCP4 192.0.2.1 198.51.100.2 54321 443\r\n");
  assert_line(&long4, &long4, "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n");
  assert_line(&client6, &client6, "PROXY TCP6 2001:db8::1 2001:db8::1 54321 54321\r\n");
  assert_line(&long6, &long6,
              "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
              "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n");
  assert_line(&client4, &client6, "PROXY UNKNOWN\r\n");
  assert_line(&path, &path, "PROXY UNKNOWN\r\n");
  assert_line(NULL, NULL, "PROXY UNKNOWN\r\n");
}

static void mapped_addresses_go_out_as_ipv4(void **state) {
  const struct sockaddr_storage client = inet6_address("::ffff:192.0.2.1", 54321);
  const struct sockaddr_storage server = inet6_address("::ffff:198.51.100.2", 443);
  const struct sockaddr_storage server4 = inet_address("198.51.100.2", 443);
  struct proxy_header header = {0};
  (void)state;
  set_ends(&header, &client, &server);
  assert_encodes(&header, SIGNATURE "2111000cc0000201c6336402d43101bb");
  set_ends(&header, &client, &server4);
  assert_encodes(&header, SIGNATURE "2111000cc0000201c6336402d43101bb");
}

static void leaves_out_addresses_that_do_not_go_together(void **state) {
  const struct sockaddr_storage client4 = inet_address("192.0.2.1", 1);
  const struct sockaddr_storage server6 = inet6_address("2001:db8::2", 2);
  const struct sockaddr_storage strange = {.ss_family = AF_APPLETALK};
  struct proxy_header header = {.alpn = bytes_text("h2")};
  struct proxy_decoded decoded;
  (void)state;
  set_ends(&header, &client4, &server6);
  assert_encodes(&header, SIGNATURE "210000050100026832");
  set_ends(&header, &strange, &strange);
  assert_encodes(&header, SIGNATURE "210000050100026832");
  assert_int_equal(decode_hex(&decoded, SIGNATURE "210000050100026832"), STATUS_OK);
  assert_int_equal(decoded.source.ss_family, AF_UNSPEC);
  assert_text(decoded.alpn, "h2");
}

static void a_health_check_is_local(void **state) {
  const struct sockaddr_storage client4 = inet_address("192.0.2.1", 1);
  struct proxy_header header = {.alpn = bytes_text("h2")};
  struct proxy_decoded decoded;
  (void)state;
  assert_encodes(&header, SIGNATURE "20000000");
  header.source = (const struct sockaddr *)&client4;
  assert_encodes(&header, SIGNATURE "20000000");
  assert_int_equal(decode_hex(&decoded, SIGNATURE "20000000"), STATUS_OK);
  assert_true(decoded.is_local);
  // What follows is skipped, whatever it is.
  assert_int_equal(decode_hex(&decoded, SIGNATURE "20ff0003ffffff"), STATUS_OK);
  assert_true(decoded.is_local);
}

static void what_is_written_is_read_back(void **state) {
  const struct sockaddr_storage ends[3][2] = {
      {inet_address("192.0.2.1", 54321), inet_address("198.51.100.2", 443)},
      {inet6_address("2001:db8::1", 54321), inet6_address("2001:db8::2", 443)},
      {unix_address("/run/client.sock"),
       unix_address("/123456789/123456789/123456789/123456789/123456789/123456789/123456789/"
                    "123456789/123456789/123456789/1234567")},  // all of the field
  };
  (void)state;
  for (size_t i = 0; i < 3; i++) {
    struct proxy_header header = {.alpn = bytes_text("http/1.1"),
                                  .authority = bytes_text("www.example.test"),
                                  .has_tls = true,
                                  .tls_version = "TLSv1.2",
                                  .tls_cipher = "ECDHE-ECDSA-AES128-GCM-SHA256"};
    uint8_t data[PROXY_V2_MAX_LEN];
    size_t len = 0;
    size_t decoded_len = 0;
    struct proxy_decoded decoded;
    set_ends(&header, &ends[i][0], &ends[i][1]);
    assert_int_equal(proxy_v2_encode(data, sizeof(data) - 1, &len, &header), STATUS_OK);
    data[len] = 'G';  // the connection's own first byte
    assert_int_equal(proxy_v2_decode(&decoded, &decoded_len, bytes_of(data, len + 1)), STATUS_OK);
    assert_int_equal(decoded_len, len);
    assert_false(decoded.is_local);
    assert_memory_equal(&decoded.source, &ends[i][0], sizeof(ends[i][0]));
    assert_memory_equal(&decoded.destination, &ends[i][1], sizeof(ends[i][1]));
    assert_text(decoded.alpn, "http/1.1");
    assert_text(decoded.authority, "www.example.test");
    assert_true(decoded.has_tls);
    assert_text(decoded.tls_version, "TLSv1.2");
    assert_text(decoded.tls_cipher, "ECDHE-ECDSA-AES128-GCM-SHA256");
  }
}

static void limits_of_writing_are_exact(void **state) {
  static const uint8_t name[PROXY_V2_MAX_TLV_LEN + 1] = {'a'};
  const struct sockaddr_storage end = unix_address("/");
  struct proxy_header header = {0};
  uint8_t data[PROXY_V2_MAX_LEN];
  size_t len = 0;
  size_t again = 0;
  (void)state;
  set_ends(&header, &end, &end);
  header.alpn = bytes_of(name, PROXY_V2_MAX_TLV_LEN);
  header.authority = bytes_of(name, PROXY_V2_MAX_TLV_LEN);
  header.has_tls = true;
  header.tls_version = "TLSv1.3";
  header.tls_cipher = "TLS_CHACHA20_POLY1305_SHA256";
  assert_int_equal(proxy_v2_encode(data, sizeof(data), &len, &header), STATUS_OK);
  for (size_t max = 0; max < len; max++) {
    assert_int_equal(proxy_v2_encode(data, max, &again, &header), STATUS_LIMIT);
    assert_int_equal(again, 0);
  }
  assert_int_equal(proxy_v2_encode(data, len, &again, &header), STATUS_OK);
  header.alpn.len++;
  assert_int_equal(proxy_v2_encode(data, sizeof(data), &len, &header), STATUS_LIMIT);
  header.alpn.len--;
  header.authority.len++;
  assert_int_equal(proxy_v2_encode(data, sizeof(data), &len, &header), STATUS_LIMIT);
}

static void leaves_out_what_is_not_known_of_tls(void **state) {
  const struct sockaddr_storage end = inet_address("192.0.2.1", 1);
  struct proxy_header header = {.has_tls = true};
  (void)state;
  set_ends(&header, &end, &end);
  assert_encodes(&header, SIGNATURE "21110014c0000201c0000201000100012000050100000001");
}

static void asks_for_more_until_it_is_whole(void **state) {
  const struct sockaddr_storage end = inet_address("192.0.2.1", 1);
  struct proxy_header header = {.alpn = bytes_text("h2")};
  uint8_t data[PROXY_V2_MAX_LEN];
  size_t len = 0;
  size_t decoded_len = 0;
  struct proxy_decoded decoded;
  (void)state;
  set_ends(&header, &end, &end);
  assert_int_equal(proxy_v2_encode(data, sizeof(data), &len, &header), STATUS_OK);
  assert_int_equal(proxy_v2_decode(&decoded, &decoded_len, bytes_of(NULL, 0)), STATUS_AGAIN);
  for (size_t cut = 0; cut < len; cut++) {
    assert_int_equal(proxy_v2_decode(&decoded, &decoded_len, bytes_of(data, cut)), STATUS_AGAIN);
    assert_int_equal(decoded_len, 0);
  }
}

static void refuses_another_protocol_at_its_first_wrong_byte(void **state) {
  uint8_t data[16];
  size_t decoded_len = 0;
  struct proxy_decoded decoded;
  (void)state;
  assert_int_equal(proxy_v2_decode(&decoded, &decoded_len, bytes_text("G")), STATUS_FORMAT);
  assert_int_equal(proxy_v2_decode(&decoded, &decoded_len, bytes_text("PROXY TCP4 ")),
                   STATUS_FORMAT);
  for (size_t i = 0; i < 12; i++) {
    const size_t len = vector_unhex(data, sizeof(data), SIGNATURE "21110000");
    data[i] ^= 0x80;
    assert_int_equal(proxy_v2_decode(&decoded, &decoded_len, bytes_of(data, i)), STATUS_AGAIN);
    assert_int_equal(proxy_v2_decode(&decoded, &decoded_len, bytes_of(data, i + 1)), STATUS_FORMAT);
    assert_int_equal(proxy_v2_decode(&decoded, &decoded_len, bytes_of(data, len)), STATUS_FORMAT);
  }
}

static void refuses_other_versions_commands_and_transports(void **state) {
  char hex[128];
  struct proxy_decoded decoded;
  (void)state;
  for (unsigned command = 0; command <= UINT8_MAX; command++) {
    (void)snprintf(hex, sizeof(hex), SIGNATURE "%02x11000cc0000201c6336402d43101bb", command);
    assert_int_equal(decode_hex(&decoded, hex),
                     command == 0x20 || command == 0x21 ? STATUS_OK : STATUS_FORMAT);
  }
  for (unsigned family = 0; family <= UINT8_MAX; family++) {
    // 12 bytes fit IPv4 only; as TLVs (unspecified family) they are garbage.
    (void)snprintf(hex, sizeof(hex), SIGNATURE "21%02x000cc0000201c6336402d43101bb", family);
    assert_int_equal(decode_hex(&decoded, hex), family == 0x11 ? STATUS_OK : STATUS_FORMAT);
    // Nothing at all fits the unspecified one only.
    (void)snprintf(hex, sizeof(hex), SIGNATURE "21%02x0000", family);
    assert_int_equal(decode_hex(&decoded, hex), family == 0 ? STATUS_OK : STATUS_FORMAT);
  }
}

static void refuses_malformed_contents(void **state) {
  static const char *const wrong[] = {
      "2111000bc0000201c6336402d43101",            // addresses cut
      "2111000dc0000201c6336402d43101bb01",        // TLV cut in its head
      "2111000ec0000201c6336402d43101bb0100",      //
      "21110010c0000201c6336402d43101bb01000268",  // TLV cut in its value
      "2100000a01000268320100026832",              // ALPN twice
      "210000080200016102000162",                  // authority twice
      "2100001020000501000000012000050100000001",  // TLS twice
      "210000082000040100000001",                  // TLS without its flags
      "21000009200006010000000121",                // TLV within TLS cut
      "2100001020000d01000000012100013121000132",  // version twice within TLS
      "2100000703000400000000",                    // wrong checksum
      "21000006030003000000",                      // checksum of wrong length
  };
  struct proxy_decoded decoded;
  char hex[256];
  (void)state;
  for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
    static const struct proxy_decoded empty = {0};
    (void)snprintf(hex, sizeof(hex), SIGNATURE "%s", wrong[i]);
    assert_int_equal(decode_hex(&decoded, hex), STATUS_FORMAT);
    assert_memory_equal(&decoded, &empty, sizeof(empty));
  }
}

static void tells_whether_the_client_spoke_tls(void **state) {
  struct proxy_decoded decoded;
  (void)state;
  assert_int_equal(decode_hex(&decoded, SIGNATURE "210000082000050100000001"), STATUS_OK);
  assert_true(decoded.has_tls);
  assert_int_equal(decode_hex(&decoded, SIGNATURE "210000082000050000000001"), STATUS_OK);
  assert_false(decoded.has_tls);
}

static uint32_t slow_crc32c(const uint8_t *data, size_t len) {
  uint32_t crc = UINT32_MAX;
  for (size_t i = 0; i < 8 * len; i++) {
    const uint32_t bit = ((data[i / 8] >> (i % 8)) & 1) ^ (crc & 1);
    crc = (crc >> 1) ^ (bit * 0x82f63b78u);
  }
  return ~crc;
}

static void checks_a_checksum(void **state) {
  uint8_t data[64];
  size_t decoded_len = 0;
  struct proxy_decoded decoded;
  (void)state;
  // The catalogue's check value of this CRC.
  assert_int_equal(slow_crc32c((const uint8_t *)"123456789", 9), 0xe3069283);

  // Right, but of five bytes.
  const size_t long_len = vector_unhex(data, sizeof(data),
                                       SIGNATURE
                                       "21000008030005"
                                       "0000000000");
  const uint32_t long_crc = slow_crc32c(data, long_len);
  for (size_t i = 0; i < 4; i++) {
    data[19 + i] = (uint8_t)(long_crc >> (24 - 8 * i));
  }
  assert_int_equal(proxy_v2_decode(&decoded, &decoded_len, bytes_of(data, long_len)),
                   STATUS_FORMAT);

  const size_t len = vector_unhex(data, sizeof(data),
                                  SIGNATURE
                                  "2111001ac0000201c6336402d43101bb"
                                  "03000400000000"
                                  "020004612e7465");
  const uint32_t crc = slow_crc32c(data, len);
  const size_t at = 16 + 12 + 3;
  for (size_t i = 0; i < 4; i++) {
    data[at + i] = (uint8_t)(crc >> (24 - 8 * i));
  }
  assert_int_equal(proxy_v2_decode(&decoded, &decoded_len, bytes_of(data, len)), STATUS_OK);
  assert_text(decoded.authority, "a.te");
  for (size_t i = 16; i < len; i++) {
    if (i == at - 3) {
      continue;  // without its type there is no checksum
    }
    data[i] ^= 4;
    assert_int_not_equal(proxy_v2_decode(&decoded, &decoded_len, bytes_of(data, len)), STATUS_OK);
    data[i] ^= 4;
  }
}

static void skips_what_it_does_not_know(void **state) {
  struct proxy_decoded decoded;
  (void)state;
  // NOOP (alignment), a network namespace, a private type, repeated.
  assert_int_equal(decode_hex(&decoded, SIGNATURE "21000016"
                                                  "0400020000"
                                                  "300001ff"
                                                  "e0000101"
                                                  "e0000102"
                                                  "0100026832"),
                   STATUS_OK);
  assert_text(decoded.alpn, "h2");
  assert_false(decoded.has_tls);
}

static void limits_of_reading_are_exact(void **state) {
  static uint8_t data[MAX_LEN];
  size_t decoded_len = 0;
  struct proxy_decoded decoded;
  (void)state;
  for (size_t over = 0; over < 2; over++) {
    const size_t body_len = PROXY_V2_MAX_DECODE_LEN - 16 + over;
    const size_t at = vector_unhex(data, sizeof(data),
                                   SIGNATURE
                                   "21000000"
                                   "040000");
    data[14] = (uint8_t)(body_len >> 8);
    data[15] = (uint8_t)(body_len & 0xff);
    data[at - 2] = (uint8_t)((body_len - 3) >> 8);
    data[at - 1] = (uint8_t)((body_len - 3) & 0xff);
    assert_int_equal(proxy_v2_decode(&decoded, &decoded_len, bytes_of(data, 16 + body_len)),
                     over == 0 ? STATUS_OK : STATUS_LIMIT);
    // Known as soon as the length is: no waiting for the rest.
    assert_int_equal(proxy_v2_decode(&decoded, &decoded_len, bytes_of(data, 16)),
                     over == 0 ? STATUS_AGAIN : STATUS_LIMIT);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(writes_the_bytes_of_the_specification),
      cmocka_unit_test(tells_of_the_clients_certificate),
      cmocka_unit_test(version_1_is_a_line),
      cmocka_unit_test(mapped_addresses_go_out_as_ipv4),
      cmocka_unit_test(leaves_out_addresses_that_do_not_go_together),
      cmocka_unit_test(a_health_check_is_local),
      cmocka_unit_test(what_is_written_is_read_back),
      cmocka_unit_test(limits_of_writing_are_exact),
      cmocka_unit_test(leaves_out_what_is_not_known_of_tls),
      cmocka_unit_test(asks_for_more_until_it_is_whole),
      cmocka_unit_test(refuses_another_protocol_at_its_first_wrong_byte),
      cmocka_unit_test(refuses_other_versions_commands_and_transports),
      cmocka_unit_test(refuses_malformed_contents),
      cmocka_unit_test(tells_whether_the_client_spoke_tls),
      cmocka_unit_test(checks_a_checksum),
      cmocka_unit_test(skips_what_it_does_not_know),
      cmocka_unit_test(limits_of_reading_are_exact),
  };
  return cmocka_run_group_tests_name("proxy_protocol", tests, NULL, NULL);
}
