# SPDX-License-Identifier: Apache-2.0
"""How long a session lives, and what ends it sooner.

A resumed handshake shows no certificate, so no client can object: whatever makes a
session worthless must be known to the proxy that opens its ticket. (Its end with
the delegated credential: test_proxy_credentials.py.)
"""

import json
import socket
import time

import pytest

from support.procs import SLOW, wait_until
from support.stack import PROXY, Stack

VERSIONS = pytest.mark.parametrize("tls12", [False, True], ids=["tls13", "tls12"])


@pytest.fixture(scope="module")
def one_stack(module_procs, module_pki):
    stack = Stack(module_procs, module_pki).start()
    stack.proxy.config["listeners"][0]["address"] = "127.0.0.1:%d" % stack.proxy.port
    yield stack
    stack.stop()


@pytest.fixture
def make(one_stack):
    """make(lifetime=...) gives the deployment with these options of tickets, and
    nothing switched."""

    def configure(**tickets):
        one_stack.proxy.config["tickets"] = tickets
        one_stack.proxy.reload()
        return one_stack

    yield configure
    for change in json.loads(one_stack.proxy.ctl("switches", "--standing", "--json").stdout)[
            "switches"]:
        one_stack.proxy.ctl("restore", str(change["id"]), "--force")


class Client:
    """One that keeps its last session, as browsers do."""

    def __init__(self, stack, tls12):
        self.stack = stack
        self.context = stack.context(tls12=tls12)
        self.session = None
        self.issuer = None

    def visit(self, session=None):
        """A request; returns whether the session was resumed. Keeps the newest session."""
        with self.context.wrap_socket(self._connect(), server_hostname="demo.test",
                                      session=session or self.session) as tls:
            # With the answer comes the ticket.
            tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
            while tls.recv(65536):
                pass
            self.session = tls.session
            self.issuer = tls.getpeercert()["issuer"][0][0][1]
            return tls.session_reused

    def _connect(self):
        return socket.create_connection(self.stack.proxy.address, timeout=10 * SLOW)


def counts(stack):
    return (stack.proxy.metric("handshakes_total", source="certificate"),
            stack.proxy.metric("handshakes_total", source="resumed"))


@VERSIONS
def test_resumed_again_and_again(make, tls12):
    stack = make()
    client = Client(stack, tls12)
    full, resumed = counts(stack)
    assert [client.visit() for _ in range(4)] == [False, True, True, True]
    assert counts(stack) == (full + 1, resumed + 3)


@VERSIONS
def test_a_session_of_what_leaked_is_not_resumed(make, tls12):
    stack = make()
    first, second = (ca.name for ca in stack.web_cas)
    client, other = Client(stack, tls12), Client(stack, tls12)
    assert not client.visit()
    # Out of service is no reason to end sessions: what authenticated them was good.
    stack.proxy.ctl("switch", "--ca", first, "--reason", "retired")
    assert client.visit() and client.issuer == first
    assert not other.visit() and other.issuer == second  # new ones are on the backup
    of_first = client.session
    # Compromised is.
    stack.proxy.ctl("switch", "--ca", first, "--compromised", "--reason", "leaked")
    assert not client.visit() and client.issuer == second
    assert not client.visit(of_first)
    assert other.visit() and client.visit()  # sessions of the other CA go on
    # The same for a key alone.
    stack.proxy.ctl("restore", "--ca", first, "--reason", "over", "--force")
    key = stack.leaves["demo.test-backup"].spki_sha256()
    stack.proxy.ctl("switch", "--key", key, "--compromised", "--reason", "leaked")
    assert not other.visit() and other.issuer == first
    assert other.visit()


@VERSIONS
def test_a_ticket_lives_for_three_keys(make, tls12):
    """The newest key seals; it and the two before it open."""
    period = 1
    stack = make(rotate_every=f"{period}s", lifetime="1h")
    client = Client(stack, tls12)
    client.visit()
    first, began = client.session, time.monotonic()
    assert client.visit(first)
    # Within the next two periods it opens; when a third has passed it does not.
    wait_until(lambda: not client.visit(first), "the key to go", 5 * period)
    assert time.monotonic() >= began + 2 * period
    # The client was served all the same, and what it got then is resumed.
    assert client.visit()


@VERSIONS
def test_lifetime_counts_from_the_full_handshake(make, tls12):
    """A resumption gives a new ticket, and no new life."""
    stack = make(lifetime="2s")
    client = Client(stack, tls12)
    began = time.monotonic()
    assert not client.visit()
    resumed = 0
    while client.visit():
        resumed += 1
        assert time.monotonic() < began + 5 * SLOW, "it is renewed for ever"
        time.sleep(0.05)
    ended = time.monotonic() - began
    assert ended > 1 and resumed >= 1, (ended, resumed)


@VERSIONS
def test_no_tickets(make, tls12):
    stack = make(enabled=False)
    client = Client(stack, tls12)
    assert [client.visit() for _ in range(3)] == [False] * 3


@VERSIONS
def test_reload_keeps_sessions_and_a_new_process_starts_afresh(make, tls12):
    stack = make()
    client = Client(stack, tls12)
    client.visit()
    stack.proxy.reload()
    assert client.visit()
    # Ticket keys are in memory alone: stolen files open nothing.
    stack.proxy.process.stop()
    stack.proxy.start()
    assert not client.visit()
    assert client.visit()


def take_over(stack):
    """The next process, by `--takeover`; the one before has ended."""
    proxy = stack.proxy
    before = proxy.process
    proxy.process = stack.procs.daemon_start(PROXY, proxy.config, proxy.name, ["--takeover"])
    proxy.process.wait_ready(30)
    assert before.wait(30) == 0


def sealing_key(stack):
    """(source, name) of the key that seals tickets in a process that took over."""
    process = stack.proxy.process
    wait_until(lambda: " serving " in process.err(), "all lines before")
    line = [line for line in process.err().splitlines() if " ticket_key " in line][-1]
    return tuple(line.split("source=")[1].split()[:2])


def test_sessions_outlive_an_upgrade(make, tmp_path):
    """Ticket keys go to the next process, with their age, whatever its options are."""
    period = 4 * SLOW
    stack = make(rotate_every=f"{period}s", lifetime="1h")
    clients = [Client(stack, tls12) for tls12 in (False, True)]
    assert [client.visit() for client in clients] == [False, False]
    changes = stack.proxy.metric("ticket_key_changes_total")
    wait_until(lambda: stack.proxy.metric("ticket_key_changes_total") > changes, "the next key",
               2 * period)
    # One session is of the key before, one of the key that seals.
    assert not (late := Client(stack, False)).visit()
    take_over(stack)
    assert [client.visit() for client in (*clients, late)] == [True] * 3
    # It does not begin anew: the key had its age already.
    age = stack.proxy.metric("ticket_key_age_seconds", source="own")
    up_s = stack.proxy.status()["uptime_s"]
    assert age <= period + up_s + 1
    # What a file says counts alone, ...
    path = tmp_path / "ticket.keys"
    path.write_text("2020-01-01T00:00:00Z " + "5a" * 32 + "\n")
    path.chmod(0o600)
    stack.proxy.config["tickets"] = {"key_file": str(path)}
    take_over(stack)
    assert [client.visit() for client in clients] == [False, False]
    assert sealing_key(stack)[0] == "file"
    # ... and a key that others have, too, opens, but seals no more, where keys are our own.
    shared = sealing_key(stack)[1]
    stack.proxy.config["tickets"] = {"lifetime": "1h"}
    take_over(stack)
    assert sealing_key(stack)[0] == "own" and sealing_key(stack)[1] != shared
    assert [client.visit() for client in clients] == [True, True]
    own = sealing_key(stack)
    take_over(stack)
    assert sealing_key(stack) == own
    assert [client.visit() for client in clients] == [True, True]
