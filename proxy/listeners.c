// SPDX-License-Identifier: Apache-2.0
#include "proxy/listeners.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"

#define UNIX_SOCKET_MODE 0666u  // who may reach the folder may connect, as with a port
#define FREE_LIMIT_MS 1000      // for whoever listens there to end

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

static void keep(struct listener *listener, int fd) { listener->kept[listener->num_kept++] = fd; }

// May another socket be bound to the address of this one? The kernel lets it if both
// say so, and both were opened by the same user.
static bool is_shared(int fd) {
  int is_on = 0;
  socklen_t len = sizeof(is_on);
  return getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &is_on, &len) == 0 && is_on != 0;
}

static enum status take_inherited(struct listener *listener, struct inherited *inherited,
                                  size_t num_workers, bool *out_is_foreign, struct errmsg *err) {
  size_t max = num_workers * LISTENING_MAX_SHARE;
  for (;;) {
    int fd =
        inherit_take(inherited, INHERIT_CLIENT, listener->name, listener->text, out_is_foreign);
    if (fd < 0) {
      return STATUS_OK;
    }
    keep(listener, fd);
    if (listener->num_kept > max) {
      return errmsg_set(err, STATUS_LIMIT,
                        "listener \"%s\" has more than %zu sockets already, too many for %zu "
                        "workers: none may be left out, as connections wait in each",
                        listener->name, max, num_workers);
    }
  }
}

// Opens sockets until each worker has one of its own. The first learns the port; the
// others join it.
static enum status bind_rest(struct listener *listener, size_t num_workers, struct errmsg *err) {
  enum status st = STATUS_OK;
  size_t num_there = listener->num_kept;
  while (listener->num_kept < num_workers) {
    int fd = -1;
    st = address_bind(&fd, &listener->address, is_tcp(listener), UNIX_SOCKET_MODE, err);
    if (st != STATUS_OK && num_there > 0) {
      log_info(0, "sockets_shared", "listener=%s sockets=%zu workers=%zu reason=\"%s\"",
               listener->name, listener->num_kept, num_workers, err->text);
      *err = (struct errmsg){0};
      return STATUS_OK;
    }
    TRY(st);
    keep(listener, fd);
    if (listener->num_kept == 1) {
      struct address bound = {0};
      TRY(address_of_local(&bound, fd));
      address_set_port(&listener->address, address_port(&bound));
    }
    if (!is_tcp(listener)) {
      break;  // a UNIX socket has one queue, which the workers share
    }
  }
out:
  return st;
}

static enum status begin(struct listener *listener, struct errmsg *err) {
  enum status st = STATUS_OK;
  for (; listener->num_begun < listener->num_kept; listener->num_begun++) {
    TRY(address_begin(listener->kept[listener->num_begun], &listener->address, err));
  }
out:
  return st;
}

static enum status open_sockets(struct listener *listener, struct inherited *inherited,
                                size_t num_workers, struct errmsg *err) {
  enum status st = STATUS_OK;
  bool is_foreign = false;

  if (inherited != NULL) {
    TRY(take_inherited(listener, inherited, num_workers, &is_foreign, err));
  }
  listener->num_begun = listener->num_kept;
  if (listener->num_kept > 0) {
    struct address bound = {0};
    TRY(address_of_local(&bound, listener->kept[0]));
    if (is_foreign) {
      listener->address = bound;
    }
    address_set_port(&listener->address, address_port(&bound));
  }
  if (listener->num_kept == 0 ||
      (!is_foreign && is_tcp(listener) && is_shared(listener->kept[0]))) {
    TRY(bind_rest(listener, num_workers, err));
  }
  if (listener->num_begun == 0) {
    TRY(begin(listener, err));  // nobody else is there
  }
out:
  return st;
}

// The workers' descriptors are apart from control's, so that each may close its own
// when it likes.
static enum status give_out(struct listener *listener, size_t num_workers, struct errmsg *err) {
  size_t num = listener->num_kept > num_workers ? listener->num_kept : num_workers;
  listener->fds = malloc(num * sizeof(int));
  if (listener->fds == NULL) {
    return STATUS_MEMORY;
  }
  for (; listener->num_fds < num; listener->num_fds++) {
    int fd = fcntl(listener->kept[listener->num_fds % listener->num_kept], F_DUPFD_CLOEXEC, 3);
    if (fd < 0) {
      return errmsg_set(err, STATUS_SYSTEM, "%s: %s", listener->text, strerror(errno));
    }
    listener->fds[listener->num_fds] = fd;
  }
  return STATUS_OK;
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

// A socket that shares its port with nobody can be bound only where nobody listens.
static enum status wait_until_free(const struct address *address, struct errmsg *err) {
  const int64_t deadline_ms = clock_monotonic_ms() + FREE_LIMIT_MS;
  const struct timespec pause = {.tv_nsec = 20000000};
  for (;;) {
    int fd = -1;
    if (address_bind(&fd, address, false, 0, err) == STATUS_OK) {
      (void)close(fd);
      return STATUS_OK;
    }
    if (errno != EADDRINUSE) {
      return STATUS_SYSTEM;
    }
    if (clock_monotonic_ms() > deadline_ms) {
      char text[ADDRESS_TEXT_LEN];
      return errmsg_set(err, STATUS_SYSTEM,
                        "cannot listen on %s: Address already in use. If it is a proxy that serves "
                        "there, --takeover takes its place",
                        address_format(text, address));
    }
    (void)nanosleep(&pause, NULL);
  }
}

// As the sockets of workers share their ports, the kernel would let a second proxy of the same
// user join the first, and have its part of the visitors: those of the first would be reset
// when it ends, or fails to start. One that is about to end gets a moment.
static enum status wait_for_places(const struct options *options, struct errmsg *err) {
  enum status st = STATUS_OK;
  for (size_t i = 0; i < options->num_listeners; i++) {
    struct address address;
    TRY(address_parse(&address, options->listeners[i].address, err));
    if (address.storage.ss_family != AF_UNIX && address_port(&address) != 0) {
      TRY(wait_until_free(&address, err));
    }
  }
out:
  return st;
}

static enum status open_one(struct listener *out, const struct listener_options *options,
                            const struct listeners *current, struct inherited *inherited,
                            size_t num_workers, struct errmsg *err) {
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
  out->kept = calloc(num_workers * LISTENING_MAX_SHARE + 1, sizeof(int));
  if (out->kept == NULL) {
    return STATUS_MEMORY;
  }
  TRY(open_sockets(out, inherited, num_workers, err));
  TRY(give_out(out, num_workers, err));
out:
  return st;
}

enum status listeners_open(struct listeners *out, const struct options *options,
                           const struct listeners *current, struct inherited *inherited,
                           size_t num_workers, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct listeners made = {0};

  if (inherited != NULL && inherited->num == 0) {
    TRY(wait_for_places(options, err));  // a start that takes nothing over
  }
  made.items = calloc(options->num_listeners, sizeof(struct listener));
  if (made.items == NULL) {
    return STATUS_MEMORY;
  }
  made.num = options->num_listeners;
  for (size_t i = 0; i < made.num; i++) {
    struct listener *listener = &made.items[i];
    TRY(open_one(listener, &options->listeners[i], current, inherited, num_workers, err));
    for (size_t j = 0; j < listener->num_kept && is_tcp(listener); j++) {
      set_options(listener, listener->kept[j], options->limits.handshake_ms);
    }
  }
  *out = made;
  made = (struct listeners){0};

out:
  listeners_close(&made);
  return st;
}

enum status listeners_begin(struct listeners *listeners, struct errmsg *err) {
  enum status st = STATUS_OK;
  for (size_t i = 0; i < listeners->num; i++) {
    TRY(begin(&listeners->items[i], err));
  }
out:
  return st;
}

void listeners_replace(struct listeners *current, struct listeners *next) {
  for (size_t i = 0; i < next->num; i++) {
    struct listener *listener = &next->items[i];
    for (size_t j = 0; j < current->num && !listener->is_new; j++) {
      struct listener *same = &current->items[j];
      if (same->id == listener->id) {
        listener->kept = same->kept;
        listener->num_kept = same->num_kept;
        listener->num_begun = same->num_begun;
        same->kept = NULL;
        same->num_kept = 0;
      }
    }
  }
  listeners_close(current);
  *current = *next;
  *next = (struct listeners){0};
}

static void add_to_plan(struct listening_plan *out, const struct listener *listener, size_t index,
                        int fd) {
  CHECK(out->num < LISTENING_MAX);  // listeners_open sees to it
  out->items[out->num].id = listener->id;
  out->items[out->num].index = index;
  out->items[out->num].is_tcp = is_tcp(listener);
  out->items[out->num].fd = fd;
  out->num += 1;
}

void listeners_plan(struct listening_plan *out, struct listeners *listeners, size_t index,
                    size_t num_workers) {
  *out = (struct listening_plan){0};
  for (size_t i = 0; i < listeners->num; i++) {
    struct listener *listener = &listeners->items[i];
    if (!listener->is_new) {
      add_to_plan(out, listener, i, -1);
      continue;
    }
    for (size_t j = index; j < listener->num_fds; j += num_workers) {
      add_to_plan(out, listener, i, listener->fds[j]);
      listener->fds[j] = -1;
    }
  }
}

static void close_kept(struct listener *listener) {
  for (size_t i = 0; i < listener->num_kept; i++) {
    (void)close(listener->kept[i]);
  }
  listener->num_kept = 0;
}

void listeners_let_go(struct listeners *listeners) {
  for (size_t i = 0; i < listeners->num; i++) {
    close_kept(&listeners->items[i]);
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
    close_kept(listener);
    free(listener->kept);
    free(listener->fds);
    free(listener->name);
    free(listener->text);
  }
  free(listeners->items);
  *listeners = (struct listeners){0};
}
