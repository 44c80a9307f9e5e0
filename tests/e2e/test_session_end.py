# SPDX-License-Identifier: Apache-2.0
"""Sessions end with the chain that authenticated them, if it is out of service for compromise:
of configured names and of those in a store, over a reload and a restart (openssl s_client)."""

import json
import re
import secrets
import time

import pytest

from support.pki import make_key, write_private
from support.procs import SLOW, wait_until
from support.revocation import RevokingCa
from support.shop import many, shop  # noqa: F401 (fixtures)
from support.stack import Stack

VERSIONS = ["-tls1_3", "-tls1_2"]


class Visitor:
    """openssl s_client with a file for its session of each name and version."""

    def __init__(self, stack, ca_file):
        self.stack = stack
        self.ca_file = ca_file
        self.folder = stack.procs.folder / "sessions"
        self.folder.mkdir()

    def _run(self, host, version, *args):
        done = self.stack.procs.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{self.stack.proxy.port}", "-servername",
             host, "-CAfile", self.ca_file, "-verify_return_error", "-quiet", "-no_ign_eof",
             "-ign_eof", version, *args], 20, input="GET / HTTP/1.0\r\n\r\n")
        assert "200 OK" in done.stdout or done.returncode == 0, (host, version, args, done.stderr)
        return done

    def file(self, host, version):
        return self.folder / (host + version)

    def first(self, host):
        """Full handshakes, whose sessions are kept."""
        for version in VERSIONS:
            self._run(host, version, "-sess_out", self.file(host, version))
            assert self.file(host, version).exists(), (host, version)

    def num_resumed(self, host):
        """How many of the kept sessions, one for each version, are resumed."""
        before = self.stack.proxy.metric("handshakes_total", source="resumed")
        for version in VERSIONS:
            self._run(host, version, "-sess_in", self.file(host, version))
        wait_until(lambda: self.stack.proxy.metric("connections_open") == 0, "their end")
        return self.stack.proxy.metric("handshakes_total", source="resumed") - before

    def resumes(self, host):
        """Are they? In all versions alike."""
        num = self.num_resumed(host)
        assert num in (0, len(VERSIONS)), num
        return num == len(VERSIONS)


def keep_port(proxy):
    proxy.config["listeners"][0]["address"] = "127.0.0.1:%d" % proxy.port


def restart(proxy):
    proxy.process.stop()
    proxy.start()
    wait_until(lambda: proxy.metric("key_servers_ready") >= 1, "the key server")


def test_in_the_store_and_beside_it(shop):
    shop = shop()
    proxy = shop.proxy
    shop.stack.add_name("demo.test")
    key_file = shop.procs.folder / "ticket.keys"
    write_private(key_file, b"2026-01-01T00:00:00Z " + secrets.token_hex(32).encode() + b"\n")
    proxy.config["tickets"] = {"key_file": str(key_file)}
    shop.start()
    keep_port(proxy)
    visitor = Visitor(shop.stack, shop.ca_file)
    stored, other, configured = "n0.bench.test", "n1.bench.test", "demo.test"
    hosts = (stored, other, configured)

    def resumed():
        return [visitor.resumes(host) for host in hosts]

    def switch(*args, by="proxy"):
        args = ("switch", *args, "--reason", "test", "--json")
        done = proxy.ctl(*args) if by == "proxy" else shop.store(*args)
        return str(json.loads(done.stdout)["id"])

    for host in hosts:
        visitor.first(host)
    assert resumed() == [True] * 3
    # Out of service is no reason to end a session; nor is a wish for another level.
    undo = [switch("--ca", "Bench CA primary"), switch("--name", configured)]
    assert shop.level(stored) == "backup"
    assert resumed() == [True] * 3
    for change in undo:
        proxy.ctl("restore", change, "--reason", "over")
    # A key that leaked is, at once, whoever says so; for this key alone.
    found = json.loads(shop.store("find", stored, "--json").stdout)["chains"]
    key = [chain["key"] for chain in found if chain["level"] == "primary"][0]
    change = switch("--key", key, "--compromised", by="store")
    assert resumed() == [False, True, True]
    proxy.reload()
    assert resumed() == [False, True, True]
    restart(proxy)
    assert resumed() == [False, True, True]
    proxy.ctl("restore", change, "--reason", "not so")
    # An end counts at once; its undoing when the cache of names has seen it.
    wait_until(lambda: visitor.num_resumed(stored) == len(VERSIONS), "its sessions")
    assert resumed() == [True] * 3
    # The CA of the store's names, and that of the configuration's.
    change = switch("--ca", "Bench CA primary", "--compromised")
    assert resumed() == [False, False, True]
    proxy.ctl("restore", change, "--reason", "not so")
    change = switch("--ca", "web-one", "--compromised")
    for host in (stored, other):
        wait_until(lambda host=host: visitor.num_resumed(host) == len(VERSIONS), "its sessions")
    assert resumed() == [True, True, False]
    restart(proxy)
    assert resumed() == [True, True, False]
    # What comes then is of the backup, and lives on.
    visitor.first(configured)
    assert resumed() == [True] * 3
    # An end that has come takes the word back by itself.
    proxy.ctl("restore", change, "--reason", "not so")
    switch("--key", key, "--compromised", "--until",
           time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 4 * SLOW)))
    assert visitor.num_resumed(stored) < len(VERSIONS)
    wait_until(lambda: visitor.num_resumed(stored) == len(VERSIONS), "the end", timeout=30)


def test_what_a_ca_revokes(procs, pki):
    stack = Stack(procs, pki, hosts=(), issuer=False)
    ca = RevokingCa(procs, pki, "one", ca=stack.web_cas[0])
    leaf = ca.issue_chain("demo.test", key=make_key(stack.keyserver.folder / "primary.key"))
    stack.add_name("demo.test", [("primary", leaf), ("backup", stack.leaf("b", "demo.test", 1))])
    stack.start(wait_credentials=0)
    keep_port(stack.proxy)
    visitor = Visitor(stack, stack.ca_file())
    visitor.first("demo.test")
    assert visitor.resumes("demo.test")

    def issuer():
        with stack.connect() as tls:
            return dict(pair[0] for pair in tls.getpeercert()["issuer"])["commonName"]

    request = procs.folder / "request.der"
    procs.run(["openssl", "ocsp", "-issuer", ca.ca.cert, "-cert", leaf.cert, "-reqout", request],
              check=True)
    for reason, is_resumed in [("superseded", True), ("keyCompromise", False),
                               ("cessationOfOperation", True), ("", False)]:
        ca.revoke(leaf, reason)
        if reason == "":
            serial = next(iter(ca.index))
            ca.index[serial] = re.sub(",\t", "\t", ca.index[serial])
            ca.write_index()
        leaf.chain.with_name(leaf.chain.name + ".ocsp").write_bytes(
            ca.respond(request.read_bytes()))
        stack.proxy.reload()
        assert issuer() == "web-two", reason
        assert visitor.resumes("demo.test") == is_resumed, reason
    stack.stop()
    ca.stop()
