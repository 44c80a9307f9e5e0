# SPDX-License-Identifier: Apache-2.0
"""Peers that do one thing only: origins that send and never read, or read and never send,
and clients that send on while they have to wait. Memory stays what back-pressure leaves
of it, nobody else notices, and each wait has its end, counted."""

import concurrent.futures
import contextlib
import socket
import threading
import time

import pytest

from support import tls
from support.procs import SANITIZE, SLOW, wait_until
from support.stack import Origin, Stack, echo
from support.tls import DATA, MemoryTls, record

MIB = 1 << 20
IDLE_S, SIGNING_S, CONNECT_S, LINGER_S = 1.0 * SLOW, 2.0 * SLOW, 1.0 * SLOW, 0.5 * SLOW
# More than all buffers of the kernel on the way take.
MUCH = 48 * MIB
# What stuck connections may cost, each.
RSS_SLACK = MIB


class Behaviours:
    """An origin that treats each connection as was last said."""

    def __init__(self):
        self.handler = echo
        self.num_begun = 0
        self.ends = []

    def __call__(self, conn):
        try:
            handler = self.handler
            self.num_begun += 1
            handler(conn)
            self.ends.append("done")
        except OSError as e:
            self.ends.append(type(e).__name__)


@pytest.fixture(scope="module")
def board():
    return Behaviours()


@pytest.fixture(scope="module")
def stack(module_procs, module_pki, board):
    stack = Stack(module_procs, module_pki, issuer=False, origin=Origin(board))
    stack.proxy.config["workers"] = 1
    stack.proxy.config["limits"].update(idle=f"{int(IDLE_S * 1000)}ms",
                                        half_closed=f"{int(IDLE_S * 1000)}ms",
                                        linger=f"{int(LINGER_S * 1000)}ms")
    stack.proxy.config["origin"]["connect_timeout"] = f"{int(CONNECT_S * 1000)}ms"
    stack.start()
    yield stack
    stack.origin.stop()


@pytest.fixture
def connect(stack, board):
    """Makes clients who have reached the origin; at the end they are closed."""
    with contextlib.ExitStack() as opened:

        def one(**kwargs):
            before = board.num_begun
            client = opened.enter_context(MemoryTls(stack.proxy.address, stack.context(),
                                                    "demo.test", timeout=30, **kwargs))
            wait_until(lambda: board.num_begun > before, "the origin to be reached")
            return client

        yield one


@pytest.fixture(autouse=True)
def others(stack, board):
    """Somebody who talks all the time is never held up, and at the end all are gone."""
    board.handler = echo
    board.ends.clear()
    has_begun, is_over = threading.Event(), threading.Event()
    failures = []

    def talk():
        try:
            with stack.connect() as client:
                while not is_over.wait(0.05):
                    client.sendall(b"still here")
                    assert client.recv(100) == b"still here"
                    has_begun.set()
        except (OSError, AssertionError) as e:
            failures.append(repr(e))

    talker = threading.Thread(target=talk)
    talker.start()
    wait_until(lambda: has_begun.is_set() or failures, "the talker to be served")
    yield
    is_over.set()
    talker.join()
    assert not failures
    wait_until(lambda: stack.proxy.metric("connections_open") == 0, "the connections to end", 15)


def is_served(stack, board):
    board.handler = echo
    with stack.connect() as client:
        client.sendall(b"anybody there")
        return client.recv(100) == b"anybody there"


def outcome(stack, name):
    return stack.proxy.metric("connections_ended_total", outcome=name)


@contextlib.contextmanager
def ends(stack, name, num=1):
    """So many connections end like this in the block, and the rest of it in no time."""
    before = outcome(stack, name)
    yield
    wait_until(lambda: outcome(stack, name) >= before + num, f"{num} to end as {name}", 20)
    assert outcome(stack, name) == before + num


@contextlib.contextmanager
def costs_little(stack, num=1):
    rss = stack.proxy.process.rss_bytes()
    yield
    if not SANITIZE:  # which keeps what was freed
        assert stack.proxy.process.rss_bytes() - rss < num * RSS_SLACK


class Sending:
    """A client that sends much and reads nothing, on a thread of its own."""

    def __init__(self, client):
        data = bytes(16384)
        self.records = [client.sealed(data) for _ in range(MUCH // len(data))]
        self.sock = client.sock
        self.num_sent = 0
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        with contextlib.suppress(OSError):  # it is thrown out at last
            for sealed in self.records:
                self.sock.sendall(sealed)
                self.num_sent += 1

    def wait_stuck(self):
        """It stands still, long before all is sent."""
        seen = []

        def is_stuck():
            seen.append(self.num_sent)
            return len(seen) > 10 and len(set(seen[-10:])) == 1 and seen[-1] > 0

        wait_until(is_stuck, "the client to be held back", 20, interval=0.03)
        assert self.num_sent < len(self.records)


def pour(conn):
    while True:  # until nobody takes it any more
        conn.sendall(bytes(16384))
        time.sleep(0.005)


def swallow(conn):
    while conn.recv(1 << 16):
        pass


def read_for(client, seconds):
    end = time.monotonic() + seconds
    size = 0
    while time.monotonic() < end:
        data = client.read()
        assert data, "an end"
        size += len(data)
    return size


# --- an origin that sends and does not read --------------------------------------------------


def test_origin_that_sends_and_never_reads(stack, board, connect):
    """What the client sends stands still; what it reads goes on, and keeps the connection."""
    board.handler = pour
    with costs_little(stack):
        client = connect()
        assert client.read()
        assert is_served(stack, board)
        sending = Sending(client)
        try:
            assert read_for(client, 2 * IDLE_S) > 2 * 16384
            sending.wait_stuck()
            assert read_for(client, 0.2) > 0
        finally:
            client.sock.shutdown(socket.SHUT_WR)  # or the thread would keep it
            sending.thread.join()
            with ends(stack, "client_reset"):
                client.reset()
    wait_until(lambda: len(board.ends) >= 2, "the origin to be told")
    assert sorted(board.ends)[0] in ("BrokenPipeError", "ConnectionResetError"), board.ends


def test_neither_reads(stack, board, connect):
    """Both send and nobody reads: no byte gets through, and the idle limit ends it."""
    board.handler = pour
    with costs_little(stack), ends(stack, "idle"):
        client = connect(rcvbuf=32768)
        assert client.read()
        sending = Sending(client)
        sending.wait_stuck()
        sending.thread.join(20 * SLOW)
        assert not sending.thread.is_alive()
    assert is_served(stack, board)


def test_origin_that_sends_on_when_the_client_has_ended(stack, board, connect):
    """Half-closed, what is read keeps it; who stops reading has the limit of that."""
    board.handler = pour
    with ends(stack, "idle"):
        client = connect(rcvbuf=32768)
        client.close_notify()
        assert read_for(client, 2 * IDLE_S) > 0
        begin = time.monotonic()
        wait_until(lambda: "done" not in board.ends and board.ends, "its end", 20)
        assert time.monotonic() - begin > IDLE_S * 0.5  # it was read to the last


# --- an origin that reads and does not send --------------------------------------------------


def test_origin_that_reads_and_never_sends(stack, board, connect):
    """All that is sent gets through, and keeps the connection; silence ends it."""
    board.handler = swallow
    before = stack.proxy.metric("bytes_total", direction="up")
    with costs_little(stack), ends(stack, "idle"):
        client = connect()
        assert is_served(stack, board)
        sending = Sending(client)
        sending.thread.join(60 * SLOW)
        assert sending.num_sent == len(sending.records)
        for _ in range(8):  # in all longer than the limit
            client.send(b"x")
            time.sleep(IDLE_S / 4)
        assert stack.proxy.metric("bytes_total", direction="up") - before >= MUCH + 8
        begin = time.monotonic()
        assert client.read() == b""  # a close_notify
        assert time.monotonic() - begin > IDLE_S * 0.5
    assert "done" in board.ends  # it was told of the end


def test_origin_that_never_answers_an_end(stack, board, connect):
    """The client ends, the origin has read it all and says nothing: half-closed, and no longer
    than that may last."""
    is_over = threading.Event()
    board.handler = lambda conn: (swallow(conn), is_over.wait(30 * SLOW))
    with ends(stack, "idle"):
        client = connect()
        client.send(b"and that was it")
        client.close_notify()
        begin = time.monotonic()
        assert client.read() == b""
        assert time.monotonic() - begin > IDLE_S * 0.9
    is_over.set()


# --- clients that send on while they have to wait ----------------------------------------------


def flood(sock, piece):
    """Sends until it is thrown out; returns how much was taken."""
    size = 0
    with contextlib.suppress(OSError):
        while size < MUCH:
            sock.sendall(piece)
            size += len(piece)
    return size


def trickle(sock, piece):
    """The same, a byte now and then."""
    with contextlib.suppress(OSError):
        for i in range(1000):
            sock.sendall(piece[i % len(piece):][:1])
            time.sleep(0.05)


def read_to_end(sock):
    with contextlib.suppress(OSError):
        while sock.recv(65536):
            pass


def wait_badly(stack, socks, is_waiting, limit_s):
    """Half of these flood, half trickle, until each is gone: in time, and at little cost."""
    piece = record(DATA, bytes(16384), 0x0303)
    begin = time.monotonic()

    def one(i):
        how = threading.Thread(target=(flood, trickle)[i % 2], args=(socks[i], piece))
        how.start()
        read_to_end(socks[i])
        took = time.monotonic() - begin
        how.join()
        return took

    with concurrent.futures.ThreadPoolExecutor(len(socks)) as pool:
        running = [pool.submit(one, i) for i in range(len(socks))]
        wait_until(is_waiting, "all to wait")
        assert all(done.result() < limit_s + LINGER_S + 5 * SLOW for done in running)


def test_clients_that_send_while_their_signature_is_made(stack):
    """SIGNING ends with the key server's deadline, whatever a client sends meanwhile."""
    num = 8
    failed = stack.proxy.failures("key_server_timeout")
    hello = tls.client_hello(stack.context())
    with costs_little(stack, num), contextlib.ExitStack() as opened:
        stack.keyserver.process.freeze()
        opened.callback(stack.keyserver.process.thaw)
        socks = [opened.enter_context(
            socket.create_connection(stack.proxy.address, timeout=30 * SLOW)) for _ in range(num)]
        for sock in socks:
            sock.sendall(hello)
        wait_badly(stack, socks, lambda: stack.proxy.metric("handshakes_signing") == num, SIGNING_S)
        wait_until(lambda: stack.proxy.failures("key_server_timeout") >= failed + num, "the count")
        assert stack.proxy.failures("key_server_timeout") == failed + num
        assert stack.proxy.metric("handshakes_signing") == 0
    wait_until(lambda: can_connect(stack), "the key server to be used again", 15)


def can_connect(stack):
    try:
        stack.connect().close()
        return True
    except OSError:
        return False


def test_clients_that_send_while_the_origin_is_connected_to(stack):
    """CONNECT ends with the pool's deadline."""
    num = 8
    keep = dict(stack.proxy.config["origin"])
    with contextlib.ExitStack() as opened:
        full = opened.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(8):  # its queue is full: SYNs are dropped from here on
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        stack.proxy.config["origin"]["address"] = "127.0.0.1:%d" % full.getsockname()[1]
        stack.proxy.reload()
        with costs_little(stack, num), ends(stack, "origin_timeout", num):
            clients = [opened.enter_context(MemoryTls(stack.proxy.address, stack.context(),
                                                      "demo.test", timeout=30))
                       for _ in range(num)]
            wait_badly(stack, [client.sock for client in clients], lambda: True, CONNECT_S)
    stack.proxy.config["origin"] = keep
    stack.proxy.reload()
