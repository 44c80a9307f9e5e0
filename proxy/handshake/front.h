// SPDX-License-Identifier: Apache-2.0
// front: the SSL_CTX that clients meet: TLS 1.2 and 1.3, forward secrecy and
// authenticated encryption only, tickets instead of a session cache, no
// renegotiation, no early data. What a name decides is in select.h.
#ifndef DEPUTY_PROXY_HANDSHAKE_FRONT_H_
#define DEPUTY_PROXY_HANDSHAKE_FRONT_H_

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "proxy/view.h"

// front_context_new makes the SSL_CTX of a view; callbacks find it as argument.
// STATUS_MEMORY, STATUS_CRYPTO.
enum status front_context_new(SSL_CTX **out, struct view *view, struct tickets *tickets,
                              struct errmsg *err);

#endif  // DEPUTY_PROXY_HANDSHAKE_FRONT_H_
