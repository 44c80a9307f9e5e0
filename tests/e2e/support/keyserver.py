# SPDX-License-Identifier: Apache-2.0
"""A key server with its clients, ready to be asked: shared by several tests.

    ks = KeyServer(procs, pki)                 # default clients, see below
    ks.add_key("demo", kind="p256", host="demo.test")
    ks.start()
    with ks.connect("proxy") as client: ...
"""

import contextlib
import json
import signal
import threading
import urllib.request

from support import frames
from support import pki as pki_module
from support import prometheus
from support.procs import wait_until

# name: purposes. "stranger" has a certificate of the right CA and no grant.
DEFAULT_CLIENTS = {
    "proxy": ["tls13", "tls12"],
    "issuer": ["dc"],
    "certmanager": ["csr"],
    "foreign": ["blind", "tls13"],
}


class Load:
    """Threads that have a key sign without pause, each on a connection of its own."""

    def __init__(self, server, window):
        self.server = server
        self.window = window
        self.failures = []
        self.counts = []
        self.stop = threading.Event()

    @property
    def total(self):
        return sum(self.counts)

    def run(self):
        ski = self.server.keys["p256"].ski()
        requests = b"".join(frames.sign_packet(n, frames.ECDSA_SHA256, ski, frames.tls13_message())
                            for n in range(self.window))
        count = 0
        try:
            with self.server.connect("proxy") as client:
                while not self.stop.is_set():
                    client.send(requests)
                    self.failures.extend(reply.error for reply in
                                         client.receive_all(self.window).values()
                                         if reply.error is not None)
                    count += self.window
        except Exception as e:  # shown by KeyServer.load
            self.failures.append(e)
        self.counts.append(count)


class KeyServer:
    """One deputy-keyserver; the configuration can be changed before start and reload."""

    def __init__(self, procs, pki, clients=None, name="keyserver"):
        self.procs = procs
        self.name = name
        self.folder = procs.folder / f"{name}-keys"
        self.folder.mkdir()
        self.ca = pki.ca(f"{name}-ca")
        self.web_ca = pki.ca(f"{name}-web-ca")
        self.server = self.ca.issue("server", san=["DNS:localhost", "IP:127.0.0.1"],
                                    eku="serverAuth")
        self.keys = {}
        self.clients = {}
        self.process = None
        self.audit_path = procs.folder / f"{name}-audit.jsonl"
        procs.notes[f"{name}-audit"] = self.audit_path
        self.config = {
            "listen": ["127.0.0.1:0"],
            "tls": pki.tls(self.ca, self.server),
            "allow_tls12": True,
            "key_folders": [str(self.folder)],
            "workers": 2,
            "audit": {"path": str(self.audit_path)},
            "metrics": {"listen": "127.0.0.1:0"},
            "clients": [],
        }
        for client, purposes in (DEFAULT_CLIENTS if clients is None else clients).items():
            self.grant(client, purposes)
        self.client("stranger")

    def client(self, name, **kwargs):
        """The identity of a client, made when first asked for."""
        if name not in self.clients:
            kwargs.setdefault("san", [f"DNS:{name}.client.test"])
            kwargs.setdefault("eku", "clientAuth")
            self.clients[name] = self.ca.issue(name, **kwargs)
        return self.clients[name]

    def grant(self, client, purposes, keys=("*",), **more):
        """Adds a grant for a client by its DNS name."""
        self.client(client)
        self.config["clients"].append({
            "label": f"{client}-{len(self.config['clients'])}",
            "names": [f"{client}.client.test"],
            "keys": list(keys), "purposes": list(purposes), **more})

    def add_key(self, label, kind="p256", host=None, **leaf):
        """Puts a key (and a certificate for `host`) into the folder; returns the identity."""
        path = pki_module.make_key(self.folder / f"{label}.key", kind)
        if host is None:
            identity = pki_module.Identity(path, path)
        else:
            identity = self.web_ca.issue_leaf(host, key=path, name=label, **leaf)
            (self.folder / f"{label}.pem").write_bytes(identity.cert.read_bytes())
        self.keys[label] = identity
        return identity

    def put_key(self, label, content):
        """Puts a key file with this content into the folder."""
        path = self.folder / f"{label}.key"
        pki_module.write_private(path, content)
        self.keys[label] = pki_module.Identity(path, path)
        return self.keys[label]

    def start(self, wait=True):
        self.process = self.procs.daemon_start("deputy-keyserver", self.config, self.name)
        if wait:
            self.process.wait_ready()
        return self

    @property
    def address(self):
        return self.process.address("keyless")

    def connect(self, client, **kwargs):
        identity = self.client(client) if isinstance(client, str) else client
        return frames.Client(self.address, self.ca.cert, identity, **kwargs)

    def write_config(self):
        (self.procs.folder / f"{self.name}.json").write_text(json.dumps(self.config, indent=2))

    def http(self, path):
        host, port = self.process.address("metrics")
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as reply:
            return reply.read().decode()

    @contextlib.contextmanager
    def load(self, num, window=32):
        """`num` threads that sign meanwhile, and of which each request must be answered."""
        load = Load(self, window)
        threads = [threading.Thread(target=load.run) for _ in range(num)]
        for thread in threads:
            thread.start()
        try:
            yield load
        finally:
            load.stop.set()
            for thread in threads:
                thread.join()
        assert not load.failures and all(load.counts), load.failures

    def metric(self, name, **labels):
        """The value of one sample of /metrics; 0 when there is none."""
        return prometheus.value(self.http("/metrics"), f"deputy_keyserver_{name}", **labels)

    def reload(self, result="done"):
        """SIGHUP, and waits for it to be over."""
        before = self.metric("reloads_total", result=result)
        self.write_config()
        self.process.signal(signal.SIGHUP)
        wait_until(lambda: self.metric("reloads_total", result=result) > before, "the reload")

    def audit(self, **fields):
        """The audit lines so far that have these fields."""
        text = self.audit_path.read_text() if self.audit_path.exists() else ""
        found = [json.loads(line) for line in text.splitlines(keepends=True)
                 if line.endswith("\n")]
        return [entry for entry in found if all(entry.get(k) == v for k, v in fields.items())]

    def audit_wait(self, num, **fields):
        """The same once there are `num`, which there must be exactly: lines are in the
        file a few milliseconds after the reply."""
        wait_until(lambda: len(self.audit(**fields)) >= num, f"{num} audit lines with {fields}")
        lines = self.audit(**fields)
        assert len(lines) == num, lines
        return lines
