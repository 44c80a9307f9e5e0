// SPDX-License-Identifier: Apache-2.0
// The client against BoringSSL's server (memory_server.h), and against a server that
// says what no honest one would (tls13_puppet.h).
#include "bench/tls13_client.h"

#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "bench/memory_server.h"
#include "common/base/clock.h"
#include "tests/support/certs.h"
#include "tests/support/tls13_puppet.h"

static const char *const names[] = {"localhost", "other.test"};
static struct tls13_shared *shared;
static struct tls13_client client;
static struct memory_server server;
static struct memory_peer peer;
static struct puppet puppet;
static struct buffer to_server;
static struct buffer to_client;
static struct tls13_ticket ticket;
static size_t num_tickets;
static char received[256];
static size_t received_len;

static void keep_ticket(struct tls13_client *c, const struct tls13_ticket *t) {
  (void)c;
  ticket = *t;
  num_tickets += 1;
}

static void keep_data(struct tls13_client *c, struct bytes data) {
  (void)c;
  assert_true(received_len + data.len < sizeof(received));
  memcpy(received + received_len, data.data, data.len);
  received_len += data.len;
}

static struct tls13_options options(void) {
  return (struct tls13_options){
      .names = names,
      .num_names = 2,
      .offers_dc = true,
      .share = TLS13_SHARE_FRESH,
      .suites = {tls13_suite_find(0x1301), tls13_suite_find(0x1303), tls13_suite_find(0x1302)},
      .num_suites = 3,
      .verify_every = 1,
      .on_data = keep_data,
      .on_ticket = keep_ticket};
}

static void use_client(struct tls13_options o) {
  tls13_shared_free(shared);
  shared = NULL;
  assert_int_equal(tls13_shared_new(&shared, &o, NULL), STATUS_OK);
}

static void use_server(struct memory_server_options o) {
  o.issuer = "The issuer";
  o.dc_life_s = o.dc_life_s == 0 ? 3600 : o.dc_life_s;
  memory_server_cleanup(&server);
  assert_int_equal(memory_server_init(&server, &o), STATUS_OK);
}

static int clean(void **state) {
  (void)state;
  tls13_client_cleanup(&client);
  client = (struct tls13_client){0};
  tls13_shared_free(shared);
  shared = NULL;
  memory_peer_cleanup(&peer);
  memory_server_cleanup(&server);
  puppet_cleanup(&puppet);
  buffer_cleanup(&to_server);
  buffer_cleanup(&to_client);
  num_tickets = 0;
  received_len = 0;
  clock_override_wall_s(0);
  return 0;
}

static void start(const struct tls13_ticket *resume) {
  to_server.len = 0;
  to_client.len = 0;
  memory_peer_cleanup(&peer);
  if (server.ctx != NULL) {
    assert_int_equal(memory_peer_start(&peer, &server), STATUS_OK);
  }
  assert_int_equal(tls13_client_start(&client, shared, 0, resume, clock_monotonic_ms(), &to_server),
                   TLS13_OK);
}

static void run_server(void) {
  assert_int_equal(memory_peer_run(&peer, bytes_of(to_server.data, to_server.len), &to_client),
                   STATUS_OK);
  to_server.len = 0;
}

// Feeds all in pieces of `step` bytes, until a fault.
static enum tls13_fault feed(size_t step) {
  enum tls13_fault fault = TLS13_OK;
  for (size_t at = 0; at < to_client.len && fault == TLS13_OK; at += step) {
    const size_t len = to_client.len - at < step ? to_client.len - at : step;
    fault = tls13_client_feed(&client, to_client.data + at, len, &to_server);
  }
  to_client.len = 0;
  return fault;
}

static enum tls13_fault shake_hands(const struct tls13_ticket *resume) {
  start(resume);
  run_server();
  const enum tls13_fault fault = feed(SIZE_MAX / 2);
  if (fault == TLS13_OK) {
    run_server();
  }
  return fault;
}

static const char *reason(void) {
  static char text[TLS13_REASON_LEN];
  return tls13_client_reason(&client, text);
}

// --- against BoringSSL -------------------------------------------------------------

static void shakes_hands_with_every_suite_and_key_share(void **state) {
  (void)state;
  static const uint16_t codes[] = {0x1301, 0x1302, 0x1303};
  use_server((struct memory_server_options){.kind = KEY_KIND_P256});
  for (size_t i = 0; i < 9; i++) {
    struct tls13_options o = options();
    o.suites[0] = tls13_suite_find(codes[i % 3]);
    o.num_suites = 1;
    o.share = (enum tls13_share)(i / 3);
    use_client(o);
    assert_int_equal(shake_hands(NULL), TLS13_OK);
    assert_int_equal(client.state, TLS13_CLIENT_DONE);
    assert_true(peer.is_done);
    assert_ptr_equal(client.suite, o.suites[0]);
    assert_true(client.is_verified);
    assert_false(client.has_dc);
    assert_false(client.is_resumed);
    assert_string_equal(client.peer->issuer, "The issuer");
  }
}

static void shakes_hands_with_every_kind_of_key(void **state) {
  (void)state;
  static const enum key_kind kinds[] = {KEY_KIND_P256, KEY_KIND_P384, KEY_KIND_P521, KEY_KIND_RSA};
  use_client(options());
  for (size_t i = 0; i < 4; i++) {
    use_server((struct memory_server_options){.kind = kinds[i]});
    assert_int_equal(shake_hands(NULL), TLS13_OK);
    assert_true(peer.is_done);
    assert_int_equal(client.peer->leaf_kind, kinds[i]);
    assert_int_equal(client.verify_scheme, scheme_default(kinds[i])->code);
  }
}

static void takes_a_delegated_credential_and_checks_with_its_key(void **state) {
  (void)state;
  use_client(options());
  use_server((struct memory_server_options){.kind = KEY_KIND_P384, .has_dc = true});
  assert_int_equal(shake_hands(NULL), TLS13_OK);
  assert_true(peer.is_done);
  assert_true(client.has_dc);
  assert_true(client.is_verified);
  assert_int_equal(client.verify_scheme, SSL_SIGN_ECDSA_SECP256R1_SHA256);  // not the leaf's
}

static void gets_none_without_offering(void **state) {
  (void)state;
  struct tls13_options o = options();
  o.offers_dc = false;
  use_client(o);
  use_server((struct memory_server_options){.kind = KEY_KIND_P256, .has_dc = true});
  assert_int_equal(shake_hands(NULL), TLS13_OK);
  assert_false(client.has_dc);
}

static void refuses_bad_delegated_credentials(void **state) {
  (void)state;
  use_client(options());
  use_server(
      (struct memory_server_options){.kind = KEY_KIND_P256, .has_dc = true, .has_bad_dc = true});
  assert_int_equal(shake_hands(NULL), TLS13_FAULT_DC);
  assert_string_equal(reason(), "dc_signature");
  use_server(
      (struct memory_server_options){.kind = KEY_KIND_P256, .has_dc = true, .dc_life_s = -60});
  assert_int_equal(shake_hands(NULL), TLS13_FAULT_DC);
  assert_string_equal(reason(), "dc_expired");
  use_server((struct memory_server_options){
      .kind = KEY_KIND_P256, .has_dc = true, .dc_life_s = 8L * 24 * 3600});
  assert_int_equal(shake_hands(NULL), TLS13_FAULT_DC);
  assert_string_equal(reason(), "dc_too_long");
  use_server((struct memory_server_options){.kind = KEY_KIND_RSA, .has_dc = true});
  assert_int_equal(shake_hands(NULL), TLS13_FAULT_DC);
  assert_string_equal(reason(), "dc_algorithm");  // as NSS
}

// The credential was good when it was first met, and is remembered.
static void notices_that_a_known_credential_has_expired(void **state) {
  (void)state;
  const int64_t now_s = clock_wall_s();
  use_client(options());
  use_server((struct memory_server_options){.kind = KEY_KIND_P256, .has_dc = true});
  assert_int_equal(shake_hands(NULL), TLS13_OK);
  clock_override_wall_s(now_s + 3599);
  assert_int_equal(shake_hands(NULL), TLS13_OK);
  clock_override_wall_s(now_s + 3700);
  assert_int_equal(shake_hands(NULL), TLS13_FAULT_DC);
  assert_string_equal(reason(), "dc_expired");
}

static void checks_one_signature_in_so_many(void **state) {
  (void)state;
  struct tls13_options o = options();
  int num = 0;
  o.verify_every = 4;
  use_client(o);
  use_server((struct memory_server_options){.kind = KEY_KIND_P256});
  for (int i = 0; i < 12; i++) {
    assert_int_equal(shake_hands(NULL), TLS13_OK);
    num += client.is_verified;
  }
  assert_int_equal(num, 3);
  o.verify_every = 0;
  use_client(o);
  assert_int_equal(shake_hands(NULL), TLS13_OK);
  assert_false(client.is_verified);
}

static void resumes_with_a_ticket_in_every_suite(void **state) {
  (void)state;
  static const uint16_t codes[] = {0x1301, 0x1302, 0x1303};
  use_server((struct memory_server_options){.kind = KEY_KIND_P256, .gives_tickets = true});
  for (size_t i = 0; i < 3; i++) {
    struct tls13_options o = options();
    o.suites[0] = tls13_suite_find(codes[i]);
    o.num_suites = 1;
    use_client(o);
    num_tickets = 0;
    assert_int_equal(shake_hands(NULL), TLS13_OK);
    assert_int_equal(memory_peer_write(&peer, bytes_text("x"), &to_client), STATUS_OK);
    assert_int_equal(feed(7), TLS13_OK);
    assert_true(num_tickets > 0);
    const struct tls13_ticket kept = ticket;
    for (int turn = 0; turn < 2; turn++) {
      assert_int_equal(shake_hands(&kept), TLS13_OK);
      assert_true(client.is_resumed);
      assert_true(peer.is_done);
      assert_null(client.peer);
    }
  }
}

static void a_spoilt_ticket_makes_a_full_handshake(void **state) {
  (void)state;
  use_client(options());
  use_server((struct memory_server_options){.kind = KEY_KIND_P256, .gives_tickets = true});
  assert_int_equal(shake_hands(NULL), TLS13_OK);
  assert_int_equal(memory_peer_write(&peer, bytes_text("x"), &to_client), STATUS_OK);
  assert_int_equal(feed(1000), TLS13_OK);
  ticket.ticket[20] ^= 1;
  assert_int_equal(shake_hands(&ticket), TLS13_OK);
  assert_false(client.is_resumed);
  assert_true(peer.is_done);
}

// RFC 8446, section 4.2.11.1: the age in ms plus age_add, modulo 2^32, before the binders.
static void tells_the_age_of_a_ticket(void **state) {
  (void)state;
  use_client(options());
  ticket = (struct tls13_ticket){.suite = tls13_suite_find(0x1301),
                                 .age_add = 0xfffffff0,
                                 .received_ms = 1000,
                                 .ticket_len = 1};
  assert_int_equal(tls13_client_start(&client, shared, 0, &ticket, 1000 + 0x1230, &to_server),
                   TLS13_OK);
  const uint8_t *age = to_server.data + to_server.len - (2 + 1 + 32) - 4;
  assert_memory_equal(age, "\x00\x00\x12\x20", 4);
}

// A binder that is wrong must end the handshake (RFC 8446, section 4.2.11).
static void a_wrong_psk_is_an_alert(void **state) {
  (void)state;
  use_client(options());
  use_server((struct memory_server_options){.kind = KEY_KIND_P256, .gives_tickets = true});
  assert_int_equal(shake_hands(NULL), TLS13_OK);
  assert_int_equal(memory_peer_write(&peer, bytes_text("x"), &to_client), STATUS_OK);
  assert_int_equal(feed(1000), TLS13_OK);
  ticket.psk.data[0] ^= 1;
  assert_int_equal(shake_hands(&ticket), TLS13_FAULT_ALERT);
  assert_string_equal(reason(), "alert_51");
}

static void takes_the_flight_in_pieces_of_any_size(void **state) {
  (void)state;
  use_client(options());
  use_server((struct memory_server_options){.kind = KEY_KIND_P256, .has_dc = true});
  for (size_t step = 1; step < 200; step += step < 12 ? 1 : 17) {
    start(NULL);
    run_server();
    assert_int_equal(feed(step), TLS13_OK);
    assert_int_equal(client.state, TLS13_CLIENT_DONE);
    run_server();
    assert_true(peer.is_done);
  }
}

static void carries_data_both_ways(void **state) {
  (void)state;
  char text[64] = "";
  use_client(options());
  use_server((struct memory_server_options){.kind = KEY_KIND_P256});
  assert_int_equal(shake_hands(NULL), TLS13_OK);
  assert_int_equal(tls13_client_send(&client, bytes_text("question"), &to_server), TLS13_OK);
  run_server();
  assert_int_equal(SSL_read(peer.ssl, text, sizeof(text)), 8);
  assert_memory_equal(text, "question", 8);
  assert_int_equal(memory_peer_write(&peer, bytes_text("answer"), &to_client), STATUS_OK);
  assert_int_equal(feed(3), TLS13_OK);
  assert_int_equal(received_len, 6);
  assert_memory_equal(received, "answer", 6);
  assert_int_equal(tls13_client_close(&client, &to_server), TLS13_OK);
  run_server();
  assert_int_equal(SSL_read(peer.ssl, text, sizeof(text)), 0);
  assert_int_equal(SSL_get_error(peer.ssl, 0), SSL_ERROR_ZERO_RETURN);
}

static void tells_the_servers_alert(void **state) {
  (void)state;
  use_client(options());
  use_server((struct memory_server_options){.kind = KEY_KIND_ED25519});  // not offered
  assert_int_equal(shake_hands(NULL), TLS13_FAULT_ALERT);
  assert_string_equal(reason(), "alert_40");
}

// legacy_record_version of a record that is not protected means nothing (RFC 8446,
// section 5.1): those of ServerHello and ChangeCipherSpec.
static bool is_without_meaning(size_t i) {
  const size_t hello_len = 5 + ((size_t)to_client.data[3] << 8 | to_client.data[4]);
  assert_int_equal(to_client.data[hello_len], 20);
  return i == 1 || i == 2 || i == hello_len + 1 || i == hello_len + 2;
}

// Whatever byte of the server's flight is altered, the handshake does not come about.
static void no_altered_flight_is_taken(void **state) {
  (void)state;
  size_t num_bytes = SIZE_MAX;
  use_client(options());
  use_server((struct memory_server_options){.kind = KEY_KIND_P256, .has_dc = true});
  for (size_t i = 0; i < num_bytes; i++) {
    start(NULL);
    run_server();
    num_bytes = to_client.len;  // differs a little: signatures do
    if (i < num_bytes && !is_without_meaning(i)) {
      to_client.data[i] ^= 0x41;
      (void)feed(100000);
      assert_int_not_equal(client.state, TLS13_CLIENT_DONE);
    }
  }
  assert_true(num_bytes > 500);
}

static void a_client_can_be_used_again_after_a_fault(void **state) {
  (void)state;
  use_client(options());
  use_server((struct memory_server_options){.kind = KEY_KIND_P256});
  for (int i = 0; i < 3; i++) {
    start(NULL);
    run_server();
    to_client.data[to_client.len - 1] ^= 1;
    assert_int_equal(feed(333), TLS13_FAULT_RECORD);
    assert_string_equal(reason(), "bad_record");
    assert_int_equal(tls13_client_feed(&client, to_client.data, 0, &to_server),
                     TLS13_FAULT_UNEXPECTED);
    assert_int_equal(shake_hands(NULL), TLS13_OK);
  }
}

// --- against a puppet ------------------------------------------------------------------

static struct bytes leaf;

static int make_leaf(void **state) {
  (void)state;
  EVP_PKEY *key = test_key_new(KEY_KIND_P256);
  X509 *x509 = test_cert_new(
      &(struct test_cert){.cn = "x", .names = "DNS:x.test", .has_delegation_usage = true}, key,
      NULL, NULL);
  leaf = test_cert_der(x509);
  X509_free(x509);
  EVP_PKEY_free(key);
  return 0;
}

static int free_leaf(void **state) {
  (void)state;
  OPENSSL_free((void *)(uintptr_t)leaf.data);
  return 0;
}

static void use_puppet(uint32_t verify_every) {
  struct tls13_options o = options();
  o.share = TLS13_SHARE_BASE;
  o.verify_every = verify_every;
  use_client(o);
  start(NULL);
  puppet_start(&puppet, bytes_of(to_server.data, to_server.len), 0x1301, &to_client);
}

static void say(uint8_t type, const void *body, size_t len) {
  puppet_message(&puppet, type, bytes_of(body, len), &to_client);
}

static void say_extensions(void) { say(TLS13_ENCRYPTED_EXTENSIONS, "\0\0", 2); }

// A Certificate with the leaf and, for its entry, these extensions.
static void say_certificate(const void *extensions, size_t extensions_len) {
  uint8_t body[4096];
  const size_t entry_len = 3 + leaf.len + 2 + extensions_len;
  const uint8_t head[] = {
      0, (uint8_t)(entry_len >> 16), (uint8_t)(entry_len >> 8), (uint8_t)entry_len,
      0, (uint8_t)(leaf.len >> 8),   (uint8_t)leaf.len};
  uint8_t *p = body;
  assert_true(entry_len + 16 < sizeof(body));
  memcpy(p, head, sizeof(head));
  p += sizeof(head);
  memcpy(p, leaf.data, leaf.len);
  p += leaf.len;
  *p++ = (uint8_t)(extensions_len >> 8);
  *p++ = (uint8_t)extensions_len;
  memcpy(p, extensions, extensions_len);
  say(TLS13_CERTIFICATE, body, (size_t)(p - body) + extensions_len);
}

static void say_verify(uint16_t scheme) {
  const uint8_t body[] = {(uint8_t)(scheme >> 8), (uint8_t)scheme, 0, 4, 1, 2, 3, 4};
  say(TLS13_CERTIFICATE_VERIFY, body, sizeof(body));
}

static void assert_fault(enum tls13_fault expected, const char *word) {
  assert_int_equal(feed(100000), expected);
  assert_string_equal(reason(), word);
}

static void believes_a_puppet_when_nothing_is_verified(void **state) {
  (void)state;
  use_puppet(0);
  say_extensions();
  say_certificate("", 0);
  say_verify(0x0403);
  puppet_finished(&puppet, &to_client);
  assert_int_equal(feed(100000), TLS13_OK);
  assert_int_equal(client.state, TLS13_CLIENT_DONE);
  assert_false(client.is_verified);
}

static void notices_a_bad_certificate_verify(void **state) {
  (void)state;
  use_puppet(1);
  say_extensions();
  say_certificate("", 0);
  say_verify(0x0403);
  assert_fault(TLS13_FAULT_SIGNATURE, "bad_signature");
}

static void notices_a_scheme_that_does_not_fit_the_key(void **state) {
  (void)state;
  static const uint16_t schemes[] = {0x0503, 0x0804, 0x0401, 0x0807, 0x1234};
  for (size_t i = 0; i < 5; i++) {
    use_puppet(0);
    say_extensions();
    say_certificate("", 0);
    say_verify(schemes[i]);
    assert_fault(TLS13_FAULT_SCHEME, "scheme");
  }
}

static void notices_a_wrong_finished(void **state) {
  (void)state;
  const uint8_t wrong[32] = {1};
  use_puppet(0);
  say_extensions();
  say_certificate("", 0);
  say_verify(0x0403);
  say(TLS13_FINISHED, wrong, sizeof(wrong));
  assert_fault(TLS13_FAULT_FINISHED, "bad_finished");
  use_puppet(0);
  say_extensions();
  say_certificate("", 0);
  say_verify(0x0403);
  say(TLS13_FINISHED, "", 0);  // of which all bytes are right
  assert_fault(TLS13_FAULT_FINISHED, "bad_finished");
}

static void notices_a_credential_that_was_not_asked_for(void **state) {
  (void)state;
  static const uint8_t extension[] = {0, 34, 0, 3, 1, 2, 3};
  struct tls13_options o = options();
  o.share = TLS13_SHARE_BASE;
  o.offers_dc = false;
  use_client(o);
  start(NULL);
  puppet_start(&puppet, bytes_of(to_server.data, to_server.len), 0x1301, &to_client);
  say_extensions();
  say_certificate(extension, sizeof(extension));
  assert_fault(TLS13_FAULT_DC_UNASKED, "dc_unasked");
}

static void notices_a_credential_that_is_none(void **state) {
  (void)state;
  static const uint8_t extension[] = {0, 34, 0, 3, 1, 2, 3};
  static const uint8_t empty[] = {0, 34, 0, 0};
  use_puppet(0);
  say_extensions();
  say_certificate(extension, sizeof(extension));
  assert_fault(TLS13_FAULT_DC, "dc_format");
  use_puppet(0);
  say_extensions();
  say_certificate(empty, sizeof(empty));
  assert_fault(TLS13_FAULT_DC, "dc_format");
}

static void notices_a_certificate_that_is_none(void **state) {
  (void)state;
  use_puppet(0);
  say_extensions();
  say(TLS13_CERTIFICATE, "\0\0\0\7\0\0\2\x30\0\0\0", 11);
  assert_fault(TLS13_FAULT_CERTIFICATE, "bad_certificate");
  use_puppet(0);
  say_extensions();
  say(TLS13_CERTIFICATE, "\0\0\0\0", 4);
  assert_fault(TLS13_FAULT_DECODE, "decode");
}

static void notices_messages_out_of_turn(void **state) {
  (void)state;
  use_puppet(0);
  say_certificate("", 0);
  assert_fault(TLS13_FAULT_UNEXPECTED, "unexpected_message");
  use_puppet(0);
  say_extensions();
  say_verify(0x0403);
  assert_fault(TLS13_FAULT_UNEXPECTED, "unexpected_message");
  use_puppet(0);
  say_extensions();
  puppet_finished(&puppet, &to_client);  // without a certificate, though not resumed
  assert_fault(TLS13_FAULT_UNEXPECTED, "unexpected_message");
  use_puppet(0);
  say_extensions();
  say(TLS13_CERTIFICATE_REQUEST, "\0\0\0", 3);
  assert_fault(TLS13_FAULT_CERTIFICATE_REQUEST, "certificate_request");
  use_puppet(0);
  puppet_seal(&puppet, 23, bytes_text("too soon"), &to_client);
  assert_fault(TLS13_FAULT_UNEXPECTED, "unexpected_message");
  use_puppet(0);
  puppet_plain(&to_client, 22, bytes_text("\x08\0\0\2\0\0"));  // not protected
  assert_fault(TLS13_FAULT_UNEXPECTED, "unexpected_message");
}

// RFC 8446, section 5.1: nothing may follow in the record that changes keys.
static void notices_bytes_across_a_change_of_keys(void **state) {
  (void)state;
  struct buffer record = {0};
  use_puppet(0);
  // The ServerHello again, with a byte behind it in the same record.
  assert_int_equal(buffer_add(&record, bytes_of(to_client.data + 5, to_client.len - 5)), STATUS_OK);
  assert_int_equal(buffer_add(&record, bytes_text("\x08")), STATUS_OK);
  to_client.len = 0;
  puppet_plain(&to_client, 22, bytes_of(record.data, record.len));
  assert_fault(TLS13_FAULT_UNEXPECTED, "unexpected_message");
  buffer_cleanup(&record);
}

static void notices_a_message_beyond_the_limit(void **state) {
  (void)state;
  use_puppet(0);
  puppet_seal(&puppet, 22, bytes_of("\x08\xff\xff\xff", 4), &to_client);
  assert_fault(TLS13_FAULT_TOO_LONG, "too_long");
  use_puppet(0);
  to_client.len = 0;
  assert_int_equal(buffer_add(&to_client, bytes_of("\x17\3\3\xff\xff", 5)), STATUS_OK);
  assert_fault(TLS13_FAULT_DECODE, "decode");
}

static void another_protocol_is_not_waited_for(void **state) {
  (void)state;
  use_client(options());
  start(NULL);
  assert_int_equal(buffer_add(&to_client, bytes_text("SSH-2.0-x\r\n")), STATUS_OK);
  assert_fault(TLS13_FAULT_DECODE, "decode");
}

static void notices_key_update_and_late_alerts(void **state) {
  (void)state;
  for (int turn = 0; turn < 3; turn++) {
    use_puppet(0);
    say_extensions();
    say_certificate("", 0);
    say_verify(0x0403);
    puppet_finished(&puppet, &to_client);
    assert_int_equal(feed(100000), TLS13_OK);
    if (turn == 0) {
      puppet_seal(&puppet, 22, bytes_of("\x18\0\0\1\0", 5), &to_client);
      assert_fault(TLS13_FAULT_KEY_UPDATE, "key_update");
    } else if (turn == 1) {
      puppet_seal(&puppet, 21, bytes_of("\2\x50", 2), &to_client);
      assert_fault(TLS13_FAULT_ALERT, "alert_80");
    } else {
      puppet_seal(&puppet, 21, bytes_of("\1\0", 2), &to_client);
      assert_int_equal(feed(100000), TLS13_OK);
      assert_true(client.is_peer_closed);
    }
  }
}

// One ServerHello with one thing changed.
static void assert_hello(size_t offset, uint8_t value, enum tls13_fault expected) {
  uint8_t body[PUPPET_HELLO_LEN + 4] = {2, 0, 0};
  struct tls13_options o = options();
  o.share = TLS13_SHARE_BASE;
  o.num_suites = 1;
  use_client(o);
  start(NULL);
  const size_t len = puppet_server_hello(body + 4, bytes_of(to_server.data, to_server.len), 0x1301);
  body[3] = (uint8_t)len;
  body[4 + offset] = value;
  puppet_plain(&to_client, 22, bytes_of(body, len + 4));
  assert_int_equal(feed(100000), expected);
}

static void judges_the_server_hello(void **state) {
  (void)state;
  assert_hello(0, 3, TLS13_OK);                // as it was
  assert_hello(40, 0xff, TLS13_FAULT_DECODE);  // session id
  assert_hello(68, 0x03, TLS13_FAULT_SUITE);   // 0x1303, not offered
  assert_hello(68, 0x09, TLS13_FAULT_SUITE);   // unknown
  assert_hello(69, 1, TLS13_FAULT_DECODE);     // compression
  assert_hello(77, 3, TLS13_FAULT_VERSION);    // TLS 1.2
  assert_hello(83, 23, TLS13_FAULT_GROUP);     // P-256
  assert_hello(81, 37, TLS13_FAULT_DECODE);    // lengths that do not fit
  assert_hello(71, 200, TLS13_FAULT_DECODE);
}

static void notices_a_hello_retry_request(void **state) {
  (void)state;
  // RFC 8446, section 4.1.3.
  static const char random[] = "cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c";
  static const char extensions[] = "000c002b00020304003300020017";
  uint8_t body[256] = {2, 0, 0};
  struct tls13_options o = options();
  use_client(o);
  start(NULL);
  (void)puppet_server_hello(body + 4, bytes_of(to_server.data, to_server.len), 0x1301);
  assert_int_equal(bytes_from_hex(body + 4 + 2, 32, random), STATUS_OK);
  assert_int_equal(bytes_from_hex(body + 4 + 70, 14, extensions), STATUS_OK);
  body[3] = 84;
  puppet_plain(&to_client, 22, bytes_of(body, 4 + 84));
  assert_fault(TLS13_FAULT_RETRY, "hello_retry");
}

static void refuses_names_that_do_not_fit(void **state) {
  (void)state;
  char name[300];
  const char *list[] = {name};
  struct tls13_options o = options();
  memset(name, 'a', sizeof(name) - 1);
  name[sizeof(name) - 1] = '\0';
  o.names = list;
  o.num_names = 1;
  assert_int_equal(tls13_shared_new(&shared, &o, NULL), STATUS_LIMIT);
  o.num_names = 0;
  assert_int_equal(tls13_shared_new(&shared, &o, NULL), STATUS_LIMIT);
}

#define TEST(name) cmocka_unit_test_teardown(name, clean)
int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(shakes_hands_with_every_suite_and_key_share),
      TEST(shakes_hands_with_every_kind_of_key),
      TEST(takes_a_delegated_credential_and_checks_with_its_key),
      TEST(gets_none_without_offering),
      TEST(refuses_bad_delegated_credentials),
      TEST(notices_that_a_known_credential_has_expired),
      TEST(checks_one_signature_in_so_many),
      TEST(resumes_with_a_ticket_in_every_suite),
      TEST(a_spoilt_ticket_makes_a_full_handshake),
      TEST(tells_the_age_of_a_ticket),
      TEST(a_wrong_psk_is_an_alert),
      TEST(takes_the_flight_in_pieces_of_any_size),
      TEST(carries_data_both_ways),
      TEST(tells_the_servers_alert),
      TEST(no_altered_flight_is_taken),
      TEST(a_client_can_be_used_again_after_a_fault),
      TEST(believes_a_puppet_when_nothing_is_verified),
      TEST(notices_a_bad_certificate_verify),
      TEST(notices_a_scheme_that_does_not_fit_the_key),
      TEST(notices_a_wrong_finished),
      TEST(notices_a_credential_that_was_not_asked_for),
      TEST(notices_a_credential_that_is_none),
      TEST(notices_a_certificate_that_is_none),
      TEST(notices_messages_out_of_turn),
      TEST(notices_bytes_across_a_change_of_keys),
      TEST(notices_a_message_beyond_the_limit),
      TEST(another_protocol_is_not_waited_for),
      TEST(notices_key_update_and_late_alerts),
      TEST(judges_the_server_hello),
      TEST(notices_a_hello_retry_request),
      TEST(refuses_names_that_do_not_fit),
  };
  return cmocka_run_group_tests(tests, make_leaf, free_leaf);
}
