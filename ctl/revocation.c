// SPDX-License-Identifier: Apache-2.0
// What the CA says of a chain's leaf, asked from here: staples into the file that the
// proxy reads beside a chain, and revocation by OCSP and CRL. No proxy is needed.
#include <errno.h>
#include <openssl/pool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "certstore/chain.h"
#include "certstore/staple.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/revocation/crl.h"
#include "common/revocation/ocsp_ask.h"
#include "common/revocation/sources.h"
#include "ctl/ctl.h"
#include "ctl/grid.h"

#define MAX_PATH_LEN 4096u
#define CRL_LIMIT_MS 60000
#define MIB_LEN ((size_t)1 << 20)
#define MAX_CRL_MIB 1024ul
#define MAX_REPORTS (1u + SOURCES_MAX_CRL_URLS)

// What one source says.
struct report {
  const char *kind;  // "ocsp", "crl"
  const char *url;   // borrowed from the sources
  bool is_told;      // it can be believed
  enum ocsp_status status;
  int64_t revoked_s;
  int reason;
  int64_t this_update_s;
  int64_t next_update_s;
  const char *fault;  // "none" if told
  struct errmsg err;  // why not
  uint8_t *response;  // new: the OCSP response
  size_t response_len;
  bool is_unreachable;
};

// One command's chain, and the loop on which it asks.
struct asking {
  CRYPTO_BUFFER *certs[CERT_MAX_IN_CHAIN];
  size_t num_certs;
  struct cert_info info;
  struct leaf_sources sources;
  struct loop *loop;
  struct http_client *http;
  struct report reports[MAX_REPORTS];
  size_t num_reports;
  size_t num_open;
  size_t max_crl_len;
};

static enum ctl_exit fail(enum ctl_exit code, const char *text) {
  (void)fprintf(stderr, "deputyctl: ");
  grid_clean(stderr, text);
  (void)fputc('\n', stderr);
  return code;
}

static struct bytes der_of(const CRYPTO_BUFFER *cert) {
  return bytes_of(CRYPTO_BUFFER_data(cert), CRYPTO_BUFFER_len(cert));
}

static struct bytes leaf_of(const struct asking *asking) { return der_of(asking->certs[0]); }

static struct bytes issuer_of(const struct asking *asking) {
  return asking->num_certs > 1 ? der_of(asking->certs[1]) : (struct bytes){0};
}

static enum status asking_open(struct asking *asking, const struct ctl_args *args,
                               struct errmsg *err) {
  enum status st = STATUS_OK;

  TRY(cert_chain_read(asking->certs, &asking->num_certs, args->chain, NULL, err));
  TRY(cert_info_read(&asking->info, leaf_of(asking), err));
  st = leaf_sources_read(&asking->sources, leaf_of(asking));
  if (st != STATUS_OK) {
    st = errmsg_set(err, st, "%s: the leaf's own sources cannot be read", args->chain);
  }

out:
  return st;
}

static enum status asking_start(struct asking *asking, struct errmsg *err) {
  enum status st = STATUS_OK;

  TRY(http_client_check_library(err));
  st = loop_new(&asking->loop);
  if (st == STATUS_OK) {
    st = http_client_new(&asking->http, asking->loop);
  }
  if (st != STATUS_OK) {
    (void)errmsg_set(err, st, "no memory");
  }

out:
  return st;
}

static void asking_close(struct asking *asking) {
  http_client_free(asking->http);
  loop_free(asking->loop);
  for (size_t i = 0; i < asking->num_reports; i++) {
    free(asking->reports[i].response);
  }
  leaf_sources_cleanup(&asking->sources);
  cert_info_cleanup(&asking->info);
  cert_chain_free(asking->certs, asking->num_certs);
}

// --- asking --------------------------------------------------------------------------

// Which report an answer fills.
struct slot {
  struct asking *asking;
  struct report *report;
};

static void end_one(struct asking *asking) {
  if (--asking->num_open == 0) {
    loop_stop(asking->loop);
  }
}

static void on_ocsp(void *arg, const struct ocsp_ask_result *result) {
  const struct slot *slot = arg;
  struct report *report = slot->report;

  report->is_unreachable = result->fetch_fault != FETCH_NO_FAULT;
  report->is_told = ocsp_ask_is_usable(result);
  report->fault = ocsp_ask_fault_name(result);
  report->err = result->err;
  report->status = result->answer.status;
  report->revoked_s = result->answer.revoked_s;
  report->reason = result->answer.reason;
  report->this_update_s = result->answer.this_update_s;
  report->next_update_s = result->answer.next_update_s;
  if (report->is_told) {
    report->response = bytes_copy(result->response);
    report->response_len = result->response.len;
  }
  end_one(slot->asking);
}

static enum crl_fault read_crl(struct report *report, const struct asking *asking,
                               struct bytes list) {
  const struct crl_query query = {
      .issuer = issuer_of(asking), .now_s = clock_wall_s(), .skew_s = OCSP_ASK_SKEW_S};
  struct crl crl;
  struct crl_entry entry;
  bool is_found = false;
  enum crl_fault fault = crl_open(&crl, &query, list);

  if (fault == CRL_NO_FAULT) {
    fault = crl_covers(&crl, &asking->sources);
  }
  if (fault == CRL_NO_FAULT) {
    fault = crl_find(&entry, &is_found, &crl,
                     bytes_of(asking->sources.serial, asking->sources.serial_len));
  }
  if (fault != CRL_NO_FAULT) {
    return fault;
  }
  report->this_update_s = crl.this_update_s;
  report->next_update_s = crl.next_update_s;
  report->status = OCSP_GOOD;
  if (is_found) {
    report->status = OCSP_REVOKED;
    report->revoked_s = entry.revoked_s;
    report->reason = entry.reason;
  }
  return CRL_NO_FAULT;
}

static void on_crl(void *arg, const struct fetch_result *result) {
  const struct slot *slot = arg;
  struct report *report = slot->report;

  if (result->fault != FETCH_NO_FAULT) {
    report->is_unreachable = true;
    report->fault = fetch_fault_name(result->fault);
    (void)errmsg_set(&report->err, STATUS_OK, "%s", result->message);
  } else {
    const enum crl_fault fault = read_crl(report, slot->asking, result->body);
    report->is_told = fault == CRL_NO_FAULT;
    report->fault = crl_fault_name(fault);
    (void)errmsg_set(&report->err, STATUS_OK, "%s", crl_fault_sentence(fault));
  }
  end_one(slot->asking);
}

static struct report *add_report(struct asking *asking, const char *kind, const char *url) {
  struct report *report = &asking->reports[asking->num_reports++];

  *report = (struct report){.kind = kind, .url = url, .status = OCSP_UNKNOWN, .fault = "none"};
  return report;
}

// note_start: a source that cannot even be asked does not keep the others from it.
static void note_start(struct asking *asking, enum status st) {
  struct report *report = &asking->reports[asking->num_reports - 1];

  if (st == STATUS_OK) {
    asking->num_open++;
    return;
  }
  report->fault = status_name(st);
  if (report->err.text[0] == '\0') {
    (void)errmsg_set(&report->err, st, "it cannot be asked");
  }
}

// ask_all asks the responder, and every distribution point if `has_crls`, at once.
static enum status ask_all(struct asking *asking, const struct ctl_args *args, bool has_crls,
                           int64_t min_this_update_s, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct slot slots[MAX_REPORTS];
  const struct ocsp_ask_wish ocsp = {
      .url = asking->sources.ocsp_url,
      .leaf = leaf_of(asking),
      .issuer = issuer_of(asking),
      .has_nonce = (args->given & CTL_NONCE) != 0,
      .min_this_update_s = min_this_update_s,
  };

  TRY(asking_start(asking, err));
  if (ocsp.url != NULL) {
    struct ocsp_ask *ask = NULL;
    slots[0] = (struct slot){asking, add_report(asking, "ocsp", ocsp.url)};
    note_start(asking, ocsp_ask_start(&ask, asking->http, &ocsp, on_ocsp, &slots[0],
                                      &slots[0].report->err));
  }
  for (size_t i = 0; has_crls && i < asking->sources.num_crl_urls; i++) {
    const struct fetch_wish crl = {.url = asking->sources.crl_urls[i],
                                   .limit_ms = CRL_LIMIT_MS,
                                   .max_len = asking->max_crl_len};
    struct fetch *fetch = NULL;
    slots[1 + i] = (struct slot){asking, add_report(asking, "crl", crl.url)};
    note_start(asking, fetch_start(&fetch, asking->http, &crl, on_crl, &slots[1 + i]));
  }
  if (asking->num_open > 0) {
    loop_run(asking->loop);
  }

out:
  return st;
}

// --- showing ---------------------------------------------------------------------------

static const char *time_text(char out[CLOCK_RFC3339_LEN], int64_t at_s) {
  return at_s == 0 ? "-" : clock_format_rfc3339(out, at_s);
}

static json_t *time_json(int64_t at_s) {
  char text[CLOCK_RFC3339_LEN];
  return at_s == 0 ? json_null() : json_string(clock_format_rfc3339(text, at_s));
}

static const char *reason_name(int reason) {
  static const char *const names[] = {
      "unspecified",   "keyCompromise",        "cACompromise",    "affiliationChanged",
      "superseded",    "cessationOfOperation", "certificateHold", "7",
      "removeFromCRL", "privilegeWithdrawn",   "aACompromise",
  };
  return reason >= 0 && reason < (int)(sizeof(names) / sizeof(names[0])) ? names[reason] : "?";
}

static const char *status_of(const struct report *report) {
  return report->is_told ? ocsp_status_name(report->status) : "no answer";
}

static json_t *report_json(const struct report *report) {
  const bool is_revoked = report->is_told && report->status == OCSP_REVOKED;
  return json_pack(
      "{s:s, s:s, s:s?, s:s?, s:s?, s:o, s:s?, s:o, s:o}", "kind", report->kind, "url", report->url,
      "status", report->is_told ? ocsp_status_name(report->status) : NULL, "fault",
      report->is_told ? NULL : report->fault, "message", report->is_told ? NULL : report->err.text,
      "revoked_at", time_json(is_revoked ? report->revoked_s : 0), "reason",
      is_revoked ? reason_name(report->reason) : NULL, "this_update",
      time_json(report->this_update_s), "next_update", time_json(report->next_update_s));
}

static void print_json(json_t *json) {
  (void)json_dumpf(json, stdout, JSON_INDENT(2));
  (void)fputc('\n', stdout);
  json_decref(json);
}

static void print_reports(const struct asking *asking) {
  static const char *const heading[] = {"SOURCE",      "STATUS",      "REVOKED", "REASON",
                                        "THIS UPDATE", "NEXT UPDATE", "URL",     NULL};
  struct grid grid;

  grid_init(&grid, heading);
  for (size_t i = 0; i < asking->num_reports; i++) {
    const struct report *report = &asking->reports[i];
    const bool is_revoked = report->is_told && report->status == OCSP_REVOKED;
    char text[CLOCK_RFC3339_LEN];
    grid_add(&grid, report->kind);
    grid_add(&grid, status_of(report));
    grid_add(&grid, time_text(text, is_revoked ? report->revoked_s : 0));
    grid_add(&grid, is_revoked ? reason_name(report->reason) : "-");
    grid_add(&grid, time_text(text, report->this_update_s));
    grid_add(&grid, time_text(text, report->next_update_s));
    grid_add(&grid, report->url);
  }
  (void)grid_print(&grid, stdout);
}

static void complain(const struct asking *asking) {
  for (size_t i = 0; i < asking->num_reports; i++) {
    const struct report *report = &asking->reports[i];
    if (!report->is_told) {
      (void)fprintf(stderr, "deputyctl: %s: ", report->kind);
      grid_clean(stderr, report->url);
      (void)fprintf(stderr, ": %s: ", report->fault);
      grid_clean(stderr, report->err.text);
      (void)fputc('\n', stderr);
    }
  }
}

// --- revocation check --------------------------------------------------------------------

// verdict: one that says revoked is enough; good, if one says so and none says otherwise.
static enum ocsp_status verdict(const struct asking *asking) {
  enum ocsp_status status = OCSP_UNKNOWN;

  for (size_t i = 0; i < asking->num_reports; i++) {
    const struct report *report = &asking->reports[i];
    if (report->is_told && report->status == OCSP_REVOKED) {
      return OCSP_REVOKED;
    }
    if (report->is_told && report->status == OCSP_GOOD) {
      status = OCSP_GOOD;
    }
  }
  return status;
}

static enum ctl_exit show_revocation(const struct asking *asking, const struct ctl_args *args) {
  const enum ocsp_status status = verdict(asking);

  if (args->is_json) {
    json_t *list = json_array();
    for (size_t i = 0; i < asking->num_reports; i++) {
      (void)json_array_append_new(list, report_json(&asking->reports[i]));
    }
    print_json(json_pack("{s:s, s:s, s:s, s:s, s:o}", "chain", args->chain, "subject",
                         asking->info.subject, "serial", asking->info.serial, "status",
                         ocsp_status_name(status), "sources", list));
  } else {
    (void)printf("%s: ", ocsp_status_name(status));
    grid_clean(stdout, asking->info.subject);
    (void)printf(", serial %s\n", asking->info.serial);
    if (asking->num_reports > 0) {
      (void)printf("\n");
      print_reports(asking);
    }
  }
  complain(asking);
  if (asking->num_reports == 0) {
    (void)fail(CTL_UNREACHABLE, "the leaf names no OCSP responder and no CRL");
  }
  return status == OCSP_GOOD ? CTL_DONE : status == OCSP_REVOKED ? CTL_NOT_READY : CTL_UNREACHABLE;
}

static bool read_max_crl(size_t *out, const struct ctl_args *args) {
  char *end = NULL;
  unsigned long mib = 0;

  *out = CRL_DEFAULT_MAX_LEN;
  if (args->max_crl == NULL) {
    return true;
  }
  errno = 0;
  mib = strtoul(args->max_crl, &end, 10);
  *out = (size_t)mib * MIB_LEN;
  return errno == 0 && *end == '\0' && mib > 0 && mib <= MAX_CRL_MIB;
}

enum ctl_exit ctl_run_revocation(const struct ctl_args *args) {
  struct asking asking = {0};
  struct errmsg err = {0};
  enum ctl_exit code = CTL_FAILED;

  if (strcmp(args->words[0], "check") != 0) {
    return fail(CTL_USAGE, "usage: deputyctl revocation check --chain FILE");
  }
  if (!read_max_crl(&asking.max_crl_len, args)) {
    return fail(CTL_USAGE, "--max-crl is a number of MiB, from 1 to 1024");
  }
  if (asking_open(&asking, args, &err) != STATUS_OK ||
      ask_all(&asking, args, true, 0, &err) != STATUS_OK) {
    (void)fail(CTL_FAILED, err.text);
  } else {
    code = show_revocation(&asking, args);
  }
  asking_close(&asking);
  return code;
}

// --- staple ------------------------------------------------------------------------------

static bool staple_path(char out[MAX_PATH_LEN], const struct ctl_args *args) {
  const char *given = args->out != NULL ? args->out : args->words[1];
  const int len = given != NULL
                      ? snprintf(out, MAX_PATH_LEN, "%s", given)
                      : snprintf(out, MAX_PATH_LEN, "%s%s", args->chain, CHAIN_STAPLE_SUFFIX);
  return len > 0 && len < (int)MAX_PATH_LEN;
}

// kept_facts looks at the staple that is there, as the proxy does. STATUS_NOT_FOUND: none.
static enum status kept_facts(struct staple_facts *out, const struct asking *asking,
                              const char *path, struct errmsg *err) {
  uint8_t *data = NULL;
  size_t len = 0;
  enum status st = STATUS_OK;

  *out = (struct staple_facts){0};
  if (access(path, F_OK) != 0 && errno == ENOENT) {
    return errmsg_set(err, STATUS_NOT_FOUND, "%s: there is no staple", path);
  }
  TRY(file_read(&data, &len, path, STAPLE_MAX_LEN, err));
  st = staple_check(out, bytes_of(data, len), leaf_of(asking), issuer_of(asking), clock_wall_s(),
                    err);
  if (st != STATUS_OK) {
    errmsg_prefix(err, "%s", path);
  }

out:
  free(data);
  return st;
}

static void show_staple(const struct ctl_args *args, const char *path, const char *status,
                        const struct staple_facts *facts, const struct report *report,
                        bool is_written) {
  char begin[CLOCK_RFC3339_LEN];
  char end[CLOCK_RFC3339_LEN];

  if (args->is_json) {
    print_json(json_pack("{s:s, s:s, s:s, s:o, s:o, s:b, s:o}", "chain", args->chain, "file", path,
                         "status", status, "this_update", time_json(facts->this_update_s),
                         "next_update", time_json(facts->next_update_s), "written", (int)is_written,
                         "answer", report == NULL ? json_null() : report_json(report)));
    return;
  }
  (void)printf("%s: ", status);
  grid_clean(stdout, path);
  (void)printf(is_written ? ", written" : "");
  if (facts->next_update_s != 0) {
    (void)printf(", from %s until %s", time_text(begin, facts->this_update_s),
                 time_text(end, facts->next_update_s));
  }
  (void)printf("\n");
}

static enum ctl_exit check_staple(const struct asking *asking, const struct ctl_args *args,
                                  const char *path) {
  struct errmsg err = {0};
  struct staple_facts facts;
  const enum status st = kept_facts(&facts, asking, path, &err);

  if (st == STATUS_SYSTEM || st == STATUS_MEMORY || st == STATUS_NOT_FOUND) {
    return fail(CTL_FAILED, err.text);
  }
  if (st == STATUS_OK && !facts.is_signature_checked) {
    return fail(CTL_FAILED, "the issuer's certificate is not in the chain: it cannot be checked");
  }
  show_staple(args, path,
              st == STATUS_OK    ? "good"
              : facts.is_revoked ? "revoked"
                                 : "not usable",
              &facts, NULL, false);
  if (st != STATUS_OK) {
    return fail(CTL_NOT_READY, err.text);
  }
  return CTL_DONE;
}

// take_answer writes a good answer, and leaves the file alone with any other.
static enum ctl_exit take_answer(struct asking *asking, const struct ctl_args *args,
                                 const char *path, const struct staple_facts *kept) {
  const struct report *report = &asking->reports[0];
  struct staple_facts facts = *kept;
  struct errmsg err = {0};

  if (!report->is_told) {
    show_staple(args, path, kept->next_update_s != 0 ? "kept" : "none", kept, report, false);
    complain(asking);
    return report->is_unreachable ? CTL_UNREACHABLE : CTL_FAILED;
  }
  // Once more, as the proxy will: without skew, and with an end.
  if (staple_check(&facts, bytes_of(report->response, report->response_len), leaf_of(asking),
                   issuer_of(asking), clock_wall_s(), &err) != STATUS_OK) {
    show_staple(args, path, facts.is_revoked ? "revoked" : "not usable", kept, report, false);
    return fail(CTL_NOT_READY, err.text);
  }
  if (file_replace_public(path, bytes_of(report->response, report->response_len), &err) !=
      STATUS_OK) {
    return fail(CTL_FAILED, err.text);
  }
  show_staple(args, path, "good", &facts, report, true);
  return CTL_DONE;
}

static enum ctl_exit fetch_staple(struct asking *asking, const struct ctl_args *args,
                                  const char *path) {
  struct errmsg err = {0};
  struct staple_facts kept;

  if (asking->sources.ocsp_url == NULL) {
    show_staple(args, path, "none", &(struct staple_facts){0}, NULL, false);
    return asking->info.is_must_staple
               ? fail(CTL_FAILED, "the leaf must have a staple, and names no OCSP responder")
               : fail(CTL_DONE, "the leaf names no OCSP responder: there is nothing to fetch");
  }
  if (kept_facts(&kept, asking, path, &err) != STATUS_OK) {
    kept = (struct staple_facts){0};
  }
  if (ask_all(asking, args, false, kept.this_update_s, &err) != STATUS_OK) {
    return fail(CTL_FAILED, err.text);
  }
  return take_answer(asking, args, path, &kept);
}

enum ctl_exit ctl_run_staple(const struct ctl_args *args) {
  struct asking asking = {0};
  struct errmsg err = {0};
  char path[MAX_PATH_LEN];
  enum ctl_exit code = CTL_FAILED;
  const bool is_fetch = strcmp(args->words[0], "fetch") == 0;

  if (!is_fetch && strcmp(args->words[0], "check") != 0) {
    return fail(CTL_USAGE, "usage: deputyctl staple fetch|check --chain FILE");
  }
  if (is_fetch ? args->words[1] != NULL : (args->given & (CTL_OUT | CTL_NONCE)) != 0) {
    return fail(CTL_USAGE, "fetch takes --out and --nonce, check takes a FILE");
  }
  if (!staple_path(path, args)) {
    return fail(CTL_USAGE, "the path of the staple is too long");
  }
  if (asking_open(&asking, args, &err) != STATUS_OK) {
    (void)fail(CTL_FAILED, err.text);
  } else {
    code = is_fetch ? fetch_staple(&asking, args, path) : check_staple(&asking, args, path);
  }
  asking_close(&asking);
  return code;
}
