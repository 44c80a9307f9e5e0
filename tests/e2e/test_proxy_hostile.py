# SPDX-License-Identifier: Apache-2.0
"""Clients that know TLS well and mean harm: slow in every phase, floods of what is allowed
once, rightly encrypted nonsense. Each ends alone, with the right alert, counted; others are
served meanwhile, and the memory comes back.

All bad input and faults that the proxy has to bear, and where each is tried:

    slow in every phase       hostile.test_slow_in_every_phase relay.test_idle_connection_ends_in_order
      header of a balancer    hostile.test_slow_in_every_phase origins.test_a_header_that_does_not_come
      waits for a signature   stuck.test_clients_that_send_while_their_signature_is_made
                              keyservers.test_silence_ends_at_the_deadline
      waits for the store     store_faults.test_cold_names_wait_no_longer_than_they_may
      waits for the origin    stuck.test_clients_that_send_while_the_origin_is_connected_to
      half-closed             relay.test_half_closed_connection_has_its_own_limit
                              stuck.test_origin_that_never_answers_an_end
    thousands, of one byte    bad_clients.test_thousands_that_send_one_byte
    ClientHello byte by byte  bad_clients.test_byte_by_byte bad_clients.test_one_byte_in_each_record
      oversized               bad_clients.test_wrong_message_lengths
                              hostile.test_client_hello_as_long_as_can_be
      1,000 extensions        bad_clients.test_a_thousand_unknown_extensions
      duplicate extensions    bad_clients.test_duplicate_extension
    renegotiation             hostile.test_renegotiation handshake.test_renegotiation_is_refused
    record floods             hostile.test_flood_of_records_of_one_byte
                              hostile.test_flood_of_change_cipher_specs
                              hostile.test_early_data_that_was_not_asked_for
    zero-length records       bad_clients.test_empty_records hostile.test_rightly_sealed_and_wrong
    alert storms              bad_clients.test_warning_alerts hostile.test_rightly_sealed_and_wrong
    key-update floods         hostile.test_flood_of_key_updates
                              hostile.test_key_updates_with_data_in_between
    origin that refuses       relay.test_no_origin_is_a_clean_end origins.test_one_that_refuses
      hangs                   relay.test_origin_that_does_not_answer origins.test_one_that_hangs
      resets                  relay.test_origin_reset_gives_no_close_notify
                              origins.test_one_that_resets_is_counted
      closes half             relay.test_origin_ends_first_and_still_gets_the_rest
      sends, does not read    stuck.test_origin_that_sends_and_never_reads stuck.test_neither_reads
                              stuck.test_origin_that_sends_on_when_the_client_has_ended
                              relay.test_answer_of_an_origin_that_does_not_read_on
                              relay.test_slow_origin_holds_the_client_back
      reads, does not send    stuck.test_origin_that_reads_and_never_sends
                              stuck.test_origin_that_never_answers_an_end
    no descriptors            hostile.test_no_descriptors_left_for_new_ones
                              hostile.test_descriptors_for_clients_and_none_for_their_origins
                              operation.test_no_descriptors_left
    disk full for logs        sudden.test_disk_full_for_logs
                              sudden.test_standard_error_on_a_full_disk
                              sudden.test_standard_error_is_a_pipe_that_nobody_reads
                              operate.test_full_disk_costs_log_lines_and_nothing_else
    reload with a bad file    operation.test_bad_configuration_changes_nothing_and_says_why
                              ticket_keys.test_a_bad_file_changes_nothing
    reloads, upgrades, load   upgrade.test_upgrades_and_reloads_under_load_fail_nobody
    kill -9 in mid-handshake  sudden.test_key_server_killed_in_mid_handshake
                              sudden.test_issuer_killed_in_mid_request
    clock set by a day        sudden.test_clock_set_back_and_forth_by_a_day
    shedding                  protection.test_flood_of_handshakes_is_shed_before_live_traffic_starves
"""

import concurrent.futures
import contextlib
import pathlib
import re
import resource
import socket
import ssl
import struct
import threading
import time

import pytest

from support import tls
from support.hostile import ALERT, DATA, HANDSHAKE, WARNINGS, HostileTls, message
from support.procs import SANITIZE, SLOW, wait_until
from support.stack import Origin, Stack
from support.tls import Hello, MemoryTls, record

UNEXPECTED_MESSAGE = 10
HANDSHAKE_S, IDLE_S, LINGER_S = 1.0 * SLOW, 1.5 * SLOW, 0.5 * SLOW
MIB = 1 << 20

is_over = threading.Event()


def obey(conn):
    """Echoes; "stay" makes it stay when the client has ended, "pour" makes it send a lot."""
    first = conn.recv(65536)
    if first == b"pour":
        with contextlib.suppress(OSError):
            conn.sendall(bytes(64 * MIB))
        return
    conn.sendall(first)
    while data := conn.recv(65536):
        conn.sendall(data)
    if first == b"stay":
        is_over.wait(60 * SLOW)


@pytest.fixture(scope="module")
def stack(module_procs, module_pki):
    stack = Stack(module_procs, module_pki, issuer=False, origin=Origin(obey))
    config = stack.proxy.config
    config["workers"] = 1
    config["listeners"] += [
        {"name": "raw", "address": "127.0.0.1:0", "deferred": False},
        {"name": "balanced", "address": "127.0.0.1:0", "proxy_protocol": {"from": ["127.0.0.1"]}}]
    config["limits"].update(handshake=f"{int(HANDSHAKE_S * 1000)}ms",
                            idle=f"{int(IDLE_S * 1000)}ms", half_closed=f"{int(IDLE_S * 1000)}ms",
                            linger=f"{int(LINGER_S * 1000)}ms")
    stack.start()
    yield stack
    is_over.set()
    stack.origin.stop()


def is_served(stack):
    with stack.connect() as client:
        client.sendall(b"anybody there")
        return client.recv(100) == b"anybody there"


@pytest.fixture(autouse=True)
def still_serves(stack):
    yield
    assert is_served(stack)
    wait_until(lambda: stack.proxy.metric("connections_open") == 0, "the connections to end")


@pytest.fixture
def attack(stack, tmp_path):
    """Makes clients whose handshake is over; at the end they are closed."""
    with contextlib.ExitStack() as opened:
        yield lambda is_tls12=False: opened.enter_context(
            HostileTls(stack.proxy.address, stack.context(tls12=is_tls12), "demo.test", tmp_path))


def connect(stack, listener="main"):
    sock = socket.create_connection(stack.proxy.process.address(listener), timeout=20 * SLOW)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def read_to_end(sock):
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            got += data
    return got


def test_all_of_the_list_is_tried():
    """Every test that the text above names is there."""
    rows = re.findall(r"\b(\w+)\.(test_\w+)", __doc__)
    assert len(rows) > 45
    folder = pathlib.Path(__file__).parent
    for file, test in rows:
        texts = [path.read_text() for path in (folder / f"test_proxy_{file}.py",
                                               folder / f"test_{file}.py") if path.exists()]
        assert any(f"\ndef {test}(" in text for text in texts), (file, test)


# --- slow, in every phase ----------------------------------------------------------------


def trickle(sock, pieces):
    """Sends a piece now and then, until the other end is no more."""
    sock.settimeout(0.1)
    for piece in pieces:
        try:
            sock.sendall(piece)
            while sock.recv(65536):
                pass
            return
        except TimeoutError:
            pass
        except ConnectionError:
            return
    sock.settimeout(20 * SLOW)
    read_to_end(sock)


def bytes_of(data):
    return [bytes([byte]) for byte in data]


def says_nothing(stack, tmp_path):
    with connect(stack, "raw") as sock:
        read_to_end(sock)


# A balancer's header, of no connection of others (PROXY v2, LOCAL).
PROXY_HEADER = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\x20" + bytes(32)


def ends_no_proxy_header(stack, tmp_path):
    with connect(stack, "balanced") as sock:
        trickle(sock, bytes_of(PROXY_HEADER))


def says_nothing_after_the_proxy_header(stack, tmp_path):
    with connect(stack, "balanced") as sock:
        sock.sendall(PROXY_HEADER)
        read_to_end(sock)


def ends_no_client_hello(stack, tmp_path):
    with connect(stack) as sock:
        trickle(sock, bytes_of(tls.client_hello(stack.context())))


def ends_no_client_hello_of_many_records(stack, tmp_path):
    raw = tls.client_hello(stack.context())[5:]
    with connect(stack) as sock:
        trickle(sock, [record(HANDSHAKE, byte) for byte in bytes_of(raw)])


def says_nothing_to_the_server_hello(stack, tmp_path):
    with connect(stack) as sock:
        sock.sendall(tls.client_hello(stack.context()))
        trickle(sock, bytes_of(bytes([DATA, 3, 3, 0x40, 0]) + bytes(1000)))


def says_nothing_to_the_hello_retry_request(stack, tmp_path):
    hello = Hello(tls.client_hello(stack.context())).put(51, b"\0\0")
    with connect(stack) as sock:
        sock.sendall(record(HANDSHAKE, hello.pack()))
        assert sock.recv(65536)[0] == HANDSHAKE
        read_to_end(sock)


def says_nothing_to_the_flight_of_tls12(stack, tmp_path):
    with connect(stack) as sock:
        sock.sendall(tls.client_hello(stack.context(tls12=True)))
        trickle(sock, bytes_of(bytes([HANDSHAKE, 3, 3, 0x40, 0]) + bytes(1000)))


def shaken(stack, folder):
    return HostileTls(stack.proxy.address, stack.context(), "demo.test", folder, timeout=20)


def says_nothing_any_more(stack, tmp_path):
    with shaken(stack, tmp_path) as client:
        read_to_end(client.sock)


def ends_no_record(stack, tmp_path):
    with shaken(stack, tmp_path) as client:
        trickle(client.sock, bytes_of(client.seal(DATA, bytes(1000))))


def sends_empty_records(stack, tmp_path):
    with shaken(stack, tmp_path) as client:
        trickle(client.sock, [client.seal(DATA, b"") for _ in range(30)])


def ends_no_handshake_message(stack, tmp_path):
    """Of a message that may come, a KeyUpdate; its bytes are in records of their own."""
    with shaken(stack, tmp_path) as client:
        trickle(client.sock, [client.seal(HANDSHAKE, byte) for byte in bytes_of(b"\x18\0\0")])


def ends_and_is_not_ended(stack, tmp_path):
    """Half-closed: the origin goes on."""
    with shaken(stack, tmp_path) as client:
        client.send_record(DATA, b"stay")
        assert client.read() == b"stay"
        client.send_record(ALERT, b"\x01\x00")
        trickle(client.sock, bytes_of(bytes(1000)))


def reads_nothing(stack, tmp_path):
    """The origin has much to say; who does not read it is not waited for."""
    with shaken(stack, tmp_path) as client:
        client.send_record(DATA, b"pour")
        poll(client.sock)


def poll(sock):
    """Waits for the end without reading: an error or a hang-up of the socket."""
    deadline = time.monotonic() + 20 * SLOW
    while time.monotonic() < deadline:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        if info[0] != 1:  # not TCP_ESTABLISHED
            return
        time.sleep(0.02)


def goes_on_after_its_end(stack, tmp_path):
    """It broke the protocol, was told so, and sends on: DRAIN has a limit as well."""
    with shaken(stack, tmp_path) as client:
        client.throw(client.seal_key_update(2))
        trickle_on(client.sock)


def trickle_on(sock):
    with contextlib.suppress(ConnectionError):
        for _ in range(200):
            sock.sendall(b"x")
            time.sleep(0.05)


# Who: how long he is allowed, and how he is counted.
SLOW_ONES = [
    (says_nothing, HANDSHAKE_S, "silent"),
    (ends_no_proxy_header, HANDSHAKE_S, "timeout"),
    (says_nothing_after_the_proxy_header, HANDSHAKE_S, "silent"),
    (ends_no_client_hello, HANDSHAKE_S, "timeout"),
    (ends_no_client_hello_of_many_records, HANDSHAKE_S, "timeout"),
    (says_nothing_to_the_server_hello, HANDSHAKE_S, "timeout"),
    (says_nothing_to_the_hello_retry_request, HANDSHAKE_S, "timeout"),
    (says_nothing_to_the_flight_of_tls12, HANDSHAKE_S, "timeout"),
    (says_nothing_any_more, IDLE_S, "idle"),
    (ends_no_record, IDLE_S, "idle"),
    (sends_empty_records, IDLE_S, "idle"),
    (ends_no_handshake_message, IDLE_S, "idle"),
    (ends_and_is_not_ended, IDLE_S, "idle"),
    (reads_nothing, IDLE_S, "idle"),
    (goes_on_after_its_end, LINGER_S, "client_protocol"),
]


def times_ended(stack):
    return {reason: stack.proxy.metric("handshakes_failed_total", reason=reason) +
            stack.proxy.metric("connections_ended_total", outcome=reason)
            for _, _, reason in SLOW_ONES}


def test_slow_in_every_phase(stack, tmp_path):
    """All of them at once; a byte now and then moves no deadline, and nobody else waits."""

    def one(row):
        begin = time.monotonic()
        row[0](stack, tmp_path)
        return time.monotonic() - begin

    before = times_ended(stack)
    with concurrent.futures.ThreadPoolExecutor(len(SLOW_ONES)) as pool:
        took = pool.map(one, SLOW_ONES)
        for _ in range(5):
            assert is_served(stack)
        for (who, limit, _), seconds in zip(SLOW_ONES, took):
            assert limit * 0.9 < seconds < limit + LINGER_S + 2.5 * SLOW, (who.__name__, seconds)
    for reason, num in before.items():
        wanted = sum(row[2] == reason for row in SLOW_ONES)
        wait_until(lambda: times_ended(stack)[reason] >= num + wanted, reason)
        assert times_ended(stack)[reason] == num + wanted, reason


# --- floods in the handshake ---------------------------------------------------------------


def test_flood_of_change_cipher_specs(stack):
    """Each may be ignored once (RFC 8446, section 5); not for ever."""
    before = stack.proxy.failures("protocol")
    with connect(stack) as sock:
        sock.sendall(tls.client_hello(stack.context()))
        with contextlib.suppress(ConnectionError):
            sock.sendall(record(20, b"\x01", 0x0303) * 5000)
        read_to_end(sock)
    stack.proxy.wait_metric(before + 1, "handshakes_failed_total", reason="protocol")


def test_early_data_that_was_not_asked_for(stack):
    """It is passed over without being opened (RFC 8446, section 4.2.10), up to a limit."""
    hello = Hello(tls.client_hello(stack.context()))
    hello.extensions.insert(0, (42, b""))
    before = stack.proxy.failures("protocol")
    with connect(stack) as sock:
        sock.sendall(record(HANDSHAKE, hello.pack()))
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                sock.sendall(record(DATA, bytes(16000), 0x0303))
        read_to_end(sock)
    stack.proxy.wait_metric(before + 1, "handshakes_failed_total", reason="protocol")


def test_client_hello_as_long_as_can_be(stack):
    """Grown to the last byte by extensions that nobody knows; too long for a message."""
    before = stack.proxy.failures("malformed")
    body = tls.client_hello(stack.context())[9:]
    with connect(stack) as sock:
        with contextlib.suppress(ConnectionError):
            raw = message(body + bytes(0xfffff0 - len(body)))
            for at in range(0, 2 * MIB, 16384):
                sock.sendall(record(HANDSHAKE, raw[at:at + 16384]))
        read_to_end(sock)
    stack.proxy.wait_metric(before + 1, "handshakes_failed_total", reason="malformed")


def test_failed_handshake_outlives_what_it_was_answered_from(stack):
    """Its chain is the connection's until that ends; a reload meanwhile frees the rest."""
    with contextlib.ExitStack() as opened:
        for _ in range(5):
            sock = opened.enter_context(connect(stack))
            sock.sendall(tls.client_hello(stack.context()))
            assert sock.recv(65536)[0] == HANDSHAKE
            sock.sendall(record(DATA, bytes(100), 0x0303))
            stack.proxy.reload()


# --- after the handshake ----------------------------------------------------------------------

BOTH = (False, True)


@contextlib.contextmanager
def faults(stack, reason, num=1):
    before = stack.proxy.metric("client_faults_total", reason=reason)
    ended = stack.proxy.metric("connections_ended_total", outcome="client_protocol")
    yield
    stack.proxy.wait_metric(ended + num, "connections_ended_total", outcome="client_protocol")
    assert stack.proxy.metric("client_faults_total", reason=reason) == before + num


@pytest.mark.parametrize("is_tls12", BOTH)
@pytest.mark.parametrize("kind, content, num, alert, reason", [
    (DATA, b"", 5000, "unexpected message", "empty_records"),
    (ALERT, WARNINGS["user_canceled"], 5000, "unexpected message", "warning_alerts"),
    (ALERT, b"\x03\x28", 1, "illegal parameter", "other"),  # neither warning nor fatal
    (ALERT, b"\x01", 1, "decode error", "other"),
    (ALERT, b"\x02\x28", 1, None, "alert"),
    (20, b"\x01", 1, "unexpected message", "other"),
    (99, b"\x01", 1, "unexpected message", "other"),
])
def test_rightly_sealed_and_wrong(stack, attack, is_tls12, kind, content, num, alert, reason):
    client = attack(is_tls12)
    with faults(stack, reason):
        client.send_record(kind, content, num)
        assert client.end() == alert


@pytest.mark.parametrize("content, alert, reason", [
    (message(bytes(40), 1), "unexpected message", "other"),  # a ClientHello
    (message(b"", 0), "unexpected message", "other"),
    (message(bytes(64), 20), "unexpected message", "other"),  # a second Finished
    (b"\x18\xff\xff\xff" + bytes(16000), "illegal parameter", "oversized"),
    (message(b"\x02", 24), "decode error", "other"),  # a KeyUpdate that asks for neither
    (message(b"", 24), "decode error", "other"),
])
def test_messages_that_may_not_come(stack, attack, content, alert, reason):
    client = attack()
    with faults(stack, reason):
        client.send_record(HANDSHAKE, content)
        assert client.end() == alert


def test_message_with_data_in_between(stack, attack):
    client = attack()
    with faults(stack, "other"):
        client.throw(client.seal(HANDSHAKE, b"\x18") + client.seal(DATA, b"x"))
        assert client.end() == "unexpected message"


@pytest.mark.parametrize("num", [1, 500])
def test_renegotiation(stack, attack, num):
    """RFC 5246, section 7.4.1: refused, however often it is asked for."""
    client = attack(is_tls12=True)
    with faults(stack, "renegotiation"):
        client.send_record(HANDSHAKE, tls.client_hello(stack.context(tls12=True))[5:], num)
        assert client.end() == "no renegotiation"


@pytest.mark.parametrize("is_requested", [0, 1])
def test_flood_of_key_updates(stack, attack, is_requested):
    client = attack()
    with faults(stack, "key_updates"):
        client.throw(b"".join(client.seal_key_update(is_requested) for _ in range(1000)))
        assert client.end() == "unexpected message"


def test_key_updates_with_data_in_between(stack, attack):
    """Which is allowed. Nobody reads our answers to them: they do not pile up."""
    client = attack()
    rss = stack.proxy.process.rss_bytes()
    pieces = [client.seal_key_update(1) + client.seal(DATA, b"z") for _ in range(4000)]
    client.throw(b"".join(pieces))
    assert is_served(stack)
    if not SANITIZE:
        assert stack.proxy.process.rss_bytes() - rss < 2 * MIB
    assert client.read_exactly(4000) == b"z" * 4000


@pytest.mark.parametrize("is_tls12", BOTH)
def test_flood_of_records_of_one_byte(stack, attack, is_tls12):
    """Allowed as well: all of them arrive, and others are served meanwhile."""
    num = 4000 if SANITIZE else 20000
    client = attack(is_tls12)
    # As they are made: who falls silent for as long as that takes is idle.
    writer = threading.Thread(target=lambda: [client.send_record(DATA, b"y", 100)
                                              for _ in range(num // 100)])
    writer.start()
    try:
        assert is_served(stack)
        assert client.read_exactly(num) == b"y" * num
    finally:
        writer.join()


# --- no descriptors ------------------------------------------------------------------------------


def test_no_descriptors_left_for_new_ones(stack):
    """Who is connected goes on; who comes waits in the kernel's queue, and is served."""
    process = stack.proxy.process
    answers = []
    with contextlib.ExitStack() as opened:
        live = [opened.enter_context(stack.connect()) for _ in range(5)]

        def all_talk():
            for client in live:
                client.sendall(b"still here")
                assert client.recv(100) == b"still here"

        all_talk()
        before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        refused = stack.proxy.metric("connections_refused_total", reason="descriptors")
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (8, before[1]))  # lower ones are in use
        late = threading.Thread(target=lambda: answers.append(is_served(stack)))
        try:
            late.start()
            wait_until(lambda: "accept_paused" in stack.proxy.log(), "the pause")
            all_talk()
            all_talk()
            assert not answers
        finally:
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
        late.join()
        assert answers == [True]
        assert stack.proxy.metric("connections_refused_total", reason="descriptors") > refused
        all_talk()


def test_descriptors_for_clients_and_none_for_their_origins(stack):
    """The last one goes to a client: an orderly end, which is not held against the origin."""
    process = stack.proxy.process
    ends = stack.proxy.metric("connections_ended_total", outcome="origin_refused")
    local = stack.proxy.metric("origin_failures_total", reason="local")
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    with stack.connect() as live:
        live.sendall(b"already here")  # the origin's socket is there as well
        assert live.recv(100) == b"already here"

        def is_scarce():
            """Leaves the lowest that is free; who asked for metrics just now may still hold one."""
            used = {int(path.name) for path in pathlib.Path(f"/proc/{process.pid}/fd").iterdir()}
            free = next(i for i in range(len(used) + 1) if i not in used)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (free + 1, before[1]))
            with stack.connect() as client, contextlib.suppress(OSError):
                client.sendall(b"is there an origin")
                return client.recv(100) == b""
            return True

        try:
            wait_until(is_scarce, "no descriptor for an origin")
            for _ in range(5):
                with stack.connect() as client:
                    assert client.recv(100) == b""  # a close_notify
                live.sendall(b"still here")
                assert live.recv(100) == b"still here"
        finally:
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
    stack.proxy.wait_metric(ends + 6, "connections_ended_total", outcome="origin_refused")
    assert stack.proxy.metric("origin_failures_total", reason="local") == local + 6
    assert "origin_out" not in stack.proxy.log()


# --- after it all ----------------------------------------------------------------------------------


def some_of_everything(stack, folder):
    for is_tls12 in BOTH:
        for kind, content, num in ((DATA, b"", 100), (ALERT, b"\x03\x28", 1),
                                   (HANDSHAKE, b"\x18\xff\xff\xff" + bytes(16000), 1)):
            with HostileTls(stack.proxy.address, stack.context(tls12=is_tls12), "demo.test",
                            folder) as client:
                client.send_record(kind, content, num)
                client.end()
    for _ in range(20):
        with connect(stack) as sock:
            sock.sendall(tls.client_hello(stack.context())[:200])


@pytest.mark.skipif(bool(SANITIZE), reason="a sanitizer keeps what was freed")
def test_memory_comes_back(stack, tmp_path):
    for _ in range(5):
        some_of_everything(stack, tmp_path)
    wait_until(lambda: stack.proxy.metric("connections_open") == 0, "the connections to end")
    rss, fds = stack.proxy.process.rss_bytes(), stack.proxy.process.num_fds()
    for _ in range(15):
        some_of_everything(stack, tmp_path)
    wait_until(lambda: stack.proxy.metric("connections_open") == 0, "the connections to end")
    wait_until(lambda: stack.proxy.process.num_fds() <= fds, "descriptors to be closed")
    assert stack.proxy.process.rss_bytes() - rss < 2 * MIB
