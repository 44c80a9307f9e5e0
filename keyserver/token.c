// SPDX-License-Identifier: Apache-2.0
#include "keyserver/token.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/secret.h"
#include "keyserver/pkcs11.h"

#define US_PER_MS 1000
#define NAME_LEN 64u
#define DEFAULT_SESSIONS 4u
#define REINITIALIZE_AFTER 3u  // failed tries to open

struct module {
  char *path;
  struct pkcs11_module loaded;
  // Held for reading by whoever is inside the module, for writing to start it anew.
  pthread_rwlock_t in_use;
  atomic_uint num_open;  // tokens
};

struct token {
  struct module *module;
  struct pkcs11_uri uri;  // only what selects the token
  char name[NAME_LEN];
  struct secret pin;
  bool has_pin;
  unsigned num_sessions;
  unsigned lane;
  bool has_lane;
  pthread_mutex_t lock;  // guards what follows
  bool is_open;
  bool is_opening;
  bool is_pin_refused;
  uint64_t epoch;  // of the opening: older sessions and handles are void
  CK_SLOT_ID slot;
  CK_SESSION_HANDLE login;  // stays open, and with it the login
  CK_SESSION_HANDLE idle[TOKEN_MAX_SESSIONS];
  unsigned num_idle;
  unsigned num_tries;  // that failed, in a row
  int64_t retry_ms;
  int64_t pause_ms;
  uint64_t num_signed;
  uint64_t num_failed;
  uint64_t num_lost;
  uint64_t num_opened;
};

struct token_key {
  struct token *token;
  struct pkcs11_uri uri;
  EVP_PKEY *public_key;
  bool is_known;  // has been asked for before
  // Guarded by the token's lock.
  uint64_t epoch;
  CK_OBJECT_HANDLE handle;
};

struct token_registry {
  struct module modules[TOKEN_MAX_MODULES];
  size_t num_modules;
  struct token *tokens[TOKEN_MAX_TOKENS];
  atomic_size_t num_tokens;  // read by the control thread while a reload adds one
  struct token_key *keys[TOKEN_MAX_KEYS];
  size_t num_keys;
};

// One call into the token: a session of one opening.
struct visit {
  CK_SESSION_HANDLE session;
  uint64_t epoch;
};

static int64_t now_ms(void) { return clock_monotonic_us() / US_PER_MS; }

// --- opening and losing: the token is not locked -------------------------------------------

static enum status log_in(struct token *token, CK_SESSION_HANDLE session, CK_FLAGS flags,
                          struct errmsg *err) {
  const struct pkcs11_module *module = &token->module->loaded;
  CK_RV rv = CKR_OK;

  if ((flags & CKF_LOGIN_REQUIRED) == 0) {
    return STATUS_OK;
  }
  if (!token->has_pin) {
    return errmsg_set(err, STATUS_CONFIG, "it wants a PIN: give pin_file");
  }
  if ((flags & (CKF_USER_PIN_LOCKED | CKF_USER_PIN_FINAL_TRY)) != 0) {
    return errmsg_set(err, STATUS_REFUSED,
                      "its PIN is locked, or one wrong one from it: log in by hand first");
  }
  rv = module->calls->C_Login(session, CKU_USER, token->pin.data, token->pin.len);
  if (rv == CKR_OK || rv == CKR_USER_ALREADY_LOGGED_IN) {
    return STATUS_OK;
  }
  if (pkcs11_is_pin_refused(rv)) {
    return errmsg_set(err, STATUS_REFUSED,
                      "it refuses the PIN (error 0x%lx), which is not tried again before the PIN "
                      "file has changed and the configuration is read again",
                      rv);
  }
  return errmsg_set(err, STATUS_UNAVAILABLE, "no login: error 0x%lx", rv);
}

static enum status open_session(CK_SESSION_HANDLE *out, const struct token *token, CK_SLOT_ID slot,
                                struct errmsg *err) {
  const CK_RV rv =
      token->module->loaded.calls->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, out);
  return rv == CKR_OK ? STATUS_OK
                      : errmsg_set(err, STATUS_UNAVAILABLE, "no session: error 0x%lx", rv);
}

// enter_module: STATUS_UNAVAILABLE while it is started anew.
static bool enter_module(struct module *module) {
  return pthread_rwlock_tryrdlock(&module->in_use) == 0;
}

static void leave_module(struct module *module) { (void)pthread_rwlock_unlock(&module->in_use); }

// reinitialize: some modules find a token that came back only when they are
// started anew. Not while somebody is in it, or hangs there, or another token works.
static void reinitialize(struct module *module) {
  if (atomic_load(&module->num_open) != 0 || pthread_rwlock_trywrlock(&module->in_use) != 0) {
    return;
  }
  (void)module->loaded.calls->C_Finalize(NULL);
  (void)pkcs11_initialize(&module->loaded);
  leave_module(module);
}

static enum status try_open(struct token *token, CK_SLOT_ID *slot, CK_SESSION_HANDLE *login,
                            struct errmsg *err) {
  enum status st = STATUS_OK;
  CK_FLAGS flags = 0;
  bool has_session = false;

  if (!enter_module(token->module)) {
    return errmsg_set(err, STATUS_UNAVAILABLE, "the module is being started anew");
  }
  TRY(pkcs11_find_slot(slot, &flags, &token->module->loaded, &token->uri, err));
  TRY(open_session(login, token, *slot, err));
  has_session = true;
  TRY(log_in(token, *login, flags, err));
  has_session = false;

out:
  if (has_session) {
    (void)token->module->loaded.calls->C_CloseSession(*login);
  }
  leave_module(token->module);
  return st;
}

// pause_token: until a signature is made, each wait is twice as long as the one
// before. The token is locked.
static void pause_token(struct token *token) {
  token->pause_ms = token->pause_ms == 0 ? TOKEN_FIRST_PAUSE_MS : 2 * token->pause_ms;
  if (token->pause_ms > TOKEN_MAX_PAUSE_MS) {
    token->pause_ms = TOKEN_MAX_PAUSE_MS;
  }
  token->retry_ms = now_ms() + token->pause_ms;
}

// note_opened: the token is locked.
static void note_opened(struct token *token, enum status st, CK_SLOT_ID slot,
                        CK_SESSION_HANDLE login) {
  token->is_opening = false;
  if (st == STATUS_OK) {
    token->is_open = true;
    token->slot = slot;
    token->login = login;
    token->num_idle = 0;
    token->epoch++;
    token->num_opened++;
    token->num_tries = 0;
    atomic_fetch_add(&token->module->num_open, 1);
    return;
  }
  token->is_pin_refused = token->is_pin_refused || st == STATUS_REFUSED;
  token->num_tries++;
  pause_token(token);
}

// open_token opens a token that is closed, unless it is not time yet or another
// thread is at it. Called and returns with the token locked.
static enum status open_token(struct token *token, struct errmsg *err) {
  CK_SLOT_ID slot = 0;
  CK_SESSION_HANDLE login = 0;
  enum status st = STATUS_OK;
  bool must_restart = false;

  if (token->is_open) {
    return STATUS_OK;
  }
  if (token->is_pin_refused) {
    return errmsg_set(err, STATUS_REFUSED, "it refuses the PIN, which is not tried again");
  }
  if (token->is_opening || now_ms() < token->retry_ms) {
    return errmsg_set(err, STATUS_UNAVAILABLE,
                      "it is away, and looked for again from time to time");
  }
  token->is_opening = true;
  must_restart = token->num_tries >= REINITIALIZE_AFTER;
  (void)pthread_mutex_unlock(&token->lock);
  if (must_restart) {
    reinitialize(token->module);
  }
  st = try_open(token, &slot, &login, err);
  (void)pthread_mutex_lock(&token->lock);
  note_opened(token, st, slot, login);
  return st;
}

// close_session leaves the lock for as long as the module takes.
static void close_session(struct token *token, CK_SESSION_HANDLE session) {
  (void)pthread_mutex_unlock(&token->lock);
  (void)token->module->loaded.calls->C_CloseSession(session);
  (void)pthread_mutex_lock(&token->lock);
}

// lose closes what was opened in `epoch`. Called and returns with the token locked.
static void lose(struct token *token, uint64_t epoch, CK_RV rv) {
  CK_SESSION_HANDLE sessions[TOKEN_MAX_SESSIONS + 1];
  unsigned num = 0;

  if (!token->is_open || token->epoch != epoch) {
    return;  // another thread was faster
  }
  memcpy(sessions, token->idle, token->num_idle * sizeof sessions[0]);
  num = token->num_idle;
  sessions[num++] = token->login;
  token->num_idle = 0;
  token->is_open = false;
  token->is_opening = true;  // by nobody before these are closed
  token->num_lost++;
  token->retry_ms = 0;
  atomic_fetch_sub(&token->module->num_open, 1);
  log_warn(0, "token_lost", "token=%s error=0x%lx", token->name, rv);
  for (unsigned i = 0; i < num; i++) {
    close_session(token, sessions[i]);
  }
  token->is_opening = false;
}

// --- sessions -------------------------------------------------------------------------------

// arrive gets a session. The token is locked; the module entered.
static enum status arrive(struct token *token, struct visit *visit, struct errmsg *err) {
  const CK_SLOT_ID slot = token->slot;
  enum status st = STATUS_OK;

  visit->epoch = token->epoch;
  if (token->num_idle > 0) {
    visit->session = token->idle[--token->num_idle];
    return STATUS_OK;
  }
  (void)pthread_mutex_unlock(&token->lock);
  st = open_session(&visit->session, token, slot, err);
  (void)pthread_mutex_lock(&token->lock);
  if (st != STATUS_OK) {
    lose(token, visit->epoch, CKR_SESSION_HANDLE_INVALID);
  }
  return st;
}

// depart gives it back, if it still is of use. The token is locked.
static void depart(struct token *token, const struct visit *visit, CK_RV rv) {
  if (rv == CKR_OK && token->is_open && token->epoch == visit->epoch &&
      token->num_idle < token->num_sessions) {
    token->idle[token->num_idle++] = visit->session;
    return;
  }
  // Also after a refusal: the session may still be in the operation.
  close_session(token, visit->session);
  if (pkcs11_is_lost(rv)) {
    lose(token, visit->epoch, rv);
  }
}

// find_handle: the key's handle in this opening. The token is locked.
static enum status find_handle(struct token_key *key, const struct visit *visit,
                               CK_OBJECT_HANDLE *out, struct errmsg *err) {
  struct token *token = key->token;
  CK_OBJECT_HANDLE handle = 0;
  enum status st = STATUS_OK;

  if (key->epoch == visit->epoch) {
    *out = key->handle;
    return STATUS_OK;
  }
  (void)pthread_mutex_unlock(&token->lock);
  st = pkcs11_find_key(&handle, &token->module->loaded, visit->session, &key->uri, err);
  (void)pthread_mutex_lock(&token->lock);
  if (st == STATUS_OK) {
    key->epoch = visit->epoch;
    key->handle = handle;
    *out = handle;
  }
  return st;
}

// --- signing ----------------------------------------------------------------------------------

struct wish {
  struct token_key *key;
  const struct scheme *scheme;
  struct bytes digest;
  uint8_t *out;
  size_t *out_len;
};

static enum status judge_signature(const struct wish *wish, CK_RV rv) {
  if (rv == CKR_OK) {
    // A token that signs wrongly, or with another key, would be found out by the
    // visitors of a site.
    return scheme_verify_digest(wish->scheme, wish->key->public_key, wish->digest,
                                bytes_of(wish->out, *wish->out_len));
  }
  return pkcs11_is_lost(rv) ? STATUS_UNAVAILABLE : STATUS_CRYPTO;
}

// sign_in_module: the token is locked and open, the module entered.
static enum status sign_in_module(const struct wish *wish, struct errmsg *err) {
  struct token *token = wish->key->token;
  struct visit visit = {0};
  CK_OBJECT_HANDLE handle = 0;
  CK_RV rv = CKR_OK;
  enum status st = arrive(token, &visit, err);

  if (st != STATUS_OK) {
    return st;
  }
  st = find_handle(wish->key, &visit, &handle, err);
  if (st != STATUS_OK) {
    // A key that is not there any more is another server's, but no reason to give
    // the token's other keys up.
    depart(token, &visit, st == STATUS_UNAVAILABLE ? CKR_DEVICE_ERROR : CKR_OK);
    return STATUS_UNAVAILABLE;
  }
  (void)pthread_mutex_unlock(&token->lock);
  rv = pkcs11_sign(&token->module->loaded, visit.session, handle, wish->key->public_key,
                   wish->scheme, wish->out, wish->out_len, wish->digest);
  st = judge_signature(wish, rv);
  (void)pthread_mutex_lock(&token->lock);
  depart(token, &visit, rv);
  if (st == STATUS_CRYPTO) {
    (void)errmsg_set(err, st, rv == CKR_OK ? "the signature is not good" : "error 0x%lx", rv);
  }
  return st;
}

// sign_once: the token is locked.
static enum status sign_once(const struct wish *wish, struct errmsg *err) {
  struct token *token = wish->key->token;
  enum status st = STATUS_UNAVAILABLE;

  if (open_token(token, err) == STATUS_OK && enter_module(token->module)) {
    st = sign_in_module(wish, err);
    leave_module(token->module);
  }
  return st;
}

enum status token_sign(struct token_key *key, const struct scheme *scheme,
                       uint8_t out[SCHEME_MAX_SIGNATURE_LEN], size_t *out_len,
                       struct bytes digest) {
  struct token *token = key->token;
  const struct wish wish = {key, scheme, digest, out, out_len};
  struct errmsg why = {0};
  enum status st = STATUS_UNAVAILABLE;

  *out_len = 0;
  (void)pthread_mutex_lock(&token->lock);
  st = sign_once(&wish, &why);
  // A session that had timed out must not cost a handshake.
  if (st == STATUS_UNAVAILABLE && !token->is_open && token->retry_ms == 0) {
    st = sign_once(&wish, &why);
    if (st == STATUS_UNAVAILABLE && !token->is_open && token->retry_ms == 0) {
      pause_token(token);  // it opens, and does not work
    }
  }
  if (st == STATUS_OK) {
    token->num_signed++;
    token->pause_ms = 0;
  } else {
    token->num_failed++;
    *out_len = 0;
  }
  (void)pthread_mutex_unlock(&token->lock);
  if (st == STATUS_CRYPTO) {
    log_error(0, "token_refused", "token=%s why=\"%s\"", token->name, why.text);
  }
  return st;
}

// on_idle looks after the token while nobody wants anything of it, so that its
// loss and its return are noticed by us and not by a handshake.
static void on_idle(void *arg) {
  struct token *token = arg;
  struct errmsg why = {0};
  enum status st = STATUS_OK;
  CK_SESSION_INFO info;
  CK_SESSION_HANDLE login = 0;
  uint64_t epoch = 0;
  CK_RV rv = CKR_OK;

  (void)pthread_mutex_lock(&token->lock);
  if (token->is_open && enter_module(token->module)) {
    login = token->login;
    epoch = token->epoch;
    (void)pthread_mutex_unlock(&token->lock);
    rv = token->module->loaded.calls->C_GetSessionInfo(login, &info);
    (void)pthread_mutex_lock(&token->lock);
    if (pkcs11_is_lost(rv)) {
      lose(token, epoch, rv);
    }
    leave_module(token->module);
  } else if (!token->is_open && !token->is_pin_refused && !token->is_opening &&
             now_ms() >= token->retry_ms) {
    st = open_token(token, &why);
    if (st == STATUS_OK) {
      log_info(0, "token_back", "token=%s", token->name);
    } else if (st == STATUS_REFUSED) {
      log_error(0, "token_refuses_pin", "token=%s why=\"%s\"", token->name, why.text);
    } else {
      log_debug(0, "token_away", "token=%s why=\"%s\"", token->name, why.text);
    }
  }
  (void)pthread_mutex_unlock(&token->lock);
}

// --- the registry: control thread ---------------------------------------------------------------

enum status token_registry_new(struct token_registry **out) {
  *out = calloc(1, sizeof **out);
  return *out == NULL ? STATUS_MEMORY : STATUS_OK;
}

static void token_free(struct token *token) {
  secret_wipe(&token->pin);
  (void)pthread_mutex_destroy(&token->lock);
  free(token);
}

void token_registry_free(struct token_registry *registry) {
  if (registry == NULL) {
    return;
  }
  for (size_t i = 0; i < registry->num_keys; i++) {
    EVP_PKEY_free(registry->keys[i]->public_key);
    free(registry->keys[i]);
  }
  for (size_t i = 0; i < registry->num_tokens; i++) {
    token_free(registry->tokens[i]);
  }
  for (size_t i = 0; i < registry->num_modules; i++) {
    (void)registry->modules[i].loaded.calls->C_Finalize(NULL);
    (void)pthread_rwlock_destroy(&registry->modules[i].in_use);
    free(registry->modules[i].path);
  }
  free(registry);
}

static enum status find_module(struct module **out, struct token_registry *registry,
                               const char *path, struct errmsg *err) {
  struct module *module = NULL;
  enum status st = STATUS_OK;

  for (size_t i = 0; i < registry->num_modules; i++) {
    if (strcmp(registry->modules[i].path, path) == 0) {
      *out = &registry->modules[i];
      return STATUS_OK;
    }
  }
  if (registry->num_modules == TOKEN_MAX_MODULES) {
    return errmsg_set(err, STATUS_LIMIT, "more than %u modules", TOKEN_MAX_MODULES);
  }
  module = &registry->modules[registry->num_modules];
  *module = (struct module){.path = strdup(path)};
  if (module->path == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  st = pkcs11_load(&module->loaded, path, err);
  if (st != STATUS_OK) {
    free(module->path);
    return st;
  }
  (void)pthread_rwlock_init(&module->in_use, NULL);
  registry->num_modules++;
  *out = module;
  return STATUS_OK;
}

// select_token leaves of a URI what selects the token.
static void select_token(struct pkcs11_uri *uri) {
  uri->values[PKCS11_OBJECT] = (struct pkcs11_value){0};
  uri->values[PKCS11_ID] = (struct pkcs11_value){0};
  uri->values[PKCS11_TYPE] = (struct pkcs11_value){0};
}

static void name_token(struct token *token, size_t number) {
  const struct pkcs11_value *label = &token->uri.values[PKCS11_TOKEN];
  size_t len = 0;

  for (; len < label->len && len + 1 < NAME_LEN; len++) {
    const uint8_t c = label->data[len];
    token->name[len] = (char)(c > ' ' && c < 0x7f && c != '"' && c != '\\' ? c : '_');
  }
  if (len == 0) {
    (void)snprintf(token->name, sizeof token->name, "token-%zu", number);
  }
}

// give_pin reads the PIN file; a PIN that is another one may be tried.
static enum status give_pin(struct token *token, const char *path, struct errmsg *err) {
  struct secret pin = {0};
  enum status st = STATUS_OK;
  bool is_same = false;

  CHECK(token != NULL);
  if (path == NULL) {
    return STATUS_OK;
  }
  st = secret_read_file(&pin, path, TOKEN_MAX_PIN_LEN, true, err);
  if (st != STATUS_OK) {
    return st;
  }
  while (pin.len > 0 && (pin.data[pin.len - 1] == '\n' || pin.data[pin.len - 1] == '\r')) {
    pin.len--;
  }
  (void)pthread_mutex_lock(&token->lock);
  is_same = token->has_pin && token->pin.data != NULL && token->pin.len == pin.len && pin.len > 0 &&
            CRYPTO_memcmp(token->pin.data, pin.data, pin.len) == 0;
  if (!is_same && !token->is_opening) {
    secret_wipe(&token->pin);
    token->pin = pin;
    pin = (struct secret){0};
    token->has_pin = true;
    token->is_pin_refused = false;
    token->retry_ms = 0;
  }
  (void)pthread_mutex_unlock(&token->lock);
  secret_wipe(&pin);
  return STATUS_OK;
}

static enum status find_token(struct token **out, struct token_registry *registry,
                              struct module *module, const struct pkcs11_uri *uri,
                              unsigned num_sessions, struct errmsg *err) {
  struct pkcs11_uri selector = *uri;
  struct token *token = NULL;

  select_token(&selector);
  for (size_t i = 0; i < registry->num_tokens; i++) {
    if (registry->tokens[i]->module == module &&
        pkcs11_uri_equal(&registry->tokens[i]->uri, &selector)) {
      *out = registry->tokens[i];
      return STATUS_OK;
    }
  }
  if (registry->num_tokens == TOKEN_MAX_TOKENS) {
    return errmsg_set(err, STATUS_LIMIT, "more than %u tokens", TOKEN_MAX_TOKENS);
  }
  token = calloc(1, sizeof *token);
  if (token == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  token->module = module;
  token->uri = selector;
  token->num_sessions = num_sessions == 0 ? DEFAULT_SESSIONS : num_sessions;
  name_token(token, registry->num_tokens + 1);
  (void)pthread_mutex_init(&token->lock, NULL);
  registry->tokens[registry->num_tokens] = token;
  registry->num_tokens++;  // from here on others may read it
  *out = token;
  return STATUS_OK;
}

static struct token_key *find_known(struct token_registry *registry, const struct token *token,
                                    const struct pkcs11_uri *uri) {
  for (size_t i = 0; i < registry->num_keys; i++) {
    if (registry->keys[i]->token == token && pkcs11_uri_equal(&registry->keys[i]->uri, uri)) {
      return registry->keys[i];
    }
  }
  return NULL;
}

// read_key looks for the key on the token, and reads its public half if `key` has
// none yet. The token is locked.
static enum status read_key(struct token_key *key, struct errmsg *err) {
  struct token *token = key->token;
  struct visit visit = {0};
  CK_OBJECT_HANDLE handle = 0;
  enum status st = open_token(token, err);

  if (st != STATUS_OK) {
    return st;
  }
  if (!enter_module(token->module)) {
    return errmsg_set(err, STATUS_UNAVAILABLE, "the module is being started anew");
  }
  TRY(arrive(token, &visit, err));
  st = find_handle(key, &visit, &handle, err);
  if (st == STATUS_OK && key->public_key == NULL) {
    st = pkcs11_read_public(&key->public_key, &token->module->loaded, visit.session, handle, err);
  }
  depart(token, &visit, st == STATUS_UNAVAILABLE ? CKR_DEVICE_ERROR : CKR_OK);

out:
  leave_module(token->module);
  return st;
}

static enum status check_uri(struct pkcs11_uri *uri, const char *text, struct errmsg *err) {
  static const char private_word[] = "private";
  const struct pkcs11_value *type = NULL;
  const char *why = NULL;

  if (pkcs11_uri_parse(uri, bytes_text(text), &why) != STATUS_OK) {
    return errmsg_set(err, STATUS_CONFIG, "this is no PKCS #11 URI (RFC 7512): %s", why);
  }
  type = &uri->values[PKCS11_TYPE];
  if (type->is_set && !bytes_equal(bytes_of(type->data, type->len), bytes_text(private_word))) {
    return errmsg_set(err, STATUS_CONFIG, "only type=private can sign");
  }
  for (int i = PKCS11_MODULE_NAME; i < PKCS11_NUM_ATTRIBUTES; i++) {
    if (uri->values[i].is_set) {
      return errmsg_set(err, STATUS_CONFIG, "%s does not belong here; use %s",
                        pkcs11_attribute_name((enum pkcs11_attribute)i),
                        i < PKCS11_PIN_SOURCE ? "module" : "pin_file");
    }
  }
  if (uri->values[PKCS11_LIBRARY_VERSION].is_set) {
    return errmsg_set(err, STATUS_CONFIG, "library-version is not looked at here");
  }
  if (!uri->values[PKCS11_OBJECT].is_set && !uri->values[PKCS11_ID].is_set) {
    return errmsg_set(err, STATUS_CONFIG, "it names no key: give object= or id=");
  }
  return STATUS_OK;
}

static enum status new_key(struct token_key **out, struct token_registry *registry,
                           struct token *token, const struct pkcs11_uri *uri, EVP_PKEY *public_key,
                           struct errmsg *err) {
  struct token_key *key = NULL;
  enum status st = STATUS_OK;

  if (registry->num_keys == TOKEN_MAX_KEYS) {
    return errmsg_set(err, STATUS_LIMIT, "more than %u keys on tokens", TOKEN_MAX_KEYS);
  }
  key = calloc(1, sizeof *key);
  if (key == NULL) {
    return errmsg_set(err, STATUS_MEMORY, "no memory");
  }
  CHECK(token != NULL);
  key->token = token;
  key->uri = *uri;
  if (public_key != NULL) {
    EVP_PKEY_up_ref(public_key);
    key->public_key = public_key;
  }
  (void)pthread_mutex_lock(&token->lock);
  st = read_key(key, err);
  (void)pthread_mutex_unlock(&token->lock);
  if (st != STATUS_OK && (st != STATUS_UNAVAILABLE || key->public_key == NULL)) {
    EVP_PKEY_free(key->public_key);
    free(key);
    return st;
  }
  registry->keys[registry->num_keys++] = key;
  *out = key;
  return st;
}

enum status token_key_open(struct token_key **out, EVP_PKEY **out_public,
                           struct token_registry *registry, const struct token_key_config *config,
                           struct errmsg *err) {
  struct pkcs11_uri uri;
  struct module *module = NULL;
  struct token *token = NULL;
  enum status st = STATUS_OK;

  *out = NULL;
  *out_public = NULL;
  TRY(check_uri(&uri, config->uri, err));
  TRY(find_module(&module, registry, config->module, err));
  TRY(find_token(&token, registry, module, &uri, config->num_sessions, err));
  TRY(give_pin(token, config->pin_file, err));
  *out = find_known(registry, token, &uri);
  if (*out == NULL) {
    st = new_key(out, registry, token, &uri, config->public_key, err);
  }
  if (*out != NULL) {
    *out_public = (*out)->public_key;
    if (config->public_key != NULL && EVP_PKEY_cmp(config->public_key, *out_public) != 1) {
      st = errmsg_set(err, STATUS_CONFIG, "the certificate is of another key than before");
    }
  }

out:
  ERR_clear_error();
  return st;
}

bool token_needs_test(struct token_key *key) {
  const bool is_first = !key->is_known;
  key->is_known = true;
  return is_first;
}

enum status token_start_lanes(struct token_registry *registry, struct signer_pool *pool,
                              unsigned max_queued) {
  for (size_t i = 0; i < token_num(registry); i++) {
    struct token *token = registry->tokens[i];
    const struct signer_lane_config config = {
        .name = token->name,
        .num_threads = token->num_sessions,
        .max_queued = max_queued,
        .on_idle = on_idle,
        .arg = token,
    };
    enum status st = STATUS_OK;
    if (token->has_lane) {
      continue;
    }
    st = signer_pool_add_lane(pool, &token->lane, &config);
    if (st != STATUS_OK) {
      return st;
    }
    token->has_lane = true;
  }
  return STATUS_OK;
}

unsigned token_key_lane(const struct token_key *key) { return key->token->lane; }

size_t token_num(const struct token_registry *registry) {
  return registry == NULL ? 0 : registry->num_tokens;
}

void token_stats_read(struct token_stats *out, struct token_registry *registry, size_t index) {
  struct token *token = registry->tokens[index];

  (void)pthread_mutex_lock(&token->lock);
  *out = (struct token_stats){
      .name = token->name,
      .is_up = token->is_open,
      .is_pin_refused = token->is_pin_refused,
      .num_signed = token->num_signed,
      .num_failed = token->num_failed,
      .num_lost = token->num_lost,
      .num_opened = token->num_opened,
  };
  (void)pthread_mutex_unlock(&token->lock);
}
