// SPDX-License-Identifier: Apache-2.0
// features: what the BoringSSL that this program was built with has, of what not every
// BoringSSL has. For the line at the start and for --version.
#ifndef DEPUTY_COMMON_TLS_FEATURES_H_
#define DEPUTY_COMMON_TLS_FEATURES_H_

// tls_features: "boringssl_api=17 x25519mlkem768=no ech=yes"; static.
const char *tls_features(void);

#endif  // DEPUTY_COMMON_TLS_FEATURES_H_
