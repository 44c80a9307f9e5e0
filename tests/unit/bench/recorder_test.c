// SPDX-License-Identifier: Apache-2.0
#include "bench/recorder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/unit/common/base/scratch.h"

static struct recorder *r;

static int make(void **state) {
  (void)scratch_make(state);
  return recorder_new(&r, scratch_path("raw"), NULL) == STATUS_OK ? 0 : -1;
}

static int drop(void **state) {
  recorder_free(r);
  return scratch_remove(state);
}

// A handshake that was due at `due_us`, began 100 us later and took 1 ms.
static struct sample handshake(int64_t due_us) {
  const int64_t due_ns = r->zero_ns + due_us * 1000;
  return (struct sample){.number = 1,
                         .scheduled_ns = due_ns,
                         .start_ns = due_ns + 100000,
                         .connected_ns = due_ns + 300000,
                         .handshake_ns = due_ns + 1100000,
                         .end_ns = due_ns + 1200000,
                         .has_dc = true,
                         .issuer = "CA one",
                         .suite = "aes128"};
}

static json_int_t number(const json_t *object, const char *a, const char *b) {
  const json_t *inner = b == NULL ? object : json_object_get(object, a);
  const json_t *value = json_object_get(inner, b == NULL ? a : b);
  assert_non_null(value);
  return json_is_real(value) ? (json_int_t)json_real_value(value) : json_integer_value(value);
}

static void counts_latency_from_the_scheduled_start(void **state) {
  (void)state;
  const struct sample s = handshake(5000);
  recorder_add(r, &s);
  assert_int_equal(r->latencies[LATENCY_HANDSHAKE].max, 1100000);
  assert_int_equal(r->latencies[LATENCY_SERVICE].max, 1000000);
  assert_int_equal(r->latencies[LATENCY_CONNECT].max, 200000);
  assert_int_equal(r->latencies[LATENCY_FIRST_BYTE].num, 0);
}

static void tells_failures_by_reason_and_keeps_them_out_of_latencies(void **state) {
  (void)state;
  struct sample s = handshake(0);
  recorder_start_measuring(r);
  recorder_add(r, &s);
  s.failure = "alert_40";
  recorder_add(r, &s);
  recorder_add(r, &s);
  s.failure = "refused";
  recorder_add(r, &s);
  s.failure = FAILURE_ABANDONED;
  recorder_add(r, &s);
  s.failure = NULL;
  s.is_warmup = true;
  recorder_add(r, &s);
  recorder_stop_measuring(r);
  json_t *summary = json_object();
  recorder_summary(r, "handshake", summary);
  assert_int_equal(number(summary, "counts", "ok"), 1);
  assert_int_equal(number(summary, "counts", "failed"), 3);
  assert_int_equal(number(summary, "counts", "abandoned"), 1);
  assert_int_equal(number(summary, "counts", "warmup"), 1);
  assert_int_equal(number(summary, "counts", "dc"), 1);
  assert_int_equal(number(summary, "failures", "alert_40"), 2);
  assert_int_equal(number(summary, "failures", "refused"), 1);
  assert_int_equal(number(summary, "issuers", "CA one"), 1);
  assert_int_equal(r->latencies[LATENCY_HANDSHAKE].num, 1);
  json_decref(summary);
}

static void writes_a_line_of_json_for_the_run_and_each_sample(void **state) {
  (void)state;
  struct sample s = handshake(2000);
  json_t *about = json_pack("{s:s}", "label", "x");
  recorder_write_run(r, about);
  json_decref(about);
  recorder_add(r, &s);
  s = (struct sample){.number = 2, .scheduled_ns = r->zero_ns + 7000, .failure = "timeout_connect"};
  recorder_add(r, &s);
  assert_int_equal(recorder_close(r, NULL), STATUS_OK);
  char *text = scratch_read(scratch_path("raw"));
  char *second = strchr(text, '\n') + 1;
  char *third = strchr(second, '\n') + 1;
  json_t *run = json_loadb(text, (size_t)(second - text), 0, NULL);
  json_t *good = json_loadb(second, (size_t)(third - second), 0, NULL);
  json_t *bad = json_loads(third, 0, NULL);
  assert_non_null(run);
  assert_non_null(good);
  assert_non_null(bad);
  assert_int_equal(number(run, "zero_monotonic_us", NULL), r->zero_ns / 1000);
  assert_int_equal(number(good, "scheduled_us", NULL), 2000);
  assert_int_equal(number(good, "start_us", NULL), 2100);
  assert_int_equal(number(good, "handshake_us", NULL), 3100);
  assert_string_equal(json_string_value(json_object_get(good, "issuer")), "CA one");
  assert_string_equal(json_string_value(json_object_get(good, "result")), "ok");
  assert_true(json_is_true(json_object_get(good, "dc")));
  assert_string_equal(json_string_value(json_object_get(bad, "result")), "timeout_connect");
  assert_null(json_object_get(bad, "handshake_us"));
  json_decref(run);
  json_decref(good);
  json_decref(bad);
  free(text);
}

static void a_flood_of_reasons_ends_in_other(void **state) {
  (void)state;
  char word[32];
  for (int i = 0; i < 2 * (int)RECORDER_MAX_WORDS; i++) {
    (void)snprintf(word, sizeof(word), "errno_%d", i);
    word_counts_add(&r->failures, word, 1);
  }
  assert_int_equal(r->failures.num, RECORDER_MAX_WORDS);
  json_t *words = recorder_words_json(&r->failures);
  assert_int_equal(number(words, "other", NULL), RECORDER_MAX_WORDS + 1);
  json_decref(words);
}

static void burn_ns(int64_t ns) {
  struct timespec t;
  (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  const int64_t end = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec + ns;
  do {
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  } while ((int64_t)t.tv_sec * 1000000000 + t.tv_nsec < end);
}

static void counts_the_cpu_time_of_a_process(void **state) {
  (void)state;
  char pid[32];
  (void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
  assert_int_equal(proc_cpu_parse(&r->server, pid, NULL), STATUS_OK);
  recorder_start_measuring(r);
  burn_ns(100000000);
  recorder_stop_measuring(r);
  assert_true(r->server_cpu_ns >= 80000000 && r->server_cpu_ns < 300000000);
  assert_true(r->cpu_user_us + r->cpu_system_us >= 80000);
}

static void refuses_what_is_no_process(void **state) {
  (void)state;
  assert_int_equal(proc_cpu_parse(&r->server, "", NULL), STATUS_CONFIG);
  assert_int_equal(proc_cpu_parse(&r->server, "1,", NULL), STATUS_CONFIG);
  assert_int_equal(proc_cpu_parse(&r->server, "1;2", NULL), STATUS_CONFIG);
  assert_int_equal(proc_cpu_parse(&r->server, "-1", NULL), STATUS_CONFIG);
  assert_int_equal(proc_cpu_parse(&r->server, "2147483000", NULL), STATUS_CONFIG);
}

// A server that ended during the run leaves no figure, rather than a wrong one.
static void a_server_that_went_away_has_no_cpu_time(void **state) {
  (void)state;
  json_t *summary = json_object();
  r->server.num = 1;
  r->server_cpu_ns = -5;
  recorder_summary(r, "handshake", summary);
  assert_true(json_is_null(json_object_get(summary, "server_cpu")));
  json_decref(summary);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(counts_latency_from_the_scheduled_start, make, drop),
      cmocka_unit_test_setup_teardown(tells_failures_by_reason_and_keeps_them_out_of_latencies,
                                      make, drop),
      cmocka_unit_test_setup_teardown(writes_a_line_of_json_for_the_run_and_each_sample, make,
                                      drop),
      cmocka_unit_test_setup_teardown(a_flood_of_reasons_ends_in_other, make, drop),
      cmocka_unit_test_setup_teardown(counts_the_cpu_time_of_a_process, make, drop),
      cmocka_unit_test_setup_teardown(refuses_what_is_no_process, make, drop),
      cmocka_unit_test_setup_teardown(a_server_that_went_away_has_no_cpu_time, make, drop),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
