# SPDX-License-Identifier: Apache-2.0
"""What breaks around the key server: tokens that hang, fail or sign wrongly, descriptors
that run out, packets that promise more than comes, a kill in the middle.

Where the rest of bad input and faults is tried (files of this folder; of test_keyserver_X.py
only the X):

    duplicate and unknown tags        protocol: a_known_item_twice; conformance: unknown_tags
    cut and merged packets, records   protocol: merged_and_cut, one_byte_at_a_time; conformance
    wrong lengths of items, headers   protocol: items_of_wrong_length; here: a_length_that_is_not,
                                      headers_that_promise
    opcode that does not fit the key  protocol: opcode_that_does_not_fit; conformance: every_opcode
    digest of wrong length            protocol: digest_of_wrong_length
    JSON null in item 0x16            conformance: what_is_for_tracing
    pings of 64 KB, never read        limits: a_client_that_never_reads, ..reads_nothing
    bytes in drips, silence           limits: a_handshake_in_drips, a_packet_in_drips, silent
    ids used again by the thousand    conformance: thousands_of_ids
    wrong versions                    protocol: wrong_major_version; conformance: version_bytes
    digest of another message         theft: a_digest_of_something_else
    TLS 1.2 parameters                theft: tls12_parameters_of_wrong_length
    credentials that may not be       theft: dc_for_another_key, ..without_delegation_usage,
                                      ..lifetimes, ..in_the_client_context and those around
    forged log lines                  audit: no_sni, no_client_name, no_label_forges_a_line
    key files                         life: key_files_that_stop_the_start; watch: half_a_key,
                                      a_loose_mode; regions: sealed ones
    token unplugged, PIN refused      pkcs11: a_token_goes_and_comes_back, a_wrong_pin
    token that hangs, lies, fails     here
    audit disk full                   audit: a_disk_that_fills_up; life: ..cannot_be_written
    rate exceeded                     limits: rate_with_burst
    client expired, of another CA     limits: clients_that_are_not_let_in
    client revoked                    clients: revoked_is_refused and those around
    kill -9 in mid-request            here; outage, test_kill_anything.py, test_keyclient.py
    one of two servers hangs          outage: the_next_key_server; test_keyclient.py: one_that_hangs
    replies nobody asked for, of no   test_proxy_keyservers.py, test_keyclient_conformance.py
    use, malformed; every error code
"""

import json
import os
import resource
import signal
import ssl
import struct
import threading
import time

import pytest

from support import frames, pki as pki_module
from support.frames import E_BUSY, E_CRYPTOGRAPHY, ECDSA_SHA256, OPCODE, PAYLOAD, PING, item, packet
from support.keyserver import KeyServer
from support.procs import BIN_DIR, SANITIZE, SLOW, wait_until
from support.softhsm import MODULE, SoftHsm

SIGN_TIMEOUT_S = 0.5 * SLOW


@pytest.fixture
def server(procs, pki):
    ks = KeyServer(procs, pki)
    ks.add_key("p256", "p256", "a.test")
    return ks


def sign(client, ski, request_id=1):
    return client.sign(request_id, ECDSA_SHA256, ski, frames.tls13_message()).error


# --- a token with faults ---------------------------------------------------------------


class Faulty:
    """A key server with a key in a token behind support/faulty_token.c."""

    def __init__(self, ks, token, control):
        self.ks, self.token, self.control = ks, token, control
        self.spki = token.generate("ec", "EC:prime256v1")
        self.ski = pki_module.spki_ski(self.spki)
        self.file_ski = ks.keys["p256"].ski()
        entry = token.entry("ec", sessions=2)
        entry["module"] = str(BIN_DIR / "faulty_token.so")
        ks.config["pkcs11"] = [entry]
        ks.config["limits"] = {"sign_timeout": f"{int(SIGN_TIMEOUT_S * 1000)}ms",
                               "drain_timeout": "1s"}

    def does(self, word):
        """From now on."""
        new = self.control.with_suffix(".new")
        new.write_text(word)
        new.rename(self.control)

    def recovers(self, client):
        self.does("")
        wait_until(lambda: sign(client, self.ski) is None, "the token to sign again", 40)


@pytest.fixture
def faulty(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTHSM2_CONF", "")
    hsm = SoftHsm(tmp_path / "softhsm", os.environ)
    control = hsm.folder / "control"
    monkeypatch.setenv("FAULTY_TOKEN_MODULE", MODULE)
    monkeypatch.setenv("FAULTY_TOKEN_CONTROL", str(control))
    faulty = Faulty(server, hsm.token("t1"), control)
    server.start()
    yield faulty
    faulty.does("")


def test_a_token_that_hangs_delays_nobody_else(faulty):
    """Its own requests are answered in time; others' keys, and the control thread, go on."""
    with faulty.ks.connect("proxy") as client, faulty.ks.connect("proxy") as other:
        assert sign(client, faulty.ski) is None
        faulty.does("hang")
        start = time.monotonic()
        client.send(b"".join(frames.sign_packet(n, ECDSA_SHA256, faulty.ski, frames.tls13_message())
                             for n in range(20)))
        slowest = 0
        for n in range(50):
            before = time.monotonic()
            assert sign(other, faulty.file_ski, n) is None
            slowest = max(slowest, time.monotonic() - before)
        replies = client.receive_all(20)  # one each
        assert {reply.error for reply in replies.values()} == {E_BUSY}
        assert SIGN_TIMEOUT_S * 0.9 < time.monotonic() - start < SIGN_TIMEOUT_S + 5 * SLOW
        assert slowest < SIGN_TIMEOUT_S  # it waited for nothing of the token's
        assert sign(client, faulty.file_ski) is None  # nor does the rest of its own client
        assert faulty.ks.metric("refusals_total", reason="sign_timeout") == 20
        faulty.recovers(client)


def test_a_reload_waits_for_no_token(faulty):
    """Not even for one that hangs: its keys are known. New rights are in force at once."""
    with faulty.ks.connect("proxy") as client, faulty.ks.connect("issuer") as issuer:
        faulty.does("hang_open")
        client.send(frames.sign_packet(1, ECDSA_SHA256, faulty.ski, frames.tls13_message()))
        faulty.ks.grant("issuer", ["tls13"])
        start = time.monotonic()
        faulty.ks.reload()
        assert time.monotonic() - start < 5 * SLOW
        wait_until(lambda: sign(issuer, faulty.file_ski) is None, "the new grant")
        assert client.receive().error == E_BUSY
        faulty.recovers(client)


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_with_a_token_that_hangs_can_be_stopped(faulty, signo):
    process = faulty.ks.process
    with faulty.ks.connect("proxy") as client:
        faulty.does("hang")
        client.send(frames.sign_packet(1, ECDSA_SHA256, faulty.ski, frames.tls13_message()))
        wait_until(lambda: faulty.ks.metric("requests_total", purpose="tls13", result="signed") >= 0,
                   "it to serve")
        if signo == signal.SIGKILL:
            process.kill()
        else:
            process.signal(signo)
            assert process.wait(15 * SLOW) == 0
    faulty.does("")


def test_a_server_whose_reload_hangs_in_a_token_can_be_stopped(faulty):
    """A key that is new to it makes the reload look into the token, which hangs."""
    faulty.token.generate("new", "EC:prime256v1")
    entry = faulty.token.entry("new", sessions=2)
    entry["module"] = str(BIN_DIR / "faulty_token.so")
    faulty.ks.config["pkcs11"].append(entry)
    faulty.ks.write_config()
    faulty.does("hang_open")
    process = faulty.ks.process
    process.signal(signal.SIGHUP)
    wait_until(lambda: faulty.control.with_suffix(".waits").exists(), "the reload to hang")
    process.signal(signal.SIGTERM)
    assert process.wait(15 * SLOW) == 0
    assert "reload_left_behind" in process.err()


@pytest.mark.parametrize("fault", ["wrong", "short", "empty", "long"])
def test_a_signature_that_is_not_good_never_leaves(faulty, fault):
    with faulty.ks.connect("proxy") as client:
        faulty.does(fault)
        for n in range(5):
            error = sign(client, faulty.ski, n)
            assert error in (E_CRYPTOGRAPHY, E_BUSY), error
        assert faulty.ks.metric("requests_total", purpose="tls13", result="signed") == 0
        assert sign(client, faulty.file_ski) is None
        faulty.recovers(client)


@pytest.mark.parametrize("rv", ["5 general error", "30 device error", "32 device removed",
                                "b3 session handle", "101 not logged in", "6 function failed",
                                "54 not supported", "80000001 vendor's own"])
def test_errors_of_a_token_are_answered_and_survived(faulty, rv):
    with faulty.ks.connect("proxy") as client:
        faulty.does(f"error {rv}")
        for n in range(3):
            assert sign(client, faulty.ski, n) in (E_CRYPTOGRAPHY, E_BUSY)
        assert sign(client, faulty.file_ski) is None
        faulty.recovers(client)
    faulty.ks.audit_wait(1, ski=faulty.ski.hex(), result="signed")


# --- descriptors, lengths -------------------------------------------------------------------


def test_no_descriptors_left(server):
    """Who is connected is served; who comes waits or is turned away; then all is well."""
    server.config["workers"] = 1
    server.start()
    with server.connect("proxy") as client:
        assert sign(client, server.keys["p256"].ski()) is None
        before = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (8, before[1]))
        for _ in range(3):
            with pytest.raises((OSError, EOFError, TimeoutError)):
                server.connect("issuer", timeout=0.5).close()
        cpu = server.process.cpu_s()
        start = time.monotonic()
        for n in range(20):
            assert sign(client, server.keys["p256"].ski(), n) is None
            time.sleep(0.02)
        busy = (server.process.cpu_s() - cpu) / (time.monotonic() - start)
        assert SANITIZE or busy < 0.5, "it spins on the connections that it cannot take"
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, before)
        with server.connect("issuer", timeout=15) as other:
            other.ping()


def test_headers_that_promise_more_than_comes(server):
    """A length is believed only as far as bytes come: no memory for what is not there, and
    the time for a packet runs."""
    server.config["limits"] = {"packet_timeout": f"{1500 * SLOW}ms"}
    server.config["workers"] = 1
    server.start()
    with server.connect("issuer") as other:
        other.ping()
        before = server.process.rss_bytes()
        promising = [server.connect("proxy") for _ in range(100)]
        idle = server.process.rss_bytes()
        for client in promising:
            client.send(struct.pack(">BBHI", 1, 0, 65535, 7) + b"\x11\0\1\x15" + bytes(1000))
        other.ping()
        if not SANITIZE:
            assert idle - before < 100 * 64 * 1024
            assert server.process.rss_bytes() - idle < 100 * 40 * 1024
        for client in promising:
            assert client.wait_closed() == b""
            client.close()
        other.ping()
    assert server.metric("packet_timeouts_total") == 100


@pytest.mark.parametrize("claimed", [0, 1, 20, 65535])
def test_a_length_that_is_not_the_bodys(server, claimed):
    """The header is believed: what follows is read as packets of their own, or waited for.
    Each of those gets its answer, and no request is taken for another."""
    server.start()
    with server.connect("proxy") as client:
        body = packet(9, item(OPCODE, bytes([PING])), item(PAYLOAD, b"\x01\x00" * 30), pad=False)[8:]
        client.send(struct.pack(">BBHI", 1, 0, claimed, 1) + body)
        client.half_close()
        while True:
            try:
                reply = client.receive()
            except EOFError:
                break
            assert reply.error is not None or reply.opcode == frames.PONG


# --- kill -9 ------------------------------------------------------------------------------------


def test_a_kill_in_the_middle_leaves_nothing_half_written(server, procs):
    """While it signs, makes keys and writes its audit file. What was answered for is there
    afterwards; every key file is whole; every line but the last one is."""
    made = procs.folder / "made"
    made.mkdir(mode=0o700)
    server.config["generation"] = {"folder": str(made), "per_minute": 6000}
    server.grant("maker", ["generate", "tls13"], ["label:gen-*"])
    server.start()
    address = server.address
    answered, stop = [], threading.Event()

    def make_keys():
        n = 0
        try:
            with server.connect("maker") as client:
                while not stop.is_set():
                    n += 1
                    label = b"gen-%d" % n
                    reply = client.ask(n, item(OPCODE, b"\x24"), item(0x13, b"deputy.generate_key"),
                                       item(PAYLOAD, bytes([1, len(label)]) + label))
                    if reply.error is None:
                        answered.append(reply.payload[:20])
        except (OSError, EOFError, ssl.SSLError):
            pass

    def ask():
        try:
            with server.connect("proxy") as client:
                while not stop.is_set():
                    client.send(b"".join(frames.sign_packet(
                        n, ECDSA_SHA256, server.keys["p256"].ski(), frames.tls13_message())
                        for n in range(50)))
                    client.receive_all(50)
        except (OSError, EOFError, ssl.SSLError):
            pass

    for _ in range(3):
        stop.clear()
        count = len(answered)
        threads = [threading.Thread(target=make_keys), threading.Thread(target=ask)]
        for thread in threads:
            thread.start()
        wait_until(lambda count=count: len(answered) >= count + 20, "keys to be made", 20)
        server.process.kill()
        stop.set()
        for thread in threads:
            thread.join()
        server.config["listen"] = ["%s:%d" % address]
        server.start()
        with server.connect("maker") as client:
            for ski in answered:
                assert sign(client, ski) is None
        # A label is never given twice, so the next round begins where this one ended.
        for path in made.glob("gen-*.key"):
            pki_module.key_spki(path)  # whole
            path.rename(path.with_name(f"gen-r{len(answered)}-{path.name}"))
        server.reload()
    lines = server.audit_path.read_text().splitlines()
    bad = [line for line in lines if not is_json(line)]
    assert len(lines) > 100 and len(bad) <= 3, bad  # at most one for each death
    server.process.stop()


def is_json(line):
    try:
        json.loads(line)
        return True
    except ValueError:
        return False
