// SPDX-License-Identifier: Apache-2.0
// tls_policy: how TLS is spoken to the clients of a name: versions, groups, and whether
// they show certificates. Prepared with the site and immutable; names that want the same
// share one. Most want what "tls" says: that is in the SSL_CTX already, and costs a
// handshake nothing.
//
// A handshake meets it twice. With the ClientHello (tls_policy_begin) the library chooses
// version and, a moment later, group; with the certificate callback (tls_policy_finish),
// when the name is certain, comes the rest.
#ifndef DEPUTY_PROXY_HANDSHAKE_TLS_POLICY_H_
#define DEPUTY_PROXY_HANDSHAKE_TLS_POLICY_H_

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/tls/client_auth.h"
#include "common/tls/groups.h"
#include "proxy/config/tls_options.h"

#define TLS_POLICY_CONTEXT_LEN 32  // SSL_MAX_SID_CTX_LENGTH

struct tls_policy {
  uint16_t min_version;  // TLS1_2_VERSION
  uint16_t max_version;
  struct tls_groups groups;
  const struct client_auth *clients;  // NULL: no certificate is asked for
  bool is_required;
  bool is_base;  // versions and groups are those of the SSL_CTX
  // Sessions are resumed only under the same one: whom it lets in, and how strictly.
  uint8_t session_context[TLS_POLICY_CONTEXT_LEN];
  struct tls_policy *next;
};

struct tls_policies {
  struct tls_policy base;  // what "tls" says
  struct tls_policy *more;
  struct loaded_clients *loaded;  // each set of CAs and lists once
  const struct tls_options *options;
};

// tls_policies_init reads what "tls" says; options are borrowed for as long as the
// policies live. As client_auth_new, tls_groups_parse.
enum status tls_policies_init(struct tls_policies *out, const struct tls_options *options,
                              struct errmsg *err);
// tls_policies_add finds or makes the policy of a name; the policies own it.
enum status tls_policies_add(const struct tls_policy **out, struct tls_policies *policies,
                             const struct name_tls_options *name, struct errmsg *err);
void tls_policies_cleanup(struct tls_policies *policies);

// tls_policies_differ: are there names whose handshakes need tls_policy_begin?
static inline bool tls_policies_differ(const struct tls_policies *policies) {
  return policies->more != NULL;
}

// tls_policy_set_default makes a context that of the policy, as far as tls_policy_begin
// would. STATUS_MEMORY.
enum status tls_policy_set_default(SSL_CTX *ctx, const struct tls_policy *policy);

// tls_policy_begin: in the callback of the ClientHello. STATUS_MEMORY.
enum status tls_policy_begin(SSL *ssl, const struct tls_policy *policy);

// tls_policy_finish: in the certificate callback. `verify` as of client_auth_ask.
//   STATUS_REFUSED  the version that was chosen under another policy is not of this one
//   STATUS_MEMORY
enum status tls_policy_finish(SSL *ssl, const struct tls_policy *policy,
                              enum ssl_verify_result_t (*verify)(SSL *ssl, uint8_t *out_alert));

#endif  // DEPUTY_PROXY_HANDSHAKE_TLS_POLICY_H_
