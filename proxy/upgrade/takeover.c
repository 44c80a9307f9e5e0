// SPDX-License-Identifier: Apache-2.0
#include "proxy/upgrade/takeover.h"

#include <errno.h>
#include <jansson.h>
#include <openssl/mem.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "proxy/upgrade/handover.h"

#define REPLY_MAX_LEN 8192

struct takeover {
  int fd;  // the pair's end
  char changes[HANDOVER_STAMP_LEN];
  struct loop *loop;
  struct io io;
  struct timer limit;
  void (*done)(void *arg, enum status st, const struct errmsg *err);
  void *arg;
  uint8_t ticket_keys[TICKET_KEY_SET_MAX_LEN];
  size_t ticket_keys_len;
};

// --- waiting, before there is a loop ---------------------------------------------------

static enum status wait_readable(int fd, int64_t deadline_ms) {
  struct pollfd wanted = {.fd = fd, .events = POLLIN};
  for (;;) {
    int64_t left_ms = deadline_ms - clock_monotonic_ms();
    int num = left_ms <= 0 ? 0 : poll(&wanted, 1, (int)left_ms);
    if (num > 0) {
      return STATUS_OK;
    }
    if (num == 0) {
      return STATUS_TIMEOUT;
    }
    if (errno != EINTR) {
      return STATUS_SYSTEM;
    }
  }
}

struct packet {
  char text[HANDOVER_MESSAGE_MAX_LEN];
  size_t len;  // 0: the peer has ended
  int fds[HANDOVER_FDS_MAX];
  size_t num_fds;
};

static void packet_close(struct packet *packet) {
  for (size_t i = 0; i < packet->num_fds; i++) {
    if (packet->fds[i] >= 0) {
      (void)close(packet->fds[i]);
    }
  }
  packet->num_fds = 0;
}

// Receives what is there, up to a packet; descriptors are ours then.
static enum status receive(struct packet *out, int fd, int64_t deadline_ms) {
  union {
    struct cmsghdr header;  // aligns the bytes
    char bytes[CMSG_SPACE(HANDOVER_FDS_MAX * sizeof(int))];
  } control;
  struct iovec part = {.iov_base = out->text, .iov_len = sizeof(out->text)};
  struct msghdr message = {.msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = control.bytes,
                           .msg_controllen = sizeof(control.bytes)};
  enum status st = STATUS_OK;
  ssize_t len = 0;

  out->len = 0;
  out->num_fds = 0;
  TRY(wait_readable(fd, deadline_ms));
  len = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
  if (len < 0) {
    return STATUS_SYSTEM;
  }
  out->len = (size_t)len;
  for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at != NULL; at = CMSG_NXTHDR(&message, at)) {
    if (at->cmsg_level == SOL_SOCKET && at->cmsg_type == SCM_RIGHTS && out->num_fds == 0) {
      out->num_fds = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      memcpy(out->fds, CMSG_DATA(at), out->num_fds * sizeof(int));
    }
  }
  // Descriptors that found no room are gone, and connections with them.
  if ((message.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) != 0) {
    packet_close(out);
    return STATUS_LIMIT;
  }

out:
  return st;
}

// --- asking ------------------------------------------------------------------------------

static enum status connect_to(int *out_fd, const char *path, struct errmsg *err) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  int fd = -1;
  if (strlen(path) >= sizeof(to.sun_path)) {
    return errmsg_set(err, STATUS_CONFIG, "admin.socket: the path is too long");
  }
  memcpy(to.sun_path, path, strlen(path) + 1);
  fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (const struct sockaddr *)&to, sizeof(to)) != 0) {
    int reason = errno;
    if (fd >= 0) {
      (void)close(fd);
    }
    return errmsg_set(err, STATUS_UNAVAILABLE,
                      "--takeover: no proxy answers at %s: %s; start it without --takeover", path,
                      strerror(reason));
  }
  *out_fd = fd;
  return STATUS_OK;
}

// Skips informational responses; NULL: there is no whole head.
static const char *final_head(const char *text) {
  while (text != NULL && strncmp(text, "HTTP/1.1 1", 10) == 0) {
    text = strstr(text, "\r\n\r\n");
    text = text == NULL ? NULL : text + 4;
  }
  return text != NULL && strncmp(text, "HTTP/1.1 ", 9) == 0 ? text : NULL;
}

static enum status read_answer(const char *text, struct errmsg *err) {
  const char *head = final_head(text);
  const char *body = head == NULL ? NULL : strstr(head, "\r\n\r\n");
  json_t *json = NULL;
  const char *message = NULL;
  enum status st = STATUS_OK;

  if (body == NULL) {
    return errmsg_set(err, STATUS_FORMAT, "--takeover: the running proxy's answer is not whole");
  }
  if (strncmp(head, "HTTP/1.1 200 ", 13) == 0) {
    return STATUS_OK;
  }
  json = json_loads(body + 4, JSON_DISABLE_EOF_CHECK, NULL);
  message = json_string_value(json_object_get(json_object_get(json, "error"), "message"));
  st = errmsg_set(err, STATUS_REFUSED, "--takeover: the running proxy refuses: %.300s",
                  message != NULL ? message : "no reason given");
  json_decref(json);
  return st;
}

// Asks for the pair's end, and reads until the server has closed.
static enum status request_pair(int *out_fd, int fd, int64_t deadline_ms, struct errmsg *err) {
  static const char request[] =
      "POST /v1/takeover HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
      "Content-Length: 2\r\nConnection: close\r\n\r\n{}";
  enum status st = STATUS_OK;
  char text[REPLY_MAX_LEN];
  size_t len = 0;
  struct packet packet;

  if (send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) != (ssize_t)sizeof(request) - 1) {
    TRY(errmsg_set(err, STATUS_CLOSED, "--takeover: the running proxy does not listen: %s",
                   strerror(errno)));
  }
  do {
    st = receive(&packet, fd, deadline_ms);
    if (st != STATUS_OK || len + packet.len >= sizeof(text)) {
      TRY(errmsg_set(err, st == STATUS_OK ? STATUS_LIMIT : st,
                     "--takeover: no answer from the running proxy: %s", status_name(st)));
    }
    memcpy(text + len, packet.text, packet.len);
    len += packet.len;
    if (packet.num_fds == 1 && *out_fd < 0) {
      *out_fd = packet.fds[0];
      packet.num_fds = 0;
    }
    packet_close(&packet);
  } while (packet.len > 0);
  text[len] = '\0';
  TRY(read_answer(text, err));
  if (*out_fd < 0) {
    TRY(errmsg_set(err, STATUS_FORMAT, "--takeover: the running proxy sent no descriptor"));
  }

out:
  return st;
}

static enum status keep_sockets(struct inherited *into, struct packet *packet, json_t *message,
                                struct errmsg *err) {
  enum status st = STATUS_OK;
  json_int_t kind = json_integer_value(json_object_get(message, "socket"));
  const char *address = json_string_value(json_object_get(message, "address"));
  if (kind <= INHERIT_ANY || kind >= INHERIT_NUM || address == NULL) {
    return STATUS_OK;  // of a later version: not for us
  }
  for (size_t i = 0; i < packet->num_fds; i++) {
    TRY(inherit_add(into, (enum inherit_kind)kind, NULL, address, &packet->fds[i], err));
  }
out:
  return st;
}

// systemd tells the time of its watchdog to the first process of a unit alone.
static void inherit_watchdog(const json_t *message) {
  const char *own_unit = getenv("INVOCATION_ID");
  const char *unit = json_string_value(json_object_get(message, "unit"));
  const char *usec = json_string_value(json_object_get(message, "watchdog_usec"));
  char pid[24];
  if (own_unit == NULL || unit == NULL || strcmp(own_unit, unit) != 0 || usec == NULL ||
      usec[0] == '\0' || getenv("WATCHDOG_USEC") != NULL) {
    return;
  }
  (void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
  (void)setenv("WATCHDOG_USEC", usec, 1);
  (void)setenv("WATCHDOG_PID", pid, 1);
}

static enum status receive_sockets(struct takeover *takeover, struct inherited *into,
                                   int64_t deadline_ms, struct errmsg *err) {
  enum status st = STATUS_OK;
  bool is_over = false;

  while (!is_over) {
    struct packet packet;
    json_t *message = NULL;
    const char *changes = NULL;
    st = receive(&packet, takeover->fd, deadline_ms);
    message = st != STATUS_OK ? NULL : json_loadb(packet.text, packet.len, 0, NULL);
    if (message == NULL) {
      packet_close(&packet);
      return errmsg_set(err, st == STATUS_OK ? STATUS_FORMAT : st,
                        "--takeover: the sockets did not come: %s",
                        status_name(st == STATUS_OK ? STATUS_FORMAT : st));
    }
    st = keep_sockets(into, &packet, message, err);
    changes = json_string_value(json_object_get(message, "changes"));
    if (changes != NULL && strlen(changes) < sizeof(takeover->changes)) {
      memcpy(takeover->changes, changes, strlen(changes) + 1);
    }
    inherit_watchdog(message);
    is_over = st != STATUS_OK || json_is_true(json_object_get(message, "end"));
    json_decref(message);
    packet_close(&packet);
  }
  return st;
}

enum status takeover_ask(struct takeover **out, struct inherited *into, const char *path,
                         struct errmsg *err) {
  enum status st = STATUS_OK;
  const int64_t deadline_ms = clock_monotonic_ms() + TAKEOVER_ASK_LIMIT_MS;
  struct takeover *takeover = calloc(1, sizeof(*takeover));
  int fd = -1;

  *out = NULL;
  if (takeover == NULL) {
    return STATUS_MEMORY;
  }
  takeover->fd = -1;
  TRY(connect_to(&fd, path, err));
  TRY(request_pair(&takeover->fd, fd, deadline_ms, err));
  TRY(receive_sockets(takeover, into, deadline_ms, err));
  *out = takeover;
  takeover = NULL;

out:
  if (fd >= 0) {
    (void)close(fd);
  }
  takeover_free(takeover, err->text);
  return st;
}

// --- steps ---------------------------------------------------------------------------------

static void finish(struct takeover *takeover, enum status st, const char *reason) {
  struct errmsg err = {0};
  void (*done)(void *arg, enum status st, const struct errmsg *err) = takeover->done;
  if (done == NULL) {
    return;  // nothing was asked
  }
  timer_cancel(&takeover->limit);
  takeover->done = NULL;
  (void)errmsg_set(&err, st, "%s", reason);
  done(takeover->arg, st, &err);
}

static void on_limit(void *arg) {
  finish(arg, STATUS_TIMEOUT, "the running proxy does not answer");
}

static void keep_ticket_keys(struct takeover *takeover, const char *bytes, size_t len) {
  if (len <= sizeof(takeover->ticket_keys)) {
    memcpy(takeover->ticket_keys, bytes, len);
    takeover->ticket_keys_len = len;
  }
}

struct bytes takeover_ticket_keys(const struct takeover *takeover) {
  return bytes_of(takeover->ticket_keys, takeover->ticket_keys_len);
}

static void on_answer(struct takeover *takeover, const char *text, size_t len) {
  json_t *message = json_loadb(text, len, 0, NULL);
  const char *error = json_string_value(json_object_get(message, "error"));
  if (error != NULL) {
    finish(takeover, STATUS_REFUSED, error);
  } else if (json_is_string(json_object_get(message, "ok"))) {
    finish(takeover, STATUS_OK, "");
  } else {
    finish(takeover, STATUS_FORMAT, "the running proxy's answer makes no sense");
  }
  json_decref(message);
}

static void on_pair(void *arg, unsigned ready) {
  struct takeover *takeover = arg;
  (void)ready;
  for (;;) {
    char text[HANDOVER_MESSAGE_MAX_LEN];
    ssize_t len = recv(takeover->fd, text, sizeof(text), MSG_DONTWAIT);
    if (len < 0 && errno == EINTR) {
      continue;
    }
    if (len < 0 && errno == EAGAIN) {
      return;
    }
    if (len <= 0) {
      finish(takeover, STATUS_CLOSED, "the running proxy has let go");
      return;
    }
    if (text[0] == '{') {
      on_answer(takeover, text, (size_t)len);
    } else {
      keep_ticket_keys(takeover, text, (size_t)len);
    }
    OPENSSL_cleanse(text, (size_t)len);
  }
}

static enum status send_step(struct takeover *takeover, enum takeover_step step) {
  const char *unit = getenv("INVOCATION_ID");
  json_t *message = step == TAKEOVER_CLAIM ? json_pack("{s:s,s:s,s:b}", "step", "claim", "changes",
                                                       takeover->changes, "ticket_keys", 1)
                                           : json_pack("{s:s,s:s}", "step", "complete", "unit",
                                                       unit == NULL ? "" : unit);
  char *text = message == NULL ? NULL : json_dumps(message, JSON_COMPACT);
  enum status st = STATUS_MEMORY;
  if (text != NULL) {
    st = send(takeover->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? STATUS_CLOSED
                                                                                 : STATUS_OK;
  }
  free(text);
  json_decref(message);
  return st;
}

void takeover_step(struct takeover *takeover, struct loop *loop, enum takeover_step step,
                   void (*done)(void *arg, enum status st, const struct errmsg *err), void *arg) {
  enum status st = STATUS_OK;
  takeover->done = done;
  takeover->arg = arg;
  if (takeover->loop == NULL) {
    takeover->loop = loop;
    TRY(timer_init(&takeover->limit, loop, on_limit, takeover));
    TRY(io_init(&takeover->io, loop, takeover->fd, on_pair, takeover));
  }
  timer_arm_ms(&takeover->limit, TAKEOVER_STEP_LIMIT_MS);
  TRY(send_step(takeover, step));

out:
  if (st != STATUS_OK) {
    finish(takeover, st, "the running proxy cannot be spoken to");
  }
}

void takeover_free(struct takeover *takeover, const char *reason) {
  json_t *message = NULL;
  char *text = NULL;
  if (takeover == NULL) {
    return;
  }
  if (takeover->fd >= 0 && reason != NULL && reason[0] != '\0') {
    message = json_pack("{s:s}", "error", reason);
    text = message == NULL ? NULL : json_dumps(message, JSON_COMPACT);
    if (text != NULL) {
      (void)send(takeover->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    free(text);
    json_decref(message);
  }
  if (takeover->loop != NULL) {
    io_cleanup(&takeover->io);
    timer_cleanup(&takeover->limit);
  }
  if (takeover->fd >= 0) {
    (void)close(takeover->fd);
  }
  OPENSSL_cleanse(takeover->ticket_keys, sizeof(takeover->ticket_keys));
  free(takeover);
}
