// SPDX-License-Identifier: Apache-2.0
// Linked with --wrap=free: memory is looked at in the moment before it goes.
#include "common/base/secret.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "tests/unit/common/base/scratch.h"

static const void *watched;
static uint8_t seen[64];
static size_t num_seen;

void __real_free(void *memory);
void __wrap_free(void *memory);
void __wrap_free(void *memory) {
  if (memory != NULL && memory == watched) {
    memcpy(seen, memory, num_seen);
    watched = NULL;
  }
  __real_free(memory);
}

static void wipes_before_it_frees(void **state) {
  struct secret s = {0};
  const uint8_t zero[32] = {0};
  (void)state;
  assert_int_equal(secret_alloc(&s, 32), STATUS_OK);
  assert_memory_equal(s.data, zero, 32);
  memset(s.data, 'k', 32);
  memset(seen, 0xff, sizeof(seen));
  watched = s.data;
  num_seen = 32;
  secret_wipe(&s);
  assert_null(watched);  // it was freed
  assert_memory_equal(seen, zero, 32);
  assert_null(s.data);
  assert_int_equal(s.len, 0);
  secret_wipe(&s);  // again, and of all-zero
}

static void reads_a_private_file(void **state) {
  struct secret s = {0};
  struct errmsg err = {0};
  const char *path = scratch_path("key");
  (void)state;
  scratch_write(path, "0123456789", 0600);
  assert_int_equal(secret_read_file(&s, path, 10, true, &err), STATUS_OK);
  assert_int_equal(s.len, 10);
  assert_memory_equal(s.data, "0123456789", 11);  // and a zero behind
  secret_wipe(&s);
  scratch_write(path, "", 0400);
  (void)chmod(path, 0400);
  assert_int_equal(secret_read_file(&s, path, 10, true, &err), STATUS_OK);
  assert_int_equal(s.len, 0);
  secret_wipe(&s);
}

static void refuses_what_others_may_use(void **state) {
  static const unsigned modes[] = {0640, 0604, 0620, 0602, 0610, 0644, 0660, 0666, 0777};
  struct secret s = {0};
  const char *path = scratch_path("key");
  (void)state;
  for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
    struct errmsg err = {0};
    scratch_write(path, "0123456789", modes[i]);
    assert_int_equal(secret_read_file(&s, path, 10, true, &err), STATUS_REFUSED);
    assert_null(s.data);
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.text, "0600"));
    // Certificates and the like may be public.
    assert_int_equal(secret_read_file(&s, path, 10, false, &err), STATUS_OK);
    secret_wipe(&s);
  }
}

static void refuses_what_is_no_file_at_once(void **state) {
  struct secret s = {0};
  struct errmsg err = {0};
  const char *fifo = scratch_path("fifo");
  (void)state;
  assert_int_equal(mkfifo(fifo, 0600), 0);
  assert_int_equal(secret_read_file(&s, fifo, 10, true, &err), STATUS_REFUSED);
  assert_int_equal(secret_read_file(&s, scratch_path("."), 10, true, &err), STATUS_REFUSED);
  assert_int_equal(secret_read_file(&s, "/dev/zero", 10, false, &err), STATUS_REFUSED);
  assert_int_equal(secret_read_file(&s, scratch_path("none"), 10, true, &err), STATUS_SYSTEM);
  assert_non_null(strstr(err.text, "No such file"));
}

static void refuses_a_file_longer_than_its_limit(void **state) {
  struct secret s = {0};
  struct errmsg err = {0};
  const char *path = scratch_path("key");
  (void)state;
  scratch_write(path, "0123456789", 0600);
  assert_int_equal(secret_read_file(&s, path, 9, true, &err), STATUS_LIMIT);
  assert_null(s.data);
  assert_int_equal(secret_read_file(&s, path, 9, true, NULL), STATUS_LIMIT);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(wipes_before_it_frees),
      cmocka_unit_test_setup_teardown(reads_a_private_file, scratch_make, scratch_remove),
      cmocka_unit_test_setup_teardown(refuses_what_others_may_use, scratch_make, scratch_remove),
      cmocka_unit_test_setup_teardown(refuses_what_is_no_file_at_once, scratch_make,
                                      scratch_remove),
      cmocka_unit_test_setup_teardown(refuses_a_file_longer_than_its_limit, scratch_make,
                                      scratch_remove),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
