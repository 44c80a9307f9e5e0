// SPDX-License-Identifier: Apache-2.0
// ceiling: never more than so many names in any 60 seconds without a person. No clock of
// its own, no I/O. Times are seconds of any clock that is not set back.
#ifndef DEPUTY_CERTMANAGER_CEILING_H_
#define DEPUTY_CERTMANAGER_CEILING_H_

#include <stdbool.h>
#include <stdint.h>

#define CEILING_WINDOW_S 60

// All-zero is one that nothing was taken from.
struct ceiling {
  uint64_t taken[CEILING_WINDOW_S + 1];  // by second, in turn
  int64_t at_s[CEILING_WINDOW_S + 1];
};

enum ceiling_answer {
  CEILING_TAKEN,
  CEILING_WAIT,      // later
  CEILING_TOO_MANY,  // never: `num` alone is above
};

// ceiling_take takes `num` of at most `max` names.
enum ceiling_answer ceiling_take(struct ceiling *ceiling, uint64_t num, uint64_t max,
                                 int64_t now_s);
// ceiling_note counts names that were moved at `at_s`, whatever the limit: what a process
// before this one has done. `at_s` is not after now.
void ceiling_note(struct ceiling *ceiling, uint64_t num, int64_t at_s);
// ceiling_used counts what was taken in the 60 seconds up to now.
uint64_t ceiling_used(const struct ceiling *ceiling, int64_t now_s);

#endif  // DEPUTY_CERTMANAGER_CEILING_H_
