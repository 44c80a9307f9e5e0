# SPDX-License-Identifier: Apache-2.0
"""A browser that people use takes our delegated credentials."""

import pytest

from support.firefox import Firefox, MarionetteError
from support.stack import Origin, Stack, read_head

TLS13 = 4  # nsITransportSecurityInfo.TLS_VERSION_1_3
PAGE = b"""<!doctype html><title>Deputy</title>
<h1>Hello from the origin</h1><p>Certificate keys are elsewhere.</p>
"""


def page(conn):
    """One answer, then the end: a page load is a connection."""
    if read_head(conn):
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nCache-Control: no-store\r\n"
                     b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(PAGE) + PAGE)


@pytest.fixture(scope="module")
def stack(module_procs, module_pki, tmp_path_factory):
    stack = Stack(module_procs, module_pki, origin=Origin(page))
    front = tmp_path_factory.mktemp("front") / "s"
    stack.proxy.config["listeners"].append({"name": "front", "address": f"unix:{front}"})
    stack.front = front
    stack.start()
    yield stack
    stack.origin.stop()


@pytest.fixture(scope="module")
def firefox(stack, module_procs):
    browser = Firefox(module_procs, stack.front, [ca.cert for ca in stack.web_cas])
    yield browser
    browser.stop()


def load(firefox, host="demo.test"):
    """A page over a new, full handshake; what the browser says of it."""
    firefox.forget()
    firefox.open(host)
    assert "Hello from the origin" in firefox.text()
    security = firefox.security()
    assert security["protocolVersion"] == TLS13 and not security["resumed"], security
    return security


def test_page_comes_with_a_delegated_credential(stack, firefox):
    before = stack.proxy.metric("handshakes_total", source="dc")
    security = load(firefox)
    assert security["isDelegatedCredential"] is True, security
    assert security["issuer"] == stack.web_cas[0].name
    assert firefox.title() == "Deputy"
    assert stack.proxy.metric("handshakes_total", source="dc") > before
    assert stack.proxy.metric("dc_rejected_total") == 0


def test_resumption_needs_no_signature(stack, firefox):
    load(firefox)
    before = stack.proxy.metric("handshakes_total", source="resumed")
    firefox.open("demo.test", "/again")
    assert "Hello from the origin" in firefox.text()
    assert firefox.security()["resumed"]
    assert stack.proxy.metric("handshakes_total", source="resumed") > before


def test_dc_off_is_seen_by_the_next_handshake(stack, firefox):
    assert load(firefox)["isDelegatedCredential"] is True
    before = stack.proxy.metric("handshakes_total", source="certificate")
    stack.proxy.ctl("dc", "off", "--name", "demo.test", "--reason", "test")
    assert load(firefox)["isDelegatedCredential"] is False
    assert stack.proxy.metric("handshakes_total", source="certificate") > before
    stack.proxy.ctl("dc", "on", "--name", "demo.test", "--reason", "test")
    assert load(firefox)["isDelegatedCredential"] is True


def test_a_browser_that_does_not_ask_gets_none(firefox):
    firefox.set_pref("security.tls.enable_delegated_credentials", False)
    assert load(firefox)["isDelegatedCredential"] is False
    firefox.set_pref("security.tls.enable_delegated_credentials", True)
    assert load(firefox)["isDelegatedCredential"] is True


def test_backup_chain_has_its_own_credential(stack, firefox):
    first, second = (ca.name for ca in stack.web_cas)
    stack.proxy.ctl("switch", "--ca", first, "--reason", "test")
    security = load(firefox)
    assert (security["issuer"], security["isDelegatedCredential"]) == (second, True)
    stack.proxy.ctl("restore", "--ca", first, "--reason", "test")
    security = load(firefox)
    assert (security["issuer"], security["isDelegatedCredential"]) == (first, True)


@pytest.mark.parametrize("algorithm", ["brotli", "zlib"])
def test_certificates_come_compressed(stack, firefox, algorithm):
    stack.proxy.config["listeners"][0]["address"] = "127.0.0.1:%d" % stack.proxy.port
    stack.proxy.config["tls"] = {"certificate_compression": algorithm}
    stack.proxy.reload()
    before = stack.proxy.metrics()
    # With the credential, which is a part of what is compressed; and without.
    assert load(firefox)["isDelegatedCredential"] is True
    firefox.set_pref("security.tls.enable_delegated_credentials", False)
    assert load(firefox)["isDelegatedCredential"] is False
    firefox.set_pref("security.tls.enable_delegated_credentials", True)
    after = stack.proxy.metrics()

    def grown(name, labels=f'{{algorithm="{algorithm}"}}'):
        return after[f"deputy_proxy_{name}{labels}"] - before[f"deputy_proxy_{name}{labels}"]

    assert grown("certificates_compressed_total") >= 2
    assert grown("certificates_compressed_anew_total") == 0  # prepared ahead
    assert grown("certificate_bytes_saved_total", "") > 0


def test_a_certificate_of_no_known_ca_is_an_error_page(stack, firefox):
    """That the browser verifies at all."""
    stranger = stack.pki.ca("stranger").issue_leaf("stranger.test", key=stack.leaves[
        "demo.test-primary"].key)
    stack.add_name("stranger.test", [("primary", stranger)])
    stack.proxy.reload()
    firefox.forget()
    with pytest.raises(MarionetteError, match="nssFailure|about:(net|cert)error|insecure"):
        firefox.open("stranger.test")
