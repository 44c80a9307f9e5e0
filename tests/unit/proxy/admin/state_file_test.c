// SPDX-License-Identifier: Apache-2.0
// The order of things: drafted, written, adopted, answered; whatever the disk does,
// and whenever the process dies. file_replace is wrapped (by the linker), so that a
// test can make the disk fail or hang.
#include "proxy/admin/state_file.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"

#define KEY_1 "0000000100000000000000000000000000000000000000000000000000000000"

// --- a disk that does as it is told ---------------------------------------------------

enum disk { DISK_WORKS, DISK_FAILS, DISK_HANGS };
static _Atomic int disk;
static _Atomic unsigned num_writes;

enum status __real_file_replace(const char *path, struct bytes content, struct errmsg *err);
enum status __wrap_file_replace(const char *path, struct bytes content, struct errmsg *err);

enum status __wrap_file_replace(const char *path, struct bytes content, struct errmsg *err) {
  while (atomic_load(&disk) == DISK_HANGS) {
    (void)usleep(1000);
  }
  atomic_fetch_add(&num_writes, 1);
  if (atomic_load(&disk) == DISK_FAILS) {
    errno = ENOSPC;
    return errmsg_set(err, STATUS_SYSTEM, "%s: cannot be written: %s", path, strerror(errno));
  }
  return __real_file_replace(path, content, err);
}

// --- a loop, states, a file --------------------------------------------------------------

static char folder[64];
static char path[128];
static struct loop *loop;
static struct states *states;
static struct state_file *file;
static struct errmsg err;

// What an edit came to.
struct outcome {
  struct state_edit edit;
  struct state_change change;  // to be made
  bool is_refused_by_make;
  unsigned num_done;
  enum status st;
  bool is_kept;
  char why[ERRMSG_MAX_LEN];
  uint32_t service_when_done;  // of KEY_1: what a worker sees when the answer leaves
  unsigned writes_when_done;
};

static uint32_t service(void) {
  return atomic_load(&states_get(states, STATE_LEVEL_KEY, KEY_1)->service);
}

static void reopen(void) {
  err.text[0] = '\0';
  assert_int_equal(loop_new(&loop), STATUS_OK);
  assert_int_equal(states_new(&states), STATUS_OK);
  if (state_file_open(&file, loop, states, path, &err) != STATUS_OK) {
    fail_msg("%s", err.text);
  }
  state_file_set_limits(file, 200, 300);
}

static void shut(void) {
  atomic_store(&disk, DISK_WORKS);
  state_file_close(file);
  states_free(states);
  loop_free(loop);
  file = NULL;
  states = NULL;
  loop = NULL;
}

static int make_folder(void **state) {
  (void)state;
  (void)snprintf(folder, sizeof(folder), "/tmp/deputy-states-XXXXXX");
  assert_non_null(mkdtemp(folder));
  (void)snprintf(path, sizeof(path), "%s/states.json", folder);
  atomic_store(&disk, DISK_WORKS);
  reopen();
  atomic_store(&num_writes, 0);
  return 0;
}

static int remove_folder(void **state) {
  char command[128];
  (void)state;
  if (file != NULL) {
    shut();
  }
  (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
  return system(command);  // NOLINT(cert-env33-c): a test's own folder
}

static enum status make(void *arg, struct states *draft, struct errmsg *why) {
  struct outcome *outcome = arg;
  if (outcome->is_refused_by_make) {
    return errmsg_set(why, STATUS_REFUSED, "make says no");
  }
  return states_apply(draft, &outcome->change);
}

static void done(void *arg, enum status st, bool is_kept, const struct errmsg *why) {
  struct outcome *outcome = arg;
  outcome->num_done++;
  outcome->st = st;
  outcome->is_kept = is_kept;
  (void)snprintf(outcome->why, sizeof(outcome->why), "%s", why == NULL ? "" : why->text);
  outcome->service_when_done = service();
  outcome->writes_when_done = atomic_load(&num_writes);
}

static void ask(struct outcome *outcome, enum state_service wanted, bool is_forced) {
  *outcome = (struct outcome){.edit = {.make = make, .done = done, .is_forced = is_forced}};
  outcome->edit.arg = outcome;
  outcome->change = (struct state_change){.level = STATE_LEVEL_KEY,
                                          .subject = KEY_1,
                                          .service = wanted,
                                          .preferred = STATE_PREFERRED_LEAVE,
                                          .dc = -1,
                                          .reason = "test"};
  assert_int_equal(state_file_edit(file, &outcome->edit), STATUS_OK);
  assert_int_equal(outcome->num_done, 0);  // never from within the call
}

// --- running the loop until something is so ---------------------------------------------

struct awaited {
  struct timer timer;
  bool (*is_so)(void *arg);
  void *arg;
  int64_t deadline_ms;
};

static void poll_awaited(void *arg) {
  struct awaited *awaited = arg;
  if (awaited->is_so(awaited->arg) || clock_monotonic_ms() > awaited->deadline_ms) {
    loop_stop(loop);
    return;
  }
  timer_arm_ms(&awaited->timer, 1);
}

static void run_until(bool (*is_so)(void *arg), void *arg) {
  struct awaited awaited = {
      .is_so = is_so, .arg = arg, .deadline_ms = clock_monotonic_ms() + 30000};
  assert_int_equal(timer_init(&awaited.timer, loop, poll_awaited, &awaited), STATUS_OK);
  timer_arm_ms(&awaited.timer, 0);
  loop_run(loop);
  timer_cleanup(&awaited.timer);
  assert_true(is_so(arg));
}

static bool is_done(void *arg) { return ((struct outcome *)arg)->num_done > 0; }
static bool is_kept(void *arg) {
  (void)arg;
  return state_file_is_kept(file);
}

static bool has_first_change(void *arg) {
  (void)arg;
  return states_find(states, 1) != NULL;
}

static void finish(struct outcome *outcome) {
  run_until(is_done, outcome);
  assert_int_equal(outcome->num_done, 1);
}

static char *read_text(void) {
  uint8_t *text = NULL;
  size_t len = 0;
  assert_int_equal(file_read(&text, &len, path, STATE_FILE_MAX_LEN, &err), STATUS_OK);
  return (char *)text;
}

// --- a disk that works --------------------------------------------------------------------

static void a_change_is_in_the_file_before_it_is_answered(void **state) {
  (void)state;
  struct outcome outcome;
  ask(&outcome, STATE_OUT_OF_SERVICE, false);
  assert_int_equal(service(), STATE_SILENT);
  finish(&outcome);
  assert_int_equal(outcome.st, STATUS_OK);
  assert_true(outcome.is_kept);
  assert_int_equal(outcome.service_when_done, STATE_OUT_OF_SERVICE);
  assert_int_equal(outcome.writes_when_done, 1);
  assert_true(state_file_is_kept(file));
  char *text = read_text();
  assert_non_null(strstr(text, KEY_1));
  free(text);
  shut();
  reopen();  // as after a restart
  assert_int_equal(service(), STATE_OUT_OF_SERVICE);
}

static void changes_come_into_force_in_the_order_asked(void **state) {
  (void)state;
  struct outcome outcomes[20];
  size_t num = 0;
  for (unsigned i = 0; i < 20; i++) {
    ask(&outcomes[i], i % 2 == 0 ? STATE_OUT_OF_SERVICE : STATE_IN_SERVICE, false);
  }
  finish(&outcomes[19]);
  for (unsigned i = 0; i < 20; i++) {
    assert_int_equal(outcomes[i].num_done, 1);
    assert_int_equal(outcomes[i].change.id, i + 1);
    assert_int_equal(outcomes[i].service_when_done,
                     i % 2 == 0 ? STATE_OUT_OF_SERVICE : STATE_IN_SERVICE);
  }
  (void)states_list(states, &num);
  assert_int_equal(num, 20);
}

static void what_make_refuses_is_not_written(void **state) {
  (void)state;
  struct outcome outcome;
  ask(&outcome, STATE_OUT_OF_SERVICE, true);
  outcome.is_refused_by_make = true;
  finish(&outcome);
  assert_int_equal(outcome.st, STATUS_REFUSED);
  assert_string_equal(outcome.why, "make says no");
  assert_int_equal(atomic_load(&num_writes), 0);
  assert_int_equal(service(), STATE_SILENT);
}

static void too_many_that_wait_are_turned_away(void **state) {
  (void)state;
  static struct outcome outcomes[STATE_FILE_MAX_WAITING + 1];
  for (unsigned i = 0; i < STATE_FILE_MAX_WAITING; i++) {
    ask(&outcomes[i], STATE_OUT_OF_SERVICE, false);
  }
  struct outcome *last = &outcomes[STATE_FILE_MAX_WAITING];
  *last = (struct outcome){.edit = {.make = make, .done = done, .arg = last}};
  assert_int_equal(state_file_edit(file, &last->edit), STATUS_UNAVAILABLE);
  finish(&outcomes[STATE_FILE_MAX_WAITING - 1]);
  assert_int_equal(last->num_done, 0);
}

static void without_a_path_changes_are_in_memory_only(void **state) {
  (void)state;
  struct outcome outcome;
  shut();
  path[0] = '\0';
  reopen();
  ask(&outcome, STATE_OUT_OF_SERVICE, false);
  finish(&outcome);
  assert_int_equal(outcome.st, STATUS_OK);
  assert_false(outcome.is_kept);
  assert_false(state_file_is_kept(file));
  assert_int_equal(service(), STATE_OUT_OF_SERVICE);
}

// --- a disk that fails -----------------------------------------------------------------------

static void a_change_that_cannot_be_written_is_refused(void **state) {
  (void)state;
  struct outcome outcome;
  char *before = read_text();
  atomic_store(&disk, DISK_FAILS);
  ask(&outcome, STATE_OUT_OF_SERVICE, false);
  finish(&outcome);
  assert_int_equal(outcome.st, STATUS_SYSTEM);
  assert_non_null(strstr(outcome.why, "No space left"));
  assert_int_equal(service(), STATE_SILENT);
  char *after = read_text();
  assert_string_equal(before, after);
  free(before);
  free(after);
  // Nothing of it is left behind when the disk works again.
  atomic_store(&disk, DISK_WORKS);
  ask(&outcome, STATE_IN_SERVICE, false);
  finish(&outcome);
  assert_int_equal(outcome.st, STATUS_OK);
  assert_int_equal(outcome.change.id, 1);
}

static void a_forced_change_is_in_force_and_written_later(void **state) {
  (void)state;
  struct outcome outcome;
  atomic_store(&disk, DISK_FAILS);
  ask(&outcome, STATE_OUT_OF_SERVICE, true);
  finish(&outcome);
  assert_int_equal(outcome.st, STATUS_OK);
  assert_false(outcome.is_kept);
  assert_non_null(strstr(outcome.why, "No space left"));
  assert_int_equal(outcome.service_when_done, STATE_OUT_OF_SERVICE);
  assert_false(state_file_is_kept(file));
  atomic_store(&disk, DISK_WORKS);
  run_until(is_kept, NULL);  // by itself
  shut();
  reopen();
  assert_int_equal(service(), STATE_OUT_OF_SERVICE);
}

// --- a disk that hangs ---------------------------------------------------------------------

static void a_hanging_disk_is_said_and_the_change_comes_when_it_answers(void **state) {
  (void)state;
  struct outcome first;
  struct outcome second;
  atomic_store(&disk, DISK_HANGS);
  ask(&first, STATE_OUT_OF_SERVICE, false);
  finish(&first);
  assert_int_equal(first.st, STATUS_TIMEOUT);
  assert_int_equal(service(), STATE_SILENT);
  // Whoever comes meanwhile does not wait.
  ask(&second, STATE_IN_SERVICE, false);
  finish(&second);
  assert_int_equal(second.st, STATUS_UNAVAILABLE);
  atomic_store(&disk, DISK_WORKS);
  run_until(has_first_change, NULL);
  assert_int_equal(service(), STATE_OUT_OF_SERVICE);
  assert_true(state_file_is_kept(file));
  ask(&second, STATE_IN_SERVICE, false);
  finish(&second);
  assert_int_equal(first.num_done, 1);
  assert_int_equal(second.change.id, 2);  // the first one has its id, and stands
  assert_non_null(states_find(states, 1));
  assert_int_equal(service(), STATE_IN_SERVICE);
}

static void force_does_not_wait_for_a_hanging_disk(void **state) {
  (void)state;
  struct outcome first;
  struct outcome second;
  struct outcome third;
  atomic_store(&disk, DISK_HANGS);
  ask(&first, STATE_OUT_OF_SERVICE, true);
  finish(&first);
  assert_int_equal(first.st, STATUS_OK);
  assert_false(first.is_kept);
  assert_int_equal(first.service_when_done, STATE_OUT_OF_SERVICE);
  ask(&second, STATE_IN_SERVICE, true);
  finish(&second);
  assert_int_equal(second.st, STATUS_OK);
  assert_int_equal(service(), STATE_IN_SERVICE);
  atomic_store(&disk, DISK_WORKS);
  run_until(is_kept, NULL);
  ask(&third, STATE_OUT_OF_SERVICE, false);
  finish(&third);
  assert_int_equal(third.change.id, 3);
  shut();
  reopen();
  assert_non_null(states_find(states, 1));
  assert_non_null(states_find(states, 2));
  assert_int_equal(service(), STATE_OUT_OF_SERVICE);
}

static void a_forced_change_takes_along_the_one_that_hangs(void **state) {
  (void)state;
  struct outcome first;
  struct outcome second;
  atomic_store(&disk, DISK_HANGS);
  ask(&first, STATE_OUT_OF_SERVICE, false);
  finish(&first);
  assert_int_equal(first.st, STATUS_TIMEOUT);
  ask(&second, STATE_IN_SERVICE, true);
  finish(&second);
  assert_int_equal(second.st, STATUS_OK);
  assert_int_equal(second.change.id, 2);
  assert_non_null(states_find(states, 1));
  atomic_store(&disk, DISK_WORKS);
  run_until(is_kept, NULL);
  shut();
  reopen();
  assert_int_equal(service(), STATE_IN_SERVICE);
  assert_non_null(states_find(states, 1));
}

// --- start ------------------------------------------------------------------------------------

static void write_file(const char *text) {
  FILE *out = fopen(path, "w");
  assert_non_null(out);
  (void)fputs(text, out);
  (void)fclose(out);
}

static enum status open_again(void) {
  struct state_file *other = NULL;
  struct states *fresh = NULL;
  err.text[0] = '\0';
  assert_int_equal(states_new(&fresh), STATUS_OK);
  enum status st = state_file_open(&other, loop, fresh, path, &err);
  state_file_close(other);
  states_free(fresh);
  return st;
}

static void a_damaged_file_stops_the_start_and_is_left_alone(void **state) {
  (void)state;
  write_file("{\"format\": \"deputy-st");
  assert_int_equal(open_again(), STATUS_FORMAT);
  assert_non_null(strstr(err.text, path));
  assert_non_null(strstr(err.text, "Put back a copy"));
  char *text = read_text();
  assert_string_equal(text, "{\"format\": \"deputy-st");
  free(text);
  write_file("");  // what some file systems leave after a crash
  assert_int_equal(open_again(), STATUS_FORMAT);
}

static void a_path_that_cannot_be_made_stops_the_start(void **state) {
  (void)state;
  (void)snprintf(path, sizeof(path), "%s/none/states.json", folder);
  assert_int_equal(open_again(), STATUS_SYSTEM);
  assert_non_null(strstr(err.text, "no switch would survive"));
  (void)snprintf(path, sizeof(path), "%s", folder);  // a folder, not a file
  assert_int_equal(open_again(), STATUS_SYSTEM);
}

static void what_a_killed_writer_left_is_removed(void **state) {
  (void)state;
  char beside[160];
  char stranger[160];
  (void)snprintf(beside, sizeof(beside), "%s.new.aB3dE6", path);
  (void)snprintf(stranger, sizeof(stranger), "%s.new.backup1", path);
  (void)fclose(fopen(beside, "w"));
  (void)fclose(fopen(stranger, "w"));
  state_file_sweep(path);
  assert_int_equal(open_again(), STATUS_OK);
  assert_int_not_equal(access(beside, F_OK), 0);
  assert_int_equal(access(stranger, F_OK), 0);
  assert_int_equal(access(path, F_OK), 0);
}

// --- kill -9 ----------------------------------------------------------------------------------

// The victim makes changes as fast as it can, and writes one byte for each answer.
static int pipe_out;
static uint32_t random_state = 1;

static uint32_t next_random(void) {  // xorshift: the same run each time
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  random_state ^= random_state << 5;
  return random_state;
}
static struct outcome victim_outcome;

static void victim_next(void *arg);

static void victim_done(void *arg, enum status st, bool kept, const struct errmsg *why) {
  (void)why;
  if (st != STATUS_OK || !kept || write(pipe_out, "x", 1) != 1) {
    _exit(3);
  }
  victim_next(arg);
}

static void victim_next(void *arg) {
  struct outcome *outcome = arg;
  outcome->change = (struct state_change){
      .level = STATE_LEVEL_FLEET, .preferred = 1 + next_random() % 8, .dc = -1, .reason = "victim"};
  outcome->edit = (struct state_edit){.make = make, .done = victim_done, .arg = outcome};
  if (state_file_edit(file, &outcome->edit) != STATUS_OK) {
    _exit(4);
  }
}

static _Noreturn void be_victim(int fd) {
  struct errmsg why = {0};
  pipe_out = fd;
  if (loop_new(&loop) != STATUS_OK || states_new(&states) != STATUS_OK ||
      state_file_open(&file, loop, states, path, &why) != STATUS_OK) {
    (void)fprintf(stderr, "%s\n", why.text);
    _exit(2);
  }
  victim_next(&victim_outcome);
  loop_run(loop);
  _exit(5);
}

static void what_was_answered_survives_kill_9(void **state) {
  (void)state;
  const char *sanitize = getenv("DEPUTY_SANITIZE");
  const unsigned rounds = sanitize != NULL && sanitize[0] != '\0' ? 60 : 300;
  size_t num_answered = 0;
  size_t num = 0;
  shut();
  (void)unlink(path);
  for (unsigned round = 0; round < rounds; round++) {
    int fds[2];
    char answers[4096];
    ssize_t n = 0;
    int status = 0;
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
      (void)close(fds[0]);
      be_victim(fds[1]);
    }
    (void)close(fds[1]);
    // After some answers and a moment more, or at any time from its birth on.
    unsigned wanted = next_random() % 6;
    for (unsigned i = 0; i < wanted; i++) {
      assert_int_equal(read(fds[0], answers, 1), 1);
      num_answered++;
    }
    (void)usleep(next_random() % (wanted == 0 ? 20000 : 2000));
    assert_int_equal(kill(pid, SIGKILL), 0);
    while ((n = read(fds[0], answers, sizeof(answers))) > 0) {
      num_answered += (size_t)n;
    }
    (void)close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    reopen();
    const struct state_change *list = states_list(states, &num);
    // One more may be in the file: written, but not answered yet.
    assert_true(num >= num_answered);
    assert_true(num <= num_answered + 1);
    for (size_t i = 0; i < num; i++) {
      assert_int_equal(list[i].id, i + 1);
      assert_false(list[i].is_undone);
    }
    num_answered = num;
    shut();
  }
  print_message("%u kills, %zu changes\n", rounds, num);
  assert_true(num > rounds / 2);
  reopen();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(a_change_is_in_the_file_before_it_is_answered),
      TEST(changes_come_into_force_in_the_order_asked),
      TEST(what_make_refuses_is_not_written),
      TEST(too_many_that_wait_are_turned_away),
      TEST(without_a_path_changes_are_in_memory_only),
      TEST(a_change_that_cannot_be_written_is_refused),
      TEST(a_forced_change_is_in_force_and_written_later),
      TEST(a_hanging_disk_is_said_and_the_change_comes_when_it_answers),
      TEST(force_does_not_wait_for_a_hanging_disk),
      TEST(a_forced_change_takes_along_the_one_that_hangs),
      TEST(a_damaged_file_stops_the_start_and_is_left_alone),
      TEST(a_path_that_cannot_be_made_stops_the_start),
      TEST(what_a_killed_writer_left_is_removed),
      TEST(what_was_answered_survives_kill_9),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
