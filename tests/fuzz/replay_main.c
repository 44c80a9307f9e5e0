// SPDX-License-Identifier: Apache-2.0
//
// replay_main: the main of a fuzz target in builds without libFuzzer. It gives
// each file below the directories (or of the names) in its arguments to
// LLVMFuzzerTestOneInput, in the order of their names. No input at all is a
// failure: a test that replays nothing proves nothing.

#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_len);
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

static size_t num_replayed = 0;

static void fail(const char *path, const char *what) {
  fprintf(stderr, "replay: %s: %s\n", path, what);
  exit(1);
}

static void replay_file(const char *path, size_t data_len) {
  // Exactly as long as the input, so that ASan sees a read one byte past it;
  // an empty input gets a pointer that may not be read at all.
  uint8_t *data = malloc(data_len);
  FILE *file = fopen(path, "rb");

  if (file == NULL || (data == NULL && data_len > 0)) {
    fail(path, strerror(errno));
  }
  if (fread(data, 1, data_len, file) != data_len) {
    fail(path, "short read");
  }
  fclose(file);
  fprintf(stderr, "replay: %s (%zu bytes)\n", path, data_len);
  LLVMFuzzerTestOneInput(data, data_len);
  num_replayed++;
  free(data);
}

static int is_visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static void replay(const char *path) {
  struct stat st = {0};
  struct dirent **entries = NULL;
  int num_entries = 0;

  if (stat(path, &st) != 0) {
    fail(path, strerror(errno));
  }
  if (!S_ISDIR(st.st_mode)) {
    replay_file(path, (size_t)st.st_size);
    return;
  }
  num_entries = scandir(path, &entries, is_visible, alphasort);
  if (num_entries < 0) {
    fail(path, strerror(errno));
  }
  for (int i = 0; i < num_entries; i++) {
    char *child = NULL;

    if (asprintf(&child, "%s/%s", path, entries[i]->d_name) < 0) {
      fail(path, "out of memory");
    }
    replay(child);
    free(child);
    free(entries[i]);
  }
  free(entries);
}

int main(int argc, char **argv) {
  if (LLVMFuzzerInitialize != NULL) {
    LLVMFuzzerInitialize(&argc, &argv);
  }
  for (int i = 1; i < argc; i++) {
    replay(argv[i]);
  }
  if (num_replayed == 0) {
    fail(argc > 1 ? argv[1] : "usage: fuzz_NAME CORPUS...", "no input to replay");
  }
  printf("replayed %zu inputs\n", num_replayed);
  return 0;
}
