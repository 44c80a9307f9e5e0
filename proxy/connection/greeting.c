// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/greeting.h"

#include <stdlib.h>
#include <string.h>

#include "common/wire/proxy_protocol.h"
#include "proxy/connection/admit.h"
#include "proxy/connection/conn.h"
#include "proxy/connection/transport.h"
#include "proxy/worker.h"

_Static_assert(PROXY_V2_MAX_DECODE_LEN < BLOCK_LEN, "a header fits into what is lent for it");

// --- whom to believe -----------------------------------------------------------------

enum status trust_init(struct trust *out, const struct listener_options *options,
                       struct errmsg *err) {
  if (options->proxy_protocol.num_from == 0) {
    return STATUS_OK;
  }
  out->networks = calloc(options->proxy_protocol.num_from, sizeof(struct network));
  if (out->networks == NULL) {
    return STATUS_MEMORY;
  }
  for (; out->num < options->proxy_protocol.num_from; out->num++) {
    if (network_parse(&out->networks[out->num], options->proxy_protocol.from[out->num], err) !=
        STATUS_OK) {
      errmsg_prefix(err, "listener \"%s\": proxy_protocol.from[%zu]", options->name, out->num);
      return STATUS_CONFIG;
    }
  }
  return STATUS_OK;
}

void trust_cleanup(struct trust *trust) {
  free(trust->networks);
  *trust = (struct trust){0};
}

bool trust_has(const struct trust *trust, const struct sockaddr *peer) {
  for (size_t i = 0; i < trust->num; i++) {
    if (network_has(&trust->networks[i], peer)) {
      return true;
    }
  }
  return false;
}

// --- the header ----------------------------------------------------------------------

static void copy_address(union peer *out, const struct sockaddr_storage *address) {
  *out = (union peer){0};
  out->sa.sa_family = address->ss_family;
  if (address->ss_family == AF_INET || address->ss_family == AF_INET6) {
    memcpy(out, address, sizeof(*out));
  }
}

static enum greeting take(struct conn *conn, const struct proxy_decoded *header) {
  if (!header->is_local && header->source.ss_family != AF_UNSPEC) {
    copy_address(&conn->peer, &header->source);
    copy_address(&conn->hs->destination, &header->destination);
    conn->hs->has_destination = true;
    // Its own, now that it is known; the balancer's were not looked at.
    if (!admit_client(conn, &header->source)) {
      return GREETING_REFUSED;
    }
  }
  return GREETING_OVER;
}

enum greeting greeting_read(struct conn *conn) {
  while (true) {
    struct proxy_decoded header;
    size_t len = 0;
    enum status st = STATUS_AGAIN;
    if (block_len(conn->in) > 0) {
      st = proxy_v2_decode(&header, &len, bytes_of(block_bytes(conn->in), block_len(conn->in)));
    }
    if (st == STATUS_OK) {
      enum greeting answer = take(conn, &header);
      block_use(conn->in, len);
      conn->bytes_in -= len;  // they are not the client's
      return answer;
    }
    if (st != STATUS_AGAIN) {
      return GREETING_WRONG;
    }
    st = transport_receive(conn);
    if (st != STATUS_OK) {
      return st == STATUS_AGAIN ? GREETING_WAITS : GREETING_LEFT;
    }
  }
}
