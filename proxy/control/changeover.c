// SPDX-License-Identifier: Apache-2.0
#include "proxy/control/changeover.h"

#include "common/base/log.h"
#include "common/keyclient/report.h"
#include "common/net/ready.h"
#include "proxy/control/control_internal.h"

// --- being taken over --------------------------------------------------------------------

static void put_socket(struct handover_socket *out, size_t *num, enum inherit_kind kind,
                       const char *text, const int *fd) {
  if (*fd >= 0) {
    out[(*num)++] = (struct handover_socket){.kind = kind, .text = text, .fds = fd, .num = 1};
  }
}

static size_t sockets_to_lend(void *arg, struct handover_socket *out, size_t max) {
  const struct control *control = arg;
  size_t num = 0;
  CHECK(control->listeners.num + 2 <= max);
  for (; num < control->listeners.num; num++) {
    const struct listener *listener = &control->listeners.items[num];
    out[num] = (struct handover_socket){.kind = INHERIT_CLIENT,
                                        .text = listener->text,
                                        .fds = listener->kept,
                                        .num = listener->num_kept};
  }
  put_socket(out, &num, INHERIT_ADMIN, control->sites.current->options.admin.socket,
             &control->services.admin_kept_fd);
  put_socket(out, &num, INHERIT_METRICS, control->sites.current->options.metrics.listen,
             &control->services.metrics_kept_fd);
  return num;
}

// Switches are only ever added, or undone: these numbers differ if anything does. The new
// process goes on with the audit's chain, of which it has read the last line.
static enum status stamp(void *arg, char out[HANDOVER_STAMP_LEN], struct errmsg *err) {
  const struct control *control = arg;
  size_t num = 0;
  size_t num_undone = 0;
  const struct state_change *changes = states_list(control->states, &num);
  for (size_t i = 0; i < num; i++) {
    num_undone += changes[i].is_undone ? 1 : 0;
  }
  if (control->store == NULL && !state_file_is_settled(control->state_file)) {
    return errmsg_set(err, STATUS_UNAVAILABLE,
                      control->sites.current->options.states == NULL
                          ? "there are switches, which no file keeps (states): they would be lost"
                          : "a switch is not on disk yet");
  }
  (void)snprintf(out, HANDOVER_STAMP_LEN, "%zu/%llu/%zu/%llu", num,
                 num == 0 ? 0ULL : (unsigned long long)changes[num - 1].id, num_undone,
                 (unsigned long long)audit_log_num_chained(&control->audit));
  return STATUS_OK;
}

static bool is_stopping(void *arg) {
  const struct control *control = arg;
  return control->drain.is_draining || !succession_is_over(control->changeover.succession);
}

static size_t give_ticket_keys(void *arg, uint8_t out[TICKET_KEY_SET_MAX_LEN]) {
  const struct control *control = arg;
  return ticket_schedule_give(&control->ticket_schedule, out);
}

static void on_succeeded(void *arg, bool is_same_unit) {
  struct control *control = arg;
  log_info(0, "taken_over", "effect=this_process_drains");
  watchdog_stop(control->watchdog);  // the new process speaks for the service
  services_stop(&control->services);
  if (!is_same_unit) {
    ready_notify("STOPPING=1");  // of the unit: not while a process of it serves
  }
  if (!control->drain.is_draining) {
    drain_begin(control, true);
  }
}

enum status changeover_init(struct control *control) {
  struct changeover *changeover = &control->changeover;
  changeover->handover_host = (struct handover_host){
      .arg = control,
      .sockets = sockets_to_lend,
      .stamp = stamp,
      .is_stopping = is_stopping,
      .ticket_keys = give_ticket_keys,
      .on_complete = on_succeeded,
  };
  return handover_new(&changeover->handover, control->loop, &changeover->handover_host);
}

// --- taking over -------------------------------------------------------------------------

enum status changeover_inherit(struct control *control, enum program_takeover takeover,
                               struct errmsg *err) {
  struct changeover *changeover = &control->changeover;
  enum status st = STATUS_OK;
  const char *path = control->start_options.admin.socket;

  TRY(inherit_from_environment(&changeover->inherited, err));
  if (takeover == PROGRAM_TAKEOVER_NO) {
    goto out;
  }
  if (path == NULL) {
    TRY(errmsg_set(err, STATUS_CONFIG,
                   "--takeover needs admin.socket, on which the running proxy is asked"));
  }
  st = takeover_ask(&changeover->takeover, &changeover->inherited, path, err);
  if (st == STATUS_UNAVAILABLE && takeover == PROGRAM_TAKEOVER_IF_RUNNING) {
    *err = (struct errmsg){0};
    st = STATUS_OK;
  }
out:
  return st;
}

static bool is_warm(void *arg) {
  const struct control *control = arg;
  for (size_t i = 0; i < control->num_workers; i++) {
    if (control->sites.keyclients[i] == NULL ||
        keyclient_num_ready(control->sites.keyclients[i]) == 0) {
      return false;
    }
  }
  return credentials_num_missing(control->credentials) == 0;
}

static void take_ticket_keys(void *arg, struct bytes set) {
  struct control *control = arg;
  const enum status st = ticket_schedule_take(&control->ticket_schedule, set);
  if (st != STATUS_OK) {
    log_warn(0, "ticket_keys_not_taken", "reason=%s effect=sessions_are_not_resumed",
             status_name(st));
  }
}

static enum status accept_too(void *arg, struct errmsg *err) {
  struct control *control = arg;
  enum status st = listeners_begin(&control->listeners, err);
  for (size_t i = 0; i < control->num_workers && st == STATUS_OK; i++) {
    struct listening_plan listening;
    listeners_plan(&listening, &control->listeners, i, control->num_workers);
    worker_post_listening(control->workers[i], &listening);
  }
  return st;
}

static void serve_alone(void *arg) {
  struct control *control = arg;
  struct errmsg err = {0};
  char text[LOG_SENTENCE_LEN];
  if (control->drain.is_draining) {
    return;  // told to stop meanwhile
  }
  if (services_open(control, &err) != STATUS_OK) {
    log_error(0, "no_services", "reason=%s effect=no_admin_api", log_sentence(text, err.text));
  }
  control_announce(control);
}

static void give_up(void *arg, const char *reason) {
  struct control *control = arg;
  (void)errmsg_set(&control->changeover.failure, STATUS_UNAVAILABLE, "--takeover: %s", reason);
  if (!control->drain.is_draining) {
    drain_begin(control, true);
  }
}

enum status changeover_begin(struct control *control) {
  struct changeover *changeover = &control->changeover;
  const struct succession_host host = {
      .arg = control,
      .is_warm = is_warm,
      .take_ticket_keys = take_ticket_keys,
      .accept = accept_too,
      .serve = serve_alone,
      .give_up = give_up,
  };
  return succession_begin(&changeover->succession, control->loop, &host, &changeover->takeover);
}

// --- both --------------------------------------------------------------------------------

bool changeover_is_under_way(const struct changeover *changeover) {
  return handover_is_claimed(changeover->handover) || !succession_is_over(changeover->succession);
}

void changeover_cleanup(struct changeover *changeover) {
  succession_free(changeover->succession);
  takeover_free(changeover->takeover, "the new process ends");
  handover_free(changeover->handover);
  inherit_cleanup(&changeover->inherited);
}
