// SPDX-License-Identifier: Apache-2.0
// nss_client: one TLS 1.3 connection by NSS, the library of Firefox, with all its
// checks: chain, name, delegated credential, CertificateVerify. Blocking, one
// thread per connection; far too heavy to load a server, right for what a visitor
// sees. Used by nss.c. No header of NSS is needed to include this one.
#ifndef DEPUTY_BENCH_NSS_CLIENT_H_
#define DEPUTY_BENCH_NSS_CLIENT_H_

#include <stdbool.h>
#include <stdint.h>

#include "bench/recorder.h"
#include "common/base/bytes.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/net/address.h"

#define NSS_REASON_LEN 64
#define NSS_TOKEN_MAX_LEN 16384U

struct nss_client_options {
  struct address target;
  const char *server_name;  // SNI, and the name that is verified
  const char *ca_path;      // PEM file of trusted CAs; NULL: any chain will do
  bool offers_dc;
  int64_t timeout_ms;
  const char *request;  // HTTP/1.1, for num_requests
  int64_t num_requests;
};

// A session to resume.
struct nss_token {
  uint8_t data[NSS_TOKEN_MAX_LEN];
  size_t len;  // 0: none
};

// nss_client_init starts NSS, without any database on disk, and trusts the CAs of
// ca_path. Once, before threads. STATUS_SYSTEM, STATUS_FORMAT (a CA file),
// STATUS_UNAVAILABLE (NSS does not start).
enum status nss_client_init(const char *ca_path, struct errmsg *err);
void nss_client_shutdown(void);
const char *nss_client_version(void);  // of the library, at run time

// nss_client_run makes one connection and fills in the sample: times, facts, counts.
// s->failure points into `reason` after a failure. `resume` may be NULL; with
// `out_token`, the first session that the server gives is put there, waited for
// until a second has passed. s->issuer points into `issuer`. `request_latency` (may
// be NULL) takes the time of each request. Threads: any number at once.
void nss_client_run(struct sample *s, char reason[NSS_REASON_LEN], char issuer[128],
                    const struct nss_client_options *options, const struct nss_token *resume,
                    struct nss_token *out_token, struct hdr *request_latency);

#endif  // DEPUTY_BENCH_NSS_CLIENT_H_
