// SPDX-License-Identifier: Apache-2.0
#include "bench/bench.h"

#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/tls/tls_error.h"
#include "version.h"

static enum status look_up(struct address *out, const char *host, uint16_t port,
                           struct errmsg *err) {
  const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
  struct addrinfo *list = NULL;
  const int result = getaddrinfo(host, NULL, &hints, &list);
  if (result != 0) {
    return errmsg_set(err, STATUS_CONFIG, "%s cannot be resolved: %s", host, gai_strerror(result));
  }
  *out = (struct address){.len = list->ai_addrlen};
  memcpy(&out->storage, list->ai_addr, list->ai_addrlen);
  address_set_port(out, port);
  freeaddrinfo(list);
  return STATUS_OK;
}

enum status bench_resolve(struct address *out, const char *text, struct errmsg *err) {
  enum status st = STATUS_OK;
  char host[256];
  uint16_t port = 0;

  TRY(address_split_host(host, &port, text, err));
  if (address_from_host(out, host, port) != STATUS_OK) {
    TRY(look_up(out, host, port, err));
  }

out:
  return st == STATUS_OK ? STATUS_OK : STATUS_CONFIG;
}

enum status bench_request(char out[BENCH_REQUEST_LEN], const char *path, const char *host,
                          struct errmsg *err) {
  const int len = snprintf(out, BENCH_REQUEST_LEN, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path,
                           host[0] == '\0' ? "localhost" : host);
  if (path[0] != '/' || len < 0 || len >= BENCH_REQUEST_LEN) {
    return errmsg_set(err, STATUS_CONFIG, "--path must begin with / and be shorter");
  }
  return STATUS_OK;
}

// What each summary begins with: program, version, BoringSSL, command line.
static json_t *begin_summary(int argc, char **argv) {
  json_t *about = json_object();
  json_t *line = json_array();
  for (int i = 0; i < argc; i++) {
    // A command line need not be UTF-8; such a word is left out.
    (void)json_array_append_new(line, json_string(argv[i]));
  }
  (void)json_object_set_new(about, "program", json_string("deputy-bench"));
  (void)json_object_set_new(about, "version", json_string(DEPUTY_VERSION));
  (void)json_object_set_new(about, "boringssl_api", json_string(tls_generation()));
  (void)json_object_set_new(about, "subcommand", json_string(argv[0]));
  (void)json_object_set_new(about, "arguments", line);
  return about;
}

static enum status run(void *options, const struct subcommand *subcommand, int argc, char **argv,
                       struct errmsg *err) {
  enum status st = STATUS_OK;
  bool is_help = false;
  json_t *summary = NULL;

  TRY(options_parse(options, &is_help, subcommand->options, argc, argv, err));
  if (is_help) {
    (void)printf("usage: deputy-bench %s [options]\n\n%s\n\n", argv[0], subcommand->help);
    options_print_help(stdout, subcommand->options);
    return STATUS_OK;
  }
  summary = begin_summary(argc, argv);
  TRY(subcommand->run(summary, options, err));
  (void)json_dumpf(summary, stdout, JSON_COMPACT | JSON_REAL_PRECISION(10));
  (void)fputc('\n', stdout);
  (void)fflush(stdout);

out:
  json_decref(summary);
  return st;
}

int bench_main(const struct subcommand *subcommand, int argc, char **argv) {
  struct errmsg err = {0};
  void *options = calloc(1, subcommand->options_len);
  const enum status st =
      options == NULL ? STATUS_MEMORY : run(options, subcommand, argc, argv, &err);

  free(options);
  if (st != STATUS_OK) {
    (void)fprintf(stderr, "deputy-bench %s: error: %s\n", argv[0],
                  err.text[0] == '\0' ? status_name(st) : err.text);
    return st == STATUS_CONFIG ? 2 : 1;
  }
  return 0;
}
