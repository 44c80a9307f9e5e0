// SPDX-License-Identifier: Apache-2.0
#include "keyserver/rights.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/client_set.h"
#include "common/base/log.h"

#define NS_PER_S INT64_C(1000000000)

struct grant_entry {
  struct grant grant;
  struct client_set who;
};

struct rights {
  struct grant_entry *entries;
  size_t num_entries;
};

void rights_free(struct rights *rights) {
  if (rights == NULL) {
    return;
  }
  for (size_t i = 0; i < rights->num_entries; i++) {
    free(rights->entries[i].grant.keys);
    client_set_cleanup(&rights->entries[i].who);
  }
  free(rights->entries);
  free(rights);
}

size_t rights_num_grants(const struct rights *rights) { return rights->num_entries; }

// --- reading the configuration ---------------------------------------------------

static void warn_of_useless_pattern(const struct key_pattern *pattern, const struct keystore *ks,
                                    const char *label, const char *text) {
  for (size_t i = 0; i < keystore_num_keys(ks); i++) {
    if (key_pattern_fits(pattern, keystore_key(ks, i))) {
      return;
    }
  }
  log_warn(0, "grant_without_key", "client=%s key=%s: no key fits this at present", label, text);
}

// warn_of_blind_credentials: a digest does not show that it is a credential's
// (docs/THREAT-MODEL.md, section 2). One key is enough for a line.
static void warn_of_blind_credentials(const struct key_pattern *pattern, const struct keystore *ks,
                                      const char *label) {
  for (size_t i = 0; i < keystore_num_keys(ks); i++) {
    const struct key *key = keystore_key(ks, i);
    if (key->may_delegate && key_pattern_fits(pattern, key)) {
      log_warn(0, "blind_may_delegate",
               "client=%s key=%s: its certificate has DelegationUsage, so whoever has its blind "
               "signatures can make delegated credentials",
               label, key->label);
      return;
    }
  }
}

static enum status read_keys(struct grant_entry *entry, const struct grant_options *from,
                             const struct keystore *ks, struct errmsg *err) {
  entry->grant.keys = calloc(from->num_keys + 1, sizeof entry->grant.keys[0]);
  if (entry->grant.keys == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  for (size_t i = 0; i < from->num_keys; i++) {
    const enum status st = key_pattern_parse(&entry->grant.keys[i], from->keys[i], err);
    if (st != STATUS_OK) {
      return st;
    }
    entry->grant.num_keys++;
    warn_of_useless_pattern(&entry->grant.keys[i], ks, from->label, from->keys[i]);
    if ((entry->grant.purposes & (1u << PURPOSE_BLIND)) != 0) {
      warn_of_blind_credentials(&entry->grant.keys[i], ks, from->label);
    }
  }
  return STATUS_OK;
}

static enum status read_purposes(struct grant_entry *entry, const struct grant_options *from,
                                 struct errmsg *err) {
  for (size_t i = 0; i < from->num_purposes; i++) {
    enum purpose purpose = PURPOSE_NONE;
    if (purpose_from_name(&purpose, from->purposes[i]) != STATUS_OK) {
      return errmsg_set(err, STATUS_CONFIG,
                        "purpose \"%s\" is none of: tls13, tls12, dc, csr, blind, generate",
                        from->purposes[i]);
    }
    entry->grant.purposes |= 1u << purpose;
  }
  return STATUS_OK;
}

static void read_limits(struct grant_entry *entry, const struct grant_options *from) {
  entry->grant.label = from->label;
  entry->grant.dc_max_lifetime_s = from->dc_max_lifetime_ms / 1000;
  rate_limit_set(&entry->grant.rate, from->rate_per_s, NS_PER_S, from->burst);
}

static enum status read_grant(struct grant_entry *entry, const struct grant_options *from,
                              const struct keystore *ks, struct errmsg *err) {
  enum status st = STATUS_OK;

  read_limits(entry, from);
  TRY(client_set_read(&entry->who, &from->who, err));
  TRY(read_purposes(entry, from, err));
  TRY(read_keys(entry, from, ks, err));

out:
  return st;
}

enum status rights_new(struct rights **out, const struct options *options,
                       const struct keystore *ks, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct rights *rights = calloc(1, sizeof *rights);

  *out = NULL;
  if (rights == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  rights->entries = calloc(options->num_clients + 1, sizeof rights->entries[0]);
  if (rights->entries == NULL) {
    free(rights);
    return errmsg_set(err, STATUS_MEMORY, "no memory for %zu grants", options->num_clients);
  }
  for (size_t i = 0; i < options->num_clients; i++) {
    rights->num_entries++;  // from here on rights_free cleans it, half-read or not
    st = read_grant(&rights->entries[i], &options->clients[i], ks, err);
    if (st != STATUS_OK) {
      errmsg_prefix(err, "clients[%zu] (%s)", i, options->clients[i].label);
      goto out;
    }
  }
  *out = rights;
  rights = NULL;

out:
  rights_free(rights);
  return st;
}

// --- answers -------------------------------------------------------------------------

void rights_of_client(struct client_rights *out, const struct rights *rights,
                      const uint8_t spki_sha256[32],
                      bool (*has_name)(const void *arg, const char *name), const void *arg) {
  out->num_grants = 0;
  for (size_t i = 0; i < rights->num_entries; i++) {
    if (out->num_grants == RIGHTS_MAX_GRANTS_PER_CLIENT) {
      return;
    }
    if (client_set_has(&rights->entries[i].who, spki_sha256, has_name, arg)) {
      out->grants[out->num_grants++] = &rights->entries[i].grant;
    }
  }
}

static bool grants_key(const struct grant *grant, const struct key *key) {
  for (size_t i = 0; i < grant->num_keys; i++) {
    if (key_pattern_fits(&grant->keys[i], key)) {
      return true;
    }
  }
  return false;
}

static bool has_purpose(const struct grant *grant, enum purpose purpose) {
  return (grant->purposes & (1u << purpose)) != 0;
}

void rights_of_key(struct key_rights *out, const struct client_rights *client,
                   const struct key *key) {
  *out = (struct key_rights){0};
  for (size_t i = 0; i < client->num_grants; i++) {
    struct grant *grant = client->grants[i];
    if (!grants_key(grant, key)) {
      continue;
    }
    for (unsigned p = 0; p < PURPOSE_NUM; p++) {
      if (has_purpose(grant, (enum purpose)p) && out->by_purpose[p] == NULL) {
        out->by_purpose[p] = grant;
      }
    }
  }
}

// grants_new_key: one that is not there yet has a label, and nothing else that could
// fit.
static bool grants_new_key(const struct grant *grant, const char *label) {
  const struct key wanted = {.label = (char *)(uintptr_t)label};

  for (size_t k = 0; k < grant->num_keys; k++) {
    if (grant->keys[k].kind != KEY_PATTERN_SKI && key_pattern_fits(&grant->keys[k], &wanted)) {
      return true;
    }
  }
  return false;
}

struct grant *rights_to_generate(const struct client_rights *client, const char *label) {
  for (size_t i = 0; i < client->num_grants; i++) {
    struct grant *grant = client->grants[i];
    if (has_purpose(grant, PURPOSE_GENERATE) && grants_new_key(grant, label)) {
      return grant;
    }
  }
  return NULL;
}

void rights_trace(struct rights_trace *out, const struct rights *rights, size_t index,
                  const uint8_t spki_sha256[32],
                  bool (*has_name)(const void *arg, const char *name), const void *arg,
                  const struct key *key, const char *label, enum purpose purpose) {
  const struct grant_entry *entry = &rights->entries[index];

  out->grant = &entry->grant;
  out->fits_client = client_set_has(&entry->who, spki_sha256, has_name, arg);
  out->fits_key =
      key != NULL ? grants_key(&entry->grant, key) : grants_new_key(&entry->grant, label);
  out->has_purpose = has_purpose(&entry->grant, purpose);
}
