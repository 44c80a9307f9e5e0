// SPDX-License-Identifier: Apache-2.0
// deputy-dcissuer: issues delegated credentials by policy. It holds no key but
// that of its own TLS: key servers sign (docs/PROTOCOL.dcissuer.md).
#include <stdio.h>

#include "common/base/log.h"
#include "common/base/privileges.h"
#include "common/base/program.h"
#include "common/base/sandbox.h"
#include "dcissuer/issuer.h"
#include "dcissuer/options.h"
#include "dcissuer/snapshot.h"

static const struct program program = {
    .name = "deputy-dcissuer",
    .summary = "issues TLS delegated credentials (RFC 9345), by policy",
    .default_config = "/etc/deputy/dcissuer.json",
    .options = dcissuer_options,
};

static enum status enter_sandbox(const struct options *options, const char *config_path,
                                 struct errmsg *err) {
  struct sandbox_spec spec = {.needs = SANDBOX_CONNECT | SANDBOX_NAMES};  // to the key servers
  enum status st = STATUS_OK;

  sandbox_allow_config(&spec, options, dcissuer_options, config_path);
  st = sandbox_enter(&spec, &options->sandbox, err);
  sandbox_spec_cleanup(&spec);
  return st;
}

static void report_good(const struct program_args *args, const struct snapshot *snapshot) {
  (void)printf("%s: good: %zu clients, %zu certificates\n", args->config_path,
               snapshot->options.num_clients, cert_set_num(snapshot->certificates));
}

int main(int argc, char **argv) {
  enum status st = STATUS_OK;
  struct errmsg err = {0};
  struct program_args args = {0};
  struct snapshot *snapshot = NULL;
  struct issuer *issuer = NULL;

  TRY(program_parse_args(&args, &program, argc, argv, &err));
  if (args.is_done) {
    goto out;
  }
  TRY(program_harden(&err));                              // before any key is read
  TRY(snapshot_load(&snapshot, args.config_path, &err));  // same steps as a reload
  if (args.is_check_only) {
    report_good(&args, snapshot);
    goto out;
  }
  (void)program_raise_nofile();
  TRY(issuer_new(&issuer, args.config_path, &snapshot, &err));         // last use of low ports
  TRY(privileges_drop(issuer_options(issuer)->user, &err));            // nothing below is root
  TRY(enter_sandbox(issuer_options(issuer), args.config_path, &err));  // before any thread
  TRY(log_init(issuer_options(issuer)->log, args.log_level, &err));
  sandbox_log();
  TRY(issuer_start(issuer, &err));  // says that it is ready
  issuer_run(issuer);               // until SIGTERM

out:
  issuer_free(issuer);
  snapshot_unref(snapshot);
  log_close();
  return st == STATUS_OK ? 0 : program_fail(&program, st, &err);
}
