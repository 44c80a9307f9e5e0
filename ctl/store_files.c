// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/wire/cert_der.h"
#include "common/wire/pem_block.h"
#include "ctl/store.h"

#define MAX_DEPTH 8u
#define WINDOW_LEN (4u << 20)  // bytes of a file at a time; many times the longest block
#define MAX_CERTS (STORE_MAX_ISSUERS + 2)  // one too many, so that it is seen

static enum status system_error(struct errmsg *err, const char *path, const char *what) {
  int reason = errno;
  return errmsg_set(err, STATUS_SYSTEM, "%s: %s: %s", path, what, strerror(reason));
}

// --- which files ---------------------------------------------------------------------

static enum status add_file(struct store_files *files, const char *path, uint64_t len,
                            bool is_found) {
  if (files->num == files->room) {
    size_t room = files->room == 0 ? 64 : files->room * 2;
    struct store_file *bigger = realloc(files->files, room * sizeof(*bigger));
    if (bigger == NULL) {
      return STATUS_MEMORY;
    }
    files->files = bigger;
    files->room = room;
  }
  char *copy = strdup(path);
  if (copy == NULL) {
    return STATUS_MEMORY;
  }
  files->files[files->num++] = (struct store_file){copy, len, is_found};
  files->len += len;
  return STATUS_OK;
}

static bool has_suffix(const char *name) {
  static const char *const suffixes[] = {".pem", ".crt", ".cer", ".cert", ".der", ".rsa", ".ecdsa"};
  const char *dot = strrchr(name, '.');
  for (size_t i = 0; dot != NULL && i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
    if (strcmp(dot, suffixes[i]) == 0) {
      return true;
    }
  }
  return false;
}

// exists: is there a file (or folder) `name` in `folder`? Its path goes to `out`.
static bool exists(char out[4096], const char *folder, const char *name, bool is_folder) {
  struct stat is;
  int len = snprintf(out, 4096, "%s/%s", folder, name);
  return len > 0 && len < 4096 && stat(out, &is) == 0 &&
         (is_folder ? S_ISDIR(is.st_mode) : S_ISREG(is.st_mode));
}

static enum status walk(struct store_files *files, const char *path, unsigned depth,
                        struct errmsg *err);

// walk_entries goes through a folder that has no layout of its own.
// NOLINTNEXTLINE(misc-no-recursion): bounded by MAX_DEPTH
static enum status walk_entries(struct store_files *files, const char *path, unsigned depth,
                                struct errmsg *err) {
  enum status st = STATUS_OK;
  struct dirent **entries = NULL;
  int num = scandir(path, &entries, NULL, alphasort);
  if (num < 0) {
    return system_error(err, path, "cannot be read");
  }
  for (int i = 0; i < num; i++) {
    char below[4096];
    struct stat is;
    const char *name = entries[i]->d_name;
    if (st != STATUS_OK || name[0] == '.' ||
        snprintf(below, sizeof(below), "%s/%s", path, name) >= (int)sizeof(below) ||
        stat(below, &is) != 0) {
      continue;
    }
    if (S_ISDIR(is.st_mode)) {
      st = walk(files, below, depth + 1, err);
    } else if (S_ISREG(is.st_mode) && has_suffix(name)) {
      st = add_file(files, below, (uint64_t)is.st_size, true);
    }
  }
  for (int i = 0; i < num; i++) {
    free(entries[i]);
  }
  free(entries);
  return st;
}

// NOLINTNEXTLINE(misc-no-recursion): bounded by MAX_DEPTH
static enum status walk(struct store_files *files, const char *path, unsigned depth,
                        struct errmsg *err) {
  // certbot: live/NAME/fullchain.pem (archive/ has the old ones); acme.sh:
  // NAME/fullchain.cer. Beside them lie leaf, chain and key apart.
  static const char *const full[] = {"fullchain.pem", "fullchain.cer"};
  char below[4096];
  struct stat is;
  if (depth > MAX_DEPTH) {
    return errmsg_set(err, STATUS_LIMIT, "%s: more than %u folders deep", path, MAX_DEPTH);
  }
  if (exists(below, path, "live", true) && exists(below, path, "archive", true)) {
    (void)exists(below, path, "live", true);
    return walk_entries(files, below, depth + 1, err);
  }
  for (size_t i = 0; i < sizeof(full) / sizeof(full[0]); i++) {
    if (exists(below, path, full[i], false) && stat(below, &is) == 0) {
      return add_file(files, below, (uint64_t)is.st_size, true);
    }
  }
  return walk_entries(files, path, depth, err);
}

enum status store_files_add(struct store_files *files, const char *path, struct errmsg *err) {
  struct stat is;
  enum status st = STATUS_OK;
  if (stat(path, &is) != 0) {
    return system_error(err, path, "cannot be read");
  }
  st = S_ISDIR(is.st_mode) ? walk(files, path, 0, err)
                           : add_file(files, path, (uint64_t)is.st_size, false);
  return st == STATUS_MEMORY ? errmsg_set(err, st, "no memory") : st;
}

void store_files_cleanup(struct store_files *files) {
  for (size_t i = 0; i < files->num; i++) {
    free(files->files[i].path);
  }
  free(files->files);
  *files = (struct store_files){0};
}

// --- one file --------------------------------------------------------------------------

struct store_chain_file {
  const char *path;
  int fd;
  bool is_der;
  bool is_all;      // nothing follows what is in the window
  uint8_t *window;  // may hold private keys: wiped
  size_t begin;
  size_t end;
  size_t high;  // the most that was in the window
  uint64_t num_read;
  uint64_t num_keys;
  uint64_t num_others;
  uint64_t num_certs;
  uint8_t *der;  // the certificates of a chain, decoded, and one that was read ahead
  size_t der_len;
  struct bytes ahead;
  bool is_ahead_ca;
};

enum status store_chain_file_open(struct store_chain_file **out, const char *path,
                                  struct errmsg *err) {
  struct store_chain_file *file = calloc(1, sizeof(*file));
  if (file == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  file->path = path;
  file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (file->fd < 0) {
    free(file);
    return system_error(err, path, "cannot be opened");
  }
  file->window = malloc(WINDOW_LEN);
  file->der = malloc((size_t)(MAX_CERTS + 1) * CERT_DER_MAX_LEN);
  if (file->window == NULL || file->der == NULL) {
    store_chain_file_close(file);
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  *out = file;
  return STATUS_OK;
}

void store_chain_file_close(struct store_chain_file *file) {
  if (file == NULL) {
    return;
  }
  if (file->window != NULL && file->num_keys > 0) {
    OPENSSL_cleanse(file->window, file->high);
  }
  (void)close(file->fd);
  free(file->window);
  free(file->der);
  free(file);
}

uint64_t store_chain_file_num_read(const struct store_chain_file *file) { return file->num_read; }
uint64_t store_chain_file_num_keys(const struct store_chain_file *file) { return file->num_keys; }
uint64_t store_chain_file_num_others(const struct store_chain_file *file) {
  return file->num_others;
}

// fill moves what is left to the front and reads as much as there is room for.
static enum status fill(struct store_chain_file *file, struct errmsg *err) {
  memmove(file->window, file->window + file->begin, file->end - file->begin);
  file->end -= file->begin;
  file->begin = 0;
  while (file->end < WINDOW_LEN && !file->is_all) {
    ssize_t n = read(file->fd, file->window + file->end, WINDOW_LEN - file->end);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      return system_error(err, file->path, "cannot be read");
    }
    if (file->num_read == 0 && n > 1) {
      file->is_der = file->window[0] == 0x30 && file->window[1] >= 0x80;
    }
    file->is_all = n == 0;
    file->end += (size_t)n;
    file->high = file->end > file->high ? file->end : file->high;
    file->num_read += (uint64_t)n;
  }
  return STATUS_OK;
}

static enum status damaged(const struct store_chain_file *file, enum status st,
                           struct errmsg *err) {
  return errmsg_set(err, st, "%s: %s %llu is %s", file->path,
                    file->is_der ? "certificate" : "PEM block after certificate",
                    (unsigned long long)file->num_certs + (file->is_der ? 1 : 0),
                    st == STATUS_LIMIT ? "too long" : "damaged");
}

// take_der copies the next certificate of a DER stream behind what is kept.
static enum status take_der(struct store_chain_file *file, struct bytes *out) {
  struct bytes window = bytes_of(file->window + file->begin, file->end - file->begin);
  size_t len = 0;
  if (window.len == 0) {
    return file->is_all ? STATUS_NOT_FOUND : STATUS_AGAIN;
  }
  enum status st = cert_der_measure(&len, window);
  if (st == STATUS_OK && len > window.len) {
    st = STATUS_AGAIN;
  }
  if (st == STATUS_AGAIN && file->is_all) {
    st = STATUS_FORMAT;
  }
  if (st == STATUS_OK) {
    memcpy(file->der + file->der_len, window.data, len);
    *out = bytes_of(file->der + file->der_len, len);
    file->der_len += len;
    file->begin += len;
  }
  return st;
}

// take_pem decodes the next CERTIFICATE block, passing over all others.
static enum status take_pem(struct store_chain_file *file, struct bytes *out) {
  struct bytes text = bytes_of(file->window + file->begin, file->end - file->begin);
  struct pem_block block;
  size_t len = 0;
  enum status st = STATUS_OK;
  while ((st = pem_next(&block, &text, file->is_all)) == STATUS_OK) {
    file->begin = (size_t)(text.data - file->window);
    if (block.kind == PEM_CERTIFICATE) {
      st = pem_decode(file->der + file->der_len, CERT_DER_MAX_LEN, &len, block.body);
      *out = bytes_of(file->der + file->der_len, len);
      file->der_len += len;
      return st;
    }
    file->num_keys += block.kind == PEM_PRIVATE_KEY ? 1 : 0;
    file->num_others += block.kind == PEM_OTHER ? 1 : 0;
  }
  file->begin = (size_t)(text.data - file->window);
  return st == STATUS_NOT_FOUND && !file->is_all ? STATUS_AGAIN : st;
}

// take gives the next certificate. STATUS_NOT_FOUND: there is none any more.
static enum status take(struct store_chain_file *file, struct bytes *out, struct errmsg *err) {
  enum status st = STATUS_AGAIN;
  while (st == STATUS_AGAIN) {
    st = file->is_der ? take_der(file, out) : take_pem(file, out);
    if (st == STATUS_AGAIN) {
      size_t had = file->end - file->begin;
      enum status filled = fill(file, err);
      if (filled != STATUS_OK) {
        return filled;
      }
      if (file->end == had && !file->is_all) {
        return damaged(file, STATUS_LIMIT, err);  // a whole window is no block
      }
    }
  }
  if (st == STATUS_FORMAT || st == STATUS_LIMIT) {
    return damaged(file, st, err);
  }
  file->num_certs += st == STATUS_OK ? 1 : 0;
  return st;
}

// begin_chain makes what was read ahead the first of the next chain.
static enum status begin_chain(struct store_chain_file *file, struct store_chain_item *out,
                               struct errmsg *err) {
  enum status st = STATUS_OK;
  if (file->ahead.len > 0) {
    memmove(file->der, file->ahead.data, file->ahead.len);
    out->certs[0] = bytes_of(file->der, file->ahead.len);
    out->begins_with_ca = file->is_ahead_ca;
    file->der_len = file->ahead.len;
    file->ahead = (struct bytes){0};
  } else {
    file->der_len = 0;
    TRY(take(file, &out->certs[0], err));
    out->begins_with_ca = cert_der_is_ca(out->certs[0]);
  }
  out->num_certs = 1;

out:
  return st;
}

enum status store_chain_file_next(struct store_chain_file *file, struct store_chain_item *out,
                                  struct errmsg *err) {
  enum status st = STATUS_OK;
  out->num_certs = 0;
  TRY(begin_chain(file, out, err));
  while (out->num_certs < MAX_CERTS) {
    struct bytes cert = {0};
    st = take(file, &cert, err);
    if (st == STATUS_NOT_FOUND) {
      return STATUS_OK;
    }
    TRY(st);
    bool is_ca = cert_der_is_ca(cert);
    if (!is_ca) {
      file->ahead = cert;
      file->is_ahead_ca = false;
      return STATUS_OK;
    }
    out->certs[out->num_certs++] = cert;
  }

out:
  return st;
}
