#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# no_boringssl_exports.sh EXECUTABLE LIBSSL.A LIBCRYPTO.A
#
# Fails when EXECUTABLE's dynamic symbol table offers a name that BoringSSL
# defines. Libraries in the same process that were built for OpenSSL (libcurl
# brings libssh2, and with it libcrypto.so) would bind to it: same name, other
# layout. An empty list of names is an error too, or the test could not fail.

set -eu
LC_ALL=C
export LC_ALL

exe="$1"
libssl="$2"
libcrypto="$3"
tmp="$(mktemp -d)"
trap 'rm -rf "$tmp"' EXIT

# T, D, B, R, V, W: what another object could bind to. Newer BoringSSL also holds
# copies of the C++ library's own inline functions (St: namespace std), which are
# the same in every object.
nm -g --defined-only "$libssl" "$libcrypto" 2>/dev/null |
  awk 'NF == 3 && $2 ~ /^[A-Z]$/ && $3 !~ /^_ZT?[A-Z]?N?K?St/ { print $3 }' |
  sort -u >"$tmp/boringssl"
nm -D --defined-only "$exe" >"$tmp/nm"
awk 'NF == 3 { sub(/@.*/, "", $3); print $3 }' "$tmp/nm" | sort -u >"$tmp/exported"

for name in SSL_new SSL_do_handshake EVP_PKEY_free ECDSA_sign; do
  grep -qx "$name" "$tmp/boringssl" || {
    echo "$libssl, $libcrypto: $name is not among their names: cannot judge"
    exit 2
  }
done

comm -12 "$tmp/boringssl" "$tmp/exported" >"$tmp/both"
if [ -s "$tmp/both" ]; then
  echo "$exe exports $(wc -l <"$tmp/both") BoringSSL names, such as:"
  head -n 20 "$tmp/both"
  exit 1
fi
echo "$exe exports none of BoringSSL's $(wc -l <"$tmp/boringssl") names"
