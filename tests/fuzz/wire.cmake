# SPDX-License-Identifier: Apache-2.0
deputy_add_fuzz_target(frame SOURCES frame_fuzz.c DEPS deputy_wire)
deputy_add_fuzz_target(dc SOURCES dc_fuzz.c DEPS deputy_wire)
deputy_add_fuzz_target(signing_input SOURCES signing_input_fuzz.c DEPS deputy_wire)
deputy_add_fuzz_target(proxy_protocol SOURCES proxy_protocol_fuzz.c DEPS deputy_wire)
deputy_add_fuzz_target(keygen SOURCES keygen_fuzz.c DEPS deputy_wire)
deputy_add_fuzz_target(pkcs11_uri SOURCES pkcs11_uri_fuzz.c DEPS deputy_wire)
deputy_add_fuzz_target(region_policy SOURCES region_policy_fuzz.c DEPS deputy_wire)
deputy_add_fuzz_target(sealed_key SOURCES sealed_key_fuzz.c DEPS deputy_wire)
