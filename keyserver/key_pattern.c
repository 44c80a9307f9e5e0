// SPDX-License-Identifier: Apache-2.0
#include "keyserver/key_pattern.h"

#include <string.h>
#include <strings.h>

#include "common/base/bytes.h"

// after_prefix returns what follows `prefix` in `text`, or NULL.
static const char *after_prefix(const char *text, const char *prefix) {
  const size_t len = strlen(prefix);
  return strncmp(text, prefix, len) == 0 ? text + len : NULL;
}

enum status key_pattern_parse(struct key_pattern *out, const char *text, struct errmsg *err) {
  *out = (struct key_pattern){.kind = KEY_PATTERN_ALL, .text = text};
  if (strcmp(text, "*") == 0) {
    return STATUS_OK;
  }
  out->text = after_prefix(text, "ski:");
  if (out->text != NULL) {
    out->kind = KEY_PATTERN_SKI;
    if (bytes_from_hex(out->ski, sizeof out->ski, out->text) == STATUS_OK) {
      return STATUS_OK;
    }
    return errmsg_set(err, STATUS_CONFIG, "key \"%s\": a key identifier is 40 hex digits", text);
  }
  out->kind = KEY_PATTERN_LABEL;
  out->text = after_prefix(text, "label:");
  if (out->text == NULL) {
    out->kind = KEY_PATTERN_NAME;
    out->text = after_prefix(text, "name:");
  }
  if (out->text != NULL && out->text[0] != '\0') {
    return STATUS_OK;
  }
  return errmsg_set(err, STATUS_CONFIG,
                    "key \"%s\" is none of: \"*\", \"ski:HEX\", \"label:NAME\", \"name:HOST\", "
                    "\"name:*.DOMAIN\"",
                    text);
}

// name_fits: "*.example.org" fits a.example.org, b.a.example.org, and the
// certificate name "*.example.org" itself; not example.org.
static bool name_fits(const char *pattern, const char *name) {
  const char *suffix = pattern + 1;
  const size_t suffix_len = strlen(pattern) - 1;
  const size_t name_len = strlen(name);

  if (strncmp(pattern, "*.", 2) != 0) {
    return strcasecmp(pattern, name) == 0;
  }
  return name_len > suffix_len && strcasecmp(name + name_len - suffix_len, suffix) == 0;
}

// label_fits: "web-*" fits web-1; without the star only the same.
static bool label_fits(const char *pattern, const char *label) {
  const size_t len = strlen(pattern);

  if (pattern[len - 1] != '*') {
    return strcmp(pattern, label) == 0;
  }
  return strncmp(pattern, label, len - 1) == 0;
}

bool key_pattern_fits(const struct key_pattern *pattern, const struct key *key) {
  switch (pattern->kind) {
    case KEY_PATTERN_ALL:
      return true;
    case KEY_PATTERN_SKI:
      return memcmp(pattern->ski, key->ski, sizeof key->ski) == 0;
    case KEY_PATTERN_LABEL:
      return label_fits(pattern->text, key->label);
    case KEY_PATTERN_NAME:
      for (size_t i = 0; i < key->num_names; i++) {
        if (name_fits(pattern->text, key->names[i])) {
          return true;
        }
      }
      return false;
    default:
      return false;
  }
}
