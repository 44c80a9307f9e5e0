// SPDX-License-Identifier: Apache-2.0
// author: who asks for a change, as the record of it names him.
#ifndef DEPUTY_CTL_AUTHOR_H_
#define DEPUTY_CTL_AUTHOR_H_

#define CTL_AUTHOR_LEN 128

// ctl_author writes the user's name, or that of the user behind sudo; "uid N" for one
// that has none.
void ctl_author(char out[CTL_AUTHOR_LEN]);

#endif  // DEPUTY_CTL_AUTHOR_H_
