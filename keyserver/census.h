// SPDX-License-Identifier: Apache-2.0
// census: counts open connections, all together and by client key, so that one
// client cannot take the place of all others. Shared by the workers; asked when
// a connection opens and closes, never for a request.
#ifndef DEPUTY_KEYSERVER_CENSUS_H_
#define DEPUTY_KEYSERVER_CENSUS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"

struct census;

// A client that has at least one connection.
struct census_entry;

// census_new. STATUS_MEMORY.
enum status census_new(struct census **out);
void census_free(struct census *census);  // after the last connection has left

// census_enter counts a connection before it is known whose it is; false: `max`
// are there already.
bool census_enter(struct census *census, size_t max);
void census_leave(struct census *census);
size_t census_num(const struct census *census);

// census_join counts one more connection of this client and returns its entry
// for census_part; STATUS_LIMIT: it has `max` already; STATUS_MEMORY.
enum status census_join(struct census_entry **out, struct census *census,
                        const uint8_t spki_sha256[32], size_t max);
void census_part(struct census *census, struct census_entry *entry);

#endif  // DEPUTY_KEYSERVER_CENSUS_H_
