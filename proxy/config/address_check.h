// SPDX-License-Identifier: Apache-2.0
// address_check: do the places in the configuration where we listen and call make sense?
// Found out when it is read, so that --check-config and a reload say so before anything
// happens.
#ifndef DEPUTY_PROXY_CONFIG_ADDRESS_CHECK_H_
#define DEPUTY_PROXY_CONFIG_ADDRESS_CHECK_H_

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "proxy/config/options.h"

// address_check looks at the addresses of listeners, admin and metrics, and of key servers.
// STATUS_CONFIG with the sentence, which names the option.
enum status address_check(const struct options *options, struct errmsg *err);

#endif  // DEPUTY_PROXY_CONFIG_ADDRESS_CHECK_H_
