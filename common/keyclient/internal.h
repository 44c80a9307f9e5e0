// SPDX-License-Identifier: Apache-2.0
// internal: what the parts of a keyclient know of each other.
//   keyclient.c   the caller's side; making, ending, ticking
//   request.c     a request's life: ids, one answer
//   ask.c         where it goes, and what answers and losses mean
//   deadline.c    what is due: hedges, the ends of attempts, of waiting, of requests
//   order.c       which server and which connection is asked next
//   health.c      what is known of a server: latency, breaker, gauges, pings
//   pool.c        a server's addresses and the connections to them
//   link.c        one connection: made, used, lost or drained
// and, pure: latency, breaker, hedge, key_notes. A link tells the requests' side what
// happened by the events of ask.c below, and never touches a request itself.
#ifndef DEPUTY_COMMON_KEYCLIENT_INTERNAL_H_
#define DEPUTY_COMMON_KEYCLIENT_INTERNAL_H_

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/base/status.h"
#include "common/keyclient/breaker.h"
#include "common/keyclient/hedge.h"
#include "common/keyclient/key_notes.h"
#include "common/keyclient/keyclient.h"
#include "common/keyclient/latency.h"
#include "common/net/loop.h"
#include "common/net/resolve.h"
#include "common/tls/tls_stream.h"
#include "common/wire/frame.h"

#define KEYCLIENT_NUM_BUCKETS 4096u  // a power of two; ids are handed out in sequence
#define KEYCLIENT_INLINE_LEN 256u    // longer messages are allocated
#define KEYCLIENT_MAX_OUTPUT_LEN (4u << 20)
#define KEYCLIENT_MAX_SPARE 1024u
#define KEYCLIENT_TICK_MS 500         // how often links are looked at
#define KEYCLIENT_PING_MS 10000       // default of ping_ms. Others close at 30 s
#define KEYCLIENT_RESOLVE_MS 60000    // default of resolve_ms
#define KEYCLIENT_FRESH_MS 1000       // an answer younger than this is not asked for again
#define KEYCLIENT_QUIET_MS 35000      // quiet for so long in spite of pings: lost
#define KEYCLIENT_STALL_MS 2000       // on top of the deadline: asked, and no byte came
#define KEYCLIENT_RETRY_FIRST_MS 50   // between connects, doubled up to the last,
#define KEYCLIENT_RETRY_LAST_MS 5000  // each with 25 % jitter
#define KEYCLIENT_WAKE_MS 100         // somebody waits: a pause is cut to this
#define KEYCLIENT_SUSPECT_MS 50       // least time an answer is owed before others are preferred,
#define KEYCLIENT_SUSPECT_P95S 4      // or so many times the p95 of the server's signatures
#define KEYCLIENT_SHUN_MS 1000        // who closed a connection is asked last for so long
#define KEYCLIENT_REST_MS \
  60000  // an address that cannot be connected is not tried
         // while there are others

struct link;
struct request;
struct server;

TAILQ_HEAD(request_list, request);
TAILQ_HEAD(attempt_list, attempt);

// A request as it was sent to one server.
struct attempt {
  struct request *req;
  struct link *link;  // NULL: over: answered, or the connection is lost
  int64_t sent_us;
  int64_t due_ms;
  bool is_hedge;
  bool is_expired;                   // due_ms has passed; an answer is still taken
  TAILQ_ENTRY(attempt) in_link;      // what a link owes
  TAILQ_ENTRY(attempt) in_expiring;  // unless it is expired
};

// One signature that somebody waits for; or waited for: it is kept without a callback
// until what it asked for has come or is due, so that late answers can be told from wrong
// ones, and a server that never answers is known by it.
struct request {
  uint64_t id;
  struct request *next_in_bucket;
  TAILQ_ENTRY(request) in_life;     // all, oldest first: also the order of deadlines
  TAILQ_ENTRY(request) in_waiting;  // for a connection, if is_waiting
  TAILQ_ENTRY(request) in_hedging;  // at `hedging`, if that is not NULL
  bool is_waiting;
  bool is_refused;         // a server has said what no other can cure
  struct server *hedging;  // whose p95 is waited for
  int64_t started_us;
  int64_t due_ms;
  int64_t wait_due_ms;
  int64_t hedge_due_ms;
  unsigned num_attempts;
  unsigned num_open;                                        // attempts that may be answered
  unsigned num_live;                                        // of them not expired
  uint32_t asked;                                           // bit n: server n is being asked
  uint32_t tried;                                           // bit n: server n had its chance
  enum frame_error code;                                    // what a server said last
  void (*fn)(void *arg, const struct sign_answer *answer);  // NULL: nobody waits
  void *arg;
  struct attempt attempts[KEYCLIENT_MAX_ATTEMPTS];
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

//  UNUSED --> RESOLVING --> CONNECTING --> OPEN
//               ^   +----------^            |     any state --> PAUSED (until `retry`)
//               +------- PAUSED <-----------+                   or UNUSED (surplus, drained)
enum link_state { LINK_UNUSED, LINK_PAUSED, LINK_RESOLVING, LINK_CONNECTING, LINK_OPEN };

struct link {
  struct server *server;
  enum link_state state;
  bool is_leaving;        // OPEN: to be closed when there is another, and nothing is owed
  unsigned num_failures;  // to connect, in a row
  int64_t shun_until_ms;  // its server has closed another one
  struct tls_stream *stream;
  struct address address;  // CONNECTING and OPEN
  struct timer retry;
  struct attempt_list attempts;  // owed
  uint64_t num_sent;
  uint64_t num_received;  // replies, also late ones and pongs
  int64_t received_ms;    // when bytes last came
  int64_t sent_ms;        // when something was last sent
  int64_t asked_ms;       // since when something is unanswered
  int64_t connect_ms;     // when the last attempt to connect began
  int64_t quiet_ms;       // ping after so long
  int64_t pinged_us;      // 0: no ping is under way
  unsigned num_to_ping;   // one after another
  bool is_ping_overdue;
  bool is_probe;  // the ping decides on the breaker
};

// One address of a server's name.
struct place {
  struct address address;
  int64_t rest_until_ms;  // it could not be connected: others first
};

struct server {
  struct keyclient *kc;
  unsigned index;
  char label[272];  // as configured, "host:port"
  char host[256];
  char name[256];
  uint16_t port;
  bool is_numeric;  // the host is an address: never looked up again
  struct place places[RESOLVE_MAX_ADDRESSES];
  size_t num_places;
  struct resolve_query *query;
  struct timer resolve;
  int64_t resolved_ms;
  struct link *links;
  size_t num_links;   // slots; most are UNUSED
  size_t turn;        // the link that is looked at first
  unsigned num_open;  // leaving ones included
  struct latency latency;
  struct breaker breaker;
  bool is_unreachable;     // what failed last was to connect
  int64_t hedge_after_ms;  // -1: never
  int64_t suspect_ms;
  int64_t doubted_ms;           // when a doubt about the distance was looked into
  int64_t faded_ms;             // when the latency was
  struct request_list hedging;  // by their hedge_due_ms
  struct keyclient_server_stats stats;
};

struct keyclient {
  struct loop *loop;
  struct resolver *resolver;
  SSL_CTX *tls;
  int64_t deadline_ms;
  int64_t attempt_ms;
  int64_t connect_ms;
  int64_t ping_ms;
  int64_t resolve_ms;
  size_t num_connections;
  struct server servers[KEYCLIENT_MAX_SERVERS];
  size_t num_servers;
  uint8_t order[KEYCLIENT_MAX_SERVERS];  // indexes of servers, the nearest first
  atomic_uint num_ready;
  struct timer deadlines;
  int64_t armed_due_ms;
  struct timer tick;
  uint64_t last_id;
  size_t num_requests;
  struct request_list life;
  struct request_list waiting;   // by their wait_due_ms
  struct attempt_list expiring;  // by their due_ms
  struct request *buckets[KEYCLIENT_NUM_BUCKETS];
  struct request_list spare;  // done with, for the next ones
  size_t num_spare;
  struct hedge_budget budget;
  struct key_notes notes;
  struct keyclient_stats stats;
};

// --- keyclient.c ------------------------------------------------------------------------
// keyclient_new_with asks the DNS server `dns` (NULL: the system's). For tests.
enum status keyclient_new_with(struct keyclient **out, struct loop *loop,
                               const struct keyclient_config *config, const struct address *dns,
                               struct errmsg *err);
static inline uint32_t server_bit(const struct server *server) {
  return UINT32_C(1) << server->index;
}
// keyclient_jitter_ms returns 75 to 125 % of it.
int64_t keyclient_jitter_ms(int64_t ms);

// --- request.c --------------------------------------------------------------------------
enum status kc_request_new(struct request **out, struct keyclient *kc,
                           const struct sign_request *from);
// kc_request_start gives it an id and sends it, or lets it wait.
void kc_request_start(struct keyclient *kc, struct request *req);
void kc_request_cancel(struct keyclient *kc, uint64_t id);
// kc_request_find returns what points to the request with this id on the wire, or to NULL.
struct request **kc_request_find(struct keyclient *kc, uint32_t wire_id);
void kc_request_stop_waiting(struct keyclient *kc, struct request *req);
void kc_request_stop_hedging(struct request *req);
// kc_request_settle: nobody waits for it any more. kc_request_finish answers; then, as after
// every attempt_close, it may be forgotten.
void kc_request_settle(struct keyclient *kc, struct request *req);
void kc_request_finish(struct keyclient *kc, struct request *req, enum status st,
                       struct bytes signature);
void kc_request_forget(struct keyclient *kc, struct request *req);
void kc_request_forget_if_done(struct keyclient *kc, struct request *req);
void attempt_close(struct keyclient *kc, struct attempt *attempt);
void kc_requests_free(struct keyclient *kc);

// --- deadline.c -------------------------------------------------------------------------
void kc_request_arm(struct keyclient *kc, int64_t due_ms);
void kc_request_on_deadlines(void *arg);

// --- ask.c ------------------------------------------------------------------------------
bool kc_request_send(struct keyclient *kc, struct request *req, struct link *link, bool is_hedge);
// kc_request_place sends the request to the best link there is. False: there is none.
bool kc_request_place(struct keyclient *kc, struct request *req);
// kc_request_go_on: an attempt failed or took too long; or there was none yet.
void kc_request_go_on(struct keyclient *kc, struct request *req);
// kc_request_give_up answers with what a server said last.
void kc_request_give_up(struct keyclient *kc, struct request *req);
// What links say. link_has_room: requests that wait may be sent there. link_lost: what was
// sent there must go elsewhere; the link is not OPEN any more. In good order: the server
// has closed it, which is no failure.
void kc_request_link_has_room(struct link *link);
void kc_request_link_lost(struct link *link, bool is_orderly);
// kc_request_answered: a success with its signature (st OK), or an error's code.
void kc_request_answered(struct link *link, uint32_t id, enum status st, enum frame_error code,
                         struct bytes signature);

// --- order.c ----------------------------------------------------------------------------
// order_sort moves indexes into the order of distance (-1: not measured), no further than
// keyclient.h says.
void order_sort(uint8_t *order, size_t num, const int64_t *distance_us);
void order_update(struct keyclient *kc);
// order_pick returns the connection to send the request to, or NULL. For a hedge only one
// to a server of which nothing bad is known.
struct link *order_pick(struct keyclient *kc, const struct request *req, bool is_hedge);

// --- health.c ---------------------------------------------------------------------------
void kc_health_init(struct server *server);
void kc_health_answered(struct server *server, const struct attempt *attempt, int64_t us);
void kc_health_ponged(struct link *link);
void kc_health_failed(struct server *server, enum keyclient_failure failure);
// kc_health_opened, kc_health_closed: of one of its connections.
void kc_health_opened(struct link *link);
void kc_health_closed(struct link *link);
void kc_health_tick(struct server *server, int64_t now_ms);
void kc_health_tick_link(struct link *link, int64_t now_ms);

// --- pool.c -----------------------------------------------------------------------------
enum status kc_pool_init(struct server *server, size_t num_connections);
void kc_pool_cleanup(struct server *server);
// kc_pool_plan makes as many connections as there should be, one to each address at least,
// and takes surplus ones out of service.
void kc_pool_plan(struct server *server);
// kc_pool_resolve looks the name up, unless that was done just now or is being done.
void kc_pool_resolve(struct server *server);
// kc_pool_choose returns the address for another connection; NULL: none is known.
const struct address *kc_pool_choose(const struct server *server);
// kc_pool_note_connect: an address could be connected to, or could not.
void kc_pool_note_connect(struct server *server, const struct address *address, bool is_good);
// kc_pool_shun: the connections to this address are asked last until then.
void kc_pool_shun(struct server *server, const struct address *address, int64_t until_ms);
// kc_pool_has: it is one of the name's addresses.
bool kc_pool_has(struct server *server, const struct address *address);
// kc_pool_is_surplus: there are enough connections without this one.
bool kc_pool_is_surplus(const struct link *link);
// kc_pool_wake ends a pause of one of its links, as somebody waits.
void kc_pool_wake(struct server *server);

// --- link.c -----------------------------------------------------------------------------
enum status link_init(struct link *link, struct server *server);
void link_cleanup(struct link *link);
// link_connect starts one that is UNUSED, PAUSED or RESOLVING.
void link_connect(struct link *link);
// link_wake cuts a pause to KEYCLIENT_WAKE_MS since the last attempt. False: it is in none.
bool link_wake(struct link *link);
// link_retire closes a leaving link when it owes nothing and another can serve.
void link_retire(struct link *link);
// link_drop ends a connection for a reason that its owner found.
void link_drop(struct link *link, const char *why);
// link_may_take: can one more request be sent here now?
bool link_may_take(const struct link *link);
// link_owes_ms: for how long the server has owed an answer and sent nothing; 0: it owes none.
int64_t link_owes_ms(const struct link *link);
uint64_t link_num_unanswered(const struct link *link);
// link_send writes the request's packet, link_ping a ping; STATUS_UNAVAILABLE: no room.
enum status link_send(struct link *link, const struct request *req);
enum status link_ping(struct link *link);

#endif  // DEPUTY_COMMON_KEYCLIENT_INTERNAL_H_
