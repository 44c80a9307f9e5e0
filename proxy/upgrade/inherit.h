// SPDX-License-Identifier: Apache-2.0
// inherit: listening sockets that were open before this process was: of an earlier
// proxy that is being replaced (takeover.h), or of the service manager
// (sd_listen_fds(3): LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES). Whoever opens a
// listener looks here first.
//
// An earlier proxy's sockets are known by the address as it was configured, since a
// reload may have changed a listener's name; the service manager's by name.
//
// Threads: control, and main before it.
#ifndef DEPUTY_PROXY_UPGRADE_INHERIT_H_
#define DEPUTY_PROXY_UPGRADE_INHERIT_H_

#include <stdbool.h>
#include <stddef.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"

#define INHERIT_MAX 4200  // sockets: each listener's for each worker, and a few

enum inherit_kind {
  INHERIT_ANY,     // what it is for, only its name tells
  INHERIT_CLIENT,  // TLS is accepted there
  INHERIT_ADMIN,
  INHERIT_METRICS,
  INHERIT_NUM,
};

struct inherited {
  struct inherited_item {
    enum inherit_kind kind;
    char *name;  // INHERIT_ANY
    char *text;  // the address as configured; NULL with INHERIT_ANY
    int fd;      // -1: taken
  } * items;
  size_t num;
};

// inherit_add checks that *fd (taken, also on failure) is a listening stream socket,
// makes it non-blocking and close-on-exec, and keeps it; `name` and `text` are
// copied. STATUS_REFUSED (it is not), STATUS_LIMIT, STATUS_MEMORY, with the sentence.
enum status inherit_add(struct inherited *set, enum inherit_kind kind, const char *name,
                        const char *text, int *fd, struct errmsg *err);

// inherit_from_environment adds what the service manager passed to this very
// process, and forgets the variables. STATUS_CONFIG with the sentence.
enum status inherit_from_environment(struct inherited *set, struct errmsg *err);

// inherit_take gives a descriptor away for a listener of this kind that is called
// `name` and configured as `text`; -1: there is no more. *out_is_foreign says
// whether the service manager opened it. Every socket comes out once.
int inherit_take(struct inherited *set, enum inherit_kind kind, const char *name, const char *text,
                 bool *out_is_foreign);

// inherit_cleanup closes what nobody wanted, and says so for what the service
// manager opened.
void inherit_cleanup(struct inherited *set);

#endif  // DEPUTY_PROXY_UPGRADE_INHERIT_H_
