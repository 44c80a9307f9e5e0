// SPDX-License-Identifier: Apache-2.0
#include "common/keyclient/key_notes.h"

#include <string.h>

// An SKI is a hash already.
static struct key_note *set_of(struct key_notes *notes, const uint8_t ski[FRAME_SKI_LEN]) {
  uint32_t hash = 0;
  memcpy(&hash, ski, sizeof hash);
  return notes->notes[hash & (KEY_NOTES_SETS - 1)];
}

static struct key_note *find(struct key_notes *notes, const uint8_t ski[FRAME_SKI_LEN]) {
  struct key_note *set = set_of(notes, ski);

  for (size_t i = 0; i < KEY_NOTES_WAYS; i++) {
    if (set[i].servers != 0 && memcmp(set[i].ski, ski, FRAME_SKI_LEN) == 0) {
      return &set[i];
    }
  }
  return NULL;
}

static void clear(struct key_notes *notes, struct key_note *note) {
  note->servers = 0;
  notes->num--;
}

// place_for returns a free place for the key, making one if it must.
static struct key_note *place_for(struct key_notes *notes, const uint8_t ski[FRAME_SKI_LEN]) {
  struct key_note *set = set_of(notes, ski);
  struct key_note *place = &set[0];

  for (size_t i = 0; i < KEY_NOTES_WAYS; i++) {
    if (set[i].servers == 0) {
      return &set[i];
    }
    if (set[i].end_ms < place->end_ms) {
      place = &set[i];
    }
  }
  clear(notes, place);
  return place;
}

void key_notes_add(struct key_notes *notes, const uint8_t ski[FRAME_SKI_LEN], unsigned server,
                   int64_t now_ms) {
  struct key_note *note = find(notes, ski);

  if (note != NULL && note->end_ms <= now_ms) {
    clear(notes, note);
    note = NULL;
  }
  if (note == NULL) {
    note = place_for(notes, ski);
    memcpy(note->ski, ski, FRAME_SKI_LEN);
    note->end_ms = now_ms + KEY_NOTES_LIFE_MS;
    notes->num++;
  }
  note->servers |= UINT32_C(1) << server;
}

void key_notes_drop(struct key_notes *notes, const uint8_t ski[FRAME_SKI_LEN], unsigned server) {
  struct key_note *note = notes->num > 0 ? find(notes, ski) : NULL;

  if (note == NULL) {
    return;
  }
  note->servers &= ~(UINT32_C(1) << server);
  if (note->servers == 0) {
    notes->num--;
  }
}

uint32_t key_notes_find(struct key_notes *notes, const uint8_t ski[FRAME_SKI_LEN], int64_t now_ms) {
  struct key_note *note = notes->num > 0 ? find(notes, ski) : NULL;

  if (note == NULL) {
    return 0;
  }
  if (note->end_ms <= now_ms) {
    clear(notes, note);
    return 0;
  }
  return note->servers;
}
