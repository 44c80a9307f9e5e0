// SPDX-License-Identifier: Apache-2.0
// One connection to a key server, for ever: looked up, connected, used, pinged
// when it is quiet, lost, and after a pause made again.
#include <openssl/rand.h>
#include <string.h>

#include "common/base/log.h"
#include "common/keyclient/internal.h"
#include "common/wire/scheme.h"

#define LINES_PER_S 5
#define PING_ID 0u         // no request has it
#define PACKET_ROOM 1024u  // beside message, SNI and padding

static int64_t now_of(const struct link *link) { return loop_now_ms(link->server->kc->loop); }

uint64_t link_num_unanswered(const struct link *link) {
  return link->num_sent - link->num_received;
}

// since_ms is when the server last did what it should: answered, or owed nothing.
static int64_t since_ms(const struct link *link) {
  return link->received_ms > link->asked_ms ? link->received_ms : link->asked_ms;
}

bool link_is_suspect(const struct link *link) {
  return link_num_unanswered(link) > 0 &&
         now_of(link) - since_ms(link) > link->server->kc->attempt_ms;
}

bool link_may_take(const struct link *link) {
  return link->state == LINK_OPEN && link_num_unanswered(link) < KEYCLIENT_MAX_IN_FLIGHT &&
         tls_stream_unsent(link->stream) < KEYCLIENT_MAX_OUTPUT_LEN - FRAME_MAX_LEN;
}

// --- down -------------------------------------------------------------------------------

// retry_after_ms: doubled with each failure in a row, and not the same for all,
// so that a server that comes back is not met by everybody at once.
static int64_t retry_after_ms(const struct server *server) {
  int64_t after_ms = KEYCLIENT_RETRY_FIRST_MS;
  uint16_t random = 0;

  for (unsigned i = 0; i < server->num_failures && after_ms < KEYCLIENT_RETRY_LAST_MS; i++) {
    after_ms *= 2;
  }
  if (after_ms > KEYCLIENT_RETRY_LAST_MS) {
    after_ms = KEYCLIENT_RETRY_LAST_MS;
  }
  RAND_bytes((uint8_t *)&random, sizeof random);
  return after_ms * 3 / 4 + after_ms * random / (INT64_C(2) * UINT16_MAX);
}

static void log_down(const struct link *link, const char *event, const char *why) {
  static struct log_gate gate;
  uint64_t num_held = 0;
  char quoted[256];

  if (log_gate_pass(&gate, LINES_PER_S, &num_held)) {
    log_warn(0, event, "server=%s:%u why=%s held=%llu", link->server->host, link->server->port,
             log_quote(quoted, sizeof quoted, bytes_text(why)), (unsigned long long)num_held);
  }
}

// go_down leaves any state for PAUSED. What was sent here is told to the requests'
// side last, when the link is ready to be asked again.
static void go_down(struct link *link, const char *why) {
  struct server *server = link->server;
  struct keyclient *kc = server->kc;
  const bool was_open = link->state == LINK_OPEN;

  tls_stream_free(link->stream);
  link->stream = NULL;
  link->state = LINK_PAUSED;
  timer_arm_ms(&link->retry, retry_after_ms(server));
  if (!was_open) {
    server->num_failures++;
    counter_add_own(&kc->stats.num_connect_failed, 1);
    log_down(link, "key_server_unreachable", why);
    return;
  }
  counter_add_own(&kc->stats.num_disconnects, 1);
  log_down(link, "key_server_lost", why);
  server->num_open--;
  if (server->num_open == 0) {
    atomic_fetch_sub_explicit(&kc->num_ready, 1, memory_order_relaxed);
  }
  link_lost(link);
}

static void on_end(void *arg, enum tls_stream_end end, const char *why) {
  (void)end;
  go_down(arg, why);
}

// on_eof: a server that has closed its end answers nothing more.
static void on_eof(void *arg) { go_down(arg, "closed by the server"); }

// --- replies ------------------------------------------------------------------------------

// note_reply keeps the account of what is owed. False: more came than was asked.
static bool note_reply(struct link *link) {
  link->received_ms = now_of(link);
  if (link->num_received == link->num_sent) {
    return false;
  }
  link->num_received++;
  return true;
}

static enum status take_success(struct link *link, const struct frame *frame) {
  if (frame->payload.len == 0 || frame->payload.len > SCHEME_MAX_SIGNATURE_LEN) {
    return STATUS_FORMAT;
  }
  link_answered(link, frame->id, STATUS_OK, FRAME_ERROR_NONE, frame->payload);
  return STATUS_OK;
}

static enum status take_error(struct link *link, const struct frame *frame) {
  if (frame->payload.len != 1) {
    return STATUS_FORMAT;
  }
  link_answered(link, frame->id, STATUS_REFUSED, (enum frame_error)frame->payload.data[0],
                bytes_of(NULL, 0));
  return STATUS_OK;
}

static enum status take_reply(struct link *link, const struct frame_header *header,
                              struct bytes body) {
  struct frame frame = {0};
  enum status st =
      header->major == FRAME_VERSION_MAJOR ? frame_body_decode(&frame, body) : STATUS_FORMAT;

  if (st != STATUS_OK || !frame.has_opcode) {
    return STATUS_FORMAT;
  }
  frame.id = header->id;
  if (!note_reply(link)) {
    counter_add_own(&link->server->kc->stats.num_late_replies, 1);
    return STATUS_OK;
  }
  switch (frame.opcode) {
    case FRAME_OP_SUCCESS:
      return take_success(link, &frame);
    case FRAME_OP_ERROR:
      return take_error(link, &frame);
    case FRAME_OP_PONG:
      return STATUS_OK;
    default:
      return STATUS_FORMAT;
  }
}

// on_data takes all whole packets. Callbacks of requests run from here; they may
// ask for more, which does not touch the input.
static void on_data(void *arg) {
  struct link *link = arg;

  while (link->state == LINK_OPEN) {
    const struct bytes in = tls_stream_input(link->stream);
    struct frame_header header;

    if (in.len < FRAME_HEADER_LEN) {
      break;
    }
    frame_header_decode(&header, in.data);
    if (in.len < FRAME_HEADER_LEN + header.body_len) {
      break;
    }
    if (take_reply(link, &header, bytes_of(in.data + FRAME_HEADER_LEN, header.body_len)) !=
        STATUS_OK) {
      counter_add_own(&link->server->kc->stats.num_bad_replies, 1);
      go_down(link, "a reply that makes no sense");
      return;
    }
    tls_stream_consume(link->stream, FRAME_HEADER_LEN + header.body_len);
  }
  link_has_room(link);
}

// --- up -------------------------------------------------------------------------------------

static void on_open(void *arg) {
  struct link *link = arg;
  struct server *server = link->server;
  struct keyclient *kc = server->kc;

  link->state = LINK_OPEN;
  link->num_sent = 0;
  link->num_received = 0;
  link->received_ms = now_of(link);
  link->sent_ms = link->received_ms;
  server->num_failures = 0;
  server->num_open++;
  if (server->num_open == 1) {
    atomic_fetch_add_explicit(&kc->num_ready, 1, memory_order_relaxed);
  }
  counter_add_own(&kc->stats.num_connects, 1);
  log_debug(0, "key_server_connected", "server=%s:%u", server->host, server->port);
  link_has_room(link);
}

static const struct tls_stream_events events = {
    .on_open = on_open, .on_data = on_data, .on_eof = on_eof, .on_end = on_end};

static void on_addresses(void *arg, enum status st, const struct address *addresses, size_t num) {
  struct link *link = arg;
  struct keyclient *kc = link->server->kc;
  const struct tls_stream_limits limits = {
      .handshake_ms = kc->connect_ms,
      .idle_ms = KEYCLIENT_QUIET_MS,
      .write_ms = KEYCLIENT_QUIET_MS,
      .max_input_len = FRAME_MAX_LEN,
      .max_output_len = KEYCLIENT_MAX_OUTPUT_LEN,
  };

  link->query = NULL;
  if (st != STATUS_OK || num == 0) {
    go_down(link, "its name cannot be resolved");
    return;
  }
  link->state = LINK_CONNECTING;
  // The next attempt takes the next address, so that a dead one does not stay.
  st = tls_stream_connect(&link->stream, kc->loop, kc->tls, &addresses[link->num_attempts++ % num],
                          link->server->name, &limits, &events, link);
  if (st != STATUS_OK) {
    link->stream = NULL;
    go_down(link, status_name(st));
  }
}

void link_connect(struct link *link) {
  struct server *server = link->server;
  enum status st = STATUS_OK;

  link->state = LINK_RESOLVING;
  link->connect_ms = now_of(link);
  st = resolver_query(&link->query, server->kc->resolver, server->host, server->port, on_addresses,
                      link);
  if (st != STATUS_OK) {
    link->query = NULL;
    go_down(link, status_name(st));
  }
}

static void on_retry(void *arg) { link_connect(arg); }

void link_wake(struct link *link) {
  if (link->state == LINK_PAUSED && now_of(link) - link->connect_ms >= KEYCLIENT_WAKE_MS) {
    timer_cancel(&link->retry);
    link_connect(link);
  }
}

enum status link_init(struct link *link, struct server *server) {
  link->server = server;
  TAILQ_INIT(&link->requests);
  return timer_init(&link->retry, server->kc->loop, on_retry, link);
}

void link_cleanup(struct link *link) {
  if (link->query != NULL) {
    resolve_query_cancel(link->query);
  }
  tls_stream_free(link->stream);
  timer_cleanup(&link->retry);
}

// --- sending -----------------------------------------------------------------------------------

static enum status send_frame(struct link *link, const struct frame *frame, size_t room) {
  uint8_t *out = NULL;
  size_t len = 0;
  enum status st = STATUS_OK;

  if (tls_stream_reserve(link->stream, &out, room) != STATUS_OK) {
    return STATUS_UNAVAILABLE;
  }
  TRY(frame_encode(out, room, &len, frame));
  tls_stream_commit(link->stream, len);
  link->sent_ms = now_of(link);
  if (link_num_unanswered(link) == 0) {
    link->asked_ms = link->sent_ms;
  }
  link->num_sent++;

out:
  return st;
}

enum status link_send(struct link *link, const struct request *req) {
  const struct bytes message = bytes_of(req->message, req->message_len);
  const struct frame frame = {
      .id = (uint32_t)req->id,
      .has_opcode = true,
      .opcode = req->opcode,
      .ski = bytes_of(req->ski, sizeof req->ski),
      .payload = req->is_digest ? bytes_of(req->digest, req->digest_len) : message,
      // Ed25519 signs the message itself: sending it twice would say nothing more.
      .extra = req->is_digest ? message : bytes_of(NULL, 0),
      .sni = bytes_of(req->sni, req->sni_len),
  };
  return send_frame(link, &frame, FRAME_PAD_TO_LEN + PACKET_ROOM + req->message_len);
}

void link_tick(struct link *link) {
  const struct frame ping = {.id = PING_ID, .has_opcode = true, .opcode = FRAME_OP_PING};
  const int64_t now_ms = now_of(link);

  if (link->state != LINK_OPEN) {
    return;
  }
  if (link_num_unanswered(link) > 0 &&
      now_ms - since_ms(link) > link->server->kc->deadline_ms + KEYCLIENT_STALL_MS) {
    go_down(link, "it does not answer");
    return;
  }
  if (now_ms - link->sent_ms > link->server->kc->ping_ms) {
    (void)send_frame(link, &ping, FRAME_PAD_TO_LEN + PACKET_ROOM);
  }
}
