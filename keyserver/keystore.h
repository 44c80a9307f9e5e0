// SPDX-License-Identifier: Apache-2.0
// keystore: the private keys this server may sign with, by SKI
// (docs/PROTOCOL.keyserver.md, section 6). Loaded whole from the key folders at
// start and on each reload, part of a snapshot (snapshot.h), read by request.c
// and sign.c.
//
// A folder holds NAME.key (one private key, PEM or DER, readable by its owner
// only; NAME is the key's label), *.sealed (a private key for some servers only,
// with its label inside: sealed.h) and certificates (*.pem, *.crt, *.cer). A
// certificate belongs to the key it certifies, whatever its file is called; its
// dNSNames are the key's names in grants. Other files and sub-folders are left
// alone. Keys in tokens are named one by one (options.h, pkcs11). A key file that cannot be used
// stops the load: a server that quietly lacks a key is found out by its users.
//
// Threads: load on one; afterwards any may read.
#ifndef DEPUTY_KEYSERVER_KEYSTORE_H_
#define DEPUTY_KEYSERVER_KEYSTORE_H_

#include <openssl/base.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/wire/frame.h"
#include "common/wire/scheme.h"
#include "keyserver/options.h"
#include "keyserver/sealed.h"

#define KEYSTORE_MAX_KEYS 1000000u
#define KEYSTORE_MAX_NAMES_PER_KEY 1024u

struct token_key;
struct token_registry;

struct key {
  atomic_uint num_refs;  // stores that hold it
  uint8_t ski[FRAME_SKI_LEN];
  uint8_t key_id[32];  // SHA-256 of the SubjectPublicKeyInfo
  enum key_kind kind;
  unsigned cost;            // of one signature, in units of a P-256 one (sign.h)
  bool is_slow;             // signed by a thread of its own kind (slow.h)
  EVP_PKEY *pkey;           // owned; of a token's key only the public half
  struct token_key *token;  // borrowed from the registry; NULL: the key is here
  char *label;              // NAME of NAME.key
  char **names;             // dNSNames of its certificates, lower case
  size_t num_names;
  bool may_delegate;  // one of them has DelegationUsage: a digest may be a credential's
  // From the configuration's key_policies.
  size_t policy;              // 1 for the first of them, and so on; 0: none fits
  int64_t dc_max_lifetime_s;  // 0: no delegated credential
  uint64_t opcodes;           // bit n: opcode n may be used
};

struct keystore;

// keystore_load reads the folders that `options` names and applies its key
// policies. err names the file and the remedy.
//   STATUS_SYSTEM   a folder or file cannot be read
//   STATUS_REFUSED  a key is encrypted, or others may read its file
//   STATUS_FORMAT   a key file holds no key that can be used
//   STATUS_CRYPTO   a key fails its self-test
//   STATUS_CONFIG   a key policy makes no sense
//   STATUS_LIMIT, STATUS_MEMORY
enum status keystore_load(struct keystore **out, const struct options *options, struct errmsg *err);
// keystore_load_tokens adds the keys in PKCS #11 tokens. Apart from the files, as
// foreign modules are better not run as root.
//   as token_key_open; but a token that is away, with a certificate given, is no
//   failure, and neither is a key that is known from before
enum status keystore_load_tokens(struct keystore *ks, const struct options *options,
                                 struct token_registry *tokens, struct errmsg *err);
// keystore_load_public is for whoever asks about keys and signs nothing: it takes
// the public half of a key that may not be read, and of one in a token, from the
// certificate beside it (NAME.pem, .crt, .cer), and leaves out what has none.
enum status keystore_load_public(struct keystore **out, const struct options *options,
                                 struct errmsg *err);
void keystore_free(struct keystore *ks);

// key_new makes a key of its own of a private key in memory (taken), and tests
// it. STATUS_CRYPTO, STATUS_MEMORY. key_unref frees it, unless a store has it.
enum status key_new(struct key **out, EVP_PKEY **pkey, const char *label, struct errmsg *err);
void key_unref(struct key *key);

// keystore_with makes a store of the keys of `ks` and one more (taken), to which
// the policies of `options` apply. STATUS_EXISTS: it, or its label, is there.
enum status keystore_with(struct keystore **out, const struct keystore *ks, struct key **key,
                          const struct options *options, struct errmsg *err);

// keystore_reads_file says whether a file of this name in a key folder is looked at.
bool keystore_reads_file(const char *name);

// keystore_has_label looks at all keys: not for the hot path.
bool keystore_has_label(const struct keystore *ks, const char *label);

// keystore_find borrows the key filed under `ski`, or returns NULL.
const struct key *keystore_find(const struct keystore *ks, const uint8_t ski[FRAME_SKI_LEN]);

size_t keystore_num_keys(const struct keystore *ks);
// keystore_num_sealed counts the *.sealed files of the folders, by what became of them.
size_t keystore_num_sealed(const struct keystore *ks, enum sealed_outcome outcome);
const struct key *keystore_key(const struct keystore *ks, size_t index);  // index < num_keys

#endif  // DEPUTY_KEYSERVER_KEYSTORE_H_
