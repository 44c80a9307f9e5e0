// SPDX-License-Identifier: Apache-2.0
//
// replay_main: the main of a fuzz target in builds without libFuzzer. It gives
// each file that its arguments name, or that lies in a folder they name, to
// LLVMFuzzerTestOneInput, in the order of the names. No input at all is a
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

_Noreturn static void fail(const char *path, const char *what) {
  fprintf(stderr, "replay: %s: %s\n", path, what);
  exit(1);
}

static void replay_file(const char *path) {
  struct stat about = {0};
  size_t data_len = 0;
  uint8_t *data = NULL;
  FILE *file = fopen(path, "rb");

  if (file == NULL || fstat(fileno(file), &about) != 0) {
    fail(path, strerror(errno));
  }
  // Exactly as long as the input, so that ASan sees a read one byte past it;
  // of an empty input not even the first byte may be read.
  data_len = (size_t)about.st_size;
  data = malloc(data_len);
  if (data == NULL) {
    fail(path, "out of memory");
  }
  if (fread(data, 1, data_len, file) != data_len) {
    fail(path, "cannot be read");
  }
  fclose(file);
  fprintf(stderr, "replay: %s (%zu bytes)\n", path, data_len);
  LLVMFuzzerTestOneInput(data, data_len);
  num_replayed++;
  free(data);
}

static int is_visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static void replay_folder(const char *path) {
  struct dirent **entries = NULL;
  int num_entries = scandir(path, &entries, is_visible, alphasort);

  if (num_entries < 0) {
    fail(path, strerror(errno));
  }
  for (int i = 0; i < num_entries; i++) {
    char *child = NULL;

    if (asprintf(&child, "%s/%s", path, entries[i]->d_name) < 0) {
      fail(path, "out of memory");
    }
    replay_file(child);
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
    struct stat about = {0};

    if (stat(argv[i], &about) != 0) {
      fail(argv[i], strerror(errno));
    }
    if (S_ISDIR(about.st_mode)) {
      replay_folder(argv[i]);
    } else {
      replay_file(argv[i]);
    }
  }
  if (num_replayed == 0) {
    fail(argc > 1 ? argv[1] : "usage: fuzz_NAME CORPUS...", "no input to replay");
  }
  printf("replayed %zu inputs\n", num_replayed);
  return 0;
}
