# SPDX-License-Identifier: Apache-2.0
"""Bytes both ways: every byte, every kind of end, slow peers, broken peers."""

import concurrent.futures
import contextlib
import hashlib
import random
import socket
import ssl
import struct
import threading
import time

import pytest

from support.procs import SANITIZE, SLOW, wait_until
from support.stack import Origin, Stack, echo, read_head
from support.tls import MemoryTls

MIB = 1 << 20
# What one stuck connection may cost; ASan keeps freed memory for a while.
RSS_SLACK = (512 if SANITIZE else 1) * MIB  # a sanitizer keeps what was freed


def blob(size, seed=1):
    return random.Random(seed).randbytes(size)


def digest(data):
    return hashlib.sha256(data).hexdigest().encode()


def receive_all(conn):
    got = hashlib.sha256()
    size = 0
    while True:
        data = conn.recv(1 << 16)
        if not data:
            return size, got.hexdigest().encode()
        got.update(data)
        size += len(data)


class Switchboard:
    """An origin whose behaviour each test sets."""

    def __init__(self):
        self.handler = None
        self.done = threading.Event()
        self.result = None
        self.closed = threading.Event()

    def use(self, handler):
        self.handler = handler
        self.done.clear()
        self.result = None

    def __call__(self, conn):
        try:
            self.result = self.handler(conn)
        except OSError as e:
            self.result = e
        finally:
            self.done.set()

    def wait(self, timeout=20):
        assert self.done.wait(timeout * SLOW), "the origin has not finished"
        return self.result


@pytest.fixture(scope="module")
def board():
    return Switchboard()


@pytest.fixture(scope="module")
def stack(module_procs, module_pki, board):
    stack = Stack(module_procs, module_pki, origin=Origin(board), issuer=False)
    stack.proxy.config["limits"].update(idle="3s", half_closed="1500ms", linger="1500ms")
    stack.proxy.config["origin"]["connect_timeout"] = "1s"
    stack.start()
    yield stack
    stack.origin.stop()


@pytest.fixture
def connect(stack):
    """Makes client connections that are closed at the end."""
    with contextlib.ExitStack() as opened:
        yield lambda **kwargs: opened.enter_context(
            MemoryTls(stack.proxy.address, stack.context(tls12=kwargs.pop("tls12", False)),
                      "demo.test", **kwargs))


def outcome(stack, name):
    return stack.proxy.metric("connections_ended_total", outcome=name)


# --- every byte --------------------------------------------------------------------


@pytest.mark.parametrize("tls12", [False, True])
def test_big_bodies_both_ways_at_once(stack, board, connect, tls12):
    board.use(echo)
    data = blob(24 * MIB)
    client = connect(tls12=tls12, timeout=60)
    sender = threading.Thread(target=lambda: [client.sock.sendall(s) for s in sealed])
    sealed = [client.sealed(data[at:at + 16384]) for at in range(0, len(data), 16384)]
    sender.start()
    assert digest(client.read_exactly(len(data))) == digest(data)
    sender.join()
    client.close_notify()
    assert client.read() == b""


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 65536, 65537, 66000, 131072, 3 * MIB])
def test_answers_of_every_size(stack, board, connect, size):
    data = blob(size, size)

    def answer(conn):
        conn.recv(1)
        conn.sendall(data)

    board.use(answer)
    client = connect()
    client.send(b"x")
    assert client.read_all() == data


@pytest.mark.parametrize("size", [1, 16384, 16385, 66000, 3 * MIB])
def test_requests_of_every_size(stack, board, connect, size):
    board.use(receive_all)
    data = blob(size, size)
    client = connect()
    client.send(data)
    client.close_notify()
    assert client.read() == b""
    assert board.wait() == (size, digest(data))


def test_record_byte_by_byte(stack, board, connect):
    board.use(receive_all)
    client = connect()
    for byte in client.sealed(b"slow but whole"):
        client.sock.sendall(bytes([byte]))
    client.close_notify()
    assert board.wait() == (14, digest(b"slow but whole"))


def test_ping_pong_has_no_delay_in_it(stack, board, connect):
    board.use(echo)
    client = connect()
    start = time.monotonic()
    for i in range(100):
        client.send(b"%d" % i)
        assert client.read() == b"%d" % i
    assert time.monotonic() - start < 2 * SLOW  # Nagle would make it four


def test_origin_that_speaks_first(stack, board, connect):
    board.use(lambda conn: (conn.sendall(b"220 ready\r\n"), conn.recv(10)))
    client = connect()
    assert client.read() == b"220 ready\r\n"
    client.send(b"quit")
    assert client.read() == b""


def test_many_connections_at_once(stack, board):
    board.use(echo)

    def one(seed):
        data = blob(random.Random(seed).randrange(1, 300000), seed)
        with MemoryTls(stack.proxy.address, stack.context(), "demo.test", timeout=60) as client:
            writer = threading.Thread(target=client.sock.sendall, args=(client.sealed(data),))
            writer.start()
            assert client.read_exactly(len(data)) == data
            writer.join()
            client.close_notify()
            assert client.read() == b""

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(150)))


# --- ends -----------------------------------------------------------------------------


def test_client_ends_first_and_still_gets_the_answer(stack, board, connect):
    def handler(conn):
        size, got = receive_all(conn)  # up to the client's end
        conn.sendall(got)
        return size

    board.use(handler)
    data = blob(2 * MIB)
    client = connect()
    client.send(data)
    client.close_notify()
    assert client.read_all() == digest(data)
    assert board.wait() == len(data)


def test_origin_ends_first_and_still_gets_the_rest(stack, board, connect):
    greeting = blob(MIB, 7)

    def handler(conn):
        conn.sendall(greeting)
        conn.shutdown(socket.SHUT_WR)
        return receive_all(conn)

    board.use(handler)
    client = connect()
    assert client.read_all() == greeting  # up to our close_notify
    data = blob(MIB, 8)
    client.send(data)
    client.close_notify()
    assert board.wait() == (len(data), digest(data))


def test_client_that_leaves_without_close_notify(stack, board, connect):
    before = outcome(stack, "truncated")
    board.use(receive_all)
    client = connect()
    client.send(b"half a word")
    client.sock.shutdown(socket.SHUT_WR)
    assert client.read() == b""
    assert board.wait() == (11, digest(b"half a word"))
    wait_until(lambda: outcome(stack, "truncated") == before + 1, "the end")


def test_truncated_record_ends_like_it(stack, board, connect):
    board.use(receive_all)
    client = connect()
    client.sock.sendall(client.sealed(b"whole") + client.sealed(b"cut")[:-5])
    client.sock.shutdown(socket.SHUT_WR)
    assert board.wait() == (5, digest(b"whole"))


def test_client_reset_reaches_the_origin_as_one(stack, board, connect):
    board.use(receive_all)
    before = outcome(stack, "client_reset")
    client = connect()
    client.send(b"x")
    wait_until(lambda: stack.proxy.metric("bytes_total", direction="up") > 0, "the byte")
    client.reset()
    assert isinstance(board.wait(), ConnectionResetError)
    wait_until(lambda: outcome(stack, "client_reset") == before + 1, "the end")


def test_origin_reset_gives_no_close_notify(stack, board, connect):
    def handler(conn):
        conn.recv(1)
        conn.sendall(b"half an answer")
        # Not before the proxy has taken it: a reset would drop it.
        wait_until(lambda: stack.proxy.metric("bytes_total", direction="down") >= want, "the bytes")
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        conn.close()

    want = stack.proxy.metric("bytes_total", direction="down") + 14
    before = outcome(stack, "origin_reset")
    board.use(handler)
    client = connect()
    client.send(b"x")
    assert client.read_exactly(14) == b"half an answer"
    with pytest.raises(ssl.SSLError, match="(?i)eof"):
        client.read()
    assert outcome(stack, "origin_reset") == before + 1


def test_answer_of_an_origin_that_does_not_read_on(stack, board, connect):
    """As HTTP servers answer 413: early, and the rest of the request is refused."""

    def handler(conn):
        read_head(conn)
        conn.sendall(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\n\r\n")

    board.use(handler)
    client = connect()
    client.send(b"POST / HTTP/1.1\r\nContent-Length: 50000000\r\n\r\n")
    with contextlib.suppress(OSError):
        client.send(blob(8 * MIB))
    assert b"413 Too Large" in client.read()


# --- slow peers ------------------------------------------------------------------------


def test_slow_reader_holds_the_origin_back(stack, board, connect):
    size = 50 * MIB
    sent = [0]

    def handler(conn):
        data = blob(MIB)
        conn.recv(1)
        for _ in range(size // MIB):
            conn.sendall(data)
            sent[0] += 1

    board.use(handler)
    client = connect(rcvbuf=32768, timeout=60)
    rss = stack.proxy.process.rss_bytes()
    before = stack.proxy.metric("bytes_total", direction="down")
    client.send(b"x")
    # Nobody reads: what is sent settles at what the kernel and one block hold.
    settled = wait_until_settled(lambda: stack.proxy.metric("bytes_total", direction="down") - before)
    assert sent[0] < size // MIB - 10
    assert stack.proxy.process.rss_bytes() - rss < RSS_SLACK, settled
    assert len(client.read_all()) == size
    board.wait()


def test_slow_origin_holds_the_client_back(stack, board, connect):
    go = threading.Event()

    def handler(conn):
        go.wait(30 * SLOW)
        return receive_all(conn)

    board.use(handler)
    client = connect(timeout=60)
    rss = stack.proxy.process.rss_bytes()
    before = stack.proxy.metric("bytes_total", direction="up")
    data = blob(30 * MIB)
    records = [client.sealed(data[at:at + 16384]) for at in range(0, len(data), 16384)]
    writer = threading.Thread(target=lambda: [client.sock.sendall(r) for r in records])
    writer.start()
    settled = wait_until_settled(lambda: stack.proxy.metric("bytes_total", direction="up") - before)
    assert settled < len(data) - 5 * MIB
    assert stack.proxy.process.rss_bytes() - rss < RSS_SLACK
    go.set()
    writer.join()
    client.close_notify()
    assert board.wait(60) == (len(data), digest(data))


def wait_until_settled(value, rounds=10):
    """The value once it has not changed for a while."""
    history = []

    def settled():
        history.append(value())
        return len(history) > rounds and len(set(history[-rounds:])) == 1 and history[-1] > 0

    wait_until(settled, "the bytes to settle", 30, interval=0.02)
    return history[-1]


def test_idle_connection_ends_in_order(stack, board, connect):
    board.use(receive_all)
    before = outcome(stack, "idle")
    client = connect()
    start = time.monotonic()
    assert client.read() == b""  # a close_notify
    assert 2.5 < time.monotonic() - start < 4.5 * SLOW
    assert outcome(stack, "idle") == before + 1


def test_bytes_keep_a_connection_alive(stack, board, connect):
    board.use(echo)
    client = connect()
    for _ in range(5):
        time.sleep(0.9)  # in all longer than the idle limit
        client.send(b"x")
        assert client.read() == b"x"


def test_half_closed_connection_has_its_own_limit(stack, board, connect):
    board.use(lambda conn: (conn.shutdown(socket.SHUT_WR), receive_all(conn)))
    before = outcome(stack, "idle")
    client = connect()
    assert client.read() == b""
    start = time.monotonic()
    wait_until(lambda: outcome(stack, "idle") == before + 1, "the limit")
    assert time.monotonic() - start < 2.9 * SLOW


# --- origins that are not there --------------------------------------------------------------


def test_no_origin_is_a_clean_end(stack, board, connect):
    before = outcome(stack, "origin_refused")
    keep = dict(stack.proxy.config["origin"])
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: refused
        stack.proxy.config["origin"]["address"] = "127.0.0.1:%d" % closed.getsockname()[1]
        stack.proxy.reload()
        assert connect().read() == b""
    assert outcome(stack, "origin_refused") == before + 1
    stack.proxy.config["origin"] = keep
    stack.proxy.reload()


def test_origin_that_does_not_answer(stack, board, connect):
    before = outcome(stack, "origin_timeout")
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
        start = time.monotonic()
        assert connect().read() == b""
        assert time.monotonic() - start < 2.5 * SLOW
    assert outcome(stack, "origin_timeout") == before + 1
    stack.proxy.config["origin"] = keep
    stack.proxy.reload()


def test_unix_socket_origin(stack, board, connect, tmp_path):
    keep = dict(stack.proxy.config["origin"])
    path = str(tmp_path / "origin.sock")
    origin = Origin(echo, socket.AF_UNIX, path)
    stack.proxy.config["origin"]["address"] = f"unix:{path}"
    stack.proxy.reload()
    client = connect()
    client.send(b"over a UNIX socket")
    assert client.read() == b"over a UNIX socket"
    stack.proxy.config["origin"] = keep
    stack.proxy.reload()
    # A connection that was there before the reload stays with its origin.
    client.send(b"still")
    assert client.read() == b"still"
    origin.stop()


# --- after it all ------------------------------------------------------------------------------


def test_nothing_is_left_behind(stack):
    wait_until(lambda: stack.proxy.metric("connections_open") == 0, "the last connection", 15)
    fds = stack.proxy.process.num_fds()
    for _ in range(20):
        with contextlib.suppress(OSError, AssertionError):
            stack.get()
    wait_until(lambda: stack.proxy.metric("connections_open") == 0, "the last connection", 15)
    wait_until(lambda: stack.proxy.process.num_fds() <= fds, "descriptors to be closed")
