# SPDX-License-Identifier: Apache-2.0
"""The certificate's key is elsewhere: key servers that are slow, wrong, silent or away."""

import concurrent.futures
import contextlib
import socket
import ssl
import time

import pytest

from support import frames
from support.broken_keyserver import BrokenKeyServer
from support.procs import SLOW, wait_until
from support.stack import BODY, Stack

DEADLINE_S = 1 * SLOW


@pytest.fixture(scope="module")
def broken(module_procs, module_pki):
    """A stack whose key server is not ours, and no issuer."""
    stack = Stack(module_procs, module_pki, issuer=False)
    stack.broken = BrokenKeyServer(stack)
    stack.proxy.config["workers"] = 1  # each has connections of its own that must come back
    stack.proxy.config["key_servers"] = stack.broken.options(deadline=f"{DEADLINE_S}s")
    stack.start()
    yield stack
    stack.stop()
    stack.broken.stop()


@contextlib.contextmanager
def fails(stack, reason, alert="internal error", within=None):
    """Within, a handshake fails with the alert, in time, and is counted so."""
    before = stack.proxy.failures(reason)
    start = time.monotonic()
    with pytest.raises(ssl.SSLError, match=f"(?i)alert {alert}".replace(" ", "[ _]")):
        yield
    assert time.monotonic() - start < (within or DEADLINE_S * 1.5)
    stack.proxy.wait_metric(before + 1, "handshakes_failed_total", reason=reason)


def works(stack):
    assert stack.get() == BODY


def recovers(stack):
    """Serves again by itself: the connections to the key server may be new ones."""

    def try_once():
        with contextlib.suppress(ssl.SSLError):
            return stack.get() == BODY
        return False

    wait_until(try_once, "the key server to be used again", 15, interval=0.1)


VERSIONS = pytest.mark.parametrize("tls12", [False, True])


@VERSIONS
def test_whole_message_is_sent_for_signing(broken, tls12):
    broken.broken.answer = broken.broken.good
    assert broken.get(tls12=tls12) == BODY
    request = broken.broken.requests[-1]
    assert request.ski == broken.leaves["demo.test-primary"].ski()
    assert request.items[frames.SNI] == b"demo.test"
    if tls12:
        assert len(request.message) == 32 + 32 + 4 + 32 and request.message[64:68] == b"\x03\x00\x1d\x20"
    else:
        assert request.message.startswith(b" " * 64 + b"TLS 1.3, server CertificateVerify\0")


@VERSIONS
@pytest.mark.parametrize("code, reason", [
    (frames.E_NOT_AUTHORISED, "key_server_refused"),
    (frames.E_BAD_MESSAGE, "key_server_refused"),
    (frames.E_KEY_NOT_FOUND, "key_not_found"),
])
def test_refusals(broken, tls12, code, reason):
    broken.broken.answer = broken.broken.error(code)
    with fails(broken, reason):
        broken.connect(tls12=tls12)
    broken.broken.answer = broken.broken.good
    works(broken)


@pytest.mark.parametrize("answer", ["empty", "huge", "unknown_opcode", "garbage", "malformed",
                                    "cut_and_gone"])
def test_answers_that_are_of_no_use(broken, answer):
    broken.broken.answer = getattr(broken.broken, answer)
    before = broken.proxy.metric("handshakes_failed_total")
    start = time.monotonic()
    with pytest.raises(ssl.SSLError, match="(?i)alert.internal.error"):
        broken.connect()
    assert time.monotonic() - start < DEADLINE_S * 1.5
    assert broken.proxy.metric("handshakes_failed_total") == before + 1
    broken.broken.answer = broken.broken.good
    recovers(broken)


@pytest.mark.parametrize("answer", ["of_another_message", "not_a_signature"])
def test_wrong_signature_is_seen_by_the_client(broken, answer):
    """The proxy has no reason to verify: the client does, and nothing else is harmed."""
    broken.broken.answer = getattr(broken.broken, answer)
    with pytest.raises(ssl.SSLError, match="(?i)bad.signature|length|mismatch"):
        broken.connect()
    broken.broken.answer = broken.broken.good
    works(broken)


@VERSIONS
def test_silence_ends_at_the_deadline(broken, tls12):
    broken.broken.answer = broken.broken.silent
    start = time.monotonic()
    with fails(broken, "key_server_timeout"):
        broken.connect(tls12=tls12)
    assert time.monotonic() - start > DEADLINE_S * 0.9
    broken.broken.answer = broken.broken.good
    recovers(broken)


def test_answer_with_another_id_is_nobodys(broken):
    broken.broken.answer = broken.broken.other_id
    with fails(broken, "key_server_timeout"):
        broken.connect()
    broken.broken.answer = broken.broken.good
    recovers(broken)
    assert broken.proxy.metric("key_server_late_replies_total") >= 1


def test_second_answer_is_ignored(broken):
    broken.broken.answer = broken.broken.twice
    for _ in range(5):
        works(broken)
    broken.broken.answer = broken.broken.good


def test_slow_answers_hold_nobody_else_up(broken):
    """Sixteen handshakes wait half a second each, at the same time."""
    broken.broken.answer = broken.broken.good
    gate = concurrent.futures.ThreadPoolExecutor(16)
    held = []

    def delayed(request):
        held.append(request)
        return None

    broken.broken.answer = delayed
    futures = [gate.submit(broken.get, timeout=10) for _ in range(16)]
    wait_until(lambda: broken.proxy.metric("handshakes_signing") == 16, "all of them to wait")
    broken.broken.answer = broken.broken.good
    works(broken)  # overtakes them
    for future in futures:
        with contextlib.suppress(ssl.SSLError):
            future.result()
    assert broken.proxy.metric("handshakes_signing") == 0
    gate.shutdown()
    recovers(broken)


def test_client_that_leaves_while_its_signature_is_made(broken):
    requests = len(broken.broken.requests)
    late = []
    broken.broken.answer = lambda request: late.append(request)
    client = broken.context()
    plain = socket.create_connection(broken.proxy.address)
    plain.settimeout(0.3)
    with contextlib.suppress(OSError):
        client.wrap_socket(plain, server_hostname="demo.test")
    plain.close()
    assert len(broken.broken.requests) > requests
    broken.broken.answer = broken.broken.good
    wait_until(lambda: broken.proxy.metric("handshakes_signing") == 0, "the request to end", 15)
    recovers(broken)


def test_connections_lost_while_idle(broken):
    broken.broken.hang_up_all()
    recovers(broken)


# --- more than one -------------------------------------------------------------------------


@pytest.fixture
def pair(procs, pki):
    """A proxy with two key servers of which the first is broken."""
    stack = Stack(procs, pki, issuer=False)
    first = BrokenKeyServer(stack, "first")
    second = BrokenKeyServer(stack, "second")
    second.context.load_verify_locations(first.ca.cert)  # one identity for both
    bundle = procs.folder / "both-cas.pem"
    bundle.write_bytes(first.ca.cert.read_bytes() + second.ca.cert.read_bytes())
    options = first.options(first.address, second.address, deadline=f"{3 * SLOW}s",
                            attempt_timeout="300ms")
    options["tls"]["ca"] = str(bundle)
    stack.proxy.config["key_servers"] = options
    stack.start()
    wait_until(lambda: stack.proxy.metric("key_servers_ready") == 2, "both")
    yield stack, first, second
    stack.stop()
    first.stop()
    second.stop()


@pytest.mark.parametrize("how", ["cut_and_gone", "silent", "garbage", "busy"])
def test_other_server_takes_over(pair, how):
    stack, first, second = pair
    first.answer = first.error(frames.E_BUSY) if how == "busy" else getattr(first, how)
    second.answer = second.good
    for _ in range(5):
        works(stack)
    assert stack.proxy.metric("handshakes_failed_total") == 0
    assert second.requests


# --- ours, stopped -----------------------------------------------------------------------------


def test_key_server_stopped_and_back(procs, pki):
    """Clients with delegated credentials see nothing; others fail fast, and recover."""
    stack = Stack(procs, pki)
    stack.start()
    deadline_s = 2 * SLOW
    nss = stack.nss()
    works(stack)
    host, port = stack.keyserver.address
    stack.keyserver.process.stop()
    for _ in range(5):
        assert nss.run().got_dc
    start = time.monotonic()
    for tls12 in (False, True):
        with pytest.raises(ssl.SSLError, match="(?i)alert.internal.error"):
            stack.connect(tls12=tls12)
    assert time.monotonic() - start < 2 * deadline_s
    assert stack.proxy.failures("key_server_unavailable") + \
        stack.proxy.failures("key_server_timeout") == 2
    assert nss.run().got_dc
    stack.keyserver.config["listen"] = [f"{host}:{port}"]
    stack.keyserver.name = "keyserver-again"
    stack.keyserver.start()
    recovers(stack)
    stack.stop()
