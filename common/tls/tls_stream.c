// SPDX-License-Identifier: Apache-2.0
// A round is what happens between two waits of the loop: read, let the owner look,
// write what it answered. run() is the only place where rounds are made, and the
// owner is called from there only; what an owner's call finds out (a broken
// connection) waits in the stream for the next round.
#include "common/tls/tls_stream.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/tls/context.h"
#include "common/tls/socket_bio.h"
#include "common/tls/tls_error.h"

#define ROUND_MAX_LEN (64u << 10)  // received in one round; then it is others' turn
#define BUFFER_FIRST_LEN (4u << 10)
#define READ_MIN_LEN 1024u     // room for less is not worth a call
#define DRAIN_DEFAULT_MS 5000  // for the peer's FIN when there is no write_ms
#define NEVER INT64_MAX

//  connect: CONNECTING --> HANDSHAKE --> OPEN --> CLOSING --> DRAINING
//  accept:                 HANDSHAKE          any state --> ENDED
// CLOSING sends close_notify; DRAINING waits for the peer's FIN, since closing with
// unread bytes would reset the connection and lose the last replies.
enum state { CONNECTING, HANDSHAKE, OPEN, CLOSING, DRAINING, ENDED };

struct buffer {
  uint8_t *data;
  size_t start;
  size_t len;
  size_t cap;
};

struct tls_stream {
  struct loop *loop;
  SSL *ssl;
  struct socket_bio bio;
  struct io io;
  struct timer wake;   // zero: another round, soon
  struct timer limit;  // the earliest deadline
  int64_t limit_due_ms;
  int fd;
  enum state state;
  bool is_in_round;
  bool is_freed;        // by the owner, in its own callback
  bool is_ended_told;   // on_end was called
  bool is_paused;       // by the owner
  bool is_output_high;  // between the high mark and the low mark
  bool is_eof;          // the peer will send no more
  bool is_eof_told;
  bool is_closing;        // the owner has said its last
  bool has_unseen_input;  // on_data has to be called (again)
  enum tls_stream_end end;
  struct buffer in;
  struct buffer out;
  int64_t due_ms;       // of the handshake, then of the draining
  int64_t active_ms;    // when bytes last came or went
  int64_t progress_ms;  // when output last got shorter, or began
  struct tls_stream_limits limits;
  const struct tls_stream_events *events;
  void *arg;
  char why[TLS_ERROR_TEXT_LEN];
};

static void on_io(void *arg, unsigned ready);
static void on_wake(void *arg);
static void on_limit(void *arg);

const char *tls_stream_end_name(enum tls_stream_end end) {
  static const char *const names[] = {
      [TLS_STREAM_CLOSED] = "closed",
      [TLS_STREAM_CONNECT_FAILED] = "connect_failed",
      [TLS_STREAM_HANDSHAKE_FAILED] = "handshake_failed",
      [TLS_STREAM_TIMEOUT] = "timeout",
      [TLS_STREAM_ERROR] = "error",
      [TLS_STREAM_OVERFLOW] = "overflow",
  };
  return (unsigned)end < sizeof names / sizeof names[0] ? names[end] : "unknown";
}

// --- buffers ---------------------------------------------------------------------

static void buffer_cleanup(struct buffer *b) {
  free(b->data);
  *b = (struct buffer){0};
}

static uint8_t *buffer_end(const struct buffer *b) { return b->data + b->start + b->len; }

static size_t buffer_room(const struct buffer *b) { return b->cap - b->start - b->len; }

// buffer_reserve makes room for `max` more bytes at the end; `max` + len is bounded
// by the caller. STATUS_MEMORY.
static enum status buffer_reserve(struct buffer *b, size_t max) {
  size_t cap = b->cap == 0 ? BUFFER_FIRST_LEN : b->cap;
  uint8_t *data;

  if (b->cap > 0 && buffer_room(b) >= max) {
    return STATUS_OK;
  }
  if (b->cap >= b->len + max && b->start >= b->len) {
    memcpy(b->data, b->data + b->start, b->len);
    b->start = 0;
    return STATUS_OK;
  }
  while (cap < b->len + max) {
    cap *= 2;
  }
  data = malloc(cap);
  if (data == NULL) {
    return STATUS_MEMORY;
  }
  if (b->len > 0) {
    memcpy(data, b->data + b->start, b->len);
  }
  free(b->data);
  *b = (struct buffer){.data = data, .len = b->len, .cap = cap};
  return STATUS_OK;
}

// buffer_consume drops bytes at the front; an empty buffer gives its memory back,
// as most connections are idle most of the time.
static void buffer_consume(struct buffer *b, size_t len) {
  CHECK(len <= b->len);
  b->start += len;
  b->len -= len;
  if (b->len == 0) {
    b->start = 0;
  }
}

static void buffer_release_if_empty(struct buffer *b) {
  if (b->len == 0 && b->data != NULL) {
    buffer_cleanup(b);
  }
}

// --- the end ---------------------------------------------------------------------

// An alert that says what was wrong must arrive: closing with unread bytes in the
// socket would send a reset after it, and the peer would see only that.
static void close_socket(struct tls_stream *s) {
  io_cleanup(&s->io);
  if (s->fd < 0) {
    return;
  }
  if (s->end == TLS_STREAM_HANDSHAKE_FAILED || s->end == TLS_STREAM_ERROR) {
    (void)shutdown(s->fd, SHUT_WR);
    s->bio.may_read = true;
    (void)socket_bio_discard(&s->bio);
  }
  (void)close(s->fd);
  s->fd = -1;
}

__attribute__((format(printf, 3, 4))) static void end(struct tls_stream *s, enum tls_stream_end why,
                                                      const char *format, ...) {
  va_list args;

  if (s->state == ENDED) {
    return;
  }
  s->state = ENDED;
  s->end = why;
  va_start(args, format);
  (void)vsnprintf(s->why, sizeof s->why, format, args);
  va_end(args);
  close_socket(s);
  timer_cancel(&s->limit);
  // The buffers stay for now: the owner may be looking at them.
  if (!s->is_in_round) {
    timer_arm_ms(&s->wake, 0);
  }
}

// end_by_ssl ends with what the library or the socket said last.
static void end_by_ssl(struct tls_stream *s, enum tls_stream_end why) {
  char text[TLS_ERROR_TEXT_LEN];
  long verified = SSL_get_verify_result(s->ssl);

  tls_error_drain(text, sizeof text);
  if (s->bio.error != 0) {
    end(s, why, "%s", strerror(s->bio.error));
  } else if (strcmp(text, "CERTIFICATE_VERIFY_FAILED") == 0 && verified != X509_V_OK) {
    end(s, why, "%s: %s", text, X509_verify_cert_error_string(verified));
  } else if (text[0] != '\0') {
    end(s, why, "%s", text);
  } else {
    end(s, why, "%s", s->bio.is_eof ? "the peer closed the connection" : "unknown reason");
  }
}

static void destroy(struct tls_stream *s) {
  if (s->state == OPEN && s->out.len == 0) {
    (void)SSL_shutdown(s->ssl);  // so that the peer need not suspect a cut
    ERR_clear_error();
  }
  io_cleanup(&s->io);
  timer_cleanup(&s->wake);
  timer_cleanup(&s->limit);
  SSL_free(s->ssl);
  socket_bio_cleanup(&s->bio);
  if (s->fd >= 0) {
    (void)close(s->fd);
  }
  buffer_cleanup(&s->in);
  buffer_cleanup(&s->out);
  free(s);
}

// --- deadlines -------------------------------------------------------------------

// write_due is when the peer must have read something of what waits for it.
static int64_t write_due(const struct tls_stream *s) {
  bool is_waiting = s->out.len > 0 || s->state == CLOSING;

  return is_waiting && s->limits.write_ms > 0 ? s->progress_ms + s->limits.write_ms : NEVER;
}

static int64_t idle_due(const struct tls_stream *s) {
  return s->limits.idle_ms > 0 ? s->active_ms + s->limits.idle_ms : NEVER;
}

static int64_t earliest_due(const struct tls_stream *s) {
  if (s->state == ENDED) {
    return NEVER;
  }
  if (s->state != OPEN && s->state != CLOSING) {
    return s->due_ms;
  }
  return write_due(s) < idle_due(s) ? write_due(s) : idle_due(s);
}

// arm_limit moves the timer only when a deadline came nearer: deadlines that move
// away, as each byte makes them, are looked at again when the timer fires.
static void arm_limit(struct tls_stream *s) {
  int64_t due = earliest_due(s);

  if (due < s->limit_due_ms) {
    s->limit_due_ms = due;
    timer_arm_ms(&s->limit, due - loop_now_ms(s->loop));
  }
}

static void expire(struct tls_stream *s, int64_t now_ms) {
  switch (s->state) {
    case CONNECTING:
      end(s, TLS_STREAM_TIMEOUT, "no TCP connection in %lld ms", (long long)s->limits.handshake_ms);
      break;
    case HANDSHAKE:
      end(s, TLS_STREAM_TIMEOUT, "no TLS handshake in %lld ms", (long long)s->limits.handshake_ms);
      break;
    case DRAINING:
      end(s, TLS_STREAM_CLOSED, "all sent; the peer did not close");
      break;
    default:
      if (write_due(s) <= now_ms) {
        end(s, s->is_output_high ? TLS_STREAM_OVERFLOW : TLS_STREAM_TIMEOUT,
            "the peer read nothing for %lld ms, %zu bytes wait", (long long)s->limits.write_ms,
            s->out.len);
      } else {
        end(s, TLS_STREAM_TIMEOUT, "nothing sent or received for %lld ms",
            (long long)s->limits.idle_ms);
      }
  }
}

// --- writing ---------------------------------------------------------------------

static void enter_draining(struct tls_stream *s) {
  s->state = DRAINING;
  s->due_ms = loop_now_ms(s->loop) +
              (s->limits.write_ms > 0 ? s->limits.write_ms : (int64_t)DRAIN_DEFAULT_MS);
  s->limit_due_ms = NEVER;
  (void)shutdown(s->fd, SHUT_WR);
}

// step_closing sends close_notify (RFC 8446, section 6.1) and the FIN.
static void step_closing(struct tls_stream *s) {
  if (SSL_shutdown(s->ssl) < 0 && !s->bio.may_write && s->bio.error == 0) {
    ERR_clear_error();
    return;  // again when the socket takes bytes
  }
  ERR_clear_error();
  enter_draining(s);
}

static void step_draining(struct tls_stream *s) {
  if (socket_bio_discard(&s->bio)) {
    end(s, TLS_STREAM_CLOSED, "closed");
  } else if (s->bio.may_read) {
    timer_arm_ms(&s->wake, 0);
  }
}

static void note_output(struct tls_stream *s) {
  if (s->is_output_high && s->out.len <= s->limits.max_output_len / 4) {
    s->is_output_high = false;
    timer_arm_ms(&s->wake, 0);  // reading goes on
  } else if (s->out.len > s->limits.max_output_len / 2) {
    s->is_output_high = true;
  }
}

static void write_some(struct tls_stream *s) {
  while (s->state == OPEN && s->out.len > 0 && s->bio.may_write) {
    int n = SSL_write(s->ssl, s->out.data + s->out.start,
                      s->out.len > INT_MAX ? INT_MAX : (int)s->out.len);

    if (n <= 0) {
      if (SSL_get_error(s->ssl, n) != SSL_ERROR_WANT_WRITE || s->bio.error != 0) {
        end_by_ssl(s, TLS_STREAM_ERROR);
      }
      break;
    }
    buffer_consume(&s->out, (size_t)n);
    s->active_ms = loop_now_ms(s->loop);
    s->progress_ms = s->active_ms;
  }
  if (s->state != OPEN) {
    return;
  }
  note_output(s);
  buffer_release_if_empty(&s->out);
  if (s->out.len == 0 && s->is_closing) {
    s->state = CLOSING;
    s->progress_ms = loop_now_ms(s->loop);
  }
}

// --- reading ---------------------------------------------------------------------

static bool may_read_now(const struct tls_stream *s) {
  return s->state == OPEN && !s->is_paused && !s->is_output_high && !s->is_eof;
}

// has_more: are there bytes that a further round would find?
static bool has_more(const struct tls_stream *s) {
  return s->bio.may_read || s->bio.len > 0 || SSL_pending(s->ssl) > 0;
}

static void note_read_failure(struct tls_stream *s, int result) {
  switch (SSL_get_error(s->ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
      break;
    case SSL_ERROR_ZERO_RETURN:
      s->is_eof = true;
      break;
    default:
      // A FIN without close_notify: packets have lengths, a cut one is seen.
      if (s->bio.is_eof && s->bio.error == 0 && ERR_peek_error() == 0) {
        s->is_eof = true;
      } else {
        end_by_ssl(s, TLS_STREAM_ERROR);
      }
  }
}

// fill_input reads until there is no more, the buffer is full, or the round's share
// is used up. Returns whether the buffer is full.
static bool fill_input(struct tls_stream *s) {
  while (s->in.len < s->limits.max_input_len) {
    size_t max = s->limits.max_input_len - s->in.len;
    int n;

    if (buffer_reserve(&s->in, max < READ_MIN_LEN ? max : READ_MIN_LEN) != STATUS_OK) {
      end(s, TLS_STREAM_ERROR, "no memory");
      return false;
    }
    max = buffer_room(&s->in) < max ? buffer_room(&s->in) : max;
    n = SSL_read(s->ssl, buffer_end(&s->in), max > INT_MAX ? INT_MAX : (int)max);
    if (n <= 0) {
      note_read_failure(s, n);
      return false;
    }
    s->in.len += (size_t)n;
    s->has_unseen_input = true;
    s->active_ms = loop_now_ms(s->loop);
  }
  return true;
}

static void show_input(struct tls_stream *s) {
  // With its output full the owner could only look away again.
  if (s->has_unseen_input && s->state != ENDED && !s->is_freed && !s->is_paused &&
      !s->is_output_high) {
    s->has_unseen_input = false;
    s->events->on_data(s->arg);
  }
}

static void read_some(struct tls_stream *s) {
  show_input(s);  // what a pause had kept from the owner
  while (may_read_now(s) && !s->is_freed) {
    bool is_full = fill_input(s);
    size_t before = s->in.len;

    show_input(s);
    if (!is_full || s->has_unseen_input) {
      break;
    }
    if (s->in.len == before && may_read_now(s) && !s->is_freed) {
      end(s, TLS_STREAM_ERROR, "a packet of more than %zu bytes", s->limits.max_input_len);
    }
  }
  buffer_release_if_empty(&s->in);
  if (s->is_eof && !s->is_eof_told && s->state == OPEN && !s->has_unseen_input && !s->is_freed) {
    s->is_eof_told = true;
    if (s->events->on_eof != NULL) {
      s->events->on_eof(s->arg);
    } else {
      tls_stream_close_when_sent(s);
    }
  }
}

// --- rounds ----------------------------------------------------------------------

static void step_connecting(struct tls_stream *s) {
  if (!s->bio.may_write) {
    return;
  }
  if (address_connect_result(s->fd) != STATUS_OK) {
    end(s, TLS_STREAM_CONNECT_FAILED, "%s", strerror(errno));
    return;
  }
  s->state = HANDSHAKE;
}

static void step_handshake(struct tls_stream *s) {
  int n = SSL_do_handshake(s->ssl);

  if (n == 1) {
    s->state = OPEN;
    s->active_ms = loop_now_ms(s->loop);
    s->progress_ms = s->active_ms;
    s->limit_due_ms = NEVER;
    s->events->on_open(s->arg);
    return;
  }
  switch (SSL_get_error(s->ssl, n)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
      if (s->bio.error == 0) {
        return;
      }
      break;
    default:
      break;
  }
  end_by_ssl(s, TLS_STREAM_HANDSHAKE_FAILED);
}

static void step(struct tls_stream *s) {
  if (s->state == CONNECTING) {
    step_connecting(s);
  }
  if (s->state == HANDSHAKE) {
    step_handshake(s);
  }
  if (s->state == OPEN && !s->is_freed) {
    read_some(s);
  }
  if (s->state == OPEN && !s->is_freed) {
    write_some(s);
  }
  if (s->state == CLOSING) {
    step_closing(s);
  }
  if (s->state == DRAINING) {
    step_draining(s);
  }
}

static void run(struct tls_stream *s) {
  s->is_in_round = true;
  s->bio.budget = ROUND_MAX_LEN;
  ERR_clear_error();
  step(s);
  if (s->state != ENDED && socket_bio_park(&s->bio) != STATUS_OK) {
    end(s, TLS_STREAM_ERROR, "no memory");
  }
  if (s->state == ENDED && !s->is_ended_told && !s->is_freed) {
    s->is_ended_told = true;
    s->events->on_end(s->arg, s->end, s->why);
    buffer_cleanup(&s->in);
    buffer_cleanup(&s->out);
  }
  s->is_in_round = false;
  if (s->is_freed) {
    destroy(s);
    return;
  }
  arm_limit(s);
  if (may_read_now(s) && has_more(s)) {
    timer_arm_ms(&s->wake, 0);
  }
}

static void on_io(void *arg, unsigned ready) {
  struct tls_stream *s = arg;

  s->bio.may_read = s->bio.may_read || (ready & IO_READABLE) != 0;
  s->bio.may_write = s->bio.may_write || (ready & IO_WRITABLE) != 0;
  s->bio.is_ended = s->bio.is_ended || (ready & IO_ENDED) != 0;
  run(s);
}

static void on_wake(void *arg) { run(arg); }

static void on_limit(void *arg) {
  struct tls_stream *s = arg;
  int64_t now_ms = loop_now_ms(s->loop);

  s->limit_due_ms = NEVER;
  if (earliest_due(s) <= now_ms) {
    s->is_in_round = true;
    expire(s, now_ms);
    run(s);
  } else {
    arm_limit(s);
  }
}

// --- making and ending -----------------------------------------------------------

static enum status stream_new(struct tls_stream **out, struct loop *loop, SSL_CTX *ctx,
                              const struct tls_stream_limits *limits,
                              const struct tls_stream_events *events, void *arg) {
  enum status st = STATUS_OK;
  struct tls_stream *s = calloc(1, sizeof *s);

  *out = NULL;
  if (s == NULL) {
    return STATUS_MEMORY;
  }
  s->fd = -1;
  s->loop = loop;
  s->limits = *limits;
  s->events = events;
  s->arg = arg;
  s->limit_due_ms = NEVER;
  s->due_ms = loop_now_ms(loop) + limits->handshake_ms;
  TRY(timer_init(&s->wake, loop, on_wake, s));
  TRY(timer_init(&s->limit, loop, on_limit, s));
  s->ssl = SSL_new(ctx);
  if (s->ssl == NULL) {
    TRY(STATUS_MEMORY);
  }
  SSL_set_mode(s->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_set_shed_handshake_config(s->ssl, 1);
  *out = s;
  s = NULL;

out:
  if (s != NULL) {
    destroy(s);
  }
  return st;
}

static enum status watch(struct tls_stream *s, int fd) {
  enum status st = STATUS_OK;

  TRY(socket_bio_attach(&s->bio, s->ssl, fd));
  TRY(io_init(&s->io, s->loop, fd, on_io, s));

out:
  return st;
}

enum status tls_stream_accept(struct tls_stream **out, struct loop *loop, SSL_CTX *ctx, int *fd,
                              const struct tls_stream_limits *limits,
                              const struct tls_stream_events *events, void *arg) {
  enum status st = STATUS_OK;
  struct tls_stream *s = NULL;
  const int on = 1;

  TRY(stream_new(&s, loop, ctx, limits, events, arg));
  SSL_set_accept_state(s->ssl);
  s->state = HANDSHAKE;
  (void)setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // not for UNIX sockets
  TRY(watch(s, *fd));
  s->fd = *fd;
  *fd = -1;
  arm_limit(s);
  *out = s;
  s = NULL;

out:
  if (s != NULL) {
    destroy(s);
  }
  return st;
}

enum status tls_stream_connect(struct tls_stream **out, struct loop *loop, SSL_CTX *ctx,
                               const struct address *address, const char *host,
                               const struct tls_stream_limits *limits,
                               const struct tls_stream_events *events, void *arg) {
  enum status st = STATUS_OK;
  struct tls_stream *s = NULL;

  TRY(stream_new(&s, loop, ctx, limits, events, arg));
  SSL_set_connect_state(s->ssl);
  TRY(tls_expect_host(s->ssl, host));
  s->state = CONNECTING;
  if (address_connect(&s->fd, address) != STATUS_OK) {
    s->fd = -1;
    end(s, TLS_STREAM_CONNECT_FAILED, "%s", strerror(errno));
  } else {
    TRY(watch(s, s->fd));
    arm_limit(s);
  }
  *out = s;
  s = NULL;

out:
  if (s != NULL) {
    destroy(s);
  }
  return st;
}

void tls_stream_free(struct tls_stream *stream) {
  if (stream == NULL) {
    return;
  }
  if (stream->is_in_round) {
    stream->is_freed = true;
    return;
  }
  destroy(stream);
}

// --- what the owner asks ---------------------------------------------------------

const SSL *tls_stream_ssl(const struct tls_stream *stream) { return stream->ssl; }

struct bytes tls_stream_input(const struct tls_stream *stream) {
  if (stream->in.len == 0) {
    return bytes_of(NULL, 0);
  }
  return bytes_of(stream->in.data + stream->in.start, stream->in.len);
}

void tls_stream_consume(struct tls_stream *stream, size_t len) { buffer_consume(&stream->in, len); }

bool tls_stream_has_unread(const struct tls_stream *stream) {
  int len = 0;

  return stream->state == OPEN &&
         (stream->has_unseen_input || stream->bio.len > 0 || SSL_pending(stream->ssl) > 0 ||
          (ioctl(stream->fd, FIONREAD, &len) == 0 && len > 0));
}

void tls_stream_pause(struct tls_stream *stream, bool is_paused) {
  bool was_paused = stream->is_paused;

  stream->is_paused = is_paused;
  if (was_paused && !is_paused && stream->state != ENDED) {
    stream->has_unseen_input = stream->in.len > 0;
    timer_arm_ms(&stream->wake, 0);
  }
}

void tls_stream_again(struct tls_stream *stream) {
  if (stream->state != OPEN || stream->in.len == 0) {
    return;
  }
  stream->has_unseen_input = true;
  if (!stream->is_output_high) {  // else note_output wakes it
    timer_arm_ms(&stream->wake, 0);
  }
}

enum status tls_stream_reserve(struct tls_stream *stream, uint8_t **out, size_t max) {
  if (stream->state > OPEN || stream->is_closing) {
    return STATUS_CLOSED;
  }
  if (max > stream->limits.max_output_len ||
      stream->out.len > stream->limits.max_output_len - max) {
    return STATUS_LIMIT;
  }
  if (buffer_reserve(&stream->out, max) != STATUS_OK) {
    return STATUS_MEMORY;
  }
  *out = buffer_end(&stream->out);
  return STATUS_OK;
}

void tls_stream_commit(struct tls_stream *stream, size_t len) {
  CHECK(len <= buffer_room(&stream->out));
  if (len > 0 && stream->out.len == 0) {
    stream->progress_ms = loop_now_ms(stream->loop);
  }
  stream->out.len += len;
  note_output(stream);
  if (!stream->is_in_round && stream->state == OPEN) {
    timer_arm_ms(&stream->wake, 0);
  }
}

void tls_stream_flush(struct tls_stream *stream) {
  if (stream->state != OPEN) {
    return;
  }
  ERR_clear_error();
  write_some(stream);
  if (!stream->is_in_round) {
    arm_limit(stream);
  }
}

size_t tls_stream_unsent(const struct tls_stream *stream) { return stream->out.len; }

void tls_stream_close_when_sent(struct tls_stream *stream) {
  if (stream->state == ENDED) {
    return;
  }
  stream->is_closing = true;
  if (!stream->is_in_round) {
    timer_arm_ms(&stream->wake, 0);
  }
}
