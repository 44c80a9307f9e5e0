// SPDX-License-Identifier: Apache-2.0
#include "dcissuer/audit.h"

#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/jsonline.h"

static void add_subject(struct jsonline *line, const struct audit_subject *subject) {
  jsonline_cstr(line, "client", subject->client.name);
  jsonline_hex(line, "client_spki_sha256",
               bytes_of(subject->client.spki_sha256, sizeof(subject->client.spki_sha256)));
  jsonline_cstr(line, "peer", subject->address);
}

static void add_certificate(struct jsonline *line, const struct issue *issue) {
  char hosts[AUDIT_MAX_HOSTS_LEN];
  size_t len = 0;
  if (issue->has_certificate_sha256) {
    jsonline_hex(line, "certificate_sha256",
                 bytes_of(issue->certificate_sha256, sizeof(issue->certificate_sha256)));
  }
  if (issue->certificate == NULL) {
    return;
  }
  for (size_t i = 0; i < issue->certificate->num_hosts; i++) {
    int num = snprintf(hosts + len, sizeof(hosts) - len, "%s%s", i == 0 ? "" : " ",
                       issue->certificate->hosts[i]);
    if (num < 0 || (size_t)num >= sizeof(hosts) - len) {
      break;  // num_names tells how many there are
    }
    len += (size_t)num;
  }
  jsonline_text(line, "names", bytes_of(hosts, len));
  jsonline_int(line, "num_names", (int64_t)issue->certificate->num_hosts);
}

static void add_credential(struct jsonline *line, const struct issue *issue) {
  char text[CLOCK_RFC3339_LEN];
  if (issue->spki != NULL) {
    jsonline_hex(line, "dc_spki_sha256", bytes_of(issue->spki_sha256, sizeof(issue->spki_sha256)));
  }
  if (issue->scheme != NULL) {
    jsonline_cstr(line, "scheme", issue->scheme->name);
  }
  if (issue->wanted_lifetime_s > 0) {
    jsonline_int(line, "lifetime_seconds", issue->wanted_lifetime_s);
  }
  if (issue->grant != NULL) {
    jsonline_cstr(line, "grant", issue->grant->label);
  }
  if (issue->expiry_s > 0) {
    jsonline_cstr(line, "expires_at", clock_format_rfc3339(text, issue->expiry_s));
  }
}

static enum status finish(struct sink *sink, struct jsonline *line) {
  struct bytes text = {0};
  if (jsonline_end(line, &text) != STATUS_OK || sink_write(sink, text) != STATUS_OK) {
    return STATUS_UNAVAILABLE;
  }
  return STATUS_OK;
}

enum status audit_write(struct sink *sink, const struct audit_subject *subject,
                        const struct issue *issue, int64_t wall_us) {
  struct jsonline line;
  jsonline_begin(&line);
  jsonline_time(&line, "time", wall_us);
  jsonline_cstr(&line, "result", issue->error == ISSUE_OK ? "issued" : "refused");
  if (issue->error != ISSUE_OK) {
    jsonline_cstr(&line, "reason", issue_error_word(issue->error));
    jsonline_cstr(&line, "detail", issue->why);
  }
  add_subject(&line, subject);
  add_certificate(&line, issue);
  add_credential(&line, issue);
  return finish(sink, &line);
}

enum status audit_write_request(struct sink *sink, const struct audit_subject *subject,
                                const char *reason, int64_t wall_us) {
  struct jsonline line;
  jsonline_begin(&line);
  jsonline_time(&line, "time", wall_us);
  jsonline_cstr(&line, "result", "refused");
  jsonline_cstr(&line, "reason", reason);
  jsonline_cstr(&line, "detail", "the whole request");
  add_subject(&line, subject);
  return finish(sink, &line);
}
