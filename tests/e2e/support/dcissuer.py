# SPDX-License-Identifier: Apache-2.0
"""An issuer with its clients, and the client's side of its API, written from
docs/PROTOCOL.dcissuer.md and RFC 9345 without a look at our C code.

    issuer = Issuer(procs, pki, keyserver)     # "proxy" may have *.test
    issuer.start()
    key = DcKey()
    status, body = issuer.ask("proxy", [key.entry(leaf)])
    Dc(body["results"][0]["credential"]).verify(leaf, key)
"""

import base64
import contextlib
import datetime
import hashlib
import http.client
import json
import signal
import socket
import ssl
import struct
import time
import urllib.request

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding

from support import prometheus
from support.procs import SLOW, wait_until

PATH = "/v1/delegated-credentials"
HOUR, DAY = 3600, 24 * 3600

SCHEMES = {  # name: code, curve, hash
    "ecdsa_secp256r1_sha256": (0x0403, ec.SECP256R1, hashes.SHA256),
    "ecdsa_secp384r1_sha384": (0x0503, ec.SECP384R1, hashes.SHA384),
    "ecdsa_secp521r1_sha512": (0x0603, ec.SECP521R1, hashes.SHA512),
    "ed25519": (0x0807, None, None),
    "rsa_pss_rsae_sha256": (0x0804, None, hashes.SHA256),
}
BY_CODE = {row[0]: (name, *row[1:]) for name, row in SCHEMES.items()}


def b64(data):
    return base64.b64encode(data).decode()


class DcKey:
    """A key for a credential, and its proofs of possession."""

    def __init__(self, scheme="ecdsa_secp256r1_sha256", key=None):
        self.scheme = scheme
        code, curve, _ = SCHEMES[scheme]
        self.code = code
        if key is not None:
            self.key = key
        elif scheme == "ed25519":
            self.key = ed25519.Ed25519PrivateKey.generate()
        else:
            self.key = ec.generate_private_key(curve())
        self.spki = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    def sign(self, message):
        if self.scheme == "ed25519":
            return self.key.sign(message)
        return self.key.sign(message, ec.ECDSA(SCHEMES[self.scheme][2]()))

    def proof_input(self, certificate, lifetime=None, spki=None, code=None):
        return (b"\x20" * 64 + b"Deputy, delegated credential key possession\0" +
                hashlib.sha256(certificate).digest() + struct.pack(">Q", lifetime or 0) +
                struct.pack(">H", self.code if code is None else code) + (spki or self.spki))

    def entry(self, leaf, lifetime=None, by_hash=False, **override):
        """An entry for the API. `leaf` is an Identity or DER; None as value drops a member."""
        der = leaf if isinstance(leaf, bytes) else leaf.der()
        entry = {"scheme": self.scheme, "public_key": b64(self.spki),
                 "proof": b64(self.sign(self.proof_input(der, lifetime)))}
        if by_hash:
            entry["certificate_sha256"] = hashlib.sha256(der).hexdigest()
        else:
            entry["certificate"] = b64(der)
        if lifetime is not None:
            entry["lifetime_seconds"] = lifetime
        entry.update(override)
        return {k: v for k, v in entry.items() if v is not None}


class Dc:
    """A delegated credential, taken apart."""

    def __init__(self, text):
        self.raw = base64.b64decode(text, validate=True)
        self.valid_time, self.verify_code = struct.unpack_from(">IH", self.raw)
        spki_len = int.from_bytes(self.raw[6:9], "big")
        self.spki = self.raw[9:9 + spki_len]
        at = 9 + spki_len
        self.credential = self.raw[:at]
        self.algorithm, signature_len = struct.unpack_from(">HH", self.raw, at)
        self.signature = self.raw[at + 4:]
        assert len(self.signature) == signature_len

    def signing_input(self, der):
        return (b"\x20" * 64 + b"TLS, server delegated credentials\0" + der + self.credential +
                struct.pack(">H", self.algorithm))

    def expiry(self, der):
        not_before = x509.load_der_x509_certificate(der).not_valid_before
        return int(not_before.replace(tzinfo=datetime.timezone.utc).timestamp()) + self.valid_time

    def verify(self, leaf, key, lifetime=48 * HOUR, slack=10):
        """All that a client checks, and that it lives as long as it should."""
        der = leaf if isinstance(leaf, bytes) else leaf.der()
        cert = x509.load_der_x509_certificate(der)
        assert self.spki == key.spki and self.verify_code == key.code
        name, _, digest = BY_CODE[self.algorithm]
        message = self.signing_input(der)
        public = cert.public_key()
        if name == "ed25519":
            public.verify(self.signature, message)
        elif name.startswith("rsa"):
            public.verify(self.signature, message,
                          padding.PSS(padding.MGF1(digest()), digest().digest_size), digest())
        else:
            public.verify(self.signature, message, ec.ECDSA(digest()))
        left = self.expiry(der) - time.time()
        assert left < 7 * DAY
        assert self.expiry(der) < cert.not_valid_after.replace(
            tzinfo=datetime.timezone.utc).timestamp()
        if lifetime is not None:
            assert lifetime - slack * SLOW <= left <= lifetime + 1, left
        return self


class Issuer:
    """One deputy-dcissuer before the key server `ks` (support.keyserver)."""

    def __init__(self, procs, pki, ks=None, name="dcissuer", server_addresses=None, ks_client="issuer"):
        self.procs = procs
        self.name = name
        self.ks = ks
        self.ca = pki.ca(f"{name}-ca")
        self.server = self.ca.issue("server", san=["DNS:localhost", "IP:127.0.0.1"],
                                    eku="serverAuth")
        self.clients = {}
        self.process = None
        self.audit_path = procs.folder / f"{name}-audit.jsonl"
        procs.notes[f"{name}-audit"] = self.audit_path
        self.folder = procs.folder / f"{name}-certificates"
        self.folder.mkdir()
        if server_addresses is None:
            server_addresses = ["%s:%d" % ks.address]
        self.config = {
            "listen": ["127.0.0.1:0"],
            "tls": pki.tls(self.ca, self.server),
            "certificates": [str(self.folder)],
            "key_servers": {
                "servers": [{"address": a, "name": "localhost"} for a in server_addresses],
                "tls": pki.tls(ks.ca, ks.client(ks_client)),
            },
            "clients": [],
            "audit": {"path": str(self.audit_path)},
            "metrics": {"listen": "127.0.0.1:0"},
        }
        self.grant("proxy", ["*.test"])
        self.client("stranger")

    def client(self, name, **kwargs):
        if name not in self.clients:
            kwargs.setdefault("san", [f"DNS:{name}.client.test"])
            kwargs.setdefault("eku", "clientAuth")
            self.clients[name] = self.ca.issue(name, **kwargs)
        return self.clients[name]

    def grant(self, client, hosts, **more):
        self.client(client)
        self.config["clients"].append({
            "label": f"{client}-{len(self.config['clients'])}",
            "names": [f"{client}.client.test"], "hosts": list(hosts), **more})
        return self.config["clients"][-1]

    def configure(self, leaf, name):
        """Puts a certificate into the folder, so that requests may name its hash."""
        (self.folder / f"{name}.pem").write_bytes(leaf.cert.read_bytes())
        return leaf

    def start(self, wait=True, ready=True):
        self.process = self.procs.daemon_start("deputy-dcissuer", self.config, self.name)
        if wait:
            self.process.wait_ready()
        if wait and ready:
            wait_until(lambda: self.plain("/readyz")[0] == 200, "a key server's connection")
        return self

    def write_config(self):
        (self.procs.folder / f"{self.name}.json").write_text(json.dumps(self.config, indent=2))

    # --- talking to it ---

    def tls(self, client="proxy", ca=None):
        context = ssl.create_default_context(cafile=str(ca or self.ca.cert))
        identity = self.client(client) if isinstance(client, str) else client
        if identity is not None:
            context.load_cert_chain(identity.chain, identity.key)
        return context

    def socket(self, client="proxy", timeout=20):
        """A TLS connection, for those who write HTTP by hand."""
        host, port = self.process.address("api")
        plain = socket.create_connection((host, port), timeout=timeout * SLOW)
        return self.tls(client).wrap_socket(plain, server_hostname="localhost")

    @contextlib.contextmanager
    def connection(self, client="proxy", timeout=30, ca=None):
        host, port = self.process.address("api")
        conn = http.client.HTTPSConnection(host, port, timeout=timeout * SLOW,
                                           context=self.tls(client, ca))
        try:
            yield conn
        finally:
            conn.close()

    def post(self, client, body, path=PATH, method="POST", timeout=30, conn=None, **headers):
        """(status, parsed or raw body)."""
        with contextlib.ExitStack() as stack:
            conn = conn or stack.enter_context(self.connection(client, timeout))
            conn.request(method, path, body=body,
                         headers={"Content-Type": "application/json", **headers})
            reply = conn.getresponse()
            data = reply.read()
            if reply.getheader("Content-Type") == "application/json":
                data = json.loads(data)
            return reply.status, data

    def ask(self, client, entries, **kwargs):
        return self.post(client, json.dumps({"requests": entries}), **kwargs)

    def ask_one(self, client, entry, **kwargs):
        """The result of a request with one entry."""
        status, body = self.ask(client, [entry], **kwargs)
        assert status == 200, (status, body)
        assert len(body["results"]) == 1
        return body["results"][0]

    def error(self, client, entry, **kwargs):
        """The error code that an entry gets."""
        result = self.ask_one(client, entry, **kwargs)
        assert set(result) == {"error"}, result
        assert set(result["error"]) == {"code", "message"} and result["error"]["message"]
        return result["error"]["code"]

    def issue(self, client, leaf, lifetime=None, scheme="ecdsa_secp256r1_sha256", expect=48 * HOUR,
              **kwargs):
        """Gets a credential and verifies it."""
        key = DcKey(scheme)
        result = self.ask_one(client, key.entry(leaf, lifetime, **kwargs))
        assert "credential" in result, result
        dc = Dc(result["credential"]).verify(leaf, key, lifetime or expect)
        when = datetime.datetime.strptime(result["expires_at"], "%Y-%m-%dT%H:%M:%SZ")
        assert when.replace(tzinfo=datetime.timezone.utc).timestamp() == dc.expiry(leaf.der())
        return dc

    def plain(self, path):
        """(status, text) from the plain listener."""
        host, port = self.process.address("metrics")
        try:
            with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10 * SLOW) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()

    def metric(self, name, **labels):
        return prometheus.value(self.plain("/metrics")[1], f"deputy_dcissuer_{name}", **labels)

    def reload(self, result="ok"):
        before = self.metric("reloads_total", result=result)
        self.write_config()
        self.process.signal(signal.SIGHUP)
        wait_until(lambda: self.metric("reloads_total", result=result) > before, "the reload")

    def audit(self, num=None, **fields):
        """The audit lines that have these fields; waits until there are `num`."""

        def lines():
            text = self.audit_path.read_text() if self.audit_path.exists() else ""
            found = [json.loads(line) for line in text.splitlines(keepends=True)
                     if line.endswith("\n")]
            return [entry for entry in found
                    if all(entry.get(k) == v for k, v in fields.items())]

        if num is not None:
            wait_until(lambda: len(lines()) >= num, f"{num} audit lines with {fields}")
            assert len(lines()) == num, lines()
        return lines()
