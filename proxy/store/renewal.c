// SPDX-License-Identifier: Apache-2.0
#include "proxy/store/renewal.h"

// On the loader's thread.
static void renewal_work(void *arg) {
  struct renewal *renewal = arg;
  struct loader *loader = renewal->loader;
  uint64_t version = 0;  // A round vouches for the earliest that it has read; 0: for nothing.
  enum status st = loader_begin(loader, &version);
  for (size_t i = 0; i < renewal->num; i++) {
    const struct ready *name = renewal->names[i];
    struct errmsg err = {0};
    renewal->made[i] = NULL;
    renewal->st[i] =
        st != STATUS_OK ? st
                        : loader_read(loader, &renewal->made[i],
                                      bytes_of(name->name.name, name->name_len), &name->mark, &err);
  }
  renewal->version = version < renewal->version ? version : renewal->version;
  if (st == STATUS_OK) {
    loader_end(loader, renewal->num);
  }
}

static void take_renewed(struct renewal *renewal, size_t i) {
  struct name_cache *names = renewal->loader->names;
  const struct ready *name = renewal->names[i];
  const struct cache_host host = {name->hash, bytes_of(name->name.name, name->name_len)};
  if (renewal->st[i] == STATUS_NOT_FOUND) {
    name_cache_put_absent(names, &host, renewal->version);
  } else if (renewal->made[i] != NULL) {
    counter_add_own(&renewal->num_renewed, 1);
    (void)name_cache_put(names, renewal->made[i]);  // else the earlier one serves on
  }
}

static void renew_next(struct renewal *renewal) {
  struct loader *loader = renewal->loader;
  renewal->num = cache_each(loader->names->cache, &renewal->at, renewal->names, RENEWAL_CHUNK);
  for (size_t i = 0; i < renewal->num; i++) {
    (void)ready_ref(renewal->names[i]);
  }
  renewal->is_running = true;
  loader_run(loader, &renewal->job);
}

static void renewal_done(void *arg) {
  struct renewal *renewal = arg;
  for (size_t i = 0; i < renewal->num; i++) {
    take_renewed(renewal, i);
    ready_unref(renewal->names[i]);
  }
  renewal->is_running = false;
  if (renewal->at == 0) {
    renewal->renewed_version = renewal->version;
  } else if (!renewal->loader->handle->is_closing) {
    renew_next(renewal);
  }
  loader_done(renewal->loader);
}

void renewal_run(struct renewal *renewal) {
  struct loader *loader = renewal->loader;
  bool is_due = loader->has_outdated ||
                store_chains_version(loader->handle->store) != renewal->renewed_version;
  if (!renewal->is_running && is_due) {
    loader->has_outdated = false;
    renewal->at = 0;
    renewal->version = UINT64_MAX;
    renew_next(renewal);
  }
}

void renewal_init(struct renewal *renewal, struct loader *loader) {
  renewal->loader = loader;
  renewal->job = (struct job){.work = renewal_work, .done = renewal_done, .arg = renewal};
}

void renewal_start(struct renewal *renewal) {
  renewal->renewed_version = store_chains_version(renewal->loader->handle->store);
}

void renewal_restart(struct renewal *renewal) { renewal->renewed_version = UINT64_MAX; }

void renewal_stop(struct renewal *renewal) {
  for (size_t i = 0; renewal->is_running && i < renewal->num; i++) {
    ready_unref(renewal->names[i]);
    ready_unref(renewal->made[i]);
  }
  renewal->is_running = false;
}
