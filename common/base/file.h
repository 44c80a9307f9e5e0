// SPDX-License-Identifier: Apache-2.0
// file: whole files, read and replaced. Not for event loops once serving.
#ifndef DEPUTY_COMMON_BASE_FILE_H_
#define DEPUTY_COMMON_BASE_FILE_H_

#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"

// file_read returns new memory (free) with the whole file and a terminator
// past its end. STATUS_SYSTEM, STATUS_LIMIT (longer than max), STATUS_MEMORY.
enum status file_read(uint8_t **out, size_t *out_len, const char *path, size_t max,
                      struct errmsg *err);

// file_replace writes a new file beside `path`, syncs it, renames it over
// `path` and syncs the folder: after a crash there is the old or the new one,
// whole. Mode 0600. STATUS_SYSTEM.
enum status file_replace(const char *path, struct bytes content, struct errmsg *err);

// file_replace_public is file_replace with mode 0644, for what is shown to everybody.
enum status file_replace_public(const char *path, struct bytes content, struct errmsg *err);

// file_create is file_replace for a path where nothing may be yet. STATUS_EXISTS.
enum status file_create(const char *path, struct bytes content, struct errmsg *err);

// file_append_sync appends and syncs (the switch log).
enum status file_append_sync(const char *path, struct bytes content, struct errmsg *err);

#endif  // DEPUTY_COMMON_BASE_FILE_H_
