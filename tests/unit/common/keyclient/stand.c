// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/common/keyclient/stand.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/tls/context.h"
#include "tests/support/certs.h"

#define GUARD_MS 15000  // a test that takes longer has failed

static EVP_PKEY *ca_key, *tls_key, *sign_key;
static X509 *ca;
static SSL_CTX *server_ctx;

struct loop *loop;
struct fake_keyserver fakes[NUM_FAKES];
struct keyclient *kc;
struct keyclient_config config;
struct keyclient_server_config servers[NUM_FAKES];
struct stand_answers got;
static char addresses[NUM_FAKES][32];

// --- set-up ------------------------------------------------------------------------

static void write_identity(const char *name, const char *names, const char *eku) {
  struct test_cert spec = {.cn = name, .names = names, .eku = eku};
  X509 *leaf = test_cert_new(&spec, tls_key, ca, ca_key);
  test_write_certs(name, &leaf, 1);
  X509_free(leaf);
}

char *path_of(const char *name) { return (char *)(uintptr_t)test_path(name); }

static const uint8_t usual_ski[FRAME_SKI_LEN] = "0123456789abcdefghi";
uint8_t ski[FRAME_SKI_LEN];

int setup_group(void **state) {
  const struct test_cert spec = {.cn = "ca", .is_ca = true};
  struct tls_identity identity;
  (void)state;

  ca_key = test_key_new(KEY_KIND_P256);
  tls_key = test_key_new(KEY_KIND_P256);
  sign_key = test_key_new(KEY_KIND_P256);
  ca = test_cert_new(&spec, ca_key, NULL, NULL);
  test_write_certs("ca.pem", &ca, 1);
  test_write_key("tls.key", tls_key, 0600);
  write_identity("server.pem", "DNS:keys.test,DNS:*.stand.test,IP:127.0.0.1", "serverAuth");
  write_identity("client.pem", "DNS:proxy.test", "clientAuth");
  identity = (struct tls_identity){
      .ca = path_of("ca.pem"), .certificate = path_of("server.pem"), .key = path_of("tls.key")};
  assert_int_equal(tls_context_server(&server_ctx, &identity, false, NULL), STATUS_OK);
  return 0;
}

int teardown_group(void **state) {
  (void)state;
  SSL_CTX_free(server_ctx);
  X509_free(ca);
  EVP_PKEY_free(ca_key);
  EVP_PKEY_free(tls_key);
  EVP_PKEY_free(sign_key);
  test_remove_files();
  return 0;
}

int setup(void **state) {
  (void)state;
  memset(fakes, 0, sizeof fakes);
  memset(servers, 0, sizeof servers);
  memcpy(ski, usual_ski, sizeof ski);
  assert_int_equal(loop_new(&loop), STATUS_OK);
  config = (struct keyclient_config){
      .servers = servers,
      .tls = {.ca = path_of("ca.pem"),
              .certificate = path_of("client.pem"),
              .key = path_of("tls.key")},
      .deadline_ms = 3000,
      .attempt_ms = 1000,
      .connect_ms = 2000,
      .num_connections = 1,
  };
  return 0;
}

int teardown(void **state) {
  (void)state;
  keyclient_free(kc);
  kc = NULL;
  for (int i = 0; i < NUM_FAKES; i++) {
    fake_keyserver_stop(&fakes[i]);
  }
  loop_free(loop);
  return 0;
}

void start_fake(int i, enum fake_manner manner) {
  fakes[i].manner = manner;
  fakes[i].key = sign_key;
  fake_keyserver_start(&fakes[i], loop, server_ctx, fakes[i].port);
}

void start_client(size_t num) {
  for (size_t i = 0; i < num; i++) {
    (void)snprintf(addresses[i], sizeof addresses[i], "127.0.0.1:%u", fakes[i].port);
    servers[i].address = addresses[i];
  }
  config.num_servers = num;
  start_configured(NULL);
}

void start_configured(const struct address *dns) {
  struct errmsg err = {0};
  if (keyclient_new_with(&kc, loop, &config, dns, &err) != STATUS_OK) {
    fail_msg("%s", err.text);
  }
}

// --- running ------------------------------------------------------------------------

struct wait {
  bool (*is_done)(void);
  struct timer timer;
  int64_t due_ms;
  bool is_late;
};

static void on_look(void *arg) {
  struct wait *wait = arg;
  wait->is_late = clock_monotonic_ms() > wait->due_ms;
  if (wait->is_done() || wait->is_late) {
    loop_stop(loop);
  } else {
    timer_arm_ms(&wait->timer, 1);
  }
}

void run_until(bool (*is_done)(void)) {
  struct wait wait = {.is_done = is_done, .due_ms = clock_monotonic_ms() + GUARD_MS};
  assert_int_equal(timer_init(&wait.timer, loop, on_look, &wait), STATUS_OK);
  timer_arm_ms(&wait.timer, 0);
  loop_run(loop);
  timer_cleanup(&wait.timer);
  assert_false(wait.is_late);
}

static unsigned want_ready;
static bool are_ready(void) { return keyclient_num_ready(kc) == want_ready; }
void run_until_ready(unsigned num) {
  want_ready = num;
  run_until(are_ready);
}

static size_t want_answers;
static bool are_answered(void) { return got.num >= want_answers; }
void run_until_answered(size_t num) {
  want_answers = num;
  run_until(are_answered);
}

static const uint8_t text[] = "this is what is signed";
struct bytes message = {text, sizeof text};

void on_answer(void *arg, const struct sign_answer *answer) {
  (void)arg;
  assert_in_range(got.num, 0, MAX_ANSWERS - 1);
  got.st[got.num] = answer->st;
  got.code[got.num] = answer->code;
  got.num++;
  if (answer->st == STATUS_OK && scheme_verify(scheme_by_name("ecdsa_secp256r1_sha256"), sign_key,
                                               message, answer->signature) != STATUS_OK) {
    got.num_bad_signatures++;
  }
}

uint64_t ask(void) {
  const struct scheme *scheme = scheme_by_name("ecdsa_secp256r1_sha256");
  const struct sign_request request = {.ski = ski,
                                       .scheme = scheme,
                                       .opcode = scheme->opcode,
                                       .message = message,
                                       .sni = bytes_text("www.test")};
  uint64_t id = 0;
  const size_t before = got.num;
  assert_int_equal(keyclient_sign(&id, kc, &request, on_answer, NULL), STATUS_OK);
  assert_int_not_equal(id, 0);
  assert_int_equal(got.num, before);  // later, never at once
  return id;
}

void forget_answers(void) { memset(&got, 0, sizeof got); }

void assert_answers(size_t num, enum status st) {
  run_until_answered(num);
  for (size_t i = 0; i < num; i++) {
    assert_int_equal(got.st[i], st);
  }
  assert_int_equal(got.num_bad_signatures, 0);
  forget_answers();
}
