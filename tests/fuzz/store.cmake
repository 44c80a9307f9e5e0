# SPDX-License-Identifier: Apache-2.0

deputy_add_fuzz_target(cert_der SOURCES cert_der_fuzz.c DEPS deputy_tls)
deputy_add_fuzz_target(pem_block SOURCES pem_block_fuzz.c DEPS deputy_wire)
deputy_add_fuzz_target(store_record SOURCES store_record_fuzz.c DEPS deputy_wire)
