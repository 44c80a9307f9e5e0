// SPDX-License-Identifier: Apache-2.0
#include "ctl/author.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void ctl_author(char out[CTL_AUTHOR_LEN]) {
  const char *behind = getenv("SUDO_USER");
  const struct passwd *user = getpwuid(getuid());
  if (getuid() == 0 && behind != NULL && behind[0] != '\0') {
    (void)snprintf(out, CTL_AUTHOR_LEN, "%.100s (sudo)", behind);
  } else if (user != NULL) {
    (void)snprintf(out, CTL_AUTHOR_LEN, "%.120s", user->pw_name);
  } else {
    (void)snprintf(out, CTL_AUTHOR_LEN, "uid %u", (unsigned)getuid());
  }
}
