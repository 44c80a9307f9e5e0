// SPDX-License-Identifier: Apache-2.0
// Checks audit files against their chain. Lines are read one by one, so files may
// be of any length. A line without a seal is good only as the piece that a crash
// left: then the next line is a mark that says so, with the piece's hash.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/sha.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/bytes.h"
#include "common/base/chain.h"
#include "common/base/sink.h"
#include "ctl/keyserver.h"

#define LINE_MAX_LEN (SINK_LINE_MAX_LEN + CHAIN_SEAL_MAX_LEN)
#define BUFFER_LEN (256u << 10)
#define PROGRESS_LEN (UINT64_C(64) << 20)
#define MIB (1u << 20)

static const char mark_text[] = "\"result\":\"chain\",\"event\":\"";

struct place {
  const char *path;
  uint64_t line;
};

// A line without a seal, whose fate the next one decides.
struct piece {
  struct place at;
  size_t len;
  uint8_t sha256[SHA256_DIGEST_LENGTH];
};

struct verifier {
  struct place at;
  struct chain chain;
  bool has_begun;
  bool has_piece;
  struct piece piece;
  struct chain anchor;  // seq 0: none
  bool is_anchored;
  // What is reported.
  uint64_t first_seq;
  uint64_t num_lines;   // sealed
  uint64_t num_before;  // without a seal, before the chain
  uint64_t num_torn;
  uint64_t num_lost;
  uint64_t num_restarts;
  bool has_torn_end;
  const char *kind;  // of the break; NULL: none
  struct place broken;
  char why[200];
};

static void __attribute__((format(printf, 4, 5)))
note_break(struct verifier *v, struct place at, const char *kind, const char *format, ...) {
  va_list args;

  if (v->kind != NULL) {
    return;  // the first one counts
  }
  v->kind = kind;
  v->broken = at;
  va_start(args, format);
  (void)vsnprintf(v->why, sizeof v->why, format, args);
  va_end(args);
}

static void note_unsealed(struct verifier *v) {
  note_break(v, v->piece.at, "unsealed",
             "this line has no seal: it was changed or put in, or the chain was off");
}

// --- marks ---------------------------------------------------------------------------

// What a line of the chain's own says.
struct mark {
  bool is_one;
  bool is_start;
  bool is_lost;
  uint64_t num_lost;
  struct chain previous;
  uint64_t torn_len;  // 0: none
  uint8_t torn_sha256[SHA256_DIGEST_LENGTH];
};

static uint64_t number_of(const json_t *object, const char *key) {
  const json_int_t value = json_integer_value(json_object_get(object, key));
  return value > 0 ? (uint64_t)value : 0;
}

static bool hash_of(uint8_t out[32], const json_t *object, const char *key) {
  const char *hex = json_string_value(json_object_get(object, key));
  return hex != NULL && bytes_from_hex(out, 32, hex) == STATUS_OK;
}

static void read_mark(struct mark *out, struct bytes line) {
  json_t *object = NULL;
  const char *event = NULL;

  *out = (struct mark){0};
  if (memmem(line.data, line.len, mark_text, sizeof mark_text - 1) == NULL) {
    return;
  }
  object = json_loadb((const char *)line.data, line.len, JSON_REJECT_DUPLICATES, NULL);
  event = json_string_value(json_object_get(object, "event"));
  if (event != NULL) {
    out->is_one = true;
    out->is_lost = strcmp(event, "lost") == 0;
    out->is_start = strcmp(event, "start") == 0;
    out->num_lost = number_of(object, "lost");
    out->previous.seq = number_of(object, "previous_seq");
    out->is_one = out->is_lost || hash_of(out->previous.hash, object, "previous");
    out->torn_len =
        hash_of(out->torn_sha256, object, "torn_sha256") ? number_of(object, "torn") : 0;
  }
  json_decref(object);
}

// --- lines -----------------------------------------------------------------------------

static void take_piece(struct verifier *v, struct bytes line) {
  if (v->has_piece && v->has_begun) {
    note_unsealed(v);  // two: no crash leaves that
    return;
  }
  if (!v->has_begun) {
    v->num_before++;
  }
  if (!v->has_piece) {
    v->piece.at = v->at;
  }
  v->has_piece = true;
  v->piece.len = line.len;
  SHA256(line.data, line.len, v->piece.sha256);
}

static bool explains_piece(const struct verifier *v, const struct mark *mark) {
  return mark->is_one && mark->torn_len == v->piece.len &&
         memcmp(mark->torn_sha256, v->piece.sha256, sizeof mark->torn_sha256) == 0;
}

static void judge_piece(struct verifier *v, const struct mark *mark, uint64_t seq) {
  if (!v->has_piece) {
    return;
  }
  v->has_piece = false;
  if (explains_piece(v, mark)) {
    v->num_torn++;
    v->num_before -= v->has_begun ? 0 : 1;
  }
  if (v->has_begun ? !explains_piece(v, mark)
                   : v->num_before > 0 && !(mark->is_start && seq == 1)) {
    note_unsealed(v);
  }
}

// begin takes the first sealed line. A mark names the hash before it; of another
// line the hash cannot be checked.
static void begin(struct verifier *v, const struct chain_seal *seal, const struct mark *mark) {
  v->has_begun = true;
  v->first_seq = seal->seq;
  if (mark->is_one && !mark->is_lost &&
      (seal->seq != mark->previous.seq + 1 || !chain_follows(seal, mark->previous.hash))) {
    note_break(v, v->at, "changed", "the line does not fit its own seal");
  }
}

static void follow(struct verifier *v, const struct chain_seal *seal, const struct mark *mark) {
  const uint64_t expected = v->chain.seq + 1;

  if (mark->is_start && seal->seq == 1) {
    note_break(v, v->at, "restarted", "a new chain begins here, after line %" PRIu64 " of another",
               v->chain.seq);
  } else if (seal->seq > expected) {
    note_break(v, v->at, "missing",
               "line %" PRIu64 " of the chain comes where %" PRIu64 " should: %" PRIu64
               " are missing or moved",
               seal->seq, expected, seal->seq - expected);
  } else if (seal->seq < expected) {
    note_break(v, v->at, "repeated",
               "line %" PRIu64 " of the chain comes where %" PRIu64
               " should: it was moved, or is there twice",
               seal->seq, expected);
  } else if (!chain_follows(seal, v->chain.hash)) {
    note_break(v, v->at, "changed", "the line, or the hash before it, was changed");
  }
}

static void check_anchor(struct verifier *v) {
  if (v->anchor.seq != v->chain.seq || v->anchor.seq == 0) {
    return;
  }
  v->is_anchored = true;
  if (memcmp(v->anchor.hash, v->chain.hash, sizeof v->chain.hash) != 0) {
    note_break(v, v->at, "anchor",
               "this is not the line that the anchor names: the chain up to "
               "here is another one");
  }
}

static void take_line(struct verifier *v, struct bytes line) {
  struct chain_seal seal;
  struct mark mark;

  v->at.line++;
  if (line.len > LINE_MAX_LEN) {
    note_break(v, v->at, "too_long", "no line of an audit file is longer than %u bytes",
               LINE_MAX_LEN);
    return;
  }
  if (chain_read(&seal, line) != STATUS_OK) {
    take_piece(v, line);
    return;
  }
  read_mark(&mark, line);
  judge_piece(v, &mark, seal.seq);
  if (v->has_begun) {
    follow(v, &seal, &mark);
  } else {
    begin(v, &seal, &mark);
  }
  v->num_lines++;
  v->num_lost += mark.is_lost ? mark.num_lost : 0;
  v->num_restarts += mark.is_one && mark.previous.seq > 0 && !mark.is_lost ? 1 : 0;
  v->chain.seq = seal.seq;
  memcpy(v->chain.hash, seal.hash, sizeof seal.hash);
  check_anchor(v);
}

// --- files -------------------------------------------------------------------------------

struct audit_file {
  const char *path;
  int fd;
  uint64_t first_seq;  // where it belongs
  uint64_t len;
};

// The part of a file that is in memory, and how far all files have been read.
struct reader {
  uint8_t *buffer;
  size_t len;
  uint64_t done;
  uint64_t total;
  bool shows_progress;
};

static enum ctl_exit cannot_read(const char *path, int reason) {
  (void)fprintf(stderr, "deputyctl: %s: cannot be read: %s\n", path, strerror(reason));
  return CTL_USAGE;
}

static void show_progress(const struct reader *reader, size_t got) {
  if (reader->shows_progress &&
      (reader->done - got) / PROGRESS_LEN != reader->done / PROGRESS_LEN) {
    (void)fprintf(stderr, "deputyctl: %" PRIu64 " of %" PRIu64 " MiB\n", reader->done / MIB,
                  reader->total / MIB);
  }
}

// take_lines hands on the whole lines of the buffer and keeps the rest.
static void take_lines(struct verifier *v, struct reader *reader) {
  size_t at = 0;

  while (v->kind == NULL) {
    const uint8_t *start = reader->buffer + at;
    const uint8_t *end = memchr(start, '\n', reader->len - at);
    if (end == NULL) {
      break;
    }
    take_line(v, bytes_of(start, (size_t)(end - start)));
    at += (size_t)(end - start) + 1;
  }
  reader->len -= at;
  memmove(reader->buffer, reader->buffer + at, reader->len);
  if (v->kind == NULL && reader->len > LINE_MAX_LEN) {
    take_line(v, bytes_of(reader->buffer, reader->len));
  }
}

static enum ctl_exit verify_file(struct verifier *v, struct reader *reader,
                                 const struct audit_file *file, bool is_last) {
  v->at = (struct place){.path = file->path};
  reader->len = 0;
  while (v->kind == NULL) {
    const ssize_t got = read(file->fd, reader->buffer + reader->len, BUFFER_LEN - reader->len);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return cannot_read(file->path, errno);
    }
    if (got == 0) {
      break;
    }
    reader->len += (size_t)got;
    reader->done += (uint64_t)got;
    show_progress(reader, (size_t)got);
    take_lines(v, reader);
  }
  if (v->kind == NULL && reader->len > 0) {
    if (is_last) {
      v->has_torn_end = true;  // in the writing, or cut off by a crash since
    } else {
      take_line(v, bytes_of(reader->buffer, reader->len));
    }
  }
  return CTL_DONE;
}

// find_first reads the number of the first sealed line among those that the file's
// beginning holds. A file without one comes last.
static uint64_t find_first(int fd, uint8_t *buffer) {
  const ssize_t got = pread(fd, buffer, BUFFER_LEN, 0);
  const size_t len = got > 0 ? (size_t)got : 0;
  struct chain_seal seal;
  const uint8_t *end = NULL;

  for (size_t at = 0; (end = memchr(buffer + at, '\n', len - at)) != NULL;
       at = (size_t)(end - buffer) + 1) {
    if (chain_read(&seal, bytes_of(buffer + at, (size_t)(end - buffer) - at)) == STATUS_OK) {
      return seal.seq;
    }
  }
  return UINT64_MAX;
}

static enum ctl_exit open_file(struct audit_file *file, struct reader *reader, const char *path) {
  struct stat is;

  file->path = path;
  file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (file->fd < 0 || fstat(file->fd, &is) != 0) {
    return cannot_read(path, errno);
  }
  if (S_ISDIR(is.st_mode)) {
    return cannot_read(path, EISDIR);
  }
  reader->total += (uint64_t)is.st_size;
  file->first_seq = find_first(file->fd, reader->buffer);
  return CTL_DONE;
}

static int by_first(const void *a, const void *b) {
  const struct audit_file *left = a;
  const struct audit_file *right = b;
  return left->first_seq < right->first_seq ? -1 : left->first_seq > right->first_seq;
}

// --- report --------------------------------------------------------------------------------

static void print_json(const struct verifier *v, const struct audit_file *files, size_t num) {
  char hash[2 * CHAIN_HASH_LEN + 1];
  json_t *list = json_array();
  json_t *report = NULL;

  for (size_t i = 0; i < num; i++) {
    (void)json_array_append_new(list, json_string(files[i].path));
  }
  report = json_pack("{s:b,s:o,s:I,s:I,s:I,s:s,s:I,s:b,s:I,s:I,s:I}", "whole", v->kind == NULL,
                     "files", list, "lines", (json_int_t)v->num_lines, "first_seq",
                     (json_int_t)v->first_seq, "last_seq", (json_int_t)v->chain.seq, "last_chain",
                     bytes_to_hex(hash, bytes_of(v->chain.hash, CHAIN_HASH_LEN)), "torn",
                     (json_int_t)v->num_torn, "torn_end", v->has_torn_end, "lost",
                     (json_int_t)v->num_lost, "before_chain", (json_int_t)v->num_before, "restarts",
                     (json_int_t)v->num_restarts);
  if (v->kind != NULL) {
    (void)json_object_set_new(
        report, "break",
        json_pack("{s:s,s:s,s:I,s:s}", "kind", v->kind, "file", v->broken.path, "line",
                  (json_int_t)v->broken.line, "message", v->why));
  }
  (void)json_dumpf(report, stdout, JSON_INDENT(2));
  (void)fputc('\n', stdout);
  json_decref(report);
}

static void note(uint64_t num, const char *what) {
  if (num > 0) {
    (void)printf("  %" PRIu64 " %s\n", num, what);
  }
}

static void print_text(const struct verifier *v, size_t num_files) {
  char hash[2 * CHAIN_HASH_LEN + 1];

  if (v->kind != NULL) {
    return;  // said on standard error
  }
  (void)printf("whole: %" PRIu64 " lines in %zu files, %" PRIu64 " to %" PRIu64 "\nhead: %" PRIu64
               ":%s\n",
               v->num_lines, num_files, v->first_seq, v->chain.seq, v->chain.seq,
               bytes_to_hex(hash, bytes_of(v->chain.hash, CHAIN_HASH_LEN)));
  note(v->num_before, "lines from before the chain was on");
  note(v->num_restarts, "times the chain goes on after a restart or in another file");
  note(v->num_torn, "lines that a crash cut off");
  note(v->num_lost, "lines that could not be kept");
  note(v->has_torn_end, "line at the end that is not whole (in the writing, or cut off)");
  if (v->anchor.seq == 0) {
    (void)printf(
        "  cut off lines at the end would not show: compare the head with the log's\n"
        "  audit_head lines, or give one of them as --anchor\n");
  }
}

static void finish(struct verifier *v) {
  if (v->kind == NULL && v->has_piece) {
    note_unsealed(v);
  }
  if (v->kind == NULL && v->anchor.seq != 0 && !v->is_anchored) {
    note_break(v, v->at, "anchor",
               "line %" PRIu64
               " of the chain, which the anchor names, is not "
               "in these files",
               v->anchor.seq);
  }
  if (v->kind != NULL) {
    (void)fprintf(stderr, "deputyctl: %s:%" PRIu64 ": %s: %s\n", v->broken.path, v->broken.line,
                  v->kind, v->why);
  }
}

// read_anchor reads SEQ:HEX.
static bool read_anchor(struct chain *out, const char *text) {
  char *end = NULL;

  if (text == NULL) {
    return true;
  }
  out->seq = strtoull(text, &end, 10);
  return text[0] >= '1' && text[0] <= '9' && *end == ':' &&
         bytes_from_hex(out->hash, sizeof out->hash, end + 1) == STATUS_OK;
}

static enum ctl_exit verify_all(struct verifier *v, struct reader *reader, struct audit_file *files,
                                char *const *paths, size_t num) {
  enum ctl_exit code = CTL_DONE;

  for (size_t i = 0; i < num && code == CTL_DONE; i++) {
    code = open_file(&files[i], reader, paths[i]);
  }
  if (code != CTL_DONE) {
    return code;
  }
  qsort(files, num, sizeof files[0], by_first);
  for (size_t i = 0; i < num && code == CTL_DONE && v->kind == NULL; i++) {
    code = verify_file(v, reader, &files[i], i + 1 == num);
  }
  return code;
}

enum ctl_exit ctl_verify_audit(const struct ctl_args *args, char *const *paths, size_t num) {
  struct verifier v = {0};
  struct reader reader = {.shows_progress = !args->is_json && isatty(STDERR_FILENO)};
  struct audit_file *files = NULL;
  enum ctl_exit code = CTL_DONE;

  if (num == 0 || num > CTL_MAX_AUDIT_FILES || !read_anchor(&v.anchor, args->anchor)) {
    (void)fprintf(
        stderr, "deputyctl: usage: deputyctl keyserver verify-audit [--anchor SEQ:HEX] FILE...\n");
    return CTL_USAGE;
  }
  files = calloc(num, sizeof files[0]);
  reader.buffer = malloc(BUFFER_LEN);
  if (files == NULL || reader.buffer == NULL) {
    (void)fprintf(stderr, "deputyctl: no memory\n");
    code = CTL_FAILED;
    goto out;
  }
  for (size_t i = 0; i < num; i++) {
    files[i].fd = -1;
  }
  code = verify_all(&v, &reader, files, paths, num);
  if (code == CTL_DONE) {
    finish(&v);
    if (args->is_json) {
      print_json(&v, files, num);
    } else {
      print_text(&v, num);
    }
    code = v.kind == NULL ? CTL_DONE : CTL_FAILED;
  }

out:
  for (size_t i = 0; files != NULL && i < num; i++) {
    if (files[i].fd >= 0) {
      (void)close(files[i].fd);
    }
  }
  free(files);
  free(reader.buffer);
  return code;
}
