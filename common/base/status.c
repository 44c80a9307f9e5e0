// SPDX-License-Identifier: Apache-2.0
#include "common/base/status.h"

#include <stdio.h>
#include <stdlib.h>

// clang-format off
static const char *const names[STATUS_NUM] = {
    [STATUS_OK] = "ok",
    [STATUS_SYSTEM] = "system",
    [STATUS_MEMORY] = "memory",
    [STATUS_FORMAT] = "format",
    [STATUS_LIMIT] = "limit",
    [STATUS_NOT_FOUND] = "not_found",
    [STATUS_EXISTS] = "exists",
    [STATUS_REFUSED] = "refused",
    [STATUS_CONFIG] = "config",
    [STATUS_CRYPTO] = "crypto",
    [STATUS_EXPIRED] = "expired",
    [STATUS_TIMEOUT] = "timeout",
    [STATUS_CLOSED] = "closed",
    [STATUS_UNAVAILABLE] = "unavailable",
    [STATUS_AGAIN] = "again",
};
// clang-format on

const char *status_name(enum status st) {
  return (unsigned)st < STATUS_NUM ? names[st] : "unknown";
}

_Noreturn void check_failed(const char *condition, const char *file, int line) {
  // Straight to standard error: the log's thread may be what is broken.
  (void)fprintf(stderr, "broken invariant at %s:%d: %s\n", file, line, condition);
  abort();
}
