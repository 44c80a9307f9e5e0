// SPDX-License-Identifier: Apache-2.0
#include "common/tls/tls_error.h"

#include <openssl/err.h>
#include <stdio.h>

char *tls_error_drain(char *out, size_t out_len) {
  uint32_t packed = ERR_get_error();
  const char *reason = packed == 0 ? "" : ERR_reason_error_string(packed);

  // A system error has no text of its own in this queue; errno had it.
  snprintf(out, out_len, "%s", reason == NULL ? "unknown reason" : reason);
  ERR_clear_error();
  return out;
}

#define TO_TEXT(x) #x
#define EXPAND_TO_TEXT(x) TO_TEXT(x)

const char *tls_generation(void) {
#if defined(BORINGSSL_API_VERSION) && BORINGSSL_API_VERSION >= 32
  return EXPAND_TO_TEXT(BORINGSSL_API_VERSION);
#else
  return "before 32";
#endif
}
