// SPDX-License-Identifier: Apache-2.0
#include "certmanager/audit.h"

#include "common/base/clock.h"
#include "common/wire/cert_der.h"

void audit_begin(struct jsonline *line, const char *event, uint64_t chain_id,
                 const struct store_chain *chain) {
  struct cert_der leaf;
  char name[CERT_DER_MAX_NAME_LEN + 1];

  jsonline_begin(line);
  jsonline_time(line, "time", clock_wall_us());
  jsonline_cstr(line, "event", event);
  jsonline_int(line, "chain", (int64_t)chain_id);
  if (chain == NULL) {
    return;
  }
  if (cert_der_parse(&leaf, chain->leaf) == STATUS_OK) {
    struct bytes names = leaf.names;
    if (cert_der_next_name(name, &names)) {
      jsonline_cstr(line, "name", name);
    }
  }
  jsonline_hex(line, "leaf_sha256", bytes_of(chain->leaf_sha256, sizeof(chain->leaf_sha256)));
  jsonline_hex(line, "key_id", bytes_of(chain->facts.key_id, sizeof(chain->facts.key_id)));
}

void audit_time(struct jsonline *line, const char *key, int64_t at_s) {
  char text[CLOCK_RFC3339_LEN];
  if (at_s != 0) {
    jsonline_cstr(line, key, clock_format_rfc3339(text, at_s));
  }
}

void audit_end(struct sink *sink, struct jsonline *line) {
  struct bytes text;
  if (jsonline_end(line, &text) == STATUS_OK) {
    enum status st = sink_write(sink, text);
    (void)st;  // counted by the sink
  }
}

const char *audit_reason_name(int reason) {
  static const char *const names[] = {
      [0] = "unspecified",        [1] = "keyCompromise", [2] = "cACompromise",
      [3] = "affiliationChanged", [4] = "superseded",    [5] = "cessationOfOperation",
      [6] = "certificateHold",    [8] = "removeFromCRL", [9] = "privilegeWithdrawn",
      [10] = "aACompromise",
  };
  return reason >= 0 && reason < (int)(sizeof(names) / sizeof(names[0])) && names[reason] != NULL
             ? names[reason]
             : "unknown";
}
