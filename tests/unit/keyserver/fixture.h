// SPDX-License-Identifier: Apache-2.0
// fixture: a key folder with one key of each kind, certificates for them, and
// clients with rights, for the unit tests of the key server's core.
#ifndef DEPUTY_TESTS_UNIT_KEYSERVER_FIXTURE_H_
#define DEPUTY_TESTS_UNIT_KEYSERVER_FIXTURE_H_

#include <openssl/base.h>
#include <stdbool.h>
#include <stddef.h>

#include "keyserver/keystore.h"
#include "keyserver/options.h"
#include "keyserver/request.h"
#include "keyserver/rights.h"

enum fixture_key { FIX_P256, FIX_P384, FIX_RSA, FIX_ED25519, FIX_SHORT, FIX_NUM };

struct fixture {
  struct options options;
  struct keystore *keys;
  struct rights *rights;
  EVP_PKEY *pkeys[FIX_NUM];
  X509 *certs[FIX_NUM];  // with DelegationUsage; NAME.test, 90 days
  EVP_PKEY *dc_key;
};

// The configuration, as JSON, for the clients proxy (tls13, tls12), issuer (dc),
// certmanager (csr), foreign (blind), slow (tls13, 10/s, burst 3).
extern const char fixture_config[];

// fixture_load writes the folder and reads keys and rights with `config` (NULL:
// fixture_config; %s stands for the key folder). What fails aborts the test.
void fixture_load(struct fixture *f, const char *config);
void fixture_cleanup(struct fixture *f);

// fixture_options reads a configuration only.
void fixture_options(struct options *out, const char *config);

// fixture_asker is a connection of the client with this name.
void fixture_asker(struct asker *out, const struct fixture *f, const char *name);

const char *fixture_label(enum fixture_key key);

#endif  // DEPUTY_TESTS_UNIT_KEYSERVER_FIXTURE_H_
