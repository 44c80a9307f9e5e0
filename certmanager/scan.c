// SPDX-License-Identifier: Apache-2.0
#include "certmanager/scan.h"

#include <stdlib.h>

#include "common/base/clock.h"
#include "common/revocation/sources.h"
#include "common/revocation/staple_fetch.h"

// --- names -------------------------------------------------------------------------------

struct walk {
  struct tally *tally;
  bool is_failed;
};

static bool on_name(void *arg, struct bytes name, const struct store_name *record) {
  struct walk *walk = arg;
  (void)name;
  for (size_t i = 0; i < record->num_slots; i++) {
    if (tally_add(walk->tally, record->slots[i].chain_id) != STATUS_OK) {
      walk->is_failed = true;
      return false;
    }
  }
  return true;
}

enum status scan_names(struct tally *out, uint64_t *out_version, struct store *store,
                       struct errmsg *err) {
  enum status st = STATUS_OK;
  struct store_reader *reader = NULL;
  struct walk walk = {.tally = out};

  *out = (struct tally){0};
  *out_version = store_chains_version(store);
  TRY(store_reader_new(&reader, store, err));
  st = store_each_name(reader, on_name, &walk);
  if (walk.is_failed) {
    TRY(errmsg_set(err, STATUS_MEMORY, "no memory for the chains of the store"));
  }
  if (st != STATUS_OK) {
    TRY(errmsg_set(err, st, "%s: its names cannot be read: see `deputyctl store verify`",
                   store_folder(store)));
  }
  tally_finish(out);

out:
  store_reader_free(reader);
  if (st != STATUS_OK) {
    tally_cleanup(out);
  }
  return st;
}

// --- chains ------------------------------------------------------------------------------

static int64_t by_chance(int64_t most) {
  return most <= 0 ? 0
                   : (int64_t)arc4random_uniform(
                         (uint32_t)(most < UINT32_MAX ? most : UINT32_MAX - 1) + 1u);
}

int64_t scan_due_s(int64_t this_update_s, int64_t next_update_s, int64_t fetched_s, int64_t poll_s,
                   int64_t now_s) {
  int64_t due_s = 0;
  if (this_update_s == 0 || next_update_s <= now_s) {
    return 0;
  }
  due_s = staple_due_s(this_update_s, next_update_s, 0, now_s);
  if (poll_s > 0 && due_s > now_s) {
    int64_t poll_due_s = fetched_s + poll_s;
    if (poll_due_s <= now_s) {
      poll_due_s = now_s + by_chance(poll_s);
    }
    due_s = poll_due_s < due_s ? poll_due_s : due_s;
  }
  return due_s;
}

static void look_at(struct look *look, const struct store_reader *reader, int64_t poll_s,
                    int64_t now_s) {
  struct store_chain chain;
  struct store_staple staple = {0};
  struct leaf_sources sources = {0};
  struct bytes issuer;

  *look = (struct look){.chain = look->chain};
  if (store_get_chain(reader, &chain, look->chain) != STATUS_OK ||
      !leaf_may_have_sources(chain.leaf) || leaf_sources_read(&sources, chain.leaf) != STATUS_OK) {
    goto out;
  }
  look->has_responder = sources.ocsp_url != NULL;
  look->has_lists = sources.num_crl_urls > 0;
  look->has_issuer =
      chain.num_issuers > 0 && store_get_issuer(reader, &issuer, chain.issuers.data) == STATUS_OK;
  if (look->has_responder) {
    if (store_get_staple(reader, &staple, look->chain) != STATUS_OK) {
      staple = (struct store_staple){0};
    }
    look->due_s =
        scan_due_s(staple.this_update_s, staple.next_update_s, staple.fetched_s, poll_s, now_s);
  }

out:
  leaf_sources_cleanup(&sources);
}

enum status scan_looks(struct look *looks, size_t num, struct store *store, int64_t poll_s,
                       struct errmsg *err) {
  enum status st = STATUS_OK;
  struct store_reader *reader = NULL;
  const int64_t now_s = clock_wall_s();

  TRY(store_reader_new(&reader, store, err));
  for (size_t i = 0; i < num; i++) {
    look_at(&looks[i], reader, poll_s, now_s);
  }

out:
  store_reader_free(reader);
  return st;
}
