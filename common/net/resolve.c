// SPDX-License-Identifier: Apache-2.0
// A request that evdns works on cannot be taken back safely: it may be between
// its answer and its callback. So a query that nobody wants any more is only
// marked, and freed when evdns is done with it.
#include "common/net/resolve.h"

#include <event2/dns.h>
#include <event2/event.h>
#include <event2/util.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"

// One server that does not answer must leave time for another one.
#define SERVER_TIMEOUT_S "2"
#define SERVER_ATTEMPTS "2"

struct resolver {
  struct loop *loop;
  struct evdns_base *dns;         // NULL: not started
  struct resolve_query *queries;  // whose callback has not run
};

struct resolve_query {
  struct resolver *resolver;
  struct resolve_query *next;
  struct resolve_query **link;  // what points here
  void (*fn)(void *arg, enum status st, const struct address *addresses, size_t num);
  void *arg;
  struct timer timer;  // the limit, or the next round for an answer that is there
  bool is_asked;       // evdns will call on_answer
  bool is_wanted;
  bool is_answered;
  uint16_t port;
  enum status st;
  size_t num;
  struct address addresses[RESOLVE_MAX_ADDRESSES];
};

// --- resolvers ---------------------------------------------------------------

static enum status set_options(struct evdns_base *dns) {
  return evdns_base_set_option(dns, "timeout:", SERVER_TIMEOUT_S) == 0 &&
                 evdns_base_set_option(dns, "attempts:", SERVER_ATTEMPTS) == 0
             ? STATUS_OK
             : STATUS_MEMORY;
}

// evdns, and with it libevent, is started for the first host that is not numeric:
// most loops never see one, and are cheaper without (loop_base).
static enum status start_dns(struct resolver *resolver, const struct address *server) {
  enum status st = STATUS_OK;
  resolver->dns = evdns_base_new(loop_base(resolver->loop), 0);
  if (resolver->dns == NULL) {
    return STATUS_MEMORY;
  }
  if (server != NULL) {
    if (evdns_base_nameserver_sockaddr_add(resolver->dns, (const struct sockaddr *)&server->storage,
                                           server->len, 0) != 0) {
      st = STATUS_SYSTEM;
      goto out;
    }
  } else if (evdns_base_resolv_conf_parse(resolver->dns, DNS_OPTIONS_ALL, "/etc/resolv.conf") !=
             0) {
    // No reason to stop: numeric addresses and /etc/hosts still work.
    log_warn(0, "resolver_incomplete", "file=/etc/resolv.conf");
  }
  TRY(set_options(resolver->dns));

out:
  if (st != STATUS_OK) {
    evdns_base_free(resolver->dns, 0);
    resolver->dns = NULL;
  }
  return st;
}

enum status resolver_new_with(struct resolver **out, struct loop *loop,
                              const struct address *server) {
  enum status st = resolver_new(out, loop);
  if (st != STATUS_OK) {
    return st;
  }
  st = start_dns(*out, server);
  if (st != STATUS_OK) {
    resolver_free(*out);
    *out = NULL;
  }
  return st;
}

enum status resolver_new(struct resolver **out, struct loop *loop) {
  struct resolver *resolver = calloc(1, sizeof(*resolver));
  *out = resolver;
  if (resolver == NULL) {
    return STATUS_MEMORY;
  }
  resolver->loop = loop;
  return STATUS_OK;
}

// --- queries -----------------------------------------------------------------

static void link_query(struct resolver *resolver, struct resolve_query *query) {
  query->next = resolver->queries;
  query->link = &resolver->queries;
  if (query->next != NULL) {
    query->next->link = &query->next;
  }
  resolver->queries = query;
}

// Leaves the memory to evdns if that still points to it.
static void forget(struct resolve_query *query) {
  *query->link = query->next;
  if (query->next != NULL) {
    query->next->link = query->link;
  }
  timer_cleanup(&query->timer);
  query->is_wanted = false;
  if (!query->is_asked) {
    free(query);
  }
}

// The query leaves the list before the callback, which may free the resolver.
static void deliver(struct resolve_query *query) {
  void (*fn)(void *arg, enum status st, const struct address *addresses, size_t num) = query->fn;
  void *arg = query->arg;
  enum status st = query->st;
  size_t num = query->num;
  struct address addresses[RESOLVE_MAX_ADDRESSES];

  memcpy(addresses, query->addresses, num * sizeof(addresses[0]));
  forget(query);
  fn(arg, st, addresses, num);
}

static void on_timer(void *arg) {
  struct resolve_query *query = arg;
  if (!query->is_answered) {
    query->st = STATUS_TIMEOUT;
  }
  deliver(query);
}

static enum status status_of_answer(int result) {
  switch (result) {
    case 0:
      return STATUS_OK;
    case EVUTIL_EAI_NONAME:
      return STATUS_NOT_FOUND;
    case EVUTIL_EAI_MEMORY:
      return STATUS_MEMORY;
    default:
      return STATUS_UNAVAILABLE;
  }
}

static void add_address(struct resolve_query *query, const struct evutil_addrinfo *info) {
  struct address *address = &query->addresses[query->num];
  bool is_ours = (info->ai_family == AF_INET && info->ai_addrlen == sizeof(struct sockaddr_in)) ||
                 (info->ai_family == AF_INET6 && info->ai_addrlen == sizeof(struct sockaddr_in6));
  if (!is_ours || query->num == RESOLVE_MAX_ADDRESSES) {
    return;
  }
  *address = (struct address){.len = (socklen_t)info->ai_addrlen};
  memcpy(&address->storage, info->ai_addr, info->ai_addrlen);
  address_set_port(address, query->port);
  query->num += 1;
}

static void on_answer(int result, struct evutil_addrinfo *infos, void *arg) {
  struct resolve_query *query = arg;
  query->is_asked = false;
  if (!query->is_wanted) {
    free(query);
    goto out;
  }
  query->is_answered = true;
  query->st = status_of_answer(result);
  for (const struct evutil_addrinfo *info = infos; info != NULL; info = info->ai_next) {
    add_address(query, info);
  }
  if (query->st == STATUS_OK && query->num == 0) {
    query->st = STATUS_NOT_FOUND;
  }
  // By the timer, since evdns may call before resolver_query has returned.
  timer_arm_ms(&query->timer, 0);

out:
  if (infos != NULL) {
    evutil_freeaddrinfo(infos);
  }
}

static void ask(struct resolve_query *query, const char *host) {
  const struct evutil_addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  if (query->resolver->dns == NULL && start_dns(query->resolver, NULL) != STATUS_OK) {
    query->is_answered = true;
    query->st = STATUS_MEMORY;
    timer_arm_ms(&query->timer, 0);
    return;
  }
  // Armed first: an answer at once replaces it.
  timer_arm_ms(&query->timer, RESOLVE_LIMIT_MS);
  query->is_asked = true;
  (void)evdns_getaddrinfo(query->resolver->dns, host, NULL, &hints, on_answer, query);
}

enum status resolver_query(
    struct resolve_query **out, struct resolver *resolver, const char *host, uint16_t port,
    void (*fn)(void *arg, enum status st, const struct address *addresses, size_t num), void *arg) {
  struct resolve_query *query = calloc(1, sizeof(*query));

  *out = NULL;
  if (query == NULL || timer_init(&query->timer, resolver->loop, on_timer, query) != STATUS_OK) {
    free(query);
    return STATUS_MEMORY;
  }
  query->resolver = resolver;
  query->fn = fn;
  query->arg = arg;
  query->port = port;
  query->is_wanted = true;
  link_query(resolver, query);
  if (address_from_host(&query->addresses[0], host, port) == STATUS_OK) {
    query->num = 1;
    query->is_answered = true;
    timer_arm_ms(&query->timer, 0);
  } else {
    ask(query, host);
  }
  *out = query;
  return STATUS_OK;
}

void resolve_query_cancel(struct resolve_query *query) {
  if (query != NULL) {
    forget(query);
  }
}

// --- the end -----------------------------------------------------------------

static void free_dns(void *arg) {
  // Open requests end with a callback each, in the next round or in loop_free.
  evdns_base_free(arg, 1);
}

void resolver_free(struct resolver *resolver) {
  if (resolver == NULL) {
    return;
  }
  while (resolver->queries != NULL) {
    forget(resolver->queries);
  }
  if (resolver->dns != NULL && loop_is_running(resolver->loop)) {
    // An answer may wait for its callback in this very round, and needs the base.
    loop_post(resolver->loop, free_dns, resolver->dns);
  } else if (resolver->dns != NULL) {
    free_dns(resolver->dns);
  }
  free(resolver);
}
