// SPDX-License-Identifier: Apache-2.0
// resolve: host names to addresses without blocking a loop (libevent's evdns;
// numeric hosts and /etc/hosts answer at once, still by the callback).
#ifndef DEPUTY_COMMON_NET_RESOLVE_H_
#define DEPUTY_COMMON_NET_RESOLVE_H_

#include "common/net/address.h"
#include "common/net/loop.h"

#define RESOLVE_MAX_ADDRESSES 16
#define RESOLVE_LIMIT_MS 10000

struct resolver;
struct resolve_query;

// resolver_new makes the loop's resolver. It reads the system's resolv.conf and
// hosts file, once. STATUS_MEMORY, STATUS_SYSTEM. Without a usable resolv.conf
// it warns and knows what needs no server.
enum status resolver_new(struct resolver **out, struct loop *loop);

// resolver_new_with asks `server` only, and reads no file.
enum status resolver_new_with(struct resolver **out, struct loop *loop,
                              const struct address *server);

// resolver_free ends open queries without a callback. Before loop_free; in a
// callback of the running loop it finishes in the next round.
void resolver_free(struct resolver *resolver);

// resolver_query looks `host` up and calls `fn` once, never before it returns,
// with `num` borrowed addresses (port filled in), or with num 0 and
//   STATUS_NOT_FOUND    there is no such name
//   STATUS_UNAVAILABLE  no server answered, or none could tell, or the name has
//                       no address: evdns does not say which
//   STATUS_TIMEOUT      RESOLVE_LIMIT_MS have passed
// The query lives until its callback begins. STATUS_MEMORY.
enum status resolver_query(
    struct resolve_query **out, struct resolver *resolver, const char *host, uint16_t port,
    void (*fn)(void *arg, enum status st, const struct address *addresses, size_t num), void *arg);

// resolve_query_cancel ends a query whose callback has not begun; it will not.
void resolve_query_cancel(struct resolve_query *query);

#endif  // DEPUTY_COMMON_NET_RESOLVE_H_
