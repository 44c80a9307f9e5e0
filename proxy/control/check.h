// SPDX-License-Identifier: Apache-2.0
// check: --check-config: everything that a start does but sockets and threads.
#ifndef DEPUTY_PROXY_CONTROL_CHECK_H_
#define DEPUTY_PROXY_CONTROL_CHECK_H_

#include "common/base/errmsg.h"
#include "proxy/config/options.h"

// check_config makes what the options (taken) name, and lets go of it. STATUS_CONFIG, whatever
// is wrong, so that the program ends with 2. What may yet be made by whoever starts the
// proxy, a folder, is a hint on standard error.
enum status check_config(struct options *options, struct errmsg *err);

#endif  // DEPUTY_PROXY_CONTROL_CHECK_H_
