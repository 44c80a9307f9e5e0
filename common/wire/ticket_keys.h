// SPDX-License-Identifier: Apache-2.0
// ticket_keys: the file in which machines share the keys of their session tickets, as
// text: one key on a line, behind the time from which it seals.
//
//   # comment
//   2026-11-22T06:00:00Z 64 hexadecimal digits
//
// Times rise from line to line. A key opens tickets as long as it is in the file, and
// seals them from its time on until that of the next; before the first of all times the
// first one seals. So a key that is handed out to all machines ahead of its time is known
// everywhere before a ticket made with it can come.
#ifndef DEPUTY_COMMON_WIRE_TICKET_KEYS_H_
#define DEPUTY_COMMON_WIRE_TICKET_KEYS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

#define TICKET_KEYS_MAX 8u
#define TICKET_KEYS_FILE_MAX_LEN 4096u  // bytes
#define TICKET_KEYS_SECRET_LEN 32u

struct ticket_keys {
  struct {
    int64_t from_s;  // POSIX time
    uint8_t secret[TICKET_KEYS_SECRET_LEN];
  } keys[TICKET_KEYS_MAX];
  size_t num;
};

// ticket_keys_parse fills `out`, which the caller wipes in any case. On failure
// *out_line is the line, and *out_why a static word on what is wrong with it:
//   STATUS_FORMAT  not of this form, times that do not rise, a key twice, none at all
//   STATUS_LIMIT   more than TICKET_KEYS_MAX
enum status ticket_keys_parse(struct ticket_keys *out, struct bytes text, size_t *out_line,
                              const char **out_why);

// ticket_keys_current is the index of the key that seals at `now_s`; *out_next_s is when
// the next one begins, or INT64_MAX.
size_t ticket_keys_current(const struct ticket_keys *keys, int64_t now_s, int64_t *out_next_s);

// ticket_key_set: the keys in use as one process hands them to its successor
// (proxy/upgrade/handover.h), as bytes:
//
//   1 | is_shared (1) | age_ms (8) | number of keys (1) | secrets (32 each)
struct ticket_key_set {
  bool is_shared;  // they are of a file, which others have, too
  int64_t age_ms;  // for how long the key that seals has done so
  size_t num;
  // The one that seals last.
  uint8_t secrets[TICKET_KEYS_MAX][TICKET_KEYS_SECRET_LEN];
};

#define TICKET_KEY_SET_MAX_LEN (11u + TICKET_KEYS_MAX * TICKET_KEYS_SECRET_LEN)

// ticket_key_set_encode returns how many bytes it wrote; there are 1 to TICKET_KEYS_MAX keys.
size_t ticket_key_set_encode(uint8_t out[TICKET_KEY_SET_MAX_LEN], const struct ticket_key_set *set);

// ticket_key_set_decode fills `out`, which the caller wipes in any case. STATUS_FORMAT.
enum status ticket_key_set_decode(struct ticket_key_set *out, struct bytes in);

#endif  // DEPUTY_COMMON_WIRE_TICKET_KEYS_H_
