// SPDX-License-Identifier: Apache-2.0
// tls_options: the parts of the configuration that say how TLS is spoken to clients: for
// all names ("tls"), for one ("names[].tls", "store.tls"), and for resumption ("tickets").
// tls_policy.h makes of them what handshakes use.
#ifndef DEPUTY_PROXY_CONFIG_TLS_OPTIONS_H_
#define DEPUTY_PROXY_CONFIG_TLS_OPTIONS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/config.h"
#include "common/base/errmsg.h"
#include "common/base/status.h"

#define OPTIONS_MAX_ALPN 8

// INHERIT is for names: what "tls" says.
enum tls_version_option { TLS_OPTION_12, TLS_OPTION_13, TLS_OPTION_INHERIT };
enum alpn_mismatch { ALPN_REFUSE, ALPN_IGNORE };
// Bits of 1u << enum tls_compression.
enum compression_option { COMPRESSION_OFF, COMPRESSION_BROTLI, COMPRESSION_ZLIB, COMPRESSION_BOTH };
enum client_mode { CLIENT_OFF, CLIENT_OPTIONAL, CLIENT_REQUIRED, CLIENT_INHERIT };

// Certificates of clients. Without `ca` a name takes CAs, lists and depth of "tls".
struct client_options {
  int mode;  // enum client_mode
  char *ca;
  int64_t depth;
  char **crl;
  size_t num_crl;
  int crl_when_stale;  // enum tls_crl_policy
};

struct tls_options {
  int min_version;  // enum tls_version_option
  int max_version;
  char **alpn;
  size_t num_alpn;
  int alpn_mismatch;  // enum alpn_mismatch
  char *groups;
  struct client_options clients;
  int compression;  // enum compression_option
  char **ech;       // files of keys
  size_t num_ech;
};

// What a name may have otherwise. (Its ALPN is beside this, in the name itself.)
struct name_tls_options {
  int min_version;
  int max_version;
  char *groups;  // NULL: those of "tls"
  struct client_options clients;
};

struct ticket_options {
  bool is_on;
  int64_t lifetime_ms;
  int64_t rotate_ms;
  int64_t past_dc_ms;
  char *key_file;  // NULL: keys of our own
};

extern const struct config_option tls_option_rows[];       // struct tls_options
extern const struct config_option name_tls_option_rows[];  // struct name_tls_options
extern const struct config_option ticket_option_rows[];    // struct ticket_options

// What a row cannot say. `where` begins the sentence. STATUS_CONFIG.
enum status tls_options_check(const struct tls_options *tls, struct errmsg *err);
enum status name_tls_options_check(const struct name_tls_options *name,
                                   const struct tls_options *tls, struct errmsg *err);

#endif  // DEPUTY_PROXY_CONFIG_TLS_OPTIONS_H_
