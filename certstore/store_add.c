// SPDX-License-Identifier: Apache-2.0
// One chain: is it one, and what is new of it? Its certificates go into the file as they
// come, at its end; the rest waits (store_pending.c).
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "certstore/certstore_private.h"
#include "certstore/store_txn.h"
#include "common/tls/cert.h"

// --- issuers and CAs -----------------------------------------------------------------

static void forget_issuer(struct known_issuer *issuer) {
  free(issuer->der);
  *issuer = (struct known_issuer){0};
}

void store_txn_forget_issuers(struct store_txn *txn) {
  for (size_t i = 0; i < STORE_TXN_CACHE_NUM; i++) {
    forget_issuer(&txn->issuers[i]);
  }
}

// find_issuer lends what is known of these bytes, reading and keeping them if they are
// new.
static enum status find_issuer(struct store_txn *txn, struct known_issuer **out, struct bytes der,
                               struct errmsg *err) {
  enum status st = STATUS_OK;
  for (size_t i = 0; i < STORE_TXN_CACHE_NUM; i++) {
    struct known_issuer *known = &txn->issuers[i];
    if (known->der != NULL && bytes_equal(bytes_of(known->der, known->len), der)) {
      *out = known;
      return STATUS_OK;
    }
  }
  struct known_issuer *made = &txn->issuers[txn->num_issuers++ % STORE_TXN_CACHE_NUM];
  forget_issuer(made);
  made->der = bytes_copy(der);
  if (made->der == NULL) {
    return store_txn_no_memory(err);
  }
  made->len = der.len;
  st = cert_der_parse(&made->cert, bytes_of(made->der, made->len));
  if (st != STATUS_OK) {
    TRY(errmsg_set(err, st, "a certificate after the leaf does not parse"));
  }
  SHA256(made->der, made->len, made->sha256);
  TRY(store_txn_put(txn, TABLE_ISSUERS, bytes_of(made->sha256, 32), bytes_of(made->der, made->len),
                    MDB_NOOVERWRITE, err));
  *out = made;

out:
  if (st != STATUS_OK) {
    forget_issuer(made);
  }
  return st;
}

// note_ca keeps the name of a CA that is new: the one time that texts are read.
static enum status note_ca(struct store_txn *txn, const uint8_t ca_id[32], struct bytes leaf,
                           struct errmsg *err) {
  enum status st = STATUS_OK;
  struct cert_info info = {0};
  struct bytes there;
  uint8_t record[STORE_CA_RECORD_MAX_LEN];
  size_t len = 0;
  for (size_t i = 0; i < txn->num_cas && i < STORE_TXN_CACHE_NUM; i++) {
    if (memcmp(txn->cas[i], ca_id, 32) == 0) {
      return STATUS_OK;
    }
  }
  if (store_txn_get(txn, TABLE_CAS, bytes_of(ca_id, 32), &there) != STATUS_OK) {
    TRY(cert_info_read(&info, leaf, err));
    const struct store_ca ca = {.issuer = bytes_text(info.issuer)};
    TRY(store_ca_encode(record, sizeof(record), &len, &ca));
    TRY(store_txn_put(txn, TABLE_CAS, bytes_of(ca_id, 32), bytes_of(record, len), MDB_NOOVERWRITE,
                      err));
  }
  memcpy(txn->cas[txn->num_cas++ % STORE_TXN_CACHE_NUM], ca_id, 32);

out:
  cert_info_cleanup(&info);
  return st;
}

// --- one chain -----------------------------------------------------------------------

static void read_facts(struct store_facts *out, const struct cert_der *cert) {
  *out = (struct store_facts){
      .kind = cert->kind,
      .has_delegation_usage = cert->has_delegation_usage,
      .has_digital_signature = cert->has_digital_signature,
      .is_must_staple = cert->is_must_staple,
      .not_before_s = cert->not_before_s,
      .not_after_s = cert->not_after_s,
  };
  cert_der_key_id(out->key_id, cert);
  cert_der_ca_id(out->ca_id, cert);
}

static enum status check_leaf(const struct cert_der *leaf, const struct store_addition *addition,
                              struct errmsg *err) {
  char first[CERT_DER_MAX_NAME_LEN + 1] = "";
  struct bytes names = leaf->names;
  if (leaf->kind == KEY_KIND_NONE) {
    return errmsg_set(err, STATUS_FORMAT,
                      "the leaf's key is of a kind that is not served: P-256, P-384, P-521, "
                      "Ed25519, or RSA of 2048 to 8192 bits");
  }
  if (leaf->is_ca) {
    return errmsg_set(err, STATUS_REFUSED,
                      "the first certificate is a CA's; the leaf comes first, then its issuer");
  }
  if (!cert_der_next_name(first, &names)) {
    return errmsg_set(err, STATUS_REFUSED,
                      "the leaf has no DNS name (subjectAltName): no client would take it");
  }
  for (size_t i = 0; i < addition->num_names; i++) {
    if (!cert_der_covers(leaf, addition->names[i])) {
      return errmsg_set(err, STATUS_REFUSED, "the leaf is not for %s: it is for %s%s",
                        addition->names[i], first, names.len > 0 ? " and others" : "");
    }
  }
  return STATUS_OK;
}

// link_issuers checks that each certificate issued the one before it, and gathers the
// hashes.
static enum status link_issuers(struct store_txn *txn, uint8_t out[32 * STORE_MAX_ISSUERS],
                                const struct cert_der *leaf, const struct store_addition *addition,
                                struct errmsg *err) {
  enum status st = STATUS_OK;
  struct cert_der last = *leaf;
  for (size_t i = 1; i < addition->num_certs; i++) {
    struct known_issuer *issuer = NULL;
    TRY(find_issuer(txn, &issuer, addition->certs[i], err));
    if (!cert_der_is_issued_by(&last, &issuer->cert)) {
      TRY(errmsg_set(err, STATUS_REFUSED,
                     "the chain does not fit: certificate %zu did not issue certificate %zu; order "
                     "them leaf first, each followed by its issuer",
                     i + 1, i));
    }
    memcpy(out + 32 * (i - 1), issuer->sha256, 32);
    last = issuer->cert;
  }

out:
  return st;
}

// same_chain: is what is kept under `id` already what we would write?
static bool same_chain(struct store_txn *txn, uint64_t id, const struct store_chain *chain) {
  uint8_t key[STORE_ID_LEN];
  struct bytes record;
  struct store_chain there;
  return store_txn_get(txn, TABLE_CHAINS, store_id_key(key, id), &record) == STATUS_OK &&
         store_chain_decode(&there, record) == STATUS_OK &&
         bytes_equal(there.issuers, chain->issuers) && bytes_equal(there.leaf, chain->leaf);
}

static enum status put_chain(struct store_txn *txn, uint64_t *out_id, struct store_chain *chain,
                             struct errmsg *err) {
  enum status st = STATUS_OK;
  uint8_t key[STORE_ID_LEN];
  size_t len = 0;
  uint64_t id = 0;
  st = store_txn_find_leaf(txn, &id, chain->leaf_sha256, err);
  bool is_new = st == STATUS_NOT_FOUND;
  if (!is_new) {
    TRY(st);
    if (same_chain(txn, id, chain)) {
      *out_id = id;
      return STATUS_OK;
    }
  } else {
    id = txn->next_chain;
  }
  TRY(store_chain_encode(txn->record, STORE_CHAIN_RECORD_MAX_LEN, &len, chain));
  TRY(store_txn_put(txn, TABLE_CHAINS, store_id_key(key, id), bytes_of(txn->record, len),
                    is_new ? MDB_APPEND : 0, err));
  if (is_new) {
    txn->next_chain++;
    if (store_txn_note_chain(txn, chain->leaf_sha256, chain->facts.key_id, id) != STATUS_OK) {
      TRY(store_txn_no_memory(err));
    }
  }
  *out_id = id;

out:
  return st;
}

static enum status put_addition_staple(struct store_txn *txn, uint64_t id,
                                       const struct store_addition *addition, struct errmsg *err) {
  if (addition->staple.len == 0) {
    return STATUS_OK;
  }
  const struct store_staple staple = {
      .this_update_s = addition->staple_this_update_s,
      .next_update_s = addition->staple_next_update_s,
      .fetched_s = txn->now_s,
      .response = addition->staple,
  };
  return store_put_staple(txn, id, &staple, err);
}

static enum status file_names(struct store_txn *txn, const struct cert_der *leaf,
                              const struct store_slot *slot, const struct store_addition *addition,
                              struct errmsg *err) {
  char name[CERT_DER_MAX_NAME_LEN + 1];
  struct bytes names = leaf->names;
  for (size_t i = 0; i < addition->num_names; i++) {
    if (store_txn_note_name(txn, addition->names[i], strlen(addition->names[i]), slot, addition) !=
        STATUS_OK) {
      return store_txn_no_memory(err);
    }
  }
  while (addition->names == NULL && cert_der_next_name(name, &names)) {
    struct host host;
    if (!host_read(&host, bytes_text(name), true) || strcmp(host.text, name) != 0) {
      continue;  // no client asks for it
    }
    if (store_txn_note_name(txn, name, strlen(name), slot, addition) != STATUS_OK) {
      return store_txn_no_memory(err);
    }
  }
  return STATUS_OK;
}

enum status store_add(struct store_txn *txn, const struct store_addition *addition,
                      struct errmsg *err) {
  enum status st = STATUS_OK;
  struct cert_der leaf;
  struct store_slot slot = {.level = (uint8_t)addition->level};
  struct store_chain chain = {.added_s = txn->now_s};
  uint8_t issuers[32 * STORE_MAX_ISSUERS];

  CHECK(addition->num_certs > 0 && addition->level < STORE_MAX_LEVELS);
  if (addition->num_certs > STORE_MAX_ISSUERS + 1) {
    return errmsg_set(err, STATUS_LIMIT, "more than %u certificates in one chain",
                      STORE_MAX_ISSUERS + 1);
  }
  st = cert_der_parse(&leaf, addition->certs[0]);
  if (st != STATUS_OK) {
    return errmsg_set(err, st, "the leaf does not parse as a certificate");
  }
  TRY(check_leaf(&leaf, addition, err));
  TRY(link_issuers(txn, issuers, &leaf, addition, err));
  read_facts(&chain.facts, &leaf);
  TRY(note_ca(txn, chain.facts.ca_id, addition->certs[0], err));
  SHA256(addition->certs[0].data, addition->certs[0].len, chain.leaf_sha256);
  cert_der_ski(chain.ski, &leaf);
  chain.leaf = addition->certs[0];
  chain.num_issuers = addition->num_certs - 1;
  chain.issuers = bytes_of(issuers, 32 * chain.num_issuers);
  TRY(put_chain(txn, &slot.chain_id, &chain, err));
  TRY(put_addition_staple(txn, slot.chain_id, addition, err));
  slot.facts = chain.facts;
  TRY(file_names(txn, &leaf, &slot, addition, err));

out:
  return st;
}
