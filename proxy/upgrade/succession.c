// SPDX-License-Identifier: Apache-2.0
#include "proxy/upgrade/succession.h"

#include <stdlib.h>

#include "common/base/log.h"

struct succession {
  struct loop *loop;
  struct succession_host host;
  struct takeover *takeover;
  struct timer look;
  int64_t began_ms;
  bool is_over;
};

// Not within a call of it.
static void on_let_go(void *arg) {
  struct succession *succession = arg;
  takeover_free(succession->takeover, NULL);
  succession->takeover = NULL;
}

static void give_up(struct succession *succession, const char *reason) {
  char text[LOG_SENTENCE_LEN];
  succession->is_over = true;
  loop_post(succession->loop, on_let_go, succession);
  log_error(0, "takeover_failed", "reason=%s effect=the_running_process_serves_on",
            log_sentence(text, reason));
  succession->host.give_up(succession->host.arg, reason);
}

static void on_completed(void *arg, enum status st, const struct errmsg *err) {
  struct succession *succession = arg;
  // It may have let go, or died, before its answer came: what counts is that nobody
  // else answers. A refusal means that somebody does.
  if (st == STATUS_REFUSED || st == STATUS_TIMEOUT) {
    give_up(succession, err->text);
    return;
  }
  succession->is_over = true;
  log_info(0, "taken_over", "after_ms=%lld",
           (long long)(loop_now_ms(succession->loop) - succession->began_ms));
  succession->host.serve(succession->host.arg);
}

static void on_claimed(void *arg, enum status st, const struct errmsg *err) {
  struct succession *succession = arg;
  struct errmsg reason = {0};
  struct bytes keys = {0};
  if (st != STATUS_OK) {
    give_up(succession, err->text);
    return;
  }
  keys = takeover_ticket_keys(succession->takeover);
  if (keys.len > 0) {
    succession->host.take_ticket_keys(succession->host.arg, keys);
  }
  if (succession->host.accept(succession->host.arg, &reason) != STATUS_OK) {
    give_up(succession, reason.text);
    return;
  }
  takeover_step(succession->takeover, succession->loop, TAKEOVER_COMPLETE, on_completed,
                succession);
}

static void on_look(void *arg) {
  struct succession *succession = arg;
  int64_t waited_ms = loop_now_ms(succession->loop) - succession->began_ms;
  bool is_warm = succession->host.is_warm(succession->host.arg);
  if (!is_warm && waited_ms < SUCCESSION_WARM_LIMIT_MS) {
    timer_arm_ms(&succession->look, SUCCESSION_LOOK_MS);
    return;
  }
  log_info(0, "takeover", "warm=%s after_ms=%lld", is_warm ? "true" : "false",
           (long long)waited_ms);
  takeover_step(succession->takeover, succession->loop, TAKEOVER_CLAIM, on_claimed, succession);
}

enum status succession_begin(struct succession **out, struct loop *loop,
                             const struct succession_host *host, struct takeover **takeover) {
  struct succession *succession = calloc(1, sizeof(*succession));
  *out = NULL;
  if (succession == NULL) {
    return STATUS_MEMORY;
  }
  succession->loop = loop;
  succession->host = *host;
  if (timer_init(&succession->look, loop, on_look, succession) != STATUS_OK) {
    free(succession);
    return STATUS_MEMORY;
  }
  succession->began_ms = loop_now_ms(loop);
  succession->takeover = *takeover;
  *takeover = NULL;
  timer_arm_ms(&succession->look, 0);
  *out = succession;
  return STATUS_OK;
}

bool succession_is_over(const struct succession *succession) {
  return succession == NULL || succession->is_over;
}

void succession_free(struct succession *succession) {
  if (succession != NULL) {
    timer_cleanup(&succession->look);
    takeover_free(succession->takeover, succession->is_over ? NULL : "the new process ends");
    free(succession);
  }
}
