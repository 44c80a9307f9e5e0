# SPDX-License-Identifier: Apache-2.0
"""A CA that tells what it has revoked: by OCSP (the openssl program answers each request)
and by CRL (`openssl ca`), over an HTTP server on loopback that can be told to misbehave.

    ca = RevokingCa(procs, pki, "one")
    chain = ca.issue_chain("demo.test")         # PEM path; ocsp= and crl= choose the URLs
    ca.revoke(chain, "keyCompromise")
    ca.answer = lambda request: (500, {}, b"")  # instead of the truth
    ca.requests                                 # what was asked: [Request]
"""

import base64
import contextlib
import dataclasses
import datetime
import http.server
import json
import pathlib
import socket
import threading
import urllib.parse

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

from support.pki import der_item, openssl
from support.procs import wait_until

OCSP_TYPE = "application/ocsp-response"
DAY = datetime.timedelta(days=1)


@dataclasses.dataclass
class Request:
    method: str
    path: str
    headers: dict
    body: bytes
    handler: object

    def ocsp(self):
        """DER of the OCSP request, however it came."""
        if self.method == "POST":
            return self.body
        return base64.b64decode(urllib.parse.unquote(self.path.rpartition("/")[2]))


class RevokingCa:
    """`answer(request)` gives (status, headers, body), or None if it wrote by itself."""

    def __init__(self, procs, pki, name, kind="p256", ca=None):
        self.procs = procs
        self.pki = pki
        self.ca = ca or pki.ca(name, kind)
        self.folder = self.ca.folder
        self.signer = self.ca  # who signs OCSP responses
        self.ocsp_args = []    # of openssl ocsp, when it responds
        self.index = {}        # serial: line of index.txt
        self.requests = []
        self.answer = self.truth
        self.files = {}        # path: bytes, served as they are
        self.lock = threading.Lock()
        self.write_index()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def respond(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(self.command, self.path, dict(self.headers), body, self)
                outer.requests.append(request)
                with contextlib.suppress(OSError):
                    answer = outer.answer(request)
                    if answer is None:
                        self.close_connection = True
                        return
                    status, headers, content = answer
                    self.send_response(status)
                    for key, value in headers.items():
                        self.send_header(key, value)
                    if status != 304:
                        self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(b"" if status == 304 else content)

            do_GET = do_POST = respond

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    # --- certificates ----------------------------------------------------------------

    def issue_chain(self, host, ocsp="", crl=None, more=(), **kwargs):
        """A leaf and its CA in one file. `ocsp` "": this CA's responder; None: no URL."""
        more = list(more)
        if ocsp is not None:
            more.append(f"authorityInfoAccess=OCSP;URI:{ocsp or self.url + '/ocsp'}")
        if crl is not None:
            more.append("crlDistributionPoints=" + crl)
        kwargs.setdefault("delegation", False)
        leaf = self.ca.issue_leaf(host, more=more, **kwargs)
        leaf.chain = leaf.cert.with_suffix(".chain.pem")
        leaf.chain.write_text(leaf.cert.read_text() + self.ca.cert.read_text())
        self.index[serial_of(leaf)] = index_line("V", "", serial_of(leaf))
        self.write_index()
        return leaf

    def responder(self, name="responder", eku="OCSPSigning", **kwargs):
        """A delegated responder's identity."""
        return self.ca.issue(name, eku=eku, more=["noCheck=ignored"], **kwargs)

    def revoke(self, leaf, reason="superseded"):
        when = (datetime.datetime.utcnow() - DAY).strftime("%y%m%d%H%M%SZ")
        self.index[serial_of(leaf)] = index_line("R", f"{when},{reason}", serial_of(leaf))
        self.write_index()

    def forget(self, leaf):
        del self.index[serial_of(leaf)]
        self.write_index()

    def write_index(self):
        (self.folder / "ocsp-index.txt").write_text(
            "".join(line + "\n" for line in self.index.values()))

    # --- OCSP --------------------------------------------------------------------------

    def truth(self, request):
        """What the openssl program answers, or a file."""
        if request.path in self.files:
            return 200, {"Content-Type": "application/pkix-crl"}, self.files[request.path]
        if not request.path.startswith("/ocsp"):
            return 404, {}, b"nothing here"
        return 200, {"Content-Type": OCSP_TYPE}, self.respond(request.ocsp())

    def respond(self, request_der):
        """The openssl program's answer to one request."""
        with self.lock:
            asked, answered = self.folder / "asked.der", self.folder / "answered.der"
            asked.write_bytes(request_der)
            openssl("ocsp", "-index", self.folder / "ocsp-index.txt", "-CA", self.ca.cert,
                    "-rsigner", self.signer.cert, "-rkey", self.signer.key, "-reqin", asked,
                    "-respout", answered, "-nmin", "600", *self.ocsp_args)
            return answered.read_bytes()

    def cfssl(self, leaf, port, *status):
        """cfssl's responder on `port`, with an answer for `leaf` that was signed beforehand."""
        responder = self.responder()
        responses = self.folder / "responses.txt"
        signed = self.procs.run(["cfssl", "ocspsign", "-ca", self.ca.cert, "-responder",
                                 responder.cert, "-responder-key", responder.key, "-cert", leaf.cert,
                                 *status], check=True)
        responses.write_text(json.loads(signed.stdout)["ocspResponse"] + "\n")
        server = self.procs.foreign("cfssl", ["cfssl", "ocspserve", "-address", "127.0.0.1",
                                              "-port", port, "-responses", responses])

        def is_there():
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", port)) == 0

        wait_until(is_there, "cfssl ocspserve")
        return server

    def build(self, leaf, this_update, next_update, status=ocsp.OCSPCertStatus.GOOD):
        """A response with times as asked, which the openssl program cannot give."""
        load = lambda path: x509.load_pem_x509_certificate(pathlib.Path(path).read_bytes())
        key = serialization.load_pem_private_key(self.ca.key.read_bytes(), None)
        response = ocsp.OCSPResponseBuilder().add_response(
            cert=load(leaf.cert), issuer=load(self.ca.cert), algorithm=hashes.SHA1(),
            cert_status=status, this_update=this_update, next_update=next_update,
            revocation_time=None, revocation_reason=None).responder_id(
                ocsp.OCSPResponderEncoding.NAME, load(self.ca.cert)).sign(key, hashes.SHA256())
        return response.public_bytes(serialization.Encoding.DER)

    # --- CRL ---------------------------------------------------------------------------

    def crl(self, days=1, extensions=(), signer=None, seconds=None):
        """DER of a CRL of all that is revoked, as `openssl ca` makes it."""
        config = self.folder / "crl.cnf"
        lines = "\n".join(extensions)
        config.write_text(f"""
[ca]
default_ca = d
[d]
database = {self.folder}/ocsp-index.txt
crlnumber = {self.folder}/crlnumber
default_md = sha256
crl_extensions = e
[e]
authorityKeyIdentifier = keyid
{lines}
""")
        number = self.folder / "crlnumber"
        if not number.exists():
            number.write_text("01\n")
        signer = signer or self.ca
        life = ["-crlsec", seconds] if seconds else ["-crldays", days]
        pem = openssl("ca", "-config", config, "-gencrl", *life, "-cert", signer.cert, "-keyfile",
                      signer.key)
        return openssl("crl", "-outform", "DER", input=pem)


    def long_crl(self, num, leaf):
        """DER of a list with the entries of crl(), and before them `num` others."""
        _, whole, _ = der_item(self.crl())
        _, tbs, rest = der_item(whole)
        algorithm = rest[:2 + rest[1]]
        parts = []
        while tbs:
            _, _, after = der_item(tbs)
            parts.append(tbs[:len(tbs) - len(after)])
            tbs = after
        # version, signature, issuer, thisUpdate, nextUpdate, revokedCertificates, extensions
        when = parts[3]
        others = b"".join(der(0x30, der(2, b"\x01" + i.to_bytes(15, "big")) + when)
                          for i in range(num))
        parts[5] = der(0x30, others + der_item(parts[5])[1])
        signed = der(0x30, b"".join(parts))
        key = serialization.load_pem_private_key(self.ca.key.read_bytes(), None)
        signature = key.sign(signed, ec.ECDSA(hashes.SHA256()))
        return der(0x30, signed + algorithm + der(3, b"\0" + signature))


def der(tag, content):
    """One DER item."""
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + content


def index_line(state, revoked, serial):
    return f"{state}\t491231235959Z\t{revoked}\t{serial}\tunknown\t/CN={serial}"


def serial_of(leaf):
    """The serial number as index.txt has it."""
    serial = x509.load_pem_x509_certificate(leaf.cert.read_bytes()).serial_number
    text = f"{serial:X}"
    return text if len(text) % 2 == 0 else "0" + text


class RawServer:
    """A TCP server on loopback of which a test writes every byte: fn(connection)."""

    def __init__(self, fn):
        self.fn = fn
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(16)
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        self.is_stopping = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn):
        with conn, contextlib.suppress(OSError):
            self.fn(conn)

    def stop(self):
        self.is_stopping.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
