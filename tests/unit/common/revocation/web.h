// SPDX-License-Identifier: Apache-2.0
// web: an HTTP server of a few pages, in a thread, that says what a test wants: for the
// clients of responders and of CRLs.
#ifndef DEPUTY_TESTS_UNIT_COMMON_REVOCATION_WEB_H_
#define DEPUTY_TESTS_UNIT_COMMON_REVOCATION_WEB_H_

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"

#define WEB_MAX_PAGES 16u
#define WEB_HEAD_LEN 4096u

struct web_page {
  char path[32];      // "/name": paths that begin so
  char headers[256];  // lines of the answer, each with its end
  int code;
  uint8_t *body;
  size_t body_len;
  unsigned num_asked;
  char last_head[WEB_HEAD_LEN];  // of the last request
};

struct web {
  int fd;
  uint16_t port;
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t is_let_go;
  struct web_page pages[WEB_MAX_PAGES];
  size_t num_pages;
  bool is_holding;     // requests wait for web_hold(web, false)
  unsigned num_held;   // now
  unsigned most_held;  // at a time
  unsigned num_threads;
  bool is_ending;
};

void web_start(struct web *web);
void web_stop(struct web *web);

// web_put has pages below `path` answer so from now on; the body is copied.
void web_put(struct web *web, const char *path, int code, const char *headers, struct bytes body);
// web_page copies what is known of a page.
void web_page(struct web *web, const char *path, struct web_page *out);
unsigned web_num_asked(struct web *web, const char *path);
void web_hold(struct web *web, bool is_holding);
unsigned web_num_held(struct web *web);

// web_url borrows a static buffer (of the last eight calls).
const char *web_url(const struct web *web, const char *path);

#endif  // DEPUTY_TESTS_UNIT_COMMON_REVOCATION_WEB_H_
