# SPDX-License-Identifier: Apache-2.0
deputy_add_fuzz_target(request SOURCES request_fuzz.c DEPS deputy_keyserver_core)
deputy_add_fuzz_target(keyserver_config SOURCES keyserver_config_fuzz.c DEPS deputy_keyserver_core)
