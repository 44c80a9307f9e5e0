# SPDX-License-Identifier: Apache-2.0
"""A whole CA is switched away and back, again and again, while clients keep coming.

Nobody may notice: no handshake fails. And it is no matter of "soon": a handshake
that starts after the command has returned is on the new chain, every time.
"""

import collections
import contextlib
import multiprocessing
import socket
import ssl
import threading
import time

import pytest

from support.procs import SLOW, wait_until
from support.stack import Stack

HANDSHAKES = 2000 // SLOW
SWITCHES = 20
PROCESSES = 4
HOST = "demo.test"

# What a client saw: when it began and ended (CLOCK_MONOTONIC, the same for all
# processes), who issued the leaf it was shown, what went wrong.
Seen = collections.namedtuple("Seen", "client began ended issuer fault")


def issuer_of(tls):
    return next(value for rdn in tls.getpeercert()["issuer"] for key, value in rdn
                if key == "commonName")


def handshake(address, context):
    with contextlib.closing(socket.create_connection(address, timeout=20 * SLOW)) as plain:
        with context.wrap_socket(plain, server_hostname=HOST) as tls:
            return issuer_of(tls)


def client(name, address, ca_file, version, count, is_over, out):
    """New handshakes, one after the other, until it is over."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca_file)
    context.minimum_version = context.maximum_version = version
    seen = []
    while not is_over.is_set():
        began, issuer, fault = time.monotonic_ns(), None, None
        try:
            issuer = handshake(address, context)
        except OSError as e:  # ssl.SSLError is one
            fault = repr(e)
        seen.append(Seen(name, began, time.monotonic_ns(), issuer, fault))
        with count.get_lock():
            count.value += 1
    out.put(seen)


def nss_client(nss, count, is_over, seen):
    """The same with delegated credentials, by NSS."""
    while not is_over.is_set():
        began = time.monotonic_ns()
        result = nss.run(HOST)
        fault = None if result.is_ok and result.got_dc else repr(result)
        seen.append(Seen("nss", began, time.monotonic_ns(), result.issuer, fault))
        with count.get_lock():
            count.value += 1


@pytest.fixture
def stack(procs, pki):
    stack = Stack(procs, pki).start()
    yield stack
    stack.stop()


def switch_all(stack, count, problems):
    """Switches whenever a twentieth of the handshakes has been made. Returns a list of
    (when the command began, when it had returned, who is shown from then on)."""
    first, second = (ca.name for ca in stack.web_cas)
    context = stack.context()
    states = [(0, 0, first)]
    for i in range(SWITCHES):
        # Of so many handshakes one began after the command before this had returned:
        # some client was done twice.
        enough = max((i + 1) * HANDSHAKES // (SWITCHES + 1), count.value + PROCESSES + 2)
        wait_until(lambda: count.value >= enough, "the clients", 60, interval=0.001)
        words = ("switch", "--reason", "test") if i % 2 == 0 else ("restore", "--reason", "over")
        shown = second if i % 2 == 0 else first
        began = time.monotonic_ns()
        stack.proxy.ctl(words[0], "--ca", first, *words[1:])
        states.append((began, time.monotonic_ns(), shown))
        # The very first handshake after it, while all the others go on.
        if handshake(stack.proxy.address, context) != shown:
            problems.append(f"switch {i}: the next handshake was not on {shown}")
    return states


def may_show(states, seen):
    """The issuers that were in force at some moment of this handshake."""
    allowed = set()
    for i, (began, _, shown) in enumerate(states):
        until = states[i + 1][1] if i + 1 < len(states) else float("inf")
        if seen.ended >= began and seen.began <= until:
            allowed.add(shown)
    return allowed


def test_twenty_switches_under_load(stack):
    count = multiprocessing.Value("l", 0)
    is_over = multiprocessing.Event()
    out = multiprocessing.Queue()
    versions = [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2]
    clients = [multiprocessing.Process(
        target=client, args=(f"openssl-{i}", stack.proxy.address, str(stack.ca_file()),
                             versions[i % 2], count, is_over, out), daemon=True)
               for i in range(PROCESSES)]
    from_nss, problems = [], []
    nss = threading.Thread(target=nss_client, args=(stack.nss(), count, is_over, from_nss))
    for one in [*clients, nss]:
        one.start()
    try:
        states = switch_all(stack, count, problems)
        enough = max(HANDSHAKES, count.value + PROCESSES + 2)  # also after the last command
        wait_until(lambda: count.value >= enough, "the clients", 60)
        is_over.set()
        seen = [s for _ in clients for s in out.get(timeout=60 * SLOW)]
    finally:
        is_over.set()
        for one in [*clients, nss]:
            one.join(30 * SLOW)
    seen += from_nss

    assert len(seen) >= HANDSHAKES
    assert not [s for s in seen if s.fault], [s for s in seen if s.fault][:3]
    assert not problems, problems
    wrong = [s for s in seen if s.issuer not in may_show(states, s)]
    assert not wrong, (wrong[:3], states)
    # The test could see it: between each two commands there were handshakes that
    # began and ended there, by OpenSSL and over the whole by NSS too.
    for i, (_, returned, shown) in enumerate(states):
        until = states[i + 1][0] if i + 1 < len(states) else float("inf")
        within = [s for s in seen if s.began > returned and s.ended < until]
        assert within and {s.issuer for s in within} == {shown}, (i, len(within))
    assert {s.issuer for s in from_nss} == {ca.name for ca in stack.web_cas}
    assert stack.proxy.metric("last_resort_total") == 0
    assert stack.proxy.metric("dc_rejected_total") == 0
    assert stack.proxy.metric("handshakes_total", source="dc") >= len(from_nss)
    assert stack.proxy.metric("handshakes_total", source="certificate", version="1.2") > 0
