// SPDX-License-Identifier: Apache-2.0
// store: `deputyctl store`, the commands on a certificate store on disk. They ask no
// proxy; docs/STORE.md is what they work on.
//
//   store.c          the command line, by two tables; stats, verify, compact
//   store_files.c    chains out of files, in the layouts that others leave
//   store_import.c   files into a store      store_export.c   and out again
//   store_switch.c   switch, restore, switches, drill, find
//   store_log.c      the log trimmed, and one taken over; CAs
#ifndef DEPUTY_CTL_STORE_H_
#define DEPUTY_CTL_STORE_H_

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "certstore/store.h"
#include "certstore/store_write.h"
#include "ctl/ctl.h"

#define STORE_VARIABLE "DEPUTY_STORE"

// What a command line says.
struct store_args {
  const char *folder;
  const char *level;
  const char *name;
  const char *key;
  const char *ca;
  const char *to;
  const char *reason;
  const char *until;
  const char *keep;
  const char *older_than;
  bool is_fleet;
  bool is_compromised;
  bool is_in_service;
  bool is_forced;
  bool is_standing;
  bool is_skipping_bad;
  bool is_replacing;
  bool is_deep;
  bool is_json;
  bool is_quiet;
  bool is_help;
  char *const *words;
  size_t num_words;
};

// store_main runs `store ...`: argv[0] is "store". Returns an exit code.
int store_main(int argc, char **argv);

// store_run_late is for an option that stands before the word "store".
enum ctl_exit store_run_late(const struct ctl_args *args);

// store_complain prints the sentence on standard error; returns CTL_FAILED.
enum ctl_exit store_complain(const struct errmsg *err);
// store_begin opens the store and (if `reader` is not NULL) a snapshot of it.
enum status store_begin(struct store **store, struct store_reader **reader,
                        const struct store_args *args, enum store_mode mode, struct errmsg *err);
void store_end(struct store *store, struct store_reader *reader);
void store_print_json(json_t *json);  // takes it

// store_subject reads --name, --key, --ca, --fleet against the store: exactly one.
enum status store_subject(enum state_level *out_level, uint8_t out[STATE_SUBJECT_MAX_LEN],
                          size_t *out_len, const struct store_reader *reader,
                          const struct store_args *args, struct errmsg *err);

bool store_has_subject(const struct store_args *args);  // one of these is given

// store_host writes a host name as certificates have it: lower case, A-labels (a name
// with other letters is converted by IDNA 2008). STATUS_FORMAT.
enum status store_host(char out[STORE_NAME_MAX_LEN + 1], const char *typed, struct errmsg *err);

// --- a line that tells how far it is -----------------------------------------------------

struct store_progress {
  const char *what;
  int64_t began_us;
  int64_t shown_us;
  bool is_on;
  bool is_shown;
};
void store_progress_begin(struct store_progress *progress, const struct store_args *args,
                          const char *what);
void store_progress_show(struct store_progress *progress, uint64_t done, uint64_t all,
                         uint64_t num_things, const char *things);
void store_progress_end(struct store_progress *progress);

// --- store_files.c -----------------------------------------------------------------------

struct store_file {
  char *path;
  uint64_t len;
  bool is_found;  // by walking a folder; else named by a person
};

struct store_files {
  struct store_file *files;
  size_t num;
  size_t room;
  uint64_t len;  // of all
};

// store_files_add adds a file, or what is to be imported of a folder: of a folder of
// certbot or acme.sh the full chains, else all *.pem, *.crt, *.cer, *.der and *.cert
// below it. Sorted. STATUS_SYSTEM, STATUS_MEMORY.
enum status store_files_add(struct store_files *files, const char *path, struct errmsg *err);
void store_files_cleanup(struct store_files *files);

// A file that is read chain by chain, whatever its length: PEM, or DER certificates one
// after the other. A chain begins with each certificate that is not a CA's.
struct store_chain_file;
struct store_chain_item {
  struct bytes certs[STORE_MAX_ISSUERS + 2];  // lent until the next
  size_t num_certs;
  bool begins_with_ca;
};
enum status store_chain_file_open(struct store_chain_file **out, const char *path,
                                  struct errmsg *err);
// STATUS_NOT_FOUND at the end; STATUS_FORMAT, STATUS_LIMIT, STATUS_SYSTEM.
enum status store_chain_file_next(struct store_chain_file *file, struct store_chain_item *out,
                                  struct errmsg *err);
uint64_t store_chain_file_num_read(const struct store_chain_file *file);    // bytes
uint64_t store_chain_file_num_keys(const struct store_chain_file *file);    // private, passed over
uint64_t store_chain_file_num_others(const struct store_chain_file *file);  // PEM blocks
void store_chain_file_close(struct store_chain_file *file);

// --- the commands --------------------------------------------------------------------------

enum ctl_exit store_run_import(const struct store_args *args);
enum ctl_exit store_run_export(const struct store_args *args);
enum ctl_exit store_run_find(const struct store_args *args);
enum ctl_exit store_run_remove(const struct store_args *args);
enum ctl_exit store_run_switch(const struct store_args *args);
enum ctl_exit store_run_restore(const struct store_args *args);
enum ctl_exit store_run_switches(const struct store_args *args);
enum ctl_exit store_run_drill(const struct store_args *args);
enum ctl_exit store_run_cas(const struct store_args *args);
enum ctl_exit store_run_trim_log(const struct store_args *args);
enum ctl_exit store_run_import_states(const struct store_args *args);

#endif  // DEPUTY_CTL_STORE_H_
