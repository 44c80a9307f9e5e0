// SPDX-License-Identifier: Apache-2.0
// origins: control's side of where bytes go. It makes pools for sites, keeps what is
// known of an origin over reloads, looks host names up again and again, and tries the
// endpoints: those that clients found dead (probes, with growing pauses), and all of
// them where checks are asked for.
//
// Threads: control, but for origins_on_out's posting.
#ifndef DEPUTY_PROXY_ORIGIN_ORIGINS_H_
#define DEPUTY_PROXY_ORIGIN_ORIGINS_H_

#include <jansson.h>

#include "common/base/errmsg.h"
#include "common/base/metrics.h"
#include "proxy/grace.h"
#include "proxy/origin/origin.h"

struct origins;
struct site;
struct worker;

// origins_new makes an empty registry; `loop` NULL: configurations are only to be
// checked. STATUS_MEMORY.
enum status origins_new(struct origins **out, struct loop *loop);

// origins_serve: from here on workers (borrowed) read what pools have.
void origins_serve(struct origins *origins, struct grace *grace, struct worker *const *workers,
                   size_t num_workers);

// origins_pool_init makes a site's pool by `options`, which it borrows. On failure
// it is as if it had not been. STATUS_CONFIG, STATUS_MEMORY.
enum status origins_pool_init(struct origins *origins, struct origin_pool *out,
                              const struct pool_options *options, unsigned index,
                              struct errmsg *err);
// origins_pool_cleanup: no worker can be reading it any more. All-zero allowed.
void origins_pool_cleanup(struct origin_pool *pool);

// origins_set_site: these pools are in force from now on, checks and look-ups are theirs.
void origins_set_site(struct origins *origins, const struct site *site);

// origins_on_out is posted by workers who took an endpoint out of service.
void origins_on_out(void *arg);

// origins_write_metrics and origins_list show the pools of the site in force.
void origins_write_metrics(const struct origins *origins, struct metrics_text *text);
json_t *origins_list(const struct origins *origins);

// origins_free: no pool is left, no connection, and no worker.
void origins_free(struct origins *origins);  // NULL allowed

#endif  // DEPUTY_PROXY_ORIGIN_ORIGINS_H_
