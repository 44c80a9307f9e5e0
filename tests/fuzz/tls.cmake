# SPDX-License-Identifier: Apache-2.0

deputy_add_fuzz_target(cert SOURCES cert_fuzz.c DEPS deputy_tls)
deputy_add_fuzz_target(private_key SOURCES private_key_fuzz.c DEPS deputy_tls)
