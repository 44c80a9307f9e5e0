// SPDX-License-Identifier: Apache-2.0
// Targets: leaf_sources_read, crl_open, crl_covers, crl_for_each. The input is the time
// (8 bytes), the leaf and the issuer (each after its length in 2 bytes), then a list. As a
// changed list does not verify, its insides are also read as if it had.
#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <stdint.h>

#include "common/revocation/crl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define SKEW_S 300

static struct bytes bytes_of_cbs(const CBS *cbs) { return bytes_of(CBS_data(cbs), CBS_len(cbs)); }

// Every entry lies within the list.
static bool on_entry(void *arg, const struct crl_entry *entry) {
  const struct bytes *list = arg;
  CHECK(entry->serial.data >= list->data &&
        entry->serial.data + entry->serial.len <= list->data + list->len);
  CHECK(entry->serial.len > 0 && entry->reason >= 0 && entry->reason <= 10);
  return false;
}

static void look_inside(const struct crl *crl, const struct leaf_sources *sources,
                        struct bytes serial) {
  struct bytes list = crl->entries;
  struct crl_entry entry;
  bool is_found = false;
  const enum crl_fault fault = crl_for_each(crl, on_entry, &list);

  CHECK(crl_find(&entry, &is_found, crl, serial) == fault);
  CHECK(!is_found || (fault == CRL_NO_FAULT && bytes_equal(entry.serial, serial)));
  (void)crl_covers(crl, sources);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  CBS cbs;
  CBS leaf;
  CBS issuer;
  uint64_t now_s = 0;
  struct leaf_sources sources = {0};
  struct crl crl;

  CBS_init(&cbs, data, len);
  if (!CBS_get_u64(&cbs, &now_s) || !CBS_get_u16_length_prefixed(&cbs, &leaf) ||
      !CBS_get_u16_length_prefixed(&cbs, &issuer)) {
    return 0;
  }
  if (leaf_sources_read(&sources, bytes_of_cbs(&leaf)) == STATUS_OK) {
    CHECK(sources.num_crl_urls <= SOURCES_MAX_CRL_URLS && sources.serial_len > 0);
  }
  const struct crl_query query = {
      .issuer = bytes_of_cbs(&issuer), .now_s = (int64_t)(now_s & 0xffffffffffu), .skew_s = SKEW_S};
  const struct bytes serial = bytes_of(sources.serial, sources.serial_len);
  if (crl_open(&crl, &query, bytes_of_cbs(&cbs)) == CRL_NO_FAULT) {
    CHECK(crl.this_update_s <= query.now_s + SKEW_S && query.now_s < crl.next_update_s + SKEW_S);
    look_inside(&crl, &sources, serial);
  }
  crl = (struct crl){.entries = bytes_of_cbs(&cbs), .partition = bytes_of_cbs(&cbs)};
  look_inside(&crl, &sources, serial);
  CHECK(ERR_peek_error() == 0);
  leaf_sources_cleanup(&sources);
  return 0;
}
