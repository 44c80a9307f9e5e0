// SPDX-License-Identifier: Apache-2.0
// decide: what the proxy's decision costs for names of a store that are hot: from the name
// that a client asks for to the chain and the signature that answer it, by the proxy's own
// code (select_decide), within BoringSSL's certificate callback of a real ClientHello.
//
// The names are read into the cache by the proxy's own loader first; its two loops run
// turn by turn on one thread. Each name gets a delegated credential of its own (its
// signature is not one, as nobody looks at it here), so that nothing is in the processor's
// caches that would not be. Names are asked for in random order, each decision timed.
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/memory_server.h"
#include "bench/tls13_hello.h"
#include "bench/tls13_keys.h"
#include "certstore/state.h"
#include "common/base/clock.h"
#include "common/tls/cert.h"
#include "common/wire/dc.h"
#include "proxy/connection/conn.h"
#include "proxy/grace.h"
#include "proxy/handshake/select.h"
#include "proxy/store/lookup.h"
#include "proxy/store/served_store.h"
#include "proxy/worker.h"

#define FILL_CHUNK 128  // names that are read at a time
#define FILL_S 60
#define TURN_US 100
#define DC_LIFE_S 86400
#define NAME_ROOM 96

struct decide_options {
  const char *store;
  const char *domain;
  int64_t names;
  int64_t every;
  int64_t cache;
  int64_t count;
  bool is_without_dc;
};

// clang-format off
static const struct option_row options[] = {
  {"store", OPTION_TEXT, offsetof(struct decide_options, store), .is_required = true,
   .help = "the store"},
  {"domain", OPTION_TEXT, offsetof(struct decide_options, domain), .fallback = "bench.test",
   .help = "as make-certificates was told"},
  {"names", OPTION_COUNT, offsetof(struct decide_options, names), .fallback = "8192", .min = 1,
   .max = 1000000, .help = "names to make hot"},
  {"every", OPTION_COUNT, offsetof(struct decide_options, every), .fallback = "1", .min = 1,
   .max = 100000000, .help = "n0, nE, n2E, ... for E"},
  {"cache", OPTION_COUNT, offsetof(struct decide_options, cache), .fallback = "8192", .min = 8,
   .max = 1000000, .help = "store.cache of the proxy; names that find no place are left out"},
  {"count", OPTION_COUNT, offsetof(struct decide_options, count), .fallback = "1000000", .min = 100,
   .max = 100000000, .help = "decisions"},
  {"without-dc", OPTION_FLAG, offsetof(struct decide_options, is_without_dc),
   .help = "no name has a delegated credential"},
  {0},
};
// clang-format on

struct names {
  char (*texts)[NAME_ROOM];
  uint32_t *lens;
  size_t num;
};

// What the proxy has for one worker, without sockets.
struct stage {
  const struct decide_options *options;
  struct names names;
  struct states *states;
  struct loop *control;
  struct grace *grace;
  struct served_store *store;
  struct worker_host host;
  struct worker worker;
  struct site site;
  struct view view;
  struct handshake hs;
  struct conn conn;
  EVP_PKEY *dc_key;
  SSL_CTX *ctx;
  uint32_t *taken_ns;
  enum status st;  // of what ran in the callback
  struct errmsg err;
};

static int64_t now_ns(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static struct bytes name_at(const struct stage *stage, size_t i) {
  return bytes_of((const uint8_t *)stage->names.texts[i], stage->names.lens[i]);
}

// forget gives back what one decision holds, as the end of a handshake does.
static void forget(struct stage *stage) {
  lookup_release(&stage->conn);
  stage->hs = (struct handshake){.view = &stage->view};
}

// --- filling the cache -----------------------------------------------------------------

static void stop_loop(void *arg) { loop_stop(arg); }

// take_turns lets each loop do what it has to do now.
static void take_turns(struct stage *stage) {
  struct loop *loops[] = {stage->control, stage->worker.loop};
  for (size_t i = 0; i < 2; i++) {
    loop_post(loops[i], stop_loop, loops[i]);
    loop_run(loops[i]);
  }
}

static enum status ask(struct stage *stage, size_t i, bool *out_is_hot) {
  enum lookup_answer answer = lookup_find(&stage->conn, name_at(stage, i));
  *out_is_hot = answer == LOOKUP_FOUND;
  forget(stage);  // nobody waits: the name is read all the same
  return answer == LOOKUP_FOUND || answer == LOOKUP_WAIT
             ? STATUS_OK
             : errmsg_set(&stage->err, STATUS_NOT_FOUND, "%s is not in the store, or unreadable",
                          stage->names.texts[i]);
}

// fill_chunk sees each of these names in the cache once.
static enum status fill_chunk(struct stage *stage, size_t begin, size_t end, int64_t deadline_us) {
  enum status st = STATUS_OK;
  bool was_hot[FILL_CHUNK] = {false};
  size_t num_hot = 0;
  while (num_hot < end - begin) {
    for (size_t i = begin; i < end; i++) {
      if (!was_hot[i - begin]) {
        TRY(ask(stage, i, &was_hot[i - begin]));
        num_hot += was_hot[i - begin] ? 1 : 0;
      }
    }
    take_turns(stage);
    if (clock_monotonic_us() > deadline_us) {
      return errmsg_set(&stage->err, STATUS_TIMEOUT, "names were not read within %d s", FILL_S);
    }
    if (num_hot < end - begin) {
      (void)usleep(TURN_US);
    }
  }

out:
  return st;
}

// keep_hot forgets the names that later ones have driven out of the cache. The loops take
// no more turns from here on, so that none comes back.
static void keep_hot(struct stage *stage) {
  struct names *names = &stage->names;
  size_t num = 0;
  for (size_t i = 0; i < names->num; i++) {
    bool is_hot = lookup_find(&stage->conn, name_at(stage, i)) == LOOKUP_FOUND;
    forget(stage);
    if (is_hot) {
      memmove(names->texts[num], names->texts[i], NAME_ROOM);
      names->lens[num++] = names->lens[i];
    }
  }
  names->num = num;
}

static enum status fill(struct stage *stage) {
  enum status st = STATUS_OK;
  const int64_t deadline_us = clock_monotonic_us() + (int64_t)FILL_S * 1000000;
  for (size_t i = 0; i < stage->names.num; i += FILL_CHUNK) {
    size_t end = i + FILL_CHUNK < stage->names.num ? i + FILL_CHUNK : stage->names.num;
    TRY(fill_chunk(stage, i, end, deadline_us));
  }
  keep_hot(stage);
  if (stage->names.num == 0) {
    st = errmsg_set(&stage->err, STATUS_NOT_FOUND, "no name is hot");
  }

out:
  return st;
}

// --- delegated credentials ---------------------------------------------------------------

static enum status write_dc(uint8_t out[DC_MAX_LEN], size_t *out_len, EVP_PKEY *key) {
  enum status st = STATUS_OK;
  static const uint8_t signature[71] = {0x30};
  uint8_t *spki = NULL;
  size_t spki_len = 0;
  struct dc dc = {.verify_scheme = SSL_SIGN_ECDSA_SECP256R1_SHA256,
                  .algorithm = SSL_SIGN_ECDSA_SECP256R1_SHA256,
                  .valid_time_s = DC_LIFE_S,
                  .signature = bytes_of(signature, sizeof(signature))};
  TRY(key_spki(&spki, &spki_len, key));
  dc.spki = bytes_of(spki, spki_len);
  TRY(dc_encode(out, DC_MAX_LEN, out_len, &dc));

out:
  OPENSSL_free(spki);
  return st;
}

static enum status give_dc(struct stage *stage, size_t i, struct bytes dc, int64_t now_s) {
  enum status st = STATUS_OK;
  struct tls_dc *made = NULL;
  if (lookup_find(&stage->conn, name_at(stage, i)) != LOOKUP_FOUND) {
    st = errmsg_set(&stage->err, STATUS_NOT_FOUND, "%s has left the cache", stage->names.texts[i]);
    goto out;
  }
  struct chain *chain = stage->hs.name->levels[0].chains[0];
  TRY(tls_dc_new(&made, chain->tls, dc, stage->dc_key, now_s + DC_LIFE_S));
  made = atomic_exchange(&chain->dc, made);

out:
  tls_dc_unref(made);
  forget(stage);
  return st;
}

static enum status give_dcs(struct stage *stage) {
  enum status st = STATUS_OK;
  uint8_t dc[DC_MAX_LEN];
  size_t len = 0;
  int64_t now_s = clock_wall_s();
  stage->dc_key = memory_key_new(KEY_KIND_P256);
  if (stage->dc_key == NULL) {
    return errmsg_set(&stage->err, STATUS_MEMORY, "no memory");
  }
  TRY(write_dc(dc, &len, stage->dc_key));
  for (size_t i = 0; i < stage->names.num; i++) {
    TRY(give_dc(stage, i, bytes_of(dc, len), now_s));
  }

out:
  return st;
}

// --- measuring -------------------------------------------------------------------------------

static enum status time_decisions(struct stage *stage, SSL *ssl) {
  const struct decide_options *o = stage->options;
  uint64_t random = 88172645463325252ULL;  // xorshift: the same names in each run
  for (int64_t i = 0; i < o->count; i++) {
    struct tls_dc *dc = NULL;
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    const struct bytes name = name_at(stage, (size_t)(random % stage->names.num));
    const int64_t began_ns = now_ns();
    int decided = select_decide(ssl, &stage->conn, name, &dc);
    stage->taken_ns[i] = (uint32_t)(now_ns() - began_ns);
    bool is_good = decided == 1 && (dc != NULL) != o->is_without_dc;
    forget(stage);
    if (!is_good) {
      return errmsg_set(&stage->err, STATUS_REFUSED, "%.*s: %s", (int)name.len,
                        (const char *)name.data,
                        decided == 1 ? "not answered as it should be" : "not hot any more");
    }
  }
  return STATUS_OK;
}

static int on_certificate(SSL *ssl, void *arg) {
  struct stage *stage = arg;
  stage->st = time_decisions(stage, ssl);
  return 0;  // the handshake ends here
}

// run_in_callback brings a real ClientHello to the server's certificate callback. It does
// not come to the key exchange: any share will do.
static enum status run_in_callback(struct stage *stage) {
  enum status st = STATUS_OK;
  static const uint8_t filler[32] = {9};
  const struct tls13_suite *suites[] = {tls13_suite_by_name("aes128")};
  const struct tls13_hello_options shown = {
      .name = stage->names.texts[0], .offers_dc = true, .suites = suites, .num_suites = 1};
  struct tls13_hello hello = {0};
  struct buffer record = {0};
  SSL *ssl = SSL_new(stage->ctx);
  BIO *in = BIO_new(BIO_s_mem());
  BIO *out = BIO_new(BIO_s_mem());

  stage->st = STATUS_CRYPTO;  // unless the callback was reached
  if (ssl == NULL || in == NULL || out == NULL) {
    BIO_free(in);
    BIO_free(out);
    st = errmsg_set(&stage->err, STATUS_MEMORY, "no memory");
    goto out;
  }
  SSL_set_bio(ssl, in, out);
  TRY(tls13_hello_init(&hello, &shown));
  TRY(tls13_hello_write(&hello, &record, filler, filler, filler));
  if (BIO_write(in, record.data, (int)record.len) != (int)record.len) {
    st = errmsg_set(&stage->err, STATUS_MEMORY, "no memory");
    goto out;
  }
  (void)SSL_accept(ssl);
  ERR_clear_error();
  TRY(stage->st);

out:
  SSL_free(ssl);
  tls13_hello_cleanup(&hello);
  buffer_cleanup(&record);
  return st;
}

// --- the stage ---------------------------------------------------------------------------

static enum status make_names(struct stage *stage) {
  const struct decide_options *o = stage->options;
  struct names *names = &stage->names;
  names->texts = calloc((size_t)o->names, sizeof(*names->texts));
  names->lens = calloc((size_t)o->names, sizeof(*names->lens));
  stage->taken_ns = calloc((size_t)o->count, sizeof(*stage->taken_ns));
  if (names->texts == NULL || names->lens == NULL || stage->taken_ns == NULL) {
    return errmsg_set(&stage->err, STATUS_MEMORY, "no memory");
  }
  for (; names->num < (size_t)o->names; names->num++) {
    names->lens[names->num] = (uint32_t)snprintf(
        names->texts[names->num], NAME_ROOM, "n%llu.%.60s",
        (unsigned long long)names->num * (unsigned long long)o->every, o->domain);
  }
  return STATUS_OK;
}

static enum status make_lookup(struct stage *stage) {
  enum status st = STATUS_OK;
  struct worker *worker = &stage->worker;
  char *folder = strdup(stage->options->store);
  const struct store_place_options place = {
      .path = folder, .max_cached = stage->options->cache, .deadline_ms = 1000, .may_use_dc = true};
  TRY(states_new(&stage->states));
  TRY(loop_new(&stage->control));
  TRY(loop_new(&worker->loop));
  TRY(grace_new(&stage->grace, stage->control, &worker->loop, 1));
  TRY(served_store_open(&stage->store, stage->control, stage->states, &place, &stage->err));
  TRY(served_store_start(stage->store, stage->grace, &worker, 1, &stage->err));
  TRY(certstore_new(&stage->site.store, stage->states));
  served_store_set_site(stage->store, &stage->site);

out:
  free(folder);
  return st;
}

static enum status set_stage(struct stage *stage) {
  enum status st = STATUS_OK;
  TRY(make_names(stage));
  stage->worker.host = &stage->host;
  TRY(make_lookup(stage));
  stage->host =
      (struct worker_host){.loop = stage->control, .lookup = served_store_lookup(stage->store)};
  stage->site.of_store.may_use_dc = true;
  stage->view = (struct view){.worker = &stage->worker, .site = &stage->site};
  stage->hs.view = &stage->view;
  stage->conn = (struct conn){.worker = &stage->worker, .hs = &stage->hs};
  stage->ctx = SSL_CTX_new(TLS_with_buffers_method());
  if (stage->ctx == NULL) {
    return errmsg_set(&stage->err, STATUS_MEMORY, "no memory");
  }
  TRY(tls_credential_prepare(stage->ctx));
  SSL_CTX_set_cert_cb(stage->ctx, on_certificate, stage);

out:
  return st;
}

static void clear_stage(struct stage *stage) {
  served_store_stop(stage->store);
  grace_free(stage->grace);
  served_store_free(stage->store);
  certstore_free(stage->site.store);
  states_free(stage->states);
  loop_free(stage->worker.loop);
  loop_free(stage->control);
  SSL_CTX_free(stage->ctx);
  EVP_PKEY_free(stage->dc_key);
  free(stage->names.texts);
  free(stage->names.lens);
  free(stage->taken_ns);
}

static int compare(const void *a, const void *b) {
  uint32_t one = *(const uint32_t *)a;
  uint32_t two = *(const uint32_t *)b;
  return (one > two) - (one < two);
}

static void tell(json_t *summary, struct stage *stage) {
  const size_t num = (size_t)stage->options->count;
  uint32_t *taken_ns = stage->taken_ns;
  int64_t began_ns = now_ns();
  for (int i = 0; i < 1000; i++) {
    (void)now_ns();
  }
  const double clock_ns = (double)(now_ns() - began_ns) / 1001;
  qsort(taken_ns, num, sizeof(*taken_ns), compare);
  (void)json_object_set_new(summary, "hot", json_integer((json_int_t)stage->names.num));
  (void)json_object_set_new(summary, "decisions", json_integer((json_int_t)num));
  (void)json_object_set_new(summary, "clock_ns", json_real(clock_ns));  // is in each figure
  (void)json_object_set_new(summary, "p50_ns", json_integer(taken_ns[num / 2]));
  (void)json_object_set_new(summary, "p99_ns", json_integer(taken_ns[num * 99 / 100]));
  (void)json_object_set_new(summary, "p999_ns", json_integer(taken_ns[num * 999 / 1000]));
}

static enum status measure(json_t *summary, struct stage *stage) {
  enum status st = STATUS_OK;
  TRY(set_stage(stage));
  TRY(fill(stage));
  if (!stage->options->is_without_dc) {
    TRY(give_dcs(stage));
  }
  TRY(run_in_callback(stage));
  tell(summary, stage);

out:
  return st;
}

static enum status run(json_t *summary, const void *arg, struct errmsg *err) {
  struct stage *stage = calloc(1, sizeof(*stage));
  enum status st = STATUS_MEMORY;
  if (stage != NULL) {
    stage->options = arg;
    st = measure(summary, stage);
    *err = stage->err;
    clear_stage(stage);
  }
  free(stage);
  return st;
}

const struct subcommand decide_subcommand = {
    .name = "decide",
    .summary = "what the proxy's decision for a hot name of a store costs",
    .help = "Times the proxy's decision for hot names of a store.",
    .options = options,
    .options_len = sizeof(struct decide_options),
    .run = run,
};
