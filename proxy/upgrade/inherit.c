// SPDX-License-Identifier: Apache-2.0
#include "proxy/upgrade/inherit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/log.h"

#define FIRST_FD 3  // SD_LISTEN_FDS_START
#define NAME_MAX_LEN 255

// --- the set ---------------------------------------------------------------------------

static bool is_listening_stream(int fd) {
  int is_listening = 0;
  int type = 0;
  socklen_t len = sizeof(int);
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &len) != 0 || is_listening == 0) {
    return false;
  }
  len = sizeof(int);
  return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM;
}

// O_NONBLOCK belongs to the socket, which an earlier process may be using: it was
// set there, too.
static bool prepare(int fd) {
  int flags = fcntl(fd, F_GETFL);
  return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 &&
         fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

static enum status keep(struct inherited *set, const struct inherited_item *item) {
  struct inherited_item *items = NULL;
  if (set->num == INHERIT_MAX) {
    return STATUS_LIMIT;
  }
  items = realloc(set->items, (set->num + 1) * sizeof(*items));
  if (items == NULL) {
    return STATUS_MEMORY;
  }
  set->items = items;
  set->items[set->num++] = *item;
  return STATUS_OK;
}

enum status inherit_add(struct inherited *set, enum inherit_kind kind, const char *name,
                        const char *text, int *fd, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct inherited_item item = {.kind = kind, .fd = *fd};

  *fd = -1;
  if (!is_listening_stream(item.fd) || !prepare(item.fd)) {
    TRY(errmsg_set(err, STATUS_REFUSED, "the socket for %s is no listening stream socket",
                   name != NULL ? name : "a listener"));
  }
  item.name = name == NULL ? NULL : strdup(name);
  item.text = text == NULL ? NULL : strdup(text);
  st = (name != NULL && item.name == NULL) || (text != NULL && item.text == NULL)
           ? STATUS_MEMORY
           : keep(set, &item);
  if (st != STATUS_OK) {
    (void)errmsg_set(err, st, "%s", status_name(st));
    goto out;
  }
  return STATUS_OK;

out:
  free(item.name);
  free(item.text);
  if (item.fd >= 0) {
    (void)close(item.fd);
  }
  return st;
}

static bool is_wanted(const struct inherited_item *item, enum inherit_kind kind, const char *name,
                      const char *text) {
  if (item->fd < 0) {
    return false;
  }
  if (item->kind == INHERIT_ANY) {
    return strcmp(item->name, name) == 0;
  }
  return item->kind == kind && text != NULL && strcmp(item->text, text) == 0;
}

int inherit_take(struct inherited *set, enum inherit_kind kind, const char *name, const char *text,
                 bool *out_is_foreign) {
  for (size_t i = 0; i < set->num; i++) {
    if (is_wanted(&set->items[i], kind, name, text)) {
      int fd = set->items[i].fd;
      set->items[i].fd = -1;
      *out_is_foreign = set->items[i].kind == INHERIT_ANY;
      return fd;
    }
  }
  return -1;
}

void inherit_cleanup(struct inherited *set) {
  for (size_t i = 0; i < set->num; i++) {
    struct inherited_item *item = &set->items[i];
    if (item->fd >= 0 && item->kind == INHERIT_ANY) {
      log_warn(0, "socket_not_wanted", "name=%s remedy=\"call a listener so, or name it so\"",
               item->name);
    }
    if (item->fd >= 0) {
      (void)close(item->fd);
    }
    free(item->name);
    free(item->text);
  }
  free(set->items);
  *set = (struct inherited){0};
}

// --- the service manager's ---------------------------------------------------------------

// A number as systemd writes it; 0: it is none.
static unsigned long read_number(const char *text) {
  char *end = NULL;
  unsigned long value = 0;
  if (text == NULL || text[0] < '0' || text[0] > '9') {
    return 0;
  }
  errno = 0;
  value = strtoul(text, &end, 10);
  return *end != '\0' || errno != 0 ? 0 : value;
}

// The next name of "a:b:c", or what systemd would say for none.
static void next_name(char out[NAME_MAX_LEN + 1], const char **at) {
  size_t len = 0;
  if (*at == NULL) {
    memcpy(out, "unknown", sizeof("unknown"));
    return;
  }
  len = strcspn(*at, ":");
  memcpy(out, *at, len < NAME_MAX_LEN ? len : NAME_MAX_LEN);
  out[len < NAME_MAX_LEN ? len : NAME_MAX_LEN] = '\0';
  *at = (*at)[len] == ':' ? *at + len + 1 : NULL;
}

enum status inherit_from_environment(struct inherited *set, struct errmsg *err) {
  enum status st = STATUS_OK;
  unsigned long pid = read_number(getenv("LISTEN_PID"));
  unsigned long num = read_number(getenv("LISTEN_FDS"));
  const char *names = getenv("LISTEN_FDNAMES");

  if (pid != (unsigned long)getpid() || num == 0) {
    goto out;  // none, or meant for whoever started us
  }
  if (num > INHERIT_MAX) {
    TRY(errmsg_set(err, STATUS_CONFIG, "LISTEN_FDS is %lu; at most %d sockets are taken", num,
                   INHERIT_MAX));
  }
  for (unsigned long i = 0; i < num; i++) {
    char name[NAME_MAX_LEN + 1];
    int fd = FIRST_FD + (int)i;
    next_name(name, &names);
    st = inherit_add(set, INHERIT_ANY, name, NULL, &fd, err);
    if (st != STATUS_OK) {
      errmsg_prefix(err, "LISTEN_FDS, \"%s\"", name);
      TRY(STATUS_CONFIG);
    }
  }

out:
  (void)unsetenv("LISTEN_PID");
  (void)unsetenv("LISTEN_FDS");
  (void)unsetenv("LISTEN_FDNAMES");
  return st;
}
