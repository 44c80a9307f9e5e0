// SPDX-License-Identifier: Apache-2.0
// fake_keyserver: the other end of a keyclient for unit tests, on the same loop,
// over real sockets and TLS; it can be told to misbehave in each way a server
// might. Its signatures are real.
#ifndef DEPUTY_TESTS_SUPPORT_FAKE_KEYSERVER_H_
#define DEPUTY_TESTS_SUPPORT_FAKE_KEYSERVER_H_

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/net/loop.h"
#include "common/wire/frame.h"

enum fake_manner {
  FAKE_SIGN,        // as it should be
  FAKE_ERROR,       // answers fake.error
  FAKE_SILENT,      // reads, never answers
  FAKE_LATE,        // answers after fake.delay_ms
  FAKE_LATE_ERROR,  // the same, fake.error
  FAKE_GARBAGE,     // bytes that are no packet body
  FAKE_VERSION,     // a good answer of major version 9
  FAKE_NO_OPCODE,   // a packet without one
  FAKE_EMPTY,       // success without a signature
  FAKE_OTHER_ID,    // a good answer to a question nobody asked, and no other
  FAKE_TWICE,       // the answer, twice
  FAKE_BACKWARDS,   // answers of one read in reverse order
  FAKE_CLOSE,       // closes when asked
  FAKE_HUNG,        // reads, answers nothing, not even pings
};

struct fake_keyserver {
  enum fake_manner manner;
  enum frame_error error;
  int64_t delay_ms;
  int64_t far_ms;    // of FAKE_SIGN and of pings: what a round trip takes
  const char *host;  // listened on; NULL: 127.0.0.1
  EVP_PKEY *key;     // borrowed; signs whatever is asked
  // What it saw.
  unsigned num_accepted;
  unsigned num_requests;
  unsigned num_pings;
  char last_sni[256];
  uint8_t last_ski[FRAME_SKI_LEN];
  size_t last_message_len;
  // Its own.
  struct loop *loop;
  SSL_CTX *ctx;
  int fd;
  uint16_t port;
  struct io io;
  struct fake_peer *peers;
};

// fake_keyserver_start listens on `port` of fake->host (0: any; see fake->port). The
// caller has filled in manner and key. It aborts when it cannot.
void fake_keyserver_start(struct fake_keyserver *fake, struct loop *loop, SSL_CTX *ctx,
                          uint16_t port);
// fake_keyserver_stop closes the listener and all connections, as a crash does.
void fake_keyserver_stop(struct fake_keyserver *fake);
// fake_keyserver_drop closes the connections only.
void fake_keyserver_drop(struct fake_keyserver *fake);
// fake_keyserver_drain closes the listener, and the connections in good order without an
// answer to what is in hand; fake_keyserver_stop then ends it.
void fake_keyserver_drain(struct fake_keyserver *fake);
unsigned fake_keyserver_num_peers(const struct fake_keyserver *fake);

#endif  // DEPUTY_TESTS_SUPPORT_FAKE_KEYSERVER_H_
