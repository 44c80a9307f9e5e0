# SPDX-License-Identifier: Apache-2.0
deputy_add_fuzz_target(issue SOURCES issue_fuzz.c DEPS deputy_dcissuer_core deputy_keyclient)
