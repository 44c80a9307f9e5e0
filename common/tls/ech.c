// SPDX-License-Identifier: Apache-2.0
#include "common/tls/ech.h"

#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <openssl/hpke.h>
#include <stdbool.h>
#include <string.h>

#include "common/base/secret.h"
#include "common/tls/pem.h"
#include "common/tls/tls_error.h"
#include "common/wire/pem_block.h"

#define X25519_KEY_LEN 32u

// read_key: RFC 8410, section 7: a OneAsymmetricKey of X25519 has always the same bytes
// before its key, and nothing behind it where no public key was added.
static enum status read_key(EVP_HPKE_KEY *out, struct bytes der, const char *path,
                            struct errmsg *err) {
  static const uint8_t head[] = {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06,
                                 0x03, 0x2b, 0x65, 0x6e, 0x04, 0x22, 0x04, 0x20};

  if (der.len != sizeof head + X25519_KEY_LEN || memcmp(der.data, head, sizeof head) != 0) {
    return errmsg_set(err, STATUS_FORMAT,
                      "%s: the private key is not of X25519; make one with \"openssl genpkey "
                      "-algorithm X25519\"",
                      path);
  }
  return EVP_HPKE_KEY_init(out, EVP_hpke_x25519_hkdf_sha256(), der.data + sizeof head,
                           X25519_KEY_LEN)
             ? STATUS_OK
             : STATUS_CRYPTO;
}

// find_configs decodes the one block that is not the key.
static enum status find_configs(uint8_t out[ECH_CONFIG_MAX_LEN], size_t *out_len, struct bytes text,
                                const char *path, struct errmsg *err) {
  struct pem_block block = {0};
  bool is_found = false;

  while (text.len > 0 && pem_next(&block, &text, true) == STATUS_OK) {
    if (block.kind != PEM_OTHER) {
      continue;
    }
    if (is_found || pem_decode(out, ECH_CONFIG_MAX_LEN, out_len, block.body) != STATUS_OK) {
      return errmsg_set(err, STATUS_FORMAT, "%s: there must be one ECHCONFIG, of at most %u bytes",
                        path, ECH_CONFIG_MAX_LEN);
    }
    is_found = true;
  }
  return is_found ? STATUS_OK
                  : errmsg_set(err, STATUS_FORMAT, "%s: there is no ECHCONFIG in it", path);
}

// add_configs: RFC 9849, section 4: a list of configurations, each behind version and
// length. Those of other versions are not for us.
static enum status add_configs(SSL_ECH_KEYS *keys, const EVP_HPKE_KEY *key, bool is_first,
                               struct bytes list, const char *path, struct errmsg *err) {
  CBS all;
  CBS configs;
  size_t num = 0;
  char why[TLS_ERROR_TEXT_LEN];

  CBS_init(&all, list.data, list.len);
  if (!CBS_get_u16_length_prefixed(&all, &configs) || CBS_len(&all) != 0) {
    return errmsg_set(err, STATUS_FORMAT, "%s: the ECHCONFIG is no list of configurations", path);
  }
  while (CBS_len(&configs) > 0) {
    const uint8_t *start = CBS_data(&configs);
    uint16_t version = 0;
    CBS contents;

    if (!CBS_get_u16(&configs, &version) || !CBS_get_u16_length_prefixed(&configs, &contents)) {
      return errmsg_set(err, STATUS_FORMAT, "%s: the ECHCONFIG is cut off", path);
    }
    if (version != TLSEXT_TYPE_encrypted_client_hello) {
      continue;
    }
    if (!SSL_ECH_KEYS_add(keys, is_first ? 1 : 0, start, (size_t)(CBS_data(&configs) - start),
                          key)) {
      return errmsg_set(err, STATUS_FORMAT, "%s: the ECHCONFIG cannot be used with this key (%s)",
                        path, tls_error_drain(why, sizeof why));
    }
    num++;
  }
  return num > 0 ? STATUS_OK
                 : errmsg_set(err, STATUS_FORMAT, "%s: no configuration is of RFC 9849's version",
                              path);
}

static enum status add_file(SSL_ECH_KEYS *keys, const char *path, bool is_first,
                            struct errmsg *err) {
  enum status st = STATUS_OK;
  struct secret file = {0};
  struct secret der = {0};
  EVP_HPKE_KEY key;
  uint8_t list[ECH_CONFIG_MAX_LEN];
  size_t len = 0;

  EVP_HPKE_KEY_zero(&key);
  TRY(secret_read_file(&file, path, ECH_FILE_MAX_LEN, true, err));
  st = pem_private_key_der(&der, bytes_of(file.data, file.len), path, err);
  if (st == STATUS_NOT_FOUND) {
    st = errmsg_set(err, STATUS_FORMAT, "%s: there is no PRIVATE KEY in it", path);
  }
  TRY(st);
  TRY(read_key(&key, bytes_of(der.data, der.len), path, err));
  TRY(find_configs(list, &len, bytes_of(file.data, file.len), path, err));
  TRY(add_configs(keys, &key, is_first, bytes_of(list, len), path, err));

out:
  EVP_HPKE_KEY_cleanup(&key);
  secret_wipe(&der);
  secret_wipe(&file);
  return st;
}

enum status ech_keys_load(SSL_ECH_KEYS **out, char *const *paths, size_t num, struct errmsg *err) {
  enum status st = STATUS_OK;
  SSL_ECH_KEYS *keys = SSL_ECH_KEYS_new();

  *out = NULL;
  if (keys == NULL) {
    return STATUS_MEMORY;
  }
  for (size_t i = 0; i < num; i++) {
    TRY(add_file(keys, paths[i], i == 0, err));
  }
  if (SSL_ECH_KEYS_has_duplicate_config_id(keys)) {
    TRY(errmsg_set(err, STATUS_FORMAT, "two ECH configurations have the same id"));
  }
  *out = keys;
  keys = NULL;

out:
  SSL_ECH_KEYS_free(keys);
  ERR_clear_error();
  return st;
}
