// SPDX-License-Identifier: Apache-2.0
#include "proxy/admin/state_file.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/file.h"
#include "common/base/log.h"
#include "common/net/job.h"

#define BESIDE_INFIX ".new."  // file_replace writes PATH.new.XXXXXX first
#define BESIDE_RANDOM_LEN 6u

struct state_file {
  struct states *states;
  char *path;  // "": in memory only
  struct loop *loop;
  struct jobs *jobs;
  struct job job;
  struct timer limit;
  struct timer retry;
  int64_t write_limit_ms;
  int64_t retry_ms;

  struct state_edit *first_waiting;  // not begun, oldest first
  struct state_edit *last_waiting;
  size_t num_waiting;
  bool is_run_posted;

  // The write under way. `text` and what is below it are the thread's meanwhile.
  bool is_writing;
  bool is_stuck;            // it is over its limit
  struct state_edit *edit;  // waits for it; NULL: answered already, or a retry
  struct states *draft;     // to be adopted when it is written; NULL: is in force already
  char *text;
  enum status write_st;
  struct errmsg write_err;

  bool is_unkept;  // something is in force that the write under way does not hold
  uint64_t num_writes;
  uint64_t num_failed;
};

static void run(void *arg);

// --- one write -----------------------------------------------------------------

static void work(void *arg) {  // on the thread
  struct state_file *file = arg;
  file->write_st = file_replace(file->path, bytes_text(file->text), &file->write_err);
}

// start_write takes `text`, the whole of what is (or comes) in force.
static void start_write(struct state_file *file, char **text) {
  file->text = *text;
  *text = NULL;
  file->is_writing = true;
  file->is_stuck = false;
  file->is_unkept = false;
  timer_cancel(&file->retry);
  timer_arm_ms(&file->limit, file->write_limit_ms);
  jobs_start(file->jobs, &file->job);
}

static void answer(struct state_file *file, enum status st, bool is_kept,
                   const struct errmsg *err) {
  struct state_edit *edit = file->edit;
  file->edit = NULL;
  if (edit != NULL) {
    edit->done(edit->arg, st, is_kept, err);
  }
}

// adopt_unkept puts the draft in force though it is not written.
static void adopt_unkept(struct state_file *file) {
  if (file->draft != NULL) {
    states_adopt(file->states, &file->draft);
    file->is_unkept = true;
  }
}

static void end_failed_write(struct state_file *file) {
  struct errmsg *err = &file->write_err;
  file->num_failed++;
  log_error(0, "states_not_written", "dropped=%d why=\"%s\"",
            (int)(file->is_stuck && file->draft != NULL), err->text);
  // If only the last sync failed, the file may hold what is refused here: what is
  // in force must be written over it.
  file->is_unkept = true;
  if (file->edit != NULL && file->edit->is_forced) {
    adopt_unkept(file);
    answer(file, STATUS_OK, false, err);
    return;
  }
  states_free(file->draft);
  file->draft = NULL;
  answer(file, file->write_st, false, err);
}

static void on_written(void *arg) {
  struct state_file *file = arg;
  timer_cancel(&file->limit);
  free(file->text);
  file->text = NULL;
  file->is_writing = false;
  file->num_writes++;
  if (file->is_stuck) {
    log_info(0, "states_disk_answers", "status=%s", status_name(file->write_st));
  }
  if (file->write_st == STATUS_OK) {
    if (file->draft != NULL) {
      states_adopt(file->states, &file->draft);
    }
    answer(file, STATUS_OK, true, NULL);
  } else {
    end_failed_write(file);
  }
  run(file);
}

// on_limit: the disk does not answer. The one who waits is told so, and a change
// that is forced does not wait any longer.
static void on_limit(void *arg) {
  struct state_file *file = arg;
  struct errmsg err = {0};
  file->is_stuck = true;
  log_error(0, "states_disk_stuck", "limit_ms=%lld", (long long)file->write_limit_ms);
  (void)errmsg_set(&err, STATUS_OK, "%s: the disk has not answered for %lld ms", file->path,
                   (long long)file->write_limit_ms);
  if (file->edit != NULL && file->edit->is_forced) {
    adopt_unkept(file);
    answer(file, STATUS_OK, false, &err);
  } else {
    answer(file, STATUS_TIMEOUT, false, &err);
  }
  run(file);
}

// --- edits -----------------------------------------------------------------------

static struct state_edit *pop(struct state_file *file) {
  struct state_edit *edit = file->first_waiting;
  if (edit != NULL) {
    file->first_waiting = edit->next;
    file->last_waiting = edit->next == NULL ? NULL : file->last_waiting;
    file->num_waiting--;
  }
  return edit;
}

// begin makes the edit's draft and starts its write, or ends it at once.
static void begin(struct state_file *file, struct state_edit *edit) {
  enum status st = STATUS_OK;
  struct errmsg err = {0};
  char *text = NULL;

  TRY(states_draft(&file->draft, file->states));
  TRY(edit->make(edit->arg, file->draft, &err));
  if (file->jobs == NULL) {  // in memory only, as configured
    states_adopt(file->states, &file->draft);
    edit->done(edit->arg, STATUS_OK, false, NULL);
    return;
  }
  text = states_save(file->draft);
  if (text == NULL) {
    st = errmsg_set(&err, STATUS_MEMORY, "the change cannot be written as JSON");
    goto out;
  }
  if (strlen(text) > STATE_FILE_MAX_LEN) {
    TRY(errmsg_set(&err, STATUS_LIMIT, "%s would grow over %u bytes", file->path,
                   STATE_FILE_MAX_LEN));
  }
  file->edit = edit;
  start_write(file, &text);
  return;

out:
  free(text);
  states_free(file->draft);
  file->draft = NULL;
  if (err.text[0] == '\0') {
    (void)errmsg_set(&err, st, "the change cannot be made (%s)", status_name(st));
  }
  edit->done(edit->arg, st, false, &err);
}

// begin_stuck serves an edit while a write is stuck: a forced one comes into force
// in memory, after those that were asked for before it.
static void begin_stuck(struct state_file *file, struct state_edit *edit) {
  enum status st = STATUS_OK;
  struct errmsg err = {0};

  if (!edit->is_forced) {
    TRY(errmsg_set(&err, STATUS_UNAVAILABLE,
                   "%s: the disk does not answer; with force, the change comes into force though "
                   "it is not kept over a restart",
                   file->path));
  }
  adopt_unkept(file);
  TRY(states_draft(&file->draft, file->states));
  st = edit->make(edit->arg, file->draft, &err);
  if (st != STATUS_OK) {
    states_free(file->draft);
    file->draft = NULL;
    goto out;
  }
  adopt_unkept(file);
  (void)errmsg_set(&err, STATUS_OK, "%s: the disk does not answer", file->path);

out:
  edit->done(edit->arg, st, false, &err);
}

// run goes on with what waits.
static void run(void *arg) {
  struct state_file *file = arg;
  file->is_run_posted = false;
  while (file->first_waiting != NULL && (!file->is_writing || file->is_stuck)) {
    struct state_edit *edit = pop(file);
    if (file->is_writing) {
      begin_stuck(file, edit);
    } else {
      begin(file, edit);
    }
  }
  if (!file->is_writing && file->is_unkept && file->jobs != NULL) {
    timer_arm_ms(&file->retry, file->retry_ms);
  }
}

static void on_retry(void *arg) {
  struct state_file *file = arg;
  if (file->is_writing || !file->is_unkept) {
    return;
  }
  char *text = states_save(file->states);
  if (text == NULL) {
    timer_arm_ms(&file->retry, file->retry_ms);
    return;
  }
  start_write(file, &text);
}

enum status state_file_edit(struct state_file *file, struct state_edit *edit) {
  if (file->num_waiting >= STATE_FILE_MAX_WAITING) {
    return STATUS_UNAVAILABLE;
  }
  edit->next = NULL;
  if (file->last_waiting != NULL) {
    file->last_waiting->next = edit;
  } else {
    file->first_waiting = edit;
  }
  file->last_waiting = edit;
  file->num_waiting++;
  if (!file->is_run_posted) {
    file->is_run_posted = true;
    loop_post(file->loop, run, file);
  }
  return STATUS_OK;
}

bool state_file_is_kept(const struct state_file *file) {
  return file->jobs != NULL && !file->is_unkept && (!file->is_writing || file->draft != NULL);
}

bool state_file_is_settled(const struct state_file *file) {
  size_t num = 0;
  (void)states_list(file->states, &num);
  if (file->first_waiting != NULL || file->is_writing) {
    return false;
  }
  return file->jobs == NULL ? num == 0 : !file->is_unkept;
}

void state_file_write_metrics(const struct state_file *file, struct metrics_text *text) {
  metrics_family(text, "deputy_states_writes_total", METRIC_COUNTER,
                 "Writes of the file of switches.");
  metrics_sample(text, "deputy_states_writes_total", (double)(file->num_writes - file->num_failed),
                 "result", "ok", NULL);
  metrics_sample(text, "deputy_states_writes_total", (double)file->num_failed, "result", "failed",
                 NULL);
  metrics_family(text, "deputy_states_kept", METRIC_GAUGE,
                 "1: all switches in force are in the file; 0: some are in memory only.");
  metrics_sample(text, "deputy_states_kept", state_file_is_kept(file) ? 1 : 0, NULL);
  metrics_family(text, "deputy_states_disk_stuck", METRIC_GAUGE,
                 "1: a write of the file of switches is over its limit.");
  metrics_sample(text, "deputy_states_disk_stuck", file->is_writing && file->is_stuck ? 1 : 0,
                 NULL);
}

// --- start and end -----------------------------------------------------------------

void state_file_sweep(const char *path) {
  const char *slash = strrchr(path, '/');
  const char *base = slash == NULL ? path : slash + 1;
  size_t base_len = strlen(base);
  size_t infix_len = strlen(BESIDE_INFIX);
  char *folder = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
  DIR *dir = folder == NULL ? NULL : opendir(folder);
  for (struct dirent *entry = dir == NULL ? NULL : readdir(dir); entry != NULL;
       entry = readdir(dir)) {
    const char *name = entry->d_name;
    if (strncmp(name, base, base_len) == 0 &&
        strncmp(name + base_len, BESIDE_INFIX, infix_len) == 0 &&
        strlen(name + base_len + infix_len) == BESIDE_RANDOM_LEN) {
      (void)unlinkat(dirfd(dir), name, 0);
    }
  }
  if (dir != NULL) {
    (void)closedir(dir);
  }
  free(folder);
}

static enum status write_first(struct states *states, const char *path, struct errmsg *err) {
  char *text = states_save(states);
  if (text == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "%s: no memory", path);
  }
  enum status st = file_replace(path, bytes_text(text), err);
  free(text);
  if (st != STATUS_OK) {
    errmsg_prefix(err,
                  "the file of switches cannot be made, so no switch would survive a restart; "
                  "make its folder and let this user write there");
  }
  return st;
}

static bool is_there(const char *path) { return access(path, F_OK) == 0 || errno != ENOENT; }

enum status state_file_check(struct states *states, const char *path, struct errmsg *err) {
  enum status st = STATUS_OK;
  uint8_t *text = NULL;
  size_t len = 0;

  if (!is_there(path)) {
    return STATUS_OK;
  }
  st = file_read(&text, &len, path, STATE_FILE_MAX_LEN, err);
  if (st != STATUS_OK) {
    errmsg_prefix(err, "the file of switches cannot be read, and some may be in force");
    return st;
  }
  st = states_load(states, (const char *)text, len, path, err);
  free(text);
  return st;
}

static enum status read_first(struct states *states, const char *path, struct errmsg *err) {
  return is_there(path) ? state_file_check(states, path, err) : write_first(states, path, err);
}

enum status state_file_open(struct state_file **out, struct loop *loop, struct states *states,
                            const char *path, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct state_file *file = calloc(1, sizeof(*file));

  *out = NULL;
  if (file == NULL || (file->path = strdup(path)) == NULL) {
    free(file);
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  file->loop = loop;
  file->states = states;
  file->write_limit_ms = STATE_FILE_WRITE_LIMIT_MS;
  file->retry_ms = STATE_FILE_RETRY_MS;
  file->job = (struct job){.work = work, .done = on_written, .arg = file};
  if (path[0] != '\0') {
    TRY(read_first(states, path, err));
    if (timer_init(&file->limit, loop, on_limit, file) != STATUS_OK ||
        timer_init(&file->retry, loop, on_retry, file) != STATUS_OK ||
        jobs_new(&file->jobs, loop) != STATUS_OK) {
      TRY(errmsg_set(err, STATUS_SYSTEM, "%s: no thread to write it: %s", path, strerror(errno)));
    }
  }
  *out = file;
  file = NULL;

out:
  state_file_close(file);
  return st;
}

void state_file_set_limits(struct state_file *file, int64_t write_limit_ms, int64_t retry_ms) {
  file->write_limit_ms = write_limit_ms;
  file->retry_ms = retry_ms;
}

void state_file_close(struct state_file *file) {
  if (file == NULL) {
    return;
  }
  jobs_free(file->jobs);
  timer_cleanup(&file->limit);
  timer_cleanup(&file->retry);
  states_free(file->draft);
  free(file->text);
  free(file->path);
  free(file);
}
