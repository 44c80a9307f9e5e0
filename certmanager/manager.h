// SPDX-License-Identifier: Apache-2.0
// manager: the certificate manager's process: signals, reloads, the port for figures, and
// who of several works on a store. The one that holds the lock of `certmanager.lock` in
// the store's folder does (keeper.h); others stand by and try each second. The kernel
// gives the lock back when its holder ends, however it ends.
#ifndef DEPUTY_CERTMANAGER_MANAGER_H_
#define DEPUTY_CERTMANAGER_MANAGER_H_

#include "certmanager/options.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"

struct manager;

// manager_new opens the listening socket and takes the options (which are empty then).
// `config_path` is borrowed for reloads.
enum status manager_new(struct manager **out, const char *config_path, struct options *options,
                        struct errmsg *err);
const struct options *manager_options(const struct manager *manager);  // of the start; borrowed

// manager_start opens audit log and store, or stands by, and says that it is ready. A
// store that is not there, or cannot be written, is an error.
enum status manager_start(struct manager *manager, struct errmsg *err);
void manager_run(struct manager *manager);   // until SIGTERM or SIGINT
void manager_free(struct manager *manager);  // keeps what waits to be written; NULL allowed

#endif  // DEPUTY_CERTMANAGER_MANAGER_H_
