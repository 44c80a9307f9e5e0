// SPDX-License-Identifier: Apache-2.0
// access_log: the one line that a connection leaves behind.
#ifndef DEPUTY_PROXY_ACCESS_LOG_H_
#define DEPUTY_PROXY_ACCESS_LOG_H_

struct conn;

// access_log writes the line, if the configuration wants it: who, what name,
// which chain, what authenticated it, how it ended, how much and how long.
void access_log(const struct conn *conn);

#endif  // DEPUTY_PROXY_ACCESS_LOG_H_
