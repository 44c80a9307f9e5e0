// SPDX-License-Identifier: Apache-2.0
// admin_edit: a change of states where there is no store: checked against the names of the
// configuration, drilled, and put into the draft of the state file (state_file.h). (With a
// store: admin_store.h.)
//
// Threads: control.
#ifndef DEPUTY_PROXY_ADMIN_ADMIN_EDIT_H_
#define DEPUTY_PROXY_ADMIN_ADMIN_EDIT_H_

#include "proxy/admin/admin_change_internal.h"

// admin_edit_begin takes the change, which is read, to its answer; `make` is one of those
// that follow, each with a struct admin_change as its `arg`.
void admin_edit_begin(struct admin_change *change,
                      enum status (*make)(void *arg, struct states *draft, struct errmsg *err));

enum status admin_edit_switch(void *arg, struct states *draft, struct errmsg *err);
enum status admin_edit_restore(void *arg, struct states *draft, struct errmsg *err);
enum status admin_edit_dc(void *arg, struct states *draft, struct errmsg *err);

// --- what a store's changes ask of configured names, too -------------------------------

// admin_edit_choose_level finds where a configured name shall go, as an index plus 1; is
// it usable?
enum status admin_edit_choose_level(uint32_t *out, bool *out_is_usable, struct admin_change *change,
                                    const struct certstore *store, const struct cert_name *name,
                                    struct errmsg *err);
// admin_edit_find_fleet_level counts the names with something usable at the level that is
// asked for, and finds its place; 0: no name has it. STATUS_FORMAT: not one place.
enum status admin_edit_find_fleet_level(uint32_t *out, size_t *out_num_usable,
                                        const struct admin_change *change,
                                        const struct certstore *store, struct errmsg *err);

#endif  // DEPUTY_PROXY_ADMIN_ADMIN_EDIT_H_
