// SPDX-License-Identifier: Apache-2.0
#include "common/base/config_rows.h"
#include "common/keyclient/keyclient.h"

// clang-format off
static const struct config_option server_table[] = {
  {"address", CONFIG_TEXT, PLACE(keyclient_server_config, address), .is_required = true, .min = 3,
   .max = 300,
   .help = "Where the key server listens, as host:port; all addresses of a name are used"},
  {"name", CONFIG_TEXT, PLACE(keyclient_server_config, name), .min = 1, .max = 253,
   .help = "DNS name or IP address that its certificate must have; without it the host of the "
           "address"},
  {0},
};

const struct config_option keyclient_options[] = {
  {"servers", CONFIG_OBJECTS, LIST(keyclient_config, servers, num_servers), .is_required = true,
   .min = 1, .max = KEYCLIENT_MAX_SERVERS, .children = server_table,
   .child_size = sizeof(struct keyclient_server_config),
   .help = "Key servers; the nearest that has the key is asked, of those that are much the same "
           "the first"},
  {"tls", CONFIG_OBJECT, PLACE(keyclient_config, tls), .is_required = true,
   .children = tls_identity_options,
   .help = "This part's certificate towards the key servers, and the CA of theirs"},
  {"allow_tls12", CONFIG_BOOL, PLACE(keyclient_config, allow_tls12), .fallback = "false",
   .help = "Accept key servers of other make that do not know TLS 1.3"},
  {"deadline", CONFIG_DURATION, PLACE(keyclient_config, deadline_ms), .fallback = "3s", .min = 10,
   .max = MINUTE, .help = "How long a signature may take in all, other servers included"},
  {"attempt_timeout", CONFIG_DURATION, PLACE(keyclient_config, attempt_ms), .fallback = "1s",
   .min = 10, .max = MINUTE,
   .help = "How long one server may take before the next is asked as well"},
  {"connect_timeout", CONFIG_DURATION, PLACE(keyclient_config, connect_ms), .fallback = "2s",
   .min = 10, .max = MINUTE,
   .help = "How long connecting to a server may take, TLS handshake included"},
  {"connections", CONFIG_INT, PLACE(keyclient_config, num_connections), .fallback = "2", .min = 1,
   .max = KEYCLIENT_MAX_CONNECTIONS,
   .help = "Connections to each server, for each thread that asks; at least one to each address "
           "of its name"},
  {"hedge_budget", CONFIG_INT, PLACE(keyclient_config, hedge_percent), .fallback = "5", .min = 0,
   .max = 100,
   .help = "How many of 100 requests may be sent to a second server as well, when the first "
           "takes longer than 95 % of its signatures do (and than 5 ms); 0: none"},
  {"ping_interval", CONFIG_DURATION, PLACE(keyclient_config, ping_ms), .fallback = "10s",
   .min = 100, .max = 25000,
   .help = "A connection that was quiet for so long, give or take a quarter, is pinged; foreign "
           "servers close at 30 s"},
  {"resolve_interval", CONFIG_DURATION, PLACE(keyclient_config, resolve_ms), .fallback = "1m",
   .min = SECOND, .max = DAY,
   .help = "How often a server's name is looked up again, give or take a quarter; also when a "
           "connection is made again"},
  {0},
};
// clang-format on
