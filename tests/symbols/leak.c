// SPDX-License-Identifier: Apache-2.0
//
// A program that exports a name of BoringSSL's, which symbols.* must notice.

void SSL_new(void);

void SSL_new(void) {}

int main(void) { return 0; }
