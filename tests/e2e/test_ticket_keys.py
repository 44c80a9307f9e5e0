# SPDX-License-Identifier: Apache-2.0
"""Session tickets whose keys come out of a file: two machines, a restart, and keys that
come, take over and go."""

import copy
import os
import secrets
import socket
import time

import pytest

from support.pki import write_private
from support.procs import SLOW, wait_until
from support.stack import BODY, Proxy, Stack

VERSIONS = pytest.mark.parametrize("tls12", [False, True], ids=["tls13", "tls12"])
OLD, NEW = secrets.token_hex(32), secrets.token_hex(32)


def at(seconds):
    """The time so many seconds from now, as the file has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


class Pair:
    """Two proxies of one deployment, each with a copy of the file of its own."""

    def __init__(self, procs, pki):
        self.stack = Stack(procs, pki, issuer=False)
        self.stack.start_servers()
        self.first = self.stack.proxy
        self.second = Proxy(self.stack, "second")
        for name in ("names", "key_servers", "origin"):
            self.second.config[name] = copy.deepcopy(self.first.config[name])
        for proxy in self.proxies:
            proxy.key_file = procs.folder / f"{proxy.name}.keys"
            proxy.config["tickets"] = {"key_file": str(proxy.key_file)}
            self.write(proxy, (-3600, OLD))
            proxy.start()
            wait_until(lambda: proxy.metric("key_servers_ready") >= 1, "the key server")
            proxy.config["listeners"][0]["address"] = "127.0.0.1:%d" % proxy.port

    @property
    def proxies(self):
        return self.first, self.second

    def write(self, proxy, *keys):
        lines = [f"{at(seconds)} {key}\n" for seconds, key in keys]
        write_private(proxy.key_file, ("# test\n" + "".join(lines)).encode())

    def give(self, proxy, *keys):
        """Keys with their times from now; a reload that reads them."""
        self.write(proxy, *keys)
        proxy.reload()


@pytest.fixture(scope="module")
def whole(module_procs, module_pki):
    pair = Pair(module_procs, module_pki)
    yield pair
    pair.stack.stop()


@pytest.fixture
def pair(whole):
    """Both with the old key alone."""
    for proxy in whole.proxies:
        proxy.config["tickets"] = {"key_file": str(proxy.key_file)}
        whole.give(proxy, (-3600, OLD))
    return whole


class Client:
    """One that keeps its last session."""

    def __init__(self, pair, tls12):
        self.context = pair.stack.context(tls12=tls12)
        self.session = None

    def visit(self, proxy, session=None):
        """A request; returns whether the session was resumed."""
        plain = socket.create_connection(proxy.address, timeout=10 * SLOW)
        with self.context.wrap_socket(plain, server_hostname="demo.test",
                                      session=session or self.session) as tls:
            tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while more := tls.recv(65536):
                answer += more
            assert answer.endswith(BODY)
            self.session = tls.session
            return tls.session_reused


@VERSIONS
def test_one_machine_resumes_what_another_began(pair, tls12):
    client = Client(pair, tls12)
    assert not client.visit(pair.first)
    assert client.visit(pair.second)
    assert client.visit(pair.first)


@VERSIONS
def test_sessions_outlive_a_restart(pair, tls12):
    client = Client(pair, tls12)
    assert not client.visit(pair.first)
    pair.first.process.stop()
    pair.first.start()
    wait_until(lambda: pair.first.metric("key_servers_ready") >= 1, "the key server")
    assert client.visit(pair.first)


@VERSIONS
def test_a_key_is_known_before_it_seals(pair, tls12):
    client = Client(pair, tls12)
    pair.give(pair.first, (-3600, OLD), (3600, NEW))  # not yet its time
    pair.give(pair.second, (-3600, OLD), (-1, NEW))   # a clock that is ahead
    assert not client.visit(pair.second)
    assert client.visit(pair.first)
    # A machine that has not been given it serves all the same.
    client = Client(pair, tls12)
    pair.give(pair.first, (-3600, OLD))
    assert not client.visit(pair.second)
    of_new = client.session
    assert not client.visit(pair.first, of_new)
    pair.give(pair.first, (-3600, OLD), (3600, NEW))
    assert client.visit(pair.first, of_new)


@VERSIONS
def test_a_key_that_is_taken_away_opens_nothing(pair, tls12):
    client = Client(pair, tls12)
    assert not client.visit(pair.first)
    of_old = client.session
    pair.give(pair.first, (-3600, OLD), (-1, NEW))
    assert client.visit(pair.first, of_old)
    pair.give(pair.first, (-1, NEW))
    assert not client.visit(pair.first, of_old)
    assert client.visit(pair.first)


def test_the_time_of_a_key_comes(pair):
    client = Client(pair, False)
    changes = pair.first.metric("ticket_key_changes_total")
    pair.give(pair.first, (-3600, OLD), (2, NEW))
    client.visit(pair.first)
    # The second does not know it: what it cannot resume was sealed with it.
    wait_until(lambda: not (client.visit(pair.first) and client.visit(pair.second)),
               "the new key", 10)
    assert pair.first.metric("ticket_key_changes_total") == changes + 1
    assert pair.first.metric("ticket_key_age_seconds", source="file") < 10 * SLOW
    assert OLD not in pair.first.log() and NEW not in pair.first.log()


def test_a_bad_file_changes_nothing(pair):
    client = Client(pair, False)
    client.visit(pair.first)
    good = pair.first.key_file.read_bytes()
    for content, mode, word in (
            (good, 0o644, "others"), (good + b"nonsense\n", 0o600, "keys:3: a line is a time"),
            (good + good, 0o600, "its time is not after"), (b"", 0o600, "there is no key")):
        write_private(pair.first.key_file, content)
        os.chmod(pair.first.key_file, mode)
        pair.first.reload("failed")
        wait_until(lambda: word in pair.first.log().split("reload_failed")[-1], word)
        assert client.visit(pair.first)
    pair.first.key_file.unlink()
    pair.first.reload("failed")
    assert client.visit(pair.first)
    # Nor does a start without it come about.
    done = pair.stack.procs.run([pair.first.process.args[0], "--check-config", "--config",
                                 pair.stack.procs.folder / "proxy.json"])
    assert done.returncode != 0 and "tickets.key_file" in done.stderr, done.stderr


def test_back_to_keys_of_ones_own(pair):
    """Nobody else can open what is sealed from now on; what others sealed goes in time."""
    client = Client(pair, False)
    client.visit(pair.first)
    of_file = client.session
    del pair.first.config["tickets"]["key_file"]
    pair.first.reload()
    assert client.visit(pair.first, of_file)
    of_own = client.session
    assert not client.visit(pair.second, of_own)
    assert client.visit(pair.first, of_own)
    assert pair.first.metric("ticket_key_age_seconds", source="own") < 60 * SLOW
