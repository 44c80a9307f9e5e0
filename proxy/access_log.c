// SPDX-License-Identifier: Apache-2.0
#include "proxy/access_log.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "proxy/conn.h"
#include "proxy/worker.h"

#define PEER_LEN 64
#define NAME_LEN 280
#define DETAILS_LEN 192
#define CLIENT_LEN (4 * CLIENT_AUTH_NAME_LEN + 16)

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
    (void)snprintf(
        out, DETAILS_LEN, "version=%s source=%s chain=%s ca=%s group=%s handshake_us=%" PRIu32,
        version_name((enum version)conn->version), source_name((enum source)conn->source),
        conn->label, bytes_to_hex(ca, bytes_of(conn->ca_id, sizeof(conn->ca_id))),
        group == NULL ? "none" : group, conn->handshake_us);
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

void access_log(const struct conn *conn) {
  char peer[PEER_LEN];
  char name[NAME_LEN];
  char details[DETAILS_LEN];
  char who[CLIENT_LEN];
  const char *sni = NULL;

  if (!log_is_on(LOG_LEVEL_INFO) || !conn->worker->view->site->options.has_access_log) {
    return;
  }
  if (conn->ssl != NULL) {
    sni = SSL_get_servername(conn->ssl, TLSEXT_NAMETYPE_host_name);
  }
  log_info(conn->id, "closed",
           "outcome=%s client=%s name=%s %s%s up=%" PRIu64 " down=%" PRIu64 " ms=%" PRId64,
           outcome_name((enum outcome)conn->outcome), format_peer(peer, &conn->peer),
           log_quote(name, sizeof(name), bytes_text(sni)), format_details(details, conn),
           format_client(who, conn), conn->bytes_up, conn->bytes_down,
           (clock_monotonic_us() - conn->accepted_us) / 1000);
}
