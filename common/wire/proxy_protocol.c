// SPDX-License-Identifier: Apache-2.0
// haproxy's proxy-protocol.txt, sections 2.1 and 2.2.
#include "common/wire/proxy_protocol.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/bytestring.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "common/wire/writer.h"

#define PREFIX_LEN 16u  // signature, command, family, length
#define SIGNATURE_LEN 12u
#define VERSION_2 0x20u
#define COMMAND_LOCAL 0u
#define COMMAND_PROXY 1u
#define TRANSPORT_STREAM 1u
#define UNIX_PATH_LEN 108u
#define CRC32C_LEN 4u

enum family {  // with its transport, as on the wire
  FAMILY_UNSPEC = 0x00,
  FAMILY_INET = 0x10 | TRANSPORT_STREAM,
  FAMILY_INET6 = 0x20 | TRANSPORT_STREAM,
  FAMILY_UNIX = 0x30 | TRANSPORT_STREAM,
};

enum tlv {
  TLV_ALPN = 0x01,
  TLV_AUTHORITY = 0x02,
  TLV_CRC32C = 0x03,
  TLV_TLS = 0x20,
  TLV_TLS_VERSION = 0x21,
  TLV_TLS_CN = 0x22,
  TLV_TLS_CIPHER = 0x23,
};

#define CLIENT_TLS 0x01u           // the client spoke TLS
#define CLIENT_CERT_CONN 0x02u     // it presented a certificate in this connection
#define CLIENT_CERT_SESSION 0x04u  // it did at least in the session that is resumed
#define VERIFIED 0u
#define NOT_VERIFIED 1u  // it presented no certificate that was verified

static const uint8_t signature[SIGNATURE_LEN] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                                 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

_Static_assert(sizeof(((struct sockaddr_un *)NULL)->sun_path) == UNIX_PATH_LEN,
               "PROXY has room for exactly one path of this platform");

// Writing.

// An address as it goes out, host order left behind.
struct endpoint {
  enum family family;
  uint8_t address[UNIX_PATH_LEN];
  size_t address_len;
  uint16_t port;
};

static void endpoint_from_inet6(struct endpoint *out, const struct sockaddr_in6 *in6) {
  const bool is_mapped = IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);
  const size_t skipped = is_mapped ? 12 : 0;
  out->family = is_mapped ? FAMILY_INET : FAMILY_INET6;
  out->address_len = sizeof(in6->sin6_addr) - skipped;
  memcpy(out->address, in6->sin6_addr.s6_addr + skipped, out->address_len);
  out->port = ntohs(in6->sin6_port);
}

static void endpoint_from_sockaddr(struct endpoint *out, const struct sockaddr *address) {
  *out = (struct endpoint){.family = FAMILY_UNSPEC};
  switch (address->sa_family) {
    case AF_INET: {
      struct sockaddr_in in;
      memcpy(&in, address, sizeof(in));
      out->family = FAMILY_INET;
      out->address_len = sizeof(in.sin_addr);
      memcpy(out->address, &in.sin_addr, out->address_len);
      out->port = ntohs(in.sin_port);
      break;
    }
    case AF_INET6: {
      struct sockaddr_in6 in6;
      memcpy(&in6, address, sizeof(in6));
      endpoint_from_inet6(out, &in6);
      break;
    }
    case AF_UNIX: {
      // A path shorter than the field is all that the kernel may have written.
      const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)address;
      out->family = FAMILY_UNIX;
      out->address_len = UNIX_PATH_LEN;
      memcpy(out->address, un->sun_path, strnlen(un->sun_path, UNIX_PATH_LEN));
      break;
    }
    default:
      break;
  }
}

static void add_addresses(struct writer *w, const struct endpoint *source,
                          const struct endpoint *destination) {
  writer_bytes(w, bytes_of(source->address, source->address_len));
  writer_bytes(w, bytes_of(destination->address, destination->address_len));
  if (source->family != FAMILY_UNIX) {
    writer_u16(w, source->port);
    writer_u16(w, destination->port);
  }
}

static void add_tlv(struct writer *w, enum tlv type, struct bytes value) {
  if (value.len == 0) {
    return;
  }
  writer_u8(w, (uint8_t)type);
  writer_u16(w, (uint16_t)value.len);  // within PROXY_V2_MAX_TLV_LEN
  writer_bytes(w, value);
}

static void add_tls(struct writer *w, const struct proxy_header *header, struct bytes version,
                    struct bytes cipher) {
  const unsigned in_conn = header->has_client_cert ? CLIENT_CERT_CONN : 0;
  const unsigned in_session = header->has_client_cert_in_session ? CLIENT_CERT_SESSION : 0;
  const bool is_verified = header->is_client_verified && (in_conn | in_session) != 0;
  size_t len_at;
  writer_u8(w, TLV_TLS);
  len_at = w->len;
  writer_u16(w, 0);
  writer_u8(w, (uint8_t)(CLIENT_TLS | in_conn | in_session));
  writer_u32(w, is_verified ? VERIFIED : NOT_VERIFIED);
  add_tlv(w, TLV_TLS_VERSION, version);
  add_tlv(w, TLV_TLS_CN, header->client_cn);
  add_tlv(w, TLV_TLS_CIPHER, cipher);
  writer_u16_at(w, len_at, w->len - len_at - 2);
}

static struct bytes text_or_nothing(const char *text) {
  return text == NULL ? bytes_of(NULL, 0) : bytes_of(text, strlen(text));
}

static enum status add_tlvs(struct writer *w, const struct proxy_header *header) {
  const struct bytes version = text_or_nothing(header->tls_version);
  const struct bytes cipher = text_or_nothing(header->tls_cipher);
  if (header->alpn.len > PROXY_V2_MAX_TLV_LEN || header->authority.len > PROXY_V2_MAX_TLV_LEN ||
      version.len > PROXY_V2_MAX_TLV_LEN || cipher.len > PROXY_V2_MAX_TLV_LEN ||
      header->client_cn.len > PROXY_V2_MAX_TLV_LEN) {
    return STATUS_LIMIT;
  }
  add_tlv(w, TLV_ALPN, header->alpn);
  add_tlv(w, TLV_AUTHORITY, header->authority);
  if (header->has_tls) {
    add_tls(w, header, version, cipher);
  }
  return STATUS_OK;
}

enum status proxy_v2_encode(uint8_t *out, size_t max, size_t *out_len,
                            const struct proxy_header *header) {
  enum status st = STATUS_OK;
  const bool is_local = header->source == NULL || header->destination == NULL;
  struct endpoint source = {.family = FAMILY_UNSPEC};
  struct endpoint destination = {.family = FAMILY_UNSPEC};
  struct writer w = writer_of(out, max);
  size_t len_at;

  *out_len = 0;
  if (!is_local) {
    endpoint_from_sockaddr(&source, header->source);
    endpoint_from_sockaddr(&destination, header->destination);
    if (source.family != destination.family) {
      source.family = FAMILY_UNSPEC;
    }
  }
  writer_bytes(&w, bytes_of(signature, SIGNATURE_LEN));
  writer_u8(&w, VERSION_2 | (is_local ? COMMAND_LOCAL : COMMAND_PROXY));
  writer_u8(&w, (uint8_t)source.family);
  len_at = w.len;
  writer_u16(&w, 0);
  if (source.family != FAMILY_UNSPEC) {
    add_addresses(&w, &source, &destination);
  }
  if (!is_local) {
    TRY(add_tlvs(&w, header));
  }
  writer_u16_at(&w, len_at, w.len - len_at - 2);
  TRY(writer_finish(&w, out_len));

out:
  return st;
}

// Version 1.

// format_host writes an address as section 2.1 wants it. Only of the two families
// that endpoint_from_sockaddr makes of what is not a path.
static const char *format_host(char out[INET6_ADDRSTRLEN], const struct endpoint *end) {
  return inet_ntop(end->family == FAMILY_INET ? AF_INET : AF_INET6, end->address, out,
                   INET6_ADDRSTRLEN);
}

enum status proxy_v1_encode(uint8_t *out, size_t max, size_t *out_len,
                            const struct proxy_header *header) {
  struct endpoint source = {.family = FAMILY_UNSPEC};
  struct endpoint destination = {.family = FAMILY_UNSPEC};
  char from[INET6_ADDRSTRLEN];
  char to[INET6_ADDRSTRLEN];
  char line[PROXY_V1_MAX_LEN + 1];
  int len = 0;

  *out_len = 0;
  if (header->source != NULL && header->destination != NULL) {
    endpoint_from_sockaddr(&source, header->source);
    endpoint_from_sockaddr(&destination, header->destination);
  }
  if (source.family != destination.family ||
      (source.family != FAMILY_INET && source.family != FAMILY_INET6)) {
    len = snprintf(line, sizeof(line), "PROXY UNKNOWN\r\n");
  } else {
    len = snprintf(line, sizeof(line), "PROXY %s %s %s %u %u\r\n",
                   source.family == FAMILY_INET ? "TCP4" : "TCP6", format_host(from, &source),
                   format_host(to, &destination), source.port, destination.port);
  }
  if (len < 0 || (size_t)len >= sizeof(line) || (size_t)len > max) {
    return STATUS_LIMIT;
  }
  memcpy(out, line, (size_t)len);
  *out_len = (size_t)len;
  return STATUS_OK;
}

// Reading.

static bool take_inet(CBS *cbs, struct proxy_decoded *out) {
  struct sockaddr_in source = {.sin_family = AF_INET};
  struct sockaddr_in destination = {.sin_family = AF_INET};
  uint16_t source_port;
  uint16_t destination_port;
  if (!CBS_copy_bytes(cbs, (uint8_t *)&source.sin_addr, sizeof(source.sin_addr)) ||
      !CBS_copy_bytes(cbs, (uint8_t *)&destination.sin_addr, sizeof(destination.sin_addr)) ||
      !CBS_get_u16(cbs, &source_port) || !CBS_get_u16(cbs, &destination_port)) {
    return false;
  }
  source.sin_port = htons(source_port);
  destination.sin_port = htons(destination_port);
  memcpy(&out->source, &source, sizeof(source));
  memcpy(&out->destination, &destination, sizeof(destination));
  return true;
}

static bool take_inet6(CBS *cbs, struct proxy_decoded *out) {
  struct sockaddr_in6 source = {.sin6_family = AF_INET6};
  struct sockaddr_in6 destination = {.sin6_family = AF_INET6};
  uint16_t source_port;
  uint16_t destination_port;
  if (!CBS_copy_bytes(cbs, source.sin6_addr.s6_addr, sizeof(source.sin6_addr)) ||
      !CBS_copy_bytes(cbs, destination.sin6_addr.s6_addr, sizeof(destination.sin6_addr)) ||
      !CBS_get_u16(cbs, &source_port) || !CBS_get_u16(cbs, &destination_port)) {
    return false;
  }
  source.sin6_port = htons(source_port);
  destination.sin6_port = htons(destination_port);
  memcpy(&out->source, &source, sizeof(source));
  memcpy(&out->destination, &destination, sizeof(destination));
  return true;
}

static bool take_unix(CBS *cbs, struct proxy_decoded *out) {
  struct sockaddr_un source = {.sun_family = AF_UNIX};
  struct sockaddr_un destination = {.sun_family = AF_UNIX};
  if (!CBS_copy_bytes(cbs, (uint8_t *)source.sun_path, UNIX_PATH_LEN) ||
      !CBS_copy_bytes(cbs, (uint8_t *)destination.sun_path, UNIX_PATH_LEN)) {
    return false;
  }
  memcpy(&out->source, &source, sizeof(source));
  memcpy(&out->destination, &destination, sizeof(destination));
  return true;
}

static bool take_addresses(CBS *cbs, struct proxy_decoded *out, uint8_t family) {
  switch (family) {
    case FAMILY_UNSPEC:
      return true;
    case FAMILY_INET:
      return take_inet(cbs, out);
    case FAMILY_INET6:
      return take_inet6(cbs, out);
    case FAMILY_UNIX:
      return take_unix(cbs, out);
    default:
      return false;  // datagrams do not arrive on a stream
  }
}

// take_once refuses a value that has been there before, so that nobody can
// hide one behind another.
static bool take_once(struct bytes *out, const CBS *value) {
  if (out->data != NULL) {
    return false;
  }
  *out = bytes_of(CBS_data(value), CBS_len(value));
  return true;
}

// take_tls reads the TLVs inside PP2_TYPE_SSL, behind its flags.
static bool take_tls(CBS tls, struct proxy_decoded *out) {
  uint8_t client;
  uint32_t verify;
  if (!CBS_get_u8(&tls, &client) || !CBS_get_u32(&tls, &verify)) {
    return false;
  }
  out->has_tls = (client & CLIENT_TLS) != 0;
  out->has_client_cert = (client & CLIENT_CERT_CONN) != 0;
  out->has_client_cert_in_session = (client & CLIENT_CERT_SESSION) != 0;
  out->is_client_verified =
      (out->has_client_cert || out->has_client_cert_in_session) && verify == VERIFIED;
  while (CBS_len(&tls) != 0) {
    CBS value;
    uint8_t type;
    if (!CBS_get_u8(&tls, &type) || !CBS_get_u16_length_prefixed(&tls, &value)) {
      return false;
    }
    if ((type == TLV_TLS_VERSION && !take_once(&out->tls_version, &value)) ||
        (type == TLV_TLS_CN && !take_once(&out->client_cn, &value)) ||
        (type == TLV_TLS_CIPHER && !take_once(&out->tls_cipher, &value))) {
      return false;
    }
  }
  return true;
}

// crc32c continues the checksum of RFC 9260, appendix B: reflected Castagnoli
// polynomial. Bit by bit: a header is short, and few senders add one.
static uint32_t crc32c(uint32_t crc, const uint8_t *data, size_t len) {
  for (size_t i = 0; i < len; i++) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; bit++) {
      crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0);
    }
  }
  return crc;
}

// has_right_checksum: section 2.2.3: over the whole header, with the value
// itself taken as zeros.
static bool has_right_checksum(struct bytes header, CBS value) {
  static const uint8_t zeros[CRC32C_LEN] = {0};
  const size_t before = (size_t)(CBS_data(&value) - header.data);
  const size_t after = before + CRC32C_LEN;
  uint32_t expected;
  uint32_t crc = UINT32_MAX;
  if (!CBS_get_u32(&value, &expected) || CBS_len(&value) != 0) {
    return false;
  }
  crc = crc32c(crc, header.data, before);
  crc = crc32c(crc, zeros, CRC32C_LEN);
  crc = crc32c(crc, header.data + after, header.len - after);
  return ~crc == expected;
}

static bool take_tlvs(CBS *cbs, struct proxy_decoded *out, struct bytes header) {
  bool has_tls_tlv = false;
  while (CBS_len(cbs) != 0) {
    CBS value;
    uint8_t type;
    bool is_good = true;
    if (!CBS_get_u8(cbs, &type) || !CBS_get_u16_length_prefixed(cbs, &value)) {
      return false;
    }
    if (type == TLV_ALPN) {
      is_good = take_once(&out->alpn, &value);
    } else if (type == TLV_AUTHORITY) {
      is_good = take_once(&out->authority, &value);
    } else if (type == TLV_TLS) {
      is_good = !has_tls_tlv && take_tls(value, out);
      has_tls_tlv = true;
    } else if (type == TLV_CRC32C) {
      is_good = has_right_checksum(header, value);
    }
    if (!is_good) {
      return false;
    }
  }
  return true;
}

static enum status decode_body(struct proxy_decoded *out, uint8_t command, uint8_t family, CBS body,
                               struct bytes header) {
  if (command == (VERSION_2 | COMMAND_LOCAL)) {
    out->is_local = true;  // section 2.2: what follows is to be skipped
    return STATUS_OK;
  }
  if (command != (VERSION_2 | COMMAND_PROXY) || !take_addresses(&body, out, family) ||
      !take_tlvs(&body, out, header)) {
    return STATUS_FORMAT;
  }
  return STATUS_OK;
}

enum status proxy_v2_decode(struct proxy_decoded *out, size_t *out_len, struct bytes in) {
  enum status st = STATUS_OK;
  uint8_t command = 0;
  uint8_t family = 0;
  uint16_t body_len = 0;
  CBS cbs;
  CBS body;

  *out = (struct proxy_decoded){0};
  *out_len = 0;
  if (in.len == 0) {
    return STATUS_AGAIN;
  }
  // What is there must be right before more is asked for: a peer that speaks
  // something else is told at once.
  if (memcmp(in.data, signature, in.len < SIGNATURE_LEN ? in.len : SIGNATURE_LEN) != 0) {
    return STATUS_FORMAT;
  }
  if (in.len < PREFIX_LEN) {
    return STATUS_AGAIN;
  }
  CBS_init(&cbs, in.data, in.len);
  if (!CBS_skip(&cbs, SIGNATURE_LEN) || !CBS_get_u8(&cbs, &command) || !CBS_get_u8(&cbs, &family) ||
      !CBS_get_u16(&cbs, &body_len)) {
    return STATUS_FORMAT;
  }
  if (PREFIX_LEN + body_len > PROXY_V2_MAX_DECODE_LEN) {
    return STATUS_LIMIT;
  }
  if (!CBS_get_bytes(&cbs, &body, body_len)) {
    return STATUS_AGAIN;
  }
  st = decode_body(out, command, family, body, bytes_of(in.data, PREFIX_LEN + body_len));
  if (st != STATUS_OK) {
    *out = (struct proxy_decoded){0};  // nobody goes on with half a header
    return st;
  }
  *out_len = PREFIX_LEN + body_len;
  return STATUS_OK;
}
