// SPDX-License-Identifier: Apache-2.0
// keyserver: what deputyctl does beside a key server, with its files: checks the
// chain of audit files, explains what a configuration allows. It asks no server.
#ifndef DEPUTY_CTL_KEYSERVER_H_
#define DEPUTY_CTL_KEYSERVER_H_

#include <stddef.h>

#include "ctl/ctl.h"

#define CTL_MAX_AUDIT_FILES 10000u

// ctl_verify_audit reads audit files, whatever their order on the command line, and
// says whether their lines are all there and unchanged (common/base/chain.h).
// CTL_DONE, CTL_FAILED: a break; CTL_USAGE: a file cannot be read.
enum ctl_exit ctl_verify_audit(const struct ctl_args *args, char *const *paths, size_t num);

// ctl_explain says whether a key server would allow a request, and why (not).
// CTL_DONE: allowed; CTL_FAILED: refused; CTL_USAGE: the question makes no sense, or
// the configuration cannot be read.
enum ctl_exit ctl_explain(const struct ctl_args *args);

#endif  // DEPUTY_CTL_KEYSERVER_H_
