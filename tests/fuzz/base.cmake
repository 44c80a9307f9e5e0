# SPDX-License-Identifier: Apache-2.0
deputy_add_fuzz_target(config
  SOURCES config_fuzz.c "${PROJECT_SOURCE_DIR}/tests/unit/common/base/config_sample.c"
  DEPS deputy_base)
deputy_add_fuzz_target(audit_chain SOURCES audit_chain_fuzz.c DEPS deputy_base)
