// SPDX-License-Identifier: Apache-2.0
// address: where to listen or connect, as people write it: "127.0.0.1:443",
// "[::1]:443", "*:443", "name.example:443", "unix:/run/x.sock".
#ifndef DEPUTY_COMMON_NET_ADDRESS_H_
#define DEPUTY_COMMON_NET_ADDRESS_H_

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"

struct address {
  struct sockaddr_storage storage;
  socklen_t len;
  bool is_dual;  // "*": both families on one IPv6 socket
};

#define ADDRESS_TEXT_LEN 128

// address_parse reads an address that needs no DNS. STATUS_FORMAT, with a
// sentence that shows the forms. Port 0 lets the kernel choose.
enum status address_parse(struct address *out, const char *text, struct errmsg *err);

// address_parse_local is the same for what must not leave this machine: loopback, or a
// UNIX socket. STATUS_CONFIG, with a sentence that begins with `option`.
enum status address_parse_local(struct address *out, const char *text, const char *option,
                                struct errmsg *err);

// address_split_host cuts "host:port" into its parts (host of at most 255
// bytes; brackets removed). STATUS_FORMAT.
enum status address_split_host(char out_host[256], uint16_t *out_port, const char *text,
                               struct errmsg *err);

// address_from_host makes an address of a numeric host (without brackets) and a
// port. STATUS_FORMAT when it is a name.
enum status address_from_host(struct address *out, const char *host, uint16_t port);

// address_port is 0 for a UNIX socket, where address_set_port does nothing.
uint16_t address_port(const struct address *address);
void address_set_port(struct address *address, uint16_t port);

// address_format writes the numeric form that address_parse reads back.
char *address_format(char out[ADDRESS_TEXT_LEN], const struct address *address);

// address_listen opens a non-blocking, close-on-exec listening socket;
// `share_port` sets SO_REUSEPORT, so that each worker has a queue of its own. A
// UNIX socket is made with `mode` and replaces a dead one of the same path.
// "[::]:443" is IPv6 alone; "*:443" is both families, where there are both.
// STATUS_SYSTEM with the address and reason in err. The caller closes it.
enum status address_listen(int *out_fd, const struct address *address, bool share_port,
                           unsigned mode, struct errmsg *err);

// address_bind and address_begin are its halves: a bound socket has the address, and
// no connection comes to it yet.
enum status address_bind(int *out_fd, const struct address *address, bool share_port, unsigned mode,
                         struct errmsg *err);
enum status address_begin(int fd, const struct address *address, struct errmsg *err);

// address_connect starts a non-blocking connect (TCP_NODELAY set); STATUS_AGAIN
// is not returned: wait for writable, then address_connect_result.
enum status address_connect(int *out_fd, const struct address *address);
enum status address_connect_result(int fd);  // STATUS_SYSTEM sets errno

// address_keep_alive has the kernel probe a quiet connection after `after_ms`, and break it
// when three probes in a row, a third of that apart (a second at least), have no answer. A
// UNIX socket's other end cannot vanish: nothing is done.
void address_keep_alive(int fd, int64_t after_ms);

// address_unmap turns an IPv4 client of an IPv6 socket ("[::ffff:192.0.2.1]:5")
// into what it is; others stay. For addresses that come from accept itself.
void address_unmap(struct address *address);

// address_of_local / _peer read the socket's ends, unmapped. STATUS_SYSTEM.
enum status address_of_local(struct address *out, int fd);
enum status address_of_peer(struct address *out, int fd);

#endif  // DEPUTY_COMMON_NET_ADDRESS_H_
