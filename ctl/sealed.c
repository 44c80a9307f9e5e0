// SPDX-License-Identifier: Apache-2.0
// Keys that only the key servers which a policy admits can open: made, made anew for
// other servers, and shown (docs/SEALED-KEYS.md). Files only, no proxy.
#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/file.h"
#include "common/tls/cert.h"
#include "common/tls/sealing.h"
#include "ctl/ctl.h"
#include "ctl/grid.h"
#include "ctl/members.h"

#define SEALED_SUFFIX ".sealed"
#define ID_SHOWN_LEN 8  // bytes of a key id in tables

static enum ctl_exit fail(const struct errmsg *err) {
  (void)fprintf(stderr, "deputyctl: %s\n", err->text);
  return CTL_FAILED;
}

static enum ctl_exit print_json(json_t *json) {
  char *text = json == NULL ? NULL : json_dumps(json, JSON_INDENT(2));
  const enum ctl_exit code = text == NULL ? CTL_FAILED : CTL_DONE;

  if (text == NULL) {
    (void)fprintf(stderr, "deputyctl: no memory for the answer\n");
  } else {
    (void)puts(text);
  }
  free(text);
  json_decref(json);
  return code;
}

// --- identities ------------------------------------------------------------------------------

static enum ctl_exit show_identity(const struct ctl_args *args, const char *path,
                                   const struct sealing_identity *identity) {
  char public_key[SEALING_PUBLIC_TEXT_LEN];
  char id[2 * SEALED_KEY_ID_LEN + 1];

  sealing_public_format(public_key, sealing_identity_public(identity));
  (void)bytes_to_hex(id, bytes_of(sealing_identity_id(identity), SEALED_KEY_ID_LEN));
  if (args->is_json) {
    return print_json(
        json_pack("{s:s,s:s,s:s}", "file", path, "public_key", public_key, "key_id", id));
  }
  (void)printf(
      "key id: %s\nIn the membership file, with the server's own name and attributes:\n"
      "  {\"name\": \"NAME\", \"public_key\": \"%s\",\n"
      "   \"attributes\": [\"region: REGION\", \"country: COUNTRY\"]}\n",
      id, public_key);
  return CTL_DONE;
}

enum ctl_exit ctl_key_identity(const struct ctl_args *args, char *const *words) {
  const bool is_new = strcmp(words[0], "new") == 0;
  const char *path = words[1];
  struct sealing_identity *identity = NULL;
  struct secret pem = {0};
  struct errmsg err = {0};
  enum status st = STATUS_OK;
  enum ctl_exit code = CTL_FAILED;

  if (!is_new && strcmp(words[0], "show") != 0) {
    (void)fprintf(stderr, "deputyctl: key identity %s: neither new nor show\n", words[0]);
    return CTL_USAGE;
  }
  if (is_new) {
    TRY(sealing_identity_new(&identity, &pem, &err));
    TRY(file_create(path, bytes_of(pem.data, pem.len), &err));
    if (!args->is_json) {
      (void)printf("made: %s (for its owner only; it opens every key that is sealed to it)\n",
                   path);
    }
  } else {
    TRY(sealing_identity_read(&identity, path, &err));
  }
  code = show_identity(args, path, identity);

out:
  sealing_identity_free(identity);
  secret_wipe(&pem);
  return st == STATUS_OK ? code : fail(&err);
}

// --- who gets it -------------------------------------------------------------------------------

// What seal and reseal decide by.
struct target {
  struct members members;
  const char *members_path;
  struct region_policy policy;
  struct bytes policy_text;
  struct sealing_recipient recipients[SEALED_KEY_MAX_RECIPIENTS];
  size_t num_recipients;
};

static void target_free(struct target *target) {
  if (target != NULL) {
    members_cleanup(&target->members);
    free(target);
  }
}

static enum status target_new(struct target **out, const char *members_path, struct errmsg *err) {
  struct target *target = calloc(1, sizeof *target);

  *out = target;
  if (target == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  target->members_path = members_path;
  return members_read(&target->members, members_path, err);
}

// warn_of_unknown: a slip in an attribute's name would shut servers out, or leave
// the policy without the part that it was written for.
static void warn_of_unknown(const struct target *target) {
  for (size_t i = 0; i < target->policy.num_terms; i++) {
    const char *name = NULL;
    const char *value = NULL;
    region_policy_term(&name, &value, &target->policy, i);
    if (!members_have(&target->members, name)) {
      (void)fprintf(stderr, "deputyctl: warning: no member in %s has the attribute \"%s\"\n",
                    target->members_path, name);
    }
  }
}

// target_choose finds the members that the policy admits. STATUS_REFUSED: none.
static enum status target_choose(struct target *target, struct bytes policy, struct errmsg *err) {
  enum status st = region_policy_parse(&target->policy, policy, err);

  if (st != STATUS_OK) {
    errmsg_prefix(err, "the policy");
    return STATUS_FORMAT;
  }
  target->policy_text = policy;
  target->num_recipients = members_admitted(target->recipients, &target->members, &target->policy);
  warn_of_unknown(target);
  if (target->num_recipients == 0) {
    return errmsg_set(err, STATUS_REFUSED,
                      "the policy \"%.*s\" admits none of the %zu members in %s: nobody could open "
                      "the key",
                      (int)policy.len, (const char *)policy.data, target->members.num,
                      target->members_path);
  }
  return STATUS_OK;
}

static void print_names(const char *title, const struct target *target) {
  (void)printf("%s:", title);
  for (size_t i = 0; i < target->num_recipients; i++) {
    (void)printf("%s %s", i == 0 ? "" : ",", target->recipients[i].name);
  }
  (void)printf(" (%zu of %zu members)\n", target->num_recipients, target->members.num);
}

// --- seal --------------------------------------------------------------------------------------

// label_of: NAME of NAME.sealed. STATUS_FORMAT: it is none, or no label.
static enum status label_of(char out[NAME_MAX + 1], const char *path, struct errmsg *err) {
  const char *slash = strrchr(path, '/');
  const char *name = slash == NULL ? path : slash + 1;
  const size_t len = strlen(name);
  const size_t suffix_len = strlen(SEALED_SUFFIX);

  if (len <= suffix_len || len > NAME_MAX || strcmp(name + len - suffix_len, SEALED_SUFFIX) != 0) {
    return errmsg_set(err, STATUS_FORMAT, "%s: key servers look for NAME" SEALED_SUFFIX, path);
  }
  (void)snprintf(out, NAME_MAX + 1, "%.*s", (int)(len - suffix_len), name);
  if (!keygen_label_is_good(bytes_text(out))) {
    return errmsg_set(
        err, STATUS_FORMAT,
        "%s: NAME becomes the key's label: up to %u letters, digits, \".\", \"_\" and "
        "\"-\", a letter or digit first",
        path, KEYGEN_MAX_LABEL_LEN);
  }
  return STATUS_OK;
}

enum ctl_exit ctl_key_seal(const struct ctl_args *args, char *const *words) {
  struct target *target = NULL;
  EVP_PKEY *key = NULL;
  char label[NAME_MAX + 1];
  char *text = NULL;
  size_t len = 0;
  struct errmsg err = {0};
  bool is_usage = true;
  enum status st = STATUS_OK;

  TRY(label_of(label, words[1], &err));
  is_usage = false;
  TRY(target_new(&target, args->members, &err));
  st = target_choose(target, bytes_text(args->policy), &err);
  is_usage = st == STATUS_FORMAT;
  TRY(st);
  TRY(key_read(&key, words[0], &err));
  TRY(sealing_seal(&text, &len, key, label, target->policy_text, target->recipients,
                   target->num_recipients, &err));
  TRY(file_create(words[1], bytes_of(text, len), &err));
  (void)printf("sealed: %s\n", words[1]);
  print_names("can open it", target);
  (void)printf(
      "%s still holds the key in the clear: remove it when the key servers have loaded "
      "this one.\n",
      words[0]);

out:
  free(text);
  EVP_PKEY_free(key);
  target_free(target);
  if (st != STATUS_OK) {
    (void)fail(&err);
    return is_usage ? CTL_USAGE : CTL_FAILED;
  }
  return CTL_DONE;
}

// --- files ---------------------------------------------------------------------------------------

struct loaded {
  struct sealed_key *sealed;
  uint8_t *bytes;  // what it borrows from
};

static void loaded_cleanup(struct loaded *loaded) {
  free(loaded->sealed);
  free(loaded->bytes);
}

static enum status load(struct loaded *out, const char *path, struct errmsg *err) {
  uint8_t *text = NULL;
  size_t len = 0;
  enum status st = STATUS_OK;

  *out = (struct loaded){0};
  TRY(file_read(&text, &len, path, SEALED_KEY_FILE_MAX_LEN, err));
  st = sealing_read(&out->sealed, &out->bytes, bytes_of(text, len), err);
  if (st != STATUS_OK) {
    errmsg_prefix(err, "%s", path);
  }

out:
  free(text);
  return st;
}

// --- reseal --------------------------------------------------------------------------------------

static bool is_recipient(const struct target *target, const uint8_t *key_id) {
  uint8_t id[SEALED_KEY_ID_LEN];
  for (size_t i = 0; i < target->num_recipients; i++) {
    sealing_key_id(id, target->recipients[i].public_key);
    if (memcmp(id, key_id, sizeof id) == 0) {
      return true;
    }
  }
  return false;
}

// warn_of_removed: encrypting anew takes nothing away from who had the old file.
static void warn_of_removed(const struct target *target, const struct sealed_key *before,
                            const char *path) {
  for (size_t i = 0; i < before->num_recipients; i++) {
    const struct sealed_recipient *r = &before->recipients[i];
    if (!is_recipient(target, r->key_id)) {
      (void)fprintf(stderr,
                    "deputyctl: warning: %s: %.*s cannot open it any more, but can still open a "
                    "copy of what it was; if that server is not trusted, replace the key and its "
                    "certificate\n",
                    path, (int)r->name.len, (const char *)r->name.data);
    }
  }
}

// put_back replaces the file and leaves it to whom it belonged.
static enum status put_back(const char *path, const char *text, size_t len, struct errmsg *err) {
  struct stat before;
  enum status st = STATUS_OK;

  if (stat(path, &before) != 0) {
    return errmsg_set(err, STATUS_SYSTEM, "%s: %s", path, strerror(errno));
  }
  TRY(file_replace(path, bytes_of(text, len), err));
  if ((before.st_uid != geteuid() || before.st_gid != getegid()) &&
      chown(path, before.st_uid, before.st_gid) != 0) {
    st =
        errmsg_set(err, STATUS_SYSTEM, "%s: sealed anew, but cannot be given back to its owner: %s",
                   path, strerror(errno));
    goto out;
  }
  if (chmod(path, before.st_mode & 07777) != 0) {
    st = errmsg_set(err, STATUS_SYSTEM, "%s: sealed anew, but its mode cannot be set: %s", path,
                    strerror(errno));
  }

out:
  return st;
}

// reseal opens the key in memory and seals it under a fresh content key. *is_usage:
// what is wrong is the policy of the command line.
static enum status reseal(struct target *target, const struct ctl_args *args,
                          const struct sealing_identity *identity, const char *path,
                          struct errmsg *err) {
  struct loaded loaded = {0};
  EVP_PKEY *key = NULL;
  char label[KEYGEN_MAX_LABEL_LEN + 1];
  char *text = NULL;
  size_t len = 0;
  enum status st = STATUS_OK;

  TRY(load(&loaded, path, err));
  st = target_choose(
      target, args->policy != NULL ? bytes_text(args->policy) : loaded.sealed->policy_text, err);
  if (st == STATUS_OK) {
    st = sealing_open(&key, loaded.sealed, identity, err);
  }
  if (st != STATUS_OK) {
    errmsg_prefix(err, "%s", path);
    goto out;
  }
  (void)snprintf(label, sizeof label, "%.*s", (int)loaded.sealed->label.len,
                 (const char *)loaded.sealed->label.data);
  TRY(sealing_seal(&text, &len, key, label, target->policy_text, target->recipients,
                   target->num_recipients, err));
  TRY(put_back(path, text, len, err));
  (void)printf("resealed: %s\n", path);
  print_names("can open it", target);
  warn_of_removed(target, loaded.sealed, path);

out:
  free(text);
  EVP_PKEY_free(key);
  loaded_cleanup(&loaded);
  return st;
}

enum ctl_exit ctl_key_reseal(const struct ctl_args *args, char *const *words) {
  struct target *target = NULL;
  struct sealing_identity *identity = NULL;
  struct errmsg err = {0};
  enum ctl_exit code = CTL_DONE;
  enum status st = STATUS_OK;

  if (args->policy != NULL) {  // before any file is touched
    struct region_policy policy;
    if (region_policy_parse(&policy, bytes_text(args->policy), &err) != STATUS_OK) {
      errmsg_prefix(&err, "the policy");
      (void)fail(&err);
      return CTL_USAGE;
    }
  }
  TRY(target_new(&target, args->members, &err));
  TRY(sealing_identity_read(&identity, args->identity, &err));
  // One that fails is as it was; the others are done all the same.
  for (size_t i = 0; i < args->num_words - 1; i++) {
    if (reseal(target, args, identity, words[i], &err) != STATUS_OK) {
      code = fail(&err);
    }
  }

out:
  sealing_identity_free(identity);
  target_free(target);
  return st == STATUS_OK ? code : fail(&err);
}

// --- inspect -------------------------------------------------------------------------------------

// What is told of the key itself.
struct about {
  const char *kind;
  char ski[2 * 20 + 1];
  char key_id[2 * 32 + 1];
};

static void describe(struct about *out, struct bytes spki) {
  uint8_t key_id[32];
  uint8_t ski[20];

  *out = (struct about){.kind = key_kind_name(key_kind_of_spki(spki))};
  if (key_identify_spki(key_id, ski, spki) == STATUS_OK) {
    (void)bytes_to_hex(out->ski, bytes_of(ski, sizeof ski));
    (void)bytes_to_hex(out->key_id, bytes_of(key_id, sizeof key_id));
  }
}

static json_t *json_of(const char *path, const struct sealed_key *sealed) {
  struct about about;
  json_t *recipients = json_array();

  describe(&about, sealed->spki);
  for (size_t i = 0; i < sealed->num_recipients; i++) {
    const struct sealed_recipient *r = &sealed->recipients[i];
    char id[2 * SEALED_KEY_ID_LEN + 1];
    (void)bytes_to_hex(id, bytes_of(r->key_id, SEALED_KEY_ID_LEN));
    (void)json_array_append_new(
        recipients, json_pack("{s:s%,s:s}", "name", r->name.data, r->name.len, "key_id", id));
  }
  return json_pack("{s:s,s:s%,s:s%,s:s,s:s,s:s,s:i,s:o}", "file", path, "label", sealed->label.data,
                   sealed->label.len, "policy", sealed->policy_text.data, sealed->policy_text.len,
                   "kind", about.kind, "ski", about.ski, "spki_sha256", about.key_id, "version",
                   SEALED_KEY_VERSION, "recipients", recipients);
}

static bool print_about(const char *path, const struct sealed_key *sealed) {
  static const char *const heading[] = {"CAN OPEN IT", "KEY ID", NULL};
  struct about about;
  struct grid grid;

  describe(&about, sealed->spki);
  (void)printf("file: %s\nlabel: %.*s\npolicy: %.*s\nkind: %s\nSKI: %s\nkey id: %s\n", path,
               (int)sealed->label.len, (const char *)sealed->label.data,
               (int)sealed->policy_text.len, (const char *)sealed->policy_text.data, about.kind,
               about.ski, about.key_id);
  grid_init(&grid, heading);
  for (size_t i = 0; i < sealed->num_recipients; i++) {
    const struct sealed_recipient *r = &sealed->recipients[i];
    char id[2 * ID_SHOWN_LEN + 1];
    grid_addf(&grid, "%.*s", (int)r->name.len, (const char *)r->name.data);
    grid_add(&grid, bytes_to_hex(id, bytes_of(r->key_id, ID_SHOWN_LEN)));
  }
  return grid_print(&grid, stdout);
}

// Who could not open a file although he may, or could although he may not: names.
struct due {
  json_t *missing;
  json_t *surplus;
};

static bool is_due(const struct due *due) {
  return json_array_size(due->missing) > 0 || json_array_size(due->surplus) > 0;
}

// find_due holds the file against the membership file of today.
static void find_due(struct due *out, struct target *target, const struct sealed_key *sealed) {
  uint8_t id[SEALED_KEY_ID_LEN];

  *out = (struct due){json_array(), json_array()};
  target->num_recipients = members_admitted(target->recipients, &target->members, &sealed->policy);
  for (size_t i = 0; i < target->num_recipients; i++) {
    sealing_key_id(id, target->recipients[i].public_key);
    if (sealed_key_find(sealed, id) == NULL) {
      (void)json_array_append_new(out->missing, json_string(target->recipients[i].name));
    }
  }
  for (size_t i = 0; i < sealed->num_recipients; i++) {
    const struct sealed_recipient *r = &sealed->recipients[i];
    if (!is_recipient(target, r->key_id)) {
      (void)json_array_append_new(out->surplus,
                                  json_stringn((const char *)r->name.data, r->name.len));
    }
  }
}

static void print_due(const struct due *due) {
  json_t *name = NULL;
  size_t i = 0;

  json_array_foreach (due->missing, i, name) {
    (void)printf("reseal: %s may open it, but cannot yet\n", json_string_value(name));
  }
  json_array_foreach (due->surplus, i, name) {
    (void)printf("reseal: %s can open it, but may not any more\n", json_string_value(name));
  }
}

// inspect shows one file; *out is its JSON, or NULL when it was printed. `target` NULL:
// nothing to hold it against.
static enum ctl_exit inspect(json_t **out, const char *path, struct target *target,
                             const struct ctl_args *args) {
  struct loaded loaded = {0};
  struct due due = {0};
  struct errmsg err = {0};
  enum ctl_exit code = CTL_DONE;

  *out = NULL;
  if (load(&loaded, path, &err) != STATUS_OK) {
    loaded_cleanup(&loaded);
    return fail(&err);
  }
  if (target != NULL) {
    find_due(&due, target, loaded.sealed);
    code = is_due(&due) ? CTL_NOT_READY : CTL_DONE;
  }
  if (args->is_json) {
    *out = json_of(path, loaded.sealed);
    if (target != NULL) {
      (void)json_object_set(*out, "missing", due.missing);
      (void)json_object_set(*out, "surplus", due.surplus);
    }
  } else if (!print_about(path, loaded.sealed)) {
    code = CTL_FAILED;
  } else {
    print_due(&due);
  }
  json_decref(due.missing);
  json_decref(due.surplus);
  loaded_cleanup(&loaded);
  return code;
}

// worse: what cannot be read comes before what is to be sealed anew.
static enum ctl_exit worse(enum ctl_exit a, enum ctl_exit b) {
  return a == CTL_FAILED || b == CTL_DONE ? a : b;
}

enum ctl_exit ctl_key_inspect(const struct ctl_args *args, char *const *words) {
  json_t *list = json_array();
  struct target *target = NULL;
  struct errmsg err = {0};
  enum ctl_exit code = CTL_DONE;
  enum status st = STATUS_OK;

  if (args->members != NULL) {
    TRY(target_new(&target, args->members, &err));
  }
  for (size_t i = 0; i < args->num_words - 1; i++) {
    json_t *json = NULL;
    if (i > 0 && !args->is_json) {
      (void)puts("");
    }
    code = worse(code, inspect(&json, words[i], target, args));
    if (json != NULL) {
      (void)json_array_append_new(list, json);
    }
  }
  if (args->is_json) {
    code = worse(code, print_json(json_pack("{s:O}", "sealed_keys", list)));
  }

out:
  json_decref(list);
  target_free(target);
  return st == STATUS_OK ? code : fail(&err);
}
