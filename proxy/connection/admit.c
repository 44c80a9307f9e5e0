// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/admit.h"

#include <inttypes.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/net/address.h"
#include "proxy/connection/address_table.h"
#include "proxy/connection/admission.h"
#include "proxy/connection/opening.h"
#include "proxy/memory_watch.h"
#include "proxy/worker.h"

#define BUSY_LOOK_MS 100  // a busy worker that nobody comes to looks again

// --- the pulse ---------------------------------------------------------------------

static struct admission_limits limits_of(const struct worker *worker) {
  const struct limit_options *limits = worker_limits(worker);
  int64_t num_workers = (int64_t)worker->host->num_workers;
  return (struct admission_limits){
      .num_handshakes = (limits->handshakes + num_workers - 1) / num_workers,
      .lag_us = limits->handshake_lag_ms * 1000,
      .share_percent = limits->handshake_share,
  };
}

// The counter of an eventfd never fills up in the life of a machine, and watched by
// edges it need not be read: each write is an event.
static void send_pulse(struct worker *worker, int64_t now_us) {
  const uint64_t one = 1;
  if (admission_wants_pulse(&worker->admission, now_us)) {
    admission_note_sent(&worker->admission, now_us, clock_thread_cpu_us());
    ssize_t len = write(worker->pulse_fd, &one, sizeof(one));
    (void)len;
  }
}

static void on_pulse(void *arg, unsigned ready) {
  struct worker *worker = arg;
  struct worker_counters *counters = &worker->counters;
  struct admission *admission = &worker->admission;
  bool was_busy = admission->is_busy;
  int64_t lag_us = 0;

  (void)ready;
  if (admission->sent_us == 0) {
    return;  // the event of being watched at all
  }
  const struct admission_limits limits = limits_of(worker);
  lag_us = admission_on_pulse(admission, &limits, clock_monotonic_us(), clock_thread_cpu_us());
  histogram_add_us(&counters->lag, (uint64_t)lag_us);
  if (was_busy != admission->is_busy) {
    count(was_busy ? &counters->busy_ended : &counters->busy_begun);
  }
  if (admission->is_busy) {
    timer_arm_ms(&worker->pulse_again, BUSY_LOOK_MS);
  }
}

static void on_pulse_again(void *arg) { send_pulse(arg, clock_monotonic_us()); }

enum status admit_init(struct worker *worker) {
  enum status st = STATUS_OK;
  worker->pulse_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (worker->pulse_fd < 0) {
    return STATUS_SYSTEM;
  }
  TRY(timer_init(&worker->pulse_again, worker->loop, on_pulse_again, worker));
  TRY(io_init(&worker->pulse, worker->loop, worker->pulse_fd, on_pulse, worker));
out:
  return st;
}

void admit_cleanup(struct worker *worker) {
  if (worker->pulse.loop != NULL) {
    io_cleanup(&worker->pulse);
  }
  timer_cleanup(&worker->pulse_again);
  if (worker->pulse_fd > 0) {
    (void)close(worker->pulse_fd);
  }
  worker->pulse_fd = 0;
}

// --- the door ----------------------------------------------------------------------

// Counts the connection for its address. REFUSAL_NUM: it may come in.
static enum refusal enter_address(struct worker *worker, const struct sockaddr_storage *peer,
                                  int64_t now_us, uint64_t *out_key) {
  const struct limit_options *limits = worker_limits(worker);
  struct address_table *table = worker->host->addresses;
  uint64_t key = 0;

  *out_key = 0;
  if (limits->address_connections == 0 && limits->address_rate == 0) {
    return REFUSAL_NUM;
  }
  key = address_table_key(table, peer);
  if (limits->address_rate > 0 &&
      !address_table_take_turn(table, key, limits->address_rate, now_us)) {
    return REFUSAL_ADDRESS_RATE;
  }
  if (limits->address_connections > 0) {
    if (!address_table_enter(table, key, limits->address_connections)) {
      return REFUSAL_ADDRESS_CONNECTIONS;
    }
    *out_key = key;
  }
  return REFUSAL_NUM;
}

static enum refusal judge(const struct listening *listening, const struct sockaddr_storage *peer,
                          uint64_t *out_key) {
  struct worker *worker = listening->worker;
  const struct admission_limits limits = limits_of(worker);
  const int64_t now_us = clock_monotonic_us();
  size_t num_others = worker->num_conns - worker->admission.num_handshakes;
  enum admission_answer answer = ADMISSION_YES;
  enum refusal refusal = REFUSAL_NUM;

  if (worker->num_conns >= worker->max_conns) {
    return REFUSAL_LIMIT;
  }
  if (memory_watch_is_over(worker->host->memory)) {
    return REFUSAL_MEMORY_CEILING;
  }
  send_pulse(worker, now_us);
  answer = admission_judge(&worker->admission, &limits, num_others,
                           conn_oldest_handshake_ms(worker) * 1000, now_us);
  if (answer == ADMISSION_BUSY || answer == ADMISSION_HANDSHAKES) {
    return answer == ADMISSION_BUSY ? REFUSAL_BUSY : REFUSAL_HANDSHAKES;
  }
  if (!listening_trusts(listening, peer)) {
    refusal = enter_address(worker, peer, now_us, out_key);
  }
  if (refusal == REFUSAL_NUM && answer == ADMISSION_DISPLACE) {
    conn_displace_oldest(worker);
  }
  return refusal;
}

static void note_refused(struct worker *worker, const struct sockaddr_storage *peer,
                         enum refusal refusal) {
  static struct log_gate gates[REFUSAL_NUM];
  uint64_t num_held = 0;
  count(&worker->counters.refused[refusal]);
  if (log_gate_pass(&gates[refusal], 1, &num_held)) {
    struct address address = {.storage = *peer};
    char text[ADDRESS_TEXT_LEN] = "unix";
    if (peer->ss_family == AF_INET || peer->ss_family == AF_INET6) {
      address_unmap(&address);
      (void)address_format(text, &address);
    }
    log_warn(0, "refused", "reason=%s client=%s held=%" PRIu64, refusal_name(refusal), text,
             num_held);
  }
}

static void refuse(struct worker *worker, int fd, const struct sockaddr_storage *peer,
                   enum refusal refusal) {
  count(&worker->counters.accepted);
  count(&worker->counters.closed);
  note_refused(worker, peer, refusal);  // first: whoever sees the end finds it counted
  (void)close(fd);
}

bool admit_client(struct conn *conn, const struct sockaddr_storage *client) {
  const enum refusal refusal =
      enter_address(conn->worker, client, clock_monotonic_us(), &conn->address_key);
  if (refusal != REFUSAL_NUM) {
    note_refused(conn->worker, client, refusal);
  }
  return refusal == REFUSAL_NUM;
}

void admit(struct listening *listening, int fd, const struct sockaddr_storage *peer) {
  struct worker *worker = listening->worker;
  uint64_t key = 0;
  enum refusal refusal = judge(listening, peer, &key);
  if (refusal == REFUSAL_NUM) {
    opening_accept(listening, fd, peer, key);
  } else {
    refuse(worker, fd, peer, refusal);
  }
}
