# SPDX-License-Identifier: Apache-2.0
"""The issuer as a service: TLS, key servers that fail, reload, drain, audit, configuration."""

import concurrent.futures
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import time

import pytest

from support import pki as pki_module
from support import prometheus
from support.dcissuer import HOUR, PATH, Dc, DcKey, Issuer
from support.keyserver import KeyServer
from support.procs import BIN_DIR, SLOW, wait_until

FAST = {"deadline": "600ms", "attempt_timeout": "300ms", "connect_timeout": "300ms"}


@pytest.fixture
def ks(procs, pki):
    ks = KeyServer(procs, pki)
    ks.add_key("demo", "p256", "demo.test")
    return ks.start()


@pytest.fixture
def issuer(procs, pki, ks):
    return Issuer(procs, pki, ks)


@pytest.fixture
def leaf(ks):
    return ks.keys["demo"]


@contextlib.contextmanager
def stopped(process):
    """A process that hangs: its sockets are open, and nothing moves."""
    process.freeze()
    try:
        yield
    finally:
        process.thaw()


@contextlib.contextmanager
def in_background(call, *args, **kwargs):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield pool.submit(call, *args, **kwargs)


# --- TLS -------------------------------------------------------------------------------


def fails_in_tls(issuer, context):
    host, port = issuer.process.address("api")
    with socket.create_connection((host, port), timeout=10 * SLOW) as plain:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            with context.wrap_socket(plain, server_hostname="localhost") as tls:
                tls.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
                if not tls.recv(1):
                    raise ConnectionError("closed")


def test_who_is_let_in(issuer, pki, ks):
    issuer.start()
    before = issuer.metric("tls_handshakes_failed_total", listener="api")
    other_ca = pki.ca("other")
    bad = [
        None,  # no certificate
        other_ca.issue("proxy", san=["DNS:proxy.client.test"], eku="clientAuth"),  # another CA
        issuer.ca.issue("server-only", san=["DNS:proxy.client.test"], eku="serverAuth"),
        issuer.ca.issue("expired", san=["DNS:proxy.client.test"], eku="clientAuth",
                        start="20200101000000Z", end="20210101000000Z"),
    ]
    for identity in bad:
        fails_in_tls(issuer, issuer.tls(identity))
    old = issuer.tls("proxy")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    fails_in_tls(issuer, old)
    # The last ones are counted when the server has read the alert or the end.
    wait_until(lambda: issuer.metric("tls_handshakes_failed_total", listener="api") ==
               before + len(bad) + 1, "the counter")
    issuer.issue("proxy", ks.keys["demo"])
    assert issuer.audit(result="refused") == []


def test_a_revoked_client_is_refused(issuer, ks):
    """From the reload on which has brought the list."""
    path = issuer.procs.folder / "list"
    issuer.config["tls"]["crl"] = [str(issuer.ca.crl(path))]
    issuer.start()
    status, _ = issuer.post("proxy", None, path="/healthz", method="GET")
    assert status == 200
    issuer.ca.crl(path, [issuer.client("proxy")])
    issuer.process.signal(signal.SIGHUP)
    wait_until(lambda: "reloaded" in issuer.process.err(), "the reload")
    fails_in_tls(issuer, issuer.tls("proxy"))
    wait_until(lambda: issuer.metric("client_certificates_refused_total", reason="revoked") == 1,
               "the count")
    wait_until(lambda: "reason=revoked" in issuer.process.err(), "the log line")
    assert issuer.post("stranger", None, path="/healthz", method="GET")[0] == 200


def test_client_checks_the_issuer(issuer, pki):
    issuer.start()
    with pytest.raises(ssl.SSLCertVerificationError):
        with issuer.connection("proxy", ca=pki.ca("other").cert) as conn:
            conn.request("GET", "/healthz")


def test_silent_and_slow_peers_harm_nobody(issuer, leaf):
    issuer.config["limits"] = {"request_timeout": "1s", "max_connections": 50}
    issuer.start()
    host, port = issuer.process.address("api")
    silent = [socket.create_connection((host, port)) for _ in range(10)]
    halves = [issuer.socket("proxy") for _ in range(10)]
    for tls in halves:
        tls.sendall(f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{{".encode())
    issuer.issue("proxy", leaf)
    for peer in silent:
        assert peer.recv(1) == b""  # after the deadline
        peer.close()
    for tls in halves:
        assert tls.recv(100).startswith(b"HTTP/1.1 408 ")
        tls.close()
    wait_until(lambda: issuer.metric("http_connections", listener="api") == 0, "the closing")


def test_pipelined_requests(issuer, leaf):
    issuer.start()
    body = json.dumps({"requests": [DcKey().entry(leaf)]}).encode()
    one = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    last = one.replace(b"Host: a\r\n", b"Host: a\r\nConnection: close\r\n")
    with issuer.socket("proxy") as tls:
        tls.sendall(one * 9 + last)
        data = b""
        while chunk := tls.recv(65536):
            data += chunk
    assert data.count(b"HTTP/1.1 200 OK\r\n") == 10
    assert data.count(b'"credential"') == 10


def test_client_that_leaves_gets_its_audit_line(issuer, ks, leaf):
    """Its request goes on, and ends without anybody to tell."""
    issuer.start()
    body = json.dumps({"requests": [DcKey().entry(leaf)] * 3}).encode()
    with stopped(ks.process):
        tls = issuer.socket("proxy")
        tls.sendall(f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        tls.sendall(body)
        wait_until(lambda: issuer.metric("signatures_in_work") == 3, "the request")
        tls.close()
    issuer.audit(num=3, result="issued")
    issuer.issue("proxy", leaf)


def test_a_long_batch_does_not_hold_up_others(issuer, leaf):
    issuer.start()
    der = leaf.der()
    entries = [DcKey().entry(der) for _ in range(10)] * 100
    issuer.client("proxy2")
    with in_background(issuer.ask, "proxy", entries, timeout=60) as batch:
        wait_until(lambda: issuer.metric("requests_in_work") == 1, "the batch")
        issuer.issue("proxy", leaf)
        assert not batch.done(), "the batch was too fast for this test"
        status, body = batch.result()
    assert status == 200 and all("credential" in r for r in body["results"])


def test_too_many_requests_in_work(issuer, ks, leaf):
    issuer.config["limits"] = {"max_batches": 1}
    issuer.config["key_servers"]["deadline"] = "10s"
    issuer.start()
    with stopped(ks.process):
        with in_background(issuer.ask, "proxy", [DcKey().entry(leaf)]) as first:
            wait_until(lambda: issuer.metric("requests_in_work") == 1, "the first")
            status, body = issuer.ask("proxy", [DcKey().entry(leaf)])
            assert (status, body["error"]["code"]) == (503, "busy")
            ks.process.signal(signal.SIGCONT)
            assert first.result()[0] == 200
    issuer.issue("proxy", leaf)


def test_too_many_connections(issuer, leaf):
    issuer.config["limits"] = {"max_connections": 3}
    issuer.start()
    inside = [issuer.socket("proxy") for _ in range(3)]
    with pytest.raises((ssl.SSLError, OSError)):
        issuer.socket("proxy")
    assert issuer.metric("http_connections_refused_total", listener="api") >= 1
    inside.pop().close()
    wait_until(lambda: issuer.metric("http_connections", listener="api") == 2, "the closing")
    issuer.issue("proxy", leaf)
    for tls in inside:
        tls.close()


# --- key servers -------------------------------------------------------------------------


def timed(call, limit):
    began = time.monotonic()
    result = call()
    assert time.monotonic() - began < limit * SLOW, "not in bounded time"
    return result


def test_key_server_down_and_back(issuer, ks, leaf):
    issuer.config["key_servers"].update(FAST)
    issuer.start()
    issuer.issue("proxy", leaf)
    ks.config["listen"] = ["%s:%d" % ks.address]  # the same port when it comes back
    ks.process.stop()
    wait_until(lambda: issuer.plain("/readyz")[0] == 503, "the loss to be seen")
    assert "key_server_unavailable" in issuer.plain("/readyz")[1]
    assert issuer.plain("/healthz")[0] == 200
    entries = [DcKey().entry(leaf) for _ in range(20)]
    status, body = timed(lambda: issuer.ask("proxy", entries), 3)
    assert status == 200
    assert {r["error"]["code"] for r in body["results"]} == {"key_server_unavailable"}
    # What needs no signature is refused for its own reason.
    assert issuer.error("proxy", DcKey().entry(leaf, 300 * 24 * HOUR)) == "lifetime_too_long"
    ks.start()
    wait_until(lambda: issuer.plain("/readyz")[0] == 200, "the reconnection", timeout=30)
    issuer.issue("proxy", leaf)


def test_issuer_starts_without_key_server(issuer, ks, leaf):
    issuer.config["key_servers"].update(FAST)
    ks.config["listen"] = ["%s:%d" % ks.address]
    ks.process.stop()
    issuer.start(ready=False)
    assert issuer.plain("/healthz")[0] == 200 and issuer.plain("/readyz")[0] == 503
    assert timed(lambda: issuer.error("proxy", DcKey().entry(leaf)), 3) == "key_server_unavailable"
    ks.start()
    wait_until(lambda: issuer.plain("/readyz")[0] == 200, "the connection", timeout=30)
    issuer.issue("proxy", leaf)


def test_key_server_that_hangs(issuer, ks, leaf):
    issuer.config["key_servers"].update(FAST)
    issuer.start()
    with stopped(ks.process):
        entry = DcKey().entry(leaf)
        assert timed(lambda: issuer.error("proxy", entry), 3) == "key_server_unavailable"
    wait_until(lambda: "credential" in issuer.ask_one("proxy", DcKey().entry(leaf)), "recovery")


def test_work_deadline(issuer, ks, leaf):
    """The reply leaves in time although the key server would have some left."""
    issuer.config["limits"] = {"work_timeout": "500ms", "signatures_per_request": 2}
    issuer.config["key_servers"]["deadline"] = "30s"
    issuer.start()
    with stopped(ks.process):
        entries = [DcKey().entry(leaf) for _ in range(5)] + [{}]
        status, body = timed(lambda: issuer.ask("proxy", entries), 3)
    assert status == 200
    codes = [r["error"]["code"] for r in body["results"]]
    assert codes == ["deadline_exceeded"] * 6
    issuer.audit(num=6, reason="deadline_exceeded")
    assert issuer.metric("signatures_in_work") == 0
    wait_until(lambda: "credential" in issuer.ask_one("proxy", DcKey().entry(leaf)), "recovery")


def test_signatures_at_a_time(issuer, ks, leaf):
    issuer.config["limits"] = {"signatures_per_request": 3, "signatures": 5}
    issuer.config["key_servers"]["deadline"] = "20s"
    issuer.start()
    with concurrent.futures.ThreadPoolExecutor(2) as pool, stopped(ks.process):
        entries = [DcKey().entry(leaf) for _ in range(10)]
        asked = [pool.submit(issuer.ask, "proxy", entries)]
        wait_until(lambda: issuer.metric("signatures_in_work") == 3, "those of one request")
        for _ in range(20):
            assert issuer.metric("signatures_in_work") == 3
        asked.append(pool.submit(issuer.ask, "proxy", entries))
        wait_until(lambda: issuer.metric("signatures_in_work") == 5, "as many as may be")
        for _ in range(20):
            assert issuer.metric("signatures_in_work") == 5
        ks.process.signal(signal.SIGCONT)
        for reply in asked:
            status, body = reply.result()
            assert status == 200 and all("credential" in r for r in body["results"])
    assert issuer.metric("signatures_in_work") == 0


def test_key_server_that_refuses(procs, pki, ks, leaf):
    """A certificate of the right CA is not enough there: the grant is for issuers."""
    issuer = Issuer(procs, pki, ks, name="dcissuer2", ks_client="proxy").start()
    assert issuer.error("proxy", DcKey().entry(leaf)) == "key_server_refused"
    ks.audit(num=1, result="refused", client="proxy.client.test", purpose="dc")


def test_key_servers_own_limit_of_lifetime(procs, pki):
    ks = KeyServer(procs, pki, clients={})
    ks.grant("issuer", ["dc"], dc_max_lifetime="1h")
    leaf = ks.add_key("demo", "p256", "demo.test")
    ks.start()
    issuer = Issuer(procs, pki, ks).start()
    issuer.issue("proxy", leaf, HOUR - 60)
    assert issuer.error("proxy", DcKey().entry(leaf, 2 * HOUR)) == "key_server_refused"


def test_second_key_server_takes_over(procs, pki, ks, leaf):
    dead = socket.socket()
    dead.bind(("127.0.0.1", 0))  # bound, not listening: refused
    addresses = ["127.0.0.1:%d" % dead.getsockname()[1], "%s:%d" % ks.address]
    issuer = Issuer(procs, pki, ks, server_addresses=addresses).start()
    for _ in range(10):
        issuer.issue("proxy", leaf)
    dead.close()


def test_key_server_with_the_wrong_certificate(procs, pki, ks, leaf):
    issuer = Issuer(procs, pki, ks)
    issuer.config["key_servers"].update(FAST)
    issuer.config["key_servers"]["servers"][0]["name"] = "another.name"
    issuer.start(ready=False)
    assert issuer.error("proxy", DcKey().entry(leaf)) == "key_server_unavailable"
    assert issuer.plain("/readyz")[0] == 503


# --- presented certificates ----------------------------------------------------------------


def test_only_configured_certificates(issuer, ks, leaf):
    issuer.configure(leaf, "demo")
    issuer.config["accept_presented"] = False
    issuer.start()
    issuer.issue("proxy", leaf)
    issuer.issue("proxy", leaf, by_hash=True)
    other = ks.web_ca.issue_leaf("demo.test", key=leaf.key, name="other")
    assert issuer.error("proxy", DcKey().entry(other)) == "unknown_certificate"


# --- reload -----------------------------------------------------------------------------------


def test_reload_of_rights_and_certificates(issuer, ks, leaf):
    issuer.start()
    entry = DcKey().entry(leaf, by_hash=True)
    assert issuer.error("proxy", entry) == "unknown_certificate"
    issuer.configure(leaf, "demo")
    assert issuer.error("proxy", entry) == "unknown_certificate"
    issuer.reload()
    assert "credential" in issuer.ask_one("proxy", entry)
    # A right that is taken away is gone with the next request of an open connection.
    with issuer.connection("proxy") as conn:
        assert "credential" in issuer.ask_one("proxy", entry, conn=conn)
        issuer.config["clients"][0]["hosts"] = ["other.test"]
        issuer.reload()
        assert issuer.error("proxy", entry, conn=conn) == "not_allowed"
    issuer.config["clients"] = []
    issuer.reload()
    assert issuer.ask("proxy", [entry])[0] == 403


BAD_CONFIGS = [
    ("no JSON", lambda c: "{", ":1:"),
    ("unknown option", lambda c: {**c, "acept_presented": True}, 'did you mean "accept_presented"'),
    ("missing option", lambda c: {k: v for k, v in c.items() if k != "tls"}, "tls"),
    ("no such certificate", lambda c: {**c, "certificates": ["/no/such"]}, "/no/such"),
    ("no such key", lambda c: {**c, "tls": {**c["tls"], "key": "/no/such"}}, "/no/such"),
    ("key of another", lambda c: {**c, "tls": {**c["tls"], "certificate": c["key_servers"]["tls"][
        "certificate"]}}, "does not belong"),
    ("no such CA of the key server", lambda c: {**c, "key_servers": {**c["key_servers"], "tls": {
        **c["key_servers"]["tls"], "ca": "/no/such"}}}, "/no/such"),
    ("label twice", lambda c: {**c, "clients": c["clients"] * 2}, "proxy-0"),
    ("client without identity", lambda c: {**c, "clients": [{"label": "x", "hosts": ["*"]}]}, '"x"'),
    ("bad host", lambda c: {**c, "clients": [{**c["clients"][0], "hosts": ["a.*.test"]}]}, "a.*.test"),
    ("empty host", lambda c: {**c, "clients": [{**c["clients"][0], "hosts": [""]}]}, "hosts[0]"),
    ("bad scheme", lambda c: {**c, "clients": [{**c["clients"][0], "schemes": [
        "rsa_pss_rsae_sha256"]}]}, "rsa_pss_rsae_sha256"),
    ("bad hash", lambda c: {**c, "clients": [{**c["clients"][0], "spki_sha256": ["xyz"]}]}, "spki_sha256"),
    ("lifetime over 7 days", lambda c: {**c, "lifetime": {"max": "8d"}}, "lifetime"),
    ("default over max", lambda c: {**c, "lifetime": {"max": "1h"}}, "lifetime.default"),
    ("metrics for the world", lambda c: {**c, "metrics": {"listen": "0.0.0.0:0"}}, "0.0.0.0"),
    ("bad address", lambda c: {**c, "listen": ["nowhere"]}, "listen[0]"),
    ("number as text", lambda c: {**c, "limits": {"max_batches": "7"}}, "max_batches"),
    ("too many entries", lambda c: {**c, "limits": {"max_entries": 1001}}, "max_entries"),
]


@pytest.mark.parametrize("change, hint", [row[1:] for row in BAD_CONFIGS],
                         ids=[row[0] for row in BAD_CONFIGS])
def test_check_config_says_what_is_wrong(issuer, procs, tmp_path, change, hint):
    path = tmp_path / "bad.json"
    bad = change(issuer.config)
    path.write_text(bad if isinstance(bad, str) else json.dumps(bad))
    done = procs.run([BIN_DIR / "deputy-dcissuer", "--config", path, "--check-config"])
    assert done.returncode != 0 and not done.stdout
    assert hint in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1  # one sentence


def test_check_config_of_a_good_file(issuer, procs, leaf):
    issuer.configure(leaf, "demo")
    issuer.write_config()
    done = procs.run([BIN_DIR / "deputy-dcissuer", "--config", procs.folder / "dcissuer.json",
                      "--check-config"], check=True)
    assert "good: 1 clients, 1 certificates" in done.stdout
    assert not issuer.audit_path.exists()


def test_help_and_reference(procs):
    done = procs.run([BIN_DIR / "deputy-dcissuer", "--config-reference"], check=True)
    for option in ("rate_per_minute", "accept_presented", "key_servers", "when_unavailable"):
        assert option in done.stdout
    assert "--check-config" in procs.run([BIN_DIR / "deputy-dcissuer", "--help"], check=True).stdout
    assert procs.run([BIN_DIR / "deputy-dcissuer", "--bogus"]).returncode == 2


def test_bad_reload_keeps_the_old(issuer, leaf):
    issuer.start()
    good = dict(issuer.config)
    issuer.config["clients"] = [{"label": "x", "names": ["y"], "hosts": ["**"]}]
    issuer.reload(result="failed")
    wait_until(lambda: "reload_failed" in issuer.process.err(), "the log line")
    assert "**" in issuer.process.err()
    issuer.issue("proxy", leaf)
    issuer.config = good
    (issuer.folder / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n"
                                              "-----END CERTIFICATE-----\n")
    issuer.reload(result="failed")
    wait_until(lambda: "broken.pem" in issuer.process.err(), "the file's name")
    issuer.issue("proxy", leaf)
    (issuer.folder / "broken.pem").unlink()
    issuer.reload()


def test_reloads_under_load_drop_nothing(issuer, ks, leaf, pki):
    issuer.start()
    der = leaf.der()
    entries = [DcKey().entry(der) for _ in range(20)]
    identities = [ks.ca.issue(f"issuer{i}", san=["DNS:issuer.client.test"], eku="clientAuth")
                  for i in range(2)]
    done = False

    def client():
        num = 0
        with issuer.connection("proxy") as conn:
            while not done:
                status, body = issuer.ask("proxy", entries, conn=conn)
                assert status == 200
                assert all("credential" in r for r in body["results"]), body
                num += 1
        return num

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(client) for _ in range(3)]
        try:
            for i in range(12):
                # Every other time the connections to the key server are made anew.
                issuer.config["key_servers"]["tls"] = pki.tls(ks.ca, identities[i // 2 % 2])
                issuer.reload()
        finally:
            done = True
        assert all(c.result() >= 3 for c in clients)
    assert issuer.metric("reloads_total", result="ok") == 12


def test_reload_while_a_request_waits(issuer, ks, leaf, pki):
    """The request keeps the rights and the connections that it began with."""
    issuer.config["key_servers"]["deadline"] = "20s"
    issuer.start()
    with stopped(ks.process):
        with in_background(issuer.ask_one, "proxy", DcKey().entry(leaf)) as first:
            wait_until(lambda: issuer.metric("signatures_in_work") == 1, "the request")
            issuer.config["clients"] = []
            identity = ks.ca.issue("issuer-b", san=["DNS:issuer.client.test"], eku="clientAuth")
            issuer.config["key_servers"]["tls"] = pki.tls(ks.ca, identity)
            issuer.reload()
            ks.process.signal(signal.SIGCONT)
            assert "credential" in first.result()
    assert issuer.ask("proxy", [DcKey().entry(leaf)])[0] == 403


def test_reload_is_no_fresh_allowance(issuer, leaf):
    issuer.config["clients"][0].update(rate_per_minute=1, burst=2)
    issuer.start()
    for _ in range(2):
        issuer.issue("proxy", leaf)
    issuer.reload()
    assert issuer.error("proxy", DcKey().entry(leaf)) == "rate_exceeded"


def test_new_server_certificate(issuer, leaf, pki):
    issuer.start()

    def serial():
        with issuer.socket("proxy") as tls:
            return tls.getpeercert()["serialNumber"]

    first = serial()
    issuer.config["tls"] = pki.tls(issuer.ca, issuer.ca.issue(
        "server2", san=["DNS:localhost", "IP:127.0.0.1"], eku="serverAuth"))
    issuer.reload()
    assert serial() != first
    issuer.issue("proxy", leaf)


# --- drain, kill ------------------------------------------------------------------------------


def test_term_drains(issuer, ks, leaf):
    issuer.config["key_servers"]["deadline"] = "20s"
    issuer.start()
    host, port = issuer.process.address("api")
    idle = issuer.socket("proxy")
    with stopped(ks.process):
        key = DcKey()
        with in_background(issuer.ask_one, "proxy", key.entry(leaf)) as first:
            wait_until(lambda: issuer.metric("signatures_in_work") == 1, "the request")
            issuer.process.signal(signal.SIGTERM)
            wait_until(lambda: issuer.plain("/readyz")[0] == 503, "the drain")
            assert "draining" in issuer.plain("/readyz")[1]
            with pytest.raises(ConnectionError):
                socket.create_connection((host, port))
            assert idle.recv(1) == b""
            assert issuer.process.is_running()
            ks.process.signal(signal.SIGCONT)
            Dc(first.result()["credential"]).verify(leaf, key)
    assert issuer.process.wait() == 0
    idle.close()


def test_drain_has_an_end(issuer, ks, leaf):
    issuer.config["key_servers"]["deadline"] = "30s"
    issuer.config["limits"] = {"drain_timeout": "300ms"}
    issuer.start()
    with stopped(ks.process):
        with in_background(issuer.ask, "proxy", [DcKey().entry(leaf)]) as first:
            wait_until(lambda: issuer.metric("signatures_in_work") == 1, "the request")
            issuer.process.signal(signal.SIGTERM)
            assert issuer.process.wait() == 0
            with pytest.raises(Exception):
                first.result()
    assert "drain_cut_short" in issuer.process.err()


def test_kill_and_restart(issuer, leaf):
    issuer.start()
    issuer.issue("proxy", leaf)
    issuer.process.kill()
    for line in issuer.audit_path.read_text().splitlines():
        json.loads(line)
    issuer.name = "dcissuer-again"
    issuer.start()
    issuer.issue("proxy", leaf)


# --- audit, log ----------------------------------------------------------------------------------


def test_audit_that_cannot_be_written(issuer, leaf):
    issuer.config["audit"]["path"] = "/dev/full"
    issuer.start()
    issuer.ask_one("proxy", DcKey().entry(leaf))  # may pass: nobody knows yet
    wait_until(lambda: issuer.metric("audit_failing") == 1, "the failure to be seen")
    assert issuer.error("proxy", DcKey().entry(leaf)) == "audit_unavailable"
    assert issuer.metric("audit_lost_total") >= 1


def test_audit_that_may_be_lost(issuer, leaf):
    issuer.config["audit"] = {"path": "/dev/full", "when_unavailable": "issue"}
    issuer.start()
    issuer.issue("proxy", leaf)
    wait_until(lambda: issuer.metric("audit_failing") == 1, "the failure to be seen")
    issuer.issue("proxy", leaf)


def test_audit_is_opened_again(issuer, leaf):
    issuer.start()
    issuer.issue("proxy", leaf)
    issuer.audit(num=1)
    issuer.audit_path.rename(str(issuer.audit_path) + ".1")
    issuer.process.signal(signal.SIGUSR1)
    wait_until(issuer.audit_path.exists, "the new file")
    issuer.issue("proxy", leaf)
    issuer.audit(num=1)
    assert oct(issuer.audit_path.stat().st_mode & 0o777) == "0o600"


def test_names_cannot_forge_audit_lines(issuer, ks, leaf):
    evil = issuer.client("evil", san=[r'URI:https://a/\"}{\"result\":\"issued\"}'])
    issuer.start()
    assert issuer.ask(evil, [DcKey().entry(leaf)])[0] == 403
    line, = issuer.audit(num=1, reason="not_allowed")
    assert line["result"] == "refused" and r"\x22}{\x22result" in line["client"]
    assert issuer.audit(result="issued") == []


# --- the process ------------------------------------------------------------------------------------


def test_metrics_are_well_formed(issuer, leaf):
    issuer.start()
    issuer.issue("proxy", leaf)
    families = prometheus.parse(issuer.plain("/metrics")[1])
    assert all(name.startswith("deputy_dcissuer_") for name in families), families.keys()
    assert issuer.metric("issued_total") == 1
    assert issuer.metric("key_server_signed_total") == 1
    assert issuer.metric("request_seconds_count") == 1


def test_unix_socket_for_metrics(issuer, procs):
    path = procs.folder / "m.sock"
    issuer.config["metrics"]["listen"] = f"unix:{path}"
    issuer.process = None
    issuer.start(ready=False)
    done = procs.run(["curl", "-sS", "--fail", "--unix-socket", path, "http://localhost/healthz"],
                     check=True)
    assert json.loads(done.stdout) == {"alive": True}


def test_no_descriptor_and_no_memory_is_lost(issuer, leaf):
    issuer.start()
    der = leaf.der()

    def round_trip(num):
        for _ in range(num):
            issuer.ask("proxy", [DcKey().entry(der)] * 20)
            tls = issuer.socket("proxy")
            tls.sendall(b"GET /met")
            tls.close()

    round_trip(10)
    wait_until(lambda: issuer.metric("http_connections", listener="api") == 0, "the closing")
    fds, rss = issuer.process.num_fds(), issuer.process.rss_bytes()
    round_trip(60)
    wait_until(lambda: issuer.metric("http_connections", listener="api") == 0, "the closing")
    assert issuer.process.num_fds() <= fds + 1
    if SLOW == 1:
        assert issuer.process.rss_bytes() < rss + (4 << 20)


def test_it_holds_no_certificate_key(issuer, ks, leaf):
    """Neither in its files nor in what it is told: the key is in the key server's folder alone."""
    issuer.start()
    issuer.issue("proxy", leaf)
    maps = os.readlink(f"/proc/{issuer.process.pid}/exe")
    assert maps.endswith("deputy-dcissuer")
    opened = [os.readlink(f"/proc/{issuer.process.pid}/fd/{fd}")
              for fd in os.listdir(f"/proc/{issuer.process.pid}/fd")]
    assert not any("keyserver-keys" in path for path in opened)
    assert str(ks.folder) not in json.dumps(issuer.config)


def test_no_core_dumps(issuer):
    issuer.start(ready=False)
    status = open(f"/proc/{issuer.process.pid}/status").read()
    assert "NoNewPrivs:\t1" in status
    limits = open(f"/proc/{issuer.process.pid}/limits").read()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4] == "0"
