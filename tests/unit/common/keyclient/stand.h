// SPDX-License-Identifier: Apache-2.0
// stand: a keyclient and key servers that behave, or do not, on one loop; what the tests of
// keyclient share. One test at a time; the variables are theirs to read and set.
#ifndef DEPUTY_TESTS_UNIT_COMMON_KEYCLIENT_STAND_H_
#define DEPUTY_TESTS_UNIT_COMMON_KEYCLIENT_STAND_H_

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/keyclient/internal.h"
#include "common/keyclient/keyclient.h"
#include "common/net/loop.h"
#include "tests/support/fake_keyserver.h"

#define NUM_FAKES 3
#define MAX_ANSWERS 3000

extern struct loop *loop;
extern struct fake_keyserver fakes[NUM_FAKES];
extern struct keyclient *kc;
extern struct keyclient_config config;  // set up anew for each test
extern struct keyclient_server_config servers[NUM_FAKES];
extern uint8_t ski[FRAME_SKI_LEN];  // the key that is asked for
extern struct bytes message;        // what is to be signed

// Answers since forget_answers.
extern struct stand_answers {
  enum status st[MAX_ANSWERS];
  enum frame_error code[MAX_ANSWERS];
  size_t num;
  size_t num_bad_signatures;
} got;

int setup_group(void **state);
int teardown_group(void **state);
int setup(void **state);
int teardown(void **state);

char *path_of(const char *name);  // of a file that setup_group made
void start_fake(int i, enum fake_manner manner);
// start_client uses the first `num` fakes; start_configured what is in config.
void start_client(size_t num);
void start_configured(const struct address *dns);

// run_until runs the loop until the condition holds. A test that waits in vain fails.
void run_until(bool (*is_done)(void));
void run_until_ready(unsigned num);
void run_until_answered(size_t num);

// ask asks for a signature; on_answer keeps what comes in `got`.
uint64_t ask(void);
void on_answer(void *arg, const struct sign_answer *answer);
void forget_answers(void);
void assert_answers(size_t num, enum status st);

#endif  // DEPUTY_TESTS_UNIT_COMMON_KEYCLIENT_STAND_H_
