// SPDX-License-Identifier: Apache-2.0
// What the files of origins.h share: the registry, and one endpoint's checks.
#ifndef DEPUTY_PROXY_ORIGIN_ORIGINS_INTERNAL_H_
#define DEPUTY_PROXY_ORIGIN_ORIGINS_INTERNAL_H_

#include "common/net/resolve.h"
#include "proxy/origin/origins.h"

struct origins {
  struct loop *loop;  // NULL: nothing is served
  struct grace *grace;
  struct worker *const *workers;
  size_t num_workers;
  struct resolver *resolver;  // made when the first name is to be looked up
  struct origin *all;
  struct origin_pool *pools;  // of all sites
  struct endpoint *leaving;   // gone, but connections may still count in them
  struct timer sweep;         // looks at those
  uint32_t last_id;
};

// origins_spread_ms takes or adds up to a tenth, by whose it is: not all at once.
int64_t origins_spread_ms(int64_t ms, uint32_t id);

// origins_check_plan sees to it that an endpoint is tried when it should be, after a
// change of its state or of the settings.
void origins_check_plan(struct endpoint *endpoint);
// origins_check_on_timer is what an endpoint's timer calls.
void origins_check_on_timer(void *arg);
// origins_check_stop ends what is under way.
void origins_check_stop(struct endpoint *endpoint);

#endif  // DEPUTY_PROXY_ORIGIN_ORIGINS_INTERNAL_H_
