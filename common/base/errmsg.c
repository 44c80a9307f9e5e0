// SPDX-License-Identifier: Apache-2.0
#include "common/base/errmsg.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum status errmsg_set(struct errmsg *err, enum status st, const char *format, ...) {
  va_list args;
  if (err == NULL) {
    return st;
  }
  va_start(args, format);
  (void)vsnprintf(err->text, sizeof(err->text), format, args);
  va_end(args);
  return st;
}

void errmsg_prefix(struct errmsg *err, const char *format, ...) {
  struct errmsg old;
  va_list args;
  size_t len = 0;
  size_t keep = 0;

  if (err == NULL) {
    return;
  }
  old = *err;
  va_start(args, format);
  (void)vsnprintf(err->text, sizeof(err->text) - 2, format, args);
  va_end(args);
  len = strlen(err->text);
  memcpy(err->text + len, ": ", 2);
  len += 2;
  keep = strlen(old.text);
  if (keep > sizeof(err->text) - 1 - len) {
    keep = sizeof(err->text) - 1 - len;
  }
  memcpy(err->text + len, old.text, keep);
  err->text[len + keep] = '\0';
}
