// SPDX-License-Identifier: Apache-2.0
#include "tests/support/fake_keyserver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/net/address.h"
#include "common/tls/tls_stream.h"
#include "common/wire/scheme.h"

#define MAX_KEPT 256  // replies held back for a time or for the order
#define REPLY_LEN 2048

struct kept {
  uint8_t packet[REPLY_LEN];
  size_t len;
};

struct fake_peer {
  struct fake_keyserver *fake;
  struct fake_peer *next;
  struct tls_stream *stream;
  struct timer late;
  struct kept kept[MAX_KEPT];
  size_t num_kept;
  bool is_closed;
};

static const struct tls_stream_limits limits = {
    .handshake_ms = 5000,
    .idle_ms = 60000,
    .write_ms = 5000,
    .max_input_len = 1 << 20,
    .max_output_len = 4 << 20,
};

static void send_packet(struct fake_peer *peer, const uint8_t *packet, size_t len) {
  uint8_t *out = NULL;
  CHECK(tls_stream_reserve(peer->stream, &out, len) == STATUS_OK);
  memcpy(out, packet, len);
  tls_stream_commit(peer->stream, len);
}

static void send_kept(struct fake_peer *peer, bool is_backwards) {
  for (size_t i = 0; i < peer->num_kept; i++) {
    const struct kept *kept = &peer->kept[is_backwards ? peer->num_kept - 1 - i : i];
    send_packet(peer, kept->packet, kept->len);
  }
  peer->num_kept = 0;
}

static void on_late(void *arg) {
  struct fake_peer *peer = arg;
  if (!peer->is_closed) {
    send_kept(peer, false);
  }
}

// reply sends at once, or after what a round trip takes.
static void reply(struct fake_peer *peer, const uint8_t *packet, size_t len) {
  struct kept *kept = &peer->kept[peer->num_kept];

  if (peer->fake->far_ms == 0) {
    send_packet(peer, packet, len);
    return;
  }
  CHECK(peer->num_kept < MAX_KEPT && len <= REPLY_LEN);
  memcpy(kept->packet, packet, len);
  kept->len = len;
  peer->num_kept++;
  if (!timer_is_armed(&peer->late)) {
    timer_arm_ms(&peer->late, peer->fake->far_ms);
  }
}

static size_t sign(const struct fake_keyserver *fake, uint8_t out[REPLY_LEN],
                   const struct frame *request, uint32_t id) {
  const struct scheme *scheme = scheme_by_opcode(request->opcode, key_kind_of(fake->key));
  uint8_t signature[SCHEME_MAX_SIGNATURE_LEN];
  size_t signature_len = 0;
  size_t len = 0;

  CHECK(scheme != NULL);
  CHECK(scheme_sign_digest(scheme, fake->key, signature, sizeof signature, &signature_len,
                           request->payload) == STATUS_OK);
  CHECK(frame_encode_response(out, REPLY_LEN, &len, id, FRAME_OP_SUCCESS,
                              bytes_of(signature, signature_len)) == STATUS_OK);
  return len;
}

static void note_request(struct fake_keyserver *fake, const struct frame *request) {
  const size_t len = request->sni.len < sizeof fake->last_sni ? request->sni.len : 0;

  fake->num_requests++;
  if (len > 0) {
    memcpy(fake->last_sni, request->sni.data, len);
  }
  fake->last_sni[len] = '\0';
  if (request->ski.data != NULL) {
    memcpy(fake->last_ski, request->ski.data, sizeof fake->last_ski);
  }
  fake->last_message_len = request->extra.len;
}

// answer_oddly covers what is not a kept or plain answer.
static void answer_oddly(struct fake_peer *peer, const struct frame *request) {
  static const uint8_t garbage[] = {1, 0, 0, 5, 0, 0, 0, 1, 0x11, 0xFF, 0xFF, 1, 2};
  static const uint8_t bare[] = {1, 0, 0, 0, 0, 0, 0, 1};
  struct fake_keyserver *fake = peer->fake;
  uint8_t packet[REPLY_LEN];
  size_t len = 0;

  switch (fake->manner) {
    case FAKE_ERROR:
      CHECK(frame_encode_error(packet, sizeof packet, &len, request->id, fake->error) == STATUS_OK);
      break;
    case FAKE_GARBAGE:
      memcpy(packet, garbage, len = sizeof garbage);
      break;
    case FAKE_NO_OPCODE:
      memcpy(packet, bare, len = sizeof bare);
      break;
    case FAKE_EMPTY:
      CHECK(frame_encode_response(packet, sizeof packet, &len, request->id, FRAME_OP_SUCCESS,
                                  bytes_of(NULL, 0)) == STATUS_OK);
      break;
    case FAKE_VERSION:
      len = sign(fake, packet, request, request->id);
      packet[0] = 9;
      break;
    case FAKE_OTHER_ID:
      len = sign(fake, packet, request, request->id + 1000);
      break;
    default:
      abort();
  }
  send_packet(peer, packet, len);
}

static void answer(struct fake_peer *peer, const struct frame *request) {
  struct fake_keyserver *fake = peer->fake;
  struct kept *kept = &peer->kept[peer->num_kept];
  uint8_t packet[REPLY_LEN];
  size_t len = 0;

  note_request(fake, request);
  switch (fake->manner) {
    case FAKE_SILENT:
    case FAKE_HUNG:
      return;
    case FAKE_SIGN:
      len = sign(fake, packet, request, request->id);
      reply(peer, packet, len);
      return;
    case FAKE_CLOSE:
      peer->is_closed = true;
      tls_stream_close_when_sent(peer->stream);
      return;
    case FAKE_TWICE:
    case FAKE_LATE:
    case FAKE_LATE_ERROR:
    case FAKE_BACKWARDS:
      break;
    default:
      answer_oddly(peer, request);
      return;
  }
  CHECK(peer->num_kept < MAX_KEPT);
  if (fake->manner == FAKE_LATE_ERROR) {
    CHECK(frame_encode_error(kept->packet, sizeof kept->packet, &kept->len, request->id,
                             fake->error) == STATUS_OK);
  } else {
    kept->len = sign(fake, kept->packet, request, request->id);
  }
  peer->num_kept++;
  if (fake->manner == FAKE_TWICE) {
    send_packet(peer, kept->packet, kept->len);
  }
  if (fake->manner == FAKE_LATE || fake->manner == FAKE_LATE_ERROR) {
    timer_arm_ms(&peer->late, fake->delay_ms);
  } else if (fake->manner != FAKE_BACKWARDS) {
    send_kept(peer, false);
  }
}

static void on_data(void *arg) {
  struct fake_peer *peer = arg;
  struct bytes in = tls_stream_input(peer->stream);

  while (!peer->is_closed && in.len >= FRAME_HEADER_LEN) {
    struct frame_header header;
    struct frame request = {0};
    frame_header_decode(&header, in.data);
    if (in.len < FRAME_HEADER_LEN + header.body_len) {
      break;
    }
    CHECK(frame_body_decode(&request, bytes_of(in.data + FRAME_HEADER_LEN, header.body_len)) ==
          STATUS_OK);
    request.id = header.id;
    if (request.opcode == FRAME_OP_PING && peer->fake->manner == FAKE_HUNG) {
      peer->fake->num_pings++;
    } else if (request.opcode == FRAME_OP_PING) {
      uint8_t packet[REPLY_LEN];
      size_t len = 0;
      peer->fake->num_pings++;
      CHECK(frame_encode_response(packet, sizeof packet, &len, request.id, FRAME_OP_PONG,
                                  bytes_of(NULL, 0)) == STATUS_OK);
      reply(peer, packet, len);
    } else {
      answer(peer, &request);
    }
    tls_stream_consume(peer->stream, FRAME_HEADER_LEN + header.body_len);
    in = tls_stream_input(peer->stream);
  }
  if (peer->fake->manner == FAKE_BACKWARDS) {
    send_kept(peer, true);
  }
}

static void on_open(void *arg) { (void)arg; }

static void free_peer(struct fake_peer *peer) {
  struct fake_peer **at = &peer->fake->peers;
  while (*at != peer) {
    at = &(*at)->next;
  }
  *at = peer->next;
  timer_cleanup(&peer->late);
  tls_stream_free(peer->stream);
  free(peer);
}

static void on_end(void *arg, enum tls_stream_end end, const char *why) {
  (void)end;
  (void)why;
  free_peer(arg);
}

static const struct tls_stream_events events = {
    .on_open = on_open, .on_data = on_data, .on_end = on_end};

static void on_accept(void *arg, unsigned ready) {
  struct fake_keyserver *fake = arg;
  int fd = accept4(fake->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

  (void)ready;
  if (fd >= 0) {
    struct fake_peer *peer = calloc(1, sizeof *peer);
    CHECK(peer != NULL);
    fake->num_accepted++;
    peer->fake = fake;
    peer->next = fake->peers;
    fake->peers = peer;
    CHECK(timer_init(&peer->late, fake->loop, on_late, peer) == STATUS_OK);
    CHECK(tls_stream_accept(&peer->stream, fake->loop, fake->ctx, &fd, &limits, &events, peer) ==
          STATUS_OK);
  }
}

void fake_keyserver_start(struct fake_keyserver *fake, struct loop *loop, SSL_CTX *ctx,
                          uint16_t port) {
  struct address address;

  fake->loop = loop;
  fake->ctx = ctx;
  CHECK(address_from_host(&address, fake->host != NULL ? fake->host : "127.0.0.1", port) ==
        STATUS_OK);
  CHECK(address_listen(&fake->fd, &address, false, 0, NULL) == STATUS_OK);
  CHECK(address_of_local(&address, fake->fd) == STATUS_OK);
  fake->port = address_port(&address);
  CHECK(io_init_listener(&fake->io, loop, fake->fd, on_accept, fake) == STATUS_OK);
}

void fake_keyserver_drop(struct fake_keyserver *fake) {
  struct fake_peer *next = NULL;
  for (struct fake_peer *peer = fake->peers; peer != NULL; peer = next) {
    next = peer->next;
    free_peer(peer);
  }
}

unsigned fake_keyserver_num_peers(const struct fake_keyserver *fake) {
  unsigned num = 0;
  for (const struct fake_peer *peer = fake->peers; peer != NULL; peer = peer->next) {
    num++;
  }
  return num;
}

static void close_listener(struct fake_keyserver *fake) {
  if (fake->fd >= 0) {
    io_cleanup(&fake->io);
    close(fake->fd);
    fake->fd = -1;
  }
}

void fake_keyserver_drain(struct fake_keyserver *fake) {
  close_listener(fake);
  for (struct fake_peer *peer = fake->peers; peer != NULL; peer = peer->next) {
    peer->is_closed = true;
    tls_stream_close_when_sent(peer->stream);
  }
}

void fake_keyserver_stop(struct fake_keyserver *fake) {
  if (fake->loop == NULL) {
    return;
  }
  close_listener(fake);
  fake_keyserver_drop(fake);
  fake->loop = NULL;
}
