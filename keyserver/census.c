// SPDX-License-Identifier: Apache-2.0
#include "keyserver/census.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define NUM_BUCKETS 1024u  // a power of two; clients are few beside connections

struct census_entry {
  struct census_entry *next;
  uint8_t spki_sha256[32];
  size_t num;
};

struct census {
  atomic_size_t num;
  pthread_mutex_t lock;  // of the buckets
  struct census_entry *buckets[NUM_BUCKETS];
};

enum status census_new(struct census **out) {
  struct census *census = calloc(1, sizeof *census);

  *out = census;
  if (census == NULL) {
    return STATUS_MEMORY;
  }
  if (pthread_mutex_init(&census->lock, NULL) != 0) {
    free(census);
    *out = NULL;
    return STATUS_MEMORY;
  }
  return STATUS_OK;
}

void census_free(struct census *census) {
  if (census == NULL) {
    return;
  }
  for (size_t i = 0; i < NUM_BUCKETS; i++) {
    CHECK(census->buckets[i] == NULL);
  }
  pthread_mutex_destroy(&census->lock);
  free(census);
}

bool census_enter(struct census *census, size_t max) {
  if (atomic_fetch_add(&census->num, 1) < max) {
    return true;
  }
  atomic_fetch_sub(&census->num, 1);
  return false;
}

void census_leave(struct census *census) { atomic_fetch_sub(&census->num, 1); }

size_t census_num(const struct census *census) { return atomic_load(&census->num); }

static struct census_entry **find(struct census *census, const uint8_t spki_sha256[32]) {
  uint32_t bits = 0;
  struct census_entry **at = NULL;

  memcpy(&bits, spki_sha256, sizeof bits);
  at = &census->buckets[bits & (NUM_BUCKETS - 1)];
  while (*at != NULL && memcmp((*at)->spki_sha256, spki_sha256, 32) != 0) {
    at = &(*at)->next;
  }
  return at;
}

enum status census_join(struct census_entry **out, struct census *census,
                        const uint8_t spki_sha256[32], size_t max) {
  enum status st = STATUS_OK;
  struct census_entry **at = NULL;

  *out = NULL;
  pthread_mutex_lock(&census->lock);
  at = find(census, spki_sha256);
  if (*at == NULL) {
    *at = calloc(1, sizeof **at);
    if (*at == NULL) {
      TRY(STATUS_MEMORY);
    }
    memcpy((*at)->spki_sha256, spki_sha256, 32);
  }
  if ((*at)->num >= max) {
    TRY(STATUS_LIMIT);
  }
  (*at)->num++;
  *out = *at;

out:
  pthread_mutex_unlock(&census->lock);
  return st;
}

void census_part(struct census *census, struct census_entry *entry) {
  struct census_entry **at = NULL;

  if (entry == NULL) {
    return;
  }
  pthread_mutex_lock(&census->lock);
  entry->num--;
  if (entry->num == 0) {
    at = find(census, entry->spki_sha256);
    CHECK(*at == entry);
    *at = entry->next;
    free(entry);
  }
  pthread_mutex_unlock(&census->lock);
}
