// SPDX-License-Identifier: Apache-2.0
#include "proxy/origin.h"

#include <openssl/ssl.h>
#include <string.h>

#include "common/wire/proxy_protocol.h"
#include "proxy/conn.h"
#include "proxy/worker.h"

enum status origin_init(struct origin *out, const struct origin_options *options,
                        struct errmsg *err) {
  enum status st = address_parse(&out->address, options->address, err);
  if (st != STATUS_OK) {
    errmsg_prefix(err, "origin.address");
    return STATUS_CONFIG;
  }
  out->proxy_protocol = (enum proxy_protocol)options->proxy_protocol;
  return STATUS_OK;
}

enum status origin_connect(int *out_fd, const struct origin *origin) {
  return address_connect(out_fd, &origin->address);
}

enum status origin_connect_result(int fd) { return address_connect_result(fd); }

enum status origin_greet(struct conn *conn, const struct origin *origin) {
  enum status st = STATUS_OK;
  struct address here = {0};
  struct sockaddr_storage client = {0};
  struct proxy_header header = {0};
  const uint8_t *alpn = NULL;
  unsigned alpn_len = 0;
  size_t len = 0;

  if (origin->proxy_protocol == PROXY_PROTOCOL_OFF) {
    return STATUS_OK;
  }
  if (!block_borrow(&conn->up, &conn->worker->blocks)) {
    return STATUS_MEMORY;
  }
  TRY(address_of_local(&here, conn->client.fd));
  SSL_get0_alpn_selected(conn->ssl, &alpn, &alpn_len);
  memcpy(&client, &conn->peer, sizeof(conn->peer));
  header.source = (const struct sockaddr *)&client;
  header.destination = (const struct sockaddr *)&here.storage;
  header.alpn = bytes_of(alpn, alpn_len);
  header.authority = bytes_text(SSL_get_servername(conn->ssl, TLSEXT_NAMETYPE_host_name));
  header.has_tls = true;
  header.tls_version = SSL_get_version(conn->ssl);
  header.tls_cipher = SSL_CIPHER_standard_name(SSL_get_current_cipher(conn->ssl));
  TRY((origin->proxy_protocol == PROXY_PROTOCOL_V1 ? proxy_v1_encode : proxy_v2_encode)(
      block_free(conn->up), block_room(conn->up), &len, &header));
  block_add(conn->up, len);

out:
  return st;
}
