// SPDX-License-Identifier: Apache-2.0
// deputy-bench: the measuring programs of the latency harness; bench/run is what
// people start, bench/README.md the method.
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "version.h"

static const struct subcommand *const subcommands[] = {
    &handshakes_subcommand,
#if DEPUTY_BENCH_HAS_NSS
    &nss_subcommand,
#endif
    &keyserver_subcommand,  &make_certificates_subcommand, &store_staples_subcommand,
    &decide_subcommand,     &store_switch_subcommand,      &store_look_subcommand,
    &floor_subcommand,
};
#define NUM_SUBCOMMANDS (sizeof(subcommands) / sizeof(subcommands[0]))

static void print_usage(FILE *file) {
  (void)fprintf(file, "usage: deputy-bench SUBCOMMAND [options]\n\n");
  for (size_t i = 0; i < NUM_SUBCOMMANDS; i++) {
    (void)fprintf(file, "  %-18s %s\n", subcommands[i]->name, subcommands[i]->summary);
  }
  (void)fprintf(file,
                "\n'deputy-bench SUBCOMMAND --help' has the options; --version the version.\n"
                "Standard output: one JSON object. Exit: 0 measured, 1 could not, 2 usage.\n");
}

int main(int argc, char **argv) {
  const char *name = argc > 1 ? argv[1] : "";
  if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
    print_usage(stdout);
    return 0;
  }
  if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
    (void)printf("deputy-bench %s\n", DEPUTY_VERSION);
    return 0;
  }
  for (size_t i = 0; i < NUM_SUBCOMMANDS; i++) {
    if (strcmp(subcommands[i]->name, name) == 0) {
      return bench_main(subcommands[i], argc - 1, argv + 1);
    }
  }
  if (name[0] != '\0') {
    (void)fprintf(stderr, "deputy-bench: error: unknown subcommand \"%s\"\n", name);
  }
  print_usage(stderr);
  return 2;
}
