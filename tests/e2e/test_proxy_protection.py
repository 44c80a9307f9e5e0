# SPDX-License-Identifier: Apache-2.0
"""Who is refused so that others are not harmed: the budget of handshakes, the share of
time, the limits of one address, the ceiling of memory. Each refusal has its counter."""

import concurrent.futures
import contextlib
import json
import socket

import pytest

from support import tls
from support.procs import SANITIZE, SLOW, wait_until
from support.stack import Origin, Stack, echo


@pytest.fixture(scope="module")
def stack(module_procs, module_pki):
    stack = Stack(module_procs, module_pki, issuer=False, origin=Origin(echo))
    stack.proxy.config["workers"] = 1
    stack.proxy.config["key_servers"] = {"deadline": "30s", "attempt_timeout": "30s"}
    stack.proxy.config["limits"].update(handshake=f"{20 * SLOW}s", linger="300ms")
    stack.start()
    yield stack
    stack.origin.stop()


@pytest.fixture
def limits(stack):
    """Sets limits; at the end all is as it was, and nobody is there any more."""
    keep = json.dumps(stack.proxy.config)

    def set_limits(**values):
        stack.proxy.config["limits"].update(values)
        stack.proxy.reload()

    yield set_limits
    stack.proxy.config = json.loads(keep)
    stack.proxy.reload()
    wait_until(lambda: stack.proxy.metric("connections_open") == 0, "the connections to end")
    with stack.connect() as client:
        assert talks(client)


def talks(client):
    client.sendall(b"are you there")
    return client.recv(100) == b"are you there"


def refused(stack, reason):
    return stack.proxy.metric("connections_refused_total", reason=reason)


def connect(stack, source="127.0.0.1", hello=None, timeout=10):
    """A plain connection that has said `hello`: by that it is accepted."""
    sock = socket.create_connection(stack.proxy.address, timeout=timeout * SLOW,
                                    source_address=(source, 0))
    sock.sendall(hello or tls.client_hello(stack.context()))
    return sock


def is_served(sock):
    """Whether a ServerHello comes, or the end."""
    try:
        return sock.recv(1) == b"\x16"
    except ConnectionResetError:
        return False


@contextlib.contextmanager
def closing(socks):
    try:
        yield socks
    finally:
        for sock in socks:
            sock.close()


# --- the budget of handshakes -----------------------------------------------------------


def test_old_handshakes_make_room_for_new_ones(stack, limits):
    """Slowloris holds the whole budget, and shuts nobody out: its oldest handshake goes."""
    with closing([]) as socks, stack.connect() as live:
        limits(handshakes=20)
        before = stack.proxy.failures("displaced")
        for _ in range(20):
            socks.append(connect(stack))
            assert is_served(socks[-1])
        wait_until(lambda: stack.proxy.metric("handshakes_under_way") == 20, "all of them")
        # None of them stands still for long enough: the next one is one too many.
        sock = connect(stack)
        socks.append(sock)
        if not is_served(sock):
            assert refused(stack, "handshakes") >= 1
        wait_until(lambda: can_connect(stack), "an honest client to get through")
        assert talks(live)
        assert stack.proxy.failures("displaced") > before
        assert stack.proxy.metric("handshakes_under_way") <= 20


def can_connect(stack, **kwargs):
    try:
        with stack.connect(**kwargs) as client:
            return talks(client)
    except OSError:
        return False


def test_handshakes_that_wait_for_a_key_server_are_not_displaced(stack, limits):
    """They wait for us, not for their clients: who comes then is refused at once."""
    before = refused(stack, "handshakes")
    displaced = stack.proxy.failures("displaced")
    keyserver = stack.keyserver.process
    with closing([]) as socks:
        limits(handshakes=5)
        keyserver.freeze()
        try:
            socks += [connect(stack) for _ in range(5)]
            wait_until(lambda: stack.proxy.metric("handshakes_signing") == 5, "the signatures")
            sock = connect(stack)
            socks.append(sock)
            assert not is_served(sock)
            assert refused(stack, "handshakes") == before + 1
        finally:
            keyserver.thaw()
        for sock in socks[:5]:
            assert is_served(sock)
    assert stack.proxy.failures("displaced") == displaced


# --- the share of time -------------------------------------------------------------------


def test_flood_of_handshakes_is_shed_before_live_traffic_starves(stack, limits):
    """The limit is set so low that any batch of handshakes reaches it. Who is connected
    goes on; after the flood new clients come in again."""
    hello = tls.client_hello(stack.context())
    limits(handshake_lag="1ms", handshake_share=5)
    before = refused(stack, "busy")
    with stack.connect() as live:
        for _ in range(10):
            # Stopped, it finds them all at once.
            stack.proxy.process.freeze()
            try:
                socks = [connect(stack, hello=hello) for _ in range(200)]
                live.sendall(b"in between")
            finally:
                stack.proxy.process.thaw()
            with closing(socks):
                assert live.recv(100) == b"in between"
                served = [is_served(sock) for sock in socks]
            assert any(served)
            if refused(stack, "busy") > before:
                break
        assert refused(stack, "busy") > before
        assert not all(served)
        assert stack.proxy.metric("handshakes_failed_total", reason="busy") == 0
        wait_until(lambda: can_connect(stack), "new clients to be served again")
        assert talks(live)
    wait_until(lambda: stack.proxy.metric("shedding", reason="busy") == 0, "the end of it")


def test_crowd_is_served_when_nobody_is_there_to_be_protected(stack, limits):
    hello = tls.client_hello(stack.context())
    limits(handshake_lag="1ms", handshake_share=5)
    wait_until(lambda: stack.proxy.metric("connections_open") == 0, "everybody to be gone")
    before = refused(stack, "busy")
    stack.proxy.process.freeze()
    try:
        socks = [connect(stack, hello=hello) for _ in range(200)]
    finally:
        stack.proxy.process.thaw()
    with closing(socks):
        assert all(is_served(sock) for sock in socks)
    assert refused(stack, "busy") == before


# --- one address -----------------------------------------------------------------------------


def test_connections_of_one_address(stack, limits):
    limits(address_connections=5)
    before = refused(stack, "address_connections")
    with closing([]) as socks:
        for _ in range(5):
            socks.append(connect(stack, "127.0.0.2"))
            assert is_served(socks[-1])
        sock = connect(stack, "127.0.0.2")
        socks.append(sock)
        assert not is_served(sock)
        assert refused(stack, "address_connections") == before + 1
        assert can_connect(stack)  # another address
        socks[0].close()
        wait_until(lambda: is_served(again := connect(stack, "127.0.0.2")) and
                   socks.append(again) is None, "its place")
        limits(address_connections=0)
        socks.append(connect(stack, "127.0.0.2"))
        assert is_served(socks[-1])


def test_new_connections_of_one_address(stack, limits):
    limits(address_rate=2)
    hello = tls.client_hello(stack.context())
    before = refused(stack, "address_rate")
    with closing([connect(stack, "127.0.0.3", hello) for _ in range(40)]) as socks:
        served = sum(is_served(sock) for sock in socks)
    assert 2 <= served < 40
    assert refused(stack, "address_rate") == before + 40 - served
    assert can_connect(stack)
    wait_until(lambda: is_served(connect(stack, "127.0.0.3")), "its turn")


def test_subscriber_has_a_whole_prefix_of_ipv6(stack, limits):
    if not socket.has_ipv6:
        pytest.skip("there is no IPv6 here")
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("there is no IPv6 here")
    stack.proxy.config["listeners"].append({"name": "six", "address": "[::1]:0"})
    limits(address_connections=2)
    address = next(l["address"] for l in stack.proxy.status()["listeners"] if l["name"] == "six")
    port = int(address.rpartition(":")[2])
    before = refused(stack, "address_connections")
    hello = tls.client_hello(stack.context())
    with closing([]) as socks:
        for _ in range(3):
            socks.append(socket.create_connection(("::1", port), timeout=10 * SLOW))
            socks[-1].sendall(hello)
        assert [is_served(sock) for sock in socks] == [True, True, False]
    assert refused(stack, "address_connections") == before + 1


# --- memory ------------------------------------------------------------------------------------


@pytest.mark.skipif(bool(SANITIZE), reason="a sanitizer keeps what was freed")
def test_memory_ceiling(stack, limits):
    """Half-open handshakes fill the memory; above the ceiling nobody comes in, who is
    there goes on, and when they are gone the ceiling is left."""
    hello = tls.client_hello(stack.context())
    with stack.connect() as live:
        bytes_now = int(stack.proxy.metric("memory_bytes"))
        limits(memory=bytes_now + (6 << 20))
        before = refused(stack, "memory_ceiling")
        with closing([]) as socks:

            def is_reached():
                socks.extend(connect(stack, hello=hello) for _ in range(50))
                return refused(stack, "memory_ceiling") > before

            wait_until(is_reached, "the ceiling")
            assert stack.proxy.metric("shedding", reason="memory_ceiling") == 1
            shown = stack.proxy.ctl("status").stdout
            assert "memory is above limits.memory" in shown, shown
            assert talks(live)
        wait_until(lambda: can_connect(stack), "room", 20)
        assert talks(live)
        assert stack.proxy.metric("shedding", reason="memory_ceiling") == 0
    assert "memory_ceiling_reached" in stack.proxy.log()


# --- what an operator sees -------------------------------------------------------------------------


def test_status_shows_refusals(stack, limits):
    limits(address_connections=1)
    with connect(stack, "127.0.0.4") as first, connect(stack, "127.0.0.4") as second:
        assert [is_served(first), is_served(second)] == [True, False]
    status = stack.proxy.status()
    assert status["refused"]["address_connections"] == refused(stack, "address_connections") > 0
    assert status["shedding"] == {"busy_workers": 0, "memory_ceiling": False}
    shown = stack.proxy.ctl("status").stdout
    assert "refused address connections" in shown and "shedding busy workers" in shown, shown
    assert "reason=address_connections client=127.0.0." in stack.proxy.log()


def test_honest_load_is_never_refused(stack, limits):
    """The limits as they come let a crowd of honest clients in (but for the lag: that a
    machine stands still now and then is no fault)."""
    limits(handshake_lag="10s")
    names = ("handshakes", "busy", "memory_ceiling", "address_connections", "address_rate")
    before = [refused(stack, name) for name in names]
    with stack.connect() as live:
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            assert all(pool.map(lambda _: can_connect(stack), range(300)))
        assert talks(live)
    assert [refused(stack, name) for name in names] == before
