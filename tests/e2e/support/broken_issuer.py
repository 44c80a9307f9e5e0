# SPDX-License-Identifier: Apache-2.0
"""An issuer that does what a test tells it to, right or wrong: no part of ours.

    issuer = BrokenIssuer(stack)          # holds the leaves' keys, as no real issuer does
    issuer.answer = issuer.good           # or expired, too_long, ... or a function of a test
    issuer.requests                       # what the proxy asked: a list of lists of entries
"""

import base64
import contextlib
import http.server
import json
import socket
import ssl
import struct
import threading
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from support.dcissuer import DcKey, b64
from support.frames import credential, dc_message, valid_time_for

HOUR, DAY = 3600, 24 * 3600


class BrokenIssuer:
    """An HTTPS server with client certificates, which answers by `answer(entries)`."""

    def __init__(self, stack, name="broken-issuer"):
        self.stack = stack
        self.requests = []
        self.times = []
        self.connections = []
        self.keys = {}  # DER of the leaf: private key
        self.labels = set()
        self.lock = threading.Lock()
        self.is_stopping = threading.Event()
        self.answer = self.good
        self.status = 200
        self.lifetime = None  # None: as asked
        self.ca = stack.pki.ca(name)
        server = self.ca.issue("server", san=["DNS:localhost", "IP:127.0.0.1"], eku="serverAuth")
        self.client = self.ca.issue("proxy", san=["DNS:proxy.client.test"], eku="clientAuth")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server.chain, server.key)
        context.load_verify_locations(self.ca.cert)
        context.verify_mode = ssl.CERT_REQUIRED
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                outer.connections.append(self.connection)

            def do_POST(self):
                outer.handle(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = False  # OpenSSL must not end under a thread's feet
        self.server.handle_error = lambda *_: None
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = "https://127.0.0.1:%d" % self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def options(self, *urls, timeout="2s"):
        """The "issuers" object of the proxy's configuration."""
        return {"urls": list(urls) or [self.url], "tls": self.stack.pki.tls(self.ca, self.client),
                "timeout": timeout}

    def stop(self):
        self.is_stopping.set()
        self.server.shutdown()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        self.server.server_close()  # waits for the threads

    def handle(self, handler):
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        assert handler.path == "/v1/delegated-credentials", handler.path
        entries = json.loads(body)["requests"]
        self.requests.append(entries)
        self.times.append(time.monotonic())
        for entry in entries:
            self.check(entry)
        answer = self.answer(entries)
        if answer is None:  # no answer at all
            handler.close_connection = True
            with contextlib.suppress(OSError):
                socket.socket.shutdown(handler.connection, socket.SHUT_RDWR)
            return
        if not isinstance(answer, bytes):
            answer = json.dumps(answer).encode()
        handler.send_response(self.status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)

    @staticmethod
    def check(entry):
        """The proof of possession, as the issuer must."""
        der = base64.b64decode(entry["certificate"])
        spki = base64.b64decode(entry["public_key"])
        prover = DcKey(entry["scheme"])
        message = prover.proof_input(der, entry["lifetime_seconds"], spki)
        key = serialization.load_der_public_key(spki)
        key.verify(base64.b64decode(entry["proof"]), message, ec.ECDSA(hashes.SHA256()))

    # --- answers ---

    def load(self):
        """Reads the keys of all leaves that are new."""
        with self.lock:
            for label, leaf in self.stack.leaves.items():
                if label not in self.labels:
                    self.labels.add(label)
                    self.keys[leaf.der()] = serialization.load_pem_private_key(
                        leaf.key.read_bytes(), None)

    def key_of(self, der):
        """The private key of a leaf."""
        if der not in self.keys:
            self.load()
        return self.keys[der]

    def dc(self, entry, lifetime=None, spki=None, key=None, role=b"server", scheme=0x0403,
           der=None):
        """A credential for an entry; each argument is a way to be wrong."""
        asked = base64.b64decode(entry["certificate"])
        spki = spki or base64.b64decode(entry["public_key"])
        lifetime = self.lifetime if lifetime is None else lifetime
        valid_time = valid_time_for(asked, entry["lifetime_seconds"] if lifetime is None
                                    else lifetime)
        message = dc_message(der or asked, valid_time, spki, scheme, role=role)
        signature = (key or self.key_of(asked)).sign(message, ec.ECDSA(hashes.SHA256()))
        return (credential(valid_time, spki, scheme) + struct.pack(">HH", 0x0403, len(signature)) +
                signature)

    @staticmethod
    def wrap(credentials):
        return {"results": [{"credential": b64(c), "expires_at": "2030-01-01T00:00:00Z"}
                            for c in credentials]}

    def good(self, entries):
        return self.wrap(self.dc(e) for e in entries)

    def expired(self, entries):
        return self.wrap(self.dc(e, -60) for e in entries)

    def ends_within_the_margin(self, entries):
        return self.wrap(self.dc(e, 5 * HOUR) for e in entries)

    def too_long(self, entries):
        return self.wrap(self.dc(e, 7 * DAY + 300) for e in entries)

    def longer_than_asked(self, entries):
        return self.wrap(self.dc(e, 5 * DAY) for e in entries)

    def of_another_certificate(self, entries):
        self.load()

        def other(entry):
            asked = base64.b64decode(entry["certificate"])
            return self.dc(entry, der=next(der for der in self.keys if der != asked))
        return self.wrap(other(e) for e in entries)

    def by_another_key(self, entries):
        return self.wrap(self.dc(e, key=ec.generate_private_key(ec.SECP256R1())) for e in entries)

    def for_another_key(self, entries):
        return self.wrap(self.dc(e, spki=DcKey().spki) for e in entries)

    def for_the_leafs_own_key(self, entries):
        def own(entry):
            der = base64.b64decode(entry["certificate"])
            spki = x509.load_der_x509_certificate(der).public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            return self.dc(entry, spki=spki)
        return self.wrap(own(e) for e in entries)

    def for_clients(self, entries):
        return self.wrap(self.dc(e, role=b"client") for e in entries)

    def of_another_scheme(self, entries):
        return self.wrap(self.dc(e, scheme=0x0503) for e in entries)

    def cut(self, entries):
        return self.wrap(self.dc(e)[:-1] for e in entries)

    def garbage(self, entries):
        return self.wrap(bytes(range(175)) for _ in entries)

    def huge(self, entries):
        return self.wrap(bytes(100000) for _ in entries)

    def not_base64(self, entries):
        return {"results": [{"credential": "!!!"} for _ in entries]}

    def refused(self, entries):
        return {"results": [{"error": {"code": "not_allowed", "message": "no\nno"}}
                            for _ in entries]}

    def nothing_of_it(self, entries):
        return {"results": [{} for _ in entries]}

    def too_few(self, entries):
        return {"results": self.good(entries)["results"][:-1]}

    def too_many(self, entries):
        return {"results": self.good(entries)["results"] * 2}

    def other_json(self, _):
        return [1, 2, 3]

    def not_json(self, _):
        return b"<html>"

    def endless(self, _):
        return b" " * (9 << 20)

    def hangs_up(self, _):
        return None

    def hangs(self, _):
        self.is_stopping.wait(5)
        return None
