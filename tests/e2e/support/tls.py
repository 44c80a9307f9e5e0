# SPDX-License-Identifier: Apache-2.0
"""TLS over memory, so that a test decides which bytes leave when: a record in pieces, a
close_notify while data are under way, a FIN without one."""

import contextlib
import socket
import ssl
import struct

from support.procs import SLOW


class MemoryTls:
    """One client connection. `sock` is its plain socket."""

    def __init__(self, address, context, host, timeout=10.0, rcvbuf=None, handshake=True):
        self.received = ssl.MemoryBIO()
        self.to_send = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.received, self.to_send, server_hostname=host)
        self.sock = socket.socket()
        try:
            if rcvbuf:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            self.sock.settimeout(timeout * SLOW)
            self.sock.connect(address)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if handshake:
                self.handshake()
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def handshake(self):
        self._drive(self.tls.do_handshake)

    def flush(self):
        while self.to_send.pending:
            self.sock.sendall(self.to_send.read())

    def _fill(self):
        data = self.sock.recv(262144)
        if data:
            self.received.write(data)
        else:
            self.received.write_eof()

    def _drive(self, step, *args):
        while True:
            try:
                value = step(*args)
                self.flush()
                return value
            except ssl.SSLWantReadError:
                self.flush()
                self._fill()

    def sealed(self, data):
        """The records that carry `data`."""
        self.tls.write(data)
        return self.to_send.read()

    def send(self, data):
        for at in range(0, len(data), 16384):
            self.sock.sendall(self.sealed(data[at:at + 16384]))

    def read(self, size=262144):
        """Some bytes; b"" after a close_notify. SSLEOFError: an end without one."""
        try:
            return self._drive(self.tls.read, size)
        except ssl.SSLZeroReturnError:
            return b""

    def read_all(self):
        """Everything up to the close_notify."""
        out = bytearray()
        while True:
            data = self.read()
            if not data:
                return bytes(out)
            out += data

    def read_exactly(self, size):
        out = b""
        while len(out) < size:
            data = self.read(size - len(out))
            assert data, f"ended after {len(out)} of {size} bytes"
            out += data
        return out

    def close_notify(self):
        """Ends our direction of TLS; what comes back is still read."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()

    def reset(self):
        """Breaks the connection off."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


# --- ClientHello by hand ---------------------------------------------------------------

ALERT, HANDSHAKE, DATA = 21, 22, 23


def record(kind, body, version=0x0301):
    return struct.pack(">BHH", kind, version, len(body)) + body


def message(body, kind=1):
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def client_hello(context, host="demo.test"):
    """A real ClientHello: one record."""
    out = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=host)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


class Hello:
    """A ClientHello, taken apart: head up to the extensions, and those."""

    def __init__(self, raw):
        body = raw[9:]
        at = 2 + 32
        at += 1 + body[at]
        at += 2 + struct.unpack_from(">H", body, at)[0]
        at += 1 + body[at]
        self.head = body[:at]
        self.extensions = []
        rest = body[at + 2:]
        while rest:
            kind, length = struct.unpack_from(">HH", rest)
            self.extensions.append((kind, rest[4:4 + length]))
            rest = rest[4 + length:]

    def pack(self):
        """The handshake message."""
        extensions = b"".join(struct.pack(">HH", k, len(v)) + v for k, v in self.extensions)
        return message(self.head + struct.pack(">H", len(extensions)) + extensions)

    def without(self, kind):
        self.extensions = [e for e in self.extensions if e[0] != kind]
        return self

    def put(self, kind, value):
        self.without(kind).extensions.insert(0, (kind, value))
        return self


def scheme_list(*codes):
    """The value of signature_algorithms, or of delegated_credential."""
    return struct.pack(f">H{len(codes)}H", 2 * len(codes), *codes)
