// SPDX-License-Identifier: Apache-2.0
#include "proxy/listeners.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/log.h"

#define UNIX_SOCKET_MODE 0666u  // who may reach the folder may connect, as with a port

static uint64_t next_id = 1;

static bool is_tcp(const struct listener *listener) {
  return listener->address.storage.ss_family != AF_UNIX;
}

// What accepted sockets inherit, or the kernel does for us; worth a warning only.
static void set_options(const struct listener *listener, int fd, int64_t handshake_ms) {
  const int on = 1;
  const int wait_s = (int)((handshake_ms + 999) / 1000);
  if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
      (listener->is_deferred &&
       setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &wait_s, sizeof(wait_s)) != 0)) {
    log_warn(0, "socket_option", "listener=%s reason=\"%s\"", listener->name, strerror(errno));
  }
}

// The first socket learns the port; the others join it.
static enum status bind_all(struct listener *listener, int64_t handshake_ms, struct errmsg *err) {
  enum status st = STATUS_OK;
  for (size_t i = 0; i < listener->num_fds; i++) {
    if (i > 0 && !is_tcp(listener)) {
      // A UNIX socket has one queue, which the workers share.
      listener->fds[i] = fcntl(listener->fds[0], F_DUPFD_CLOEXEC, 3);
      if (listener->fds[i] < 0) {
        return errmsg_set(err, STATUS_SYSTEM, "%s: %s", listener->text, strerror(errno));
      }
      continue;
    }
    TRY(address_listen(&listener->fds[i], &listener->address, is_tcp(listener), UNIX_SOCKET_MODE,
                       err));
    if (is_tcp(listener)) {
      set_options(listener, listener->fds[i], handshake_ms);
    }
    if (i == 0 && is_tcp(listener)) {
      struct address bound = {0};
      TRY(address_of_local(&bound, listener->fds[0]));
      address_set_port(&listener->address, address_port(&bound));
    }
  }
out:
  return st;
}

static const struct listener *find(const struct listeners *listeners,
                                   const struct listener_options *options) {
  for (size_t i = 0; i < listeners->num; i++) {
    const struct listener *listener = &listeners->items[i];
    if (strcmp(listener->name, options->name) == 0 &&
        strcmp(listener->text, options->address) == 0 &&
        listener->is_deferred == options->is_deferred) {
      return listener;
    }
  }
  return NULL;
}

static enum status open_one(struct listener *out, const struct listener_options *options,
                            const struct listeners *current, size_t num_workers,
                            int64_t handshake_ms, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct listener *same = find(current, options);

  out->name = strdup(options->name);
  out->text = strdup(options->address);
  if (out->name == NULL || out->text == NULL) {
    return STATUS_MEMORY;
  }
  out->is_deferred = options->is_deferred;
  if (same != NULL) {
    out->id = same->id;
    out->address = same->address;
    return STATUS_OK;
  }
  out->id = next_id++;
  out->is_new = true;
  st = address_parse(&out->address, options->address, err);
  if (st != STATUS_OK) {
    errmsg_prefix(err, "listener \"%s\"", options->name);
    return STATUS_CONFIG;
  }
  out->fds = malloc(num_workers * sizeof(int));
  if (out->fds == NULL) {
    return STATUS_MEMORY;
  }
  for (size_t i = 0; i < num_workers; i++) {
    out->fds[i] = -1;
  }
  out->num_fds = num_workers;
  TRY(bind_all(out, handshake_ms, err));
out:
  return st;
}

enum status listeners_open(struct listeners *out, const struct options *options,
                           const struct listeners *current, size_t num_workers,
                           struct errmsg *err) {
  enum status st = STATUS_OK;
  struct listeners made = {0};

  made.items = calloc(options->num_listeners, sizeof(struct listener));
  if (made.items == NULL) {
    return STATUS_MEMORY;
  }
  made.num = options->num_listeners;
  for (size_t i = 0; i < made.num; i++) {
    TRY(open_one(&made.items[i], &options->listeners[i], current, num_workers,
                 options->limits.handshake_ms, err));
  }
  *out = made;
  made = (struct listeners){0};

out:
  listeners_close(&made);
  return st;
}

void listeners_plan(struct listening_plan *out, struct listeners *listeners, size_t index) {
  *out = (struct listening_plan){.num = listeners->num};
  for (size_t i = 0; i < listeners->num; i++) {
    struct listener *listener = &listeners->items[i];
    out->items[i].id = listener->id;
    out->items[i].is_tcp = is_tcp(listener);
    out->items[i].fd = -1;
    if (listener->is_new) {
      out->items[i].fd = listener->fds[index];
      listener->fds[index] = -1;
    }
  }
}

void listeners_close(struct listeners *listeners) {
  for (size_t i = 0; i < listeners->num; i++) {
    struct listener *listener = &listeners->items[i];
    for (size_t j = 0; j < listener->num_fds; j++) {
      if (listener->fds[j] >= 0) {
        (void)close(listener->fds[j]);
      }
    }
    free(listener->fds);
    free(listener->name);
    free(listener->text);
  }
  free(listeners->items);
  *listeners = (struct listeners){0};
}
