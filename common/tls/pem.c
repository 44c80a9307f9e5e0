// SPDX-License-Identifier: Apache-2.0
#include "common/tls/pem.h"

#include <ctype.h>
#include <openssl/base64.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <string.h>

#include "common/tls/cert.h"
#include "common/tls/tls_error.h"

#define BEGIN "-----BEGIN "
#define END "-----END "
#define DASHES "-----"
#define PRIVATE_KEY "PRIVATE KEY"

static struct bytes bytes_from(struct bytes in, size_t offset) {
  return bytes_of(in.data + offset, in.len - offset);
}

// find returns where `word` starts in `in`, or in.len.
static size_t find(struct bytes in, const char *word) {
  const uint8_t *at = in.len == 0 ? NULL : memmem(in.data, in.len, word, strlen(word));
  return at == NULL ? in.len : (size_t)(at - in.data);
}

static bool contains(struct bytes in, const char *word) { return find(in, word) < in.len; }

// next_certificate reads the next block of any kind; *out_der stays NULL for one
// that is not a certificate. STATUS_NOT_FOUND at the end.
static enum status next_certificate(BIO *bio, uint8_t **out_der, long *out_len) {
  char *name = NULL;
  char *header = NULL;
  uint8_t *der = NULL;
  enum status st = STATUS_OK;

  *out_der = NULL;
  if (!PEM_read_bio(bio, &name, &header, &der, out_len)) {
    bool is_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    return is_end ? STATUS_NOT_FOUND : STATUS_FORMAT;
  }
  if (strcmp(name, "CERTIFICATE") == 0 || strcmp(name, "X509 CERTIFICATE") == 0) {
    *out_der = der;
    der = NULL;
  }
  OPENSSL_free(name);
  OPENSSL_free(header);
  OPENSSL_free(der);
  return st;
}

static enum status read_blocks(BIO *bio, const char *path,
                               enum status (*on_certificate)(void *arg, struct bytes der,
                                                             struct errmsg *err),
                               void *arg, struct errmsg *err) {
  size_t num = 0;

  for (;;) {
    uint8_t *der = NULL;
    long len = 0;
    enum status st = next_certificate(bio, &der, &len);

    if (st == STATUS_NOT_FOUND && num > 0) {
      return STATUS_OK;
    }
    if (st == STATUS_NOT_FOUND) {
      return errmsg_set(err, STATUS_FORMAT, "%s: no CERTIFICATE block in this file", path);
    }
    if (st != STATUS_OK) {
      return errmsg_set(err, st, "%s: PEM block %zu is damaged", path, num + 1);
    }
    if (der == NULL) {
      continue;
    }
    num++;
    if (len <= 0 || (size_t)len > CERT_MAX_LEN) {
      st = errmsg_set(err, STATUS_LIMIT, "%s: certificate %zu is longer than %u bytes", path, num,
                      CERT_MAX_LEN);
    } else {
      st = on_certificate(arg, bytes_of(der, (size_t)len), err);
    }
    OPENSSL_free(der);
    if (st != STATUS_OK) {
      return st;
    }
  }
}

enum status pem_read_certificates(const char *path, size_t max,
                                  enum status (*on_certificate)(void *arg, struct bytes der,
                                                                struct errmsg *err),
                                  void *arg, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct secret text = {0};  // somebody may have put a key into it
  BIO *bio = NULL;

  TRY(secret_read_file(&text, path, max, false, err));
  if (contains(bytes_of(text.data, text.len), PRIVATE_KEY DASHES)) {
    TRY(errmsg_set(err, STATUS_REFUSED,
                   "%s: holds a private key beside the certificates; keep keys in files of their "
                   "own, on the key server",
                   path));
  }
  bio = BIO_new_mem_buf(text.data, (int)text.len);
  if (bio == NULL) {
    TRY(errmsg_set(err, STATUS_MEMORY, "%s: no memory", path));
  }
  TRY(read_blocks(bio, path, on_certificate, arg, err));

out:
  BIO_free(bio);
  secret_wipe(&text);
  return st;
}

// next_block finds the next "-----BEGIN label-----" in *text, gives its label
// and its body and moves *text past its end.
static enum status next_block(struct bytes *text, struct bytes *out_label, struct bytes *out_body) {
  size_t begin = find(*text, BEGIN);
  struct bytes rest;
  size_t dashes;
  size_t end;

  if (begin == text->len) {
    return STATUS_NOT_FOUND;
  }
  rest = bytes_from(*text, begin + strlen(BEGIN));
  dashes = find(rest, DASHES);
  if (dashes == rest.len) {
    return STATUS_FORMAT;
  }
  *out_label = bytes_of(rest.data, dashes);
  rest = bytes_from(rest, dashes + strlen(DASHES));
  end = find(rest, END);
  if (end == rest.len) {
    return STATUS_FORMAT;
  }
  *out_body = bytes_of(rest.data, end);
  *text = bytes_from(rest, end + strlen(END));
  return STATUS_OK;
}

static enum status decode_body(struct secret *out, struct bytes body) {
  enum status st = STATUS_OK;
  struct secret packed = {0};
  size_t num = 0;

  TRY(secret_alloc(&packed, body.len + 1));
  for (size_t i = 0; i < body.len; i++) {
    if (!isspace(body.data[i])) {
      packed.data[num++] = body.data[i];
    }
  }
  TRY(secret_alloc(out, num + 1));
  if (!EVP_DecodeBase64(out->data, &out->len, out->len, packed.data, num)) {
    ERR_clear_error();
    out->len = num + 1;  // what was allocated, so that all of it is wiped
    TRY(STATUS_FORMAT);
  }

out:
  if (st != STATUS_OK) {
    secret_wipe(out);
  }
  secret_wipe(&packed);
  return st;
}

// find_key_block gives the body of the only private key block.
static enum status find_key_block(struct bytes *out_body, struct bytes text, const char *name,
                                  struct errmsg *err) {
  struct bytes label;
  struct bytes body;
  size_t num_blocks = 0;
  size_t num_keys = 0;
  enum status st = STATUS_OK;

  while ((st = next_block(&text, &label, &body)) == STATUS_OK) {
    num_blocks++;
    if (!contains(label, PRIVATE_KEY)) {
      continue;  // e.g. the EC PARAMETERS that openssl ecparam writes first
    }
    if (contains(label, "ENCRYPTED") || contains(body, "ENCRYPTED")) {
      return errmsg_set(err, STATUS_REFUSED,
                        "%s: the private key is encrypted; nobody can type a passphrase here: "
                        "decrypt it with 'openssl pkey -in %s' into a file of mode 0600",
                        name, name);
    }
    *out_body = body;
    num_keys++;
  }
  if (st == STATUS_FORMAT) {
    return errmsg_set(err, STATUS_FORMAT, "%s: PEM block %zu has no end", name, num_blocks + 1);
  }
  if (num_blocks == 0) {
    return STATUS_NOT_FOUND;
  }
  if (num_keys != 1) {
    return errmsg_set(err, STATUS_FORMAT, "%s: %s", name,
                      num_keys == 0 ? "no private key in this file"
                                    : "more than one private key; use one file for each");
  }
  return STATUS_OK;
}

enum status pem_private_key_der(struct secret *out, struct bytes text, const char *name,
                                struct errmsg *err) {
  enum status st = STATUS_OK;
  struct bytes body = {0};

  TRY(find_key_block(&body, text, name, err));
  st = decode_body(out, body);
  if (st == STATUS_FORMAT) {
    TRY(errmsg_set(err, st, "%s: the private key's base64 is damaged", name));
  }

out:
  return st;
}
