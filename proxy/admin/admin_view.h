// SPDX-License-Identifier: Apache-2.0
// admin_view: what the admin API shows, as JSON (docs/API.admin.md has the
// fields). Each call returns a new object, or NULL: no memory.
#ifndef DEPUTY_PROXY_ADMIN_ADMIN_VIEW_H_
#define DEPUTY_PROXY_ADMIN_ADMIN_VIEW_H_

#include <jansson.h>

#include "certstore/certstore.h"
#include "proxy/admin/admin.h"

#define ADMIN_MAX_NAMES_SHOWN 1000u  // in one list of names within an answer

json_t *admin_view_chain(const struct admin_host *host, const struct chain *chain, int64_t now_s);
json_t *admin_view_name(const struct admin_host *host, const struct cert_name *name, int64_t now_s);
json_t *admin_view_change(const struct admin_host *host, const struct state_change *change);
json_t *admin_view_drill(const struct drill_report *report, enum state_level level,
                         const char *subject);
// admin_view_names_of lists names, at most ADMIN_MAX_NAMES_SHOWN.
json_t *admin_view_names_of(const struct cert_name *const *names, size_t num);

// admin_put adds a member; a NULL value or object gives false.
bool admin_put(json_t *object, const char *key, json_t *value);
json_t *admin_time(int64_t wall_s);  // RFC 3339; null for 0
json_t *admin_hex(const uint8_t id[32]);

// admin_name_of_ca borrows the issuer's name of the CA with this id (64 hex
// digits), or returns NULL.
const char *admin_name_of_ca(const struct certstore *store, const char *subject);

// admin_action names what a change does: "out", "in", "silent", "prefer",
// "prefer_none", "dc_on", "dc_off".
const char *admin_action(const struct state_change *change);

#endif  // DEPUTY_PROXY_ADMIN_ADMIN_VIEW_H_
