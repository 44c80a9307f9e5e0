// SPDX-License-Identifier: Apache-2.0
#include "common/net/network.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define FORMS "write 10.0.0.0/8, 2001:db8::/32, 192.0.2.1 or unix"
#define MAPPED_LEN 12  // of ::ffff:0:0/96

static bool has_prefix(const uint8_t *a, const uint8_t *b, unsigned num_bits) {
  const size_t num_bytes = num_bits / 8;
  const unsigned rest = num_bits % 8;
  return memcmp(a, b, num_bytes) == 0 &&
         (rest == 0 || ((a[num_bytes] ^ b[num_bytes]) >> (8 - rest)) == 0);
}

static bool has_nothing_behind(const struct network *network, unsigned num_bits) {
  for (unsigned bit = network->prefix_len; bit < num_bits; bit++) {
    if ((network->address[bit / 8] >> (7 - bit % 8) & 1) != 0) {
      return false;
    }
  }
  return true;
}

static bool parse_prefix(struct network *out, const char *text, unsigned max) {
  char *end = NULL;
  unsigned long value = 0;
  if (*text < '0' || *text > '9') {
    return false;
  }
  value = strtoul(text, &end, 10);
  out->prefix_len = (unsigned)value;
  return *end == '\0' && value <= max;
}

enum status network_parse(struct network *out, const char *text, struct errmsg *err) {
  const char *slash = strchr(text, '/');
  const size_t len = slash == NULL ? strlen(text) : (size_t)(slash - text);
  char host[INET6_ADDRSTRLEN];
  unsigned num_bits = 0;

  *out = (struct network){.family = AF_UNIX};
  if (strcmp(text, "unix") == 0) {
    return STATUS_OK;
  }
  if (len < sizeof(host)) {
    memcpy(host, text, len);
    host[len] = '\0';
    out->family = strchr(host, ':') == NULL ? AF_INET : AF_INET6;
    num_bits = out->family == AF_INET ? 32 : 128;
  }
  out->prefix_len = num_bits;
  if (num_bits == 0 || inet_pton(out->family, host, out->address) != 1 ||
      (slash != NULL && !parse_prefix(out, slash + 1, num_bits))) {
    return errmsg_set(err, STATUS_FORMAT, "\"%.100s\" is no network; " FORMS, text);
  }
  if (!has_nothing_behind(out, num_bits)) {
    return errmsg_set(err, STATUS_FORMAT, "\"%.100s\" has bits behind its prefix of %u", text,
                      out->prefix_len);
  }
  return STATUS_OK;
}

bool network_has(const struct network *network, const struct sockaddr *address) {
  struct sockaddr_in in;
  struct sockaddr_in6 in6;
  if (address->sa_family == AF_INET) {
    memcpy(&in, address, sizeof(in));
    return network->family == AF_INET &&
           has_prefix(network->address, (const uint8_t *)&in.sin_addr, network->prefix_len);
  }
  if (address->sa_family != AF_INET6) {
    return network->family == AF_UNIX && address->sa_family == AF_UNIX;
  }
  memcpy(&in6, address, sizeof(in6));
  if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
    return network->family == AF_INET &&
           has_prefix(network->address, in6.sin6_addr.s6_addr + MAPPED_LEN, network->prefix_len);
  }
  return network->family == AF_INET6 &&
         has_prefix(network->address, in6.sin6_addr.s6_addr, network->prefix_len);
}
