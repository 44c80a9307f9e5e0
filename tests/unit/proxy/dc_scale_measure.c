// SPDX-License-Identifier: Apache-2.0
// What delegated credentials cost the proxy at scale, in one JSON object: memory of each,
// with and without a key of its own; time of the control thread for scheduling among
// 100,000; time of the thread beside it for each. Not a test: `ninja measure_dc_scale` in a
// release build, then bin/measure_dc_scale [NUMBER].
#include <malloc.h>
#include <math.h>
#include <openssl/mem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/tls/dc_check.h"
#include "proxy/dc/dc_keys.h"
#include "proxy/dc/dc_leaf.h"
#include "proxy/dc/dc_request.h"
#include "tests/support/certs.h"

#define NUM_MADE 2000
#define NUM_TIMED 500
#define HOUR INT64_C(3600000)

static uint64_t seed = 88172645463325252u;
static uint64_t random_number(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed;
}

// CPU time: others may want the machine.
static double now_us(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static size_t heap_bytes(void) {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

// --- scheduling ------------------------------------------------------------------------

static void measure_schedule(size_t num) {
  const struct dc_limits limits = {(int64_t)num / 2, 1000000000, 48 * HOUR, 1000, 600000};
  const size_t before = heap_bytes();
  struct dc_schedule s;
  struct dc_entry *entries = calloc(num, sizeof(*entries));  // lie within the records
  size_t num_asked = 0;
  CHECK(entries != NULL);
  dc_schedule_init(&s, &limits, random_number, 0);
  for (size_t i = 0; i < num; i++) {
    CHECK(dc_schedule_add(&s, &entries[i]) == STATUS_OK);
    dc_schedule_stand(&s, &entries[i], DC_CACHED, 0);
  }
  const size_t bytes = heap_bytes() - before - num * sizeof(*entries);

  double began = now_us();
  for (size_t i = 0; i < num; i++) {
    dc_schedule_want(&s, &entries[random_number() % num], 1, (int64_t)i);
  }
  const double want_us = (now_us() - began) / (double)num;

  began = now_us();
  struct dc_entry *entry = NULL;
  while (num_asked < num / 2 && (entry = dc_schedule_next(&s, (int64_t)num, 0)) != NULL) {
    dc_schedule_put(&s, entry, 48 * HOUR, 42 * HOUR, 48 * HOUR, 0);
    num_asked += 1;
  }
  const double next_us = (now_us() - began) / (double)num_asked;

  // The budget is full: heat for all, each of the hot drives out a cold one.
  began = now_us();
  for (size_t i = 0; i < num; i++) {
    dc_schedule_want(&s, &entries[random_number() % num], 4, (int64_t)(num + i));
    entry = dc_schedule_next(&s, (int64_t)(num + i), 0);
    if (entry != NULL) {
      dc_schedule_put(&s, entry, 48 * HOUR, 42 * HOUR, 48 * HOUR, 0);
    }
    while (dc_schedule_evict(&s, (int64_t)(num + i)) != NULL) {
    }
  }
  const double full_us = (now_us() - began) / (double)num;
  printf("  \"names\": %zu,\n  \"schedule_bytes_each\": %.0f,\n", num, (double)bytes / (double)num);
  printf("  \"want_us\": %.3f,\n  \"next_and_put_us\": %.3f,\n", want_us, next_us);
  printf("  \"want_next_put_evict_at_full_budget_us\": %.3f,\n", full_us);
  dc_schedule_cleanup(&s);
  free(entries);
}

// --- memory ----------------------------------------------------------------------------

struct made {
  EVP_PKEY *leaf_key;
  X509 *x509;
  struct chain *chain;
  struct bytes der;
};

static void make_chain(struct made *made) {
  const struct test_cert spec = {
      .cn = "n0.bench.test", .names = "DNS:n0.bench.test", .has_delegation_usage = true};
  static struct state silent;
  struct errmsg err = {0};
  made->leaf_key = test_key_new(KEY_KIND_P256);
  made->x509 = test_cert_new(&spec, made->leaf_key, NULL, NULL);
  made->der = test_cert_der(made->x509);
  const struct chain_parts parts = {.label = "primary",
                                    .path = "n0",
                                    .certs = &made->der,
                                    .num_certs = 1,
                                    .key_state = &silent,
                                    .ca_state = &silent};
  static const SSL_PRIVATE_KEY_METHOD method;
  CHECK(chain_make(&made->chain, &parts, &method, NULL, &err) == STATUS_OK);
}

// What NUM_MADE leaves with a credential each, shown by one chain each, take more than
// the same chains without.
static double bytes_of_each(struct made *made, EVP_PKEY *shared) {
  struct dc_leaf *leaves = calloc(NUM_MADE, sizeof(*leaves));
  struct tls_dc **dcs = calloc(NUM_MADE, sizeof(struct tls_dc *));
  const int64_t ends_s = clock_wall_s() + 48 * 3600;
  CHECK(leaves != NULL && dcs != NULL);
  const size_t before = heap_bytes();
  for (size_t i = 0; i < NUM_MADE; i++) {
    EVP_PKEY *key = shared;
    if (key == NULL) {
      key = dc_key_new();
    } else {
      EVP_PKEY_up_ref(key);
    }
    struct bytes dc = test_dc_new(made->x509, made->leaf_key, key, ends_s, 0);
    uint8_t *copy = malloc(dc.len);
    CHECK(copy != NULL);
    memcpy(copy, dc.data, dc.len);
    free((void *)(uintptr_t)dc.data);
    dc_leaf_put(&leaves[i], &key, &copy, dc.len, ends_s, NULL);
    dcs[i] = dc_leaf_make(&leaves[i], made->chain);
    CHECK(dcs[i] != NULL);
  }
  const double bytes = (double)(heap_bytes() - before) / NUM_MADE;
  for (size_t i = 0; i < NUM_MADE; i++) {
    tls_dc_unref(dcs[i]);
    dc_leaf_drop(&leaves[i], NULL);
  }
  free((void *)dcs);
  free(leaves);
  return bytes;
}

// --- time ------------------------------------------------------------------------------

static void measure_time(struct made *made) {
  EVP_PKEY *keys[NUM_TIMED];
  struct bytes dcs[NUM_TIMED];
  struct tls_dc *ready[NUM_TIMED];
  const int64_t now_s = clock_wall_s();

  double began = now_us();
  for (size_t i = 0; i < NUM_TIMED; i++) {
    keys[i] = dc_key_new();
  }
  printf("  \"key_us\": %.1f,\n", (now_us() - began) / NUM_TIMED);

  began = now_us();
  for (size_t i = 0; i < NUM_TIMED; i++) {
    json_decref(dc_request_entry(made->der, made->chain->info.sha256, keys[i], 172800));
  }
  printf("  \"request_and_proof_us\": %.1f,\n", (now_us() - began) / NUM_TIMED);
  for (size_t i = 0; i < NUM_TIMED; i++) {
    dcs[i] = test_dc_new(made->x509, made->leaf_key, keys[i], now_s + 48 * 3600, 0);
  }

  began = now_us();
  for (size_t i = 0; i < NUM_TIMED; i++) {
    struct dc dc;
    enum dc_fault fault = DC_FAULT_NONE;
    CHECK(dc_check(&dc, &fault, dcs[i], made->der, &made->chain->info, keys[i], now_s, 6 * 3600) ==
          STATUS_OK);
  }
  printf("  \"check_us\": %.1f,\n", (now_us() - began) / NUM_TIMED);

  began = now_us();
  for (size_t i = 0; i < NUM_TIMED; i++) {
    CHECK(tls_dc_new(&ready[i], made->chain->tls, dcs[i], keys[i], now_s + 48 * 3600) == STATUS_OK);
  }
  printf("  \"publish_us\": %.1f\n", (now_us() - began) / NUM_TIMED);
  for (size_t i = 0; i < NUM_TIMED; i++) {
    tls_dc_unref(ready[i]);
    EVP_PKEY_free(keys[i]);
    free((void *)(uintptr_t)dcs[i].data);
  }
}

int main(int argc, char **argv) {
  const size_t num = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000;
  struct made made = {0};
  EVP_PKEY *shared = dc_key_new();
  if (num < 1000) {
    (void)fprintf(stderr, "usage: measure_dc_scale [NUMBER, at least 1000]\n");
    return 2;
  }
  make_chain(&made);
  printf("{\n");
  measure_schedule(num);
  (void)bytes_of_each(&made, NULL);  // what the library allocates once
  printf("  \"record_bytes_each\": %zu,\n", sizeof(struct dc_leaf));
  printf("  \"credential_bytes_own_key\": %.0f,\n", bytes_of_each(&made, NULL));
  printf("  \"credential_bytes_shared_key\": %.0f,\n", bytes_of_each(&made, shared));
  measure_time(&made);
  printf("}\n");
  chain_free(made.chain);
  X509_free(made.x509);
  EVP_PKEY_free(made.leaf_key);
  EVP_PKEY_free(shared);
  OPENSSL_free((void *)(uintptr_t)made.der.data);
  return 0;
}
