# SPDX-License-Identifier: Apache-2.0
"""What a connection costs besides its bytes: how records are cut, who asks for memory and
takes locks."""

import bisect
import collections
import pathlib
import socket
import struct
import time

import pytest

from support.procs import BIN_DIR, SANITIZE, wait_until
from support.stack import Origin, Stack
from support.tls import MemoryTls

NUM_ROWS = 1024  # of tests/support/watched_calls.c
SHORT, FULL = 1369, 16384  # proxy/connection/record_size.h


class Watched:
    """Calls that the running proxy has made so far, by the function they came from."""

    def __init__(self, procs):
        self.path = procs.folder / "watched-calls"
        self.wrap = ("env", f"LD_PRELOAD={BIN_DIR}/watched_calls.so", f"WATCHED_CALLS={self.path}")
        lines = procs.run(["nm", "--defined-only", BIN_DIR / "deputy-proxy"], check=True).stdout
        symbols = sorted((int(at, 16), name) for at, kind, name in map(str.split, lines.splitlines())
                         if kind in "tTwW")
        self.starts = [at for at, _ in symbols]
        self.names = [name for _, name in symbols]

    def counts(self):
        found = collections.Counter()
        for place, num in struct.iter_unpack("QQ", self.path.read_bytes()):
            if place:
                # A return address is behind the call.
                found[self.names[bisect.bisect_right(self.starts, place - 1) - 1]] += num
        return found


def answer(conn):
    """Sends as many bytes as each line asks for."""
    for line in conn.makefile("rb"):
        conn.sendall(b"x" * int(line))


@pytest.fixture(scope="module")
def watched(module_procs):
    return None if SANITIZE else Watched(module_procs)


@pytest.fixture(scope="module")
def stack(module_procs, module_pki, watched):
    stack = Stack(module_procs, module_pki, origin=Origin(answer)).start_servers()
    for label, ca in zip(("demo.test-primary", "demo.test-backup"), stack.web_cas):
        with open(stack.leaves[label].chain, "ab") as file:
            file.write(ca.cert.read_bytes())  # chains have something in common, as usual
    stack.proxy.config["workers"] = 1
    stack.proxy.start(wrap=() if watched is None else watched.wrap)
    stack.proxy.wait_credentials(2)
    wait_until(lambda: stack.proxy.metric("key_servers_ready") >= 1, "the key server")
    yield stack
    stack.origin.stop()


class Records(MemoryTls):
    """A client that keeps the lengths of the records that carry data."""

    def __init__(self, *args, **kwargs):
        self.raw = bytearray()
        super().__init__(*args, **kwargs)

    def _fill(self):
        data = self.sock.recv(262144)
        self.raw += data
        if data:
            self.received.write(data)
        else:
            self.received.write_eof()

    def ask(self, size):
        """The lengths of the records of an answer."""
        self.raw.clear()
        self.send(b"%d\n" % size)
        self.read_exactly(size)
        lengths = []
        at = 0
        while at < len(self.raw):
            kind, length = struct.unpack_from(">BxxH", self.raw, at)
            if kind == 23:
                lengths.append(length)
            at += 5 + length
        return lengths


@pytest.mark.parametrize("tls12", [False, True])
def test_records_are_short_first_and_full_later(stack, tls12):
    """What they carry is their length less tag, nonce and type."""
    extra = 24 if tls12 else 17
    context = stack.context(tls12=tls12)
    if tls12:
        context.set_ciphers("ECDHE+AESGCM")
    with Records(stack.proxy.address, context, "demo.test") as client:
        client.ask(1)  # what is left of the handshake comes with it
        assert client.ask(1200) == [1200 + extra]
        lengths = client.ask(2 << 20)
        assert lengths[:38] == [SHORT + extra] * 38
        # (A machine that stands still for a second makes a pause, after which there are
        # short ones again.)
        assert max(lengths) == FULL + extra
        assert lengths.count(FULL + extra) > 20
        time.sleep(1.1)  # a pause; it may be longer
        assert client.ask(4000) == [SHORT + extra, SHORT + extra, 4000 - 2 * SHORT + extra]


@pytest.mark.parametrize("tls12", [False, True])
def test_a_client_with_nagles_algorithm_waits_for_no_delayed_ack(stack, tls12):
    """Its first bytes leave when its Finished has been confirmed; a delayed confirmation
    takes 40 ms each time."""
    context = stack.context(tls12=tls12)
    if not tls12:  # whatever is between: the ticket is sent although nobody has said a word
        with MemoryTls(stack.proxy.address, context, "demo.test") as client:
            assert client.sock.recv(5)[0] == 23
    took = []
    session = None
    for i in range(20):
        with socket.create_connection(stack.proxy.address) as plain, context.wrap_socket(
                plain, server_hostname="demo.test", session=session) as tls:
            start = time.monotonic()
            tls.sendall(b"10\n")
            assert tls.recv(10)
            took.append(time.monotonic() - start)
            assert tls.session_reused == (i > 0)
            session = tls.session
    # Resumed: in TLS 1.2, too, the client's Finished is the last word then.
    if not SANITIZE:  # which may take as long itself
        assert min(took[1:]) < 0.03, took


# What BoringSSL asks for by itself. Debian's version of it reads whether the process has
# forked, and which curves there are, under locks that many may hold at once.
OF_THE_LIBRARY = ("OPENSSL_", "_ZN4bssl", "CRYPTO_STATIC_MUTEX_lock_read", "CRYPTO_MUTEX_lock_read")


def shake_hands(stack, context, num, is_resuming=False):
    session = None
    for _ in range(num):
        with socket.create_connection(stack.proxy.address) as plain, context.wrap_socket(
                plain, server_hostname="demo.test", session=session) as tls:
            tls.sendall(b"10\n")
            assert tls.recv(10)
            if is_resuming:
                session = tls.session


@pytest.mark.skipif(bool(SANITIZE), reason="a sanitizer has its own malloc")
@pytest.mark.parametrize("source", ["dc", "certificate", "resumed"])
def test_handshakes_ask_for_no_memory_and_take_no_lock(stack, watched, source):
    """But for the library's own, and for the buffers of the connection to a key server, which
    is pinged all the time."""
    num = 20

    def run():
        if source == "dc":
            for _ in range(num):
                assert stack.nss().run().got_dc
        else:
            shake_hands(stack, stack.context(), num, source == "resumed")

    def served():
        return stack.proxy.metric("handshakes_total", source=source)

    allowed = (*OF_THE_LIBRARY, "buffer_reserve")
    run()  # pools fill, threads meet what they keep
    before, calls = served(), watched.counts()
    run()
    wait_until(lambda: served() >= before + num - 1, "the handshakes to be counted")
    made = watched.counts() - calls
    assert made["OPENSSL_malloc"] > num  # it does watch
    # Once for all of them is no habit: a pool grows, a key server is pinged.
    assert {name: times for name, times in made.items()
            if times >= num // 2 and not name.startswith(allowed)} == {}


def timers():
    """{(local port, remote port): the kernel's timer of a TCP connection}; 2 is keepalive."""
    found = {}
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, _, timer = line.split()[:6]
        ports = tuple(int(end.partition(":")[2], 16) for end in (local, remote))
        found[ports] = int(timer.partition(":")[0], 16)
    return found


def test_lost_ends_are_found_out_if_one_wants_that(stack):
    def kept():
        with stack.connect() as client:
            client.sendall(b"10\n")
            assert client.recv(10)
            ends = [(stack.proxy.port, client.getsockname()[1])]
            origin = stack.origin.connections[-1]
            ends.append((origin.getpeername()[1], origin.getsockname()[1]))
            # Until all is confirmed another timer runs.
            wait_until(lambda: all(timers()[end] in (0, 2) for end in ends), "quiet")
            return [timers()[end] for end in ends]

    assert kept() == [0, 0]
    stack.proxy.config["limits"]["keepalive"] = "1m"
    stack.proxy.reload()
    assert kept() == [2, 2]
