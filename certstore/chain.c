// SPDX-License-Identifier: Apache-2.0
#include "certstore/chain.h"

#include <errno.h>
#include <openssl/pool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "certstore/staple.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/tls/tls_error.h"

static struct bytes der_of(const CRYPTO_BUFFER *cert) {
  return bytes_of(CRYPTO_BUFFER_data(cert), CRYPTO_BUFFER_len(cert));
}

static const struct state *state_of_id(struct states *states, enum state_level level,
                                       const uint8_t id[32]) {
  char hex[65];
  return states_get(states, level, bytes_to_hex(hex, bytes_of(id, 32)));
}

static void log_staple_ignored(const struct chain *chain, enum status st,
                               const struct errmsg *err) {
  char path[256];
  char why[512];
  log_warn(0, "staple_ignored", "chain=%s status=%s must_staple=%d revoked=%d why=%s",
           log_quote(path, sizeof(path), bytes_text(chain->path)), status_name(st),
           (int)chain->info.is_must_staple, (int)chain->is_revoked,
           log_quote(why, sizeof(why), bytes_text(err->text)));
}

static void log_staple_unchecked(const struct chain *chain) {
  char path[256];
  log_warn(0, "staple_signature_unchecked", "chain=%s why=\"%s\"",
           log_quote(path, sizeof(path), bytes_text(chain->path)),
           "the issuer's certificate is not in the chain file");
}

bool chain_reason_ends_sessions(int reason) {
  enum { AFFILIATION_CHANGED = 3, SUPERSEDED = 4, CESSATION = 5, PRIVILEGE_WITHDRAWN = 9 };
  return reason != AFFILIATION_CHANGED && reason != SUPERSEDED && reason != CESSATION &&
         reason != PRIVILEGE_WITHDRAWN;
}

// read_staple looks for the response beside the chain and leaves it in *out (new
// memory) if it may be served. There is nothing to refuse here: a chain without a
// good staple is still a chain, and chain_judge knows what it may do.
static void read_staple(struct chain *chain, uint8_t **out, size_t *out_len) {
  enum status st = STATUS_OK;
  struct errmsg err = {0};
  struct staple_facts facts = {0};
  struct bytes issuer = {0};
  uint8_t *data = NULL;
  size_t len = 0;
  char *path = NULL;

  if (asprintf(&path, "%s%s", chain->path, CHAIN_STAPLE_SUFFIX) < 0) {
    path = NULL;
    st = errmsg_set(&err, STATUS_MEMORY, "no memory");
    goto out;
  }
  if (access(path, F_OK) != 0 && errno == ENOENT) {
    goto out;
  }
  TRY(file_read(&data, &len, path, STAPLE_MAX_LEN, &err));
  if (chain->num_certs > 1) {
    issuer = der_of(chain->certs[1]);
  }
  TRY(staple_check(&facts, bytes_of(data, len), der_of(chain->certs[0]), issuer, clock_wall_s(),
                   &err));
  if (!facts.is_signature_checked) {
    log_staple_unchecked(chain);
  }
  chain->has_staple = true;
  chain->staple_ends_s = facts.next_update_s;
  *out = data;
  *out_len = len;
  data = NULL;

out:
  if (st != STATUS_OK) {
    chain->is_revoked = facts.is_revoked;
    chain->is_resume_off = facts.is_revoked && chain_reason_ends_sessions(facts.revoked_reason);
    log_staple_ignored(chain, st, &err);
  }
  free(data);
  free(path);
}

static enum status make_tls(struct chain *chain, struct bytes staple,
                            const SSL_PRIVATE_KEY_METHOD *method, struct errmsg *err) {
  enum status st = STATUS_OK;

  if (method == NULL) {
    goto out;
  }
  TRY(tls_chain_new(&chain->tls, chain->certs, chain->num_certs, staple, method, NULL));
  tls_chain_compress(chain->tls);
  if (chain->has_staple) {
    TRY(tls_chain_new(&chain->tls_bare, chain->certs, chain->num_certs, (struct bytes){0}, method,
                      NULL));
  }

out:
  if (st != STATUS_OK) {
    char reason[TLS_ERROR_TEXT_LEN];
    (void)errmsg_set(err, st, "%s: this leaf cannot be served: %s %s", chain->path, status_name(st),
                     tls_error_drain(reason, sizeof(reason)));
  }
  return st;
}

// name_chain copies what it is called, and makes the rest empty. On failure *out is to
// be freed as well.
static enum status name_chain(struct chain **out, const char *label, const char *path,
                              struct errmsg *err) {
  struct chain *chain = calloc(1, sizeof(*chain));
  if (chain != NULL) {
    chain->label = strdup(label);
    chain->path = strdup(path);
  }
  *out = chain;
  return chain != NULL && chain->label != NULL && chain->path != NULL
             ? STATUS_OK
             : errmsg_set(err, STATUS_MEMORY, "%s: no memory", path);
}

static enum status read_info(struct chain *chain, struct errmsg *err) {
  enum status st = cert_info_read(&chain->info, der_of(chain->certs[0]), err);
  if (st != STATUS_OK) {
    errmsg_prefix(err, "%s", chain->path);
  }
  return st;
}

enum status chain_load(struct chain **out, const char *label, const char *path,
                       struct states *states, const SSL_PRIVATE_KEY_METHOD *method,
                       struct cert_pool *pool, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct chain *chain = NULL;
  uint8_t *staple = NULL;
  size_t staple_len = 0;

  TRY(name_chain(&chain, label, path, err));
  chain->pool = pool;
  TRY(cert_chain_read(chain->certs, &chain->num_certs, path, pool, err));
  TRY(read_info(chain, err));
  chain->key_state = state_of_id(states, STATE_LEVEL_KEY, chain->info.key_id);
  chain->ca_state = state_of_id(states, STATE_LEVEL_CA, chain->info.ca_id);
  if (chain->key_state == NULL || chain->ca_state == NULL) {
    TRY(errmsg_set(err, STATUS_MEMORY, "%s: no memory", path));
  }
  read_staple(chain, &staple, &staple_len);
  TRY(make_tls(chain, bytes_of(staple, staple_len), method, err));
  *out = chain;
  chain = NULL;

out:
  free(staple);
  chain_free(chain);
  return st;
}

enum status chain_make(struct chain **out, const struct chain_parts *parts,
                       const SSL_PRIVATE_KEY_METHOD *method, struct cert_pool *pool,
                       struct errmsg *err) {
  enum status st = STATUS_OK;
  struct chain *chain = NULL;

  if (parts->num_certs == 0 || parts->num_certs > CERT_MAX_IN_CHAIN) {
    return errmsg_set(err, STATUS_LIMIT, "%s: %zu certificates", parts->path, parts->num_certs);
  }
  TRY(name_chain(&chain, parts->label, parts->path, err));
  chain->pool = pool;
  for (; chain->num_certs < parts->num_certs; chain->num_certs++) {
    const struct bytes der = parts->certs[chain->num_certs];
    chain->certs[chain->num_certs] = cert_pool_take(chain->num_certs == 0 ? NULL : pool, der);
    if (chain->certs[chain->num_certs] == NULL) {
      TRY(errmsg_set(err, STATUS_MEMORY, "%s: no memory", parts->path));
    }
  }
  TRY(read_info(chain, err));
  chain->has_staple = parts->staple.len > 0;
  chain->staple_ends_s = chain->has_staple ? parts->staple_ends_s : 0;
  chain->is_revoked = parts->is_revoked;
  chain->is_resume_off = parts->is_revoked && chain_reason_ends_sessions(parts->revoked_reason);
  chain->key_state = parts->key_state;
  chain->ca_state = parts->ca_state;
  TRY(make_tls(chain, parts->staple, method, err));
  *out = chain;
  chain = NULL;

out:
  chain_free(chain);
  return st;
}

void chain_free(struct chain *chain) {
  if (chain == NULL) {
    return;
  }
  tls_dc_unref(atomic_load(&chain->dc));
  tls_chain_unref(chain->tls);
  tls_chain_unref(chain->tls_bare);
  cert_info_cleanup(&chain->info);
  cert_chain_give(chain->certs, chain->num_certs, chain->pool);
  free(chain->label);
  free(chain->path);
  free(chain);
}

const char *chain_fault_name(enum chain_fault fault) {
  static const char *const names[CHAIN_NUM_FAULTS] = {
      [CHAIN_USABLE] = "usable",       [CHAIN_EXPIRED] = "expired",
      [CHAIN_REVOKED] = "revoked",     [CHAIN_NOT_YET_VALID] = "not_yet_valid",
      [CHAIN_KEY_OUT] = "key_out",     [CHAIN_CA_OUT] = "ca_out",
      [CHAIN_NO_STAPLE] = "no_staple",
  };
  CHECK((unsigned)fault < CHAIN_NUM_FAULTS);
  return names[fault];
}

static uint32_t service_of(const struct state *state) {
  return atomic_load_explicit(&state->service, memory_order_relaxed);
}

// The narrower word wins: what is said of the key, then what is said of its CA.
// A supposition stands for a word at its own level, and no more: a key that is in
// service by word of its own stays in service under a CA that goes out.
static enum chain_fault judge_service(const struct chain *chain,
                                      const struct state *out_of_service) {
  uint32_t key =
      chain->key_state == out_of_service ? STATE_OUT_OF_SERVICE : service_of(chain->key_state);
  if (key != STATE_SILENT) {
    return key == STATE_OUT_OF_SERVICE ? CHAIN_KEY_OUT : CHAIN_USABLE;
  }
  uint32_t ca =
      chain->ca_state == out_of_service ? STATE_OUT_OF_SERVICE : service_of(chain->ca_state);
  return ca == STATE_OUT_OF_SERVICE ? CHAIN_CA_OUT : CHAIN_USABLE;
}

enum chain_fault chain_judge_if(const struct chain *chain, int64_t now_s,
                                const struct state *out_of_service) {
  // RFC 5280, section 4.1.2.5: both ends belong to the validity.
  if (now_s > chain->info.not_after_s) {
    return CHAIN_EXPIRED;
  }
  if (now_s < chain->info.not_before_s) {
    return CHAIN_NOT_YET_VALID;
  }
  if (chain->is_revoked) {
    return CHAIN_REVOKED;
  }
  enum chain_fault fault = judge_service(chain, out_of_service);
  if (fault != CHAIN_USABLE) {
    return fault;
  }
  // RFC 7633: a client that knows the feature refuses this leaf without a staple.
  if (chain->info.is_must_staple && !(chain->has_staple && now_s < chain->staple_ends_s)) {
    return CHAIN_NO_STAPLE;
  }
  return CHAIN_USABLE;
}

enum chain_fault chain_judge(const struct chain *chain, int64_t now_s) {
  return chain_judge_if(chain, now_s, NULL);
}
