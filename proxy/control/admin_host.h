// SPDX-License-Identifier: Apache-2.0
// admin_host: what the admin API (proxy/admin/admin.h) asks of the proxy, and who answers
// it.
#ifndef DEPUTY_PROXY_CONTROL_ADMIN_HOST_H_
#define DEPUTY_PROXY_CONTROL_ADMIN_HOST_H_

#include "proxy/admin/admin.h"

struct control;

// admin_host_of borrows the control, whose parts have been made.
struct admin_host admin_host_of(struct control *control);

#endif  // DEPUTY_PROXY_CONTROL_ADMIN_HOST_H_
