// SPDX-License-Identifier: Apache-2.0
// members: the file that says which key servers there are (docs/SEALED-KEYS.md, "The
// membership file"): JSON, read by `deputyctl key seal` and `reseal`, written by the
// operator. It holds no secret, but who can change it chooses who gets keys.
#ifndef DEPUTY_CTL_MEMBERS_H_
#define DEPUTY_CTL_MEMBERS_H_

#include <stdbool.h>
#include <stddef.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/tls/sealing.h"
#include "common/wire/region_policy.h"

struct member {
  struct sealing_recipient recipient;
  struct region_attribute *attributes;
  size_t num_attributes;
};

struct members {
  struct member *list;  // names borrowed from `file`
  size_t num;
  struct members_file {
    struct members_entry *entries;
    size_t num_entries;
  } file;
};

// members_read reads and checks the file; clean with members_cleanup, also after a
// failure. STATUS_SYSTEM, STATUS_LIMIT, STATUS_CONFIG, STATUS_MEMORY; err has file
// and place.
enum status members_read(struct members *out, const char *path, struct errmsg *err);
void members_cleanup(struct members *members);

// members_admitted copies those that the policy admits; returns how many. `out` has
// room for all.
size_t members_admitted(struct sealing_recipient *out, const struct members *members,
                        const struct region_policy *policy);

// members_have: does any member say anything of this attribute?
bool members_have(const struct members *members, const char *attribute);

#endif  // DEPUTY_CTL_MEMBERS_H_
