# SPDX-License-Identifier: Apache-2.0

deputy_add_fuzz_target(ocsp SOURCES ocsp_fuzz.c DEPS deputy_revocation)
deputy_add_fuzz_target(crl SOURCES crl_fuzz.c DEPS deputy_revocation)
