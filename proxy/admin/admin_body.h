// SPDX-License-Identifier: Apache-2.0
// admin_body: reads the JSON body of an admin request by a table of fields, so
// that an unknown field or a wrong type is named and never ignored.
#ifndef DEPUTY_PROXY_ADMIN_ADMIN_BODY_H_
#define DEPUTY_PROXY_ADMIN_ADMIN_BODY_H_

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/http/http_server.h"

enum body_type {
  BODY_TEXT,  // char[max], at most max - 1 bytes; left empty when absent
  BODY_BOOL,  // bool
  BODY_ID,    // uint64_t, at least 1
};

struct body_field {
  const char *name;  // NULL ends a table
  enum body_type type;
  size_t offset;  // in the struct that is filled
  size_t max;     // BODY_TEXT
  bool is_required;
};

// admin_body_read fills `out` (zeroed by the caller) from one JSON object.
// STATUS_FORMAT with the sentence.
enum status admin_body_read(void *out, const struct body_field *fields, struct bytes body,
                            struct errmsg *err);

// admin_body_may_post answers the request itself and returns false if it may come
// from a web page: a browser can be made to send a POST to a loopback port by any
// page that it shows, but not as application/json without asking first, and not
// without naming the page in Origin.
bool admin_body_may_post(struct http_request *request);

#endif  // DEPUTY_PROXY_ADMIN_ADMIN_BODY_H_
