// SPDX-License-Identifier: Apache-2.0
#include "common/tls/cert_pool.h"

#include <openssl/sha.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/status.h"

#define MIN_ROOM 64u  // a power of two, as all that follow

struct entry {
  struct entry *next;
  uint64_t hash;
  CRYPTO_BUFFER *buffer;
  size_t num_users;
};

struct cert_pool {
  pthread_mutex_t lock;
  struct entry **buckets;
  size_t room;
  size_t num;
};

static uint64_t hash_of(struct bytes der) {
  uint8_t digest[SHA256_DIGEST_LENGTH];
  uint64_t hash = 0;
  SHA256(der.data, der.len, digest);
  memcpy(&hash, digest, sizeof(hash));
  return hash;
}

static struct bytes bytes_in(const CRYPTO_BUFFER *buffer) {
  return bytes_of(CRYPTO_BUFFER_data(buffer), CRYPTO_BUFFER_len(buffer));
}

static struct entry **bucket_of(const struct cert_pool *pool, uint64_t hash) {
  return &pool->buckets[hash & (pool->room - 1)];
}

struct cert_pool *cert_pool_new(void) {
  struct cert_pool *pool = calloc(1, sizeof(*pool));
  if (pool == NULL) {
    return NULL;
  }
  pool->room = MIN_ROOM;
  pool->buckets = calloc(pool->room, sizeof(struct entry *));
  if (pool->buckets == NULL) {
    free(pool);
    return NULL;
  }
  CHECK(pthread_mutex_init(&pool->lock, NULL) == 0);
  return pool;
}

void cert_pool_free(struct cert_pool *pool) {
  if (pool != NULL) {
    CHECK(pool->num == 0);
    (void)pthread_mutex_destroy(&pool->lock);
    free(pool->buckets);
    free(pool);
  }
}

// grow keeps chains short. Without memory they get longer.
static void grow(struct cert_pool *pool) {
  const size_t room = pool->room * 2;
  struct entry **old = pool->buckets;
  struct entry **buckets = calloc(room, sizeof(struct entry *));
  const size_t old_room = pool->room;
  if (buckets == NULL) {
    return;
  }
  pool->buckets = buckets;
  pool->room = room;
  for (size_t i = 0; i < old_room; i++) {
    while (old[i] != NULL) {
      struct entry *entry = old[i];
      struct entry **bucket = bucket_of(pool, entry->hash);
      old[i] = entry->next;
      entry->next = *bucket;
      *bucket = entry;
    }
  }
  free(old);
}

static struct entry *find(const struct cert_pool *pool, uint64_t hash, struct bytes der) {
  struct entry *entry = *bucket_of(pool, hash);
  while (entry != NULL && (entry->hash != hash || !bytes_equal(bytes_in(entry->buffer), der))) {
    entry = entry->next;
  }
  return entry;
}

static struct entry *add(struct cert_pool *pool, uint64_t hash, struct bytes der) {
  struct entry **bucket = NULL;
  struct entry *entry = calloc(1, sizeof(*entry));
  if (entry == NULL) {
    return NULL;
  }
  entry->hash = hash;
  entry->buffer = CRYPTO_BUFFER_new(der.data, der.len, NULL);
  if (entry->buffer == NULL) {
    free(entry);
    return NULL;
  }
  if (pool->num >= pool->room) {
    grow(pool);
  }
  bucket = bucket_of(pool, hash);
  entry->next = *bucket;
  *bucket = entry;
  pool->num += 1;
  return entry;
}

CRYPTO_BUFFER *cert_pool_take(struct cert_pool *pool, struct bytes der) {
  struct entry *entry = NULL;
  CRYPTO_BUFFER *buffer = NULL;
  uint64_t hash = 0;
  if (pool == NULL) {
    return CRYPTO_BUFFER_new(der.data, der.len, NULL);
  }
  hash = hash_of(der);
  (void)pthread_mutex_lock(&pool->lock);
  entry = find(pool, hash, der);
  if (entry == NULL) {
    entry = add(pool, hash, der);
  }
  if (entry != NULL) {
    entry->num_users += 1;
    buffer = entry->buffer;
    CRYPTO_BUFFER_up_ref(buffer);
  }
  (void)pthread_mutex_unlock(&pool->lock);
  return buffer;
}

static void drop_user(struct cert_pool *pool, const CRYPTO_BUFFER *buffer) {
  struct entry **at = bucket_of(pool, hash_of(bytes_in(buffer)));
  struct entry *entry = NULL;
  while (*at != NULL && (*at)->buffer != buffer) {
    at = &(*at)->next;
  }
  entry = *at;
  CHECK(entry != NULL);
  entry->num_users -= 1;
  if (entry->num_users == 0) {
    *at = entry->next;
    pool->num -= 1;
    CRYPTO_BUFFER_free(entry->buffer);
    free(entry);
  }
}

void cert_pool_give(struct cert_pool *pool, CRYPTO_BUFFER *buffer) {
  if (buffer == NULL) {
    return;
  }
  if (pool != NULL) {
    (void)pthread_mutex_lock(&pool->lock);
    drop_user(pool, buffer);
    (void)pthread_mutex_unlock(&pool->lock);
  }
  CRYPTO_BUFFER_free(buffer);
}
