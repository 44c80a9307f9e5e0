// SPDX-License-Identifier: Apache-2.0
#include "common/net/reload.h"

#include "common/base/log.h"

static void work(void *arg) {
  struct reload *reload = arg;
  reload->st = reload->steps->prepare(reload->arg, reload->scope, &reload->err);
}

static void finish(struct reload *reload) {
  char quoted[ERRMSG_MAX_LEN];

  if (reload->st == STATUS_OK && reload->is_stopped) {
    return;
  }
  if (reload->st == STATUS_OK) {
    reload->st = reload->steps->commit(reload->arg, reload->scope, &reload->err);
  }
  if (reload->st == STATUS_OK) {
    reload->num_good++;
  } else {
    reload->num_failed++;
    log_error(0, "reload_failed", "kept=old reason=%s",
              log_quote(quoted, sizeof(quoted), bytes_text(reload->err.text)));
  }
}

static void on_done(void *arg) {
  struct reload *reload = arg;

  reload->is_running = false;
  finish(reload);
  if (reload->steps->end != NULL) {
    reload->steps->end(reload->arg);
  }
  reload_ask(reload, reload->wanted);
}

void reload_init(struct reload *reload, struct jobs *jobs, const struct reload_steps *steps,
                 void *arg) {
  *reload = (struct reload){
      .steps = steps,
      .arg = arg,
      .jobs = jobs,
      .job = {.work = work, .done = on_done, .arg = reload},
  };
}

void reload_ask(struct reload *reload, int scope) {
  if (reload->is_stopped || scope == 0) {
    return;
  }
  if (reload->is_running) {
    reload->wanted = scope > reload->wanted ? scope : reload->wanted;
    return;
  }
  reload->is_running = true;
  reload->scope = scope;
  reload->wanted = 0;
  reload->st = STATUS_OK;
  reload->err = (struct errmsg){0};
  if (reload->steps->begin != NULL) {
    reload->steps->begin(reload->arg);
  }
  jobs_start(reload->jobs, &reload->job);
}

void reload_stop(struct reload *reload) { reload->is_stopped = true; }
