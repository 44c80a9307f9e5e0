// SPDX-License-Identifier: Apache-2.0
// The half of address.h that opens sockets.
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/sandbox.h"
#include "common/net/address.h"

#define LISTEN_BACKLOG 4096  // the kernel's net.core.somaxconn bounds it

static int new_socket(const struct address *address) {
  return socket(address->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static bool is_tcp(const struct address *address) { return address->storage.ss_family != AF_UNIX; }

// Closes without touching errno, which still has to be told.
static void close_quietly(int fd) {
  int reason = errno;
  if (fd >= 0) {
    (void)close(fd);
  }
  errno = reason;
}

// --- listening ---------------------------------------------------------------

static bool set_tcp_options(int fd, const struct address *address, bool share_port) {
  const int on = 1;
  const int is_v6_only = address->is_dual ? 0 : 1;
  // A restart must not wait for the connections of the last run to time out.
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0) {
    return false;
  }
  if (share_port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0) {
    return false;
  }
  // Said in both cases, for the system's default differs.
  return address->storage.ss_family != AF_INET6 ||
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &is_v6_only, sizeof(is_v6_only)) == 0;
}

// Removes a socket file whose owner is gone. Any other file stays, and so does
// a socket that somebody serves (or whose queue is full): bind then fails.
static void remove_dead_socket(const struct address *address) {
  const char *path = ((const struct sockaddr_un *)&address->storage)->sun_path;
  struct stat info;
  int probe = -1;
  if (lstat(path, &info) != 0 || !S_ISSOCK(info.st_mode)) {
    return;
  }
  probe = new_socket(address);
  if (probe < 0) {
    return;
  }
  if (connect(probe, (const struct sockaddr *)&address->storage, address->len) != 0 &&
      errno == ECONNREFUSED) {
    (void)unlink(path);
  }
  (void)close(probe);
}

// The mode is set before listen: until then nobody can connect.
static bool bind_unix(int fd, const struct address *address, unsigned mode) {
  const char *path = ((const struct sockaddr_un *)&address->storage)->sun_path;
  remove_dead_socket(address);
  return bind(fd, (const struct sockaddr *)&address->storage, address->len) == 0 &&
         chmod(path, mode) == 0;
}

static bool bind_tcp(int fd, const struct address *address, bool share_port) {
  return set_tcp_options(fd, address, share_port) &&
         bind(fd, (const struct sockaddr *)&address->storage, address->len) == 0;
}

enum status address_bind(int *out_fd, const struct address *address, bool share_port, unsigned mode,
                         struct errmsg *err) {
  char text[ADDRESS_TEXT_LEN];
  int reason = 0;
  int fd = new_socket(address);

  *out_fd = -1;
  if (fd >= 0 &&
      (is_tcp(address) ? bind_tcp(fd, address, share_port) : bind_unix(fd, address, mode))) {
    *out_fd = fd;
    return STATUS_OK;
  }
  reason = errno;
  close_quietly(fd);
  (void)errmsg_set(err, STATUS_SYSTEM, "cannot listen on %s: %s%s", address_format(text, address),
                   strerror(reason), is_tcp(address) ? "" : sandbox_hint(reason));
  errno = reason;
  return STATUS_SYSTEM;
}

enum status address_begin(int fd, const struct address *address, struct errmsg *err) {
  char text[ADDRESS_TEXT_LEN];
  int reason = 0;
  if (listen(fd, LISTEN_BACKLOG) == 0) {
    return STATUS_OK;
  }
  reason = errno;
  (void)errmsg_set(err, STATUS_SYSTEM, "cannot listen on %s: %s", address_format(text, address),
                   strerror(reason));
  errno = reason;
  return STATUS_SYSTEM;
}

enum status address_listen(int *out_fd, const struct address *address, bool share_port,
                           unsigned mode, struct errmsg *err) {
  enum status st = address_bind(out_fd, address, share_port, mode, err);
  if (st == STATUS_OK) {
    st = address_begin(*out_fd, address, err);
    if (st != STATUS_OK) {
      close_quietly(*out_fd);
      *out_fd = -1;
    }
  }
  return st;
}

// --- connecting --------------------------------------------------------------

void address_keep_alive(int fd, int64_t after_ms) {
  const int on = 1;
  const int num = 3;
  const int after_s = after_ms < 1000 ? 1 : (int)(after_ms / 1000);
  const int every_s = after_s < 3 ? 1 : after_s / 3;
  if (setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &after_s, sizeof(after_s)) == 0) {
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every_s, sizeof(every_s));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &num, sizeof(num));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  }
}

enum status address_connect(int *out_fd, const struct address *address) {
  const int on = 1;
  int fd = new_socket(address);

  *out_fd = -1;
  if (fd < 0) {
    return STATUS_SYSTEM;
  }
  if (is_tcp(address) && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0) {
    close_quietly(fd);
    return STATUS_SYSTEM;
  }
  // EAGAIN is a UNIX socket's full queue: no event would tell when to go on.
  if (connect(fd, (const struct sockaddr *)&address->storage, address->len) != 0 &&
      errno != EINPROGRESS && errno != EINTR) {
    close_quietly(fd);
    return STATUS_SYSTEM;
  }
  *out_fd = fd;
  return STATUS_OK;
}

enum status address_connect_result(int fd) {
  int reason = 0;
  socklen_t len = sizeof(reason);
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &reason, &len) != 0) {
    return STATUS_SYSTEM;
  }
  errno = reason;
  return reason == 0 ? STATUS_OK : STATUS_SYSTEM;
}

// --- ends --------------------------------------------------------------------

void address_unmap(struct address *address) {
  const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address->storage;
  struct sockaddr_in in = {.sin_family = AF_INET};
  if (address->storage.ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
    return;
  }
  in.sin_port = in6->sin6_port;
  memcpy(&in.sin_addr, in6->sin6_addr.s6_addr + 12, sizeof(in.sin_addr));
  *address = (struct address){.len = sizeof(in)};
  memcpy(&address->storage, &in, sizeof(in));
}

static enum status read_end(struct address *out, int fd,
                            int (*read_name)(int fd, struct sockaddr *name, socklen_t *len)) {
  *out = (struct address){.len = sizeof(out->storage)};
  if (read_name(fd, (struct sockaddr *)&out->storage, &out->len) != 0) {
    return STATUS_SYSTEM;
  }
  address_unmap(out);
  return STATUS_OK;
}

enum status address_of_local(struct address *out, int fd) { return read_end(out, fd, getsockname); }

enum status address_of_peer(struct address *out, int fd) { return read_end(out, fd, getpeername); }
