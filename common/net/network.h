// SPDX-License-Identifier: Apache-2.0
// network: a range of addresses as people write it: "10.0.0.0/8", "2001:db8::/32",
// "192.0.2.1", or "unix" for all who come by a UNIX socket.
#ifndef DEPUTY_COMMON_NET_NETWORK_H_
#define DEPUTY_COMMON_NET_NETWORK_H_

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"

#define NETWORK_ADDRESS_LEN 16

struct network {
  int family;  // AF_INET, AF_INET6, AF_UNIX
  uint8_t address[NETWORK_ADDRESS_LEN];
  unsigned prefix_len;  // bits
};

// network_parse reads one. Bits behind the prefix must be zero: they are most often a
// slip of the pen. STATUS_FORMAT, with a sentence.
enum status network_parse(struct network *out, const char *text, struct errmsg *err);

// network_has says whether the address is in it. IPv4 addresses that an IPv6 socket
// shows as ::ffff:a.b.c.d are the IPv4 addresses they are.
bool network_has(const struct network *network, const struct sockaddr *address);

#endif  // DEPUTY_COMMON_NET_NETWORK_H_
