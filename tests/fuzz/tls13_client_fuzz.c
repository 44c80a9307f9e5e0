// SPDX-License-Identifier: Apache-2.0
// Targets: tls13_client_feed, and with it the decoders of tls13_flight.h and peers.h.
// The first byte of the input says how the rest reaches the client, the second how
// long records are:
//   0  as it is, in answer to the ClientHello
//   1  as the server's handshake messages, rightly encrypted
//   2  the same (so many bytes as the next two say), then a right Finished, then the
//      rest as records, each beginning with its type
// Whatever comes, the client ends in a state it has, and says why when it failed.
#include <stdint.h>
#include <string.h>

#include "bench/tls13_client.h"
#include "tests/support/tls13_puppet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum manner { RAW, MESSAGES, MESSAGES_AND_FINISHED, NUM_MANNERS };

static void on_data(struct tls13_client *client, struct bytes data) {
  CHECK(client->state == TLS13_CLIENT_DONE);
  CHECK(data.len > 0);
}

static void on_ticket(struct tls13_client *client, const struct tls13_ticket *ticket) {
  CHECK(client->state == TLS13_CLIENT_DONE);
  CHECK(ticket->ticket_len > 0 && ticket->ticket_len <= TLS13_MAX_TICKET_LEN);
}

static struct tls13_shared *new_shared(void) {
  static const char *const names[] = {"localhost"};
  struct tls13_shared *shared = NULL;
  const struct tls13_options options = {.names = names,
                                        .num_names = 1,
                                        .offers_dc = true,
                                        .share = TLS13_SHARE_BASE,
                                        .suites = {tls13_suite_find(0x1301)},
                                        .num_suites = 1,
                                        .on_data = on_data,
                                        .on_ticket = on_ticket};
  CHECK(tls13_shared_new(&shared, &options, NULL) == STATUS_OK);
  return shared;
}

// Seals `in` as handshake records of at most `step` bytes.
static void seal_all(struct puppet *puppet, struct bytes in, size_t step, struct buffer *out) {
  while (in.len > 0) {
    const size_t num = in.len < step ? in.len : step;
    puppet_seal(puppet, 22, bytes_of(in.data, num), out);
    tls13_transcript_add(&puppet->transcript, bytes_of(in.data, num));
    in = bytes_of(in.data + num, in.len - num);
  }
}

// The input in two parts: the flight, and what comes after Finished; the first two
// bytes are the length of the flight.
static struct bytes cut(struct bytes *in) {
  if (in->len < 2) {
    return (struct bytes){0};
  }
  const size_t want = (size_t)in->data[0] << 8 | in->data[1];
  const size_t len = want < in->len - 2 ? want : in->len - 2;
  const struct bytes part = bytes_of(in->data + 2, len);
  *in = bytes_of(part.data + len, in->len - 2 - len);
  return part;
}

static void answer(enum manner manner, size_t step, struct bytes in, struct bytes hello,
                   struct buffer *out) {
  struct puppet puppet = {0};
  if (manner == RAW) {
    CHECK(buffer_add(out, in) == STATUS_OK);
    return;
  }
  puppet_start(&puppet, hello, 0x1301, out);
  if (manner == MESSAGES) {
    seal_all(&puppet, in, step, out);
  } else {
    seal_all(&puppet, cut(&in), step, out);
    puppet_finished(&puppet, out);
    while (in.len > 0) {  // each run begins with its record's type
      const uint8_t type = in.data[0];
      const size_t num = in.len - 1 < step ? in.len - 1 : step;
      puppet_seal(&puppet, type, bytes_of(in.data + 1, num), out);
      in = bytes_of(in.data + 1 + num, in.len - 1 - num);
    }
  }
  puppet_cleanup(&puppet);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  char reason[TLS13_REASON_LEN];
  struct tls13_client client = {0};
  struct buffer to_server = {0};
  struct buffer to_client = {0};
  enum tls13_fault fault = TLS13_OK;
  if (len < 2 || len > 16384) {
    return 0;
  }
  struct tls13_shared *shared = new_shared();
  const size_t step = data[1] == 0 ? 4096 : data[1];
  CHECK(tls13_client_start(&client, shared, 0, NULL, 1, &to_server) == TLS13_OK);
  answer((enum manner)(data[0] % NUM_MANNERS), step, bytes_of(data + 2, len - 2),
         bytes_of(to_server.data, to_server.len), &to_client);
  const size_t piece = (size_t)(data[0] >> 4) * 37 + 1;  // how TCP cuts it
  for (size_t at = 0; at < to_client.len && fault == TLS13_OK; at += piece) {
    const size_t num = to_client.len - at < piece ? to_client.len - at : piece;
    fault = tls13_client_feed(&client, to_client.data + at, num, &to_server);
  }
  CHECK((fault == TLS13_OK) == (client.state != TLS13_CLIENT_FAILED));
  CHECK(strlen(tls13_client_reason(&client, reason)) > 0);
  tls13_client_cleanup(&client);
  tls13_shared_free(shared);
  buffer_cleanup(&to_server);
  buffer_cleanup(&to_client);
  return 0;
}
