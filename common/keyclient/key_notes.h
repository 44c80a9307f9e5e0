// SPDX-License-Identifier: Apache-2.0
// key_notes: which key servers said of late that they do not have a key, so that the next
// request for it (a key that is bound to a region) goes straight to one that has. A hint
// about the order only: when all others were asked, these are asked too. A fixed table,
// KEY_NOTES_WAYS places for each hash; the note that would end first gives way. Pure, one
// thread; all-zero is empty.
#ifndef DEPUTY_COMMON_KEYCLIENT_KEY_NOTES_H_
#define DEPUTY_COMMON_KEYCLIENT_KEY_NOTES_H_

#include <stddef.h>
#include <stdint.h>

#include "common/wire/frame.h"

#define KEY_NOTES_SETS 256u  // a power of two
#define KEY_NOTES_WAYS 4u
#define KEY_NOTES_LIFE_MS 60000  // from the first word about a key

struct key_note {
  uint8_t ski[FRAME_SKI_LEN];
  uint32_t servers;  // bit n: server n has not got it; 0: the place is free
  int64_t end_ms;
};

struct key_notes {
  struct key_note notes[KEY_NOTES_SETS][KEY_NOTES_WAYS];
  size_t num;  // places taken
};

// key_notes_add: `server` (below 32) has not got the key. key_notes_drop: it has.
void key_notes_add(struct key_notes *notes, const uint8_t ski[FRAME_SKI_LEN], unsigned server,
                   int64_t now_ms);
void key_notes_drop(struct key_notes *notes, const uint8_t ski[FRAME_SKI_LEN], unsigned server);

// key_notes_find returns a bit for each server that has not got the key.
uint32_t key_notes_find(struct key_notes *notes, const uint8_t ski[FRAME_SKI_LEN], int64_t now_ms);

#endif  // DEPUTY_COMMON_KEYCLIENT_KEY_NOTES_H_
