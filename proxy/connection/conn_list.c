// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/conn_list.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>

#include "common/base/clock.h"
#include "common/net/address.h"
#include "proxy/connection/conn.h"

#define NAME_LEN 254
#define QUERY_MAX_S 100000000

// What is asked for; empty or zero: all.
struct filter {
  size_t limit;
  int state;  // enum conn_state; -1: all
  bool has_client;
  struct address client;  // without its port
  char name[NAME_LEN];
  int64_t older_us;
};

struct row {
  uint64_t id;
  int64_t age_us;
  int64_t idle_ms;
  uint64_t bytes_up;
  uint64_t bytes_down;
  struct address client;  // all-zero: a UNIX socket's
  uint8_t state;
  uint8_t source;
  uint8_t version;
  bool is_established;
  char label[CONN_LABEL_LEN];
  char name[NAME_LEN];
};

struct asking;

// One worker's part of an answer.
struct part {
  struct asking *asking;
  struct worker *worker;
  struct row *rows;
  size_t num;
  uint64_t num_matching;
  uint64_t num_not_looked;
};

struct asking {
  LIST_ENTRY(asking) link;
  struct conn_lister *lister;
  struct http_request *request;
  struct filter filter;
  _Atomic size_t num_missing;
  size_t num_parts;
  struct part parts[];
};

struct conn_lister {
  struct loop *control;
  struct worker *const *workers;
  size_t num_workers;
  size_t num_open;
  LIST_HEAD(, asking) open;
};

// --- on a worker ---------------------------------------------------------------------------

static struct address client_of(const struct conn *conn) {
  struct address out = {0};
  size_t len = conn->peer.sa.sa_family == AF_INET    ? sizeof(conn->peer.in)
               : conn->peer.sa.sa_family == AF_INET6 ? sizeof(conn->peer.in6)
                                                     : 0;
  memcpy(&out.storage, &conn->peer, len);
  out.len = (socklen_t)len;
  address_unmap(&out);
  return out;
}

static bool is_same_host(struct address a, struct address b) {
  address_set_port(&a, 0);
  address_set_port(&b, 0);
  return a.len == b.len && memcmp(&a.storage, &b.storage, a.len) == 0;
}

static const char *name_of(const struct conn *conn) {
  const char *name =
      conn->ssl == NULL ? NULL : SSL_get_servername(conn->ssl, TLSEXT_NAMETYPE_host_name);
  return name == NULL ? "" : name;
}

static bool matches(const struct filter *filter, const struct conn *conn, int64_t now_us) {
  return (filter->state < 0 || filter->state == (int)conn->state) &&
         now_us - conn->accepted_us >= filter->older_us &&
         (!filter->has_client ||
          (conn->peer.sa.sa_family != AF_UNIX && is_same_host(client_of(conn), filter->client))) &&
         (filter->name[0] == '\0' || strcasecmp(filter->name, name_of(conn)) == 0);
}

static void fill(struct row *out, const struct conn *conn, int64_t now_us) {
  *out = (struct row){
      .id = conn->id,
      .age_us = now_us - conn->accepted_us,
      .idle_ms = loop_now_ms(conn->worker->loop) - conn->touched_ms,
      .bytes_up = conn->bytes_up,
      .bytes_down = conn->bytes_down,
      .client = client_of(conn),
      .state = conn->state,
      .source = conn->source,
      .version = conn->version,
      .is_established = conn->handshake_us != 0,
  };
  memcpy(out->label, conn->label, sizeof(out->label));
  (void)strncpy(out->name, name_of(conn), sizeof(out->name) - 1);
}

static void on_answered(void *arg);

static void on_worker(void *arg) {
  struct part *part = arg;
  struct asking *asking = part->asking;
  int64_t now_us = clock_monotonic_us();
  size_t num_looked = 0;

  for (const struct conn *conn = part->worker->all; conn != NULL; conn = conn->next) {
    if (num_looked == CONN_LIST_MAX_LOOKED) {
      part->num_not_looked = part->worker->num_conns - num_looked;
      break;
    }
    num_looked += 1;
    if (matches(&asking->filter, conn, now_us)) {
      part->num_matching += 1;
      if (part->num < asking->filter.limit) {
        fill(&part->rows[part->num++], conn, now_us);
      }
    }
  }
  // Release what this worker has written; acquire what the others have, for the last.
  if (atomic_fetch_sub_explicit(&asking->num_missing, 1, memory_order_acq_rel) == 1) {
    loop_post(asking->lister->control, on_answered, asking);
  }
}

// --- the answer ------------------------------------------------------------------------------

static void asking_free(struct asking *asking) {
  LIST_REMOVE(asking, link);
  asking->lister->num_open -= 1;
  for (size_t i = 0; i < asking->num_parts; i++) {
    free(asking->parts[i].rows);
  }
  free(asking);
}

static json_t *text_or_null(bool is_there, const char *text) {
  return is_there ? json_string(text) : json_null();
}

static json_t *view(const struct row *row) {
  char client[ADDRESS_TEXT_LEN] = "unix";
  if (row->client.len > 0) {
    (void)address_format(client, &row->client);
  }
  // What a client said as its name is any bytes: json_string refuses what is no UTF-8.
  json_t *name = row->name[0] == '\0' ? json_null() : json_string(row->name);
  return json_pack(
      "{s:I,s:I,s:s,s:s,s:o,s:o,s:o,s:o,s:f,s:f,s:I,s:I}", "id", (json_int_t)row->id, "worker",
      (json_int_t)(row->id & 0xff), "state", conn_state_name((enum conn_state)row->state), "client",
      client, "name", name == NULL ? json_null() : name, "chain",
      text_or_null(row->is_established, row->label), "source",
      text_or_null(row->is_established, source_name((enum source)row->source)), "version",
      text_or_null(row->is_established, version_name((enum version)row->version)), "age_s",
      (double)row->age_us / 1e6, "idle_s", (double)(row->idle_ms > 0 ? row->idle_ms : 0) / 1e3,
      "up", (json_int_t)row->bytes_up, "down", (json_int_t)row->bytes_down);
}

static void on_answered(void *arg) {
  struct asking *asking = arg;
  json_t *list = json_array();
  uint64_t num_matching = 0;
  uint64_t num_not_looked = 0;
  size_t num = 0;

  for (size_t i = 0; i < asking->num_parts; i++) {
    const struct part *part = &asking->parts[i];
    num_matching += part->num_matching;
    num_not_looked += part->num_not_looked;
    for (size_t j = 0; j < part->num && num < asking->filter.limit; j++, num++) {
      (void)json_array_append_new(list, view(&part->rows[j]));
    }
  }
  http_reply_json(asking->request, 200,
                  json_pack("{s:o,s:I,s:I}", "connections", list, "total", (json_int_t)num_matching,
                            "not_looked_at", (json_int_t)num_not_looked));
  asking_free(asking);
}

// --- asking ----------------------------------------------------------------------------------

static bool read_number(int64_t *out, const char *text, int64_t min, int64_t max) {
  char *end = NULL;
  if (text == NULL) {
    return true;
  }
  errno = 0;
  *out = strtoll(text, &end, 10);
  return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *out >= min &&
         *out <= max;
}

static int state_from_name(const char *name) {
  for (int state = 0; state < CONN_CLOSED; state++) {
    if (strcmp(conn_state_name((enum conn_state)state), name) == 0) {
      return state;
    }
  }
  return -1;
}

// Reads the query; otherwise what is wrong with it.
static const char *read_filter(struct filter *out, const struct http_request *request) {
  const char *state = http_request_query(request, "state");
  const char *client = http_request_query(request, "client");
  const char *name = http_request_query(request, "name");
  int64_t limit = CONN_LIST_DEFAULT_NUM;
  int64_t older_s = 0;

  *out = (struct filter){.state = -1};
  if (!read_number(&limit, http_request_query(request, "limit"), 1, CONN_LIST_MAX_NUM)) {
    return "\"limit\" must be a number from 1 to 1000";
  }
  if (!read_number(&older_s, http_request_query(request, "older"), 0, QUERY_MAX_S)) {
    return "\"older\" must be a number of seconds";
  }
  if (state != NULL && (out->state = state_from_name(state)) < 0) {
    return "\"state\" must be greeting, handshake, signing, lookup, connect, relay, half or drain";
  }
  if (client != NULL && address_from_host(&out->client, client, 0) != STATUS_OK) {
    return "\"client\" must be an IP address";
  }
  if (name != NULL && strlen(name) >= sizeof(out->name)) {
    return "\"name\" is too long";
  }
  if (name != NULL) {
    memcpy(out->name, name, strlen(name) + 1);
  }
  out->has_client = client != NULL;
  out->limit = (size_t)limit;
  out->older_us = older_s * 1000000;
  return NULL;
}

static struct asking *asking_new(struct conn_lister *lister, const struct filter *filter) {
  struct asking *asking = calloc(1, sizeof(*asking) + lister->num_workers * sizeof(struct part));
  if (asking == NULL) {
    return NULL;
  }
  LIST_INSERT_HEAD(&lister->open, asking, link);
  lister->num_open += 1;
  asking->lister = lister;
  asking->filter = *filter;
  asking->num_missing = lister->num_workers;
  for (; asking->num_parts < lister->num_workers; asking->num_parts++) {
    struct part *part = &asking->parts[asking->num_parts];
    *part = (struct part){.asking = asking,
                          .worker = lister->workers[asking->num_parts],
                          .rows = calloc(filter->limit, sizeof(struct row))};
    if (part->rows == NULL) {
      asking_free(asking);
      return NULL;
    }
  }
  return asking;
}

void conn_lister_ask(struct conn_lister *lister, struct http_request *request) {
  struct filter filter;
  struct asking *asking = NULL;
  const char *wrong = read_filter(&filter, request);

  if (wrong != NULL) {
    http_reply_error(request, 400, "bad_request", wrong);
    return;
  }
  asking = lister->num_open < CONN_LIST_MAX_ASKED ? asking_new(lister, &filter) : NULL;
  if (asking == NULL) {
    http_reply_error(request, 503, "busy", "too many ask for connections, or there is no memory");
    return;
  }
  asking->request = request;
  for (size_t i = 0; i < asking->num_parts; i++) {
    loop_post(asking->parts[i].worker->loop, on_worker, &asking->parts[i]);
  }
}

// --- life ------------------------------------------------------------------------------------

enum status conn_lister_new(struct conn_lister **out, struct loop *control,
                            struct worker *const *workers, size_t num_workers) {
  struct conn_lister *lister = calloc(1, sizeof(*lister));
  *out = lister;
  if (lister == NULL) {
    return STATUS_MEMORY;
  }
  *lister =
      (struct conn_lister){.control = control, .workers = workers, .num_workers = num_workers};
  LIST_INIT(&lister->open);
  return STATUS_OK;
}

void conn_lister_free(struct conn_lister *lister) {
  struct asking *next = NULL;
  if (lister == NULL) {
    return;
  }
  for (struct asking *asking = LIST_FIRST(&lister->open); asking != NULL; asking = next) {
    next = LIST_NEXT(asking, link);
    http_reply_error(asking->request, 503, "ending", "the proxy is ending");
    asking_free(asking);
  }
  free(lister);
}
