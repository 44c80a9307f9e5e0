// SPDX-License-Identifier: Apache-2.0
// Whole handshakes with a delegated credential, against NSS (tstclnt): the only
// client that can be had on a Debian machine without a browser.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pool.h>
#include <openssl/x509.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/file.h"
#include "common/net/address.h"
#include "common/tls/credential.h"
#include "common/tls/tickets.h"
#include "tests/support/certs.h"

#define MAX_CONNECTIONS 4
#define GUARD_S 20
#define OUTPUT_MAX_LEN (64u << 10)

static EVP_PKEY *ca_key, *dc_key, *leaf_key;
static X509 *ca;
static int listener = -1;
static uint16_t port;

// --- the server: one connection at a time --------------------------------------------

struct seen {
  bool is_good;  // handshake done
  bool is_dc_used;
  bool is_resumed;
  enum tls_guard guard;
};

static struct {
  struct tls_chain *chain;
  struct tls_dc *dc;
  const SSL_PRIVATE_KEY_METHOD *dc_method;
  size_t num_signed;  // by it
  bool ignores_guard;
  bool is_installed;
  enum tls_guard guard;
  struct seen seen[MAX_CONNECTIONS];
  size_t num_seen;
  char output[OUTPUT_MAX_LEN];
  int exit_code;
} run;

static enum ssl_private_key_result_t sign_with_dc(SSL *ssl, uint8_t *out, size_t *out_len,
                                                  size_t max, uint16_t scheme, const uint8_t *in,
                                                  size_t len) {
  (void)ssl;
  run.num_signed++;
  return tls_dc_sign(run.dc, scheme, out, max, out_len, bytes_of(in, len)) == STATUS_OK
             ? ssl_private_key_success
             : ssl_private_key_failure;
}

static const SSL_PRIVATE_KEY_METHOD dc_method = {.sign = sign_with_dc};

static int on_cert(SSL *ssl, void *arg) {
  (void)arg;
  run.guard = tls_dc_guard(ssl, run.dc, (int64_t)time(NULL), 60);
  run.is_installed = run.guard == TLS_GUARD_PASS || run.ignores_guard;
  return tls_install(ssl, run.chain, run.is_installed ? run.dc : NULL, run.dc_method) == STATUS_OK;
}

static void on_seal(SSL *ssl, struct ticket_facts *out) {
  (void)ssl;
  *out = (struct ticket_facts){.ends_s = (int64_t)time(NULL) + 600};
}

static bool may_resume(SSL *ssl, const struct ticket_facts *facts) {
  (void)ssl;
  (void)facts;
  return true;
}

static void serve_one(SSL_CTX *ctx, int fd) {
  struct seen *seen = &run.seen[run.num_seen];
  SSL *ssl = SSL_new(ctx);
  char rest[256];

  assert_true(run.num_seen < MAX_CONNECTIONS);
  run.num_seen++;
  run.is_installed = false;
  run.guard = TLS_GUARD_NUM;
  SSL_set_fd(ssl, fd);
  seen->is_good = SSL_accept(ssl) == 1;
  seen->guard = run.guard;
  if (seen->is_good) {
    seen->is_resumed = SSL_session_reused(ssl);
    seen->is_dc_used = tls_dc_was_used(ssl, run.is_installed);
    (void)SSL_write(ssl, "hello\n", 6);
    (void)SSL_shutdown(ssl);
    while (SSL_read(ssl, rest, sizeof rest) > 0) {
    }
  }
  ERR_clear_error();
  SSL_free(ssl);
  (void)close(fd);
}

static SSL_CTX *server_ctx_new(struct tickets *tickets) {
  SSL_CTX *ctx = SSL_CTX_new(TLS_with_buffers_method());

  assert_int_equal(tls_credential_prepare(ctx), STATUS_OK);
  assert_true(SSL_CTX_set_strict_cipher_list(ctx, "ECDHE+aECDSA:ECDHE+aRSA"));
  SSL_CTX_set_cert_cb(ctx, on_cert, NULL);
  assert_int_equal(tickets_attach(ctx, tickets, 600), STATUS_OK);
  return ctx;
}

// --- the client ------------------------------------------------------------------------

static pid_t start(const char *command) {
  pid_t pid = fork();

  assert_true(pid >= 0);
  if (pid == 0) {
    (void)execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
  }
  return pid;
}

static int run_command(const char *command) {
  int status = 0;

  assert_true(waitpid(start(command), &status, 0) > 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// handshake runs tstclnt with `options` and serves it until it ends.
static void handshake(const char *options) {
  static const struct ticket_hooks hooks = {on_seal, may_resume};
  struct tickets *tickets = NULL;
  SSL_CTX *ctx;
  char command[1024];
  int64_t until_s = (int64_t)time(NULL) + GUARD_S;
  int status = 0;
  pid_t pid;
  uint8_t *output = NULL;
  size_t len = 0;

  assert_int_equal(tickets_new(&tickets, &hooks), STATUS_OK);
  ctx = server_ctx_new(tickets);
  run.num_seen = 0;
  snprintf(command, sizeof command,
           "exec tstclnt -h 127.0.0.1 -a localhost -p %u -d sql:%s %s </dev/null >%s 2>&1", port,
           test_path("nss"), options, test_path("output"));
  pid = start(command);
  while (waitpid(pid, &status, WNOHANG) == 0) {
    struct pollfd ready = {.fd = listener, .events = POLLIN};

    if ((int64_t)time(NULL) > until_s) {
      (void)kill(pid, SIGKILL);
    }
    if (poll(&ready, 1, 20) == 1) {
      serve_one(ctx, accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    }
  }
  run.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  assert_int_equal(file_read(&output, &len, test_path("output"), OUTPUT_MAX_LEN - 1, NULL),
                   STATUS_OK);
  memcpy(run.output, output, len);
  run.output[len] = '\0';
  free(output);
  SSL_CTX_free(ctx);
  tickets_free(tickets);
}

static void assert_output(const char *text, bool is_there) {
  if ((strstr(run.output, text) != NULL) != is_there) {
    fail_msg("\"%s\" should%s be in the output (exit code %d):\n%s", text, is_there ? "" : " not",
             run.exit_code, run.output);
  }
}

#define RECEIVED "Received a Delegated Credential"

static void assert_one(bool is_dc_used, enum tls_guard guard) {
  assert_output(RECEIVED, is_dc_used);
  assert_int_equal(run.exit_code, 0);
  assert_int_equal(run.num_seen, 1);
  assert_true(run.seen[0].is_good);
  assert_int_equal(run.seen[0].is_dc_used, is_dc_used);
  assert_false(run.seen[0].is_resumed);
  assert_string_equal(tls_guard_name(run.seen[0].guard), tls_guard_name(guard));
}

// --- credentials ------------------------------------------------------------------------

static void make_credentials(EVP_PKEY *key, int64_t life_s, const char *key_usage) {
  const struct test_cert spec = {.cn = "localhost",
                                 .names = "DNS:localhost",
                                 .eku = "serverAuth",
                                 .key_usage = key_usage,
                                 .has_delegation_usage = true};
  X509 *leaf = test_cert_new(&spec, key, ca, ca_key);
  CRYPTO_BUFFER *buffer = test_cert_buffer(leaf);
  int64_t expiry_s = (int64_t)time(NULL) + life_s;
  struct bytes dc = test_dc_new(leaf, key, dc_key, expiry_s, 0);

  memset(&run, 0, sizeof run);
  assert_int_equal(tls_chain_new(&run.chain, &buffer, 1, (struct bytes){0}, NULL, key), STATUS_OK);
  assert_int_equal(tls_dc_new(&run.dc, run.chain, dc, dc_key, expiry_s), STATUS_OK);
  free((void *)(uintptr_t)dc.data);
  CRYPTO_BUFFER_free(buffer);
  X509_free(leaf);
}

static void drop_credentials(void) {
  tls_dc_unref(run.dc);
  tls_chain_unref(run.chain);
}

// --- tests ------------------------------------------------------------------------------

static void gives_a_dc_to_a_client_that_asks(void **state) {
  (void)state;
  make_credentials(leaf_key, 3600, NULL);
  handshake("-V tls1.3:tls1.3 -B -Q");
  assert_one(true, TLS_GUARD_PASS);
  drop_credentials();
}

static void signs_with_the_key_of_the_dc_by_a_method(void **state) {
  (void)state;
  make_credentials(leaf_key, 3600, NULL);
  run.dc_method = &dc_method;
  handshake("-V tls1.3:tls1.3 -B -Q");
  assert_one(true, TLS_GUARD_PASS);
#if !defined(BORINGSSL_API_VERSION) || BORINGSSL_API_VERSION < 32
  assert_int_equal(run.num_signed, 1);
#endif
  drop_credentials();
}

static void gives_a_p256_dc_under_a_p384_certificate(void **state) {
  EVP_PKEY *p384 = test_key_new(KEY_KIND_P384);
  (void)state;

  make_credentials(p384, 3600, NULL);
  handshake("-V tls1.3:tls1.3 -B -Q");
  assert_one(true, TLS_GUARD_PASS);
  drop_credentials();
  EVP_PKEY_free(p384);
}

static void gives_none_to_clients_without_the_option(void **state) {
  (void)state;
  make_credentials(leaf_key, 3600, NULL);
  handshake("-V tls1.3:tls1.3 -Q");
  assert_one(false, TLS_GUARD_NOT_OFFERED);
  handshake("-V tls1.2:tls1.2 -B -Q");
  assert_one(false, TLS_GUARD_OLD_VERSION);
  drop_credentials();
}

static void gives_none_of_an_rsa_certificate(void **state) {
  EVP_PKEY *rsa = test_key_new(KEY_KIND_RSA);
  (void)state;

  make_credentials(rsa, 3600, "digitalSignature,keyEncipherment");
  handshake("-V tls1.3:tls1.3 -B -Q");
  assert_one(false, TLS_GUARD_NSS_RULE);
  run.ignores_guard = true;  // and this is why
  handshake("-V tls1.3:tls1.3 -B -Q");
  assert_int_not_equal(run.exit_code, 0);
  assert_output("SSL_ERROR_UNSUPPORTED_SIGNATURE_ALGORITHM", true);
  drop_credentials();
  EVP_PKEY_free(rsa);
}

static void gives_none_that_has_ended(void **state) {
  (void)state;
  make_credentials(leaf_key, -60, NULL);
  handshake("-V tls1.3:tls1.3 -B -Q");
  assert_one(false, TLS_GUARD_EXPIRED);
  run.ignores_guard = true;
  handshake("-V tls1.3:tls1.3 -B -Q");
  assert_int_not_equal(run.exit_code, 0);
  assert_output("SSL_ERROR_DC_EXPIRED", true);
  drop_credentials();
}

static void tells_a_resumed_session_from_one_with_a_dc(void **state) {
  (void)state;
  make_credentials(leaf_key, 3600, NULL);
  handshake("-V tls1.3:tls1.3 -B -u -L 2");
  assert_int_equal(run.exit_code, 0);
  assert_int_equal(run.num_seen, 2);
  assert_true(run.seen[0].is_good && run.seen[0].is_dc_used && !run.seen[0].is_resumed);
  assert_true(run.seen[1].is_good && run.seen[1].is_resumed && !run.seen[1].is_dc_used);
  drop_credentials();
}

static int make_server(void **state) {
  struct address any, bound;
  char command[1024];
  (void)state;

  (void)signal(SIGPIPE, SIG_IGN);
  // A missing peer is a failure, not a reason to skip: scripts/setup installs it.
  assert_int_equal(run_command("command -v tstclnt >/dev/null && command -v certutil >/dev/null"),
                   0);
  ca_key = test_key_new(KEY_KIND_P256);
  dc_key = test_key_new(KEY_KIND_P256);
  leaf_key = test_key_new(KEY_KIND_P256);
  ca = test_cert_new(&(struct test_cert){.cn = "CA", .is_ca = true}, ca_key, NULL, NULL);
  test_write_certs("ca.pem", &ca, 1);
  assert_int_equal(address_parse(&any, "127.0.0.1:0", NULL), STATUS_OK);
  assert_int_equal(address_listen(&listener, &any, false, 0, NULL), STATUS_OK);
  assert_int_equal(address_of_local(&bound, listener), STATUS_OK);
  port = ntohs(((const struct sockaddr_in *)&bound.storage)->sin_port);
  snprintf(command, sizeof command,
           "mkdir %s && certutil -N -d sql:%s --empty-password && "
           "certutil -A -d sql:%s -n ca -t C,, -i %s",
           test_path("nss"), test_path("nss"), test_path("nss"), test_path("ca.pem"));
  assert_int_equal(run_command(command), 0);
  return 0;
}

static int drop_server(void **state) {
  (void)state;
  (void)close(listener);
  X509_free(ca);
  EVP_PKEY_free(ca_key);
  EVP_PKEY_free(dc_key);
  EVP_PKEY_free(leaf_key);
  test_remove_files();
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(gives_a_dc_to_a_client_that_asks),
      cmocka_unit_test(signs_with_the_key_of_the_dc_by_a_method),
      cmocka_unit_test(gives_a_p256_dc_under_a_p384_certificate),
      cmocka_unit_test(gives_none_to_clients_without_the_option),
      cmocka_unit_test(gives_none_of_an_rsa_certificate),
      cmocka_unit_test(gives_none_that_has_ended),
      cmocka_unit_test(tells_a_resumed_session_from_one_with_a_dc),
  };
  return cmocka_run_group_tests(tests, make_server, drop_server);
}
