// SPDX-License-Identifier: Apache-2.0
#include "common/tls/ca.h"

#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/file.h"

static enum status read_ids(struct cert_ca *out, X509 *x509) {
  const ASN1_OCTET_STRING *ski = X509_get0_subject_key_id(x509);
  uint8_t *name = NULL;
  int len = 0;

  out->has_key_identifier = ski != NULL && ASN1_STRING_length(ski) > 0;
  if (out->has_key_identifier) {
    SHA256(ASN1_STRING_get0_data(ski), (size_t)ASN1_STRING_length(ski), out->id_by_key);
  }
  len = i2d_X509_NAME(X509_get_subject_name(x509), &name);
  if (len <= 0) {
    return STATUS_FORMAT;
  }
  SHA256(name, (size_t)len, out->id_by_name);
  OPENSSL_free(name);
  return STATUS_OK;
}

enum status cert_ca_read(struct cert_ca *out, struct bytes der, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct cert_info info = {0};
  const uint8_t *at = der.data;
  X509 *x509 = NULL;

  *out = (struct cert_ca){0};
  TRY(cert_info_read(&info, der, err));
  memcpy(out->key_id, info.key_id, sizeof(out->key_id));
  memcpy(out->subject, info.subject, sizeof(out->subject));
  x509 = d2i_X509(NULL, &at, (long)der.len);
  if (x509 == NULL || read_ids(out, x509) != STATUS_OK) {
    TRY(errmsg_set(err, STATUS_FORMAT, "it is not a certificate"));
  }

out:
  ERR_clear_error();
  X509_free(x509);
  cert_info_cleanup(&info);
  return st;
}

// first_of_pem returns new DER of the first certificate in PEM, or NULL.
static uint8_t *first_of_pem(size_t *out_len, struct bytes text) {
  BIO *bio = BIO_new_mem_buf(text.data, (int)text.len);
  X509 *x509 = bio == NULL ? NULL : PEM_read_bio_X509(bio, NULL, NULL, NULL);
  uint8_t *der = NULL;
  int len = x509 == NULL ? -1 : i2d_X509(x509, &der);
  X509_free(x509);
  BIO_free(bio);
  ERR_clear_error();
  *out_len = len > 0 ? (size_t)len : 0;
  return len > 0 ? der : NULL;
}

enum status cert_ca_load(struct cert_ca *out, const char *path, struct errmsg *err) {
  enum status st = STATUS_OK;
  uint8_t *data = NULL;
  uint8_t *der = NULL;
  size_t len = 0;
  size_t der_len = 0;

  TRY(file_read(&data, &len, path, CERT_FILE_MAX_LEN, err));
  der = first_of_pem(&der_len, bytes_of(data, len));
  st = cert_ca_read(out, der != NULL ? bytes_of(der, der_len) : bytes_of(data, len), err);
  if (st != STATUS_OK) {
    errmsg_prefix(err, "%s", path);
  }

out:
  OPENSSL_free(der);
  free(data);
  return st;
}
