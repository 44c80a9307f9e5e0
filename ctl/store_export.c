// SPDX-License-Identifier: Apache-2.0
// What is in the store as PEM, laid out as certbot does: LEVEL/live/NAME/fullchain.pem,
// with the staple beside it. Importing LEVEL/live with --level LEVEL brings it back.
#include <errno.h>
#include <inttypes.h>
#include <openssl/base64.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "certstore/chain.h"
#include "common/base/file.h"
#include "ctl/store.h"

#define LINE_LEN 64u  // RFC 7468, section 2

struct export {
  const struct store_args *args;
  const struct store_reader *reader;
  struct store_progress progress;
  int only_level;  // -1: all
  uint64_t num_names;
  uint64_t num_all;
  uint64_t num_chains;
  enum status st;
  struct errmsg *err;
};

static enum status append_pem(FILE *file, struct bytes der) {
  char *text = bytes_to_base64(der);
  if (text == NULL) {
    return STATUS_MEMORY;
  }
  (void)fprintf(file, "-----BEGIN CERTIFICATE-----\n");
  for (size_t at = 0, len = strlen(text); at < len; at += LINE_LEN) {
    (void)fprintf(file, "%.*s\n", (int)LINE_LEN, text + at);
  }
  (void)fprintf(file, "-----END CERTIFICATE-----\n");
  free(text);
  return STATUS_OK;
}

// make_text writes the whole chain to new memory.
static enum status make_text(struct export *export, const struct store_chain *chain, char **out,
                             size_t *out_len) {
  enum status st = STATUS_OK;
  FILE *file = open_memstream(out, out_len);
  if (file == NULL) {
    return STATUS_MEMORY;
  }
  TRY(append_pem(file, chain->leaf));
  for (size_t i = 0; i < chain->num_issuers; i++) {
    struct bytes der;
    TRY(store_get_issuer(export->reader, &der, chain->issuers.data + 32 * i));
    TRY(append_pem(file, der));
  }

out:
  return fclose(file) == 0 ? st : STATUS_MEMORY;
}

static enum status make_folder(char *path, size_t max, size_t *len, const char *name,
                               struct errmsg *err) {
  int n = snprintf(path + *len, max - *len, "%s%s", *len == 0 ? "" : "/", name);
  if (n < 0 || (size_t)n >= max - *len) {
    return errmsg_set(err, STATUS_LIMIT, "%s: the path is too long", path);
  }
  *len += (size_t)n;
  if (mkdir(path, 0755) != 0 && errno != EEXIST) {
    return errmsg_set(err, STATUS_SYSTEM, "%s: cannot be made: %s", path, strerror(errno));
  }
  return STATUS_OK;
}

static enum status write_file(const char *folder, const char *name, struct bytes content,
                              struct errmsg *err) {
  char path[4096];
  if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path)) {
    return errmsg_set(err, STATUS_LIMIT, "%s: the path is too long", folder);
  }
  FILE *file = fopen(path, "we");
  if (file == NULL) {
    return errmsg_set(err, STATUS_SYSTEM, "%s: cannot be written: %s", path, strerror(errno));
  }
  size_t written = fwrite(content.data, 1, content.len, file);
  if (fclose(file) != 0 || written != content.len) {
    return errmsg_set(err, STATUS_SYSTEM, "%s: cannot be written: %s", path, strerror(errno));
  }
  return STATUS_OK;
}

// The wildcard's star does no good in a folder's name: certbot leaves it out. Here it is
// "_", which no certificate's name begins with.
static void folder_of(char out[STORE_NAME_MAX_LEN + 1], struct bytes name) {
  (void)snprintf(out, STORE_NAME_MAX_LEN + 1, "%.*s", (int)name.len, (const char *)name.data);
  out[0] = out[0] == '*' ? '_' : out[0];
}

static enum status export_slot(struct export *export, struct bytes name,
                               const struct store_slot *slot) {
  enum status st = STATUS_OK;
  char path[4096] = "";
  char folder[STORE_NAME_MAX_LEN + 1];
  char *text = NULL;
  size_t text_len = 0;
  size_t len = 0;
  struct store_chain chain;
  struct store_staple staple;
  bool is_rsa = slot->facts.kind == KEY_KIND_RSA;

  folder_of(folder, name);
  TRY(make_folder(path, sizeof(path), &len, export->args->words[0], export->err));
  TRY(make_folder(path, sizeof(path), &len, store_level_name(slot->level), export->err));
  TRY(make_folder(path, sizeof(path), &len, is_rsa ? "live-rsa" : "live", export->err));
  TRY(make_folder(path, sizeof(path), &len, folder, export->err));
  st = store_get_chain(export->reader, &chain, slot->chain_id);
  st = st != STATUS_OK ? st : make_text(export, &chain, &text, &text_len);
  if (st != STATUS_OK) {
    TRY(errmsg_set(export->err, st,
                   "%s: its chain cannot be read (%s): see `deputyctl store verify`", folder,
                   status_name(st)));
  }
  TRY(write_file(path, "fullchain.pem", bytes_of(text, text_len), export->err));
  if (store_get_staple(export->reader, &staple, slot->chain_id) == STATUS_OK) {
    TRY(write_file(path, "fullchain.pem" CHAIN_STAPLE_SUFFIX, staple.response, export->err));
  }
  export->num_chains++;

out:
  free(text);
  return st;
}

static bool on_name(void *arg, struct bytes key, const struct store_name *name) {
  struct export *export = arg;
  export->num_names++;
  for (size_t i = 0; i < name->num_slots && export->st == STATUS_OK; i++) {
    if (export->only_level < 0 || name->slots[i].level == export->only_level) {
      export->st = export_slot(export, key, &name->slots[i]);
    }
  }
  store_progress_show(&export->progress, export->num_names, export->num_all, export->num_names,
                      "names");
  return export->st == STATUS_OK;
}

static enum status export_one(struct export *export, const char *typed) {
  enum status st = STATUS_OK;
  struct store_name name;
  char host[STORE_NAME_MAX_LEN + 1];
  TRY(store_host(host, typed, export->err));
  if (store_find_exact(export->reader, &name, bytes_text(host)) != STATUS_OK) {
    TRY(errmsg_set(export->err, STATUS_NOT_FOUND, "\"%s\" is not a name in this store", host));
  }
  (void)on_name(export, bytes_text(host), &name);

out:
  return st;
}

enum ctl_exit store_run_export(const struct store_args *args) {
  struct errmsg err = {0};
  struct export export = {.args = args, .only_level = -1, .err = &err};
  struct store *store = NULL;
  struct store_reader *reader = NULL;
  struct store_counts counts;
  unsigned level = 0;
  enum status st = STATUS_OK;

  if (args->level != NULL) {
    if (store_level_from_name(&level, args->level) != STATUS_OK) {
      (void)errmsg_set(&err, STATUS_CONFIG,
                       "\"%s\" is no level: primary, backup, spare2 ... spare7", args->level);
      (void)store_complain(&err);
      return CTL_USAGE;
    }
    export.only_level = (int)level;
  }
  TRY(store_begin(&store, &reader, args, STORE_READ, &err));
  TRY(store_count(&counts, reader, &err));
  export.reader = reader;
  export.num_all = counts.num_names;
  store_progress_begin(&export.progress, args, "export");
  st = args->name != NULL ? export_one(&export, args->name)
                          : store_each_name(reader, on_name, &export);
  store_progress_end(&export.progress);
  TRY(st);
  TRY(export.st);
  if (args->is_json) {
    store_print_json(json_pack("{s:I, s:I}", "names", (json_int_t) export.num_names, "chains",
                               (json_int_t) export.num_chains));
  } else {
    (void)printf("exported %" PRIu64 " chains of %" PRIu64 " names\n", export.num_chains,
                 export.num_names);
  }

out:
  store_end(store, reader);
  return st == STATUS_OK ? CTL_DONE : store_complain(&err);
}
