// SPDX-License-Identifier: Apache-2.0
// Chains from files: what is read, staples good and bad, and what an operator can
// name and drill of them.
#include "certstore/chain.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "certstore/certstore.h"
#include "certstore/staple.h"
#include "common/base/clock.h"
#include "tests/support/certs.h"
#include "tests/support/ocsp.h"

#define DAY_S ((int64_t)24 * 3600)

// The proxy's real method signs by the key server; no test here signs.
static const SSL_PRIVATE_KEY_METHOD method;

static EVP_PKEY *ca_key;
static EVP_PKEY *other_key;
static EVP_PKEY *leaf_key;
static EVP_PKEY *backup_key;
static X509 *ca;
static X509 *other_ca;
static X509 *leaf;    // of ca, must-staple
static X509 *backup;  // of other_ca
static struct states *states;
static struct errmsg err;
static int64_t now_s;

static int make_all(void **state) {
  (void)state;
  now_s = clock_wall_s();
  ca_key = test_key_new(KEY_KIND_P256);
  other_key = test_key_new(KEY_KIND_P256);
  leaf_key = test_key_new(KEY_KIND_P256);
  backup_key = test_key_new(KEY_KIND_P256);
  ca = test_cert_new(&(struct test_cert){.cn = "CA One", .is_ca = true}, ca_key, NULL, NULL);
  other_ca =
      test_cert_new(&(struct test_cert){.cn = "CA Two", .is_ca = true}, other_key, NULL, NULL);
  const struct test_cert spec = {
      .cn = "a.test", .names = "DNS:a.test", .is_must_staple = true, .serial = 0x1234};
  leaf = test_cert_new(&spec, leaf_key, ca, ca_key);
  const struct test_cert second = {.cn = "a.test", .names = "DNS:a.test", .serial = 0x99};
  backup = test_cert_new(&second, backup_key, other_ca, other_key);
  test_write_certs("leaf.pem", (X509 *[]){leaf, ca}, 2);
  test_write_certs("alone.pem", (X509 *[]){leaf}, 1);
  test_write_certs("backup.pem", (X509 *[]){backup, other_ca}, 2);
  return states_new(&states) == STATUS_OK ? 0 : 1;
}

static int free_all(void **state) {
  (void)state;
  states_free(states);
  X509_free(leaf);
  X509_free(backup);
  X509_free(ca);
  X509_free(other_ca);
  EVP_PKEY_free(ca_key);
  EVP_PKEY_free(other_key);
  EVP_PKEY_free(leaf_key);
  EVP_PKEY_free(backup_key);
  test_remove_files();
  assert_int_equal(ERR_peek_error(), 0);  // nobody leaves errors behind
  return 0;
}

static struct chain *load(const char *name) {
  struct chain *chain = NULL;
  enum status st = chain_load(&chain, "primary", test_path(name), states, &method, NULL, &err);
  if (st != STATUS_OK) {
    fail_msg("%s", err.text);
  }
  return chain;
}

// --- staples by themselves -----------------------------------------------------------

static void free_bytes(struct bytes in) { OPENSSL_free((void *)(uintptr_t)in.data); }

// check_as checks the response against the leaf with this issuer.
static enum status check_as(struct staple_facts *facts, struct bytes response, X509 *issuer,
                            int64_t at_s) {
  struct bytes leaf_der = test_cert_der(leaf);
  struct bytes issuer_der = issuer == NULL ? (struct bytes){0} : test_cert_der(issuer);
  err.text[0] = '\0';
  enum status st = staple_check(facts, response, leaf_der, issuer_der, at_s, &err);
  free_bytes(leaf_der);
  free_bytes(issuer_der);
  return st;
}

static void assert_check(const struct test_ocsp *spec, X509 *about, X509 *issuer, X509 *signer,
                         EVP_PKEY *signer_key, enum status expected, const char *says) {
  struct staple_facts facts;
  struct bytes response = test_ocsp_new(spec, about, issuer, signer, signer_key);
  enum status st = check_as(&facts, response, ca, now_s);
  if (st != expected || strstr(err.text, says) == NULL) {
    fail_msg("%s, not %s: \"%s\" (wanted \"%s\")", status_name(st), status_name(expected), err.text,
             says);
  }
  assert_false(facts.is_revoked);
  free_bytes(response);
}

static void takes_a_good_response_of_the_issuer(void **state) {
  (void)state;
  struct staple_facts facts;
  struct bytes response =
      test_ocsp_new(&(struct test_ocsp){.next_update_s = now_s + 1000}, leaf, ca, NULL, ca_key);
  assert_int_equal(check_as(&facts, response, ca, now_s), STATUS_OK);
  assert_true(facts.is_signature_checked);
  assert_int_equal(facts.next_update_s, now_s + 1000);
  // Its time: from thisUpdate on, and not at nextUpdate any more.
  assert_int_equal(check_as(&facts, response, ca, facts.this_update_s), STATUS_OK);
  assert_int_equal(check_as(&facts, response, ca, facts.this_update_s - 1), STATUS_EXPIRED);
  assert_int_equal(check_as(&facts, response, ca, now_s + 999), STATUS_OK);
  assert_int_equal(check_as(&facts, response, ca, now_s + 1000), STATUS_EXPIRED);
  free_bytes(response);

  assert_check(&(struct test_ocsp){.is_sha256 = true}, leaf, ca, NULL, ca_key, STATUS_OK, "");
  assert_check(&(struct test_ocsp){.is_preceded_by_other = true}, leaf, ca, NULL, ca_key, STATUS_OK,
               "");
}

static void takes_a_delegated_responder_of_the_issuer_only(void **state) {
  (void)state;
  const struct test_cert spec = {.cn = "Responder", .eku = "OCSPSigning", .serial = 7};
  const struct test_cert unfit = {.cn = "Responder", .eku = "serverAuth", .serial = 8};
  X509 *good = test_cert_new(&spec, other_key, ca, ca_key);
  X509 *no_eku = test_cert_new(&unfit, other_key, ca, ca_key);
  X509 *foreign = test_cert_new(&spec, backup_key, other_ca, other_key);
  const struct test_cert old_spec = {.cn = "Responder",
                                     .eku = "OCSPSigning",
                                     .serial = 9,
                                     .not_before_s = now_s - 9 * DAY_S,
                                     .not_after_s = now_s - DAY_S};
  X509 *old = test_cert_new(&old_spec, other_key, ca, ca_key);
  const struct test_ocsp ocsp = {0};
  assert_check(&ocsp, leaf, ca, good, other_key, STATUS_OK, "");
  assert_check(&ocsp, leaf, ca, no_eku, other_key, STATUS_CRYPTO, "may not sign OCSP");
  assert_check(&ocsp, leaf, ca, foreign, backup_key, STATUS_CRYPTO, "");
  assert_check(&ocsp, leaf, ca, old, other_key, STATUS_CRYPTO, "expired");
  X509_free(good);
  X509_free(no_eku);
  X509_free(foreign);
  X509_free(old);
}

static void refuses_bad_signatures(void **state) {
  (void)state;
  assert_check(&(struct test_ocsp){.is_signature_wrong = true}, leaf, ca, NULL, ca_key,
               STATUS_CRYPTO, "");
  assert_check(&(struct test_ocsp){0}, leaf, ca, NULL, other_key, STATUS_CRYPTO, "");
}

static void refuses_a_response_about_another_leaf(void **state) {
  (void)state;
  const struct test_cert spec = {.cn = "a.test", .serial = 0x1235};
  X509 *sibling = test_cert_new(&spec, leaf_key, ca, ca_key);
  assert_check(&(struct test_ocsp){0}, sibling, ca, NULL, ca_key, STATUS_FORMAT,
               "another certificate");
  // The same serial number of another CA.
  assert_check(&(struct test_ocsp){0}, leaf, other_ca, NULL, ca_key, STATUS_FORMAT,
               "another certificate");
  // The right name of the issuer, but not its key: a CA that changed it.
  assert_check(&(struct test_ocsp){.is_key_hash_wrong = true}, leaf, ca, NULL, ca_key,
               STATUS_FORMAT, "another certificate");
  X509_free(sibling);
}

static void refuses_what_is_not_good_or_has_no_end(void **state) {
  (void)state;
  struct staple_facts facts;
  assert_check(&(struct test_ocsp){.status = TEST_OCSP_UNKNOWN}, leaf, ca, NULL, ca_key,
               STATUS_REFUSED, "does not know");
  assert_check(&(struct test_ocsp){.has_no_next_update = true}, leaf, ca, NULL, ca_key,
               STATUS_EXPIRED, "no nextUpdate");
  assert_check(&(struct test_ocsp){.error = 6}, leaf, ca, NULL, ca_key, STATUS_FORMAT, "error 6");
  struct bytes revoked =
      test_ocsp_new(&(struct test_ocsp){.status = TEST_OCSP_REVOKED}, leaf, ca, NULL, ca_key);
  assert_int_equal(check_as(&facts, revoked, ca, now_s), STATUS_REFUSED);
  assert_true(facts.is_revoked);
  // Nobody is believed who cannot be checked: that would let a file stop a name.
  assert_int_equal(check_as(&facts, revoked, NULL, now_s), STATUS_REFUSED);
  assert_false(facts.is_revoked);
  free_bytes(revoked);
}

static void refuses_garbage_and_every_cut(void **state) {
  (void)state;
  struct staple_facts facts;
  struct bytes good = test_ocsp_new(&(struct test_ocsp){0}, leaf, ca, NULL, ca_key);
  for (size_t len = 0; len < good.len; len++) {
    assert_int_not_equal(check_as(&facts, bytes_of(good.data, len), ca, now_s), STATUS_OK);
  }
  uint8_t *copy = bytes_copy(good);
  for (size_t i = 0; i < good.len; i++) {
    copy[i] ^= 0x55;
    // The certificates inside are not signed over, and neither is the wrapping's
    // slack; what is accepted must still say the same.
    if (check_as(&facts, bytes_of(copy, good.len), ca, now_s) == STATUS_OK) {
      assert_true(facts.is_signature_checked);
    }
    copy[i] ^= 0x55;
  }
  free(copy);
  free_bytes(good);
}

// --- chains ----------------------------------------------------------------------------

static void write_staple(const char *name, const struct test_ocsp *spec) {
  struct bytes response = test_ocsp_new(spec, leaf, ca, NULL, ca_key);
  test_write_file(name, response.data, response.len, 0644);
  free_bytes(response);
}

static void reads_a_chain_and_ties_it_to_its_states(void **state) {
  (void)state;
  char hex[65];
  struct chain *chain = load("backup.pem");
  assert_int_equal(chain->num_certs, 2);
  assert_string_equal(chain->label, "primary");
  assert_string_equal(chain->info.issuer, "CA Two");
  assert_non_null(chain->tls);
  assert_false(chain->has_staple);
  assert_ptr_equal(
      chain->key_state,
      states_get(states, STATE_LEVEL_KEY, bytes_to_hex(hex, bytes_of(chain->info.key_id, 32))));
  assert_ptr_equal(chain->ca_state, states_get(states, STATE_LEVEL_CA,
                                               bytes_to_hex(hex, bytes_of(chain->info.ca_id, 32))));
  assert_int_equal(chain_judge(chain, now_s), CHAIN_USABLE);
  assert_int_equal(chain_judge(chain, now_s + 91 * DAY_S), CHAIN_EXPIRED);
  chain_free(chain);
}

static void must_staple_needs_the_file_beside_it(void **state) {
  (void)state;
  struct chain *chain = load("leaf.pem");
  assert_int_equal(chain_judge(chain, now_s), CHAIN_NO_STAPLE);
  chain_free(chain);

  write_staple("leaf.pem.ocsp", &(struct test_ocsp){.next_update_s = now_s + 1000});
  chain = load("leaf.pem");
  assert_true(chain->has_staple);
  assert_int_equal(chain->staple_ends_s, now_s + 1000);
  assert_int_equal(chain_judge(chain, now_s), CHAIN_USABLE);
  assert_int_equal(chain_judge(chain, now_s + 1000), CHAIN_NO_STAPLE);
  // A staple is shown to its last good second, then left out.
  assert_ptr_equal(chain_tls(chain, now_s + 999), chain->tls);
  assert_ptr_equal(chain_tls(chain, now_s + 1000), chain->tls_bare);
  chain_free(chain);
}

static void a_bad_staple_is_not_used_and_stops_nothing(void **state) {
  (void)state;
  write_staple("leaf.pem.ocsp", &(struct test_ocsp){.is_signature_wrong = true});
  struct chain *chain = load("leaf.pem");
  assert_false(chain->has_staple);
  assert_null(chain->tls_bare);
  assert_int_equal(chain_judge(chain, now_s), CHAIN_NO_STAPLE);
  chain_free(chain);
  test_write_file("leaf.pem.ocsp", "garbage", 7, 0644);
  chain = load("leaf.pem");
  assert_int_equal(chain_judge(chain, now_s), CHAIN_NO_STAPLE);
  chain_free(chain);
}

static void a_leaf_alone_takes_a_staple_that_cannot_be_checked(void **state) {
  (void)state;
  write_staple("alone.pem.ocsp", &(struct test_ocsp){0});
  struct chain *chain = load("alone.pem");
  assert_true(chain->has_staple);
  assert_int_equal(chain_judge(chain, now_s), CHAIN_USABLE);
  chain_free(chain);
}

static void a_signed_revocation_takes_the_chain_out(void **state) {
  (void)state;
  write_staple("leaf.pem.ocsp", &(struct test_ocsp){.status = TEST_OCSP_REVOKED});
  struct chain *chain = load("leaf.pem");
  assert_true(chain->is_revoked);
  assert_int_equal(chain_judge(chain, now_s), CHAIN_REVOKED);
  chain_free(chain);
  write_staple("leaf.pem.ocsp",
               &(struct test_ocsp){.status = TEST_OCSP_REVOKED, .is_signature_wrong = true});
  chain = load("leaf.pem");
  assert_false(chain->is_revoked);
  chain_free(chain);
}

static void says_why_a_file_is_no_chain(void **state) {
  (void)state;
  struct chain *chain = NULL;
  assert_int_equal(
      chain_load(&chain, "primary", test_path("missing.pem"), states, &method, NULL, &err),
      STATUS_SYSTEM);
  assert_non_null(strstr(err.text, "missing.pem"));
  test_write_key("key.pem", leaf_key, 0600);
  assert_int_equal(chain_load(&chain, "primary", test_path("key.pem"), states, &method, NULL, &err),
                   STATUS_REFUSED);
  test_write_file("empty.pem", "", 0, 0644);
  assert_int_equal(
      chain_load(&chain, "primary", test_path("empty.pem"), states, &method, NULL, &err),
      STATUS_FORMAT);
  assert_null(chain);
}

// --- a store of files ------------------------------------------------------------------

struct shop {
  struct certstore *store;
  struct chain *primary;
  struct chain *backup;
  struct cert_name *name;
};

static void open_shop(struct shop *shop) {
  struct chain *again = NULL;
  write_staple("leaf.pem.ocsp", &(struct test_ocsp){0});
  assert_int_equal(certstore_new(&shop->store, states), STATUS_OK);
  assert_int_equal(certstore_add_chain(&shop->primary, shop->store, "primary",
                                       test_path("leaf.pem"), &method, &err),
                   STATUS_OK);
  assert_int_equal(certstore_add_chain(&shop->backup, shop->store, "backup",
                                       test_path("backup.pem"), &method, &err),
                   STATUS_OK);
  assert_int_equal(
      certstore_add_chain(&again, shop->store, "primary", test_path("leaf.pem"), &method, &err),
      STATUS_OK);
  assert_ptr_equal(again, shop->primary);
  assert_int_equal(certstore_add_name(&shop->name, shop->store, "a.test", NULL, &err), STATUS_OK);
  assert_int_equal(certstore_add_level(shop->store, shop->name, shop->primary, NULL, &err),
                   STATUS_OK);
  assert_int_equal(certstore_add_level(shop->store, shop->name, shop->backup, NULL, &err),
                   STATUS_OK);
}

static void a_store_finds_leaves_and_shares_chains(void **state) {
  (void)state;
  struct shop shop;
  size_t num = 0;
  uint8_t unknown[32] = {0};
  open_shop(&shop);
  (void)certstore_chains(shop.store, &num);
  assert_int_equal(num, 2);
  assert_ptr_equal(certstore_find_leaf(shop.store, shop.backup->info.sha256), shop.backup);
  assert_null(certstore_find_leaf(shop.store, unknown));
  certstore_free(shop.store);
}

static void an_operator_names_a_ca_or_key_as_it_suits(void **state) {
  (void)state;
  struct shop shop;
  char subject[STATE_SUBJECT_MAX_LEN];
  char hex[65];
  char typed[65];
  open_shop(&shop);
  (void)bytes_to_hex(hex, bytes_of(shop.primary->info.ca_id, 32));
  (void)snprintf(typed, sizeof(typed), "%.8s", hex);
  for (char *p = typed; *p != '\0'; p++) {
    *p = (char)(*p >= 'a' && *p <= 'f' ? *p - 0x20 : *p);
  }
  assert_int_equal(certstore_match(subject, shop.store, STATE_LEVEL_CA, typed, &err), STATUS_OK);
  assert_string_equal(subject, hex);
  assert_int_equal(certstore_match(subject, shop.store, STATE_LEVEL_CA, "ca one", &err), STATUS_OK);
  assert_string_equal(subject, hex);
  assert_int_equal(certstore_match(subject, shop.store, STATE_LEVEL_CA, "CA", &err),
                   STATUS_NOT_FOUND);
  typed[7] = '\0';  // too short to name anything
  assert_int_equal(certstore_match(subject, shop.store, STATE_LEVEL_CA, typed, &err),
                   STATUS_NOT_FOUND);
  (void)bytes_to_hex(hex, bytes_of(shop.backup->info.key_id, 32));
  assert_int_equal(certstore_match(subject, shop.store, STATE_LEVEL_KEY, hex, &err), STATUS_OK);
  assert_string_equal(subject, hex);
  assert_int_equal(certstore_match(subject, shop.store, STATE_LEVEL_KEY, "a.test", &err),
                   STATUS_NOT_FOUND);
  assert_non_null(strstr(err.text, "8 hex digits"));
  // Two that begin alike: neither is taken.
  memcpy(shop.backup->info.key_id, shop.primary->info.key_id, 6);
  (void)bytes_to_hex(hex, bytes_of(shop.primary->info.key_id, 32));
  hex[12] = '\0';
  assert_int_equal(certstore_match(subject, shop.store, STATE_LEVEL_KEY, hex, &err), STATUS_FORMAT);
  assert_non_null(strstr(err.text, "more digits"));
  certstore_free(shop.store);
}

static void a_drill_tells_what_a_switch_then_does(void **state) {
  (void)state;
  struct shop shop;
  struct drill_report report;
  struct choice choice;
  char one[65];
  char two[65];
  open_shop(&shop);
  (void)bytes_to_hex(one, bytes_of(shop.primary->info.ca_id, 32));
  (void)bytes_to_hex(two, bytes_of(shop.backup->info.key_id, 32));
  assert_int_equal(certstore_drill(&report, shop.store, STATE_LEVEL_CA, one, now_s), STATUS_OK);
  assert_int_equal(report.num_moved, 1);
  assert_int_equal(report.num_without_backup, 0);
  drill_report_cleanup(&report);
  // The backup's key serves nobody now.
  assert_int_equal(certstore_drill(&report, shop.store, STATE_LEVEL_KEY, two, now_s), STATUS_OK);
  assert_int_equal(report.num_moved, 0);
  drill_report_cleanup(&report);
  // A drill switches nothing.
  assert_int_equal(certstore_choose(&choice, shop.store, shop.name, now_s, NULL, NULL), STATUS_OK);
  assert_ptr_equal(choice.chain, shop.primary);

  struct state_change change = {.level = STATE_LEVEL_CA,
                                .service = STATE_OUT_OF_SERVICE,
                                .preferred = STATE_PREFERRED_LEAVE,
                                .dc = -1};
  (void)snprintf(change.subject, sizeof(change.subject), "%s", one);
  assert_int_equal(states_apply(states, &change), STATUS_OK);
  assert_int_equal(certstore_choose(&choice, shop.store, shop.name, now_s, NULL, NULL), STATUS_OK);
  assert_ptr_equal(choice.chain, shop.backup);
  // Now the backup's key would leave nothing.
  assert_int_equal(certstore_drill(&report, shop.store, STATE_LEVEL_KEY, two, now_s), STATUS_OK);
  assert_int_equal(report.num_without_backup, 1);
  drill_report_cleanup(&report);
  assert_int_equal(certstore_drill(&report, shop.store, STATE_LEVEL_CA,
                                   "00000000000000000000000000000000000000000000000000000000000000"
                                   "00",
                                   now_s),
                   STATUS_NOT_FOUND);
  assert_int_equal(states_undo(states, change.id, "me", now_s), STATUS_OK);
  certstore_free(shop.store);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(takes_a_good_response_of_the_issuer),
      cmocka_unit_test(takes_a_delegated_responder_of_the_issuer_only),
      cmocka_unit_test(refuses_bad_signatures),
      cmocka_unit_test(refuses_a_response_about_another_leaf),
      cmocka_unit_test(refuses_what_is_not_good_or_has_no_end),
      cmocka_unit_test(refuses_garbage_and_every_cut),
      cmocka_unit_test(reads_a_chain_and_ties_it_to_its_states),
      cmocka_unit_test(must_staple_needs_the_file_beside_it),
      cmocka_unit_test(a_bad_staple_is_not_used_and_stops_nothing),
      cmocka_unit_test(a_leaf_alone_takes_a_staple_that_cannot_be_checked),
      cmocka_unit_test(a_signed_revocation_takes_the_chain_out),
      cmocka_unit_test(says_why_a_file_is_no_chain),
      cmocka_unit_test(a_store_finds_leaves_and_shares_chains),
      cmocka_unit_test(an_operator_names_a_ca_or_key_as_it_suits),
      cmocka_unit_test(a_drill_tells_what_a_switch_then_does),
  };
  return cmocka_run_group_tests(tests, make_all, free_all);
}
