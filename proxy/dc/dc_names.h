// SPDX-License-Identifier: Apache-2.0
// dc_names: a number for each name in memory that has leaves to be supplied: handshakes
// are noted by it (heat.h), and it leads to the leaves of all levels: a backup is as good
// as wanted when its primary is. Numbers are used again; one that is late counts for
// whoever has it then. Threads: control.
#ifndef DEPUTY_PROXY_DC_DC_NAMES_H_
#define DEPUTY_PROXY_DC_DC_NAMES_H_

#include "certstore/certstore.h"
#include "proxy/dc/dc_leaf.h"

struct dc_name {
  size_t num;
  struct {
    struct dc_leaf *leaf;
    unsigned level;
  } leaves[];
};

struct dc_names {
  struct dc_name **items;  // by number; [0] is nobody's
  uint32_t room;
  uint32_t *unused;
  uint32_t num_unused;
};

// dc_names_add numbers a name whose chains have been attached; without memory, or
// without leaves, it gets none.
void dc_names_add(struct dc_names *names, const struct cert_name *name);
void dc_names_remove(struct dc_names *names, const struct cert_name *name);
// dc_names_find: NULL: nobody has this number.
const struct dc_name *dc_names_find(const struct dc_names *names, uint32_t number);
void dc_names_cleanup(struct dc_names *names);

#endif  // DEPUTY_PROXY_DC_DC_NAMES_H_
