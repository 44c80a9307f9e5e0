// SPDX-License-Identifier: Apache-2.0
// Target: request_judge (keyserver/request.c), through signing_input_parse, cert
// and dc. The first byte chooses the client, the second the opcode; the rest is
// the message to be signed, with the right digest and the SKI of a key that fits,
// so that the fuzzer gets past those and to the decision itself. What is allowed
// is held against a second, cruder opinion of what each client may have signed.
#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/wire/dc.h"
#include "keyserver/keystore.h"
#include "keyserver/options.h"
#include "keyserver/request.h"
#include "keyserver/rights.h"

#define NOW_S 1795305600  // a wall clock that does not move: 2026-11-22

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const char *const clients[] = {"proxy", "issuer", "certmanager", "foreign", "stranger"};
#define NUM_CLIENTS (sizeof clients / sizeof clients[0])

static const uint8_t opcodes[] = {
    FRAME_OP_ECDSA_SHA256, FRAME_OP_ECDSA_SHA384, FRAME_OP_ECDSA_SHA512, FRAME_OP_ED25519,
    FRAME_OP_PSS_SHA256,   FRAME_OP_RSA_SHA256,   FRAME_OP_RSA_DECRYPT,  FRAME_OP_PING};

static struct options options;
static struct keystore *keys;
static struct rights *rights;

// The P-256 key of the protocol's test vectors: seeds hold its public half.
static const uint8_t p256_scalar[32] = {
    0xea, 0x66, 0x88, 0x58, 0x5c, 0x1a, 0xfd, 0xf5, 0x48, 0x21, 0xb6, 0xac, 0xd5, 0xf8, 0xdb, 0x66,
    0x8b, 0xc7, 0x40, 0x67, 0x20, 0x6d, 0x70, 0x66, 0x94, 0x99, 0x79, 0x60, 0x04, 0xbd, 0x21, 0xb9};

static void write_der(const char *folder, const char *name, const uint8_t *der, size_t len) {
  char path[512];
  FILE *file = NULL;
  (void)snprintf(path, sizeof path, "%s/%s", folder, name);
  file = fopen(path, "we");
  CHECK(file != NULL && fwrite(der, 1, len, file) == len && fclose(file) == 0);
  CHECK(chmod(path, 0600) == 0);
}

static void remove_file(const char *folder, const char *name) {
  char path[512];
  (void)snprintf(path, sizeof path, "%s/%s", folder, name);
  (void)unlink(path);
}

static void load(void) {
  static const uint8_t p256_head[] = {0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20};
  static const uint8_t p256_tail[] = {0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86,
                                      0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
  static const uint8_t ed25519_head[] = {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06,
                                         0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20};
  static const char config[] =
      "{\"listen\":[\"127.0.0.1:0\"],\"key_folders\":[\"%s\"],\"audit\":{\"path\":\"stderr\"},"
      "\"tls\":{\"ca\":\"x\",\"certificate\":\"x\",\"key\":\"x\"},\"clients\":["
      "{\"label\":\"1\",\"names\":[\"proxy\"],\"keys\":[\"*\"],\"purposes\":[\"tls13\",\"tls12\"]},"
      "{\"label\":\"2\",\"names\":[\"issuer\"],\"keys\":[\"*\"],\"purposes\":[\"dc\"]},"
      "{\"label\":\"3\",\"names\":[\"certmanager\"],\"keys\":[\"*\"],\"purposes\":[\"csr\"]},"
      "{\"label\":\"4\",\"names\":[\"foreign\"],\"keys\":[\"*\"],\"purposes\":[\"blind\"]}]}";
  char folder[] = "/tmp/request_fuzz.XXXXXX";
  char text[2048];
  uint8_t der[64];
  struct errmsg err = {0};

  CHECK(mkdtemp(folder) != NULL);
  memcpy(der, p256_head, sizeof p256_head);
  memcpy(der + sizeof p256_head, p256_scalar, 32);
  memcpy(der + sizeof p256_head + 32, p256_tail, sizeof p256_tail);
  write_der(folder, "p256.key", der, sizeof p256_head + 32 + sizeof p256_tail);
  memcpy(der, ed25519_head, sizeof ed25519_head);
  memcpy(der + sizeof ed25519_head, p256_scalar, 32);
  write_der(folder, "ed25519.key", der, sizeof ed25519_head + 32);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  (void)snprintf(text, sizeof text, config, folder);
#pragma GCC diagnostic pop
  if (config_parse(&options, keyserver_options, text, strlen(text), "fuzz", "/", &err) !=
          STATUS_OK ||
      keystore_load(&keys, &options, &err) != STATUS_OK ||
      rights_new(&rights, &options, keys, &err) != STATUS_OK) {
    (void)fprintf(stderr, "%s\n", err.text);
    abort();
  }
  remove_file(folder, "p256.key");
  remove_file(folder, "ed25519.key");
  (void)rmdir(folder);
}

static bool has_name(const void *arg, const char *name) { return strcmp(arg, name) == 0; }

static bool starts_with(struct bytes message, const char *context) {
  const size_t len = strlen(context) + 1;
  if (message.len < 64 + len) {
    return false;
  }
  for (size_t i = 0; i < 64; i++) {
    if (message.data[i] != ' ') {
      return false;
    }
  }
  return memcmp(message.data + 64, context, len) == 0;
}

// check_allowed is the second opinion: what each client can have had signed at all.
static void check_allowed(const char *client, const struct request *req) {
  const struct bytes message = req->message;

  CHECK(strcmp(client, "stranger") != 0 && strcmp(client, "foreign") != 0);
  if (strcmp(client, "proxy") == 0) {
    const bool is_tls13 = starts_with(message, "TLS 1.3, server CertificateVerify");
    CHECK((is_tls13 && (message.len == 130 || message.len == 146)) ||
          (!is_tls13 && message.len >= 100 && message.data[64] == 3));
  } else if (strcmp(client, "issuer") == 0) {
    CHECK(starts_with(message, DC_CONTEXT_SERVER));
    CHECK(req->dc_expiry_s > NOW_S && req->dc_expiry_s <= NOW_S + DC_MAX_LIFETIME_S);
  } else {
    CHECK(message.data[0] == 0x30);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  static const uint8_t no_key[32];
  const struct scheme *scheme = NULL;
  const struct key *key = NULL;
  struct asker asker;
  struct request req = {0};
  uint8_t digest[64];
  size_t digest_len = 0;
  const char *client = NULL;

  if (keys == NULL) {
    log_set_level(LOG_LEVEL_ERROR);
    load();
  }
  if (len < 2) {
    return 0;
  }
  client = clients[data[0] % NUM_CLIENTS];
  req.frame = (struct frame){.id = 1, .has_opcode = true};
  req.frame.opcode = opcodes[data[1] % sizeof opcodes];
  for (size_t i = 0; i < keystore_num_keys(keys) && scheme == NULL; i++) {
    key = keystore_key(keys, i);
    scheme = scheme_by_opcode(req.frame.opcode, key->kind);
  }
  req.frame.ski = bytes_of(key->ski, sizeof key->ski);
  req.frame.extra = bytes_of(data + 2, len - 2);
  req.frame.payload = req.frame.extra;
  if (scheme != NULL && scheme->digest_len != 0) {
    CHECK(scheme_digest(scheme, digest, &digest_len, req.frame.extra) == STATUS_OK);
    req.frame.payload = bytes_of(digest, digest_len);
  }
  asker_init(&asker, keys);
  rights_of_client(&asker.rights, rights, no_key, has_name, client);
  if (request_judge(&req, &asker, NOW_S, 1) == REFUSAL_NONE) {
    check_allowed(client, &req);
  }
  return 0;
}
