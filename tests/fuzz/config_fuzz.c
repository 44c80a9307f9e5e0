// SPDX-License-Identifier: Apache-2.0
// Targets: config_parse, config_cleanup, and the walk for an error's line.
#include <stdint.h>
#include <string.h>

#include "common/base/config.h"
#include "tests/unit/common/base/config_sample.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_len) {
  struct sample s = {0};
  struct errmsg err = {0};
  enum status st =
      config_parse(&s, sample_options, (const char *)data, data_len, "f.json", "/etc/deputy", &err);
  // A refusal has a sentence that begins with the place; success has none.
  CHECK((st == STATUS_OK) == (err.text[0] == '\0'));
  CHECK(st == STATUS_OK || strncmp(err.text, "f.json:", 7) == 0);
  config_cleanup(&s, sample_options);
  // Nothing of what was allocated is still named.
  CHECK(s.user == NULL && s.log == NULL && s.listen == NULL && s.roots == NULL && s.names == NULL);
  CHECK(s.tls.certificate == NULL && s.num_listen == 0 && s.num_roots == 0 && s.num_names == 0);
  return 0;
}
