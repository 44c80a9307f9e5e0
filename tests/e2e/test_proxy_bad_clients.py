# SPDX-License-Identifier: Apache-2.0
"""Clients that are broken, hostile or slow: each ends alone, with the right alert, counted."""

import contextlib
import os
import random
import resource
import socket
import ssl
import struct
import time

import pytest

from support import tls
from support.procs import SANITIZE, SLOW, wait_until
from support.stack import BODY, Stack
from support.tls import ALERT, DATA, HANDSHAKE, Hello, MemoryTls, message, record

HANDSHAKE_FAILURE, UNEXPECTED_MESSAGE, RECORD_OVERFLOW, DECODE_ERROR = 40, 10, 22, 50
PROTOCOL_VERSION, ILLEGAL_PARAMETER = 70, 47
LIMIT_S = 1.0 * SLOW


@pytest.fixture(scope="module")
def stack(module_procs, module_pki):
    stack = Stack(module_procs, module_pki, issuer=False)
    stack.proxy.config["listeners"].append(
        {"name": "raw", "address": "127.0.0.1:0", "deferred": False})
    stack.proxy.config["limits"].update(handshake=f"{int(LIMIT_S * 1000)}ms", linger="500ms")
    stack.start()
    yield stack
    stack.stop()


@pytest.fixture(autouse=True)
def still_serves(stack):
    """After each of these the proxy serves an honest client, and holds nothing."""
    yield
    assert stack.get() == BODY
    wait_until(lambda: stack.proxy.metric("connections_open") == 0, "the connections to end")


def client_hello(stack, tls12=False):
    return tls.client_hello(stack.context(tls12=tls12))


def connect(stack, listener="main"):
    sock = socket.create_connection(stack.proxy.process.address(listener), timeout=5 * SLOW)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def read_to_end(sock):
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while True:
            data = sock.recv(65536)
            if not data:
                break
            got += data
    return got


def attack(stack, *parts, listener="main"):
    """Sends the parts and returns everything the proxy says until it ends."""
    with connect(stack, listener) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                sock.sendall(part)
        return read_to_end(sock)


def alert_of(answer):
    """The description of the plain fatal alert that the answer is."""
    kind, _, length = struct.unpack_from(">BHH", answer)
    assert (kind, length, len(answer)) == (ALERT, 2, 7), answer
    assert answer[5] == 2
    return answer[6]


@contextlib.contextmanager
def counts(stack, reason, num=1):
    before = stack.proxy.failures(reason)
    yield
    wait_until(lambda: stack.proxy.failures(reason) >= before + num, f"{num} {reason}")
    assert stack.proxy.failures(reason) == before + num


# --- ClientHello in every shape -------------------------------------------------------


def test_byte_by_byte(stack):
    client = MemoryTls(stack.proxy.address, stack.context(), "demo.test", handshake=False)
    with client:
        with contextlib.suppress(ssl.SSLWantReadError):
            client.tls.do_handshake()
        for byte in client.to_send.read():
            client.sock.sendall(bytes([byte]))
        client.handshake()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert client.read_all().endswith(BODY)


def test_one_byte_in_each_record(stack):
    raw = client_hello(stack)[5:]
    parts = b"".join(record(HANDSHAKE, raw[i:i + 1]) for i in range(len(raw)))
    with connect(stack) as sock:
        sock.sendall(parts)
        assert sock.recv(1)[0] == HANDSHAKE  # a ServerHello


def test_cut_short(stack):
    raw = client_hello(stack)
    for cut in (1, 4, 5, 6, 9, 50, len(raw) - 1):
        with counts(stack, "closed"), connect(stack) as sock:
            sock.sendall(raw[:cut])
            sock.shutdown(socket.SHUT_WR)
            assert read_to_end(sock) == b""


@pytest.mark.parametrize("kind, version, length, reason, alert", [
    (DATA, 0x0301, 200, "protocol", UNEXPECTED_MESSAGE),
    (20, 0x0301, 1, "protocol", UNEXPECTED_MESSAGE),  # ChangeCipherSpec
    (24, 0x0301, 200, "protocol", UNEXPECTED_MESSAGE),  # heartbeat
    (99, 0x0301, 200, "protocol", UNEXPECTED_MESSAGE),
    (HANDSHAKE, 0x0301, 0xffff, "malformed", RECORD_OVERFLOW),
    (HANDSHAKE, 0x4142, 200, "not_tls", PROTOCOL_VERSION),
])
def test_wrong_records(stack, kind, version, length, reason, alert):
    raw = struct.pack(">BHH", kind, version, length) + bytes(min(length, 20000))
    with counts(stack, reason):
        assert alert_of(attack(stack, raw)) == alert


@pytest.mark.parametrize("size", [0, 1, 100000, 0xffffff])
def test_wrong_message_lengths(stack, size):
    body = client_hello(stack)[9:]
    raw = record(HANDSHAKE, b"\x01" + size.to_bytes(3, "big") + body)
    with counts(stack, "malformed"):
        answer = attack(stack, raw, b"" if size < 2 else record(HANDSHAKE, bytes(16384)) * 8)
    assert alert_of(answer) in (DECODE_ERROR, ILLEGAL_PARAMETER)


def test_not_a_client_hello(stack):
    for kind in (0, 2, 11, 16, 20, 24):
        with counts(stack, "protocol"):
            assert alert_of(attack(stack, record(HANDSHAKE, message(bytes(40), kind)))) == \
                UNEXPECTED_MESSAGE


def test_a_thousand_unknown_extensions(stack):
    hello = Hello(client_hello(stack))
    hello.extensions = [(0x3000 + i, b"") for i in range(1000)] + hello.extensions
    with connect(stack) as sock:
        sock.sendall(record(HANDSHAKE, hello.pack()))
        assert sock.recv(1)[0] == HANDSHAKE


@pytest.mark.parametrize("kind", [0, 10, 13, 43, 51, 0x3000])
def test_duplicate_extension(stack, kind):
    hello = Hello(client_hello(stack))
    found = [e for e in hello.extensions if e[0] == kind] or [(kind, b"")]
    hello.extensions += found if found[0] in hello.extensions else found * 2
    with counts(stack, "malformed"):
        assert alert_of(attack(stack, record(HANDSHAKE, hello.pack()))) in (DECODE_ERROR,
                                                                            ILLEGAL_PARAMETER)


@pytest.mark.parametrize("kind, value", [
    (0, b"\x00"), (0, struct.pack(">HBH", 9, 0, 6) + b"a\x00b.te"), (13, b"\x00"), (13, b"\x00\x03\x04\x03\x05"),
    (10, b""), (43, b"\x03\x03"), (51, b"\x00\x10"), (16, b"\x00\x00"), (0x22, b"\x00"),
])
def test_malformed_extension(stack, kind, value):
    hello = Hello(client_hello(stack)).without(kind)
    hello.extensions.insert(0, (kind, value))
    with counts(stack, "malformed"):
        alert_of(attack(stack, record(HANDSHAKE, hello.pack())))


def test_extension_past_the_end(stack):
    raw = bytearray(record(HANDSHAKE, Hello(client_hello(stack)).pack()))
    raw[-1:] = b""
    raw[3:5] = struct.pack(">H", len(raw) - 5)
    raw[6:9] = (len(raw) - 9).to_bytes(3, "big")
    with counts(stack, "malformed"):
        assert alert_of(attack(stack, bytes(raw))) == DECODE_ERROR


def test_only_an_old_version(stack):
    hello = Hello(client_hello(stack)).without(43)
    raw = bytearray(hello.pack())
    raw[4:6] = b"\x03\x02"
    with counts(stack, "version"):
        assert alert_of(attack(stack, record(HANDSHAKE, bytes(raw)))) == PROTOCOL_VERSION


def test_ssl2_hello_of_an_old_client(stack):
    body = b"\x01\x03\x01" + struct.pack(">HHH", 6, 0, 16) + b"\x00\x00\x2f\x00\x00\x35" + bytes(16)
    with counts(stack, "version"):
        assert alert_of(attack(stack, struct.pack(">H", 0x8000 | len(body)) + body)) == \
            PROTOCOL_VERSION


@pytest.mark.parametrize("text", [b"GET / HTTP/1.1\r\nHost: demo.test\r\n\r\n", b"POST / HTTP/1.0\r\n\r\n",
                                  b"CONNECT demo.test:443 HTTP/1.1\r\n\r\n"])
def test_plain_http(stack, text):
    with counts(stack, "plaintext_http"):
        assert attack(stack, text) == b""


@pytest.mark.parametrize("text", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00" * 100, b"\xff" * 100,
                                  b"EHLO mail.test\r\n"])
def test_other_protocols(stack, text):
    before = stack.proxy.failures("not_tls") + stack.proxy.failures("protocol")
    attack(stack, text)
    assert stack.proxy.failures("not_tls") + stack.proxy.failures("protocol") == before + 1


def test_mutations(stack):
    """A few hundred ClientHellos with bytes changed: none hurts anybody else."""
    rng = random.Random(2024)
    accepted = stack.proxy.metric("connections_accepted_total")
    for i in range(300):
        raw = bytearray(client_hello(stack, tls12=i % 3 == 0))
        for _ in range(rng.choice((1, 1, 2, 5, 20))):
            raw[rng.randrange(5, len(raw))] = rng.randrange(256)
        with connect(stack) as sock:
            sock.sendall(bytes(raw))
            sock.shutdown(socket.SHUT_WR)
            read_to_end(sock)
    assert stack.proxy.metric("connections_accepted_total") == accepted + 300


# --- floods ----------------------------------------------------------------------------


def test_empty_records(stack):
    with counts(stack, "protocol"):
        attack(stack, record(HANDSHAKE, b"") * 1000)


def test_warning_alerts(stack):
    with counts(stack, "protocol"):
        attack(stack, record(ALERT, b"\x01\x5a") * 1000)


def test_fatal_alert_is_counted_by_name(stack):
    before = stack.proxy.metric("alerts_received_total", alert="access_denied")
    with counts(stack, "alert"):
        assert attack(stack, record(ALERT, b"\x02\x31")) == b""
    assert stack.proxy.metric("alerts_received_total", alert="access_denied") == before + 1


@pytest.mark.parametrize("tls12", [False, True])
def test_client_that_does_not_trust_us(stack, tls12):
    before = stack.proxy.metric("alerts_received_total", alert="unknown_ca")
    context = ssl.create_default_context()
    if tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    with counts(stack, "alert"), connect(stack) as sock, pytest.raises(ssl.SSLError):
        context.wrap_socket(sock, server_hostname="demo.test")
    assert stack.proxy.metric("alerts_received_total", alert="unknown_ca") == before + 1


def after_handshake(stack, what):
    before = stack.proxy.metric("connections_ended_total", outcome="client_protocol")
    with MemoryTls(stack.proxy.address, stack.context(), "demo.test") as client:
        with contextlib.suppress(ConnectionError):
            client.sock.sendall(what(client))
        read_to_end(client.sock)
    stack.proxy.wait_metric(before + 1, "connections_ended_total", outcome="client_protocol")


def test_bad_record_after_the_handshake(stack):
    after_handshake(stack, lambda client: record(DATA, os.urandom(100), 0x0303))


def test_replayed_record(stack):
    after_handshake(stack, lambda client: client.sealed(b"x") * 2)


def test_plaintext_after_the_handshake(stack):
    after_handshake(stack, lambda client: b"GET / HTTP/1.0\r\n\r\n")


def test_oversized_record_after_the_handshake(stack):
    after_handshake(stack, lambda client: struct.pack(">BHH", DATA, 0x0303, 16384 + 257) +
                    bytes(16384 + 257))


def test_plain_alert_after_the_handshake(stack):
    after_handshake(stack, lambda client: record(ALERT, b"\x02\x28", 0x0303))


# --- silence and slowness -----------------------------------------------------------------


def test_port_scan(stack):
    with counts(stack, "scan", 40):
        for i in range(40):
            connect(stack, "main" if i % 2 else "raw").close()


def test_port_scan_with_reset(stack):
    accepted = stack.proxy.metric("connections_accepted_total")
    before = stack.proxy.failures("scan")
    for _ in range(10):
        sock = connect(stack, "raw")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    # A reset may overtake the accept: then the kernel shows us nothing.
    wait_until(lambda: stack.proxy.failures("scan") - before >=
               stack.proxy.metric("connections_accepted_total") - accepted, "the resets")


def test_client_that_says_nothing(stack):
    with counts(stack, "silent"), connect(stack, "raw") as sock:
        start = time.monotonic()
        assert read_to_end(sock) == b""
        assert LIMIT_S * 0.9 < time.monotonic() - start < LIMIT_S * 2.5


def test_client_hello_that_never_ends(stack):
    """Slowloris: a byte now and then does not move the deadline."""
    raw = client_hello(stack)
    with counts(stack, "timeout"), connect(stack) as sock:
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in raw:
                sock.sendall(bytes([byte]))
                sock.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    if not sock.recv(1):
                        break
        assert LIMIT_S * 0.9 < time.monotonic() - start < LIMIT_S * 2.5


def test_half_a_handshake(stack):
    with counts(stack, "timeout"), connect(stack) as sock:
        sock.sendall(client_hello(stack))
        assert read_to_end(sock)[0] == HANDSHAKE  # our flight, and then the end


def test_hello_and_reset(stack):
    with counts(stack, "reset"):
        with connect(stack) as sock:
            sock.sendall(client_hello(stack))
            sock.recv(1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_thousands_that_send_one_byte(stack):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    num = min(1000 if SANITIZE else 3000, hard - 200)
    rss = stack.proxy.process.rss_bytes()
    with counts(stack, "timeout", num), contextlib.ExitStack() as opened:
        socks = [opened.enter_context(connect(stack)) for _ in range(num)]
        for sock in socks:
            sock.sendall(b"\x16")
        wait_until(lambda: stack.proxy.metric("connections_open") >= num * 0.9 or
                   stack.proxy.failures("timeout") > 0, "the connections")
        assert stack.get() == BODY  # an honest client among them
        wait_until(lambda: stack.proxy.metric("connections_open") == 0, "all of them to end")
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if not SANITIZE:  # which keeps what was freed
        assert stack.proxy.process.rss_bytes() - rss < num * 16 * 1024
