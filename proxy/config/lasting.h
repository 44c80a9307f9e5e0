// SPDX-License-Identifier: Apache-2.0
// lasting: the options that count at the start alone, as what they name is open, or given
// up, for the life of the process. A reload leaves them as they were, which an operator
// should know.
#ifndef DEPUTY_PROXY_CONFIG_LASTING_H_
#define DEPUTY_PROXY_CONFIG_LASTING_H_

#include "proxy/config/options.h"

// lasting_compare calls fn(arg, "workers") for each of them that is otherwise in `wanted`.
void lasting_compare(const struct options *now, const struct options *wanted,
                     void (*fn)(void *arg, const char *option), void *arg);

// lasting_keep exchanges them, so that `wanted`, which is about to be in force, has those by
// which the process runs. No thread but control's looks at them.
void lasting_keep(struct options *now, struct options *wanted);

#endif  // DEPUTY_PROXY_CONFIG_LASTING_H_
