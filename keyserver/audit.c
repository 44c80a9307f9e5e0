// SPDX-License-Identifier: Apache-2.0
#include "keyserver/audit.h"

#include <openssl/sha.h>

#include "common/base/clock.h"

static void add_key(struct jsonline *line, const struct request *req) {
  if (req->frame.ski.data != NULL) {
    jsonline_hex(line, "ski", req->frame.ski);
  }
  if (req->new_label[0] != '\0') {
    jsonline_cstr(line, "key", req->new_label);
    jsonline_cstr(line, "kind", keygen_kind_name(req->new_kind));
  }
  if (req->key != NULL) {
    jsonline_cstr(line, "key", req->key->label);
  }
  if (req->grant != NULL) {
    jsonline_cstr(line, "grant", req->grant->label);
  }
}

// add_input tells what was, or would have been, signed: the SHA-256 of the
// message, or of a blind request the digest itself.
static void add_input(struct jsonline *line, const struct request *req) {
  uint8_t hash[SHA256_DIGEST_LENGTH];

  if (req->purpose != PURPOSE_NONE) {
    jsonline_cstr(line, "purpose", purpose_name(req->purpose));
  }
  if (req->message.data == NULL) {
    if (req->frame.payload.data != NULL && req->frame.payload.len <= sizeof req->digest) {
      jsonline_hex(line, "digest", req->frame.payload);
    }
    return;
  }
  // The digest that was signed is the one we want, when it is a SHA-256.
  if (req->job.digest.data == req->digest && req->job.digest.len == sizeof hash) {
    jsonline_hex(line, "message_sha256", req->job.digest);
    return;
  }
  SHA256(req->message.data, req->message.len, hash);
  jsonline_hex(line, "message_sha256", bytes_of(hash, sizeof hash));
}

static void add_credential(struct jsonline *line, const struct request *req) {
  char text[CLOCK_RFC3339_LEN];

  if (req->purpose != PURPOSE_DC || req->input.dc.spki.data == NULL) {
    return;
  }
  if (req->grant != NULL) {  // else nobody looked at the certificate
    jsonline_hex(line, "certificate_sha256",
                 bytes_of(req->certificate_sha256, sizeof req->certificate_sha256));
    jsonline_hex(line, "dc_spki_sha256", bytes_of(req->dc_spki_sha256, sizeof req->dc_spki_sha256));
  }
  if (req->dc_expiry_s != 0) {
    jsonline_cstr(line, "dc_expires", clock_format_rfc3339(text, req->dc_expiry_s));
  }
}

static void add_sni(struct jsonline *line, struct bytes sni) {
  if (sni.data != NULL) {
    sni.len = sni.len > AUDIT_MAX_SNI_LEN ? AUDIT_MAX_SNI_LEN : sni.len;
    jsonline_text(line, "sni", sni);
  }
}

enum status audit_write(struct sink *sink, struct jsonline *line,
                        const struct audit_subject *subject, const struct request *req,
                        enum refusal refusal, int64_t wall_us) {
  struct bytes text = {0};
  enum status st = STATUS_OK;

  jsonline_begin(line);
  jsonline_time(line, "time", wall_us);
  jsonline_cstr(line, "result",
                refusal != REFUSAL_NONE            ? "refused"
                : req->purpose == PURPOSE_GENERATE ? "generated"
                                                   : "signed");
  if (refusal != REFUSAL_NONE) {
    jsonline_cstr(line, "reason", refusal_name(refusal));
  }
  if (req->why != NULL) {
    jsonline_cstr(line, "detail", req->why);
  }
  jsonline_cstr(line, "client", subject->client.name);
  jsonline_hex(line, "client_spki_sha256",
               bytes_of(subject->client.spki_sha256, sizeof subject->client.spki_sha256));
  jsonline_cstr(line, "peer", subject->address);
  if (req->frame.has_opcode) {
    jsonline_cstr(line, "opcode", frame_opcode_name(req->frame.opcode));
  }
  add_key(line, req);
  add_input(line, req);
  add_credential(line, req);
  add_sni(line, req->frame.sni);
  st = jsonline_end(line, &text);
  return st == STATUS_OK ? sink_write(sink, text) : STATUS_UNAVAILABLE;
}

enum status audit_write_key(struct sink *sink, struct jsonline *line, const char *result,
                            const struct key *key, int64_t wall_us) {
  struct bytes text = {0};
  enum status st = STATUS_OK;

  jsonline_begin(line);
  jsonline_time(line, "time", wall_us);
  jsonline_cstr(line, "result", result);
  jsonline_cstr(line, "key", key->label);
  jsonline_hex(line, "ski", bytes_of(key->ski, sizeof key->ski));
  jsonline_hex(line, "spki_sha256", bytes_of(key->key_id, sizeof key->key_id));
  jsonline_cstr(line, "kind", key_kind_name(key->kind));
  st = jsonline_end(line, &text);
  return st == STATUS_OK ? sink_write(sink, text) : STATUS_UNAVAILABLE;
}
