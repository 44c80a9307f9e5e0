// SPDX-License-Identifier: Apache-2.0
#include "keyserver/peer.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/net/address.h"
#include "common/tls/context.h"
#include "common/tls/tls_stream.h"
#include "common/tls/trust.h"
#include "common/wire/frame.h"
#include "keyserver/worker.h"

#define LINES_PER_S 20  // of what a peer can cause

struct peer {
  struct worker *worker;
  struct peer *next;
  struct peer *prev;
  uint64_t id;
  struct tls_stream *stream;
  struct census_entry *client;  // NULL before the handshake is done
  struct asker asker;
  uint64_t generation;             // of the snapshot that `asker` was made for
  uint8_t trust_id[TRUST_ID_LEN];  // by which its certificate was found good
  struct audit_subject subject;
  struct slow_owner slow;  // requests that signer threads have
  size_t max_output_len;   // of the stream
  int64_t opened_ms;
  int64_t active_ms;   // when input last came
  int64_t partial_ms;  // since when a packet is incomplete; 0: none is
  int64_t closing_ms;  // since when it is being closed
  uint64_t num_requests;
  bool is_open;  // the handshake is done
  bool is_eof;   // the client will ask no more
  bool is_closing;
  bool is_paused;  // no more is read until a slow reply has left
};

// --- the list ------------------------------------------------------------------------

static void add_to_list(struct peer *peer) {
  struct worker *worker = peer->worker;

  peer->next = worker->peers;
  if (worker->peers != NULL) {
    worker->peers->prev = peer;
  }
  worker->peers = peer;
  worker->num_peers++;
}

static void remove_from_list(struct peer *peer) {
  struct worker *worker = peer->worker;

  if (peer->prev != NULL) {
    peer->prev->next = peer->next;
  } else {
    worker->peers = peer->next;
  }
  if (peer->next != NULL) {
    peer->next->prev = peer->prev;
  }
  if (worker->recheck_at == peer) {
    worker->recheck_at = peer->next;
  }
  worker->num_peers--;
}

struct peer *peer_next(const struct peer *peer) {
  return peer->next;
}

// --- who it is -------------------------------------------------------------------------

static bool has_name(const void *arg, const char *name) {
  const struct peer *peer = arg;
  return tls_peer_has_name(tls_stream_ssl(peer->stream), name);
}

static void close_peer(struct peer *peer) {
  peer->is_closing = true;
  peer->closing_ms = loop_now_ms(peer->worker->loop);
  tls_stream_close_when_sent(peer->stream);
}

// check_again drops a client that would not be let in any more, as it was revoked or
// its CA has gone.
static void check_again(struct peer *peer) {
  static struct log_gate gate;
  uint64_t num_held = 0;
  struct worker *worker = peer->worker;
  const uint8_t *id = trust_id(worker->snapshot->tls);
  enum tls_refusal refusal = TLS_REFUSAL_NONE;

  if (memcmp(peer->trust_id, id, TRUST_ID_LEN) == 0) {
    return;
  }
  refusal = trust_check_again(worker->snapshot->tls, tls_stream_ssl(peer->stream));
  if (refusal == TLS_REFUSAL_NONE) {
    memcpy(peer->trust_id, id, TRUST_ID_LEN);
    return;
  }
  counter_add_own(&worker->stats.num_dropped[refusal], 1);
  if (log_gate_pass(&gate, LINES_PER_S, &num_held)) {
    log_warn(peer->id, "client_dropped", "peer=%s client=%s why=%s held=%llu",
             peer->subject.address, peer->subject.client.name, tls_refusal_name(refusal),
             (unsigned long long)num_held);
  }
  close_peer(peer);
}

// refresh_rights looks the client up again when the snapshot is another one: a
// right that was taken away is gone with the next request.
static void refresh_rights(struct peer *peer) {
  const struct snapshot *snapshot = peer->worker->snapshot;

  if (peer->generation == snapshot->generation) {
    return;
  }
  check_again(peer);
  asker_init(&peer->asker, snapshot->keys);
  rights_of_client(&peer->asker.rights, snapshot->rights, peer->subject.client.spki_sha256,
                   has_name, peer);
  peer->generation = snapshot->generation;
}

void peer_check(struct peer *peer) {
  if (peer->is_open && !peer->is_closing) {
    refresh_rights(peer);
  }
}

static void turn_away(struct peer *peer, enum turned_away why, const char *text) {
  static struct log_gate gate;
  uint64_t num_held = 0;

  counter_add_own(&peer->worker->stats.num_turned_away[why], 1);
  if (log_gate_pass(&gate, LINES_PER_S, &num_held)) {
    log_warn(peer->id, "connection_refused", "peer=%s client=%s why=\"%s\" held=%llu",
             peer->subject.address, peer->subject.client.name, text, (unsigned long long)num_held);
  }
  close_peer(peer);
}

static void on_open(void *arg) {
  struct peer *peer = arg;
  struct worker *worker = peer->worker;
  const struct limit_options *limits = &worker->snapshot->options.limits;
  enum status st = STATUS_OK;

  counter_add_own(&worker->stats.num_opened, 1);
  peer->is_open = true;
  peer->active_ms = loop_now_ms(worker->loop);
  st = tls_peer_read(&peer->subject.client, tls_stream_ssl(peer->stream));
  if (st == STATUS_OK) {
    st = census_join(&peer->client, worker->census, peer->subject.client.spki_sha256,
                     (size_t)limits->max_connections_per_client);
  }
  if (st == STATUS_LIMIT) {
    turn_away(peer, TURNED_AWAY_CLIENT, "too many connections of this client");
    return;
  }
  if (st != STATUS_OK) {
    turn_away(peer, TURNED_AWAY_MEMORY, status_name(st));
    return;
  }
  memcpy(peer->trust_id, trust_id(SSL_get_SSL_CTX(tls_stream_ssl(peer->stream))), TRUST_ID_LEN);
  refresh_rights(peer);
  log_debug(peer->id, "open", "peer=%s client=%s grants=%zu", peer->subject.address,
            peer->subject.client.name, peer->asker.rights.num_grants);
}

// --- serving -----------------------------------------------------------------------------

enum turn {
  TURN_GO,    // one packet answered
  TURN_IDLE,  // no whole packet is there
  TURN_FULL,  // the client has to read some of its replies first
  TURN_WAIT,  // signer threads have to answer some of its requests first
  TURN_GONE,  // the connection is over
};

// must_wait: room for the replies that signer threads still owe is kept free, so
// that each can be written the moment it comes.
static bool must_wait(const struct peer *peer, size_t room) {
  const size_t owed = peer->slow.num * SLOW_REPLY_LEN;
  return owed > 0 &&
         tls_stream_unsent(peer->stream) + owed + SLOW_REPLY_LEN + room > peer->max_output_len;
}

// serve_packet answers the first packet of the input.
static enum turn serve_packet(struct peer *peer, unsigned *cost) {
  const struct bytes in = tls_stream_input(peer->stream);
  struct frame_header header;
  struct dispatched done;
  uint8_t *out = NULL;
  size_t room = 0;
  enum status st = STATUS_OK;

  if (in.len < FRAME_HEADER_LEN) {
    return TURN_IDLE;
  }
  frame_header_decode(&header, in.data);
  if (in.len < FRAME_HEADER_LEN + header.body_len) {
    return TURN_IDLE;
  }
  room = DISPATCH_REPLY_LEN(header.body_len);
  if (must_wait(peer, room)) {
    return TURN_WAIT;
  }
  st = tls_stream_reserve(peer->stream, &out, room);
  if (st != STATUS_OK) {
    return st == STATUS_LIMIT ? TURN_FULL : TURN_GONE;
  }
  done = dispatch_packet(&peer->worker->dispatcher, &peer->asker, &peer->slow, &peer->subject,
                         &header, bytes_of(in.data + FRAME_HEADER_LEN, header.body_len), out, room);
  tls_stream_commit(peer->stream, done.reply_len);
  tls_stream_consume(peer->stream, FRAME_HEADER_LEN + header.body_len);
  peer->num_requests++;
  peer->partial_ms = 0;  // the next packet's time begins
  *cost += done.cost;
  return TURN_GO;
}

static bool has_whole_packet(const struct peer *peer) {
  const struct bytes in = tls_stream_input(peer->stream);
  struct frame_header header;

  if (in.len < FRAME_HEADER_LEN) {
    return false;
  }
  frame_header_decode(&header, in.data);
  return in.len >= FRAME_HEADER_LEN + header.body_len;
}

static void note_partial(struct peer *peer) {
  if (tls_stream_input(peer->stream).len == 0) {
    peer->partial_ms = 0;
  } else if (peer->partial_ms == 0) {
    peer->partial_ms = loop_now_ms(peer->worker->loop);
  }
}

static void serve(struct peer *peer) {
  unsigned cost = 0;
  enum turn turn = TURN_GO;

  while (turn == TURN_GO && cost < PEER_TURN_COST) {
    turn = serve_packet(peer, &cost);
  }
  if (turn == TURN_GONE) {
    return;
  }
  if (has_whole_packet(peer)) {
    peer->partial_ms = 0;
    if (turn == TURN_WAIT) {
      peer->is_paused = true;
      tls_stream_pause(peer->stream, true);
    } else {
      tls_stream_again(peer->stream);
    }
  } else if (!peer->is_eof) {
    note_partial(peer);
  } else if (peer->slow.num == 0) {
    close_peer(peer);
  }
}

// --- what signer threads have answered -----------------------------------------------------

static struct peer *peer_of(struct slow_owner *owner) {
  return (struct peer *)(void *)((char *)owner - offsetof(struct peer, slow));
}

static void on_slow_done(void *arg, struct slow_request *slow, const struct slow_result *result) {
  struct peer *peer = peer_of(slow->owner);
  struct dispatcher *dispatcher = arg;
  uint8_t *out = NULL;

  if (tls_stream_reserve(peer->stream, &out, SLOW_REPLY_LEN) != STATUS_OK) {
    dispatch_gone(dispatcher, &peer->subject, slow);  // closing, or no memory
    close_peer(peer);
    return;
  }
  tls_stream_commit(peer->stream,
                    dispatch_slow(dispatcher, &peer->subject, slow, result, out, SLOW_REPLY_LEN));
  peer->active_ms = loop_now_ms(peer->worker->loop);
  if (peer->is_paused) {
    peer->is_paused = false;
    tls_stream_pause(peer->stream, false);
  } else if (peer->is_eof && peer->slow.num == 0 && !has_whole_packet(peer)) {
    close_peer(peer);
  }
}

static void on_slow_gone(void *arg, struct slow_request *slow) {
  dispatch_gone(arg, &peer_of(slow->owner)->subject, slow);
}

const struct slow_events peer_slow_events = {.on_done = on_slow_done, .on_gone = on_slow_gone};

static void on_data(void *arg) {
  struct peer *peer = arg;

  peer->active_ms = loop_now_ms(peer->worker->loop);
  if (!peer->is_closing) {
    refresh_rights(peer);
  }
  if (!peer->is_closing) {  // still
    serve(peer);
  }
}

// on_eof: what it asked before it closed its end is still answered.
static void on_eof(void *arg) {
  struct peer *peer = arg;

  peer->is_eof = true;
  if (!peer->is_closing) {
    serve(peer);
  }
}

static void log_end(const struct peer *peer, enum tls_stream_end end, const char *why) {
  static struct log_gate gate;
  uint64_t num_held = 0;
  char quoted[256];
  const bool is_bad = end != TLS_STREAM_CLOSED;

  if (!log_is_on(is_bad ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG) ||
      !log_gate_pass(&gate, LINES_PER_S, &num_held)) {
    return;
  }
  log_line(is_bad ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG, peer->id, "close",
           "end=%s peer=%s client=%s requests=%llu ms=%lld why=%s held=%llu",
           tls_stream_end_name(end), peer->subject.address,
           peer->is_open ? peer->subject.client.name : "-", (unsigned long long)peer->num_requests,
           (long long)(loop_now_ms(peer->worker->loop) - peer->opened_ms),
           log_quote(quoted, sizeof quoted, bytes_text(why)), (unsigned long long)num_held);
}

static void on_end(void *arg, enum tls_stream_end end, const char *why) {
  struct peer *peer = arg;

  counter_add_own(&peer->worker->stats.num_ends[end], 1);
  if (end == TLS_STREAM_HANDSHAKE_FAILED) {
    const enum tls_refusal refusal = tls_refusal_of(tls_stream_ssl(peer->stream), why);
    counter_add_own(&peer->worker->stats.num_untrusted[refusal], 1);
  }
  log_end(peer, end, why);
  peer_free(peer);
}

static const struct tls_stream_events events = {
    .on_open = on_open, .on_data = on_data, .on_eof = on_eof, .on_end = on_end};

// --- life ----------------------------------------------------------------------------------

void peer_free(struct peer *peer) {
  slow_drop_owner(&peer->worker->slow, &peer->slow);
  remove_from_list(peer);
  tls_stream_free(peer->stream);
  census_part(peer->worker->census, peer->client);
  census_leave(peer->worker->census);
  free(peer);
}

static bool has_work(const struct peer *peer) {
  return peer->slow.num > 0 || has_whole_packet(peer) || tls_stream_unsent(peer->stream) > 0 ||
         tls_stream_has_unread(peer->stream);
}

// drain ends a connection once nothing is in hand.
static void drain(struct peer *peer, int64_t now_ms, int64_t draining_ms) {
  const bool is_quiet = now_ms - peer->active_ms >= PEER_QUIET_MS;

  if (peer->slow.num > 0 || (has_work(peer) && draining_ms < 2 * (int64_t)PEER_BUSY_MS) ||
      (!is_quiet && draining_ms < PEER_BUSY_MS)) {
    return;
  }
  if (!peer->is_open) {
    peer_free(peer);
  } else {
    close_peer(peer);
  }
}

void peer_sweep(struct peer *peer, int64_t now_ms, int64_t draining_ms) {
  const struct limit_options *limits = &peer->worker->snapshot->options.limits;

  if (peer->is_closing) {
    // A client that hangs must not hold up the end of the server.
    if (draining_ms >= 0 && tls_stream_unsent(peer->stream) == 0 &&
        now_ms - peer->closing_ms >= PEER_LINGER_MS) {
      peer_free(peer);
    }
    return;
  }
  if (peer->partial_ms != 0 && now_ms - peer->partial_ms > limits->packet_ms) {
    counter_add_own(&peer->worker->stats.num_packet_timeouts, 1);
    close_peer(peer);
    return;
  }
  if (draining_ms >= 0) {
    drain(peer, now_ms, draining_ms);
  }
}

static struct peer *peer_new(struct worker *worker, int fd) {
  struct peer *peer = calloc(1, sizeof *peer);
  struct address address;

  if (peer == NULL) {
    return NULL;
  }
  peer->worker = worker;
  // Workers' ids do not meet, so a line names one connection of the process.
  peer->id = (++worker->last_id << 8) | worker->index;
  peer->max_output_len = worker->limits.max_output_len;
  peer->opened_ms = loop_now_ms(worker->loop);
  peer->active_ms = peer->opened_ms;
  if (address_of_peer(&address, fd) == STATUS_OK) {
    address_format(peer->subject.address, &address);
  }
  return peer;
}

enum status peer_accept(struct worker *worker, int *fd) {
  enum status st = STATUS_OK;
  struct peer *peer = NULL;
  const size_t max = (size_t)worker->snapshot->options.limits.max_connections;

  counter_add_own(&worker->stats.num_accepted, 1);
  if (!census_enter(worker->census, max)) {
    counter_add_own(&worker->stats.num_turned_away[TURNED_AWAY_TOTAL], 1);
    close(*fd);
    *fd = -1;
    return STATUS_LIMIT;
  }
  peer = peer_new(worker, *fd);
  if (peer == NULL) {
    TRY(STATUS_MEMORY);
  }
  TRY(tls_stream_accept(&peer->stream, worker->loop, worker->snapshot->tls, fd, &worker->limits,
                        &events, peer));
  add_to_list(peer);
  peer = NULL;

out:
  if (st != STATUS_OK) {
    counter_add_own(&worker->stats.num_turned_away[TURNED_AWAY_MEMORY], 1);
    census_leave(worker->census);
    free(peer);
    if (*fd >= 0) {
      close(*fd);
      *fd = -1;
    }
  }
  return st;
}
