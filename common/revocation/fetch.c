// SPDX-License-Identifier: Apache-2.0
#include "common/revocation/fetch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/clock.h"

#define NUM_HEADERS 3u
#define HEADER_LEN (FETCH_MAX_VALIDATOR_LEN + 32u)

struct fetch {
  struct http_client *client;
  uint64_t call_id;
  char *first_url;
  char *url;  // of this hop
  uint8_t *post;
  size_t post_len;
  const char *post_type;  // literals
  char *ca_path;
  char lines[NUM_HEADERS][HEADER_LEN];
  const char *headers[NUM_HEADERS + 1];
  bool is_conditional;
  bool is_public;  // this hop goes to public addresses only
  int64_t end_ms;
  size_t max_len;
  size_t num_redirects;
  void (*fn)(void *arg, const struct fetch_result *result);
  void *arg;
};

const char *fetch_fault_name(enum fetch_fault fault) {
  static const char *const names[FETCH_NUM_FAULTS] = {
      [FETCH_NO_FAULT] = "none",
      [FETCH_TIMEOUT] = "timeout",
      [FETCH_UNREACHABLE] = "unreachable",
      [FETCH_TLS] = "tls",
      [FETCH_TOO_LONG] = "too_long",
      [FETCH_BROKEN] = "broken",
      [FETCH_HTTP_STATUS] = "http_status",
      [FETCH_TOO_MANY_REDIRECTS] = "too_many_redirects",
      [FETCH_OTHER_SCHEME] = "other_scheme",
      [FETCH_INSIDE] = "inside",
      [FETCH_NO_MEMORY] = "no_memory",
  };
  return fault < FETCH_NUM_FAULTS ? names[fault] : "?";
}

bool fetch_is_transport(enum fetch_fault fault) {
  return fault == FETCH_TIMEOUT || fault == FETCH_UNREACHABLE || fault == FETCH_TLS ||
         fault == FETCH_BROKEN;
}

static void fetch_free(struct fetch *fetch) {
  if (fetch != NULL) {
    free(fetch->first_url);
    free(fetch->url);
    free(fetch->post);
    free(fetch->ca_path);
    free(fetch);
  }
}

// --- URLs ------------------------------------------------------------------------------

// host_of borrows the host of a URL: what follows "//" until a port, a path or the end.
static struct bytes host_of(const char *url) {
  const char *begin = strstr(url, "//");
  size_t len = 0;

  begin = begin == NULL ? url : begin + 2;
  len = *begin == '[' ? strcspn(begin, "]") : strcspn(begin, ":/?#");
  return bytes_of(begin, len);
}

static bool is_same_host(const char *a, const char *b) {
  const struct bytes x = host_of(a);
  const struct bytes y = host_of(b);
  return x.len == y.len && strncasecmp((const char *)x.data, (const char *)y.data, x.len) == 0;
}

static bool is_same_scheme(const char *a, const char *b) {
  const size_t len = strcspn(a, ":");
  return len == strcspn(b, ":") && strncasecmp(a, b, len) == 0;
}

// --- one hop -----------------------------------------------------------------------------

static void on_answer(void *arg, const struct http_answer *answer);

static enum status start_hop(struct fetch *fetch) {
  fetch->is_public = !is_same_host(fetch->first_url, fetch->url);
  const int64_t left_ms = fetch->end_ms - clock_monotonic_ms();
  const struct http_identity identity = {.ca_path = fetch->ca_path};
  const struct http_call call = {
      .url = fetch->url,
      .allow_http = true,  // what is fetched is signed
      .method = fetch->post_len > 0 ? "POST" : "GET",
      .content_type = fetch->post_type,
      .body = bytes_of(fetch->post, fetch->post_len),
      .headers = fetch->headers,
      .only_public = fetch->is_public,
      .limit_ms = left_ms > 0 ? left_ms : 1,
      .max_answer_len = fetch->max_len,
      .identity = &identity,
  };
  return http_client_start(&fetch->call_id, fetch->client, &call, on_answer, fetch);
}

static enum fetch_fault fault_of(const struct fetch *fetch, enum status st) {
  switch (st) {
    case STATUS_OK:
      return FETCH_NO_FAULT;
    case STATUS_TIMEOUT:
      return FETCH_TIMEOUT;
    case STATUS_CRYPTO:
      return FETCH_TLS;
    case STATUS_LIMIT:
      return FETCH_TOO_LONG;
    case STATUS_CLOSED:
    case STATUS_FORMAT:
      return FETCH_BROKEN;
    case STATUS_REFUSED:
      return fetch->is_public ? FETCH_INSIDE : FETCH_BROKEN;
    case STATUS_MEMORY:
      return FETCH_NO_MEMORY;
    default:
      return FETCH_UNREACHABLE;
  }
}

static bool is_redirect(int code) {
  return code == 301 || code == 302 || code == 303 || code == 307 || code == 308;
}

// follow goes where the answer points: with the same request, as asking for a status
// again changes nothing anywhere.
static enum fetch_fault follow(struct fetch *fetch, const char *url) {
  char *copy = NULL;

  if (url == NULL || fetch->num_redirects == FETCH_MAX_REDIRECTS) {
    return FETCH_TOO_MANY_REDIRECTS;
  }
  if (!is_same_scheme(fetch->url, url)) {
    return FETCH_OTHER_SCHEME;
  }
  copy = strdup(url);
  if (copy == NULL) {
    return FETCH_NO_MEMORY;
  }
  free(fetch->url);
  fetch->url = copy;
  fetch->num_redirects++;
  return fault_of(fetch, start_hop(fetch));
}

static const char *short_header(const struct http_answer *answer, const char *name) {
  const char *value = http_answer_header(answer, name);
  return value != NULL && strlen(value) <= FETCH_MAX_VALIDATOR_LEN ? value : NULL;
}

static void read_headers(struct fetch_result *result, const struct http_answer *answer) {
  const int64_t now_s = clock_wall_s();

  result->freshness = http_freshness_read(
      http_answer_header(answer, "Cache-Control"), http_answer_header(answer, "Expires"),
      http_answer_header(answer, "Date"), http_answer_header(answer, "Age"), now_s);
  result->retry_after_s = http_retry_after_s(http_answer_header(answer, "Retry-After"), now_s);
  result->etag = short_header(answer, "ETag");
  result->last_modified = short_header(answer, "Last-Modified");
}

static void on_answer(void *arg, const struct http_answer *answer) {
  struct fetch *fetch = arg;
  struct fetch_result result = {.fault = fault_of(fetch, answer->st),
                                .code = answer->code,
                                .body = answer->body,
                                .message = answer->message,
                                .answer = answer};
  char text[64];

  if (answer->st == STATUS_OK) {
    if (is_redirect(answer->code)) {
      result.fault = follow(fetch, answer->redirect_url);
      if (result.fault == FETCH_NO_FAULT) {
        return;
      }
      result.message = result.fault == FETCH_OTHER_SCHEME ? "it redirects to another scheme"
                                                          : "it redirects in vain";
    } else {
      read_headers(&result, answer);
      result.is_unchanged = answer->code == 304 && fetch->is_conditional;
      if (answer->code != 200 && !result.is_unchanged) {
        result.fault = FETCH_HTTP_STATUS;
        (void)snprintf(text, sizeof text, "HTTP status %d", answer->code);
        result.message = text;
      }
    }
  }
  fetch->fn(fetch->arg, &result);
  fetch_free(fetch);
}

uint8_t *fetch_take_body(const struct fetch_result *result) {
  return http_answer_take_body(result->answer);
}

// --- starting ----------------------------------------------------------------------------

// add_header takes a line if the value is there, and could not be more than one line.
static bool add_header(struct fetch *fetch, size_t *num, const char *name, const char *value) {
  if (value == NULL || value[0] == '\0' || strlen(value) > FETCH_MAX_VALIDATOR_LEN ||
      strpbrk(value, "\r\n") != NULL) {
    return false;
  }
  (void)snprintf(fetch->lines[*num], HEADER_LEN, "%s: %s", name, value);
  fetch->headers[*num] = fetch->lines[*num];
  (*num)++;
  return true;
}

enum status fetch_start(struct fetch **out, struct http_client *client,
                        const struct fetch_wish *wish,
                        void (*fn)(void *arg, const struct fetch_result *result), void *arg) {
  enum status st = STATUS_OK;
  struct fetch *fetch = calloc(1, sizeof(*fetch));
  size_t num = 0;

  *out = NULL;
  if (fetch == NULL) {
    return STATUS_MEMORY;
  }
  fetch->client = client;
  fetch->first_url = strdup(wish->url);
  fetch->url = strdup(wish->url);
  fetch->post = bytes_copy(wish->post);
  fetch->post_len = wish->post.len;
  fetch->post_type = wish->post_type;
  fetch->ca_path = wish->ca_path == NULL ? NULL : strdup(wish->ca_path);
  fetch->end_ms = clock_monotonic_ms() + wish->limit_ms;
  fetch->max_len = wish->max_len;
  fetch->fn = fn;
  fetch->arg = arg;
  if (fetch->first_url == NULL || fetch->url == NULL || fetch->post == NULL ||
      (wish->ca_path != NULL && fetch->ca_path == NULL)) {
    st = STATUS_MEMORY;
    goto out;
  }
  (void)add_header(fetch, &num, "Accept", wish->accept);
  fetch->is_conditional = add_header(fetch, &num, "If-None-Match", wish->etag);
  fetch->is_conditional |= add_header(fetch, &num, "If-Modified-Since", wish->last_modified);
  TRY(start_hop(fetch));
  *out = fetch;
  fetch = NULL;

out:
  fetch_free(fetch);
  return st;
}

void fetch_cancel(struct fetch *fetch) {
  if (fetch != NULL) {
    http_client_cancel(fetch->client, fetch->call_id);
    fetch_free(fetch);
  }
}
