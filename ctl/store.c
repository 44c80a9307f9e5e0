// SPDX-License-Identifier: Apache-2.0
#include "ctl/store.h"

#include <getopt.h>
#include <idn2.h>
#include <inttypes.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "ctl/flags.h"
#include "ctl/grid.h"

#define SHOW_EVERY_US 100000
#define NOWHERE FLAGS_NOWHERE

// Options, as bits of what a subcommand takes.
enum {
  OPT_LEVEL = 1 << 0,
  OPT_NAME = 1 << 1,
  OPT_KEY = 1 << 2,
  OPT_CA = 1 << 3,
  OPT_FLEET = 1 << 4,
  OPT_TO = 1 << 5,
  OPT_REASON = 1 << 6,
  OPT_UNTIL = 1 << 7,
  OPT_COMPROMISED = 1 << 8,
  OPT_IN_SERVICE = 1 << 9,
  OPT_FORCE = 1 << 10,
  OPT_STANDING = 1 << 11,
  OPT_SKIP_BAD = 1 << 12,
  OPT_REPLACE = 1 << 13,
  OPT_DEEP = 1 << 14,
  OPT_KEEP = 1 << 15,
  OPT_OLDER = 1 << 16,
};
#define OPT_SUBJECTS (OPT_NAME | OPT_KEY | OPT_CA | OPT_FLEET)

static const struct flags_row rows[] = {
    {"level", OPT_LEVEL, offsetof(struct store_args, level), NOWHERE, "LEVEL",
     "primary (the default), backup, spare2 ... spare7"},
    {"name", OPT_NAME, offsetof(struct store_args, name), NOWHERE, "NAME",
     "the name NAME; import: for this name only"},
    {"key", OPT_KEY, offsetof(struct store_args, key), NOWHERE, "ID",
     "the key whose id begins with these 8 or more hex digits"},
    {"ca", OPT_CA, offsetof(struct store_args, ca), NOWHERE, "CA",
     "the CA in this file; or whose id, or SHA-256 of its key, begins so; or of this name"},
    {"fleet", OPT_FLEET, NOWHERE, offsetof(struct store_args, is_fleet), NULL, "all names"},
    {"to", OPT_TO, offsetof(struct store_args, to), NOWHERE, "LEVEL",
     "the level of chains to go to (names, fleet)"},
    {"reason", OPT_REASON, offsetof(struct store_args, reason), NOWHERE, "TEXT",
     "why, for the log"},
    {"until", OPT_UNTIL, offsetof(struct store_args, until), NOWHERE, "TIME",
     "when it ends by itself: 2026-11-30T12:00:00Z, or 90m, 36h, 7d from now"},
    {"compromised", OPT_COMPROMISED, NOWHERE, offsetof(struct store_args, is_compromised), NULL,
     "it leaked: sessions it authenticated are not resumed (keys, CAs)"},
    {"in-service", OPT_IN_SERVICE, NOWHERE, offsetof(struct store_args, is_in_service), NULL,
     "keep it in service, a key even if its CA goes out (keys, CAs)"},
    {"force", OPT_FORCE, NOWHERE, offsetof(struct store_args, is_forced), NULL,
     "even if names are left with nothing usable"},
    {"standing", OPT_STANDING, NOWHERE, offsetof(struct store_args, is_standing), NULL,
     "only what still stands"},
    {"skip-bad", OPT_SKIP_BAD, NOWHERE, offsetof(struct store_args, is_skipping_bad), NULL,
     "leave bad files and chains out instead of importing nothing at all"},
    {"replace", OPT_REPLACE, NOWHERE, offsetof(struct store_args, is_replacing), NULL,
     "file chains even where one that begins later is"},
    {"deep", OPT_DEEP, NOWHERE, offsetof(struct store_args, is_deep), NULL,
     "also verify the signature on each leaf"},
    {"keep", OPT_KEEP, offsetof(struct store_args, keep), NOWHERE, "NUMBER",
     "how many changes the log may have (default 10000; 0: any number)"},
    {"older-than", OPT_OLDER, offsetof(struct store_args, older_than), NOWHERE, "DAYS",
     "forget also those that were made so long ago"},
    {"store", 0, offsetof(struct store_args, folder), NOWHERE, "DIR",
     "the store (else $" STORE_VARIABLE ", else " STORE_DEFAULT_FOLDER ")"},
    {"json", 0, NOWHERE, offsetof(struct store_args, is_json), NULL, "print JSON"},
    {"quiet", 0, NOWHERE, offsetof(struct store_args, is_quiet), NULL, "no progress line"},
    {"help", 0, NOWHERE, offsetof(struct store_args, is_help), NULL, "print this"},
};
static const struct flags_table table = {rows, sizeof(rows) / sizeof(rows[0])};

static enum ctl_exit run_stats(const struct store_args *args);
static enum ctl_exit run_verify(const struct store_args *args);
static enum ctl_exit run_compact(const struct store_args *args);

static const struct command {
  const char *name;
  const char *words;
  unsigned takes;
  size_t min_words;
  size_t max_words;
  enum ctl_exit (*run)(const struct store_args *args);
  const char *summary;
  const char *help;
} commands[] = {
    {"import", "DIR|FILE...", OPT_LEVEL | OPT_NAME | OPT_SKIP_BAD | OPT_REPLACE, 1, SIZE_MAX,
     store_run_import, "file the chains in folders and files of PEM or DER",
     "Knows the folders of certbot, acme.sh, hitch and haproxy. A chain goes to all names of\n"
     "its leaf. Private keys in the files are passed over and never kept. All or nothing:\n"
     "the first bad file stops it and the store is as it was, unless --skip-bad."},
    {"export", "DIR", OPT_LEVEL | OPT_NAME, 1, 1, store_run_export,
     "write the chains as PEM: DIR/LEVEL/live/NAME/fullchain.pem", ""},
    {"find", "NAME", 0, 1, 1, store_run_find, "the chains of a name, and which one serves", ""},
    {"remove", "NAME...", 0, 1, SIZE_MAX, store_run_remove, "forget names", ""},
    {"stats", "", 0, 0, 0, run_stats, "how many of what, and how long the files are", ""},
    {"verify", "", OPT_DEEP, 0, 0, run_verify, "check every record against all others",
     "Exits with 1 if there is a fault."},
    {"compact", "", 0, 0, 0, run_compact, "leave out what nobody needs",
     "Writes a new file beside the old one and takes its place. Running readers go on in the\n"
     "old one until they open the store anew, which they do by themselves."},
    {"drill", "", OPT_SUBJECTS, 0, 0, store_run_drill,
     "what would happen if a CA, key or name's chain died; changes nothing",
     "Exits with 0 when every name under it has a usable backup, else with 3."},
    {"switch", "",
     OPT_SUBJECTS | OPT_TO | OPT_REASON | OPT_UNTIL | OPT_COMPROMISED | OPT_IN_SERVICE | OPT_FORCE,
     0, 0, store_run_switch, "move a name to another level, or take a key or CA out of service",
     "One write, whatever the number of names. Refused when names would be left with nothing\n"
     "usable, unless --force."},
    {"restore", "[ID]", OPT_SUBJECTS | OPT_REASON, 0, 1, store_run_restore,
     "take a switch back, or all that stand for a subject", ""},
    {"switches", "", OPT_STANDING, 0, 0, store_run_switches,
     "what was switched, when, why and by whom", ""},
    {"cas", "", 0, 0, 0, store_run_cas, "the CAs that issued the leaves here", ""},
    {"trim-log", "", OPT_KEEP | OPT_OLDER, 0, 0, store_run_trim_log,
     "forget switches that stand no longer",
     "Those that stand are never forgotten. A running proxy does the same by itself after each\n"
     "of its switches (store.log in its configuration)."},
    {"import-states", "FILE", 0, 1, 1, store_run_import_states,
     "take over the switches that a proxy has kept in its file of states",
     "Once: refused when this store has switches already. All or nothing."},
};
#define NUM_COMMANDS (sizeof(commands) / sizeof(commands[0]))

// --- help ----------------------------------------------------------------------------

static void print_help(const struct command *command) {
  if (command != NULL) {
    (void)printf("usage: deputyctl store %s %s [OPTIONS]\n\n%s\n", command->name, command->words,
                 command->summary);
    if (command->help[0] != '\0') {
      (void)printf("\n%s\n", command->help);
    }
    flags_print_help(&table, command->takes);
    return;
  }
  (void)printf(
      "usage: deputyctl store COMMAND [OPTIONS]\n\n"
      "Works on a certificate store on disk; asks no proxy.\n\ncommands:\n");
  for (size_t i = 0; i < NUM_COMMANDS; i++) {
    (void)printf("  %-8s  %s\n", commands[i].name, commands[i].summary);
  }
  flags_print_help(&table, 0);
  (void)printf("\n`deputyctl store COMMAND --help` says more about a command.\n");
}

// --- the command line ------------------------------------------------------------------

static const struct command *find_command(const char *name) {
  for (size_t i = 0; i < NUM_COMMANDS; i++) {
    if (strcmp(commands[i].name, name) == 0) {
      return &commands[i];
    }
  }
  return NULL;
}

static enum status check(const struct store_args *args, unsigned given,
                         const struct command *command, struct errmsg *err) {
  char names[128];
  unsigned extra = given & ~command->takes;
  if (extra != 0) {
    return errmsg_set(err, STATUS_CONFIG, "store %s does not take %s", command->name,
                      flags_names(names, sizeof(names), &table, extra & (0U - extra), ""));
  }
  if (args->num_words < command->min_words || args->num_words > command->max_words) {
    return errmsg_set(err, STATUS_CONFIG, "usage: deputyctl store %s %s", command->name,
                      command->words[0] != '\0' ? command->words : "(no further words)");
  }
  return STATUS_OK;
}

static enum status parse(struct store_args *out, const struct command **out_command, int argc,
                         char **argv, struct errmsg *err) {
  enum status st = STATUS_OK;
  unsigned given = 0;
  TRY(flags_read(out, &given, &table, argc, argv, err));
  if (out->folder == NULL) {
    const char *named = getenv(STORE_VARIABLE);
    out->folder = named != NULL && named[0] != '\0' ? named : STORE_DEFAULT_FOLDER;
  }
  if (optind >= argc) {
    return out->is_help
               ? STATUS_OK
               : errmsg_set(err, STATUS_CONFIG, "which command? see deputyctl store --help");
  }
  *out_command = find_command(argv[optind]);
  if (*out_command == NULL) {
    return errmsg_set(err, STATUS_CONFIG,
                      "unknown command \"store %s\"; see deputyctl store --help", argv[optind]);
  }
  out->words = argv + optind + 1;
  out->num_words = (size_t)(argc - optind - 1);
  if (!out->is_help) {
    TRY(check(out, given, *out_command, err));
  }

out:
  return st;
}

int store_main(int argc, char **argv) {
  struct store_args args = {0};
  struct errmsg err = {0};
  const struct command *command = NULL;
  if (parse(&args, &command, argc, argv, &err) != STATUS_OK) {
    (void)fprintf(stderr, "deputyctl: %s\n", err.text);
    return CTL_USAGE;
  }
  if (args.is_help) {
    print_help(command);
    return CTL_DONE;
  }
  // A disk that is full is an error to tell, not a signal to die by.
  (void)signal(SIGXFSZ, SIG_IGN);
  CHECK(command != NULL);
  enum ctl_exit code = command->run(&args);
  if (fflush(stdout) != 0 || ferror(stdout)) {
    (void)fprintf(stderr, "deputyctl: the answer cannot be written to standard output\n");
    return code == CTL_DONE ? CTL_FAILED : (int)code;
  }
  return (int)code;
}

enum ctl_exit store_run_late(const struct ctl_args *args) {
  (void)args;
  (void)fprintf(stderr,
                "deputyctl: options of store stand behind it: deputyctl store COMMAND ...\n");
  return CTL_USAGE;
}

// --- what the commands share -------------------------------------------------------------

enum ctl_exit store_complain(const struct errmsg *err) {
  (void)fprintf(stderr, "deputyctl: ");
  grid_clean(stderr, err->text);
  (void)fputc('\n', stderr);
  return CTL_FAILED;
}

enum status store_begin(struct store **store, struct store_reader **reader,
                        const struct store_args *args, enum store_mode mode, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct store_options options = {.mode = mode};
  TRY(store_open(store, args->folder, &options, err));
  if (reader != NULL) {
    TRY(store_reader_new(reader, *store, err));
  }

out:
  return st;
}

void store_end(struct store *store, struct store_reader *reader) {
  store_reader_free(reader);
  store_close(store);
}

void store_print_json(json_t *json) {
  (void)json_dumpf(json, stdout, JSON_INDENT(2));
  (void)fputc('\n', stdout);
  json_decref(json);
}

enum status store_host(char out[STORE_NAME_MAX_LEN + 1], const char *typed, struct errmsg *err) {
  const char *rest = strncmp(typed, "*.", 2) == 0 ? typed + 2 : typed;
  const char *star = rest == typed ? "" : "*.";
  uint8_t *found = NULL;
  bool is_plain = true;
  for (const char *p = rest; *p != '\0'; p++) {
    is_plain = is_plain && (unsigned char)*p < 0x80;
  }
  int rc = IDN2_OK;
  if (!is_plain) {
    rc = idn2_lookup_u8((const uint8_t *)rest, &found, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
  }
  if (rc != IDN2_OK) {
    return errmsg_set(err, STATUS_FORMAT, "\"%.253s\" is not a host name: %s", typed,
                      idn2_strerror(rc));
  }
  int len =
      snprintf(out, STORE_NAME_MAX_LEN + 1, "%s%s", star, is_plain ? rest : (const char *)found);
  idn2_free(found);
  if (len < 0 || (unsigned)len > STORE_NAME_MAX_LEN) {
    return errmsg_set(err, STATUS_FORMAT, "\"%.100s...\" is longer than any host name", typed);
  }
  if (len > 1 && out[len - 1] == '.') {
    out[len - 1] = '\0';
  }
  for (char *p = out; *p != '\0'; p++) {
    *p = (char)(*p >= 'A' && *p <= 'Z' ? *p | 0x20 : *p);
  }
  return STATUS_OK;
}

bool store_has_subject(const struct store_args *args) {
  return args->name != NULL || args->key != NULL || args->ca != NULL || args->is_fleet;
}

enum status store_subject(enum state_level *out_level, uint8_t out[STATE_SUBJECT_MAX_LEN],
                          size_t *out_len, const struct store_reader *reader,
                          const struct store_args *args, struct errmsg *err) {
  char host[STORE_NAME_MAX_LEN + 1];
  int num = (args->name != NULL) + (args->key != NULL) + (args->ca != NULL) + args->is_fleet;
  if (num != 1) {
    return errmsg_set(err, STATUS_CONFIG, "give exactly one of --name, --key, --ca, --fleet");
  }
  if (args->name != NULL) {
    *out_level = STATE_LEVEL_NAME;
    enum status st = store_host(host, args->name, err);
    return st != STATUS_OK ? st : store_match(out, out_len, reader, *out_level, host, err);
  }
  if (args->ca != NULL && ctl_is_ca_file(args->ca)) {
    enum status st = STATUS_OK;
    struct cert_ca ca;
    *out_level = STATE_LEVEL_CA;
    *out_len = 32;
    st = cert_ca_load(&ca, args->ca, err);
    return st != STATUS_OK ? st : store_match_ca(out, reader, &ca, err);
  }
  *out_level = args->key != NULL  ? STATE_LEVEL_KEY
               : args->ca != NULL ? STATE_LEVEL_CA
                                  : STATE_LEVEL_FLEET;
  return store_match(out, out_len, reader, *out_level, args->key != NULL ? args->key : args->ca,
                     err);
}

// --- progress ------------------------------------------------------------------------------

void store_progress_begin(struct store_progress *progress, const struct store_args *args,
                          const char *what) {
  *progress = (struct store_progress){.what = what, .began_us = clock_monotonic_us()};
  progress->is_on = !args->is_quiet && isatty(STDERR_FILENO) == 1;
}

void store_progress_show(struct store_progress *progress, uint64_t done, uint64_t all,
                         uint64_t num_things, const char *things) {
  static const char full[] = "########################";
  static const char empty[] = "........................";
  int64_t now_us = clock_monotonic_us();
  if (!progress->is_on || now_us - progress->shown_us < SHOW_EVERY_US) {
    return;
  }
  double part = all == 0 ? 1 : (double)done / (double)all;
  double seconds = (double)(now_us - progress->began_us) / 1e6;
  int width = (int)(part * (int)(sizeof(full) - 1));
  progress->shown_us = now_us;
  progress->is_shown = true;
  (void)fprintf(stderr, "\r%s [%.*s%.*s] %3.0f %%  %" PRIu64 " %s  %.0f/s  %.0f s left \033[K",
                progress->what, width, full, (int)(sizeof(full) - 1) - width, empty, part * 100,
                num_things, things, (double)num_things / seconds,
                part > 0 ? seconds / part - seconds : 0);
}

void store_progress_end(struct store_progress *progress) {
  if (progress->is_shown) {
    (void)fprintf(stderr, "\r\033[K");
    progress->is_shown = false;
  }
}

// --- stats ---------------------------------------------------------------------------------

static enum ctl_exit run_stats(const struct store_args *args) {
  struct errmsg err = {0};
  struct store *store = NULL;
  struct store_reader *reader = NULL;
  struct store_counts counts;
  enum status st = STATUS_OK;

  TRY(store_begin(&store, &reader, args, STORE_READ, &err));
  TRY(store_count(&counts, reader, &err));
  const struct {
    const char *key;
    const char *text;
    uint64_t value;
  } lines[] = {
      {"names", "names", counts.num_names},
      {"chains", "chains", counts.num_chains},
      {"issuers", "intermediate certificates", counts.num_issuers},
      {"cas", "CAs", counts.num_cas},
      {"staples", "staples", counts.num_staples},
      {"revoked", "revoked leaves", counts.num_revoked},
      {"subjects", "subjects of which something is said", counts.num_subjects},
      {"switches", "switches in the log", counts.num_changes},
      {"readers", "slots of readers in use or kept", counts.num_readers},
      {"generation", "generation of the file", counts.generation},
      {"bytes", "bytes of chains", counts.chains_len},
      {"free_bytes", "bytes of these that wait for use", counts.free_len},
      {"state_bytes", "bytes of states", counts.states_len},
      {"bytes_per_name", "bytes for each name",
       counts.num_names == 0 ? 0 : counts.chains_len / counts.num_names},
  };
  json_t *json = json_object();
  for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
    (void)json_object_set_new(json, lines[i].key, json_integer((json_int_t)lines[i].value));
    if (!args->is_json) {
      (void)printf("%14" PRIu64 "  %s\n", lines[i].value, lines[i].text);
    }
  }
  if (args->is_json) {
    store_print_json(json);
  } else {
    json_decref(json);
  }

out:
  store_end(store, reader);
  return st == STATUS_OK ? CTL_DONE : store_complain(&err);
}

// --- verify --------------------------------------------------------------------------------

#define FAULTS_SHOWN 100u

struct verifying {
  struct store_progress progress;
  uint64_t num_faults;
};

static void on_fault(void *arg, const char *sentence) {
  struct verifying *verifying = arg;
  if (++verifying->num_faults > FAULTS_SHOWN) {
    return;
  }
  store_progress_end(&verifying->progress);
  (void)fprintf(stderr, "deputyctl: ");
  grid_clean(stderr, sentence);
  (void)fputc('\n', stderr);
}

static bool on_verify_progress(void *arg, uint64_t done, uint64_t all) {
  struct verifying *verifying = arg;
  store_progress_show(&verifying->progress, done, all, done, "records");
  return true;
}

static enum ctl_exit verify_here(const struct store_args *args) {
  struct errmsg err = {0};
  struct store *store = NULL;
  struct store_reader *reader = NULL;
  struct store_counts counts = {0};
  struct verifying verifying = {0};
  const struct store_verify_options options = {.is_deep = args->is_deep,
                                               .on_fault = on_fault,
                                               .progress = on_verify_progress,
                                               .arg = &verifying};
  enum status st = STATUS_OK;
  TRY(store_begin(&store, &reader, args, STORE_READ, &err));
  store_progress_begin(&verifying.progress, args, "verifying");
  st = store_verify(reader, &options, &err);
  store_progress_end(&verifying.progress);
  TRY(st);
  TRY(store_count(&counts, reader, &err));
  if (args->is_json) {
    store_print_json(json_pack("{s:b, s:I, s:I}", "good", 1, "names", (json_int_t)counts.num_names,
                               "chains", (json_int_t)counts.num_chains));
  } else {
    (void)printf("good: %" PRIu64 " names, %" PRIu64 " chains\n", counts.num_names,
                 counts.num_chains);
  }

out:
  store_end(store, reader);
  return st == STATUS_OK ? CTL_DONE : store_complain(&err);
}

// run_verify works in a child: LMDB trusts its pages, and one that is damaged in the
// right place ends the process that reads it. That too must become a sentence.
static enum ctl_exit run_verify(const struct store_args *args) {
  int status = 0;
  struct errmsg err = {0};
  (void)fflush(stdout);
  pid_t child = fork();
  if (child < 0) {
    return verify_here(args);
  }
  if (child == 0) {
    enum ctl_exit code = verify_here(args);
    (void)fflush(stdout);
    _exit((int)code);
  }
  while (waitpid(child, &status, 0) != child) {
  }
  if (WIFEXITED(status)) {
    return (enum ctl_exit)WEXITSTATUS(status);
  }
  (void)errmsg_set(&err, STATUS_FORMAT,
                   "%s: the file is damaged where LMDB does not expect it (signal %d while "
                   "reading). Put back a copy of the store, or move it away and import the "
                   "certificates again",
                   args->folder, WTERMSIG(status));
  return store_complain(&err);
}

// --- compact -------------------------------------------------------------------------------

static enum status measure(uint64_t *out, struct store *store, struct errmsg *err) {
  struct store_reader *reader = NULL;
  struct store_counts counts = {0};
  enum status st = STATUS_OK;
  TRY(store_reader_new(&reader, store, err));
  TRY(store_count(&counts, reader, err));
  *out = counts.chains_len;

out:
  store_reader_free(reader);
  return st;
}

static enum ctl_exit run_compact(const struct store_args *args) {
  struct errmsg err = {0};
  struct store *store = NULL;
  uint64_t num_dropped = 0;
  uint64_t before = 0;
  uint64_t after = 0;
  enum status st = STATUS_OK;
  TRY(store_begin(&store, NULL, args, STORE_WRITE, &err));
  TRY(measure(&before, store, &err));
  TRY(store_compact(&store, &num_dropped, &err));
  TRY(measure(&after, store, &err));
  if (args->is_json) {
    store_print_json(json_pack("{s:I, s:I, s:I}", "bytes_before", (json_int_t)before, "bytes",
                               (json_int_t)after, "dropped_chains", (json_int_t)num_dropped));
  } else {
    (void)printf("%" PRIu64 " bytes, before %" PRIu64 "; %" PRIu64
                 " chains without a name left out\n",
                 after, before, num_dropped);
  }

out:
  store_end(store, NULL);
  return st == STATUS_OK ? CTL_DONE : store_complain(&err);
}
