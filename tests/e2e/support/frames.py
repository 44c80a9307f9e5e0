# SPDX-License-Identifier: Apache-2.0
"""The key-server protocol from the other side, written from its description.

Independent of our C code on purpose: what both agree on is the protocol.
"""

import contextlib
import datetime
import hashlib
import socket
import ssl
import struct
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, utils

from support.procs import SLOW
from support.tls import MemoryTls

OPCODE, PAYLOAD, EXTRA, SKI, DIGEST = 0x11, 0x12, 0x14, 0x04, 0x01
SNI, CLIENT_IP, SERVER_IP, CERT_ID, CONTEXT, PADDING = 0x02, 0x03, 0x05, 0x06, 0x16, 0x20

RSA_SHA256, ECDSA_SHA256, ECDSA_SHA384, ED25519, PSS_SHA256 = 0x05, 0x15, 0x16, 0x18, 0x35
SUCCESS, PING, PONG, ERROR = 0xF0, 0xF1, 0xF2, 0xFF

E_CRYPTOGRAPHY, E_KEY_NOT_FOUND, E_VERSION, E_BAD_OPCODE, E_UNEXPECTED = 1, 2, 4, 5, 6
E_FORMAT, E_INTERNAL = 7, 8
E_NOT_AUTHORISED, E_BAD_MESSAGE, E_RATE, E_BUSY = 0x40, 0x41, 0x42, 0x43

FOREIGN_SUITES = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"


def item(tag, value):
    return struct.pack(">BH", tag, len(value)) + value


def packet(request_id, *items, pad=True, major=1, minor=0, length=None):
    """A whole packet; `length` overrides what the header claims."""
    body = b"".join(items)
    if pad and len(body) + 8 < 1024:
        body += item(PADDING, bytes(max(0, 1024 - 8 - len(body) - 3)))
    return struct.pack(">BBHI", major, minor, len(body) if length is None else length,
                       request_id) + body


def items_of(body):
    """{tag: value} of a response; complains about what no response may have."""
    out, at = {}, 0
    while at < len(body):
        tag, length = struct.unpack_from(">BH", body, at)
        value = body[at + 3:at + 3 + length]
        assert len(value) == length and tag not in out
        out[tag] = value
        at += 3 + length
    assert set(out) <= {OPCODE, PAYLOAD, PADDING}, out.keys()
    return out


class Reply:
    """One response."""

    def __init__(self, raw):
        self.raw = raw
        self.major, self.minor, _, self.id = struct.unpack_from(">BBHI", raw)
        items = items_of(raw[8:])
        self.opcode = items[OPCODE][0]
        self.payload = items.get(PAYLOAD, b"")

    @property
    def error(self):
        """The error code, or None for a success."""
        return self.payload[0] if self.opcode == ERROR else None

    def __repr__(self):
        return f"<reply {self.id} op {self.opcode:#x} {self.payload[:16].hex()}>"


class Client(MemoryTls):
    """One connection to a key server."""

    def __init__(self, address, ca, identity=None, tls12=False, ciphers=None, timeout=10.0,
                 server_name="localhost", rcvbuf=None, alpn=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(ca)
        if identity is not None:
            context.load_cert_chain(identity.chain, identity.key)
        if tls12:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(ciphers or FOREIGN_SUITES)
        if alpn is not None:
            context.set_alpn_protocols(alpn)
        self.buffer = b""
        super().__init__(address, context, server_name, timeout, rcvbuf)

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.close()

    def read(self, size=262144):
        """What the server sent next; b"" when it closed, orderly or not."""
        try:
            return super().read(size)
        except ssl.SSLEOFError:
            return b""

    def receive(self):
        """The next response; EOFError when the server closed."""
        while True:
            if len(self.buffer) >= 8:
                length = 8 + struct.unpack_from(">H", self.buffer, 2)[0]
                if len(self.buffer) >= length:
                    raw, self.buffer = self.buffer[:length], self.buffer[length:]
                    return Reply(raw)
            more = self.read()
            if not more:
                raise EOFError("the key server closed the connection")
            self.buffer += more

    def receive_all(self, num):
        """`num` responses by id."""
        replies = [self.receive() for _ in range(num)]
        by_id = {reply.id: reply for reply in replies}
        assert len(by_id) == num, "an id was answered twice"
        return by_id

    def ask(self, request_id, *items, **kwargs):
        """Sends a request and returns the response, which has its id."""
        self.send(packet(request_id, *items, **kwargs))
        reply = self.receive()
        assert reply.id == request_id
        return reply

    def ping(self, payload=b"hello"):
        reply = self.ask(7, item(OPCODE, bytes([PING])), item(PAYLOAD, payload))
        assert (reply.opcode, reply.payload) == (PONG, payload)

    def sign(self, request_id, opcode, ski, message=None, payload=None, more=()):
        """Asks for a signature and returns the reply; see sign_packet."""
        self.send(sign_packet(request_id, opcode, ski, message, payload, more))
        reply = self.receive()
        assert reply.id == request_id
        return reply

    def wait_closed(self, timeout=10.0):
        """Reads until the server has closed; returns the bytes that came before."""
        deadline = time.monotonic() + timeout * SLOW
        got = self.buffer
        while time.monotonic() < deadline:
            self.sock.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                more = self.read()
            except TimeoutError:
                break
            except OSError:  # a reset, an alert: closed all the same
                return got
            if not more:
                return got
            got += more
        raise AssertionError("the key server did not close the connection")

    def half_close(self, notify=True):
        """Ends our direction: close_notify, then FIN; what comes back is still read."""
        if notify:
            self.close_notify()
        self.sock.shutdown(socket.SHUT_WR)


def sign_packet(request_id, opcode, ski, message=None, payload=None, more=(), pad=True):
    """A signing request: by message (purpose-bound), or a payload alone (blind)."""
    if payload is None:
        payload = message if opcode == ED25519 else digest_for(opcode, message)
    items = [item(OPCODE, bytes([opcode])), item(PAYLOAD, payload)]
    if message is not None and opcode != ED25519:
        items.append(item(EXTRA, message))
    if ski is not None:
        items.append(item(SKI, ski))
    return packet(request_id, *items, *more, pad=pad)


HASHES = {3: "sha1", 4: "sha224", 5: "sha256", 6: "sha384", 7: "sha512"}


def hash_name(opcode):
    return HASHES[opcode & 0x07]


def digest_for(opcode, message):
    return hashlib.new(hash_name(opcode), message).digest()


# --- messages --------------------------------------------------------------------

SPACES = b" " * 64


def tls13_message(transcript_hash=bytes(32), role=b"server"):
    """RFC 8446, section 4.4.3."""
    return SPACES + b"TLS 1.3, " + role + b" CertificateVerify\0" + transcript_hash


def tls12_message(client_random=bytes(32), server_random=bytes(32), point=None, group=29):
    """RFC 8422, section 5.4: the randoms and the ECDHE parameters."""
    if point is None:
        point = bytes(range(32))
    return client_random + server_random + struct.pack(">BHB", 3, group, len(point)) + point


def credential(valid_time, spki, scheme=0x0403):
    """struct Credential, RFC 9345, section 4."""
    return struct.pack(">IH", valid_time, scheme) + len(spki).to_bytes(3, "big") + spki


def dc_message(certificate_der, valid_time, spki, scheme=0x0403, algorithm=0x0403, role=b"server"):
    """What a certificate's key signs for a delegated credential."""
    return (SPACES + b"TLS, " + role + b" delegated credentials\0" + certificate_der +
            credential(valid_time, spki, scheme) + struct.pack(">H", algorithm))


def valid_time_for(certificate_der, lifetime_s, now=None):
    """valid_time of a credential that ends `lifetime_s` from now."""
    start = x509.load_der_x509_certificate(certificate_der).not_valid_before  # UTC
    start_s = start.replace(tzinfo=datetime.timezone.utc).timestamp()
    return int((now or time.time()) + lifetime_s - start_s)


def csr_message(key_path, host="demo.test"):
    """The CertificationRequestInfo of a request for this very key."""
    with open(key_path, "rb") as f:
        key = serialization.load_pem_private_key(f.read(), None)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).tbs_certrequest_bytes


def verify(spki, opcode, signature, message=None, digest=None):
    """Raises unless `signature` is good for the message (or digest) under the key."""
    key = serialization.load_der_public_key(spki)
    if opcode == ED25519:
        key.verify(signature, message)
        return
    algorithm = {"sha1": hashes.SHA1, "sha224": hashes.SHA224, "sha256": hashes.SHA256,
                 "sha384": hashes.SHA384, "sha512": hashes.SHA512}[hash_name(opcode)]()
    digest = digest or digest_for(opcode, message)
    prehashed = utils.Prehashed(algorithm)
    if opcode & 0xF0 == 0x10:
        key.verify(signature, digest, ec.ECDSA(prehashed))
    elif opcode & 0xF0 == 0x30:
        pss = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
        key.verify(signature, digest, pss, prehashed)
    else:
        key.verify(signature, digest, padding.PKCS1v15(), prehashed)
