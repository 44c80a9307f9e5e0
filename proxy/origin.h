// SPDX-License-Identifier: Apache-2.0
// origin: where decrypted bytes go, and how a connection to it begins. One
// address for now; a pool (balancing, health) will stand behind the same calls.
#ifndef DEPUTY_PROXY_ORIGIN_H_
#define DEPUTY_PROXY_ORIGIN_H_

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/net/address.h"
#include "proxy/options.h"

struct origin {
  struct address address;
  enum proxy_protocol proxy_protocol;
};

struct conn;

// origin_init reads the options. STATUS_CONFIG.
enum status origin_init(struct origin *out, const struct origin_options *options,
                        struct errmsg *err);

// origin_connect starts a connection; *out_fd is the caller's. It is made when the
// descriptor becomes writable and origin_connect_result says so. STATUS_SYSTEM.
enum status origin_connect(int *out_fd, const struct origin *origin);
enum status origin_connect_result(int fd);

// origin_greet puts what the origin is told first (the PROXY header) into
// conn->up. Called once, before any byte of the client's. STATUS_MEMORY,
// STATUS_LIMIT.
enum status origin_greet(struct conn *conn, const struct origin *origin);

#endif  // DEPUTY_PROXY_ORIGIN_H_
