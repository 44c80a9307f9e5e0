// SPDX-License-Identifier: Apache-2.0
// client_set: the clients that an entry of a configuration is for, by names in their
// certificates or by their keys.
#ifndef DEPUTY_COMMON_BASE_CLIENT_SET_H_
#define DEPUTY_COMMON_BASE_CLIENT_SET_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/config.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"

// What an operator says.
struct client_set_options {
  char **names;  // dNSNames or URIs, whole
  size_t num_names;
  char **spki_sha256;  // hex
  size_t num_spki_sha256;
};

// The rows of a config table for the member `who` of `holder`.
// clang-format off
#define CLIENT_SET_OPTION_ROWS(holder)                                                      \
  {"names", CONFIG_TEXTS, .offset = offsetof(holder, who.names),                            \
   .count_offset = offsetof(holder, who.num_names),                                         \
   .help = "Clients by a DNS name or URI of their certificate (subjectAltName), whole"},    \
  {"spki_sha256", CONFIG_TEXTS, .offset = offsetof(holder, who.spki_sha256),                \
   .count_offset = offsetof(holder, who.num_spki_sha256),                                   \
   .help = "Clients by the SHA-256 of their SubjectPublicKeyInfo, in hex"}
// clang-format on

// All-zero has nobody in it; clean with client_set_cleanup.
struct client_set {
  char *const *names;  // borrowed from the options
  size_t num_names;
  uint8_t (*spki_sha256)[32];
  size_t num_spki_sha256;
};

// client_set_read borrows the names. STATUS_CONFIG when nobody is named, or a key is not
// 64 hex digits; STATUS_MEMORY; with the sentence.
enum status client_set_read(struct client_set *out, const struct client_set_options *options,
                            struct errmsg *err);
void client_set_cleanup(struct client_set *set);

// client_set_has: is the client in it that has the key `spki_sha256` and the names for
// which has_name(arg, name) is true?
bool client_set_has(const struct client_set *set, const uint8_t spki_sha256[32],
                    bool (*has_name)(const void *arg, const char *name), const void *arg);

#endif  // DEPUTY_COMMON_BASE_CLIENT_SET_H_
