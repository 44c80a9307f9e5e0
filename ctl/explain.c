// SPDX-License-Identifier: Apache-2.0
// Shows what keyserver/explain.h has found out.
#include "keyserver/explain.h"

#include <stdio.h>
#include <string.h>

#include "common/base/config.h"
#include "common/base/log.h"
#include "ctl/grid.h"
#include "ctl/keyserver.h"

#define DEFAULT_CONFIG "/etc/deputy/keyserver.json"
#define DEFAULT_LIFETIME_S 86400
#define MS_PER_S 1000

static enum ctl_exit fail(const char *sentence) {
  (void)fprintf(stderr, "deputyctl: ");
  grid_clean(stderr, sentence);
  (void)fputc('\n', stderr);
  return CTL_USAGE;
}

static const char *text_of(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text == NULL ? "-" : text;
}

static void print_pair(const char *name, const char *text) {
  (void)printf("%-9s", name);
  grid_clean(stdout, text);
  (void)putchar('\n');
}

static void print_client(const json_t *client) {
  const char *certificate = json_string_value(json_object_get(client, "certificate"));

  print_pair("client", text_of(client, "name"));
  if (certificate == NULL) {
    (void)printf(
        "         by name alone: grants by spki_sha256 do not fit, and its certificate is "
        "not looked at\n");
  } else if (strcmp(certificate, "good") != 0) {
    (void)printf("         its certificate is refused: %s\n", certificate);
  }
}

static void print_key(const json_t *key) {
  char text[CONFIG_UNIT_LEN];
  const json_t *policy = json_object_get(key, "policy");

  if (json_is_null(key)) {
    print_pair("key", "not here");
    return;
  }
  print_pair("key", text_of(key, "label"));
  (void)printf("         %s, ski %s\n", text_of(key, "kind"), text_of(key, "ski"));
  if (json_is_integer(policy)) {
    (void)printf(
        "         key_policies[%lld]: credentials of at most %s\n",
        (long long)json_integer_value(policy),
        config_format_duration(
            text, json_integer_value(json_object_get(key, "dc_max_lifetime_s")) * MS_PER_S));
  } else {
    (void)printf("         no key policy fits it\n");
  }
}

static const char *yes_or_no(const json_t *grant, const char *key) {
  return json_is_true(json_object_get(grant, key)) ? "yes" : "no";
}

static void print_grants(const json_t *grants) {
  static const char *const heading[] = {"#",      "GRANT",  "CLIENT", "KEY", "PURPOSE",
                                        "RATE/S", "DC MAX", "WHY",    NULL};
  struct grid grid;
  size_t i = 0;
  const json_t *grant = NULL;

  grid_init(&grid, heading);
  json_array_foreach (grants, i, grant) {
    const long long rate = (long long)json_integer_value(json_object_get(grant, "rate_per_s"));
    char text[CONFIG_UNIT_LEN];
    grid_addf(&grid, "%zu", i);
    grid_add(&grid, text_of(grant, "label"));
    grid_add(&grid, yes_or_no(grant, "client"));
    grid_add(&grid, yes_or_no(grant, "key"));
    grid_add(&grid, yes_or_no(grant, "purpose"));
    if (rate > 0) {
      grid_addf(&grid, "%lld", rate);
    } else {
      grid_add(&grid, "-");
    }
    grid_add(&grid,
             config_format_duration(
                 text, json_integer_value(json_object_get(grant, "dc_max_lifetime_s")) * MS_PER_S));
    grid_add(&grid, text_of(grant, "why"));
  }
  (void)grid_print(&grid, stdout);
}

static void print_text(const json_t *answer) {
  const json_t *error = json_object_get(answer, "error");
  const json_t *detail = json_object_get(answer, "detail");

  print_client(json_object_get(answer, "client"));
  print_key(json_object_get(answer, "key"));
  (void)printf("%-9s%s, %s\n\n", "asks for", text_of(answer, "purpose"), text_of(answer, "scheme"));
  print_grants(json_object_get(answer, "grants"));
  (void)printf("\n%s: %s\n",
               json_is_true(json_object_get(answer, "allowed")) ? "ALLOWED" : "REFUSED",
               text_of(answer, "why"));
  if (json_is_string(detail)) {
    (void)printf("  %s\n", json_string_value(detail));
  }
  if (json_is_object(error)) {
    (void)printf("  reason %s; the client gets error 0x%02llx (%s)\n", text_of(answer, "reason"),
                 (unsigned long long)json_integer_value(json_object_get(error, "code")),
                 text_of(error, "name"));
  } else if (json_is_true(json_object_get(answer, "allowed"))) {
    (void)printf("  as far as the rate allows, which only the running server knows\n");
  }
}

enum ctl_exit ctl_explain(const struct ctl_args *args) {
  struct explain_query query = {
      .config_path = args->config != NULL ? args->config : DEFAULT_CONFIG,
      .client_path = args->client,
      .client_name = args->client_name,
      .key = args->key,
      .purpose = args->purpose,
      .scheme = args->scheme,
      .lifetime_s = DEFAULT_LIFETIME_S,
      .message_path = args->message,
  };
  json_t *answer = NULL;
  struct errmsg err = {0};
  bool is_allowed = false;

  if ((query.client_path == NULL) == (query.client_name == NULL) || query.key == NULL ||
      (query.purpose == NULL && query.message_path == NULL)) {
    return fail("explain needs --key, --client or --client-name, and --purpose or --message");
  }
  if (args->lifetime != NULL) {
    if (config_parse_duration(&query.lifetime_s, args->lifetime) != STATUS_OK) {
      return fail("--lifetime: a time with a unit, as 36h");
    }
    query.lifetime_s /= MS_PER_S;
  }
  if (explain(&answer, &query, &err) != STATUS_OK) {
    return fail(err.text);
  }
  if (args->is_json) {
    (void)json_dumpf(answer, stdout, JSON_INDENT(2));
    (void)putchar('\n');
  } else {
    print_text(answer);
  }
  is_allowed = json_is_true(json_object_get(answer, "allowed"));
  json_decref(answer);
  return is_allowed ? CTL_DONE : CTL_FAILED;
}
