// SPDX-License-Identifier: Apache-2.0
// dc_request: the issuer's API from the asker's side: a batch of requests as JSON,
// and what an answer says, entry by entry (docs/PROTOCOL.dcissuer.md). No I/O.
#ifndef DEPUTY_PROXY_DC_DC_REQUEST_H_
#define DEPUTY_PROXY_DC_DC_REQUEST_H_

#include <jansson.h>
#include <openssl/base.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"

#define DC_REQUEST_PATH "/v1/delegated-credentials"
#define DC_ANSWER_MAX_LEN (8u << 20)  // bytes; a thousand entries need two

// dc_request_entry returns a new entry: who asks for a credential for `key` (P-256)
// under the leaf, and proves to have the key. NULL: no memory, or no such key.
json_t *dc_request_entry(struct bytes leaf_der, const uint8_t leaf_sha256[32], EVP_PKEY *key,
                         int64_t lifetime_s);

// dc_request_body returns new text (free) of a request with these entries (a JSON
// array, stolen). NULL: no memory.
char *dc_request_body(json_t *entries);

// dc_answer_parse reads an answer and returns its list of `num` entries (new
// reference). NULL: it is not one; err says why.
json_t *dc_answer_parse(struct bytes body, size_t num, struct errmsg *err);

// dc_answer_entry gets the credential out of an entry, in new memory (free).
// STATUS_REFUSED: the issuer refuses it, err holds its code and message;
// STATUS_FORMAT: it is neither; STATUS_LIMIT, STATUS_MEMORY.
enum status dc_answer_entry(uint8_t **out, size_t *out_len, const json_t *entry,
                            struct errmsg *err);

// dc_answer_is_firm: the entry is a refusal that the same question would meet again
// (docs/PROTOCOL.dcissuer.md, section 3, "Again?"), here and soon.
bool dc_answer_is_firm(const json_t *entry);

#endif  // DEPUTY_PROXY_DC_DC_REQUEST_H_
