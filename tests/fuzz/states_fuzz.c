// SPDX-License-Identifier: Apache-2.0
// Targets: states_load, states_save. What loads is saved to a text that loads to the
// same; what does not load leaves the states empty and says why.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "certstore/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_text(const char *text) {
  struct states *states = NULL;
  CHECK(states_new(&states) == STATUS_OK);
  CHECK(states_load(states, text, strlen(text), "again", NULL) == STATUS_OK);
  char *again = states_save(states);
  CHECK(again != NULL && strcmp(again, text) == 0);
  free(again);
  states_free(states);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  struct states *states = NULL;
  struct errmsg err = {0};
  size_t num = 0;
  CHECK(states_new(&states) == STATUS_OK);
  enum status st = states_load(states, (const char *)data, len, "file", &err);
  const struct state_change *changes = states_list(states, &num);
  if (st == STATUS_OK) {
    char *text = states_save(states);
    CHECK(text != NULL);
    check_text(text);
    free(text);
    for (size_t i = num; i-- > 0;) {
      if (!changes[i].is_undone) {
        CHECK(states_undo(states, changes[i].id, "fuzz", 1) == STATUS_OK);
      }
    }
  } else {
    CHECK(num == 0 && err.text[0] != '\0');
  }
  states_free(states);
  return 0;
}
