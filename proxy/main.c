// SPDX-License-Identifier: Apache-2.0
// deputy-proxy: terminates TLS in front of an origin without holding a
// certificate's key. This is its table of contents.
#include "common/base/log.h"
#include "common/base/privileges.h"
#include "common/base/program.h"
#include "common/base/sandbox.h"
#include "common/http/http_client.h"
#include "common/tls/features.h"
#include "proxy/config/options.h"
#include "proxy/control/check.h"
#include "proxy/control/control.h"

static const struct program program = {
    .name = "deputy-proxy",
    .summary = "terminates TLS without certificate keys, and forwards bytes to an origin",
    .default_config = "/etc/deputy/proxy.json",
    .options = proxy_options,
    .about = tls_features,
    .may_take_over = true,
};

// Origins, key servers and issuers are called; a reload may bring listeners.
static enum status enter_sandbox(const struct options *options, const char *config_path,
                                 struct errmsg *err) {
  struct sandbox_spec spec = {.needs = SANDBOX_CONNECT | SANDBOX_LISTEN | SANDBOX_NAMES};
  enum status st = STATUS_OK;

  sandbox_allow_config(&spec, options, proxy_options, config_path);
  sandbox_allow(&spec, SANDBOX_WRITE_FOLDER, options->store.path);
  for (size_t i = 0; i < options->num_listeners; i++) {
    sandbox_allow_address(&spec, options->listeners[i].address);
  }
  st = sandbox_enter(&spec, &options->sandbox, err);
  sandbox_spec_cleanup(&spec);
  return st;
}

static enum status serve(const struct program_args *args, struct options *options,
                         struct errmsg *err) {
  enum status st = STATUS_OK;
  struct control *control = NULL;
  const struct options *own = NULL;

  TRY(program_harden(err));  // no core dumps, no ptrace: before any key is read
  (void)program_raise_nofile();
  TRY(control_new(&control, args->config_path, options));
  own = control_options(control);
  TRY(control_inherit(control, args->takeover, err));
  TRY(control_bind(control, err));                  // last use of low ports
  TRY(privileges_drop(own->user, err));             // nothing below is root
  TRY(enter_sandbox(own, args->config_path, err));  // before any thread
  TRY(log_init(own->log, args->log_level, err));    // a file of that user
  sandbox_log();
  TRY(control_load(control, err));  // the same rights as a reload
  TRY(control_start(control, err));
  TRY(control_serve(control, err));  // until SIGTERM

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
    if (args.is_background) {
      TRY(program_go_background(&err));  // a fork: before anything is open
    }
    TRY(serve(&args, &options, &err));
  }

out:
  options_cleanup(&options);
  log_close();
  return st == STATUS_OK ? 0 : program_fail(&program, st, &err);
}
