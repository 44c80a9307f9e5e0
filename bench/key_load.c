// SPDX-License-Identifier: Apache-2.0
#include "bench/key_load.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "common/net/loop.h"
#include "common/tls/tls_stream.h"

#define NS_PER_MS 1000000LL
#define LATE_NS 1000000
#define TICK_MS 20     // how exact timeouts are
#define REOPEN_MS 100  // before a connection that ended is tried again
#define PING_LEN 32U
#define MESSAGE_LEN 130U  // a CertificateVerify input with SHA-256
#define SIGNED_TEXT "TLS 1.3, server CertificateVerify"

// A request on its way.
struct flight {
  bool is_used;
  bool is_warmup;
  bool is_checked;
  uint16_t generation;
  int64_t number;
  int64_t scheduled_ns;
  int64_t start_ns;
  const struct key_target *key;  // NULL: a ping
};

struct key_conn {
  struct key_load *load;
  struct tls_stream *stream;
  bool is_open;
  int64_t begun_ns;
  int64_t reopen_ns;  // 0: not wanted
  struct flight *flights;
  uint16_t *free;
  size_t num_free;
};

struct key_load {
  const struct key_load_options *options;
  struct key_load_result *result;
  struct recorder *recorder;
  struct loop *loop;
  struct timer tick;
  struct io alarm_io;
  int alarm;  // timerfd: arrivals finer than milliseconds
  struct key_conn *conns;
  size_t next_conn;
  struct pacer pacer;
  bool is_started;  // all connections have been open once
  bool is_over;
  int64_t num_begun;
  int64_t num_in_flight;
  uint64_t num_full;  // signatures that came, for the sample to check
  int64_t deadline_ns;
  int64_t begun_ns;
  int64_t last_open_ns;  // when a connection was last seen open
  int64_t shown_ns;
  uint64_t shown_num;
  enum status status;
  struct errmsg *err;
  char last_end[64];
};

// --- what is left to do ----------------------------------------------------------------

static bool is_open_loop(const struct key_load *load) { return load->options->rate_per_s > 0; }

static bool has_left(const struct key_load *load, int64_t due_ns) {
  const struct key_load_options *o = load->options;
  if (load->is_over || o->is_holding || (o->count > 0 && load->num_begun >= o->count + o->warmup)) {
    return false;
  }
  return load->deadline_ns == 0 || due_ns < load->deadline_ns;
}

static void start_measuring(struct key_load *load, int64_t due_ns) {
  if (load->recorder->measure_start_ns != 0 || load->num_begun < load->options->warmup) {
    return;
  }
  recorder_start_measuring(load->recorder);
  if (load->options->duration_ms > 0) {
    load->deadline_ns = due_ns + load->options->duration_ms * NS_PER_MS;
  }
}

static void finish(struct key_load *load) {
  if (!load->is_over) {
    load->is_over = true;
    recorder_stop_measuring(load->recorder);
    loop_stop(load->loop);
  }
}

// Held connections end with the time, or with a signal.
static bool is_held(const struct key_load *load) {
  return load->options->is_holding &&
         (load->deadline_ns == 0 || recorder_now_ns() < load->deadline_ns);
}

static void finish_when_done(struct key_load *load) {
  const int64_t due_ns = is_open_loop(load) ? pacer_due_ns(&load->pacer) : recorder_now_ns();
  if (load->is_started && load->num_in_flight == 0 && !is_held(load) && !has_left(load, due_ns)) {
    finish(load);
  }
}

// --- one request -----------------------------------------------------------------------

// The message is made of the number again when its signature is checked.
static void write_message(uint8_t out[MESSAGE_LEN], int64_t number) {
  memset(out, 0x20, 64);
  memcpy(out + 64, SIGNED_TEXT, sizeof(SIGNED_TEXT));
  memset(out + 64 + sizeof(SIGNED_TEXT), 0, 32);
  memcpy(out + 64 + sizeof(SIGNED_TEXT), &number, sizeof(number));
}

static size_t item_len(struct bytes value) { return value.len == 0 ? 0 : 3 + value.len; }

// The padding is the last item: without it the packet ends sooner.
static size_t cut_padding(uint8_t *packet, const struct frame *frame) {
  const size_t body_len =
      3 + 1 + item_len(frame->payload) + item_len(frame->extra) + item_len(frame->ski);
  packet[2] = (uint8_t)(body_len >> 8);
  packet[3] = (uint8_t)body_len;
  return FRAME_HEADER_LEN + body_len;
}

static size_t write_request(uint8_t *out, const struct key_load_options *o,
                            const struct flight *flight, uint32_t id) {
  uint8_t message[MESSAGE_LEN];
  uint8_t digest[64];
  size_t digest_len = 0;
  size_t len = 0;
  struct frame frame = {.id = id, .has_opcode = true};
  write_message(message, flight->number);
  if (flight->key == NULL) {
    frame.opcode = FRAME_OP_PING;
    frame.payload = bytes_of(message, PING_LEN);
  } else {
    const struct scheme *scheme = flight->key->scheme;
    frame.opcode = scheme->opcode;
    frame.ski = bytes_of(flight->key->ski, FRAME_SKI_LEN);
    CHECK(scheme_digest(scheme, digest, &digest_len, bytes_of(message, MESSAGE_LEN)) == STATUS_OK);
    frame.payload = digest_len == 0 ? bytes_of(message, MESSAGE_LEN) : bytes_of(digest, digest_len);
    if (digest_len != 0 && !o->is_blind) {
      frame.extra = bytes_of(message, MESSAGE_LEN);
    }
  }
  CHECK(frame_encode(out, FRAME_PAD_TO_LEN, &len, &frame) == STATUS_OK);
  return o->is_unpadded ? cut_padding(out, &frame) : len;
}

// Sends the next request; false when the connection's output is full.
static bool begin_request(struct key_conn *conn, int64_t scheduled_ns) {
  struct key_load *load = conn->load;
  const struct key_load_options *o = load->options;
  uint8_t *out = NULL;
  start_measuring(load, scheduled_ns == 0 ? recorder_now_ns() : scheduled_ns);
  if (tls_stream_reserve(conn->stream, &out, FRAME_PAD_TO_LEN) != STATUS_OK) {
    return false;
  }
  const uint16_t index = conn->free[--conn->num_free];
  struct flight *flight = &conn->flights[index];
  flight->is_used = true;
  flight->generation += 1;
  flight->number = load->num_begun++;
  flight->is_warmup = flight->number < o->warmup;
  flight->is_checked = false;
  flight->start_ns = recorder_now_ns();
  flight->scheduled_ns = scheduled_ns == 0 ? flight->start_ns : scheduled_ns;
  flight->key = o->num_keys == 0 ? NULL : &o->keys[(size_t)flight->number % o->num_keys];
  load->num_in_flight += 1;
  load->result->num_late += !flight->is_warmup && flight->start_ns - flight->scheduled_ns > LATE_NS;
  tls_stream_commit(conn->stream,
                    write_request(out, o, flight, (uint32_t)flight->generation << 16 | index));
  return true;
}

static void end_request(struct key_conn *conn, struct flight *flight, const char *failure) {
  struct key_load *load = conn->load;
  const struct sample s = {.number = (uint64_t)flight->number,
                           .scheduled_ns = flight->scheduled_ns,
                           .start_ns = flight->start_ns,
                           .end_ns = recorder_now_ns(),
                           .is_warmup = flight->is_warmup,
                           .is_verified = flight->is_checked,
                           .name = flight->key == NULL ? NULL : flight->key->name,
                           .failure = failure};
  recorder_add(load->recorder, &s);
  if (failure == NULL && !flight->is_warmup) {
    hdr_record(&load->recorder->latencies[LATENCY_REQUEST], s.end_ns - s.scheduled_ns);
    hdr_record(&load->recorder->latencies[LATENCY_SERVICE], s.end_ns - s.start_ns);
    word_counts_add(&load->result->schemes,
                    flight->key == NULL ? "ping" : flight->key->scheme->name, 1);
  }
  flight->is_used = false;
  conn->free[conn->num_free++] = (uint16_t)(flight - conn->flights);
  load->num_in_flight -= 1;
}

// --- when requests begin ---------------------------------------------------------------

static void fill_closed(struct key_conn *conn) {
  const struct key_load *load = conn->load;
  while (load->is_started && conn->is_open && conn->num_free > 0 &&
         has_left(load, load->deadline_ns == 0 ? 0 : recorder_now_ns())) {
    if (!begin_request(conn, 0)) {
      break;
    }
  }
}

static struct key_conn *find_place(struct key_load *load) {
  for (int64_t i = 0; i < load->options->connections; i++) {
    struct key_conn *conn = &load->conns[load->next_conn++ % (size_t)load->options->connections];
    if (conn->is_open && conn->num_free > 0) {
      return conn;
    }
  }
  return NULL;
}

static void set_alarm(struct key_load *load, int64_t due_ns) {
  const struct itimerspec spec = {
      .it_value = {.tv_sec = due_ns / 1000000000, .tv_nsec = due_ns % 1000000000}};
  (void)timerfd_settime(load->alarm, TFD_TIMER_ABSTIME, &spec, NULL);
}

// Sends every request that is due. One for which there is no place stays due, and is
// charged for its wait; an answer or the next tick comes back here.
static void fill_open(struct key_load *load) {
  while (load->is_started && has_left(load, pacer_due_ns(&load->pacer))) {
    const int64_t due_ns = pacer_due_ns(&load->pacer);
    if (due_ns > recorder_now_ns()) {
      set_alarm(load, due_ns);
      break;
    }
    struct key_conn *conn = find_place(load);
    if (conn == NULL || !begin_request(conn, due_ns)) {
      break;
    }
    pacer_take(&load->pacer);
    tls_stream_flush(conn->stream);
  }
}

static void fill(struct key_load *load) {
  if (is_open_loop(load)) {
    fill_open(load);
    return;
  }
  for (int64_t i = 0; i < load->options->connections; i++) {
    struct key_conn *conn = &load->conns[i];
    fill_closed(conn);
    if (conn->is_open) {
      tls_stream_flush(conn->stream);
    }
  }
}

static void on_alarm(void *arg, unsigned ready) {
  struct key_load *load = arg;
  uint64_t expirations = 0;
  (void)ready;
  (void)!read(load->alarm, &expirations, sizeof(expirations));
  fill_open(load);
}

// --- answers -----------------------------------------------------------------------------

static const char *check_signature(struct key_load *load, struct flight *flight,
                                   struct bytes signature) {
  uint8_t message[MESSAGE_LEN];
  const int64_t every = load->options->verify_every;
  if (every == 0 || flight->key->public_key == NULL || load->num_full++ % (uint64_t)every != 0) {
    return NULL;
  }
  write_message(message, flight->number);
  if (scheme_verify(flight->key->scheme, flight->key->public_key, bytes_of(message, MESSAGE_LEN),
                    signature) != STATUS_OK) {
    ERR_clear_error();
    return "bad_signature";
  }
  flight->is_checked = true;
  return NULL;
}

static const char *judge(struct key_load *load, struct flight *flight, const struct frame *frame) {
  if (frame->opcode == FRAME_OP_ERROR) {
    return frame->payload.len == 1 ? frame_error_name((enum frame_error)frame->payload.data[0])
                                   : "malformed";
  }
  if (flight->key == NULL) {
    return frame->opcode == FRAME_OP_PONG && frame->payload.len == PING_LEN ? NULL : "malformed";
  }
  if (frame->opcode != FRAME_OP_SUCCESS || frame->payload.len == 0) {
    return "malformed";
  }
  return check_signature(load, flight, frame->payload);
}

static void take_answer(struct key_conn *conn, const struct frame_header *header,
                        struct bytes body) {
  struct frame frame;
  const size_t index = header->id & 0xffff;
  struct flight *flight = &conn->flights[index];
  if (index >= (size_t)conn->load->options->window || !flight->is_used ||
      flight->generation != header->id >> 16) {
    return;  // one that was given up
  }
  const bool is_good = frame_body_decode(&frame, body) == STATUS_OK && frame.has_opcode;
  end_request(conn, flight, is_good ? judge(conn->load, flight, &frame) : "malformed");
}

static void on_data(void *arg) {
  struct key_conn *conn = arg;
  while (true) {
    struct frame_header header;
    const struct bytes in = tls_stream_input(conn->stream);
    if (in.len < FRAME_HEADER_LEN) {
      break;
    }
    frame_header_decode(&header, in.data);
    const size_t len = FRAME_HEADER_LEN + header.body_len;
    if (in.len < len) {
      break;
    }
    take_answer(conn, &header, bytes_of(in.data + FRAME_HEADER_LEN, header.body_len));
    tls_stream_consume(conn->stream, len);
  }
  if (is_open_loop(conn->load)) {
    fill_open(conn->load);
  } else {
    fill_closed(conn);
  }
  finish_when_done(conn->load);
}

// --- connections -------------------------------------------------------------------------

static void begin_holding(struct key_load *load) {
  const struct key_load_options *o = load->options;
  if (o->duration_ms > 0) {
    load->deadline_ns = recorder_now_ns() + o->duration_ms * NS_PER_MS;
  }
  (void)fprintf(stderr, "deputy-bench: holding %lld connections\n", (long long)o->connections);
}

// A loop with something posted does not wait.
static void on_poll(void *arg) {
  struct key_load *load = arg;
  if (!load->is_over) {
    loop_post(load->loop, on_poll, load);
  }
}

static void signal_servers(const struct key_load *load, int signo) {
  for (size_t i = 0; i < load->recorder->server.num; i++) {
    (void)kill(load->recorder->server.pids[i], signo);
  }
}

static void fill_burst(struct key_load *load) {
  const int64_t ms = load->options->burst_ms;
  const struct timespec away = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * NS_PER_MS};
  signal_servers(load, SIGSTOP);
  fill(load);
  signal_servers(load, SIGCONT);
  (void)nanosleep(&away, NULL);
}

static void start_when_open(struct key_load *load) {
  for (int64_t i = 0; i < load->options->connections; i++) {
    if (!load->conns[i].is_open) {
      return;
    }
  }
  load->is_started = true;
  if (is_open_loop(load)) {
    pacer_init(&load->pacer, load->options->pacer, load->options->rate_per_s, recorder_now_ns(),
               load->options->seed);
  }
  if (load->options->is_polling) {
    on_poll(load);
  }
  if (load->options->is_holding) {
    begin_holding(load);
  } else if (load->options->burst_ms > 0) {
    fill_burst(load);
  } else {
    fill(load);
  }
}

static void on_open(void *arg) {
  struct key_conn *conn = arg;
  struct key_load *load = conn->load;
  conn->is_open = true;
  load->result->num_opened += 1;
  hdr_record(&load->result->connect, recorder_now_ns() - conn->begun_ns);
  if (!load->is_started) {
    start_when_open(load);
  } else {
    fill(load);
  }
}

static void on_eof(void *arg) {
  struct key_conn *conn = arg;
  tls_stream_close_when_sent(conn->stream);
}

static void on_end(void *arg, enum tls_stream_end end, const char *why) {
  struct key_conn *conn = arg;
  struct key_load *load = conn->load;
  tls_stream_free(conn->stream);
  conn->stream = NULL;
  conn->is_open = false;
  conn->reopen_ns = recorder_now_ns() + REOPEN_MS * NS_PER_MS;
  (void)snprintf(load->last_end, sizeof(load->last_end), "%s%s%s", tls_stream_end_name(end),
                 why == NULL || why[0] == '\0' ? "" : ": ", why == NULL ? "" : why);
  if (!load->is_over) {
    word_counts_add(&load->result->ends, load->last_end, 1);
  }
  for (int64_t i = 0; i < load->options->window; i++) {
    if (conn->flights[i].is_used) {
      end_request(conn, &conn->flights[i], "connection_lost");
    }
  }
  finish_when_done(load);
}

static const struct tls_stream_events events = {
    .on_open = on_open, .on_data = on_data, .on_eof = on_eof, .on_end = on_end};

static void open_conn(struct key_load *load, struct key_conn *conn) {
  const struct key_load_options *o = load->options;
  const size_t window_len = (size_t)o->window * FRAME_PAD_TO_LEN;
  const struct tls_stream_limits limits = {
      .handshake_ms = o->timeout_ms,
      .write_ms = o->timeout_ms,
      .max_input_len = FRAME_MAX_LEN > window_len ? FRAME_MAX_LEN : window_len,
      .max_output_len = window_len + FRAME_MAX_LEN,
  };
  conn->reopen_ns = 0;
  conn->begun_ns = recorder_now_ns();
  if (tls_stream_connect(&conn->stream, load->loop, o->ctx, &o->target, o->host, &limits, &events,
                         conn) != STATUS_OK) {
    conn->stream = NULL;
    conn->reopen_ns = conn->begun_ns + REOPEN_MS * NS_PER_MS;
    (void)snprintf(load->last_end, sizeof(load->last_end), "connect_failed: %s", strerror(errno));
    word_counts_add(&load->result->ends, load->last_end, 1);
  }
}

// --- the clock -----------------------------------------------------------------------------

static void expire(struct key_conn *conn, int64_t now_ns) {
  const int64_t oldest_ns = now_ns - conn->load->options->timeout_ms * NS_PER_MS;
  for (int64_t i = 0; i < conn->load->options->window; i++) {
    if (conn->flights[i].is_used && conn->flights[i].start_ns < oldest_ns) {
      end_request(conn, &conn->flights[i], "timeout");
    }
  }
}

static void show_progress(struct key_load *load, int64_t now_ns) {
  const struct recorder *r = load->recorder;
  if (!load->options->shows_progress || now_ns - load->shown_ns < 1000 * NS_PER_MS) {
    return;
  }
  const uint64_t num = r->num_ok + r->num_warmup;
  (void)fprintf(stderr, "deputy-bench: %.1f s: %llu ok, %llu failed, %lld in flight, %.0f/s\n",
                (double)(now_ns - r->zero_ns) / 1e9, (unsigned long long)r->num_ok,
                (unsigned long long)r->num_failed, (long long)load->num_in_flight,
                (double)(num - load->shown_num) * 1e9 / (double)(now_ns - load->shown_ns));
  load->shown_ns = now_ns;
  load->shown_num = num;
}

// What was due before the deadline and could not be sent until long after it.
static void fail_unsent(struct key_load *load, int64_t now_ns) {
  if (!is_open_loop(load) || !load->is_started || load->deadline_ns == 0 ||
      now_ns < load->deadline_ns + load->options->timeout_ms * NS_PER_MS) {
    return;
  }
  while (has_left(load, pacer_due_ns(&load->pacer))) {
    const struct sample s = {.number = (uint64_t)load->num_begun++,
                             .scheduled_ns = pacer_due_ns(&load->pacer),
                             .failure = "not_started"};
    recorder_add(load->recorder, &s);
    pacer_take(&load->pacer);
  }
}

// Without a connection for so long there is nothing to measure any more.
static void give_up(struct key_load *load, int64_t now_ns) {
  if (now_ns - load->last_open_ns < load->options->timeout_ms * NS_PER_MS ||
      (load->is_started && load->deadline_ns != 0 && now_ns < load->deadline_ns)) {
    return;
  }
  if (!load->is_started) {
    load->status = errmsg_set(load->err, STATUS_UNAVAILABLE, "no connection to the key server: %s",
                              load->last_end[0] == '\0' ? "timeout" : load->last_end);
  }
  finish(load);
}

static void on_tick(void *arg) {
  struct key_load *load = arg;
  const int64_t now_ns = recorder_now_ns();
  for (int64_t i = 0; i < load->options->connections; i++) {
    struct key_conn *conn = &load->conns[i];
    expire(conn, now_ns);
    if (conn->is_open) {
      load->last_open_ns = now_ns;
    }
    if (conn->reopen_ns != 0 && conn->reopen_ns <= now_ns) {
      open_conn(load, conn);
    }
  }
  fail_unsent(load, now_ns);
  fill(load);
  show_progress(load, now_ns);
  finish_when_done(load);
  give_up(load, now_ns);
  timer_arm_ms(&load->tick, TICK_MS);
}

static void on_signal(void *arg) {
  struct key_load *load = arg;
  load->result->is_interrupted = true;
  finish(load);
}

// --- set-up ----------------------------------------------------------------------------------

static enum status make_conns(struct key_load *load) {
  const struct key_load_options *o = load->options;
  load->conns = calloc((size_t)o->connections, sizeof(*load->conns));
  if (load->conns == NULL) {
    return STATUS_MEMORY;
  }
  for (int64_t i = 0; i < o->connections; i++) {
    struct key_conn *conn = &load->conns[i];
    conn->load = load;
    conn->flights = calloc((size_t)o->window, sizeof(*conn->flights));
    conn->free = calloc((size_t)o->window, sizeof(*conn->free));
    if (conn->flights == NULL || conn->free == NULL) {
      return STATUS_MEMORY;
    }
    for (int64_t k = o->window; k > 0; k--) {
      conn->free[conn->num_free++] = (uint16_t)(k - 1);
    }
  }
  return STATUS_OK;
}

static enum status open_loop(struct key_load *load) {
  enum status st = STATUS_OK;
  (void)prctl(PR_SET_TIMERSLACK, 1UL, 0, 0, 0);
  TRY(loop_new(&load->loop));
  TRY(loop_on_signal(load->loop, SIGINT, on_signal, load));
  TRY(loop_on_signal(load->loop, SIGTERM, on_signal, load));
  TRY(timer_init(&load->tick, load->loop, on_tick, load));
  load->alarm = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (load->alarm < 0) {
    st = STATUS_SYSTEM;
    goto out;
  }
  TRY(io_init(&load->alarm_io, load->loop, load->alarm, on_alarm, load));

out:
  return st;
}

static void key_load_cleanup(struct key_load *load) {
  for (int64_t i = 0; load->conns != NULL && i < load->options->connections; i++) {
    struct key_conn *conn = &load->conns[i];
    if (conn->stream != NULL) {
      tls_stream_free(conn->stream);
    }
    free(conn->flights);
    free(conn->free);
  }
  free(load->conns);
  if (load->alarm >= 0) {
    io_cleanup(&load->alarm_io);
    (void)close(load->alarm);
  }
  timer_cleanup(&load->tick);
  loop_free(load->loop);
}

static void abandon_flights(struct key_load *load) {
  for (int64_t i = 0; i < load->options->connections; i++) {
    struct key_conn *conn = &load->conns[i];
    for (int64_t k = 0; k < load->options->window; k++) {
      if (conn->flights[k].is_used) {
        end_request(conn, &conn->flights[k], FAILURE_ABANDONED);
      }
    }
  }
}

enum status key_load_run(struct key_load_result *out, const struct key_load_options *options,
                         struct recorder *recorder, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct key_load load = {
      .options = options, .result = out, .recorder = recorder, .alarm = -1, .err = err};

  TRY(open_loop(&load));
  TRY(make_conns(&load));
  load.begun_ns = recorder_now_ns();
  load.last_open_ns = load.begun_ns;
  load.shown_ns = load.begun_ns;
  for (int64_t i = 0; i < options->connections; i++) {
    open_conn(&load, &load.conns[i]);
  }
  timer_arm_ms(&load.tick, TICK_MS);
  loop_run(load.loop);
  abandon_flights(&load);
  st = load.status;

out:
  recorder_stop_measuring(recorder);
  key_load_cleanup(&load);
  if (st != STATUS_OK && err->text[0] == '\0') {
    (void)errmsg_set(err, st, "cannot start: %s", strerror(errno));
  }
  return st;
}
