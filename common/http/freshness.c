// SPDX-License-Identifier: Apache-2.0
#include "common/http/freshness.h"

#include <ctype.h>
#include <curl/curl.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

// read_seconds reads digits (perhaps quoted); -1: none. Too many of them are the most.
static int64_t read_seconds(const char *text) {
  int64_t seconds = 0;

  text += *text == '"' ? 1 : 0;
  if (!isdigit((unsigned char)*text)) {
    return -1;
  }
  for (; isdigit((unsigned char)*text); text++) {
    seconds = seconds * 10 + (*text - '0');
    if (seconds > FRESHNESS_MAX_S) {
      return FRESHNESS_MAX_S;
    }
  }
  return seconds;
}

// read_date gives POSIX seconds, -1 for what is no HTTP date ("0" among them).
static int64_t read_date(const char *text) {
  return text == NULL || !isalpha((unsigned char)*text) ? -1 : (int64_t)curl_getdate(text, NULL);
}

struct directives {
  bool is_forbidden;  // no-store, no-cache
  bool has_max_age;
  int64_t max_age_s;
};

static bool is_word(const char *at, size_t len, const char *word) {
  return len == strlen(word) && strncasecmp(at, word, len) == 0;
}

static struct directives read_directives(const char *text) {
  struct directives out = {0};

  while (text != NULL && *text != '\0') {
    text += strspn(text, " \t,");
    const size_t len = strcspn(text, "=, \t");
    if (is_word(text, len, "no-store") || is_word(text, len, "no-cache")) {
      out.is_forbidden = true;
    } else if (is_word(text, len, "max-age") && text[len] == '=' && !out.has_max_age) {
      const int64_t seconds = read_seconds(text + len + 1);
      out.has_max_age = true;
      out.max_age_s = seconds < 0 ? 0 : seconds;
    }
    text += strcspn(text, ",");
  }
  return out;
}

struct http_freshness http_freshness_read(const char *cache_control, const char *expires,
                                          const char *date, const char *age, int64_t now_s) {
  const struct directives said = read_directives(cache_control);
  struct http_freshness out = {.is_said = said.is_forbidden || said.has_max_age || expires != NULL};
  int64_t age_s = age == NULL ? 0 : read_seconds(age);

  age_s = age_s < 0 ? 0 : age_s;
  if (said.is_forbidden) {
    return out;
  }
  if (said.has_max_age) {
    out.fresh_s = said.max_age_s - age_s;
  } else if (expires != NULL) {
    const int64_t end_s = read_date(expires);
    const int64_t date_s = read_date(date);
    out.fresh_s = end_s < 0 ? 0 : end_s - (date_s < 0 ? now_s : date_s) - age_s;
  }
  out.fresh_s = out.fresh_s < 0 ? 0 : out.fresh_s;
  out.fresh_s = out.fresh_s > FRESHNESS_MAX_S ? FRESHNESS_MAX_S : out.fresh_s;
  return out;
}

int64_t http_retry_after_s(const char *value, int64_t now_s) {
  int64_t seconds = value == NULL ? -1 : read_seconds(value);

  if (seconds < 0) {
    const int64_t date_s = read_date(value);
    seconds = date_s < 0 ? 0 : date_s - now_s;
  }
  seconds = seconds < 0 ? 0 : seconds;
  return seconds > FRESHNESS_MAX_S ? FRESHNESS_MAX_S : seconds;
}
