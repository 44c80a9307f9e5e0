// SPDX-License-Identifier: Apache-2.0
// Writers are killed at random; afterwards all that they acknowledged is there, nothing
// is half-done, and every record is good. Readers in other processes look meanwhile, and
// never see half a change.
//
// A round: one writer (sometimes two) files chains and switches, and tells through a pipe
// what it was answered; after a random time it gets SIGKILL. DEPUTY_KILL_ROUNDS sets
// how many rounds (default 100; thousands for the heavier campaign). The store lies in
// /dev/shm, if there is one: what a process that is killed has written stays in the page
// cache with any file system, and without waiting for a disk a round has many more
// transactions to be killed in.
#include <dirent.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "tests/unit/certstore/store_fixture.h"

#define DEFAULT_ROUNDS 100
#define NUM_TWINS 8   // names that each change files together
#define NUM_CHAINS 6  // leaves that take turns, each for all twins
#define MAX_WRITERS 2
#define MAX_MICROSECONDS 30000u
#define NUM_READERS 2

static const char *folder;
static struct fixture_chain *chains[NUM_CHAINS];

// What a writer tells: that it is about to file a chain, and what was answered with
// STATUS_OK.
enum what { ABOUT_TO_FILE, FILED, SWITCHED, RESTORED };
struct told {
  uint32_t what;
  uint32_t writer;
  uint64_t value;
};

static uint32_t random_state = 12345;
static uint32_t next_random(void) {
  random_state = random_state * 1664525u + 1013904223u;
  return random_state >> 8;
}

// --- the writer ----------------------------------------------------------------------------

struct filing {
  unsigned chain;
};

static enum status file_chain(struct store_txn *txn, void *arg, struct errmsg *err) {
  const struct filing *filing = arg;
  return store_add(txn,
                   &(struct store_addition){
                       .certs = chains[filing->chain]->certs, .num_certs = 2, .is_replacing = true},
                   err);
}

static void tell(int fd, uint32_t what, uint32_t writer, uint64_t value) {
  const struct told told = {what, writer, value};
  if (write(fd, &told, sizeof(told)) != (ssize_t)sizeof(told)) {
    _exit(3);
  }
}

static void compact(struct store **store, struct errmsg *err) {
  uint64_t num_dropped = 0;
  enum status st = store_compact(store, &num_dropped, err);
  if (st != STATUS_OK && st != STATUS_CLOSED) {
    _exit(4);
  }
}

_Noreturn static void run_writer(int fd, uint32_t writer, uint32_t seed) {
  struct store *store = NULL;
  struct errmsg err = {0};
  random_state = seed;
  for (uint64_t i = 0;; i++) {
    if (store == NULL || store_is_replaced(store)) {
      store_close(store);
      store = NULL;
      // A compaction of the other writer may take the file away just now.
      if (store_open(&store, folder, &(struct store_options){.mode = STORE_CREATE}, &err) !=
          STATUS_OK) {
        continue;
      }
    }
    uint64_t id = 0;
    struct filing filing = {next_random() % NUM_CHAINS};
    const struct store_change change = {.level = STATE_LEVEL_FLEET,
                                        .preferred = (uint8_t)(1 + next_random() % 3),
                                        .dc = STORE_LEAVE,
                                        .reason = bytes_text("kill")};
    tell(fd, ABOUT_TO_FILE, writer, filing.chain);
    enum status st = store_write(store, file_chain, &filing, &err);
    if (st == STATUS_CLOSED) {
      continue;
    }
    if (st != STATUS_OK) {
      (void)fprintf(stderr, "writer: %s\n", err.text);
      _exit(5);
    }
    tell(fd, FILED, writer, filing.chain);
    if (store_apply(store, &id, &change, clock_wall_s(), &err) != STATUS_OK) {
      (void)fprintf(stderr, "writer: %s\n", err.text);
      _exit(6);
    }
    tell(fd, SWITCHED, writer, id);
    if (id > 3 && store_undo(store, id, "kill", clock_wall_s(), &err) == STATUS_OK) {
      tell(fd, RESTORED, writer, id);
    }
    if (next_random() % 8 == 0) {
      compact(&store, &err);
    }
  }
}

// --- the readers ---------------------------------------------------------------------------

// look checks that all twins have the same chain, as every transaction leaves them.
static bool look(struct store_reader *reader) {
  struct store_name first = {0};
  for (unsigned i = 0; i < NUM_TWINS; i++) {
    struct store_name name = {0};
    char host[32];
    (void)snprintf(host, sizeof(host), "t%u.test", i);
    enum status st = store_find(reader, &name, bytes_text(host));
    if (st != STATUS_OK && st != STATUS_NOT_FOUND) {
      (void)fprintf(stderr, "reader: %s: %s\n", host, status_name(st));
      return false;
    }
    if (i == 0) {
      first = name;
    } else if (name.num_slots != first.num_slots ||
               (name.num_slots > 0 && name.slots[0].chain_id != first.slots[0].chain_id)) {
      (void)fprintf(stderr, "reader: half a change: t0 and t%u differ\n", i);
      return false;
    }
  }
  struct store_chain chain;
  return first.num_slots == 0 ||
         store_get_chain(reader, &chain, first.slots[0].chain_id) == STATUS_OK;
}

static volatile sig_atomic_t is_ending;
static void on_term(int signal) {
  (void)signal;
  is_ending = 1;
}

_Noreturn static void run_reader(void) {
  struct store *store = NULL;
  struct store_reader *reader = NULL;
  struct errmsg err = {0};
  uint64_t num_looks = 0;
  (void)signal(SIGTERM, on_term);
  while (!is_ending) {
    if (store == NULL || store_is_replaced(store)) {
      store_reader_free(reader);
      store_close(store);
      reader = NULL;
      store = NULL;
      enum status st =
          store_open(&store, folder, &(struct store_options){.mode = STORE_READ}, &err);
      if (st == STATUS_NOT_FOUND) {
        continue;  // a compaction took the file away between two looks at the folder
      }
      if (st != STATUS_OK || store_reader_new(&reader, store, &err) != STATUS_OK) {
        (void)fprintf(stderr, "reader: %s\n", err.text);
        _exit(7);
      }
    }
    if (store_reader_refresh(reader) != STATUS_OK || !look(reader)) {
      _exit(8);
    }
    num_looks++;
  }
  _exit(num_looks > 0 ? 0 : 9);
}

// --- after a kill --------------------------------------------------------------------------

// What is known for certain after a round.
struct acknowledged {
  uint64_t num;
  uint64_t last_switch;  // the highest id that stands or stood
  int last_chain[MAX_WRITERS];
  int next_chain[MAX_WRITERS];  // what it was about to file
  uint64_t undone[4096];
  size_t num_undone;
};

static void read_told(struct acknowledged *known, int fd) {
  struct told told;
  ssize_t len = 0;
  while ((len = read(fd, &told, sizeof(told))) == (ssize_t)sizeof(told)) {
    known->num += told.what == ABOUT_TO_FILE ? 0 : 1;
    if (told.what == ABOUT_TO_FILE) {
      known->next_chain[told.writer] = (int)told.value;
    } else if (told.what == FILED) {
      known->last_chain[told.writer] = (int)told.value;
    } else if (told.what == SWITCHED) {
      known->last_switch = told.value > known->last_switch ? told.value : known->last_switch;
    } else if (known->num_undone < sizeof(known->undone) / sizeof(known->undone[0])) {
      known->undone[known->num_undone++] = told.value;
    }
  }
  assert_int_equal(len, 0);  // a told is written whole: it is shorter than PIPE_BUF
}

// check_chain: with one writer the chain that was acknowledged last is there, or the one
// that it was about to file, whole. (`reader` has seen already that all twins agree.)
static void check_chain(const struct acknowledged *known, const struct store_reader *reader) {
  struct store_name name;
  struct store_chain chain;
  int last = known->last_chain[0];
  int next = known->next_chain[0];
  if (last < 0) {
    return;
  }
  assert_int_equal(store_find(reader, &name, bytes_text("t0.test")), STATUS_OK);
  assert_int_equal(store_get_chain(reader, &chain, name.slots[0].chain_id), STATUS_OK);
  assert_true(bytes_equal(chain.leaf, chains[last]->certs[0]) ||
              bytes_equal(chain.leaf, chains[next]->certs[0]));
}

static void check_store(const struct acknowledged *known, bool is_alone) {
  struct store_change change;
  struct store_reader *reader = NULL;
  struct errmsg err = {0};
  struct store *store = fixture_open(folder, STORE_WRITE);
  assert_true(fixture_verify(store));
  assert_int_equal(store_reader_new(&reader, store, &err), STATUS_OK);
  assert_true(look(reader));
  if (known->last_switch > 0) {
    assert_int_equal(store_get_change(reader, &change, known->last_switch), STATUS_OK);
  }
  for (size_t i = 0; i < known->num_undone; i++) {
    assert_int_equal(store_get_change(reader, &change, known->undone[i]), STATUS_OK);
    assert_true(change.is_undone);
  }
  if (is_alone) {
    check_chain(known, reader);
  }
  store_reader_free(reader);
  store_close(store);
}

// die_with_parent: a test that fails leaves nobody behind.
static void die_with_parent(void) { (void)prctl(PR_SET_PDEATHSIG, SIGKILL); }

static pid_t start(void (*run)(int fd, uint32_t writer, uint32_t seed), int fd, uint32_t writer) {
  uint32_t seed = next_random();
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    die_with_parent();
    run(fd, writer, seed);
  }
  return child;
}

static void reap_killed(pid_t child) {
  int status = 0;
  assert_int_equal(waitpid(child, &status, 0), child);
  if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
    fail_msg("a writer ended by itself: status 0x%x", (unsigned)status);
  }
}

static uint64_t run_round(unsigned num_writers) {
  static struct acknowledged known;
  int fds[2];
  pid_t writers[MAX_WRITERS];
  known = (struct acknowledged){.last_chain = {-1, -1}, .next_chain = {-1, -1}};
  assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
  assert_true(fcntl(fds[1], F_SETPIPE_SZ, 1 << 20) > 0);
  for (unsigned i = 0; i < num_writers; i++) {
    writers[i] = start(run_writer, fds[1], i);
  }
  assert_int_equal(close(fds[1]), 0);
  // The first rounds are killed while the store is made. This is no wait for readiness.
  const struct timespec life = {.tv_nsec = (long)(next_random() % MAX_MICROSECONDS) * 1000};
  (void)nanosleep(&life, NULL);
  for (unsigned i = 0; i < num_writers; i++) {
    assert_int_equal(kill(writers[i], SIGKILL), 0);
    reap_killed(writers[i]);
  }
  read_told(&known, fds[0]);
  assert_int_equal(close(fds[0]), 0);
  // Whoever is killed while the store is made leaves one that the next one finishes.
  store_close(fixture_open(folder, STORE_CREATE));
  check_store(&known, num_writers == 1);
  return known.num;
}

static char shared_folder[] = "/dev/shm/deputy-kill-XXXXXX";

// choose_folder makes the folder in memory, else below that of certs.h.
static const char *choose_folder(void) {
  static char path[sizeof(shared_folder) + 8];
  if (mkdtemp(shared_folder) == NULL) {
    shared_folder[0] = '\0';
    return fixture_folder();
  }
  (void)snprintf(path, sizeof(path), "%s/store", shared_folder);
  return path;
}

static void remove_folder(void) {
  DIR *dir = shared_folder[0] != '\0' ? opendir(folder) : NULL;
  struct dirent *entry = NULL;
  while (dir != NULL && (entry = readdir(dir)) != NULL) {
    (void)unlinkat(dirfd(dir), entry->d_name, 0);
  }
  if (dir != NULL) {
    (void)closedir(dir);
    (void)rmdir(folder);
    (void)rmdir(shared_folder);
  }
}

static void loses_nothing_and_shows_nothing_half(void **state) {
  (void)state;
  const char *wanted = getenv("DEPUTY_KILL_ROUNDS");
  long rounds = wanted != NULL ? strtol(wanted, NULL, 10) : DEFAULT_ROUNDS;
  pid_t readers[NUM_READERS];
  uint64_t num = 0;
  folder = choose_folder();
  for (unsigned i = 0; i < NUM_CHAINS; i++) {
    chains[i] = fixture_chain(i % 2,
                              &(struct test_cert){.cn = "t",
                                                  .names = "DNS:t0.test,DNS:t1.test,DNS:t2.test,"
                                                           "DNS:t3.test,DNS:t4.test,DNS:t5.test,"
                                                           "DNS:t6.test,DNS:t7.test"},
                              NULL);
  }
  for (long i = 0; i < 5; i++) {
    num += run_round(1);  // without readers: killed while the store is made
  }
  for (unsigned i = 0; i < NUM_READERS; i++) {
    readers[i] = fork();
    assert_true(readers[i] >= 0);
    if (readers[i] == 0) {
      die_with_parent();
      run_reader();
    }
  }
  for (long i = 5; i < rounds; i++) {
    num += run_round(i % 4 == 0 ? 2 : 1);
  }
  for (unsigned i = 0; i < NUM_READERS; i++) {
    int status = 0;
    assert_int_equal(kill(readers[i], SIGTERM), 0);
    assert_int_equal(waitpid(readers[i], &status, 0), readers[i]);
    assert_int_equal(status, 0);
  }
  print_message("%ld rounds, %llu calls acknowledged\n", rounds, (unsigned long long)num);
  assert_true(num > (uint64_t)rounds / 4);
}

static int end(void **state) {
  (void)state;
  remove_folder();
  fixture_cleanup();
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(loses_nothing_and_shows_nothing_half)};
  return cmocka_run_group_tests(tests, fixture_begin, end);
}
