// SPDX-License-Identifier: Apache-2.0
#include "common/base/log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/sink.h"

#define CLOSE_FLUSH_MS 1000

static const char *const level_names[] = {
    [LOG_LEVEL_ERROR] = "error",
    [LOG_LEVEL_WARN] = "warn",
    [LOG_LEVEL_INFO] = "info",
    [LOG_LEVEL_DEBUG] = "debug",
};

// syslog(3)'s numbers.
static const char *const priorities[] = {
    [LOG_LEVEL_ERROR] = "<3>",
    [LOG_LEVEL_WARN] = "<4>",
    [LOG_LEVEL_INFO] = "<6>",
    [LOG_LEVEL_DEBUG] = "<7>",
};

static struct sink *_Atomic current;  // NULL: standard error, directly
static _Atomic int current_level = LOG_LEVEL_INFO;

static _Atomic bool has_priorities;

// systemd.exec(5): the variable may be an earlier process's, so the file is compared.
static bool is_journal(const char *path) {
  const char *stream = getenv("JOURNAL_STREAM");
  struct stat info;
  char is[64];
  if (strcmp(path, "stderr") != 0 || stream == NULL || fstat(STDERR_FILENO, &info) != 0) {
    return false;
  }
  (void)snprintf(is, sizeof(is), "%ju:%ju", (uintmax_t)info.st_dev, (uintmax_t)info.st_ino);
  return strcmp(is, stream) == 0;
}

enum status log_init(const char *path, enum log_level level, struct errmsg *err) {
  struct sink *sink = NULL;
  enum status st = sink_open(&sink, path, SINK_DEFAULT_RING_LEN, err);
  if (st != STATUS_OK) {
    return st;
  }
  log_close();
  log_set_level(level);
  atomic_store(&has_priorities, is_journal(path));
  atomic_store(&current, sink);
  return STATUS_OK;
}

void log_close(void) {
  struct sink *sink = atomic_exchange(&current, NULL);
  if (sink != NULL) {
    (void)sink_flush(sink, CLOSE_FLUSH_MS);
    sink_close(sink);
  }
}

void log_reopen(void) {
  struct sink *sink = atomic_load(&current);
  if (sink != NULL) {
    sink_reopen(sink);
  }
}

uint64_t log_num_lost(void) {
  struct sink *sink = atomic_load(&current);
  return sink == NULL ? 0 : sink_num_lost(sink);
}

bool log_is_failing(void) {
  struct sink *sink = atomic_load(&current);
  return sink != NULL && sink_is_failing(sink);
}

void log_set_level(enum log_level level) {
  atomic_store_explicit(&current_level, (int)level, memory_order_relaxed);
}

enum log_level log_get_level(void) {
  return (enum log_level)atomic_load_explicit(&current_level, memory_order_relaxed);
}

const char *log_level_name(enum log_level level) { return level_names[level]; }

enum status log_level_from_name(enum log_level *out, const char *name) {
  for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
    if (strcmp(name, level_names[i]) == 0) {
      *out = (enum log_level)i;
      return STATUS_OK;
    }
  }
  return STATUS_NOT_FOUND;
}

bool log_is_on(enum log_level level) {
  return (int)level <= atomic_load_explicit(&current_level, memory_order_relaxed);
}

// snprintf's answer as the length that is really there.
static size_t written(int n, size_t room) {
  if (n < 0) {
    return 0;
  }
  return (size_t)n < room ? (size_t)n : room - 1;
}

// One event is one line, whatever a careless argument held.
static void flatten(char *text, size_t len) {
  for (size_t i = 0; i < len; i++) {
    if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
      text[i] = ' ';
    }
  }
}

static size_t begin(char *line, enum log_level level) {
  if (!atomic_load_explicit(&has_priorities, memory_order_relaxed)) {
    return 0;
  }
  memcpy(line, priorities[level], strlen(priorities[level]));
  return strlen(priorities[level]);
}

static void emit(char *line, size_t len) {
  struct sink *sink = atomic_load_explicit(&current, memory_order_acquire);
  if (sink != NULL) {
    (void)sink_write(sink, bytes_of(line, len));  // the sink counts what it loses
    return;
  }
  line[len] = '\n';
  if (write(STDERR_FILENO, line, len + 1) < 0) {
    return;  // nowhere left to say it
  }
}

void log_line(enum log_level level, uint64_t id, const char *event, const char *format, ...) {
  char line[SINK_LINE_MAX_LEN + 1];
  char time[CLOCK_RFC3339_LEN];
  const size_t room = SINK_LINE_MAX_LEN;
  size_t len = 0;
  va_list args;

  if (!log_is_on(level)) {
    return;
  }
  len = begin(line, level);
  (void)clock_format_rfc3339_us(time, clock_wall_us(), 3);
  if (id == 0) {
    len += written(snprintf(line + len, room - len, "%s %s %s", level_names[level], time, event),
                   room - len);
  } else {
    len += written(snprintf(line + len, room - len, "%s %s conn=%" PRIu64 " %s", level_names[level],
                            time, id, event),
                   room - len);
  }
  if (format[0] != '\0' && len + 1 < room) {
    line[len++] = ' ';
    va_start(args, format);
    len += written(vsnprintf(line + len, room - len, format, args), room - len);
    va_end(args);
  }
  flatten(line, len);
  emit(line, len);
}

void log_raw(struct bytes line) {
  char copy[SINK_LINE_MAX_LEN + 1];
  const size_t at = begin(copy, LOG_LEVEL_INFO);
  const size_t len = line.len < SINK_LINE_MAX_LEN - at ? line.len : SINK_LINE_MAX_LEN - at;
  if (log_is_on(LOG_LEVEL_INFO)) {
    memcpy(copy + at, line.data, len);
    emit(copy, at + len);
  }
}

// Writes one byte's escape and returns its length, at most 4.
static size_t escape(char out[4], uint8_t byte) {
  static const char digits[] = "0123456789abcdef";
  if (byte == '"' || byte == '\\') {
    out[0] = '\\';
    out[1] = (char)byte;
    return 2;
  }
  if (byte >= 0x20 && byte < 0x7f) {
    out[0] = (char)byte;
    return 1;
  }
  out[0] = '\\';
  out[1] = 'x';
  out[2] = digits[byte >> 4];
  out[3] = digits[byte & 15];
  return 4;
}

char *log_quote(char *out, size_t out_len, struct bytes in) {
  static const char cut[] = "...\"";  // what must still fit, and its terminator
  size_t len = 0;
  size_t safe = 1;  // where "..." may go, should the rest not fit

  if (out_len < sizeof(cut) + 1) {
    if (out_len > 0) {
      out[0] = '\0';
    }
    return out;
  }
  out[len++] = '"';
  for (size_t i = 0; i < in.len; i++) {
    char piece[4];
    size_t piece_len = escape(piece, in.data[i]);
    if (len + piece_len + 2 > out_len) {
      memcpy(out + safe, cut, sizeof(cut));
      return out;
    }
    memcpy(out + len, piece, piece_len);
    len += piece_len;
    if (len + sizeof(cut) <= out_len) {
      safe = len;
    }
  }
  out[len] = '"';
  out[len + 1] = '\0';
  return out;
}

char *log_sentence(char out[LOG_SENTENCE_LEN], const char *sentence) {
  return log_quote(out, LOG_SENTENCE_LEN, bytes_text(sentence));
}

bool log_gate_pass(struct log_gate *gate, uint32_t num_per_s, uint64_t *out_num_held) {
  int64_t now_s = clock_monotonic_ms() / 1000;
  int64_t window_s = atomic_load_explicit(&gate->window_s, memory_order_relaxed);

  *out_num_held = 0;
  if (window_s != now_s && atomic_compare_exchange_strong(&gate->window_s, &window_s, now_s)) {
    atomic_store_explicit(&gate->num_in_window, 0, memory_order_relaxed);
  }
  if (atomic_fetch_add_explicit(&gate->num_in_window, 1, memory_order_relaxed) >= num_per_s) {
    atomic_fetch_add_explicit(&gate->num_held, 1, memory_order_relaxed);
    return false;
  }
  *out_num_held = atomic_exchange_explicit(&gate->num_held, 0, memory_order_relaxed);
  return true;
}
