// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/access_log.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/jsonline.h"
#include "common/base/log.h"
#include "common/base/sink.h"
#include "proxy/connection/conn.h"
#include "proxy/worker.h"

#define PEER_LEN 64
#define NAME_LEN 280
#define DETAILS_LEN 224
#define CLIENT_LEN (4 * CLIENT_AUTH_NAME_LEN + 16)

static struct sink *_Atomic file;  // NULL: lines go to the log

static const char *format_peer(char out[PEER_LEN], const union peer *peer) {
  char host[INET6_ADDRSTRLEN] = "";
  if (peer->sa.sa_family == AF_INET) {
    (void)inet_ntop(AF_INET, &peer->in.sin_addr, host, sizeof(host));
    (void)snprintf(out, PEER_LEN, "%s:%u", host, ntohs(peer->in.sin_port));
  } else if (peer->sa.sa_family == AF_INET6) {
    (void)inet_ntop(AF_INET6, &peer->in6.sin6_addr, host, sizeof(host));
    (void)snprintf(out, PEER_LEN, "[%s]:%u", host, ntohs(peer->in6.sin6_port));
  } else {
    (void)snprintf(out, PEER_LEN, "unix");
  }
  return out;
}

// How TLS was made, or why it was not.
static const char *format_details(char out[DETAILS_LEN], const struct conn *conn) {
  char ca[2 * sizeof(conn->ca_id) + 1];
  const char *group = NULL;
  if (conn->failure != FAILURE_NONE) {
    (void)snprintf(out, DETAILS_LEN, "failure=%s%s%s", failure_name((enum failure)conn->failure),
                   conn->failure == FAILURE_ALERT ? " alert=" : "",
                   conn->failure == FAILURE_ALERT ? alert_name(conn->alert) : "");
  } else if (conn->handshake_us == 0) {
    (void)snprintf(out, DETAILS_LEN, "state=%s", conn_state_name(conn->state));
  } else {
    group = SSL_get_curve_name(conn->group);
    (void)snprintf(out, DETAILS_LEN,
                   "version=%s source=%s resumed=%s chain=%s ca=%s group=%s handshake_us=%" PRIu32
                   " connect_us=%" PRIu32,
                   version_name((enum version)conn->version),
                   source_name((enum source)conn->source),
                   conn->source == SOURCE_RESUMED ? "yes" : "no", conn->label,
                   bytes_to_hex(ca, bytes_of(conn->ca_id, sizeof(conn->ca_id))),
                   group == NULL ? "none" : group, conn->handshake_us, conn->connect_us);
  }
  return out;
}

// Who the client is, by its certificate; nothing without one.
static const char *format_client(char out[CLIENT_LEN], const struct conn *conn) {
  char name[4 * CLIENT_AUTH_NAME_LEN];
  const struct client_identity *client = conn_client(conn);
  out[0] = '\0';
  if (client != NULL) {
    (void)snprintf(out, CLIENT_LEN, " client_cn=%s",
                   log_quote(name, sizeof(name), bytes_text(client->common_name)));
  }
  return out;
}

// --- the line ----------------------------------------------------------------------------

static const char *name_of(const struct conn *conn) {
  return conn->ssl == NULL ? NULL : SSL_get_servername(conn->ssl, TLSEXT_NAMETYPE_host_name);
}

static int64_t ms_of(const struct conn *conn) {
  return (clock_monotonic_us() - conn->accepted_us) / 1000;
}

#define TEXT_FORMAT "outcome=%s client=%s name=%s %s%s up=%" PRIu64 " down=%" PRIu64 " ms=%" PRId64

static void write_text(const struct conn *conn) {
  char peer[PEER_LEN];
  char name[NAME_LEN];
  char details[DETAILS_LEN];
  char who[CLIENT_LEN];
  struct sink *sink = atomic_load_explicit(&file, memory_order_acquire);
  const char *outcome = outcome_name((enum outcome)conn->outcome);

  (void)format_peer(peer, &conn->peer);
  (void)log_quote(name, sizeof(name), bytes_text(name_of(conn)));
  (void)format_details(details, conn);
  (void)format_client(who, conn);
  if (sink == NULL) {
    log_info(conn->id, "closed", TEXT_FORMAT, outcome, peer, name, details, who, conn->bytes_up,
             conn->bytes_down, ms_of(conn));
  } else {
    char line[SINK_LINE_MAX_LEN];
    char time[CLOCK_RFC3339_LEN];
    int len = 0;
    (void)clock_format_rfc3339_us(time, clock_wall_us(), 3);
    len =
        snprintf(line, sizeof(line), "%s conn=%" PRIu64 " closed " TEXT_FORMAT, time, conn->id,
                 outcome, peer, name, details, who, conn->bytes_up, conn->bytes_down, ms_of(conn));
    // It counts what it loses.
    (void)sink_write(sink, bytes_of(line, len > 0 && (size_t)len < sizeof(line) ? (size_t)len : 0));
  }
}

static void add_tls(struct jsonline *line, const struct conn *conn) {
  const char *group = SSL_get_curve_name(conn->group);
  jsonline_cstr(line, "version", version_name((enum version)conn->version));
  jsonline_cstr(line, "group", group == NULL ? "none" : group);
  jsonline_cstr(line, "source", source_name((enum source)conn->source));
  jsonline_bool(line, "resumed", conn->source == SOURCE_RESUMED);
  jsonline_cstr(line, "chain", conn->label);
  jsonline_hex(line, "ca", bytes_of(conn->ca_id, sizeof(conn->ca_id)));
  jsonline_int(line, "handshake_us", conn->handshake_us);
  jsonline_int(line, "connect_us", conn->connect_us);
}

static void write_json(const struct conn *conn) {
  struct jsonline line;
  struct bytes text;
  char peer[PEER_LEN];
  const char *name = name_of(conn);
  const struct client_identity *client = conn_client(conn);
  struct sink *sink = atomic_load_explicit(&file, memory_order_acquire);

  jsonline_begin(&line);
  jsonline_time(&line, "time", clock_wall_us());
  jsonline_cstr(&line, "event", "closed");
  jsonline_int(&line, "conn", (int64_t)conn->id);
  jsonline_cstr(&line, "outcome", outcome_name((enum outcome)conn->outcome));
  jsonline_cstr(&line, "client", format_peer(peer, &conn->peer));
  jsonline_cstr(&line, "name", name == NULL ? "" : name);
  if (conn->failure != FAILURE_NONE) {
    jsonline_cstr(&line, "failure", failure_name((enum failure)conn->failure));
  }
  if (conn->failure == FAILURE_ALERT) {
    jsonline_cstr(&line, "alert", alert_name(conn->alert));
  }
  if (conn->handshake_us != 0) {
    add_tls(&line, conn);
  } else {
    jsonline_cstr(&line, "state", conn_state_name(conn->state));
  }
  if (client != NULL) {
    jsonline_cstr(&line, "client_cn", client->common_name);
  }
  jsonline_int(&line, "up", (int64_t)conn->bytes_up);
  jsonline_int(&line, "down", (int64_t)conn->bytes_down);
  jsonline_int(&line, "ms", ms_of(conn));
  if (jsonline_end(&line, &text) == STATUS_OK) {
    if (sink == NULL) {
      log_raw(text);
    } else {
      (void)sink_write(sink, text);
    }
  }
}

void access_log(const struct conn *conn) {
  const struct options *options = &conn->worker->view->site->options;
  bool has_file = atomic_load_explicit(&file, memory_order_relaxed) != NULL;
  if (!options->has_access_log || (!has_file && !log_is_on(LOG_LEVEL_INFO))) {
    return;
  }
  if (conn->failure == FAILURE_SCAN && !options->has_silent_in_log) {
    return;
  }
  if (options->access_log_format == ACCESS_LOG_JSON) {
    write_json(conn);
  } else {
    write_text(conn);
  }
}

// --- the file ----------------------------------------------------------------------------

enum status access_log_open(const char *path, struct errmsg *err) {
  struct sink *sink = NULL;
  enum status st = path == NULL ? STATUS_OK : sink_open(&sink, path, SINK_DEFAULT_RING_LEN, err);
  atomic_store_explicit(&file, sink, memory_order_release);
  return st;
}

void access_log_reopen(void) {
  struct sink *sink = atomic_load(&file);
  if (sink != NULL) {
    sink_reopen(sink);
  }
}

uint64_t access_log_num_lost(void) {
  const struct sink *sink = atomic_load(&file);
  return sink == NULL ? 0 : sink_num_lost(sink);
}

bool access_log_is_failing(void) {
  const struct sink *sink = atomic_load(&file);
  return sink != NULL && sink_is_failing(sink);
}

void access_log_close(void) { sink_close(atomic_exchange(&file, NULL)); }
