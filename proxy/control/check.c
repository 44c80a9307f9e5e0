// SPDX-License-Identifier: Apache-2.0
#include "proxy/control/check.h"

#include "certstore/store.h"
#include "proxy/origin/origins.h"
#include "proxy/site.h"

// A store is opened as the proxy would open it, and let go again.
static enum status check_store(const char *folder, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct store_options how = {.mode = STORE_READ, .is_serving = true};
  struct store *store = NULL;
  struct store_reader *reader = NULL;
  if (folder == NULL) {
    return STATUS_OK;
  }
  TRY(store_open(&store, folder, &how, err));
  TRY(store_reader_new(&reader, store, err));

out:
  store_reader_free(reader);
  store_close(store);
  return st;
}

enum status check_config(struct options *options, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct states *states = NULL;
  struct origins *origins = NULL;
  struct site *site = NULL;

  TRY(states_new(&states));
  TRY(origins_new(&origins, NULL));
  TRY(site_new(&site, options, states, origins, NULL, err));
  TRY(check_store(site->options.store.path, err));

out:
  site_free(site);
  origins_free(origins);
  states_free(states);
  return st;
}
