// SPDX-License-Identifier: Apache-2.0
#include "proxy/credentials.h"

#include <inttypes.h>
#include <openssl/ec_key.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/pool.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/tls/dc_check.h"
#include "proxy/dc_request.h"

#define MAX_BATCHES 4      // under way at once
#define TICK_MIN_MS 10     // between two looks at what is due
#define TICK_MAX_MS 1000   // also the longest a jump of the wall clock goes unseen
#define JITTER_PERCENT 10  // of half the life: a fleet must not ask at once
#define MAX_BACKOFF_SHIFT 20
#define ISSUER_SKEW_S 3600  // how far an issuer's clock may be ahead of ours
#define URL_MAX_LEN 2048
// A name of the store that is visited once, and evicted soon, is not worth a credential.
#define COLD_MS 500
#define BUDGET_MS 100           // until it is looked at again
#define SAVED_MS INT64_C(2000)  // of the budget for names new to the cache

// What is asked for one chain. Counted, as a batch under way refers to it: by the
// list, and by the batch.
struct want {
  unsigned num_refs;
  struct chain *chain;  // NULL: the chain has gone
  // Of the credential in force; key NULL: none.
  EVP_PKEY *key;
  uint8_t *dc;
  size_t dc_len;
  int64_t ends_s;
  const struct tls_chain *made_for;  // what the prepared object shows
  EVP_PKEY *next_key;                // of the one asked for
  struct chain *next_chain;          // while a site replaces another
  bool is_kept;
  bool is_asked;
  bool is_cached;       // of a name in the cache, rather than of the site
  size_t place;         // among those
  int64_t due_wall_ms;  // renewal
  int64_t due_ms;       // back-off (monotonic)
  unsigned num_failures;
  const char *why;  // the last failure, static
};

struct batch {
  struct batch *next;
  struct credentials *credentials;
  uint64_t id;
  unsigned issuer;
  char *url;
  size_t num;
  struct want *wants[];
};

enum fetch_result {
  FETCH_OK,
  FETCH_TRANSPORT,
  FETCH_HTTP,
  FETCH_ANSWER,
  FETCH_REFUSED,
  FETCH_BAD,
  FETCH_NUM
};
static const char *const fetch_names[FETCH_NUM] = {
    [FETCH_OK] = "ok",
    [FETCH_TRANSPORT] = "no_connection",
    [FETCH_HTTP] = "http_status",
    [FETCH_ANSWER] = "bad_answer",
    [FETCH_REFUSED] = "refused",
    [FETCH_BAD] = "bad_credential",
};

struct credentials {
  struct loop *loop;
  struct grace *grace;
  struct http_client *client;
  struct timer timer;
  struct site *site;
  struct want **wants;  // sorted by leaf
  size_t num_wants;
  struct want **cached;  // of names in the cache, in no order
  size_t num_cached;
  size_t cached_room;
  int64_t budget;     // chains new to the cache that may be asked for, in thousandths
  int64_t budget_ms;  // when it was last filled up
  struct batch *batches;
  size_t num_batches;
  unsigned issuer;  // the last that served
  struct counter results[FETCH_NUM];
  struct counter faults[DC_FAULT_NUM];
};

// --- wants ---------------------------------------------------------------------------

static void drop_credential(struct want *want) {
  EVP_PKEY_free(want->key);
  free(want->dc);
  want->key = NULL;
  want->dc = NULL;
  want->dc_len = 0;
  want->ends_s = 0;
  want->made_for = NULL;
}

static void unref_want(struct want *want) {
  want->num_refs -= 1;
  if (want->num_refs == 0) {
    drop_credential(want);
    EVP_PKEY_free(want->next_key);
    free(want);
  }
}

static size_t num_all(const struct credentials *c) { return c->num_wants + c->num_cached; }

static struct want *want_at(const struct credentials *c, size_t i) {
  return i < c->num_wants ? c->wants[i] : c->cached[i - c->num_wants];
}

// Any want for this leaf: of two chains with one leaf, the first in the list.
static struct want *find_want(const struct credentials *c, const uint8_t sha256[32]) {
  size_t low = 0;
  size_t high = c->num_wants;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    int order = memcmp(c->wants[middle]->chain->info.sha256, sha256, 32);
    if (order == 0) {
      return c->wants[middle];
    }
    if (order < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return NULL;
}

static struct bytes leaf_der(const struct chain *chain) {
  return bytes_of(CRYPTO_BUFFER_data(chain->certs[0]), CRYPTO_BUFFER_len(chain->certs[0]));
}

// --- putting one in force --------------------------------------------------------------

static void free_dc(void *arg) { tls_dc_unref(arg); }

// Swaps `dc` (may be NULL; taken) in. What was there goes when no worker can be
// reading it.
static void swap_dc(struct credentials *c, struct chain *chain, struct tls_dc *dc) {
  struct tls_dc *old = atomic_exchange_explicit(&chain->dc, dc, memory_order_acq_rel);
  if (old != NULL) {
    grace_after(c->grace, free_dc, old);
  }
}

static enum status make_dc(struct tls_dc **out, const struct want *want,
                           const struct chain *chain) {
  return tls_dc_new(out, chain_tls(chain, clock_wall_s()), bytes_of(want->dc, want->dc_len),
                    want->key, want->ends_s);
}

static void put_in_force(struct credentials *c, struct want *want) {
  struct tls_dc *dc = NULL;
  enum status st = make_dc(&dc, want, want->chain);
  if (st != STATUS_OK) {
    log_error(0, "dc_not_installed", "path=%s reason=%s", want->chain->path, status_name(st));
    return;
  }
  want->made_for = chain_tls(want->chain, clock_wall_s());
  swap_dc(c, want->chain, dc);
}

// --- times -----------------------------------------------------------------------------

static int64_t wall_ms(void) { return clock_wall_us() / 1000; }

// A random number from -limit to limit.
static int64_t random_within(int64_t limit) {
  uint64_t random = 0;
  RAND_bytes((uint8_t *)&random, sizeof(random));
  return (int64_t)(random % (uint64_t)(2 * limit + 1)) - limit;
}

static int64_t lifetime_s(const struct credentials *c, const struct chain *chain, int64_t now_s) {
  const struct dc_options *options = &c->site->options.dc;
  int64_t wanted = options->lifetime_ms / 1000;
  // RFC 9345, section 4: not past the certificate; strictly before is what Fizz wants.
  int64_t left = chain->info.not_after_s - now_s - 1;
  return wanted < left ? wanted : left;
}

// Is a credential for this chain of any use now?
static bool is_wanted(const struct credentials *c, const struct want *want, int64_t now_s) {
  const struct cert_info *info = &want->chain->info;
  int64_t margin_s = c->site->options.dc.margin_ms / 1000;
  return now_s >= info->not_before_s && lifetime_s(c, want->chain, now_s) > margin_s;
}

static void plan_renewal(struct want *want, int64_t now_s) {
  int64_t half_ms = (want->ends_s - now_s) * 1000 / 2;
  want->due_wall_ms = wall_ms() + half_ms + random_within(half_ms * JITTER_PERCENT / 100);
}

static void plan_retry(struct credentials *c, struct want *want) {
  const struct options *options = &c->site->options;
  unsigned num_issuers = (unsigned)options->issuers.num_urls;
  int64_t after_ms = 0;
  want->num_failures += 1;
  // Each issuer is asked once before there is any waiting.
  if (want->num_failures % num_issuers == 0) {
    unsigned shift = want->num_failures / num_issuers - 1;
    after_ms = options->dc.retry_min_ms << (shift < MAX_BACKOFF_SHIFT ? shift : MAX_BACKOFF_SHIFT);
    if (after_ms > options->dc.retry_max_ms) {
      after_ms = options->dc.retry_max_ms;
    }
    after_ms -= (after_ms + random_within(after_ms)) / 4;  // half to all of it
  }
  want->due_ms = loop_now_ms(c->loop) + after_ms;
}

// --- answers ---------------------------------------------------------------------------

static void fail(struct credentials *c, struct want *want, const struct batch *batch,
                 enum fetch_result result, const char *why, const char *details) {
  static struct log_gate gate;
  uint64_t num_held = 0;
  want->why = why;
  counter_add_own(&c->results[result], 1);
  plan_retry(c, want);
  if (log_gate_pass(&gate, 5, &num_held)) {
    log_warn(0, "dc_failed",
             "path=%s issuer=%s reason=%s details=\"%s\" failures=%u retry_ms=%" PRId64
             " held=%" PRIu64,
             want->chain->path, batch->url, why, details, want->num_failures,
             want->due_ms - loop_now_ms(c->loop), num_held);
  }
}

// Everything a client would check, and that it is no longer than what was asked.
static enum status check(struct credentials *c, const struct want *want, struct bytes in,
                         enum dc_fault *fault, int64_t *out_ends_s) {
  const struct chain *chain = want->chain;
  const struct dc_options *options = &c->site->options.dc;
  int64_t now_s = clock_wall_s();
  struct dc dc;
  enum status st = dc_check(&dc, fault, in, leaf_der(chain), &chain->info, want->next_key, now_s,
                            options->margin_ms / 1000);
  if (st == STATUS_OK) {
    *out_ends_s = dc_expiry_s(&dc, chain->info.not_before_s);
    // A short life is the only protection of a stolen key; an issuer does not
    // choose a longer one for us.
    if (*out_ends_s > now_s + options->lifetime_ms / 1000 + ISSUER_SKEW_S) {
      *fault = DC_FAULT_TOO_LONG;
      st = STATUS_FORMAT;
    }
  }
  counter_add_own(&c->faults[*fault], 1);
  ERR_clear_error();
  return st;
}

static void accept_credential(struct credentials *c, struct want *want, uint8_t **dc, size_t dc_len,
                              int64_t ends_s) {
  char when[CLOCK_RFC3339_LEN];
  EVP_PKEY_free(want->key);
  free(want->dc);
  want->key = want->next_key;
  want->next_key = NULL;
  want->dc = *dc;
  *dc = NULL;
  want->dc_len = dc_len;
  want->ends_s = ends_s;
  want->num_failures = 0;
  want->why = NULL;
  counter_add_own(&c->results[FETCH_OK], 1);
  plan_renewal(want, clock_wall_s());
  put_in_force(c, want);
  log_info(0, "dc_renewed", "path=%s ends=%s", want->chain->path,
           clock_format_rfc3339(when, ends_s));
}

static void take_entry(struct credentials *c, struct want *want, const struct batch *batch,
                       const json_t *entry) {
  struct errmsg err = {0};
  enum dc_fault fault = DC_FAULT_NONE;
  uint8_t *dc = NULL;
  size_t dc_len = 0;
  int64_t ends_s = 0;
  enum status st = dc_answer_entry(&dc, &dc_len, entry, &err);

  if (st == STATUS_REFUSED) {
    fail(c, want, batch, FETCH_REFUSED, "issuer_refused", err.text);
  } else if (st != STATUS_OK) {
    fail(c, want, batch, FETCH_ANSWER, "bad_answer", err.text);
  } else if (check(c, want, bytes_of(dc, dc_len), &fault, &ends_s) != STATUS_OK) {
    fail(c, want, batch, FETCH_BAD, dc_fault_name(fault), "the credential does not pass");
  } else {
    c->issuer = batch->issuer;
    accept_credential(c, want, &dc, dc_len, ends_s);
  }
  free(dc);
}

static void fail_all(struct credentials *c, struct batch *batch, enum fetch_result result,
                     const char *why, const char *details) {
  for (size_t i = 0; i < batch->num; i++) {
    if (batch->wants[i]->chain != NULL) {
      fail(c, batch->wants[i], batch, result, why, details);
    }
  }
}

static void take_answer(struct credentials *c, struct batch *batch,
                        const struct http_answer *answer) {
  struct errmsg err = {0};
  char details[64];
  json_t *results = NULL;

  if (answer->st != STATUS_OK) {
    fail_all(c, batch, FETCH_TRANSPORT, "no_connection", answer->message);
    return;
  }
  if (answer->code != 200) {
    (void)snprintf(details, sizeof(details), "HTTP status %d", answer->code);
    fail_all(c, batch, FETCH_HTTP, "http_status", details);
    return;
  }
  results = dc_answer_parse(answer->body, batch->num, &err);
  if (results == NULL) {
    fail_all(c, batch, FETCH_ANSWER, "bad_answer", err.text);
    return;
  }
  for (size_t i = 0; i < batch->num; i++) {
    if (batch->wants[i]->chain != NULL) {
      take_entry(c, batch->wants[i], batch, json_array_get(results, i));
    }
  }
  json_decref(results);
}

// --- batches ----------------------------------------------------------------------------

static void free_batch(struct batch *batch) {
  for (size_t i = 0; i < batch->num; i++) {
    batch->wants[i]->is_asked = false;
    EVP_PKEY_free(batch->wants[i]->next_key);
    batch->wants[i]->next_key = NULL;
    unref_want(batch->wants[i]);
  }
  free(batch->url);
  free(batch);
}

static void unlink_batch(struct credentials *c, struct batch *batch) {
  struct batch **at = &c->batches;
  while (*at != batch) {
    at = &(*at)->next;
  }
  *at = batch->next;
  c->num_batches -= 1;
}

static void on_tick(void *arg);

static void on_answer(void *arg, const struct http_answer *answer) {
  struct batch *batch = arg;
  struct credentials *c = batch->credentials;
  unlink_batch(c, batch);
  take_answer(c, batch, answer);
  free_batch(batch);
  timer_arm_ms(&c->timer, 0);
}

static EVP_PKEY *new_key(void) {
  EVP_PKEY *key = EVP_PKEY_new();
  EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
  if (key == NULL || ec == NULL || EC_KEY_generate_key(ec) != 1 ||
      EVP_PKEY_set1_EC_KEY(key, ec) != 1) {
    EVP_PKEY_free(key);
    key = NULL;
  }
  EC_KEY_free(ec);
  return key;
}

// Adds a want to a batch: with a new key, as each credential has its own.
static enum status add_to_batch(struct credentials *c, struct batch *batch, json_t *entries,
                                struct want *want) {
  int64_t now_s = clock_wall_s();
  json_t *entry = NULL;
  want->next_key = new_key();
  if (want->next_key == NULL) {
    return STATUS_MEMORY;
  }
  entry = dc_request_entry(leaf_der(want->chain), want->chain->info.sha256, want->next_key,
                           lifetime_s(c, want->chain, now_s));
  if (json_array_append_new(entries, entry) != 0) {
    EVP_PKEY_free(want->next_key);
    want->next_key = NULL;
    return STATUS_MEMORY;
  }
  want->is_asked = true;
  want->num_refs += 1;
  batch->wants[batch->num++] = want;
  return STATUS_OK;
}

static enum status send_batch(struct credentials *c, struct batch *batch, json_t **entries) {
  const struct issuer_options *issuers = &c->site->options.issuers;
  const struct http_identity identity = {issuers->tls.ca, issuers->tls.certificate,
                                         issuers->tls.key};
  struct http_call call = {
      .method = "POST",
      .limit_ms = issuers->timeout_ms,
      .max_answer_len = DC_ANSWER_MAX_LEN,
      .identity = &identity,
  };
  char *body = dc_request_body(*entries);
  enum status st = STATUS_OK;

  *entries = NULL;
  if (body == NULL) {
    return STATUS_MEMORY;
  }
  call.url = batch->url;
  call.body = bytes_text(body);
  st = http_client_start(&batch->id, c->client, &call, on_answer, batch);
  free(body);
  return st;
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

static struct batch *new_batch(struct credentials *c, unsigned issuer) {
  size_t max = (size_t)c->site->options.dc.batch;
  struct batch *batch = calloc(1, sizeof(*batch) + max * sizeof(struct want *));
  if (batch == NULL) {
    return NULL;
  }
  batch->credentials = c;
  batch->issuer = issuer;
  batch->url = url_of(c->site->options.issuers.urls[issuer]);
  if (batch->url == NULL) {
    free(batch);
    return NULL;
  }
  return batch;
}

static bool is_due(const struct credentials *c, const struct want *want, int64_t now_s) {
  return !want->is_asked && loop_now_ms(c->loop) >= want->due_ms &&
         (want->key == NULL || wall_ms() >= want->due_wall_ms) && is_wanted(c, want, now_s);
}

// --- the budget for names that are new to the cache ---

static void fill_budget(struct credentials *c) {
  const int64_t per_s = c->site->options.store.dc_per_s;
  const int64_t now_ms = loop_now_ms(c->loop);
  c->budget += (now_ms - c->budget_ms) * per_s;
  c->budget_ms = now_ms;
  if (c->budget > SAVED_MS * per_s) {
    c->budget = SAVED_MS * per_s;
  }
}

static bool take_budget(struct credentials *c, const struct want *want) {
  if (!want->is_cached || want->key != NULL || want->num_failures > 0) {
    return true;
  }
  if (c->budget < 1000) {
    return false;
  }
  c->budget -= 1000;
  return true;
}

static unsigned issuer_for(const struct credentials *c, const struct want *want) {
  return (c->issuer + want->num_failures) % (unsigned)c->site->options.issuers.num_urls;
}

// Asks one issuer for what is due and would go to it, starting with wants[first].
static void ask(struct credentials *c, size_t first, int64_t now_s) {
  unsigned issuer = issuer_for(c, want_at(c, first));
  struct batch *batch = new_batch(c, issuer);
  json_t *entries = json_array();
  size_t max = (size_t)c->site->options.dc.batch;

  if (batch == NULL || entries == NULL) {
    json_decref(entries);
    free(batch);
    return;  // the next tick tries again
  }
  for (size_t i = first; i < num_all(c) && batch->num < max; i++) {
    struct want *want = want_at(c, i);
    if (is_due(c, want, now_s) && issuer_for(c, want) == issuer && take_budget(c, want) &&
        add_to_batch(c, batch, entries, want) != STATUS_OK) {
      break;
    }
  }
  if (batch->num == 0 || send_batch(c, batch, &entries) != STATUS_OK) {
    fail_all(c, batch, FETCH_TRANSPORT, "no_memory", "");
    json_decref(entries);
    free_batch(batch);
    return;
  }
  batch->next = c->batches;
  c->batches = batch;
  c->num_batches += 1;
}

// --- the clock ----------------------------------------------------------------------------

// What has ended is of no use to anybody: the key goes.
static void drop_ended(struct credentials *c, struct want *want, int64_t now_s) {
  if (want->key != NULL && now_s > want->ends_s) {
    log_error(0, "dc_ended", "path=%s reason=%s", want->chain->path,
              want->why == NULL ? "none" : want->why);
    swap_dc(c, want->chain, NULL);
    drop_credential(want);
  }
}

static int64_t look_at(struct credentials *c, size_t i, int64_t now_s) {
  struct want *want = want_at(c, i);
  int64_t wait_ms = TICK_MAX_MS;
  const bool is_new = want->is_cached && want->key == NULL && want->num_failures == 0;

  drop_ended(c, want, now_s);
  if (want->key != NULL && want->made_for != chain_tls(want->chain, now_s)) {
    put_in_force(c, want);  // the staple has ended; below API version 32 of no effect
  }
  if (is_new && c->budget < 1000) {
    return BUDGET_MS;
  }
  if (is_due(c, want, now_s) && c->num_batches < MAX_BATCHES) {
    ask(c, i, now_s);
  }
  if (!want->is_asked) {
    int64_t back_off_ms = want->due_ms - loop_now_ms(c->loop);
    int64_t renewal_ms = want->key == NULL ? 0 : want->due_wall_ms - wall_ms();
    wait_ms = back_off_ms > renewal_ms ? back_off_ms : renewal_ms;
  }
  return wait_ms;
}

static void on_tick(void *arg) {
  struct credentials *c = arg;
  int64_t now_s = clock_wall_s();
  int64_t next_ms = TICK_MAX_MS;
  if (c->site == NULL || !options_has_issuers(&c->site->options)) {
    return;
  }
  fill_budget(c);
  for (size_t i = 0; i < num_all(c); i++) {
    int64_t wait_ms = look_at(c, i, now_s);
    next_ms = wait_ms < next_ms ? wait_ms : next_ms;
  }
  timer_arm_ms(&c->timer, next_ms < TICK_MIN_MS ? TICK_MIN_MS : next_ms);
}

// --- sites -----------------------------------------------------------------------------------

static int compare_chains(const void *a, const void *b) {
  const struct chain *const *x = a;
  const struct chain *const *y = b;
  int order = memcmp((*x)->info.sha256, (*y)->info.sha256, 32);
  if (order != 0) {
    return order;
  }
  return *x < *y ? -1 : *x > *y;
}

struct chain_list {
  struct chain **items;
  size_t num;
};

static void collect(struct chain_list *list, const struct cert_name *name) {
  for (size_t i = 0; i < name->num_levels; i++) {
    for (size_t j = 0; j < name->levels[i].num_chains; j++) {
      struct chain *chain = name->levels[i].chains[j];
      // Never an RSA leaf: clients abort on its credentials (cert.h).
      if (chain->info.may_delegate) {
        list->items[list->num++] = chain;
      }
    }
  }
}

// The chains that need one, sorted by leaf: those of names that may use it.
static enum status list_chains(struct chain_list *out, const struct site *site) {
  size_t num_names = 0;
  size_t num = 0;
  const struct cert_name *const *names = certstore_names(site->store, &num_names);

  *out = (struct chain_list){0};
  out->items = calloc(num_names * CERTSTORE_MAX_LEVELS * CERTSTORE_MAX_PER_LEVEL + 1,
                      sizeof(struct chain *));
  if (out->items == NULL) {
    return STATUS_MEMORY;
  }
  for (size_t i = 0; i < num_names && options_has_issuers(&site->options); i++) {
    if (policy_of(names[i])->may_use_dc) {
      collect(out, names[i]);
    }
  }
  qsort(out->items, out->num, sizeof(struct chain *), compare_chains);
  for (size_t i = 0; i < out->num; i++) {
    if (i == 0 || out->items[i] != out->items[i - 1]) {
      out->items[num++] = out->items[i];
    }
  }
  out->num = num;
  return STATUS_OK;
}

enum status credentials_prepare(struct credentials *c, struct site *site) {
  enum status st = STATUS_OK;
  struct chain_list chains = {0};

  TRY(list_chains(&chains, site));
  for (size_t i = 0; i < chains.num; i++) {
    const struct want *want = find_want(c, chains.items[i]->info.sha256);
    struct tls_dc *dc = NULL;
    if (want == NULL || want->key == NULL) {
      continue;
    }
    if (make_dc(&dc, want, chains.items[i]) != STATUS_OK) {
      TRY(STATUS_MEMORY);
    }
    atomic_store_explicit(&chains.items[i]->dc, dc, memory_order_release);
  }

out:
  free(chains.items);
  return st;
}

// The want that is there for this leaf goes on with the new chain.
static struct want *reuse_want(struct credentials *c, struct chain *chain, int64_t now_s) {
  struct want *want = find_want(c, chain->info.sha256);
  if (want == NULL || want->is_kept) {
    return NULL;
  }
  want->is_kept = true;
  want->num_refs += 1;
  want->next_chain = chain;
  if (want->key != NULL) {
    want->made_for = chain_tls(chain, now_s);
  }
  return want;
}

static struct want *new_want(struct chain *chain) {
  struct want *want = calloc(1, sizeof(*want));
  if (want != NULL) {
    want->num_refs = 1;
    want->next_chain = chain;
    want->is_kept = true;
  }
  return want;
}

static void replace_wants(struct credentials *c, struct want **wants, size_t num) {
  for (size_t i = 0; i < c->num_wants; i++) {
    if (!c->wants[i]->is_kept) {
      c->wants[i]->chain = NULL;
    }
    unref_want(c->wants[i]);
  }
  free(c->wants);
  c->wants = wants;
  c->num_wants = num;
  for (size_t i = 0; i < num; i++) {
    wants[i]->chain = wants[i]->next_chain;
    wants[i]->next_chain = NULL;
    wants[i]->is_kept = false;
  }
}

enum status credentials_set_site(struct credentials *c, struct site *site) {
  enum status st = STATUS_OK;
  struct chain_list chains = {0};
  struct want **wants = NULL;
  size_t num = 0;
  int64_t now_s = clock_wall_s();

  TRY(list_chains(&chains, site));
  wants = calloc(chains.num + 1, sizeof(struct want *));
  if (wants == NULL) {
    TRY(STATUS_MEMORY);
  }
  for (size_t i = 0; i < chains.num; i++) {
    wants[num] = reuse_want(c, chains.items[i], now_s);
    if (wants[num] == NULL) {
      wants[num] = new_want(chains.items[i]);
    }
    num += wants[num] != NULL ? 1 : 0;
  }

out:
  // Even without memory the old site is about to go, and its chains with it.
  replace_wants(c, wants, num);
  c->site = site;
  free(chains.items);
  timer_arm_ms(&c->timer, 0);
  return st;
}

// --- names in the cache -----------------------------------------------------------------------

static void supply(struct credentials *c, struct chain *chain) {
  struct want *want = NULL;
  if (c->num_cached == c->cached_room) {
    size_t room = c->cached_room == 0 ? 64 : c->cached_room * 2;
    struct want **bigger = realloc((void *)c->cached, room * sizeof(struct want *));
    if (bigger == NULL) {
      return;
    }
    c->cached = bigger;
    c->cached_room = room;
  }
  want = calloc(1, sizeof(*want));
  if (want == NULL) {
    return;
  }
  want->num_refs = 1;
  want->chain = chain;
  want->is_cached = true;
  want->due_ms = loop_now_ms(c->loop) + COLD_MS;
  want->place = c->num_cached;
  c->cached[c->num_cached++] = want;
  chain->supply = want;
}

static void stop_supply(struct credentials *c, struct chain *chain) {
  struct want *want = chain->supply;
  if (want == NULL) {
    return;
  }
  chain->supply = NULL;
  want->chain = NULL;
  c->num_cached -= 1;
  c->cached[want->place] = c->cached[c->num_cached];
  c->cached[want->place]->place = want->place;
  unref_want(want);
}

// pass_on lets the chain go on with what the same leaf had.
static void pass_on(struct credentials *c, struct chain *chain, struct chain *earlier) {
  struct want *want = earlier->supply;
  earlier->supply = NULL;
  want->chain = chain;
  chain->supply = want;
  if (want->key != NULL) {
    put_in_force(c, want);
  }
}

static struct chain *find_leaf(const struct ready *ready, const struct chain *chain) {
  for (size_t i = 0; ready != NULL && i < ready->name.num_levels; i++) {
    for (size_t j = 0; j < ready->name.levels[i].num_chains; j++) {
      struct chain *found = ready->name.levels[i].chains[j];
      if (found->supply != NULL && memcmp(found->info.sha256, chain->info.sha256, 32) == 0) {
        return found;
      }
    }
  }
  return NULL;
}

void credentials_change(struct credentials *c, struct ready *in, struct ready *out) {
  const bool may = c->site != NULL && options_has_issuers(&c->site->options) &&
                   c->site->options.store.may_use_dc;
  for (size_t i = 0; in != NULL && may && i < in->name.num_levels; i++) {
    for (size_t j = 0; j < in->name.levels[i].num_chains; j++) {
      struct chain *chain = in->name.levels[i].chains[j];
      struct chain *earlier = find_leaf(out, chain);
      if (earlier != NULL) {
        pass_on(c, chain, earlier);
      } else if (chain->info.may_delegate) {
        supply(c, chain);
      }
    }
  }
  for (size_t i = 0; out != NULL && i < out->name.num_levels; i++) {
    for (size_t j = 0; j < out->name.levels[i].num_chains; j++) {
      stop_supply(c, out->name.levels[i].chains[j]);
    }
  }
  if (in != NULL && timer_is_armed(&c->timer)) {
    // The tick comes within its longest pause; sooner only for what is due sooner.
    return;
  }
  timer_arm_ms(&c->timer, COLD_MS);
}

// --- the rest -----------------------------------------------------------------------------------

void credentials_hurry(struct credentials *c) {
  for (size_t i = 0; i < num_all(c); i++) {
    if (want_at(c, i)->key == NULL) {
      want_at(c, i)->due_ms = 0;
    }
  }
  timer_arm_ms(&c->timer, 0);
}

const char *credentials_why(const struct credentials *c, const struct chain *chain) {
  const struct want *want = NULL;
  if (c->site == NULL || !options_has_issuers(&c->site->options)) {
    return "no issuer is configured";
  }
  want = chain->supply != NULL ? chain->supply : find_want(c, chain->info.sha256);
  if (want == NULL) {
    return "no name with this chain may use one";
  }
  if (want->why != NULL) {
    return want->why;
  }
  if (want->is_asked) {
    return "asked for";
  }
  return is_wanted(c, want, clock_wall_s()) ? NULL : "the certificate is not valid long enough";
}

size_t credentials_num_missing(const struct credentials *c) {
  size_t num_missing = 0;
  for (size_t i = 0; i < num_all(c); i++) {
    num_missing += want_at(c, i)->key == NULL ? 1 : 0;
  }
  return num_missing;
}

void credentials_write_metrics(const struct credentials *c, struct metrics_text *text) {
  size_t num_missing = credentials_num_missing(c);
  metrics_family(text, "deputy_proxy_dc_fetches_total", METRIC_COUNTER,
                 "Delegated credentials asked for, by what came of it.");
  for (unsigned i = 0; i < FETCH_NUM; i++) {
    metrics_sample(text, "deputy_proxy_dc_fetches_total", (double)counter_get(&c->results[i]),
                   "result", fetch_names[i], NULL);
  }
  metrics_family(text, "deputy_proxy_dc_faults_total", METRIC_COUNTER,
                 "Delegated credentials that an issuer answered with and that did not pass.");
  for (unsigned i = DC_FAULT_NONE + 1; i < DC_FAULT_NUM; i++) {
    metrics_sample(text, "deputy_proxy_dc_faults_total", (double)counter_get(&c->faults[i]),
                   "fault", dc_fault_name((enum dc_fault)i), NULL);
  }
  metrics_family(text, "deputy_proxy_dc_chains", METRIC_GAUGE,
                 "Chains that are to have a delegated credential.");
  metrics_sample(text, "deputy_proxy_dc_chains", (double)num_all(c), NULL);
  metrics_family(text, "deputy_proxy_dc_chains_without", METRIC_GAUGE,
                 "Of these, chains that have none now.");
  metrics_sample(text, "deputy_proxy_dc_chains_without", (double)num_missing, NULL);
}

enum status credentials_new(struct credentials **out, struct loop *loop, struct grace *grace) {
  enum status st = STATUS_OK;
  struct credentials *c = calloc(1, sizeof(*c));

  *out = NULL;
  if (c == NULL) {
    return STATUS_MEMORY;
  }
  c->loop = loop;
  c->grace = grace;
  TRY(http_client_new(&c->client, loop));
  TRY(timer_init(&c->timer, loop, on_tick, c));
  *out = c;
  c = NULL;

out:
  credentials_free(c);
  return st;
}

void credentials_free(struct credentials *c) {
  if (c == NULL) {
    return;
  }
  http_client_free(c->client);
  while (c->batches != NULL) {
    struct batch *next = c->batches->next;
    free_batch(c->batches);
    c->batches = next;
  }
  replace_wants(c, NULL, 0);
  for (size_t i = 0; i < c->num_cached; i++) {
    c->cached[i]->chain = NULL;
    unref_want(c->cached[i]);
  }
  free((void *)c->cached);
  timer_cleanup(&c->timer);
  free(c);
}
