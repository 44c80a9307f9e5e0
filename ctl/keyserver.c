// SPDX-License-Identifier: Apache-2.0
#include "ctl/keyserver.h"

#include <stdio.h>
#include <string.h>

enum ctl_exit ctl_run_keyserver(const struct ctl_args *args) {
  if (strcmp(args->words[0], "verify-audit") == 0) {
    return ctl_verify_audit(args, args->words + 1, args->num_words - 1);
  }
  if (strcmp(args->words[0], "explain") == 0 && args->num_words == 1) {
    return ctl_explain(args);
  }
  (void)fprintf(stderr, "deputyctl: keyserver %s: neither explain nor verify-audit\n",
                args->words[0]);
  return CTL_USAGE;
}
