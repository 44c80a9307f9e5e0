// SPDX-License-Identifier: Apache-2.0
// state_private: what state.c and state_json.c know of each other.
#ifndef DEPUTY_CERTSTORE_STATE_PRIVATE_H_
#define DEPUTY_CERTSTORE_STATE_PRIVATE_H_

#include "certstore/state.h"

#define STATE_MAX_PREFERRED 64u  // no name has more levels of chains

// state_change_is_sound: does the change hold together? Its texts end, its
// subject and words are such as belong to its level.
bool state_change_is_sound(const struct state_change *change);

uint64_t states_next_id(const struct states *states);

// states_put_all fills empty states and makes all visible. STATUS_MEMORY.
enum status states_put_all(struct states *states, const struct state_change *changes, size_t num,
                           uint64_t next_id);

#endif  // DEPUTY_CERTSTORE_STATE_PRIVATE_H_
