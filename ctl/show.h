// SPDX-License-Identifier: Apache-2.0
// show: the proxy's answers, for people. What an answer lacks is shown as "-": a
// proxy may be older or newer than this program.
#ifndef DEPUTY_CTL_SHOW_H_
#define DEPUTY_CTL_SHOW_H_

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"

#define SHOW_ID_DIGITS 12  // of a key's or CA's id in tables; the API takes 8 or more
#define SHOW_LEFT_LEN 24

void show_status(FILE *file, const json_t *answer);
void show_names(FILE *file, const json_t *names, const char *now);
void show_name(FILE *file, const json_t *name, const char *now);
void show_chains(FILE *file, const json_t *chains, const char *now);
void show_switches(FILE *file, const json_t *switches);
void show_drill(FILE *file, const json_t *answer);
// show_change tells what a switch, restore or dc has done. Warnings go to `warn`.
void show_change(FILE *file, FILE *warn, const json_t *answer);

// show_time reads RFC 3339 in UTC, as the API writes it. STATUS_FORMAT.
enum status show_time(int64_t *out_s, const char *text);

// show_until reads --until: a time to come, or how long from `now_s` ("90m", "36h", "7d").
// STATUS_CONFIG.
enum status show_until(int64_t *out_s, const char *text, int64_t now_s, struct errmsg *err);

// show_left writes how long it is from `now` to `end` (both as the API writes them):
// "61d", "26h", "45m", "50s", "ended 3d ago"; "-" when there is no end.
char *show_left(char out[SHOW_LEFT_LEN], const char *end, const char *now);

#endif  // DEPUTY_CTL_SHOW_H_
