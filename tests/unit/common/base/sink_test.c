// SPDX-License-Identifier: Apache-2.0
// Linked with --wrap=write, which counts the sinks' system calls.
#include "common/base/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/chain.h"
#include "common/base/clock.h"
#include "tests/unit/common/base/scratch.h"

#define FLUSH_MS 20000

static _Atomic int num_writes;
static _Atomic size_t disk_room = SIZE_MAX;  // bytes until the disk is full
static _Atomic size_t short_limit;           // bytes one write takes; 0: any number

ssize_t __real_write(int fd, const void *data, size_t len);
ssize_t __wrap_write(int fd, const void *data, size_t len);
ssize_t __wrap_write(int fd, const void *data, size_t len) {
  size_t most = atomic_load(&short_limit);
  size_t room = atomic_load(&disk_room);
  atomic_fetch_add(&num_writes, 1);
  if (room == 0) {
    errno = ENOSPC;
    return -1;
  }
  len = most != 0 && len > most ? most : len;
  len = len > room ? room : len;
  if (room != SIZE_MAX) {
    atomic_fetch_sub(&disk_room, len);
  }
  return __real_write(fd, data, len);
}

static struct sink *open_sink(const char *path, size_t ring_len) {
  struct sink *sink = NULL;
  struct errmsg err = {0};
  if (sink_open(&sink, path, ring_len, &err) != STATUS_OK) {
    fail_msg("%s", err.text);
  }
  return sink;
}

static enum status write_text(struct sink *sink, const char *text) {
  return sink_write(sink, bytes_text(text));
}

static void assert_content(const char *path, const char *expected) {
  char *text = scratch_read(path);
  assert_string_equal(text, expected);
  free(text);
}

// --- lines -------------------------------------------------------------------

static void writes_lines_in_order_with_newlines(void **state) {
  const char *path = scratch_path("log");
  struct sink *sink = NULL;
  struct stat info;
  (void)state;
  scratch_write(path, "before\n", 0600);
  sink = open_sink(path, 0);
  assert_int_equal(write_text(sink, "one"), STATUS_OK);
  assert_int_equal(write_text(sink, ""), STATUS_OK);
  assert_int_equal(write_text(sink, "three"), STATUS_OK);
  assert_int_equal(sink_flush(sink, FLUSH_MS), STATUS_OK);
  assert_content(path, "before\none\n\nthree\n");
  assert_int_equal(write_text(sink, "four"), STATUS_OK);
  sink_close(sink);
  assert_content(path, "before\none\n\nthree\nfour\n");
  assert_int_equal(stat(path, &info), 0);
  assert_int_equal(info.st_mode & 07777, 0600);
  sink_close(NULL);
}

static void refuses_a_line_that_is_too_long(void **state) {
  const char *path = scratch_path("log");
  struct sink *sink = open_sink(path, 0);
  char line[SINK_LINE_MAX_LEN + 1];
  char *text = NULL;
  (void)state;
  memset(line, 'x', sizeof(line));
  assert_int_equal(sink_write(sink, bytes_of(line, sizeof(line))), STATUS_LIMIT);
  assert_int_equal(sink_num_lost(sink), 1);
  assert_int_equal(sink_write(sink, bytes_of(line, sizeof(line) - 1)), STATUS_OK);
  sink_close(sink);
  text = scratch_read(path);
  assert_int_equal(strlen(text), SINK_LINE_MAX_LEN + 1);
  free(text);
}

static void says_why_a_file_cannot_be_opened(void **state) {
  struct sink *sink = NULL;
  struct errmsg err = {0};
  (void)state;
  assert_int_equal(sink_open(&sink, scratch_path("none/log"), 0, &err), STATUS_SYSTEM);
  assert_null(sink);
  assert_non_null(strstr(err.text, "none/log: cannot be opened for appending: No such file"));
}

// --- many writers ------------------------------------------------------------

#define NUM_THREADS 4
#define NUM_LINES 20000

struct writer {
  struct sink *sink;
  int id;
  uint64_t num_lost;
};

// Lines of every length up to 300 bytes, each saying who and which it is.
static void *write_lines(void *arg) {
  struct writer *writer = arg;
  for (int i = 0; i < NUM_LINES; i++) {
    char line[400];
    int len = snprintf(line, sizeof(line), "%d %d ", writer->id, i);
    memset(line + len, 'a' + writer->id, (size_t)(i % 300));
    while (sink_write(writer->sink, bytes_of(line, (size_t)len + (size_t)(i % 300))) != STATUS_OK) {
      writer->num_lost += 1;
      (void)poll(NULL, 0, 1);
    }
  }
  return NULL;
}

static void check_line(char *line, size_t len, int next[NUM_THREADS]) {
  char *end = NULL;
  long id = strtol(line, &end, 10);
  long i = strtol(end, &end, 10);
  size_t head = (size_t)(end - line) + 1;  // the blank
  assert_in_range(id, 0, NUM_THREADS - 1);
  assert_int_equal(i, next[id]++);
  assert_int_equal(len, head + (size_t)(i % 300));
  for (size_t k = head; k < len; k++) {
    assert_int_equal(line[k], 'a' + id);
  }
}

static void keeps_every_line_of_many_writers_whole_and_in_order(void **state) {
  const char *path = scratch_path("log");
  struct sink *sink = open_sink(path, 0);  // the smallest ring, to see it full
  struct writer writers[NUM_THREADS];
  pthread_t threads[NUM_THREADS];
  int next[NUM_THREADS] = {0};
  uint64_t num_lost = 0;
  char *text = NULL;
  size_t len = 0;
  (void)state;

  for (int i = 0; i < NUM_THREADS; i++) {
    writers[i] = (struct writer){sink, i, 0};
    assert_int_equal(pthread_create(&threads[i], NULL, write_lines, &writers[i]), 0);
  }
  for (int i = 0; i < NUM_THREADS; i++) {
    assert_int_equal(pthread_join(threads[i], NULL), 0);
    num_lost += writers[i].num_lost;
  }
  assert_int_equal(sink_num_lost(sink), num_lost);
  assert_int_equal(sink_flush(sink, FLUSH_MS), STATUS_OK);
  text = scratch_read(path);
  len = strlen(text);
  for (char *line = text; line < text + len;) {
    char *end = memchr(line, '\n', (size_t)(text + len - line));
    assert_non_null(end);
    *end = '\0';
    check_line(line, (size_t)(end - line), next);
    line = end + 1;
  }
  for (int i = 0; i < NUM_THREADS; i++) {
    assert_int_equal(next[i], NUM_LINES);
  }
  free(text);
  sink_close(sink);
}

static void many_lines_share_one_write(void **state) {
  const char *path = scratch_path("log");
  struct sink *sink = open_sink(path, SINK_DEFAULT_RING_LEN);
  char line[250];
  int64_t begin_ms = clock_monotonic_ms();
  int64_t spent_ms = 0;
  (void)state;
  memset(line, 'x', sizeof(line));
  atomic_store(&num_writes, 0);
  for (int i = 0; i < 4000; i++) {  // about the size of the ring
    assert_int_equal(sink_write(sink, bytes_of(line, sizeof(line))), STATUS_OK);
  }
  assert_int_equal(sink_flush(sink, FLUSH_MS), STATUS_OK);
  spent_ms = clock_monotonic_ms() - begin_ms;
  // 16 writes of 64 KiB, and one each few milliseconds at most.
  assert_in_range(atomic_load(&num_writes), 1, 40 + spent_ms);
  sink_close(sink);
}

// --- trouble -----------------------------------------------------------------

static bool is_failing(void *arg) { return sink_is_failing(arg); }
static bool is_well(void *arg) { return !sink_is_failing(arg); }

static void short_writes_lose_nothing(void **state) {
  const char *path = scratch_path("log");
  struct sink *sink = open_sink(path, 0);
  (void)state;
  atomic_store(&short_limit, 3);
  assert_int_equal(write_text(sink, "a line of some length"), STATUS_OK);
  assert_int_equal(write_text(sink, "and another"), STATUS_OK);
  assert_int_equal(sink_flush(sink, FLUSH_MS), STATUS_OK);
  atomic_store(&short_limit, 0);
  assert_content(path, "a line of some length\nand another\n");
  sink_close(sink);
}

static void full_disk_is_told_and_recovers_by_itself(void **state) {
  const char *path = scratch_path("log");
  struct sink *sink = open_sink(path, 0);
  (void)state;
  atomic_store(&disk_room, 0);
  assert_int_equal(write_text(sink, "waits"), STATUS_OK);  // nobody knows yet
  scratch_wait(is_failing, sink, FLUSH_MS);
  assert_int_equal(write_text(sink, "lost"), STATUS_UNAVAILABLE);
  assert_int_equal(sink_num_lost(sink), 1);
  assert_int_equal(sink_flush(sink, 20), STATUS_UNAVAILABLE);
  atomic_store(&disk_room, SIZE_MAX);
  scratch_wait(is_well, sink, FLUSH_MS);
  assert_int_equal(write_text(sink, "after"), STATUS_OK);
  sink_close(sink);
  assert_content(path, "waits\nafter\n");
}

static void failing_sink_does_not_spin_and_closes_in_time(void **state) {
  struct sink *sink = open_sink("/dev/full", 0);
  int64_t begin_ms = 0;
  (void)state;
  assert_int_equal(write_text(sink, "never"), STATUS_OK);
  scratch_wait(is_failing, sink, FLUSH_MS);
  atomic_store(&num_writes, 0);
  begin_ms = clock_monotonic_ms();
  sink_close(sink);
  assert_in_range(clock_monotonic_ms() - begin_ms, 1000, 5000);
  assert_in_range(atomic_load(&num_writes), 1, 100);
}

// A reader that does not read: the pipe fills, then the ring, then lines are
// lost; what was accepted comes out whole once somebody reads.
static void blocked_pipe_never_blocks_a_writer(void **state) {
  const char *path = scratch_path("fifo");
  struct sink *sink = NULL;
  char line[1000];
  char *out = malloc(1u << 20);
  size_t out_len = 0;
  size_t num_kept = 0;
  bool is_blocked = false;
  int reader = -1;
  (void)state;
  assert_non_null(out);
  assert_int_equal(mkfifo(path, 0600), 0);
  reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  assert_true(reader >= 0);
  sink = open_sink(path, 0);
  memset(line, 'x', sizeof(line));
  // A full ring may just be slow; a pipe that takes nothing for a while is full.
  do {
    enum status st = sink_write(sink, bytes_of(line, sizeof(line)));
    num_kept += st == STATUS_OK ? 1 : 0;
    is_blocked = st != STATUS_OK && sink_flush(sink, 200) == STATUS_TIMEOUT;
  } while (!is_blocked);
  assert_false(sink_is_failing(sink));
  assert_true(sink_num_lost(sink) > 0);
  while (out_len < num_kept * (sizeof(line) + 1)) {
    ssize_t n = read(reader, out + out_len, (1u << 20) - out_len);
    assert_true(n > 0 || errno == EAGAIN);
    out_len += n > 0 ? (size_t)n : 0;
  }
  assert_int_equal(sink_flush(sink, FLUSH_MS), STATUS_OK);
  assert_int_equal(out_len, num_kept * (sizeof(line) + 1));
  for (size_t i = 0; i < out_len; i++) {
    assert_int_equal(out[i], i % (sizeof(line) + 1) == sizeof(line) ? '\n' : 'x');
  }
  (void)close(reader);
  free(out);
  sink_close(sink);
}

// --- rotation ----------------------------------------------------------------

static bool exists(void *path) { return access(path, F_OK) == 0; }

static void reopen_starts_a_new_file(void **state) {
  const char *path = scratch_path("log");
  const char *old = scratch_path("log.1");
  struct sink *sink = open_sink(path, 0);
  (void)state;
  assert_int_equal(write_text(sink, "old"), STATUS_OK);
  assert_int_equal(sink_flush(sink, FLUSH_MS), STATUS_OK);
  assert_int_equal(rename(path, old), 0);
  sink_reopen(sink);
  scratch_wait(exists, (void *)(uintptr_t)path, FLUSH_MS);
  assert_int_equal(write_text(sink, "new"), STATUS_OK);
  sink_close(sink);
  assert_content(old, "old\n");
  assert_content(path, "new\n");
}

static void reopen_that_fails_keeps_the_old_file(void **state) {
  const char *folder = scratch_path("logs");
  const char *path = scratch_path("logs/log");
  struct sink *sink = NULL;
  int saved = dup(STDERR_FILENO);
  int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
  (void)state;
  assert_int_equal(mkdir(folder, 0700), 0);
  sink = open_sink(path, 0);
  assert_int_equal(rename(folder, scratch_path("moved")), 0);
  assert_true(dup2(quiet, STDERR_FILENO) >= 0);
  sink_reopen(sink);
  assert_int_equal(write_text(sink, "still here"), STATUS_OK);
  assert_int_equal(sink_flush(sink, FLUSH_MS), STATUS_OK);
  sink_close(sink);
  assert_true(dup2(saved, STDERR_FILENO) >= 0);
  (void)close(saved);
  (void)close(quiet);
  assert_content(scratch_path("moved/log"), "still here\n");
}

// Half a line is in the full file; the new file gets all of it.
static void line_cut_by_a_full_disk_starts_again_in_the_new_file(void **state) {
  const char *path = scratch_path("log");
  const char *old = scratch_path("log.1");
  struct sink *sink = open_sink(path, 0);
  (void)state;
  assert_int_equal(write_text(sink, "first"), STATUS_OK);
  assert_int_equal(sink_flush(sink, FLUSH_MS), STATUS_OK);
  atomic_store(&disk_room, 3);
  assert_int_equal(write_text(sink, "cut in two"), STATUS_OK);
  scratch_wait(is_failing, sink, FLUSH_MS);
  assert_int_equal(rename(path, old), 0);
  sink_reopen(sink);
  scratch_wait(exists, (void *)(uintptr_t)path, FLUSH_MS);
  atomic_store(&disk_room, SIZE_MAX);
  sink_close(sink);
  assert_content(old, "first\n");  // no half line stays behind
  assert_content(path, "cut in two\n");
}

// The same without a rename.
static void reopen_of_the_same_file_leaves_the_line_whole(void **state) {
  const char *path = scratch_path("log");
  struct sink *sink = open_sink(path, 0);
  (void)state;
  atomic_store(&disk_room, 3);
  assert_int_equal(write_text(sink, "cut in two"), STATUS_OK);
  scratch_wait(is_failing, sink, FLUSH_MS);
  sink_reopen(sink);
  atomic_store(&disk_room, SIZE_MAX);
  sink_close(sink);
  assert_content(path, "cut in two\n");
}

static void half_a_line_is_cut_off_a_full_disk(void **state) {
  const char *path = scratch_path("log");
  struct sink *sink = open_sink(path, 0);
  (void)state;
  assert_int_equal(write_text(sink, "first"), STATUS_OK);
  assert_int_equal(sink_flush(sink, FLUSH_MS), STATUS_OK);
  atomic_store(&disk_room, 3);
  assert_int_equal(write_text(sink, "cut in two"), STATUS_OK);
  scratch_wait(is_failing, sink, FLUSH_MS);
  assert_content(path, "first\n");
  atomic_store(&disk_room, SIZE_MAX);
  sink_close(sink);
  assert_content(path, "first\ncut in two\n");
}

static void line_that_a_crash_cut_off_is_ended(void **state) {
  const char *path = scratch_path("log");
  struct sink *sink = NULL;
  (void)state;
  scratch_write(path, "whole\nhal", 0600);
  sink = open_sink(path, 0);
  assert_int_equal(write_text(sink, "next"), STATUS_OK);
  sink_close(sink);
  assert_content(path, "whole\nhal\nnext\n");
}

// --- rotation by itself --------------------------------------------------------

static struct sink *open_with(const struct sink_options *options) {
  struct sink *sink = NULL;
  struct errmsg err = {0};
  if (sink_open_with(&sink, options, &err) != STATUS_OK) {
    fail_msg("%s", err.text);
  }
  return sink;
}

static void write_and_flush(struct sink *sink, const char *text) {
  assert_int_equal(write_text(sink, text), STATUS_OK);
  assert_int_equal(sink_flush(sink, FLUSH_MS), STATUS_OK);
}

static void rotates_by_size_and_keeps_so_many(void **state) {
  const char *path = scratch_path("log");
  const struct sink_options options = {.path = path, .rotate_len = 8, .num_keep = 2};
  struct sink *sink = open_with(&options);
  (void)state;
  write_and_flush(sink, "one-----");
  write_and_flush(sink, "two-----");
  write_and_flush(sink, "three---");
  write_and_flush(sink, "4");
  write_and_flush(sink, "5");
  assert_int_equal(sink_num_rotations(sink, false), 3);
  assert_int_equal(sink_num_rotations(sink, true), 0);
  sink_close(sink);
  assert_content(path, "4\n5\n");
  assert_content(scratch_path("log.1"), "three---\n");
  assert_content(scratch_path("log.2"), "two-----\n");
  assert_int_equal(scratch_num_files(), 3);
}

static bool has_rotated(void *sink) { return sink_num_rotations(sink, false) > 0; }

static void rotates_by_age_also_when_nothing_is_written(void **state) {
  const char *path = scratch_path("log");
  const struct sink_options options = {.path = path, .rotate_age_ms = 200, .num_keep = 3};
  struct sink *sink = open_with(&options);
  (void)state;
  write_and_flush(sink, "old");
  scratch_wait(has_rotated, sink, FLUSH_MS);
  assert_content(path, "");
  assert_content(scratch_path("log.1"), "old\n");
  (void)poll(NULL, 0, 500);  // an empty file has no age
  assert_int_equal(sink_num_rotations(sink, false), 1);
  sink_close(sink);
}

static bool has_failed_to_rotate(void *sink) { return sink_num_rotations(sink, true) > 0; }

static void rotation_that_fails_keeps_the_file(void **state) {
  const char *path = scratch_path("log");
  const struct sink_options options = {.path = path, .rotate_len = 4, .num_keep = 1};
  struct sink *sink = NULL;
  int saved = dup(STDERR_FILENO);
  int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
  (void)state;
  assert_int_equal(mkdir(scratch_path("log.1"), 0700), 0);  // nothing can be renamed to it
  assert_true(dup2(quiet, STDERR_FILENO) >= 0);
  sink = open_with(&options);
  write_and_flush(sink, "first");
  write_and_flush(sink, "second");
  scratch_wait(has_failed_to_rotate, sink, FLUSH_MS);
  write_and_flush(sink, "third");
  assert_int_equal(sink_num_rotations(sink, true), 1);  // and not once for each line
  sink_close(sink);
  assert_true(dup2(saved, STDERR_FILENO) >= 0);
  (void)close(saved);
  (void)close(quiet);
  assert_content(path, "first\nsecond\nthird\n");
  assert_int_equal(access(scratch_path("log.next"), F_OK), -1);
}

static void somebody_elses_rotation_is_followed(void **state) {
  const char *path = scratch_path("log");
  const struct sink_options options = {.path = path, .rotate_len = 10, .num_keep = 3};
  struct sink *sink = open_with(&options);
  (void)state;
  write_and_flush(sink, "first");
  assert_int_equal(rename(path, scratch_path("elsewhere")), 0);
  write_and_flush(sink, "second");  // now it is long enough
  scratch_wait(exists, (void *)(uintptr_t)path, FLUSH_MS);
  write_and_flush(sink, "third");
  sink_close(sink);
  assert_content(scratch_path("elsewhere"), "first\nsecond\n");
  assert_content(path, "third\n");
  assert_int_equal(scratch_num_files(), 2);
}

// --- chain -----------------------------------------------------------------------

// follow_chain checks the lines of a file after `chain`, moves it on, and returns
// how many lines there are. Lines without a seal must be `torn`.
static size_t follow_chain(const char *path, struct chain *chain, const char *torn) {
  char *text = scratch_read(path);
  size_t num = 0;
  for (char *at = text; *at != '\0'; num++) {
    struct chain_seal seal;
    char *end = strchr(at, '\n');
    assert_non_null(end);
    if (chain_read(&seal, bytes_of(at, (size_t)(end - at))) != STATUS_OK) {
      assert_non_null(torn);
      assert_memory_equal(at, torn, (size_t)(end - at));
    } else {
      assert_int_equal(seal.seq, chain->seq + 1);
      assert_true(chain_follows(&seal, chain->hash));
      chain->seq = seal.seq;
      memcpy(chain->hash, seal.hash, sizeof chain->hash);
    }
    at = end + 1;
  }
  free(text);
  return num;
}

static void assert_has(const char *path, const char *words) {
  char *text = scratch_read(path);
  assert_non_null(strstr(text, words));
  free(text);
}

static bool has_head(void *sink) {
  struct chain head;
  sink_head(sink, &head);
  return head.seq > 0;
}

static void chain_goes_on_over_restarts_and_rotations(void **state) {
  const char *path = scratch_path("log");
  const struct sink_options options = {
      .path = path, .rotate_len = 700, .num_keep = 100, .is_chained = true};
  struct chain chain = {0};
  struct chain head = {0};
  size_t num = 0;
  (void)state;
  for (int restart = 0; restart < 5; restart++) {
    struct sink *sink = open_with(&options);
    for (int i = 0; i < 10; i++) {
      write_and_flush(sink, "{\"result\":\"signed\"}");
    }
    sink_head(sink, &head);
    sink_close(sink);
  }
  for (size_t i = scratch_num_files() - 1; i > 0; i--) {
    char name[32];
    (void)snprintf(name, sizeof name, "log.%zu", i);
    num += follow_chain(scratch_path(name), &chain, NULL);
  }
  num += follow_chain(path, &chain, NULL);
  assert_in_range(scratch_num_files(), 5, 50);
  // 50 lines, one mark for each start but where a file began with it, one for each file.
  assert_in_range(num, 50 + 5, 50 + 5 + scratch_num_files());
  assert_int_equal(head.seq, chain.seq);
  assert_memory_equal(head.hash, chain.hash, sizeof head.hash);
  assert_int_equal(chain.seq, num);
}

static void chain_marks_a_line_that_a_crash_cut_off(void **state) {
  const char *path = scratch_path("log");
  const struct sink_options options = {.path = path, .is_chained = true};
  struct chain chain = {0};
  struct sink *sink = open_with(&options);
  int fd = -1;
  (void)state;
  write_and_flush(sink, "{\"n\":1}");
  sink_close(sink);
  fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
  assert_int_equal(__real_write(fd, "{\"n\":2,\"se", 10), 10);
  (void)close(fd);
  sink = open_with(&options);
  write_and_flush(sink, "{\"n\":3}");
  sink_close(sink);
  assert_int_equal(follow_chain(path, &chain, "{\"n\":2,\"se"), 5);
  assert_has(path, "\"event\":\"resume\",\"previous_seq\":2");
  assert_has(path, "\"torn\":10,\"torn_sha256\":\"");
}

static void chain_has_no_gap_after_a_full_disk(void **state) {
  const char *path = scratch_path("log");
  const struct sink_options options = {.path = path, .is_chained = true};
  struct chain chain = {0};
  struct sink *sink = open_with(&options);
  (void)state;
  scratch_wait(has_head, sink, FLUSH_MS);
  // One line whole, one half, one not at all.
  atomic_store(&disk_room, 150);
  for (int i = 0; i < 3; i++) {
    (void)write_text(sink, "{\"n\":1}");
  }
  scratch_wait(is_failing, sink, FLUSH_MS);
  assert_int_equal(write_text(sink, "{\"n\":2}"), STATUS_UNAVAILABLE);
  assert_int_equal(write_text(sink, "{\"n\":2}"), STATUS_UNAVAILABLE);
  (void)follow_chain(path, &chain, NULL);  // whole lines only, at any time
  atomic_store(&disk_room, SIZE_MAX);
  scratch_wait(is_well, sink, FLUSH_MS);
  write_and_flush(sink, "{\"n\":3}");
  sink_close(sink);
  chain = (struct chain){0};
  (void)follow_chain(path, &chain, NULL);
  assert_has(path, "\"event\":\"lost\",\"lost\":");
  assert_has(path, "{\"n\":3,");
}

static void chain_follows_a_reopened_file(void **state) {
  const char *path = scratch_path("log");
  const char *old = scratch_path("old");
  const struct sink_options options = {.path = path, .is_chained = true};
  struct chain chain = {0};
  struct sink *sink = open_with(&options);
  (void)state;
  write_and_flush(sink, "{\"n\":1}");
  // In the middle of a batch that cannot be written.
  atomic_store(&disk_room, 20);
  assert_int_equal(write_text(sink, "{\"n\":2}"), STATUS_OK);
  scratch_wait(is_failing, sink, FLUSH_MS);
  assert_int_equal(rename(path, old), 0);
  sink_reopen(sink);
  scratch_wait(exists, (void *)(uintptr_t)path, FLUSH_MS);
  atomic_store(&disk_room, SIZE_MAX);
  sink_close(sink);
  assert_int_equal(follow_chain(old, &chain, NULL), 2);
  assert_int_equal(follow_chain(path, &chain, NULL), 2);
  assert_has(path, "\"event\":\"file\",\"previous_seq\":2");
}

static void chain_takes_objects_only(void **state) {
  const struct sink_options options = {.path = scratch_path("log"), .is_chained = true};
  struct sink *sink = open_with(&options);
  (void)state;
  assert_int_equal(write_text(sink, "text"), STATUS_FORMAT);
  assert_int_equal(write_text(sink, "{}"), STATUS_FORMAT);
  assert_int_equal(sink_num_lost(sink), 2);
  sink_close(sink);
}

static void longest_lines_are_sealed_whole(void **state) {
  const char *path = scratch_path("log");
  const struct sink_options options = {.path = path, .ring_len = 4u << 20, .is_chained = true};
  struct chain chain = {0};
  struct sink *sink = open_with(&options);
  static const uint8_t head[] = {'{', '"', 'a', '"', ':', '"'};
  static const uint8_t end[] = {'"', '}'};
  uint8_t line[SINK_LINE_MAX_LEN];
  (void)state;
  memset(line, 'x', sizeof line);
  memcpy(line, head, sizeof head);
  memcpy(line + sizeof line - sizeof end, end, sizeof end);
  for (int i = 0; i < 300; i++) {
    assert_int_equal(sink_write(sink, bytes_of(line, sizeof line)), STATUS_OK);
  }
  sink_close(sink);
  assert_int_equal(follow_chain(path, &chain, NULL), 301);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_make, scratch_remove)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(writes_lines_in_order_with_newlines),
      TEST(refuses_a_line_that_is_too_long),
      TEST(says_why_a_file_cannot_be_opened),
      TEST(keeps_every_line_of_many_writers_whole_and_in_order),
      TEST(many_lines_share_one_write),
      TEST(short_writes_lose_nothing),
      TEST(full_disk_is_told_and_recovers_by_itself),
      TEST(failing_sink_does_not_spin_and_closes_in_time),
      TEST(blocked_pipe_never_blocks_a_writer),
      TEST(reopen_starts_a_new_file),
      TEST(reopen_that_fails_keeps_the_old_file),
      TEST(line_cut_by_a_full_disk_starts_again_in_the_new_file),
      TEST(reopen_of_the_same_file_leaves_the_line_whole),
      TEST(half_a_line_is_cut_off_a_full_disk),
      TEST(line_that_a_crash_cut_off_is_ended),
      TEST(rotates_by_size_and_keeps_so_many),
      TEST(rotates_by_age_also_when_nothing_is_written),
      TEST(rotation_that_fails_keeps_the_file),
      TEST(somebody_elses_rotation_is_followed),
      TEST(chain_goes_on_over_restarts_and_rotations),
      TEST(chain_marks_a_line_that_a_crash_cut_off),
      TEST(chain_has_no_gap_after_a_full_disk),
      TEST(chain_follows_a_reopened_file),
      TEST(chain_takes_objects_only),
      TEST(longest_lines_are_sealed_whole),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
