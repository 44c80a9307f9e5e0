// SPDX-License-Identifier: Apache-2.0
// key_pattern: how the configuration names keys, in grants and key policies:
//   *              every key
//   ski:HEX        the one key, by its 20-byte key identifier
//   label:NAME     the key of the file NAME.key
//   label:START*   keys whose label begins so
//   name:HOST      keys whose certificate has this dNSName
//   name:*.DOMAIN  keys whose certificate has a dNSName below DOMAIN, at any depth
// The kind is always written out, so that no label can pass for an identifier.
#ifndef DEPUTY_KEYSERVER_KEY_PATTERN_H_
#define DEPUTY_KEYSERVER_KEY_PATTERN_H_

#include <stdbool.h>
#include <stdint.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/wire/frame.h"
#include "keyserver/keystore.h"

enum key_pattern_kind { KEY_PATTERN_ALL, KEY_PATTERN_SKI, KEY_PATTERN_LABEL, KEY_PATTERN_NAME };

struct key_pattern {
  enum key_pattern_kind kind;
  uint8_t ski[FRAME_SKI_LEN];
  const char *text;  // behind the colon; borrowed from the configuration
};

// key_pattern_parse reads one; `text` must live as long as *out. STATUS_CONFIG
// with a sentence that shows the forms.
enum status key_pattern_parse(struct key_pattern *out, const char *text, struct errmsg *err);

bool key_pattern_fits(const struct key_pattern *pattern, const struct key *key);

#endif  // DEPUTY_KEYSERVER_KEY_PATTERN_H_
