// SPDX-License-Identifier: Apache-2.0
// access_log: the one line that a connection leaves behind.
#ifndef DEPUTY_PROXY_CONNECTION_ACCESS_LOG_H_
#define DEPUTY_PROXY_CONNECTION_ACCESS_LOG_H_

#include <stdbool.h>
#include <stdint.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"

struct conn;

// access_log_open begins a file for these lines alone; NULL: they go to the log.
// STATUS_SYSTEM, with the sentence. Once, before there are connections; a disk that is
// full costs lines, which are counted, and nothing else.
enum status access_log_open(const char *path, struct errmsg *err);
void access_log_reopen(void);
uint64_t access_log_num_lost(void);
bool access_log_is_failing(void);
void access_log_close(void);  // when there are none any more

// access_log writes the line, if the configuration wants it: who, what name,
// which chain, what authenticated it, how it ended, how much and how long. Threads: the
// connection's worker.
void access_log(const struct conn *conn);

#endif  // DEPUTY_PROXY_CONNECTION_ACCESS_LOG_H_
