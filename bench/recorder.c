// SPDX-License-Identifier: Apache-2.0
#include "bench/recorder.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/jsonline.h"

#define RAW_BUFFER_LEN (1U << 20)

int64_t recorder_now_ns(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// --- words -----------------------------------------------------------------------

void word_counts_add(struct word_counts *counts, const char *word, uint64_t num) {
  for (size_t i = 0; i < counts->num; i++) {
    if (strcmp(counts->words[i].word, word) == 0) {
      counts->words[i].num += num;
      return;
    }
  }
  if (counts->num == RECORDER_MAX_WORDS - 1) {
    word = "other";
  } else if (counts->num == RECORDER_MAX_WORDS) {
    counts->words[RECORDER_MAX_WORDS - 1].num += num;
    return;
  }
  struct word_count *slot = &counts->words[counts->num++];
  (void)snprintf(slot->word, sizeof(slot->word), "%s", word);
  slot->num = num;
}

static int compare_counts(const void *a, const void *b) {
  const struct word_count *x = a;
  const struct word_count *y = b;
  if (x->num != y->num) {
    return x->num > y->num ? -1 : 1;
  }
  return strcmp(x->word, y->word);
}

json_t *recorder_words_json(const struct word_counts *counts) {
  json_t *object = json_object();
  struct word_counts *sorted = malloc(sizeof(*sorted));
  if (sorted == NULL) {
    return object;
  }
  *sorted = *counts;
  qsort(sorted->words, sorted->num, sizeof(sorted->words[0]), compare_counts);
  for (size_t i = 0; i < sorted->num; i++) {
    (void)json_object_set_new(object, sorted->words[i].word,
                              json_integer((json_int_t)sorted->words[i].num));
  }
  free(sorted);
  return object;
}

// --- a run -----------------------------------------------------------------------

enum status recorder_new(struct recorder **out, const char *raw_path, struct errmsg *err) {
  struct recorder *r = calloc(1, sizeof(*r));
  if (r == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  r->zero_ns = recorder_now_ns();
  r->zero_wall_us = clock_wall_us();
  if (raw_path != NULL) {
    r->raw = fopen(raw_path, "we");
    if (r->raw == NULL) {
      enum status st =
          errmsg_set(err, STATUS_SYSTEM, "cannot write %s: %s", raw_path, strerror(errno));
      recorder_free(r);
      return st;
    }
    r->raw_buffer = malloc(RAW_BUFFER_LEN);
    if (r->raw_buffer != NULL) {
      (void)setvbuf(r->raw, r->raw_buffer, _IOFBF, RAW_BUFFER_LEN);
    }
  }
  *out = r;
  return STATUS_OK;
}

void recorder_free(struct recorder *r) {
  if (r == NULL) {
    return;
  }
  if (r->raw != NULL) {
    (void)fclose(r->raw);
  }
  free(r->raw_buffer);
  free(r);
}

enum status recorder_close(struct recorder *r, struct errmsg *err) {
  if (r->raw == NULL) {
    return STATUS_OK;
  }
  const bool is_broken = ferror(r->raw) != 0;
  const bool is_closed = fclose(r->raw) == 0;
  r->raw = NULL;
  if (is_broken || !is_closed) {
    return errmsg_set(err, STATUS_SYSTEM, "the raw file is not whole: %s", strerror(errno));
  }
  return STATUS_OK;
}

static void add_zero(const struct recorder *r, json_t *object) {
  (void)json_object_set_new(object, "zero_monotonic_us", json_integer(r->zero_ns / 1000));
  (void)json_object_set_new(object, "zero_wall_us", json_integer(r->zero_wall_us));
}

void recorder_write_run(struct recorder *r, const json_t *about) {
  if (r->raw == NULL) {
    return;
  }
  json_t *line = json_copy((json_t *)(uintptr_t)about);
  add_zero(r, line);
  (void)json_object_set_new(line, "type", json_string("run"));
  (void)json_dumpf(line, r->raw, JSON_COMPACT | JSON_SORT_KEYS);
  (void)fputc('\n', r->raw);
  json_decref(line);
}

static void read_cpu(int64_t *out_user_us, int64_t *out_system_us) {
  struct rusage usage;
  (void)getrusage(RUSAGE_SELF, &usage);
  *out_user_us = (int64_t)usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec;
  *out_system_us = (int64_t)usage.ru_stime.tv_sec * 1000000 + usage.ru_stime.tv_usec;
}

void recorder_start_measuring(struct recorder *r) {
  int64_t user = 0;
  int64_t system = 0;
  if (r->measure_start_ns != 0) {
    return;
  }
  read_cpu(&user, &system);
  r->cpu_user_us = -user;
  r->cpu_system_us = -system;
  r->server_cpu_ns = -proc_cpu_read_ns(&r->server);
  r->measure_start_ns = recorder_now_ns();
  r->is_measuring = true;
}

void recorder_stop_measuring(struct recorder *r) {
  int64_t user = 0;
  int64_t system = 0;
  if (!r->is_measuring) {
    return;
  }
  read_cpu(&user, &system);
  r->cpu_user_us += user;
  r->cpu_system_us += system;
  r->server_cpu_ns += proc_cpu_read_ns(&r->server);
  r->measure_end_ns = recorder_now_ns();
  r->is_measuring = false;
}

// --- samples ---------------------------------------------------------------------

static void add_time(struct jsonline *line, const struct recorder *r, const char *key,
                     int64_t time_ns) {
  if (time_ns != 0) {
    jsonline_int(line, key, (time_ns - r->zero_ns) / 1000);
  }
}

static void add_word(struct jsonline *line, const char *key, const char *word) {
  if (word != NULL) {
    jsonline_cstr(line, key, word);
  }
}

static void write_sample(struct recorder *r, const struct sample *s) {
  struct jsonline line;
  struct bytes text = {0};
  jsonline_begin(&line);
  jsonline_int(&line, "n", (int64_t)s->number);
  add_time(&line, r, "scheduled_us", s->scheduled_ns);
  add_time(&line, r, "start_us", s->start_ns);
  add_time(&line, r, "connected_us", s->connected_ns);
  add_time(&line, r, "handshake_us", s->handshake_ns);
  add_time(&line, r, "first_byte_us", s->first_byte_ns);
  add_time(&line, r, "end_us", s->end_ns);
  if (s->is_warmup) {
    jsonline_bool(&line, "warmup", true);
  }
  if (s->handshake_ns != 0) {
    jsonline_bool(&line, "resumed", s->is_resumed);
    jsonline_bool(&line, "dc", s->has_dc);
    jsonline_bool(&line, "verified", s->is_verified);
  }
  if (s->num_requests != 0) {
    jsonline_int(&line, "requests", (int64_t)s->num_requests);
  }
  if (s->bytes != 0) {
    jsonline_int(&line, "bytes", (int64_t)s->bytes);
  }
  add_word(&line, "name", s->name);
  add_word(&line, "issuer", s->issuer);
  jsonline_cstr(&line, "result", s->failure == NULL ? "ok" : s->failure);
  if (jsonline_end(&line, &text) == STATUS_OK) {
    (void)fwrite(text.data, 1, text.len, r->raw);
    (void)fputc('\n', r->raw);
  }
}

static void record_latency(struct recorder *r, enum recorder_latency which, int64_t from_ns,
                           int64_t to_ns) {
  if (to_ns != 0) {
    hdr_record(&r->latencies[which], to_ns - from_ns);
  }
}

void recorder_add(struct recorder *r, const struct sample *s) {
  if (r->raw != NULL) {
    write_sample(r, s);
  }
  if (s->is_warmup) {
    r->num_warmup += 1;
    return;
  }
  if (s->failure != NULL && strcmp(s->failure, FAILURE_ABANDONED) == 0) {
    r->num_abandoned += 1;
    return;
  }
  r->num_requests += s->num_requests;
  r->bytes += s->bytes;
  if (s->failure != NULL) {
    r->num_failed += 1;
    word_counts_add(&r->failures, s->failure, 1);
    return;
  }
  r->num_ok += 1;
  r->num_resumed += s->is_resumed;
  r->num_dc += s->has_dc;
  r->num_verified += s->is_verified;
  r->num_stapled += s->has_staple;
  if (s->issuer != NULL) {
    word_counts_add(&r->issuers, s->issuer, 1);
  }
  if (s->suite != NULL) {
    word_counts_add(&r->suites, s->suite, 1);
  }
  record_latency(r, LATENCY_CONNECT, s->start_ns, s->connected_ns);
  record_latency(r, LATENCY_HANDSHAKE, s->scheduled_ns, s->handshake_ns);
  record_latency(r, LATENCY_SERVICE, s->start_ns, s->handshake_ns);
  record_latency(r, LATENCY_FIRST_BYTE, s->scheduled_ns, s->first_byte_ns);
}

static void merge_words(struct word_counts *into, const struct word_counts *from) {
  for (size_t i = 0; i < from->num; i++) {
    word_counts_add(into, from->words[i].word, from->words[i].num);
  }
}

void recorder_merge(struct recorder *into, const struct recorder *from) {
  into->num_ok += from->num_ok;
  into->num_failed += from->num_failed;
  into->num_abandoned += from->num_abandoned;
  into->num_warmup += from->num_warmup;
  into->num_resumed += from->num_resumed;
  into->num_dc += from->num_dc;
  into->num_verified += from->num_verified;
  into->num_stapled += from->num_stapled;
  into->num_requests += from->num_requests;
  into->bytes += from->bytes;
  merge_words(&into->failures, &from->failures);
  merge_words(&into->issuers, &from->issuers);
  merge_words(&into->suites, &from->suites);
  for (size_t i = 0; i < LATENCY_NUM; i++) {
    hdr_merge(&into->latencies[i], &from->latencies[i]);
  }
}

// --- the summary -----------------------------------------------------------------

static json_t *us(double ns) { return json_real((double)(int64_t)(ns / 100 + 0.5) / 10); }

json_t *recorder_latency_json(const struct hdr *h) {
  static const struct {
    const char *name;
    double q;
  } quantiles[] = {{"p50", 0.5},  {"p75", 0.75}, {"p90", 0.9},
                   {"p95", 0.95}, {"p99", 0.99}, {"p99_9", 0.999}};
  json_t *object = json_object();
  (void)json_object_set_new(object, "num", json_integer((json_int_t)h->num));
  if (h->num == 0) {
    return object;
  }
  (void)json_object_set_new(object, "min", us((double)h->min));
  (void)json_object_set_new(object, "mean", us(hdr_mean(h)));
  for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++) {
    (void)json_object_set_new(object, quantiles[i].name,
                              us((double)hdr_quantile(h, quantiles[i].q)));
  }
  (void)json_object_set_new(object, "max", us((double)h->max));
  return object;
}

static json_t *counts_json(const struct recorder *r) {
  const struct {
    const char *name;
    uint64_t num;
  } rows[] = {{"ok", r->num_ok},
              {"failed", r->num_failed},
              {"abandoned", r->num_abandoned},
              {"warmup", r->num_warmup},
              {"full", r->num_ok - r->num_resumed},
              {"resumed", r->num_resumed},
              {"dc", r->num_dc},
              {"verified", r->num_verified},
              {"stapled", r->num_stapled},
              {"requests", r->num_requests},
              {"bytes", r->bytes}};
  json_t *object = json_object();
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    (void)json_object_set_new(object, rows[i].name, json_integer((json_int_t)rows[i].num));
  }
  return object;
}

static void add_cost(json_t *object, const char *unit, double total_us, uint64_t num) {
  char key[64];
  if (num > 0) {
    (void)snprintf(key, sizeof(key), "per_%s_us", unit);
    (void)json_object_set_new(object, key, json_real(total_us / (double)num));
  }
}

static json_t *client_cpu_json(const struct recorder *r, const char *unit) {
  json_t *object = json_object();
  (void)json_object_set_new(object, "user_us", json_integer(r->cpu_user_us));
  (void)json_object_set_new(object, "system_us", json_integer(r->cpu_system_us));
  add_cost(object, unit, (double)(r->cpu_user_us + r->cpu_system_us), r->num_ok);
  return object;
}

// A server that ended meanwhile took its count with it: then there is none.
static json_t *server_cpu_json(const struct recorder *r, const char *unit) {
  json_t *object = json_object();
  const double total_us = (double)r->server_cpu_ns / 1e3;
  if (r->server.num == 0 || r->server_cpu_ns < 0) {
    json_decref(object);
    return json_null();
  }
  (void)json_object_set_new(object, "total_us", json_real(total_us));
  add_cost(object, unit, total_us, r->num_ok);
  if (total_us > 0) {
    (void)json_object_set_new(object, "ok_per_cpu_s",
                              json_real((double)r->num_ok * 1e6 / total_us));
  }
  return object;
}

void recorder_summary(const struct recorder *r, const char *unit, json_t *summary) {
  static const char *const names[LATENCY_NUM] = {"connect", "handshake", "service", "first_byte",
                                                 "request"};
  json_t *latencies = json_object();
  const double measured_s = (double)(r->measure_end_ns - r->measure_start_ns) / 1e9;
  add_zero(r, summary);
  (void)json_object_set_new(summary, "measured_start_us",
                            json_integer((r->measure_start_ns - r->zero_ns) / 1000));
  (void)json_object_set_new(summary, "measured_s", json_real(measured_s));
  if (measured_s > 0) {
    (void)json_object_set_new(summary, "ok_per_s", json_real((double)r->num_ok / measured_s));
  }
  (void)json_object_set_new(summary, "counts", counts_json(r));
  (void)json_object_set_new(summary, "failures", recorder_words_json(&r->failures));
  (void)json_object_set_new(summary, "issuers", recorder_words_json(&r->issuers));
  (void)json_object_set_new(summary, "suites", recorder_words_json(&r->suites));
  for (size_t i = 0; i < LATENCY_NUM; i++) {
    if (r->latencies[i].num > 0) {
      (void)json_object_set_new(latencies, names[i], recorder_latency_json(&r->latencies[i]));
    }
  }
  (void)json_object_set_new(summary, "latency_us", latencies);
  (void)json_object_set_new(summary, "client_cpu", client_cpu_json(r, unit));
  (void)json_object_set_new(summary, "server_cpu", server_cpu_json(r, unit));
}
