// SPDX-License-Identifier: Apache-2.0
// deputy-bench: the measuring programs of the latency harness; bench/run is what
// people start, bench/README.md the method.
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "version.h"

static const struct subcommand subcommands[] = {
    {"handshakes", "TLS 1.3 handshakes by a light client that knows delegated credentials",
     handshakes_main},
#if DEPUTY_BENCH_HAS_NSS
    {"nss", "TLS 1.3 handshakes by NSS, which checks all that Firefox would", nss_main},
#endif
    {"keyserver", "signatures and pings of a key server, over its own protocol", keyserver_main},
    {"make-certificates", "a million names with real leaves, for a store", make_certificates_main},
    {"make-staples", "an OCSP response for each leaf of such a store", store_staples_main},
    {"decide", "what the proxy's decision for a hot name of a store costs", decide_main},
    {"switch-store", "switches a CA of a store, and asks a proxy's workers about it",
     store_switch_main},
    {"store", "what a look into a certificate store costs", store_look_main},
    {"floor", "the least that can be spent: handshakes in memory, bare crypto", floor_main},
};
#define NUM_SUBCOMMANDS (sizeof(subcommands) / sizeof(subcommands[0]))

static void print_usage(FILE *file) {
  (void)fprintf(file, "usage: deputy-bench SUBCOMMAND [options]\n\n");
  for (size_t i = 0; i < NUM_SUBCOMMANDS; i++) {
    (void)fprintf(file, "  %-18s %s\n", subcommands[i].name, subcommands[i].summary);
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
    if (strcmp(subcommands[i].name, name) == 0) {
      return subcommands[i].run(argc - 1, argv + 1);
    }
  }
  if (name[0] != '\0') {
    (void)fprintf(stderr, "deputy-bench: error: unknown subcommand \"%s\"\n", name);
  }
  print_usage(stderr);
  return 2;
}
