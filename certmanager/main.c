// SPDX-License-Identifier: Apache-2.0
// deputy-certmanager: keeps the certificate store fit to serve: staples fetched ahead of
// need, and a watch over what CAs revoke. It holds no key of any kind.
#include <stdio.h>

#include "certmanager/manager.h"
#include "certmanager/options.h"
#include "common/base/log.h"
#include "common/base/privileges.h"
#include "common/base/program.h"
#include "common/base/sandbox.h"
#include "common/http/http_client.h"

static const struct program program = {
    .name = "deputy-certmanager",
    .summary = "staples and revocation for all chains of a certificate store",
    .default_config = "/etc/deputy/certmanager.json",
    .options = certmanager_options,
};

static enum status enter_sandbox(const struct options *options, const char *config_path,
                                 struct errmsg *err) {
  struct sandbox_spec spec = {.needs = SANDBOX_CONNECT | SANDBOX_NAMES};  // responders, lists
  enum status st = STATUS_OK;

  sandbox_allow_config(&spec, options, certmanager_options, config_path);
  sandbox_allow(&spec, SANDBOX_WRITE_FOLDER, options->store);
  if (options->ca == NULL) {  // the system's trust, and where its links point
    sandbox_allow(&spec, SANDBOX_READ_FOLDER, "/etc/ssl/certs");
    sandbox_allow(&spec, SANDBOX_READ_FOLDER, "/usr/share/ca-certificates");
    sandbox_allow(&spec, SANDBOX_READ_FOLDER, "/usr/local/share/ca-certificates");
  }
  st = sandbox_enter(&spec, &options->sandbox, err);
  sandbox_spec_cleanup(&spec);
  return st;
}

int main(int argc, char **argv) {
  enum status st = STATUS_OK;
  struct errmsg err = {0};
  struct program_args args = {0};
  struct options options = {0};
  struct manager *manager = NULL;

  TRY(program_parse_args(&args, &program, argc, argv, &err));
  if (args.is_done) {
    goto out;
  }
  TRY(program_harden(&err));
  TRY(options_load(&options, args.config_path, &err));  // as a reload does
  if (args.is_check_only) {
    (void)printf("%s: good: store %s\n", args.config_path, options.store);
    goto out;
  }
  TRY(http_client_check_library(&err));
  (void)program_raise_nofile();
  TRY(manager_new(&manager, args.config_path, &options, &err));          // last use of low ports
  TRY(privileges_drop(manager_options(manager)->user, &err));            // nothing below is root
  TRY(enter_sandbox(manager_options(manager), args.config_path, &err));  // before any thread
  TRY(log_init(manager_options(manager)->log, args.log_level, &err));
  sandbox_log();
  TRY(manager_start(manager, &err));  // says that it is ready
  manager_run(manager);               // until SIGTERM

out:
  manager_free(manager);
  options_cleanup(&options);
  log_close();
  return st == STATUS_OK ? 0 : program_fail(&program, st, &err);
}
