// SPDX-License-Identifier: Apache-2.0
// check: --check-config: everything that a start does but sockets and threads.
#ifndef DEPUTY_PROXY_CONTROL_CHECK_H_
#define DEPUTY_PROXY_CONTROL_CHECK_H_

#include "common/base/errmsg.h"
#include "proxy/config/options.h"

// check_config makes what the options (taken) name, and lets go of it. As site_new and
// store_open.
enum status check_config(struct options *options, struct errmsg *err);

#endif  // DEPUTY_PROXY_CONTROL_CHECK_H_
