// SPDX-License-Identifier: Apache-2.0
// control: the thread that is not on the hot path: configuration and reload,
// credentials, ticket keys, admin API, metrics, start and end of the workers. It
// owns what workers read, and frees it when none of them can be reading it.
//
// A reload is prepared whole (options, certificates, contexts, sockets), then put
// in force, or dropped with the reason: until the last step nothing has changed.
//
//   start:  control_new, control_inherit, control_bind, (root is given up), control_load,
//           control_start
//   serve:  SIGHUP reload; SIGUSR1 logs opened again; SIGTERM, SIGINT drain
//
// A process that takes over from a serving one (succession.h) starts in the same order,
// but accepts nobody before the end of it; one that is taken over (handover.h) drains.
//
//   control     start and end, in order; signals
//   reload      a site is prepared, then put in force or dropped
//   drain       SIGTERM, until the last connection has ended
//   services    admin socket and metrics; admin_host and report say what is told there
//   changeover  one process after the other
//   check       --check-config
#ifndef DEPUTY_PROXY_CONTROL_CONTROL_H_
#define DEPUTY_PROXY_CONTROL_CONTROL_H_

#include "common/base/errmsg.h"
#include "common/base/program.h"
#include "common/base/status.h"
#include "proxy/config/options.h"

struct control;

// control_new makes an empty one for the configuration file at `config_path`
// (borrowed), which was read into `options` (taken).
enum status control_new(struct control **out, const char *config_path, struct options *options);

// control_inherit takes listening sockets that are open already: with `takeover`, of a
// serving proxy; else, of the service manager. Always with a sentence.
enum status control_inherit(struct control *control, enum program_takeover takeover,
                            struct errmsg *err);

// control_bind opens every listening socket; the last use of low ports.
enum status control_bind(struct control *control, struct errmsg *err);

// control_load reads the switches and all that the configuration names, with the
// rights that a reload will have.
enum status control_load(struct control *control, struct errmsg *err);

// control_start starts workers and services and says that they are ready.
enum status control_start(struct control *control, struct errmsg *err);

// control_serve returns when all is drained. STATUS_UNAVAILABLE: a takeover came to
// nothing, for the reason in err.
enum status control_serve(struct control *control, struct errmsg *err);

// control_options lends the options at the start.
const struct options *control_options(const struct control *control);

void control_free(struct control *control);  // NULL allowed

#endif  // DEPUTY_PROXY_CONTROL_CONTROL_H_
