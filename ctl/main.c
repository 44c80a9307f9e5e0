// SPDX-License-Identifier: Apache-2.0
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "ctl/ctl.h"
#include "ctl/store.h"
#include "version.h"

static const struct ctl_command commands[] = {
    {"status", "", 0, 0, 0, 0, 0, ctl_run_status, "is all well: the proxy, its names, its switches",
     ""},
    {"names", "[NAME]", 0, 0, 0, 0, 1, ctl_run_names,
     "which chain serves each name, and why not the others",
     "With NAME, everything about that one."},
    {"chains", "", 0, 0, 0, 0, 0, ctl_run_chains,
     "every chain with its key, its CA, its times and its state", ""},
    {"switches", "", CTL_STANDING, 0, 0, 0, 0, ctl_run_switches,
     "what was switched, when, why and by whom", ""},
    {"switch", "",
     CTL_SUBJECTS | CTL_TO | CTL_REASON | CTL_COMPROMISED | CTL_FORCE | CTL_IN_SERVICE | CTL_UNTIL,
     CTL_REASON, CTL_SUBJECTS, 0, 0, ctl_run_switch,
     "move a name to another level of chains, or take a key or CA out of service",
     "A name goes to the level --to, or to the first usable one that does not serve it\n"
     "now. A key or CA goes out of service: all names under it go to their first usable\n"
     "chain. The next handshake obeys when the command returns. Refused when names\n"
     "would be left with nothing usable, unless --force. `restore` takes it back."},
    {"restore", "[ID]", CTL_SUBJECTS | CTL_REASON | CTL_FORCE, 0, 0, 0, 1, ctl_run_restore,
     "take a switch back: one by its ID, or all that stand for a subject",
     "What later switches of the same subject say still stands."},
    {"drill", "", CTL_SUBJECTS, 0, CTL_SUBJECTS, 0, 0, ctl_run_drill,
     "what would happen if a CA, key or name's chain died; changes nothing",
     "Exits with 0 when every name under it has a usable backup, else with 3."},
    {"dc", "on|off", CTL_NAME | CTL_FLEET | CTL_REASON | CTL_FORCE, CTL_REASON,
     CTL_NAME | CTL_FLEET, 1, 1, ctl_run_dc,
     "let a name, or all names, use delegated credentials, or stop it", ""},
    {"reload", "", 0, 0, 0, 0, 0, ctl_run_reload,
     "read the configuration and the certificates again", ""},
    {"connections", "", CTL_NAME | CTL_STATE | CTL_ADDRESS | CTL_OLDER | CTL_LIMIT, 0, 0, 0, 0,
     ctl_run_connections, "which clients are connected now, and how far they are",
     "The newest first; --name is what the client asked for."},
    {"loglevel", "[error|warn|info|debug]", 0, 0, 0, 0, 1, ctl_run_loglevel,
     "what is logged, until the proxy is started anew; without a word: show it", ""},
    {"drain", "", 0, 0, 0, 0, 0, ctl_run_drain,
     "stop: accept no more, and let connections end for limits.drain", ""},
    {"metrics", "", 0, 0, 0, 0, 0, ctl_run_metrics, "the proxy's metrics, as Prometheus reads them",
     ""},
    {"key", "retire|destroy|identity|seal|reseal|inspect ...",
     CTL_POLICY | CTL_MEMBERS | CTL_IDENTITY, 0, 0, 1, SIZE_MAX, ctl_run_key,
     "files of private keys: seal them to key servers, end them; needs no proxy",
     "`key retire NAME.key` puts the file aside as NAME.key.retired: the key server forgets\n"
     "the key at its next reload. `key destroy NAME.key.retired` then overwrites and removes\n"
     "it. Copies, backups and the spare blocks of a flash disk are out of its reach.\n"
     "`key identity new FILE` makes a key server's own key pair and prints its public half\n"
     "for the membership file; `key identity show FILE` prints it again.\n"
     "`key seal --policy POLICY --members FILE KEYFILE NAME.sealed` seals a private key to\n"
     "the members that the policy admits. `key reseal --members FILE --identity FILE\n"
     "[--policy POLICY] NAME.sealed...` does it anew after a change. `key inspect\n"
     "[--members FILE] NAME.sealed...` shows policy, key and who can open it, without any\n"
     "secret; with members, exit code 3 when one is to be sealed anew."},
    {"keyserver", "explain|verify-audit FILE...",
     CTL_ANCHOR | CTL_CONFIG | CTL_CLIENT | CTL_CLIENT_NAME | CTL_KEY | CTL_PURPOSE | CTL_SCHEME |
         CTL_LIFETIME | CTL_MESSAGE,
     0, 0, 1, SIZE_MAX, ctl_run_keyserver,
     "what a key server's configuration allows, and whether its audit is whole; asks no server",
     "`keyserver explain --client CERT.pem|--client-name NAME --key KEY --purpose PURPOSE`\n"
     "says whether the request would be allowed, by which grant, and why the others do not\n"
     "count, by the configuration as it is on disk: exit code 0 allowed, 1 refused. KEY is\n"
     "ski:HEX, label:NAME, name:HOST or the file of a certificate.\n"
     "`keyserver verify-audit FILE...` follows the chain through the files, in whatever\n"
     "order they are given, and says where it breaks: exit code 0 whole, 1 broken."},
    {"staple", "fetch|check [FILE]", CTL_CHAIN | CTL_OUT | CTL_NONCE, CTL_CHAIN, 0, 1, 2,
     ctl_run_staple, "ask the CA for a chain's OCSP response, or check the one there",
     "`staple fetch` asks the leaf's responder, checks the answer and replaces the file\n"
     "beside the chain; `reload` then has the proxy show it. Nothing worse or older ever\n"
     "takes the place of a good one. `staple check` looks at that file, or at FILE, as the\n"
     "proxy does. Need no proxy. Exit code 3: the leaf is revoked, or the staple is no\n"
     "good; 4: no responder answers."},
    {"revocation", "check", CTL_CHAIN | CTL_MAX_CRL | CTL_NONCE, CTL_CHAIN, 0, 1, 1,
     ctl_run_revocation, "ask the CA by OCSP and CRL whether a chain's leaf is revoked",
     "Needs no proxy. Exit code 0: good; 3: revoked; 4: nobody can tell."},
    {"store", "COMMAND ...", 0, 0, 0, 0, SIZE_MAX, store_run_late,
     "a certificate store on disk: import, verify, drill ...; needs no proxy", ""},
    {0},
};

int main(int argc, char **argv) {
  struct ctl_args args = {0};
  struct errmsg err = {0};
  const struct ctl_command *command = NULL;

  if (argc > 1 && strcmp(argv[1], "store") == 0) {
    return store_main(argc - 1, argv + 1);  // has commands and options of its own
  }
  if (ctl_parse(&args, &command, commands, argc, argv, &err) != STATUS_OK) {
    (void)fprintf(stderr, "deputyctl: %s\n", err.text);
    return CTL_USAGE;
  }
  if (args.is_version) {
    (void)printf("deputyctl %s\n", DEPUTY_VERSION);
    return CTL_DONE;
  }
  if (args.is_help && command != NULL) {
    ctl_print_command_help(command);
    return CTL_DONE;
  }
  if (command == NULL) {
    ctl_print_help(commands);
    return CTL_DONE;
  }
  int code = (int)command->run(&args);
  if (fflush(stdout) != 0 || ferror(stdout)) {
    (void)fprintf(stderr, "deputyctl: the answer cannot be written to standard output\n");
    return code == CTL_DONE ? CTL_FAILED : code;
  }
  return code;
}
