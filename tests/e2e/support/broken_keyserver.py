# SPDX-License-Identifier: Apache-2.0
"""A key server that does what a test tells it to, right or wrong: no part of ours.

    server = BrokenKeyServer(stack)
    server.answer = server.good          # or garbage, silent, other_id, ... or a function
    server.requests                      # what it was asked
"""

import contextlib
import socket
import ssl
import struct
import threading

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from support import frames
from support.pki import key_spki, spki_ski


class Request:
    """One packet of a client."""

    def __init__(self, raw):
        self.raw = raw
        self.id = struct.unpack_from(">I", raw, 4)[0]
        self.items = {}
        at = 8
        while at < len(raw):
            tag, length = struct.unpack_from(">BH", raw, at)
            self.items[tag] = raw[at + 3:at + 3 + length]
            at += 3 + length
        self.opcode = self.items[frames.OPCODE][0]
        self.message = self.items.get(frames.EXTRA)
        self.ski = self.items.get(frames.SKI)


class BrokenKeyServer:
    """Answers each request with the bytes that answer(request) returns (of a list, each
    part in a record of its own), or not at all."""

    def __init__(self, stack, name="broken-keyserver"):
        self.stack = stack
        self.requests = []
        self.connections = []
        self.num_connections = 0
        self.answer = self.good
        self.is_refusing = False
        self.is_stopping = threading.Event()
        self.ca = stack.pki.ca(name)
        server = self.ca.issue("server", san=["DNS:localhost", "IP:127.0.0.1"], eku="serverAuth")
        self.client = self.ca.issue("proxy", san=["DNS:proxy.client.test"], eku="clientAuth")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(server.chain, server.key)
        self.context.load_verify_locations(self.ca.cert)
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.threads = []
        self.accepting = threading.Thread(target=self._accept, daemon=True)
        self.accepting.start()

    def options(self, *addresses, deadline="2s", **more):
        """The "key_servers" object of the proxy's configuration."""
        return {"servers": [{"address": a, "name": "localhost"}
                            for a in addresses or [self.address]],
                "tls": self.stack.pki.tls(self.ca, self.client), "deadline": deadline, **more}

    def stop(self):
        self.is_stopping.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.hang_up_all()
        self.accepting.join()
        for thread in self.threads:
            thread.join()

    def hang_up_all(self):
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _accept(self):
        while not self.is_stopping.is_set():
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            self.num_connections += 1
            if self.is_refusing:
                plain.close()
                continue
            thread = threading.Thread(target=self._serve, args=(plain,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _serve(self, plain):
        with contextlib.suppress(OSError, ssl.SSLError), plain:
            plain.settimeout(10)
            tls = self.context.wrap_socket(plain, server_side=True)
            tls.settimeout(None)
            self.connections.append(tls)
            buffer = b""
            while not self.is_stopping.is_set():
                data = tls.recv(65536)
                if not data:
                    return
                buffer += data
                while len(buffer) >= 8:
                    length = 8 + struct.unpack_from(">H", buffer, 2)[0]
                    if len(buffer) < length:
                        break
                    request, buffer = Request(buffer[:length]), buffer[length:]
                    if not self._reply(tls, request):
                        return

    def _reply(self, tls, request):
        if request.opcode == frames.PING:
            tls.sendall(response(request.id, frames.PONG, request.items.get(frames.PAYLOAD, b"")))
            return True
        self.requests.append(request)
        answer = self.answer(request)
        if answer is False:  # hang up
            return False
        for part in answer if isinstance(answer, list) else [answer]:
            if part is not None:
                tls.sendall(part)
        return True

    # --- answers ---

    def key_of(self, ski):
        for leaf in self.stack.leaves.values():
            if spki_ski(key_spki(leaf.key)) == ski:
                return serialization.load_pem_private_key(leaf.key.read_bytes(), None)
        raise AssertionError("a request for a key that is none of ours")

    def signature(self, request, message=None):
        return self.key_of(request.ski).sign(message or request.message, ec.ECDSA(hashes.SHA256()))

    def good(self, request):
        return response(request.id, frames.SUCCESS, self.signature(request))

    def other_id(self, request):
        return response(request.id + 1000, frames.SUCCESS, self.signature(request))

    def twice(self, request):
        return self.good(request) * 2

    def of_another_message(self, request):
        return response(request.id, frames.SUCCESS, self.signature(request, b"something else"))

    def not_a_signature(self, request):
        return response(request.id, frames.SUCCESS, b"\x30\x06\x02\x01\x01\x02\x01\x01")

    def empty(self, request):
        return response(request.id, frames.SUCCESS, b"")

    def huge(self, request):
        return response(request.id, frames.SUCCESS, bytes(60000))

    def unknown_opcode(self, request):
        return response(request.id, 0x77, b"x")

    def garbage(self, _):
        return b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100

    def malformed(self, request):
        return frames.packet(request.id, b"\x11\x00\x05\xf0", pad=False)

    def cut_and_gone(self, request):
        return False

    def silent(self, _):
        return None

    def slow(self, request):
        self.is_stopping.wait(0.5)
        return self.good(request)

    def error(self, code):
        return lambda request: response(request.id, frames.ERROR, bytes([code]))


def response(request_id, opcode, payload):
    return frames.packet(request_id, frames.item(frames.OPCODE, bytes([opcode])),
                         frames.item(frames.PAYLOAD, payload))
