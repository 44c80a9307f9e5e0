// SPDX-License-Identifier: Apache-2.0
#include "keyserver/sealed.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/base/file.h"
#include "common/base/log.h"
#include "common/tls/sealing.h"
#include "common/wire/region_policy.h"

#define MAX_TOLD 1000  // lines of one load about keys that do not open

struct sealed_opener {
  struct sealing_identity *identity;  // NULL: none
  size_t num_shut;
  struct region_attribute attributes[REGION_MAX_ATTRIBUTES];
  size_t num_attributes;
};

static const struct {
  const char *name;
  const char *why;
  enum log_level level;
} outcomes[SEALED_NUM_OUTCOMES] = {
    [SEALED_LOADED] = {"loaded", "", LOG_LEVEL_DEBUG},
    [SEALED_NOT_ADMITTED] = {"not_admitted",
                             "its policy does not admit this server's sealing.attributes",
                             LOG_LEVEL_INFO},
    [SEALED_NOT_RECIPIENT] = {"not_recipient",
                              "its policy admits this server, but it is not sealed to this "
                              "server's sealing.identity: deputyctl key reseal does that, where "
                              "one of its recipients is",
                              LOG_LEVEL_WARN},
    [SEALED_NO_IDENTITY] = {"no_identity", "this server has no sealing.identity to open it with",
                            LOG_LEVEL_WARN},
};

const char *sealed_outcome_name(enum sealed_outcome outcome) {
  return (unsigned)outcome < SEALED_NUM_OUTCOMES ? outcomes[outcome].name : "unknown";
}

enum status sealed_opener_new(struct sealed_opener **out, const struct sealing_options *options,
                              struct errmsg *err) {
  struct sealed_opener *opener = calloc(1, sizeof *opener);
  enum status st = STATUS_OK;

  *out = NULL;
  if (opener == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  for (; opener->num_attributes < options->num_attributes; opener->num_attributes++) {
    const size_t i = opener->num_attributes;
    if (region_attribute_parse(&opener->attributes[i], bytes_text(options->attributes[i]), err) !=
        STATUS_OK) {
      errmsg_prefix(err, "sealing.attributes[%zu]", i);
      st = STATUS_CONFIG;
      goto out;
    }
  }
  if (options->identity != NULL) {
    TRY(sealing_identity_read(&opener->identity, options->identity, err));
  }
  *out = opener;
  opener = NULL;

out:
  sealed_opener_free(opener);
  return st;
}

void sealed_opener_free(struct sealed_opener *opener) {
  if (opener != NULL) {
    if (opener->num_shut > MAX_TOLD) {
      log_info(0, "sealed_keys_not_loaded", "num=%zu: the first %d are named above",
               opener->num_shut, MAX_TOLD);
    }
    sealing_identity_free(opener->identity);
    free(opener);
  }
}

static enum sealed_outcome judge(const struct sealed_opener *opener,
                                 const struct sealed_key *sealed) {
  if (opener->identity == NULL) {
    return SEALED_NO_IDENTITY;
  }
  if (!region_policy_admits(&sealed->policy, opener->attributes, opener->num_attributes)) {
    return SEALED_NOT_ADMITTED;
  }
  return sealed_key_find(sealed, sealing_identity_id(opener->identity)) == NULL
             ? SEALED_NOT_RECIPIENT
             : SEALED_LOADED;
}

static void log_outcome(struct sealed_opener *opener, enum sealed_outcome outcome,
                        const struct sealed_key *sealed, const char *path) {
  char policy[2 * REGION_POLICY_MAX_LEN + 8];

  if (outcome != SEALED_LOADED && ++opener->num_shut > MAX_TOLD) {
    return;
  }
  log_line(outcomes[outcome].level, 0,
           outcome == SEALED_LOADED ? "sealed_key_loaded" : "sealed_key_not_loaded",
           "file=%s key=%.*s policy=%s%s%s%s", path, (int)sealed->label.len,
           (const char *)sealed->label.data, log_quote(policy, sizeof policy, sealed->policy_text),
           outcome == SEALED_LOADED ? "" : " why=\"", outcomes[outcome].why,
           outcome == SEALED_LOADED ? "" : "\"");
}

enum status sealed_load(EVP_PKEY **out, char out_label[KEYGEN_MAX_LABEL_LEN + 1],
                        enum sealed_outcome *out_outcome, struct sealed_opener *opener,
                        const char *path, struct errmsg *err) {
  struct sealed_key *sealed = NULL;
  uint8_t *text = NULL;
  uint8_t *bytes = NULL;
  size_t len = 0;
  enum status st = STATUS_OK;

  *out = NULL;
  TRY(file_read(&text, &len, path, SEALED_KEY_FILE_MAX_LEN, err));
  st = sealing_read(&sealed, &bytes, bytes_of(text, len), err);
  if (st == STATUS_OK) {
    *out_outcome = judge(opener, sealed);
    if (*out_outcome == SEALED_LOADED) {
      st = sealing_open(out, sealed, opener->identity, err);
    }
  }
  if (st != STATUS_OK) {
    errmsg_prefix(err, "%s", path);
    goto out;
  }
  (void)snprintf(out_label, KEYGEN_MAX_LABEL_LEN + 1, "%.*s", (int)sealed->label.len,
                 (const char *)sealed->label.data);
  log_outcome(opener, *out_outcome, sealed, path);

out:
  free(sealed);
  free(bytes);
  free(text);
  return st;
}
