// SPDX-License-Identifier: Apache-2.0
// internal: what the parts of a keyclient know of each other.
//   keyclient.c   requests: ids, deadlines, where each goes next
//   link.c        connections: made, kept alive, lost and made again
// A link tells the requests' side what happened by the three events at the end and
// never touches a request itself.
#ifndef DEPUTY_COMMON_KEYCLIENT_INTERNAL_H_
#define DEPUTY_COMMON_KEYCLIENT_INTERNAL_H_

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/base/status.h"
#include "common/keyclient/keyclient.h"
#include "common/net/loop.h"
#include "common/net/resolve.h"
#include "common/tls/tls_stream.h"
#include "common/wire/frame.h"

#define KEYCLIENT_NUM_BUCKETS 4096u  // a power of two; ids are handed out in sequence
#define KEYCLIENT_INLINE_LEN 256u    // longer messages are allocated
#define KEYCLIENT_MAX_OUTPUT_LEN (4u << 20)
#define KEYCLIENT_MAX_SPARE 1024u
#define KEYCLIENT_TICK_MS 500         // how often links are looked at
#define KEYCLIENT_PING_MS 10000       // quiet for so long: ping. Others close at 30 s
#define KEYCLIENT_QUIET_MS 35000      // quiet for so long in spite of pings: lost
#define KEYCLIENT_STALL_MS 2000       // on top of the deadline: asked, and no byte came
#define KEYCLIENT_RETRY_FIRST_MS 50   // between connects, doubled up to the last,
#define KEYCLIENT_RETRY_LAST_MS 5000  // each with 25 % jitter
#define KEYCLIENT_WAKE_MS 100         // somebody waits: a pause is cut to this

struct link;

TAILQ_HEAD(request_list, request);

// One signature that somebody waits for.
struct request {
  uint64_t id;
  struct request *next_in_bucket;
  TAILQ_ENTRY(request) in_life;     // all, oldest first: also the order of deadlines
  TAILQ_ENTRY(request) in_turn;     // at `link`, or of those that wait for one
  TAILQ_ENTRY(request) in_attempt;  // by the end of their attempt
  bool is_timed;                    // in the list of attempts
  int64_t started_us;
  int64_t due_ms;
  int64_t attempt_due_ms;
  struct link *link;  // where it was sent last; NULL: waits
  unsigned num_attempts;
  uint32_t tried;         // bit n: server n had its chance
  enum frame_error code;  // what a server said last
  void (*fn)(void *arg, const struct sign_answer *answer);
  void *arg;
  // The packet.
  uint8_t opcode;
  bool is_digest;  // the payload is `digest`, else the message
  uint8_t ski[FRAME_SKI_LEN];
  uint8_t digest[64];
  size_t digest_len;
  size_t message_len;
  uint8_t *message;  // in `room` or allocated
  size_t sni_len;
  char sni[KEYCLIENT_MAX_SNI_LEN];
  uint8_t room[KEYCLIENT_INLINE_LEN];
};

//  RESOLVING --> CONNECTING --> OPEN
//       ^                        |       any state --> PAUSED (until `retry`)
//       +------- PAUSED <--------+
enum link_state { LINK_PAUSED, LINK_RESOLVING, LINK_CONNECTING, LINK_OPEN };

struct link {
  struct server *server;
  enum link_state state;
  struct tls_stream *stream;
  struct resolve_query *query;
  struct timer retry;
  struct request_list requests;  // sent here last, not answered
  uint64_t num_sent;
  uint64_t num_received;  // replies, also late ones and pongs
  int64_t received_ms;    // when bytes last came
  int64_t sent_ms;        // when something was last sent
  int64_t asked_ms;       // since when something is unanswered
  int64_t connect_ms;     // when the last attempt to connect began
  unsigned num_attempts;  // to connect: which address is next
};

struct server {
  struct keyclient *kc;
  unsigned index;
  char host[256];
  char name[256];
  uint16_t port;
  struct link *links;
  size_t num_links;
  unsigned num_open;
  unsigned num_failures;  // to connect, in a row
};

struct keyclient {
  struct loop *loop;
  struct resolver *resolver;
  SSL_CTX *tls;
  int64_t deadline_ms;
  int64_t attempt_ms;
  int64_t connect_ms;
  int64_t ping_ms;  // KEYCLIENT_PING_MS, but in tests
  struct server servers[KEYCLIENT_MAX_SERVERS];
  size_t num_servers;
  atomic_uint num_ready;
  struct timer deadlines;
  int64_t armed_due_ms;
  struct timer tick;
  uint64_t last_id;
  size_t num_requests;
  struct request_list life;
  struct request_list attempts;
  struct request_list waiting;
  struct request *buckets[KEYCLIENT_NUM_BUCKETS];
  struct request_list spare;  // done with, for the next ones
  size_t num_spare;
  struct keyclient_stats stats;
};

// --- link.c ---------------------------------------------------------------------------
enum status link_init(struct link *link, struct server *server);
void link_cleanup(struct link *link);
void link_connect(struct link *link);
// link_wake ends a pause, as somebody waits for a connection.
void link_wake(struct link *link);
// link_tick pings and gives up what is silent.
void link_tick(struct link *link);
// link_may_take: can one more request be sent here now?
bool link_may_take(const struct link *link);
// link_is_suspect: it has owed an answer for longer than an attempt.
bool link_is_suspect(const struct link *link);
uint64_t link_num_unanswered(const struct link *link);
// link_send writes the request's packet; STATUS_UNAVAILABLE: no room.
enum status link_send(struct link *link, const struct request *req);

// --- keyclient.c, called by link.c ------------------------------------------------------
// link_has_room: requests that wait may be sent here. link_lost: what was sent
// here must go elsewhere; the link is not OPEN any more.
void link_has_room(struct link *link);
void link_lost(struct link *link);
// link_answered: a success with its signature (st OK), or an error's code.
void link_answered(struct link *link, uint32_t id, enum status st, enum frame_error code,
                   struct bytes signature);

#endif  // DEPUTY_COMMON_KEYCLIENT_INTERNAL_H_
