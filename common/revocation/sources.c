// SPDX-License-Identifier: Apache-2.0
#include "common/revocation/sources.h"

#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TAG_URI (CBS_ASN1_CONTEXT_SPECIFIC | 6)  // GeneralName, uniformResourceIdentifier
#define TAG_CONSTRUCTED(n) (CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | (n))

// id-ad-ocsp, 1.3.6.1.5.5.7.48.1
static const uint8_t oid_ad_ocsp[] = {0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01};
// id-ce-cRLDistributionPoints, 2.5.29.31, with its tag and length
static const uint8_t oid_points[] = {0x06, 0x03, 0x55, 0x1d, 0x1f};

// url_of returns a new copy of a URI that we can fetch, or NULL.
static char *url_of(const CBS *uri) {
  const char *text = (const char *)CBS_data(uri);
  const size_t len = CBS_len(uri);

  if (len > SOURCES_MAX_URL_LEN || ((len < 8 || strncasecmp(text, "http://", 7) != 0) &&
                                    (len < 9 || strncasecmp(text, "https://", 8) != 0))) {
    return NULL;
  }
  for (size_t i = 0; i < len; i++) {
    if (text[i] <= ' ' || text[i] > '~') {
      return NULL;
    }
  }
  return strndup(text, len);
}

// extension borrows the value of an extension; empty if there is none.
static struct bytes extension(const X509 *x509, int nid) {
  const int at = X509_get_ext_by_NID(x509, nid, -1);
  const ASN1_OCTET_STRING *value = NULL;

  if (at < 0) {
    return (struct bytes){0};
  }
  value = X509_EXTENSION_get_data(X509_get_ext(x509, at));
  return bytes_of(ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value));
}

// AuthorityInfoAccessSyntax ::= SEQUENCE OF { accessMethod, accessLocation GeneralName }
static enum status read_ocsp_url(struct leaf_sources *out, struct bytes value) {
  CBS cbs;
  CBS list;
  CBS access;
  CBS method;
  CBS uri;

  CBS_init(&cbs, value.data, value.len);
  if (!CBS_get_asn1(&cbs, &list, CBS_ASN1_SEQUENCE) || CBS_len(&cbs) != 0) {
    return STATUS_FORMAT;
  }
  while (CBS_len(&list) > 0 && out->ocsp_url == NULL) {
    if (!CBS_get_asn1(&list, &access, CBS_ASN1_SEQUENCE) ||
        !CBS_get_asn1(&access, &method, CBS_ASN1_OBJECT)) {
      return STATUS_FORMAT;
    }
    if (CBS_mem_equal(&method, oid_ad_ocsp, sizeof oid_ad_ocsp) &&
        CBS_get_asn1(&access, &uri, TAG_URI)) {
      out->ocsp_url = url_of(&uri);
    }
  }
  return STATUS_OK;
}

// next_point takes the next distribution point off `list` and leaves its full names in
// *names: none if it is of no use to us, being for some reasons only ([1]), of another
// CRL issuer ([2]), or named relative to the CRL's issuer. False: malformed.
static bool next_point(CBS *list, CBS *names) {
  CBS point;
  CBS name;
  CBS full;
  int has_name = 0;
  int has_full = 0;

  CBS_init(names, NULL, 0);
  if (!CBS_get_asn1(list, &point, CBS_ASN1_SEQUENCE) ||
      !CBS_get_optional_asn1(&point, &name, &has_name, TAG_CONSTRUCTED(0))) {
    return false;
  }
  if (!has_name || CBS_len(&point) > 0) {
    return true;
  }
  if (!CBS_get_optional_asn1(&name, &full, &has_full, TAG_CONSTRUCTED(0))) {
    return false;
  }
  if (has_full) {
    *names = full;
  }
  return true;
}

// any_name calls `fn` with each name of each usable point until it says true, which is
// returned. *is_malformed is set when the extension is not what RFC 5280 says.
static bool any_name(struct bytes points, bool *is_malformed,
                     bool (*fn)(void *arg, const CBS *name), void *arg) {
  CBS cbs;
  CBS list;
  CBS names;
  CBS name;

  CBS_init(&cbs, points.data, points.len);
  *is_malformed = !CBS_get_asn1(&cbs, &list, CBS_ASN1_SEQUENCE) || CBS_len(&cbs) != 0;
  while (!*is_malformed && CBS_len(&list) > 0) {
    if (!next_point(&list, &names)) {
      *is_malformed = true;
      return false;
    }
    while (CBS_len(&names) > 0) {
      if (!CBS_get_any_asn1_element(&names, &name, NULL, NULL)) {
        *is_malformed = true;
        return false;
      }
      if (fn(arg, &name)) {
        return true;
      }
    }
  }
  return false;
}

static bool take_url(void *arg, const CBS *name) {
  struct leaf_sources *out = arg;
  CBS copy = *name;
  CBS uri;

  if (CBS_get_asn1(&copy, &uri, TAG_URI)) {
    out->crl_urls[out->num_crl_urls] = url_of(&uri);
    out->num_crl_urls += out->crl_urls[out->num_crl_urls] != NULL ? 1 : 0;
  }
  return out->num_crl_urls == SOURCES_MAX_CRL_URLS;
}

static enum status read_points(struct leaf_sources *out, struct bytes value) {
  bool is_malformed = false;

  if (value.len > SOURCES_MAX_POINTS_LEN) {
    return STATUS_OK;  // passed over: such a leaf has no CRL for us
  }
  (void)any_name(value, &is_malformed, take_url, out);
  if (is_malformed) {
    return STATUS_FORMAT;
  }
  out->points = bytes_copy(value);
  out->points_len = value.len;
  return out->points == NULL ? STATUS_MEMORY : STATUS_OK;
}

static bool is_name(void *arg, const CBS *name) {
  const struct bytes *wanted = arg;

  return CBS_mem_equal(name, wanted->data, wanted->len);
}

bool leaf_sources_has_point(const struct leaf_sources *sources, struct bytes name) {
  bool is_malformed = false;

  return sources->points != NULL &&
         any_name(bytes_of(sources->points, sources->points_len), &is_malformed, is_name, &name);
}

static enum status read_serial(struct leaf_sources *out, X509 *x509) {
  uint8_t *der = NULL;
  const int len = i2d_ASN1_INTEGER(X509_get_serialNumber(x509), &der);
  enum status st = STATUS_OK;

  if (len < 3) {
    st = STATUS_FORMAT;
  } else if ((size_t)len - 2 > SOURCES_MAX_SERIAL_LEN) {  // tag, length of one byte
    st = STATUS_LIMIT;
  } else {
    out->serial_len = (size_t)len - 2;
    memcpy(out->serial, der + 2, out->serial_len);
  }
  OPENSSL_free(der);
  return st;
}

bool leaf_may_have_sources(struct bytes leaf) {
  return leaf.len > 0 &&  // C asks for a place even if nothing is there
         (memmem(leaf.data, leaf.len, oid_ad_ocsp, sizeof oid_ad_ocsp) != NULL ||
          memmem(leaf.data, leaf.len, oid_points, sizeof oid_points) != NULL);
}

enum status leaf_sources_read(struct leaf_sources *out, struct bytes leaf) {
  enum status st = STATUS_OK;
  const uint8_t *p = leaf.data;
  X509 *x509 = d2i_X509(NULL, &p, (long)leaf.len);
  struct bytes value;

  *out = (struct leaf_sources){0};
  if (x509 == NULL) {
    st = STATUS_FORMAT;
    goto out;
  }
  TRY(read_serial(out, x509));
  out->is_ca = (X509_get_extension_flags(x509) & EXFLAG_CA) != 0;
  value = extension(x509, NID_info_access);
  if (value.len > 0) {
    TRY(read_ocsp_url(out, value));
  }
  value = extension(x509, NID_crl_distribution_points);
  if (value.len > 0) {
    TRY(read_points(out, value));
  }

out:
  ERR_clear_error();
  X509_free(x509);
  if (st != STATUS_OK) {
    leaf_sources_cleanup(out);
  }
  return st;
}

void leaf_sources_cleanup(struct leaf_sources *sources) {
  free(sources->ocsp_url);
  for (size_t i = 0; i < sources->num_crl_urls; i++) {
    free(sources->crl_urls[i]);
  }
  free(sources->points);
  *sources = (struct leaf_sources){0};
}
