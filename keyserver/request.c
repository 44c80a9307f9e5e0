// SPDX-License-Identifier: Apache-2.0
#include "keyserver/request.h"

#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/sha.h>
#include <string.h>

#include "common/base/log.h"
#include "common/tls/cert.h"
#include "common/tls/tls_error.h"
#include "common/wire/dc.h"
#include "common/wire/scheme.h"

#define LINES_PER_S 5

// clang-format off
static const struct refusal_row {
  const char *name;
  enum frame_error code;
} rows[REFUSAL_NUM] = {
    [REFUSAL_NONE]                = {"none",                  FRAME_ERROR_NONE},
    [REFUSAL_VERSION]             = {"version",               FRAME_ERROR_VERSION},
    [REFUSAL_FORMAT]              = {"format",                FRAME_ERROR_FORMAT},
    [REFUSAL_NO_OPCODE]           = {"no_opcode",             FRAME_ERROR_BAD_OPCODE},
    [REFUSAL_OPCODE]              = {"opcode",                FRAME_ERROR_BAD_OPCODE},
    [REFUSAL_RESPONSE_OPCODE]     = {"response_opcode",       FRAME_ERROR_UNEXPECTED_OPCODE},
    [REFUSAL_NO_SKI]              = {"no_ski",                FRAME_ERROR_INTERNAL},
    [REFUSAL_UNKNOWN_CLIENT]      = {"unknown_client",        FRAME_ERROR_NOT_AUTHORISED},
    [REFUSAL_NO_SUCH_KEY]         = {"no_such_key",           FRAME_ERROR_KEY_NOT_FOUND},
    [REFUSAL_KEY_KIND]            = {"key_kind",              FRAME_ERROR_CRYPTOGRAPHY},
    [REFUSAL_DIGEST_LENGTH]       = {"digest_length",         FRAME_ERROR_CRYPTOGRAPHY},
    [REFUSAL_NO_PURPOSE]          = {"no_purpose",            FRAME_ERROR_BAD_MESSAGE},
    [REFUSAL_NOT_GRANTED]         = {"not_granted",           FRAME_ERROR_NOT_AUTHORISED},
    [REFUSAL_SCHEME_POLICY]       = {"scheme_policy",         FRAME_ERROR_NOT_AUTHORISED},
    [REFUSAL_DIGEST_DIFFERS]      = {"digest_differs",        FRAME_ERROR_BAD_MESSAGE},
    [REFUSAL_TLS13_SCHEME]        = {"tls13_scheme",          FRAME_ERROR_BAD_MESSAGE},
    [REFUSAL_DC_CERTIFICATE]      = {"dc_certificate",        FRAME_ERROR_BAD_MESSAGE},
    [REFUSAL_DC_OTHER_KEY]        = {"dc_other_key",          FRAME_ERROR_BAD_MESSAGE},
    [REFUSAL_DC_USAGE]            = {"dc_usage",              FRAME_ERROR_BAD_MESSAGE},
    [REFUSAL_DC_ALGORITHM]        = {"dc_algorithm",          FRAME_ERROR_BAD_MESSAGE},
    [REFUSAL_DC_OWN_KEY]          = {"dc_own_key",            FRAME_ERROR_BAD_MESSAGE},
    [REFUSAL_DC_ENDED]            = {"dc_ended",              FRAME_ERROR_BAD_MESSAGE},
    [REFUSAL_DC_LIFETIME]         = {"dc_lifetime",           FRAME_ERROR_NOT_AUTHORISED},
    [REFUSAL_DC_PAST_CERTIFICATE] = {"dc_past_certificate",   FRAME_ERROR_BAD_MESSAGE},
    [REFUSAL_CSR_OTHER_KEY]       = {"csr_other_key",         FRAME_ERROR_BAD_MESSAGE},
    [REFUSAL_GENERATE_OFF]        = {"generate_off",          FRAME_ERROR_BAD_OPCODE},
    [REFUSAL_GENERATE_FORMAT]     = {"generate_format",       FRAME_ERROR_BAD_MESSAGE},
    [REFUSAL_KEY_EXISTS]          = {"key_exists",            FRAME_ERROR_BAD_MESSAGE},
    [REFUSAL_KEY_NOT_STORED]      = {"key_not_stored",        FRAME_ERROR_BUSY},
    [REFUSAL_RATE]                = {"rate",                  FRAME_ERROR_RATE},
    [REFUSAL_QUEUE_FULL]          = {"queue_full",            FRAME_ERROR_BUSY},
    [REFUSAL_SIGN_TIMEOUT]        = {"sign_timeout",          FRAME_ERROR_BUSY},
    [REFUSAL_CLIENT_GONE]         = {"client_gone",           FRAME_ERROR_BUSY},
    [REFUSAL_TOKEN]               = {"token",                 FRAME_ERROR_BUSY},
    [REFUSAL_CRYPTO]              = {"crypto",                FRAME_ERROR_CRYPTOGRAPHY},
    [REFUSAL_AUDIT]               = {"audit",                 FRAME_ERROR_BUSY},
    [REFUSAL_INTERNAL]            = {"internal",              FRAME_ERROR_INTERNAL},
};
// clang-format on

const char *refusal_name(enum refusal refusal) {
  return (unsigned)refusal < REFUSAL_NUM ? rows[refusal].name : "unknown";
}

enum frame_error refusal_code(enum refusal refusal) {
  return (unsigned)refusal < REFUSAL_NUM ? rows[refusal].code : FRAME_ERROR_INTERNAL;
}

void asker_init(struct asker *asker, const struct keystore *keys) {
  *asker = (struct asker){.keys = keys};
}

// rights_for answers from the connection's memory: most connections use few
// keys, and matching patterns for each signature would cost more than hashing.
static const struct key_rights *rights_for(struct asker *asker, const struct key *key) {
  struct asker_memory *at = &asker->memory[key->ski[0] & (ASKER_MEMORY_LEN - 1)];
  if (at->key != key) {
    rights_of_key(&at->rights, &asker->rights, key);
    at->key = key;
  }
  return &at->rights;
}

// --- what the packet says ------------------------------------------------------------

static bool is_response_opcode(uint8_t opcode) {
  return opcode == FRAME_OP_SUCCESS || opcode == FRAME_OP_PONG || opcode == FRAME_OP_ERROR;
}

static bool is_signing_opcode(uint8_t opcode) {
  switch (opcode) {
    case FRAME_OP_RSA_SHA256:
    case FRAME_OP_RSA_SHA384:
    case FRAME_OP_RSA_SHA512:
    case FRAME_OP_ECDSA_SHA256:
    case FRAME_OP_ECDSA_SHA384:
    case FRAME_OP_ECDSA_SHA512:
    case FRAME_OP_ED25519:
    case FRAME_OP_PSS_SHA256:
    case FRAME_OP_PSS_SHA384:
    case FRAME_OP_PSS_SHA512:
      return true;
    default:
      return false;
  }
}

// Foreign clients write an absent SKI as zeros.
static bool has_ski(const struct frame *frame) {
  static const uint8_t zeros[FRAME_SKI_LEN];
  return frame->ski.len == FRAME_SKI_LEN && memcmp(frame->ski.data, zeros, FRAME_SKI_LEN) != 0;
}

static enum refusal judge_packet(const struct frame *frame) {
  if (!frame->has_opcode) {
    return REFUSAL_NO_OPCODE;
  }
  if (is_response_opcode(frame->opcode)) {
    return REFUSAL_RESPONSE_OPCODE;
  }
  if (!is_signing_opcode(frame->opcode)) {
    return REFUSAL_OPCODE;
  }
  return has_ski(frame) ? REFUSAL_NONE : REFUSAL_NO_SKI;
}

// --- key and purpose -------------------------------------------------------------------

// find_key: a client without any grant is not told which keys there are.
static enum refusal find_key(struct request *req, const struct asker *asker) {
  if (asker->rights.num_grants == 0) {
    return REFUSAL_UNKNOWN_CLIENT;
  }
  req->key = keystore_find(asker->keys, req->frame.ski.data);
  if (req->key == NULL) {
    return REFUSAL_NO_SUCH_KEY;
  }
  req->job.key = req->key;
  req->job.scheme = scheme_by_opcode(req->frame.opcode, req->key->kind);
  if (req->job.scheme == NULL) {
    return REFUSAL_KEY_KIND;
  }
  if (req->job.scheme->digest_len != 0 && req->frame.payload.len != req->job.scheme->digest_len) {
    return REFUSAL_DIGEST_LENGTH;
  }
  return REFUSAL_NONE;
}

// find_purpose parses the message, once. Ed25519 signs messages, so the payload
// is the message, and a foreign client is judged by it like any other.
static enum refusal find_purpose(struct request *req) {
  const struct frame *frame = &req->frame;
  const bool is_whole = req->job.scheme->digest_len == 0;

  req->message = is_whole ? frame->payload : frame->extra;
  if (is_whole && frame->extra.data != NULL && !bytes_equal(frame->extra, frame->payload)) {
    return REFUSAL_DIGEST_DIFFERS;
  }
  if (req->message.data == NULL && !is_whole) {
    req->purpose = PURPOSE_BLIND;
    return REFUSAL_NONE;
  }
  if (signing_input_parse(&req->input, req->message) != STATUS_OK) {
    req->why = req->input.why;
    return REFUSAL_NO_PURPOSE;
  }
  req->purpose = req->input.purpose;
  return REFUSAL_NONE;
}

static enum refusal find_grant(struct request *req, struct asker *asker) {
  req->grant = rights_for(asker, req->key)->by_purpose[req->purpose];
  if (req->grant == NULL) {
    return REFUSAL_NOT_GRANTED;
  }
  if ((req->key->opcodes & (UINT64_C(1) << req->frame.opcode)) == 0) {
    return REFUSAL_SCHEME_POLICY;
  }
  return REFUSAL_NONE;
}

// bind_digest makes sure that what is signed is what was judged.
static enum refusal bind_digest(struct request *req) {
  size_t len = 0;

  if (req->job.scheme->digest_len == 0) {
    req->job.digest = req->message;
    return REFUSAL_NONE;
  }
  if (req->purpose == PURPOSE_BLIND) {
    req->job.digest = req->frame.payload;
    return REFUSAL_NONE;
  }
  if (scheme_digest(req->job.scheme, req->digest, &len, req->message) != STATUS_OK) {
    return REFUSAL_INTERNAL;
  }
  req->job.digest = bytes_of(req->digest, len);
  return bytes_equal(req->job.digest, req->frame.payload) ? REFUSAL_NONE : REFUSAL_DIGEST_DIFFERS;
}

// --- the message and this key --------------------------------------------------------------

// judge_dc_times: RFC 9345, section 4.1.3, as a client will apply it, and what
// the key's and the client's policies leave of it.
static enum refusal judge_dc_times(struct request *req, const struct cert_info *leaf,
                                   int64_t now_s) {
  int64_t limit_s = req->key->dc_max_lifetime_s;

  req->dc_expiry_s = dc_expiry_s(&req->input.dc, leaf->not_before_s);
  if (limit_s > req->grant->dc_max_lifetime_s) {
    limit_s = req->grant->dc_max_lifetime_s;
  }
  if (limit_s == 0) {
    return REFUSAL_DC_LIFETIME;
  }
  limit_s += REQUEST_CLOCK_SLACK_S;
  if (limit_s > DC_MAX_LIFETIME_S) {
    limit_s = DC_MAX_LIFETIME_S;
  }
  if (req->dc_expiry_s <= now_s) {
    return REFUSAL_DC_ENDED;
  }
  if (req->dc_expiry_s - now_s > limit_s) {
    return REFUSAL_DC_LIFETIME;
  }
  return req->dc_expiry_s < leaf->not_after_s ? REFUSAL_NONE : REFUSAL_DC_PAST_CERTIFICATE;
}

static enum refusal judge_dc_leaf(struct request *req, const struct cert_info *leaf,
                                  int64_t now_s) {
  if (memcmp(leaf->key_id, req->key->key_id, sizeof leaf->key_id) != 0) {
    return REFUSAL_DC_OTHER_KEY;
  }
  if (!leaf->has_delegation_usage || !leaf->has_digital_signature || !leaf->may_delegate) {
    return REFUSAL_DC_USAGE;
  }
  if (req->input.dc.algorithm != req->job.scheme->code ||
      !scheme_fits_tls13(req->job.scheme, req->key->kind)) {
    return REFUSAL_DC_ALGORITHM;
  }
  if (memcmp(req->dc_spki_sha256, req->key->key_id, sizeof req->dc_spki_sha256) == 0) {
    return REFUSAL_DC_OWN_KEY;
  }
  return judge_dc_times(req, leaf, now_s);
}

static enum refusal judge_dc(struct request *req, int64_t now_s) {
  struct cert_info leaf = {0};
  enum refusal refusal = REFUSAL_DC_CERTIFICATE;

  SHA256(req->input.certificate.data, req->input.certificate.len, req->certificate_sha256);
  SHA256(req->input.dc.spki.data, req->input.dc.spki.len, req->dc_spki_sha256);
  if (cert_info_read(&leaf, req->input.certificate, NULL) == STATUS_OK) {
    refusal = judge_dc_leaf(req, &leaf, now_s);
  }
  cert_info_cleanup(&leaf);
  ERR_clear_error();
  return refusal;
}

static enum refusal judge_message(struct request *req, int64_t now_s) {
  uint8_t id[32];

  switch (req->purpose) {
    case PURPOSE_TLS13:
      return scheme_fits_tls13(req->job.scheme, req->key->kind) ? REFUSAL_NONE
                                                                : REFUSAL_TLS13_SCHEME;
    case PURPOSE_DC:
      return judge_dc(req, now_s);
    case PURPOSE_CSR:
      SHA256(req->input.csr_spki.data, req->input.csr_spki.len, id);
      return memcmp(id, req->key->key_id, sizeof id) == 0 ? REFUSAL_NONE : REFUSAL_CSR_OTHER_KEY;
    case PURPOSE_TLS12:  // every scheme that fits the key does
    case PURPOSE_BLIND:
      return REFUSAL_NONE;
    case PURPOSE_NONE:
    case PURPOSE_GENERATE:
    case PURPOSE_NUM:
    default:
      return REFUSAL_INTERNAL;
  }
}

// --- a new key -----------------------------------------------------------------------------

static bool is_generate(const struct frame *frame) {
  return frame->has_opcode && frame->opcode == FRAME_OP_CUSTOM &&
         bytes_equal(frame->custom, bytes_text(KEYGEN_FUNCTION));
}

static enum refusal judge_generate(struct request *req, const struct asker *asker, int64_t now_ns) {
  struct keygen_request wanted;

  if (asker->rights.num_grants == 0) {
    return REFUSAL_UNKNOWN_CLIENT;
  }
  req->purpose = PURPOSE_GENERATE;
  if (keygen_request_decode(&wanted, req->frame.payload) != STATUS_OK) {
    return REFUSAL_GENERATE_FORMAT;
  }
  req->new_kind = wanted.kind;
  memcpy(req->new_label, wanted.label.data, wanted.label.len);
  req->new_label[wanted.label.len] = '\0';
  req->grant = rights_to_generate(&asker->rights, req->new_label);
  if (req->grant == NULL) {
    return REFUSAL_NOT_GRANTED;
  }
  return rate_limit_take(&req->grant->rate, now_ns) ? REFUSAL_NONE : REFUSAL_RATE;
}

enum refusal request_judge(struct request *req, struct asker *asker, int64_t now_s,
                           int64_t now_ns) {
  enum refusal refusal = REFUSAL_NONE;

  if (is_generate(&req->frame)) {
    return judge_generate(req, asker, now_ns);
  }
  refusal = judge_packet(&req->frame);

  if (refusal == REFUSAL_NONE) {
    refusal = find_key(req, asker);
  }
  if (refusal == REFUSAL_NONE) {
    refusal = find_purpose(req);
  }
  if (refusal == REFUSAL_NONE) {
    refusal = find_grant(req, asker);
  }
  if (refusal == REFUSAL_NONE) {
    refusal = bind_digest(req);
  }
  if (refusal == REFUSAL_NONE) {
    refusal = judge_message(req, now_s);
  }
  if (refusal == REFUSAL_NONE && !rate_limit_take(&req->grant->rate, now_ns)) {
    refusal = REFUSAL_RATE;
  }
  return refusal;
}

enum refusal request_sign(const struct sign_job *job, uint8_t out[SIGN_MAX_LEN], size_t *out_len) {
  static struct log_gate gate;
  char why[TLS_ERROR_TEXT_LEN];
  uint64_t num_held = 0;
  const enum status st = sign_run(job, out, out_len);

  if (st == STATUS_OK) {
    return REFUSAL_NONE;
  }
  if (st == STATUS_UNAVAILABLE) {
    return REFUSAL_TOKEN;  // logged once, when the token went away
  }
  // A key that passed its self-test and fails now: an operator must look.
  (void)tls_error_drain(why, sizeof why);
  if (log_gate_pass(&gate, LINES_PER_S, &num_held)) {
    log_error(0, "signing_failed", "key=%s why=%s held=%llu", job->key->label, why,
              (unsigned long long)num_held);
  }
  return REFUSAL_CRYPTO;
}

// move_run lets a run that lies in `from` begin at the same place of `to`.
static void move_run(struct bytes *run, struct bytes from, const uint8_t *to) {
  const uintptr_t at = (uintptr_t)run->data;
  const uintptr_t start = (uintptr_t)from.data;

  if (run->data != NULL && at >= start && at - start <= from.len) {
    run->data = to + (at - start);
  }
}

void request_move(struct request *to, const struct request *from, struct bytes body,
                  const uint8_t *copy) {
  *to = *from;
  struct bytes *const runs[] = {
      &to->frame.payload,      &to->frame.extra,     &to->frame.ski,     &to->frame.key_digest,
      &to->frame.client_ip,    &to->frame.server_ip, &to->frame.sni,     &to->frame.cert_id,
      &to->frame.custom,       &to->message,         &to->job.digest,    &to->input.transcript_hash,
      &to->input.certificate,  &to->input.csr_spki,  &to->input.dc.spki, &to->input.dc.credential,
      &to->input.dc.signature,
  };
  for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
    move_run(runs[i], body, copy);
  }
  move_run(&to->job.digest, bytes_of(from->digest, sizeof from->digest), to->digest);
}
