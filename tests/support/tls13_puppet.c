// SPDX-License-Identifier: Apache-2.0
#include "tests/support/tls13_puppet.h"

#include <string.h>

#include "common/base/status.h"

#define SESSION_ID_OFFSET 44U  // in the client's record, as tls13_hello.c writes it

static const uint8_t share[32] = {0x11, 0x22, 0x33};

static void add(uint8_t **p, const void *data, size_t len) {
  memcpy(*p, data, len);
  *p += len;
}

size_t puppet_server_hello(uint8_t out[PUPPET_HELLO_LEN], struct bytes client_hello,
                           uint16_t suite) {
  static const uint8_t random[32] = {0x52};
  static const uint8_t extensions[] = {0, 46, 0, 43, 0, 2, 3, 4, 0, 51, 0, 36, 0, 29, 0, 32};
  const uint8_t head[] = {3, 3};
  const uint8_t middle[] = {(uint8_t)(suite >> 8), (uint8_t)suite, 0};
  const uint8_t session_id_len = 32;
  uint8_t *p = out;
  CHECK(client_hello.len > SESSION_ID_OFFSET + 32);
  add(&p, head, sizeof(head));
  add(&p, random, sizeof(random));
  add(&p, &session_id_len, 1);
  add(&p, client_hello.data + SESSION_ID_OFFSET, 32);
  add(&p, middle, sizeof(middle));
  add(&p, extensions, sizeof(extensions));
  add(&p, share, sizeof(share));
  return (size_t)(p - out);
}

void puppet_plain(struct buffer *out, uint8_t type, struct bytes content) {
  const uint8_t header[] = {type, 3, 3, (uint8_t)(content.len >> 8), (uint8_t)content.len};
  CHECK(buffer_add(out, bytes_of(header, sizeof(header))) == STATUS_OK);
  CHECK(buffer_add(out, content) == STATUS_OK);
}

static void frame(struct buffer *out, uint8_t type, struct bytes body) {
  const uint8_t header[] = {type, (uint8_t)(body.len >> 16), (uint8_t)(body.len >> 8),
                            (uint8_t)body.len};
  CHECK(buffer_add(out, bytes_of(header, sizeof(header))) == STATUS_OK);
  CHECK(buffer_add(out, body) == STATUS_OK);
}

static void derive(struct puppet *p) {
  struct tls13_secret early;
  struct tls13_secret derived;
  struct tls13_secret hash;
  CHECK(tls13_extract(p->suite, &early, NULL, (struct bytes){0}) == STATUS_OK);
  CHECK(tls13_derive(p->suite, &derived, &early, "derived", NULL) == STATUS_OK);
  CHECK(tls13_extract(p->suite, &p->handshake, &derived, bytes_of(share, 32)) == STATUS_OK);
  tls13_transcript_hash(&p->transcript, &hash);
  CHECK(tls13_derive(p->suite, &p->server, &p->handshake, "s hs traffic", &hash) == STATUS_OK);
  CHECK(tls13_traffic_start(&p->write, p->suite, &p->server) == STATUS_OK);
}

void puppet_start(struct puppet *p, struct bytes client_hello, uint16_t suite, struct buffer *out) {
  struct buffer message = {0};
  uint8_t body[PUPPET_HELLO_LEN];
  const size_t len = puppet_server_hello(body, client_hello, suite);
  puppet_cleanup(p);
  p->suite = tls13_suite_find(suite);
  CHECK(p->suite != NULL);
  frame(&message, 2, bytes_of(body, len));
  tls13_transcript_init(&p->transcript, p->suite);
  tls13_transcript_add(&p->transcript, bytes_of(client_hello.data + TLS13_RECORD_HEADER_LEN,
                                                client_hello.len - TLS13_RECORD_HEADER_LEN));
  tls13_transcript_add(&p->transcript, bytes_of(message.data, message.len));
  puppet_plain(out, 22, bytes_of(message.data, message.len));
  buffer_cleanup(&message);
  derive(p);
}

void puppet_seal(struct puppet *p, uint8_t type, struct bytes content, struct buffer *out) {
  const size_t len = tls13_sealed_len(content.len);
  CHECK(buffer_reserve(out, len) == STATUS_OK);
  CHECK(tls13_record_seal(&p->write, out->data + out->len, type, content) == STATUS_OK);
  out->len += len;
}

void puppet_message(struct puppet *p, uint8_t type, struct bytes body, struct buffer *out) {
  struct buffer message = {0};
  frame(&message, type, body);
  tls13_transcript_add(&p->transcript, bytes_of(message.data, message.len));
  puppet_seal(p, 22, bytes_of(message.data, message.len), out);
  buffer_cleanup(&message);
}

void puppet_finished(struct puppet *p, struct buffer *out) {
  struct tls13_secret hash;
  struct tls13_secret mac;
  struct tls13_secret derived;
  struct tls13_secret master;
  struct tls13_secret traffic;
  tls13_transcript_hash(&p->transcript, &hash);
  CHECK(tls13_finished(p->suite, &mac, &p->server, &hash) == STATUS_OK);
  puppet_message(p, 20, bytes_of(mac.data, p->suite->hash_len), out);
  tls13_transcript_hash(&p->transcript, &hash);
  CHECK(tls13_derive(p->suite, &derived, &p->handshake, "derived", NULL) == STATUS_OK);
  CHECK(tls13_extract(p->suite, &master, &derived, (struct bytes){0}) == STATUS_OK);
  CHECK(tls13_derive(p->suite, &traffic, &master, "s ap traffic", &hash) == STATUS_OK);
  CHECK(tls13_traffic_start(&p->write, p->suite, &traffic) == STATUS_OK);
}

void puppet_cleanup(struct puppet *p) {
  tls13_traffic_cleanup(&p->write);
  *p = (struct puppet){0};
}
