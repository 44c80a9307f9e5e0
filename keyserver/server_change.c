// SPDX-License-Identifier: Apache-2.0
#include "keyserver/server_change.h"

#include <signal.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "keyserver/generate.h"

#define WATCH_ADOPTION_MS 1
#define AUDIT_KEYS_AT_ONCE 100
#define AUDIT_FLUSH_MS 1000

// --- snapshots ---------------------------------------------------------------------------------

// put_in_force gives `next` to the workers and keeps a reference.
static void put_in_force(struct server *server, struct snapshot *next) {
  for (size_t i = 0; i < server->num_workers; i++) {
    worker_adopt(&server->workers[i], next);
  }
  snapshot_unref(server->snapshot);
  server->snapshot = snapshot_ref(next);
}

// audit_missing records the keys of `from` that `in` has not. They may be more
// than the sink's ring holds, so it waits for room: not on an event loop.
static void audit_missing(struct server *server, const char *result, const struct keystore *from,
                          const struct keystore *in) {
  struct jsonline line;
  const int64_t wall_us = clock_wall_us();

  for (size_t i = 0; i < keystore_num_keys(from); i++) {
    const struct key *key = keystore_key(from, i);
    if (keystore_find(in, key->ski) != NULL) {
      continue;
    }
    if (i % AUDIT_KEYS_AT_ONCE == AUDIT_KEYS_AT_ONCE - 1) {
      (void)sink_flush(server->audit.sink, AUDIT_FLUSH_MS);  // a line that is lost is counted by it
    }
    (void)audit_write_key(server->audit.sink, &line, result, key, wall_us);
  }
}

static void audit_newest(struct server *server, const struct keystore *keys) {
  struct jsonline line;
  (void)audit_write_key(server->audit.sink, &line, "key_added",
                        keystore_key(keys, keystore_num_keys(keys) - 1), clock_wall_us());
}

static bool is_adopted(const struct server *server, uint64_t generation) {
  for (size_t i = 0; i < server->num_workers; i++) {
    if (!worker_is_done(&server->workers[i]) &&
        atomic_load(&server->workers[i].generation) < generation) {
      return false;
    }
  }
  return true;
}

// on_watch_adoption answers for new keys once every worker has them: the client
// may use a key on any connection from the answer on.
static void on_watch_adoption(void *arg) {
  struct server *server = arg;
  struct signer_job **at = &server->adopting;

  while (*at != NULL) {
    struct signer_job *job = *at;
    struct generate_task *task = generate_task_of(job);
    if (is_adopted(server, task->generation)) {
      *at = job->next;
      signer_inbox_put(task->reply_to, job);
    } else {
      at = &job->next;
    }
  }
  if (server->adopting != NULL) {
    timer_arm_ms(&server->watch_adoption, WATCH_ADOPTION_MS);
  }
}

// adopt_made puts a new key in force. If it cannot, it is stored all the same, and
// the next reload has it; the client is told that it is not there.
static void adopt_made(struct server *server, struct signer_job *job) {
  struct generate_task *task = generate_task_of(job);
  struct snapshot *next = NULL;
  struct errmsg err = {0};

  if (task->task.refusal != REFUSAL_NONE) {
    signer_inbox_put(task->reply_to, job);
    return;
  }
  // A reload since may have read the file already.
  if (keystore_find(server->snapshot->keys, task->key->ski) == NULL) {
    if (snapshot_with_key(&next, server->snapshot, &task->key, &err) != STATUS_OK) {
      log_error(0, "key_not_in_force", "key=%s why=\"%s\"", task->label, err.text);
      task->task.refusal = REFUSAL_INTERNAL;
      signer_inbox_put(task->reply_to, job);
      return;
    }
    audit_newest(server, next->keys);
    put_in_force(server, next);
    snapshot_unref(next);
    log_info(0, "key_made", "key=%s kind=%s keys=%zu", task->label, keygen_kind_name(task->kind),
             keystore_num_keys(server->snapshot->keys));
  }
  task->generation = server->snapshot->generation;
  job->next = server->adopting;
  server->adopting = job;
  timer_arm_ms(&server->watch_adoption, 0);
}

// on_made: a reload that is under way may or may not have seen the new file, so the
// key waits for its end.
static void on_made(void *arg, struct signer_job *job) {
  struct server *server = arg;

  if (server->reload.is_running) {
    job->next = server->held;
    server->held = job;
  } else {
    adopt_made(server, job);
  }
}

// --- reload ------------------------------------------------------------------------------------

// warn_of_fixed names what a reload has read but cannot put in force.
static void warn_of_fixed(const struct options *now, const struct options *then) {
  const char *audit = audit_log_change(&now->audit.log, &then->audit.log);
  const struct {
    const char *name;
    bool is_same;
  } fixed[] = {
      {"listen", config_same_list(now->listen, now->num_listen, then->listen, then->num_listen)},
      {"workers", now->num_workers == then->num_workers},
      {"signers", now->num_signers == then->num_signers},
      {"limits.max_queued", now->limits.max_queued == then->limits.max_queued},
      {"user", config_same_text(now->user, then->user)},
      {"sandbox", sandbox_options_equal(&now->sandbox, &then->sandbox)},
      {"log", config_same_text(now->log, then->log)},
      {audit == NULL ? "audit" : audit, audit == NULL},
      {"metrics.listen", config_same_text(now->metrics.listen, then->metrics.listen)},
  };
  for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) {
    if (!fixed[i].is_same) {
      log_warn(0, "restart_needed", "option=%s: the change counts from the next start on",
               fixed[i].name);
    }
  }
}

enum status server_fill(struct server *server, struct snapshot *snapshot, struct errmsg *err) {
  // Made at the start, whether it is needed or not: a reload runs beside those who
  // read the pointer.
  if (server->tokens == NULL && token_registry_new(&server->tokens) != STATUS_OK) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  return snapshot_fill(snapshot, server->tokens, err);
}

// reload_work reads all that a reload replaces and records the keys that come and
// go. On the jobs' thread: folders of thousands of keys take seconds.
static enum status reload_work(void *arg, int scope, struct errmsg *err) {
  struct server *server = arg;
  const struct snapshot *base = server->reload_base;
  struct snapshot **next = &server->reload_next;
  enum status st = STATUS_OK;

  if (scope == RELOAD_KEYS) {
    TRY(snapshot_with_keys(next, server->reload_base, server->tokens, err));
  } else {
    TRY(snapshot_read(next, server->config_path, base->generation + 1, err));
    TRY(snapshot_load_files(*next, err));
    TRY(server_fill(server, *next, err));
  }
  st =
      token_start_lanes(server->tokens, server->pool, (unsigned)(*next)->options.limits.max_queued);
  if (st != STATUS_OK) {
    st = errmsg_set(err, st, "no threads for a new token");
    goto out;
  }
  audit_missing(server, "key_added", (*next)->keys, base->keys);
  audit_missing(server, "key_removed", base->keys, (*next)->keys);

out:
  return st;
}

static void begin_reload(void *arg) {
  struct server *server = arg;
  server->reload_base = snapshot_ref(server->snapshot);
}

void server_watch_folders(struct server *server, const struct snapshot *snapshot) {
  const struct options *options = &snapshot->options;
  const char *own = options->generation.folder;
  struct watch_folder folders[OPTIONS_MAX_KEY_FOLDERS + 1];
  size_t num = 0;

  if (options->key_folders_watch) {
    for (; num < options->num_key_folders; num++) {
      folders[num] = (struct watch_folder){.path = options->key_folders[num]};
    }
    if (own != NULL) {
      folders[num++] = (struct watch_folder){.path = own, .is_removal_only = true};
    }
  }
  if (watch_set(server->watch, folders, num, options->key_folders_settle_ms, snapshot->loaded_us) !=
      STATUS_OK) {
    log_error(0, "folders_not_watched", "no memory");
  }
}

static enum status adopt_reload(void *arg, int scope, struct errmsg *err) {
  struct server *server = arg;
  struct snapshot *next = server->reload_next;

  (void)err;
  if (scope == RELOAD_ALL) {
    warn_of_fixed(&server->snapshot->options, &next->options);
    server_watch_folders(server, next);
  }
  put_in_force(server, next);
  server->reloaded_s = clock_wall_s();
  log_info(0, "reloaded", "what=%s keys=%zu grants=%zu generation=%llu",
           scope == RELOAD_KEYS ? "keys" : "all", keystore_num_keys(next->keys),
           rights_num_grants(next->rights), (unsigned long long)next->generation);
  return STATUS_OK;
}

static void end_reload(void *arg) {
  struct server *server = arg;
  struct signer_job *held = server->held;

  snapshot_unref(server->reload_next);
  snapshot_unref(server->reload_base);
  server->reload_next = NULL;
  server->reload_base = NULL;
  server->held = NULL;
  while (held != NULL) {
    struct signer_job *job = held;
    held = job->next;
    adopt_made(server, job);
  }
}

static const struct reload_steps reload_steps = {begin_reload, reload_work, adopt_reload,
                                                 end_reload};

static void on_reload(void *arg) {
  struct server *server = arg;
  reload_ask(&server->reload, RELOAD_ALL);
}

static void on_folders_changed(void *arg) {
  struct server *server = arg;
  reload_ask(&server->reload, RELOAD_KEYS);
}

// --- life --------------------------------------------------------------------------------------

enum status server_begin_changes(struct server *server) {
  enum status st = STATUS_OK;

  TRY(timer_init(&server->watch_adoption, server->loop, on_watch_adoption, server));
  signer_inbox_init(&server->made, server->loop, on_made, server);
  TRY(jobs_new(&server->jobs, server->loop));
  reload_init(&server->reload, server->jobs, &reload_steps, server);
  TRY(watch_new(&server->watch, server->loop, keystore_reads_file, on_folders_changed, server));
  TRY(loop_on_signal(server->loop, SIGHUP, on_reload, server));

out:
  return st;
}

bool server_end_reload(struct server *server) {
  if (!jobs_end(server->jobs, SERVER_RELOAD_STOP_LIMIT_MS)) {
    return false;
  }
  snapshot_unref(server->reload_next);
  snapshot_unref(server->reload_base);
  return true;
}

static void free_made(struct signer_job *jobs) {
  while (jobs != NULL) {
    struct signer_job *job = jobs;
    jobs = job->next;
    job->free(job);
  }
}

void server_forget_made(struct server *server) {
  free_made(server->adopting);
  free_made(server->held);
}

void server_end_changes(struct server *server) {
  signer_inbox_cleanup(&server->made);
  watch_free(server->watch);
  if (server->loop != NULL) {
    timer_cleanup(&server->watch_adoption);
  }
}
