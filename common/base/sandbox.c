// SPDX-License-Identifier: Apache-2.0
#include "common/base/sandbox.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "common/base/log.h"
#include "common/base/sandbox_internal.h"

#define FIRST_NUM_PATHS 16
#define UNIX_PREFIX "unix:"

const char *const sandbox_words[] = {
    [SANDBOX_AUTO] = "auto", [SANDBOX_REQUIRE] = "require", [SANDBOX_OFF] = "off", NULL};

static struct sandbox_state state;

bool sandbox_options_equal(const struct sandbox_options *a, const struct sandbox_options *b) {
  return a->mode == b->mode && config_same_list(a->paths, a->num_paths, b->paths, b->num_paths);
}

// --- what a program needs ------------------------------------------------------

static bool is_none(enum sandbox_use use, const char *path) {
  const bool is_written = use == SANDBOX_WRITE_FILE;
  return path == NULL || path[0] == '\0' || (is_written && strcmp(path, "stderr") == 0);
}

static struct sandbox_path *add_path(struct sandbox_spec *spec) {
  if (spec->num_paths == spec->cap_paths) {
    const size_t cap = spec->cap_paths == 0 ? FIRST_NUM_PATHS : spec->cap_paths * 2;
    struct sandbox_path *paths = reallocarray(spec->paths, cap, sizeof *paths);
    if (paths == NULL) {
      return NULL;
    }
    spec->paths = paths;
    spec->cap_paths = cap;
  }
  return &spec->paths[spec->num_paths];
}

void sandbox_allow(struct sandbox_spec *spec, enum sandbox_use use, const char *path) {
  struct sandbox_path *next = NULL;

  if (is_none(use, path)) {
    return;
  }
  next = add_path(spec);
  if (next != NULL) {
    *next = (struct sandbox_path){.path = strdup(path), .use = use};
  }
  if (next == NULL || next->path == NULL) {
    spec->is_failed = true;
    return;
  }
  spec->num_paths += 1;
}

static void allow_row(void *arg, const struct config_option *row, const char *path) {
  struct stat is = {0};
  const bool is_folder = stat(path, &is) == 0 && S_ISDIR(is.st_mode);

  if (row->is_written) {
    sandbox_allow(arg, is_folder ? SANDBOX_WRITE_FOLDER : SANDBOX_WRITE_FILE, path);
  } else {
    sandbox_allow(arg, is_folder ? SANDBOX_READ_FOLDER : SANDBOX_READ_FILE, path);
  }
}

void sandbox_allow_config(struct sandbox_spec *spec, const void *options,
                          const struct config_option *table, const char *config_path) {
  sandbox_allow(spec, SANDBOX_READ_FILE, config_path);
  config_each_path(options, table, allow_row, spec);
}

void sandbox_allow_address(struct sandbox_spec *spec, const char *address) {
  if (address != NULL && strncmp(address, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0) {
    sandbox_allow(spec, SANDBOX_SOCKET, address + strlen(UNIX_PREFIX));
  }
}

void sandbox_spec_cleanup(struct sandbox_spec *spec) {
  for (size_t i = 0; i < spec->num_paths; i++) {
    free(spec->paths[i].path);
  }
  free(spec->paths);
  *spec = (struct sandbox_spec){0};
}

// --- entering --------------------------------------------------------------------

// take judges what one half of the sandbox came back with: what the kernel does not
// have is an end only where the operator asked for it.
static enum status take(enum status st, bool *out_is_on, struct errmsg *err) {
  *out_is_on = st == STATUS_OK;
  if (st != STATUS_UNAVAILABLE) {
    return st;
  }
  if (state.mode == SANDBOX_REQUIRE) {
    errmsg_prefix(err, "sandbox is \"require\", but");
    return STATUS_REFUSED;
  }
  if (state.missing[0] == '\0') {
    (void)snprintf(state.missing, sizeof state.missing, "%.*s", (int)sizeof state.missing - 1,
                   err->text);
  }
  err->text[0] = '\0';
  return STATUS_OK;
}

enum status sandbox_enter(const struct sandbox_spec *spec, const struct sandbox_options *options,
                          struct errmsg *err) {
  enum status st = STATUS_OK;
  struct errmsg why = {0};
  bool has_landlock = false;

  if (spec->is_failed) {
    return errmsg_set(err, STATUS_MEMORY, "no memory for the sandbox");
  }
  state = (struct sandbox_state){.mode = (enum sandbox_mode)options->mode,
                                 .has_modules = (spec->needs & SANDBOX_MODULES) != 0,
                                 .is_instrumented = SANDBOX_IS_INSTRUMENTED != 0};
  // Both halves need it; without, only root may use them.
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return errmsg_set(err, STATUS_SYSTEM, "new privileges cannot be given up: %s", strerror(errno));
  }
  state.has_no_new_privs = true;
  if (state.mode == SANDBOX_OFF) {
    return STATUS_OK;
  }
  // In this order: the filter has no place for Landlock's calls.
  st = sandbox_landlock_enter(&state.landlock_abi, &state.has_files, spec, options, &why);
  TRY(take(st, &has_landlock, &why));
  st = sandbox_seccomp_enter(spec, &why);
  TRY(take(st, &state.has_seccomp, &why));

out:
  return st == STATUS_OK ? st : errmsg_set(err, st, "%s", why.text);
}

// --- what is in force --------------------------------------------------------------

const struct sandbox_state *sandbox_state(void) { return &state; }

static const char *on(bool is_on) { return is_on ? "on" : "off"; }

void sandbox_log(void) {
  const bool is_missed = state.missing[0] != '\0';
  char landlock[16] = "off";
  char why[sizeof state.missing + 16] = "";

  if (state.landlock_abi > 0) {
    (void)snprintf(landlock, sizeof landlock, "abi%d", state.landlock_abi);
  }
  if (is_missed) {
    (void)snprintf(why, sizeof why, " reason=\"%s\"", state.missing);
  }
  log_line(is_missed ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, 0, "sandbox",
           "seccomp=%s landlock=%s no_new_privs=%s%s%s%s", on(state.has_seccomp), landlock,
           on(state.has_no_new_privs),
           state.landlock_abi > 0 && !state.has_files ? " files=modules" : "",
           state.is_instrumented ? " instrumented=yes" : "", why);
}

void sandbox_metrics(struct metrics_text *text, const char *name) {
  metrics_family(text, name, METRIC_GAUGE,
                 "What the kernel confines this process by: 1 in force, 0 not.");
  metrics_sample(text, name, state.has_seccomp ? 1 : 0, "kind", "seccomp", NULL);
  metrics_sample(text, name, state.landlock_abi > 0 ? 1 : 0, "kind", "landlock", NULL);
  metrics_sample(text, name, state.has_no_new_privs ? 1 : 0, "kind", "no_new_privs", NULL);
}

const char *sandbox_hint(int reason) {
  return state.has_files && reason == EACCES
             ? " (the sandbox knows only the folders that were named at the start, and "
               "sandbox_paths: a restart makes it know others)"
             : "";
}
