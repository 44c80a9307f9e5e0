// SPDX-License-Identifier: Apache-2.0
// conn_list: which connections there are, for GET /v1/connections. Connections belong to
// their workers, so each worker is asked to write down its own, in a callback of its
// loop between others; no lock, nothing on the path of a byte.
//
//   control: rows for each worker --post--> worker: fills its rows
//   control: the answer           <--post-- the last of them
//
// Threads: control. A worker looks at CONN_LIST_MAX_LOOKED connections at most, which is
// a matter of a millisecond or two.
#ifndef DEPUTY_PROXY_CONNECTION_CONN_LIST_H_
#define DEPUTY_PROXY_CONNECTION_CONN_LIST_H_

#include <stddef.h>

#include "common/base/status.h"
#include "common/http/http_server.h"
#include "common/net/loop.h"
#include "proxy/worker.h"

#define CONN_LIST_DEFAULT_NUM 100
#define CONN_LIST_MAX_NUM 1000      // rows in an answer
#define CONN_LIST_MAX_LOOKED 50000  // by each worker; newest first
#define CONN_LIST_MAX_ASKED 4       // requests under way

struct conn_lister;

// conn_lister_new is for these workers (borrowed; they outlive it). STATUS_MEMORY.
enum status conn_lister_new(struct conn_lister **out, struct loop *control,
                            struct worker *const *workers, size_t num_workers);

// conn_lister_ask answers the request, by its query: limit, state, client, name, older.
void conn_lister_ask(struct conn_lister *lister, struct http_request *request);

// conn_lister_free, when the workers have ended, answers what is open. NULL is allowed.
void conn_lister_free(struct conn_lister *lister);

#endif  // DEPUTY_PROXY_CONNECTION_CONN_LIST_H_
