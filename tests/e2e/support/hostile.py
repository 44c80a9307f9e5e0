# SPDX-License-Identifier: Apache-2.0
"""A client that shakes hands in good order and then says what no honest one would, rightly
encrypted: records of any kind and content. Python's ssl makes the handshake and gives the
secrets (keylog); from there on the records are made here (RFC 8446, RFC 5246).

    with HostileTls(stack.proxy.address, stack.context(), "demo.test", folder) as client:
        client.send_record(ALERT, b"\x01\x5a")   # sealed, in sequence
        client.end()                             # the alert that came back, or None
"""

import contextlib
import hashlib
import hmac
import itertools
import re
import ssl
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from support.tls import ALERT, DATA, HANDSHAKE, MemoryTls, message

KEY_UPDATE, FINISHED = 24, 20
HASHES = {"TLS_AES_128_GCM_SHA256": ("sha256", 16), "TLS_AES_256_GCM_SHA384": ("sha384", 32)}
TLS12_SUITE = "ECDHE-ECDSA-AES128-GCM-SHA256"
numbers = itertools.count()


def expand_label(name, secret, label, length):
    """HKDF-Expand-Label with an empty context, for at most one hash (RFC 8446, 7.1)."""
    label = b"tls13 " + label
    info = struct.pack(">HB", length, len(label)) + label + b"\0"
    return hmac.new(secret, info + b"\x01", name).digest()[:length]


def prf(secret, label, seed, length):
    """TLS 1.2's, with SHA-256 (RFC 5246, section 5)."""
    seed = label + seed
    out, a = b"", seed
    while len(out) < length:
        a = hmac.new(secret, a, "sha256").digest()
        out += hmac.new(secret, a + seed, "sha256").digest()
    return out[:length]


class HostileTls(MemoryTls):
    """The handshake is over when it is made."""

    def __init__(self, address, context, host, folder, **kwargs):
        self.keylog = folder / f"keylog-{next(numbers)}"
        context.keylog_filename = str(self.keylog)
        self.first = b""  # what the server said first
        if context.maximum_version == ssl.TLSVersion.TLSv1_2:
            context.set_ciphers(TLS12_SUITE)
        super().__init__(address, context, host, **kwargs)
        self.is_tls12 = self.tls.version() == "TLSv1.2"
        if self.is_tls12:
            self._keys12()
        else:
            self.hash, self.key_len = HASHES[self.tls.cipher()[0]]
            self.secret = self._logged("CLIENT_TRAFFIC_SECRET_0")
            self._keys13()

    def _fill(self):
        data = self.sock.recv(262144)
        self.first = self.first or data
        if data:
            self.received.write(data)
        else:
            self.received.write_eof()

    def _logged(self, label):
        found = re.search(rf"^{label} [0-9a-f]+ ([0-9a-f]+)$", self.keylog.read_text(), re.M)
        return bytes.fromhex(found.group(1))

    def _keys13(self):
        self.aead = AESGCM(expand_label(self.hash, self.secret, b"key", self.key_len))
        self.iv = expand_label(self.hash, self.secret, b"iv", 12)
        self.seq = 0

    def _keys12(self):
        random = bytes.fromhex(re.search(r"^CLIENT_RANDOM ([0-9a-f]+)", self.keylog.read_text(),
                                         re.M).group(1))
        server = self.first[5 + 4 + 2:][:32]
        block = prf(self._logged("CLIENT_RANDOM"), b"key expansion", server + random, 40)
        self.aead, self.iv = AESGCM(block[:16]), block[32:36]
        self.seq = 1  # Finished was the first

    def seal(self, kind, content):
        """One record. Finished by hand: Python's object must not write any more."""
        sequence = struct.pack(">Q", self.seq)
        self.seq += 1
        if self.is_tls12:
            head = struct.pack(">BHH", kind, 0x0303, len(content))
            sealed = self.aead.encrypt(self.iv + sequence, content, sequence + head)
            return struct.pack(">BHH", kind, 0x0303, 8 + len(sealed)) + sequence + sealed
        nonce = bytes(a ^ b for a, b in zip(self.iv, b"\0\0\0\0" + sequence))
        head = struct.pack(">BHH", DATA, 0x0303, len(content) + 1 + 16)
        return head + self.aead.encrypt(nonce, content + bytes([kind]), head)

    def seal_key_update(self, is_requested):
        """KeyUpdate, and the next keys from here on (RFC 8446, section 4.6.3)."""
        out = self.seal(HANDSHAKE, message(bytes([is_requested]), KEY_UPDATE))
        self.secret = expand_label(self.hash, self.secret, b"traffic upd",
                                   hashlib.new(self.hash).digest_size)
        self._keys13()
        return out

    def throw(self, data):
        """Sends as much as is taken; who is thrown out in the middle does not mind."""
        with contextlib.suppress(ConnectionError):
            self.sock.sendall(data)

    def send_record(self, kind, content, num=1):
        self.throw(b"".join(self.seal(kind, content) for _ in range(num)))

    def end(self):
        """Reads to the end: the fatal alert in words ("unexpected message"); None: a
        close_notify or no word at all."""
        try:
            while self.read():
                pass
        except ssl.SSLError as e:
            found = re.search(r"alert ([a-z ]+)", str(e).partition("] ")[2].replace("_", " "))
            if found:
                return found.group(1).strip()
            assert "EOF" in str(e), e
        except ConnectionError:
            return "reset"
        return None


WARNINGS = {"user_canceled": b"\x01\x5a", "no_renegotiation": b"\x01\x64"}
__all__ = ["ALERT", "DATA", "HANDSHAKE", "HostileTls", "KEY_UPDATE", "FINISHED", "WARNINGS", "message"]
