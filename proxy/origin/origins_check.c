// SPDX-License-Identifier: Apache-2.0
// The tries that control makes: a connection to the endpoint, closed at once when it
// is there. An origin that expects a PROXY header is sent one that stands for nobody,
// so that it has nothing to complain about.
#include <errno.h>
#include <sys/socket.h>

#include "common/base/log.h"
#include "common/wire/proxy_protocol.h"
#include "proxy/origin/origins_internal.h"

static bool is_out(const struct endpoint *endpoint) {
  return (endpoint_state(endpoint) & ENDPOINT_OUT) != 0;
}

static void log_change(const struct endpoint *endpoint, enum log_level level, const char *event,
                       const char *reason) {
  char text[ADDRESS_TEXT_LEN];
  const struct origin *origin = endpoint->origin;
  log_line(level, 0, event, "pool=%s origin=%s address=%s reason=%s", origin->pool, origin->address,
           address_format(text, &endpoint->address), reason);
}

void origins_check_stop(struct endpoint *endpoint) {
  if (endpoint->fd >= 0) {
    io_close(&endpoint->io);
    endpoint->fd = -1;
  }
  timer_cancel(&endpoint->timer);
}

// How long one that has just been taken out is left alone: longer than the last time if no
// client has connected since a probe brought it back. A probe makes a connection, and sees
// nothing of TLS.
static int64_t first_back_off_ms(const struct endpoint *endpoint) {
  const struct pool_options *settings = &endpoint->origin->settings;
  const int64_t longer_ms = 2 * endpoint->last_back_off_ms;
  if (longer_ms <= settings->retry_min_ms ||
      counter_get(&endpoint->origin->num_connected) != endpoint->num_connected) {
    return settings->retry_min_ms;
  }
  return longer_ms < settings->retry_max_ms ? longer_ms : settings->retry_max_ms;
}

void origins_check_plan(struct endpoint *endpoint) {
  const struct pool_options *settings = &endpoint->origin->settings;
  int64_t after_ms = settings->check.interval_ms;
  if (!endpoint->origin->is_current) {
    origins_check_stop(endpoint);
    return;
  }
  if (endpoint->fd >= 0) {
    return;  // its end plans the next
  }
  if (after_ms == 0) {
    atomic_fetch_and_explicit(&endpoint->state, ~(unsigned)ENDPOINT_DOWN, memory_order_relaxed);
  }
  if (is_out(endpoint)) {
    if (endpoint->back_off_ms == 0) {
      endpoint->back_off_ms = first_back_off_ms(endpoint);
      endpoint->is_doubted = endpoint->back_off_ms > settings->retry_min_ms;
    }
    // (A good check would bring it back, too.)
    if (after_ms == 0 || endpoint->back_off_ms < after_ms || endpoint->is_doubted) {
      after_ms = endpoint->back_off_ms;
    }
  } else {
    endpoint->back_off_ms = 0;
  }
  if (after_ms == 0) {
    timer_cancel(&endpoint->timer);
  } else {
    timer_arm_ms(&endpoint->timer, origins_spread_ms(after_ms, endpoint->id));
  }
}

static void note_good(struct endpoint *endpoint) {
  endpoint->num_bad = 0;
  endpoint->num_good += 1;
  if (is_out(endpoint)) {
    endpoint->last_back_off_ms = endpoint->back_off_ms;
    endpoint->num_connected = counter_get(&endpoint->origin->num_connected);
    atomic_store_explicit(&endpoint->num_failed, 0, memory_order_relaxed);
    atomic_fetch_and_explicit(&endpoint->state, ~(unsigned)ENDPOINT_OUT, memory_order_relaxed);
    log_change(endpoint, LOG_LEVEL_INFO, "origin_in", "probe");
  }
  if ((endpoint_state(endpoint) & ENDPOINT_DOWN) != 0 &&
      endpoint->num_good >= (unsigned)endpoint->origin->settings.check.rise) {
    atomic_fetch_and_explicit(&endpoint->state, ~(unsigned)ENDPOINT_DOWN, memory_order_relaxed);
    log_change(endpoint, LOG_LEVEL_INFO, "origin_up", "check");
  }
}

static void note_bad(struct endpoint *endpoint, enum origin_failure failure) {
  const struct pool_options *settings = &endpoint->origin->settings;
  if (failure == ORIGIN_FAILURE_LOCAL) {
    return;  // says nothing of the origin
  }
  endpoint->num_good = 0;
  endpoint->num_bad += 1;
  if (is_out(endpoint)) {
    endpoint->back_off_ms *= 2;
    if (endpoint->back_off_ms > settings->retry_max_ms) {
      endpoint->back_off_ms = settings->retry_max_ms;
    }
  }
  if (settings->check.interval_ms != 0 && endpoint->num_bad >= (unsigned)settings->check.fall &&
      (atomic_fetch_or_explicit(&endpoint->state, ENDPOINT_DOWN, memory_order_relaxed) &
       ENDPOINT_DOWN) == 0) {
    log_change(endpoint, LOG_LEVEL_WARN, "origin_down", origin_failure_name(failure));
  }
}

static void end_check(struct endpoint *endpoint) {
  if (endpoint->fd >= 0) {
    io_close(&endpoint->io);
    endpoint->fd = -1;
  }
  origins_check_plan(endpoint);
}

// For the origin's log: this was nobody.
static void greet(const struct endpoint *endpoint) {
  const struct proxy_header nobody = {0};
  const int version = endpoint->origin->settings.proxy_protocol;
  uint8_t data[PROXY_V1_MAX_LEN];
  size_t len = 0;
  if (version != PROXY_PROTOCOL_OFF &&
      (version == PROXY_PROTOCOL_V1 ? proxy_v1_encode : proxy_v2_encode)(data, sizeof(data), &len,
                                                                         &nobody) == STATUS_OK) {
    (void)send(endpoint->fd, data, len, MSG_NOSIGNAL);
  }
}

static void on_ready(void *arg, unsigned ready) {
  struct endpoint *endpoint = arg;
  if ((ready & IO_WRITABLE) == 0) {
    return;
  }
  if (address_connect_result(endpoint->fd) == STATUS_OK) {
    greet(endpoint);
    note_good(endpoint);
  } else {
    note_bad(endpoint, origin_failure_of(errno));
  }
  end_check(endpoint);
}

// origins_check_on_timer: it is time for a try, or over for the one under way.
void origins_check_on_timer(void *arg) {
  struct endpoint *endpoint = arg;
  const struct origin *origin = endpoint->origin;
  if (endpoint->fd >= 0) {
    note_bad(endpoint, ORIGIN_FAILURE_TIMEOUT);
    end_check(endpoint);
    return;
  }
  if (address_connect(&endpoint->fd, &endpoint->address) != STATUS_OK) {
    endpoint->fd = -1;
    note_bad(endpoint, origin_failure_of(errno));
    end_check(endpoint);
    return;
  }
  if (io_init(&endpoint->io, origin->origins->loop, endpoint->fd, on_ready, endpoint) !=
      STATUS_OK) {
    note_bad(endpoint, ORIGIN_FAILURE_LOCAL);
    end_check(endpoint);
    return;
  }
  timer_arm_ms(&endpoint->timer, origin->settings.check.timeout_ms);
}
