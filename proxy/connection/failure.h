// SPDX-License-Identifier: Apache-2.0
// failure: why a handshake did not come about, as a closed list that metrics and
// log lines use; and what BoringSSL's error queue means in these words.
#ifndef DEPUTY_PROXY_CONNECTION_FAILURE_H_
#define DEPUTY_PROXY_CONNECTION_FAILURE_H_

#include <stdint.h>

enum failure {
  FAILURE_NONE,
  FAILURE_SILENT,           // connected, said nothing until the deadline
  FAILURE_SCAN,             // connected, said nothing and left
  FAILURE_TIMEOUT,          // began, and did not finish in time
  FAILURE_DISPLACED,        // stood still while the budget of handshakes was used up
  FAILURE_CLOSED,           // began, and left
  FAILURE_RESET,            // the connection broke
  FAILURE_PLAINTEXT,        // speaks HTTP, not TLS
  FAILURE_NOT_TLS,          // first record is of no known kind (SSLv2, other protocols)
  FAILURE_PROXY_HEADER,     // a trusted peer sent no PROXY header, or a wrong one
  FAILURE_ADDRESS,          // whom that header names has used up the limits of an address
  FAILURE_BAD_HELLO,        // a ClientHello or later message that breaks the grammar
  FAILURE_PROTOCOL,         // a well-formed message that may not come here, a bad record
  FAILURE_VERSION,          // no TLS version in common
  FAILURE_CIPHER,           // no cipher suite in common
  FAILURE_GROUP,            // no key exchange group in common
  FAILURE_SCHEME,           // no signature scheme in common with any usable chain
  FAILURE_ALPN,             // no application protocol in common
  FAILURE_UNKNOWN_NAME,     // no such name here
  FAILURE_NO_CHAIN,         // the name's chains have all expired
  FAILURE_CLIENT_CERT,      // the client's certificate is not good (why is counted elsewhere)
  FAILURE_NO_CLIENT_CERT,   // it showed none, and must
  FAILURE_ALERT,            // the client sent a fatal alert (counted by name elsewhere)
  FAILURE_KEY_TIMEOUT,      // the key server did not answer in time
  FAILURE_KEY_REFUSED,      // the key server said no
  FAILURE_KEY_NOT_FOUND,    // no key server has this key
  FAILURE_KEY_UNAVAILABLE,  // no key server can be reached or serve
  FAILURE_KEY_BAD,          // the key server's signature is of no use
  FAILURE_LOOKUP_TIMEOUT,   // the name was not read from the store in time
  FAILURE_LOOKUP,           // the store cannot be read, or too many wait for it
  FAILURE_INTERNAL,         // no memory, or a fault of ours
  FAILURE_NUM,
};

// failure_name: a word for logs and metrics, "unknown_name".
const char *failure_name(enum failure failure);

// failure_of_error translates a code of ERR_peek_error. *out_alert is the fatal
// alert received when the result is FAILURE_ALERT.
enum failure failure_of_error(uint32_t packed_error, uint8_t *out_alert);

// alert_name: "illegal_parameter" for 47; "unassigned" where RFC 8446 has none.
const char *alert_name(uint8_t alert);

#endif  // DEPUTY_PROXY_CONNECTION_FAILURE_H_
