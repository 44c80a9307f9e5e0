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

#endif  // DEPUTY_COMMON_WIRE_TICKET_KEYS_H_
