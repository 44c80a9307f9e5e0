# SPDX-License-Identifier: Apache-2.0
"""A key server of another make behind our proxy, as the protocol's description has it.

It speaks TLS 1.2 with two suites, knows no item 0x14 and signs whatever digest it gets,
answers in the order in which it gets done, closes connections that are idle for half a
minute, and has error codes of its own. A server that is plainly broken is in
test_proxy_keyservers.py; a client of another make in test_keyserver_conformance.py.
"""

import concurrent.futures
import contextlib
import socket
import ssl
import threading
import time

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from support import frames
from support.broken_keyserver import BrokenKeyServer, response
from support.frames import (ECDSA_SHA256, EXTRA, OPCODE, PADDING, PAYLOAD, SKI, SNI, SUCCESS, item,
                            packet)
from support.procs import SLOW, wait_until
from support.stack import BODY, Proxy, Stack

AT_ONCE = 8
CURES_ELSEWHERE = {1, 2, 3, 4, 8, 9, 0x0B, 0x40, 0x43, 0x0C, 0x77, 0xFE}  # unknown codes too
FINAL = {0x00, 5, 6, 7, 0x0A, 0x41, 0x42}


class ForeignServer(BrokenKeyServer):
    """See above; `kind` is that of its own certificate."""

    def __init__(self, stack, name="foreign-keyserver", kind="p256"):
        super().__init__(stack, name)
        suites = frames.FOREIGN_SUITES.split(":")
        if kind != "p256":
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            own = self.ca.issue("own", kind=kind, san=["DNS:localhost"], eku="serverAuth",
                                key_usage="critical,digitalSignature,keyEncipherment")
            self.context.load_cert_chain(own.chain, own.key)
            self.context.load_verify_locations(self.ca.cert)
            self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_ciphers(suites[0] if kind == "p256" else suites[1])

    def options(self, *addresses, **more):
        return super().options(*addresses, **{"deadline": f"{5 * SLOW}s", "connections": 1,
                                              "attempt_timeout": f"{4 * SLOW}s",
                                              "allow_tls12": True, **more})

    def signature(self, request, message=None):
        assert request.opcode == ECDSA_SHA256
        return self.key_of(request.ski).sign(request.items[PAYLOAD],
                                             ec.ECDSA(utils.Prehashed(hashes.SHA256())))

    def batch(self, num, arrange):
        """Holds answers back until there are `num`; arrange() says what is then written."""
        held = []

        def answer(request):
            held.append(self.good(request))
            return arrange(held) if len(held) == num else None

        return answer


@pytest.fixture(scope="module")
def stack(module_procs, module_pki):
    """A stack whose key server is foreign, with one connection to it."""
    stack = Stack(module_procs, module_pki, issuer=False)
    stack.foreign = ForeignServer(stack)
    stack.proxy.config["workers"] = 1
    stack.proxy.config["key_servers"] = stack.foreign.options()
    stack.start()
    stack.ca_file()  # before there are threads
    yield stack
    stack.stop()
    stack.foreign.stop()


@pytest.fixture(autouse=True)
def good(request):
    yield
    if "stack" in request.fixturenames:
        stack = request.getfixturevalue("stack")
        stack.foreign.answer = stack.foreign.good
        recovers(stack)


def recovers(stack):
    def try_once():
        with contextlib.suppress(ssl.SSLError):
            return stack.get() == BODY
        return False

    wait_until(try_once, "the key server to be used again", 15, interval=0.1)


def at_once(stack, num=AT_ONCE):
    """`num` handshakes at the same time, of which none may fail."""
    with concurrent.futures.ThreadPoolExecutor(num) as pool:
        assert [f.result() for f in [pool.submit(stack.get) for _ in range(num)]] == [BODY] * num


def in_parts(data, *lengths):
    """data cut into parts of these lengths, and the rest."""
    parts = []
    for length in lengths:
        parts.append(data[:length])
        data = data[length:]
    return [part for part in [*parts, data] if part]


# --- a digest is all it looks at -------------------------------------------------------


@pytest.mark.parametrize("tls12", [True, False])
def test_blind_signatures_serve_handshakes(stack, tls12):
    stack.foreign.answer = stack.foreign.good
    assert stack.get(tls12=tls12) == BODY


def test_what_our_client_sends(stack):
    """Always an SKI and a digest of the right length, no item twice, none that old servers
    choke on, padded, and not more than one packet for a request."""
    stack.foreign.requests.clear()
    for tls12 in (True, False):
        stack.get(tls12=tls12)
    ids = [request.id for request in stack.foreign.requests]
    assert len(ids) == len(set(ids)) == 2
    for request in stack.foreign.requests:
        assert request.raw[:2] == b"\x01\x00" and len(request.raw) == 1024
        assert set(request.items) <= {OPCODE, PAYLOAD, EXTRA, SKI, SNI, PADDING}
        assert {OPCODE, PAYLOAD, SKI, PADDING} <= set(request.items)
        tags, at = [], 8
        while at < len(request.raw):
            tags.append(request.raw[at])
            at += 3 + int.from_bytes(request.raw[at + 1:at + 3], "big")
        assert tags == [tag for tag in (OPCODE, PAYLOAD, EXTRA, SKI, SNI, PADDING) if tag in tags]
        assert len(request.items[PAYLOAD]) == 32 and len(request.ski) == 20
        assert request.items[PAYLOAD] == frames.digest_for(request.opcode, request.message)
        assert set(request.items[PADDING]) == {0}


def test_a_server_with_an_rsa_certificate(procs, pki):
    stack = Stack(procs, pki, issuer=False)
    foreign = ForeignServer(stack, kind="rsa2048")
    stack.proxy.config["key_servers"] = foreign.options()
    try:
        stack.start()
        assert stack.get() == BODY
    finally:
        stack.stop()
        foreign.stop()


def test_tls12_is_not_spoken_unless_allowed(procs, pki):
    stack = Stack(procs, pki, issuer=False)
    foreign = ForeignServer(stack)
    stack.proxy.config["key_servers"] = foreign.options(deadline="1s", attempt_timeout="900ms",
                                                        allow_tls12=False)
    try:
        stack.start_servers()
        stack.proxy.start()
        wait_until(lambda: foreign.num_connections >= 2, "it to try")
        assert stack.proxy.metric("key_servers_ready") == 0 and foreign.requests == []
    finally:
        stack.stop()
        foreign.stop()


# --- order, records, items ----------------------------------------------------------------


def test_answers_in_the_reverse_order(stack):
    """Each handshake gets its own signature, or the client would say so."""
    for _ in range(3):
        stack.foreign.answer = stack.foreign.batch(AT_ONCE, lambda held: held[::-1])
        at_once(stack)


def test_all_answers_in_one_record(stack):
    stack.foreign.answer = stack.foreign.batch(AT_ONCE, lambda held: [b"".join(held[::-1])])
    at_once(stack)


@pytest.mark.parametrize("lengths", [(8,), (1, 6, 1), (4, 4, 1, 2), (1023,), (1,) * 200],
                         ids=["header and body", "in the header", "in an item", "the last byte",
                              "byte by byte"])
def test_an_answer_over_several_records(stack, lengths):
    stack.foreign.answer = lambda request: in_parts(stack.foreign.good(request), *lengths)
    assert stack.get() == BODY


def test_records_that_end_one_answer_and_begin_the_next(stack):
    stack.foreign.answer = stack.foreign.batch(
        AT_ONCE, lambda held: in_parts(b"".join(held), *[700] * 20))
    at_once(stack)


@pytest.mark.parametrize("shape", ["other order", "unknown tags", "no padding", "padding first",
                                   "minor version", "stray bytes", "items of requests"])
def test_answers_of_every_shape(stack, shape):
    def answer(request):
        core = [item(OPCODE, bytes([SUCCESS])), item(PAYLOAD, stack.foreign.signature(request))]
        return {
            "other order": lambda: packet(request.id, *core[::-1]),
            "unknown tags": lambda: packet(request.id, item(0x7E, b"x"), core[0], item(0x7E, b""),
                                           core[1], item(0x99, bytes(500)), item(0, b"")),
            "no padding": lambda: packet(request.id, *core, pad=False),
            "padding first": lambda: packet(request.id, item(PADDING, b"junk"), *core, pad=False),
            "minor version": lambda: packet(request.id, *core, minor=7),
            "stray bytes": lambda: packet(request.id, *core, b"\x11\0", pad=False),
            "items of requests": lambda: packet(request.id, *core, item(SKI, request.ski),
                                                item(SNI, b"\xff"), item(0x16, b"null")),
        }[shape]()

    stack.foreign.answer = answer
    assert stack.get() == BODY


@pytest.mark.parametrize("shape", ["payload twice", "no opcode", "opcode of two bytes",
                                   "an item past the end", "major version", "error of no code",
                                   "error of two codes"])
def test_answers_that_are_malformed(stack, shape):
    """The connection is dropped, as nothing on it can be trusted; the next one is good."""
    def answer(request):
        good = item(PAYLOAD, stack.foreign.signature(request))
        success = item(OPCODE, bytes([SUCCESS]))
        error = item(OPCODE, bytes([frames.ERROR]))
        return {
            "payload twice": lambda: packet(request.id, success, good, good),
            "no opcode": lambda: packet(request.id, good),
            "opcode of two bytes": lambda: packet(request.id, item(OPCODE, b"\xf0\0"), good),
            "an item past the end": lambda: packet(request.id, success, good, b"\x20\xff\xff\0",
                                                   pad=False),
            "major version": lambda: packet(request.id, success, good, major=9),
            "error of no code": lambda: packet(request.id, error),
            "error of two codes": lambda: packet(request.id, error, item(PAYLOAD, b"\1\2")),
        }[shape]()

    stack.foreign.answer = answer
    before = stack.proxy.metric("key_server_bad_replies_total")
    start = time.monotonic()
    with pytest.raises(ssl.SSLError, match="(?i)alert.internal.error"):
        stack.connect()
    assert time.monotonic() - start < 9 * SLOW
    assert stack.proxy.metric("key_server_bad_replies_total") > before


# --- time ------------------------------------------------------------------------------------


def test_a_slow_answer_and_quick_ones_behind_it(stack):
    """One request is answered last, a good while after others that came later."""
    first, release = [], threading.Event()

    def answer(request):
        if not first:
            first.append(stack.foreign.good(request))
            return None
        if release.is_set():
            return [first[0], stack.foreign.good(request)]
        return stack.foreign.good(request)

    stack.foreign.answer = answer
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(stack.get)
        wait_until(lambda: first, "the slow request")
        for _ in range(5):
            assert stack.get() == BODY
        assert not slow.done()
        release.set()
        assert stack.get() == BODY
        assert slow.result() == BODY


def test_connections_that_are_closed_when_idle(stack):
    """As a foreign server does after half a minute: no handshake is lost to it."""
    for _ in range(3):
        assert stack.get() == BODY
        before = stack.foreign.num_connections
        stack.foreign.hang_up_all()
        wait_until(lambda: stack.foreign.num_connections > before, "it to connect again")
        wait_until(lambda: stack.proxy.metric("key_servers_ready") == 1, "the connection")
    assert stack.proxy.metric("handshakes_signing") == 0


def test_a_server_that_closes_after_each_answer(stack):
    """Nothing is lost, as the client comes back; requests on the way are asked again."""
    def answer(request):
        threading.Timer(0.05, stack.foreign.hang_up_all).start()
        return stack.foreign.good(request)

    stack.foreign.answer = answer
    for _ in range(5):
        recovers(stack)


# --- error codes -----------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(FINAL | CURES_ELSEWHERE))
def test_every_error_code_ends_one_handshake(stack, code):
    """With nobody else to ask: an alert at once, and the connection stays in use."""
    connections = stack.foreign.num_connections
    stack.foreign.answer = stack.foreign.error(code)
    failed = stack.proxy.metric("handshakes_failed_total")
    start = time.monotonic()
    with pytest.raises(ssl.SSLError, match="(?i)alert.internal.error"):
        stack.connect()
    assert time.monotonic() - start < 4 * SLOW
    stack.foreign.answer = stack.foreign.good
    assert stack.get() == BODY
    assert stack.proxy.metric("handshakes_failed_total") == failed + 1
    assert stack.foreign.num_connections == connections


@pytest.fixture(scope="module")
def pair(module_procs, module_pki, stack):
    """Another proxy of the same stack, with two foreign servers."""
    first, second = ForeignServer(stack, "first"), ForeignServer(stack, "second")
    second.context.load_verify_locations(first.ca.cert)  # one identity for both
    bundle = module_procs.folder / "both-cas.pem"
    bundle.write_bytes(first.ca.cert.read_bytes() + second.ca.cert.read_bytes())
    proxy = Proxy(stack, "second-proxy")
    proxy.config.update({key: stack.proxy.config[key] for key in ("names", "origin")})
    proxy.config["workers"] = 1
    proxy.config["key_servers"] = first.options(first.address, second.address, hedge_budget=0)
    proxy.config["key_servers"]["tls"]["ca"] = str(bundle)
    proxy.start()
    wait_until(lambda: proxy.metric("key_servers_ready") == 2, "both")
    yield proxy, first, second
    first.stop()
    second.stop()


@pytest.mark.parametrize("code", sorted(FINAL | CURES_ELSEWHERE))
def test_which_errors_another_server_is_asked_about(stack, pair, code):
    """As docs/PROTOCOL.keyserver.md says, section 9; an unknown code may be curable."""
    proxy, first, second = pair
    context = stack.context()
    # Whichever is asked first says so; the other would sign.
    said = []

    def answer_of(server):
        def answer(request):
            if not said:
                said.append(server)
                return response(request.id, frames.ERROR, bytes([code]))
            return server.good(request)
        return answer

    first.answer, second.answer = answer_of(first), answer_of(second)
    asked = len(first.requests) + len(second.requests)
    with socket.create_connection(proxy.address, timeout=10 * SLOW) as sock:
        if code in CURES_ELSEWHERE:
            with context.wrap_socket(sock, server_hostname="demo.test"):
                pass
        else:
            with pytest.raises(ssl.SSLError, match="(?i)alert.internal.error"):
                context.wrap_socket(sock, server_hostname="demo.test")
    assert len(first.requests) + len(second.requests) == asked + 1 + (code in CURES_ELSEWHERE)
