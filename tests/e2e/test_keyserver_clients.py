# SPDX-License-Identifier: Apache-2.0
"""Who is let in: certificates of clients that are expired, of another CA, revoked; and
those that are connected when a reload says so."""

import ssl
import time

import pytest

from support import frames
from support.frames import ECDSA_SHA256
from support.keyserver import KeyServer
from support.procs import wait_until

DAY = 86400


def stamp(seconds):
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + seconds))


@pytest.fixture
def server(procs, pki):
    ks = KeyServer(procs, pki)
    ks.add_key("p256", "p256", "a.test")
    return ks


def use_crl(server, *paths, **more):
    server.config["tls"].update(crl=[str(path) for path in paths], **more)


def ask(server, client):
    return client.sign(1, ECDSA_SHA256, server.keys["p256"].ski(), frames.tls13_message()).error


def alert_for(server, identity, **kwargs):
    """The TLS alert that a client gets, as OpenSSL calls it; None: it is let in."""
    try:
        with server.connect(identity, **kwargs) as client:
            return None if ask(server, client) is None else "unexpected"
    except ssl.SSLError as e:
        return e.reason
    except EOFError:
        return "closed"


def refused(server, identity, reason, alert, **kwargs):
    before = server.metric("client_certificates_refused_total", reason=reason)
    assert alert_for(server, identity, **kwargs) == alert
    wait_until(lambda: server.metric("client_certificates_refused_total",
                                     reason=reason) == before + 1, f"{reason} to be counted")


# --- certificates ----------------------------------------------------------------------------


@pytest.mark.parametrize("tls12", [False, True], ids=["tls13", "tls12"])
def test_each_bad_certificate_gets_its_alert_and_counter(server, pki, tls12):
    other = pki.ca("other")
    bad = {
        "expired": (server.ca.issue("expired", san=["DNS:proxy.client.test"], eku="clientAuth",
                                    start=stamp(-2 * DAY), end=stamp(-DAY)),
                    "SSLV3_ALERT_CERTIFICATE_EXPIRED", "expired"),
        "early": (server.ca.issue("early", san=["DNS:proxy.client.test"], eku="clientAuth",
                                  start=stamp(DAY), end=stamp(2 * DAY)),
                  "SSLV3_ALERT_CERTIFICATE_EXPIRED", "not yet valid"),
        "other CA": (other.issue("x", san=["DNS:proxy.client.test"], eku="clientAuth"),
                     "TLSV1_ALERT_UNKNOWN_CA", "issuer"),
        "server's": (server.ca.issue("s", san=["DNS:proxy.client.test"], eku="serverAuth"),
                     "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE", "purpose"),
    }
    server.start()
    for title, (identity, alert, words) in bad.items():
        reason = {"early": "not_yet_valid", "other CA": "unknown_ca", "server's": "purpose"}.get(title, title)
        refused(server, identity, reason, alert, tls12=tls12)
        wait_until(lambda w=words: w in server.process.err(), f"the log line of {title}")
    none = "SSLV3_ALERT_HANDSHAKE_FAILURE" if tls12 else "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    refused(server, None, "missing", none, tls12=tls12)
    assert alert_for(server, "proxy", tls12=tls12) is None




# --- revocation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("der", [False, True], ids=["pem", "der"])
def test_revoked_is_refused(server, der):
    gone = server.client("gone", san=["DNS:proxy.client.test"])
    use_crl(server, server.ca.crl(server.procs.folder / "list", [gone], der=der))
    server.start()
    refused(server, gone, "revoked", "SSLV3_ALERT_CERTIFICATE_REVOKED")
    refused(server, gone, "revoked", "SSLV3_ALERT_CERTIFICATE_REVOKED", tls12=True)
    assert alert_for(server, "proxy") is None
    wait_until(lambda: "revoked" in server.process.err(), "the log line")
    assert abs(server.metric("crl_next_update_seconds") - time.time() - 7 * DAY) < 3600


def test_a_folder_of_lists_for_several_cas(server, pki):
    second = pki.ca("second")
    both = server.procs.folder / "both.pem"
    both.write_bytes(server.ca.cert.read_bytes() + second.cert.read_bytes())
    server.config["tls"]["ca"] = str(both)
    good = second.issue("good", san=["DNS:proxy.client.test"], eku="clientAuth")
    gone = second.issue("gone2", san=["DNS:proxy.client.test"], eku="clientAuth")
    folder = server.procs.folder / "crls"
    folder.mkdir()
    (folder / "README").write_text("no list")
    server.ca.crl(folder / "first.crl")
    second.crl(folder / "second.pem", [gone])
    second.crl(folder / "older.crl", [], start=-2 * DAY)  # the newest counts
    use_crl(server, folder)
    server.start()
    refused(server, gone, "revoked", "SSLV3_ALERT_CERTIFICATE_REVOKED")
    assert alert_for(server, good) is None and alert_for(server, "proxy") is None
    # Without its list a CA lets nobody in: one that is forgotten shows.
    (folder / "second.pem").unlink()
    (folder / "older.crl").unlink()
    server.reload()
    wait_until(lambda: "crl_missing" in server.process.err(), "the warning")
    refused(server, good, "crl_missing", "TLSV1_ALERT_UNKNOWN_CA")
    assert alert_for(server, "proxy") is None


def test_a_stale_list_refuses_unless_policy_says_otherwise(server):
    gone = server.client("gone", san=["DNS:proxy.client.test"])
    use_crl(server, server.ca.crl(server.procs.folder / "list", [gone], start=-9 * DAY, end=-DAY))
    server.start()
    wait_until(lambda: "crl_stale" in server.process.err(), "the log line")
    refused(server, "proxy", "crl_stale", "SSLV3_ALERT_CERTIFICATE_EXPIRED")
    server.config["tls"]["crl_when_stale"] = "accept"
    server.reload()
    assert alert_for(server, "proxy") is None
    refused(server, gone, "revoked", "SSLV3_ALERT_CERTIFICATE_REVOKED")


def test_lists_that_stop_the_start_and_a_reload(server, pki):
    other, liar = pki.ca("other"), pki.ca("liar")
    path = server.procs.folder / "list"
    good = server.ca.crl(path).read_bytes()
    use_crl(server, path)
    server.start()
    damaged = good[:40] + b"*" + good[41:]
    cases = {
        "be parsed": [b"", b"\x30\x03\x02\x01\x01", damaged, good[:len(good) // 2],
                             good + damaged, server.ca.cert.read_bytes()],
        "everybody would be refused": [other.crl(path).read_bytes()],
        "not signed by that CA": [server.ca.crl(path, key=liar).read_bytes()],
    }
    num = 0
    for words, contents in cases.items():
        for content in contents:
            path.write_bytes(content)
            server.reload(result="failed")
            num += 1
            wait_until(lambda w=words: w in server.process.err().rpartition(
                "reload_failed")[2], f"{words} in the log")
    with open(path, "wb") as f:
        f.truncate((16 << 20) + 1)
    server.reload(result="failed")
    wait_until(lambda: str(16 << 20) in server.process.err().rpartition("reload_failed")[2],
               "the limit in the log")
    path.unlink()
    server.reload(result="failed")
    assert alert_for(server, "proxy") is None  # the old list is in force
    path.write_bytes(good)
    server.reload()
    assert server.metric("configuration_generation") == 2


# --- connections that are open -----------------------------------------------------------------


def test_a_reload_drops_those_that_were_revoked(server):
    gone = server.client("gone", san=["DNS:proxy.client.test"])
    path = server.procs.folder / "list"
    use_crl(server, server.ca.crl(path))
    server.start()
    idle = [server.connect(gone) for _ in range(20)]
    good = [server.connect("proxy") for _ in range(5)]
    with server.connect(gone) as busy, server.connect("issuer") as issuer:
        for client in [*idle, *good, busy]:
            assert ask(server, client) is None
        server.reload()  # nothing has changed: nobody is looked at
        assert ask(server, busy) is None
        server.ca.crl(path, [gone])
        server.reload()
        for client in [busy, *idle]:
            client.wait_closed()
        for client in good:
            assert ask(server, client) is None
        issuer.ping()
    assert server.metric("connections_dropped_total", reason="revoked") == 21
    wait_until(lambda: "client_dropped" in server.process.err(), "the log line")
    refused(server, gone, "revoked", "SSLV3_ALERT_CERTIFICATE_REVOKED")
    # Taken back: it is let in again.
    server.ca.crl(path)
    server.reload()
    assert alert_for(server, gone) is None
    for client in [*idle, *good]:
        client.close()


def test_no_request_of_a_revoked_client_is_signed(server):
    """It asks without pause; from the answer to the reload on nothing is signed."""
    server.config["workers"] = 1
    gone = server.client("gone", san=["DNS:proxy.client.test"])
    path = server.procs.folder / "list"
    use_crl(server, server.ca.crl(path))
    server.start()
    packet = frames.sign_packet(1, ECDSA_SHA256, server.keys["p256"].ski(), frames.tls13_message())
    with server.connect(gone) as client:
        assert ask(server, client) is None
        server.ca.crl(path, [gone])
        server.reload()
        wait_until(lambda: server.metric("connections_open") == 0
                   or server.metric("connections_dropped_total", reason="revoked"), "the drop")
        before = server.metric("requests_total", purpose="tls13", result="signed")
        try:
            for _ in range(20):
                client.send(packet)
        except OSError:
            pass
        client.wait_closed()
    assert server.metric("requests_total", purpose="tls13", result="signed") == before


def test_a_ca_that_goes_takes_its_connections_along(server, pki):
    server.start()
    other = pki.ca("other")
    newcomer = other.issue("newcomer", san=["DNS:proxy.client.test"], eku="clientAuth")
    with server.connect("proxy") as client:
        assert ask(server, client) is None
        server.config["tls"]["ca"] = str(other.cert)
        server.reload()
        client.wait_closed()
    assert server.metric("connections_dropped_total", reason="unknown_ca") == 1
    assert alert_for(server, newcomer) is None
