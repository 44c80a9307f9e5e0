// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/options.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

// What every file has; a test adds to it.
#define LISTENERS "\"listeners\": [{\"name\": \"a\", \"address\": \"127.0.0.1:0\"}]"
#define NAMES                                                                   \
  "\"names\": [{\"name\": \"demo.test\", \"chains\": [{\"label\": \"primary\"," \
  " \"certificate\": \"demo.pem\"}]}]"
#define KEY_SERVERS                                                     \
  "\"key_servers\": {\"servers\": [{\"address\": \"localhost:2407\"}]," \
  " \"tls\": {\"ca\": \"ca.pem\", \"certificate\": \"own.pem\", \"key\": \"own.key\"}}"
#define ORIGIN "\"origin\": {\"address\": \"127.0.0.1:80\"}"
#define MINIMAL LISTENERS ", " NAMES ", " KEY_SERVERS ", " ORIGIN

static enum status load(struct options *out, const char *members, struct errmsg *err) {
  char path[] = "/tmp/deputy-options-XXXXXX";
  int fd = mkstemp(path);
  enum status st = STATUS_OK;
  assert_true(fd >= 0);
  assert_true(dprintf(fd, "{%s}", members) > 0);
  (void)close(fd);
  st = options_load(out, path, err);
  (void)unlink(path);
  return st;
}

static void minimal_file_gets_the_defaults(void **state) {
  (void)state;
  struct options options = {0};
  struct errmsg err = {0};
  if (load(&options, MINIMAL, &err) != STATUS_OK) {
    fail_msg("%s", err.text);
  }
  assert_true(options.listeners[0].is_deferred);
  assert_true(options.names[0].may_use_dc);
  assert_string_equal(options.names[0].chains[0].certificate, "/tmp/demo.pem");
  assert_int_equal(options.dc.lifetime_ms, 48 * 3600 * 1000);
  assert_int_equal(options.dc.margin_ms, 6 * 3600 * 1000);
  assert_int_equal(options.origin.proxy_protocol, PROXY_PROTOCOL_OFF);
  assert_int_equal(options.tls.min_version, TLS_OPTION_12);
  assert_int_equal(options.tls.max_version, TLS_OPTION_13);
  assert_int_equal(options.tls.alpn_mismatch, ALPN_REFUSE);
  assert_true(options.tickets.is_on);
  assert_int_equal(options.tickets.past_dc_ms, 0);
  assert_int_equal(options.limits.handshake_ms, 10000);
  assert_true(options.has_access_log);
  assert_false(options_has_issuers(&options));
  assert_null(options.admin.socket);
  options_cleanup(&options);
}

static void refuses(const char *members, const char *why) {
  struct options options = {0};
  struct errmsg err = {0};
  assert_int_equal(load(&options, members, &err), STATUS_CONFIG);
  if (strstr(err.text, why) == NULL) {
    fail_msg("\"%s\" does not say \"%s\"", err.text, why);
  }
  // Nothing is left behind.
  assert_null(options.listeners);
  assert_null(options.names);
}

static void options_that_do_not_fit_together(void **state) {
  (void)state;
  refuses(MINIMAL
          ", \"issuers\": {\"urls\": [\"http://localhost\"], \"tls\": {\"ca\": \"a\","
          " \"certificate\": \"b\", \"key\": \"c\"}}",
          "https://");
  refuses(MINIMAL ", \"tls\": {\"min_version\": \"1.3\", \"max_version\": \"1.2\"}", "min_version");
  refuses(MINIMAL ", \"delegated_credentials\": {\"lifetime\": \"12h\"}", "margin");
  refuses(MINIMAL ", \"delegated_credentials\": {\"retry_min\": \"1h\"}", "retry_max");
  refuses(MINIMAL ", \"tls\": {\"alpn\": [\"\"]}", "1 to 255 bytes");
  refuses(
      "\"listeners\": [{\"name\": \"a\", \"address\": \"127.0.0.1:1\"},"
      " {\"name\": \"a\", \"address\": \"127.0.0.1:2\"}], " NAMES ", " KEY_SERVERS ", " ORIGIN,
      "both called \"a\"");
}

#define POOL(name, address) \
  "{\"name\": \"" name "\", \"servers\": [{\"address\": \"" address "\"}]}"
#define BASE LISTENERS ", " NAMES ", " KEY_SERVERS

static void origins_have_defaults(void **state) {
  struct options options = {0};
  struct errmsg err = {0};
  size_t at = 9;
  (void)state;
  if (load(&options,
           BASE ", \"origins\": [" POOL("web", "app.test:80") ", " POOL("grpc",
                                                                        "unix:/run/grpc.sock") "]",
           &err) != STATUS_OK) {
    fail_msg("%s", err.text);
  }
  assert_int_equal(origin_options_num_pools(&options), 2);
  assert_int_equal(origin_options_default(&options), 0);
  assert_true(origin_options_find(&at, &options, "grpc"));
  assert_int_equal(at, 1);
  assert_false(origin_options_find(&at, &options, "origin"));
  assert_int_equal(options.origins[0].servers[0].weight, 1);
  assert_int_equal(options.origins[0].balance, BALANCE_ROUND_ROBIN);
  assert_int_equal(options.origins[0].check.interval_ms, 0);
  assert_int_equal(options.origins[0].max_failures, 3);
  options_cleanup(&options);
  // The short form is a pool, too, and the one of all who name none.
  if (load(&options, MINIMAL ", \"origins\": [" POOL("web", "[::1]:80") "]", &err) != STATUS_OK) {
    fail_msg("%s", err.text);
  }
  assert_int_equal(origin_options_num_pools(&options), 2);
  assert_int_equal(origin_options_default(&options), 1);
  assert_true(origin_options_find(&at, &options, "origin"));
  assert_int_equal(at, 1);
  options_cleanup(&options);
}

static void origins_that_do_not_fit_together(void **state) {
  (void)state;
  refuses(BASE, "there must be an origin");
  refuses(BASE ", \"origins\": [" POOL("a", "h:1") ", " POOL("a", "h:2") "]",
          "origins[1]: \"a\" is the name of origins[0], too");
  refuses(MINIMAL ", \"origins\": [" POOL("origin", "h:1") "]", "that of the option origin");
  refuses(BASE ", \"origins\": [" POOL("a", "nowhere") "]", "origins[0]: servers[0].address");
  refuses(BASE ", \"origins\": [" POOL("a", "127.0.0.1:0") "]", "no port to connect to");
  refuses(BASE ", \"origins\": [" POOL("a", "/run/a.sock") "]", "write unix:/run/a.sock");
  refuses(BASE ", \"origins\": [" POOL("a", "*:80") "]", "no address to connect to");
  refuses(BASE
          ", \"origins\": [{\"name\": \"a\", \"servers\": [{\"address\": \"h:1\", "
          "\"backup\": true}]}]",
          "origins[0]: all servers are a backup");
  refuses(BASE ", \"origins\": [" POOL("a", "unix:") "]", "UNIX socket");
  refuses(BASE ", \"origin\": {\"address\": \"127.0.0.1\"}", "origin.address");
  refuses(BASE
          ", \"origins\": [{\"name\": \"a\", \"servers\": [{\"address\": \"h:1\"},"
          " {\"address\": \"h:1\"}]}]",
          "are both \"h:1\"");
  refuses(BASE ", \"origins\": [{\"name\": \"a\", \"servers\": []}]", "servers");
  refuses(BASE
          ", \"origins\": [{\"name\": \"a\", \"servers\": [{\"address\": \"h:1\","
          " \"weight\": 0}]}]",
          "weight");
  refuses(BASE
          ", \"origins\": [{\"name\": \"a\", \"servers\": [{\"address\": \"h:1\"}],"
          " \"retry_min\": \"1m\"}]",
          "retry_min is above retry_max");
  refuses(BASE
          ", \"origins\": [{\"name\": \"a\", \"servers\": [{\"address\": \"h:1\"}],"
          " \"check\": {\"interval\": \"500ms\"}}]",
          "check.timeout is above check.interval");
  refuses(BASE
          ", \"origins\": [{\"name\": \"a\", \"servers\": [{\"address\": \"h:1\"}],"
          " \"tls\": {\"ca\": \"ca.pem\", \"key\": \"k.pem\"}}]",
          "go together");
  refuses(BASE
          ", \"origins\": [{\"name\": \"a\", \"servers\": [{\"address\": \"h:1\"},"
          " {\"address\": \"unix:/s\"}], \"tls\": {\"ca\": \"ca.pem\"}}]",
          "servers[1] is a UNIX socket");
  refuses(MINIMAL ", \"alpn_origins\": [{\"protocol\": \"h2\", \"origin\": \"x\"}]",
          "alpn_origins[0].origin: there is no pool \"x\" in origins");
  refuses(MINIMAL
          ", \"alpn_origins\": [{\"protocol\": \"h3\", \"origin\": \"origin\"}], "
          "\"tls\": {\"alpn\": [\"h2\"]}",
          "alpn_origins[0] is for \"h3\", which is in no alpn");
  refuses(MINIMAL
          ", \"alpn_origins\": [{\"protocol\": \"h2\", \"origin\": \"origin\"},"
          " {\"protocol\": \"h2\", \"origin\": \"origin\"}]",
          "are both for \"h2\"");
  refuses(MINIMAL ", \"store\": {\"path\": \"s\", \"origin\": \"x\"}", "store.origin: there is no");
  refuses(LISTENERS ", " KEY_SERVERS ", " ORIGIN
                    ", \"names\": [{\"name\": \"demo.test\","
                    " \"origin\": \"x\", \"chains\": [{\"label\": \"primary\","
                    " \"certificate\": \"demo.pem\"}]}]",
          "names[0].origin: there is no pool \"x\"");
}

static void options_that_are_none(void **state) {
  (void)state;
  refuses(MINIMAL ", \"worker\": 2", "did you mean \"workers\"");
  refuses(LISTENERS ", " NAMES ", " ORIGIN, "key_servers");
  refuses(LISTENERS ", \"names\": [], " KEY_SERVERS ", " ORIGIN, "names");
  refuses(MINIMAL ", \"delegated_credentials\": {\"lifetime\": \"7d\"}", "lifetime");
  refuses(MINIMAL ", \"limits\": {\"handshake\": \"0s\"}", "handshake");
  refuses(MINIMAL ", \"limits\": {\"idle\": 10}", "idle");
}

static void reference_lists_every_option(void **state) {
  (void)state;
  char *text = NULL;
  size_t len = 0;
  FILE *file = open_memstream(&text, &len);
  config_print_reference(file, proxy_options);
  (void)fclose(file);
  assert_non_null(strstr(text, "alpn_mismatch"));
  assert_non_null(strstr(text, "half_closed"));
  assert_non_null(strstr(text, "past_dc"));
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(minimal_file_gets_the_defaults),
      cmocka_unit_test(options_that_do_not_fit_together),
      cmocka_unit_test(origins_have_defaults),
      cmocka_unit_test(origins_that_do_not_fit_together),
      cmocka_unit_test(options_that_are_none),
      cmocka_unit_test(reference_lists_every_option),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
