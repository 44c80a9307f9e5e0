// SPDX-License-Identifier: Apache-2.0
#include "common/base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/mem.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/sandbox.h"

enum status secret_alloc(struct secret *out, size_t len) {
  *out = (struct secret){0};
  out->data = calloc(1, len + 1);  // one more: an empty secret has an address too
  if (out->data == NULL) {
    return STATUS_MEMORY;
  }
  out->len = len;
  return STATUS_OK;
}

void secret_wipe(struct secret *s) {
  if (s->data != NULL) {
    OPENSSL_cleanse(s->data, s->len);
    free(s->data);
  }
  *s = (struct secret){0};
}

// Looks at the open descriptor, not at the path, which could change between.
static enum status check_file(int fd, const char *path, size_t max, bool must_be_private,
                              size_t *out_size, struct errmsg *err) {
  struct stat info;
  if (fstat(fd, &info) != 0) {
    return errmsg_set(err, STATUS_SYSTEM, "%s: cannot be examined: %s", path, strerror(errno));
  }
  if (!S_ISREG(info.st_mode)) {
    return errmsg_set(err, STATUS_REFUSED, "%s: is not a regular file", path);
  }
  if (must_be_private && (info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return errmsg_set(err, STATUS_REFUSED,
                      "%s: mode %04o lets others than its owner use it; set it to 0600 or 0400",
                      path, (unsigned)info.st_mode & 07777U);
  }
  if (info.st_size < 0 || (uint64_t)info.st_size > max) {
    return errmsg_set(err, STATUS_LIMIT, "%s: is longer than %zu bytes", path, max);
  }
  *out_size = (size_t)info.st_size;
  return STATUS_OK;
}

// Reads until the end of the file or of `s`; *out_len says how much.
static enum status read_into(struct secret *s, size_t *out_len, int fd, const char *path,
                             struct errmsg *err) {
  size_t len = 0;
  while (len < s->len) {
    ssize_t n = read(fd, s->data + len, s->len - len);
    if (n == 0) {
      break;
    }
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      return errmsg_set(err, STATUS_SYSTEM, "%s: cannot be read: %s", path, strerror(errno));
    }
    len += (size_t)n;
  }
  *out_len = len;
  return STATUS_OK;
}

enum status secret_read_file(struct secret *out, const char *path, size_t max, bool must_be_private,
                             struct errmsg *err) {
  enum status st = STATUS_OK;
  size_t size = 0;
  size_t len = 0;
  int fd = -1;

  *out = (struct secret){0};
  // O_NONBLOCK: a FIFO in the place of a key must not hold the program up.
  fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0) {
    return errmsg_set(err, STATUS_SYSTEM, "%s: cannot be opened: %s%s", path, strerror(errno),
                      sandbox_hint(errno));
  }
  TRY(check_file(fd, path, max, must_be_private, &size, err));
  st = secret_alloc(out, size + 1);  // one more shows whether the file has grown
  if (st != STATUS_OK) {
    (void)errmsg_set(err, st, "%s: no memory for %zu bytes", path, size);
    goto out;
  }
  TRY(read_into(out, &len, fd, path, err));
  if (len > size) {
    st = errmsg_set(err, STATUS_LIMIT, "%s: grew while it was read", path);
    goto out;
  }
  out->len = len;  // what lies behind is still zero

out:
  (void)close(fd);
  if (st != STATUS_OK) {
    secret_wipe(out);
  }
  return st;
}
