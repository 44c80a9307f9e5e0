// SPDX-License-Identifier: Apache-2.0
#include "proxy/upgrade/handover.h"

#include <errno.h>
#include <jansson.h>
#include <openssl/mem.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/log.h"
#include "proxy/admin/admin_body.h"
#include "version.h"

#define MAX_SOCKETS 64  // rows; a listener's sockets are one

enum phase { PHASE_NONE, PHASE_LENT, PHASE_CLAIMED, PHASE_COMPLETE };

struct handover {
  struct loop *loop;
  const struct handover_host *host;
  enum phase phase;
  int fd;  // our end of the pair; -1: none
  struct io io;
  struct timer limit;
};

bool handover_is_claimed(const struct handover *handover) {
  return handover->phase >= PHASE_CLAIMED;
}

static void end(struct handover *handover, const char *reason) {
  char text[LOG_SENTENCE_LEN];
  if (handover->fd < 0) {
    return;
  }
  io_cleanup(&handover->io);
  (void)close(handover->fd);
  handover->fd = -1;
  timer_cancel(&handover->limit);
  if (handover->phase != PHASE_COMPLETE) {
    log_warn(0, "takeover_failed", "reason=%s effect=this_process_serves_on",
             log_sentence(text, reason));
    handover->phase = PHASE_NONE;
  }
}

// --- messages -----------------------------------------------------------------------------

// send_message sends one message (taken; NULL: no memory) and the descriptors.
static enum status send_message(int fd, json_t *message, const int *fds, size_t num) {
  union {
    struct cmsghdr header;  // aligns the bytes
    char bytes[CMSG_SPACE(HANDOVER_FDS_MAX * sizeof(int))];
  } control = {0};
  char *text = message == NULL ? NULL : json_dumps(message, JSON_COMPACT);
  struct iovec part = {.iov_base = text, .iov_len = text == NULL ? 0 : strlen(text)};
  struct msghdr packet = {.msg_iov = &part, .msg_iovlen = 1};
  ssize_t sent = -1;

  json_decref(message);
  if (text == NULL) {
    return STATUS_MEMORY;
  }
  if (num > 0) {
    struct cmsghdr *header = &control.header;
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(num * sizeof(int));
    memcpy(CMSG_DATA(header), fds, num * sizeof(int));
    packet.msg_control = control.bytes;
    packet.msg_controllen = CMSG_SPACE(num * sizeof(int));
  }
  sent = sendmsg(fd, &packet, MSG_NOSIGNAL | MSG_DONTWAIT);
  free(text);
  return sent < 0 ? STATUS_SYSTEM : STATUS_OK;
}

static enum status lend_one(int fd, const struct handover_socket *socket) {
  enum status st = STATUS_OK;
  for (size_t i = 0; i < socket->num; i += HANDOVER_FDS_MAX) {
    size_t num = socket->num - i < HANDOVER_FDS_MAX ? socket->num - i : HANDOVER_FDS_MAX;
    TRY(send_message(fd,
                     json_pack("{s:i,s:s}", "socket", (int)socket->kind, "address", socket->text),
                     socket->fds + i, num));
  }
out:
  return st;
}

static const char *env_or_none(const char *name) {
  const char *value = getenv(name);
  return value == NULL ? "" : value;
}

static enum status lend_all(struct handover *handover, int fd, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct handover_socket sockets[MAX_SOCKETS];
  size_t num = handover->host->sockets(handover->host->arg, sockets, MAX_SOCKETS);
  char stamp[HANDOVER_STAMP_LEN];

  TRY(handover->host->stamp(handover->host->arg, stamp, err));
  for (size_t i = 0; i < num; i++) {
    st = lend_one(fd, &sockets[i]);
    if (st != STATUS_OK) {
      TRY(errmsg_set(err, st, "the sockets of %s cannot be sent: %s", sockets[i].text,
                     strerror(errno)));
    }
  }
  st = send_message(
      fd,
      json_pack("{s:b,s:s,s:s,s:i,s:s,s:s}", "end", 1, "changes", stamp, "version", DEPUTY_VERSION,
                "pid", (int)getpid(), "unit", env_or_none("INVOCATION_ID"), "watchdog_usec",
                env_or_none("WATCHDOG_USEC")),
      NULL, 0);
  if (st != STATUS_OK) {
    TRY(errmsg_set(err, st, "the new process reads nothing"));
  }
out:
  return st;
}

// --- what the new process says --------------------------------------------------------------

static void refuse(struct handover *handover, const char *reason) {
  (void)send_message(handover->fd, json_pack("{s:s}", "error", reason), NULL, 0);
  end(handover, reason);
}

static enum status send_ticket_keys(struct handover *handover) {
  uint8_t set[TICKET_KEY_SET_MAX_LEN];
  const size_t len = handover->host->ticket_keys(handover->host->arg, set);
  const ssize_t sent = send(handover->fd, set, len, MSG_NOSIGNAL | MSG_DONTWAIT);
  OPENSSL_cleanse(set, sizeof(set));
  return sent < 0 ? STATUS_SYSTEM : STATUS_OK;
}

static void on_claim(struct handover *handover, const char *changes, bool wants_ticket_keys) {
  char stamp[HANDOVER_STAMP_LEN];
  struct errmsg err = {0};
  if (handover->host->stamp(handover->host->arg, stamp, &err) != STATUS_OK) {
    refuse(handover, err.text);
    return;
  }
  if (strcmp(stamp, changes) != 0) {
    refuse(handover,
           "something was switched since the new process read the switches: start it again");
    return;
  }
  if ((wants_ticket_keys && send_ticket_keys(handover) != STATUS_OK) ||
      send_message(handover->fd, json_pack("{s:s}", "ok", "claim"), NULL, 0) != STATUS_OK) {
    end(handover, "the new process reads nothing");
    return;
  }
  handover->phase = PHASE_CLAIMED;
  timer_arm_ms(&handover->limit, HANDOVER_CLAIM_LIMIT_MS);
}

static void on_complete(struct handover *handover, const char *unit) {
  const char *own = getenv("INVOCATION_ID");
  // From here on it serves, whether it hears the answer or not.
  (void)send_message(handover->fd, json_pack("{s:s}", "ok", "complete"), NULL, 0);
  handover->phase = PHASE_COMPLETE;
  end(handover, "");
  handover->host->on_complete(handover->host->arg, own != NULL && strcmp(own, unit) == 0);
}

static void on_message(struct handover *handover, const char *text, size_t len) {
  json_t *message = json_loadb(text, len, 0, NULL);
  const char *step = json_string_value(json_object_get(message, "step"));
  const char *changes = json_string_value(json_object_get(message, "changes"));
  const char *unit = json_string_value(json_object_get(message, "unit"));
  const char *error = json_string_value(json_object_get(message, "error"));

  // If this process has been told to stop meanwhile, all the better that another goes on.
  if (error != NULL) {
    end(handover, error);
  } else if (step != NULL && strcmp(step, "claim") == 0 && changes != NULL &&
             handover->phase == PHASE_LENT) {
    on_claim(handover, changes, json_is_true(json_object_get(message, "ticket_keys")));
  } else if (step != NULL && strcmp(step, "complete") == 0 && unit != NULL &&
             handover->phase == PHASE_CLAIMED) {
    on_complete(handover, unit);
  } else {
    refuse(handover, "this step is not known, or not due");
  }
  json_decref(message);
}

static void on_pair(void *arg, unsigned ready) {
  struct handover *handover = arg;
  (void)ready;
  while (handover->fd >= 0) {
    char text[HANDOVER_MESSAGE_MAX_LEN];
    ssize_t len = recv(handover->fd, text, sizeof(text), 0);
    if (len < 0 && errno == EINTR) {
      continue;
    }
    if (len < 0 && errno == EAGAIN) {
      return;
    }
    if (len <= 0) {
      end(handover, "the new process has ended");
      return;
    }
    on_message(handover, text, (size_t)len);
  }
}

static void on_limit(void *arg) {
  struct handover *handover = arg;
  end(handover, "the new process did not say in time that it serves");
}

// --- the request ----------------------------------------------------------------------------

static enum status open_pair(struct handover *handover, int *out_theirs) {
  int fds[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0) {
    return STATUS_SYSTEM;
  }
  if (io_init(&handover->io, handover->loop, fds[0], on_pair, handover) != STATUS_OK) {
    (void)close(fds[0]);
    (void)close(fds[1]);
    return STATUS_MEMORY;
  }
  handover->fd = fds[0];
  handover->phase = PHASE_LENT;
  *out_theirs = fds[1];
  return STATUS_OK;
}

// A socket is more than a switch: who has it can answer visitors. So those whom the
// admin socket's mode lets in must be this very user, or root.
static bool may_take_over(const struct http_request *request) {
  int64_t uid = http_request_peer_uid(request);
  return uid == 0 || uid == (int64_t)geteuid();
}

void handover_ask(struct handover *handover, struct http_request *request) {
  struct errmsg err = {0};
  int theirs = -1;

  if (!admin_body_may_post(request)) {
    return;
  }
  if (!may_take_over(request)) {
    http_reply_error(request, 403, "other_user",
                     "only the user of this process, or root, may take it over");
    return;
  }
  if (handover->host->is_stopping(handover->host->arg) || handover->fd >= 0) {
    http_reply_error(request, 409, "taken_over",
                     handover->fd >= 0 ? "another process is taking over already"
                                       : "this process is about to stop");
    return;
  }
  if (open_pair(handover, &theirs) != STATUS_OK) {
    http_reply_error(request, 500, "internal", "no descriptors or no memory");
    return;
  }
  if (lend_all(handover, handover->fd, &err) != STATUS_OK ||
      http_request_send_fd(request, theirs) != STATUS_OK) {
    const char *reason = err.text[0] == '\0' ? "the descriptor cannot be sent" : err.text;
    end(handover, reason);
    http_reply_error(request, 409, "not_lent", reason);
  } else {
    log_info(0, "sockets_lent", "uid=%lld", (long long)http_request_peer_uid(request));
    http_reply_json(request, 200, json_pack("{s:b}", "lent", 1));
  }
  (void)close(theirs);
}

// --- life -----------------------------------------------------------------------------------

enum status handover_new(struct handover **out, struct loop *loop,
                         const struct handover_host *host) {
  struct handover *handover = calloc(1, sizeof(*handover));
  *out = NULL;
  if (handover == NULL) {
    return STATUS_MEMORY;
  }
  handover->loop = loop;
  handover->host = host;
  handover->fd = -1;
  if (timer_init(&handover->limit, loop, on_limit, handover) != STATUS_OK) {
    free(handover);
    return STATUS_MEMORY;
  }
  *out = handover;
  return STATUS_OK;
}

void handover_free(struct handover *handover) {
  if (handover == NULL) {
    return;
  }
  if (handover->fd >= 0) {
    io_cleanup(&handover->io);
    (void)close(handover->fd);
  }
  timer_cleanup(&handover->limit);
  free(handover);
}
