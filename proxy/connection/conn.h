// SPDX-License-Identifier: Apache-2.0
// conn: one connection of a client, from accept to close, as a state machine: all
// of its state is in this struct, only conn_enter() (conn.c) changes `state`, only
// conn_run frees.
//
//   accept --> GREETING                      (a balancer says who the client is)
//      |          |
//      |          v
//      +-----> HANDSHAKE <--> SIGNING        (a key server is asked)
//                  |     <--> LOOKUP         (the name is read from the store)
//                  |
//                  v
//               CONNECT --> RELAY --> HALF   (one direction has ended)
//                  |          |        |
//                  +----------+--------+--> DRAIN --> CLOSED
//
//   any state --> DRAIN (the last bytes for the client are under way), CLOSED
//
// A callback notes what happened and calls conn_run, which calls the state's step
// until a step waits. Accept and the steps up to CONNECT are in opening.c, the others in
// conn.c; what is spoken in RELAY and HALF is a protocol (protocol.h): bytes, in relay.c.
//
// Threads: of one worker.
#ifndef DEPUTY_PROXY_CONNECTION_CONN_H_
#define DEPUTY_PROXY_CONNECTION_CONN_H_

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "certstore/certstore.h"
#include "common/net/loop.h"
#include "common/tls/client_auth.h"
#include "common/tls/tickets.h"
#include "proxy/connection/block.h"
#include "proxy/connection/deadline.h"
#include "proxy/connection/protocol.h"
#include "proxy/connection/record_size.h"
#include "proxy/counters.h"
#include "proxy/origin/origin.h"
#include "proxy/store/lookup.h"
#include "proxy/view.h"

enum conn_state {
  CONN_GREETING,
  CONN_HANDSHAKE,
  CONN_SIGNING,
  CONN_LOOKUP,
  CONN_CONNECT,
  CONN_RELAY,
  CONN_HALF,
  CONN_DRAIN,
  CONN_CLOSED,
  CONN_NUM_STATES,
};

// One of the two sockets. What edge-triggered events said is kept in `ready`
// until a call meets EAGAIN.
struct end {
  struct io io;
  int fd;          // -1: none
  uint8_t ready;   // IO_READABLE, IO_WRITABLE
  bool has_ended;  // its last byte has been read
  bool is_shut;    // our last byte has been written, and it was told so
  bool is_broken;  // reset, or another error that ends it
};

// end_note_read: a read gave `len` of at most `max` bytes. Less than all means that
// the socket is empty, and an event will tell of more; unless the end has come,
// of which there is no further event.
static inline void end_note_read(struct end *end, size_t len, size_t max) {
  if (len < max && (end->ready & IO_ENDED) == 0) {
    end->ready &= (uint8_t)~IO_READABLE;
  }
}

// How the closing line names the client; AF_UNIX clients have no address.
union peer {
  struct sockaddr sa;
  struct sockaddr_in in;
  struct sockaddr_in6 in6;
};

// What is needed until bytes are relayed, and no longer.
struct handshake {
  struct view *view;
  const struct cert_name *name;  // NULL until the certificate callback
  const struct policy *policy;   // of the name
  struct looking looking;
  union peer destination;  // where the client connected, as the balancer says
  bool has_destination;
  struct reach reach;  // once it is over, in CONNECT
  bool is_resume_off;  // a compromise is too new to be in the states of chains
  struct choice choice;
  struct tls_dc *dc;  // that was installed; NULL: none
  int64_t dc_ends_s;  // of it; 0: none
  struct ticket_facts resumed;
  bool has_opened_ticket;
  uint8_t plain_alert;      // a fatal one in clear is what came last; 0: none
  struct signing *signing;  // while a key server is asked
  enum failure failure;     // why we refused; FAILURE_NONE: ask the library
};

#define CONN_LABEL_LEN 16

struct conn {
  struct deadline deadline;
  struct worker *worker;
  struct conn *next;  // worker.all
  struct conn **link;
  struct conn *next_later;  // worker.later, worker.turns
  SSL *ssl;
  struct handshake *hs;                     // NULL from RELAY on
  struct client_identity *client_identity;  // NULL: it showed no certificate
  struct end client;
  struct end origin;
  struct origin_tls *origin_tls;  // NULL: bytes are plain
  struct endpoint *endpoint;      // in which `origin` is counted

  // Bytes under way; each is NULL when there are none.
  struct block *in;    // from the client, sealed
  struct block *up;    // for the origin, plain
  struct block *down;  // from the origin, plain
  struct block *out;   // for the client, sealed

  uint64_t id;
  uint64_t bytes_in;    // sealed bytes that came
  uint64_t bytes_up;    // plain bytes the origin took
  uint64_t bytes_down;  // plain bytes from the origin
  uint64_t bytes_out;   // sealed bytes that the client's socket took
  uint64_t moved;       // the sum of the last three when the idle deadline was last looked at
  int64_t accepted_us;
  uint64_t address_key;   // where its address is counted (address_table.h); 0: nowhere
  int64_t touched_ms;     // when the idle deadline was last set
  uint32_t handshake_us;  // how long it took; 0: not over
  uint32_t connect_us;    // from then until an origin was reached; 0: none was
  struct record_size record_size;
  uint32_t discarded;  // DRAIN: sealed bytes that nobody reads any more
  union peer peer;
  char label[CONN_LABEL_LEN];  // of the chain, cut
  uint8_t ca_id[4];            // its first bytes

  uint8_t state;     // enum conn_state
  uint8_t source;    // enum source, once the handshake is over
  uint8_t version;   // enum version
  uint8_t outcome;   // enum outcome
  uint8_t failure;   // enum failure
  uint8_t alert;     // received
  uint16_t group;    // of the key exchange
  uint8_t protocol;  // enum protocol_id: what its listener speaks
  bool is_due;       // its deadline has passed
  bool has_outcome;
  bool is_later;          // in worker.later
  bool is_in_line;        // in worker.turns
  bool is_fin_sent;       // shutdown(SHUT_WR) towards the client
  bool is_up_dead;        // the origin takes no more bytes
  bool has_close_notify;  // the client said that it has ended
  bool is_truncated;      // it ended, and had not said so
};

// conn_oldest_handshake_ms is how long the oldest handshake has waited for its client;
// 0: none does. conn_displace_oldest ends it; there is one.
int64_t conn_oldest_handshake_ms(const struct worker *worker);
void conn_displace_oldest(struct worker *worker);

// conn_run does what can be done now, and frees the connection when it is over. A handshake
// may have to wait for its turn (turns.h), which is conn_take_turn.
void conn_run(struct conn *conn);
void conn_take_turn(struct conn *conn);

// conn_expire: the deadline of a connection has passed (deadline.h).
void conn_expire(struct deadline *deadline);

// conn_drain: the proxy is about to stop. conn_end closes now.
void conn_drain(struct conn *conn);
void conn_end(struct conn *conn);

// conn_of finds the connection for which the library called back.
struct conn *conn_of(const SSL *ssl);

// conn_client borrows who the client is by its certificate, verified in this handshake or
// in the one that is resumed; NULL: it showed none. From CONNECT on.
static inline const struct client_identity *conn_client(const struct conn *conn) {
  return conn->client_identity;
}

const char *conn_state_name(enum conn_state state);

#endif  // DEPUTY_PROXY_CONNECTION_CONN_H_
