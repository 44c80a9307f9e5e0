// SPDX-License-Identifier: Apache-2.0
// server_change: what changes in a server while it runs: a reload puts another snapshot in
// force, asked for by SIGHUP or by files that have changed in watched folders; a key that
// was made on request joins the others. Part of server.h, on its loop.
#ifndef DEPUTY_KEYSERVER_SERVER_CHANGE_H_
#define DEPUTY_KEYSERVER_SERVER_CHANGE_H_

#include <stdbool.h>

#include "common/base/status.h"
#include "keyserver/server.h"

#define SERVER_RELOAD_STOP_LIMIT_MS 2000  // a reload that hangs for longer is left behind

// server_begin_changes makes what changes need (jobs, inbox, watch), and takes SIGHUP;
// before the workers start.
enum status server_begin_changes(struct server *server);

// server_watch_folders watches what `snapshot` was loaded from. The folder of generated keys
// is ours: what comes into it is in force already.
void server_watch_folders(struct server *server, const struct snapshot *snapshot);

// The end, in this order, of what server_begin_changes has begun (or not).
// server_end_reload waits for a reload that is under way, unless a token's module hangs in
// it: false.
bool server_end_reload(struct server *server);
void server_forget_made(struct server *server);  // once no signer thread runs
void server_end_changes(struct server *server);  // before the loop ends

#endif  // DEPUTY_KEYSERVER_SERVER_CHANGE_H_
