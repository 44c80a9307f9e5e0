// SPDX-License-Identifier: Apache-2.0
// sealed: keys in *.sealed files, which lie everywhere and open only where their
// policy allows (docs/SEALED-KEYS.md). One file at a time, for keystore.c.
//
// Two things must agree before a key is opened: this server's own attributes must
// fit the policy, and the file must be sealed to this server's identity. Whoever
// sealed it was to see to both; a slip of his, or a server that was moved and still
// has its old identity, is stopped by the one that is left.
//
// The identity is in memory while keys are loaded, no longer. Threads: one.
#ifndef DEPUTY_KEYSERVER_SEALED_H_
#define DEPUTY_KEYSERVER_SEALED_H_

#include <openssl/base.h>
#include <stdbool.h>

#include "common/base/errmsg.h"
#include "common/base/status.h"
#include "common/wire/keygen.h"
#include "keyserver/options.h"

// Why a sound file was opened, or was not.
enum sealed_outcome {
  SEALED_LOADED,
  SEALED_NOT_ADMITTED,   // its policy does not admit this server
  SEALED_NOT_RECIPIENT,  // its policy does, but it is not sealed to this server
  SEALED_NO_IDENTITY,    // this server has no identity at all
  SEALED_NUM_OUTCOMES,
};
const char *sealed_outcome_name(enum sealed_outcome outcome);  // "not_admitted"

// Who this server is.
struct sealed_opener;

// sealed_opener_new reads the identity's file. Without a `sealing` object it makes one
// that opens nothing. STATUS_CONFIG: an attribute is none; and as sealing_identity_read.
enum status sealed_opener_new(struct sealed_opener **out, const struct sealing_options *options,
                              struct errmsg *err);
void sealed_opener_free(struct sealed_opener *opener);  // NULL is allowed

// sealed_load reads a file. STATUS_OK with *out NULL: a sound file that is not for
// this server, which the log now says. Otherwise err names the file:
//   STATUS_SYSTEM  it cannot be read
//   STATUS_FORMAT  it is damaged, cut, of another version, or holds no key we sign with
//   STATUS_CRYPTO  it has been changed since it was sealed, or its keys are no pair
//   STATUS_LIMIT, STATUS_MEMORY
enum status sealed_load(EVP_PKEY **out, char out_label[KEYGEN_MAX_LABEL_LEN + 1],
                        enum sealed_outcome *out_outcome, struct sealed_opener *opener,
                        const char *path, struct errmsg *err);

#endif  // DEPUTY_KEYSERVER_SEALED_H_
