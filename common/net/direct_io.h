// SPDX-License-Identifier: Apache-2.0
// direct_io: recv, send and epoll_wait for the path that every byte takes. In a program
// with threads the C library makes each of them a point at which its thread may be
// cancelled, by two locked instructions around the system call (25 ns of the 160 of the
// shortest one). Nobody cancels threads here.
//
// Values and errno are those of the functions they stand for.
#ifndef DEPUTY_COMMON_NET_DIRECT_IO_H_
#define DEPUTY_COMMON_NET_DIRECT_IO_H_

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

// Sanitizers look into the buffers of the C library's functions.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define DIRECT_IO_IS_DIRECT 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define DIRECT_IO_IS_DIRECT 0
#endif
#endif
#ifndef DIRECT_IO_IS_DIRECT
#define DIRECT_IO_IS_DIRECT 1
#endif

static inline ssize_t direct_recv(int fd, uint8_t *out, size_t max) {
#if DIRECT_IO_IS_DIRECT
  return syscall(SYS_recvfrom, fd, out, max, 0, NULL, NULL);
#else
  return recv(fd, out, max, 0);
#endif
}

// direct_send never raises SIGPIPE.
static inline ssize_t direct_send(int fd, const uint8_t *in, size_t len) {
#if DIRECT_IO_IS_DIRECT
  return syscall(SYS_sendto, fd, in, len, MSG_NOSIGNAL, NULL, 0);
#else
  return send(fd, in, len, MSG_NOSIGNAL);
#endif
}

static inline int direct_epoll_wait(int fd, struct epoll_event *out, int max, int wait_ms) {
#if DIRECT_IO_IS_DIRECT
  return (int)syscall(SYS_epoll_pwait, fd, out, max, wait_ms, NULL, 0);
#else
  return epoll_wait(fd, out, max, wait_ms);
#endif
}

#endif  // DEPUTY_COMMON_NET_DIRECT_IO_H_
