// SPDX-License-Identifier: Apache-2.0
#include "proxy/dc/dc_fetch.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "proxy/dc/dc_keys.h"
#include "proxy/dc/dc_request.h"

#define URL_MAX_LEN 2048
#define ISSUER_SKEW_S 3600  // how far an issuer's clock may be ahead of ours

struct dc_fetch {
  struct loop *loop;
  struct jobs *jobs;
  struct http_client *client;
  void (*done)(void *arg, struct dc_batch *batch);
  void *arg;
  struct dc_batch *batches;  // sent
};

const char *dc_result_name(enum dc_result result) {
  static const char *const names[DC_RESULT_NUM] = {
      [DC_RESULT_OK] = "ok",
      [DC_RESULT_NO_CONNECTION] = "no_connection",
      [DC_RESULT_HTTP_STATUS] = "http_status",
      [DC_RESULT_BAD_ANSWER] = "bad_answer",
      [DC_RESULT_REFUSED] = "refused",
      [DC_RESULT_BAD_CREDENTIAL] = "bad_credential",
  };
  return (unsigned)result < DC_RESULT_NUM ? names[result] : "unknown";
}

// --- batches -------------------------------------------------------------------------

static void free_batch(struct dc_batch *batch) {
  for (size_t i = 0; i < batch->num; i++) {
    free(batch->items[i].leaf);
    EVP_PKEY_free(batch->items[i].key);
    free(batch->items[i].details);
    free(batch->items[i].dc);
  }
  free(batch->identity.ca);
  free(batch->identity.certificate);
  free(batch->identity.key);
  free(batch->url);
  free(batch->body);
  free(batch->answer);
  free(batch);
}

static char *url_of(const char *base) {
  char url[URL_MAX_LEN];
  size_t len = strlen(base);
  while (len > 0 && base[len - 1] == '/') {
    len -= 1;
  }
  if (snprintf(url, sizeof(url), "%.*s%s", (int)len, base, DC_REQUEST_PATH) >= (int)sizeof(url)) {
    return NULL;
  }
  return strdup(url);
}

struct dc_batch *dc_fetch_new_batch(struct dc_fetch *fetch, const struct options *options,
                                    unsigned issuer, size_t room) {
  const struct issuer_options *issuers = &options->issuers;
  struct dc_batch *batch = calloc(1, sizeof(*batch) + room * sizeof(struct dc_item));
  if (batch == NULL) {
    return NULL;
  }
  batch->fetch = fetch;
  batch->issuer = issuer;
  batch->room = room;
  batch->timeout_ms = issuers->timeout_ms;
  batch->margin_s = options->dc.margin_ms / 1000;
  // A short life is the only protection of a stolen key; an issuer does not choose a
  // longer one for us.
  batch->max_life_s = options->dc.lifetime_ms / 1000 + ISSUER_SKEW_S;
  batch->url = url_of(issuers->urls[issuer]);
  batch->identity.ca = strdup(issuers->tls.ca);
  batch->identity.certificate = strdup(issuers->tls.certificate);
  batch->identity.key = strdup(issuers->tls.key);
  if (batch->url == NULL || batch->identity.ca == NULL || batch->identity.certificate == NULL ||
      batch->identity.key == NULL) {
    free_batch(batch);
    return NULL;
  }
  return batch;
}

enum status dc_batch_add(struct dc_batch *batch, void *owner, const struct chain *chain,
                         EVP_PKEY *key, int64_t lifetime_s) {
  struct dc_item *item = &batch->items[batch->num];
  const size_t leaf_len = CRYPTO_BUFFER_len(chain->certs[0]);
  uint8_t *leaf = malloc(leaf_len);
  CHECK(batch->num < batch->room);
  if (leaf == NULL) {
    EVP_PKEY_free(key);
    return STATUS_MEMORY;
  }
  memcpy(leaf, CRYPTO_BUFFER_data(chain->certs[0]), leaf_len);
  batch->num += 1;
  *item = (struct dc_item){.owner = owner,
                           .leaf = leaf,
                           .leaf_len = leaf_len,
                           .info = chain->info,
                           .key = key,
                           .lifetime_s = lifetime_s};
  item->info.names = NULL;
  item->info.num_names = 0;
  return STATUS_OK;
}

// --- the ways it ends ------------------------------------------------------------------

static void end_batch(struct dc_batch *batch) {
  struct dc_fetch *fetch = batch->fetch;
  struct dc_batch **at = &fetch->batches;
  bool is_failed = true;
  while (*at != batch) {
    at = &(*at)->next;
  }
  *at = batch->next;
  for (size_t i = 0; i < batch->num; i++) {
    const struct dc_item *item = &batch->items[i];
    is_failed = is_failed && item->result != DC_RESULT_OK && !item->is_firm;
  }
  batch->is_failed = is_failed;
  fetch->done(fetch->arg, batch);
  free_batch(batch);
}

static void fail_all(struct dc_batch *batch, enum dc_result result, const char *why,
                     const char *details) {
  for (size_t i = 0; i < batch->num; i++) {
    batch->items[i].result = result;
    batch->items[i].why = why;
    batch->items[i].details = i == 0 ? strdup(details) : NULL;  // each has the same
  }
}

// --- on the thread ---------------------------------------------------------------------

static struct bytes leaf_der(const struct dc_item *item) {
  return bytes_of(item->leaf, item->leaf_len);
}

static void prepare(void *arg) {
  struct dc_batch *batch = arg;
  json_t *entries = json_array();
  for (size_t i = 0; i < batch->num; i++) {
    struct dc_item *item = &batch->items[i];
    if (item->key == NULL) {
      item->key = dc_key_new();
    }
    if (item->key == NULL ||
        json_array_append_new(entries, dc_request_entry(leaf_der(item), item->info.sha256,
                                                        item->key, item->lifetime_s)) != 0) {
      json_decref(entries);
      entries = NULL;
      break;
    }
  }
  batch->body = entries == NULL ? NULL : dc_request_body(entries);
  ERR_clear_error();
}

static void check_credential(const struct dc_batch *batch, struct dc_item *item) {
  const int64_t now_s = clock_wall_s();
  struct dc dc;
  enum status st = dc_check(&dc, &item->fault, bytes_of(item->dc, item->dc_len), leaf_der(item),
                            &item->info, item->key, now_s, batch->margin_s);
  if (st == STATUS_OK) {
    item->ends_s = dc_expiry_s(&dc, item->info.not_before_s);
    if (item->ends_s > now_s + batch->max_life_s) {
      item->fault = DC_FAULT_TOO_LONG;
    }
  }
  if (item->fault != DC_FAULT_NONE) {
    item->result = DC_RESULT_BAD_CREDENTIAL;
    item->why = dc_fault_name(item->fault);
    item->details = strdup("the credential does not pass");
  }
}

static void take_entry(const struct dc_batch *batch, struct dc_item *item, const json_t *entry) {
  struct errmsg err = {0};
  enum status st = dc_answer_entry(&item->dc, &item->dc_len, entry, &err);
  if (st == STATUS_OK) {
    check_credential(batch, item);
    return;
  }
  item->result = st == STATUS_REFUSED ? DC_RESULT_REFUSED : DC_RESULT_BAD_ANSWER;
  item->why = st == STATUS_REFUSED ? "issuer_refused" : "bad_answer";
  item->is_firm = st == STATUS_REFUSED && dc_answer_is_firm(entry);
  item->details = strdup(err.text);
}

static void take_answer(void *arg) {
  struct dc_batch *batch = arg;
  struct errmsg err = {0};
  json_t *results = dc_answer_parse(bytes_of(batch->answer, batch->answer_len), batch->num, &err);
  if (results == NULL) {
    fail_all(batch, DC_RESULT_BAD_ANSWER, "bad_answer", err.text);
    return;
  }
  for (size_t i = 0; i < batch->num; i++) {
    take_entry(batch, &batch->items[i], json_array_get(results, i));
  }
  json_decref(results);
  ERR_clear_error();
}

// --- on the loop -------------------------------------------------------------------------

static void on_taken(void *arg) { end_batch(arg); }

static void on_answer(void *arg, const struct http_answer *answer) {
  struct dc_batch *batch = arg;
  char details[64];
  if (answer->st != STATUS_OK) {
    fail_all(batch, DC_RESULT_NO_CONNECTION, "no_connection", answer->message);
  } else if (answer->code != 200) {
    (void)snprintf(details, sizeof(details), "HTTP status %d", answer->code);
    fail_all(batch, DC_RESULT_HTTP_STATUS, "http_status", details);
  } else {
    batch->answer_len = answer->body.len;
    batch->answer = http_answer_take_body(answer);
    batch->job = (struct job){.work = take_answer, .done = on_taken, .arg = batch};
    jobs_start(batch->fetch->jobs, &batch->job);
    return;
  }
  end_batch(batch);
}

static void on_prepared(void *arg) {
  struct dc_batch *batch = arg;
  const struct http_identity identity = {batch->identity.ca, batch->identity.certificate,
                                         batch->identity.key};
  const struct http_call call = {
      .method = "POST",
      .url = batch->url,
      .body = bytes_text(batch->body),
      .limit_ms = batch->timeout_ms,
      .max_answer_len = DC_ANSWER_MAX_LEN,
      .identity = &identity,
  };
  uint64_t id = 0;
  enum status st = batch->body == NULL
                       ? STATUS_MEMORY
                       : http_client_start(&id, batch->fetch->client, &call, on_answer, batch);
  free(batch->body);
  batch->body = NULL;
  if (st != STATUS_OK) {
    fail_all(batch, DC_RESULT_NO_CONNECTION, "not_asked", status_name(st));
    end_batch(batch);
  }
}

void dc_batch_send(struct dc_batch *batch) {
  struct dc_fetch *fetch = batch->fetch;
  batch->next = fetch->batches;
  fetch->batches = batch;
  batch->job = (struct job){.work = prepare, .done = on_prepared, .arg = batch};
  jobs_start(fetch->jobs, &batch->job);
}

// --- start and end -----------------------------------------------------------------------

enum status dc_fetch_new(struct dc_fetch **out, struct loop *loop,
                         void (*done)(void *arg, struct dc_batch *batch), void *arg) {
  enum status st = STATUS_OK;
  struct dc_fetch *fetch = calloc(1, sizeof(*fetch));

  *out = NULL;
  if (fetch == NULL) {
    return STATUS_MEMORY;
  }
  fetch->loop = loop;
  fetch->done = done;
  fetch->arg = arg;
  TRY(http_client_new(&fetch->client, loop));
  TRY(jobs_new(&fetch->jobs, loop));
  *out = fetch;
  fetch = NULL;

out:
  dc_fetch_free(fetch, NULL);
  return st;
}

void dc_fetch_free(struct dc_fetch *fetch, void (*drop)(struct dc_batch *batch)) {
  if (fetch == NULL) {
    return;
  }
  http_client_free(fetch->client);
  jobs_free(fetch->jobs);
  while (fetch->batches != NULL) {
    struct dc_batch *batch = fetch->batches;
    fetch->batches = batch->next;
    if (drop != NULL) {
      drop(batch);
    }
    free_batch(batch);
  }
  free(fetch);
}
