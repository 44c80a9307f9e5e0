// SPDX-License-Identifier: Apache-2.0
// program: what every daemon of ours does the same way before and after its own
// work: the command line, --help, --version, --check-config,
// --config-reference, and the process's own safety.
#ifndef DEPUTY_COMMON_BASE_PROGRAM_H_
#define DEPUTY_COMMON_BASE_PROGRAM_H_

#include <stdbool.h>

#include "common/base/config.h"
#include "common/base/errmsg.h"
#include "common/base/log.h"
#include "common/base/status.h"

struct program {
  const char *name;            // "deputy-keyserver"
  const char *summary;         // one line for --help
  const char *default_config;  // "/etc/deputy/keyserver.json"
  const struct config_option *options;
  const char *(*about)(void);  // what --version adds; NULL: nothing
  bool may_take_over;          // knows --takeover and its kind
};

// Whether the listening sockets come from a process that serves.
enum program_takeover {
  PROGRAM_TAKEOVER_NO,
  PROGRAM_TAKEOVER_MUST,        // --takeover
  PROGRAM_TAKEOVER_IF_RUNNING,  // --takeover-if-running: where none serves, a usual start
};

struct program_args {
  const char *config_path;
  bool is_check_only;        // --check-config
  bool is_done;              // --help, --version, --config-reference were answered: exit 0
  enum log_level log_level;  // --log-level, default info
  enum program_takeover takeover;
  bool is_background;  // --background
};

// program_parse_args reads the command line. On STATUS_CONFIG err holds the
// sentence, which names the option and points to --help.
enum status program_parse_args(struct program_args *out, const struct program *program, int argc,
                               char **argv, struct errmsg *err);

// program_go_background goes on in a child, while the caller's process waits until
// program_is_ready, or the child's end, and exits: 0, or as the child did. Before any
// thread, and before the sandbox, in which no process starts. STATUS_SYSTEM.
enum status program_go_background(struct errmsg *err);
void program_is_ready(void);

// program_harden: no core dumps, not dumpable (no ptrace by the same user),
// no_new_privs, umask 077, SIGPIPE and SIGXFSZ ignored, standard descriptors open.
enum status program_harden(struct errmsg *err);

// program_fail prints "name: sentence" on standard error and returns the exit
// code that main returns: 2 for the command line and configuration, else 1.
int program_fail(const struct program *program, enum status st, const struct errmsg *err);

// program_raise_nofile raises the soft limit of open files to the hard one and
// returns it.
int64_t program_raise_nofile(void);

#endif  // DEPUTY_COMMON_BASE_PROGRAM_H_
