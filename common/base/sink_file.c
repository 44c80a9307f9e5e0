// SPDX-License-Identifier: Apache-2.0
#include "common/base/sink_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"

#define RAW_LEN (64u << 10)
// One line more than fits is never begun.
#define SEALED_LEN (96u << 10)
#define SEALED_LINE_LEN (SINK_LINE_MAX_LEN + CHAIN_SEAL_MAX_LEN + 1)
#define ROTATE_RETRY_MS 60000
#define US_PER_MS 1000
#define NEXT_SUFFIX ".next"

static const uint8_t newline[] = {'\n'};

// --- opening ---------------------------------------------------------------------

static int open_path(const char *path, int more) {
  return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | more, 0600);
}

// use_fd takes the descriptor. The time of birth survives a restart where the file
// system keeps it.
static void use_fd(struct sink_file *file, int fd) {
  struct stat is;
  struct statx more;

  file->fd = fd;
  file->is_regular = fstat(fd, &is) == 0 && S_ISREG(is.st_mode);
  file->len = file->is_regular ? (uint64_t)is.st_size : 0;
  file->has_lines = file->len > 0;
  file->born_us = clock_wall_us();
  if (file->rotate_age_ms > 0 && file->len > 0 &&
      statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &more) == 0 && (more.stx_mask & STATX_BTIME) != 0) {
    file->born_us = more.stx_btime.tv_sec * 1000000 + more.stx_btime.tv_nsec / 1000;
  }
}

// The end of a file: its last whole line, and what comes after that.
struct tail {
  uint8_t text[2 * SEALED_LINE_LEN];
  size_t len;
  struct bytes line;  // absent: none
  struct bytes torn;
};

static void split_tail(struct tail *tail) {
  size_t end = tail->len;
  size_t start = 0;

  while (end > 0 && tail->text[end - 1] != '\n') {
    end--;
  }
  tail->torn = bytes_of(tail->text + end, tail->len - end);
  if (end == 0) {
    return;
  }
  start = end - 1;
  while (start > 0 && tail->text[start - 1] != '\n') {
    start--;
  }
  tail->line = bytes_of(tail->text + start, end - 1 - start);
}

// read_tail reads the end of a regular file; what cannot be read has none.
static void read_tail(struct tail *tail, const char *path) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  struct stat is;

  tail->len = 0;
  tail->line = bytes_of(NULL, 0);
  tail->torn = bytes_of(NULL, 0);
  if (fd < 0) {
    return;
  }
  if (fstat(fd, &is) == 0 && S_ISREG(is.st_mode)) {
    const off_t max = (off_t)sizeof tail->text;
    const off_t at = is.st_size > max ? is.st_size - max : 0;
    const ssize_t got = pread(fd, tail->text, sizeof tail->text, at);
    tail->len = got > 0 ? (size_t)got : 0;
    split_tail(tail);
  }
  (void)close(fd);
}

static void note_torn(struct sink_file *file, struct bytes torn) {
  if (torn.len > 0) {
    file->needs_newline = true;
    file->torn_len = torn.len;
    SHA256(torn.data, torn.len, file->torn_sha256);
  }
}

static bool take_chain(struct sink_file *file, struct bytes line) {
  struct chain_seal seal;

  if (line.data == NULL || chain_read(&seal, line) != STATUS_OK) {
    return false;
  }
  file->chain.seq = seal.seq;
  memcpy(file->chain.hash, seal.hash, sizeof file->chain.hash);
  return true;
}

// pick_up looks where the chain has come to. A file without a whole line may be the
// successor of one that was rotated just before the end.
static enum status pick_up(struct sink_file *file, struct errmsg *err) {
  char before[PATH_MAX];
  struct tail *tail = malloc(sizeof *tail);

  if (tail == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "%s: no memory", file->path);
  }
  read_tail(tail, file->path);
  note_torn(file, tail->torn);
  if (take_chain(file, tail->line)) {
    file->marks = SINK_MARK_RESUME;
  } else {
    file->marks = SINK_MARK_START;
    if (tail->line.data == NULL) {
      (void)snprintf(before, sizeof before, "%s.1", file->path);
      read_tail(tail, before);
      file->marks = take_chain(file, tail->line) ? SINK_MARK_FILE : SINK_MARK_START;
    }
  }
  free(tail);
  return STATUS_OK;
}

enum status sink_file_init(struct sink_file *file, const struct sink_options *options,
                           struct errmsg *err) {
  enum status st = STATUS_OK;
  int fd = STDERR_FILENO;

  *file = (struct sink_file){.fd = -1,
                             .rotate_len = options->rotate_len,
                             .rotate_age_ms = options->rotate_age_ms,
                             .num_keep = options->num_keep > 0 ? options->num_keep : 1,
                             .is_chained = options->is_chained};
  file->raw = malloc(RAW_LEN);
  file->sealed = options->is_chained ? malloc(SEALED_LEN) : NULL;
  if (file->raw == NULL || (options->is_chained && file->sealed == NULL)) {
    st = errmsg_set(err, STATUS_MEMORY, "%s: no memory", options->path);
    goto out;
  }
  file->marks = SINK_MARK_START;
  if (strcmp(options->path, "stderr") != 0) {
    file->path = strdup(options->path);
    if (file->path == NULL) {
      st = errmsg_set(err, STATUS_MEMORY, "%s: no memory", options->path);
      goto out;
    }
    fd = open_path(file->path, 0);
    if (fd < 0) {
      st = errmsg_set(err, STATUS_SYSTEM, "%s: cannot be opened for appending: %s", options->path,
                      strerror(errno));
      goto out;
    }
  }
  use_fd(file, fd);
  if (file->path != NULL && file->is_regular) {
    TRY(pick_up(file, err));
  }

out:
  if (st != STATUS_OK) {
    sink_file_cleanup(file);
  }
  return st;
}

void sink_file_cleanup(struct sink_file *file) {
  if (file->path != NULL && file->fd >= 0) {
    (void)close(file->fd);
  }
  free(file->path);
  free(file->raw);
  free(file->sealed);
  *file = (struct sink_file){.fd = -1};
}

// --- batches -----------------------------------------------------------------------

bool sink_file_is_empty(const struct sink_file *file) {
  return file->batch_len == 0 && file->raw_at == file->raw_len;
}

static struct bytes next_line(const struct sink_file *file, size_t at) {
  const uint8_t *start = file->raw + at;
  const uint8_t *end = memchr(start, '\n', file->raw_len - at);
  // The ring gives whole lines with their newlines.
  return bytes_of(start, end == NULL ? file->raw_len - at : (size_t)(end - start));
}

static void seal(struct sink_file *file, struct bytes line) {
  file->batch_len += chain_add(&file->batch_end, file->sealed + file->batch_len, line);
  file->sealed[file->batch_len++] = '\n';
}

static const char *mark_name(unsigned mark) {
  switch (mark) {
    case SINK_MARK_START:
      return "start";
    case SINK_MARK_RESUME:
      return "resume";
    case SINK_MARK_FILE:
      return "file";
    default:
      return "lost";
  }
}

static void seal_mark(struct sink_file *file, unsigned mark) {
  struct jsonline *line = &file->line;
  struct bytes text = {0};

  jsonline_begin(line);
  jsonline_time(line, "time", clock_wall_us());
  jsonline_cstr(line, "result", "chain");
  jsonline_cstr(line, "event", mark_name(mark));
  if (mark == SINK_MARK_LOST) {
    jsonline_int(line, "lost", (int64_t)(file->batch_lost - file->num_lost));
  } else {
    jsonline_int(line, "previous_seq", (int64_t)file->batch_end.seq);
    jsonline_hex(line, "previous", bytes_of(file->batch_end.hash, CHAIN_HASH_LEN));
    if (file->torn_len > 0) {
      jsonline_int(line, "torn", (int64_t)file->torn_len);
      jsonline_hex(line, "torn_sha256", bytes_of(file->torn_sha256, sizeof file->torn_sha256));
    }
  }
  CHECK(jsonline_end(line, &text) == STATUS_OK);
  seal(file, text);
}

static void fill_sealed(struct sink_file *file, uint64_t num_lost) {
  file->batch = file->sealed;
  file->batch_end = file->chain;
  file->batch_lost = num_lost;
  file->batch_marks = file->marks | (num_lost != file->num_lost ? SINK_MARK_LOST : 0u);
  for (unsigned mark = SINK_MARK_START; mark <= SINK_MARK_LOST; mark <<= 1) {
    if ((file->batch_marks & mark) != 0) {
      seal_mark(file, mark);
    }
  }
  file->batch_raw_end = file->raw_at;
  while (file->batch_raw_end < file->raw_len && file->batch_len + SEALED_LINE_LEN <= SEALED_LEN) {
    const struct bytes line = next_line(file, file->batch_raw_end);
    seal(file, line);
    file->batch_raw_end += line.len + 1;
  }
}

bool sink_file_fill(struct sink_file *file, struct sink_ring *ring, uint64_t num_lost) {
  if (file->batch_len > 0) {
    return true;
  }
  if (file->raw_at == file->raw_len) {
    file->raw_at = 0;
    file->raw_len = sink_ring_take(ring, file->raw, RAW_LEN);
  }
  file->batch_done = 0;
  file->batch_marks = 0;
  file->batch_raw_end = file->raw_at;
  file->batch_end = file->chain;
  if (file->needs_newline) {
    file->batch = newline;
    file->batch_len = sizeof newline;
  } else if (file->is_chained) {
    fill_sealed(file, num_lost);
  } else {
    file->batch = file->raw + file->raw_at;
    file->batch_len = file->raw_len - file->raw_at;
    file->batch_raw_end = file->raw_len;
  }
  return file->batch_len > 0;
}

// settle notes what the whole lines at the batch's beginning, of which `marks` are
// written and the rest are not, have brought.
static void settle(struct sink_file *file, unsigned marks, size_t raw_end) {
  file->has_lines = file->has_lines || raw_end > file->raw_at;
  file->raw_at = raw_end;
  file->marks &= ~marks;
  if ((marks & SINK_MARK_LOST) != 0) {
    file->num_lost = file->batch_lost;
  }
  if ((marks & ~(unsigned)SINK_MARK_LOST) != 0) {
    file->torn_len = 0;
  }
  file->batch_len = 0;
  file->batch_done = 0;
}

static void note_all(struct sink_file *file) {
  if (file->batch == newline) {
    file->needs_newline = false;
  }
  file->chain = file->batch_end;
  settle(file, file->batch_marks, file->batch_raw_end);
}

// take_back is for a batch that ends here with `batch_done` bytes, whole lines all.
static void take_back(struct sink_file *file) {
  unsigned marks = 0;
  size_t raw_end = file->raw_at;
  size_t at = 0;

  while (at < file->batch_done) {
    const uint8_t *end = memchr(file->batch + at, '\n', file->batch_done - at);
    const struct bytes line = bytes_of(file->batch + at, (size_t)(end - (file->batch + at)));
    const unsigned rest = file->batch_marks & ~marks;
    if (rest != 0) {
      marks |= rest & (0u - rest);  // marks come first, the lowest bit first
    } else {
      raw_end += next_line(file, raw_end).len + 1;
    }
    if (file->is_chained) {
      CHECK(take_chain(file, line));
    }
    at += line.len + 1;
  }
  settle(file, marks, raw_end);
}

// cut removes the `len` bytes of a line that could not be finished from the end of
// the file; where that is not to be had, the next batch starts on a line of its own.
static void cut(struct sink_file *file, size_t len) {
  struct stat is;

  if (len == 0) {
    return;
  }
  if (file->is_regular && fstat(file->fd, &is) == 0 && (uint64_t)is.st_size >= len &&
      ftruncate(file->fd, is.st_size - (off_t)len) == 0) {
    file->len -= len;
    return;
  }
  note_torn(file, bytes_of(file->batch + file->batch_done, len));
  file->marks |= SINK_MARK_RESUME;
}

// rewind_to_line takes back the line that is half written and returns how much of
// it was.
static size_t rewind_to_line(struct sink_file *file) {
  const size_t done = file->batch_done;

  while (file->batch_done > 0 && file->batch[file->batch_done - 1] != '\n') {
    file->batch_done--;
  }
  return done - file->batch_done;
}

enum sink_written sink_file_write(struct sink_file *file) {
  while (file->batch_done < file->batch_len) {
    const ssize_t n =
        write(file->fd, file->batch + file->batch_done, file->batch_len - file->batch_done);
    if (n >= 0) {
      file->batch_done += (size_t)n;
      file->len += (uint64_t)n;
    } else if (errno == EAGAIN) {
      return SINK_WRITTEN_FULL;
    } else if (errno != EINTR) {
      cut(file, rewind_to_line(file));
      take_back(file);
      return SINK_WRITTEN_FAILED;
    }
  }
  note_all(file);
  return SINK_WRITTEN_ALL;
}

// --- other files ---------------------------------------------------------------------

static void complain(const struct sink_file *file, const char *what, int reason) {
  // This cannot go through a sink: it may be the log's.
  (void)dprintf(STDERR_FILENO, "%s: %s: %s; the old file is kept\n", file->path, what,
                strerror(reason));
}

static bool is_same_file(int a, int b) {
  struct stat of_a;
  struct stat of_b;
  return fstat(a, &of_a) == 0 && fstat(b, &of_b) == 0 && of_a.st_dev == of_b.st_dev &&
         of_a.st_ino == of_b.st_ino;
}

// go_on_in makes `fd` (taken) the file that is written. A line that is half in the
// old one starts again in the new one.
static void go_on_in(struct sink_file *file, int fd) {
  if (file->batch_len > 0) {
    (void)rewind_to_line(file);
    take_back(file);
  }
  (void)close(file->fd);
  use_fd(file, fd);
  file->needs_newline = false;
  file->torn_len = 0;
  file->marks = (file->marks & ~(unsigned)SINK_MARK_RESUME) | SINK_MARK_FILE;
}

// check_end: the new file may be an old one, with a line that was cut off.
static void check_end(struct sink_file *file) {
  struct tail *tail = file->len > 0 && file->is_regular ? malloc(sizeof *tail) : NULL;

  if (tail != NULL) {
    read_tail(tail, file->path);
    note_torn(file, tail->torn);
  }
  free(tail);
}

void sink_file_reopen(struct sink_file *file) {
  int fd = -1;

  if (file->path == NULL) {
    return;
  }
  fd = open_path(file->path, 0);
  if (fd < 0) {
    complain(file, "cannot be opened again", errno);
  } else if (is_same_file(file->fd, fd)) {
    (void)close(fd);
  } else {
    go_on_in(file, fd);
    check_end(file);
  }
}

// is_in_place: does the path still name the file that is written?
static bool is_in_place(const struct sink_file *file) {
  struct stat of_path;
  struct stat of_fd;
  return stat(file->path, &of_path) == 0 && fstat(file->fd, &of_fd) == 0 &&
         of_path.st_dev == of_fd.st_dev && of_path.st_ino == of_fd.st_ino;
}

static bool name_old(char out[PATH_MAX], const struct sink_file *file, unsigned number) {
  const int len = snprintf(out, PATH_MAX, "%s.%u", file->path, number);
  return len > 0 && len < PATH_MAX;
}

// shift moves PATH.1 to PATH.2 and so on, then PATH to PATH.1; the oldest goes. A
// number that is missing does no harm.
static bool shift(const struct sink_file *file) {
  char from[PATH_MAX];
  char to[PATH_MAX];

  for (unsigned n = file->num_keep; n > 0; n--) {
    if (!name_old(to, file, n)) {
      errno = ENAMETOOLONG;
      return false;
    }
    if (n == 1) {
      (void)snprintf(from, sizeof from, "%s", file->path);
    } else {
      (void)name_old(from, file, n - 1);
    }
    if (rename(from, to) != 0 && errno != ENOENT) {
      return false;
    }
  }
  return true;
}

// rotate makes the new file first, so that nothing is moved unless it can be had.
static bool rotate(struct sink_file *file) {
  char next[PATH_MAX];
  const int len = snprintf(next, sizeof next, "%s" NEXT_SUFFIX, file->path);
  int fd = -1;

  if (len <= 0 || (size_t)len >= sizeof next) {
    errno = ENAMETOOLONG;
    return false;
  }
  fd = open_path(next, O_TRUNC | O_NOFOLLOW);
  if (fd < 0) {
    return false;
  }
  if (!shift(file) || rename(next, file->path) != 0) {
    const int reason = errno;
    (void)close(fd);
    (void)unlink(next);
    errno = reason;
    return false;
  }
  go_on_in(file, fd);
  return true;
}

static bool may_rotate(const struct sink_file *file) {
  return file->is_regular && file->path != NULL && file->has_lines;
}

static int64_t age_left_ms(const struct sink_file *file) {
  return file->rotate_age_ms - (clock_wall_us() - file->born_us) / US_PER_MS;
}

int64_t sink_file_age_left_ms(const struct sink_file *file) {
  int64_t left_ms = 0;
  int64_t pause_ms = 0;

  if (file->rotate_age_ms == 0 || !may_rotate(file)) {
    return -1;
  }
  left_ms = age_left_ms(file);
  pause_ms = file->retry_ms - clock_monotonic_ms();
  left_ms = left_ms > pause_ms ? left_ms : pause_ms;
  return left_ms > 0 ? left_ms : 0;
}

static bool is_due(const struct sink_file *file) {
  return may_rotate(file) && file->batch_len == 0 && clock_monotonic_ms() >= file->retry_ms &&
         ((file->rotate_len > 0 && file->len >= file->rotate_len) ||
          (file->rotate_age_ms > 0 && age_left_ms(file) <= 0));
}

void sink_file_rotate_if_due(struct sink_file *file) {
  if (!is_due(file)) {
    return;
  }
  if (!is_in_place(file)) {
    sink_file_reopen(file);  // somebody else has moved it
    return;
  }
  if (rotate(file)) {
    file->num_rotations++;
  } else {
    complain(file, "cannot be rotated", errno);
    file->num_rotate_failures++;
    file->retry_ms = clock_monotonic_ms() + ROTATE_RETRY_MS;
  }
}
