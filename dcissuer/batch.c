// SPDX-License-Identifier: Apache-2.0
#include "dcissuer/batch.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/tls/context.h"
#include "dcissuer/audit.h"
#include "dcissuer/issue.h"

#define MS_PER_S 1000
// An entry has five members. Four million bytes of "1,1,1," would become a
// hundred million in jansson's hands.
#define MAX_COMMAS_PER_ENTRY 8u

struct entry {
  struct batch *batch;
  size_t index;
  uint64_t sign_id;  // 0: not at the key server
  struct issue issue;
};

struct batch {
  TAILQ_ENTRY(batch) link;
  bool is_queued;  // in `ready`; else in `blocked`
  struct batches *all;
  struct http_request *request;
  struct snapshot *snapshot;
  struct signer *signer;
  struct audit_subject subject;
  struct client_rights rights;
  struct issue_rules rules;
  json_t *body;
  json_t *wanted;  // borrowed from `body`
  json_t *answers;
  struct entry *entries;
  size_t num;
  size_t num_begun;
  size_t num_done;
  size_t num_signing;
  int64_t began_us;
  struct timer deadline;
};

struct batches {
  struct loop *loop;
  struct cert_cache *cache;
  struct sink *audit;
  struct stats *stats;
  struct timer turn;
  TAILQ_HEAD(batch_list, batch) ready;  // may begin an entry, as far as they know
  TAILQ_HEAD(, batch) blocked;          // wait for the key server, or have begun all
  size_t num;
  size_t num_signing;
  LIST_HEAD(, signer) dropped;
};

// --- signer ----------------------------------------------------------------------

enum status signer_new(struct signer **out, struct batches *batches,
                       const struct keyclient_config *config, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct signer *signer = calloc(1, sizeof(*signer));

  *out = NULL;
  if (signer == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  signer->num_refs = 1;
  signer->batches = batches;
  st = keyclient_new(&signer->keyclient, batches->loop, config, err);
  if (st != STATUS_OK) {
    free(signer);
    return st;
  }
  *out = signer;
  return STATUS_OK;
}

static void free_dropped_signers(struct batches *batches) {
  struct signer *signer = NULL;
  while ((signer = LIST_FIRST(&batches->dropped)) != NULL) {
    LIST_REMOVE(signer, link);
    keyclient_free(signer->keyclient);
    free(signer);
  }
}

void signer_unref(struct signer *signer) {
  if (signer != NULL && --signer->num_refs == 0) {
    LIST_INSERT_HEAD(&signer->batches->dropped, signer, link);
    timer_arm_ms(&signer->batches->turn, 0);
  }
}

// --- lists -------------------------------------------------------------------------

static void set_queued(struct batch *batch, bool is_queued) {
  struct batches *all = batch->all;
  if (batch->is_queued == is_queued) {
    return;
  }
  if (is_queued) {
    TAILQ_REMOVE(&all->blocked, batch, link);
    TAILQ_INSERT_TAIL(&all->ready, batch, link);
  } else {
    TAILQ_REMOVE(&all->ready, batch, link);
    TAILQ_INSERT_TAIL(&all->blocked, batch, link);
  }
  batch->is_queued = is_queued;
}

static bool may_begin(const struct batch *batch) {
  return batch->num_begun < batch->num &&
         batch->num_signing < (size_t)batch->snapshot->options.limits.signatures_per_batch;
}

static void plan_turn(struct batches *all) {
  if (!TAILQ_EMPTY(&all->ready) && !timer_is_armed(&all->turn)) {
    timer_arm_ms(&all->turn, 0);
  }
}

// --- the end of entries and batches ----------------------------------------------------

static void batch_free(struct batch *batch) {
  struct batches *all = batch->all;
  set_queued(batch, false);
  TAILQ_REMOVE(&all->blocked, batch, link);
  all->num--;
  for (size_t i = 0; i < batch->num; i++) {
    struct entry *entry = &batch->entries[i];
    if (entry->sign_id != 0) {
      keyclient_cancel(batch->signer->keyclient, entry->sign_id);
      all->num_signing--;
    }
    issue_cleanup(&entry->issue);
  }
  timer_cleanup(&batch->deadline);
  json_decref(batch->body);
  json_decref(batch->answers);
  free(batch->entries);
  signer_unref(batch->signer);
  snapshot_unref(batch->snapshot);
  free(batch);
}

static void batch_reply(struct batch *batch) {
  struct http_request *request = batch->request;
  json_t *reply = json_pack("{s:O}", "results", batch->answers);
  int64_t spent_us = clock_monotonic_us() - batch->began_us;
  histogram_add_us(&batch->all->stats->latency, spent_us < 0 ? 0 : (uint64_t)spent_us);
  log_debug(0, "batch_done", "entries=%zu ms=%lld", batch->num, (long long)(spent_us / 1000));
  batch_free(batch);
  http_reply_json(request, 200, reply);
}

static json_t *answer_of(const struct issue *issue) {
  char expires[CLOCK_RFC3339_LEN];
  char *text = NULL;
  json_t *answer = NULL;
  if (issue->error != ISSUE_OK) {
    return json_pack("{s:{s:s,s:s}}", "error", "code", issue_error_word(issue->error), "message",
                     issue->why);
  }
  text = bytes_to_base64(bytes_of(issue->credential, issue->credential_len));
  if (text != NULL) {
    answer = json_pack("{s:s,s:s}", "credential", text, "expires_at",
                       clock_format_rfc3339(expires, issue->expiry_s));
  }
  free(text);
  return answer;
}

// A credential leaves only with its line in the audit, unless the configuration
// says otherwise; a refusal stays a refusal either way.
static void audit(struct batch *batch, struct issue *issue) {
  struct batches *all = batch->all;
  int policy = batch->snapshot->options.audit.when_unavailable;
  if (audit_write(all->audit, &batch->subject, issue, clock_wall_us()) == STATUS_OK) {
    return;
  }
  counter_add_own(&all->stats->num_audit_lost, 1);
  if (policy == AUDIT_REFUSE && issue->error == ISSUE_OK) {
    (void)issue_fail(issue, ISSUE_AUDIT_UNAVAILABLE, "the audit log cannot be written");
  }
}

// The entry is over: keeps its answer and lets go of the rest.
static void entry_done(struct entry *entry) {
  struct batch *batch = entry->batch;
  struct stats *stats = batch->all->stats;
  json_t *answer = NULL;

  audit(batch, &entry->issue);
  answer = answer_of(&entry->issue);
  if (entry->issue.error == ISSUE_OK) {
    counter_add_own(&stats->num_issued, 1);
  } else {
    counter_add_own(&stats->num_refused[entry->issue.error], 1);
  }
  // Without memory the place keeps its null, which no client takes for a credential.
  if (answer != NULL) {
    (void)json_array_set_new(batch->answers, entry->index, answer);
  }
  issue_cleanup(&entry->issue);
  batch->num_done++;
}

// --- work ------------------------------------------------------------------------------

static void on_signed(void *arg, const struct sign_answer *answer) {
  struct entry *entry = arg;
  struct batch *batch = entry->batch;
  struct batches *all = batch->all;

  entry->sign_id = 0;
  batch->num_signing--;
  all->num_signing--;
  (void)issue_finish(&entry->issue, answer, clock_wall_s());
  entry_done(entry);
  if (batch->num_done == batch->num) {
    batch_reply(batch);
  } else {
    set_queued(batch, may_begin(batch));
  }
  plan_turn(all);
}

static void sign(struct entry *entry) {
  struct batch *batch = entry->batch;
  struct sign_request request = {0};
  uint8_t *message = NULL;

  if (!issue_input(&entry->issue, &request, &message)) {
    entry_done(entry);
    return;
  }
  if (keyclient_sign(&entry->sign_id, batch->signer->keyclient, &request, on_signed, entry) !=
      STATUS_OK) {
    entry->sign_id = 0;
    (void)issue_fail(&entry->issue, ISSUE_INTERNAL, "the key server cannot be asked");
    entry_done(entry);
  } else {
    batch->num_signing++;
    batch->all->num_signing++;
  }
  free(message);
}

static void begin_entry(struct batch *batch) {
  struct entry *entry = &batch->entries[batch->num_begun];
  const json_t *wanted = json_array_get(batch->wanted, batch->num_begun);

  entry->batch = batch;
  entry->index = batch->num_begun++;
  if (!issue_read(&entry->issue, wanted) ||
      !issue_judge(&entry->issue, &batch->rules, clock_wall_s(), clock_monotonic_us())) {
    entry_done(entry);
    return;
  }
  if (batch->snapshot->options.audit.when_unavailable == AUDIT_REFUSE &&
      sink_is_failing(batch->all->audit)) {
    (void)issue_fail(&entry->issue, ISSUE_AUDIT_UNAVAILABLE, "the audit log cannot be written");
    entry_done(entry);
    return;
  }
  sign(entry);
}

static bool has_free_signature(const struct batches *all, const struct batch *batch) {
  return all->num_signing < (size_t)batch->snapshot->options.limits.signatures;
}

// One batch, a few entries; then the loop looks at its sockets again.
static void on_turn(void *arg) {
  struct batches *all = arg;
  struct batch *batch = TAILQ_FIRST(&all->ready);

  free_dropped_signers(all);
  if (batch == NULL || !has_free_signature(all, batch)) {
    return;  // on_signed goes on
  }
  for (unsigned i = 0;
       i < BATCH_ENTRIES_PER_TURN && may_begin(batch) && has_free_signature(all, batch); i++) {
    begin_entry(batch);
  }
  if (batch->num_done == batch->num) {
    batch_reply(batch);
  } else {
    set_queued(batch, false);
    set_queued(batch, may_begin(batch));  // to the end of the line
  }
  plan_turn(all);
}

static void on_deadline(void *arg) {
  struct batch *batch = arg;
  struct batches *all = batch->all;

  for (size_t i = 0; i < batch->num; i++) {
    struct entry *entry = &batch->entries[i];
    bool is_begun = i < batch->num_begun;
    if (is_begun && entry->sign_id == 0) {
      continue;  // done
    }
    if (is_begun) {
      keyclient_cancel(batch->signer->keyclient, entry->sign_id);
      entry->sign_id = 0;
      all->num_signing--;
    } else {
      entry->batch = batch;
      entry->index = i;
      (void)issue_read(&entry->issue, json_array_get(batch->wanted, i));  // for the audit line
    }
    (void)issue_fail(&entry->issue, ISSUE_DEADLINE_EXCEEDED,
                     "there was no time left for this entry");
    entry_done(entry);
  }
  batch->num_begun = batch->num;
  batch_reply(batch);
  plan_turn(all);
}

// --- the beginning ---------------------------------------------------------------------------

static const struct {
  int code;
  const char *word;
  const char *why;
} refusals[REQUEST_NUM_ERRORS] = {
    [REQUEST_BAD] = {400, "bad_request", "the body is not {\"requests\":[...]}"},
    [REQUEST_UNAUTHORIZED] = {401, "unauthorized", "a client certificate is needed"},
    [REQUEST_NOT_ALLOWED] = {403, "not_allowed", "this client has no rights here"},
    [REQUEST_TOO_MANY_ENTRIES] = {413, "too_many_entries", "too many entries in one request"},
    [REQUEST_BUSY] = {503, "busy", "too many requests in work; try again, or another issuer"},
};

static bool has_name(const void *arg, const char *name) { return tls_peer_has_name(arg, name); }

static bool has_more_commas(struct bytes in, size_t max) {
  size_t num = 0;
  for (size_t i = 0; i < in.len; i++) {
    num += in.data[i] == ',' ? 1 : 0;
  }
  return num > max;
}

static enum request_error read_body(struct batch *batch) {
  struct bytes body = http_request_body(batch->request);
  json_error_t error;
  size_t max = (size_t)batch->snapshot->options.limits.max_entries;

  if (has_more_commas(body, max * MAX_COMMAS_PER_ENTRY)) {
    return REQUEST_TOO_MANY_ENTRIES;
  }
  batch->body = json_loadb((const char *)body.data, body.len, JSON_REJECT_DUPLICATES, &error);
  batch->wanted = json_object_get(batch->body, "requests");
  if (json_object_size(batch->body) != 1 || !json_is_array(batch->wanted) ||
      json_array_size(batch->wanted) == 0) {
    return REQUEST_BAD;
  }
  batch->num = json_array_size(batch->wanted);
  if (batch->num > max) {
    batch->num = 0;
    return REQUEST_TOO_MANY_ENTRIES;
  }
  return REQUEST_OK;
}

static enum request_error check_request(struct batch *batch) {
  const SSL *ssl = http_request_ssl(batch->request);

  (void)snprintf(batch->subject.address, ADDRESS_TEXT_LEN, "%s", http_request_peer(batch->request));
  if (ssl == NULL || tls_peer_read(&batch->subject.client, ssl) != STATUS_OK) {
    return REQUEST_UNAUTHORIZED;
  }
  policy_of_client(&batch->rights, batch->snapshot->policy, batch->subject.client.spki_sha256,
                   has_name, ssl);
  if (batch->rights.num_grants == 0) {
    return REQUEST_NOT_ALLOWED;
  }
  if (batch->all->num > (size_t)batch->snapshot->options.limits.max_batches) {
    return REQUEST_BUSY;
  }
  return read_body(batch);
}

static void refuse(struct batch *batch, enum request_error error) {
  struct batches *all = batch->all;
  struct http_request *request = batch->request;
  counter_add_own(&all->stats->num_requests_refused[error], 1);
  if (audit_write_request(all->audit, &batch->subject, refusals[error].word, clock_wall_us()) !=
      STATUS_OK) {
    counter_add_own(&all->stats->num_audit_lost, 1);
  }
  batch_free(batch);
  http_reply_error(request, refusals[error].code, refusals[error].word, refusals[error].why);
}

static bool prepare(struct batch *batch) {
  const struct options *options = &batch->snapshot->options;
  batch->rules = (struct issue_rules){
      .certificates = batch->snapshot->certificates,
      .cache = batch->all->cache,
      .rights = &batch->rights,
      .default_lifetime_s = options->lifetime.default_ms / MS_PER_S,
      .max_lifetime_s = options->lifetime.max_ms / MS_PER_S,
      .accept_presented = options->accept_presented,
  };
  batch->entries = calloc(batch->num, sizeof(*batch->entries));
  batch->answers = json_array();
  for (size_t i = 0; i < batch->num; i++) {
    if (json_array_append_new(batch->answers, json_null()) != 0) {
      return false;
    }
  }
  return batch->entries != NULL &&
         timer_init(&batch->deadline, batch->all->loop, on_deadline, batch) == STATUS_OK;
}

void batches_start(struct batches *batches, struct http_request *request, struct snapshot *snapshot,
                   struct signer *signer) {
  struct batch *batch = calloc(1, sizeof(*batch));
  enum request_error error = REQUEST_OK;

  counter_add_own(&batches->stats->num_requests, 1);
  if (batch == NULL) {
    http_reply_error(request, 503, "busy", "no memory");
    return;
  }
  batch->all = batches;
  batch->request = request;
  batch->snapshot = snapshot_ref(snapshot);
  batch->signer = signer;
  signer->num_refs++;
  batch->began_us = clock_monotonic_us();
  TAILQ_INSERT_TAIL(&batches->blocked, batch, link);
  batches->num++;
  error = check_request(batch);
  if (error != REQUEST_OK) {
    refuse(batch, error);
    return;
  }
  if (!prepare(batch)) {
    batch->num = batch->entries == NULL ? 0 : batch->num;
    refuse(batch, REQUEST_BUSY);
    return;
  }
  timer_arm_ms(&batch->deadline, snapshot->options.limits.batch_ms);
  set_queued(batch, true);
  plan_turn(batches);
}

enum status batches_new(struct batches **out, struct loop *loop, struct cert_cache *cache,
                        struct sink *audit, struct stats *stats) {
  struct batches *batches = calloc(1, sizeof(*batches));
  *out = NULL;
  if (batches == NULL) {
    return STATUS_MEMORY;
  }
  *batches = (struct batches){.loop = loop, .cache = cache, .audit = audit, .stats = stats};
  TAILQ_INIT(&batches->ready);
  TAILQ_INIT(&batches->blocked);
  LIST_INIT(&batches->dropped);
  if (timer_init(&batches->turn, loop, on_turn, batches) != STATUS_OK) {
    free(batches);
    return STATUS_MEMORY;
  }
  *out = batches;
  return STATUS_OK;
}

void batches_free(struct batches *batches) {
  struct batch *batch = NULL;
  if (batches == NULL) {
    return;
  }
  while ((batch = TAILQ_FIRST(&batches->ready)) != NULL ||
         (batch = TAILQ_FIRST(&batches->blocked)) != NULL) {
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): batch_free takes it off its list
    struct http_request *request = batch->request;
    batch_free(batch);
    http_reply_error(request, 503, "stopping", "this issuer is stopping");
  }
  free_dropped_signers(batches);
  timer_cleanup(&batches->turn);
  free(batches);
}

size_t batches_num(const struct batches *batches) { return batches->num; }

size_t batches_num_signatures(const struct batches *batches) { return batches->num_signing; }
