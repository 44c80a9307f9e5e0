// SPDX-License-Identifier: Apache-2.0
// sandbox: what the kernel keeps from a program of ours once somebody else steers
// it. main enters it as the last step before a peer is heard: sockets are bound,
// rights dropped, no thread but the first is there (Landlock knows only the thread
// that asks, and those it starts later).
//
//   no_new_privs  no program started from here gains rights
//   seccomp       the system calls that the program needs, and no others
//   Landlock      the folders that its configuration names, and no others; no
//                 program may be started from anywhere; TCP as far as it is needed
//
// A call that is not on the list is not always an attack: a library may try a new
// one and be content with an old one. So what is unknown answers ENOSYS, as an
// older kernel would, and glibc falls back. What no honest line of ours or of our
// libraries ever does (start a program or a process, trace another one, load code
// into the kernel, change who we are) ends the process at once: SIGSYS leaves a line
// in the kernel's log and a status in systemd's, and nothing for an attacker to try
// next. Refusals are logged by the kernel as well where it has audit.
//
// A file that the rules do not reach answers EACCES, like one with other modes;
// sandbox_hint is what messages add then.
//
// Paths are turned into inodes when the sandbox is entered. So folders are named,
// not files: what is replaced by a rename inside a folder is still reached, and a
// link's target's folder is added. A folder that a later reload names for the first
// time is not reached, unless it lies in one that is.
#ifndef DEPUTY_COMMON_BASE_SANDBOX_H_
#define DEPUTY_COMMON_BASE_SANDBOX_H_

#include <stdbool.h>
#include <stddef.h>

#include "common/base/config.h"
#include "common/base/errmsg.h"
#include "common/base/metrics.h"
#include "common/base/status.h"

enum sandbox_mode {
  SANDBOX_AUTO,     // all that the kernel has
  SANDBOX_REQUIRE,  // all, or no start
  SANDBOX_OFF,      // no_new_privs alone, which program_harden sets
};

// What an operator says, in each program's configuration.
struct sandbox_options {
  int mode;  // enum sandbox_mode
  char **paths;
  size_t num_paths;
};

// sandbox_options_equal: does a reload ask for what is in force?
bool sandbox_options_equal(const struct sandbox_options *a, const struct sandbox_options *b);

// The rows of a config table for the member `sandbox` of `holder`.
extern const char *const sandbox_words[];
#define SANDBOX_OPTION_ROWS(holder)                                                              \
  {.name = "sandbox",                                                                            \
   .type = CONFIG_WORD,                                                                          \
   .offset = offsetof(holder, sandbox.mode),                                                     \
   .fallback = "auto",                                                                           \
   .words = sandbox_words,                                                                       \
   .help =                                                                                       \
       "System calls and files are confined (seccomp, Landlock) to what this program needs: "    \
       "auto as far as the kernel can, require refuses to start where it cannot; a change "      \
       "needs a restart"},                                                                       \
  {                                                                                              \
    .name = "sandbox_paths", .type = CONFIG_PATHS, .offset = offsetof(holder, sandbox.paths),    \
    .count_offset = offsetof(holder, sandbox.num_paths), .max = 64,                              \
    .help =                                                                                      \
        "Files and folders, with all below, that may be read besides the folders of the files "  \
        "named here, as far as the user's own rights go: for a reload that will name other "     \
        "folders; where PKCS #11 modules are loaded, they may be written too; a change needs a " \
        "restart"                                                                                \
  }

// What a program does besides reading, writing, waiting and signing.
enum sandbox_need {
  SANDBOX_CONNECT = 1 << 0,  // TCP and UDP of its own
  SANDBOX_LISTEN = 1 << 1,   // opens listeners when it reloads
  SANDBOX_NAMES = 1 << 2,    // looks names up: resolv.conf, hosts and their like
  // Loads foreign modules at any time: their code is mapped, their sockets and, as
  // long as the operator names no paths, their files are not known to us.
  SANDBOX_MODULES = 1 << 3,
};

enum sandbox_use {
  SANDBOX_READ_FILE,     // a file, which may be replaced
  SANDBOX_READ_FOLDER,   // a folder and all below
  SANDBOX_WRITE_FILE,    // a file that is made, written, replaced, renamed in its folder
  SANDBOX_WRITE_FOLDER,  // a folder in which files are made, written, replaced, removed
  SANDBOX_SOCKET,        // a UNIX socket that is made at this path
};

struct sandbox_path {
  char *path;
  enum sandbox_use use;
};

// All-zero allows nothing; clean with sandbox_spec_cleanup.
struct sandbox_spec {
  unsigned needs;  // enum sandbox_need
  struct sandbox_path *paths;
  size_t num_paths;
  size_t cap_paths;
  bool is_failed;  // no memory; sandbox_enter says so
};

// sandbox_allow copies `path`. NULL, "" and (for files that are written) "stderr"
// are none.
void sandbox_allow(struct sandbox_spec *spec, enum sandbox_use use, const char *path);
// sandbox_allow_config allows all paths of a program's configuration, by its table:
// to be written where the row says so, else to be read; and the file itself.
void sandbox_allow_config(struct sandbox_spec *spec, const void *options,
                          const struct config_option *table, const char *config_path);
// sandbox_allow_address is the same for the path of "unix:/path", and nothing for
// other addresses.
void sandbox_allow_address(struct sandbox_spec *spec, const char *address);
void sandbox_spec_cleanup(struct sandbox_spec *spec);

// sandbox_enter confines this thread, and all that it starts from now on, for good.
// What cannot be found or reached by the rights of the moment is left out.
//   STATUS_REFUSED  the mode is SANDBOX_REQUIRE, and err says what the kernel lacks
//   STATUS_MEMORY   STATUS_SYSTEM
// In a build with sanitizers, their runtime may do what it does at the end of a
// program (trace it, read all, start a symbolizer): see sandbox_state.
enum status sandbox_enter(const struct sandbox_spec *spec, const struct sandbox_options *options,
                          struct errmsg *err);

struct sandbox_state {
  enum sandbox_mode mode;
  bool has_no_new_privs;
  bool has_seccomp;
  int landlock_abi;      // 0: not in force
  bool has_files;        // the files a program may reach are the ones listed
  bool has_modules;      // and code may be loaded
  bool is_instrumented;  // built with a sanitizer: looser
  char missing[128];     // why something is not in force, for a person; "": nothing is
};

// sandbox_state borrows what is in force in this process.
const struct sandbox_state *sandbox_state(void);

// sandbox_log writes the one line that says so; after log_init.
void sandbox_log(void);

// sandbox_metrics writes the family `name` with one sample for each kind.
void sandbox_metrics(struct metrics_text *text, const char *name);

// sandbox_hint returns what a message about a path that errno `reason` kept us from
// should end with: "" unless it may be the sandbox's doing. Static.
const char *sandbox_hint(int reason);

#endif  // DEPUTY_COMMON_BASE_SANDBOX_H_
