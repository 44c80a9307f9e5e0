// SPDX-License-Identifier: Apache-2.0
// The scheduler against a responder in a thread: what is handed over, when it is asked for
// again, and how much is asked at a time.
#include "common/revocation/staple_fetch.h"

#include <malloc.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "tests/support/certs.h"
#include "tests/support/ocsp.h"
#include "tests/unit/common/revocation/web.h"

#define GUARD_MS 20000
#define MAX_CHAINS 16u
#define HOUR_S ((int64_t)3600)
#define DAY_S (24 * HOUR_S)
#define OCSP_TYPE "Content-Type: application/ocsp-response\r\n"

static EVP_PKEY *key;
static X509 *ca;
static struct bytes ca_der;
static int64_t now_s;

// A chain, as a store would have it, and what came of it.
struct chain {
  X509 *leaf;
  struct bytes der;
  int64_t this_update_s;
  int64_t next_update_s;
  char etag[64];
  uint32_t item;
  unsigned num_done;
  enum staple_outcome outcome;
  enum ocsp_fault fault;
  enum fetch_fault fetch_fault;
  int64_t asked_again_s;
  bool is_post;
  bool is_removed_when_done;
};

static struct chain chains[MAX_CHAINS];
static size_t num_chains;
static unsigned num_wanted;
static unsigned num_loads;
static struct loop *loop;
static struct http_client *http;
static struct jobs *jobs;
static struct staple_fetch *fetch;
static struct timer guard;
static struct web web;

static int set_up_all(void **state) {
  (void)state;
  now_s = clock_wall_s();
  key = test_key_new(KEY_KIND_P256);
  ca = test_cert_new(&(struct test_cert){.cn = "CA", .is_ca = true}, key, NULL, NULL);
  ca_der = test_cert_der(ca);
  return 0;
}

static void free_bytes(struct bytes in) { OPENSSL_free((void *)(uintptr_t)in.data); }

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

static enum status load(void *arg, uint64_t chain, struct staple_work *out) {
  (void)arg;
  num_loads++;
  if (chain >= num_chains) {
    return STATUS_NOT_FOUND;
  }
  *out = (struct staple_work){.leaf = chains[chain].der,
                              .issuer = ca_der,
                              .this_update_s = chains[chain].this_update_s,
                              .next_update_s = chains[chain].next_update_s,
                              .etag = chains[chain].etag};
  return STATUS_OK;
}

static void done(void *arg, uint64_t number, const struct staple_result *result) {
  (void)arg;
  if (number < num_chains) {
    struct chain *chain = &chains[number];
    chain->num_done++;
    chain->outcome = result->outcome;
    chain->asked_again_s = result->next_s;
    if (result->ask != NULL) {
      chain->fault = result->ask->fault;
      chain->fetch_fault = result->ask->fetch_fault;
      chain->is_post = result->ask->is_post;
    }
    if (result->outcome == STAPLE_NEW && result->ask != NULL) {
      chain->this_update_s = result->ask->answer.this_update_s;
      chain->next_update_s = result->ask->answer.next_update_s;
      (void)snprintf(chain->etag, sizeof chain->etag, "%s",
                     result->ask->etag == NULL ? "" : result->ask->etag);
    }
    if (chain->is_removed_when_done) {
      staple_fetch_remove(fetch, chain->item);
    }
  }
  if (--num_wanted == 0) {
    loop_stop(loop);
  }
}

static int set_up(void **state) {
  (void)state;
  web_start(&web);
  assert_int_equal(loop_new(&loop), STATUS_OK);
  assert_int_equal(http_client_new(&http, loop), STATUS_OK);
  assert_int_equal(jobs_new(&jobs, loop), STATUS_OK);
  assert_int_equal(timer_init(&guard, loop, on_guard, NULL), STATUS_OK);
  const struct staple_fetch_options options = {.loop = loop,
                                               .http = http,
                                               .jobs = jobs,
                                               .max_open = 6,
                                               .max_open_per_responder = 2,
                                               .limit_ms = GUARD_MS,
                                               .load = load,
                                               .done = done};
  assert_int_equal(staple_fetch_new(&fetch, &options), STATUS_OK);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  jobs_free(jobs);
  staple_fetch_free(fetch);
  http_client_free(http);
  timer_cleanup(&guard);
  loop_free(loop);
  web_stop(&web);
  for (size_t i = 0; i < num_chains; i++) {
    X509_free(chains[i].leaf);
    free_bytes(chains[i].der);
  }
  memset(chains, 0, sizeof chains);
  num_chains = 0;
  num_wanted = 0;
  num_loads = 0;
  return 0;
}

// add makes a leaf with this responder; it is due at once.
static struct chain *add(const char *url) {
  struct chain *chain = &chains[num_chains];
  chain->leaf = test_cert_new(&(struct test_cert){.cn = "leaf", .ocsp_url = url}, key, ca, key);
  chain->der = test_cert_der(chain->leaf);
  assert_int_equal(staple_fetch_add(&chain->item, fetch, num_chains++, 0), STATUS_OK);
  return chain;
}

static void say(const struct chain *chain, const char *path, const struct test_ocsp *spec,
                const char *headers) {
  struct bytes response = test_ocsp_new(spec, chain->leaf, ca, NULL, key);
  web_put(&web, path, 200, headers, response);
  free_bytes(response);
}

static void wait_for(unsigned num) {
  num_wanted = num;
  timer_arm_ms(&guard, GUARD_MS);
  loop_run(loop);
  timer_cancel(&guard);
}

static void again(const struct chain *chain) {
  staple_fetch_hurry(fetch, chain->item);
  wait_for(1);
}

static void hands_over_a_good_one_and_comes_back_at_half_life(void **state) {
  (void)state;
  struct chain *chain = add(web_url(&web, "/o"));
  const struct test_ocsp spec = {.this_update_s = now_s - HOUR_S,
                                 .next_update_s = now_s + 7 * DAY_S - HOUR_S};
  say(chain, "/o", &spec, OCSP_TYPE);
  wait_for(1);
  assert_int_equal(chain->outcome, STAPLE_NEW);
  assert_false(chain->is_post);
  assert_int_equal(chain->this_update_s, spec.this_update_s);
  const int64_t age_s = chain->asked_again_s - spec.this_update_s;
  assert_in_range(age_s, 7 * DAY_S / 20 * 9, 7 * DAY_S / 20 * 11);
  // The same again is the same.
  again(chain);
  assert_int_equal(chain->outcome, STAPLE_SAME);
}

static void asks_for_what_has_changed_only(void **state) {
  (void)state;
  struct chain *chain = add(web_url(&web, "/o"));
  struct web_page page;
  say(chain, "/o", &(struct test_ocsp){0}, OCSP_TYPE "ETag: \"one\"\r\n");
  wait_for(1);
  assert_int_equal(chain->outcome, STAPLE_NEW);
  web_put(&web, "/o", 304, "ETag: \"one\"\r\n", (struct bytes){0});
  again(chain);
  assert_int_equal(chain->outcome, STAPLE_SAME);
  web_page(&web, "/o", &page);
  assert_non_null(strstr(page.last_head, "If-None-Match: \"one\""));
  assert_true(chain->asked_again_s > now_s + DAY_S);
  // Without one of ours that is still good, "unchanged" is not asked for.
  chain->next_update_s = now_s - 1;
  again(chain);
  web_page(&web, "/o", &page);
  assert_null(strstr(page.last_head, "If-None-Match"));
  assert_int_equal(chain->outcome, STAPLE_FAILED);
}

static void never_puts_a_worse_one_in_its_place(void **state) {
  (void)state;
  struct chain *chain = add(web_url(&web, "/o"));
  say(chain, "/o", &(struct test_ocsp){.this_update_s = now_s - 100}, OCSP_TYPE);
  wait_for(1);
  assert_int_equal(chain->outcome, STAPLE_NEW);

  say(chain, "/o", &(struct test_ocsp){.this_update_s = now_s - 101}, OCSP_TYPE);
  again(chain);
  assert_int_equal(chain->outcome, STAPLE_FAILED);
  assert_int_equal(chain->fault, OCSP_REPLAYED);
  assert_true(chain->is_post);  // what a cache gave was not taken for the last word
  say(chain, "/o", &(struct test_ocsp){.is_signature_wrong = true}, OCSP_TYPE);
  again(chain);
  assert_int_equal(chain->fault, OCSP_BAD_SIGNATURE);
  web_put(&web, "/o", 500, "", bytes_text("no"));
  again(chain);
  assert_int_equal(chain->fetch_fault, FETCH_HTTP_STATUS);
  say(chain, "/o", &(struct test_ocsp){.status = TEST_OCSP_UNKNOWN, .this_update_s = now_s - 50},
      OCSP_TYPE);
  again(chain);
  assert_int_equal(chain->outcome, STAPLE_UNKNOWN);
  say(chain, "/o", &(struct test_ocsp){.has_no_next_update = true, .this_update_s = now_s - 50},
      OCSP_TYPE);
  again(chain);
  assert_int_equal(chain->outcome, STAPLE_UNFIT);
  say(chain, "/o", &(struct test_ocsp){.status = TEST_OCSP_REVOKED, .this_update_s = now_s - 50},
      OCSP_TYPE);
  again(chain);
  assert_int_equal(chain->outcome, STAPLE_REVOKED);
  assert_int_equal(chain->this_update_s, now_s - 100);
}

static void backs_off_by_chance_and_obeys_retry_after(void **state) {
  (void)state;
  struct chain *chain = add(web_url(&web, "/o"));
  web_put(&web, "/o", 503, "", (struct bytes){0});
  int64_t least_s = 30;
  wait_for(1);
  for (unsigned i = 0; i < 8; i++) {
    const int64_t delay_s = chain->asked_again_s - clock_wall_s();
    assert_in_range(delay_s, least_s - 2, least_s * 2 + 1);
    least_s = least_s * 2 > HOUR_S / 2 ? HOUR_S / 2 : least_s * 2;
    again(chain);
  }
  web_put(&web, "/o", 503, "Retry-After: 7200\r\n", (struct bytes){0});
  again(chain);
  assert_in_range(chain->asked_again_s - clock_wall_s(), 7198, 7201);
  // Near the end of the staple it is tried sooner.
  web_put(&web, "/o", 503, "", (struct bytes){0});
  chain->next_update_s = clock_wall_s() + 400;
  again(chain);
  assert_in_range(chain->asked_again_s - clock_wall_s(), 28, 51);
}

static void asks_a_responder_few_things_at_a_time(void **state) {
  (void)state;
  struct staple_fetch_stats stats;
  for (unsigned i = 0; i < 8; i++) {
    (void)add(web_url(&web, "/o"));
  }
  // Another one is not held up by it: the same machine, by another name.
  char url[64];
  (void)snprintf(url, sizeof url, "http://localhost:%u/p", (unsigned)web.port);
  struct chain *other = add(url);
  say(other, "/p", &(struct test_ocsp){0}, OCSP_TYPE);
  web_put(&web, "/o", 404, "", (struct bytes){0});
  web_hold(&web, true);
  timer_arm_ms(&guard, GUARD_MS);
  struct timer look;
  assert_int_equal(timer_init(&look, loop, (void (*)(void *))loop_stop, loop), STATUS_OK);
  do {
    timer_arm_ms(&look, 5);
    loop_run(loop);
  } while (web_num_held(&web) < 3);
  timer_cleanup(&look);
  staple_fetch_read_stats(fetch, &stats);
  assert_int_equal(stats.num_open, 3);
  assert_int_equal(stats.num_waiting, 6);
  assert_int_equal(stats.num_responders, 2);
  // One that waits is removed, and one that is being asked about.
  staple_fetch_remove(fetch, chains[7].item);
  staple_fetch_remove(fetch, chains[0].item);
  web_hold(&web, false);
  wait_for(7);
  assert_int_equal(other->outcome, STAPLE_NEW);
  assert_int_equal(chains[7].num_done, 0);
  assert_int_equal(chains[0].num_done, 0);
  assert_true(web.most_held <= 4);  // one that was removed may still be there
  staple_fetch_read_stats(fetch, &stats);
  assert_int_equal(stats.num_chains, 7);
  assert_int_equal(stats.num_open + stats.num_waiting, 0);
}

// A check that takes its time: others stand behind it.
static atomic_bool may_end;
static void take_time(void *arg) {
  (void)arg;
  while (!atomic_load(&may_end)) {
    (void)usleep(1000);
  }
}
static void took_time(void *arg) { (void)arg; }

static void stop_loop(void *arg) {
  (void)arg;
  loop_stop(loop);
}

// go_on_until runs the loop until the page was asked for, and for a moment more.
static void go_on_until(const char *path, unsigned num) {
  struct timer look;
  assert_int_equal(timer_init(&look, loop, stop_loop, NULL), STATUS_OK);
  for (int rest = 10; rest > 0; rest -= web_num_asked(&web, path) >= num ? 1 : 0) {
    timer_arm_ms(&look, 5);
    loop_run(loop);
  }
  timer_cleanup(&look);
}

static void may_be_removed_while_its_answer_is_checked(void **state) {
  (void)state;
  struct job slow = {.work = take_time, .done = took_time};
  struct staple_fetch_stats stats;
  atomic_store(&may_end, false);
  jobs_start(jobs, &slow);
  struct chain *gone = add(web_url(&web, "/a"));
  struct chain *stays = add(web_url(&web, "/b"));
  say(gone, "/a", &(struct test_ocsp){0}, OCSP_TYPE);
  say(stays, "/b", &(struct test_ocsp){0}, OCSP_TYPE "ETag: \"one\"\r\n");
  go_on_until("/a", 1);
  go_on_until("/b", 1);
  assert_int_equal(stays->num_done, 0);  // nothing is checked on the loop
  staple_fetch_remove(fetch, gone->item);
  atomic_store(&may_end, true);
  wait_for(1);
  assert_int_equal(stays->outcome, STAPLE_NEW);
  assert_string_equal(stays->etag, "\"one\"");  // though what came with it was let go
  assert_int_equal(gone->num_done, 0);
  staple_fetch_read_stats(fetch, &stats);
  assert_int_equal(stats.num_chains, 1);
  assert_int_equal(stats.num_open, 0);

  // And all may end while one is.
  struct job last = {.work = take_time, .done = took_time};
  atomic_store(&may_end, false);
  jobs_start(jobs, &last);
  staple_fetch_hurry(fetch, stays->item);
  go_on_until("/b", 2);
  atomic_store(&may_end, true);
  jobs_free(jobs);
  jobs = NULL;
}

static void gives_a_slow_responder_up(void **state) {
  (void)state;
  staple_fetch_free(fetch);
  const struct staple_fetch_options options = {
      .loop = loop, .http = http, .limit_ms = 100, .load = load, .done = done};
  assert_int_equal(staple_fetch_new(&fetch, &options), STATUS_OK);
  web_hold(&web, true);
  struct chain *chain = add(web_url(&web, "/o"));
  web_put(&web, "/o", 200, "", (struct bytes){0});
  wait_for(1);
  assert_int_equal(chain->outcome, STAPLE_FAILED);
  assert_int_equal(chain->fetch_fault, FETCH_TIMEOUT);
  web_hold(&web, false);
}

static void leaves_a_dead_responder_alone(void **state) {
  (void)state;
  struct staple_fetch_stats stats;
  for (unsigned i = 0; i < 8; i++) {
    (void)add("http://127.0.0.1:1/");  // nobody is there
  }
  wait_for(3);
  staple_fetch_read_stats(fetch, &stats);
  assert_true(stats.num_asked >= 3 && stats.num_asked <= 4);
  assert_int_equal(stats.num_fetch_faults[FETCH_UNREACHABLE], stats.num_asked - stats.num_open);
  assert_int_equal(stats.num_responders_closed, 1);
  // The others wait; one that lives is served at once.
  struct chain *alive = add(web_url(&web, "/o"));
  say(alive, "/o", &(struct test_ocsp){0}, OCSP_TYPE);
  for (unsigned i = 0; alive->num_done == 0 && i < 8; i++) {
    wait_for(1);
  }
  assert_int_equal(alive->outcome, STAPLE_NEW);
  staple_fetch_read_stats(fetch, &stats);
  assert_true(stats.num_asked <= 5);
  assert_int_equal(stats.num_waiting, 8 - (stats.num_asked - 1));
}

static void lets_go_of_chains_with_nobody_to_ask(void **state) {
  (void)state;
  struct staple_fetch_stats stats;
  uint32_t item = 0;
  struct chain *chain = add(NULL);
  wait_for(1);
  assert_int_equal(chain->outcome, STAPLE_NO_SOURCE);
  assert_int_equal(chain->asked_again_s, 0);
  staple_fetch_remove(fetch, chain->item);                              // nothing happens
  assert_int_equal(staple_fetch_add(&item, fetch, 999, 0), STATUS_OK);  // load knows no such
  wait_for(1);
  // One that is removed by its own callback.
  chain = add(web_url(&web, "/o"));
  chain->is_removed_when_done = true;
  say(chain, "/o", &(struct test_ocsp){0}, OCSP_TYPE);
  wait_for(1);
  assert_int_equal(chain->outcome, STAPLE_NEW);
  staple_fetch_read_stats(fetch, &stats);
  assert_int_equal(stats.num_chains, 0);
}

static void holds_a_million_chains_in_little_memory(void **state) {
  (void)state;
  const size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
  const size_t num = 1000000;
  struct staple_fetch_stats stats;
  for (size_t i = 0; i < num; i++) {
    uint32_t item = 0;
    assert_int_equal(
        staple_fetch_add(&item, fetch, 1000 + i, now_s + DAY_S + (int64_t)(i * 7919 % 300000)),
        STATUS_OK);
  }
  const size_t after = mallinfo2().uordblks + mallinfo2().hblkhd;
  staple_fetch_read_stats(fetch, &stats);
  assert_int_equal(stats.num_chains, num);
  assert_int_equal(num_loads, 0);  // none is due
  if (getenv("DEPUTY_SANITIZE") == NULL || getenv("DEPUTY_SANITIZE")[0] == '\0') {
    assert_true(after - before < num * 43);  // 28 bytes, and half as much for growing
  }
}

static void the_half_life_of_seconds_is_seconds(void **state) {
  (void)state;
  for (int64_t life_s = 1; life_s <= 40; life_s++) {
    const int64_t due_s = staple_due_s(now_s, now_s + life_s, 0, now_s);
    assert_in_range(due_s - now_s, life_s * 9 / 20, life_s * 11 / 20);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_half_life_of_seconds_is_seconds),
      cmocka_unit_test_setup_teardown(hands_over_a_good_one_and_comes_back_at_half_life, set_up,
                                      tear_down),
      cmocka_unit_test_setup_teardown(asks_for_what_has_changed_only, set_up, tear_down),
      cmocka_unit_test_setup_teardown(never_puts_a_worse_one_in_its_place, set_up, tear_down),
      cmocka_unit_test_setup_teardown(backs_off_by_chance_and_obeys_retry_after, set_up, tear_down),
      cmocka_unit_test_setup_teardown(asks_a_responder_few_things_at_a_time, set_up, tear_down),
      cmocka_unit_test_setup_teardown(may_be_removed_while_its_answer_is_checked, set_up,
                                      tear_down),
      cmocka_unit_test_setup_teardown(gives_a_slow_responder_up, set_up, tear_down),
      cmocka_unit_test_setup_teardown(leaves_a_dead_responder_alone, set_up, tear_down),
      cmocka_unit_test_setup_teardown(lets_go_of_chains_with_nobody_to_ask, set_up, tear_down),
      cmocka_unit_test_setup_teardown(holds_a_million_chains_in_little_memory, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, set_up_all, tear_down_all);
}
