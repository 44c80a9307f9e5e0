// SPDX-License-Identifier: Apache-2.0
#include "proxy/control/check.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "certstore/store.h"
#include "common/base/privileges.h"
#include "proxy/admin/state_file.h"
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

// What is written is not tried here, where another user may be asking. A folder that is not
// there may be the service manager's to make, so that this is a hint.
static void hint_at_folder(const char *option, const char *path) {
  const char *slash = path == NULL ? NULL : strrchr(path, '/');
  char folder[PATH_MAX];
  if (slash == NULL || slash == path) {  // none, stderr, or of the root
    return;
  }
  (void)snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path), path);
  if (access(folder, X_OK) != 0) {
    (void)fprintf(stderr, "hint: %s: a start needs the folder %s: %s\n", option, folder,
                  strerror(errno));
  }
}

static void hint_at_places(const struct options *options) {
  hint_at_folder("states", options->states);
  hint_at_folder("log", options->log);
  hint_at_folder("access_log_file", options->access_log_file);
  hint_at_folder("audit.path", options->audit.log.path);
  hint_at_folder("admin.socket", options->admin.socket);
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
  TRY(privileges_check_user(site->options.user, err));
  if (site->options.states != NULL) {
    TRY(state_file_check(states, site->options.states, err));
  }
  hint_at_places(&site->options);

out:
  site_free(site);
  origins_free(origins);
  states_free(states);
  return st == STATUS_OK ? STATUS_OK : STATUS_CONFIG;
}
