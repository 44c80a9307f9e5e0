// SPDX-License-Identifier: Apache-2.0
// audit: the line that is written for each signature and each refusal: who asked,
// from where, which key, for what, and what came of it. Everything that a peer
// can choose is escaped or hexadecimal, so that no name can forge a line.
#ifndef DEPUTY_KEYSERVER_AUDIT_H_
#define DEPUTY_KEYSERVER_AUDIT_H_

#include <stdint.h>

#include "common/base/jsonline.h"
#include "common/base/sink.h"
#include "common/net/address.h"
#include "common/tls/context.h"
#include "keyserver/request.h"

// Of the SNI that a proxy hands on, at most this much is kept.
#define AUDIT_MAX_SNI_LEN 255u

// The connection's part of a line.
struct audit_subject {
  struct tls_peer client;
  char address[ADDRESS_TEXT_LEN];
};

// audit_write puts one line into `sink`; `line` is scratch. For a refusal of a
// packet that could not be decoded `req` holds nothing but the id.
// STATUS_UNAVAILABLE: the line is lost (and counted by the sink).
enum status audit_write(struct sink *sink, struct jsonline *line,
                        const struct audit_subject *subject, const struct request *req,
                        enum refusal refusal, int64_t wall_us);

// audit_write_key records that a key is in force from now on, or no longer:
// `result` is "key_added" or "key_removed".
enum status audit_write_key(struct sink *sink, struct jsonline *line, const char *result,
                            const struct key *key, int64_t wall_us);

#endif  // DEPUTY_KEYSERVER_AUDIT_H_
