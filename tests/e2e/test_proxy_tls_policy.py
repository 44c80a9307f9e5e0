# SPDX-License-Identifier: Apache-2.0
"""How TLS is spoken to the clients of a name: versions, groups, their certificates, no
early data. And that resumption is no way around any of it."""

import base64
import datetime
import re
import socket
import ssl
import time

import pytest

from support.pki import der_item
from support.procs import BIN_DIR, SLOW, wait_until
from support.stack import BODY, Stack

VERSIONS = pytest.mark.parametrize("tls12", [False, True], ids=["tls13", "tls12"])
REQUEST = "GET / HTTP/1.1\r\nHost: demo.test\r\nConnection: close\r\n\r\n"


def in_days(days):
    return in_seconds(days * 86400)


def in_seconds(seconds):
    when = datetime.datetime.utcnow() + datetime.timedelta(seconds=seconds)
    return when.strftime("%Y%m%d%H%M%SZ")


class Clients:
    """Who comes: by two CAs, with all that can be wrong with a certificate."""

    def __init__(self, pki):
        self.ca, self.other_ca = pki.ca("visitors"), pki.ca("strangers")
        self.middle = pki.ca("visitors-middle")
        self.middle.sign_by(self.ca)
        self.good = self.ca.issue("alice", eku="clientAuth")
        self.revoked = self.ca.issue("mallory", eku="clientAuth")
        self.later = self.ca.issue("bob", eku="clientAuth")
        self.expired = self.ca.issue("old", eku="clientAuth", start=in_days(-20), end=in_days(-1))
        self.early = self.ca.issue("young", eku="clientAuth", start=in_days(1), end=in_days(9))
        self.server = self.ca.issue("a-server", eku="serverAuth")
        self.stranger = self.other_ca.issue("eve", eku="clientAuth")
        self.deep = self.middle.issue("carol", eku="clientAuth")
        chain = self.middle.folder / "chain.pem"
        chain.write_bytes(self.deep.cert.read_bytes() + self.middle.cert.read_bytes())
        self.deep.chain = chain


@pytest.fixture(scope="module")
def clients(module_pki):
    return Clients(module_pki)


@pytest.fixture(scope="module")
def stack(module_procs, module_pki, clients):
    stack = Stack(module_procs, module_pki, issuer=False)
    stack.crl = clients.ca.crl(module_pki.folder / "visitors.crl", [clients.revoked])
    ca = {"ca": str(clients.ca.cert)}
    stack.proxy.config["tls"] = {"alpn": ["h2", "http/1.1"], "client_certificates": {
        "mode": "off", **ca}}
    one = [("primary", stack.leaf("one", "demo.test", san=[
        f"DNS:{name}.test" for name in ("demo", "new", "old", "strong", "required", "listed",
                                        "optional", "strangers", "shallow")]))]
    stack.proxy.config["names"] = []
    stack.add_name("demo.test", one)
    stack.add_name("new.test", one, tls={"min_version": "1.3"})
    stack.add_name("old.test", one, tls={"max_version": "1.2"})
    stack.add_name("strong.test", one, tls={"groups": "P-384:P-521"})
    stack.add_name("required.test", one, tls={"client_certificates": {"mode": "required"}})
    stack.add_name("optional.test", one, tls={"client_certificates": {"mode": "optional"}})
    stack.add_name("listed.test", one, tls={"client_certificates": {
        "mode": "required", **ca, "crl": [str(stack.crl)]}})
    stack.add_name("strangers.test", one, tls={"client_certificates": {
        "mode": "required", "ca": str(clients.other_ca.cert)}})
    stack.add_name("shallow.test", one, tls={"client_certificates": {
        "mode": "required", **ca, "depth": 0}})
    stack.start()
    stack.proxy.config["listeners"][0]["address"] = "127.0.0.1:%d" % stack.proxy.port
    yield stack
    stack.stop()


class Visitor:
    """A client that keeps its last session."""

    def __init__(self, stack, identity=None, tls12=False):
        self.stack = stack
        self.context = stack.context(tls12=tls12)
        if identity:
            self.context.load_cert_chain(identity.chain, identity.key)
        self.session = None
        self.is_resumed = None

    def visit(self, host, session=None):
        """One request; the body. SSLError: refused."""
        plain = socket.create_connection(self.stack.proxy.address, timeout=10 * SLOW)
        try:
            with self.context.wrap_socket(plain, server_hostname=host, session=session) as tls:
                # TLS 1.3: the client is done before its certificate is judged.
                tls.sendall(REQUEST.encode())
                answer = b""
                while True:
                    more = tls.recv(65536)
                    if not more:
                        break
                    answer += more
                self.session, self.is_resumed = tls.session, tls.session_reused
        except (ConnectionResetError, BrokenPipeError) as e:
            raise AssertionError("the alert was lost to a reset") from e
        finally:
            plain.close()
        return answer.partition(b"\r\n\r\n")[2]

    def refusal(self, host, session=None):
        """The alert's name in OpenSSL's words."""
        with pytest.raises(ssl.SSLError) as caught:
            self.visit(host, session)
        return caught.value.reason


def closing_line(stack, host):
    lines = [l for l in stack.proxy.log().splitlines() if " closed " in l and f'"{host}"' in l]
    return lines[-1] if lines else ""


# --- versions and groups --------------------------------------------------------------------


@pytest.mark.parametrize("host, version, is_good", [
    ("demo.test", "-tls1_2", True), ("demo.test", "-tls1_3", True),
    ("new.test", "-tls1_2", False), ("new.test", "-tls1_3", True),
    ("old.test", "-tls1_2", True), ("old.test", "-tls1_3", False)])
def test_versions_by_name(stack, host, version, is_good):
    before = stack.proxy.failures("version")
    done = stack.openssl(version, host=host)
    assert (done.returncode == 0) == is_good, done.stderr
    if not is_good:
        assert "alert protocol version" in done.stderr, done.stderr
        assert stack.proxy.failures("version") == before + 1


def test_groups_by_name(stack):
    before = stack.proxy.failures("group")
    done = stack.openssl("-tls1_3", "-groups", "X25519:P-256", host="strong.test")
    assert done.returncode != 0 and "handshake failure" in done.stderr, done.stderr
    assert stack.proxy.failures("group") == before + 1
    # The name's own order counts, and the client is asked again (HelloRetryRequest).
    for version in ("1.3", "1.2"):
        for host, groups, want in (("strong.test", "X25519:P-256:P-521:P-384", "P-384"),
                                   ("strong.test", "X25519:P-256:P-521", "P-521"),
                                   ("demo.test", "P-384:P-256:X25519", "X25519")):
            stack.openssl("-tls" + version.replace(".", "_"), "-groups", groups, host=host)
            want = f"version={version} source=certificate .*group={want} "
            wait_until(lambda: re.search(want, closing_line(stack, host)), want)


def test_says_what_the_library_has(stack):
    found = re.search(r"tls_library boringssl_api=(\d+) x25519mlkem768=(yes|no) ech=(yes|no)",
                      stack.proxy.log())
    assert found, stack.proxy.log()
    done = stack.procs.run([BIN_DIR / "deputy-proxy", "--version"], check=True)
    assert found.group(0).partition(" ")[2] in done.stdout


# --- certificates of clients ----------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("host", ["required.test", "optional.test", "listed.test"])
def test_good_certificate(stack, clients, host, tls12):
    visitor = Visitor(stack, clients.good, tls12)
    assert visitor.visit(host) == BODY
    wait_until(lambda: 'client_cn="alice"' in closing_line(stack, host), "the line")
    # An intermediate of its own, and a name that asks for none.
    assert Visitor(stack, clients.deep, tls12).visit(host) == BODY if host != "listed.test" else True
    assert visitor.visit("demo.test") == BODY
    wait_until(lambda: closing_line(stack, "demo.test"), "the line")
    assert "client_cn" not in closing_line(stack, "demo.test")


@VERSIONS
@pytest.mark.parametrize("host, who, reason, alert", [
    ("required.test", "expired", "expired", "CERTIFICATE_EXPIRED"),
    ("required.test", "early", "not_yet_valid", "CERTIFICATE_EXPIRED"),
    ("required.test", "stranger", "unknown_ca", "UNKNOWN_CA"),
    ("required.test", "server", "purpose", "UNSUPPORTED_CERTIFICATE"),
    ("optional.test", "stranger", "unknown_ca", "UNKNOWN_CA"),
    ("strangers.test", "good", "unknown_ca", "UNKNOWN_CA"),
    ("listed.test", "revoked", "revoked", "CERTIFICATE_REVOKED"),
    ("shallow.test", "deep", "unknown_ca", "UNKNOWN_CA"),
])
def test_bad_certificate(stack, clients, host, who, reason, alert, tls12):
    before = stack.proxy.metric("client_certificates_refused_total", reason=reason)
    failures = stack.proxy.failures("client_certificate")
    assert alert in Visitor(stack, getattr(clients, who), tls12).refusal(host)
    assert stack.proxy.metric("client_certificates_refused_total", reason=reason) == before + 1
    assert stack.proxy.failures("client_certificate") == failures + 1


@VERSIONS
def test_no_certificate(stack, tls12):
    before = stack.proxy.failures("client_certificate_missing")
    # RFC 8446 has an alert for it; before, it was handshake_failure.
    want = "HANDSHAKE_FAILURE" if tls12 else "CERTIFICATE_REQUIRED"
    assert want in Visitor(stack, tls12=tls12).refusal("required.test")
    assert stack.proxy.failures("client_certificate_missing") == before + 1
    assert Visitor(stack, tls12=tls12).visit("optional.test") == BODY


def test_clients_are_told_whose_certificates_count(stack):
    for version in ("-tls1_2", "-tls1_3"):
        done = stack.openssl(version, host="optional.test")
        assert re.search(r"Acceptable client certificate CA names\n.*CN = visitors\n", done.stdout)
        assert "No client certificate CA names sent" in stack.openssl(version).stdout


@VERSIONS
def test_resumption_knows_the_client(stack, clients, tls12):
    visitor = Visitor(stack, clients.good, tls12)
    visitor.visit("required.test")
    assert not visitor.is_resumed
    visitor.visit("required.test", visitor.session)
    assert visitor.is_resumed
    wait_until(lambda: re.search('source=resumed .*client_cn="alice"',
                                 closing_line(stack, "required.test")), "the line")


@VERSIONS
@pytest.mark.parametrize("other", ["required.test", "strangers.test", "listed.test"])
def test_session_of_a_name_that_did_not_ask(stack, other, tls12):
    """All these names share one certificate: only the policy tells them apart."""
    visitor = Visitor(stack, tls12=tls12)
    visitor.visit("demo.test")
    visitor.visit("demo.test", visitor.session)
    assert visitor.is_resumed
    want = "HANDSHAKE_FAILURE" if tls12 else "CERTIFICATE_REQUIRED"
    assert want in visitor.refusal(other, visitor.session)
    # Nor does one without a certificate, where it was optional.
    visitor.visit("optional.test")
    assert want in visitor.refusal(other, visitor.session)


@VERSIONS
def test_session_of_a_name_that_trusts_others(stack, clients, tls12):
    visitor = Visitor(stack, clients.good, tls12)
    visitor.visit("required.test")
    assert "UNKNOWN_CA" in visitor.refusal("strangers.test", visitor.session)
    # Lists that the first name does not have: the client is looked at again.
    visitor.visit("listed.test", visitor.session)
    assert not visitor.is_resumed


def test_session_ends_with_the_certificate(stack, clients):
    end = time.time() + 3 * SLOW
    short = clients.ca.issue("short", eku="clientAuth", start=in_days(-1), end=in_seconds(3 * SLOW))
    visitors = [Visitor(stack, short, tls12) for tls12 in (False, True)]
    for visitor in visitors:
        visitor.visit("required.test")
    wait_until(lambda: time.time() > end + 1.5, "its end", 10)
    for visitor in visitors:
        assert "CERTIFICATE_EXPIRED" in visitor.refusal("required.test", visitor.session)


def test_new_revocation_list_counts_for_sessions(stack, clients):
    visitors = [Visitor(stack, clients.later, tls12) for tls12 in (False, True)]
    for visitor in visitors:
        visitor.visit("listed.test")
        visitor.visit("listed.test", visitor.session)
        assert visitor.is_resumed
    clients.ca.crl(stack.crl, [clients.revoked, clients.later])
    stack.proxy.reload()
    for visitor in visitors:
        assert "CERTIFICATE_REVOKED" in visitor.refusal("listed.test", visitor.session)


def test_reload_with_wrong_options_changes_nothing(stack):
    tls = stack.proxy.config["tls"]
    for wrong, word in (
            ({"client_certificates": {"mode": "required"}}, "ca must name"),
            ({"client_certificates": {"mode": "optional", "ca": "gone.pem"}}, "gone.pem"),
            ({"groups": "P-256:P-256"}, "P-256 is there twice"),
            ({"groups": "P-999"}, "P-999"),
            ({"min_version": "1.3", "max_version": "1.2"}, "min_version is above")):
        stack.proxy.config["tls"] = {**tls, **wrong}
        stack.proxy.reload("failed")
        wait_until(lambda: word in stack.proxy.log().split("reload_failed")[-1], word)
    stack.proxy.config["tls"] = tls
    assert Visitor(stack).visit("demo.test") == BODY


# --- early data -----------------------------------------------------------------------------


def with_early_data(pem):
    """A session of OpenSSL's that says early data may be sent: our tickets say they may not,
    and no honest client would."""
    body = "".join(line for line in pem.splitlines() if not line.startswith("-----"))
    tag, content, _ = der_item(base64.b64decode(body))
    assert tag == 0x30
    kept, at = b"", content
    while at:
        tag, _, rest = der_item(at)
        if tag > 0xAF:
            break
        if tag != 0xAF:
            kept += at[:len(at) - len(rest)]
        at = rest
    kept += bytes.fromhex("af0402024000") + at  # [15] max_early_data = 16384
    whole = b"\x30\x82" + len(kept).to_bytes(2, "big") + kept
    return ("-----BEGIN SSL SESSION PARAMETERS-----\n" + base64.encodebytes(whole).decode() +
            "-----END SSL SESSION PARAMETERS-----\n")


def test_early_data_is_refused_and_the_connection_served(stack, tmp_path):
    session, early = tmp_path / "session", tmp_path / "early"
    early.write_text("GET /early HTTP/1.1\r\nHost: demo.test\r\n\r\n")
    stack.openssl("-tls1_3", "-sess_out", session, "-ign_eof", input=REQUEST)
    # What we issue does not allow any.
    done = stack.openssl("-tls1_3", "-sess_in", session, "-early_data", early, "-ign_eof",
                         input=REQUEST)
    assert "Early data was not sent" in done.stdout, done.stdout + done.stderr
    # A client that sends some all the same is resumed, and must say it again.
    session.write_text(with_early_data(session.read_text()))
    done = stack.openssl("-tls1_3", "-sess_in", session, "-early_data", early, "-ign_eof",
                         input=REQUEST)
    assert "Early data was rejected" in done.stdout, done.stdout + done.stderr
    assert "Reused, TLSv1.3" in done.stdout and BODY.decode() in done.stdout
