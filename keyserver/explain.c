// SPDX-License-Identifier: Apache-2.0
#include "keyserver/explain.h"

#include <dirent.h>
#include <limits.h>
#include <openssl/bytestring.h>
#include <openssl/ec_key.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/pool.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/tls/cert.h"
#include "common/tls/context.h"
#include "common/tls/trust.h"
#include "common/wire/dc.h"
#include "common/wire/frame.h"
#include "common/wire/keygen.h"
#include "common/wire/scheme.h"
#include "keyserver/dispatch.h"
#include "keyserver/generate.h"
#include "keyserver/request.h"
#include "keyserver/rights.h"
#include "keyserver/snapshot.h"

#define US_PER_S 1000000
#define MS_PER_S 1000
#define TLS13_TEXT "TLS 1.3, server CertificateVerify"
#define X25519_GROUP 29

struct explainer {
  const struct explain_query *query;
  struct snapshot *snapshot;
  // Who asks.
  X509 *client;  // NULL: a name alone
  STACK_OF(X509) * intermediates;
  struct tls_peer peer;
  enum tls_refusal trust;
  // What for.
  enum purpose purpose;
  const struct key *key;  // NULL: not here
  uint8_t ski[FRAME_SKI_LEN];
  CRYPTO_BUFFER *certificate;  // the key's, for a credential
  const struct scheme *scheme;
  uint8_t *message;
  size_t message_len;
  char label[KEYGEN_MAX_LABEL_LEN + 1];  // of a key to be made
  uint8_t packet[FRAME_MAX_LEN];
  struct request request;
  struct asker asker;
};

static void cleanup(struct explainer *x) {
  X509_free(x->client);
  sk_X509_pop_free(x->intermediates, X509_free);
  CRYPTO_BUFFER_free(x->certificate);
  free(x->message);
  snapshot_unref(x->snapshot);
  free(x);
}

// --- who asks ------------------------------------------------------------------------------

static bool has_name(const void *arg, const char *name) {
  const struct explainer *x = arg;
  return x->client != NULL ? tls_certificate_has_name(x->client, name)
                           : strcasecmp(x->query->client_name, name) == 0;
}

static enum status read_client(struct explainer *x, struct errmsg *err) {
  CRYPTO_BUFFER *chain[CERT_MAX_IN_CHAIN] = {0};
  size_t num = 0;
  enum status st = STATUS_OK;

  if (x->query->client_path == NULL) {
    (void)snprintf(x->peer.name, sizeof x->peer.name, "%s", x->query->client_name);
    return STATUS_OK;
  }
  TRY(cert_chain_read(chain, &num, x->query->client_path, NULL, err));
  x->client = X509_parse_from_buffer(chain[0]);
  x->intermediates = sk_X509_new_null();
  for (size_t i = 1; i < num && x->intermediates != NULL; i++) {
    X509 *more = X509_parse_from_buffer(chain[i]);
    if (more != NULL && !sk_X509_push(x->intermediates, more)) {
      X509_free(more);
    }
  }
  if (x->client == NULL || x->intermediates == NULL ||
      tls_peer_of_certificate(&x->peer, x->client) != STATUS_OK) {
    TRY(errmsg_set(err, STATUS_CONFIG, "%s: no certificate of a client", x->query->client_path));
  }
  x->trust = trust_check(x->snapshot->tls, x->client, x->intermediates);

out:
  cert_chain_free(chain, num);
  return st;
}

// --- which key -----------------------------------------------------------------------------

static bool is_of_key(const CRYPTO_BUFFER *leaf, const uint8_t ski[FRAME_SKI_LEN]) {
  struct cert_info info = {0};
  const bool is_it =
      cert_info_read(&info, bytes_of(CRYPTO_BUFFER_data(leaf), CRYPTO_BUFFER_len(leaf)), NULL) ==
          STATUS_OK &&
      memcmp(info.ski, ski, FRAME_SKI_LEN) == 0;

  cert_info_cleanup(&info);
  ERR_clear_error();
  return is_it;
}

// take_certificate keeps the leaf of a file if it is of the key.
static void take_certificate(struct explainer *x, const char *path) {
  CRYPTO_BUFFER *chain[CERT_MAX_IN_CHAIN] = {0};
  size_t num = 0;

  if (x->certificate == NULL && cert_chain_read(chain, &num, path, NULL, NULL) == STATUS_OK &&
      is_of_key(chain[0], x->ski)) {
    CRYPTO_BUFFER_up_ref(chain[0]);
    x->certificate = chain[0];
  }
  cert_chain_free(chain, num);
}

static void find_certificate(struct explainer *x) {
  const struct options *options = &x->snapshot->options;

  for (size_t i = 0; i < options->num_key_folders; i++) {
    struct dirent **entries = NULL;
    const int num = scandir(options->key_folders[i], &entries, NULL, alphasort);
    for (int e = 0; e < num; e++) {
      char path[PATH_MAX];
      const int len =
          snprintf(path, sizeof path, "%s/%s", options->key_folders[i], entries[e]->d_name);
      // Names of private keys are not certificates' (keystore.h).
      if (len > 4 && (size_t)len < sizeof path && keystore_reads_file(path) &&
          strcmp(path + len - 4, ".key") != 0) {
        take_certificate(x, path);
      }
      free(entries[e]);
    }
    free(entries);
  }
  for (size_t i = 0; i < options->num_pkcs11; i++) {
    if (options->pkcs11[i].certificate != NULL) {
      take_certificate(x, options->pkcs11[i].certificate);
    }
  }
}

static enum status find_by_pattern(struct explainer *x, const struct key_pattern *pattern,
                                   struct errmsg *err) {
  const struct keystore *ks = x->snapshot->keys;

  if (pattern->kind == KEY_PATTERN_SKI) {
    memcpy(x->ski, pattern->ski, sizeof x->ski);
    x->key = keystore_find(ks, x->ski);
    return STATUS_OK;
  }
  for (size_t i = 0; i < keystore_num_keys(ks); i++) {
    const struct key *key = keystore_key(ks, i);
    if (!key_pattern_fits(pattern, key)) {
      continue;
    }
    if (x->key != NULL) {
      return errmsg_set(err, STATUS_CONFIG, "--key %s fits several keys, such as %s and %s",
                        x->query->key, x->key->label, key->label);
    }
    x->key = key;
  }
  if (x->key != NULL) {
    memcpy(x->ski, x->key->ski, sizeof x->ski);
  } else {
    memset(x->ski, 0xff, sizeof x->ski);  // somebody's, but not here
  }
  return STATUS_OK;
}

static enum status find_key(struct explainer *x, struct errmsg *err) {
  struct key_pattern pattern;
  CRYPTO_BUFFER *chain[CERT_MAX_IN_CHAIN] = {0};
  size_t num = 0;
  struct cert_info info = {0};
  enum status st = STATUS_OK;

  if (key_pattern_parse(&pattern, x->query->key, NULL) == STATUS_OK) {
    if (pattern.kind == KEY_PATTERN_ALL) {
      TRY(errmsg_set(err, STATUS_CONFIG, "--key: one key, not all"));
    }
    TRY(find_by_pattern(x, &pattern, err));
  } else {
    TRY(cert_chain_read(chain, &num, x->query->key, NULL, err));
    TRY(cert_info_read(&info, bytes_of(CRYPTO_BUFFER_data(chain[0]), CRYPTO_BUFFER_len(chain[0])),
                       err));
    memcpy(x->ski, info.ski, sizeof x->ski);
    x->key = keystore_find(x->snapshot->keys, x->ski);
    take_certificate(x, x->query->key);
  }

out:
  cert_info_cleanup(&info);
  cert_chain_free(chain, num);
  return st;
}

// choose_scheme: what the client would sign with. A key that is not here is taken for
// one of P-256.
static enum status choose_scheme(struct explainer *x, struct errmsg *err) {
  const enum key_kind kind = x->key == NULL ? KEY_KIND_P256 : x->key->kind;

  if (x->query->scheme != NULL) {
    x->scheme = scheme_by_name(x->query->scheme);
    return x->scheme != NULL ? STATUS_OK
                             : errmsg_set(err, STATUS_CONFIG, "--scheme %s is none that is known",
                                          x->query->scheme);
  }
  for (uint8_t opcode = 0; opcode < 64; opcode++) {
    const struct scheme *scheme = scheme_by_opcode(opcode, kind);
    if (scheme != NULL && scheme_fits_tls13(scheme, kind)) {
      x->scheme = scheme;
      return STATUS_OK;
    }
  }
  return errmsg_set(err, STATUS_CONFIG, "give --scheme");
}

// --- the message ---------------------------------------------------------------------------

static enum status keep_message(struct explainer *x, const void *data, size_t len) {
  x->message = bytes_copy(bytes_of(data, len));
  x->message_len = len;
  return x->message == NULL ? STATUS_MEMORY : STATUS_OK;
}

static enum status make_tls13(struct explainer *x) {
  uint8_t text[64 + sizeof TLS13_TEXT + 32] = {0};

  memset(text, ' ', 64);
  memcpy(text + 64, TLS13_TEXT, sizeof TLS13_TEXT);
  return keep_message(x, text, sizeof text);
}

static enum status make_tls12(struct explainer *x) {
  uint8_t text[64 + 4 + 32] = {0};
  const uint8_t params[] = {3, 0, X25519_GROUP, 32, 9};  // named_curve, a point

  memcpy(text + 64, params, sizeof params);
  return keep_message(x, text, sizeof text);
}

// make_csr: RFC 2986, section 4.1: an empty name and no attributes.
static enum status make_csr(struct explainer *x) {
  uint8_t *spki = NULL;
  size_t spki_len = 0;
  uint8_t *out = NULL;
  size_t out_len = 0;
  CBB cbb;
  CBB request;
  CBB part;
  enum status st = STATUS_MEMORY;

  CBB_zero(&cbb);
  if (key_spki(&spki, &spki_len, x->key->pkey) == STATUS_OK && CBB_init(&cbb, 512) &&
      CBB_add_asn1(&cbb, &request, CBS_ASN1_SEQUENCE) && CBB_add_asn1_uint64(&request, 0) &&
      CBB_add_asn1(&request, &part, CBS_ASN1_SEQUENCE) && CBB_add_bytes(&request, spki, spki_len) &&
      CBB_add_asn1(&request, &part, CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED) &&
      CBB_finish(&cbb, &out, &out_len)) {
    st = keep_message(x, out, out_len);
  } else {
    CBB_cleanup(&cbb);
  }
  OPENSSL_free(out);
  OPENSSL_free(spki);
  return st;
}

static EVP_PKEY *make_dc_key(void) {
  EVP_PKEY *pkey = EVP_PKEY_new();
  EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
  const bool is_made =
      pkey != NULL && ec != NULL && EC_KEY_generate_key(ec) && EVP_PKEY_set1_EC_KEY(pkey, ec);

  EC_KEY_free(ec);
  if (!is_made) {
    EVP_PKEY_free(pkey);
    return NULL;
  }
  return pkey;
}

static enum status make_dc(struct explainer *x, struct errmsg *err) {
  struct dc dc = {.verify_scheme = scheme_by_name("ecdsa_secp256r1_sha256")->code,
                  .algorithm = x->scheme->code};
  EVP_PKEY *pkey = NULL;
  uint8_t *spki = NULL;
  size_t spki_len = 0;
  struct cert_info info = {0};
  struct bytes der = {0};
  enum status st = STATUS_OK;

  if (x->certificate == NULL) {
    return errmsg_set(err, STATUS_CONFIG,
                      "a credential needs the key's certificate: put it beside the key, or give it "
                      "as --key CERT.pem");
  }
  der = bytes_of(CRYPTO_BUFFER_data(x->certificate), CRYPTO_BUFFER_len(x->certificate));
  TRY(cert_info_read(&info, der, err));
  pkey = make_dc_key();
  TRY(pkey == NULL ? STATUS_MEMORY : key_spki(&spki, &spki_len, pkey));
  dc.spki = bytes_of(spki, spki_len);
  st = dc_valid_time(&dc.valid_time_s, info.not_before_s, clock_wall_s(), x->query->lifetime_s);
  if (st != STATUS_OK) {
    TRY(errmsg_set(err, STATUS_CONFIG, "--lifetime: no credential can be that long"));
  }
  TRY(dc_signing_input(&x->message, &x->message_len, der, &dc));

out:
  cert_info_cleanup(&info);
  EVP_PKEY_free(pkey);
  OPENSSL_free(spki);
  return st;
}

static enum status make_message(struct explainer *x, struct errmsg *err) {
  if (x->query->message_path != NULL) {
    return file_read(&x->message, &x->message_len, x->query->message_path, SIGNING_INPUT_MAX_LEN,
                     err);
  }
  // Without a key any message will do: it is not looked at.
  if (x->purpose == PURPOSE_TLS12) {
    return make_tls12(x);
  }
  if (x->purpose == PURPOSE_DC && x->key != NULL) {
    return make_dc(x, err);
  }
  if (x->purpose == PURPOSE_CSR && x->key != NULL) {
    return make_csr(x);
  }
  return make_tls13(x);
}

// --- the packet ----------------------------------------------------------------------------

static enum status make_packet(struct explainer *x, const struct frame *frame, struct errmsg *err) {
  struct frame_header header;
  size_t len = 0;

  if (frame_encode(x->packet, sizeof x->packet, &len, frame) != STATUS_OK) {
    return errmsg_set(err, STATUS_CONFIG, "no packet can hold this message");
  }
  frame_header_decode(&header, x->packet);
  return frame_body_decode(&x->request.frame,
                           bytes_of(x->packet + FRAME_HEADER_LEN, header.body_len));
}

static enum status make_signing_packet(struct explainer *x, struct errmsg *err) {
  static const uint8_t zeros[64];
  struct frame frame = {.has_opcode = true, .ski = bytes_of(x->ski, sizeof x->ski)};
  uint8_t digest[64];
  size_t len = 0;
  enum status st = STATUS_OK;

  TRY(find_key(x, err));
  TRY(choose_scheme(x, err));
  if (x->purpose == PURPOSE_DC && x->certificate == NULL) {
    find_certificate(x);
  }
  frame.opcode = x->scheme->opcode;
  if (x->purpose == PURPOSE_BLIND && x->query->message_path == NULL) {
    frame.payload = bytes_of(zeros, x->scheme->digest_len > 0 ? x->scheme->digest_len : 32);
    TRY(make_packet(x, &frame, err));
    goto out;
  }
  TRY(make_message(x, err));
  TRY(scheme_digest(x->scheme, digest, &len, bytes_of(x->message, x->message_len)));
  frame.payload = len > 0 ? bytes_of(digest, len) : bytes_of(x->message, x->message_len);
  if (len > 0) {
    frame.extra = bytes_of(x->message, x->message_len);
  }
  TRY(make_packet(x, &frame, err));

out:
  return st;
}

static enum status make_generate_packet(struct explainer *x, struct errmsg *err) {
  static const char prefix[] = "label:";
  const size_t prefix_len = sizeof prefix - 1;
  struct frame frame = {
      .has_opcode = true, .opcode = FRAME_OP_CUSTOM, .custom = bytes_text(KEYGEN_FUNCTION)};
  struct keygen_request wanted = {.kind = KEYGEN_P256};
  uint8_t text[KEYGEN_MAX_REQUEST_LEN];
  size_t len = 0;

  if (strncmp(x->query->key, prefix, prefix_len) != 0 ||
      strlen(x->query->key) - prefix_len > KEYGEN_MAX_LABEL_LEN) {
    return errmsg_set(err, STATUS_CONFIG, "--purpose generate: give --key label:NAME");
  }
  (void)snprintf(x->label, sizeof x->label, "%s", x->query->key + prefix_len);
  wanted.label = bytes_text(x->label);
  if (keygen_request_encode(text, sizeof text, &len, &wanted) != STATUS_OK) {
    return errmsg_set(err, STATUS_CONFIG, "\"%s\" is no label that a key may be given", x->label);
  }
  frame.payload = bytes_of(text, len);
  return make_packet(x, &frame, err);
}

// --- the answer ----------------------------------------------------------------------------

// What an operator does about it.
static const char *advice_of(enum refusal refusal) {
  switch (refusal) {
    case REFUSAL_NONE:
      return "a grant allows it";
    case REFUSAL_UNKNOWN_CLIENT:
      return "no grant fits this client: see `names` and `spki_sha256` of `clients`";
    case REFUSAL_NO_SUCH_KEY:
      return "no such key is in the key folders and tokens";
    case REFUSAL_KEY_KIND:
      return "the scheme does not fit a key of this kind";
    case REFUSAL_NO_PURPOSE:
      return "the message is none that is signed here";
    case REFUSAL_NOT_GRANTED:
      return "no grant of this client has this key together with this purpose";
    case REFUSAL_SCHEME_POLICY:
      return "the key's policy leaves this scheme out";
    case REFUSAL_TLS13_SCHEME:
      return "TLS 1.3 does not allow this scheme for such a key";
    case REFUSAL_DC_CERTIFICATE:
      return "the certificate in the message cannot be parsed";
    case REFUSAL_DC_OTHER_KEY:
      return "the certificate in the message is of another key";
    case REFUSAL_DC_USAGE:
      return "the certificate does not allow delegation: it needs DelegationUsage and "
             "digitalSignature, and a key that is not RSA";
    case REFUSAL_DC_ALGORITHM:
      return "the message names another algorithm than it is signed with";
    case REFUSAL_DC_OWN_KEY:
      return "the credential's key is the certificate's own";
    case REFUSAL_DC_ENDED:
      return "the credential has ended already";
    case REFUSAL_DC_LIFETIME:
      return "the credential lives longer than grant, key policy or RFC 9345 allow";
    case REFUSAL_DC_PAST_CERTIFICATE:
      return "the credential would outlive the certificate";
    case REFUSAL_CSR_OTHER_KEY:
      return "the request is for another key";
    case REFUSAL_GENERATE_OFF:
      return "no key is made here: generation.folder is not set";
    case REFUSAL_KEY_EXISTS:
      return "the label is taken, or was before it was retired";
    case REFUSAL_RATE:
      return "over a rate or limit";
    default:
      return "see docs/PROTOCOL.keyserver.md";
  }
}

static const char *why_not(const struct rights_trace *trace, bool is_chosen, bool is_decided) {
  if (!trace->fits_client) {
    return "not this client";
  }
  if (!trace->fits_key) {
    return "not this key";
  }
  if (!trace->has_purpose) {
    return "not this purpose";
  }
  return is_chosen ? "fits: it counts" : is_decided ? "fits, but an earlier one counts" : "fits";
}

static json_t *json_of_grants(const struct explainer *x) {
  const struct rights *rights = x->snapshot->rights;
  json_t *list = json_array();

  for (size_t i = 0; i < rights_num_grants(rights); i++) {
    const struct grant_options *from = &x->snapshot->options.clients[i];
    struct rights_trace trace;
    bool is_chosen = false;
    if (x->key == NULL && x->label[0] == '\0') {
      // An unknown key has no label; nothing that fits can be said of it.
      rights_trace(&trace, rights, i, x->peer.spki_sha256, has_name, x, NULL, "",
                   x->request.purpose);
    } else {
      rights_trace(&trace, rights, i, x->peer.spki_sha256, has_name, x, x->key, x->label,
                   x->request.purpose);
    }
    is_chosen = x->request.grant == trace.grant;
    (void)json_array_append_new(
        list,
        json_pack("{s:s,s:b,s:b,s:b,s:b,s:s,s:I,s:I,s:I}", "label", trace.grant->label, "client",
                  trace.fits_client, "key", trace.fits_key, "purpose", trace.has_purpose, "counts",
                  is_chosen, "why", why_not(&trace, is_chosen, x->request.grant != NULL),
                  "rate_per_s", (json_int_t)from->rate_per_s, "burst", (json_int_t)from->burst,
                  "dc_max_lifetime_s", (json_int_t)trace.grant->dc_max_lifetime_s));
  }
  return list;
}

static json_t *json_of_key(const struct explainer *x) {
  char hex[2 * FRAME_SKI_LEN + 1];
  json_t *names = NULL;
  json_t *schemes = NULL;

  if (x->key == NULL) {
    return json_null();
  }
  names = json_array();
  for (size_t i = 0; i < x->key->num_names; i++) {
    (void)json_array_append_new(names, json_string(x->key->names[i]));
  }
  schemes = json_array();
  for (uint8_t opcode = 0; opcode < 64; opcode++) {
    const struct scheme *scheme = scheme_by_opcode(opcode, x->key->kind);
    if (scheme != NULL && (x->key->opcodes & (UINT64_C(1) << opcode)) != 0) {
      (void)json_array_append_new(schemes, json_string(scheme->name));
    }
  }
  return json_pack("{s:s,s:s,s:s,s:o,s:o,s:o,s:I}", "label", x->key->label, "ski",
                   bytes_to_hex(hex, bytes_of(x->key->ski, FRAME_SKI_LEN)), "kind",
                   key_kind_name(x->key->kind), "names", names, "schemes", schemes, "policy",
                   x->key->policy == 0 ? json_null() : json_integer((json_int_t)x->key->policy - 1),
                   "dc_max_lifetime_s", (json_int_t)x->key->dc_max_lifetime_s);
}

static json_t *json_of_client(const struct explainer *x) {
  char hex[2 * 32 + 1];

  if (x->client == NULL) {
    return json_pack("{s:s,s:n,s:n}", "name", x->peer.name, "spki_sha256", "certificate");
  }
  return json_pack("{s:s,s:s,s:s}", "name", x->peer.name, "spki_sha256",
                   bytes_to_hex(hex, bytes_of(x->peer.spki_sha256, 32)), "certificate",
                   x->trust == TLS_REFUSAL_NONE ? "good" : tls_refusal_name(x->trust));
}

static json_t *json_of_answer(const struct explainer *x, enum refusal refusal) {
  const bool is_let_in = x->trust == TLS_REFUSAL_NONE;
  const bool is_allowed = is_let_in && refusal == REFUSAL_NONE;
  json_t *answer = json_pack(
      "{s:b,s:s,s:s,s:o,s:o,s:s,s:o}", "allowed", is_allowed, "reason",
      is_let_in ? refusal_name(refusal) : "handshake", "why",
      is_let_in ? advice_of(refusal)
                : "the client's certificate is refused in the TLS handshake, before any request",
      "client", json_of_client(x), "key", json_of_key(x), "purpose",
      purpose_name(x->request.purpose), "grants", json_of_grants(x));

  if (!is_let_in || refusal == REFUSAL_NONE) {
    (void)json_object_set_new(answer, "error", json_null());
  } else {
    (void)json_object_set_new(answer, "error",
                              json_pack("{s:i,s:s}", "code", (int)refusal_code(refusal), "name",
                                        frame_error_name(refusal_code(refusal))));
  }
  (void)json_object_set_new(answer, "scheme",
                            x->scheme == NULL ? json_null() : json_string(x->scheme->name));
  if (x->request.why != NULL) {
    (void)json_object_set_new(answer, "detail", json_string(x->request.why));
  }
  return answer;
}

static enum refusal judge(struct explainer *x) {
  enum refusal refusal = REFUSAL_NONE;

  asker_init(&x->asker, x->snapshot->keys);
  rights_of_client(&x->asker.rights, x->snapshot->rights, x->peer.spki_sha256, has_name, x);
  refusal = dispatch_judge(x->snapshot, &x->request, &x->asker, clock_wall_us());
  if (refusal == REFUSAL_NONE && x->request.purpose == PURPOSE_GENERATE) {
    refusal = generate_judge(x->snapshot, x->request.new_label);
  }
  // What was asked for, where the judge did not come so far as to find out.
  if (x->request.purpose == PURPOSE_NONE && x->query->message_path == NULL) {
    x->request.purpose = x->purpose;
  }
  return refusal;
}

enum status explain(json_t **out, const struct explain_query *query, struct errmsg *err) {
  struct explainer *x = calloc(1, sizeof *x);
  enum status st = STATUS_OK;

  *out = NULL;
  if (x == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  x->query = query;
  if (query->purpose != NULL && purpose_from_name(&x->purpose, query->purpose) != STATUS_OK) {
    TRY(errmsg_set(err, STATUS_CONFIG,
                   "--purpose %s is none of: tls13, tls12, dc, csr, blind, generate",
                   query->purpose));
  }
  TRY(snapshot_read(&x->snapshot, query->config_path, 1, err));
  TRY(snapshot_load_public(x->snapshot, err));
  TRY(read_client(x, err));
  TRY(x->purpose == PURPOSE_GENERATE ? make_generate_packet(x, err) : make_signing_packet(x, err));
  *out = json_of_answer(x, judge(x));
  if (*out == NULL) {
    st = errmsg_set(err, STATUS_MEMORY, "no memory");
  }

out:
  cleanup(x);
  ERR_clear_error();
  return st;
}
