// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/address_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/keyclient/keyclient.h"
#include "common/net/address.h"

static enum status parse(struct address *out, const char *text, const char *where,
                         struct errmsg *err) {
  if (address_parse(out, text, err) != STATUS_OK) {
    errmsg_prefix(err, "%s", where);
    return STATUS_CONFIG;
  }
  return STATUS_OK;
}

static bool is_same(const struct address *a, const struct address *b) {
  const bool is_chosen = a->storage.ss_family != AF_UNIX && address_port(a) == 0;
  char text[2][ADDRESS_TEXT_LEN];
  return !is_chosen && a->is_dual == b->is_dual &&
         strcmp(address_format(text[0], a), address_format(text[1], b)) == 0;
}

// Sockets of one address share what comes (SO_REUSEPORT), whatever their listeners say.
static enum status check_listeners(const struct options *options, struct errmsg *err) {
  struct address addresses[OPTIONS_MAX_LISTENERS];
  for (size_t i = 0; i < options->num_listeners; i++) {
    const struct listener_options *listener = &options->listeners[i];
    char where[128];
    (void)snprintf(where, sizeof(where), "listeners[%zu] \"%s\": address", i, listener->name);
    if (parse(&addresses[i], listener->address, where, err) != STATUS_OK) {
      return STATUS_CONFIG;
    }
    for (size_t j = 0; j < i; j++) {
      if (is_same(&addresses[i], &addresses[j])) {
        return errmsg_set(err, STATUS_CONFIG, "listeners[%zu] and [%zu] both listen at %s", j, i,
                          listener->address);
      }
    }
  }
  return STATUS_OK;
}

static enum status check_admin(const struct admin_options *admin, struct errmsg *err) {
  struct address address = {0};
  char text[sizeof(address.storage)];
  char *end = NULL;
  const unsigned long mode = strtoul(admin->mode, &end, 8);

  if (*end != '\0' || mode > 0777) {
    return errmsg_set(err, STATUS_CONFIG, "admin.mode is \"%s\"; it must be octal, as 0660",
                      admin->mode);
  }
  if (admin->socket == NULL) {
    return STATUS_OK;
  }
  if ((size_t)snprintf(text, sizeof(text), "unix:%s", admin->socket) >= sizeof(text)) {
    return errmsg_set(err, STATUS_CONFIG, "admin.socket: the path is too long");
  }
  return parse(&address, text, "admin.socket", err);
}

enum status address_check(const struct options *options, struct errmsg *err) {
  enum status st = STATUS_OK;
  struct address address = {0};

  TRY(check_listeners(options, err));
  TRY(check_admin(&options->admin, err));
  if (options->metrics.listen != NULL) {
    TRY(parse(&address, options->metrics.listen, "metrics.listen", err));
  }
  TRY(keyclient_check_servers(&options->key_servers, err));
out:
  return st;
}
