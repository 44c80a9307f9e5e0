// SPDX-License-Identifier: Apache-2.0
// log: one line per event, "level time conn=<id> event key=value ...".
//   error  an operator must act      warn   service is worse than it should be
//   info   start, reload, stop, one closing line per connection
//   debug  changes of state
// The caller that knows the meaning logs, once. Peer text goes through
// log_quote. No key, ticket or plaintext is ever logged. Threads: any, after
// log_init; before it, lines go straight to standard error.
#ifndef DEPUTY_COMMON_BASE_LOG_H_
#define DEPUTY_COMMON_BASE_LOG_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

// log_init starts the log on `path` ("stderr" or a file). Call log_close last. If standard
// error is systemd's journal (JOURNAL_STREAM), each line begins with its priority, "<4>", which
// the journal takes off (sd-daemon(3)).
enum status log_init(const char *path, enum log_level level, struct errmsg *err);
void log_close(void);
void log_reopen(void);
// log_num_lost counts the lines that could not be kept, for metrics.
uint64_t log_num_lost(void);
// log_is_failing: could the last lines not be written? They wait, as far as there is room.
bool log_is_failing(void);
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
const char *log_level_name(enum log_level level);
enum status log_level_from_name(enum log_level *out, const char *name);

// log_is_on lets a caller skip work for lines nobody wants. One relaxed load.
bool log_is_on(enum log_level level);

// log_line writes a line. `id` is the connection's id, 0 for none; `event` a
// fixed word or two with underscores; `format` gives "key=value key=value".
void log_line(enum log_level level, uint64_t id, const char *event, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

// log_raw writes a line that is whole already (JSON, say), as one of level info; without
// control bytes, and of at most SINK_LINE_MAX_LEN bytes: more is cut.
void log_raw(struct bytes line);

#define log_error(id, ...) log_line(LOG_LEVEL_ERROR, id, __VA_ARGS__)
#define log_warn(id, ...) log_line(LOG_LEVEL_WARN, id, __VA_ARGS__)
#define log_info(id, ...) log_line(LOG_LEVEL_INFO, id, __VA_ARGS__)
#define log_debug(id, ...)                        \
  do {                                            \
    if (log_is_on(LOG_LEVEL_DEBUG)) {             \
      log_line(LOG_LEVEL_DEBUG, id, __VA_ARGS__); \
    }                                             \
  } while (0)

// log_quote writes `in` between double quotes with everything outside printable
// ASCII, quotes and backslashes escaped, cut (with "...") to fit. Returns out.
char *log_quote(char *out, size_t out_len, struct bytes in);

// log_sentence quotes a reason (errmsg.h) for "reason=%s".
#define LOG_SENTENCE_LEN (ERRMSG_MAX_LEN + 128)
char *log_sentence(char out[LOG_SENTENCE_LEN], const char *sentence);

// A gate for lines that a peer can cause: at most `num_per_s` a second, and
// the next line says how many were held back. One static gate per call site;
// threads: any.
struct log_gate {
  _Atomic int64_t window_s;
  _Atomic uint32_t num_in_window;
  _Atomic uint64_t num_held;
};
bool log_gate_pass(struct log_gate *gate, uint32_t num_per_s, uint64_t *out_num_held);

#endif  // DEPUTY_COMMON_BASE_LOG_H_
