// SPDX-License-Identifier: Apache-2.0
// make-certificates: a million names and more, with really signed leaves: for each name
// a primary of one CA and a backup of another, P-256, DelegationUsage, a key for each
// (fake_ca.h).
//
//   OUT/primary.der, OUT/backup.der   leaf, intermediate, leaf, intermediate, ...
//                                     (.pem with --format pem)
//   OUT/roots.pem                     the two roots
//   OUT/keys/NAME.primary.key, ...    PKCS#8 of --keys names
//   OUT/keys/ca.primary.key, ...      of the CAs, when leaves name a responder or a list
//   OUT/bundles/NAME.pem              leaf, intermediate and key of the primaries of
//                                     --bundles names, as haproxy takes them
//
// The CA keys are as public as the seed: nobody trusts these.
#include <errno.h>
#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/bench.h"
#include "bench/fake_ca.h"
#include "common/base/bytes.h"
#include "common/base/clock.h"

#define NUM_LEVELS 2
#define DAY_S 86400
#define PEM_LINE 64
#define PROGRESS_EVERY 1000
#define PROGRESS_US 2000000

static const char *const level_names[NUM_LEVELS] = {"primary", "backup"};

enum format { FORMAT_DER, FORMAT_PEM };
enum profile { PROFILE_LEAN, PROFILE_PUBLIC };

struct make_options {
  int64_t count;
  int64_t num_keys;
  int64_t key_every;
  int64_t num_bundles;
  int64_t days;
  const char *out;
  const char *seed;
  const char *domain;
  const char *ocsp_url;
  const char *crl_url;
  int format;
  int profile;
  bool is_must_staple;
  bool shows_progress;
};

static const char *const formats[] = {"der", "pem", NULL};
static const char *const profiles[] = {"lean", "public", NULL};
// clang-format off
static const struct option_row options[] = {
  {"count", OPTION_COUNT, offsetof(struct make_options, count), .fallback = "1000", .min = 1,
   .max = 100000000, .help = "names"},
  {"out", OPTION_TEXT, offsetof(struct make_options, out), .is_required = true,
   .help = "the folder to write to"},
  {"seed", OPTION_TEXT, offsetof(struct make_options, seed), .fallback = "deputy",
   .help = "what all keys and signatures come from"},
  {"domain", OPTION_TEXT, offsetof(struct make_options, domain), .fallback = "bench.test",
   .help = "names are n0.DOMAIN, n1.DOMAIN, ..."},
  {"days", OPTION_COUNT, offsetof(struct make_options, days), .fallback = "90", .min = 1,
   .max = 36500, .help = "validity of a leaf, from today on"},
  {"format", OPTION_WORD, offsetof(struct make_options, format), .fallback = "der",
   .words = formats, .help = "der: certificates one after the other; pem: the same as text"},
  {"profile", OPTION_WORD, offsetof(struct make_options, profile), .fallback = "lean",
   .words = profiles,
   .help = "lean: what is needed; public: with all that leaves of public CAs have, at its true "
           "length (policy, OCSP and CRL addresses, two SCTs)"},
  {"keys", OPTION_COUNT, offsetof(struct make_options, num_keys), .fallback = "0", .min = 0,
   .max = 100000000, .help = "write the private keys of so many names"},
  {"key-every", OPTION_COUNT, offsetof(struct make_options, key_every), .fallback = "1", .min = 1,
   .max = 100000000, .help = "of n0, nE, n2E, ... for E"},
  {"bundles", OPTION_COUNT, offsetof(struct make_options, num_bundles), .fallback = "0", .min = 0,
   .max = 100000000, .help = "write the first primaries with their keys, a file each"},
  {"must-staple", OPTION_FLAG, offsetof(struct make_options, is_must_staple),
   .help = "leaves demand a staple (RFC 7633)"},
  {"ocsp", OPTION_TEXT, offsetof(struct make_options, ocsp_url),
   .help = "URL of the responder that leaves name"},
  {"crl", OPTION_TEXT, offsetof(struct make_options, crl_url),
   .help = "URL of the revocation list that leaves name"},
  {"progress", OPTION_FLAG, offsetof(struct make_options, shows_progress),
   .help = "say on standard error how far it is"},
  {0},
};
// clang-format on

// What one thread makes: a level.
struct maker {
  const struct make_options *options;
  unsigned level;
  struct fake_ca ca;
  int64_t said_us;
  struct errmsg err;
  enum status st;
};

static bool write_cert(FILE *file, int format, struct bytes der) {
  if (format == FORMAT_DER) {
    return fwrite(der.data, 1, der.len, file) == der.len;
  }
  char *text = bytes_to_base64(der);
  if (text == NULL) {
    return false;
  }
  (void)fputs("-----BEGIN CERTIFICATE-----\n", file);
  for (size_t at = 0, len = strlen(text); at < len; at += PEM_LINE) {
    (void)fprintf(file, "%.*s\n", PEM_LINE, text + at);
  }
  free(text);
  return fputs("-----END CERTIFICATE-----\n", file) >= 0;
}

static bool put_key(FILE *file, EC_KEY *key) {
  EVP_PKEY *pkey = EVP_PKEY_new();
  bool is_good = pkey != NULL && EVP_PKEY_set1_EC_KEY(pkey, key) &&
                 PEM_write_PKCS8PrivateKey(file, pkey, NULL, NULL, 0, NULL, NULL);
  EVP_PKEY_free(pkey);
  return is_good;
}

// write_secret writes the key; with `leaf`, after the leaf and its issuer.
static bool write_secret(const struct maker *maker, const char *path, EC_KEY *key,
                         struct bytes leaf) {
  FILE *file = fopen(path, "we");
  bool is_good =
      file != NULL && fchmod(fileno(file), 0600) == 0 &&
      (leaf.len == 0 || (write_cert(file, FORMAT_PEM, leaf) &&
                         write_cert(file, FORMAT_PEM,
                                    bytes_of(maker->ca.issuer_cert, maker->ca.issuer_cert_len)))) &&
      put_key(file, key);
  if (file != NULL && fclose(file) != 0) {
    is_good = false;
  }
  return is_good;
}

static bool write_key(const struct maker *maker, const char *name, EC_KEY *key) {
  char path[4096];
  (void)snprintf(path, sizeof(path), "%s/keys/%s.%s.key", maker->options->out, name,
                 level_names[maker->level]);
  return write_secret(maker, path, key, (struct bytes){0});
}

static bool is_key_wanted(const struct make_options *o, uint64_t index) {
  const uint64_t every = (uint64_t)o->key_every;
  return index % every == 0 && index / every < (uint64_t)o->num_keys;
}

static bool write_bundle(const struct maker *maker, const char *name, EC_KEY *key, uint64_t index,
                         struct bytes leaf) {
  const struct make_options *o = maker->options;
  char path[4096];
  if (maker->level != 0 || index >= (uint64_t)o->num_bundles) {
    return true;
  }
  (void)snprintf(path, sizeof(path), "%s/bundles/%s.pem", o->out, name);
  return write_secret(maker, path, key, leaf);
}

static void say_progress(struct maker *maker, uint64_t index) {
  int64_t now_us = clock_monotonic_us();
  if (maker->level == 0 && maker->options->shows_progress &&
      now_us - maker->said_us >= PROGRESS_US) {
    maker->said_us = now_us;
    (void)fprintf(stderr, "%llu of %lld names\n", (unsigned long long)index,
                  (long long)maker->options->count);
  }
}

static bool make_leaf(struct maker *maker, FILE *file, uint64_t index) {
  const struct make_options *o = maker->options;
  const struct fake_ca *ca = &maker->ca;
  char name[FAKE_CA_NAME_LEN];
  uint8_t cert[FAKE_CA_CERT_LEN];
  size_t len = 0;
  EC_KEY *key = fake_ca_leaf_key(ca, index);
  (void)snprintf(name, sizeof(name), "n%llu.%.40s", (unsigned long long)index, o->domain);
  bool is_good = key != NULL && fake_ca_leaf(ca, cert, &len, name, key, index) &&
                 write_cert(file, o->format, bytes_of(cert, len)) &&
                 write_cert(file, o->format, bytes_of(ca->issuer_cert, ca->issuer_cert_len)) &&
                 (!is_key_wanted(o, index) || write_key(maker, name, key)) &&
                 write_bundle(maker, name, key, index, bytes_of(cert, len));
  EC_KEY_free(key);
  return is_good;
}

static enum status make_level(struct maker *maker) {
  const struct make_options *o = maker->options;
  char path[4096];
  (void)snprintf(path, sizeof(path), "%s/%s.%s", o->out, level_names[maker->level],
                 formats[o->format]);
  FILE *file = fopen(path, "we");
  if (file == NULL) {
    return errmsg_set(&maker->err, STATUS_SYSTEM, "%s: %s", path, strerror(errno));
  }
  // Who names a responder or a list will want to be it.
  bool is_good = o->num_keys == 0 || (o->ocsp_url == NULL && o->crl_url == NULL) ||
                 write_key(maker, "ca", maker->ca.issuer);
  for (int64_t i = 0; i < o->count && is_good; i++) {
    is_good = make_leaf(maker, file, (uint64_t)i);
    if (i % PROGRESS_EVERY == 0) {
      say_progress(maker, (uint64_t)i);
    }
  }
  int reason = errno;
  if (fclose(file) != 0 || !is_good) {
    return errmsg_set(&maker->err, STATUS_SYSTEM, "%s: cannot be made (%s)", path,
                      strerror(reason));
  }
  return STATUS_OK;
}

static void *run_level(void *arg) {
  struct maker *maker = arg;
  maker->st = make_level(maker);
  return NULL;
}

static enum status maker_init(struct maker *maker, const struct make_options *o, unsigned level,
                              int64_t today_s, struct errmsg *err) {
  *maker = (struct maker){.options = o, .level = level, .said_us = clock_monotonic_us()};
  enum status st = fake_ca_init(&maker->ca, o->seed, level_names[level], today_s, err);
  maker->ca.days = o->days;
  maker->ca.is_must_staple = o->is_must_staple;
  maker->ca.is_public = o->profile == PROFILE_PUBLIC;
  maker->ca.ocsp_url = o->ocsp_url;
  maker->ca.crl_url = o->crl_url;
  return st;
}

static enum status make_folder(const struct make_options *o, const char *name, unsigned mode,
                               struct errmsg *err) {
  char path[4096];
  (void)snprintf(path, sizeof(path), "%s/%s", o->out, name);
  return mkdir(path, mode) == 0 || errno == EEXIST
             ? STATUS_OK
             : errmsg_set(err, STATUS_SYSTEM, "%s: %s", path, strerror(errno));
}

static enum status prepare_folders(const struct make_options *o, struct errmsg *err) {
  enum status st = STATUS_OK;
  if (strlen(o->domain) > 40) {
    return errmsg_set(err, STATUS_CONFIG, "--domain: at most 40 characters");
  }
  TRY(make_folder(o, "", 0755, err));
  if (o->num_keys > 0) {
    TRY(make_folder(o, "keys", 0700, err));
  }
  if (o->num_bundles > 0) {
    TRY(make_folder(o, "bundles", 0700, err));
  }

out:
  return st;
}

static enum status write_roots(const struct make_options *o, const struct maker *makers,
                               struct errmsg *err) {
  char path[4096];
  (void)snprintf(path, sizeof(path), "%s/roots.pem", o->out);
  FILE *file = fopen(path, "we");
  bool is_good = file != NULL;
  for (size_t i = 0; i < NUM_LEVELS && is_good; i++) {
    is_good =
        write_cert(file, FORMAT_PEM, bytes_of(makers[i].ca.root_cert, makers[i].ca.root_cert_len));
  }
  if (file == NULL || fclose(file) != 0 || !is_good) {
    return errmsg_set(err, STATUS_SYSTEM, "%s: %s", path, strerror(errno));
  }
  return STATUS_OK;
}

static enum status make_all(struct maker makers[NUM_LEVELS], struct errmsg *err) {
  pthread_t threads[NUM_LEVELS];
  enum status st = STATUS_OK;
  size_t started = 0;
  while (started < NUM_LEVELS &&
         pthread_create(&threads[started], NULL, run_level, &makers[started]) == 0) {
    started++;
  }
  for (size_t i = 0; i < started; i++) {
    (void)pthread_join(threads[i], NULL);
    if (makers[i].st != STATUS_OK) {
      st = errmsg_set(err, makers[i].st, "%s", makers[i].err.text);
    }
  }
  return started == NUM_LEVELS ? st : errmsg_set(err, STATUS_SYSTEM, "no thread can be started");
}

static enum status run(json_t *summary, const void *arg, struct errmsg *err) {
  enum status st = STATUS_OK;
  const struct make_options *o = arg;
  struct maker makers[NUM_LEVELS] = {0};
  int64_t began_us = clock_monotonic_us();
  int64_t today_s = clock_wall_s() / DAY_S * DAY_S;

  TRY(prepare_folders(o, err));
  for (unsigned i = 0; i < NUM_LEVELS; i++) {
    TRY(maker_init(&makers[i], o, i, today_s, err));
  }
  TRY(write_roots(o, makers, err));
  TRY(make_all(makers, err));
  double seconds = (double)(clock_monotonic_us() - began_us) / 1e6;
  (void)json_object_set_new(summary, "names", json_integer((json_int_t)o->count));
  (void)json_object_set_new(summary, "seconds", json_real(seconds));
  (void)json_object_set_new(summary, "leaves_per_second",
                            json_real(NUM_LEVELS * (double)o->count / seconds));

out:
  for (size_t i = 0; i < NUM_LEVELS; i++) {
    fake_ca_cleanup(&makers[i].ca);
  }
  return st;
}

const struct subcommand make_certificates_subcommand = {
    .name = "make-certificates",
    .summary = "a million names with real leaves, for a store",
    .help = "Makes names with a primary and a backup leaf each, really signed.",
    .options = options,
    .options_len = sizeof(struct make_options),
    .run = run,
};
