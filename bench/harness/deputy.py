# SPDX-License-Identifier: Apache-2.0
"""A whole Deputy for a study: two CAs, key server, issuer, proxies, each where the
network (net.py) puts it."""

import json
import os
import time

from harness.base import BenchError, wait_until
from harness.pki import Ca
from harness.procs import checked, run
from harness.servers import free_port

HOST = "bench.test"
CAS = ("Bench CA One", "Bench CA Two")


class Where:
    """Where a part runs: command prefix (a namespace), address, core."""

    def __init__(self, host="127.0.0.1", prefix=(), core=None):
        self.host = host
        self.prefix = prefix
        self.core = core


class Deputy:
    """`kind` is that of the leaf's keys. Start what the study needs, in this order:
    start_keyserver, start_issuer, start_proxy (any number, with other names)."""

    def __init__(self, procs, programs, origin, proxy=None, keyserver=None, kind="p256",
                 dc=None, hosts=(HOST,), name=None):
        self.procs = procs
        self.programs = programs
        self.origin = origin
        self.where = {"proxy": proxy or Where(), "keyserver": keyserver or Where()}
        self.dc = dc or {}
        self.folder = procs.folder / (name or f"deputy-{kind}")
        self.folder.mkdir()
        self.keys = self.folder / "keys"
        self.keys.mkdir(mode=0o700)
        self.cas = [Ca(self.folder / f"ca{i}", name) for i, name in enumerate(CAS)]
        self.parts = Ca(self.folder / "parts", "Bench internal CA")
        self.hosts = hosts
        self.leaves = []
        for i, ca in enumerate(self.cas):
            key = self.keys / f"leaf{i}.key"
            leaf = ca.issue(f"leaf{i}", [f"DNS:{h}" for h in hosts], kind=kind, key=key,
                            delegation=kind != "rsa2048")
            (self.keys / f"leaf{i}.pem").write_bytes(leaf.cert.read_bytes())
            self.leaves.append(leaf)
        self.ca_file = self.folder / "cas.pem"
        self.ca_file.write_bytes(b"".join(ca.cert.read_bytes() for ca in self.cas))
        self.keyserver = None
        self.keyserver_address = None
        self.issuer = None
        self.issuer_address = None
        self.proxies = {}

    # --- configurations ---

    def identity(self, part):
        name = f"{part}.parts"
        cert = self.parts.folder / f"{name}.pem"
        if not cert.exists():
            hosts = {w.host for w in self.where.values()} | {"127.0.0.1"}
            self.parts.issue(name, [f"DNS:{name}", *(f"IP:{h}" for h in sorted(hosts))],
                             "serverAuth,clientAuth")
        return {"ca": str(self.parts.cert), "certificate": str(cert),
                "key": str(self.parts.folder / f"{name}.key")}

    def write(self, name, config):
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(config, indent=2))
        return path

    def start_keyserver(self, workers=1, clients=(), **more):
        """`clients`: names of further parts that may have TLS 1.3 signatures."""
        where = self.where["keyserver"]
        if self.keyserver_address is None:
            self.keyserver_address = f"{where.host}:{free_port()}"
        path = self.write("keyserver", {
            "listen": [self.keyserver_address],
            "tls": self.identity("keyserver"),
            "key_folders": [str(self.keys)],
            "workers": workers,
            "audit": {"path": str(self.folder / "keyserver.audit")},
            "log": str(self.folder / "keyserver.log"),
            "clients": [
                {"label": "proxies", "names": ["proxy.parts", *(f"{c}.parts" for c in clients)],
                 "keys": ["*"], "purposes": ["tls13", "tls12"]},
                {"label": "issuers", "names": ["issuer.parts"], "keys": ["*"],
                 "purposes": ["dc"], "dc_max_lifetime": "3d"},
            ],
            **more,
        })
        self.keyserver = self.procs.start(
            "keyserver", [self.programs["deputy-keyserver"], "--config", path],
            core=where.core, prefix=where.prefix).wait_ready()
        return self.keyserver

    def start_issuer(self):
        # Beside the key server: how far they are from each other is nobody's latency.
        where = self.where["keyserver"]
        if self.issuer_address is None:
            self.issuer_address = f"{where.host}:{free_port()}"
        path = self.write("dcissuer", {
            "listen": [self.issuer_address],
            "tls": self.identity("issuer"),
            "key_servers": {"servers": [{"address": self.keyserver_address,
                                         "name": "keyserver.parts"}],
                            "tls": self.identity("issuer")},
            "audit": {"path": str(self.folder / "dcissuer.audit")},
            "log": str(self.folder / "dcissuer.log"),
            "clients": [{"label": "proxies", "names": ["proxy.parts"], "hosts": ["*.test"],
                         "schemes": ["ecdsa_secp256r1_sha256"], "max_lifetime": "3d"}],
        })
        self.issuer = self.procs.start(
            "dcissuer", [self.programs["deputy-dcissuer"], "--config", path],
            core=where.core, prefix=where.prefix).wait_ready()
        return self.issuer

    def start_proxy(self, name="proxy", dc=True, local_key=False, deadline="3s", **more):
        """`dc`: fetches credentials; `local_key`: the build for comparison, which has the
        certificate's key itself (bench/local_key.h)."""
        where = self.where["proxy"]
        chains = [{"label": label, "certificate": str(leaf.cert),
                   **({"benchmark_key": str(leaf.key)} if local_key else {})}
                  for label, leaf in zip(("primary", "backup"), self.leaves)]
        config = {
            "listeners": [{"name": "main", "address": f"{where.host}:{free_port()}"}],
            "names": [{"name": host, "chains": chains} for host in self.hosts],
            "key_servers": {"servers": [{"address": self.keyserver_address,
                                         "name": "keyserver.parts"}],
                            "tls": self.identity("proxy"), "deadline": deadline},
            "origin": {"address": self.origin},
            "workers": 1,
            "access_log": False,
            "admin": {"socket": str(self.folder / f"{name}.sock")},
            "audit": {"path": str(self.folder / f"{name}.audit")},
            "states": str(self.folder / f"{name}.states"),
            "log": str(self.folder / f"{name}.log"),
            "limits": {"drain": "1s"},
            **more,
        }
        if dc:
            config["issuers"] = {"urls": [f"https://{self.issuer_address}"],
                                 "tls": self.identity("proxy")}
            config["delegated_credentials"] = self.dc
        program = "deputy-proxy-local-key" if local_key else "deputy-proxy"
        process = self.procs.start(
            name, [self.programs[program], "--config", self.write(name, config)],
            core=where.core, prefix=where.prefix).wait_ready()
        self.proxies[name] = process
        self.wait_usable(name, dc and not local_key)
        return process

    def address(self, name="proxy"):
        return self.proxies[name].address("main")

    def log_of(self, name):
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    # --- the operator's hand ---

    def ctl(self, *args, proxy="proxy", check=True):
        words = [self.programs["deputyctl"], "--socket", self.folder / f"{proxy}.sock", *args]
        # An operator's tool; what is measured under --realtime must not wait for it.
        prefix = ("chrt", "-o", "0") if os.sched_getscheduler(0) == os.SCHED_RR else ()
        return checked(words, prefix=prefix) if check else run(words, prefix=prefix)

    def metric(self, family, proxy="proxy", **labels):
        total = 0.0
        for line in self.ctl("metrics", proxy=proxy).stdout.splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == f"deputy_proxy_{family}" and all(
                    f'{k}="{v}"' in sample for k, v in labels.items()):
                total += float(value)
        return total

    def num_credentials(self, proxy="proxy"):
        names = json.loads(self.ctl("names", "--json", proxy=proxy).stdout)["names"]
        return sum(1 for name in names for level in name["levels"] for chain in level["chains"]
                   if chain.get("dc_ends_at"))

    def wait_usable(self, name, dc):
        try:
            if dc and self.can_delegate:
                wait_until(lambda: self.num_credentials(name) >= len(self.leaves),
                           "delegated credentials")
            wait_until(lambda: self.metric("key_servers_ready", proxy=name) >= 1,
                       "the proxy's key server")
        except BenchError as e:
            raise BenchError(f"{e}\n{self.log_of(name)}") from e

    @property
    def can_delegate(self):
        return "rsa" not in self.folder.name

    def switch(self, *args):
        """One change by deputyctl; (wall clock before, after) in s."""
        before = time.time()
        self.ctl(*args, "--reason", "bench")
        return before, time.time()
