// SPDX-License-Identifier: Apache-2.0
#include "proxy/admin/admin.h"

#include <stdlib.h>
#include <string.h>

#include "certstore/table.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/http/http_server.h"
#include "proxy/admin/admin_body.h"
#include "proxy/admin/admin_change.h"
#include "proxy/admin/admin_store.h"
#include "proxy/admin/admin_view.h"

#define MAX_BODY_LEN (64u << 10)
#define MAX_CONNECTIONS 64u
#define PAGE_DEFAULT_NUM 1000u
#define PAGE_MAX_NUM 10000u

struct admin {
  struct admin_host host;
  struct http_server *server;
  struct admin_changes changes;
  struct admin_looks looks;  // into a store
};

static const struct certstore *store_of(const struct admin *admin) {
  return admin->host.store(admin->host.arg);
}

// --- lists, page by page --------------------------------------------------------------

struct page {
  size_t start;
  size_t end;
};

// read_number reads ?name= as a number up to `max`; `out` stays when it is absent.
static bool read_number(size_t *out, const struct http_request *request, const char *name,
                        size_t max) {
  const char *text = http_request_query(request, name);
  size_t value = 0;
  if (text == NULL) {
    return true;
  }
  size_t len = strlen(text);
  if (len == 0 || len > 9 || strspn(text, "0123456789") != len) {
    return false;
  }
  value = (size_t)strtoul(text, NULL, 10);
  *out = value;
  return value <= max;
}

// page_read reads ?start= and ?limit= for a list of `num`; false: answered.
static bool page_read(struct page *out, struct http_request *request, size_t num) {
  size_t limit = PAGE_DEFAULT_NUM;
  out->start = 0;
  if (!read_number(&out->start, request, "start", 999999999) ||
      !read_number(&limit, request, "limit", PAGE_MAX_NUM) || limit == 0) {
    http_reply_error(request, 400, "bad_request",
                     "\"start\" and \"limit\" must be numbers, the second from 1 to 10000");
    return false;
  }
  out->start = out->start < num ? out->start : num;
  out->end = num - out->start < limit ? num : out->start + limit;
  return true;
}

// reply_page answers {"now", KEY: [...], "total", "next"}; takes `list` and `next`.
static void reply_page(struct http_request *request, const char *key, json_t *list, json_t *next,
                       uint64_t num, int64_t now_s) {
  json_t *body = json_object();
  bool is_ok = admin_put(body, "now", admin_time(now_s)) &&
               admin_put(body, "total", json_integer((json_int_t)num)) &&
               admin_put(body, "next", next);
  is_ok = json_object_set_new(body, key, list) == 0 && is_ok;
  if (!is_ok) {
    json_decref(body);
    body = NULL;
  }
  http_reply_json(request, 200, body);  // NULL: 500
}

static void reply_list(struct http_request *request, const char *key, json_t *list,
                       const struct page *page, size_t num, int64_t now_s) {
  reply_page(request, key, list,
             page->end < num ? json_integer((json_int_t)page->end) : json_null(), num, now_s);
}

// append adds to a list, which becomes NULL (and stays so) when memory runs out.
static void append(json_t **list, json_t *item) {
  if (json_array_append_new(*list, item) != 0) {
    json_decref(*list);
    *list = NULL;
  }
}

// on_one_name shows it as a client would find it, so that "a.x" shows "*.x"; but not the
// default.
static void on_one_name(struct admin *admin, struct http_request *request, const char *asked) {
  const struct certstore *store = store_of(admin);
  const struct page page = {0, 1};
  int64_t now_s = clock_wall_s();
  const struct cert_name *one = certstore_find_exact(store, asked);
  if (one == NULL) {
    one = certstore_find_named(store, bytes_text(asked));
  }
  if (one == NULL && admin->host.has_store) {
    admin_store_show_name(&admin->looks, request, asked);
    return;
  }
  if (one == NULL) {
    http_reply_error(request, 404, "not_found", "no such name in the configuration");
    return;
  }
  json_t *list = json_array();
  append(&list, admin_view_name(&admin->host, one, now_s));
  reply_list(request, "names", list, &page, 1, now_s);
}

// catch_up: what is in memory of a store's states may be behind by a moment.
static void catch_up(const struct admin *admin) {
  if (admin->host.has_store) {
    admin->host.in_store.catch_up(admin->host.in_store.arg);
  }
}

// The configured names come first, then those of the store: a page of these begins behind
// a name, ?start=@NAME.
static void on_names(void *arg, struct http_request *request) {
  struct admin *admin = arg;
  const char *asked = http_request_query(request, "name");
  const char *start = http_request_query(request, "start");
  int64_t now_s = clock_wall_s();
  size_t num = 0;
  size_t limit = PAGE_DEFAULT_NUM;
  struct page page;
  const struct cert_name *const *names = certstore_names(store_of(admin), &num);
  catch_up(admin);
  if (asked != NULL) {
    on_one_name(admin, request, asked);
    return;
  }
  if (admin->host.has_store && ((start != NULL && start[0] == '@') || num == 0)) {
    if (!read_number(&limit, request, "limit", PAGE_MAX_NUM) || limit == 0) {
      http_reply_error(request, 400, "bad_request", "\"limit\" must be a number from 1 to 10000");
      return;
    }
    admin_store_show_names(&admin->looks, request,
                           start != NULL && start[0] == '@' ? start + 1 : "", limit);
    return;
  }
  if (!page_read(&page, request, num)) {
    return;
  }
  json_t *list = json_array();
  for (size_t i = page.start; i < page.end; i++) {
    append(&list, admin_view_name(&admin->host, names[i], now_s));
  }
  if (!admin->host.has_store) {
    reply_list(request, "names", list, &page, num, now_s);
    return;
  }
  reply_page(request, "names", list,
             page.end < num ? json_integer((json_int_t)page.end) : json_string("@"),
             num + admin->host.in_store.count_names(admin->host.in_store.arg), now_s);
}

// num_names_of counts the names that have the chain at any level: for a page of
// chains one pass over all names.
static bool count_names(size_t *counts, const struct certstore *store, struct chain *const *chains,
                        const struct page *page) {
  struct table places = {0};
  size_t num = 0;
  const struct cert_name *const *names = certstore_names(store, &num);
  bool is_ok = true;
  for (size_t i = page->start; i < page->end && is_ok; i++) {
    is_ok = table_put(&places, bytes_of(&chains[i], sizeof(struct chain *)),
                      &counts[i - page->start]) == STATUS_OK;
  }
  for (size_t i = 0; i < num && is_ok; i++) {
    for (size_t j = 0; j < names[i]->num_levels; j++) {
      for (size_t k = 0; k < names[i]->levels[j].num_chains; k++) {
        struct chain *const *chain = &names[i]->levels[j].chains[k];
        size_t *count = table_find(&places, bytes_of(chain, sizeof(struct chain *)));
        *(count != NULL ? count : &counts[page->end - page->start]) += 1;
      }
    }
  }
  table_cleanup(&places);
  return is_ok;
}

static void on_chains(void *arg, struct http_request *request) {
  struct admin *admin = arg;
  const struct certstore *store = store_of(admin);
  int64_t now_s = clock_wall_s();
  size_t num = 0;
  struct page page;
  struct chain *const *chains = certstore_chains(store, &num);
  catch_up(admin);
  if (!page_read(&page, request, num)) {
    return;
  }
  size_t *counts = calloc(page.end - page.start + 1, sizeof(*counts));  // the last: others
  json_t *list = NULL;
  if (counts != NULL && count_names(counts, store, chains, &page)) {
    list = json_array();
    for (size_t i = page.start; i < page.end; i++) {
      json_t *view = admin_view_chain(&admin->host, chains[i], now_s);
      (void)admin_put(view, "num_names", json_integer((json_int_t)counts[i - page.start]));
      append(&list, view);
    }
  }
  free(counts);
  reply_list(request, "chains", list, &page, num, now_s);
}

static void on_switches(void *arg, struct http_request *request) {
  struct admin *admin = arg;
  const char *standing = http_request_query(request, "standing");
  size_t num = 0;
  size_t num_shown = 0;
  struct page page;
  const struct state_change *changes = states_list(admin->host.states, &num);
  bool is_all = standing == NULL || strcmp(standing, "1") != 0;
  if (admin->host.has_store) {
    if (page_read(&page, request, SIZE_MAX)) {
      admin_store_show_switches(&admin->looks, request, !is_all, page.start, page.end - page.start);
    }
    return;
  }
  for (size_t i = 0; i < num; i++) {
    num_shown += is_all || !changes[i].is_undone ? 1 : 0;
  }
  if (!page_read(&page, request, num_shown)) {
    return;
  }
  json_t *list = json_array();
  for (size_t i = 0, at = 0; i < num && at < page.end; i++) {
    if (!is_all && changes[i].is_undone) {
      continue;
    }
    if (at >= page.start) {
      append(&list, admin_view_change(&admin->host, &changes[i]));
    }
    at++;
  }
  reply_list(request, "switches", list, &page, num_shown, clock_wall_s());
}

// --- status, drill, reload --------------------------------------------------------------

// Counts of what serves, over all names.
struct counts {
  size_t num_primary;      // answered from their first level
  size_t num_other;        // from another, which is usable
  size_t num_last_resort;  // with what is at least unexpired
  size_t num_none;         // cannot be answered
};

static void count_answers(struct counts *out, const struct certstore *store, int64_t now_s) {
  size_t num = 0;
  const struct cert_name *const *names = certstore_names(store, &num);
  *out = (struct counts){0};
  for (size_t i = 0; i < num; i++) {
    struct choice choice;
    enum status st = certstore_choose(&choice, store, names[i], now_s, NULL, NULL);
    if (st != STATUS_OK) {
      out->num_none++;
    } else if (choice.is_last_resort) {
      out->num_last_resort++;
    } else if (choice.level == 0) {
      out->num_primary++;
    } else {
      out->num_other++;
    }
  }
}

static json_t *view_names_summary(const struct certstore *store, int64_t now_s) {
  struct counts counts;
  size_t num = 0;
  (void)certstore_names(store, &num);
  count_answers(&counts, store, now_s);
  return json_pack("{s:I,s:I,s:I,s:I,s:I}", "total", (json_int_t)num, "on_first_level",
                   (json_int_t)counts.num_primary, "on_other_level", (json_int_t)counts.num_other,
                   "on_last_resort", (json_int_t)counts.num_last_resort, "unserved",
                   (json_int_t)counts.num_none);
}

static json_t *view_states_summary(const struct admin *admin) {
  size_t num = 0;
  size_t num_standing = 0;
  const struct state_change *changes = states_list(admin->host.states, &num);
  for (size_t i = 0; i < num; i++) {
    num_standing += changes[i].is_undone ? 0 : 1;
  }
  return json_pack("{s:I,s:I,s:b}", "total", (json_int_t)num, "standing", (json_int_t)num_standing,
                   "kept", (int)state_file_is_kept(admin->host.state_file));
}

static void on_status(void *arg, struct http_request *request) {
  struct admin *admin = arg;
  const struct certstore *store = store_of(admin);
  const struct state *fleet = certstore_fleet(store);
  int64_t now_s = clock_wall_s();
  size_t num_chains = 0;
  uint32_t preferred = atomic_load(&fleet->preferred);
  catch_up(admin);
  (void)certstore_chains(store, &num_chains);
  json_t *body = json_object();
  bool is_ok =
      admin_put(body, "now", admin_time(now_s)) &&
      admin_put(body, "names", view_names_summary(store, now_s)) &&
      admin_put(body, "chains", json_integer((json_int_t)num_chains)) &&
      (admin->host.has_store || admin_put(body, "switches", view_states_summary(admin))) &&
      admin_put(
          body, "fleet",
          json_pack("{s:b,s:o}", "dc", (int)!atomic_load(&fleet->is_dc_off), "preferred_level",
                    preferred == 0 ? json_null() : json_integer((json_int_t)preferred)));
  if (!is_ok) {
    json_decref(body);
    body = NULL;
  } else {
    admin->host.add_status(admin->host.arg, body);
  }
  http_reply_json(request, 200, body);
}

struct drill_body {
  char level[16];
  char subject[STATE_SUBJECT_MAX_LEN];
};

static const struct body_field drill_fields[] = {
    {"level", BODY_TEXT, offsetof(struct drill_body, level), 16, true},
    {"subject", BODY_TEXT, offsetof(struct drill_body, subject), STATE_SUBJECT_MAX_LEN, false},
    {0},
};

static void on_drill(void *arg, struct http_request *request) {
  enum status st = STATUS_OK;
  struct admin *admin = arg;
  struct errmsg err = {0};
  struct drill_body asked = {0};
  enum state_level level = STATE_LEVEL_NAME;
  char subject[STATE_SUBJECT_MAX_LEN];
  struct drill_report report = {0};
  int64_t now_s = clock_wall_s();

  if (!admin_body_may_post(request)) {
    return;
  }
  catch_up(admin);
  TRY(admin_body_read(&asked, drill_fields, http_request_body(request), &err));
  if (state_level_from_name(&level, asked.level) != STATUS_OK) {
    TRY(errmsg_set(&err, STATUS_FORMAT, "\"level\" must be name, key, ca or fleet"));
  }
  st = certstore_match(subject, store_of(admin), level, asked.subject, &err);
  if (st == STATUS_NOT_FOUND && admin->host.has_store) {
    admin_store_drill(&admin->looks, request, level, asked.subject, NULL);
    return;
  }
  TRY(st);
  TRY(certstore_drill(&report, store_of(admin), level, subject, now_s));
  json_t *body = admin_view_drill(&report, level, subject);
  const char *known_as =
      level == STATE_LEVEL_CA ? admin_name_of_ca(store_of(admin), subject) : NULL;
  (void)admin_put(body, "known_as", known_as == NULL ? json_null() : json_string(known_as));
  (void)admin_put(body, "now", admin_time(now_s));
  if (admin->host.has_store && level != STATE_LEVEL_NAME) {
    admin_store_drill(&admin->looks, request, level, subject, body);
  } else {
    http_reply_json(request, 200, body);
  }

out:
  drill_report_cleanup(&report);
  if (st != STATUS_OK) {
    http_reply_error(request,
                     st == STATUS_FORMAT      ? 400
                     : st == STATUS_NOT_FOUND ? 404
                                              : 500,
                     st == STATUS_FORMAT      ? "bad_request"
                     : st == STATUS_NOT_FOUND ? "not_found"
                                              : "internal",
                     err.text);
  }
}

static const struct body_field no_fields[] = {{0}};

static void on_reload(void *arg, struct http_request *request) {
  struct admin *admin = arg;
  struct errmsg err = {0};
  size_t num_names = 0;
  size_t num_chains = 0;
  if (!admin_body_may_post(request)) {
    return;
  }
  if (admin_body_read(NULL, no_fields, http_request_body(request), &err) != STATUS_OK) {
    http_reply_error(request, 400, "bad_request", err.text);
    return;
  }
  json_t *ignored = json_array();
  if (admin->host.reload(admin->host.arg, ignored, &err) != STATUS_OK) {
    json_decref(ignored);
    http_reply_error(request, 422, "reload_failed", err.text);
    return;
  }
  (void)certstore_names(store_of(admin), &num_names);
  (void)certstore_chains(store_of(admin), &num_chains);
  http_reply_json(request, 200,
                  json_pack("{s:b,s:I,s:I,s:o}", "reloaded", 1, "names", (json_int_t)num_names,
                            "chains", (json_int_t)num_chains, "ignored", ignored));
}

// --- the process ----------------------------------------------------------------

static void on_takeover(void *arg, struct http_request *request) {
  struct admin *admin = arg;
  admin->host.hand_over(admin->host.arg, request);
}

static void on_connections(void *arg, struct http_request *request) {
  struct admin *admin = arg;
  admin->host.list_connections(admin->host.arg, request);
}

static const struct body_field log_level_fields[] = {{"level", BODY_TEXT, 0, 16, true}, {0}};

static void on_log_level(void *arg, struct http_request *request) {
  struct errmsg err = {0};
  char name[16] = "";
  enum log_level level = LOG_LEVEL_INFO;
  enum log_level before = log_get_level();
  (void)arg;
  if (!admin_body_may_post(request)) {
    return;
  }
  if (admin_body_read(name, log_level_fields, http_request_body(request), &err) != STATUS_OK ||
      log_level_from_name(&level, name) != STATUS_OK) {
    http_reply_error(
        request, 400, "bad_request",
        err.text[0] != '\0' ? err.text : "\"level\" must be error, warn, info or debug");
    return;
  }
  log_set_level(level < LOG_LEVEL_INFO ? LOG_LEVEL_INFO : level);
  log_info(0, "log_level", "level=%s before=%s uid=%lld", name, log_level_name(before),
           (long long)http_request_peer_uid(request));
  log_set_level(level);
  http_reply_json(request, 200,
                  json_pack("{s:s,s:s}", "level", name, "before", log_level_name(before)));
}

static void on_drain(void *arg, struct http_request *request) {
  struct admin *admin = arg;
  struct errmsg err = {0};
  if (!admin_body_may_post(request)) {
    return;
  }
  if (admin_body_read(NULL, no_fields, http_request_body(request), &err) != STATUS_OK) {
    http_reply_error(request, 400, "bad_request", err.text);
    return;
  }
  admin->host.drain(admin->host.arg);
  http_reply_json(request, 200, json_pack("{s:b}", "draining", 1));
}

// --- metrics, health ----------------------------------------------------------------------

static void on_metrics(void *arg, struct http_request *request) {
  struct admin *admin = arg;
  struct metrics_text text = {0};
  admin->host.write_metrics(admin->host.arg, &text);
  admin_changes_write_metrics(&admin->changes, &text);
  if (!admin->host.has_store) {
    state_file_write_metrics(admin->host.state_file, &text);
  }
  http_reply_metrics(request, &text);
}

static void on_healthz(void *arg, struct http_request *request) {
  (void)arg;
  http_reply(request, 200, "text/plain; charset=utf-8", bytes_text("ok\n"));
}

static void on_switch(void *arg, struct http_request *request) {
  struct admin *admin = arg;
  admin_change_switch(&admin->changes, request);
}

static void on_restore(void *arg, struct http_request *request) {
  struct admin *admin = arg;
  admin_change_restore(&admin->changes, request);
}

static void on_dc(void *arg, struct http_request *request) {
  struct admin *admin = arg;
  admin_change_dc(&admin->changes, request);
}

// --- life -----------------------------------------------------------------------------------

static const struct http_route routes[] = {
    {"GET", "/v1/status", on_status},       {"GET", "/v1/names", on_names},
    {"GET", "/v1/chains", on_chains},       {"GET", "/v1/switches", on_switches},
    {"POST", "/v1/switch", on_switch},      {"POST", "/v1/restore", on_restore},
    {"POST", "/v1/drill", on_drill},        {"POST", "/v1/dc", on_dc},
    {"POST", "/v1/reload", on_reload},      {"POST", "/v1/takeover", on_takeover},
    {"POST", "/v1/drain", on_drain},        {"GET", "/v1/connections", on_connections},
    {"POST", "/v1/loglevel", on_log_level}, {"GET", "/metrics", on_metrics},
    {"GET", "/healthz", on_healthz},        {0},
};

enum status admin_new(struct admin **out, struct loop *loop, const struct admin_host *host,
                      struct errmsg *err) {
  struct admin *admin = calloc(1, sizeof(*admin));
  *out = NULL;
  if (admin == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory for the admin API");
  }
  admin->host = *host;
  admin_changes_init(&admin->changes, &admin->host);
  admin_store_init(&admin->looks, &admin->host);
  const struct http_server_config config = {
      .routes = routes,
      .arg = admin,
      .max_body_len = MAX_BODY_LEN,
      .max_connections = MAX_CONNECTIONS,
  };
  enum status st = http_server_new(&admin->server, loop, &config);
  if (st != STATUS_OK) {
    free(admin);
    return errmsg_set(err, st, "no memory for the admin API");
  }
  *out = admin;
  return STATUS_OK;
}

enum status admin_listen(struct admin *admin, int *fd, struct errmsg *err) {
  return http_server_listen(admin->server, fd, err);
}

static void on_stopped(void *arg) { (void)arg; }

const struct http_server *admin_server(const struct admin *admin) { return admin->server; }

void admin_stop(struct admin *admin) { http_server_drain(admin->server, on_stopped, NULL); }

void admin_free(struct admin *admin) {
  if (admin == NULL) {
    return;
  }
  http_server_free(admin->server);
  admin_changes_cleanup(&admin->changes);
  admin_store_cleanup(&admin->looks);
  free(admin);
}
