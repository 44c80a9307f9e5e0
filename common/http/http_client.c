// SPDX-License-Identifier: Apache-2.0
#include "common/http/http_client.h"

#include <curl/curl.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST_ANSWER_LEN 4096u
#define MAX_IDLE_CONNECTIONS 16L

struct call {
  LIST_ENTRY(call) link;
  struct http_client *client;
  uint64_t id;
  CURL *easy;
  struct curl_slist *headers;
  uint8_t *body;
  uint8_t *answer;
  size_t answer_len;
  size_t answer_cap;
  size_t max_answer_len;
  enum status st;       // what our own callbacks found wrong
  bool is_kept_inside;  // an address was not public
  void (*fn)(void *arg, const struct http_answer *answer);
  void *arg;
  char message[CURL_ERROR_SIZE];
};

struct http_client {
  struct loop *loop;
  CURLM *multi;
  struct timer timer;  // libcurl's
  LIST_HEAD(, call) calls;
  uint64_t last_id;
  bool is_reporting;  // within a callback of ours
};

// --- the library ------------------------------------------------------------------

static CURLcode global_result;

static void init_global(void) { global_result = curl_global_init(CURL_GLOBAL_DEFAULT); }

static CURLcode init_once(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  (void)pthread_once(&once, init_global);
  return global_result;
}

enum status http_client_check_library(struct errmsg *err) {
  const curl_version_info_data *info = NULL;
  if (init_once() != CURLE_OK) {
    return errmsg_set(err, STATUS_UNAVAILABLE, "libcurl does not start");
  }
  info = curl_version_info(CURLVERSION_NOW);
  if (info->ssl_version == NULL || strstr(info->ssl_version, "GnuTLS") == NULL) {
    // Its OpenSSL and our BoringSSL would be two libraries under the same names.
    return errmsg_set(err, STATUS_CONFIG,
                      "libcurl %s uses %s for TLS, but must be the GnuTLS flavour: install "
                      "libcurl3-gnutls, and look for another libcurl in LD_LIBRARY_PATH",
                      info->version, info->ssl_version == NULL ? "nothing" : info->ssl_version);
  }
  if ((info->features & CURL_VERSION_ASYNCHDNS) == 0) {
    return errmsg_set(err, STATUS_CONFIG,
                      "libcurl %s resolves names without threads: it would block", info->version);
  }
  return STATUS_OK;
}

// --- calls ---------------------------------------------------------------------------

static void call_free(struct call *call) {
  if (call == NULL) {
    return;
  }
  curl_easy_cleanup(call->easy);
  curl_slist_free_all(call->headers);
  free(call->body);
  free(call->answer);
  free(call);
}

// Takes a call out of the client's list and libcurl's hands.
static void call_detach(struct call *call) {
  LIST_REMOVE(call, link);
  (void)curl_multi_remove_handle(call->client->multi, call->easy);
}

static size_t on_answer(char *data, size_t size, size_t num, void *arg) {
  struct call *call = arg;
  size_t len = size * num;  // size is 1, and len at most CURL_MAX_WRITE_SIZE
  if (len > call->max_answer_len - call->answer_len) {
    call->st = STATUS_LIMIT;
    return 0;
  }
  if (call->answer_len + len > call->answer_cap) {
    size_t cap = call->answer_cap == 0 ? FIRST_ANSWER_LEN : call->answer_cap * 2;
    uint8_t *answer = NULL;
    cap = cap < call->answer_len + len ? call->answer_len + len : cap;
    cap = cap > call->max_answer_len ? call->max_answer_len : cap;
    answer = realloc(call->answer, cap);
    if (answer == NULL) {
      call->st = STATUS_MEMORY;
      return 0;
    }
    call->answer = answer;
    call->answer_cap = cap;
  }
  if (len > 0) {
    memcpy(call->answer + call->answer_len, data, len);
    call->answer_len += len;
  }
  return len;
}

static enum status status_of(const struct call *call, CURLcode code) {
  if (call->st != STATUS_OK) {
    return call->st;
  }
  switch (code) {
    case CURLE_OK:
      return STATUS_OK;
    case CURLE_OPERATION_TIMEDOUT:
      return STATUS_TIMEOUT;
    case CURLE_FILESIZE_EXCEEDED:
      return STATUS_LIMIT;
    case CURLE_OUT_OF_MEMORY:
      return STATUS_MEMORY;
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_LOGIN_DENIED:
      return STATUS_REFUSED;
    case CURLE_URL_MALFORMAT:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_BAD_CONTENT_ENCODING:
    case CURLE_HTTP2:
      return STATUS_FORMAT;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CLIENTCERT:
      return STATUS_CRYPTO;
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE:
      return STATUS_CLOSED;
    default:
      return call->is_kept_inside ? STATUS_REFUSED : STATUS_UNAVAILABLE;
  }
}

static void report(struct call *call, CURLcode code) {
  struct http_client *client = call->client;
  struct http_answer answer = {.st = status_of(call, code), .message = ""};
  char *redirect_url = NULL;  // libcurl's
  if (answer.st == STATUS_OK) {
    long http_code = 0;
    (void)curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &http_code);
    answer.code = (int)http_code;
    answer.body = bytes_of(call->answer, call->answer_len);
    answer.private_call = call;
    (void)curl_easy_getinfo(call->easy, CURLINFO_REDIRECT_URL, &redirect_url);
    answer.redirect_url = redirect_url;
  } else if (answer.st == STATUS_LIMIT) {
    answer.message = "the answer is longer than allowed";
  } else if (answer.st == STATUS_REFUSED && call->is_kept_inside) {
    answer.message = "its address is not a public one";
  } else {
    answer.message = call->message[0] != '\0' ? call->message : curl_easy_strerror(code);
  }
  // Out of the list first: the callback may cancel whatever it likes.
  call_detach(call);
  client->is_reporting = true;
  call->fn(call->arg, &answer);
  client->is_reporting = false;
  call_free(call);
}

const char *http_answer_header(const struct http_answer *answer, const char *name) {
  const struct call *call = answer->private_call;
  struct curl_header *header = NULL;
  // -1: of the last answer, should there have been a 1xx before it.
  if (call == NULL ||
      curl_easy_header(call->easy, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK) {
    return NULL;
  }
  return header->value;
}

uint8_t *http_answer_take_body(const struct http_answer *answer) {
  struct call *call = answer->private_call;
  uint8_t *body = NULL;
  if (call != NULL) {
    body = call->answer;
    call->answer = NULL;
  }
  return body;
}

// Not from within libcurl's own callbacks.
static void report_done(struct http_client *client) {
  CURLMsg *message = NULL;
  int num_left = 0;
  while ((message = curl_multi_info_read(client->multi, &num_left)) != NULL) {
    if (message->msg == CURLMSG_DONE) {
      CURLcode code = message->data.result;
      char *call = NULL;
      (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &call);
      report((struct call *)(void *)call, code);
    }
  }
}

// --- libcurl's sockets and timer on the loop ---------------------------------------

static void on_socket_ready(evutil_socket_t fd, short what, void *arg) {
  struct http_client *client = arg;
  int mask = 0;
  int num_running = 0;
  mask |= (what & EV_READ) != 0 ? CURL_CSELECT_IN : 0;
  mask |= (what & EV_WRITE) != 0 ? CURL_CSELECT_OUT : 0;
  (void)curl_multi_socket_action(client->multi, fd, mask, &num_running);
  report_done(client);
}

// Level-triggered, as libcurl does not read until EAGAIN: hence no struct io.
static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg) {
  struct http_client *client = arg;
  struct event *event = socket_arg;
  short wanted = EV_PERSIST;
  (void)easy;
  if (event != NULL) {
    event_free(event);
    (void)curl_multi_assign(client->multi, fd, NULL);
  }
  if (what == CURL_POLL_REMOVE) {
    return 0;
  }
  if (what == CURL_POLL_IN || what == CURL_POLL_INOUT) {
    wanted = (short)(wanted | EV_READ);
  }
  if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT) {
    wanted = (short)(wanted | EV_WRITE);
  }
  event = event_new(loop_base(client->loop), fd, wanted, on_socket_ready, client);
  if (event == NULL || event_add(event, NULL) != 0) {
    if (event != NULL) {
      event_free(event);
    }
    return -1;  // libcurl fails the transfer
  }
  (void)curl_multi_assign(client->multi, fd, event);
  return 0;
}

static void on_timer(void *arg) {
  struct http_client *client = arg;
  int num_running = 0;
  (void)curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &num_running);
  report_done(client);
}

static int on_set_timer(CURLM *multi, long after_ms, void *arg) {
  struct http_client *client = arg;
  (void)multi;
  if (after_ms < 0) {
    timer_cancel(&client->timer);
  } else {
    timer_arm_ms(&client->timer, after_ms);  // never at once: we are within libcurl
  }
  return 0;
}

// --- the client ------------------------------------------------------------------------

enum status http_client_new(struct http_client **out, struct loop *loop) {
  enum status st = STATUS_OK;
  struct http_client *client = NULL;
  *out = NULL;
  if (init_once() != CURLE_OK) {
    return STATUS_UNAVAILABLE;
  }
  client = calloc(1, sizeof(*client));
  if (client == NULL) {
    return STATUS_MEMORY;
  }
  client->loop = loop;
  LIST_INIT(&client->calls);
  TRY(timer_init(&client->timer, loop, on_timer, client));
  client->multi = curl_multi_init();
  if (client->multi == NULL ||
      curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, on_socket) != CURLM_OK ||
      curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client) != CURLM_OK ||
      curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, on_set_timer) != CURLM_OK ||
      curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client) != CURLM_OK ||
      curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, MAX_IDLE_CONNECTIONS) != CURLM_OK) {
    st = STATUS_MEMORY;
    goto out;
  }
  *out = client;
  client = NULL;

out:
  http_client_free(client);
  return st;
}

void http_client_free(struct http_client *client) {
  struct call *call = NULL;
  if (client == NULL) {
    return;
  }
  CHECK(!client->is_reporting);
  while ((call = LIST_FIRST(&client->calls)) != NULL) {
    // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what was freed is off the list
    call_detach(call);
    call_free(call);
  }
  if (client->multi != NULL) {
    (void)curl_multi_cleanup(client->multi);  // closes idle connections: on_socket, on_set_timer
  }
  timer_cleanup(&client->timer);
  free(client);
}

// --- addresses -------------------------------------------------------------------------

// Networks that are not for everybody (RFC 6890).
static const struct {
  uint32_t net;
  unsigned bits;
} private_v4[] = {
    {0x00000000, 8},   // this network
    {0x0a000000, 8},   // private
    {0x64400000, 10},  // shared with the carrier
    {0x7f000000, 8},   // loopback
    {0xa9fe0000, 16},  // link local: metadata services of clouds
    {0xac100000, 12},  // private
    {0xc0000000, 24},  // protocol assignments
    {0xc0a80000, 16},  // private
    {0xc6120000, 15},  // benchmarks
    {0xe0000000, 3},   // multicast, reserved, broadcast
};

static bool is_public_v4(uint32_t address) {
  for (size_t i = 0; i < sizeof(private_v4) / sizeof(private_v4[0]); i++) {
    if (address >> (32 - private_v4[i].bits) == private_v4[i].net >> (32 - private_v4[i].bits)) {
      return false;
    }
  }
  return true;
}

static bool is_public(const struct sockaddr *address) {
  if (address->sa_family == AF_INET) {
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;
    return is_public_v4(ntohl(v4->sin_addr.s_addr));
  }
  if (address->sa_family == AF_INET6) {
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)address;
    // Global unicast, but for 6to4 and the like, which lead to any IPv4 address.
    const uint8_t *at = v6->sin6_addr.s6_addr;
    const unsigned first = (unsigned)at[0] << 8 | at[1];
    return (first & 0xe000u) == 0x2000u && first != 0x2002u && !(first == 0x2001u && at[2] < 2);
  }
  return false;
}

// The address is looked at when the socket is made: whatever a name resolves to by then.
static curl_socket_t open_public_socket(void *arg, curlsocktype purpose,
                                        struct curl_sockaddr *address) {
  struct call *call = arg;
  (void)purpose;
  if (!is_public(&address->addr)) {
    call->is_kept_inside = true;
    return CURL_SOCKET_BAD;
  }
  return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

#define SET(option, value)                                         \
  do {                                                             \
    if (curl_easy_setopt(call->easy, option, value) != CURLE_OK) { \
      return STATUS_MEMORY;                                        \
    }                                                              \
  } while (0)

static enum status set_safety(struct call *call, const struct http_call *wish) {
  SET(CURLOPT_NOSIGNAL, 1L);
  SET(CURLOPT_PROTOCOLS_STR, wish->allow_http ? "http,https" : "https");
  SET(CURLOPT_FOLLOWLOCATION, 0L);
  SET(CURLOPT_PROXY, "");  // not even from the environment
  SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
  SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
  SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
  SET(CURLOPT_TIMEOUT_MS, (long)wish->limit_ms);
  SET(CURLOPT_CONNECTTIMEOUT_MS, (long)wish->limit_ms);
  SET(CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)wish->max_answer_len);
  // Or giving up on a call would wait for its resolver thread.
  SET(CURLOPT_QUICK_EXIT, 1L);
  if (wish->only_public) {
    SET(CURLOPT_OPENSOCKETFUNCTION, open_public_socket);
    SET(CURLOPT_OPENSOCKETDATA, call);
    SET(CURLOPT_FRESH_CONNECT, 1L);  // not one that a call without this rule opened
    SET(CURLOPT_FORBID_REUSE, 1L);
  }
  return STATUS_OK;
}

static enum status set_tls(struct call *call, const struct http_identity *identity) {
  SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
  SET(CURLOPT_SSL_VERIFYPEER, 1L);
  SET(CURLOPT_SSL_VERIFYHOST, 2L);
  if (identity == NULL) {
    return STATUS_OK;
  }
  if (identity->ca_path != NULL) {
    SET(CURLOPT_CAINFO, identity->ca_path);
    SET(CURLOPT_CAPATH, NULL);  // this one and no other
  }
  if (identity->cert_path != NULL) {
    SET(CURLOPT_SSLCERT, identity->cert_path);
  }
  if (identity->key_path != NULL) {
    SET(CURLOPT_SSLKEY, identity->key_path);
  }
  return STATUS_OK;
}

static enum status add_header(struct call *call, const char *line) {
  struct curl_slist *headers = curl_slist_append(call->headers, line);
  if (headers == NULL) {
    return STATUS_MEMORY;
  }
  call->headers = headers;
  return STATUS_OK;
}

static enum status set_request(struct call *call, const struct http_call *wish) {
  enum status st = STATUS_OK;
  char line[256];
  const char *type = wish->content_type == NULL ? "application/json" : wish->content_type;

  SET(CURLOPT_URL, wish->url);
  SET(CURLOPT_USERAGENT, "deputy");
  if (strcmp(wish->method, "POST") == 0) {
    SET(CURLOPT_POST, 1L);
  } else if (strcmp(wish->method, "GET") != 0) {
    SET(CURLOPT_CUSTOMREQUEST, wish->method);
  }
  if (wish->body.len > 0 || strcmp(wish->method, "POST") == 0) {
    if (snprintf(line, sizeof(line), "Content-Type: %s", type) >= (int)sizeof(line)) {
      return STATUS_FORMAT;
    }
    TRY(add_header(call, line));
    call->body = bytes_copy(wish->body);
    if (call->body == NULL) {
      return STATUS_MEMORY;
    }
    SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)wish->body.len);
    SET(CURLOPT_POSTFIELDS, (char *)call->body);
  }
  for (size_t i = 0; wish->headers != NULL && wish->headers[i] != NULL; i++) {
    TRY(add_header(call, wish->headers[i]));
  }
  TRY(add_header(call, "Expect:"));  // no pause for a 100 that may not come
  SET(CURLOPT_HTTPHEADER, call->headers);

out:
  return st;
}

static enum status set_answer(struct call *call) {
  SET(CURLOPT_PRIVATE, (char *)call);
  SET(CURLOPT_ERRORBUFFER, call->message);
  SET(CURLOPT_WRITEFUNCTION, on_answer);
  SET(CURLOPT_WRITEDATA, call);
  return STATUS_OK;
}

enum status http_client_start(uint64_t *out_id, struct http_client *client,
                              const struct http_call *call_wish,
                              void (*fn)(void *arg, const struct http_answer *answer), void *arg) {
  enum status st = STATUS_OK;
  struct call *call = calloc(1, sizeof(*call));

  *out_id = 0;
  if (call == NULL) {
    return STATUS_MEMORY;
  }
  call->client = client;
  call->max_answer_len = call_wish->max_answer_len;
  call->fn = fn;
  call->arg = arg;
  call->easy = curl_easy_init();
  if (call->easy == NULL) {
    st = STATUS_MEMORY;
    goto out;
  }
  TRY(set_safety(call, call_wish));
  TRY(set_tls(call, call_wish->identity));
  TRY(set_request(call, call_wish));
  TRY(set_answer(call));
  if (curl_multi_add_handle(client->multi, call->easy) != CURLM_OK) {
    st = STATUS_MEMORY;
    goto out;
  }
  call->id = ++client->last_id;
  LIST_INSERT_HEAD(&client->calls, call, link);
  *out_id = call->id;
  call = NULL;

out:
  call_free(call);
  return st;
}

void http_client_cancel(struct http_client *client, uint64_t id) {
  struct call *call = NULL;
  LIST_FOREACH (call, &client->calls, link) {
    if (call->id == id) {
      call_detach(call);
      call_free(call);
      return;
    }
  }
}
