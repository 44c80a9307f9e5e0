// SPDX-License-Identifier: Apache-2.0
// Targets: issue_read and the cheap part of issue_judge (certificates included).
// The input is one entry of a request, JSON as a client sends it. Nothing that
// comes out of a fuzzer has a proof, so it must never pass.
#include <jansson.h>
#include <stdint.h>
#include <string.h>

#include "dcissuer/issue.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static bool any_name(const void *arg, const char *name) {
  (void)arg;
  (void)name;
  return true;
}

// Rights to everything, so that all checks are reached.
static struct issue_rules *rules(void) {
  static struct issue_rules rules;
  static struct client_rights rights;
  static struct policy *policy;
  static struct cert_set *set;
  static char all[] = "*";
  static char *texts[] = {all};
  static const uint8_t spki[32];
  struct client_options client = {.label = all,
                                  .who.names = texts,
                                  .who.num_names = 1,
                                  .hosts = texts,
                                  .num_hosts = 1,
                                  .max_lifetime_ms = 86400000};
  struct options options = {.clients = &client, .num_clients = 1};
  if (policy == NULL) {
    CHECK(policy_new(&policy, &options, NULL) == STATUS_OK);
    policy_of_client(&rights, policy, spki, any_name, NULL);
    CHECK(cert_set_load(&set, NULL, 0, NULL) == STATUS_OK);
    rules = (struct issue_rules){.certificates = set,
                                 .rights = &rights,
                                 .default_lifetime_s = 3600,
                                 .max_lifetime_s = 86400,
                                 .accept_presented = true};
    CHECK(cert_cache_new(&rules.cache, 4) == STATUS_OK);
  }
  return &rules;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  struct issue issue = {0};
  json_t *entry =
      json_loadb((const char *)data, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
  if (entry == NULL) {
    return 0;
  }
  if (issue_read(&issue, entry)) {
    CHECK(issue.error == ISSUE_OK && issue.scheme != NULL);
    CHECK(issue.spki_len > 0 && issue.spki_len <= DC_MAX_SPKI_LEN);
    CHECK(issue.proof_len > 0 && issue.proof_len <= DC_MAX_SIGNATURE_LEN);
    CHECK((issue.der != NULL) != issue.has_certificate_sha256);
    CHECK(issue.wanted_lifetime_s >= 0);
    CHECK(!issue_judge(&issue, rules(), 1795000000, 1));
  }
  CHECK(issue.error != ISSUE_OK && issue.why != NULL);
  issue_cleanup(&issue);
  json_decref(entry);
  return 0;
}
