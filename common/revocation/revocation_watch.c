// SPDX-License-Identifier: Apache-2.0
#include "common/revocation/revocation_watch.h"

#include <openssl/sha.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/revocation/due.h"
#include "common/revocation/sources.h"

#define DEFAULT_MAX_OPEN 1u
#define ID_LEN 16u
#define FIRST_ROOM 16u
#define MAX_POINTS 65536u
#define MAX_SLEEP_S 60
#define SETTLE_S 2
#define RETRY_FIRST_S 60
#define MAX_FAILURES 16u

// One leaf of ours. Its serial number is known by half a SHA-256: chance cannot revoke.
struct member {
  uint8_t id[ID_LEN];
  uint64_t chain;
  uint32_t revoked_s;  // as POSIX seconds, until 2106
  uint8_t reason;
  bool is_revoked;
  bool is_found;  // on the list at hand
  bool is_gone;   // removed; swept up after the next list
};

struct members {
  struct member *list;
  size_t num;
  size_t room;
};

// What the thread found: member number `index` is on the list.
struct finding {
  size_t index;
  int64_t revoked_s;
  int reason;
};

enum point_state { POINT_IDLE, POINT_FETCHING, POINT_SCANNING };

// A distribution point: a list and the leaves that share it.
struct point {
  uint8_t key[SHA256_DIGEST_LENGTH];  // first: the tree compares it
  struct revocation_watch *watch;
  uint32_t index;  // in watch->points and watch->due
  enum point_state state;
  size_t turn;  // which of the URLs is asked
  uint8_t *issuer;
  size_t issuer_len;
  struct leaf_sources sources;  // of one of the leaves; in what counts they are equal
  struct members members;
  bool is_sorted;
  struct members later;  // added (or, is_gone, removed) while the thread has members
  size_t num_live;
  size_t num_revoked;
  bool is_new_here;  // a leaf that the last list was not asked about
  char etag[FETCH_MAX_VALIDATOR_LEN + 1];
  char last_modified[FETCH_MAX_VALIDATOR_LEN + 1];
  char next_etag[FETCH_MAX_VALIDATOR_LEN + 1];  // of the list that is being looked through
  char next_last_modified[FETCH_MAX_VALIDATOR_LEN + 1];
  int64_t this_update_s;
  int64_t next_update_s;
  unsigned num_failures;
  struct fetch *fetch;
  // The thread's, while POINT_SCANNING:
  struct job job;
  uint8_t *body;
  size_t body_len;
  enum crl_fault fault;
  struct crl crl;
  struct finding *findings;
  size_t num_findings;
  size_t findings_room;
};

struct revocation_watch {
  struct revocation_watch_options options;
  struct timer timer;
  struct due due;
  int64_t base_s;
  void *tree;  // of points, by key
  struct point **points;
  uint32_t num_points;  // ever used
  uint32_t points_room;
  size_t num_alive;
  size_t num_open;
};

const char *revocation_status_name(enum revocation_status status) {
  static const char *const names[] = {[REVOCATION_UNKNOWN] = "unknown",
                                      [REVOCATION_GOOD] = "good",
                                      [REVOCATION_REVOKED] = "revoked"};
  return status <= REVOCATION_REVOKED ? names[status] : "?";
}

// --- members ---------------------------------------------------------------------------

static void make_id(uint8_t out[ID_LEN], struct bytes serial) {
  uint8_t digest[SHA256_DIGEST_LENGTH];
  SHA256(serial.data, serial.len, digest);
  memcpy(out, digest, ID_LEN);
}

static enum status members_add(struct members *members, const struct member *member) {
  if (members->num == members->room) {
    const size_t room = members->room < FIRST_ROOM ? FIRST_ROOM : members->room + members->room / 2;
    struct member *list = realloc(members->list, room * sizeof(*list));
    if (list == NULL) {
      return STATUS_MEMORY;
    }
    members->list = list;
    members->room = room;
  }
  members->list[members->num++] = *member;
  return STATUS_OK;
}

static int compare_members(const void *a, const void *b) {
  return memcmp(((const struct member *)a)->id, ((const struct member *)b)->id, ID_LEN);
}

// first_of finds the first member with this id; members->num if there is none.
static size_t first_of(const struct members *members, const uint8_t id[ID_LEN]) {
  size_t low = 0;
  size_t high = members->num;

  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (memcmp(members->list[middle].id, id, ID_LEN) < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < members->num && memcmp(members->list[low].id, id, ID_LEN) == 0 ? low : members->num;
}

// sort is for the loop's thread where one leaf is looked for, and for the other one
// before a list is looked through.
static void sort(struct point *point) {
  if (!point->is_sorted) {
    qsort(point->members.list, point->members.num, sizeof(struct member), compare_members);
  }
}

static struct member *find_member(struct point *point, const uint8_t id[ID_LEN], bool is_any,
                                  uint64_t chain) {
  struct members *members = &point->members;

  sort(point);
  point->is_sorted = true;
  for (size_t i = first_of(members, id); i < members->num; i++) {
    struct member *member = &members->list[i];
    if (memcmp(member->id, id, ID_LEN) != 0) {
      break;
    }
    if (!member->is_gone && (is_any || member->chain == chain)) {
      return member;
    }
  }
  return NULL;
}

static void drop_member(struct point *point, const uint8_t id[ID_LEN], uint64_t chain) {
  struct member *member = find_member(point, id, false, chain);

  if (member != NULL) {
    member->is_gone = true;
    point->num_live--;
    point->num_revoked -= member->is_revoked ? 1 : 0;
  }
}

// --- points ------------------------------------------------------------------------------

static int compare_points(const void *a, const void *b) {
  return memcmp(a, b, SHA256_DIGEST_LENGTH);
}

static void hash_field(SHA256_CTX *ctx, const void *data, size_t len) {
  SHA256_Update(ctx, &len, sizeof len);
  SHA256_Update(ctx, data, len);
}

static const char *url_of(const struct point *point) {
  return point->sources.crl_urls[point->turn];
}

// make_key: leaves share a list if they name the same places, have the same issuer, and
// the question whether it covers them has the same answer.
static void make_key(uint8_t out[SHA256_DIGEST_LENGTH], const struct leaf_sources *sources,
                     struct bytes issuer) {
  SHA256_CTX ctx;

  SHA256_Init(&ctx);
  hash_field(&ctx, issuer.data, issuer.len);
  hash_field(&ctx, sources->points, sources->points_len);
  hash_field(&ctx, &sources->is_ca, sizeof sources->is_ca);
  SHA256_Final(out, &ctx);
}

static struct point *find_point(const struct revocation_watch *watch,
                                const struct leaf_sources *sources, struct bytes issuer) {
  uint8_t key[SHA256_DIGEST_LENGTH];
  void *node = NULL;

  if (sources->num_crl_urls == 0) {
    return NULL;
  }
  make_key(key, sources, issuer);
  node = tfind(key, &watch->tree, compare_points);
  return node == NULL ? NULL : *(struct point **)node;
}

static void point_free(struct point *point) {
  if (point != NULL) {
    free(point->issuer);
    leaf_sources_cleanup(&point->sources);
    free(point->members.list);
    free(point->later.list);
    free(point->findings);
    free(point->body);
    free(point);
  }
}

static enum status take_index(uint32_t *out, struct revocation_watch *watch) {
  for (*out = 0; *out < watch->num_points; (*out)++) {
    if (watch->points[*out] == NULL) {
      return STATUS_OK;
    }
  }
  if (watch->num_points == MAX_POINTS) {
    return STATUS_LIMIT;
  }
  if (watch->num_points == watch->points_room) {
    const uint32_t room = watch->points_room == 0 ? FIRST_ROOM : watch->points_room * 2;
    struct point **points = realloc(watch->points, room * sizeof(struct point *));
    if (points == NULL) {
      return STATUS_MEMORY;
    }
    watch->points = points;
    watch->points_room = room;
  }
  watch->points[watch->num_points++] = NULL;
  return STATUS_OK;
}

// point_new takes the sources.
static enum status point_new(struct point **out, struct revocation_watch *watch,
                             struct leaf_sources *sources, struct bytes issuer) {
  enum status st = STATUS_OK;
  struct point *point = calloc(1, sizeof(*point));

  if (point == NULL) {
    return STATUS_MEMORY;
  }
  point->watch = watch;
  point->issuer = bytes_copy(issuer);
  point->issuer_len = issuer.len;
  make_key(point->key, sources, issuer);
  if (point->issuer == NULL) {
    st = STATUS_MEMORY;
    goto out;
  }
  TRY(take_index(&point->index, watch));
  TRY(due_set(&watch->due, point->index, UINT32_MAX));
  if (tsearch(point, &watch->tree, compare_points) == NULL) {
    due_remove(&watch->due, point->index);
    st = STATUS_MEMORY;
    goto out;
  }
  point->sources = *sources;
  *sources = (struct leaf_sources){0};
  watch->points[point->index] = point;
  watch->num_alive++;
  *out = point;
  point = NULL;

out:
  point_free(point);
  return st;
}

static void point_remove(struct point *point) {
  struct revocation_watch *watch = point->watch;

  fetch_cancel(point->fetch);
  watch->num_open -= point->state != POINT_IDLE ? 1 : 0;
  due_remove(&watch->due, point->index);
  watch->points[point->index] = NULL;
  watch->num_alive--;
  (void)tdelete(point, &watch->tree, compare_points);
  point_free(point);
}

// --- when ----------------------------------------------------------------------------------

static int64_t by_chance(int64_t least, int64_t most) {
  return most <= least ? least : least + (int64_t)arc4random_uniform((uint32_t)(most - least) + 1u);
}

static uint32_t from_base(const struct revocation_watch *watch, int64_t at_s) {
  return at_s <= watch->base_s ? 0 : (uint32_t)(at_s - watch->base_s);
}

static void set_due(struct point *point, int64_t at_s) {
  // It was in before, when it was made.
  CHECK(due_set(&point->watch->due, point->index, from_base(point->watch, at_s)) == STATUS_OK);
}

static int64_t after_success_s(const struct point *point) {
  const int64_t poll_s = point->watch->options.poll_s;
  return clock_wall_s() + by_chance(poll_s - poll_s / 10, poll_s);
}

static int64_t after_failure_s(struct point *point) {
  const int64_t poll_s = point->watch->options.poll_s;
  int64_t delay_s = RETRY_FIRST_S;

  for (unsigned i = 0; i < point->num_failures && delay_s < poll_s; i++) {
    delay_s *= 2;
  }
  point->num_failures += point->num_failures < MAX_FAILURES ? 1 : 0;
  delay_s = delay_s > poll_s ? poll_s : delay_s;
  return clock_wall_s() + by_chance(delay_s - delay_s / 2, delay_s);
}

// try_other turns to the next place that the leaves name for their list. False: this was
// the last one, and it is time for a pause.
static bool try_other(struct point *point) {
  if (point->sources.num_crl_urls > 1) {
    point->turn = (point->turn + 1) % point->sources.num_crl_urls;
    point->etag[0] = '\0';  // was of the other place
    point->last_modified[0] = '\0';
  }
  return point->turn != 0;
}

static void pump(struct revocation_watch *watch);

// finish_round: the answer has been dealt with. Tells of it, and says when the next is due;
// a point that has lost its last leaf ends here.
static void finish_round(struct point *point, enum fetch_fault fetch_fault, bool is_unchanged) {
  struct revocation_watch *watch = point->watch;
  const bool is_good = fetch_fault == FETCH_NO_FAULT && point->fault == CRL_NO_FAULT;
  struct revocation_point told = {.url = url_of(point),
                                  .fetch_fault = fetch_fault,
                                  .fault = point->fault,
                                  .is_unchanged = is_unchanged,
                                  .num_leaves = point->num_live,
                                  .num_revoked = point->num_revoked,
                                  .this_update_s = point->this_update_s,
                                  .next_update_s = point->next_update_s};

  point->num_failures = is_good ? 0 : point->num_failures;
  told.next_s = is_good            ? after_success_s(point)
                : try_other(point) ? clock_wall_s()
                                   : after_failure_s(point);
  // The members are the loop's again; the callback may add and remove some.
  point->state = POINT_FETCHING;
  if (watch->options.on_point != NULL) {
    watch->options.on_point(watch->options.arg, &told);
  }
  point->state = POINT_IDLE;
  watch->num_open--;
  if (point->num_live == 0) {
    point_remove(point);
  } else {
    set_due(point,
            is_good && point->is_new_here ? clock_wall_s() + watch->options.settle_s : told.next_s);
  }
  pump(watch);
}

// --- looking through a list ----------------------------------------------------------------

static bool on_entry(void *arg, const struct crl_entry *entry) {
  struct point *point = arg;
  uint8_t id[ID_LEN];

  make_id(id, entry->serial);
  for (size_t i = first_of(&point->members, id); i < point->members.num; i++) {
    if (memcmp(point->members.list[i].id, id, ID_LEN) != 0) {
      break;
    }
    if (point->num_findings == point->findings_room) {
      const size_t room = point->findings_room == 0 ? FIRST_ROOM : point->findings_room * 2;
      struct finding *findings = realloc(point->findings, room * sizeof(*findings));
      if (findings == NULL) {
        point->fault = CRL_NO_MEMORY;
        return true;
      }
      point->findings = findings;
      point->findings_room = room;
    }
    point->findings[point->num_findings++] = (struct finding){i, entry->revoked_s, entry->reason};
  }
  return false;
}

// scan runs on the thread of jobs: the loop leaves alone what it uses.
static void scan(void *arg) {
  struct point *point = arg;
  const struct crl_query query = {.issuer = bytes_of(point->issuer, point->issuer_len),
                                  .now_s = clock_wall_s(),
                                  .skew_s = REVOCATION_SKEW_S,
                                  .min_this_update = point->this_update_s};
  enum crl_fault fault = CRL_NO_FAULT;

  sort(point);
  point->num_findings = 0;
  point->fault = crl_open(&point->crl, &query, bytes_of(point->body, point->body_len));
  if (point->fault == CRL_NO_FAULT) {
    point->fault = crl_covers(&point->crl, &point->sources);
  }
  if (point->fault == CRL_NO_FAULT) {
    fault = crl_for_each(&point->crl, on_entry, point);
    point->fault = fault != CRL_NO_FAULT ? fault : point->fault;
  }
}

static void tell_change(struct point *point, struct member *member) {
  struct revocation_watch *watch = point->watch;
  const struct revocation_change change = {
      .status = member->is_found ? REVOCATION_REVOKED : REVOCATION_GOOD,
      .revoked_s = member->is_found ? (int64_t)member->revoked_s : 0,
      .reason = member->is_found ? member->reason : 0,
      .url = url_of(point)};

  member->is_revoked = member->is_found;
  point->num_revoked += member->is_found ? 1 : 0;
  point->num_revoked -= member->is_found ? 0 : 1;
  watch->options.on_change(watch->options.arg, member->chain, &change);
}

// take_findings compares with what was known. Callbacks add to `later` only: the state is
// still POINT_SCANNING.
static void take_findings(struct point *point) {
  for (size_t i = 0; i < point->members.num; i++) {
    point->members.list[i].is_found = false;
  }
  for (size_t i = 0; i < point->num_findings; i++) {
    const struct finding *finding = &point->findings[i];
    struct member *member = &point->members.list[finding->index];
    member->is_found = true;
    member->revoked_s = finding->revoked_s < 0 || finding->revoked_s > UINT32_MAX
                            ? 0
                            : (uint32_t)finding->revoked_s;
    member->reason = (uint8_t)finding->reason;
  }
  for (size_t i = 0; i < point->members.num; i++) {
    struct member *member = &point->members.list[i];
    if (!member->is_gone && member->is_found != member->is_revoked) {
      tell_change(point, member);
    }
  }
}

static void sweep(struct members *members) {
  size_t num = 0;
  for (size_t i = 0; i < members->num; i++) {
    if (!members->list[i].is_gone) {
      members->list[num++] = members->list[i];
    }
  }
  members->num = num;
}

static void add_to_point(struct point *point, const struct member *member) {
  if (members_add(&point->members, member) == STATUS_OK) {
    point->is_sorted = false;
    point->is_new_here = true;
    point->num_live++;
  }
}

// take_later does what was put off while the thread had the members.
static void take_later(struct point *point) {
  for (size_t i = 0; i < point->later.num; i++) {
    const struct member *member = &point->later.list[i];
    if (member->is_gone) {
      drop_member(point, member->id, member->chain);
    } else {
      add_to_point(point, member);
    }
  }
  free(point->later.list);
  point->later = (struct members){0};
  sweep(&point->members);
}

static void on_scanned(void *arg) {
  struct point *point = arg;

  point->is_sorted = true;
  free(point->body);
  point->body = NULL;
  if (point->fault == CRL_NO_FAULT) {
    point->is_new_here = false;
    point->this_update_s = point->crl.this_update_s;
    point->next_update_s = point->crl.next_update_s;
    memcpy(point->etag, point->next_etag, sizeof point->etag);
    memcpy(point->last_modified, point->next_last_modified, sizeof point->last_modified);
    take_findings(point);
  }
  take_later(point);
  finish_round(point, FETCH_NO_FAULT, false);
}

// --- asking for it ---------------------------------------------------------------------------

static void copy_validator(char out[FETCH_MAX_VALIDATOR_LEN + 1], const char *value) {
  const size_t len = value == NULL ? 0 : strlen(value);

  out[0] = '\0';
  if (len > 0 && len <= FETCH_MAX_VALIDATOR_LEN) {
    memcpy(out, value, len + 1);
  }
}

static void on_fetched(void *arg, const struct fetch_result *result) {
  struct point *point = arg;

  point->fetch = NULL;
  point->fault = CRL_NO_FAULT;
  if (result->fault != FETCH_NO_FAULT) {
    finish_round(point, result->fault, false);
    return;
  }
  if (result->is_unchanged) {
    if (clock_wall_s() >= point->next_update_s + REVOCATION_SKEW_S) {
      point->fault = CRL_EXPIRED;
      point->etag[0] = '\0';  // next time the whole, whatever a cache says
      point->last_modified[0] = '\0';
    }
    finish_round(point, FETCH_NO_FAULT, true);
    return;
  }
  copy_validator(point->next_etag, result->etag);
  copy_validator(point->next_last_modified, result->last_modified);
  point->body_len = result->body.len;
  point->body = fetch_take_body(result);
  if (point->body == NULL) {
    point->fault = CRL_MALFORMED;  // an empty one
    finish_round(point, FETCH_NO_FAULT, false);
    return;
  }
  point->state = POINT_SCANNING;
  point->job = (struct job){.work = scan, .done = on_scanned, .arg = point};
  jobs_start(point->watch->options.jobs, &point->job);
}

static void start(struct point *point) {
  struct revocation_watch *watch = point->watch;
  // A leaf that has come since has to be looked for in the whole list.
  const bool is_conditional = !point->is_new_here;
  const struct fetch_wish wish = {
      .url = url_of(point),
      .etag = is_conditional ? point->etag : NULL,
      .last_modified = is_conditional ? point->last_modified : NULL,
      .limit_ms = watch->options.limit_ms,
      .max_len = watch->options.max_len,
      .ca_path = watch->options.ca_path,
  };

  if (fetch_start(&point->fetch, watch->options.http, &wish, on_fetched, point) != STATUS_OK) {
    set_due(point, after_failure_s(point));
    return;
  }
  point->state = POINT_FETCHING;
  watch->num_open++;
}

static void pump(struct revocation_watch *watch) {
  struct due_entry first;
  const int64_t now_s = clock_wall_s();
  int64_t sleep_s = MAX_SLEEP_S;

  while (watch->num_open < watch->options.max_open && due_first(&watch->due, &first) &&
         first.at_s <= from_base(watch, now_s)) {
    due_remove(&watch->due, first.item);
    start(watch->points[first.item]);
  }
  if (watch->num_open >= watch->options.max_open || !due_first(&watch->due, &first)) {
    timer_cancel(&watch->timer);  // what is open, or is added, goes on
    return;
  }
  if ((int64_t)first.at_s - (int64_t)from_base(watch, now_s) < sleep_s) {
    sleep_s = (int64_t)first.at_s - (int64_t)from_base(watch, now_s);
  }
  timer_arm_ms(&watch->timer, sleep_s < 0 ? 0 : sleep_s * 1000);
}

static void on_timer(void *arg) { pump(arg); }

// --- for the caller ------------------------------------------------------------------------------

enum status revocation_watch_new(struct revocation_watch **out,
                                 const struct revocation_watch_options *options) {
  struct revocation_watch *watch = calloc(1, sizeof(*watch));

  *out = NULL;
  if (watch == NULL || timer_init(&watch->timer, options->loop, on_timer, watch) != STATUS_OK) {
    free(watch);
    return STATUS_MEMORY;
  }
  watch->options = *options;
  if (watch->options.max_open == 0) {
    watch->options.max_open = DEFAULT_MAX_OPEN;
  }
  if (watch->options.max_len == 0) {
    watch->options.max_len = CRL_DEFAULT_MAX_LEN;
  }
  if (watch->options.poll_s == 0) {
    watch->options.poll_s = REVOCATION_POLL_S;
  }
  if (watch->options.limit_ms == 0) {
    watch->options.limit_ms = REVOCATION_LIMIT_MS;
  }
  if (watch->options.settle_s <= 0) {
    watch->options.settle_s = watch->options.settle_s < 0 ? 0 : SETTLE_S;
  }
  watch->base_s = clock_wall_s();
  *out = watch;
  return STATUS_OK;
}

void revocation_watch_free(struct revocation_watch *watch) {
  if (watch == NULL) {
    return;
  }
  for (uint32_t i = 0; i < watch->num_points; i++) {
    if (watch->points[i] != NULL) {
      point_remove(watch->points[i]);
    }
  }
  free(watch->points);
  due_cleanup(&watch->due);
  timer_cleanup(&watch->timer);
  free(watch);
}

enum status revocation_watch_add(struct revocation_watch *watch, uint64_t chain, struct bytes leaf,
                                 struct bytes issuer) {
  enum status st = STATUS_OK;
  struct leaf_sources sources = {0};
  struct member member = {.chain = chain};
  struct point *point = NULL;

  TRY(leaf_sources_read(&sources, leaf));
  if (sources.num_crl_urls == 0 || issuer.len == 0) {
    st = STATUS_NOT_FOUND;
    goto out;
  }
  make_id(member.id, bytes_of(sources.serial, sources.serial_len));
  point = find_point(watch, &sources, issuer);
  if (point == NULL) {
    TRY(point_new(&point, watch, &sources, issuer));
  }
  if (point->state == POINT_SCANNING) {
    TRY(members_add(&point->later, &member));
    goto out;
  }
  TRY(members_add(&point->members, &member));
  point->is_sorted = false;
  point->num_live++;
  if (!point->is_new_here) {
    point->is_new_here = true;
    if (point->state == POINT_IDLE) {
      set_due(point, clock_wall_s() + watch->options.settle_s);
      pump(watch);
    }
  }

out:
  leaf_sources_cleanup(&sources);
  return st;
}

void revocation_watch_remove(struct revocation_watch *watch, uint64_t chain, struct bytes leaf,
                             struct bytes issuer) {
  struct leaf_sources sources = {0};
  struct member member = {.chain = chain, .is_gone = true};
  struct point *point = NULL;

  if (leaf_sources_read(&sources, leaf) != STATUS_OK) {
    return;
  }
  make_id(member.id, bytes_of(sources.serial, sources.serial_len));
  point = find_point(watch, &sources, issuer);
  leaf_sources_cleanup(&sources);
  if (point == NULL) {
    return;
  }
  if (point->state == POINT_SCANNING) {
    (void)members_add(&point->later, &member);  // no memory: it is told of once more
    return;
  }
  drop_member(point, member.id, chain);
  if (point->num_live == 0 && point->state == POINT_IDLE) {
    point_remove(point);
  }
}

enum revocation_status revocation_watch_status(struct revocation_watch *watch, struct bytes leaf,
                                               struct bytes issuer) {
  struct leaf_sources sources = {0};
  uint8_t id[ID_LEN];
  struct point *point = NULL;
  const struct member *member = NULL;

  if (leaf_sources_read(&sources, leaf) != STATUS_OK) {
    return REVOCATION_UNKNOWN;
  }
  make_id(id, bytes_of(sources.serial, sources.serial_len));
  point = find_point(watch, &sources, issuer);
  leaf_sources_cleanup(&sources);
  // While members are being sorted on the other thread, nobody else may look.
  if (point == NULL || (point->state == POINT_SCANNING && !point->is_sorted)) {
    return REVOCATION_UNKNOWN;
  }
  member = find_member(point, id, true, 0);
  if (member != NULL && member->is_revoked) {
    return REVOCATION_REVOKED;
  }
  return member == NULL || point->is_new_here || clock_wall_s() >= point->next_update_s
             ? REVOCATION_UNKNOWN
             : REVOCATION_GOOD;
}

size_t revocation_watch_num_points(const struct revocation_watch *watch) {
  return watch->num_alive;
}
