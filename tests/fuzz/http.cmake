# SPDX-License-Identifier: Apache-2.0
deputy_add_fuzz_target(http_head SOURCES http_head_fuzz.c DEPS deputy_wire)
