// SPDX-License-Identifier: Apache-2.0
// bench: the subcommands of deputy-bench, one in each file of that name, and what
// they share. main.c is the table of them.
//
// A subcommand prints one JSON object on standard output (its summary) and keeps
// everything else on standard error. It returns main's exit code: 0 when the
// measurement took place, however it went; 1 when it could not; 2 for the command
// line.
#ifndef DEPUTY_BENCH_BENCH_H_
#define DEPUTY_BENCH_BENCH_H_

#include <jansson.h>
#include <stdbool.h>

#include "bench/options.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/net/address.h"

struct subcommand {
  const char *name;
  const char *summary;
  int (*run)(int argc, char **argv);  // argv[0] is the subcommand's name
};

int handshakes_main(int argc, char **argv);
int decide_main(int argc, char **argv);
int floor_main(int argc, char **argv);
int keyserver_main(int argc, char **argv);
int make_certificates_main(int argc, char **argv);
int store_look_main(int argc, char **argv);
int store_staples_main(int argc, char **argv);
int store_switch_main(int argc, char **argv);
int nss_main(int argc, char **argv);  // only where NSS is: DEPUTY_BENCH_HAS_NSS

// bench_usage prints a subcommand's --help; bench_fail the sentence of a failure, and
// returns the exit code.
int bench_usage(const char *name, const char *text, const struct option_row *table);
int bench_fail(const char *name, enum status st, const struct errmsg *err);

// bench_resolve reads "host:port", with a look into the resolver if it must be.
enum status bench_resolve(struct address *out, const char *text, struct errmsg *err);

// bench_request writes an HTTP/1.1 GET. STATUS_CONFIG: not a path, or too long.
#define BENCH_REQUEST_LEN 4096
enum status bench_request(char out[BENCH_REQUEST_LEN], const char *path, const char *host,
                          struct errmsg *err);

// bench_about starts a summary: program, version, subcommand, BoringSSL, command
// line. New reference.
json_t *bench_about(int argc, char **argv);

// bench_print prints a summary and gives its reference up.
void bench_print(json_t *summary);

#endif  // DEPUTY_BENCH_BENCH_H_
