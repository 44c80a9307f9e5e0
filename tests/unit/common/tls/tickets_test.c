// SPDX-License-Identifier: Apache-2.0
#include "common/tls/tickets.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "tests/support/certs.h"
#include "tests/support/tls_pair.h"

#define LIFETIME_S 3600
#define OVERHEAD (16 + 12 + 8 + 32 + 16)

static EVP_PKEY *key;
static X509 *leaf;

static int make_leaf(void **state) {
  (void)state;
  key = test_key_new(KEY_KIND_P256);
  leaf = test_cert_new(&(struct test_cert){.cn = "x", .names = "DNS:x.test"}, key, NULL, NULL);
  return 0;
}

static int free_leaf(void **state) {
  (void)state;
  EVP_PKEY_free(key);
  X509_free(leaf);
  return 0;
}

// --- hooks -------------------------------------------------------------------------

static _Thread_local struct {
  struct ticket_facts sealed;
  struct ticket_facts opened;
  int num_opened;
  bool is_refusing;
} hooked;

static void on_seal(SSL *ssl, struct ticket_facts *out) {
  assert_non_null(ssl);
  *out = hooked.sealed;
}

static bool may_resume(SSL *ssl, const struct ticket_facts *facts) {
  assert_non_null(ssl);
  hooked.opened = *facts;
  hooked.num_opened++;
  return !hooked.is_refusing;
}

static const struct ticket_hooks hooks = {on_seal, may_resume};

static void reset_hooks(void) {
  memset(&hooked, 0, sizeof hooked);
  hooked.sealed.ends_s = (int64_t)time(NULL) + 600;
  memset(hooked.sealed.leaf_sha256, 0xa5, 32);
}

// --- ends --------------------------------------------------------------------------

static int64_t server_ahead_s;

static void server_time(const SSL *ssl, struct timeval *out) {
  (void)ssl;
  out->tv_sec = time(NULL) + server_ahead_s;
  out->tv_usec = 0;
}

static SSL_CTX *server_ctx_new(struct tickets *tickets) {
  SSL_CTX *ctx = SSL_CTX_new(TLS_method());

  assert_true(SSL_CTX_use_certificate(ctx, leaf) && SSL_CTX_use_PrivateKey(ctx, key));
  assert_int_equal(tickets_attach(ctx, tickets, LIFETIME_S), STATUS_OK);
  SSL_CTX_set_current_time_cb(ctx, server_time);
  return ctx;
}

static _Thread_local SSL_SESSION *caught;

static int on_session(SSL *ssl, SSL_SESSION *session) {
  (void)ssl;
  SSL_SESSION_free(caught);
  caught = session;
  return 1;
}

static SSL_CTX *client_ctx_new(uint16_t version) {
  SSL_CTX *ctx = SSL_CTX_new(TLS_method());

  assert_true(SSL_CTX_set_max_proto_version(ctx, version));
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(ctx, on_session);
  return ctx;
}

struct ends {
  struct tickets *tickets;
  SSL_CTX *server;
  SSL_CTX *client;
};

static void ends_init(struct ends *ends, uint16_t version) {
  reset_hooks();
  server_ahead_s = 0;
  caught = NULL;
  assert_int_equal(tickets_new(&ends->tickets, &hooks), STATUS_OK);
  ends->server = server_ctx_new(ends->tickets);
  ends->client = client_ctx_new(version);
}

static void ends_cleanup(struct ends *ends) {
  SSL_SESSION_free(caught);
  caught = NULL;
  SSL_CTX_free(ends->server);
  SSL_CTX_free(ends->client);
  tickets_free(ends->tickets);
}

// shake returns whether the session was resumed; the handshake itself never fails.
static bool shake(struct ends *ends, SSL_SESSION *session) {
  struct tls_pair pair;
  bool is_reused;

  tls_pair_init(&pair, ends->client, ends->server);
  if (session != NULL) {
    assert_true(SSL_set_session(pair.client, session));
  }
  if (!tls_pair_run(&pair)) {
    fail_msg("client: %s, server: %s", pair.client_error, pair.server_error);
  }
  is_reused = SSL_session_reused(pair.server);
  assert_int_equal(SSL_session_reused(pair.client), is_reused);
  tls_pair_cleanup(&pair);
  return is_reused;
}

// first_session makes a full handshake and takes its ticket.
static SSL_SESSION *first_session(struct ends *ends) {
  SSL_SESSION *session;

  assert_false(shake(ends, NULL));
  session = caught;
  caught = NULL;
  assert_non_null(session);
  assert_true(SSL_SESSION_has_ticket(session));
  return session;
}

// --- good tickets ---------------------------------------------------------------------

static void resumes_with_the_facts_it_sealed(void **state) {
  (void)state;
  for (uint16_t version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
    struct ends ends;
    SSL_SESSION *session;

    ends_init(&ends, version);
    session = first_session(&ends);
    assert_int_equal(hooked.num_opened, 0);
    assert_true(shake(&ends, session));
    assert_int_equal(hooked.num_opened, 1);
    assert_int_equal(hooked.opened.ends_s, hooked.sealed.ends_s);
    assert_memory_equal(hooked.opened.leaf_sha256, hooked.sealed.leaf_sha256, 32);
    SSL_SESSION_free(session);
    ends_cleanup(&ends);
  }
}

static void seals_no_two_alike(void **state) {
  struct ends ends;
  SSL_SESSION *a, *b;
  const uint8_t *a_ticket, *b_ticket;
  size_t a_len, b_len;
  (void)state;

  ends_init(&ends, TLS1_3_VERSION);
  a = first_session(&ends);
  b = first_session(&ends);
  SSL_SESSION_get0_ticket(a, &a_ticket, &a_len);
  SSL_SESSION_get0_ticket(b, &b_ticket, &b_len);
  assert_memory_equal(a_ticket, b_ticket, 16);                // the key's name
  assert_memory_not_equal(a_ticket + 16, b_ticket + 16, 12);  // the nonce
  assert_memory_not_equal(a_ticket + 28, b_ticket + 28, 32);
  SSL_SESSION_free(a);
  SSL_SESSION_free(b);
  ends_cleanup(&ends);
}

static void tells_clients_the_lifetime_and_keeps_to_it(void **state) {
  (void)state;
  for (uint16_t version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
    struct ends ends;
    SSL_SESSION *session;

    ends_init(&ends, version);
    session = first_session(&ends);
    if (version == TLS1_3_VERSION) {
      assert_int_equal(SSL_SESSION_get_timeout(session), LIFETIME_S);
    } else {
      assert_int_equal(SSL_SESSION_get_ticket_lifetime_hint(session), LIFETIME_S);
    }
    hooked.sealed.ends_s += 10 * LIFETIME_S;
    server_ahead_s = LIFETIME_S + 1;
    assert_false(shake(&ends, session));
    server_ahead_s = LIFETIME_S - 10;
    assert_true(shake(&ends, session));
    SSL_SESSION_free(session);
    ends_cleanup(&ends);
  }
}

// --- tickets that do not count ------------------------------------------------------------

static void ignores_tickets_that_have_ended(void **state) {
  struct ends ends;
  SSL_SESSION *session;
  (void)state;

  ends_init(&ends, TLS1_3_VERSION);
  session = first_session(&ends);
  clock_override_wall_s(hooked.sealed.ends_s - 1);
  assert_true(shake(&ends, session));
  clock_override_wall_s(hooked.sealed.ends_s);
  hooked.num_opened = 0;
  assert_false(shake(&ends, session));
  assert_int_equal(hooked.num_opened, 0);  // not even asked
  clock_override_wall_s(0);
  SSL_SESSION_free(session);
  ends_cleanup(&ends);
}

static void ignores_what_the_owner_refuses(void **state) {
  struct ends ends;
  SSL_SESSION *session;
  (void)state;

  ends_init(&ends, TLS1_3_VERSION);
  session = first_session(&ends);
  hooked.is_refusing = true;
  assert_false(shake(&ends, session));
  assert_int_equal(hooked.num_opened, 1);
  SSL_SESSION_free(session);
  ends_cleanup(&ends);
}

static void opens_with_earlier_keys_until_they_are_dropped(void **state) {
  (void)state;
  for (uint16_t version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
    struct ends ends;
    SSL_SESSION *session;

    ends_init(&ends, version);
    session = first_session(&ends);
    for (unsigned i = 1; i < TICKET_NUM_KEYS; i++) {
      assert_int_equal(tickets_rotate(ends.tickets), STATUS_OK);
      assert_true(shake(&ends, session));
    }
    assert_int_equal(tickets_rotate(ends.tickets), STATUS_OK);
    assert_false(shake(&ends, session));
    for (int i = 0; i < 100; i++) {
      assert_int_equal(tickets_rotate(ends.tickets), STATUS_OK);
      SSL_SESSION_free(session);
      session = first_session(&ends);
      assert_true(shake(&ends, session));
    }
    SSL_SESSION_free(session);
    ends_cleanup(&ends);
  }
}

static void ignores_tickets_of_another_set(void **state) {
  struct ends ends, other;
  SSL_SESSION *session;
  (void)state;

  ends_init(&other, TLS1_3_VERSION);
  session = first_session(&other);
  ends_init(&ends, TLS1_3_VERSION);
  assert_false(shake(&ends, session));
  assert_int_equal(hooked.num_opened, 0);
  SSL_SESSION_free(session);
  ends_cleanup(&ends);
  ends_cleanup(&other);
}

// --- keys that are shared ---------------------------------------------------------------

static const uint8_t secrets[TICKET_MAX_KEYS + 1][TICKET_SECRET_LEN] = {{1}, {2}, {3}, {4}, {5},
                                                                        {6}, {7}, {8}, {9}};

// Gives the set secrets[first] and those behind it; the one at `current` of them seals.
static void share(struct ends *ends, size_t first, size_t num, size_t current) {
  const uint8_t *list[TICKET_MAX_KEYS];

  for (size_t i = 0; i < num; i++) {
    list[i] = secrets[first + i];
  }
  assert_int_equal(tickets_set(ends->tickets, list, num, current), STATUS_OK);
}

static void sets_of_one_secret_open_each_others_tickets(void **state) {
  (void)state;
  for (uint16_t version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
    struct ends ends, other;
    SSL_SESSION *session;

    ends_init(&other, version);
    share(&other, 0, 2, 1);
    session = first_session(&other);
    ends_init(&ends, version);
    assert_false(shake(&ends, session));
    share(&ends, 0, 1, 0);  // not that one
    assert_false(shake(&ends, session));
    share(&ends, 0, 2, 0);  // that one, before it seals here
    assert_true(shake(&ends, session));
    share(&ends, 1, TICKET_MAX_KEYS, TICKET_MAX_KEYS - 1);
    assert_true(shake(&ends, session));
    share(&ends, 2, 1, 0);
    assert_false(shake(&ends, session));
    SSL_SESSION_free(session);
    ends_cleanup(&ends);
    ends_cleanup(&other);
  }
}

// The keys of one process go on in the next, in their order: what seals, and what is next to go.
static void copied_secrets_make_the_same_keys(void **state) {
  struct ends ends;
  struct ends next;
  SSL_SESSION *sessions[TICKET_NUM_KEYS];
  uint8_t copies[TICKET_MAX_KEYS][TICKET_SECRET_LEN];
  const uint8_t *list[TICKET_MAX_KEYS];
  (void)state;

  ends_init(&ends, TLS1_3_VERSION);
  for (size_t i = 0; i < TICKET_NUM_KEYS; i++) {
    assert_int_equal(tickets_copy_secrets(ends.tickets, copies), i + 1);
    sessions[i] = first_session(&ends);
    if (i + 1 < TICKET_NUM_KEYS) {
      assert_int_equal(tickets_rotate(ends.tickets), STATUS_OK);
    }
  }
  assert_int_equal(tickets_copy_secrets(ends.tickets, copies), TICKET_NUM_KEYS);
  for (size_t i = 0; i < TICKET_NUM_KEYS; i++) {
    list[i] = copies[i];
  }
  SSL_SESSION_free(caught);
  ends_init(&next, TLS1_3_VERSION);
  assert_false(shake(&next, sessions[0]));
  assert_int_equal(tickets_set(next.tickets, list, TICKET_NUM_KEYS, TICKET_NUM_KEYS - 1),
                   STATUS_OK);
  assert_memory_equal(tickets_key_name(next.tickets), tickets_key_name(ends.tickets),
                      TICKET_NAME_LEN);
  // With each rotation the oldest goes.
  for (size_t i = 0; i < TICKET_NUM_KEYS; i++) {
    for (size_t k = 0; k < TICKET_NUM_KEYS; k++) {
      assert_int_equal(shake(&next, sessions[k]), k >= i);
    }
    assert_int_equal(tickets_rotate(next.tickets), STATUS_OK);
  }
  for (size_t i = 0; i < TICKET_NUM_KEYS; i++) {
    SSL_SESSION_free(sessions[i]);
  }
  ends_cleanup(&next);
  caught = NULL;
  ends_cleanup(&ends);
}

static void keys_that_stay_are_not_made_anew(void **state) {
  struct ends ends;
  SSL_SESSION *session;
  const uint8_t *name;
  (void)state;

  ends_init(&ends, TLS1_3_VERSION);
  share(&ends, 0, 3, 2);
  session = first_session(&ends);
  name = tickets_key_name(ends.tickets);
  for (int i = 0; i < 100; i++) {
    share(&ends, 0, 3, (size_t)i % 3);
    assert_true(shake(&ends, session));
  }
  share(&ends, 1, TICKET_MAX_KEYS, 1);
  assert_ptr_equal(tickets_key_name(ends.tickets), name);  // the same slot
  // Back to keys of its own: the shared ones go as others would.
  for (unsigned i = 1; i < TICKET_NUM_KEYS; i++) {
    assert_int_equal(tickets_rotate(ends.tickets), STATUS_OK);
    assert_true(shake(&ends, session));
  }
  assert_int_equal(tickets_rotate(ends.tickets), STATUS_OK);
  assert_false(shake(&ends, session));
  SSL_SESSION_free(session);
  ends_cleanup(&ends);
}

static bool shake_with(struct ends *ends, SSL_SESSION *session, const uint8_t *ticket, size_t len) {
  assert_true(SSL_SESSION_set_ticket(session, ticket, len));
  return shake(ends, session);
}

static void ignores_tickets_that_were_altered(void **state) {
  (void)state;
  for (uint16_t version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
    struct ends ends;
    SSL_SESSION *session;
    const uint8_t *at;
    uint8_t ticket[2048] = {0};
    size_t len = 0;

    ends_init(&ends, version);
    session = first_session(&ends);
    SSL_SESSION_get0_ticket(session, &at, &len);
    assert_in_range(len, OVERHEAD + 1, sizeof ticket - 1);
    memcpy(ticket, at, len);
    assert_true(shake_with(&ends, session, ticket, len));
    hooked.num_opened = 0;
    for (size_t i = 0; i < len; i += i < OVERHEAD || i + 50 > len ? 7 : 31) {
      ticket[i] ^= 0x40;
      assert_false(shake_with(&ends, session, ticket, len));
      ticket[i] ^= 0x40;
    }
    assert_false(shake_with(&ends, session, ticket, len + 1));
    assert_false(shake_with(&ends, session, ticket, len - 1));
    assert_false(shake_with(&ends, session, ticket, OVERHEAD));
    assert_false(shake_with(&ends, session, ticket, OVERHEAD - 1));
    assert_false(shake_with(&ends, session, ticket, 1));
    assert_int_equal(hooked.num_opened, 0);
    assert_true(shake_with(&ends, session, ticket, len));
    SSL_SESSION_free(session);
    ends_cleanup(&ends);
  }
}

// --- threads ----------------------------------------------------------------------------

#define NUM_THREADS 3
#define NUM_SHAKES 60

static struct ends shared;
static _Atomic int num_running;
static _Atomic int num_resumed;

static void *shake_often(void *arg) {
  struct ends mine = {.server = shared.server};
  (void)arg;

  reset_hooks();
  mine.client = client_ctx_new(TLS1_3_VERSION);
  for (int i = 0; i < NUM_SHAKES; i++) {
    SSL_SESSION *session = caught;

    caught = NULL;
    if (shake(&mine, session)) {
      atomic_fetch_add(&num_resumed, 1);
      assert_int_equal(hooked.opened.ends_s, hooked.sealed.ends_s);
    }
    SSL_SESSION_free(session);
  }
  SSL_SESSION_free(caught);
  caught = NULL;
  SSL_CTX_free(mine.client);
  atomic_fetch_sub(&num_running, 1);
  return NULL;
}

// Far more often than anybody would: each handshake still ends well.
static void rotates_under_running_handshakes(void **state) {
  pthread_t threads[NUM_THREADS];
  int num_rotated = 0;
  (void)state;

  ends_init(&shared, TLS1_3_VERSION);
  atomic_store(&num_running, NUM_THREADS);
  for (int i = 0; i < NUM_THREADS; i++) {
    assert_int_equal(pthread_create(&threads[i], NULL, shake_often, NULL), 0);
  }
  while (atomic_load(&num_running) > 0) {
    enum status st = tickets_rotate(shared.tickets);

    assert_true(st == STATUS_OK || st == STATUS_AGAIN);
    num_rotated += st == STATUS_OK;
    if (num_rotated % 3 == 0) {
      const struct timespec pause = {.tv_nsec = 200000};

      (void)nanosleep(&pause, NULL);  // else no ticket would live to be opened
    }
  }
  for (int i = 0; i < NUM_THREADS; i++) {
    (void)pthread_join(threads[i], NULL);
  }
  print_message("%d rotations, %d of %d resumed\n", num_rotated, atomic_load(&num_resumed),
                NUM_THREADS * NUM_SHAKES);
  assert_true(num_rotated > 10);
  ends_cleanup(&shared);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(resumes_with_the_facts_it_sealed),
      cmocka_unit_test(seals_no_two_alike),
      cmocka_unit_test(tells_clients_the_lifetime_and_keeps_to_it),
      cmocka_unit_test(ignores_tickets_that_have_ended),
      cmocka_unit_test(ignores_what_the_owner_refuses),
      cmocka_unit_test(opens_with_earlier_keys_until_they_are_dropped),
      cmocka_unit_test(ignores_tickets_of_another_set),
      cmocka_unit_test(sets_of_one_secret_open_each_others_tickets),
      cmocka_unit_test(copied_secrets_make_the_same_keys),
      cmocka_unit_test(keys_that_stay_are_not_made_anew),
      cmocka_unit_test(ignores_tickets_that_were_altered),
      cmocka_unit_test(rotates_under_running_handshakes),
  };
  return cmocka_run_group_tests(tests, make_leaf, free_leaf);
}
