// SPDX-License-Identifier: Apache-2.0
// load_private: what the two halves of a run know of each other: load.c (when connections
// begin, and when all is over) and load_conn.c (one connection, from its socket to its end).
#ifndef DEPUTY_BENCH_LOAD_PRIVATE_H_
#define DEPUTY_BENCH_LOAD_PRIVATE_H_

#include <sys/queue.h>

#include "bench/buffer.h"
#include "bench/http_body.h"
#include "bench/load.h"

#define LOAD_READ_BUFFER_LEN (256U << 10)
#define LOAD_REASON_LEN 48
#define NS_PER_MS 1000000LL

enum conn_state { CONN_CONNECT, CONN_HANDSHAKE, CONN_RESPONSE, CONN_HELD, CONN_CLOSING };

struct conn {
  TAILQ_ENTRY(conn) link;  // of the free list, or of a list of deadlines
  struct load *load;
  enum conn_state state;
  int fd;
  bool has_deadline;
  int64_t deadline_ns;
  struct tls13_client client;
  uint64_t name;                      // of the run's names
  const struct tls13_ticket *ticket;  // to resume, or NULL
  struct buffer out;
  struct sample sample;
  bool is_prime;
  bool is_recorded;
  bool has_eof;
  size_t slot;  // which slot this connection primes
  int64_t request_ns;
  struct http_body body;
  bool is_body_broken;
  char reason[LOAD_REASON_LEN];
};
TAILQ_HEAD(conn_list, conn);

// A session to resume, and whose it is: servers want the same name again.
struct ticket_slot {
  bool is_there;
  uint64_t name;
  struct tls13_ticket ticket;
};

enum phase { PHASE_PRIME, PHASE_RUN, PHASE_HOLD, PHASE_DRAIN };

struct load {
  const struct load_options *options;
  struct load_result *result;
  struct recorder *recorder;
  struct tls13_shared *shared;
  struct ticket_slot *slots;
  size_t num_tickets;  // that are there
  char prime_failure[LOAD_REASON_LEN];
  int epoll;
  int timer;
  int signals;
  enum phase phase;
  struct conn *conns;
  size_t num_conns;
  struct conn_list free;
  struct conn_list waiting;    // deadlines of timeout_ms, soonest first
  struct conn_list lingering;  // deadlines of LINGER_MS
  int64_t num_begun;           // in this phase
  int64_t num_open;            // not free
  int64_t num_held;
  uint64_t num_names;  // used so far
  struct pacer pacer;
  int64_t deadline_ns;  // no arrival after this; 0: none
  int64_t hold_end_ns;
  int64_t pause_end_ns;  // closed loop: nobody listens, no use in hammering
  int64_t now_ns;
  int64_t progress_ns;
  uint64_t progress_num;
  uint8_t *read_buffer;
};

// --- load_conn.c -----------------------------------------------------------------------

// load_conn_begin takes a free connection for the next number; `scheduled_ns` 0: now.
void load_conn_begin(struct load *load, int64_t scheduled_ns, bool is_prime);
// load_conn_on_event: what epoll says of it.
void load_conn_on_event(struct conn *conn, uint32_t events);
// load_conn_close: all that was to be measured is done. The others end it at once:
// recorded as a failure, for its deadline, or without a record.
void load_conn_close(struct conn *conn);
void load_conn_fail(struct conn *conn, const char *failure);
void load_conn_time_out(struct conn *conn);
void load_conn_release(struct conn *conn);

// For struct tls13_options.
void load_conn_on_data(struct tls13_client *client, struct bytes data);
void load_conn_on_ticket(struct tls13_client *client, const struct tls13_ticket *ticket);

#endif  // DEPUTY_BENCH_LOAD_PRIVATE_H_
