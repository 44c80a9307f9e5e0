// SPDX-License-Identifier: Apache-2.0
// dc_schedule: which delegated credential is asked for next, and which goes when there
// are too many: one order for configured names and for names of a store. Pure: no I/O,
// no clock, no TLS. An entry stands for one leaf and lies inside what its owner keeps.
//
//           want (heat)                next                   put
//   IDLE ------------------> MISSING --------> ASKED ----------------> RENEWAL
//    ^                          ^                |  fail                  | half of its life,
//    |                          +--- WAITING <---+                        | give or take
//    |  nobody wanted it              |                                   v
//    +<-------------------------------)------------------- next <---- EXPIRING
//                                     +--- (has one still) --------------^
//
// Heat is the number of handshakes that wanted a credential, each worth half as much
// after DC_SCHEDULE_HALF_LIFE_MS. It is kept as the logarithm of a sum that grows with
// time instead of fading (forward decay), so that time alone never changes an order, and
// nothing is ever walked over.
//
// Order of what is asked for: by heat, but one that has a credential still is worth half
// as much for each 24th of a lifetime that is left before it can no longer be shown. So
// what is missing goes before what is renewed early, and is passed by it in the end.
//
// Budgets: so many a second; so many credentials at all. When one more does not fit, the
// coldest goes, and only for one that is clearly hotter. What is configured stands above
// all that is only visited; what has left the cache goes first.
//
// Every call is O(log n), but for dc_schedule_hurry and _set_limits. Times: `now_ms` is
// monotonic, `wall_ms` is not: what follows a credential's end is kept by that clock, so
// that a clock that is set has its effect at once.
#ifndef DEPUTY_PROXY_DC_DC_SCHEDULE_H_
#define DEPUTY_PROXY_DC_DC_SCHEDULE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"

#define DC_SCHEDULE_HALF_LIFE_MS (INT64_C(15) * 60 * 1000)
#define DC_SCHEDULE_JITTER_PERCENT 10       // of half a life: a fleet must not ask at once
#define DC_SCHEDULE_PARK_MS INT64_C(60000)  // configured, and does not fit
#define DC_SCHEDULE_MARGIN 1.0              // a newcomer must be twice as hot as whom it drives out

enum dc_standing {
  DC_LOOSE = -1,      // of no name in memory: served to nobody, kept while there is room
  DC_CACHED = 0,      // of a name in the cache: asked for once a client wants it
  DC_CONFIGURED = 1,  // of a configured name: wanted always
};

enum dc_queue {
  DC_QUEUE_IDLE,  // in none
  DC_QUEUE_WAITING,
  DC_QUEUE_RENEWAL,
  DC_QUEUE_MISSING,
  DC_QUEUE_EXPIRING,
  DC_QUEUE_ASKED,  // with an issuer
  DC_QUEUE_NUM,
};

// All-zero is not added. Read freely; changed here alone.
struct dc_entry {
  double heat;       // log2; -infinity: never wanted
  int64_t at_ms;     // WAITING: monotonic; RENEWAL: wall clock
  int64_t last_ms;   // held: wall clock, when it can no longer be shown
  int64_t event_ms;  // held: wall clock, when its owner has to look at it
  uint32_t places[3];
  uint8_t queue;    // enum dc_queue
  int8_t standing;  // enum dc_standing
  uint8_t num_failures;
  bool is_held;    // there is a credential
  bool is_wanted;  // by a handshake since that came
};

struct dc_limits {
  int64_t max_held;
  int64_t per_s;
  int64_t life_ms;
  int64_t retry_min_ms;
  int64_t retry_max_ms;
};

#define DC_SCHEDULE_NUM_HEAPS 6

struct dc_heap {
  struct dc_entry **items;
  size_t num;
};

// Counts are for reading.
struct dc_schedule {
  struct dc_limits limits;
  uint64_t (*random)(void);
  size_t num_entries, room;
  struct dc_heap heaps[DC_SCHEDULE_NUM_HEAPS];
  size_t num_asked;
  size_t num_asked_new;    // of these, such as have none
  size_t num_waiting_new;  // of those that wait
  size_t num_held_loose;   // of those that are held
  int64_t tokens;          // thousandths
  int64_t tokens_ms;
  uint64_t num_evicted;   // made room
  uint64_t num_no_room;   // wanted, and colder than all that is there
  uint64_t num_let_go;    // not renewed, as nobody wanted them
  uint64_t num_compares;  // what the order costs
};

void dc_schedule_init(struct dc_schedule *s, const struct dc_limits *limits,
                      uint64_t (*random)(void), int64_t now_ms);
void dc_schedule_set_limits(struct dc_schedule *s, const struct dc_limits *limits);
void dc_schedule_cleanup(struct dc_schedule *s);  // entries are the owner's

// dc_schedule_add: an IDLE one, DC_LOOSE. STATUS_MEMORY: it was not added; nothing below
// can fail.
enum status dc_schedule_add(struct dc_schedule *s, struct dc_entry *entry);
void dc_schedule_remove(struct dc_schedule *s, struct dc_entry *entry);

// dc_schedule_stand: DC_CONFIGURED makes it wanted at once.
void dc_schedule_stand(struct dc_schedule *s, struct dc_entry *entry, enum dc_standing standing,
                       int64_t now_ms);
// dc_schedule_want: `weight` handshakes wanted it.
void dc_schedule_want(struct dc_schedule *s, struct dc_entry *entry, double weight, int64_t now_ms);
// dc_schedule_inherit makes `entry` as hot as `from` and, if that had or wanted one,
// wanted: it takes its place.
void dc_schedule_inherit(struct dc_schedule *s, struct dc_entry *entry, const struct dc_entry *from,
                         int64_t now_ms);

// dc_schedule_next returns the one to ask for now, and it is ASKED; or NULL.
struct dc_entry *dc_schedule_next(struct dc_schedule *s, int64_t now_ms, int64_t wall_ms);

// What became of one that is ASKED:
// dc_schedule_put: a credential for `life_ms` from now on, to be shown until `last_ms`;
// its owner wants to hear of it at `event_ms` (both wall clock).
void dc_schedule_put(struct dc_schedule *s, struct dc_entry *entry, int64_t life_ms,
                     int64_t last_ms, int64_t event_ms, int64_t wall_ms);
// dc_schedule_fail: again after a pause that grows, or, if the refusal `is_firm`, after
// the longest.
void dc_schedule_fail(struct dc_schedule *s, struct dc_entry *entry, bool is_firm, int64_t now_ms);
// dc_schedule_return: it is not its fault, and it goes back to its place.
void dc_schedule_return(struct dc_schedule *s, struct dc_entry *entry);
// dc_schedule_put_off: cannot be asked for now; again after `after_ms`.
void dc_schedule_put_off(struct dc_schedule *s, struct dc_entry *entry, int64_t after_ms,
                         int64_t now_ms);
// dc_schedule_rest: not to be asked for until it is wanted again.
void dc_schedule_rest(struct dc_schedule *s, struct dc_entry *entry);

// dc_schedule_evict returns the coldest while there are too many; it is not held any
// more. NULL: all fit.
struct dc_entry *dc_schedule_evict(struct dc_schedule *s, int64_t now_ms);
// dc_schedule_event borrows a held entry whose event has come, or NULL; the owner then
// sets another, or drops it.
struct dc_entry *dc_schedule_event(const struct dc_schedule *s, int64_t wall_ms);
void dc_schedule_set_event(struct dc_schedule *s, struct dc_entry *entry, int64_t event_ms);
// dc_schedule_drop: the credential is gone (ended, or taken away).
void dc_schedule_drop(struct dc_schedule *s, struct dc_entry *entry);

// dc_schedule_hurry ends the pauses of all that have none.
void dc_schedule_hurry(struct dc_schedule *s);

// dc_schedule_wait_ms is how long nothing will be due, at most `max_ms`.
int64_t dc_schedule_wait_ms(const struct dc_schedule *s, int64_t now_ms, int64_t wall_ms,
                            int64_t max_ms);

size_t dc_schedule_num(const struct dc_schedule *s, enum dc_queue queue);
size_t dc_schedule_num_held(const struct dc_schedule *s);
// dc_schedule_heat: handshakes, faded.
double dc_schedule_heat(const struct dc_entry *entry, int64_t now_ms);

// dc_pause_ms: the pause after `num` failures: doubled each time, half to all of it.
int64_t dc_pause_ms(int64_t min_ms, int64_t max_ms, unsigned num, uint64_t random);

#endif  // DEPUTY_PROXY_DC_DC_SCHEDULE_H_
