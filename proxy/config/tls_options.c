// SPDX-License-Identifier: Apache-2.0
#include "proxy/config/tls_options.h"

#include <string.h>

#include "common/base/config_rows.h"
#include "common/tls/context.h"
#include "common/tls/ech.h"

static const char *const version_words[] = {"1.2", "1.3", NULL};
static const char *const name_version_words[] = {"1.2", "1.3", "inherit", NULL};
static const char *const mismatch_words[] = {"refuse", "ignore", NULL};
static const char *const compression_words[] = {"off", "brotli", "zlib", "both", NULL};
static const char *const client_words[] = {"off", "optional", "required", NULL};
static const char *const name_client_words[] = {"off", "optional", "required", "inherit", NULL};
static const char *const stale_words[] = {
    [TLS_CRL_REFUSE] = "refuse", [TLS_CRL_ACCEPT] = "accept", NULL};

// clang-format off
#define CLIENT_ROWS                                                                             \
  {"ca", CONFIG_PATH, PLACE(client_options, ca),                                                \
   .help = "PEM file with the CAs whose clients are let in, and whose names clients are told."},\
  {"depth", CONFIG_INT, PLACE(client_options, depth), .fallback = "3", .min = 0, .max = 9,      \
   .help = "Most intermediates between a client's certificate and a CA of that file."},         \
  {"crl", CONFIG_PATHS, LIST(client_options, crl, num_crl),                                     \
   .help = "Revocation lists (PEM or DER): files, or folders of *.crl and *.pem files. With "   \
           "any, a client whose CA has no list here is refused. Read again on a reload."},      \
  {"crl_when_stale", CONFIG_WORD, PLACE(client_options, crl_when_stale), .fallback = "refuse",  \
   .words = stale_words,                                                                        \
   .help = "What happens to clients whose CA's revocation list is past its nextUpdate."},       \
  {0}

static const struct config_option client_rows[] = {
  {"mode", CONFIG_WORD, PLACE(client_options, mode), .fallback = "off", .words = client_words,
   .help = "Whether clients are asked for a certificate: off; optional: they may show none, but "
           "not a bad one; required: who shows none is refused."},
  CLIENT_ROWS,
};

static const struct config_option name_client_rows[] = {
  {"mode", CONFIG_WORD, PLACE(client_options, mode), .fallback = "inherit",
   .words = name_client_words,
   .help = "As tls.client_certificates.mode; inherit: what that says, and nothing below counts."},
  CLIENT_ROWS,
};

const struct config_option tls_option_rows[] = {
  {"min_version", CONFIG_WORD, PLACE(tls_options, min_version), .fallback = "1.2",
   .words = version_words, .help = "Oldest TLS version accepted."},
  {"max_version", CONFIG_WORD, PLACE(tls_options, max_version), .fallback = "1.3",
   .words = version_words, .help = "Newest TLS version accepted."},
  {"alpn", CONFIG_TEXTS, LIST(tls_options, alpn, num_alpn), .min = 0, .max = OPTIONS_MAX_ALPN,
   .help = "Protocols the origin speaks, preferred first; none: ALPN is not answered."},
  {"alpn_mismatch", CONFIG_WORD, PLACE(tls_options, alpn_mismatch), .fallback = "refuse",
   .words = mismatch_words,
   .help = "A client that offers ALPN, but none of ours: refuse (no_application_protocol, as "
           "RFC 7301 says), or ignore the offer."},
  {"groups", CONFIG_TEXT, PLACE(tls_options, groups), .min = 1, .max = 256,
   .fallback = "?X25519MLKEM768:X25519:P-256:P-384",
   .help = "Key exchange groups, preferred first. One with a ? is used if the BoringSSL in use "
           "has it; the line tls_library at the start says whether."},
  {"client_certificates", CONFIG_OBJECT, PLACE(tls_options, clients), .children = client_rows,
   .help = "Certificates of clients."},
  {"certificate_compression", CONFIG_WORD, PLACE(tls_options, compression), .fallback = "off",
   .words = compression_words,
   .help = "Our certificates in compressed form (RFC 8879) for clients that take it: off, brotli "
           "(Chrome), zlib (Safari), both (brotli preferred; Firefox takes either)."},
  {"ech_keys", CONFIG_PATHS, LIST(tls_options, ech, num_ech), .min = 0, .max = ECH_MAX_FILES,
   .help = "Files with a PRIVATE KEY and an ECHCONFIG (RFC 9934) for Encrypted ClientHello, the "
           "current one first; none: it is off. Readable by their owner only; read again on a "
           "reload."},
  {0},
};

const struct config_option name_tls_option_rows[] = {
  {"min_version", CONFIG_WORD, PLACE(name_tls_options, min_version), .fallback = "inherit",
   .words = name_version_words, .help = "As tls.min_version; inherit: what that says."},
  {"max_version", CONFIG_WORD, PLACE(name_tls_options, max_version), .fallback = "inherit",
   .words = name_version_words, .help = "As tls.max_version; inherit: what that says."},
  {"groups", CONFIG_TEXT, PLACE(name_tls_options, groups), .min = 1, .max = 256,
   .help = "As tls.groups; none: those."},
  {"client_certificates", CONFIG_OBJECT, PLACE(name_tls_options, clients),
   .children = name_client_rows, .help = "Certificates of clients."},
  {0},
};

const struct config_option ticket_option_rows[] = {
  {"enabled", CONFIG_BOOL, PLACE(ticket_options, is_on), .fallback = "true",
   .help = "Whether clients may resume sessions by tickets."},
  {"lifetime", CONFIG_DURATION, PLACE(ticket_options, lifetime_ms), .fallback = "12h",
   .min = SECOND, .max = 7 * DAY, .help = "Longest time from a full handshake to its last "
                                          "resumption."},
  {"rotate_every", CONFIG_DURATION, PLACE(ticket_options, rotate_ms), .fallback = "6h",
   .min = SECOND, .max = 7 * DAY,
   .help = "A new ticket key this often; the two before it still open tickets. With key_file its "
           "times count instead."},
  {"past_dc", CONFIG_DURATION, PLACE(ticket_options, past_dc_ms), .fallback = "0s", .min = 0,
   .max = 7 * DAY,
   .help = "How long a session that a delegated credential authenticated may outlive it."},
  {"key_file", CONFIG_PATH, PLACE(ticket_options, key_file),
   .help = "File of ticket keys that several machines share, and that outlive a restart; none: keys "
           "of this process, in memory alone. Readable by its owner only; read again on a reload."},
  {0},
};
// clang-format on

static enum status check_clients(const struct client_options *clients, const char *ca,
                                 struct errmsg *err) {
  if ((clients->mode == CLIENT_OPTIONAL || clients->mode == CLIENT_REQUIRED) && ca == NULL) {
    return errmsg_set(err, STATUS_CONFIG,
                      "tls.client_certificates: clients are asked for certificates; ca must name "
                      "the file with the CAs of these");
  }
  if (clients->ca == NULL && clients->num_crl > 0) {
    return errmsg_set(err, STATUS_CONFIG,
                      "tls.client_certificates: crl goes with a ca beside it, which is missing");
  }
  return STATUS_OK;
}

static enum status check_versions(int min, int max, struct errmsg *err) {
  return min <= max ? STATUS_OK
                    : errmsg_set(err, STATUS_CONFIG, "tls.min_version is above tls.max_version");
}

enum status tls_options_check(const struct tls_options *tls, struct errmsg *err) {
  const enum status st = check_versions(tls->min_version, tls->max_version, err);
  return st != STATUS_OK ? st : check_clients(&tls->clients, tls->clients.ca, err);
}

enum status name_tls_options_check(const struct name_tls_options *name,
                                   const struct tls_options *tls, struct errmsg *err) {
  const int min = name->min_version == TLS_OPTION_INHERIT ? tls->min_version : name->min_version;
  const int max = name->max_version == TLS_OPTION_INHERIT ? tls->max_version : name->max_version;
  const char *ca = name->clients.ca == NULL ? tls->clients.ca : name->clients.ca;
  const enum status st = check_versions(min, max, err);
  return st != STATUS_OK ? st : check_clients(&name->clients, ca, err);
}
