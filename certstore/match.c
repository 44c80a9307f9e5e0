// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "certstore/certstore_private.h"

#define ID_MIN_DIGITS 8u  // of a prefix that names a key or CA

static const uint8_t *id_of(const struct chain *chain, enum state_level level) {
  return level == STATE_LEVEL_KEY ? chain->info.key_id : chain->info.ca_id;
}

// is_hex_prefix: 8 to 64 hex digits, in either case; lower case in `out`.
static bool is_hex_prefix(char out[65], const char *typed) {
  size_t len = strlen(typed);
  if (len < ID_MIN_DIGITS || len > 64 || strspn(typed, "0123456789abcdefABCDEF") != len) {
    return false;
  }
  for (size_t i = 0; i <= len; i++) {
    out[i] = typed[i];
    if (typed[i] >= 'A' && typed[i] <= 'F') {
      out[i] = (char)(typed[i] | 0x20);
    }
  }
  return true;
}

static bool is_match(const struct chain *chain, enum state_level level, const char *prefix,
                     const char *typed) {
  char hex[65];
  if (prefix != NULL) {
    (void)bytes_to_hex(hex, bytes_of(id_of(chain, level), 32));
    return strncmp(hex, prefix, strlen(prefix)) == 0;
  }
  return strcasecmp(chain->info.issuer, typed) == 0;
}

static enum status match_id(char out[STATE_SUBJECT_MAX_LEN], const struct certstore *store,
                            enum state_level level, const char *typed, struct errmsg *err) {
  char prefix[65];
  const struct chain *found = NULL;
  const char *what = level == STATE_LEVEL_KEY ? "key" : "CA";
  bool is_hex = is_hex_prefix(prefix, typed);

  if (!is_hex && level == STATE_LEVEL_KEY) {
    return errmsg_set(err, STATUS_NOT_FOUND,
                      "\"%.100s\" names no key: give at least %u hex digits of a key id", typed,
                      ID_MIN_DIGITS);
  }
  for (size_t i = 0; i < store->num_chains; i++) {
    const struct chain *chain = store->chains[i];
    if (!is_match(chain, level, is_hex ? prefix : NULL, typed)) {
      continue;
    }
    if (found != NULL && memcmp(id_of(found, level), id_of(chain, level), 32) != 0) {
      char one[65];
      char two[65];
      (void)bytes_to_hex(one, bytes_of(id_of(found, level), 32));
      (void)bytes_to_hex(two, bytes_of(id_of(chain, level), 32));
      return errmsg_set(err, STATUS_FORMAT,
                        "\"%.100s\" names more than one %s, %s and %s: give more digits of the id",
                        typed, what, one, two);
    }
    found = chain;
  }
  if (found == NULL) {
    return errmsg_set(err, STATUS_NOT_FOUND, "no chain here has the %s \"%.100s\"", what, typed);
  }
  (void)bytes_to_hex(out, bytes_of(id_of(found, level), 32));
  return STATUS_OK;
}

enum status certstore_match(char out_subject[STATE_SUBJECT_MAX_LEN], const struct certstore *store,
                            enum state_level level, const char *typed, struct errmsg *err) {
  out_subject[0] = '\0';
  if (level == STATE_LEVEL_FLEET) {
    return STATUS_OK;
  }
  if (level == STATE_LEVEL_NAME) {
    const struct cert_name *name = certstore_find_exact(store, typed);
    if (name == NULL) {
      return errmsg_set(err, STATUS_NOT_FOUND, "\"%.300s\" is not a name of this proxy", typed);
    }
    (void)snprintf(out_subject, STATE_SUBJECT_MAX_LEN, "%s", name->name);
    return STATUS_OK;
  }
  return match_id(out_subject, store, level, typed, err);
}
