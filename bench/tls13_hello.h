// SPDX-License-Identifier: Apache-2.0
// tls13_hello: ClientHellos of the load generator. All that does not change from
// connection to connection is written once; a connection copies it and patches
// its random bytes and key share in. Used by tls13_client.c.
#ifndef DEPUTY_BENCH_TLS13_HELLO_H_
#define DEPUTY_BENCH_TLS13_HELLO_H_

#include <stdbool.h>
#include <stdint.h>

#include "bench/buffer.h"
#include "bench/tls13_flight.h"
#include "bench/tls13_keys.h"
#include "common/base/bytes.h"
#include "common/base/status.h"

// A session to resume. Copied freely.
struct tls13_ticket {
  const struct tls13_suite *suite;
  struct tls13_secret psk;
  uint32_t lifetime_s;
  uint32_t age_add;
  int64_t received_ms;
  size_t ticket_len;
  uint8_t ticket[TLS13_MAX_TICKET_LEN];
};

struct tls13_hello_options {
  const char *name;  // SNI; an empty text or an IP address sends none
  const char *alpn;  // or NULL
  bool offers_dc;
  bool offers_staple;
  const struct tls13_suite *const *suites;
  size_t num_suites;
};

// A record with a whole ClientHello. All-zero may be cleaned.
struct tls13_hello {
  uint8_t *data;
  size_t len;
};

// tls13_hello_init writes the part that stays. STATUS_LIMIT (the name is too long),
// STATUS_MEMORY.
enum status tls13_hello_init(struct tls13_hello *out, const struct tls13_hello_options *options);
void tls13_hello_cleanup(struct tls13_hello *hello);

// tls13_hello_write sets `out` to the ClientHello of one connection.
enum status tls13_hello_write(const struct tls13_hello *hello, struct buffer *out,
                              const uint8_t random[32], const uint8_t session_id[32],
                              const uint8_t share[32]);

// tls13_hello_add_psk appends pre_shared_key for `ticket` with its binder (RFC 8446,
// section 4.2.11) to what tls13_hello_write wrote, and returns the early secret.
// STATUS_LIMIT, STATUS_MEMORY, STATUS_CRYPTO.
enum status tls13_hello_add_psk(struct buffer *hello, struct tls13_secret *out_early,
                                const struct tls13_ticket *ticket, int64_t now_ms);

// tls13_hello_has_dc_scheme: is this one of the schemes in the list of extension 34?
bool tls13_hello_has_dc_scheme(uint16_t scheme);

// tls13_hello_message lends the handshake message without the record's header.
static inline struct bytes tls13_hello_message(const struct buffer *hello) {
  return bytes_of(hello->data + TLS13_RECORD_HEADER_LEN, hello->len - TLS13_RECORD_HEADER_LEN);
}

#endif  // DEPUTY_BENCH_TLS13_HELLO_H_
