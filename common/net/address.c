// SPDX-License-Identifier: Apache-2.0
#include "common/net/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/bytes.h"

#define FORMS "write 127.0.0.1:443, [::1]:443, *:443 or unix:/run/name.sock"
#define HOST_MAX_LEN 255

// --- text to address ---------------------------------------------------------

static enum status parse_port(uint16_t *out, const char *text) {
  uint32_t value = 0;
  size_t len = strlen(text);
  if (len == 0 || len > 5) {
    return STATUS_FORMAT;
  }
  for (size_t i = 0; i < len; i++) {
    if (text[i] < '0' || text[i] > '9') {
      return STATUS_FORMAT;
    }
    value = value * 10 + (uint32_t)(text[i] - '0');
  }
  if (value > UINT16_MAX) {
    return STATUS_FORMAT;
  }
  *out = (uint16_t)value;
  return STATUS_OK;
}

// Finds host and port; the host is not terminated and has lost its brackets.
static enum status cut_host(struct bytes *out_host, uint16_t *out_port, bool *out_is_bracketed,
                            const char *text) {
  const char *colon = strrchr(text, ':');
  const char *start = text;
  const char *end = colon;

  if (colon == NULL || parse_port(out_port, colon + 1) != STATUS_OK) {
    return STATUS_FORMAT;
  }
  *out_is_bracketed = text[0] == '[';
  if (*out_is_bracketed) {
    start += 1;
    end -= 1;
    if (end < start || *end != ']') {
      return STATUS_FORMAT;
    }
  } else if (memchr(start, ':', (size_t)(end - start)) != NULL) {
    return STATUS_FORMAT;  // an IPv6 address without brackets is ambiguous
  }
  if (end == start || end - start > HOST_MAX_LEN) {
    return STATUS_FORMAT;
  }
  *out_host = bytes_of(start, (size_t)(end - start));
  return STATUS_OK;
}

static bool is_local(const struct address *address) {
  const struct sockaddr_in *in = (const struct sockaddr_in *)&address->storage;
  const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address->storage;
  switch (address->storage.ss_family) {
    case AF_UNIX:
      return true;
    case AF_INET:
      return ntohl(in->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    case AF_INET6:
      return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr) != 0;
    default:
      return false;
  }
}

enum status address_parse_local(struct address *out, const char *text, const char *option,
                                struct errmsg *err) {
  if (address_parse(out, text, err) != STATUS_OK) {
    errmsg_prefix(err, "%s", option);
    return STATUS_CONFIG;
  }
  if (!is_local(out)) {
    return errmsg_set(err, STATUS_CONFIG,
                      "%s: %s can be reached from outside, and it speaks plain HTTP; use "
                      "127.0.0.1, [::1] or another loopback address, or unix:/path",
                      option, text);
  }
  return STATUS_OK;
}

enum status address_split_host(char out_host[256], uint16_t *out_port, const char *text,
                               struct errmsg *err) {
  struct bytes host = {0};
  bool is_bracketed = false;
  if (cut_host(&host, out_port, &is_bracketed, text) != STATUS_OK) {
    return errmsg_set(err, STATUS_FORMAT,
                      "\"%.300s\" is not host:port; write name.example:443, 192.0.2.1:443 or "
                      "[2001:db8::1]:443",
                      text);
  }
  memcpy(out_host, host.data, host.len);
  out_host[host.len] = '\0';
  return STATUS_OK;
}

static enum status parse_unix(struct address *out, const char *path, struct errmsg *err) {
  struct sockaddr_un *un = (struct sockaddr_un *)&out->storage;
  size_t len = strlen(path);
  if (len == 0 || len >= sizeof(un->sun_path)) {
    return errmsg_set(err, STATUS_FORMAT,
                      "the path of the UNIX socket \"%.200s\" has %zu bytes; it may have 1 to %zu",
                      path, len, sizeof(un->sun_path) - 1);
  }
  un->sun_family = AF_UNIX;
  memcpy(un->sun_path, path, len + 1);
  out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
  return STATUS_OK;
}

static void set_in(struct address *out, struct in_addr addr, uint16_t port) {
  struct sockaddr_in *in = (struct sockaddr_in *)&out->storage;
  in->sin_family = AF_INET;
  in->sin_port = htons(port);
  in->sin_addr = addr;
  out->len = sizeof(*in);
}

static void set_in6(struct address *out, struct in6_addr addr, uint16_t port) {
  struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&out->storage;
  in6->sin6_family = AF_INET6;
  in6->sin6_port = htons(port);
  in6->sin6_addr = addr;
  out->len = sizeof(*in6);
}

enum status address_from_host(struct address *out, const char *host, uint16_t port) {
  struct in_addr in;
  struct in6_addr in6;
  *out = (struct address){0};
  if (inet_pton(AF_INET, host, &in) == 1) {
    set_in(out, in, port);
    return STATUS_OK;
  }
  if (inet_pton(AF_INET6, host, &in6) == 1) {
    set_in6(out, in6, port);
    return STATUS_OK;
  }
  return STATUS_FORMAT;
}

void address_set_port(struct address *address, uint16_t port) {
  if (address->storage.ss_family == AF_INET) {
    ((struct sockaddr_in *)&address->storage)->sin_port = htons(port);
  } else if (address->storage.ss_family == AF_INET6) {
    ((struct sockaddr_in6 *)&address->storage)->sin6_port = htons(port);
  }
}

uint16_t address_port(const struct address *address) {
  if (address->storage.ss_family == AF_INET) {
    return ntohs(((const struct sockaddr_in *)&address->storage)->sin_port);
  }
  if (address->storage.ss_family == AF_INET6) {
    return ntohs(((const struct sockaddr_in6 *)&address->storage)->sin6_port);
  }
  return 0;
}

// "*" is every address of both families, and of IPv4 alone where the kernel has
// no IPv6.
static void set_any(struct address *out, uint16_t port) {
  int probe = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (probe < 0) {
    set_in(out, (struct in_addr){.s_addr = htonl(INADDR_ANY)}, port);
    return;
  }
  (void)close(probe);
  set_in6(out, in6addr_any, port);
  out->is_dual = true;
}

enum status address_parse(struct address *out, const char *text, struct errmsg *err) {
  struct bytes cut = {0};
  char host[HOST_MAX_LEN + 1];
  uint16_t port = 0;
  bool is_bracketed = false;

  *out = (struct address){0};
  if (strncmp(text, "unix:", 5) == 0) {
    return parse_unix(out, text + 5, err);
  }
  if (cut_host(&cut, &port, &is_bracketed, text) != STATUS_OK) {
    return errmsg_set(err, STATUS_FORMAT, "\"%.300s\" is not an address; " FORMS, text);
  }
  memcpy(host, cut.data, cut.len);
  host[cut.len] = '\0';
  if (strcmp(host, "*") == 0 && !is_bracketed) {
    set_any(out, port);
    return STATUS_OK;
  }
  if (address_from_host(out, host, port) != STATUS_OK ||
      is_bracketed != (out->storage.ss_family == AF_INET6)) {
    *out = (struct address){0};
    return errmsg_set(err, STATUS_FORMAT, "\"%.300s\" is not a numeric address; " FORMS, text);
  }
  return STATUS_OK;
}

// --- address to text ---------------------------------------------------------

static void format_unix(char out[ADDRESS_TEXT_LEN], const struct address *address) {
  const struct sockaddr_un *un = (const struct sockaddr_un *)&address->storage;
  size_t start = offsetof(struct sockaddr_un, sun_path);
  size_t len = address->len > start ? strnlen(un->sun_path, address->len - start) : 0;
  _Static_assert(ADDRESS_TEXT_LEN > 5 + sizeof(un->sun_path), "a UNIX path must fit");
  (void)snprintf(out, ADDRESS_TEXT_LEN, "unix:%.*s", (int)len, un->sun_path);
}

char *address_format(char out[ADDRESS_TEXT_LEN], const struct address *address) {
  char host[INET6_ADDRSTRLEN] = "";
  if (address->is_dual) {
    (void)snprintf(out, ADDRESS_TEXT_LEN, "*:%u", address_port(address));
  } else if (address->storage.ss_family == AF_INET) {
    (void)inet_ntop(AF_INET, &((const struct sockaddr_in *)&address->storage)->sin_addr, host,
                    sizeof(host));
    (void)snprintf(out, ADDRESS_TEXT_LEN, "%s:%u", host, address_port(address));
  } else if (address->storage.ss_family == AF_INET6) {
    (void)inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)&address->storage)->sin6_addr, host,
                    sizeof(host));
    (void)snprintf(out, ADDRESS_TEXT_LEN, "[%s]:%u", host, address_port(address));
  } else if (address->storage.ss_family == AF_UNIX) {
    format_unix(out, address);
  } else {
    (void)snprintf(out, ADDRESS_TEXT_LEN, "unknown");
  }
  return out;
}
