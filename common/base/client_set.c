// SPDX-License-Identifier: Apache-2.0
#include "common/base/client_set.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"

enum status client_set_read(struct client_set *out, const struct client_set_options *options,
                            struct errmsg *err) {
  enum status st = STATUS_OK;

  *out = (struct client_set){.names = options->names, .num_names = options->num_names};
  if (options->num_names + options->num_spki_sha256 == 0) {
    return errmsg_set(err, STATUS_CONFIG, "it fits no client: give names or spki_sha256");
  }
  out->spki_sha256 = calloc(options->num_spki_sha256 + 1, sizeof(*out->spki_sha256));
  if (out->spki_sha256 == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  for (size_t i = 0; i < options->num_spki_sha256; i++) {
    if (bytes_from_hex(out->spki_sha256[i], 32, options->spki_sha256[i]) != STATUS_OK) {
      st = errmsg_set(err, STATUS_CONFIG, "spki_sha256 \"%s\" is not 64 hex digits",
                      options->spki_sha256[i]);
      client_set_cleanup(out);
      return st;
    }
    out->num_spki_sha256++;
  }
  return STATUS_OK;
}

void client_set_cleanup(struct client_set *set) {
  free(set->spki_sha256);
  *set = (struct client_set){0};
}

bool client_set_has(const struct client_set *set, const uint8_t spki_sha256[32],
                    bool (*has_name)(const void *arg, const char *name), const void *arg) {
  for (size_t i = 0; i < set->num_spki_sha256; i++) {
    if (memcmp(set->spki_sha256[i], spki_sha256, 32) == 0) {
      return true;
    }
  }
  for (size_t i = 0; i < set->num_names; i++) {
    if (has_name(arg, set->names[i])) {
      return true;
    }
  }
  return false;
}
