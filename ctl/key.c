// SPDX-License-Identifier: Apache-2.0
// `deputyctl key`: files of private keys, where they are, as their owner; no proxy.
// Here is the end of a key, in two steps that each have to be meant: `retire` puts
// the file aside, so that the next reload of the key server forgets the key;
// `destroy` wipes what was retired. Sealed keys are in sealed.c.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/ctl.h"

#define KEY_SUFFIX ".key"
#define RETIRED_SUFFIX ".key.retired"
#define WIPE_LEN 4096

static enum ctl_exit fail(const char *path, const char *why) {
  (void)fprintf(stderr, "deputyctl: %s: %s\n", path, why);
  return CTL_FAILED;
}

static bool has_suffix(const char *path, const char *suffix) {
  const size_t len = strlen(path);
  const size_t suffix_len = strlen(suffix);
  return len > suffix_len && strcmp(path + len - suffix_len, suffix) == 0;
}

// sync_folder: a new name is only safe once its folder is on the disk.
static bool sync_folder(const char *path) {
  char folder[PATH_MAX];
  const char *slash = strrchr(path, '/');
  int fd = -1;
  bool is_synced = false;

  (void)snprintf(folder, sizeof folder, "%.*s", slash == NULL ? 1 : (int)(slash - path) + 1,
                 slash == NULL ? "." : path);
  fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  is_synced = fd >= 0 && fsync(fd) == 0;
  if (fd >= 0) {
    (void)close(fd);
  }
  return is_synced;
}

static enum ctl_exit retire(const char *path) {
  char retired[PATH_MAX];
  struct stat is;

  if (!has_suffix(path, KEY_SUFFIX)) {
    return fail(path, "is no NAME.key");
  }
  if (lstat(path, &is) != 0 || !S_ISREG(is.st_mode)) {
    return fail(path, "is no file");
  }
  if (snprintf(retired, sizeof retired, "%s.retired", path) >= (int)sizeof retired) {
    return fail(path, "the path is too long");
  }
  // A link, unlike a rename, takes nobody's place.
  if (link(path, retired) != 0) {
    return fail(retired, strerror(errno));
  }
  if (unlink(path) != 0 || !sync_folder(path)) {
    return fail(path, strerror(errno));
  }
  (void)printf("retired: %s\nThe key server forgets it when it reloads: send it SIGHUP.\n",
               retired);
  return CTL_DONE;
}

// wipe writes noise over the file, once: what a journal, a copy or the flash under
// it keeps is out of reach from here, and the page says so.
static bool wipe(int fd, off_t len) {
  unsigned char noise[WIPE_LEN];

  for (off_t at = 0; at < len; at += WIPE_LEN) {
    const size_t want = len - at < WIPE_LEN ? (size_t)(len - at) : WIPE_LEN;
    size_t have = 0;
    while (have < want) {
      const ssize_t n = getrandom(noise + have, want - have, 0);
      if (n < 0) {
        return false;
      }
      have += (size_t)n;
    }
    if (pwrite(fd, noise, want, at) != (ssize_t)want) {
      return false;
    }
  }
  return fsync(fd) == 0;
}

static enum ctl_exit destroy(const char *path) {
  struct stat is;
  int fd = -1;
  enum ctl_exit code = CTL_DONE;

  if (!has_suffix(path, RETIRED_SUFFIX)) {
    return fail(path, "is no NAME.key.retired: retire the key first");
  }
  fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) {
    return fail(path, strerror(errno));
  }
  if (fstat(fd, &is) != 0 || !S_ISREG(is.st_mode)) {
    code = fail(path, "is no file");
  } else if (!wipe(fd, is.st_size) || unlink(path) != 0 || !sync_folder(path)) {
    code = fail(path, strerror(errno));
  } else {
    (void)printf("destroyed: %s\n", path);
  }
  (void)close(fd);
  return code;
}

static enum ctl_exit run_retire(const struct ctl_args *args, char *const *words) {
  (void)args;
  return retire(words[0]);
}

static enum ctl_exit run_destroy(const struct ctl_args *args, char *const *words) {
  (void)args;
  return destroy(words[0]);
}

static const struct verb {
  const char *name;
  const char *usage;
  size_t min_words;
  size_t max_words;
  unsigned takes;
  unsigned needs;
  enum ctl_exit (*run)(const struct ctl_args *args, char *const *words);
} verbs[] = {
    {"retire", "NAME.key", 1, 1, 0, 0, run_retire},
    {"destroy", "NAME.key.retired", 1, 1, 0, 0, run_destroy},
    {"identity", "new|show FILE", 2, 2, 0, 0, ctl_key_identity},
    {"seal", "--policy POLICY --members FILE KEYFILE NAME.sealed", 2, 2, CTL_POLICY | CTL_MEMBERS,
     CTL_POLICY | CTL_MEMBERS, ctl_key_seal},
    {"reseal", "--members FILE --identity FILE [--policy POLICY] NAME.sealed...", 1, SIZE_MAX,
     CTL_POLICY | CTL_MEMBERS | CTL_IDENTITY, CTL_MEMBERS | CTL_IDENTITY, ctl_key_reseal},
    {"inspect", "[--members FILE] NAME.sealed...", 1, SIZE_MAX, CTL_MEMBERS, 0, ctl_key_inspect},
};

enum ctl_exit ctl_run_key(const struct ctl_args *args) {
  for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
    const struct verb *verb = &verbs[i];
    if (strcmp(args->words[0], verb->name) != 0) {
      continue;
    }
    if (args->num_words - 1 < verb->min_words || args->num_words - 1 > verb->max_words ||
        (args->given & ~verb->takes) != 0 || (~args->given & verb->needs) != 0) {
      (void)fprintf(stderr, "deputyctl: usage: deputyctl key %s %s\n", verb->name, verb->usage);
      return CTL_USAGE;
    }
    return verb->run(args, args->words + 1);
  }
  (void)fprintf(stderr,
                "deputyctl: key %s: none of retire, destroy, identity, seal, reseal, inspect\n",
                args->words[0]);
  return CTL_USAGE;
}
