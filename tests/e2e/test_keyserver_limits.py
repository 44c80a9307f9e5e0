# SPDX-License-Identifier: Apache-2.0
"""Clients that are slow, silent, greedy or not who they should be: each costs itself only."""

import socket
import ssl
import time

import pytest

from support import frames
from support.frames import ECDSA_SHA256, OPCODE, PAYLOAD, PING, item, packet
from support.keyserver import KeyServer
from support.procs import SANITIZE, wait_until


@pytest.fixture
def server(procs, pki):
    ks = KeyServer(procs, pki)
    ks.add_key("p256", "p256", "a.test")
    return ks


def sign(server, client, request_id=1):
    reply = client.sign(request_id, ECDSA_SHA256, server.keys["p256"].ski(),
                        frames.tls13_message())
    return reply.error


def read_end(sock, timeout=10):
    """Seconds until the server ended a plain connection."""
    sock.settimeout(timeout)
    start = time.monotonic()
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - start


# --- who it is ---------------------------------------------------------------------------


def test_clients_that_are_not_let_in(server, pki):
    server.start()
    other_ca = pki.ca("other")
    bad = {
        "no certificate": None,
        "another CA": other_ca.issue("proxy", san=["DNS:proxy.client.test"], eku="clientAuth"),
        "expired": server.ca.issue("late", san=["DNS:proxy.client.test"], eku="clientAuth",
                                   start="20250101000000Z", end="20250201000000Z"),
        "not yet valid": server.ca.issue("early", san=["DNS:proxy.client.test"], eku="clientAuth",
                                         start="20450101000000Z", end="20450201000000Z"),
        "a server's certificate": server.ca.issue("srv", san=["DNS:proxy.client.test"],
                                                  eku="serverAuth"),
        "no extended key usage": server.ca.issue("noeku", san=["DNS:proxy.client.test"], eku=None),
    }
    for what, identity in bad.items():
        for tls12 in (False, True):
            with pytest.raises((ssl.SSLError, OSError, EOFError)):
                with server.connect(identity, tls12=tls12) as client:
                    client.ping()
                pytest.fail(f"{what} was let in")
    wait_until(lambda: server.metric("connections_closed_total", end="handshake_failed") ==
               2 * len(bad), "the failures to be counted")
    assert server.metric("handshakes_total") == 0


def test_a_client_by_the_hash_of_its_key(server):
    pinned = server.client("pinned", san=["DNS:anything.test"])
    server.config["clients"].append({"label": "by-key", "spki_sha256": [pinned.spki_sha256()],
                                     "keys": ["name:a.test"], "purposes": ["tls13"]})
    server.start()
    with server.connect("pinned") as client:
        assert sign(server, client) is None
    impostor = server.ca.issue("impostor", san=["DNS:anything.test"], eku="clientAuth")
    with server.connect(impostor) as client:
        assert sign(server, client) == frames.E_NOT_AUTHORISED


def test_keys_by_label_name_and_ski(server):
    other = server.add_key("other", "p256", "www.b.test")
    p256 = server.keys["p256"]
    for client, patterns in {
            "label": ["label:p256"], "name": ["name:A.test"], "wild": ["name:*.b.test"],
            "ski": [f"ski:{p256.ski().hex()}"], "both": ["label:p256", "label:other"],
            "all": ["*"], "none": ["label:gone", "name:*.test.a"]}.items():
        server.grant(client, ["tls13"], patterns)
    server.start()
    for client, may in {"label": "p", "name": "p", "wild": "o", "ski": "p", "both": "po",
                        "all": "po", "none": ""}.items():
        with server.connect(client) as c:
            for letter, key in (("p", p256), ("o", other)):
                error = c.sign(1, ECDSA_SHA256, key.ski(), frames.tls13_message()).error
                assert (error is None) == (letter in may), (client, letter)


def test_names_cannot_forge_audit_lines(server):
    evil = b'x"}\n{"result":"signed","client":"forged\x00\x1b[31m\xff'
    server.start()
    with server.connect("proxy") as client:
        client.sign(1, ECDSA_SHA256, server.keys["p256"].ski(), frames.tls13_message(),
                    more=[item(frames.SNI, evil)])
    line = server.audit_wait(1, client="proxy.client.test")[0]
    assert line["sni"].encode("latin-1") == evil
    assert server.audit(client="forged") == []
    assert all(31 < b < 127 or b == 10 for b in server.audit_path.read_bytes())


# --- rates and numbers ---------------------------------------------------------------------


def test_rate_with_burst(server):
    server.config["clients"] = []
    server.grant("proxy", ["tls13"], rate_per_s=10, burst=20)
    server.grant("issuer", ["tls13"])
    server.start()
    with server.connect("proxy") as one, server.connect("proxy") as two:
        for client in (one, two):  # one grant, one rate, whatever the connections
            client.send(b"".join(
                frames.sign_packet(n, ECDSA_SHA256, server.keys["p256"].ski(),
                                   frames.tls13_message()) for n in range(100)))
        errors = [r.error for c in (one, two) for r in c.receive_all(100).values()]
        signed = errors.count(None)
        assert 20 <= signed <= 30, signed
        assert errors.count(frames.E_RATE) == 200 - signed
        with server.connect("issuer") as other:  # nobody else's affair
            assert sign(server, other) is None
        wait_until(lambda: sign(server, one) is None, "the rate to allow one more")
    assert server.metric("refusals_total", reason="rate") >= 200 - signed


def test_connections_of_one_client_are_bounded(server):
    server.config["limits"] = {"max_connections": 6, "max_connections_per_client": 3}
    server.start()
    kept = [server.connect("proxy") for _ in range(3)]
    for client in kept:
        client.ping()
    with server.connect("proxy") as fourth:
        assert fourth.wait_closed() == b""
    wait_until(lambda: server.metric("connections_open") == 3, "the fourth to be gone")
    kept += [server.connect("issuer") for _ in range(3)]
    kept[5].ping()
    with pytest.raises((OSError, EOFError)):  # the seventh of all
        server.connect("certmanager")
    assert server.metric("connections_refused_total", reason="max_connections_per_client") == 1
    assert server.metric("connections_refused_total", reason="max_connections") == 1
    kept.pop().close()
    wait_until(lambda: server.metric("connections_open") == 5, "room for one more")
    with server.connect("issuer") as again:
        again.ping()
    for client in kept:
        client.ping()
        client.close()


# --- time ------------------------------------------------------------------------------------


def test_silent_connections_are_closed(server):
    server.config["limits"] = {"handshake_timeout": "300ms", "idle_timeout": "600ms"}
    server.start()
    with socket.create_connection(server.address) as silent:
        assert 0.2 < read_end(silent) < 5
    with server.connect("proxy") as idle:
        idle.ping()
        start = time.monotonic()
        idle.wait_closed()
        assert 0.4 < time.monotonic() - start < 5
    wait_until(lambda: server.metric("connections_closed_total", end="timeout") == 2,
               "both to be counted")


def test_a_handshake_in_drips_is_closed(server):
    server.config["limits"] = {"handshake_timeout": "500ms"}
    server.start()
    with socket.create_connection(server.address) as drip:
        start = time.monotonic()
        with pytest.raises(OSError):
            for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + bytes(1000):
                drip.send(bytes([byte]))
                drip.settimeout(0.05)
                try:
                    if drip.recv(1) == b"":
                        raise ConnectionResetError
                except TimeoutError:
                    pass
        assert time.monotonic() - start < 10


def test_a_packet_in_drips_is_closed(server):
    """Each byte keeps the connection from being idle; the packet has a time of its own."""
    server.config["limits"] = {"packet_timeout": "800ms"}
    server.start()
    with server.connect("proxy") as client:
        whole = packet(1, item(OPCODE, bytes([PING])))
        client.sock.settimeout(0.05)
        closed_at = None
        for n, byte in enumerate(whole):
            try:
                client.send(bytes([byte]))
                if client.read() == b"":
                    closed_at = n
                    break
            except TimeoutError:
                continue
            except OSError:
                closed_at = n
                break
        assert closed_at is not None and closed_at < 500
    assert server.metric("packet_timeouts_total") == 1


# --- a client that does not read ------------------------------------------------------------------


def test_a_client_that_never_reads(server):
    """64 KB pings from clients that read nothing: bounded memory, the others are served."""
    server.config["limits"] = {"write_timeout": "60s", "max_unread": "256KiB"}
    server.config["workers"] = 1
    server.start()
    ping = packet(1, item(OPCODE, bytes([PING])), item(PAYLOAD, bytes(65000)))
    with server.connect("issuer") as other:
        other.ping()
        before = server.process.rss_bytes()
        greedy = [server.connect("proxy", rcvbuf=4096) for _ in range(10)]
        sent = 0
        for client in greedy:
            client.sock.settimeout(0.3)
            try:
                for _ in range(400):  # 26 MB each, if it could
                    client.send(ping)
                    sent += 1
            except TimeoutError:
                pass
        assert sent < 10 * 400, "the server reads on although nobody takes its replies"
        for _ in range(20):
            other.ping()
        if not SANITIZE:
            assert server.process.rss_bytes() - before < 10 * 2 * 1024 * 1024
        for client in greedy:
            client.close()
    wait_until(lambda: server.metric("connections_open") == 0, "all to be closed")


def test_a_client_that_reads_late_gets_all_its_replies(server):
    server.start()
    total = 3000
    with server.connect("proxy", rcvbuf=4096) as client:
        client.sock.setblocking(True)
        client.sock.settimeout(0.5)
        packets = [frames.sign_packet(n, ECDSA_SHA256, server.keys["p256"].ski(),
                                      frames.tls13_message()) for n in range(total)]
        unsent, sent, replies = b"", 0, {}
        while sent < total:
            data = b"".join(packets[sent:sent + 14])
            unsent += client.sealed(data)
            sent += len(packets[sent:sent + 14])
            try:
                while unsent:
                    unsent = unsent[client.sock.send(unsent):]
            except TimeoutError:  # full both ways: now, and only now, read
                for _ in range(50):
                    reply = client.receive()
                    replies[reply.id] = reply
        client.sock.settimeout(20)
        while unsent:
            unsent = unsent[client.sock.send(unsent):]
        while len(replies) < total:
            reply = client.receive()
            replies[reply.id] = reply
    assert all(r.error is None for r in replies.values())


def test_a_client_that_reads_nothing_is_closed_in_time(server):
    server.config["limits"] = {"write_timeout": "500ms"}
    server.start()
    ping = packet(1, item(OPCODE, bytes([PING])), item(PAYLOAD, bytes(65000)))
    with server.connect("proxy", rcvbuf=4096) as client:
        client.sock.settimeout(0.3)
        with pytest.raises(OSError):
            for _ in range(1000):
                client.send(ping)
        wait_until(lambda: server.metric("connections_open") == 0, "it to be closed")


# --- a port scan --------------------------------------------------------------------------------------


def test_garbage_instead_of_tls(server):
    server.start()
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100, b"SSH-2.0-x\r\n", b"\x16\x03\x01"):
        with socket.create_connection(server.address) as s:
            s.sendall(garbage)
            s.shutdown(socket.SHUT_WR)
            read_end(s)
    for _ in range(50):
        socket.create_connection(server.address).close()
    wait_until(lambda: server.metric("connections_open") == 0, "all to be gone")
    with server.connect("proxy") as client:
        assert sign(server, client) is None
    assert server.metric("connections_closed_total", end="handshake_failed") >= 4
