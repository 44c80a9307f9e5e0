// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "ctl/author.h"
#include "ctl/ctl.h"
#include "ctl/grid.h"
#include "ctl/show.h"
#include "ctl/store.h"

#define PAGE_NUM 1000
#define MAX_LISTED 10000  // a store may have millions

// --- asking ----------------------------------------------------------------------

static enum ctl_exit fail(const struct errmsg *err) {
  (void)fprintf(stderr, "deputyctl: ");
  grid_clean(stderr, err->text);
  (void)fputc('\n', stderr);
  return CTL_UNREACHABLE;
}

// refused tells why the proxy said no.
static enum ctl_exit refused(const struct ctl_args *args, const struct ctl_answer *answer) {
  const json_t *error = json_object_get(answer->json, "error");
  const char *message = json_string_value(json_object_get(error, "message"));
  if (args->is_json && answer->json != NULL) {
    (void)json_dumpf(answer->json, stdout, JSON_INDENT(2));
    (void)fputc('\n', stdout);
  }
  (void)fprintf(stderr, "deputyctl: ");
  if (message != NULL) {
    grid_clean(stderr, message);
  } else {
    (void)fprintf(stderr, "the proxy answered with HTTP status %d", answer->code);
  }
  (void)fputc('\n', stderr);
  return CTL_FAILED;
}

enum ctl_exit ctl_ask_good(struct ctl_answer *out, const struct ctl_args *args, const char *path,
                           json_t *body) {
  struct errmsg err = {0};
  if (ctl_ask(out, args, path, body, &err) != STATUS_OK) {
    return fail(&err);
  }
  if (out->code != 200) {
    enum ctl_exit code = refused(args, out);
    ctl_answer_cleanup(out);
    return code;
  }
  return CTL_DONE;
}

static void print_json(const json_t *json) {
  (void)json_dumpf(json, stdout, JSON_INDENT(2));
  (void)fputc('\n', stdout);
}

static const char *now_of(const json_t *answer) {
  return json_string_value(json_object_get(answer, "now"));
}

// read_next: where the next page begins, as a number, or as "@NAME"; false: there is none.
static bool read_next(char *start, size_t max, const json_t *next) {
  if (json_is_string(next)) {
    (void)snprintf(start, max, "%s", json_string_value(next));
  } else if (json_is_integer(next)) {
    (void)snprintf(start, max, "%lld", (long long)json_integer_value(next));
  } else {
    return false;
  }
  return true;
}

static void say_if_more(const json_t *list, const char *key) {
  if (!json_is_null(json_object_get(list, "next"))) {
    (void)fprintf(stderr, "deputyctl: these are the first %zu of %lld %s; give one to see it\n",
                  json_array_size(json_object_get(list, key)),
                  (long long)json_integer_value(json_object_get(list, "total")), key);
  }
}

// ask_list asks for all pages of a list, but no more than MAX_LISTED of it, and puts them
// into one answer.
static enum ctl_exit ask_list(json_t **out, const struct ctl_args *args, const char *path,
                              const char *key) {
  char start[STATE_SUBJECT_MAX_LEN + 16] = "0";
  *out = NULL;
  for (;;) {
    struct ctl_answer answer = {0};
    char page[STATE_SUBJECT_MAX_LEN + 128];
    (void)snprintf(page, sizeof(page), "%s%sstart=%s&limit=%d", path,
                   strchr(path, '?') == NULL ? "?" : "&", start, PAGE_NUM);
    enum ctl_exit code = ctl_ask_good(&answer, args, page, NULL);
    if (code != CTL_DONE) {
      json_decref(*out);
      *out = NULL;
      return code;
    }
    bool is_last = !read_next(start, sizeof(start), json_object_get(answer.json, "next"));
    if (*out == NULL) {
      *out = json_incref(answer.json);
    } else {
      (void)json_array_extend(json_object_get(*out, key), json_object_get(answer.json, key));
    }
    (void)json_object_set(*out, "next", json_object_get(answer.json, "next"));
    ctl_answer_cleanup(&answer);
    if (is_last || json_array_size(json_object_get(*out, key)) >= MAX_LISTED) {
      say_if_more(*out, key);
      return CTL_DONE;
    }
  }
}

static void put_text(json_t *body, const char *key, const char *text) {
  if (text != NULL) {
    (void)json_object_set_new(body, key, json_string(text));
  }
}

// new_change begins the body of a change: author, reason, force.
static json_t *new_change(const struct ctl_args *args) {
  char name[128];
  json_t *body = json_object();
  ctl_author(name);
  put_text(body, "author", name);
  put_text(body, "reason", args->reason);
  if ((args->given & CTL_FORCE) != 0) {
    (void)json_object_set_new(body, "force", json_true());
  }
  return body;
}

// put_name writes a host name as certificates have it.
static void put_name(json_t *body, const char *key, const char *name) {
  char host[STORE_NAME_MAX_LEN + 1];
  struct errmsg err = {0};
  put_text(body, key, store_host(host, name, &err) == STATUS_OK ? host : name);
}

// put_ca: a CA's certificate stands for its id.
static enum ctl_exit put_ca(json_t *body, const char *typed) {
  struct cert_ca ca;
  struct errmsg err = {0};
  char hex[65];
  if (!ctl_is_ca_file(typed)) {
    put_text(body, "subject", typed);
    return CTL_DONE;
  }
  if (cert_ca_load(&ca, typed, &err) != STATUS_OK) {
    (void)fail(&err);
    return CTL_FAILED;
  }
  put_text(body, "subject",
           bytes_to_hex(hex, bytes_of(ca.has_key_identifier ? ca.id_by_key : ca.id_by_name, 32)));
  return CTL_DONE;
}

// put_subject: anything but CTL_DONE is final, and said.
static enum ctl_exit put_subject(json_t *body, const struct ctl_args *args) {
  if ((args->given & CTL_NAME) != 0) {
    put_text(body, "level", "name");
    put_name(body, "subject", args->name);
  } else if ((args->given & CTL_KEY) != 0) {
    put_text(body, "level", "key");
    put_text(body, "subject", args->key);
  } else if ((args->given & CTL_CA) != 0) {
    put_text(body, "level", "ca");
    return put_ca(body, args->ca);
  } else {
    put_text(body, "level", "fleet");
    put_text(body, "subject", "");
  }
  return CTL_DONE;
}

static enum status put_until(json_t *body, const struct ctl_args *args, struct errmsg *err) {
  int64_t until_s = 0;
  char text[CLOCK_RFC3339_LEN];
  enum status st = STATUS_OK;
  if (args->until != NULL) {
    TRY(show_until(&until_s, args->until, clock_wall_s(), err));
    put_text(body, "until", clock_format_rfc3339(text, until_s));
  }

out:
  return st;
}

static enum ctl_exit change(const struct ctl_args *args, const char *path, json_t *body) {
  struct ctl_answer answer = {0};
  enum ctl_exit code = ctl_ask_good(&answer, args, path, body);
  if (code != CTL_DONE) {
    return code;
  }
  if (args->is_json) {
    print_json(answer.json);
  } else {
    show_change(stdout, stderr, answer.json);
  }
  ctl_answer_cleanup(&answer);
  return CTL_DONE;
}

// --- commands ----------------------------------------------------------------------

enum ctl_exit ctl_run_status(const struct ctl_args *args) {
  struct ctl_answer answer = {0};
  enum ctl_exit code = ctl_ask_good(&answer, args, "/v1/status", NULL);
  if (code == CTL_DONE && args->is_json) {
    print_json(answer.json);
  } else if (code == CTL_DONE) {
    show_status(stdout, answer.json);
  }
  ctl_answer_cleanup(&answer);
  return code;
}

// names_path makes "/v1/names?name=..."; what is no letter, digit or -._* is escaped.
static void names_path(char *out, size_t max, const char *name) {
  size_t len = (size_t)snprintf(out, max, "/v1/names?name=");
  for (; *name != '\0' && len + 4 < max; name++) {
    bool is_plain = (*name >= 'a' && *name <= 'z') || (*name >= 'A' && *name <= 'Z') ||
                    (*name >= '0' && *name <= '9') || strchr("-._*", *name) != NULL;
    len += (size_t)snprintf(out + len, max - len, is_plain ? "%c" : "%%%02X",
                            (unsigned)(unsigned char)*name);
  }
}

static enum ctl_exit run_one_name(const struct ctl_args *args) {
  struct ctl_answer answer = {0};
  char path[1024];
  names_path(path, sizeof(path), args->words[0]);
  enum ctl_exit code = ctl_ask_good(&answer, args, path, NULL);
  if (code == CTL_DONE) {
    json_t *name = json_array_get(json_object_get(answer.json, "names"), 0);
    if (args->is_json) {
      print_json(answer.json);
    } else {
      show_name(stdout, name, now_of(answer.json));
    }
  }
  ctl_answer_cleanup(&answer);
  return code;
}

enum ctl_exit ctl_run_names(const struct ctl_args *args) {
  json_t *list = NULL;
  if (args->num_words > 0) {
    return run_one_name(args);
  }
  enum ctl_exit code = ask_list(&list, args, "/v1/names", "names");
  if (code == CTL_DONE && args->is_json) {
    print_json(list);
  } else if (code == CTL_DONE) {
    show_names(stdout, json_object_get(list, "names"), now_of(list));
  }
  json_decref(list);
  return code;
}

enum ctl_exit ctl_run_chains(const struct ctl_args *args) {
  json_t *list = NULL;
  enum ctl_exit code = ask_list(&list, args, "/v1/chains", "chains");
  if (code == CTL_DONE && args->is_json) {
    print_json(list);
  } else if (code == CTL_DONE) {
    show_chains(stdout, json_object_get(list, "chains"), now_of(list));
  }
  json_decref(list);
  return code;
}

enum ctl_exit ctl_run_switches(const struct ctl_args *args) {
  json_t *list = NULL;
  bool is_standing = (args->given & CTL_STANDING) != 0;
  enum ctl_exit code =
      ask_list(&list, args, is_standing ? "/v1/switches?standing=1" : "/v1/switches", "switches");
  if (code == CTL_DONE && args->is_json) {
    print_json(list);
  } else if (code == CTL_DONE) {
    show_switches(stdout, json_object_get(list, "switches"));
  }
  json_decref(list);
  return code;
}

enum ctl_exit ctl_run_switch(const struct ctl_args *args) {
  json_t *body = new_change(args);
  struct errmsg err = {0};
  enum ctl_exit code = put_subject(body, args);
  if (code == CTL_DONE && put_until(body, args, &err) != STATUS_OK) {
    (void)fprintf(stderr, "deputyctl: %s\n", err.text);
    code = CTL_USAGE;
  }
  if (code != CTL_DONE) {
    json_decref(body);
    return code;
  }
  put_text(body, "to", args->to);
  if ((args->given & CTL_COMPROMISED) != 0) {
    (void)json_object_set_new(body, "compromised", json_true());
  }
  if ((args->given & CTL_IN_SERVICE) != 0) {
    put_text(body, "service", "in");
  }
  return change(args, "/v1/switch", body);
}

enum ctl_exit ctl_run_restore(const struct ctl_args *args) {
  bool has_subject = (args->given & CTL_SUBJECTS) != 0;
  if (has_subject == (args->num_words > 0) || __builtin_popcount(args->given & CTL_SUBJECTS) > 1) {
    (void)fprintf(stderr,
                  "deputyctl: restore needs an ID (see `deputyctl switches`), or one of --name, "
                  "--key, --ca, --fleet\n");
    return CTL_USAGE;
  }
  json_t *body = new_change(args);
  if (has_subject) {
    enum ctl_exit code = put_subject(body, args);
    if (code == CTL_DONE) {
      return change(args, "/v1/restore", body);
    }
    json_decref(body);
    return code;
  }
  char *end = NULL;
  long long id = strtoll(args->words[0], &end, 10);
  if (id < 1 || *end != '\0') {
    (void)fprintf(stderr, "deputyctl: \"%s\" is not the ID of a switch\n", args->words[0]);
    json_decref(body);
    return CTL_USAGE;
  }
  (void)json_object_set_new(body, "id", json_integer(id));
  return change(args, "/v1/restore", body);
}

enum ctl_exit ctl_run_drill(const struct ctl_args *args) {
  struct ctl_answer answer = {0};
  json_t *body = json_object();
  enum ctl_exit code = put_subject(body, args);
  if (code != CTL_DONE) {
    json_decref(body);
    return code;
  }
  code = ctl_ask_good(&answer, args, "/v1/drill", body);
  if (code != CTL_DONE) {
    return code;
  }
  if (args->is_json) {
    print_json(answer.json);
  } else {
    show_drill(stdout, answer.json);
  }
  bool is_ready = json_is_true(json_object_get(answer.json, "ready"));
  ctl_answer_cleanup(&answer);
  return is_ready ? CTL_DONE : CTL_NOT_READY;
}

enum ctl_exit ctl_run_dc(const struct ctl_args *args) {
  bool is_on = strcmp(args->words[0], "on") == 0;
  if (!is_on && strcmp(args->words[0], "off") != 0) {
    (void)fprintf(stderr, "deputyctl: dc is on or off, not \"%s\"\n", args->words[0]);
    return CTL_USAGE;
  }
  json_t *body = new_change(args);
  (void)json_object_set_new(body, "enabled", json_boolean(is_on));
  if ((args->given & CTL_FLEET) != 0) {
    (void)json_object_set_new(body, "fleet", json_true());
  } else {
    put_name(body, "name", args->name);
  }
  return change(args, "/v1/dc", body);
}

enum ctl_exit ctl_run_reload(const struct ctl_args *args) {
  struct ctl_answer answer = {0};
  size_t i = 0;
  json_t *option = NULL;
  enum ctl_exit code = ctl_ask_good(&answer, args, "/v1/reload", json_object());
  if (code != CTL_DONE) {
    return code;
  }
  if (args->is_json) {
    print_json(answer.json);
  } else {
    (void)printf("reloaded: %lld names, %lld chains\n",
                 (long long)json_integer_value(json_object_get(answer.json, "names")),
                 (long long)json_integer_value(json_object_get(answer.json, "chains")));
  }
  json_array_foreach (json_object_get(answer.json, "ignored"), i, option) {
    (void)fprintf(stderr,
                  "deputyctl: %s is not changed by a reload, but by a restart or a takeover\n",
                  json_string_value(option));
  }
  ctl_answer_cleanup(&answer);
  return CTL_DONE;
}

enum ctl_exit ctl_run_metrics(const struct ctl_args *args) {
  struct ctl_answer answer = {0};
  enum ctl_exit code = ctl_ask_good(&answer, args, "/metrics", NULL);
  if (code != CTL_DONE) {
    return code;
  }
  (void)fwrite(answer.text, 1, answer.len, stdout);
  ctl_answer_cleanup(&answer);
  return CTL_DONE;
}
