// SPDX-License-Identifier: Apache-2.0
// store_fixture: two CAs, leaves of them made when asked for, and a store in a folder of
// its own.
#ifndef DEPUTY_TESTS_UNIT_CERTSTORE_STORE_FIXTURE_H_
#define DEPUTY_TESTS_UNIT_CERTSTORE_STORE_FIXTURE_H_

#include <openssl/base.h>

#include "certstore/store.h"
#include "certstore/store_write.h"
#include "tests/support/certs.h"

#define FIXTURE_MAX_CHAINS 64

// A chain as an import finds it.
struct fixture_chain {
  struct bytes certs[2];
  EVP_PKEY *key;
};

void fixture_init(void);
void fixture_cleanup(void);

// The same for a group of tests.
int fixture_begin(void **state);
int fixture_end(void **state);

// fixture_chain makes a leaf of the CA `ca` (0 or 1) by a key of its own, or of `key`.
// The result lives until fixture_cleanup.
struct fixture_chain *fixture_chain(unsigned ca, const struct test_cert *spec, EVP_PKEY *key);

// fixture_folder is a new folder below that of certs.h; borrowed as test_path.
const char *fixture_folder(void);

// fixture_open opens (and makes) the store; aborts if it cannot.
struct store *fixture_open(const char *folder, enum store_mode mode);

// fixture_add adds one chain in a transaction of its own.
enum status fixture_add(struct store *store, const struct fixture_chain *chain, unsigned level,
                        bool is_replacing, struct errmsg *err);

// fixture_verify: is every record good? Prints the faults.
bool fixture_verify(struct store *store);

#endif  // DEPUTY_TESTS_UNIT_CERTSTORE_STORE_FIXTURE_H_
