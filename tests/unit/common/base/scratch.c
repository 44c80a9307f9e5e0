// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/common/base/scratch.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/file.h"

static char folder[64];

int scratch_make(void **state) {
  (void)state;
  (void)snprintf(folder, sizeof(folder), "/tmp/deputy-test-XXXXXX");
  return mkdtemp(folder) == NULL ? -1 : 0;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *ftw) {
  (void)info;
  (void)type;
  (void)ftw;
  return remove(path);
}

int scratch_remove(void **state) {
  (void)state;
  return nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

const char *scratch_path(const char *name) {
  static char paths[16][160];
  static size_t next = 0;
  char *path = paths[next++ % 16];
  (void)snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
  return path;
}

void scratch_write(const char *path, const char *text, unsigned mode) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
  assert_int_equal(fchmod(fd, mode), 0);
  assert_int_equal(close(fd), 0);
}

char *scratch_read(const char *path) {
  uint8_t *text = NULL;
  size_t len = 0;
  if (file_read(&text, &len, path, 64u << 20, NULL) != STATUS_OK) {
    return strdup("");
  }
  return (char *)text;
}

size_t scratch_num_files(void) {
  DIR *dir = opendir(folder);
  size_t num = 0;
  assert_non_null(dir);
  for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
    num += entry->d_name[0] != '.' ? 1 : 0;
  }
  (void)closedir(dir);
  return num;
}

void scratch_wait(bool (*is_done)(void *arg), void *arg, int64_t limit_ms) {
  int64_t end_ms = clock_monotonic_ms() + limit_ms;
  while (!is_done(arg)) {
    assert_true(clock_monotonic_ms() < end_ms);
    (void)poll(NULL, 0, 1);
  }
}
