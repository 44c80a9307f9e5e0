// SPDX-License-Identifier: Apache-2.0
// keyserver: signatures from a key server over a number of connections, each with
// a window of requests under way. The figure for cost is the server's CPU time
// (--pid) per signature; latency is from a request's entry into the output buffer
// to its reply.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/hdr.h"
#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/net/loop.h"
#include "common/tls/context.h"
#include "common/tls/tls_stream.h"
#include "common/wire/frame.h"
#include "common/wire/scheme.h"

#define MAX_CONNECTIONS 20000
#define MAX_WINDOW 1024
#define ROOM (FRAME_PAD_TO_LEN + 512u)
#define TICK_MS 10
#define MESSAGE_LEN 130u  // a TLS 1.3 CertificateVerify input with a SHA-256 transcript

struct keyserver_bench_options {
  const char *target;
  const char *server_name;
  const char *ca;
  const char *certificate;
  const char *key;
  const char *ski;
  const char *scheme;
  const char *label;
  int64_t num_connections;
  int64_t window;
  int64_t count;
  int64_t duration_ms;
  int64_t warmup_ms;
  int64_t pid;
  bool is_blind;
  bool is_tls12;
  bool is_unpadded;
};

#define FIELD(name) offsetof(struct keyserver_bench_options, name)
// clang-format off
static const struct option_row table[] = {
    {"target", OPTION_TEXT, FIELD(target), NULL, 0, 0, NULL,
     "HOST:PORT of the key server", true},
    {"server-name", OPTION_TEXT, FIELD(server_name), "localhost", 0, 0, NULL,
     "name or address that its certificate must have", false},
    {"ca", OPTION_TEXT, FIELD(ca), NULL, 0, 0, NULL, "PEM file: CA of the key server", true},
    {"certificate", OPTION_TEXT, FIELD(certificate), NULL, 0, 0, NULL,
     "PEM file: the client's certificate", true},
    {"key", OPTION_TEXT, FIELD(key), NULL, 0, 0, NULL, "PEM file: the client's key", true},
    {"ski", OPTION_TEXT, FIELD(ski), NULL, 0, 0, NULL, "the signing key's identifier, hex", true},
    {"scheme", OPTION_TEXT, FIELD(scheme), "ecdsa_secp256r1_sha256", 0, 0, NULL,
     "what to sign with", false},
    {"connections", OPTION_COUNT, FIELD(num_connections), "1", 1, MAX_CONNECTIONS, NULL,
     "connections at a time", false},
    {"window", OPTION_COUNT, FIELD(window), "64", 1, MAX_WINDOW, NULL,
     "requests under way on each", false},
    {"count", OPTION_COUNT, FIELD(count), NULL, 1, 1e12, NULL,
     "signatures to measure (default: as many as the duration allows)", false},
    {"duration", OPTION_DURATION, FIELD(duration_ms), "5s", 1, 86400000, NULL,
     "how long to measure", false},
    {"warmup", OPTION_DURATION, FIELD(warmup_ms), "500ms", 0, 3600000, NULL,
     "how long before that", false},
    {"pid", OPTION_COUNT, FIELD(pid), NULL, 1, 1e9, NULL,
     "the server's process, whose CPU time is counted", false},
    {"blind", OPTION_FLAG, FIELD(is_blind), NULL, 0, 0, NULL,
     "send the digest only, as foreign clients do", false},
    {"unpadded", OPTION_FLAG, FIELD(is_unpadded), NULL, 0, 0, NULL,
     "send packets without padding", false},
    {"tls12", OPTION_FLAG, FIELD(is_tls12), NULL, 0, 0, NULL, "accept TLS 1.2", false},
    {"label", OPTION_TEXT, FIELD(label), NULL, 0, 0, NULL, "text to keep in the summary", false},
    {NULL, OPTION_END, 0, NULL, 0, 0, NULL, NULL, false},
};
// clang-format on

struct run;

struct bench_conn {
  struct run *run;
  struct tls_stream *stream;
  int64_t sent_ns[MAX_WINDOW];  // by id: ids are the places in the window
};

struct run {
  const struct keyserver_bench_options *options;
  struct loop *loop;
  SSL_CTX *tls;
  struct timer tick;
  struct bench_conn *conns;
  size_t num_open;
  size_t num_lost;
  char why[160];
  uint8_t packet[ROOM];
  size_t packet_len;
  bool is_measuring;
  int64_t started_us;
  int64_t ended_us;
  double cpu_before_s;
  double cpu_after_s;
  uint64_t num_signed;
  uint64_t num_errors;
  uint8_t last_error;
  struct hdr latency;
};

static int64_t now_ns(void) { return clock_monotonic_us() * 1000; }

// cpu_s is the user and system time of a process so far, from its stat file.
static double cpu_s(int64_t pid) {
  char path[64];
  char text[1024] = {0};
  unsigned long user = 0;
  unsigned long system = 0;
  const char *rest = NULL;
  FILE *file = NULL;

  (void)snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
  file = pid == 0 ? NULL : fopen(path, "re");
  if (file == NULL) {
    return 0;
  }
  rest = fgets(text, sizeof text, file) == NULL ? NULL : strrchr(text, ')');
  (void)fclose(file);
  if (rest == NULL ||  // up to the last ")": a program's name may hold anything
      sscanf(rest, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2) {
    return 0;
  }
  return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

// --- one request -------------------------------------------------------------------------

static enum status make_packet(struct run *run, struct errmsg *err) {
  static const char context[] = "TLS 1.3, server CertificateVerify";
  const struct scheme *scheme = scheme_by_name(run->options->scheme);
  uint8_t message[MESSAGE_LEN] = {0};
  uint8_t digest[64];
  uint8_t ski[FRAME_SKI_LEN];
  size_t digest_len = 0;
  struct frame frame = {.id = 0, .has_opcode = true};
  enum status st = STATUS_OK;

  if (scheme == NULL) {
    return errmsg_set(err, STATUS_CONFIG, "--scheme \"%s\" is none", run->options->scheme);
  }
  if (bytes_from_hex(ski, sizeof ski, run->options->ski) != STATUS_OK) {
    return errmsg_set(err, STATUS_CONFIG, "--ski must be 40 hex digits");
  }
  memset(message, ' ', 64);
  memcpy(message + 64, context, sizeof context);
  TRY(scheme_digest(scheme, digest, &digest_len, bytes_of(message, sizeof message)));
  frame.opcode = scheme->opcode;
  frame.ski = bytes_of(ski, sizeof ski);
  frame.payload =
      digest_len == 0 ? bytes_of(message, sizeof message) : bytes_of(digest, digest_len);
  if (!run->options->is_blind && digest_len != 0) {
    frame.extra = bytes_of(message, sizeof message);
  }
  TRY(frame_encode(run->packet, sizeof run->packet, &run->packet_len, &frame));
  if (run->options->is_unpadded) {
    // Header, opcode, payload, message and SKI; the padding item is cut off.
    size_t len = FRAME_HEADER_LEN + 3 + 1 + 3 + frame.payload.len + 3 + sizeof ski;
    len += frame.extra.len > 0 ? 3 + frame.extra.len : 0;
    run->packet_len = len;
    run->packet[2] = (uint8_t)((len - FRAME_HEADER_LEN) >> 8);
    run->packet[3] = (uint8_t)(len - FRAME_HEADER_LEN);
  }

out:
  return st;
}

static void lose(struct bench_conn *conn, const char *why) {
  conn->run->num_lost++;
  (void)snprintf(conn->run->why, sizeof conn->run->why, "%s", why);
  tls_stream_free(conn->stream);
  conn->stream = NULL;
  loop_stop(conn->run->loop);
}

static void ask(struct bench_conn *conn, uint32_t id, int64_t at_ns) {
  struct run *run = conn->run;
  uint8_t *out = NULL;

  if (tls_stream_reserve(conn->stream, &out, run->packet_len) != STATUS_OK) {
    return;  // the window is far below the buffer's size: the connection is over
  }
  memcpy(out, run->packet, run->packet_len);
  out[6] = (uint8_t)(id >> 8);
  out[7] = (uint8_t)id;
  tls_stream_commit(conn->stream, run->packet_len);
  conn->sent_ns[id] = at_ns;
}

static void note_reply(struct bench_conn *conn, const struct frame *reply, int64_t at_ns) {
  struct run *run = conn->run;

  if (!run->is_measuring) {
    return;
  }
  if (reply->opcode != FRAME_OP_SUCCESS) {
    run->num_errors++;
    run->last_error = reply->payload.len == 1 ? reply->payload.data[0] : 0;
    return;
  }
  run->num_signed++;
  hdr_record(&run->latency, at_ns - conn->sent_ns[reply->id]);
}

static void on_data(void *arg) {
  struct bench_conn *conn = arg;
  const int64_t at_ns = now_ns();

  for (;;) {
    const struct bytes in = tls_stream_input(conn->stream);
    struct frame_header header;
    struct frame reply = {0};
    if (in.len < FRAME_HEADER_LEN) {
      return;
    }
    frame_header_decode(&header, in.data);
    if (in.len < FRAME_HEADER_LEN + header.body_len) {
      return;
    }
    if (frame_body_decode(&reply, bytes_of(in.data + FRAME_HEADER_LEN, header.body_len)) !=
            STATUS_OK ||
        header.id >= (uint64_t)conn->run->options->window) {
      lose(conn, "a reply that makes no sense");
      return;
    }
    reply.id = header.id;
    note_reply(conn, &reply, at_ns);
    tls_stream_consume(conn->stream, FRAME_HEADER_LEN + header.body_len);
    ask(conn, reply.id, at_ns);
  }
}

static void on_open(void *arg) {
  struct bench_conn *conn = arg;
  conn->run->num_open++;
  for (uint32_t id = 0; id < (uint32_t)conn->run->options->window; id++) {
    ask(conn, id, now_ns());
  }
}

static void on_end(void *arg, enum tls_stream_end end, const char *why) {
  (void)end;
  lose(arg, why);
}

static const struct tls_stream_events events = {
    .on_open = on_open, .on_data = on_data, .on_end = on_end};

// --- the run ---------------------------------------------------------------------------------

static void on_tick(void *arg) {
  struct run *run = arg;
  const struct keyserver_bench_options *o = run->options;
  const int64_t now_us = clock_monotonic_us();

  timer_arm_ms(&run->tick, TICK_MS);
  if (run->num_open < (size_t)o->num_connections) {
    run->started_us = now_us;
    return;
  }
  if (!run->is_measuring && now_us - run->started_us >= o->warmup_ms * 1000) {
    run->is_measuring = true;
    run->cpu_before_s = cpu_s(o->pid);
    run->started_us = now_us;
  } else if (run->is_measuring && (now_us - run->started_us >= o->duration_ms * 1000 ||
                                   (o->count > 0 && run->num_signed >= (uint64_t)o->count))) {
    run->cpu_after_s = cpu_s(o->pid);
    run->ended_us = now_us;
    loop_stop(run->loop);
  }
}

static enum status connect_all(struct run *run, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct keyserver_bench_options *o = run->options;
  const struct tls_stream_limits limits = {.handshake_ms = 60000,
                                           .write_ms = 60000,
                                           .max_input_len = 4 << 20,
                                           .max_output_len = 4 << 20};
  struct address address;

  TRY(bench_resolve(&address, o->target, err));
  run->conns = calloc((size_t)o->num_connections, sizeof(struct bench_conn));
  if (run->conns == NULL) {
    TRY(STATUS_MEMORY);
  }
  for (int64_t i = 0; i < o->num_connections; i++) {
    run->conns[i].run = run;
    TRY(tls_stream_connect(&run->conns[i].stream, run->loop, run->tls, &address, o->server_name,
                           &limits, &events, &run->conns[i]));
  }

out:
  return st;
}

static json_t *summarise(const struct run *run, int argc, char **argv) {
  const double wall_s = (double)(run->ended_us - run->started_us) / 1e6;
  const double server_s = run->cpu_after_s - run->cpu_before_s;
  json_t *summary = bench_about(argc, argv);

  (void)json_object_set_new(summary, "label", json_string(run->options->label));
  (void)json_object_set_new(summary, "signed", json_integer((json_int_t)run->num_signed));
  (void)json_object_set_new(summary, "errors", json_integer((json_int_t)run->num_errors));
  (void)json_object_set_new(summary, "last_error", json_integer(run->last_error));
  (void)json_object_set_new(summary, "wall_s", json_real(wall_s));
  (void)json_object_set_new(summary, "per_s",
                            json_real(wall_s > 0 ? (double)run->num_signed / wall_s : 0));
  (void)json_object_set_new(summary, "server_cpu_s", json_real(server_s));
  (void)json_object_set_new(summary, "per_server_cpu_s",
                            json_real(server_s > 0 ? (double)run->num_signed / server_s : 0));
  (void)json_object_set_new(
      summary, "latency_us",
      json_pack("{s:f, s:f, s:f}", "p50", (double)hdr_quantile(&run->latency, 0.50) / 1000, "p99",
                (double)hdr_quantile(&run->latency, 0.99) / 1000, "max",
                (double)run->latency.max / 1000));
  return summary;
}

static enum status measure(struct run *run, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct keyserver_bench_options *o = run->options;
  const struct tls_identity identity = {.ca = (char *)(uintptr_t)o->ca,
                                        .certificate = (char *)(uintptr_t)o->certificate,
                                        .key = (char *)(uintptr_t)o->key};

  TRY(make_packet(run, err));
  TRY(tls_context_client(&run->tls, &identity, o->is_tls12, err));
  TRY(loop_new(&run->loop));
  TRY(timer_init(&run->tick, run->loop, on_tick, run));
  TRY(connect_all(run, err));
  run->started_us = clock_monotonic_us();
  timer_arm_ms(&run->tick, TICK_MS);
  loop_run(run->loop);
  if (run->num_lost > 0) {
    TRY(errmsg_set(err, STATUS_CLOSED, "a connection was lost: %s", run->why));
  }

out:
  return st;
}

static void clean(struct run *run) {
  for (int64_t i = 0; run->conns != NULL && i < run->options->num_connections; i++) {
    tls_stream_free(run->conns[i].stream);
  }
  free(run->conns);
  if (run->loop != NULL) {
    timer_cleanup(&run->tick);
    loop_free(run->loop);
  }
  SSL_CTX_free(run->tls);
  free(run);
}

int keyserver_main(int argc, char **argv) {
  struct keyserver_bench_options options = {0};
  struct errmsg err = {0};
  bool is_done = false;
  struct run *run = calloc(1, sizeof *run);
  enum status st = options_parse(&options, &is_done, table, argc, argv, &err);
  int code = 0;

  if (run == NULL) {
    return bench_fail(argv[0], STATUS_MEMORY, &err);
  }
  run->options = &options;
  if (is_done) {
    code = bench_usage(argv[0], "Signatures of a key server, pipelined.", table);
  } else {
    st = st == STATUS_OK ? measure(run, &err) : st;
    if (st == STATUS_OK) {
      bench_print(summarise(run, argc, argv));
    } else {
      code = bench_fail(argv[0], st, &err);
    }
  }
  clean(run);
  return code;
}
