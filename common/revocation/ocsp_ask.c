// SPDX-License-Identifier: Apache-2.0
#include "common/revocation/ocsp_ask.h"

#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"

struct ocsp_ask {
  struct http_client *client;
  struct fetch *fetch;
  char *url;
  uint8_t *leaf;
  size_t leaf_len;
  uint8_t *issuer;
  size_t issuer_len;
  uint8_t *request;
  size_t request_len;
  uint8_t nonce[OCSP_NONCE_LEN];
  bool has_nonce;
  bool is_post;
  int64_t min_this_update_s;
  char etag[FETCH_MAX_VALIDATOR_LEN + 1];
  char last_modified[FETCH_MAX_VALIDATOR_LEN + 1];
  char *ca_path;
  int64_t end_ms;
  void (*fn)(void *arg, const struct ocsp_ask_result *result);
  void *arg;

  // What came. While is_checking, result and all that a check reads are the job's.
  struct ocsp_ask_result result;
  struct jobs *jobs;  // NULL: answers are checked on the loop
  struct job job;
  bool is_checking;
  uint8_t *response;  // taken, for the job
  char came_etag[FETCH_MAX_VALIDATOR_LEN + 1];
  char came_last_modified[FETCH_MAX_VALIDATOR_LEN + 1];
};

const char *ocsp_ask_fault_name(const struct ocsp_ask_result *result) {
  return result->fetch_fault != FETCH_NO_FAULT ? fetch_fault_name(result->fetch_fault)
                                               : ocsp_fault_name(result->fault);
}

bool ocsp_ask_is_usable(const struct ocsp_ask_result *result) {
  return result->fetch_fault == FETCH_NO_FAULT && result->fault == OCSP_NO_FAULT;
}

static void ask_free(struct ocsp_ask *ask) {
  if (ask != NULL) {
    free(ask->url);
    free(ask->leaf);
    free(ask->issuer);
    free(ask->request);
    free(ask->ca_path);
    free(ask->response);
    free(ask);
  }
}

// --- the exchange ------------------------------------------------------------------------

static void on_fetched(void *arg, const struct fetch_result *fetched);

// start_fetch asks by GET if it can, once: afterwards is_post is set.
static enum status start_fetch(struct ocsp_ask *ask) {
  const struct bytes request = bytes_of(ask->request, ask->request_len);
  char *get_url = ask->is_post ? NULL : ocsp_get_url(ask->url, request);
  struct fetch_wish wish = {
      .url = get_url != NULL ? get_url : ask->url,
      .accept = OCSP_ANSWER_TYPE,
      .limit_ms = ask->end_ms - clock_monotonic_ms(),
      .max_len = OCSP_MAX_LEN,
      .ca_path = ask->ca_path,
  };
  enum status st = STATUS_OK;

  if (get_url != NULL) {
    wish.etag = ask->etag;
    wish.last_modified = ask->last_modified;
  } else {
    ask->is_post = true;
    wish.post = request;
    wish.post_type = OCSP_CONTENT_TYPE;
  }
  st = fetch_start(&ask->fetch, ask->client, &wish, on_fetched, ask);
  free(get_url);
  return st;
}

// check may run on the thread of jobs.
static void check(void *arg) {
  struct ocsp_ask *ask = arg;
  struct ocsp_ask_result *result = &ask->result;
  const struct ocsp_query query = {
      .leaf = bytes_of(ask->leaf, ask->leaf_len),
      .issuer = bytes_of(ask->issuer, ask->issuer_len),
      .nonce = bytes_of(ask->nonce, ask->has_nonce ? OCSP_NONCE_LEN : 0),
      .must_have_nonce = ask->has_nonce,
      .now_s = clock_wall_s(),
      .skew_s = OCSP_ASK_SKEW_S,
      .min_this_update = ask->min_this_update_s,
  };
  result->fault = ocsp_check(&result->answer, &query, result->response, &result->err);
}

// should_post: a POST may do better than the GET did.
static bool should_post(const struct ocsp_ask *ask) {
  const struct ocsp_ask_result *result = &ask->result;
  return !ask->is_post && ask->end_ms > clock_monotonic_ms() &&
         (result->fetch_fault == FETCH_HTTP_STATUS || result->fetch_fault == FETCH_TOO_LONG ||
          (result->fetch_fault == FETCH_NO_FAULT && result->fault != OCSP_NO_FAULT));
}

static void finish(struct ocsp_ask *ask) {
  if (should_post(ask)) {
    free(ask->response);
    ask->response = NULL;
    ask->is_post = true;
    if (start_fetch(ask) == STATUS_OK) {
      return;
    }
    ask->result.response = (struct bytes){0};
  }
  ask->fn(ask->arg, &ask->result);
  ask_free(ask);
}

static void on_checked(void *arg) {
  struct ocsp_ask *ask = arg;
  ask->is_checking = false;
  finish(ask);
}

static const char *keep_validator(char out[FETCH_MAX_VALIDATOR_LEN + 1], const char *value) {
  if (value == NULL || strlen(value) > FETCH_MAX_VALIDATOR_LEN) {
    return NULL;
  }
  memcpy(out, value, strlen(value) + 1);
  return out;
}

// check_later hands the answer to the thread. What is borrowed for the callback only has
// to be kept.
static void check_later(struct ocsp_ask *ask, const struct fetch_result *fetched) {
  ask->response = fetch_take_body(fetched);
  ask->result.response = bytes_of(ask->response, fetched->body.len);
  ask->result.etag = keep_validator(ask->came_etag, fetched->etag);
  ask->result.last_modified = keep_validator(ask->came_last_modified, fetched->last_modified);
  ask->job = (struct job){.work = check, .done = on_checked, .arg = ask};
  ask->is_checking = true;
  jobs_start(ask->jobs, &ask->job);
}

static void on_fetched(void *arg, const struct fetch_result *fetched) {
  struct ocsp_ask *ask = arg;

  ask->fetch = NULL;
  ask->result = (struct ocsp_ask_result){
      .fetch_fault = fetched->fault,
      .is_unchanged = fetched->is_unchanged,
      .response = fetched->body,
      .is_post = ask->is_post,
      .code = fetched->code,
      .freshness = fetched->freshness,
      .retry_after_s = fetched->retry_after_s,
      .etag = fetched->etag,
      .last_modified = fetched->last_modified,
  };
  if (fetched->fault != FETCH_NO_FAULT) {
    (void)errmsg_set(&ask->result.err, STATUS_OK, "%s", fetched->message);
  } else if (!fetched->is_unchanged && ask->jobs != NULL && fetched->body.len > 0) {
    check_later(ask, fetched);
    return;
  } else if (!fetched->is_unchanged) {
    check(ask);
  }
  finish(ask);
}

// --- starting ------------------------------------------------------------------------------

static enum status copy_wish(struct ocsp_ask *ask, const struct ocsp_ask_wish *wish) {
  ask->url = strdup(wish->url);
  ask->leaf = bytes_copy(wish->leaf);
  ask->leaf_len = wish->leaf.len;
  ask->issuer = bytes_copy(wish->issuer);
  ask->issuer_len = wish->issuer.len;
  ask->ca_path = wish->ca_path == NULL ? NULL : strdup(wish->ca_path);
  ask->min_this_update_s = wish->min_this_update_s;
  (void)keep_validator(ask->etag, wish->etag);
  (void)keep_validator(ask->last_modified, wish->last_modified);
  ask->jobs = wish->jobs;
  ask->end_ms = clock_monotonic_ms() + (wish->limit_ms == 0 ? OCSP_ASK_LIMIT_MS : wish->limit_ms);
  ask->has_nonce = wish->has_nonce;
  ask->is_post = wish->has_nonce;  // a nonce is for one: no cache can help
  if (wish->has_nonce && !RAND_bytes(ask->nonce, sizeof ask->nonce)) {
    return STATUS_MEMORY;
  }
  return ask->url == NULL || ask->leaf == NULL || ask->issuer == NULL ||
                 (wish->ca_path != NULL && ask->ca_path == NULL)
             ? STATUS_MEMORY
             : STATUS_OK;
}

enum status ocsp_ask_start(struct ocsp_ask **out, struct http_client *client,
                           const struct ocsp_ask_wish *wish,
                           void (*fn)(void *arg, const struct ocsp_ask_result *result), void *arg,
                           struct errmsg *err) {
  enum status st = STATUS_OK;
  struct ocsp_ask *ask = NULL;

  *out = NULL;
  if (wish->issuer.len == 0) {
    return errmsg_set(err, STATUS_FORMAT, "the issuer's certificate is not in the chain");
  }
  ask = calloc(1, sizeof(*ask));
  if (ask == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  ask->client = client;
  ask->fn = fn;
  ask->arg = arg;
  TRY(copy_wish(ask, wish));
  TRY(ocsp_request_new(&ask->request, &ask->request_len, wish->leaf, wish->issuer,
                       bytes_of(ask->nonce, ask->has_nonce ? OCSP_NONCE_LEN : 0), err));
  st = start_fetch(ask);
  if (st != STATUS_OK) {
    st = errmsg_set(err, st, "%s cannot be asked", wish->url);
    goto out;
  }
  *out = ask;
  ask = NULL;

out:
  ask_free(ask);
  return st;
}

bool ocsp_ask_is_checking(const struct ocsp_ask *ask) { return ask->is_checking; }

void ocsp_ask_cancel(struct ocsp_ask *ask) {
  if (ask != NULL) {
    fetch_cancel(ask->fetch);
    ask_free(ask);
  }
}
