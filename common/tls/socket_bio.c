// SPDX-License-Identifier: Apache-2.0
#include "common/tls/socket_bio.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define DISCARD_MAX_LEN (1u << 20)  // of one call: a peer cannot keep us here

static _Thread_local uint8_t scratch[SOCKET_BIO_SCRATCH_LEN];
static _Thread_local const struct socket_bio *scratch_user;

static pthread_once_t method_once = PTHREAD_ONCE_INIT;
static BIO_METHOD *method;

static bool is_transient(int error) { return error == EAGAIN || error == EWOULDBLOCK; }

// receive is one recv that notes what it learned. Returns the bytes, 0 for none.
static size_t receive(struct socket_bio *bio, uint8_t *out, size_t max) {
  ssize_t n;

  do {
    n = recv(bio->fd, out, max, 0);
  } while (n < 0 && errno == EINTR);
  if (n > 0) {
    // A short one has emptied the socket; what comes later is told (loop.h). The end
    // is told once: then only a recv that gives nothing knows.
    bio->may_read = (size_t)n == max || bio->is_ended;
    return (size_t)n;
  }
  bio->may_read = false;
  if (n == 0) {
    bio->is_eof = true;
  } else if (!is_transient(errno)) {
    bio->error = errno;
  }
  return 0;
}

static void refill(struct socket_bio *bio) {
  size_t max = bio->budget < sizeof scratch ? bio->budget : sizeof scratch;

  CHECK(scratch_user == NULL || scratch_user == bio);
  free(bio->parked);
  bio->parked = NULL;
  bio->len = receive(bio, scratch, max);
  bio->data = scratch;
  bio->budget -= bio->len;
  scratch_user = bio;
}

static int on_read(BIO *b, char *out, int max) {
  struct socket_bio *bio = BIO_get_data(b);
  size_t len;

  BIO_clear_retry_flags(b);
  if (max <= 0) {
    return 0;
  }
  if (bio->len == 0 && bio->may_read && bio->budget > 0) {
    refill(bio);
  }
  if (bio->len == 0) {
    if (bio->is_eof) {
      return 0;
    }
    if (bio->error == 0) {
      BIO_set_retry_read(b);
    }
    return -1;
  }
  len = bio->len < (size_t)max ? bio->len : (size_t)max;
  memcpy(out, bio->data, len);
  bio->data += len;
  bio->len -= len;
  return (int)len;
}

static int on_write(BIO *b, const char *in, int len) {
  struct socket_bio *bio = BIO_get_data(b);
  ssize_t n = -1;

  BIO_clear_retry_flags(b);
  if (len <= 0 || bio->error != 0) {
    return -1;
  }
  if (bio->may_write) {
    do {
      n = send(bio->fd, in, (size_t)len, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n >= 0) {
      return (int)n;
    }
    bio->may_write = false;
    if (!is_transient(errno)) {
      bio->error = errno;
      return -1;
    }
  }
  BIO_set_retry_write(b);
  return -1;
}

static long on_ctrl(BIO *b, int command, long number, void *pointer) {
  (void)b;
  (void)number;
  (void)pointer;
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static void make_method(void) {
  method = BIO_meth_new(0, "socket_bio");
  CHECK(method != NULL);  // once, at start
  CHECK(BIO_meth_set_read(method, on_read) && BIO_meth_set_write(method, on_write) &&
        BIO_meth_set_ctrl(method, on_ctrl));
}

enum status socket_bio_attach(struct socket_bio *bio, SSL *ssl, int fd) {
  BIO *b;

  (void)pthread_once(&method_once, make_method);
  b = BIO_new(method);
  if (b == NULL) {
    return STATUS_MEMORY;
  }
  *bio = (struct socket_bio){.fd = fd};
  BIO_set_data(b, bio);
  BIO_set_init(b, 1);
  SSL_set_bio(ssl, b, b);
  return STATUS_OK;
}

enum status socket_bio_park(struct socket_bio *bio) {
  if (bio->len == 0) {
    free(bio->parked);  // an idle connection keeps nothing
    bio->parked = NULL;
  }
  if (scratch_user != bio) {
    return STATUS_OK;  // nothing received in this round
  }
  scratch_user = NULL;
  if (bio->len == 0) {
    return STATUS_OK;
  }
  bio->parked = malloc(bio->len);
  if (bio->parked == NULL) {
    bio->len = 0;
    return STATUS_MEMORY;
  }
  memcpy(bio->parked, bio->data, bio->len);
  bio->data = bio->parked;
  return STATUS_OK;
}

bool socket_bio_discard(struct socket_bio *bio) {
  size_t total = 0;

  CHECK(scratch_user == NULL || scratch_user == bio);
  bio->len = 0;
  while (bio->may_read && total < DISCARD_MAX_LEN) {
    total += receive(bio, scratch, sizeof scratch);
  }
  return bio->is_eof || bio->error != 0;
}

void socket_bio_cleanup(struct socket_bio *bio) {
  if (scratch_user == bio) {
    scratch_user = NULL;
  }
  free(bio->parked);
  *bio = (struct socket_bio){.fd = -1};
}
