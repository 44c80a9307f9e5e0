// SPDX-License-Identifier: Apache-2.0
// One connection to a key server: connected, used, lost, and after a pause made again,
// for as long as pool.c wants it.
#include <string.h>

#include "common/base/clock.h"
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

// link_owes_ms counts from when the server last did what it should: answered, or owed
// nothing.
int64_t link_owes_ms(const struct link *link) {
  const int64_t since_ms = link->received_ms > link->asked_ms ? link->received_ms : link->asked_ms;

  return link_num_unanswered(link) > 0 ? now_of(link) - since_ms : 0;
}

bool link_may_take(const struct link *link) {
  return link->state == LINK_OPEN && link_num_unanswered(link) < KEYCLIENT_MAX_IN_FLIGHT &&
         tls_stream_unsent(link->stream) < KEYCLIENT_MAX_OUTPUT_LEN - FRAME_MAX_LEN;
}

// --- down -------------------------------------------------------------------------------

// retry_after_ms: doubled with each failure in a row, and not the same for all,
// so that a server that comes back is not met by everybody at once.
static int64_t retry_after_ms(const struct link *link) {
  int64_t after_ms = KEYCLIENT_RETRY_FIRST_MS;

  for (unsigned i = 0; i < link->num_failures && after_ms < KEYCLIENT_RETRY_LAST_MS; i++) {
    after_ms *= 2;
  }
  if (after_ms > KEYCLIENT_RETRY_LAST_MS) {
    after_ms = KEYCLIENT_RETRY_LAST_MS;
  }
  return keyclient_jitter_ms(after_ms);
}

static void log_down(const struct link *link, enum log_level level, const char *event,
                     const char *why) {
  static struct log_gate gate;
  uint64_t num_held = 0;
  char quoted[256];
  char address[ADDRESS_TEXT_LEN] = "-";

  if (!log_is_on(level) || !log_gate_pass(&gate, LINES_PER_S, &num_held)) {
    return;
  }
  if (link->address.len > 0) {
    address_format(address, &link->address);
  }
  log_line(level, 0, event, "server=%s address=%s why=%s held=%llu", link->server->label, address,
           log_quote(quoted, sizeof quoted, bytes_text(why)), (unsigned long long)num_held);
}

static void close_stream(struct link *link) {
  tls_stream_free(link->stream);
  link->stream = NULL;
}

// rest leaves CONNECTING or OPEN: the link is made again after a pause, or not at all.
static void rest(struct link *link, bool is_wanted) {
  link->is_leaving = false;
  if (is_wanted) {
    link->state = LINK_PAUSED;
    timer_arm_ms(&link->retry, retry_after_ms(link));
    if (link->server->num_open == 0 && !TAILQ_EMPTY(&link->server->kc->waiting)) {
      (void)link_wake(link);
    }
  } else {
    link->state = LINK_UNUSED;
  }
}

// note_closed: an open connection is no more.
static void note_closed(struct link *link) {
  struct server *server = link->server;

  kc_health_closed(link);
  server->num_open--;
  if (server->num_open == 0) {
    atomic_fetch_sub_explicit(&server->kc->num_ready, 1, memory_order_relaxed);
  }
}

static void give_up(struct link *link, const char *why) {
  struct server *server = link->server;

  close_stream(link);
  kc_pool_note_connect(server, &link->address, false);
  counter_add_own(&server->kc->stats.num_connect_failed, 1);
  // One dead address of several is not the server's failure.
  if (server->num_open == 0) {
    kc_health_failed(server, KEYCLIENT_CONNECT);
  }
  link->num_failures++;
  log_down(link, server->num_open == 0 ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, "key_server_unreachable",
           why);
  rest(link, !kc_pool_is_surplus(link));
  kc_pool_plan(server);
}

// lose leaves OPEN. What was sent here is told to the requests' side last, when the link
// is ready to be asked again.
static void lose(struct link *link, const char *why, bool is_orderly) {
  struct server *server = link->server;
  struct keyclient *kc = server->kc;
  const bool was_leaving = link->is_leaving;

  close_stream(link);
  note_closed(link);
  counter_add_own(&kc->stats.num_disconnects, 1);
  if (is_orderly) {
    counter_add_own(&server->stats.num_drained, 1);
    log_down(link, LOG_LEVEL_INFO, "key_server_closed", why);
  } else {
    log_down(link, LOG_LEVEL_WARN, "key_server_lost", why);
    if (!TAILQ_EMPTY(&link->attempts)) {
      kc_health_failed(server, KEYCLIENT_LOST);
    }
  }
  rest(link, !was_leaving && !kc_pool_is_surplus(link));
  kc_pool_plan(server);
  kc_request_link_lost(link, is_orderly);
}

void link_drop(struct link *link, const char *why) { lose(link, why, false); }

// shun: who closes one connection is about to close the others.
static void shun(struct link *link) {
  kc_pool_shun(link->server, &link->address, now_of(link) + KEYCLIENT_SHUN_MS);
}

static void on_end(void *arg, enum tls_stream_end end, const char *why) {
  struct link *link = arg;

  if (link->state == LINK_OPEN) {
    shun(link);
    lose(link, why, end == TLS_STREAM_CLOSED);
  } else {
    give_up(link, why);
  }
}

// on_eof: a server that has closed its end answers nothing more.
static void on_eof(void *arg) {
  shun(arg);
  lose(arg, "closed by the server", true);
}

// can_replace: is there another open connection that stays?
static bool can_replace(const struct server *server) {
  for (size_t i = 0; i < server->num_links; i++) {
    if (server->links[i].state == LINK_OPEN && !server->links[i].is_leaving) {
      return true;
    }
  }
  return false;
}

// link_retire: pings do not hold it up.
void link_retire(struct link *link) {
  if (link->state != LINK_OPEN || !link->is_leaving || !TAILQ_EMPTY(&link->attempts) ||
      !can_replace(link->server)) {
    return;
  }
  close_stream(link);
  note_closed(link);
  counter_add_own(&link->server->stats.num_drained, 1);
  log_down(link, LOG_LEVEL_INFO, "key_server_address_left", "drained");
  rest(link, false);
}

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
  kc_request_answered(link, frame->id, STATUS_OK, FRAME_ERROR_NONE, frame->payload);
  return STATUS_OK;
}

static enum status take_error(struct link *link, const struct frame *frame) {
  if (frame->payload.len != 1) {
    return STATUS_FORMAT;
  }
  kc_request_answered(link, frame->id, STATUS_REFUSED, (enum frame_error)frame->payload.data[0],
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
      kc_health_ponged(link);
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
      link_drop(link, "a reply that makes no sense");
      return;
    }
    tls_stream_consume(link->stream, FRAME_HEADER_LEN + header.body_len);
  }
  if (link->is_leaving) {
    link_retire(link);
  } else {
    kc_request_link_has_room(link);
  }
}

// --- up -------------------------------------------------------------------------------------

static void on_open(void *arg) {
  struct link *link = arg;
  struct server *server = link->server;
  struct keyclient *kc = server->kc;

  link->state = LINK_OPEN;
  link->is_leaving = !kc_pool_has(server, &link->address);
  link->num_sent = 0;
  link->num_received = 0;
  link->received_ms = now_of(link);
  link->sent_ms = link->received_ms;
  kc_pool_note_connect(server, &link->address, true);
  kc_pool_shun(server, &link->address, 0);  // it is back
  link->num_failures = 0;
  server->num_open++;
  if (server->num_open == 1) {
    atomic_fetch_add_explicit(&kc->num_ready, 1, memory_order_relaxed);
  }
  counter_add_own(&kc->stats.num_connects, 1);
  log_debug(0, "key_server_connected", "server=%s", server->label);
  kc_health_opened(link);
  kc_request_link_has_room(link);
  kc_pool_plan(server);
}

static const struct tls_stream_events events = {
    .on_open = on_open, .on_data = on_data, .on_eof = on_eof, .on_end = on_end};

static void connect_to(struct link *link, const struct address *address) {
  const struct keyclient *kc = link->server->kc;
  const struct tls_stream_limits limits = {
      .handshake_ms = kc->connect_ms,
      .idle_ms = KEYCLIENT_QUIET_MS,
      .write_ms = KEYCLIENT_QUIET_MS,
      .max_input_len = FRAME_MAX_LEN,
      .max_output_len = KEYCLIENT_MAX_OUTPUT_LEN,
  };
  enum status st = STATUS_OK;

  link->state = LINK_CONNECTING;
  link->connect_ms = now_of(link);
  link->address = *address;
  st = tls_stream_connect(&link->stream, kc->loop, kc->tls, address, link->server->name, &limits,
                          &events, link);
  if (st != STATUS_OK) {
    link->stream = NULL;
    link->state = LINK_PAUSED;  // no memory: in a while, and without telling anybody
    timer_arm_ms(&link->retry, KEYCLIENT_RETRY_LAST_MS);
  }
}

// link_connect takes an address that is known, at once, and has the name looked up again
// behind it: what DNS says by then counts for the next time.
void link_connect(struct link *link) {
  struct server *server = link->server;
  const struct address *address = kc_pool_choose(server);
  const bool was_resolving = link->state == LINK_RESOLVING;

  if (address != NULL) {
    kc_pool_resolve(server);
    connect_to(link, address);
  } else if (!was_resolving) {
    link->state = LINK_RESOLVING;
    link->connect_ms = now_of(link);
    link->address = (struct address){0};
    kc_pool_resolve(server);
  } else {
    link->state = LINK_PAUSED;
    timer_arm_ms(&link->retry, retry_after_ms(link));
    link->num_failures++;
    if (server->num_open == 0) {
      kc_health_failed(server, KEYCLIENT_CONNECT);
    }
    counter_add_own(&server->kc->stats.num_connect_failed, 1);
  }
}

static void on_retry(void *arg) { link_connect(arg); }

bool link_wake(struct link *link) {
  const int64_t after_ms = link->connect_ms + KEYCLIENT_WAKE_MS - now_of(link);

  if (link->state != LINK_PAUSED) {
    return false;
  }
  if (after_ms <= 0) {
    timer_cancel(&link->retry);
    link_connect(link);
  } else if (link->retry.due_ms > now_of(link) + after_ms) {
    timer_arm_ms(&link->retry, after_ms);
  }
  return true;
}

enum status link_init(struct link *link, struct server *server) {
  link->server = server;
  TAILQ_INIT(&link->attempts);
  return timer_init(&link->retry, server->kc->loop, on_retry, link);
}

void link_cleanup(struct link *link) {
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

enum status link_ping(struct link *link) {
  const struct frame ping = {.id = PING_ID, .has_opcode = true, .opcode = FRAME_OP_PING};
  enum status st = send_frame(link, &ping, FRAME_PAD_TO_LEN + PACKET_ROOM);

  if (st == STATUS_OK) {
    link->pinged_us = clock_monotonic_us();
    link->is_ping_overdue = false;
    link->quiet_ms = keyclient_jitter_ms(link->server->kc->ping_ms);
    counter_add_own(&link->server->stats.num_pings, 1);
  }
  return st;
}
