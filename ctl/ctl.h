// SPDX-License-Identifier: Apache-2.0
// ctl: what the files of deputyctl share. The program asks a running proxy over its
// admin API (docs/API.admin.md) and shows the answer as a table, or as JSON.
//
//   main.c      the commands, as a table
//   args.c      the command line, by that table; flags.c its options
//   client.c    HTTP over the UNIX socket
//   commands.c  one function per command: ask, show, exit code
//   process.c   the same for the process itself: connections, log, end
//   show.c      answers for people; grid.c aligns them
//   key.c       files of private keys, without the proxy
//   sealed.c    keys sealed to key servers, likewise; members.c: which there are
//   keyserver.c  beside a key server: what its files say
//   revocation.c  staples and revocation, asked of the CA, without the proxy
#ifndef DEPUTY_CTL_CTL_H_
#define DEPUTY_CTL_CTL_H_

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"

#define CTL_DEFAULT_SOCKET "/run/deputy/proxy.sock"
#define CTL_SOCKET_VARIABLE "DEPUTY_SOCKET"

// Exit codes; documented in docs/deputyctl.md.
enum ctl_exit {
  CTL_DONE = 0,
  CTL_FAILED = 1,       // the proxy refused, or could not
  CTL_USAGE = 2,        // the command line is wrong
  CTL_NOT_READY = 3,    // drill: names would be left with nothing usable; a leaf is
                        // revoked; a staple is not one to be shown
  CTL_UNREACHABLE = 4,  // no proxy answers at the socket; nobody tells of the leaf
};

// Options, as bits of what a command takes.
enum ctl_option {
  CTL_NAME = 1 << 0,
  CTL_KEY = 1 << 1,
  CTL_CA = 1 << 2,
  CTL_FLEET = 1 << 3,
  CTL_TO = 1 << 4,
  CTL_REASON = 1 << 5,
  CTL_COMPROMISED = 1 << 6,
  CTL_FORCE = 1 << 7,
  CTL_IN_SERVICE = 1 << 8,
  CTL_STANDING = 1 << 9,
  CTL_CHAIN = 1 << 10,
  CTL_OUT = 1 << 11,
  CTL_NONCE = 1 << 12,
  CTL_MAX_CRL = 1 << 13,
  CTL_ANCHOR = 1 << 14,
  CTL_CONFIG = 1 << 15,
  CTL_CLIENT = 1 << 16,
  CTL_CLIENT_NAME = 1 << 17,
  CTL_PURPOSE = 1 << 18,
  CTL_SCHEME = 1 << 19,
  CTL_LIFETIME = 1 << 23,
  CTL_MESSAGE = 1 << 24,
  CTL_POLICY = 1 << 20,
  CTL_MEMBERS = 1 << 21,
  CTL_IDENTITY = 1 << 22,
  CTL_STATE = 1 << 26,
  CTL_ADDRESS = 1 << 27,
  CTL_OLDER = 1 << 28,
  CTL_LIMIT = 1 << 29,
  CTL_UNTIL = 1 << 25,
};
#define CTL_SUBJECTS (CTL_NAME | CTL_KEY | CTL_CA | CTL_FLEET)

struct ctl_args {
  unsigned given;  // bits of enum ctl_option
  const char *name;
  const char *key;
  const char *ca;
  const char *to;
  const char *reason;
  const char *chain;
  const char *out;
  const char *max_crl;
  const char *anchor;
  const char *config;
  const char *client;
  const char *client_name;
  const char *purpose;
  const char *scheme;
  const char *lifetime;
  const char *message;
  const char *policy;
  const char *members;
  const char *identity;
  const char *state;
  const char *address;
  const char *older;
  const char *limit;
  const char *until;
  char *const *words;  // beyond the command's name; borrowed from the command line
  size_t num_words;
  const char *socket;
  bool is_json;
  bool is_help;
  bool is_version;
};

struct ctl_command {
  const char *name;   // NULL ends a table
  const char *words;  // shown in the usage: "[NAME]"
  unsigned takes;     // options
  unsigned needs;     // of these, those that must be there
  unsigned one_of;    // of these, exactly one must be there; 0: no such rule
  size_t min_words;
  size_t max_words;
  enum ctl_exit (*run)(const struct ctl_args *args);
  const char *summary;  // one line
  const char *help;     // more, or ""
};

// --- args.c --------------------------------------------------------------------

// ctl_parse reads the command line; *out_command is NULL for --help and --version
// without a command. STATUS_CONFIG with the sentence.
enum status ctl_parse(struct ctl_args *out, const struct ctl_command **out_command,
                      const struct ctl_command *commands, int argc, char **argv,
                      struct errmsg *err);
void ctl_print_help(const struct ctl_command *commands);
void ctl_print_command_help(const struct ctl_command *command);

// --- client.c ------------------------------------------------------------------

struct ctl_answer {
  int code;      // HTTP status
  json_t *json;  // new; NULL if the answer is no JSON
  char *text;    // new
  size_t len;
};

// ctl_ask sends a request and reads the whole answer. `body` NULL: GET; else POST
// (stolen). STATUS_UNAVAILABLE: no proxy answers there; STATUS_MEMORY; with the
// sentence and the remedy.
enum status ctl_ask(struct ctl_answer *out, const struct ctl_args *args, const char *path,
                    json_t *body, struct errmsg *err);
void ctl_answer_cleanup(struct ctl_answer *answer);

// --- commands.c ------------------------------------------------------------------

enum ctl_exit ctl_run_status(const struct ctl_args *args);
enum ctl_exit ctl_run_names(const struct ctl_args *args);
enum ctl_exit ctl_run_chains(const struct ctl_args *args);
enum ctl_exit ctl_run_switches(const struct ctl_args *args);
enum ctl_exit ctl_run_switch(const struct ctl_args *args);
enum ctl_exit ctl_run_restore(const struct ctl_args *args);
enum ctl_exit ctl_run_drill(const struct ctl_args *args);
enum ctl_exit ctl_run_dc(const struct ctl_args *args);
enum ctl_exit ctl_run_reload(const struct ctl_args *args);
enum ctl_exit ctl_run_metrics(const struct ctl_args *args);

// ctl_ask_good is ctl_ask for commands: what is not a good answer is told to the
// person, and the exit code is final then.
enum ctl_exit ctl_ask_good(struct ctl_answer *out, const struct ctl_args *args, const char *path,
                           json_t *body);

// --- process.c -------------------------------------------------------------------

enum ctl_exit ctl_run_connections(const struct ctl_args *args);
enum ctl_exit ctl_run_drain(const struct ctl_args *args);
enum ctl_exit ctl_run_loglevel(const struct ctl_args *args);

// --- store_log.c -------------------------------------------------------------------

// ctl_is_ca_file: is what was typed for a CA the path of a file?
bool ctl_is_ca_file(const char *typed);

// --- key.c -----------------------------------------------------------------------

enum ctl_exit ctl_run_key(const struct ctl_args *args);

// --- sealed.c --------------------------------------------------------------------

// `words` are those after the word that chose the function.
enum ctl_exit ctl_key_identity(const struct ctl_args *args, char *const *words);
enum ctl_exit ctl_key_seal(const struct ctl_args *args, char *const *words);
enum ctl_exit ctl_key_reseal(const struct ctl_args *args, char *const *words);
enum ctl_exit ctl_key_inspect(const struct ctl_args *args, char *const *words);

// --- keyserver.c -------------------------------------------------------------------

enum ctl_exit ctl_run_keyserver(const struct ctl_args *args);

// --- revocation.c ----------------------------------------------------------------

enum ctl_exit ctl_run_staple(const struct ctl_args *args);
enum ctl_exit ctl_run_revocation(const struct ctl_args *args);

#endif  // DEPUTY_CTL_CTL_H_
