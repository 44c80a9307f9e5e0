# SPDX-License-Identifier: Apache-2.0
deputy_add_fuzz_target(tls13_client SOURCES tls13_client_fuzz.c DEPS deputy_bench deputy_test_tls13_puppet)
