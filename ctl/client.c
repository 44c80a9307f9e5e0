// SPDX-License-Identifier: Apache-2.0
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "ctl/ctl.h"

#define CONNECT_LIMIT_MS 5000L
#define ANSWER_LIMIT_MS 60000L
#define ANSWER_MAX_LEN ((size_t)256 << 20)  // bytes; a page of names is far smaller

static size_t on_data(char *data, size_t size, size_t num, void *arg) {
  struct ctl_answer *answer = arg;
  size_t len = size * num;
  if (len > ANSWER_MAX_LEN - answer->len) {
    return 0;  // libcurl ends the transfer
  }
  char *text = realloc(answer->text, answer->len + len + 1);
  if (text == NULL) {
    return 0;
  }
  memcpy(text + answer->len, data, len);
  answer->text = text;
  answer->len += len;
  text[answer->len] = '\0';
  return len;
}

// explain turns what libcurl says into what an operator can do.
static enum status explain(CURL *curl, CURLcode rc, const char *socket, struct errmsg *err) {
  long reason = 0;
  (void)curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &reason);
  if (rc == CURLE_COULDNT_CONNECT && reason == ENOENT) {
    return errmsg_set(
        err, STATUS_UNAVAILABLE,
        "there is no socket %s: is deputy-proxy running? Its configuration says where "
        "(\"admin.socket\"); give that with --socket or $" CTL_SOCKET_VARIABLE,
        socket);
  }
  if (rc == CURLE_COULDNT_CONNECT && (reason == EACCES || reason == EPERM)) {
    return errmsg_set(err, STATUS_UNAVAILABLE,
                      "you may not use the socket %s: run this as root or as the proxy's user, or "
                      "let your group in (\"admin.mode\" in the proxy's configuration)",
                      socket);
  }
  if (rc == CURLE_COULDNT_CONNECT && reason == ECONNREFUSED) {
    return errmsg_set(err, STATUS_UNAVAILABLE,
                      "nobody listens at %s: deputy-proxy has ended; start it again, its switches "
                      "are kept",
                      socket);
  }
  if (rc == CURLE_OPERATION_TIMEDOUT) {
    return errmsg_set(err, STATUS_UNAVAILABLE,
                      "the proxy at %s did not answer in time; what was asked may still happen: "
                      "see `deputyctl switches`",
                      socket);
  }
  return errmsg_set(err, STATUS_UNAVAILABLE, "the proxy at %s did not answer: %s%s%s", socket,
                    curl_easy_strerror(rc), reason != 0 ? ", " : "",
                    reason != 0 ? strerror((int)reason) : "");
}

static enum status perform(struct ctl_answer *out, const char *socket, const char *path,
                           const char *body, struct errmsg *err) {
  enum status st = STATUS_OK;
  char url[2048];
  long code = 0;
  struct curl_slist *headers = NULL;
  CURL *curl = curl_easy_init();

  if (curl == NULL) {
    TRY(errmsg_set(err, STATUS_MEMORY, "no memory"));
  }
  (void)snprintf(url, sizeof(url), "http://localhost%s", path);
  (void)curl_easy_setopt(curl, CURLOPT_URL, url);
  (void)curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, socket);
  (void)curl_easy_setopt(curl, CURLOPT_PROXY, "");  // whatever the environment says
  (void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  (void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_LIMIT_MS);
  (void)curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, ANSWER_LIMIT_MS);
  (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
  (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, out);
  if (body != NULL) {
    headers = curl_slist_append(NULL, "Content-Type: application/json");
    (void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)strlen(body));
  }
  CURLcode rc = curl_easy_perform(curl);
  if (rc != CURLE_OK) {
    TRY(explain(curl, rc, socket, err));
  }
  (void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &code);
  out->code = (int)code;

out:
  curl_slist_free_all(headers);
  curl_easy_cleanup(curl);
  return st;
}

enum status ctl_ask(struct ctl_answer *out, const struct ctl_args *args, const char *path,
                    json_t *body, struct errmsg *err) {
  enum status st = STATUS_OK;
  char *text = NULL;

  *out = (struct ctl_answer){0};
  if (strlen(args->socket) >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
    TRY(errmsg_set(err, STATUS_UNAVAILABLE, "%s is too long for a socket's path (%zu bytes)",
                   args->socket, sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1));
  }
  if (body != NULL) {
    text = json_dumps(body, JSON_COMPACT);
    if (text == NULL) {
      TRY(errmsg_set(err, STATUS_MEMORY, "no memory"));
    }
  }
  TRY(perform(out, args->socket, path, text, err));
  if (out->text != NULL) {
    out->json = json_loadb(out->text, out->len, JSON_DECODE_ANY, NULL);
  }

out:
  if (st != STATUS_OK) {
    ctl_answer_cleanup(out);
  }
  json_decref(body);
  free(text);
  return st;
}

void ctl_answer_cleanup(struct ctl_answer *answer) {
  json_decref(answer->json);
  free(answer->text);
  *answer = (struct ctl_answer){0};
}
