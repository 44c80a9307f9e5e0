// SPDX-License-Identifier: Apache-2.0
// deputy-keyserver: signs with certificate keys, by purpose and by client. The
// order below is an argument: nothing a peer sends is looked at before the last
// line, and by then there is nothing left to gain but what one client may ask.
#include <stdio.h>

#include "common/base/log.h"
#include "common/base/privileges.h"
#include "common/base/program.h"
#include "common/base/sandbox.h"
#include "keyserver/options.h"
#include "keyserver/server.h"
#include "keyserver/snapshot.h"

static const struct program program = {
    .name = "deputy-keyserver",
    .summary = "signs with certificate keys, by purpose and by client",
    .default_config = "/etc/deputy/keyserver.json",
    .options = keyserver_options,
};

static void lock_memory(void) {
  struct errmsg err = {0};
  if (privileges_lock_memory(&err) != STATUS_OK) {
    log_warn(0, "memory_not_locked", "%s", err.text);
  }
}

// A key server calls nobody. Modules may: what a token needs, its maker knows.
static enum status enter_sandbox(const struct options *options, const char *config_path,
                                 struct errmsg *err) {
  struct sandbox_spec spec = {.needs = options->num_pkcs11 > 0 ? SANDBOX_MODULES : 0};
  enum status st = STATUS_OK;

  sandbox_allow_config(&spec, options, keyserver_options, config_path);
  st = sandbox_enter(&spec, &options->sandbox, err);
  sandbox_spec_cleanup(&spec);
  return st;
}

static void report_good(const struct program_args *args, const struct snapshot *snapshot) {
  size_t num_shut = 0;

  for (int o = SEALED_LOADED + 1; o < SEALED_NUM_OUTCOMES; o++) {
    num_shut += keystore_num_sealed(snapshot->keys, (enum sealed_outcome)o);
  }
  printf("%s: good: %zu keys, %zu grants\n", args->config_path, keystore_num_keys(snapshot->keys),
         rights_num_grants(snapshot->rights));
  if (num_shut > 0) {
    printf("%zu sealed keys do not open here; the lines above say why\n", num_shut);
  }
}

int main(int argc, char **argv) {
  enum status st = STATUS_OK;
  struct errmsg err = {0};
  struct program_args args = {0};
  struct snapshot *snapshot = NULL;
  struct server server = {0};

  TRY(program_parse_args(&args, &program, argc, argv, &err));
  if (args.is_done) {
    goto out;
  }
  TRY(program_harden(&err));  // no core dumps: before the first key is read
  TRY(snapshot_read(&snapshot, args.config_path, 1, &err));
  if (args.is_check_only) {
    TRY(snapshot_load_files(snapshot, &err));
    TRY(server_fill(&server, snapshot, &err));
    report_good(&args, snapshot);
    goto out;
  }
  (void)program_raise_nofile();
  TRY(server_bind(&server, snapshot, &err));                       // last use of low ports
  lock_memory();                                                   // keys stay out of the swap
  TRY(snapshot_load_files(snapshot, &err));                        // same steps as a reload
  TRY(privileges_drop(snapshot->options.user, &err));              // nothing below is root
  TRY(enter_sandbox(&snapshot->options, args.config_path, &err));  // before any thread
  TRY(log_init(snapshot->options.log, args.log_level, &err));      // files of that user
  sandbox_log();
  TRY(server_fill(&server, snapshot, &err));           // foreign modules: that user's, and inside
  snapshot_unref(snapshot);                            // the server's from here on: a key
  snapshot = NULL;                                     // that a reload removes is gone
  TRY(server_serve(&server, args.config_path, &err));  // until SIGTERM

out:
  server_cleanup(&server);
  snapshot_unref(snapshot);
  log_close();
  return st == STATUS_OK ? 0 : program_fail(&program, st, &err);
}
