// SPDX-License-Identifier: Apache-2.0
#include "bench/nss_client.h"

#include <arpa/inet.h>
#include <cert.h>
#include <ctype.h>
#include <errno.h>
#include <keyhi.h>
#include <netinet/in.h>
#include <nss.h>
#include <pk11pub.h>
#include <prerror.h>
#include <prio.h>
#include <prnetdb.h>
#include <prtypes.h>
#include <secerr.h>
#include <ssl.h>
#include <sslerr.h>
#include <sslexp.h>
#include <sslproto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/http_body.h"
#include "common/base/file.h"

#define CA_FILE_MAX_LEN (1U << 20)
#define TOKEN_WAIT_MS 1000
#define LINGER_MS 1000

// --- the library -------------------------------------------------------------------

const char *nss_client_version(void) { return NSS_GetVersion(); }

static enum status trust_der(const SECItem *der, const char *path, struct errmsg *err) {
  enum status st = STATUS_OK;
  CERTCertTrust trust = {0};
  CERTCertDBHandle *db = CERT_GetDefaultCertDB();
  CERTCertificate *cert =
      CERT_NewTempCertificate(db, (SECItem *)(uintptr_t)der, NULL, PR_FALSE, PR_TRUE);
  if (cert == NULL || CERT_DecodeTrustString(&trust, "C,,") != SECSuccess ||
      CERT_ChangeCertTrust(db, cert, &trust) != SECSuccess) {
    st = errmsg_set(err, STATUS_FORMAT, "%s: NSS does not take a certificate of it: %s", path,
                    PR_ErrorToName(PR_GetError()));
    if (cert != NULL) {
      CERT_DestroyCertificate(cert);
    }
  }
  // A trusted one is kept: NSS forgets temporary certificates that nobody holds.
  return st;
}

// Decodes one PEM block and trusts what is in it. *text moves behind the block.
static enum status trust_block(char **text, const char *path, struct errmsg *err) {
  static const char begin[] = "-----BEGIN CERTIFICATE-----";
  static const char end[] = "-----END CERTIFICATE-----";
  enum status st = STATUS_OK;
  uint8_t *der = NULL;
  size_t len = 0;
  char packed[8192];
  size_t packed_len = 0;
  char *from = strstr(*text, begin);
  char *to = from == NULL ? NULL : strstr(from, end);
  if (from == NULL || to == NULL) {
    *text = NULL;
    return STATUS_OK;
  }
  for (char *p = from + sizeof(begin) - 1; p < to; p++) {
    if (!isspace((unsigned char)*p) && packed_len < sizeof(packed)) {
      packed[packed_len++] = *p;
    }
  }
  *text = to + sizeof(end) - 1;
  if (bytes_from_base64(&der, &len, bytes_of(packed, packed_len), sizeof(packed)) != STATUS_OK) {
    return errmsg_set(err, STATUS_FORMAT, "%s holds a damaged certificate", path);
  }
  const SECItem item = {siDERCertBuffer, der, (unsigned)len};
  st = trust_der(&item, path, err);
  free(der);
  return st;
}

static enum status trust_file(const char *path, struct errmsg *err) {
  enum status st = STATUS_OK;
  uint8_t *data = NULL;
  size_t len = 0;
  size_t num = 0;

  TRY(file_read(&data, &len, path, CA_FILE_MAX_LEN, err));
  for (char *text = (char *)data; text != NULL;) {
    TRY(trust_block(&text, path, err));
    num += text != NULL;
  }
  if (num == 0) {
    st = errmsg_set(err, STATUS_FORMAT, "%s holds no certificate", path);
  }

out:
  free(data);
  return st;
}

enum status nss_client_init(const char *ca_path, struct errmsg *err) {
  if (NSS_NoDB_Init(NULL) != SECSuccess) {
    return errmsg_set(err, STATUS_UNAVAILABLE, "NSS does not start: %s",
                      PR_ErrorToName(PR_GetError()));
  }
  return ca_path == NULL ? STATUS_OK : trust_file(ca_path, err);
}

void nss_client_shutdown(void) {
  // The trusted CAs are held to the end, so NSS would complain; the process ends anyway.
  (void)NSS_Shutdown();
}

// --- one connection ------------------------------------------------------------------

struct connection {
  const struct nss_client_options *options;
  struct sample *sample;
  PRFileDesc *fd;
  bool is_ssl;
  bool has_alert;
  uint8_t alert;
  struct nss_token *token;
  struct http_body body;
  char *reason;
};

static PRIntervalTime interval_of(int64_t ms) { return PR_MillisecondsToInterval((PRUint32)ms); }

static SECStatus accept_any(void *arg, PRFileDesc *fd, PRBool checks_signature, PRBool is_server) {
  (void)arg;
  (void)fd;
  (void)checks_signature;
  (void)is_server;
  return SECSuccess;
}

static void on_alert(const PRFileDesc *fd, void *arg, const SSLAlert *alert) {
  struct connection *c = arg;
  (void)fd;
  if (alert->description != 0) {
    c->has_alert = true;
    c->alert = alert->description;
  }
}

static SECStatus on_token(PRFileDesc *fd, const PRUint8 *data, unsigned len, void *arg) {
  struct connection *c = arg;
  (void)fd;
  if (c->token != NULL && c->token->len == 0 && len <= NSS_TOKEN_MAX_LEN) {
    memcpy(c->token->data, data, len);
    c->token->len = len;
  }
  return SECSuccess;
}

// A word for what went wrong: the same as the light client's where there is one,
// else NSS's own name of the error.
static void set_reason(struct connection *c, const char *timeout_reason) {
  const PRErrorCode code = PR_GetError();
  const char *name = NULL;
  c->sample->failure = c->reason;
  if (c->has_alert) {
    (void)snprintf(c->reason, NSS_REASON_LEN, "alert_%u", c->alert);
    return;
  }
  switch (code) {
    case PR_CONNECT_REFUSED_ERROR:
      name = "refused";
      break;
    case PR_CONNECT_RESET_ERROR:
      name = "reset";
      break;
    case PR_IO_TIMEOUT_ERROR:
    case PR_CONNECT_TIMEOUT_ERROR:
      name = timeout_reason;
      break;
    case PR_END_OF_FILE_ERROR:
      name = "closed";
      break;
    case PR_NETWORK_UNREACHABLE_ERROR:
    case PR_HOST_UNREACHABLE_ERROR:
      name = "unreachable";
      break;
    case PR_ADDRESS_NOT_AVAILABLE_ERROR:
      name = "no_port";
      break;
    case PR_PROC_DESC_TABLE_FULL_ERROR:
    case PR_SYS_DESC_TABLE_FULL_ERROR:
      name = "no_descriptor";
      break;
    default:
      name = PR_ErrorToName(code);
      break;
  }
  (void)snprintf(c->reason, NSS_REASON_LEN, "%s", name == NULL ? "nss_error" : name);
  for (char *p = c->reason; *p != '\0'; p++) {
    *p = (char)tolower((unsigned char)*p);
  }
}

static bool fill_address(PRNetAddr *out, const struct address *address) {
  memset(out, 0, sizeof(*out));
  if (address->storage.ss_family == AF_INET) {
    const struct sockaddr_in *in = (const struct sockaddr_in *)&address->storage;
    out->inet.family = PR_AF_INET;
    out->inet.port = in->sin_port;
    out->inet.ip = in->sin_addr.s_addr;
    return true;
  }
  const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address->storage;
  out->ipv6.family = PR_AF_INET6;
  out->ipv6.port = in6->sin6_port;
  memcpy(&out->ipv6.ip, &in6->sin6_addr, sizeof(out->ipv6.ip));
  return address->storage.ss_family == AF_INET6;
}

static bool connect_tcp(struct connection *c) {
  PRNetAddr address;
  PRSocketOptionData no_delay = {.option = PR_SockOpt_NoDelay, .value.no_delay = PR_TRUE};
  c->fd = fill_address(&address, &c->options->target) ? PR_OpenTCPSocket(address.raw.family) : NULL;
  if (c->fd == NULL || PR_SetSocketOption(c->fd, &no_delay) != PR_SUCCESS ||
      PR_Connect(c->fd, &address, interval_of(c->options->timeout_ms)) != PR_SUCCESS) {
    set_reason(c, "timeout_connect");
    if (PR_GetError() == PR_CONNECT_RESET_ERROR) {
      (void)snprintf(c->reason, NSS_REASON_LEN, "refused");  // NSPR's word for it
    }
    return false;
  }
  c->sample->connected_ns = recorder_now_ns();
  return true;
}

static bool configure(struct connection *c, const struct nss_token *resume) {
  const struct nss_client_options *o = c->options;
  const SSLVersionRange range = {SSL_LIBRARY_VERSION_TLS_1_3, SSL_LIBRARY_VERSION_TLS_1_3};
  const bool wants_sessions = resume != NULL || c->token != NULL;
  PRFileDesc *fd = SSL_ImportFD(NULL, c->fd);
  if (fd == NULL) {
    return false;
  }
  c->fd = fd;
  c->is_ssl = true;
  if (SSL_VersionRangeSet(fd, &range) != SECSuccess ||
      SSL_OptionSet(fd, SSL_ENABLE_DELEGATED_CREDENTIALS, o->offers_dc) != SECSuccess ||
      SSL_OptionSet(fd, SSL_ENABLE_SESSION_TICKETS, wants_sessions) != SECSuccess ||
      SSL_OptionSet(fd, SSL_NO_CACHE, !wants_sessions) != SECSuccess ||
      SSL_SetURL(fd, o->server_name) != SECSuccess ||
      SSL_AlertReceivedCallback(fd, on_alert, c) != SECSuccess ||
      SSL_AuthCertificateHook(fd, o->ca_path == NULL ? accept_any : SSL_AuthCertificate,
                              CERT_GetDefaultCertDB()) != SECSuccess ||
      SSL_ResetHandshake(fd, PR_FALSE) != SECSuccess) {
    return false;
  }
  if (wants_sessions && SSL_SetResumptionTokenCallback(fd, on_token, c) != SECSuccess) {
    return false;
  }
  return resume == NULL ||
         SSL_SetResumptionToken(fd, resume->data, (unsigned)resume->len) == SECSuccess;
}

static const char *suite_name(PRUint16 code) {
  switch (code) {
    case TLS_AES_128_GCM_SHA256:
      return "aes128";
    case TLS_AES_256_GCM_SHA384:
      return "aes256";
    case TLS_CHACHA20_POLY1305_SHA256:
      return "chacha20";
    default:
      return "other";
  }
}

static void read_facts(struct connection *c, char issuer[128]) {
  SSLChannelInfo info = {0};
  CERTCertificate *cert = SSL_PeerCertificate(c->fd);
  if (SSL_GetChannelInfo(c->fd, &info, sizeof(info)) == SECSuccess) {
    c->sample->is_resumed = info.resumed != PR_FALSE;
    c->sample->has_dc = info.peerDelegCred != PR_FALSE;
    c->sample->is_verified = !c->sample->is_resumed;  // NSS has no way not to
    c->sample->suite = suite_name(info.cipherSuite);
  }
  if (cert != NULL) {
    char *name = CERT_GetCommonName(&cert->issuer);
    if (name != NULL) {
      (void)snprintf(issuer, 128, "%s", name);
      c->sample->issuer = issuer;
      PORT_Free(name);
    }
    CERT_DestroyCertificate(cert);
  }
}

static bool shake_hands(struct connection *c, const struct nss_token *resume, char issuer[128]) {
  if (!configure(c, resume)) {
    set_reason(c, "timeout_handshake");
    return false;
  }
  const int64_t spent_ms = (recorder_now_ns() - c->sample->start_ns) / 1000000;
  const int64_t left_ms = c->options->timeout_ms - spent_ms;
  if (SSL_ForceHandshakeWithTimeout(c->fd, interval_of(left_ms > 1 ? left_ms : 1)) != SECSuccess) {
    set_reason(c, "timeout_handshake");
    return false;
  }
  c->sample->handshake_ns = recorder_now_ns();
  read_facts(c, issuer);
  return true;
}

// One request, and its response to the end.
static bool ask(struct connection *c) {
  const struct nss_client_options *o = c->options;
  const PRIntervalTime limit = interval_of(o->timeout_ms);
  const PRInt32 len = (PRInt32)strlen(o->request);
  uint8_t data[16384];
  if (PR_Send(c->fd, o->request, len, 0, limit) != len) {
    set_reason(c, "timeout_response");
    return false;
  }
  http_body_reset(&c->body);
  while (!c->body.is_done) {
    const PRInt32 num = PR_Recv(c->fd, data, sizeof(data), 0, limit);
    if (num <= 0) {
      set_reason(c, "timeout_response");
      if (num == 0) {
        (void)snprintf(c->reason, NSS_REASON_LEN, "short_response");
      }
      return false;
    }
    c->sample->bytes += (uint64_t)num;
    if (c->sample->first_byte_ns == 0) {
      c->sample->first_byte_ns = recorder_now_ns();
    }
    if (http_body_take(&c->body, bytes_of(data, (size_t)num)) != STATUS_OK) {
      (void)snprintf(c->reason, NSS_REASON_LEN, "response_unreadable");
      c->sample->failure = c->reason;
      return false;
    }
    if (c->body.has_head && (c->body.status_code < 200 || c->body.status_code > 299)) {
      (void)snprintf(c->reason, NSS_REASON_LEN, "http_%d", c->body.status_code);
      c->sample->failure = c->reason;
      return false;
    }
  }
  c->sample->num_requests += 1;
  return true;
}

static void close_connection(struct connection *c) {
  uint8_t data[4096];
  if (c->fd == NULL) {
    return;
  }
  if (c->is_ssl && c->sample->failure == NULL) {
    // close_notify, and then the server's: what it still sends (tickets) must be read,
    // or closing would reset the connection under it.
    int64_t left = LINGER_MS / 100;
    (void)PR_Shutdown(c->fd, PR_SHUTDOWN_SEND);
    while (left > 0) {
      const PRInt32 num = PR_Recv(c->fd, data, sizeof(data), 0, interval_of(100));
      if (num == 0 || (num < 0 && PR_GetError() != PR_IO_TIMEOUT_ERROR)) {
        break;
      }
      left -= num < 0;
    }
  }
  (void)PR_Close(c->fd);
}

// Tickets come after the handshake; NSS sees them when it reads.
static void wait_for_token(struct connection *c) {
  uint8_t data[4096];
  for (int64_t i = 0; i < TOKEN_WAIT_MS / 50 && c->token->len == 0; i++) {
    const PRInt32 num = PR_Recv(c->fd, data, sizeof(data), 0, interval_of(50));
    if (num == 0 || (num < 0 && PR_GetError() != PR_IO_TIMEOUT_ERROR)) {
      return;
    }
  }
}

void nss_client_run(struct sample *s, char reason[NSS_REASON_LEN], char issuer[128],
                    const struct nss_client_options *options, const struct nss_token *resume,
                    struct nss_token *out_token, struct hdr *request_latency) {
  struct connection c = {.options = options, .sample = s, .token = out_token, .reason = reason};
  s->start_ns = recorder_now_ns();
  if (s->scheduled_ns == 0) {
    s->scheduled_ns = s->start_ns;
  }
  if (connect_tcp(&c) && shake_hands(&c, resume, issuer)) {
    bool is_good = true;
    for (int64_t i = 0; i < options->num_requests && is_good; i++) {
      const int64_t asked_ns = recorder_now_ns();
      is_good = ask(&c);
      if (is_good && request_latency != NULL) {
        hdr_record(request_latency, recorder_now_ns() - asked_ns);
      }
    }
    if (is_good && out_token != NULL) {
      wait_for_token(&c);
    }
  }
  s->end_ns = recorder_now_ns();
  close_connection(&c);
}
