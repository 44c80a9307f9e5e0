// SPDX-License-Identifier: Apache-2.0
// cert_pool: certificates that many chains have (intermediates), kept once. BoringSSL has
// such pools as well, but a buffer from one of them takes its pool's lock whenever a
// reference is given up, which each handshake does for each certificate that it has
// shown. A buffer from here has a count of references and no lock; the pool's own is
// taken by those who make and free chains.
//
// Threads: any.
#ifndef DEPUTY_COMMON_TLS_CERT_POOL_H_
#define DEPUTY_COMMON_TLS_CERT_POOL_H_

#include <openssl/pool.h>

#include "common/base/bytes.h"

struct cert_pool;

struct cert_pool *cert_pool_new(void);  // NULL: no memory
// cert_pool_free: all that was taken has been given back. NULL allowed.
void cert_pool_free(struct cert_pool *pool);

// cert_pool_take returns a buffer of these bytes, the same for the same bytes, with a
// reference of the caller's, which cert_pool_give takes. Without a pool it is a new one.
// NULL: no memory.
CRYPTO_BUFFER *cert_pool_take(struct cert_pool *pool, struct bytes der);
// cert_pool_give: other references to the buffer stay good. NULL allowed for both.
void cert_pool_give(struct cert_pool *pool, CRYPTO_BUFFER *buffer);

#endif  // DEPUTY_COMMON_TLS_CERT_POOL_H_
