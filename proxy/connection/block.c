// SPDX-License-Identifier: Apache-2.0
#include "proxy/connection/block.h"

#include <stdlib.h>

#include "common/base/status.h"

// Under a sanitizer every object comes from malloc, or a use after its return
// would go unseen.
#if defined(__SANITIZE_ADDRESS__)
#define KEEPS_FREE 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KEEPS_FREE 0
#endif
#endif
#ifndef KEEPS_FREE
#define KEEPS_FREE 1
#endif

struct link {
  struct link *next;
};

void *pool_take(struct pool *pool) {
  struct link *object = pool->free_list;
  if (object != NULL) {
    pool->free_list = object->next;
    pool->num_free -= 1;
  } else {
    object = malloc(pool->size);
    if (object == NULL) {
      return NULL;
    }
  }
  pool->num_lent += 1;
  return object;
}

void pool_give(struct pool *pool, void *object) {
  struct link *link = object;
  if (object == NULL) {
    return;
  }
  CHECK(pool->num_lent > 0);
  pool->num_lent -= 1;
  if (!KEEPS_FREE || pool->num_free >= pool->max_free) {
    free(object);
    return;
  }
  link->next = pool->free_list;
  pool->free_list = link;
  pool->num_free += 1;
}

void pool_cleanup(struct pool *pool) {
  struct link *link = pool->free_list;
  CHECK(pool->num_lent == 0);
  while (link != NULL) {
    struct link *next = link->next;
    free(link);
    link = next;
  }
  pool->free_list = NULL;
  pool->num_free = 0;
}
