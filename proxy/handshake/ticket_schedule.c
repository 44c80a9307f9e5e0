// SPDX-License-Identifier: Apache-2.0
#include "proxy/handshake/ticket_schedule.h"

#include <openssl/mem.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"

#define RETRY_MS 1000  // all room was taken by keys that were being read
// The wall clock may be set: it is looked at this often while a key waits for its time.
#define LOOK_MS INT64_C(60000)

// --- the file ------------------------------------------------------------------------------

enum status ticket_schedule_read(struct secret *out, const char *path, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct secret text = {0};
  size_t line = 0;
  const char *why = NULL;

  TRY(secret_read_file(&text, path, TICKET_KEYS_FILE_MAX_LEN, true, err));
  TRY(secret_alloc(out, sizeof(struct ticket_keys)));
  st = ticket_keys_parse((struct ticket_keys *)(void *)out->data, bytes_of(text.data, text.len),
                         &line, &why);
  if (st != STATUS_OK) {
    st = errmsg_set(err, st, "%s:%zu: %s", path, line, why);
  }

out:
  secret_wipe(&text);
  if (st != STATUS_OK) {
    secret_wipe(out);
  }
  return st;
}

// --- time ----------------------------------------------------------------------------------

// note_key counts and logs a change of the key that seals.
static void note_key(struct ticket_schedule *schedule, bool is_of_file, size_t num) {
  const uint8_t *name = tickets_key_name(schedule->tickets);
  char hex[2 * 4 + 1];

  schedule->is_of_file = is_of_file;
  if (memcmp(schedule->name, name, sizeof schedule->name) == 0) {
    return;
  }
  memcpy(schedule->name, name, sizeof schedule->name);
  schedule->rotated_ms = clock_monotonic_ms();
  schedule->num_changes += 1;
  log_info(0, "ticket_key", "source=%s name=%s keys=%zu", is_of_file ? "file" : "own",
           bytes_to_hex(hex, bytes_of(name, 4)), num);
}

// follow_file returns when to look again, in ms; 0: no need.
static int64_t follow_file(struct ticket_schedule *schedule, const struct ticket_keys *keys) {
  const uint8_t *secrets[TICKET_KEYS_MAX];
  const int64_t now_s = clock_wall_s();
  int64_t next_s = 0;
  const size_t current = ticket_keys_current(keys, now_s, &next_s);

  _Static_assert(TICKET_KEYS_MAX == TICKET_MAX_KEYS, "all of a file find room");
  _Static_assert(TICKET_KEYS_SECRET_LEN == TICKET_SECRET_LEN, "they are of one kind");
  for (size_t i = 0; i < keys->num; i++) {
    secrets[i] = keys->keys[i].secret;
  }
  if (tickets_set(schedule->tickets, secrets, keys->num, current) != STATUS_OK) {
    return RETRY_MS;
  }
  note_key(schedule, true, keys->num);
  if (next_s == INT64_MAX) {
    return 0;
  }
  return next_s - now_s > LOOK_MS / 1000 ? LOOK_MS : (next_s - now_s) * 1000;
}

static int64_t follow_time(struct ticket_schedule *schedule) {
  const int64_t period_ms = schedule->site->options.tickets.rotate_ms;
  const int64_t due_ms = schedule->rotated_ms + period_ms;
  const int64_t now_ms = clock_monotonic_ms();

  // A key that others know must not seal what is to be ours alone.
  if (!schedule->is_of_file && now_ms < due_ms) {
    return due_ms - now_ms;
  }
  if (tickets_rotate(schedule->tickets) != STATUS_OK) {
    return RETRY_MS;
  }
  note_key(schedule, false, TICKET_NUM_KEYS);
  return period_ms;
}

static void on_time(void *arg) {
  struct ticket_schedule *schedule = arg;
  const struct secret *keys = &schedule->site->ticket_keys;
  const int64_t wait_ms =
      keys->len > 0 ? follow_file(schedule, (const struct ticket_keys *)(const void *)keys->data)
                    : follow_time(schedule);

  if (wait_ms > 0) {
    timer_arm_ms(&schedule->timer, wait_ms);
  } else {
    timer_cancel(&schedule->timer);
  }
}

// --- an upgrade ----------------------------------------------------------------------------

size_t ticket_schedule_give(const struct ticket_schedule *schedule,
                            uint8_t out[TICKET_KEY_SET_MAX_LEN]) {
  struct ticket_key_set set = {.is_shared = schedule->is_of_file,
                               .age_ms = clock_monotonic_ms() - schedule->rotated_ms};
  size_t len = 0;

  set.num = tickets_copy_secrets(schedule->tickets, set.secrets);
  len = ticket_key_set_encode(out, &set);
  OPENSSL_cleanse(&set, sizeof set);
  return len;
}

enum status ticket_schedule_take(struct ticket_schedule *schedule, struct bytes bytes) {
  enum status st = STATUS_OK;
  struct ticket_key_set set;
  const uint8_t *secrets[TICKET_KEYS_MAX];

  TRY(ticket_key_set_decode(&set, bytes));
  if (schedule->site->ticket_keys.len > 0) {
    goto out;
  }
  for (size_t i = 0; i < set.num; i++) {
    secrets[i] = set.secrets[i];
  }
  TRY(tickets_set(schedule->tickets, secrets, set.num, set.num - 1));
  note_key(schedule, set.is_shared, set.num);
  schedule->rotated_ms = clock_monotonic_ms() - set.age_ms;
  on_time(schedule);  // one that is due, or that others know, is followed by a new one at once

out:
  OPENSSL_cleanse(&set, sizeof set);
  return st;
}

// --- life ----------------------------------------------------------------------------------

enum status ticket_schedule_init(struct ticket_schedule *schedule, struct loop *loop,
                                 struct tickets *tickets) {
  *schedule = (struct ticket_schedule){.tickets = tickets, .rotated_ms = clock_monotonic_ms()};
  memcpy(schedule->name, tickets_key_name(tickets), sizeof schedule->name);
  return timer_init(&schedule->timer, loop, on_time, schedule);
}

void ticket_schedule_put(struct ticket_schedule *schedule, const struct site *site) {
  schedule->site = site;
  on_time(schedule);
}

void ticket_schedule_cleanup(struct ticket_schedule *schedule) { timer_cleanup(&schedule->timer); }

void ticket_schedule_write_metrics(const struct ticket_schedule *schedule,
                                   struct metrics_text *text) {
  const char *name = "deputy_proxy_ticket_key_age_seconds";

  metrics_family(text, name, METRIC_GAUGE,
                 "Seconds since the key that seals session tickets began to, in this process.");
  metrics_sample(text, name, (double)(clock_monotonic_ms() - schedule->rotated_ms) / 1000.0,
                 "source", schedule->is_of_file ? "file" : "own", NULL);
  name = "deputy_proxy_ticket_key_changes_total";
  metrics_family(text, name, METRIC_COUNTER, "How often another key began to seal tickets.");
  metrics_sample(text, name, (double)schedule->num_changes, NULL);
}
