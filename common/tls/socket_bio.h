// SPDX-License-Identifier: Apache-2.0
// socket_bio: a BIO over a non-blocking socket on an edge-triggered loop. Internal
// to common/tls (tls_stream).
//
// BoringSSL asks for five bytes, then for a record's body: over a plain socket
// that is two system calls for each record and one more to learn that there is
// nothing. Here one recv fills the thread's scratch buffer, BoringSSL is fed
// from it, and a recv that did not fill it was the last one. What is left of it when a round ends
// is kept by socket_bio_park, for the scratch belongs to the next connection then.
#ifndef DEPUTY_COMMON_TLS_SOCKET_BIO_H_
#define DEPUTY_COMMON_TLS_SOCKET_BIO_H_

#include <openssl/base.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"

#define SOCKET_BIO_SCRATCH_LEN (64u << 10)

struct socket_bio {
  int fd;         // borrowed
  bool may_read;  // no recv has emptied the socket since the loop said readable
  bool may_write;
  bool is_ended;        // the loop has said that the peer's end is in the socket
  bool is_eof;          // recv said 0
  int error;            // errno of a recv or send that failed
  size_t budget;        // bytes that may still be received in this round
  const uint8_t *data;  // received, not yet taken by BoringSSL: in the scratch
                        // during a round, in `parked` between rounds
  size_t len;
  uint8_t *parked;
};

// socket_bio_attach makes `ssl` read and write by `bio`, which must outlive it.
enum status socket_bio_attach(struct socket_bio *bio, SSL *ssl, int fd);

// socket_bio_park ends a round. STATUS_MEMORY: what was received is lost.
enum status socket_bio_park(struct socket_bio *bio);

// socket_bio_discard receives and forgets what is there; true: and the end with it.
bool socket_bio_discard(struct socket_bio *bio);

void socket_bio_cleanup(struct socket_bio *bio);

#endif  // DEPUTY_COMMON_TLS_SOCKET_BIO_H_
