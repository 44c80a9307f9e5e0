// SPDX-License-Identifier: Apache-2.0
#include "proxy/handshake/compressing.h"

#include "common/tls/credential.h"
#include "proxy/connection/conn.h"
#include "proxy/worker.h"

static void find(SSL *ssl, struct tls_forms *out_forms[2], struct tls_message out_messages[2]) {
  const struct conn *conn = conn_of(ssl);
  const struct handshake *hs = conn->hs;
  const struct chain *chain = hs == NULL ? NULL : hs->choice.chain;

  if (chain == NULL) {
    return;  // out of order
  }
  tls_credential_forms(out_forms, out_messages, chain_tls(chain, worker_now_s(conn->worker)),
                       hs->dc);
}

static void on_used(SSL *ssl, enum tls_compression compression, bool is_prepared,
                    size_t saved_len) {
  struct worker_counters *counters = &conn_of(ssl)->worker->counters;

  count(&counters->compressed[compression]);
  if (!is_prepared) {
    count(&counters->compressed_anew[compression]);
  }
  counter_add_own(&counters->compressed_saved, saved_len);
}

const struct tls_compression_hooks compressing_hooks = {.find = find, .on_used = on_used};
