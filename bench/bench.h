// SPDX-License-Identifier: Apache-2.0
// bench: the subcommands of deputy-bench, one in each file of that name, and what
// they share. main.c is the table of them.
//
// A subcommand prints one JSON object on standard output (its summary) and keeps
// everything else on standard error. main's exit code is 0 when the measurement took
// place, however it went; 1 when it could not; 2 for the command line.
#ifndef DEPUTY_BENCH_BENCH_H_
#define DEPUTY_BENCH_BENCH_H_

#include <jansson.h>
#include <stddef.h>

#include "bench/options.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/net/address.h"

struct subcommand {
  const char *name;
  const char *summary;               // one line
  const char *help;                  // what it is for
  const struct option_row *options;  // of a struct of options_len bytes
  size_t options_len;
  // run measures, and adds what it found to the summary.
  enum status (*run)(json_t *summary, const void *options, struct errmsg *err);
};

extern const struct subcommand decide_subcommand;
extern const struct subcommand floor_subcommand;
extern const struct subcommand handshakes_subcommand;
extern const struct subcommand keyserver_subcommand;
extern const struct subcommand make_certificates_subcommand;
extern const struct subcommand nss_subcommand;  // only where NSS is: DEPUTY_BENCH_HAS_NSS
extern const struct subcommand store_look_subcommand;
extern const struct subcommand store_staples_subcommand;
extern const struct subcommand store_switch_subcommand;

// bench_main reads the command line (argv[0] is the subcommand's name), runs and prints.
// Returns the exit code.
int bench_main(const struct subcommand *subcommand, int argc, char **argv);

// bench_resolve reads "host:port", with a look into the resolver if it must be.
enum status bench_resolve(struct address *out, const char *text, struct errmsg *err);

// bench_request writes an HTTP/1.1 GET. STATUS_CONFIG: not a path, or too long.
#define BENCH_REQUEST_LEN 4096
enum status bench_request(char out[BENCH_REQUEST_LEN], const char *path, const char *host,
                          struct errmsg *err);

#endif  // DEPUTY_BENCH_BENCH_H_
