// SPDX-License-Identifier: Apache-2.0
// audit: the line that is written for each credential and each refusal: who asked,
// from where, for which certificate and key, until when, and what came of it.
// Everything that a peer can choose is escaped or hexadecimal.
#ifndef DEPUTY_DCISSUER_AUDIT_H_
#define DEPUTY_DCISSUER_AUDIT_H_

#include <stdint.h>

#include "common/base/sink.h"
#include "common/net/address.h"
#include "common/tls/context.h"
#include "dcissuer/issue.h"

#define AUDIT_MAX_HOSTS_LEN 1500u  // of a certificate's names, as much as fits a line well

// The client's part of a line.
struct audit_subject {
  struct tls_peer client;
  char address[ADDRESS_TEXT_LEN];
};

// audit_write puts the line of one entry into `sink`. STATUS_UNAVAILABLE: it is lost.
enum status audit_write(struct sink *sink, const struct audit_subject *subject,
                        const struct issue *issue, int64_t wall_us);

// audit_write_request does so for a request that is refused as a whole.
enum status audit_write_request(struct sink *sink, const struct audit_subject *subject,
                                const char *reason, int64_t wall_us);

#endif  // DEPUTY_DCISSUER_AUDIT_H_
