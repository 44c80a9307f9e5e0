// SPDX-License-Identifier: Apache-2.0
// scratch: a folder of its own for a test, and the few things tests do with
// files. All paths are absolute and live until scratch_remove.
#ifndef DEPUTY_TESTS_UNIT_COMMON_BASE_SCRATCH_H_
#define DEPUTY_TESTS_UNIT_COMMON_BASE_SCRATCH_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// scratch_make and scratch_remove fit cmocka's set-up and tear-down.
int scratch_make(void **state);
int scratch_remove(void **state);

// scratch_path returns the path of `name` in the folder; up to 16 live at once.
const char *scratch_path(const char *name);

// scratch_write makes a file; scratch_read returns new text (free), "" when
// there is no such file.
void scratch_write(const char *path, const char *text, unsigned mode);
char *scratch_read(const char *path);

// scratch_num_files counts what is in the folder.
size_t scratch_num_files(void);

// scratch_wait polls `is_done(arg)` until it is true, or fails the test.
void scratch_wait(bool (*is_done)(void *arg), void *arg, int64_t limit_ms);

#endif  // DEPUTY_TESTS_UNIT_COMMON_BASE_SCRATCH_H_
