// SPDX-License-Identifier: Apache-2.0
// jsonline: builds one flat JSON object in a fixed buffer, escaped, without
// allocation: the audit line. Nothing is ever half-written: when the buffer is
// too small, jsonline_end says so.
#ifndef DEPUTY_COMMON_BASE_JSONLINE_H_
#define DEPUTY_COMMON_BASE_JSONLINE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/sink.h"
#include "common/base/status.h"

struct jsonline {
  char text[SINK_LINE_MAX_LEN];
  size_t len;
  bool is_cut;
};

void jsonline_begin(struct jsonline *line);
// Keys are literals of ours and are not escaped. Values are: control bytes and
// bytes outside ASCII become \u00XX.
void jsonline_text(struct jsonline *line, const char *key, struct bytes value);
void jsonline_cstr(struct jsonline *line, const char *key, const char *value);
void jsonline_hex(struct jsonline *line, const char *key, struct bytes value);
void jsonline_int(struct jsonline *line, const char *key, int64_t value);
void jsonline_bool(struct jsonline *line, const char *key, bool value);
// jsonline_time writes RFC 3339 with microseconds.
void jsonline_time(struct jsonline *line, const char *key, int64_t wall_us);

// jsonline_end closes the object and lends it until the next begin.
// STATUS_LIMIT when something did not fit.
enum status jsonline_end(struct jsonline *line, struct bytes *out);

#endif  // DEPUTY_COMMON_BASE_JSONLINE_H_
