// SPDX-License-Identifier: Apache-2.0
#include "bench/bench.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "common/tls/tls_error.h"
#include "version.h"

int bench_usage(const char *name, const char *text, const struct option_row *table) {
  (void)printf("usage: deputy-bench %s [options]\n\n%s\n", name, text);
  options_print_help(stdout, table);
  return 0;
}

int bench_fail(const char *name, enum status st, const struct errmsg *err) {
  (void)fprintf(stderr, "deputy-bench %s: error: %s\n", name,
                err->text[0] == '\0' ? status_name(st) : err->text);
  return st == STATUS_CONFIG ? 2 : 1;
}

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

json_t *bench_about(int argc, char **argv) {
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

void bench_print(json_t *summary) {
  (void)json_dumpf(summary, stdout, JSON_COMPACT | JSON_REAL_PRECISION(10));
  (void)fputc('\n', stdout);
  (void)fflush(stdout);
  json_decref(summary);
}
