// SPDX-License-Identifier: Apache-2.0
// audit: one line of JSON for each staple replaced, each revocation seen or taken back by
// its CA, and each switch made or withheld, with its reason. Threads: any.
#ifndef DEPUTY_CERTMANAGER_AUDIT_H_
#define DEPUTY_CERTMANAGER_AUDIT_H_

#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/jsonline.h"
#include "common/base/sink.h"
#include "common/wire/store_record.h"

// audit_begin starts a line: time, event, and which chain (NULL: it is in the store no
// more): id, SHA-256 of its leaf, the leaf's first name, key id.
void audit_begin(struct jsonline *line, const char *event, uint64_t chain_id,
                 const struct store_chain *chain);
void audit_time(struct jsonline *line, const char *key, int64_t at_s);  // RFC 3339; 0: left out
// audit_end writes it. What is lost the sink counts.
void audit_end(struct sink *sink, struct jsonline *line);

// audit_reason_name: RFC 5280, section 5.3.1, as "keyCompromise". Static.
const char *audit_reason_name(int reason);

#endif  // DEPUTY_CERTMANAGER_AUDIT_H_
