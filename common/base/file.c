// SPDX-License-Identifier: Apache-2.0
#include "common/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/sandbox.h"

#define FIRST_READ_LEN 4096
#define PRIVATE_MODE 0600
#define PUBLIC_MODE 0644

static enum status system_error(struct errmsg *err, const char *path, const char *what) {
  int reason = errno;
  (void)errmsg_set(err, STATUS_SYSTEM, "%s: %s: %s%s", path, what, strerror(reason),
                   sandbox_hint(reason));
  errno = reason;
  return STATUS_SYSTEM;
}

// --- reading -----------------------------------------------------------------

// Makes room for one more read: at least one byte of content and the terminator.
static enum status grow(uint8_t **data, size_t *cap, size_t len, size_t max) {
  size_t more = *cap == 0 ? FIRST_READ_LEN : *cap * 2;
  uint8_t *bigger = NULL;
  if (len + 1 < *cap) {
    return STATUS_OK;
  }
  if (more > max + 2) {
    more = max + 2;  // one byte past the limit shows that it is passed
  }
  bigger = realloc(*data, more);
  if (bigger == NULL) {
    return STATUS_MEMORY;
  }
  *data = bigger;
  *cap = more;
  return STATUS_OK;
}

static enum status read_all(uint8_t **data, size_t *out_len, int fd, const char *path, size_t max,
                            struct errmsg *err) {
  size_t cap = 0;
  size_t len = 0;
  for (;;) {
    ssize_t n = 0;
    if (grow(data, &cap, len, max) != STATUS_OK) {
      return errmsg_set(err, STATUS_MEMORY, "%s: no memory to read it", path);
    }
    n = read(fd, *data + len, cap - 1 - len);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      return system_error(err, path, "cannot be read");
    }
    len += (size_t)n;
    if (len > max) {
      return errmsg_set(err, STATUS_LIMIT, "%s: is longer than %zu bytes", path, max);
    }
    if (n == 0) {
      (*data)[len] = '\0';
      *out_len = len;
      return STATUS_OK;
    }
  }
}

enum status file_read(uint8_t **out, size_t *out_len, const char *path, size_t max,
                      struct errmsg *err) {
  enum status st = STATUS_OK;
  uint8_t *data = NULL;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

  *out = NULL;
  *out_len = 0;
  if (fd < 0) {
    return system_error(err, path, "cannot be opened");
  }
  st = read_all(&data, out_len, fd, path, max, err);
  (void)close(fd);
  if (st != STATUS_OK) {
    free(data);
    return st;
  }
  *out = data;
  return STATUS_OK;
}

// --- writing -----------------------------------------------------------------

static bool write_all(int fd, struct bytes content) {
  size_t done = 0;
  while (done < content.len) {
    ssize_t n = write(fd, content.data + done, content.len - done);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      return false;
    }
    done += (size_t)n;
  }
  return true;
}

// A new or renamed file is only safe once its folder is on the disk too.
static enum status sync_folder(const char *path, struct errmsg *err) {
  enum status st = STATUS_OK;
  const char *slash = strrchr(path, '/');
  char *folder = NULL;
  int fd = -1;

  if (slash == NULL) {
    folder = strdup(".");
  } else {
    folder = strndup(path, slash == path ? 1 : (size_t)(slash - path));
  }
  if (folder == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "%s: no memory", path);
  }
  fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 || fsync(fd) != 0) {
    st = system_error(err, folder, "the folder cannot be synced");
  }
  if (fd >= 0) {
    (void)close(fd);
  }
  free(folder);
  return st;
}

static enum status write_new(int fd, const char *path, struct bytes content, struct errmsg *err) {
  if (!write_all(fd, content)) {
    return system_error(err, path, "cannot be written");
  }
  if (fsync(fd) != 0) {
    return system_error(err, path, "cannot be synced");
  }
  return STATUS_OK;
}

// put_in_place gives the finished file its name. A link, unlike a rename, never
// takes a name that is in use.
static enum status put_in_place(const char *beside, const char *path, bool may_replace,
                                struct errmsg *err) {
  if (may_replace) {
    return rename(beside, path) == 0 ? STATUS_OK : system_error(err, path, "cannot be replaced");
  }
  if (link(beside, path) != 0) {
    return errno == EEXIST ? errmsg_set(err, STATUS_EXISTS, "%s: is there already", path)
                           : system_error(err, path, "cannot be made");
  }
  (void)unlink(beside);
  return STATUS_OK;
}

static enum status write_beside(const char *path, struct bytes content, bool may_replace,
                                mode_t mode, struct errmsg *err) {
  enum status st = STATUS_OK;
  char *beside = NULL;
  int fd = -1;

  if (asprintf(&beside, "%s.new.XXXXXX", path) < 0) {
    return errmsg_set(err, STATUS_MEMORY, "%s: no memory", path);
  }
  fd = mkostemp(beside, O_CLOEXEC);  // mode 0600
  if (fd < 0) {
    st = system_error(err, beside, "cannot be made");
    goto out;
  }
  st = mode == PRIVATE_MODE || fchmod(fd, mode) == 0
           ? write_new(fd, beside, content, err)
           : system_error(err, beside, "its mode cannot be set");
  (void)close(fd);
  if (st == STATUS_OK) {
    st = put_in_place(beside, path, may_replace, err);
  }
  if (st != STATUS_OK) {
    int reason = errno;
    (void)unlink(beside);
    errno = reason;
    goto out;
  }
  TRY(sync_folder(path, err));

out:
  free(beside);
  return st;
}

enum status file_replace(const char *path, struct bytes content, struct errmsg *err) {
  return write_beside(path, content, true, PRIVATE_MODE, err);
}

enum status file_replace_public(const char *path, struct bytes content, struct errmsg *err) {
  return write_beside(path, content, true, PUBLIC_MODE, err);
}

enum status file_create(const char *path, struct bytes content, struct errmsg *err) {
  return write_beside(path, content, false, PRIVATE_MODE, err);
}

enum status file_append_sync(const char *path, struct bytes content, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct stat before;
  int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);

  if (fd < 0 || fstat(fd, &before) != 0) {
    st = system_error(err, path, "cannot be opened");
    goto out;
  }
  if (!write_all(fd, content) || fdatasync(fd) != 0) {
    st = system_error(err, path, "cannot be appended to");
    // Half a record would spoil the next one.
    if (S_ISREG(before.st_mode) && ftruncate(fd, before.st_size) != 0) {
      (void)errmsg_set(err, st, "%s: holds half a record, which cannot be cut off", path);
    }
    goto out;
  }
  if (before.st_size == 0) {
    TRY(sync_folder(path, err));  // it may be new
  }

out:
  if (fd >= 0) {
    (void)close(fd);
  }
  return st;
}
