// SPDX-License-Identifier: Apache-2.0
#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"
#include "ctl/flags.h"

#define NOWHERE FLAGS_NOWHERE

// Every option, once. Those without a bit are for all commands.
static const struct flags_row rows[] = {
    {"name", CTL_NAME, offsetof(struct ctl_args, name), NOWHERE, "NAME", "the name NAME"},
    {"key", CTL_KEY, offsetof(struct ctl_args, key), NOWHERE, "ID",
     "the key whose id begins with these 8 or more hex digits"},
    {"ca", CTL_CA, offsetof(struct ctl_args, ca), NOWHERE, "CA",
     "the CA in this file; or whose id begins so; or with this issuer name"},
    {"fleet", CTL_FLEET, NOWHERE, NOWHERE, NULL, "all names"},
    {"to", CTL_TO, offsetof(struct ctl_args, to), NOWHERE, "LABEL",
     "the level of chains to go to (names, fleet)"},
    {"reason", CTL_REASON, offsetof(struct ctl_args, reason), NOWHERE, "TEXT",
     "why, for the history and the audit log"},
    {"until", CTL_UNTIL, offsetof(struct ctl_args, until), NOWHERE, "TIME",
     "when it ends by itself: 2026-11-30T12:00:00Z, or 90m, 36h, 7d from now (with a store)"},
    {"compromised", CTL_COMPROMISED, NOWHERE, NOWHERE, NULL,
     "it leaked: sessions it authenticated are not resumed (keys, CAs)"},
    {"in-service", CTL_IN_SERVICE, NOWHERE, NOWHERE, NULL,
     "keep it in service, a key even if its CA goes out (keys, CAs)"},
    {"force", CTL_FORCE, NOWHERE, NOWHERE, NULL,
     "even if names are left with nothing usable, or if it cannot be kept on disk"},
    {"standing", CTL_STANDING, NOWHERE, NOWHERE, NULL, "only what still stands"},
    {"chain", CTL_CHAIN, offsetof(struct ctl_args, chain), NOWHERE, "FILE",
     "the PEM chain, leaf first, as the proxy serves it"},
    {"out", CTL_OUT, offsetof(struct ctl_args, out), NOWHERE, "FILE",
     "where the staple goes (else beside the chain, FILE.ocsp)"},
    {"nonce", CTL_NONCE, NOWHERE, NOWHERE, NULL, "insist on an answer made for this question"},
    {"max-crl", CTL_MAX_CRL, offsetof(struct ctl_args, max_crl), NOWHERE, "MIB",
     "the longest CRL to read, in MiB (else 64)"},
    {"policy", CTL_POLICY, offsetof(struct ctl_args, policy), NOWHERE, "POLICY",
     "which key servers may open it, as \"region: EU and not country: FR\""},
    {"members", CTL_MEMBERS, offsetof(struct ctl_args, members), NOWHERE, "FILE",
     "the membership file: the key servers there are"},
    {"identity", CTL_IDENTITY, offsetof(struct ctl_args, identity), NOWHERE, "FILE",
     "the identity of a key server that can open it now"},
    {"config", CTL_CONFIG, offsetof(struct ctl_args, config), NOWHERE, "FILE",
     "the key server's configuration (else /etc/deputy/keyserver.json)"},
    {"client", CTL_CLIENT, offsetof(struct ctl_args, client), NOWHERE, "CERT.pem",
     "who asks: the client's certificate, with its intermediates"},
    {"client-name", CTL_CLIENT_NAME, offsetof(struct ctl_args, client_name), NOWHERE, "NAME",
     "who asks: a client with this name alone"},
    {"purpose", CTL_PURPOSE, offsetof(struct ctl_args, purpose), NOWHERE, "PURPOSE",
     "what for: tls13, tls12, dc, csr, blind or generate"},
    {"scheme", CTL_SCHEME, offsetof(struct ctl_args, scheme), NOWHERE, "SCHEME",
     "with which scheme, as ecdsa_secp256r1_sha256 (else one that fits)"},
    {"lifetime", CTL_LIFETIME, offsetof(struct ctl_args, lifetime), NOWHERE, "TIME",
     "of a delegated credential, as 36h (else 1d)"},
    {"message", CTL_MESSAGE, offsetof(struct ctl_args, message), NOWHERE, "FILE",
     "the very message to be signed, in place of a purpose"},
    {"anchor", CTL_ANCHOR, offsetof(struct ctl_args, anchor), NOWHERE, "SEQ:HEX",
     "number and hash of a line, noted before: the chain must go through it"},
    {"state", CTL_STATE, offsetof(struct ctl_args, state), NOWHERE, "STATE",
     "those in greeting, handshake, signing, lookup, connect, relay, half or drain"},
    {"address", CTL_ADDRESS, offsetof(struct ctl_args, address), NOWHERE, "IP",
     "those of the client at this address"},
    {"older", CTL_OLDER, offsetof(struct ctl_args, older), NOWHERE, "SECONDS",
     "those that are at least so old"},
    {"limit", CTL_LIMIT, offsetof(struct ctl_args, limit), NOWHERE, "NUM",
     "at most so many (else 100; at most 1000)"},
    {"socket", 0, offsetof(struct ctl_args, socket), NOWHERE, "PATH",
     "the proxy's admin socket (else $" CTL_SOCKET_VARIABLE ", else " CTL_DEFAULT_SOCKET ")"},
    {"json", 0, NOWHERE, offsetof(struct ctl_args, is_json), NULL, "print JSON"},
    {"help", 0, NOWHERE, offsetof(struct ctl_args, is_help), NULL, "print this"},
    {"version", 0, NOWHERE, offsetof(struct ctl_args, is_version), NULL, "print the version"},
};
static const struct flags_table table = {rows, sizeof(rows) / sizeof(rows[0])};

// --- help --------------------------------------------------------------------------

void ctl_print_help(const struct ctl_command *commands) {
  (void)printf(
      "usage: deputyctl [--socket PATH] [--json] COMMAND [OPTIONS]\n\n"
      "Asks a running deputy-proxy what it serves, and switches certificates.\n\ncommands:\n");
  for (; commands->name != NULL; commands++) {
    (void)printf("  %-9s  %s\n", commands->name, commands->summary);
  }
  flags_print_help(&table, 0);
  (void)printf(
      "\nexit codes: 0 done; 1 refused or failed; 2 wrong command line; 3 drill: not ready;\n"
      "4 no proxy answers. `deputyctl COMMAND --help` says more about a command.\n");
}

void ctl_print_command_help(const struct ctl_command *command) {
  (void)printf("usage: deputyctl %s", command->name);
  if (command->words[0] != '\0') {
    (void)printf(" %s", command->words);
  }
  (void)printf(" [OPTIONS]\n\n%s\n", command->summary);
  if (command->help[0] != '\0') {
    (void)printf("\n%s\n", command->help);
  }
  flags_print_help(&table, command->takes);
}

// --- reading -------------------------------------------------------------------------

static const struct ctl_command *find_command(const struct ctl_command *commands,
                                              const char *name) {
  for (; commands->name != NULL; commands++) {
    if (strcmp(commands->name, name) == 0) {
      return commands;
    }
  }
  return NULL;
}

static unsigned num_bits(unsigned bits) { return (unsigned)__builtin_popcount(bits); }

static enum status check(const struct ctl_args *args, const struct ctl_command *command,
                         struct errmsg *err) {
  char names[128];
  unsigned extra = args->given & ~command->takes;
  unsigned missing = command->needs & ~args->given;
  if (extra != 0) {
    return errmsg_set(err, STATUS_CONFIG, "%s does not take %s", command->name,
                      flags_names(names, sizeof(names), &table, extra & (0U - extra), ""));
  }
  if (args->num_words < command->min_words || args->num_words > command->max_words) {
    return errmsg_set(err, STATUS_CONFIG, "usage: deputyctl %s %s", command->name,
                      command->words[0] != '\0' ? command->words : "(no further words)");
  }
  if (missing != 0) {
    return errmsg_set(err, STATUS_CONFIG, "%s needs %s", command->name,
                      flags_names(names, sizeof(names), &table, missing, ", "));
  }
  if (num_bits(args->given & command->one_of) > 1 ||
      (command->one_of != 0 && (args->given & command->one_of) == 0)) {
    return errmsg_set(err, STATUS_CONFIG, "%s needs exactly one of %s", command->name,
                      flags_names(names, sizeof(names), &table, command->one_of, ", "));
  }
  return STATUS_OK;
}

enum status ctl_parse(struct ctl_args *out, const struct ctl_command **out_command,
                      const struct ctl_command *commands, int argc, char **argv,
                      struct errmsg *err) {
  enum status st = STATUS_OK;
  *out = (struct ctl_args){0};
  *out_command = NULL;

  TRY(flags_read(out, &out->given, &table, argc, argv, err));
  if (out->socket == NULL) {
    const char *named = getenv(CTL_SOCKET_VARIABLE);
    out->socket = named != NULL && named[0] != '\0' ? named : CTL_DEFAULT_SOCKET;
  }
  if (out->is_version) {
    goto out;
  }
  if (optind >= argc) {
    if (!out->is_help) {
      TRY(errmsg_set(err, STATUS_CONFIG, "which command? see deputyctl --help"));
    }
    goto out;
  }
  *out_command = find_command(commands, argv[optind]);
  if (*out_command == NULL) {
    st = errmsg_set(err, STATUS_CONFIG, "unknown command \"%s\"; see deputyctl --help",
                    argv[optind]);
    goto out;
  }
  if (out->is_help) {
    goto out;
  }
  out->words = argv + optind + 1;
  out->num_words = (size_t)(argc - optind - 1);
  TRY(check(out, *out_command, err));

out:
  return st;
}
