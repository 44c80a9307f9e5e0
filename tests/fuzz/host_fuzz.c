// SPDX-License-Identifier: Apache-2.0
// Targets: certstore_find, certstore_add_name: what a client may put into its server
// name. A host is found exactly when it was added in the same spelling but for case
// and a dot at the end; nothing else but a wildcard's own names is ever found.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "certstore/certstore.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_found(const struct cert_name *found, struct bytes host) {
  char text[512];
  size_t text_len = host.len < sizeof(text) - 1 ? host.len : sizeof(text) - 1;
  memcpy(text, host.data, text_len);
  text[text_len] = '\0';
  CHECK(strlen(text) == host.len);  // no NUL inside
  if (text_len > 0 && text[text_len - 1] == '.') {
    text[text_len - 1] = '\0';
  }
  if (found->name[0] == '*') {
    const char *dot = strchr(text, '.');
    CHECK(dot != NULL && dot != text && strcasecmp(dot, found->name + 1) == 0);
  } else {
    CHECK(strcasecmp(text, found->name) == 0);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
  struct states *states = NULL;
  struct certstore *store = NULL;
  struct cert_name *name = NULL;
  const struct bytes host = bytes_of(data, len);
  char *text = malloc(len + 1);
  CHECK(text != NULL && states_new(&states) == STATUS_OK);
  CHECK(certstore_new(&store, states) == STATUS_OK);
  CHECK(certstore_add_name(&name, store, "a.test", NULL, NULL) == STATUS_OK);
  CHECK(certstore_add_name(&name, store, "*.a.test", NULL, NULL) == STATUS_OK);
  const struct cert_name *found = certstore_find(store, host);
  if (found != NULL) {
    check_found(found, host);
  }
  memcpy(text, data, len);
  text[len] = '\0';
  if (certstore_add_name(&name, store, text, NULL, NULL) == STATUS_OK && strlen(text) == len) {
    CHECK(certstore_find_exact(store, text) == name);
    found = certstore_find(store, host);
    CHECK(name->name[0] == '*' ? found != name : found == name);
  }
  CHECK(certstore_set_default(store, "a.test", NULL) == STATUS_OK);
  CHECK(certstore_find(store, host) != NULL);
  certstore_free(store);
  states_free(states);
  free(text);
  return 0;
}
