// SPDX-License-Identifier: Apache-2.0
// ticketing: what session tickets are told of the session they hold, and whether
// one may still be used (common/tls/tickets.h has the sealing). A session must not
// outlive what authenticated it: the delegated credential, as far as policy says;
// the chain, while it stands for the name asked for and is not compromised; and a
// resumption does not extend it (delegated-credentials, section 3.3).
#ifndef DEPUTY_PROXY_HANDSHAKE_TICKETING_H_
#define DEPUTY_PROXY_HANDSHAKE_TICKETING_H_

#include "common/tls/tickets.h"

extern const struct ticket_hooks ticketing_hooks;

#endif  // DEPUTY_PROXY_HANDSHAKE_TICKETING_H_
