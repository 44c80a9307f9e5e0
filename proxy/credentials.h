// SPDX-License-Identifier: Apache-2.0
// credentials: keeps every chain that may have one supplied with a delegated
// credential (RFC 9345), the backups too: a switch must not wait for an issuer.
// Key made here, never written anywhere; asked for in batches; checked as a client
// would; swapped in while handshakes go on; renewed at half life.
//
//   WANTED --asked--> checked --> swapped into chain->dc --half life--> WANTED
//      ^                 |
//      +-- next issuer, then back-off with jitter; the old one serves meanwhile
//
// No handshake ever waits for any of this: without a credential, or within the
// margin of its end, the certificate's key answers (select.c).
//
// Threads: control. Keys are wiped when the last handshake that uses them ends.
#ifndef DEPUTY_PROXY_CREDENTIALS_H_
#define DEPUTY_PROXY_CREDENTIALS_H_

#include "certstore/ready.h"
#include "common/base/metrics.h"
#include "common/base/status.h"
#include "common/http/http_client.h"
#include "common/net/loop.h"
#include "proxy/grace.h"
#include "proxy/site.h"

struct credentials;

// credentials_new: `grace` says when a credential that was taken out can go.
// STATUS_MEMORY, STATUS_UNAVAILABLE (libcurl).
enum status credentials_new(struct credentials **out, struct loop *loop, struct grace *grace);

// credentials_prepare gives chains of a site that is not in force yet what is
// already here for their leaves. STATUS_MEMORY.
enum status credentials_prepare(struct credentials *credentials, struct site *site);

// credentials_set_site makes `site`, now in force, the one to supply. What is under
// way for chains that it has goes on. STATUS_MEMORY: chains that are new to us stay
// without until the next reload.
enum status credentials_set_site(struct credentials *credentials, struct site *site);

// credentials_change: a name of the store enters the cache, leaves it, or is made anew
// (lookup_on_change). Its chains are supplied while it is there; a chain with the same
// leaf goes on with the credential of the earlier one. Without memory a chain stays
// without.
void credentials_change(struct credentials *credentials, struct ready *in, struct ready *out);

// credentials_hurry ends back-offs of chains without a credential.
void credentials_hurry(struct credentials *credentials);

// credentials_why tells why the chain has none: a static phrase, or NULL.
const char *credentials_why(const struct credentials *credentials, const struct chain *chain);

// credentials_num_missing counts the chains that are to have a credential and have none.
size_t credentials_num_missing(const struct credentials *credentials);

void credentials_write_metrics(const struct credentials *credentials, struct metrics_text *text);

// credentials_free: no call under way is answered.
void credentials_free(struct credentials *credentials);

#endif  // DEPUTY_PROXY_CREDENTIALS_H_
