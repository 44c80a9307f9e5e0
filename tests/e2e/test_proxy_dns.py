# SPDX-License-Identifier: Apache-2.0
"""Origins by name: a DNS server that changes its mind, hangs, fails, and comes back."""

import ipaddress
import os
import socket
import struct
import subprocess
import threading

import pytest

from support.procs import SLOW, wait_until
from support.stack import Origin, Stack

CAN_MOUNT = os.geteuid() == 0 and subprocess.run(
    ["unshare", "-m", "true"], check=False, capture_output=True).returncode == 0
pytestmark = pytest.mark.skipif(not CAN_MOUNT, reason="no mount namespace of our own")

MOUNT = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'
SERVFAIL, NXDOMAIN = 2, 3


class Dns:
    """A name server. records[name] is a list of IPv4 addresses or a code; without an entry it
    says nothing at all."""

    def __init__(self):
        self.records = {}
        self.asked = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for last in range(2, 250):  # several tests may run on this machine
            try:
                self.socket.bind((f"127.53.{os.getpid() % 250}.{last}", 53))
                break
            except OSError:
                continue
        self.address = self.socket.getsockname()[0]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                query, peer = self.socket.recvfrom(1500)
            except OSError:
                return
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1:at + 1 + query[at]].decode())
                at += 1 + query[at]
            kind, = struct.unpack_from(">H", query, at + 1)
            self.asked += 1
            found = self.records.get(".".join(labels).lower())
            if found is None:
                continue
            code, addresses = (found, []) if isinstance(found, int) else (0, found)
            answers = [] if kind != 1 else [  # A
                struct.pack(">HHHIH", 0xc00c, 1, 1, 1, 4) + ipaddress.ip_address(a).packed
                for a in addresses]
            self.socket.sendto(
                query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(answers), 0, 0) +
                query[12:at + 5] + b"".join(answers), peer)

    def stop(self):
        self.socket.close()


def named(text, address):
    def handler(conn):
        while data := conn.recv(65536):
            conn.sendall(text.encode() + b":" + data)
    return Origin(handler, path=address)


@pytest.fixture
def dns():
    dns = Dns()
    yield dns
    dns.stop()


@pytest.fixture
def pair():
    """Two origins of one name: the same port, different addresses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.4", 0))
        port = probe.getsockname()[1]
    origins = [named("a", ("127.0.0.4", port)), named("b", ("127.0.0.5", port))]
    yield port
    for origin in origins:
        origin.stop()


def say(client):
    client.sendall(b"?")
    return client.recv(100).decode().partition(":")[0]


def ask(stack):
    with stack.connect() as client:
        return say(client)


def test_names_of_origins(procs, pki, dns, pair):
    resolv = procs.folder / "resolv.conf"
    resolv.write_text(f"nameserver {dns.address}\n")
    os.chmod(procs.folder, 0o755)
    stack = Stack(procs, pki, issuer=False).start_servers()
    proxy = stack.proxy
    proxy.config.pop("origin")
    proxy.config["origins"] = [{
        "name": "web", "resolve_interval": "1s", "connect_timeout": f"{30 * SLOW}s",
        "servers": [{"address": f"app.internal:{pair}"}]}]
    proxy.start(wrap=["unshare", "-m", "sh", "-c", MOUNT, "sh", resolv])

    # The first client comes before the name server has said anything: it waits.
    first = {}
    client = threading.Thread(target=lambda: first.update(answer=ask(stack)))
    client.start()
    wait_until(lambda: dns.asked > 0, "the name to be looked up")
    assert "resolving" in proxy.ctl("status").stdout
    dns.records["app.internal"] = ["127.0.0.4"]
    client.join(60 * SLOW)
    assert first == {"answer": "a"}

    # Another address: new connections go there, one that is open stays.
    with stack.connect() as stays:
        assert say(stays) == "a"
        dns.records["app.internal"] = ["127.0.0.5"]
        wait_until(lambda: ask(stack) == "b", "the other address to be seen")
        assert say(stays) == "a"

    # Whatever goes wrong with DNS, what was known remains, and nobody waits for it.
    for wrong, reason in ((None, "unavailable"), (SERVFAIL, "unavailable"),
                          (NXDOMAIN, "not_found"), ([], "unavailable")):
        told = f"origin=app.internal:{pair} reason={reason} known=1"
        lines = proxy.log().count(told)
        dns.records["app.internal"] = wrong

        def is_noticed():
            assert ask(stack) == "b"
            return proxy.log().count(told) > lines

        wait_until(is_noticed, f"{wrong} to be noticed", timeout=30, interval=0.1)
    assert proxy.metric("origin_addresses_in_service") == 1
    dns.records["app.internal"] = ["127.0.0.4", "127.0.0.5"]
    wait_until(lambda: {ask(stack), ask(stack)} == {"a", "b"}, "both addresses to be used")
