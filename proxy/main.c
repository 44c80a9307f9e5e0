// SPDX-License-Identifier: Apache-2.0
// deputy-proxy: terminates TLS in front of an origin without holding a
// certificate's key. This is its table of contents.
#include "common/base/log.h"
#include "common/base/privileges.h"
#include "common/base/program.h"
#include "common/http/http_client.h"
#include "proxy/control.h"
#include "proxy/options.h"
#include "proxy/site.h"

static const struct program program = {
    .name = "deputy-proxy",
    .summary = "terminates TLS without certificate keys, and forwards bytes to an origin",
    .default_config = "/etc/deputy/proxy.json",
    .options = proxy_options,
};

// --check-config: everything but sockets and threads.
static enum status check_config(struct options *options, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct states *states = NULL;
  struct site *site = NULL;

  TRY(states_new(&states));
  TRY(site_new(&site, options, states, NULL, err));

out:
  site_free(site);
  states_free(states);
  return st;
}

static enum status serve(const char *config_path, struct options *options, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct control *control = NULL;
  const char *user = NULL;

  (void)program_raise_nofile();
  TRY(control_new(&control, config_path, options));
  user = control_options(control)->user;
  TRY(control_bind(control, err));  // last use of low ports
  TRY(program_harden(err));         // no core dumps, no ptrace
  TRY(privileges_drop(user, err));  // nothing below is root
  TRY(control_load(control, err));  // the same rights as a reload
  TRY(control_start(control, err));
  control_serve(control);  // until SIGTERM

out:
  control_free(control);
  return st;
}

int main(int argc, char **argv) {
  enum status st = STATUS_OK;
  struct errmsg err = {0};
  struct program_args args = {0};
  struct options options = {0};

  TRY(program_parse_args(&args, &program, argc, argv, &err));
  if (args.is_done) {
    return 0;
  }
  TRY(http_client_check_library(&err));
  TRY(options_load(&options, args.config_path, &err));
  if (args.is_check_only) {
    TRY(check_config(&options, &err));
  } else {
    TRY(log_init(options.log, args.log_level, &err));
    TRY(serve(args.config_path, &options, &err));
  }

out:
  options_cleanup(&options);
  log_close();
  return st == STATUS_OK ? 0 : program_fail(&program, st, &err);
}
