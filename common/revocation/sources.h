// SPDX-License-Identifier: Apache-2.0
// sources: where a leaf says that its status can be asked for: the OCSP responder
// (RFC 5280, section 4.2.2.1) and the CRL distribution points (section 4.2.1.13). Read
// once when a chain becomes known; a leaf that names none costs nothing afterwards.
// Threads: any.
#ifndef DEPUTY_COMMON_REVOCATION_SOURCES_H_
#define DEPUTY_COMMON_REVOCATION_SOURCES_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/status.h"

#define SOURCES_MAX_URL_LEN 1024u  // longer ones are passed over
#define SOURCES_MAX_CRL_URLS 4u
#define SOURCES_MAX_POINTS_LEN 4096u  // bytes of the CRLDistributionPoints extension
// RFC 5280, section 4.1.2.2: at most 20 octets; some CAs wrote a few more.
#define SOURCES_MAX_SERIAL_LEN 32u

// All-zero may be cleaned. URLs begin with http:// or https:// and are printable ASCII.
struct leaf_sources {
  char *ocsp_url;  // the first; NULL: none
  char *crl_urls[SOURCES_MAX_CRL_URLS];
  size_t num_crl_urls;
  uint8_t *points;  // the value of the extension, for crl_covers; NULL: none
  size_t points_len;
  uint8_t serial[SOURCES_MAX_SERIAL_LEN];  // the INTEGER's content
  size_t serial_len;
  bool is_ca;
};

// leaf_may_have_sources: false is certain, and a hundredth of the work of reading: of two
// million leaves that name nobody, none needs to be parsed.
bool leaf_may_have_sources(struct bytes leaf);

// leaf_sources_read reads a DER certificate. What cannot be used in it (ldap: URLs,
// distribution points for some reasons only or of another CRL issuer) is passed over.
// STATUS_FORMAT, STATUS_LIMIT (the serial number), STATUS_MEMORY.
enum status leaf_sources_read(struct leaf_sources *out, struct bytes leaf);

// leaf_sources_has_point: is this GeneralName (a DER element) a name of one of the leaf's
// distribution points?
bool leaf_sources_has_point(const struct leaf_sources *sources, struct bytes name);

void leaf_sources_cleanup(struct leaf_sources *sources);

#endif  // DEPUTY_COMMON_REVOCATION_SOURCES_H_
