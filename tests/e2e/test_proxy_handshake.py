# SPDX-License-Identifier: Apache-2.0
"""Who gets which signature: real clients against a whole deployment."""

import contextlib
import datetime
import re
import socket

import pytest

from support import tls
from support.pki import openssl
from support.procs import SLOW, wait_until
from support.stack import BODY, Stack


P256, P384 = 0x0403, 0x0503


def days_ago(days):
    when = datetime.datetime.utcnow() - datetime.timedelta(days=days)
    return when.strftime("%Y%m%d%H%M%SZ")


@pytest.fixture(scope="module")
def stack(module_procs, module_pki):
    stack = Stack(module_procs, module_pki)
    stack.proxy.config["tls"] = {"alpn": ["h2", "http/1.1"]}
    stack.add_name("p384.test", [("primary", stack.leaf("p384", "p384.test", kind="p384"))])
    stack.add_name("*.wild.test")
    stack.add_name("off.test", delegated_credentials=False)
    stack.add_name("acme.test", alpn=["acme-tls/1"])
    shared = stack.leaf("shared", "on.test", san=["DNS:on.test", "DNS:not-here.test"])
    stack.add_name("on.test", [("primary", shared)])
    stack.add_name("not-here.test", [("primary", shared)], delegated_credentials=False)
    stack.add_name("plain.test",
                   [("primary", stack.leaf("plain", "plain.test", delegation=False))])
    rsa = dict(kind="rsa2048", key_usage="critical,digitalSignature,keyEncipherment")
    stack.add_name("rsa.test", [("primary", stack.leaf("rsa", "rsa.test", **rsa))])
    stack.add_name("both.test", [
        ("primary", stack.leaf("both-ec", "both.test")),
        ("primary", stack.leaf("both-rsa", "both.test", **rsa))])
    stack.add_name("expired.test", [
        ("primary", stack.leaf("expired-1", "expired.test", 0, start=days_ago(20), end=days_ago(1))),
        ("backup", stack.leaf("expired-2", "expired.test", 1))])
    stack.add_name("gone.test", [
        ("primary", stack.leaf("gone", "gone.test", start=days_ago(20), end=days_ago(1)))])
    stack.start(wait_credentials=8)
    yield stack
    stack.stop()


@contextlib.contextmanager
def handshakes(stack, num=1, **labels):
    """Within, exactly so many handshakes with these labels come about."""
    before = stack.proxy.metric("handshakes_total", **labels)
    yield
    # The server is done when the client's Finished has come: a moment after the client.
    wait_until(lambda: stack.proxy.metric("handshakes_total", **labels) >= before + num, "the count")
    assert stack.proxy.metric("handshakes_total", **labels) == before + num


# --- delegated credentials ---------------------------------------------------------


def test_nss_receives_a_delegated_credential(stack):
    with handshakes(stack, source="dc", version="1.3"):
        result = stack.nss().run("demo.test")
    assert result.is_ok and result.got_dc, result
    assert result.issuer == "web-one"


def test_p384_leaf_with_a_p256_credential(stack):
    with handshakes(stack, source="dc", version="1.3"):
        result = stack.nss().run("p384.test")
    assert result.is_ok and result.got_dc, result


def test_wildcard_name(stack):
    result = stack.nss().run("a.wild.test")
    assert result.is_ok and result.got_dc, result
    assert stack.proxy.failures("unknown_name") == 0


def test_credential_after_a_hello_retry_request(stack):
    # P-521 first: the proxy asks for another group, the certificate callback has run.
    result = stack.nss().run("demo.test", args=("-V", "tls1.3:tls1.3", "-I", "P521,P256"))
    assert result.is_ok and result.got_dc, result


@pytest.mark.parametrize("host, dc, args", [
    ("demo.test", False, ("-V", "tls1.3:tls1.3")),  # the client's option is off
    ("off.test", True, ("-V", "tls1.3:tls1.3")),    # ours is, for this name
    ("plain.test", True, ("-V", "tls1.3:tls1.3")),  # no DelegationUsage
    ("rsa.test", True, ("-V", "tls1.3:tls1.3")),    # RSA: never
])
def test_certificate_key_where_no_credential_may_be(stack, host, dc, args):
    with handshakes(stack, source="certificate", version="1.3"):
        result = stack.nss().run(host, dc=dc, args=args)
    assert result.is_ok and not result.got_dc, result


def test_tls12_never_gets_one(stack):
    with handshakes(stack, source="certificate", version="1.2"):
        result = stack.nss().run("demo.test", args=("-V", "tls1.2:tls1.2"))
    assert result.is_ok and not result.got_dc, result


def test_guard_keeps_it_from_a_client_without_its_scheme(stack):
    before = stack.proxy.metric("dc_guard_total", cause="scheme")
    # Only P-384 in both lists: the P-256 credential does not suit, the leaf does.
    result = stack.nss().run("p384.test", args=("-V", "tls1.3:tls1.3", "-J", "ecdsa_secp384r1_sha384"))
    assert result.is_ok and not result.got_dc, result
    assert stack.proxy.metric("dc_guard_total", cause="scheme") == before + 1


@pytest.mark.parametrize("cause, sigalgs, dc_list", [
    ("scheme", [P384], [P256]),        # could not verify our CertificateVerify
    ("nss_rule", [P256, P384], [P256]),
    ("not_offered", [P256, P384], None),
])
def test_guard_by_hand_made_clients(stack, cause, sigalgs, dc_list):
    """No program sends such lists. Without the guard the handshake breaks here, or the
    client would break it; with it the certificate's key answers."""
    hello = tls.Hello(tls.client_hello(stack.context(), "p384.test"))
    hello.put(13, tls.scheme_list(*sigalgs))
    if dc_list:
        hello.put(34, tls.scheme_list(*dc_list))
    before = stack.proxy.metrics()
    asked = stack.proxy.metric("signatures_total")
    with socket.create_connection(stack.proxy.address, timeout=5 * SLOW) as sock:
        sock.sendall(tls.record(tls.HANDSHAKE, hello.pack()))
        assert sock.recv(65536)[0] == tls.HANDSHAKE
    wait_until(lambda: stack.proxy.metric("signatures_total") == asked + 1, "the signature")
    name = 'deputy_proxy_dc_guard_total{cause="%s"}' % cause
    assert stack.proxy.metrics()[name] == before[name] + 1


def test_one_chain_under_two_policies(stack):
    assert stack.nss().run("on.test").got_dc
    result = stack.nss().run("not-here.test")
    assert result.is_ok and not result.got_dc, result


def test_leaves_that_cannot_delegate_are_warned_of_once(stack):
    stack.proxy.reload()
    lines = re.findall(r".*chain_keyless_only.*", stack.proxy.log())
    assert len([l for l in lines if "plain.pem reason=no_delegation_usage" in l]) == 1, lines
    assert len([l for l in lines if "/rsa.pem reason=rsa_key" in l]) == 1, lines


# --- the certificate's key -----------------------------------------------------------


@pytest.mark.parametrize("version, args", [("1.3", ("--tlsv1.3",)),
                                           ("1.2", ("--tlsv1.2", "--tls-max", "1.2"))])
def test_curl(stack, version, args):
    with handshakes(stack, source="certificate", version=version):
        done = stack.curl(*args, "--http1.1")
    assert done.returncode == 0 and done.stdout.encode() == BODY, done.stderr


@pytest.mark.parametrize("args", [("-tls1_2",), ("-tls1_3",)])
def test_openssl(stack, args):
    done = stack.openssl(*args)
    assert done.returncode == 0 and "Verify return code: 0 (ok)" in done.stdout, done.stdout


def test_rsa_and_ecdsa_beside_each_other(stack):
    for sigalgs, kind in (("RSA+SHA256:RSA-PSS+SHA256", "RSA"), ("ECDSA+SHA256", "EC")):
        for version in ("-tls1_2", "-tls1_3"):
            done = stack.openssl(version, "-sigalgs", sigalgs, host="both.test")
            assert done.returncode == 0, (sigalgs, version, done.stderr)
            key = openssl("x509", "-noout", "-text", input=done.stdout.encode()).decode()
            assert ("rsaEncryption" in key) == (kind == "RSA"), (sigalgs, version)


def test_tls12_cipher_list_decides_between_rsa_and_ecdsa(stack):
    # Both kinds in signature_algorithms, but only RSA suites.
    done = stack.openssl("-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256", host="both.test")
    assert done.returncode == 0, done.stderr
    assert "ECDHE-RSA-AES128-GCM-SHA256" in done.stdout


def test_no_scheme_in_common(stack):
    before = stack.proxy.failures("scheme")
    done = stack.openssl("-tls1_3", "-sigalgs", "RSA-PSS+SHA256")
    assert done.returncode != 0 and "alert handshake failure" in done.stderr, done.stderr
    assert stack.proxy.failures("scheme") == before + 1


@pytest.mark.parametrize("cipher", ["AES128-SHA", "AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA",
                                    "ECDHE-ECDSA-AES256-SHA384"])
def test_weak_suites_are_refused(stack, cipher):
    before = stack.proxy.failures("cipher") + stack.proxy.failures("scheme")
    done = stack.openssl("-tls1_2", "-cipher", cipher + ":@SECLEVEL=0", host="both.test")
    assert done.returncode != 0 and "handshake failure" in done.stderr, done.stderr
    assert stack.proxy.failures("cipher") + stack.proxy.failures("scheme") == before + 1


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_old_versions_are_refused(stack, version):
    before = stack.proxy.failures("version")
    done = stack.openssl(version, "-cipher", "ALL:@SECLEVEL=0")
    assert done.returncode != 0 and "alert protocol version" in done.stderr, done.stderr
    assert stack.proxy.failures("version") == before + 1


# --- names ------------------------------------------------------------------------------


def test_unknown_name_gets_its_alert(stack):
    before = stack.proxy.failures("unknown_name")
    for args in (("-tls1_3",), ("-tls1_2",)):
        done = stack.openssl(*args, host="nobody.test")
        assert done.returncode != 0 and "unrecognized name" in done.stderr, done.stderr
    assert stack.proxy.failures("unknown_name") == before + 2


def test_no_name_gets_the_same(stack):
    before = stack.proxy.failures("unknown_name")
    done = stack.procs.run(["openssl", "s_client", "-connect", f"127.0.0.1:{stack.proxy.port}",
                            "-noservername"], input="")
    assert done.returncode != 0 and "unrecognized name" in done.stderr, done.stderr
    assert stack.proxy.failures("unknown_name") == before + 1


def test_case_and_final_dot_of_a_name_do_not_matter(stack):
    for host in ("DEMO.Test", "A.wild.TEST"):
        done = stack.openssl("-verify_hostname", host.lower(), host=host)
        assert done.returncode == 0, done.stderr


# --- ALPN ---------------------------------------------------------------------------------


@pytest.mark.parametrize("offer, want", [(["h2", "http/1.1"], "h2"), (["http/1.1", "h2"], "h2"),
                                         (["http/1.1"], "http/1.1"), (None, None)])
def test_alpn_by_our_preference(stack, offer, want):
    with stack.connect(alpn=offer) as tls:
        assert tls.selected_alpn_protocol() == want


def test_alpn_by_name(stack):
    with stack.connect("acme.test", alpn=["h2", "acme-tls/1"]) as tls:
        assert tls.selected_alpn_protocol() == "acme-tls/1"


@pytest.mark.parametrize("version", ["-tls1_3", "-tls1_2"])
def test_alpn_without_overlap_gets_its_alert(stack, version):
    before = stack.proxy.failures("alpn")
    done = stack.openssl(version, "-alpn", "spdy/3")
    assert done.returncode != 0 and "no application protocol" in done.stderr, done.stderr
    assert stack.proxy.failures("alpn") == before + 1


# --- chains ---------------------------------------------------------------------------------


def test_expired_primary_is_answered_by_the_backup(stack):
    result = stack.nss().run("expired.test")
    assert result.is_ok and result.issuer == "web-two" and result.got_dc, result


def test_nothing_but_expired_chains(stack):
    before = stack.proxy.failures("no_chain")
    done = stack.openssl(host="gone.test")
    assert done.returncode != 0 and "alert internal error" in done.stderr, done.stderr
    assert stack.proxy.failures("no_chain") == before + 1


# --- resumption --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_resumption_by_openssl(stack, version, tmp_path):
    session = tmp_path / "session"
    request = "GET / HTTP/1.1\r\nHost: demo.test\r\nConnection: close\r\n\r\n"
    first = stack.openssl(version, "-sess_out", session, "-ign_eof", input=request)
    assert "New, TLSv1" in first.stdout and session.exists(), first.stdout + first.stderr
    with handshakes(stack, source="resumed", version=version[-3:].replace("_", ".")):
        again = stack.openssl(version, "-sess_in", session, "-ign_eof", input=request)
    assert "Reused, TLSv1" in again.stdout, again.stdout + again.stderr


def test_session_of_one_name_is_not_resumed_for_another(stack, tmp_path):
    session = tmp_path / "session"
    request = "GET / HTTP/1.1\r\nHost: demo.test\r\nConnection: close\r\n\r\n"
    stack.openssl("-sess_out", session, "-ign_eof", input=request)
    with handshakes(stack, source="certificate", version="1.3"):
        other = stack.openssl("-sess_in", session, "-ign_eof", host="p384.test", input=request)
    assert "New, TLSv1.3" in other.stdout, other.stdout + other.stderr


def test_resumption_by_nss_after_a_credential(stack):
    before = stack.proxy.metric("handshakes_total", source="resumed", version="1.3")
    client = stack.nss().start("demo.test", input="GET / HTTP/1.0\r\nHost: demo.test\r\n\r\n",
                               args=("-V", "tls1.3:tls1.3", "-u", "-L", "2"))
    stack.proxy.wait_metric(before + 1, "handshakes_total", source="resumed", version="1.3")
    client.kill()
    assert "Received a Delegated Credential" in client.out() + client.err()


# --- after the handshake ---------------------------------------------------------------------------


def test_key_update(stack):
    done = stack.openssl("-tls1_3", input="K\nGET / HTTP/1.0\r\n\r\n", host="demo.test")
    assert "KEYUPDATE" in done.stderr, done.stderr
    assert done.returncode == 0


def test_renegotiation_is_refused(stack):
    before = stack.proxy.metric("connections_ended_total", outcome="client_protocol")
    done = stack.openssl("-tls1_2", input="R\nGET / HTTP/1.0\r\n\r\n")
    assert "RENEGOTIATING" in done.stderr, done.stderr
    assert "no renegotiation" in done.stderr, done.stderr
    assert BODY.decode() not in done.stdout
    stack.proxy.wait_metric(before + 1, "connections_ended_total", outcome="client_protocol")


def test_closing_line_says_what_happened(stack):
    assert stack.get("p384.test") == BODY
    lines = [l for l in stack.proxy.log().splitlines() if 'name="p384.test"' in l]
    want = (r"outcome=(done|truncated) client=127\.0\.0\.1:\d+ name=\"p384\.test\" version=1\.3 "
            r"source=certificate resumed=no chain=primary ca=[0-9a-f]{8} group=X25519 handshake_us=\d+ "
            r"connect_us=[1-9]\d* up=\d+ down=\d+ ms=\d+")
    assert re.search(want, lines[-1]), lines


def test_gauges_by_name(stack):
    left = stack.proxy.metric("dc_seconds_left", name="demo.test", chain="primary")
    assert 47 * 3600 < left <= 48 * 3600
    left = stack.proxy.metric("certificate_seconds_left", name="demo.test", chain="backup")
    assert 89 < left / 86400 < 91
    assert stack.proxy.metric("chain_usable", name="gone.test") == 0


def test_silent_connection_is_held_by_the_kernel(stack):
    """TCP_DEFER_ACCEPT: who says nothing costs the proxy nothing."""
    before = stack.proxy.metric("connections_accepted_total")
    with socket.create_connection(stack.proxy.address):
        assert stack.get() == BODY
        assert stack.proxy.metric("connections_accepted_total") == before + 1
