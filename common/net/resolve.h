// SPDX-License-Identifier: Apache-2.0
// resolve: host names to addresses without blocking a loop (libevent's evdns;
// numeric hosts and /etc/hosts answer at once, still by the callback).
#ifndef DEPUTY_COMMON_NET_RESOLVE_H_
#define DEPUTY_COMMON_NET_RESOLVE_H_

#include "common/net/address.h"
#include "common/net/loop.h"

#define RESOLVE_MAX_ADDRESSES 16

struct resolver;
struct resolve_query;

// resolver_new makes the loop's resolver. It reads the system's resolv.conf.
enum status resolver_new(struct resolver **out, struct loop *loop);
void resolver_free(struct resolver *resolver);  // open queries end without a callback

// resolver_query looks `host` up and calls `fn` once, later, with `num` borrowed
// addresses (port filled in), or with num 0 and STATUS_NOT_FOUND/TIMEOUT.
enum status resolver_query(
    struct resolve_query **out, struct resolver *resolver, const char *host, uint16_t port,
    void (*fn)(void *arg, enum status st, const struct address *addresses, size_t num), void *arg);
// resolve_query_cancel ends a query whose callback has not run; it will not.
void resolve_query_cancel(struct resolve_query *query);

#endif  // DEPUTY_COMMON_NET_RESOLVE_H_
