// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "certstore/chain.h"
#include "certstore/staple.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "ctl/grid.h"
#include "ctl/store.h"

#define SHOWN 20u        // of each kind of complaint
#define SHOW_EVERY 256u  // chains

// One import; all that is counted begins anew when a transaction is run again.
struct import {
  const struct store_args *args;
  struct store_files files;
  struct store_progress progress;
  unsigned level;
  char host[STORE_NAME_MAX_LEN + 1];
  const char *names[1];

  uint64_t num_chains;
  uint64_t num_keys;
  uint64_t num_staples;
  uint64_t num_without_leaf;
  uint64_t num_bad;
  uint64_t num_issues[STORE_NUM_ISSUES];
  uint64_t len_read;
};

static void reset(struct import *import) {
  import->num_chains = 0;
  import->num_keys = 0;
  import->num_staples = 0;
  import->num_without_leaf = 0;
  import->num_bad = 0;
  import->len_read = 0;
  memset(import->num_issues, 0, sizeof(import->num_issues));
}

static void say(struct import *import, uint64_t num, const char *sentence) {
  if (num > SHOWN) {
    return;
  }
  store_progress_end(&import->progress);
  (void)fprintf(stderr, "deputyctl: ");
  grid_clean(stderr, sentence);
  (void)fprintf(stderr, "%s\n", num == SHOWN ? " (more of these are only counted)" : "");
}

// bad names what is wrong; true: go on without it.
static bool bad(struct import *import, const struct errmsg *err) {
  import->num_bad++;
  if (!import->args->is_skipping_bad) {
    return false;
  }
  say(import, import->num_bad, err->text);
  return true;
}

static bool on_issue(void *arg, enum store_issue issue, uint32_t source, const char *sentence) {
  struct import *import = arg;
  char text[ERRMSG_MAX_LEN];
  uint64_t num = ++import->num_issues[issue];
  (void)snprintf(text, sizeof(text), "%s%s: %s",
                 issue == STORE_ISSUE_SAME_KEY ? "" : "warning: ", import->files.files[source].path,
                 sentence);
  if (issue != STORE_ISSUE_SAME_KEY) {
    say(import, num, text);
    return true;
  }
  import->num_bad++;
  if (import->args->is_skipping_bad) {
    say(import, num, text);
  } else {
    store_progress_end(&import->progress);
    (void)fprintf(stderr, "deputyctl: %s: refused\n", import->files.files[source].path);
  }
  return import->args->is_skipping_bad;
}

static void on_filing(void *arg, uint64_t done, uint64_t all) {
  struct import *import = arg;
  import->progress.what = "filing";
  store_progress_show(&import->progress, done, all, done, "records");
}

// read_staple looks for FILE.ocsp, as the proxy does. One that is not good is no
// reason to refuse the chain: a warning.
static uint8_t *read_staple(struct import *import, struct store_addition *addition,
                            const char *path) {
  struct errmsg err = {0};
  struct staple_facts facts = {0};
  uint8_t *data = NULL;
  size_t len = 0;
  char *beside = NULL;
  enum status st = STATUS_OK;
  if (asprintf(&beside, "%s" CHAIN_STAPLE_SUFFIX, path) < 0) {
    return NULL;
  }
  if (access(beside, F_OK) != 0) {
    free(beside);
    return NULL;
  }
  TRY(file_read(&data, &len, beside, STORE_STAPLE_MAX_LEN, &err));
  TRY(staple_check(&facts, bytes_of(data, len), addition->certs[0],
                   addition->num_certs > 1 ? addition->certs[1] : (struct bytes){0}, clock_wall_s(),
                   &err));
  addition->staple = bytes_of(data, len);
  addition->staple_this_update_s = facts.this_update_s;
  addition->staple_next_update_s = facts.next_update_s;
  import->num_staples++;

out:
  if (st != STATUS_OK) {
    char text[ERRMSG_MAX_LEN];
    (void)snprintf(text, sizeof(text), "warning: %.400s is not kept: %.500s", beside, err.text);
    say(import, 1, text);
    free(data);
    data = NULL;
  }
  free(beside);
  return data;
}

static enum status add_chain(struct import *import, struct store_txn *txn,
                             const struct store_chain_item *item, uint32_t source, uint64_t number,
                             struct errmsg *err) {
  const char *path = import->files.files[source].path;
  struct store_addition addition = {.certs = item->certs,
                                    .num_certs = item->num_certs,
                                    .level = import->level,
                                    .is_replacing = import->args->is_replacing,
                                    .source = source};
  if (import->names[0] != NULL) {
    addition.names = import->names;
    addition.num_names = 1;
  }
  uint8_t *staple = number == 1 ? read_staple(import, &addition, path) : NULL;
  enum status st = store_add(txn, &addition, err);
  free(staple);
  if (st != STATUS_OK && !store_txn_is_broken(txn)) {
    if (number > 1) {
      errmsg_prefix(err, "%s: chain %" PRIu64, path, number);
    } else {
      errmsg_prefix(err, "%s", path);
    }
    return st != STATUS_MEMORY && bad(import, err) ? STATUS_OK : st;
  }
  import->num_chains += st == STATUS_OK ? 1 : 0;
  return st;
}

// is_left_out: a file that a walk found and that holds something, but no leaf (a CA's
// certificate, a private key, parameters), is none of ours.
static bool is_left_out(struct import *import, const struct store_chain_file *file, uint32_t source,
                        bool has_ca) {
  if (!import->files.files[source].is_found ||
      (!has_ca && store_chain_file_num_keys(file) + store_chain_file_num_others(file) == 0)) {
    return false;
  }
  import->num_without_leaf++;
  return true;
}

// add_chains files the chains of one open file.
static enum status add_chains(struct import *import, struct store_txn *txn,
                              struct store_chain_file *file, uint32_t source, struct errmsg *err) {
  enum status st = STATUS_OK;
  const char *path = import->files.files[source].path;
  struct store_chain_item item;
  uint64_t number = 0;
  uint64_t num_leaves = 0;
  bool began_with_ca = false;
  while ((st = store_chain_file_next(file, &item, err)) == STATUS_OK) {
    number++;
    if (number == 1 && item.begins_with_ca) {
      began_with_ca = true;
      continue;
    }
    if (began_with_ca) {
      st = errmsg_set(err, STATUS_REFUSED,
                      "%s: a CA's certificate comes before the leaf: order them leaf first, each "
                      "followed by its issuer",
                      path);
      return bad(import, err) ? STATUS_OK : st;
    }
    num_leaves++;
    TRY(add_chain(import, txn, &item, source, number, err));
    if (number % SHOW_EVERY == 0) {
      store_progress_show(&import->progress, import->len_read + store_chain_file_num_read(file),
                          import->files.len, import->num_chains, "leaves");
    }
  }
  if (st != STATUS_NOT_FOUND) {
    return st != STATUS_MEMORY && bad(import, err) ? STATUS_OK : st;
  }
  st = STATUS_OK;
  if (num_leaves == 0 && !is_left_out(import, file, source, began_with_ca)) {
    st = errmsg_set(err, STATUS_FORMAT, "%s: there is no %s certificate in it", path,
                    began_with_ca ? "leaf" : "PEM or DER");
    st = bad(import, err) ? STATUS_OK : st;
  }

out:
  return st;
}

static enum status add_file(struct import *import, struct store_txn *txn, uint32_t source,
                            struct errmsg *err) {
  struct store_chain_file *file = NULL;
  enum status st = store_chain_file_open(&file, import->files.files[source].path, err);
  if (st != STATUS_OK) {
    return st != STATUS_MEMORY && bad(import, err) ? STATUS_OK : st;
  }
  st = add_chains(import, txn, file, source, err);
  import->num_keys += store_chain_file_num_keys(file);
  import->len_read += store_chain_file_num_read(file);
  store_chain_file_close(file);
  store_progress_show(&import->progress, import->len_read, import->files.len, import->num_chains,
                      "leaves");
  return st;
}

static enum status add_files(struct store_txn *txn, void *arg, struct errmsg *err) {
  struct import *import = arg;
  enum status st = STATUS_OK;
  reset(import);
  import->progress.what = "reading";
  store_on_issue(txn, on_issue, import);
  store_on_progress(txn, on_filing, import);
  for (size_t i = 0; i < import->files.num; i++) {
    TRY(add_file(import, txn, (uint32_t)i, err));
  }

out:
  return st;
}

static void print_result(const struct import *import, double seconds) {
  if (import->args->is_json) {
    json_t *json = json_pack(
        "{s:I, s:I, s:s, s:I, s:I, s:I, s:I, s:f}", "files", (json_int_t)import->files.num,
        "chains", (json_int_t)import->num_chains, "level", store_level_name(import->level),
        "staples", (json_int_t)import->num_staples, "bad", (json_int_t)import->num_bad,
        "private_keys_ignored", (json_int_t)import->num_keys, "files_without_leaf",
        (json_int_t)import->num_without_leaf, "seconds", seconds);
    for (unsigned i = 0; i < STORE_NUM_ISSUES; i++) {
      (void)json_object_set_new(json, store_issue_name((enum store_issue)i),
                                json_integer((json_int_t)import->num_issues[i]));
    }
    store_print_json(json);
    return;
  }
  (void)printf("imported %" PRIu64 " chains as %s from %zu files in %.1f s (%.0f a second)\n",
               import->num_chains, store_level_name(import->level), import->files.num, seconds,
               seconds > 0 ? (double)import->num_chains / seconds : 0.0);
  const struct {
    uint64_t num;
    const char *text;
  } lines[] = {
      {import->num_staples, "staples kept"},
      {import->num_bad, "bad files, chains or names left out"},
      {import->num_keys, "private keys seen and passed over; they are not in the store"},
      {import->num_without_leaf, "files without a leaf passed over"},
      {import->num_issues[STORE_ISSUE_SAME_CA], "names with two levels from one CA"},
      {import->num_issues[STORE_ISSUE_EXPIRED_BACKUP], "names whose backup has expired"},
      {import->num_issues[STORE_ISSUE_OLDER], "names that have a newer chain already"},
  };
  for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
    if (lines[i].num > 0) {
      (void)printf("  %" PRIu64 " %s\n", lines[i].num, lines[i].text);
    }
  }
}

static enum status prepare(struct import *import, const struct store_args *args,
                           struct errmsg *err) {
  enum status st = STATUS_OK;
  if (args->level != NULL && store_level_from_name(&import->level, args->level) != STATUS_OK) {
    TRY(errmsg_set(err, STATUS_CONFIG, "\"%s\" is no level: primary, backup, spare2 ... spare7",
                   args->level));
  }
  if (args->name != NULL) {
    TRY(store_host(import->host, args->name, err));
    import->names[0] = import->host;
  }
  for (size_t i = 0; i < args->num_words; i++) {
    TRY(store_files_add(&import->files, args->words[i], err));
  }
  if (import->files.num == 0) {
    TRY(errmsg_set(err, STATUS_NOT_FOUND,
                   "%s: no certificates below it (*.pem, *.crt, *.cer, *.cert, *.der)",
                   args->words[0]));
  }

out:
  return st;
}

enum ctl_exit store_run_import(const struct store_args *args) {
  struct errmsg err = {0};
  struct import import = {.args = args};
  struct store *store = NULL;
  enum status st = STATUS_OK;
  int64_t began_us = clock_monotonic_us();

  TRY(prepare(&import, args, &err));
  TRY(store_begin(&store, NULL, args, STORE_CREATE, &err));
  store_expect(store, import.files.len);
  store_progress_begin(&import.progress, args, "reading");
  st = store_write(store, add_files, &import, &err);
  store_progress_end(&import.progress);
  TRY(st);
  print_result(&import, (double)(clock_monotonic_us() - began_us) / 1e6);

out:
  store_end(store, NULL);
  store_files_cleanup(&import.files);
  if (st == STATUS_CONFIG) {
    (void)store_complain(&err);
    return CTL_USAGE;
  }
  if (st != STATUS_OK) {
    (void)store_complain(&err);
    (void)fprintf(stderr, "deputyctl: nothing was imported\n");
    return CTL_FAILED;
  }
  return CTL_DONE;
}
