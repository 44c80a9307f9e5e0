// SPDX-License-Identifier: Apache-2.0
#include "common/tls/features.h"

#include <openssl/nid.h>
#include <openssl/ssl.h>
#include <openssl/tls1.h>

#define TO_TEXT(x) #x
#define EXPAND_TO_TEXT(x) TO_TEXT(x)

#ifdef NID_X25519MLKEM768
#define MLKEM768 "yes"
#else
#define MLKEM768 "no"
#endif

// RFC 9849 has the codepoint that drafts from the 13th on had.
#if defined(TLSEXT_TYPE_encrypted_client_hello) && TLSEXT_TYPE_encrypted_client_hello == 0xfe0d
#define ECH "yes"
#else
#define ECH "no"
#endif

const char *tls_features(void) {
  return "boringssl_api=" EXPAND_TO_TEXT(BORINGSSL_API_VERSION) " x25519mlkem768=" MLKEM768
                                                                " ech=" ECH;
}
