// SPDX-License-Identifier: Apache-2.0
#include "bench/run_options.h"

const char *const run_arrival_words[] = {"constant", "poisson", NULL};

void run_describe(json_t *about, const struct run_options *o, const struct address *target) {
  char text[ADDRESS_TEXT_LEN];
  if (o->label != NULL) {
    (void)json_object_set_new(about, "label", json_string(o->label));
  }
  (void)json_object_set_new(about, "target", json_string(address_format(text, target)));
  (void)json_object_set_new(about, "loop", json_string(o->rate_per_s > 0 ? "open" : "closed"));
  if (o->rate_per_s > 0) {
    (void)json_object_set_new(about, "rate_per_s", json_real(o->rate_per_s));
  }
}

enum status run_open(struct recorder **out, const struct run_options *o, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct recorder *recorder = NULL;

  TRY(recorder_new(&recorder, o->raw, err));
  if (o->server_pid != NULL) {
    TRY(proc_cpu_parse(&recorder->server, o->server_pid, err));
  }
  *out = recorder;
  recorder = NULL;

out:
  recorder_free(recorder);
  return st;
}
