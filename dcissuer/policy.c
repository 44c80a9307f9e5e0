// SPDX-License-Identifier: Apache-2.0
#include "dcissuer/policy.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/client_set.h"

#define MAX_HOST_LEN 253u  // RFC 1035 in its dotted form; IP addresses are shorter
#define NS_PER_MINUTE INT64_C(60000000000)
#define MS_PER_S 1000

struct client {
  struct client_set who;
  struct grant grant;
};

struct policy {
  struct client *clients;
  size_t num_clients;
};

// --- hosts -------------------------------------------------------------------

static int compare(const void *a, const void *b) {
  const char *const *left = a;
  const char *const *right = b;
  return strcmp(*left, *right);
}

static bool has_text(char *const *texts, size_t num, const char *text) {
  return num > 0 && bsearch(&text, texts, num, sizeof(*texts), compare) != NULL;
}

static bool is_host_char(char c) {
  return isalnum((unsigned char)c) != 0 || c == '-' || c == '_' || c == '.' || c == ':';
}

// Names, addresses, and a star only as the first label.
static bool is_host_pattern(const char *pattern) {
  const char *rest = pattern;
  if (strcmp(pattern, "*") == 0) {
    return true;
  }
  if (strncmp(rest, "*.", 2) == 0) {
    rest += 2;
  }
  if (*rest == '\0' || *rest == '.' || strlen(pattern) > MAX_HOST_LEN ||
      strstr(rest, "..") != NULL || rest[strlen(rest) - 1] == '.') {
    return false;
  }
  for (; *rest != '\0'; rest++) {
    if (!is_host_char(*rest)) {
      return false;
    }
  }
  return true;
}

bool grant_covers(const struct grant *grant, const char *name) {
  if (has_text(grant->hosts, grant->num_hosts, name) ||
      has_text(grant->hosts, grant->num_hosts, "*")) {
    return true;
  }
  // Each dot but one at the very start: something must be below the suffix.
  for (const char *dot = *name == '\0' ? NULL : strchr(name + 1, '.'); dot != NULL;
       dot = strchr(dot + 1, '.')) {
    if (has_text(grant->suffixes, grant->num_suffixes, dot)) {
      return true;
    }
  }
  return false;
}

bool grant_has_scheme(const struct grant *grant, const struct scheme *scheme) {
  for (size_t i = 0; i < grant->num_schemes; i++) {
    if (grant->schemes[i] == scheme) {
      return true;
    }
  }
  return false;
}

// --- building ------------------------------------------------------------------

static enum status add_lower(char **texts, size_t *num, const char *text) {
  char *copy = strdup(text);
  if (copy == NULL) {
    return STATUS_MEMORY;
  }
  for (char *c = copy; *c != '\0'; c++) {
    *c = (char)tolower((unsigned char)*c);
  }
  texts[(*num)++] = copy;
  return STATUS_OK;
}

static enum status read_hosts(struct grant *grant, const struct client_options *options,
                              struct errmsg *err) {
  enum status st = STATUS_OK;
  grant->hosts = calloc(options->num_hosts + 1, sizeof(*grant->hosts));
  grant->suffixes = calloc(options->num_hosts + 1, sizeof(*grant->suffixes));
  if (grant->hosts == NULL || grant->suffixes == NULL) {
    return STATUS_MEMORY;
  }
  for (size_t i = 0; i < options->num_hosts && st == STATUS_OK; i++) {
    const char *host = options->hosts[i];
    if (!is_host_pattern(host)) {
      return errmsg_set(err, STATUS_CONFIG,
                        "clients, \"%s\": hosts[%zu] is \"%s\"; it must be a name, as "
                        "\"demo.test\", a name with all below it, as \"*.example\", or \"*\"",
                        options->label, i, host);
    }
    st = strncmp(host, "*.", 2) == 0 ? add_lower(grant->suffixes, &grant->num_suffixes, host + 1)
                                     : add_lower(grant->hosts, &grant->num_hosts, host);
  }
  qsort(grant->hosts, grant->num_hosts, sizeof(*grant->hosts), compare);
  qsort(grant->suffixes, grant->num_suffixes, sizeof(*grant->suffixes), compare);
  return st;
}

// RFC 9345, section 4.1: the key of a DC must not use the rsaEncryption OID, and
// that is the only kind of RSA key there is here.
static enum status read_schemes(struct grant *grant, const struct client_options *options,
                                struct errmsg *err) {
  if (options->num_schemes == 0) {
    grant->schemes[grant->num_schemes++] = scheme_by_name("ecdsa_secp256r1_sha256");
  }
  for (size_t i = 0; i < options->num_schemes; i++) {
    const struct scheme *scheme = scheme_by_name(options->schemes[i]);
    if (scheme == NULL || !scheme->may_sign_tls13 || scheme->kind == KEY_KIND_RSA) {
      return errmsg_set(err, STATUS_CONFIG,
                        "clients, \"%s\": schemes[%zu] is \"%s\"; a credential's key may have "
                        "ecdsa_secp256r1_sha256, ecdsa_secp384r1_sha384, ecdsa_secp521r1_sha512 or "
                        "ed25519",
                        options->label, i, options->schemes[i]);
    }
    if (!grant_has_scheme(grant, scheme)) {
      CHECK(grant->num_schemes < POLICY_MAX_SCHEMES);  // there are four
      grant->schemes[grant->num_schemes++] = scheme;
    }
  }
  return STATUS_OK;
}

static enum status add_client(struct policy *policy, const struct client_options *options,
                              struct errmsg *err) {
  enum status st = STATUS_OK;
  struct client *client = &policy->clients[policy->num_clients++];

  for (size_t i = 0; i + 1 < policy->num_clients; i++) {
    if (strcmp(policy->clients[i].grant.label, options->label) == 0) {
      TRY(errmsg_set(err, STATUS_CONFIG, "clients: the label \"%s\" is there twice",
                     options->label));
    }
  }
  st = client_set_read(&client->who, &options->who, err);
  if (st != STATUS_OK) {
    errmsg_prefix(err, "clients, \"%s\"", options->label);
    goto out;
  }
  client->grant.label = strdup(options->label);
  if (client->grant.label == NULL) {
    st = STATUS_MEMORY;
    goto out;
  }
  client->grant.max_lifetime_s = options->max_lifetime_ms / MS_PER_S;
  rate_limit_set(&client->grant.rate, options->rate_per_minute, NS_PER_MINUTE, options->burst);
  TRY(read_hosts(&client->grant, options, err));
  TRY(read_schemes(&client->grant, options, err));

out:
  return st;
}

enum status policy_new(struct policy **out, const struct options *options, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct policy *policy = calloc(1, sizeof(*policy));

  *out = NULL;
  if (policy == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  policy->clients = calloc(options->num_clients + 1, sizeof(*policy->clients));
  if (policy->clients == NULL) {
    st = STATUS_MEMORY;
    goto out;
  }
  for (size_t i = 0; i < options->num_clients; i++) {
    TRY(add_client(policy, &options->clients[i], err));
  }
  *out = policy;
  policy = NULL;

out:
  if (st == STATUS_MEMORY) {
    (void)errmsg_set(err, st, "no memory");
  }
  policy_free(policy);
  return st;
}

static void free_texts(char **texts, size_t num) {
  for (size_t i = 0; i < num; i++) {
    free(texts[i]);
  }
  free(texts);
}

void policy_free(struct policy *policy) {
  if (policy == NULL) {
    return;
  }
  for (size_t i = 0; i < policy->num_clients; i++) {
    struct client *client = &policy->clients[i];
    free_texts(client->grant.hosts, client->grant.num_hosts);
    free_texts(client->grant.suffixes, client->grant.num_suffixes);
    client_set_cleanup(&client->who);
    free(client->grant.label);
  }
  free(policy->clients);
  free(policy);
}

void policy_inherit(struct policy *policy, struct policy *old) {
  for (size_t i = 0; i < policy->num_clients; i++) {
    struct grant *to = &policy->clients[i].grant;
    for (size_t j = 0; j < old->num_clients; j++) {
      struct grant *from = &old->clients[j].grant;
      if (strcmp(to->label, from->label) == 0) {
        rate_limit_inherit(&to->rate, &from->rate);
      }
    }
  }
}

// --- asking ----------------------------------------------------------------------

void policy_of_client(struct client_rights *out, const struct policy *policy,
                      const uint8_t spki_sha256[32],
                      bool (*has_name)(const void *arg, const char *name), const void *arg) {
  *out = (struct client_rights){0};
  for (size_t i = 0; i < policy->num_clients && out->num_grants < POLICY_MAX_GRANTS_PER_CLIENT;
       i++) {
    if (client_set_has(&policy->clients[i].who, spki_sha256, has_name, arg)) {
      out->grants[out->num_grants++] = &policy->clients[i].grant;
    }
  }
}
