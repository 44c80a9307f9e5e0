// SPDX-License-Identifier: Apache-2.0
// explain: why a request would be allowed, or not, by a configuration on disk. It
// makes the packet that a client would send, has it judged by the very code that
// judges packets (dispatch_judge), and tells what each grant says to it. It signs
// nothing and asks no server; `deputyctl keyserver explain` shows the answer.
#ifndef DEPUTY_KEYSERVER_EXPLAIN_H_
#define DEPUTY_KEYSERVER_EXPLAIN_H_

#include <jansson.h>
#include <stdint.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"

struct explain_query {
  const char *config_path;
  const char *client_path;  // certificate; NULL: client_name
  const char *client_name;
  const char *key;           // a key pattern but "*", or the path of a certificate
  const char *purpose;       // NULL: message_path
  const char *scheme;        // NULL: the first that fits the key
  int64_t lifetime_s;        // of a credential
  const char *message_path;  // NULL: one is made
};

// explain returns a new object (json_decref), of which "allowed" is the verdict; its
// members are in docs/deputyctl.md. STATUS_CONFIG: the question, or the configuration,
// makes no sense; and what reading files returns.
enum status explain(json_t **out, const struct explain_query *query, struct errmsg *err);

#endif  // DEPUTY_KEYSERVER_EXPLAIN_H_
