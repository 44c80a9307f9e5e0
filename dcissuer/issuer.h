// SPDX-License-Identifier: Apache-2.0
// issuer: the daemon's object: listeners, routes, reload and drain around the
// batches. One loop thread; everything blocking (files of a reload) runs beside it.
#ifndef DEPUTY_DCISSUER_ISSUER_H_
#define DEPUTY_DCISSUER_ISSUER_H_

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "dcissuer/snapshot.h"

struct issuer;

// issuer_new opens the listening sockets (low ports need root, hence before
// issuer_start) and takes the snapshot. `config_path` is borrowed for reloads.
enum status issuer_new(struct issuer **out, const char *config_path, struct snapshot **snapshot,
                       struct errmsg *err);

// issuer_options borrows what it was started with.
const struct options *issuer_options(const struct issuer *issuer);

// issuer_start opens the audit log, connects to the key servers, accepts clients
// and says that it is ready.
enum status issuer_start(struct issuer *issuer, struct errmsg *err);

// issuer_run serves until SIGTERM or SIGINT and the end of what was in hand.
void issuer_run(struct issuer *issuer);
void issuer_free(struct issuer *issuer);  // NULL allowed

#endif  // DEPUTY_DCISSUER_ISSUER_H_
