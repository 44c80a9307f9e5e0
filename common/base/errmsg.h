// SPDX-License-Identifier: Apache-2.0
// errmsg: the sentence that goes with a status that a person will read: what
// is wrong, where (file and line when there is one) and what to do about it.
// Callers hand one down as the last parameter; NULL is allowed everywhere.
#ifndef DEPUTY_COMMON_BASE_ERRMSG_H_
#define DEPUTY_COMMON_BASE_ERRMSG_H_

#include "common/base/status.h"

#define ERRMSG_MAX_LEN 1024

struct errmsg {
  char text[ERRMSG_MAX_LEN];
};

// errmsg_set writes the sentence (cut at the end if too long) and returns
// `st`, so that `return errmsg_set(err, STATUS_CONFIG, ...)` reads well.
enum status errmsg_set(struct errmsg *err, enum status st, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// errmsg_prefix puts "prefix: " before what is there already.
void errmsg_prefix(struct errmsg *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif  // DEPUTY_COMMON_BASE_ERRMSG_H_
