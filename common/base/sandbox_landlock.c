// SPDX-License-Identifier: Apache-2.0
// Landlock (landlock(7), Documentation/userspace-api/landlock.rst): which files a
// process may reach, and from ABI 4 on which TCP ports, from ABI 6 on whom it may
// signal. Spoken to by bare system calls, as glibc has no functions for it.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/sandbox_internal.h"

// What a header older than the kernel lacks; numbers from linux/landlock.h.
#ifndef LANDLOCK_ACCESS_FS_REFER  // ABI 2
#define LANDLOCK_ACCESS_FS_REFER (1ULL << 13)
#endif
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE  // ABI 3
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif
#ifndef LANDLOCK_ACCESS_FS_IOCTL_DEV  // ABI 5
#define LANDLOCK_ACCESS_FS_IOCTL_DEV (1ULL << 15)
#endif
#ifndef LANDLOCK_ACCESS_NET_BIND_TCP  // ABI 4
#define LANDLOCK_ACCESS_NET_BIND_TCP (1ULL << 0)
#define LANDLOCK_ACCESS_NET_CONNECT_TCP (1ULL << 1)
#endif
#ifndef LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET  // ABI 6
#define LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET (1ULL << 0)
#define LANDLOCK_SCOPE_SIGNAL (1ULL << 1)
#endif

#define FS_1 ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1)  // all rights of ABI 1
#define FS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_CHANGE                                                             \
  (FS_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_FILE | \
   LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_TRUNCATE)
// What a rule on something that is no folder may hold.
#define FS_FILE                                                                                \
  (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE | \
   LANDLOCK_ACCESS_FS_TRUNCATE | LANDLOCK_ACCESS_FS_IOCTL_DEV)
// What is refused even where modules may do as they like.
#define FS_NEVER \
  (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK)

// struct landlock_ruleset_attr as of ABI 6. An older kernel takes the longer one as
// long as what it does not know is zero.
struct ruleset {
  uint64_t fs;
  uint64_t net;
  uint64_t scoped;
};

struct rules {
  int fd;
  uint64_t handled;  // rights on files
  // The last one: files of one folder mostly come together.
  char last_path[PATH_MAX];
  uint64_t last_access;
};

// --- single rules ------------------------------------------------------------------

// add_rule grants `access` below `path`. What is not there, or is out of reach for
// the user that we are, can be of no use either, and is left out.
static enum status add_rule(struct rules *rules, const char *path, uint64_t access,
                            struct errmsg *err) {
  struct landlock_path_beneath_attr rule = {.allowed_access = access & rules->handled};
  enum status st = STATUS_OK;
  struct stat is = {0};

  if (rules->last_access == access && strcmp(rules->last_path, path) == 0) {
    return STATUS_OK;
  }
  rules->last_access = access;
  (void)snprintf(rules->last_path, sizeof rules->last_path, "%s", path);
  rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
  if (rule.parent_fd < 0) {
    return STATUS_OK;
  }
  if (fstat(rule.parent_fd, &is) == 0 && !S_ISDIR(is.st_mode)) {
    rule.allowed_access &= FS_FILE;
  }
  // EBADFD: a pipe, or the like, by way of /proc: Landlock does not judge those.
  if (rule.allowed_access != 0 &&
      syscall(SYS_landlock_add_rule, rules->fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0 &&
      errno != EBADFD) {
    st = errmsg_set(err, STATUS_SYSTEM, "%s: no Landlock rule: %s", path, strerror(errno));
  }
  (void)close(rule.parent_fd);
  return st;
}

// add_folder_of grants `access` in the folder of the file `path`: there, a file that
// takes the place of this one has the same rights. Never all of the root folder.
static enum status add_folder_of(struct rules *rules, const char *path, uint64_t access,
                                 struct errmsg *err) {
  char folder[PATH_MAX];
  const char *slash = strrchr(path, '/');

  if (slash == path) {
    return add_rule(rules, path, access, err);
  }
  if (slash == NULL) {
    return add_rule(rules, ".", access, err);
  }
  if ((size_t)(slash - path) >= sizeof folder) {
    return STATUS_OK;  // longer than any path that can be opened
  }
  memcpy(folder, path, (size_t)(slash - path));
  folder[slash - path] = '\0';
  return add_rule(rules, folder, access, err);
}

// A device or a pipe is itself. Of a link its own folder and the one that it leads
// to: both the link and what is behind it may be replaced.
static enum status add_file(struct rules *rules, const char *path, uint64_t access,
                            struct errmsg *err) {
  enum status st = STATUS_OK;
  char target[PATH_MAX];
  struct stat is = {0};

  // With links followed, so that /dev/stderr is the pipe that it is.
  if (stat(path, &is) == 0 && !S_ISREG(is.st_mode)) {
    return add_rule(rules, path, access, err);
  }
  if (lstat(path, &is) == 0 && S_ISLNK(is.st_mode) && realpath(path, target) != NULL) {
    TRY(add_folder_of(rules, target, access, err));
  }
  TRY(add_folder_of(rules, path, access, err));

out:
  return st;
}

static enum status add_path(struct rules *rules, const struct sandbox_path *path,
                            struct errmsg *err) {
  switch (path->use) {
    case SANDBOX_READ_FILE:
      return add_file(rules, path->path, LANDLOCK_ACCESS_FS_READ_FILE, err);
    case SANDBOX_READ_FOLDER:
      return add_rule(rules, path->path, FS_READ, err);
    case SANDBOX_WRITE_FILE:
      return add_file(rules, path->path, FS_CHANGE, err);
    case SANDBOX_WRITE_FOLDER:
      return add_rule(rules, path->path, FS_CHANGE, err);
    case SANDBOX_SOCKET:
      return add_folder_of(rules, path->path,
                           LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_REMOVE_FILE, err);
  }
  return STATUS_OK;
}

// --- what is not in the configuration ------------------------------------------------

// The resolver's files are replaced by a rename when the network changes, and a
// rule on the old file would leave the program without names. So it may read what
// lies in /etc, which for a user other than root is what everybody may read; root
// gets the files alone, and a restart after such a change.
static enum status add_resolver(struct rules *rules, struct errmsg *err) {
  static const char *const files[] = {"/etc/resolv.conf", "/etc/hosts",    "/etc/nsswitch.conf",
                                      "/etc/host.conf",   "/etc/gai.conf", "/etc/services"};
  enum status st = STATUS_OK;
  char target[PATH_MAX];

  if (geteuid() != 0) {
    TRY(add_rule(rules, "/etc", LANDLOCK_ACCESS_FS_READ_FILE, err));
  }
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
    TRY(add_rule(rules, files[i], LANDLOCK_ACCESS_FS_READ_FILE, err));
    // systemd-resolved and resolvconf keep them elsewhere, in folders of their own.
    if (realpath(files[i], target) != NULL && strncmp(target, "/etc/", 5) != 0) {
      TRY(add_folder_of(rules, target, LANDLOCK_ACCESS_FS_READ_FILE, err));
    }
  }

out:
  return st;
}

static enum status add_system(struct rules *rules, unsigned needs, struct errmsg *err) {
  // Where a module's own libraries are.
  static const char *const libraries[] = {"/usr", "/lib", "/lib64", "/etc/ld.so.cache"};
  enum status st = STATUS_OK;

  TRY(add_rule(rules, "/dev/null", LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE,
               err));
  TRY(add_rule(rules, "/dev/urandom", LANDLOCK_ACCESS_FS_READ_FILE, err));
  if ((needs & SANDBOX_NAMES) != 0) {
    TRY(add_resolver(rules, err));
  }
  for (size_t i = 0; (needs & SANDBOX_MODULES) != 0 && i < sizeof libraries / sizeof libraries[0];
       i++) {
    TRY(add_rule(rules, libraries[i], FS_READ, err));
  }
  if (SANDBOX_IS_INSTRUMENTED) {
    TRY(add_rule(rules, "/", FS_READ | LANDLOCK_ACCESS_FS_EXECUTE, err));
  }

out:
  return st;
}

// --- all of it -----------------------------------------------------------------------

static uint64_t fs_rights(int abi) {
  uint64_t rights = FS_1;
  rights |= abi >= 2 ? LANDLOCK_ACCESS_FS_REFER : 0;
  rights |= abi >= 3 ? LANDLOCK_ACCESS_FS_TRUNCATE : 0;
  rights |= abi >= 5 ? LANDLOCK_ACCESS_FS_IOCTL_DEV : 0;
  return rights;
}

// Ports are not listed: a reload may name others. So TCP is there or not.
static uint64_t net_rights(int abi, unsigned needs) {
  uint64_t rights = 0;
  if (abi < 4 || (needs & SANDBOX_MODULES) != 0) {
    return 0;
  }
  rights |= (needs & SANDBOX_LISTEN) == 0 ? LANDLOCK_ACCESS_NET_BIND_TCP : 0;
  rights |= (needs & SANDBOX_CONNECT) == 0 ? LANDLOCK_ACCESS_NET_CONNECT_TCP : 0;
  return rights;
}

// Who starts us may wait for readiness at an abstract address (sd_notify(3)).
static uint64_t scopes(int abi, unsigned needs) {
  const char *notify = getenv("NOTIFY_SOCKET");
  const bool is_abstract = notify != NULL && notify[0] == '@';
  if (abi < 6) {
    return 0;
  }
  return is_abstract || (needs & SANDBOX_MODULES) != 0
             ? LANDLOCK_SCOPE_SIGNAL
             : LANDLOCK_SCOPE_SIGNAL | LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET;
}

static enum status open_rules(struct rules *rules, int abi, const struct sandbox_spec *spec,
                              bool has_files, struct errmsg *err) {
  const struct ruleset attr = {
      .fs = has_files ? fs_rights(abi) : FS_NEVER,
      .net = net_rights(abi, spec->needs),
      .scoped = SANDBOX_IS_INSTRUMENTED ? 0 : scopes(abi, spec->needs),
  };
  rules->handled = attr.fs;
  rules->fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
  return rules->fd >= 0 ? STATUS_OK
                        : errmsg_set(err, STATUS_UNAVAILABLE,
                                     "the kernel takes no Landlock rules: %s", strerror(errno));
}

static enum status fill_rules(struct rules *rules, const struct sandbox_spec *spec,
                              const struct sandbox_options *options, struct errmsg *err) {
  enum status st = STATUS_OK;

  TRY(add_system(rules, spec->needs, err));
  for (size_t i = 0; i < spec->num_paths; i++) {
    TRY(add_path(rules, &spec->paths[i], err));
  }
  for (size_t i = 0; i < options->num_paths; i++) {
    TRY(add_rule(rules, options->paths[i],
                 (spec->needs & SANDBOX_MODULES) != 0 ? FS_CHANGE : FS_READ, err));
  }

out:
  return st;
}

enum status sandbox_landlock_enter(int *out_abi, bool *out_has_files,
                                   const struct sandbox_spec *spec,
                                   const struct sandbox_options *options, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct rules rules = {.fd = -1};
  const bool has_files = (spec->needs & SANDBOX_MODULES) == 0 || options->num_paths > 0;
  const int abi =
      (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

  if (abi < 1) {
    return errmsg_set(err, STATUS_UNAVAILABLE, "the kernel has no Landlock: %s", strerror(errno));
  }
  TRY(open_rules(&rules, abi, spec, has_files, err));
  TRY(fill_rules(&rules, spec, options, err));
  if (syscall(SYS_landlock_restrict_self, rules.fd, 0) != 0) {
    TRY(errmsg_set(err, STATUS_UNAVAILABLE, "Landlock cannot be entered: %s", strerror(errno)));
  }
  *out_abi = abi;
  *out_has_files = has_files;

out:
  if (rules.fd >= 0) {
    (void)close(rules.fd);
  }
  return st;
}
