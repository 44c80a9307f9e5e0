// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/common/revocation/web.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

struct visit {
  struct web *web;
  int fd;
};

static struct web_page *find_page(struct web *web, const char *path) {
  for (size_t i = 0; i < web->num_pages; i++) {
    const size_t len = strlen(web->pages[i].path);
    if (strncmp(path, web->pages[i].path, len) == 0 &&
        (path[len] == '\0' || path[len] == '/' || path[len] == ' ')) {
      return &web->pages[i];
    }
  }
  return NULL;
}

// read_request reads the head into `head`, and all of the body away.
static bool read_request(int fd, char head[WEB_HEAD_LEN]) {
  size_t len = 0;
  const char *end = NULL;

  while (len < WEB_HEAD_LEN - 1) {
    const ssize_t n = recv(fd, head + len, WEB_HEAD_LEN - 1 - len, 0);
    if (n <= 0) {
      return false;
    }
    len += (size_t)n;
    head[len] = '\0';
    end = memmem(head, len, "\r\n\r\n", 4);
    if (end != NULL) {
      const char *length = strcasestr(head, "content-length:");
      const size_t body_len = length == NULL ? 0 : strtoul(length + 15, NULL, 10);
      if (len >= (size_t)(end - head) + 4 + body_len) {
        return true;
      }
    }
  }
  return false;
}

static void wait_if_held(struct web *web) {
  web->num_held++;
  web->most_held = web->num_held > web->most_held ? web->num_held : web->most_held;
  while (web->is_holding && !web->is_ending) {
    (void)pthread_cond_wait(&web->is_let_go, &web->lock);
  }
  web->num_held--;
}

static void answer(struct web *web, int fd, const char *head) {
  char line[512];
  const char *path = strchr(head, ' ');
  struct web_page *page = NULL;
  uint8_t *body = NULL;
  size_t body_len = 0;
  int n = 0;

  (void)pthread_mutex_lock(&web->lock);
  page = path == NULL ? NULL : find_page(web, path + 1);
  if (page != NULL) {
    page->num_asked++;
    (void)snprintf(page->last_head, sizeof page->last_head, "%s", head);
  }
  wait_if_held(web);
  if (page == NULL) {
    n = snprintf(line, sizeof line, "HTTP/1.1 404 Not Found\r\n");
  } else {
    n = snprintf(line, sizeof line, "HTTP/1.1 %d Said\r\n%s", page->code, page->headers);
    body = bytes_copy(bytes_of(page->body, page->body_len));
    body_len = page->code == 304 ? 0 : page->body_len;
  }
  (void)pthread_mutex_unlock(&web->lock);
  n += snprintf(line + n, sizeof line - (size_t)n,
                "Connection: close\r\nContent-Length: %zu\r\n\r\n", body_len);
  if (send(fd, line, (size_t)n, MSG_NOSIGNAL) == n && body_len > 0) {
    (void)!send(fd, body, body_len, MSG_NOSIGNAL);
  }
  free(body);
}

static void *serve(void *arg) {
  struct visit *visit = arg;
  char head[WEB_HEAD_LEN];

  if (read_request(visit->fd, head)) {
    answer(visit->web, visit->fd, head);
  }
  (void)close(visit->fd);
  (void)pthread_mutex_lock(&visit->web->lock);
  visit->web->num_threads--;
  (void)pthread_cond_broadcast(&visit->web->is_let_go);
  (void)pthread_mutex_unlock(&visit->web->lock);
  free(visit);
  return NULL;
}

static void *accept_all(void *arg) {
  struct web *web = arg;

  for (;;) {
    const int fd = accept(web->fd, NULL, NULL);
    struct visit *visit = NULL;
    pthread_t thread;
    if (fd < 0) {
      return NULL;
    }
    visit = malloc(sizeof(*visit));
    CHECK(visit != NULL);
    *visit = (struct visit){web, fd};
    (void)pthread_mutex_lock(&web->lock);
    web->num_threads++;
    (void)pthread_mutex_unlock(&web->lock);
    CHECK(pthread_create(&thread, NULL, serve, visit) == 0);
    (void)pthread_detach(thread);
  }
}

void web_start(struct web *web) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof address;

  *web = (struct web){0};
  web->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(web->fd >= 0 && bind(web->fd, (const struct sockaddr *)&address, len) == 0 &&
        listen(web->fd, 128) == 0 && getsockname(web->fd, (struct sockaddr *)&address, &len) == 0);
  web->port = ntohs(address.sin_port);
  CHECK(pthread_mutex_init(&web->lock, NULL) == 0 &&
        pthread_cond_init(&web->is_let_go, NULL) == 0 &&
        pthread_create(&web->thread, NULL, accept_all, web) == 0);
}

void web_stop(struct web *web) {
  (void)shutdown(web->fd, SHUT_RDWR);
  (void)pthread_join(web->thread, NULL);
  (void)close(web->fd);
  (void)pthread_mutex_lock(&web->lock);
  web->is_ending = true;
  (void)pthread_cond_broadcast(&web->is_let_go);
  while (web->num_threads > 0) {
    (void)pthread_cond_wait(&web->is_let_go, &web->lock);
  }
  (void)pthread_mutex_unlock(&web->lock);
  for (size_t i = 0; i < web->num_pages; i++) {
    free(web->pages[i].body);
  }
  (void)pthread_cond_destroy(&web->is_let_go);
  (void)pthread_mutex_destroy(&web->lock);
}

void web_put(struct web *web, const char *path, int code, const char *headers, struct bytes body) {
  struct web_page *page = NULL;

  (void)pthread_mutex_lock(&web->lock);
  page = find_page(web, path);
  if (page == NULL) {
    CHECK(web->num_pages < WEB_MAX_PAGES);
    page = &web->pages[web->num_pages++];
    (void)snprintf(page->path, sizeof page->path, "%s", path);
  }
  free(page->body);
  page->code = code;
  (void)snprintf(page->headers, sizeof page->headers, "%s", headers);
  page->body = bytes_copy(body);
  page->body_len = body.len;
  (void)pthread_mutex_unlock(&web->lock);
}

void web_page(struct web *web, const char *path, struct web_page *out) {
  const struct web_page *page = NULL;

  (void)pthread_mutex_lock(&web->lock);
  page = find_page(web, path);
  CHECK(page != NULL);
  *out = *page;
  (void)pthread_mutex_unlock(&web->lock);
}

unsigned web_num_asked(struct web *web, const char *path) {
  struct web_page page;
  web_page(web, path, &page);
  return page.num_asked;
}

void web_hold(struct web *web, bool is_holding) {
  (void)pthread_mutex_lock(&web->lock);
  web->is_holding = is_holding;
  (void)pthread_cond_broadcast(&web->is_let_go);
  (void)pthread_mutex_unlock(&web->lock);
}

unsigned web_num_held(struct web *web) {
  (void)pthread_mutex_lock(&web->lock);
  const unsigned num = web->num_held;
  (void)pthread_mutex_unlock(&web->lock);
  return num;
}

const char *web_url(const struct web *web, const char *path) {
  static char urls[8][96];
  static unsigned next;
  char *url = urls[next++ % 8];
  (void)snprintf(url, sizeof urls[0], "http://127.0.0.1:%u%s", (unsigned)web->port, path);
  return url;
}
