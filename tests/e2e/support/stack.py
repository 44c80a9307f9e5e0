# SPDX-License-Identifier: Apache-2.0
"""A whole deployment in a temporary folder: two CAs, key server, issuer, origin, proxy.

    stack = Stack(procs, pki)                # demo.test, primary by one CA, backup by the other
    stack.start()                            # all of it; waits for the credentials
    stack.proxy.metric("handshakes_total", source="dc", version="1.3")
    stack.nss().run("demo.test")             # a client that takes delegated credentials

Parts can be changed before start (stack.proxy.config is the configuration as a dict)
and left out: Stack(..., issuer=False).
"""

import contextlib
import copy
import http.client
import json
import signal
import socket
import ssl
import threading
import urllib.parse

import pytest

from support.clients import Nss
from support.dcissuer import Issuer
from support.keyserver import KeyServer
from support.pki import make_key
from support.procs import BIN_DIR, SLOW, wait_until

PROXY = "deputy-proxy"


class UnixHTTPConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path, timeout=10):
        super().__init__("localhost", timeout=timeout * SLOW)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Origin:
    """A plain TCP server of which a test decides every byte: handler(connection)."""

    def __init__(self, handler=None, family=socket.AF_INET, path=None):
        self.handler = handler or hello
        self.failures = []
        self.connections = []
        self.listener = socket.socket(family)
        self.listener.bind(path or ("127.0.0.1", 0))
        self.listener.listen(1024)
        self.address = path or "%s:%d" % self.listener.getsockname()
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(conn)
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn):
        try:
            self.handler(conn)
        except Exception as e:  # shown by the test that looks at it
            self.failures.append(e)
        finally:
            with contextlib.suppress(OSError):
                conn.close()

    def stop(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for conn in self.connections:
            with contextlib.suppress(OSError):
                conn.close()


BODY = b"hello from the origin\n"


def read_head(conn):
    """An HTTP request's head; b"" when the peer ended before one came."""
    head = b""
    while b"\r\n\r\n" not in head:
        more = conn.recv(65536)
        if not more:
            return head
        head += more
    return head


def hello(conn):
    """Answers HTTP requests until the client ends."""
    while True:
        head = read_head(conn)
        if not head:
            return
        keep = b"HTTP/1.1" in head.splitlines()[0] and b"connection: close" not in head.lower()
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n%s\r\n" %
                     (len(BODY), b"" if keep else b"Connection: close\r\n") + BODY)
        if not keep:
            return


def echo(conn):
    """Sends back what comes, and ends when the other side has ended."""
    while True:
        data = conn.recv(65536)
        if not data:
            conn.shutdown(socket.SHUT_WR)
            return
        conn.sendall(data)


class Proxy:
    """One deputy-proxy; `config` can be changed before start and reload."""

    def __init__(self, stack, name="proxy"):
        self.stack = stack
        self.procs = stack.procs
        self.name = name
        self.process = None
        self.folder = self.procs.folder / name
        self.folder.mkdir()
        self.socket_path = str(self.folder / "admin.sock")
        self.audit_path = self.folder / "audit.jsonl"
        self.procs.notes[f"{name}-audit"] = self.audit_path
        self.config = {
            "listeners": [{"name": "main", "address": "127.0.0.1:0"}],
            "names": [],
            "key_servers": None,
            "origin": {"address": None},
            "workers": 2,
            "admin": {"socket": self.socket_path},
            "metrics": {"listen": "127.0.0.1:0"},
            "audit": {"path": str(self.audit_path)},
            "states": str(self.folder / "states.json"),
            "limits": {"drain": "2s"},
            "sandbox_paths": [str(stack.pki.folder)],  # reloads bring CAs of later tests
        }

    def start(self, wait=True, args=(), wrap=()):
        self.process = self.procs.daemon_start(PROXY, self.config, self.name, args, wrap)
        if wait:
            self.process.wait_ready()
        return self

    @property
    def address(self):
        return self.process.address("main")

    @property
    def port(self):
        return self.address[1]

    def log(self):
        return self.process.err()

    def write_config(self, text=None):
        path = self.procs.folder / f"{self.name}.json"
        path.write_text(json.dumps(self.config, indent=2) if text is None else text)

    # --- metrics and admin ---

    def metrics(self):
        """{sample with labels: value}."""
        host, port = self.process.address("metrics")
        conn = http.client.HTTPConnection(host, port, timeout=10 * SLOW)
        try:
            conn.request("GET", "/metrics")
            reply = conn.getresponse()
            text = reply.read().decode()
            assert reply.status == 200, text
        finally:
            conn.close()
        samples = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples

    def metric(self, family, /, **labels):
        """The sum of the samples deputy_proxy_FAMILY that have these labels."""
        total = 0.0
        for sample, value in self.metrics().items():
            found, _, rest = sample.partition("{")
            if found == f"deputy_proxy_{family}" and all(
                    f'{k}="{v}"' in rest for k, v in labels.items()):
                total += value
        return total

    def failures(self, reason):
        return self.metric("handshakes_failed_total", reason=reason)

    def wait_metric(self, value, family, /, **labels):
        """Waits until the metric has reached `value`, which it must not pass."""
        wait_until(lambda: self.metric(family, **labels) >= value,
                   f"{family} {labels} >= {value}")
        assert self.metric(family, **labels) == value

    def admin(self, method, path, body=None):
        """(status, parsed body) of the admin API."""
        conn = UnixHTTPConnection(self.socket_path)
        try:
            headers = {} if body is None else {"Content-Type": "application/json"}
            conn.request(method, path, None if body is None else json.dumps(body), headers)
            reply = conn.getresponse()
            data = reply.read()
            return reply.status, json.loads(data) if data[:1] in b"{[" else data.decode()
        finally:
            conn.close()

    def ctl(self, *args, check=True):
        """Runs deputyctl; returns the process with its output."""
        return self.procs.run([BIN_DIR / "deputyctl", "--socket", self.socket_path, *args],
                              check=check)

    def status(self):
        return self.admin("GET", "/v1/status")[1]

    def chains(self):
        """Every chain of every name, as the admin API shows it."""
        _, body = self.admin("GET", "/v1/names")
        return [chain for name in body["names"] for level in name["levels"]
                for chain in level["chains"]]

    def wait_credentials(self, num, timeout=15):
        """Waits until so many chains have a delegated credential."""

        def num_there():
            metrics = self.metrics()
            return (metrics.get("deputy_proxy_dc_chains", 0) -
                    metrics.get("deputy_proxy_dc_chains_without", 0))

        wait_until(lambda: num_there() >= num, f"{num} delegated credentials", timeout)

    def reload(self, result="ok"):
        """SIGHUP, and waits until it is over."""
        before = self.metric("reloads_total", result=result)
        self.write_config()
        self.process.signal(signal.SIGHUP)
        wait_until(lambda: self.metric("reloads_total", result=result) > before, "the reload")


class Stack:
    """Everything; see above."""

    def __init__(self, procs, pki, hosts=("demo.test",), issuer=True, origin=None):
        self.procs = procs
        self.pki = pki
        self.web_cas = [pki.ca("web-one"), pki.ca("web-two")]
        self.keyserver = KeyServer(procs, pki)
        self.leaves = {}
        self.has_issuer = issuer
        self.issuer = None
        self.issuer_audit = {}  # more of its `audit`
        self.own_origin = origin is None
        self.origin = origin or Origin()
        self.proxy = Proxy(self)
        for host in hosts:
            self.add_name(host)

    def leaf(self, label, host, ca=0, kind="p256", **kwargs):
        """A leaf by one of the two CAs, its key in the key server's folder alone."""
        key = make_key(self.keyserver.folder / f"{label}.key", kind)
        identity = self.web_cas[ca].issue_leaf(host, key=key, name=label, kind=kind, **kwargs)
        self.leaves[label] = identity
        return identity

    def add_name(self, host, chains=None, **more):
        """A name with a primary by the first and a backup by the second CA, unless
        `chains` lists (label, Identity)."""
        if chains is None:
            stem = host.replace("*", "_")
            chains = [("primary", self.leaf(f"{stem}-primary", host, 0)),
                      ("backup", self.leaf(f"{stem}-backup", host, 1))]
        entry = {"name": host, "chains": [{"label": label, "certificate": str(identity.chain)}
                                          for label, identity in chains], **more}
        self.proxy.config["names"].append(entry)
        return entry

    def start_servers(self):
        """Key server and issuer; fills in what the proxy must know of them."""
        self.keyserver.start()
        config = self.proxy.config
        config["key_servers"] = {
            "servers": [{"address": "%s:%d" % self.keyserver.address, "name": "localhost"}],
            "tls": self.pki.tls(self.keyserver.ca, self.keyserver.client("proxy")),
            "deadline": f"{2 * SLOW}s",
            **(config["key_servers"] or {}),
        }
        if self.has_issuer:
            self.issuer = Issuer(self.procs, self.pki, self.keyserver)
            self.issuer.config["audit"].update(self.issuer_audit)
            self.issuer.start()
            config.setdefault("issuers", {
                "urls": ["https://127.0.0.1:%d" % self.issuer.process.address("api")[1]],
                "tls": self.pki.tls(self.issuer.ca, self.issuer.client("proxy")),
            })
        if config["origin"]["address"] is None:
            address = self.origin.address
            config["origin"]["address"] = f"unix:{address}" if "/" in address else address
        return self

    def num_delegable(self):
        """How many chains of the configuration are to get a credential."""
        return sum(len(name["chains"]) for name in self.proxy.config["names"]
                   if name.get("delegated_credentials", True))

    def start(self, wait_credentials=None):
        """Starts all; waits for `wait_credentials` credentials (default: one for each chain)."""
        self.start_servers()
        self.proxy.start()
        if self.has_issuer:
            self.proxy.wait_credentials(
                self.num_delegable() if wait_credentials is None else wait_credentials)
        wait_until(lambda: self.proxy.metric("key_servers_ready") >= 1, "the key server")
        return self

    def stop(self):
        """What the procs fixture does not stop."""
        if self.own_origin:
            self.origin.stop()

    # --- clients ---

    def ca_file(self):
        """A file with both CAs."""
        path = self.procs.folder / "web-cas.pem"
        if not path.exists():
            # In one step: several threads may want it at once.
            new = path.with_suffix(f".{threading.get_ident()}")
            new.write_bytes(b"".join(ca.cert.read_bytes() for ca in self.web_cas))
            new.replace(path)
        return path

    def nss(self):
        return Nss(self.procs, self.proxy.port, [ca.cert for ca in self.web_cas])

    def context(self, tls12=False, alpn=None, verify=True):
        """An ssl.SSLContext that trusts both CAs."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Python hides an end without close_notify by default; these tests tell them apart.
        context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
        if verify:
            context.load_verify_locations(self.ca_file())
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if tls12:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    def connect(self, host="demo.test", timeout=10, context=None, **kwargs):
        """A TLS connection through the proxy (an ssl.SSLSocket)."""
        plain = socket.create_connection(self.proxy.address, timeout=timeout * SLOW)
        try:
            return (context or self.context(**kwargs)).wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise

    def get(self, host="demo.test", **kwargs):
        """One HTTP request through the proxy; returns the body."""
        with self.connect(host, **kwargs) as tls:
            tls.sendall(b"GET / HTTP/1.0\r\nHost: %s\r\n\r\n" % host.encode())
            answer = b""
            while True:
                more = tls.recv(65536)
                if not more:
                    break
                answer += more
        return answer.partition(b"\r\n\r\n")[2]

    def curl(self, *args, host="demo.test", path="/", timeout=20):
        """Runs curl against the proxy; returns the process with its output."""
        url = f"https://{host}:{self.proxy.port}{urllib.parse.quote(path)}"
        return self.procs.run(["curl", "-sS", "--resolve", f"{host}:{self.proxy.port}:127.0.0.1",
                               "--cacert", self.ca_file(), *args, url], timeout)

    def openssl(self, *args, host="demo.test", input="", timeout=20):
        """Runs openssl s_client against the proxy."""
        return self.procs.run(["openssl", "s_client", "-connect", f"127.0.0.1:{self.proxy.port}",
                               "-servername", host, "-CAfile", self.ca_file(),
                               "-verify_return_error", *args], timeout, input=input)


@pytest.fixture
def config(stack):
    """The configuration, as it was again after the test."""
    keep = copy.deepcopy(stack.proxy.config)
    yield stack.proxy.config
    stack.proxy.config.clear()
    stack.proxy.config.update(keep)
    stack.proxy.reload()
