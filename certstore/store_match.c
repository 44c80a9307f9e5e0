// SPDX-License-Identifier: Apache-2.0
// The subject of a switch, by what a person typed.
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "certstore/certstore_private.h"
#include "certstore/store_private.h"

#define ID_MIN_DIGITS 8u  // of a prefix that names a key or CA
#define ISSUED_NO_LEAF                                                                     \
  "the CA \"%.100s\" issued no leaf here: switch the CAs below it, which did (`deputyctl " \
  "store cas` lists them)"

struct match {
  const char *typed;
  char prefix[65];  // hex, lower case; "": by name
  uint8_t found[32];
  unsigned num;
  unsigned num_issuers;  // CAs with this key, whatever they issued
  char subject[CERT_TEXT_LEN];
  const struct store_reader *reader;
};

static void note_match(struct match *match, const uint8_t id[32]) {
  if (match->num == 0 || memcmp(match->found, id, 32) != 0) {
    memcpy(match->found, id, 32);
    match->num++;
  }
}

// A leaf names its CA by key identifier, or else by name: which of the two is it here?
static void match_certificate(struct match *match, const struct cert_ca *ca) {
  struct store_ca found;
  if (ca->has_key_identifier && store_get_ca(match->reader, &found, ca->id_by_key) == STATUS_OK) {
    note_match(match, ca->id_by_key);
  }
  if (store_get_ca(match->reader, &found, ca->id_by_name) == STATUS_OK) {
    note_match(match, ca->id_by_name);
  }
}

static bool on_ca(void *arg, const uint8_t ca_id[32], const struct store_ca *ca) {
  struct match *match = arg;
  char hex[65];
  (void)bytes_to_hex(hex, bytes_of(ca_id, 32));
  bool is_it = match->prefix[0] != '\0' ? strncmp(hex, match->prefix, strlen(match->prefix)) == 0
                                        : ca->issuer.len == strlen(match->typed) &&
                                              strncasecmp((const char *)ca->issuer.data,
                                                          match->typed, ca->issuer.len) == 0;
  if (is_it) {
    note_match(match, ca_id);
  }
  return match->num < 2;
}

// match_keys looks along the keys from the first that begins so.
static enum status match_keys(const struct store_reader *reader, struct match *match) {
  MDB_cursor *cursor = NULL;
  uint8_t start[32] = {0};
  char even[65];
  size_t len = strlen(match->prefix);
  (void)snprintf(even, sizeof(even), "%.*s", (int)(len - len % 2), match->prefix);
  if (bytes_from_hex(start, len / 2, even) != STATUS_OK ||
      mdb_cursor_open(reader->chains, reader->store->tables[TABLE_KEYS], &cursor) != 0) {
    return STATUS_MEMORY;
  }
  MDB_val key = store_val(bytes_of(start, len / 2));
  MDB_val value = {0};
  int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
  while (rc == 0 && key.mv_size == 32 + STORE_ID_LEN && match->num < 2) {
    char hex[65];
    (void)bytes_to_hex(hex, bytes_of(key.mv_data, 32));
    if (strncmp(hex, match->prefix, len - len % 2) != 0) {
      break;
    }
    if (strncmp(hex, match->prefix, len) == 0) {
      note_match(match, key.mv_data);
    }
    rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
  }
  mdb_cursor_close(cursor);
  return rc == 0 || rc == MDB_NOTFOUND ? STATUS_OK : STATUS_FORMAT;
}

// match_issuers looks among the certificates of CAs for a key (SHA-256 of its
// SubjectPublicKeyInfo) that begins so.
static bool on_issuer(void *arg, struct bytes key, struct bytes der) {
  struct match *match = arg;
  struct cert_ca ca;
  char hex[65];
  (void)key;
  if (cert_ca_read(&ca, der, NULL) != STATUS_OK) {
    return true;  // for `store verify`
  }
  (void)bytes_to_hex(hex, bytes_of(ca.key_id, 32));
  if (strncmp(hex, match->prefix, strlen(match->prefix)) == 0) {
    match->num_issuers++;
    (void)snprintf(match->subject, sizeof(match->subject), "%s", ca.subject);
    match_certificate(match, &ca);
  }
  return match->num < 2;
}

static void read_prefix(struct match *match) {
  size_t len = strlen(match->typed);
  if (len < ID_MIN_DIGITS || len > 64 || strspn(match->typed, "0123456789abcdefABCDEF") != len) {
    return;
  }
  for (size_t i = 0; i < len; i++) {
    char c = match->typed[i];
    match->prefix[i] = (char)(c >= 'A' && c <= 'F' ? c | 0x20 : c);
  }
}

static enum status match_id(uint8_t out[STATE_SUBJECT_MAX_LEN], size_t *out_len,
                            const struct store_reader *reader, enum state_level level,
                            const char *typed, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct match match = {.typed = typed, .reader = reader};
  const char *what = level == STATE_LEVEL_KEY ? "key" : "CA";
  read_prefix(&match);
  if (level == STATE_LEVEL_KEY && match.prefix[0] == '\0') {
    return errmsg_set(err, STATUS_NOT_FOUND,
                      "\"%.100s\" names no key: give at least %u hex digits of a key id", typed,
                      ID_MIN_DIGITS);
  }
  st = level == STATE_LEVEL_KEY ? match_keys(reader, &match) : store_each_ca(reader, on_ca, &match);
  if (st == STATUS_OK && level == STATE_LEVEL_CA && match.num == 0 && match.prefix[0] != '\0') {
    st = store_walk(reader->chains, reader->store->tables[TABLE_ISSUERS], on_issuer, &match);
  }
  if (st != STATUS_OK) {
    return errmsg_set(err, st, "the store cannot be read: see `deputyctl store verify`");
  }
  if (match.num == 0 && match.num_issuers > 0) {
    return errmsg_set(err, STATUS_NOT_FOUND, ISSUED_NO_LEAF, match.subject);
  }
  if (match.num == 0) {
    return errmsg_set(err, STATUS_NOT_FOUND, "no chain here has the %s \"%.100s\"", what, typed);
  }
  if (match.num > 1) {
    return errmsg_set(err, STATUS_FORMAT,
                      "\"%.100s\" names more than one %s: give more digits of the id", typed, what);
  }
  memcpy(out, match.found, 32);
  *out_len = 32;
  return STATUS_OK;
}

enum status store_match(uint8_t out[STATE_SUBJECT_MAX_LEN], size_t *out_len,
                        const struct store_reader *reader, enum state_level level,
                        const char *typed, struct errmsg *err) {
  struct host host;
  struct store_name name;
  *out_len = 0;
  if (level == STATE_LEVEL_FLEET) {
    return STATUS_OK;
  }
  if (level != STATE_LEVEL_NAME) {
    return match_id(out, out_len, reader, level, typed, err);
  }
  if (!host_read(&host, bytes_text(typed), true) ||
      store_find_exact(reader, &name, bytes_of(host.text, host.len)) != STATUS_OK) {
    return errmsg_set(err, STATUS_NOT_FOUND, "\"%.253s\" is not a name in this store", typed);
  }
  memcpy(out, host.text, host.len);
  *out_len = host.len;
  return STATUS_OK;
}

enum status store_match_ca(uint8_t out[32], const struct store_reader *reader,
                           const struct cert_ca *ca, struct errmsg *err) {
  struct match match = {.reader = reader};
  match_certificate(&match, ca);
  if (match.num != 1) {
    return errmsg_set(err, match.num == 0 ? STATUS_NOT_FOUND : STATUS_FORMAT,
                      match.num == 0 ? ISSUED_NO_LEAF
                                     : "leaves name the CA \"%.100s\" in two ways here: give the "
                                       "id of one (`deputyctl store cas`)",
                      ca->subject);
  }
  memcpy(out, match.found, 32);
  return STATUS_OK;
}
