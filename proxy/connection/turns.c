// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/turns.h"

#include "common/base/clock.h"
#include "proxy/connection/conn.h"
#include "proxy/worker.h"

static void begin_round(struct turns *turns, int64_t round_ms) {
  turns->round_ms = round_ms;
  turns->left_us = TURNS_ROUND_US;
}

void turns_init(struct worker *worker) { worker->turns.end = &worker->turns.first; }

bool turns_may_go(struct worker *worker) {
  struct turns *turns = &worker->turns;
  if (turns->first != NULL) {
    return false;
  }
  if (turns->round_ms != loop_now_ms(worker->loop)) {
    begin_round(turns, loop_now_ms(worker->loop));
  }
  return turns->left_us > 0;
}

static struct conn *take_first(struct turns *turns) {
  struct conn *conn = turns->first;
  turns->first = conn->next_later;
  if (turns->first == NULL) {
    turns->end = &turns->first;
  }
  conn->next_later = NULL;
  conn->is_in_line = false;
  return conn;
}

static void on_round(void *arg) {
  struct worker *worker = arg;
  struct turns *turns = &worker->turns;

  begin_round(turns, loop_now_ms(worker->loop));
  while (turns->first != NULL && turns->left_us > 0) {
    struct conn *conn = take_first(turns);
    if (conn == turns->mark) {
      admission_note_wait(&worker->admission, clock_thread_cpu_us() - turns->mark_cpu_us);
      turns->mark = NULL;
    }
    conn_take_turn(conn);
  }
  if (turns->first != NULL) {
    loop_post(worker->loop, on_round, worker);
  } else {
    admission_note_wait(&worker->admission, 0);
  }
}

void turns_wait(struct worker *worker, struct conn *conn) {
  struct turns *turns = &worker->turns;
  if (conn->is_in_line || conn->is_later) {
    return;  // it is run in any case, and asks then
  }
  if (turns->first == NULL) {
    loop_post(worker->loop, on_round, worker);
  }
  conn->is_in_line = true;
  conn->next_later = NULL;
  *turns->end = conn;
  turns->end = &conn->next_later;
  if (turns->mark == NULL) {
    turns->mark = conn;
    turns->mark_cpu_us = clock_thread_cpu_us();
  }
}

void turns_forget(struct worker *worker, struct conn *conn) {
  struct turns *turns = &worker->turns;
  struct conn **at = &turns->first;
  if (!conn->is_in_line) {
    return;
  }
  while (*at != conn) {
    at = &(*at)->next_later;
  }
  *at = conn->next_later;
  if (turns->end == &conn->next_later) {
    turns->end = at;
  }
  if (turns->mark == conn) {
    turns->mark = NULL;
  }
  conn->is_in_line = false;
}
