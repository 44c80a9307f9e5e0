// SPDX-License-Identifier: Apache-2.0
#include "common/net/ready.h"

#include <errno.h>
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/net/address.h"

static enum status add_listener(json_t *list, const struct ready_listener *listener,
                                struct errmsg *err) {
  struct address address;
  char text[ADDRESS_TEXT_LEN];
  json_t *row = NULL;

  if (address_of_local(&address, listener->fd) != STATUS_OK) {
    return errmsg_set(err, STATUS_SYSTEM, "listener %s: cannot read its address: %s",
                      listener->name, strerror(errno));
  }
  row = json_pack("{s:s, s:s}", "name", listener->name, "address", address_format(text, &address));
  if (row == NULL || json_array_append_new(list, row) != 0) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  return STATUS_OK;
}

static enum status print_line(json_t *line, struct errmsg *err) {
  char *text = json_dumps(line, JSON_COMPACT | JSON_PRESERVE_ORDER);
  size_t len = 0;
  ssize_t written = 0;

  if (text == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  len = strlen(text);
  text[len] = '\n';  // in the terminator's place: the write has a length
  do {
    written = write(STDOUT_FILENO, text, len + 1);
  } while (written < 0 && errno == EINTR);
  free(text);
  if (written != (ssize_t)(len + 1)) {
    return errmsg_set(err, STATUS_SYSTEM, "cannot print the readiness line: %s",
                      written < 0 ? strerror(errno) : "standard output is full");
  }
  return STATUS_OK;
}

enum status ready_announce(const struct ready_listener *listeners, size_t num, struct errmsg *err) {
  enum status st = STATUS_OK;
  json_t *list = json_array();
  json_t *line = json_pack("{s:b, s:o}", "ready", 1, "listeners", list);

  ready_notify("READY=1");
  if (line == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  for (size_t i = 0; i < num; i++) {
    TRY(add_listener(list, &listeners[i], err));
  }
  TRY(print_line(line, err));

out:
  json_decref(line);
  return st;
}

void ready_notify(const char *state) {
  const char *path = getenv("NOTIFY_SOCKET");
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  size_t len = path == NULL ? 0 : strlen(path);
  int fd = -1;

  if (len < 2 || len >= sizeof to.sun_path || (path[0] != '/' && path[0] != '@')) {
    return;
  }
  memcpy(to.sun_path, path, len);
  if (path[0] == '@') {
    to.sun_path[0] = '\0';  // the abstract name space; its names have no terminator
  }
  fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    return;
  }
  (void)sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&to,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
  close(fd);
}

void ready_notify_reloading(void) {
  char state[64];
  struct timespec now = {0};
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  (void)snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%lld",
                 (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
  ready_notify(state);
}

void ready_notify_main_pid(void) {
  char state[32];
  (void)snprintf(state, sizeof(state), "MAINPID=%d", (int)getpid());
  ready_notify(state);
}
