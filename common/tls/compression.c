// SPDX-License-Identifier: Apache-2.0
#include "common/tls/compression.h"

#include <brotli/encode.h>
#include <openssl/bytestring.h>
#include <openssl/mem.h>
#include <openssl/pool.h>
#include <openssl/tls1.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

// More than the longest chain with its staple; a longer one goes uncompressed by us.
#define MESSAGE_MAX_LEN (512u << 10)  // bytes
// Measured on chains of 1.7 and 2.6 KB: 30 to 50 us; the levels above 8 take 3 ms for
// another 3 %.
#define BROTLI_LEVEL 5
// A window and tables for a few KB: the usual ones take longer to clear than to use.
#define ZLIB_LEVEL 9
#define ZLIB_WINDOW_BITS 14
#define ZLIB_MEMORY_LEVEL 8

struct tls_form {
  size_t plain_len;
  size_t len;
  uint8_t data[];
};

static _Atomic unsigned prepared_algorithms;
static _Atomic(const struct tls_compression_hooks *) the_hooks;

const char *tls_compression_name(enum tls_compression compression) {
  static const char *const names[] = {
      [TLS_COMPRESSION_BROTLI] = "brotli", [TLS_COMPRESSION_ZLIB] = "zlib"};
  return (unsigned)compression < TLS_COMPRESSION_NUM ? names[compression] : "unknown";
}

void tls_compression_prepare(unsigned algorithms) {
  atomic_store_explicit(&prepared_algorithms, algorithms, memory_order_relaxed);
}

// --- compressing ---------------------------------------------------------------------------

static bool run_brotli(uint8_t *out, size_t *len, struct bytes in) {
  return BrotliEncoderCompress(BROTLI_LEVEL, BROTLI_DEFAULT_WINDOW, BROTLI_MODE_GENERIC, in.len,
                               in.data, len, out) == BROTLI_TRUE;
}

static bool run_zlib(uint8_t *out, size_t *len, struct bytes in) {
  z_stream stream = {0};
  bool is_good = false;

  if (deflateInit2(&stream, ZLIB_LEVEL, Z_DEFLATED, ZLIB_WINDOW_BITS, ZLIB_MEMORY_LEVEL,
                   Z_DEFAULT_STRATEGY) != Z_OK) {
    return false;
  }
  stream.next_in = (Bytef *)(uintptr_t)in.data;  // zlib's type is older than const
  stream.avail_in = (uInt)in.len;
  stream.next_out = out;
  stream.avail_out = (uInt)*len;
  is_good = deflate(&stream, Z_FINISH) == Z_STREAM_END;
  *len = stream.total_out;
  (void)deflateEnd(&stream);
  return is_good;
}

static size_t bound(enum tls_compression compression, size_t len) {
  return compression == TLS_COMPRESSION_BROTLI ? BrotliEncoderMaxCompressedSize(len)
                                               : (size_t)compressBound((uLong)len) + 16;
}

// form_new compresses; NULL: no memory.
static struct tls_form *form_new(enum tls_compression compression, struct bytes in) {
  size_t len = bound(compression, in.len);
  struct tls_form *form = in.len > MESSAGE_MAX_LEN ? NULL : malloc(sizeof *form + len);
  struct tls_form *fitting = NULL;

  if (form == NULL) {
    return NULL;
  }
  if (!(compression == TLS_COMPRESSION_BROTLI ? run_brotli : run_zlib)(form->data, &len, in)) {
    free(form);
    return NULL;
  }
  form->plain_len = in.len;
  form->len = len;
  fitting = realloc(form, sizeof *form + len);
  return fitting == NULL ? form : fitting;
}

// keep puts the form in its place unless another thread was first, and returns what is
// there.
static const struct tls_form *keep(_Atomic(struct tls_form *) *place, struct tls_form *form) {
  struct tls_form *found = NULL;

  if (atomic_compare_exchange_strong(place, &found, form)) {
    return form;
  }
  free(form);
  return found;
}

void tls_forms_cleanup(struct tls_forms *forms) {
  for (unsigned i = 0; i < TLS_COMPRESSION_NUM; i++) {
    for (unsigned j = 0; j < 2; j++) {
      free(atomic_exchange(&forms->at[i][j], NULL));
    }
  }
}

// --- preparing -----------------------------------------------------------------------------

static bool put_buffer(CBB *out, const CRYPTO_BUFFER *buffer) {
  return CBB_add_bytes(out, CRYPTO_BUFFER_data(buffer), CRYPTO_BUFFER_len(buffer)) == 1;
}

// RFC 8446, section 4.4.2: what stands behind the leaf, in the library's order.
static bool put_extensions(CBB *list, const struct tls_message *message) {
  CBB extensions;
  CBB body;
  CBB staple;

  if (!CBB_add_u16_length_prefixed(list, &extensions)) {
    return false;
  }
  if (message->staple != NULL &&
      (!CBB_add_u16(&extensions, TLSEXT_TYPE_status_request) ||
       !CBB_add_u16_length_prefixed(&extensions, &body) ||
       !CBB_add_u8(&body, TLSEXT_STATUSTYPE_ocsp) || !CBB_add_u24_length_prefixed(&body, &staple) ||
       !put_buffer(&staple, message->staple) || !CBB_flush(&extensions))) {
    return false;
  }
  if (message->dc != NULL &&
      (!CBB_add_u16(&extensions, TLSEXT_TYPE_delegated_credential) ||
       !CBB_add_u16_length_prefixed(&extensions, &body) || !put_buffer(&body, message->dc))) {
    return false;
  }
  return CBB_flush(list) == 1;
}

static bool put_message(CBB *out, const struct tls_message *message) {
  CBB list;
  CBB cert;

  if (!CBB_add_u8(out, 0) || !CBB_add_u24_length_prefixed(out, &list)) {
    return false;
  }
  for (size_t i = 0; i < message->num_certs; i++) {
    if (!CBB_add_u24_length_prefixed(&list, &cert) || !put_buffer(&cert, message->certs[i]) ||
        !(i == 0 ? put_extensions(&list, message) : CBB_add_u16(&list, 0) == 1)) {
      return false;
    }
  }
  return CBB_flush(out) == 1;
}

void tls_forms_prepare(struct tls_forms *forms, const struct tls_message *message) {
  const unsigned algorithms = atomic_load_explicit(&prepared_algorithms, memory_order_relaxed);
  const unsigned with_staple = message->staple != NULL ? 1 : 0;
  uint8_t *data = NULL;
  size_t len = 0;
  CBB cbb;

  if (algorithms == 0 || !CBB_init(&cbb, 4096)) {
    return;
  }
  if (!put_message(&cbb, message) || !CBB_finish(&cbb, &data, &len)) {
    CBB_cleanup(&cbb);
    return;
  }
  for (unsigned i = 0; i < TLS_COMPRESSION_NUM; i++) {
    if ((algorithms & 1u << i) != 0 && atomic_load(&forms->at[i][with_staple]) == NULL) {
      struct tls_form *form = form_new((enum tls_compression)i, bytes_of(data, len));
      if (form != NULL) {
        (void)keep(&forms->at[i][with_staple], form);
      }
    }
  }
  OPENSSL_free(data);
}

// --- in a handshake --------------------------------------------------------------------------

static bool is_buffer(const CBS *cbs, const CRYPTO_BUFFER *buffer) {
  return buffer != NULL &&
         CBS_mem_equal(cbs, CRYPTO_BUFFER_data(buffer), CRYPTO_BUFFER_len(buffer)) == 1;
}

// match_extensions: are they those of the message, with or without the staple?
static bool match_extensions(CBS *in, const struct tls_message *message, bool *out_has_staple) {
  bool has_dc = false;

  *out_has_staple = false;
  while (CBS_len(in) > 0) {
    uint16_t type = 0;
    uint8_t status = 0;
    CBS body;
    CBS staple;

    if (!CBS_get_u16(in, &type) || !CBS_get_u16_length_prefixed(in, &body)) {
      return false;
    }
    if (type == TLSEXT_TYPE_status_request && CBS_get_u8(&body, &status) &&
        status == TLSEXT_STATUSTYPE_ocsp && CBS_get_u24_length_prefixed(&body, &staple) &&
        CBS_len(&body) == 0 && is_buffer(&staple, message->staple)) {
      *out_has_staple = true;
    } else if (type == TLSEXT_TYPE_delegated_credential && is_buffer(&body, message->dc)) {
      has_dc = true;
    } else {
      return false;
    }
  }
  return has_dc == (message->dc != NULL);
}

// match: is `in` this message?
static bool match(struct bytes in, const struct tls_message *message, bool *out_has_staple) {
  CBS cbs;
  CBS list;
  uint8_t context_len = 0;

  CBS_init(&cbs, in.data, in.len);
  if (!CBS_get_u8(&cbs, &context_len) || context_len != 0 ||
      !CBS_get_u24_length_prefixed(&cbs, &list) || CBS_len(&cbs) != 0) {
    return false;
  }
  for (size_t i = 0; i < message->num_certs; i++) {
    CBS cert;
    CBS extensions;
    if (!CBS_get_u24_length_prefixed(&list, &cert) || !is_buffer(&cert, message->certs[i]) ||
        !CBS_get_u16_length_prefixed(&list, &extensions) ||
        !(i == 0 ? match_extensions(&extensions, message, out_has_staple)
                 : CBS_len(&extensions) == 0)) {
      return false;
    }
  }
  return CBS_len(&list) == 0;
}

// find_place is where the form of this message is, or belongs; NULL: nowhere.
static _Atomic(struct tls_form *) *find_place(SSL *ssl, enum tls_compression compression,
                                              struct bytes in) {
  struct tls_forms *forms[2] = {NULL, NULL};
  struct tls_message messages[2] = {0};

  atomic_load_explicit(&the_hooks, memory_order_acquire)->find(ssl, forms, messages);
  for (unsigned i = 0; i < 2; i++) {
    bool has_staple = false;
    if (forms[i] != NULL && match(in, &messages[i], &has_staple)) {
      return &forms[i]->at[compression][has_staple ? 1 : 0];
    }
  }
  return NULL;
}

static int compress_by(enum tls_compression compression, SSL *ssl, CBB *out, struct bytes in) {
  _Atomic(struct tls_form *) *place = find_place(ssl, compression, in);
  const struct tls_form *form = place == NULL ? NULL : atomic_load(place);
  const bool is_prepared = form != NULL;
  struct tls_form *made = NULL;
  int ok = 0;

  if (form == NULL) {
    made = form_new(compression, in);
    if (made == NULL) {
      return 0;  // no memory: the handshake ends
    }
    form = made;
    if (place != NULL) {
      form = keep(place, made);
      made = NULL;
    }
  }
  ok = CBB_add_bytes(out, form->data, form->len);
  atomic_load_explicit(&the_hooks, memory_order_acquire)
      ->on_used(ssl, compression, is_prepared, in.len > form->len ? in.len - form->len : 0);
  free(made);
  return ok;
}

static int on_brotli(SSL *ssl, CBB *out, const uint8_t *in, size_t len) {
  return compress_by(TLS_COMPRESSION_BROTLI, ssl, out, bytes_of(in, len));
}

static int on_zlib(SSL *ssl, CBB *out, const uint8_t *in, size_t len) {
  return compress_by(TLS_COMPRESSION_ZLIB, ssl, out, bytes_of(in, len));
}

enum status tls_compression_enable(SSL_CTX *ctx, unsigned algorithms,
                                   const struct tls_compression_hooks *hooks) {
  // RFC 8879, section 7.3. The library takes the first that the client offers, too.
  static const struct {
    uint16_t code;
    ssl_cert_compression_func_t compress;
  } rows[TLS_COMPRESSION_NUM] = {
      [TLS_COMPRESSION_BROTLI] = {2, on_brotli},
      [TLS_COMPRESSION_ZLIB] = {1, on_zlib},
  };

  atomic_store(&the_hooks, hooks);
  for (unsigned i = 0; i < TLS_COMPRESSION_NUM; i++) {
    // No certificate of a client is taken in compressed form: nothing of a stranger's is
    // inflated here.
    if ((algorithms & 1u << i) != 0 &&
        !SSL_CTX_add_cert_compression_alg(ctx, rows[i].code, rows[i].compress, NULL)) {
      return STATUS_MEMORY;
    }
  }
  return STATUS_OK;
}
