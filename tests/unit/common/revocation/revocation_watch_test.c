// SPDX-License-Identifier: Apache-2.0
// The watch against lists from a server in a thread. Times of polls do not pass here: a
// leaf that is added has its list asked for soon, which is how the test has it asked again.
#include "common/revocation/revocation_watch.h"

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

#include "common/base/clock.h"
#include "tests/support/certs.h"
#include "tests/unit/common/revocation/crls.h"
#include "tests/unit/common/revocation/web.h"

#define GUARD_MS 30000
#define MAX_LEAVES 16u
#define FIRST_SERIAL 100

static EVP_PKEY *key;
static X509 *ca;
static struct bytes ca_der;
static int64_t now_s;
static struct loop *loop;
static struct http_client *http;
static struct jobs *jobs;
static struct revocation_watch *watch;
static struct timer guard;
static struct web web;
static struct bytes leaves[MAX_LEAVES];
static unsigned num_changes[MAX_LEAVES];
static struct revocation_change last_changes[MAX_LEAVES];
static struct revocation_point last_point;
static size_t added_by_callback;  // 0: none

static void free_bytes(struct bytes in) { OPENSSL_free((void *)(uintptr_t)in.data); }

static int set_up_all(void **state) {
  (void)state;
  now_s = clock_wall_s();
  key = test_key_new(KEY_KIND_P256);
  ca = test_cert_new(
      &(struct test_cert){.cn = "CA", .is_ca = true, .key_usage = "keyCertSign,cRLSign"}, key, NULL,
      NULL);
  ca_der = test_cert_der(ca);
  return 0;
}

static int tear_down_all(void **state) {
  (void)state;
  free_bytes(ca_der);
  X509_free(ca);
  EVP_PKEY_free(key);
  return 0;
}

static void on_guard(void *arg) {
  (void)arg;
  fail_msg("nothing came");
}

static void on_change(void *arg, uint64_t chain, const struct revocation_change *change) {
  (void)arg;
  assert_true(chain < MAX_LEAVES);
  num_changes[chain]++;
  last_changes[chain] = *change;
  if (added_by_callback != 0) {
    assert_int_equal(
        revocation_watch_add(watch, added_by_callback, leaves[added_by_callback], ca_der),
        STATUS_OK);
    revocation_watch_remove(watch, chain, leaves[chain], ca_der);
    added_by_callback = 0;
  }
}

static void on_point(void *arg, const struct revocation_point *point) {
  (void)arg;
  last_point = *point;
  loop_stop(loop);
}

static int set_up(void **state) {
  (void)state;
  web_start(&web);
  assert_int_equal(loop_new(&loop), STATUS_OK);
  assert_int_equal(http_client_new(&http, loop), STATUS_OK);
  assert_int_equal(jobs_new(&jobs, loop), STATUS_OK);
  assert_int_equal(timer_init(&guard, loop, on_guard, NULL), STATUS_OK);
  const struct revocation_watch_options options = {.loop = loop,
                                                   .http = http,
                                                   .jobs = jobs,
                                                   .max_len = 100000,
                                                   .poll_s = 3600,
                                                   .settle_s = -1,
                                                   .on_change = on_change,
                                                   .on_point = on_point};
  assert_int_equal(revocation_watch_new(&watch, &options), STATUS_OK);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  jobs_free(jobs);
  revocation_watch_free(watch);
  http_client_free(http);
  timer_cleanup(&guard);
  loop_free(loop);
  web_stop(&web);
  for (size_t i = 0; i < MAX_LEAVES; i++) {
    free_bytes(leaves[i]);
  }
  memset(leaves, 0, sizeof leaves);
  memset(num_changes, 0, sizeof num_changes);
  return 0;
}

static void make(size_t number, const char *url) {
  X509 *leaf = test_cert_new(
      &(struct test_cert){.cn = "leaf", .crl_url = url, .serial = FIRST_SERIAL + (long)number}, key,
      ca, key);
  leaves[number] = test_cert_der(leaf);
  X509_free(leaf);
}

static void add(size_t number, const char *url) {
  make(number, url);
  assert_int_equal(revocation_watch_add(watch, number, leaves[number], ca_der), STATUS_OK);
}

static void say(const char *path, const struct test_crl *spec, const char *headers) {
  struct bytes list = test_crl_new(spec, ca, key);
  web_put(&web, path, 200, headers, list);
  free_bytes(list);
}

static void wait_for_point(void) {
  timer_arm_ms(&guard, GUARD_MS);
  loop_run(loop);
  timer_cancel(&guard);
}

static enum revocation_status status_of(size_t number) {
  return revocation_watch_status(watch, leaves[number], ca_der);
}

static void asks_once_for_all_leaves_of_a_list(void **state) {
  (void)state;
  const char *url = web_url(&web, "/crl");
  say("/crl", &(struct test_crl){.serials = {FIRST_SERIAL + 2, 77}, .reason = 1},
      "ETag: \"a\"\r\n");
  for (size_t i = 0; i < 5; i++) {
    add(i, url);
  }
  assert_int_equal(status_of(2), REVOCATION_UNKNOWN);
  wait_for_point();
  assert_int_equal(web_num_asked(&web, "/crl"), 1);
  assert_int_equal(revocation_watch_num_points(watch), 1);
  assert_int_equal(last_point.num_leaves, 5);
  assert_int_equal(last_point.num_revoked, 1);
  assert_in_range(last_point.next_s - clock_wall_s(), 3600 / 10 * 9 - 2, 3600);
  for (size_t i = 0; i < 5; i++) {
    assert_int_equal(num_changes[i], i == 2 ? 1 : 0);
    assert_int_equal(status_of(i), i == 2 ? REVOCATION_REVOKED : REVOCATION_GOOD);
  }
  assert_int_equal(last_changes[2].status, REVOCATION_REVOKED);
  assert_int_equal(last_changes[2].reason, 1);
  assert_in_range(last_changes[2].revoked_s, now_s - 3 * 86400, now_s);
}

static void looks_a_new_leaf_up_in_the_whole_list(void **state) {
  (void)state;
  const char *url = web_url(&web, "/crl");
  struct web_page page;
  say("/crl", &(struct test_crl){.serials = {FIRST_SERIAL + 1}}, "ETag: \"a\"\r\n");
  add(0, url);
  wait_for_point();
  assert_int_equal(num_changes[1], 0);
  add(1, url);
  assert_int_equal(status_of(1), REVOCATION_UNKNOWN);
  wait_for_point();
  web_page(&web, "/crl", &page);
  assert_null(strstr(page.last_head, "If-None-Match"));
  assert_int_equal(num_changes[1], 1);
  // Taken off the list, as after a hold; the change is told once.
  say("/crl", &(struct test_crl){.this_update_s = now_s - 10}, "");
  add(2, url);
  wait_for_point();
  assert_int_equal(num_changes[1], 2);
  assert_int_equal(last_changes[1].status, REVOCATION_GOOD);
  assert_int_equal(num_changes[0], 0);
}

static void believes_no_list_that_is_older_or_wrong(void **state) {
  (void)state;
  const char *url = web_url(&web, "/crl");
  size_t next = 1;
  say("/crl", &(struct test_crl){.serials = {FIRST_SERIAL}, .this_update_s = now_s - 100}, "");
  add(0, url);
  wait_for_point();
  assert_int_equal(status_of(0), REVOCATION_REVOKED);

  say("/crl", &(struct test_crl){.this_update_s = now_s - 101}, "");
  add(next++, url);
  wait_for_point();
  assert_int_equal(last_point.fault, CRL_REPLAYED);
  say("/crl", &(struct test_crl){.is_signature_wrong = true}, "");
  add(next++, url);
  assert_int_equal(status_of(0), REVOCATION_REVOKED);
  assert_int_equal(num_changes[0], 1);
  // What failed is tried again within two minutes, or when a leaf comes.
  assert_in_range(last_point.next_s - clock_wall_s(), 28, 61);
}

static void names_what_went_wrong(void **state) {
  (void)state;
  static uint8_t long_one[100001];
  web_put(&web, "/long", 200, "", bytes_of(long_one, sizeof long_one));
  add(0, web_url(&web, "/long"));
  wait_for_point();
  assert_int_equal(last_point.fetch_fault, FETCH_TOO_LONG);
  web_put(&web, "/none", 200, "", (struct bytes){0});
  add(1, web_url(&web, "/none"));
  wait_for_point();
  assert_int_equal(last_point.fault, CRL_MALFORMED);
  say("/bad", &(struct test_crl){.is_signature_wrong = true}, "");
  add(2, web_url(&web, "/bad"));
  wait_for_point();
  assert_int_equal(last_point.fault, CRL_BAD_SIGNATURE);
  say("/old", &(struct test_crl){.this_update_s = now_s - 9000, .next_update_s = now_s - 5000}, "");
  add(3, web_url(&web, "/old"));
  wait_for_point();
  assert_int_equal(last_point.fault, CRL_EXPIRED);
  add(4, "http://127.0.0.1:1/crl");
  wait_for_point();
  assert_int_equal(last_point.fetch_fault, FETCH_UNREACHABLE);
  assert_int_equal(revocation_watch_num_points(watch), 5);
  for (size_t i = 0; i < 5; i++) {
    assert_int_equal(status_of(i), REVOCATION_UNKNOWN);
    assert_int_equal(num_changes[i], 0);
    revocation_watch_remove(watch, i, leaves[i], ca_der);
  }
  assert_int_equal(revocation_watch_num_points(watch), 0);
}

static void asks_the_other_place_when_one_fails(void **state) {
  (void)state;
  const struct test_cert spec = {.cn = "leaf",
                                 .crl_url_before = web_url(&web, "/gone"),
                                 .crl_url = web_url(&web, "/crl"),
                                 .serial = FIRST_SERIAL};
  X509 *leaf = test_cert_new(&spec, key, ca, key);
  leaves[0] = test_cert_der(leaf);
  X509_free(leaf);
  web_put(&web, "/gone", 404, "", (struct bytes){0});
  say("/crl", &(struct test_crl){.serials = {FIRST_SERIAL}}, "");
  assert_int_equal(revocation_watch_add(watch, 0, leaves[0], ca_der), STATUS_OK);
  wait_for_point();
  assert_int_equal(last_point.fetch_fault, FETCH_HTTP_STATUS);
  wait_for_point();
  assert_int_equal(last_point.fetch_fault, FETCH_NO_FAULT);
  assert_int_equal(status_of(0), REVOCATION_REVOKED);
  assert_true(last_point.next_s > clock_wall_s() + 3000);
}

static void pauses_when_every_place_has_failed(void **state) {
  (void)state;
  const struct test_cert spec = {.cn = "leaf",
                                 .crl_url_before = web_url(&web, "/gone"),
                                 .crl_url = web_url(&web, "/too"),
                                 .serial = FIRST_SERIAL};
  X509 *leaf = test_cert_new(&spec, key, ca, key);
  leaves[0] = test_cert_der(leaf);
  X509_free(leaf);
  web_put(&web, "/gone", 404, "", (struct bytes){0});
  web_put(&web, "/too", 404, "", (struct bytes){0});
  assert_int_equal(revocation_watch_add(watch, 0, leaves[0], ca_der), STATUS_OK);
  wait_for_point();
  wait_for_point();
  assert_in_range(last_point.next_s - clock_wall_s(), 28, 61);
  assert_int_equal(web_num_asked(&web, "/gone"), 1);
  assert_int_equal(web_num_asked(&web, "/too"), 1);
}

static void believes_unchanged_only_while_the_list_holds(void **state) {
  (void)state;
  struct web_page page;
  revocation_watch_free(watch);
  const struct revocation_watch_options options = {.loop = loop,
                                                   .http = http,
                                                   .jobs = jobs,
                                                   .poll_s = 1,
                                                   .settle_s = -1,
                                                   .on_change = on_change,
                                                   .on_point = on_point};
  assert_int_equal(revocation_watch_new(&watch, &options), STATUS_OK);
  say("/crl", &(struct test_crl){.serials = {FIRST_SERIAL}},
      "ETag: \"a\"\r\nLast-Modified: Sat, 21 Nov 2026 00:00:00 GMT\r\n");
  add(0, web_url(&web, "/crl"));
  add(1, web_url(&web, "/crl"));
  wait_for_point();
  web_put(&web, "/crl", 304, "", (struct bytes){0});
  do {
    wait_for_point();  // a request may have been on its way already
  } while (!last_point.is_unchanged);
  web_page(&web, "/crl", &page);
  assert_non_null(strstr(page.last_head, "If-None-Match: \"a\""));
  assert_non_null(strstr(page.last_head, "If-Modified-Since: Sat, 21 Nov 2026 00:00:00 GMT"));
  assert_int_equal(last_point.fault, CRL_NO_FAULT);
  assert_int_equal(status_of(0), REVOCATION_REVOKED);
  assert_int_equal(status_of(1), REVOCATION_GOOD);
  assert_int_equal(num_changes[0], 1);

  clock_override_wall_s(now_s + 2 * 86400);  // its end has passed
  assert_int_equal(status_of(0), REVOCATION_REVOKED);
  assert_int_equal(status_of(1), REVOCATION_UNKNOWN);
  wait_for_point();
  assert_int_equal(last_point.fault, CRL_EXPIRED);
  clock_override_wall_s(now_s + 2 * 86400 + 10);  // stands still otherwise
  wait_for_point();
  clock_override_wall_s(0);
  web_page(&web, "/crl", &page);
  assert_null(strstr(page.last_head, "If-None-Match"));
  assert_int_equal(last_point.fetch_fault, FETCH_HTTP_STATUS);  // 304 to no condition
  assert_int_equal(num_changes[0], 1);
}

static void forgets_leaves_and_lists(void **state) {
  (void)state;
  const char *url = web_url(&web, "/crl");
  say("/crl", &(struct test_crl){.serials = {FIRST_SERIAL, FIRST_SERIAL + 1}}, "");
  add(0, url);
  add(1, url);
  revocation_watch_remove(watch, 9, leaves[0], ca_der);  // not by that word
  revocation_watch_remove(watch, 0, leaves[0], ca_der);
  wait_for_point();
  assert_int_equal(num_changes[0], 0);
  assert_int_equal(num_changes[1], 1);
  assert_int_equal(last_point.num_leaves, 1);
  assert_int_equal(status_of(0), REVOCATION_UNKNOWN);
  revocation_watch_remove(watch, 1, leaves[1], ca_der);
  assert_int_equal(revocation_watch_num_points(watch), 0);
  // A leaf without a list costs nothing.
  make(3, NULL);
  assert_int_equal(revocation_watch_add(watch, 3, leaves[3], ca_der), STATUS_NOT_FOUND);
  assert_int_equal(revocation_watch_num_points(watch), 0);
}

static void callbacks_may_add_and_remove(void **state) {
  (void)state;
  const char *url = web_url(&web, "/crl");
  say("/crl", &(struct test_crl){.serials = {FIRST_SERIAL, FIRST_SERIAL + 5}}, "");
  make(5, url);
  added_by_callback = 5;
  add(0, url);
  wait_for_point();
  assert_int_equal(num_changes[0], 1);
  assert_int_equal(last_point.num_leaves, 1);  // the one came, the other went
  wait_for_point();
  assert_int_equal(num_changes[5], 1);
  assert_int_equal(num_changes[0], 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(asks_once_for_all_leaves_of_a_list, set_up, tear_down),
      cmocka_unit_test_setup_teardown(looks_a_new_leaf_up_in_the_whole_list, set_up, tear_down),
      cmocka_unit_test_setup_teardown(believes_no_list_that_is_older_or_wrong, set_up, tear_down),
      cmocka_unit_test_setup_teardown(names_what_went_wrong, set_up, tear_down),
      cmocka_unit_test_setup_teardown(asks_the_other_place_when_one_fails, set_up, tear_down),
      cmocka_unit_test_setup_teardown(pauses_when_every_place_has_failed, set_up, tear_down),
      cmocka_unit_test_setup_teardown(believes_unchanged_only_while_the_list_holds, set_up,
                                      tear_down),
      cmocka_unit_test_setup_teardown(forgets_leaves_and_lists, set_up, tear_down),
      cmocka_unit_test_setup_teardown(callbacks_may_add_and_remove, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, set_up_all, tear_down_all);
}
