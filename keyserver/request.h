// SPDX-License-Identifier: Apache-2.0
// request: decides whether one request may be signed, and why not. This is the
// heart of the key server: purpose-bound signing and default deny, as
// docs/THREAT-MODEL.md argues them. dispatch.c hands it a decoded frame; what it
// lets through goes to sign.c. No I/O, no locks, no allocation but what
// BoringSSL needs to parse a certificate or a point.
//
// The order of the checks is chosen so that a client learns nothing about keys
// that it has no right to, and so that what costs most comes last.
#ifndef DEPUTY_KEYSERVER_REQUEST_H_
#define DEPUTY_KEYSERVER_REQUEST_H_

#include <stdint.h>

#include "common/base/bytes.h"
#include "common/wire/frame.h"
#include "common/wire/keygen.h"
#include "common/wire/signing_input.h"
#include "keyserver/keystore.h"
#include "keyserver/rights.h"
#include "keyserver/sign.h"

// A credential may outlive its policy by this much, as the issuer's clock and
// ours differ; never the 7 days of RFC 9345, which clients hold us to.
#define REQUEST_CLOCK_SLACK_S 300

// Why a request is not signed. Each has a word for metrics and audit lines and
// the error code that its asker gets (refusal_name, refusal_code).
enum refusal {
  REFUSAL_NONE,
  // The packet.
  REFUSAL_VERSION,          // major version is not 1
  REFUSAL_FORMAT,           // malformed
  REFUSAL_NO_OPCODE,        // no opcode in it
  REFUSAL_OPCODE,           // none that is served here (decryption, SHA-1, RPC)
  REFUSAL_RESPONSE_OPCODE,  // a response's opcode
  REFUSAL_NO_SKI,           // no key identifier, or one of the wrong length
  // Who, and with what.
  REFUSAL_UNKNOWN_CLIENT,  // no grant fits this client's certificate
  REFUSAL_NO_SUCH_KEY,
  REFUSAL_KEY_KIND,        // the opcode does not fit the key
  REFUSAL_DIGEST_LENGTH,   // the digest is not as long as the opcode says
  REFUSAL_NO_PURPOSE,      // the message is none that is signed here
  REFUSAL_NOT_GRANTED,     // not this client, this key, this purpose
  REFUSAL_SCHEME_POLICY,   // the key's policy leaves this scheme out
  REFUSAL_DIGEST_DIFFERS,  // the digest is not that of the message
  // The message and this key.
  REFUSAL_TLS13_SCHEME,         // RSA PKCS#1 v1.5, or another curve, in TLS 1.3
  REFUSAL_DC_CERTIFICATE,       // cannot be parsed
  REFUSAL_DC_OTHER_KEY,         // the certificate is of another key
  REFUSAL_DC_USAGE,             // no DelegationUsage, no digitalSignature, or RSA
  REFUSAL_DC_ALGORITHM,         // the input's algorithm is not what would be signed with
  REFUSAL_DC_OWN_KEY,           // the credential's key is the certificate's
  REFUSAL_DC_ENDED,             // ends before now
  REFUSAL_DC_LIFETIME,          // ends later than key, client or RFC 9345 allow
  REFUSAL_DC_PAST_CERTIFICATE,  // ends after the certificate
  REFUSAL_CSR_OTHER_KEY,        // the request is for another key
  // A new key.
  REFUSAL_GENERATE_OFF,     // none is made here
  REFUSAL_GENERATE_FORMAT,  // no kind or label that we know
  REFUSAL_KEY_EXISTS,       // the label is taken
  REFUSAL_KEY_NOT_STORED,   // it could not be written
  // Now.
  REFUSAL_RATE,          // over the grant's rate
  REFUSAL_QUEUE_FULL,    // too many wait for a signer thread
  REFUSAL_SIGN_TIMEOUT,  // waited too long for one
  REFUSAL_CLIENT_GONE,   // the client left while it waited; nobody gets this answer
  REFUSAL_TOKEN,         // the key's token is away
  REFUSAL_CRYPTO,        // the signature could not be made
  REFUSAL_AUDIT,         // its audit line could not be kept
  REFUSAL_INTERNAL,
  REFUSAL_NUM,
};

const char *refusal_name(enum refusal refusal);  // "not_granted"
enum frame_error refusal_code(enum refusal refusal);

// Keys that a connection has used lately, with what its client may do with them.
#define ASKER_MEMORY_LEN 8u  // a power of two

// Who asks. One for each connection; good for one snapshot of keys and rights,
// so that asker_init is called again after a reload.
struct asker {
  const struct keystore *keys;
  struct client_rights rights;
  struct asker_memory {
    const struct key *key;
    struct key_rights rights;
  } memory[ASKER_MEMORY_LEN];
};

// asker_init forgets the memory; the caller fills in keys and rights.
void asker_init(struct asker *asker, const struct keystore *keys);

// One request and what was found out about it; filled by request_judge as far
// as it got, for the audit line. Runs are borrowed from the packet.
struct request {
  struct frame frame;     // given
  const struct key *key;  // NULL: unknown
  enum purpose purpose;   // NONE: unknown
  struct grant *grant;    // that allows it
  struct bytes message;   // absent for blind
  struct signing_input input;
  enum keygen_kind new_kind;                 // of a key to be made
  char new_label[KEYGEN_MAX_LABEL_LEN + 1];  // the same; empty: none
  const char *why;                           // a sentence on the refusal, static; may be NULL
  uint8_t digest[64];                        // of the message
  struct sign_job job;                       // what to sign, when allowed
  // Of a credential.
  uint8_t certificate_sha256[32];
  uint8_t dc_spki_sha256[32];
  int64_t dc_expiry_s;
};

// request_judge decides on req->frame (not a ping) at the wall time `now_s` and
// the monotonic time `now_ns`. REFUSAL_NONE: req->job may be signed, and the
// grant has been charged.
enum refusal request_judge(struct request *req, struct asker *asker, int64_t now_s, int64_t now_ns);

// request_sign makes the signature of a request that was let through, and logs
// why if it cannot. Any thread.
enum refusal request_sign(const struct sign_job *job, uint8_t out[SIGN_MAX_LEN], size_t *out_len);

// request_move makes *to a copy of a judged request that borrows from `copy`,
// where the packet's `body` has been copied to, and no longer from the packet.
void request_move(struct request *to, const struct request *from, struct bytes body,
                  const uint8_t *copy);

#endif  // DEPUTY_KEYSERVER_REQUEST_H_
