# SPDX-License-Identifier: Apache-2.0

deputy_add_fuzz_target(states SOURCES states_fuzz.c DEPS deputy_certstore)
deputy_add_fuzz_target(host SOURCES host_fuzz.c DEPS deputy_certstore)
