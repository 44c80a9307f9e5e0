// SPDX-License-Identifier: Apache-2.0
// config_sample: a table with every type, for the unit test and the fuzz target.
#ifndef DEPUTY_TESTS_UNIT_COMMON_BASE_CONFIG_SAMPLE_H_
#define DEPUTY_TESTS_UNIT_COMMON_BASE_CONFIG_SAMPLE_H_

#include "common/base/config.h"

struct sample_chain {
  char *certificate;
  int64_t lifetime_ms;
};

struct sample_name {
  char *name;
  struct sample_chain *chains;
  size_t num_chains;
};

struct sample {
  char *user;
  char *log;
  bool is_on;
  int64_t workers;
  int mode;
  char **listen;
  size_t num_listen;
  char **roots;
  size_t num_roots;
  struct {
    int64_t handshake_ms;
    int64_t buffer_len;
  } limits;
  struct sample_chain tls;
  struct sample_name *names;
  size_t num_names;
};

extern const struct config_option sample_options[];

#endif  // DEPUTY_TESTS_UNIT_COMMON_BASE_CONFIG_SAMPLE_H_
