// SPDX-License-Identifier: Apache-2.0
#include "common/keyclient/breaker.h"

const char *breaker_state_name(enum breaker_state state) {
  static const char *const names[] = {
      [BREAKER_CLOSED] = "closed", [BREAKER_HALF_OPEN] = "half_open", [BREAKER_OPEN] = "open"};
  return (unsigned)state < BREAKER_NUM_STATES ? names[state] : "unknown";
}

static int64_t pause_ms(unsigned num_openings, uint16_t random) {
  int64_t pause = BREAKER_FIRST_MS;

  for (unsigned i = 1; i < num_openings && pause < BREAKER_LAST_MS; i++) {
    pause *= 2;
  }
  if (pause > BREAKER_LAST_MS) {
    pause = BREAKER_LAST_MS;
  }
  return pause * 3 / 4 + pause * random / (INT64_C(2) * UINT16_MAX);
}

static void open_it(struct breaker *breaker, int64_t now_ms, uint16_t random) {
  if (breaker->state == BREAKER_CLOSED && now_ms - breaker->closed_ms >= BREAKER_CALM_MS) {
    breaker->num_openings = 0;
  }
  breaker->num_openings++;
  breaker->state = BREAKER_OPEN;
  breaker->opened_ms = now_ms;
  breaker->probe_ms = now_ms + pause_ms(breaker->num_openings, random);
}

static void close_it(struct breaker *breaker, int64_t now_ms) {
  breaker->state = BREAKER_CLOSED;
  breaker->closed_ms = now_ms;
  breaker->num_in_row = 0;
  breaker->num_good = 0;
  breaker->num_bad = 0;
  breaker->window_ms = now_ms;
}

static void turn_window(struct breaker *breaker, int64_t now_ms) {
  if (now_ms - breaker->window_ms >= BREAKER_WINDOW_MS) {
    breaker->window_ms = now_ms;
    breaker->num_good = 0;
    breaker->num_bad = 0;
  }
}

bool breaker_note_good(struct breaker *breaker, int64_t sent_ms, int64_t now_ms) {
  if (breaker->state != BREAKER_CLOSED) {
    if (sent_ms < breaker->opened_ms) {
      return false;
    }
    close_it(breaker, now_ms);
    return true;
  }
  turn_window(breaker, now_ms);
  breaker->num_in_row = 0;
  breaker->num_good++;
  return false;
}

bool breaker_note_bad(struct breaker *breaker, int64_t now_ms, uint16_t random) {
  if (breaker->state != BREAKER_CLOSED) {
    return false;  // its probes decide
  }
  turn_window(breaker, now_ms);
  breaker->num_in_row++;
  breaker->num_bad++;
  if (breaker->num_in_row < BREAKER_IN_ROW &&
      (breaker->num_good + breaker->num_bad < BREAKER_MIN_NUM ||
       breaker->num_bad < breaker->num_good)) {
    return false;
  }
  open_it(breaker, now_ms, random);
  return true;
}

bool breaker_may_probe(const struct breaker *breaker, int64_t now_ms) {
  return breaker->state == BREAKER_OPEN && now_ms >= breaker->probe_ms;
}

void breaker_probe(struct breaker *breaker) { breaker->state = BREAKER_HALF_OPEN; }

bool breaker_probe_done(struct breaker *breaker, bool is_good, int64_t now_ms, uint16_t random) {
  if (breaker->state != BREAKER_HALF_OPEN) {
    return false;
  }
  if (is_good) {
    close_it(breaker, now_ms);
  } else {
    open_it(breaker, now_ms, random);
  }
  return true;
}
