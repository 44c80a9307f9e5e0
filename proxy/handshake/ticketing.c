// SPDX-License-Identifier: Apache-2.0
#include "proxy/handshake/ticketing.h"

#include <stdatomic.h>
#include <string.h>

#include "proxy/connection/conn.h"
#include "proxy/worker.h"

static int64_t earlier(int64_t a, int64_t b) { return a < b ? a : b; }

static void on_seal(SSL *ssl, struct ticket_facts *out) {
  struct conn *conn = conn_of(ssl);
  const struct handshake *hs = conn->hs;
  const struct ticket_options *options = NULL;
  int64_t ends_s = 0;

  if (hs == NULL || hs->choice.chain == NULL) {
    *out = (struct ticket_facts){0};  // out of order: a ticket that has ended
    return;
  }
  options = &hs->view->site->options.tickets;
  ends_s = worker_now_s(conn->worker) + options->lifetime_ms / 1000;
  if (SSL_session_reused(ssl)) {
    // Facts of the first, full handshake: they pass on unchanged.
    *out = hs->resumed;
    out->ends_s = earlier(ends_s, hs->resumed.ends_s);
    return;
  }
  if (hs->dc_ends_s != 0) {
    ends_s = earlier(ends_s, hs->dc_ends_s + options->past_dc_ms / 1000);
  }
  if (conn->client_identity != NULL) {
    ends_s = earlier(ends_s, conn->client_identity->not_after_s);
  }
  out->ends_s = ends_s;
  memcpy(out->leaf_sha256, hs->choice.chain->info.sha256, sizeof(out->leaf_sha256));
}

static bool is_compromised(const struct state *state) {
  return state != NULL && atomic_load_explicit(&state->is_compromised, memory_order_relaxed);
}

// The chain of the name with this leaf, or NULL. A session made for one name is
// not resumed for another: its certificate was checked against the first.
static const struct chain *find_chain(const struct cert_name *name, const uint8_t sha256[32]) {
  for (size_t i = 0; i < name->num_levels; i++) {
    const struct cert_level *level = &name->levels[i];
    for (size_t j = 0; j < level->num_chains; j++) {
      if (memcmp(level->chains[j]->info.sha256, sha256, 32) == 0) {
        return level->chains[j];
      }
    }
  }
  return NULL;
}

static bool may_resume(SSL *ssl, const struct ticket_facts *facts) {
  struct handshake *hs = conn_of(ssl)->hs;
  const struct chain *chain = NULL;

  if (hs == NULL || hs->name == NULL || hs->is_resume_off) {
    return false;
  }
  chain = find_chain(hs->name, facts->leaf_sha256);
  if (chain == NULL || chain->is_resume_off || is_compromised(chain->key_state) ||
      is_compromised(chain->ca_state)) {
    return false;
  }
  hs->resumed = *facts;
  hs->has_opened_ticket = true;
  return true;
}

const struct ticket_hooks ticketing_hooks = {
    .on_seal = on_seal,
    .may_resume = may_resume,
};
