// SPDX-License-Identifier: Apache-2.0
#include "proxy/handshake/tls_policy.h"

#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "common/tls/context.h"

// Before whatever else is hashed: a session is resumed by this program alone.
static const char context_word[] = "deputy-proxy";

struct loaded_clients {
  struct loaded_clients *next;
  struct client_auth *auth;
  const struct client_options *options;
};

// --- certificates of clients ---------------------------------------------------------------

static bool same_files(const struct client_options *a, const struct client_options *b) {
  if (strcmp(a->ca, b->ca) != 0 || a->depth != b->depth || a->num_crl != b->num_crl ||
      a->crl_when_stale != b->crl_when_stale) {
    return false;
  }
  for (size_t i = 0; i < a->num_crl; i++) {
    if (strcmp(a->crl[i], b->crl[i]) != 0) {
      return false;
    }
  }
  return true;
}

// load_clients borrows what was loaded from the same files, or loads it.
static enum status load_clients(const struct client_auth **out, struct tls_policies *policies,
                                const struct client_options *options, struct errmsg *err) {
  const struct tls_identity identity = {.ca = options->ca,
                                        .crl = options->crl,
                                        .num_crl = options->num_crl,
                                        .crl_when_stale = options->crl_when_stale};
  struct loaded_clients *entry = policies->loaded;
  enum status st = STATUS_OK;

  while (entry != NULL && !same_files(entry->options, options)) {
    entry = entry->next;
  }
  if (entry == NULL) {
    entry = calloc(1, sizeof *entry);
    if (entry == NULL) {
      return STATUS_MEMORY;
    }
    entry->options = options;
    st = client_auth_new(&entry->auth, &identity, (unsigned)options->depth, err);
    if (st != STATUS_OK) {
      errmsg_prefix(err, "tls.client_certificates");
      free(entry);
      return st;
    }
    entry->next = policies->loaded;
    policies->loaded = entry;
  }
  *out = entry->auth;
  return STATUS_OK;
}

// --- making --------------------------------------------------------------------------------

static uint16_t version_code(int option) {
  return option == TLS_OPTION_13 ? TLS1_3_VERSION : TLS1_2_VERSION;
}

// All machines with the same files come to the same, so that they can share tickets.
static void make_context(struct tls_policy *policy) {
  SHA256_CTX hash;

  SHA256_Init(&hash);
  SHA256_Update(&hash, context_word, sizeof context_word);
  if (policy->clients != NULL) {
    const uint8_t how = policy->is_required ? 2 : 1;
    SHA256_Update(&hash, &how, 1);
    SHA256_Update(&hash, client_auth_id(policy->clients), TRUST_ID_LEN);
  }
  SHA256_Final(policy->session_context, &hash);
}

static enum status parse_groups(struct tls_policy *policy, const char *text, struct errmsg *err) {
  const enum status st = tls_groups_parse(&policy->groups, text, err);

  if (st != STATUS_OK) {
    errmsg_prefix(err, "tls.groups is \"%s\"", text);
  }
  return st;
}

static enum status set_clients(struct tls_policy *policy, struct tls_policies *policies, int mode,
                               const struct client_options *files, struct errmsg *err) {
  policy->clients = NULL;
  policy->is_required = mode == CLIENT_REQUIRED;
  return mode == CLIENT_OFF ? STATUS_OK : load_clients(&policy->clients, policies, files, err);
}

enum status tls_policies_init(struct tls_policies *out, const struct tls_options *options,
                              struct errmsg *err) {
  enum status st = STATUS_OK;
  struct tls_policy *base = &out->base;

  *out = (struct tls_policies){.options = options};
  base->min_version = version_code(options->min_version);
  base->max_version = version_code(options->max_version);
  base->is_base = true;
  TRY(parse_groups(base, options->groups, err));
  TRY(set_clients(base, out, options->clients.mode, &options->clients, err));
  make_context(base);

out:
  return st;
}

static bool inherits_all(const struct name_tls_options *name) {
  return name->min_version == TLS_OPTION_INHERIT && name->max_version == TLS_OPTION_INHERIT &&
         name->groups == NULL && name->clients.mode == CLIENT_INHERIT;
}

static bool is_same(const struct tls_policy *a, const struct tls_policy *b) {
  return a->min_version == b->min_version && a->max_version == b->max_version &&
         tls_groups_equal(&a->groups, &b->groups) && a->clients == b->clients &&
         a->is_required == b->is_required;
}

// fill makes what the name says of the base's copy.
static enum status fill(struct tls_policy *policy, struct tls_policies *policies,
                        const struct name_tls_options *name, struct errmsg *err) {
  const struct client_options *clients = &name->clients;
  enum status st = STATUS_OK;

  if (name->min_version != TLS_OPTION_INHERIT) {
    policy->min_version = version_code(name->min_version);
  }
  if (name->max_version != TLS_OPTION_INHERIT) {
    policy->max_version = version_code(name->max_version);
  }
  if (name->groups != NULL) {
    TRY(parse_groups(policy, name->groups, err));
  }
  if (clients->mode != CLIENT_INHERIT) {
    TRY(set_clients(policy, policies, clients->mode,
                    clients->ca != NULL ? clients : &policies->options->clients, err));
  }
  make_context(policy);

out:
  return st;
}

enum status tls_policies_add(const struct tls_policy **out, struct tls_policies *policies,
                             const struct name_tls_options *name, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct tls_policy *base = &policies->base;
  struct tls_policy made = *base;
  struct tls_policy *policy = NULL;

  *out = base;
  if (inherits_all(name)) {
    return STATUS_OK;
  }
  TRY(fill(&made, policies, name, err));
  if (is_same(&made, base)) {
    return STATUS_OK;
  }
  for (policy = policies->more; policy != NULL && !is_same(policy, &made); policy = policy->next) {
  }
  if (policy == NULL) {
    policy = malloc(sizeof *policy);
    if (policy == NULL) {
      return STATUS_MEMORY;
    }
    made.is_base = made.min_version == base->min_version && made.max_version == base->max_version &&
                   tls_groups_equal(&made.groups, &base->groups);
    made.next = policies->more;
    *policy = made;
    policies->more = policy;
  }
  *out = policy;

out:
  return st;
}

void tls_policies_cleanup(struct tls_policies *policies) {
  while (policies->more != NULL) {
    struct tls_policy *next = policies->more->next;
    free(policies->more);
    policies->more = next;
  }
  while (policies->loaded != NULL) {
    struct loaded_clients *next = policies->loaded->next;
    client_auth_free(policies->loaded->auth);
    free(policies->loaded);
    policies->loaded = next;
  }
}

// --- handshakes ----------------------------------------------------------------------------

enum status tls_policy_set_default(SSL_CTX *ctx, const struct tls_policy *policy) {
  if (SSL_CTX_set_min_proto_version(ctx, policy->min_version) != 1 ||
      SSL_CTX_set_max_proto_version(ctx, policy->max_version) != 1) {
    return STATUS_MEMORY;
  }
  return tls_groups_set_default(ctx, &policy->groups);
}

enum status tls_policy_begin(SSL *ssl, const struct tls_policy *policy) {
  if (policy->is_base) {
    return STATUS_OK;
  }
  if (SSL_set_min_proto_version(ssl, policy->min_version) != 1 ||
      SSL_set_max_proto_version(ssl, policy->max_version) != 1) {
    return STATUS_MEMORY;
  }
  return tls_groups_set(ssl, &policy->groups);
}

enum status tls_policy_finish(SSL *ssl, const struct tls_policy *policy,
                              enum ssl_verify_result_t (*verify)(SSL *ssl, uint8_t *out_alert)) {
  const int version = SSL_version(ssl);

  if (version < policy->min_version || version > policy->max_version) {
    return STATUS_REFUSED;
  }
  if (SSL_set_session_id_context(ssl, policy->session_context, TLS_POLICY_CONTEXT_LEN) != 1) {
    return STATUS_MEMORY;
  }
  return policy->clients == NULL
             ? STATUS_OK
             : client_auth_ask(ssl, policy->clients, policy->is_required, verify);
}
