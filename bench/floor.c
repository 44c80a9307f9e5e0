// SPDX-License-Identifier: Apache-2.0
// floor: what the work behind a handshake costs at the very least on this machine,
// in CPU time of one thread: BoringSSL's server in memory (no socket, no kernel), the
// light client's own share, and bare crypto operations. Rounds of all rows take
// turns, so that a noisy moment touches all of them.
#include <math.h>
#include <openssl/curve25519.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/bench.h"
#include "bench/memory_server.h"
#include "bench/tls13_client.h"
#include "common/base/clock.h"
#include "common/wire/scheme.h"

#define MAX_ROUNDS 1000
#define MESSAGE_LEN 130U  // a CertificateVerify input with SHA-256

struct floor_options {
  const char *only;
  const char *label;
  int64_t num_rounds;
  int64_t round_ms;
  bool shows_progress;
};

#define FIELD(name) offsetof(struct floor_options, name)
// clang-format off
static const struct option_row table[] = {
  {"rounds", OPTION_COUNT, FIELD(num_rounds), .fallback = "9", .min = 1, .max = MAX_ROUNDS,
   .help = "rounds of each row; the median and the extremes are told"},
  {"round-time", OPTION_DURATION, FIELD(round_ms), .fallback = "30ms", .min = 1, .max = 60000,
   .help = "CPU time of one round of one row"},
  {"only", OPTION_TEXT, FIELD(only), .help = "rows whose name begins so, as handshake or p256"},
  {"label", OPTION_TEXT, FIELD(label), .help = "text to keep in the summary"},
  {"progress", OPTION_FLAG, FIELD(shows_progress), .help = "a line for each row on standard error"},
  {0},
};
// clang-format on

static volatile sig_atomic_t is_stopped;

static void on_signal(int signo) {
  (void)signo;
  is_stopped = 1;
}

static int64_t thread_cpu_ns(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// --- rows --------------------------------------------------------------------------------

enum row_kind {
  ROW_SERVER,  // a handshake; the server's time
  ROW_CLIENT,  // the same; the light client's
  ROW_KEYGEN,
  ROW_DERIVE,
  ROW_SIGN,
  ROW_VERIFY,
};

static const struct row {
  const char *name;
  enum row_kind kind;
  enum key_kind key;
  bool has_dc;
  bool is_resumed;
  enum tls13_share share;
  uint32_t verify_every;
} rows[] = {
    {"handshake.p256", ROW_SERVER, KEY_KIND_P256, false, false, TLS13_SHARE_BASE, 0},
    {"handshake.p256_dc", ROW_SERVER, KEY_KIND_P256, true, false, TLS13_SHARE_BASE, 0},
    {"handshake.p384", ROW_SERVER, KEY_KIND_P384, false, false, TLS13_SHARE_BASE, 0},
    {"handshake.p384_dc", ROW_SERVER, KEY_KIND_P384, true, false, TLS13_SHARE_BASE, 0},
    {"handshake.rsa2048", ROW_SERVER, KEY_KIND_RSA, false, false, TLS13_SHARE_BASE, 0},
    {"handshake.resumed", ROW_SERVER, KEY_KIND_P256, false, true, TLS13_SHARE_BASE, 0},
    {"client.base", ROW_CLIENT, KEY_KIND_P256, true, false, TLS13_SHARE_BASE, 0},
    {"client.reused", ROW_CLIENT, KEY_KIND_P256, true, false, TLS13_SHARE_REUSED, 0},
    {"client.fresh", ROW_CLIENT, KEY_KIND_P256, true, false, TLS13_SHARE_FRESH, 0},
    {"client.base_verify", ROW_CLIENT, KEY_KIND_P256, true, false, TLS13_SHARE_BASE, 1},
    {"client.fresh_verify", ROW_CLIENT, KEY_KIND_P256, true, false, TLS13_SHARE_FRESH, 1},
    {"client.base_resumed", ROW_CLIENT, KEY_KIND_P256, true, true, TLS13_SHARE_BASE, 0},
    {"x25519.keygen", ROW_KEYGEN, KEY_KIND_NONE, false, false, TLS13_SHARE_BASE, 0},
    {"x25519.derive", ROW_DERIVE, KEY_KIND_NONE, false, false, TLS13_SHARE_BASE, 0},
    {"p256.sign", ROW_SIGN, KEY_KIND_P256, false, false, TLS13_SHARE_BASE, 0},
    {"p256.verify", ROW_VERIFY, KEY_KIND_P256, false, false, TLS13_SHARE_BASE, 0},
    {"p384.sign", ROW_SIGN, KEY_KIND_P384, false, false, TLS13_SHARE_BASE, 0},
    {"rsa2048.sign", ROW_SIGN, KEY_KIND_RSA, false, false, TLS13_SHARE_BASE, 0},
    {"ed25519.sign", ROW_SIGN, KEY_KIND_ED25519, false, false, TLS13_SHARE_BASE, 0},
};
#define NUM_ROWS (sizeof(rows) / sizeof(rows[0]))

// What a row works with, made once.
struct bed {
  const struct row *row;
  // handshakes
  struct memory_server server;
  struct tls13_shared *shared;
  struct tls13_client client;
  struct tls13_ticket ticket;
  bool has_ticket;
  struct buffer to_server;
  struct buffer to_client;
  int64_t server_ns;
  int64_t client_ns;
  // operations
  const struct scheme *scheme;
  EVP_PKEY *key;
  uint8_t message[MESSAGE_LEN];
  uint8_t signature[SCHEME_MAX_SIGNATURE_LEN];
  size_t signature_len;
  uint8_t private_key[32];
  uint8_t public_key[32];
  // results, us
  double *rounds;
  int64_t num_rounds;
};

// --- handshakes --------------------------------------------------------------------------

static void keep_ticket(struct tls13_client *client, const struct tls13_ticket *ticket) {
  struct bed *bed = client->arg;
  bed->ticket = *ticket;
  bed->has_ticket = true;
}

static enum status feed_server(struct bed *bed, struct memory_peer *peer) {
  const int64_t before_ns = thread_cpu_ns();
  const enum status st =
      memory_peer_run(peer, bytes_of(bed->to_server.data, bed->to_server.len), &bed->to_client);
  bed->server_ns += thread_cpu_ns() - before_ns;
  bed->to_server.len = 0;
  return st;
}

static enum status feed_client(struct bed *bed) {
  const int64_t before_ns = thread_cpu_ns();
  const enum tls13_fault fault =
      tls13_client_feed(&bed->client, bed->to_client.data, bed->to_client.len, &bed->to_server);
  bed->client_ns += thread_cpu_ns() - before_ns;
  bed->to_client.len = 0;
  return fault == TLS13_OK ? STATUS_OK : STATUS_CRYPTO;
}

static enum status start_both(struct bed *bed, struct memory_peer *peer) {
  int64_t before_ns = thread_cpu_ns();
  const enum status st = memory_peer_start(peer, &bed->server);
  bed->server_ns += thread_cpu_ns() - before_ns;
  if (st != STATUS_OK) {
    return st;
  }
  before_ns = thread_cpu_ns();
  const enum tls13_fault fault =
      tls13_client_start(&bed->client, bed->shared, 0, bed->has_ticket ? &bed->ticket : NULL,
                         clock_monotonic_ms(), &bed->to_server);
  bed->client_ns += thread_cpu_ns() - before_ns;
  return fault == TLS13_OK ? STATUS_OK : STATUS_CRYPTO;
}

// One whole handshake; with `wants_ticket` also the data that brings a ticket.
static enum status shake_hands(struct bed *bed, bool wants_ticket) {
  enum status st = STATUS_OK;
  struct memory_peer peer = {0};

  bed->to_server.len = 0;
  bed->to_client.len = 0;
  TRY(start_both(bed, &peer));
  TRY(feed_server(bed, &peer));
  TRY(feed_client(bed));
  TRY(feed_server(bed, &peer));
  if (wants_ticket) {
    TRY(memory_peer_write(&peer, bytes_text("."), &bed->to_client));
    TRY(feed_client(bed));
  }
  if (!peer.is_done || bed->client.state != TLS13_CLIENT_DONE) {
    st = STATUS_CRYPTO;
  }

out:;
  const int64_t before_ns = thread_cpu_ns();
  memory_peer_cleanup(&peer);
  bed->server_ns += thread_cpu_ns() - before_ns;
  return st;
}

static enum status prepare_handshakes(struct bed *bed) {
  enum status st = STATUS_OK;
  static const char *const names[] = {"localhost"};
  const struct row *row = bed->row;
  const struct memory_server_options server = {.kind = row->key,
                                               .has_dc = row->has_dc,
                                               .dc_life_s = 48L * 3600,
                                               .issuer = "floor",
                                               .gives_tickets = row->is_resumed};
  const struct tls13_options client = {.names = names,
                                       .num_names = 1,
                                       .offers_dc = true,
                                       .share = row->share,
                                       .suites = {tls13_suite_by_name("aes128")},
                                       .num_suites = 1,
                                       .verify_every = row->verify_every,
                                       .on_ticket = row->is_resumed ? keep_ticket : NULL};
  TRY(memory_server_init(&bed->server, &server));
  TRY(tls13_shared_new(&bed->shared, &client, NULL));
  bed->client.arg = bed;
  TRY(shake_hands(bed, row->is_resumed));
  if (bed->has_ticket != row->is_resumed || bed->client.has_dc != row->has_dc) {
    st = STATUS_CRYPTO;
  }

out:
  return st;
}

// --- operations --------------------------------------------------------------------------

static enum status prepare_operation(struct bed *bed) {
  const struct row *row = bed->row;
  X25519_keypair(bed->public_key, bed->private_key);
  if (row->key == KEY_KIND_NONE) {
    return STATUS_OK;
  }
  memset(bed->message, 0x20, sizeof(bed->message));
  bed->scheme = scheme_default(row->key);
  bed->key = memory_key_new(row->key);
  if (bed->key == NULL) {
    return STATUS_CRYPTO;
  }
  return scheme_sign(bed->scheme, bed->key, bed->signature, sizeof(bed->signature),
                     &bed->signature_len, bytes_of(bed->message, sizeof(bed->message)));
}

static enum status operate(struct bed *bed) {
  uint8_t shared[32];
  switch (bed->row->kind) {
    case ROW_KEYGEN:
      X25519_keypair(bed->public_key, bed->private_key);
      return STATUS_OK;
    case ROW_DERIVE:
      return X25519(shared, bed->private_key, bed->public_key) == 1 ? STATUS_OK : STATUS_CRYPTO;
    case ROW_SIGN:
      return scheme_sign(bed->scheme, bed->key, bed->signature, sizeof(bed->signature),
                         &bed->signature_len, bytes_of(bed->message, sizeof(bed->message)));
    case ROW_VERIFY:
      return scheme_verify(bed->scheme, bed->key, bytes_of(bed->message, sizeof(bed->message)),
                           bytes_of(bed->signature, bed->signature_len));
    default:
      return shake_hands(bed, false);
  }
}

// --- rounds --------------------------------------------------------------------------------

static bool is_handshake(const struct row *row) {
  return row->kind == ROW_SERVER || row->kind == ROW_CLIENT;
}

// The time that the row is about, so far.
static int64_t spent_ns(const struct bed *bed) {
  switch (bed->row->kind) {
    case ROW_SERVER:
      return bed->server_ns;
    case ROW_CLIENT:
      return bed->client_ns;
    default:
      return thread_cpu_ns();
  }
}

// Operations in a batch between two looks at the clock: looking costs a system call.
static int batch_of(const struct row *row) { return is_handshake(row) ? 1 : 16; }

static enum status run_round(struct bed *bed, int64_t round_ms) {
  enum status st = STATUS_OK;
  const int64_t begin_ns = spent_ns(bed);
  const int64_t limit_ns = begin_ns + round_ms * 1000000;
  int64_t num = 0;
  int64_t now_ns = begin_ns;

  while (now_ns < limit_ns) {
    for (int i = 0; i < batch_of(bed->row); i++) {
      TRY(operate(bed));
    }
    num += batch_of(bed->row);
    now_ns = spent_ns(bed);
  }
  bed->rounds[bed->num_rounds++] = (double)(now_ns - begin_ns) / 1e3 / (double)num;

out:
  return st;
}

static enum status bed_init(struct bed *bed, const struct row *row, int64_t num_rounds) {
  bed->row = row;
  bed->rounds = calloc((size_t)num_rounds, sizeof(*bed->rounds));
  if (bed->rounds == NULL) {
    return STATUS_MEMORY;
  }
  return is_handshake(row) ? prepare_handshakes(bed) : prepare_operation(bed);
}

static void bed_cleanup(struct bed *bed) {
  memory_server_cleanup(&bed->server);
  tls13_client_cleanup(&bed->client);
  tls13_shared_free(bed->shared);
  buffer_cleanup(&bed->to_server);
  buffer_cleanup(&bed->to_client);
  EVP_PKEY_free(bed->key);
  free(bed->rounds);
}

static int compare_doubles(const void *a, const void *b) {
  const double x = *(const double *)a;
  const double y = *(const double *)b;
  return (x > y) - (x < y);
}

static json_t *row_json(struct bed *bed) {
  json_t *object = json_object();
  const int64_t num = bed->num_rounds;
  qsort(bed->rounds, (size_t)num, sizeof(*bed->rounds), compare_doubles);
  const double median = (bed->rounds[(num - 1) / 2] + bed->rounds[num / 2]) / 2;
  (void)json_object_set_new(object, "name", json_string(bed->row->name));
  (void)json_object_set_new(object, "median_us", json_real(median));
  (void)json_object_set_new(object, "min_us", json_real(bed->rounds[0]));
  (void)json_object_set_new(object, "max_us", json_real(bed->rounds[num - 1]));
  (void)json_object_set_new(object, "rounds", json_integer(num));
  return object;
}

static bool is_wanted(const struct row *row, const char *only) {
  return only == NULL || strncmp(row->name, only, strlen(only)) == 0;
}

static enum status measure(struct bed *beds, const struct floor_options *o, struct errmsg *err) {
  for (int64_t round = 0; round < o->num_rounds && !is_stopped; round++) {
    for (size_t i = 0; i < NUM_ROWS && !is_stopped; i++) {
      if (beds[i].row == NULL) {
        continue;
      }
      const enum status st = run_round(&beds[i], o->round_ms);
      if (st != STATUS_OK) {
        return errmsg_set(err, st, "%s failed: %s", rows[i].name,
                          tls13_fault_name(beds[i].client.fault));
      }
      if (o->shows_progress) {
        (void)fprintf(stderr, "deputy-bench: round %lld, %s: %.2f us\n", (long long)round + 1,
                      rows[i].name, beds[i].rounds[round]);
      }
    }
  }
  return STATUS_OK;
}

static enum status run(json_t *summary, const void *arg, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct floor_options *o = arg;
  const struct sigaction action = {.sa_handler = on_signal};
  struct bed *beds = calloc(NUM_ROWS, sizeof(*beds));
  json_t *list = json_array();
  size_t num = 0;

  (void)sigaction(SIGINT, &action, NULL);
  (void)sigaction(SIGTERM, &action, NULL);
  if (beds == NULL) {
    st = STATUS_MEMORY;
    goto out;
  }
  for (size_t i = 0; i < NUM_ROWS; i++) {
    if (is_wanted(&rows[i], o->only)) {
      num += 1;
      st = bed_init(&beds[i], &rows[i], o->num_rounds);
      if (st != STATUS_OK) {
        st = errmsg_set(err, st, "%s cannot be prepared: %s", rows[i].name,
                        tls13_fault_name(beds[i].client.fault));
        goto out;
      }
    }
  }
  if (num == 0) {
    st = errmsg_set(err, STATUS_CONFIG, "--only %s: no such row", o->only);
    goto out;
  }
  TRY(measure(beds, o, err));
  for (size_t i = 0; i < NUM_ROWS; i++) {
    if (beds[i].num_rounds > 0) {
      (void)json_array_append_new(list, row_json(&beds[i]));
    }
  }
  if (o->label != NULL) {
    (void)json_object_set_new(summary, "label", json_string(o->label));
  }
  (void)json_object_set(summary, "rows", list);
  (void)json_object_set_new(summary, "interrupted", json_boolean(is_stopped));

out:
  for (size_t i = 0; beds != NULL && i < NUM_ROWS; i++) {
    bed_cleanup(&beds[i]);
  }
  free(beds);
  json_decref(list);
  return st;
}

const struct subcommand floor_subcommand = {
    .name = "floor",
    .summary = "the least that can be spent: handshakes in memory, bare crypto",
    .help = "Measures the least CPU time that a handshake's work can cost here.",
    .options = table,
    .options_len = sizeof(struct floor_options),
    .run = run,
};
