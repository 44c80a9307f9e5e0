# SPDX-License-Identifier: Apache-2.0
"""A CA revokes a leaf while clients keep coming. Nobody may notice: within a poll the next
handshakes are on the backup, with the backup's staple and delegated credential."""

import contextlib
import socket

import pytest

from support.day import MUST_STAPLE, Crowd, Day
from support.firefox import Firefox
from support.procs import SLOW


@pytest.fixture
def day(procs, pki, tmp_path):
    day = Day(procs, pki, tmp_path)
    yield day
    day.stop()


def tls12_issuer(day, host, session=None):
    """(who issued the leaf, was it resumed, session) of a handshake in TLS 1.2."""
    plain = socket.create_connection(day.proxy.address, timeout=10 * SLOW)
    context = session[0] if session else day.stack.context(tls12=True)
    with contextlib.closing(plain), context.wrap_socket(
            plain, server_hostname=host, session=session and session[1]) as tls:
        issuer = dict(item[0] for item in tls.getpeercert()["issuer"])["commonName"]
        return issuer, tls.session_reused, (context, tls.session)


def test_a_leaf_is_revoked_and_nobody_notices(day, procs):
    first, second = (ca.name for ca in day.stack.web_cas)
    leaf = day.add("demo.test", more=[MUST_STAPLE])
    listed = day.add("listed.test", ocsp=None, crl=f"URI:{day.one.url}/crl")
    day.one.files["/crl"] = day.one.crl()
    day.start_one("-nmin", "600")
    day.start_two()
    day.manager.start(policy="switch", poll="1s", ocsp_poll="1s")
    day.manager.wait_audit("staple", 3)
    day.stack.start(wait_credentials=0)
    nss = day.stack.nss()
    firefox = Firefox(procs, day.front, [ca.cert for ca in day.stack.web_cas])

    def by_nss():
        result = nss.run()
        assert result.is_ok and result.got_dc, result
        return result.issuer

    def by_openssl():
        seen = day.visit("demo.test")
        assert seen.fault is None and seen.is_good, seen
        return seen.issuer

    def by_firefox():
        firefox.forget()
        firefox.open("demo.test")
        security = firefox.security()
        assert security["isDelegatedCredential"] and not security["resumed"], security
        return security["issuer"]

    try:
        assert nss.run().is_ok  # cold
        day.proxy.wait_credentials(2)  # the backup's is ready, too
        day.wait_staples("demo.test")
        assert day.visit("listed.test").issuer == first
        _, _, session = tls12_issuer(day, "demo.test")
        assert tls12_issuer(day, "demo.test", session)[1]

        crowd = Crowd(nss=by_nss, openssl=by_openssl, firefox=by_firefox,
                      tls12=lambda: tls12_issuer(day, "demo.test")[0])
        with crowd.coming():
            crowd.wait_more()
            assert {issuer for seen in crowd.seen.values() for issuer in seen} == {first}
            day.one.revoke(leaf, "keyCompromise")
            line = day.manager.wait_audit("switch")[0]
            # The very next handshakes, of every kind: staple and credential are there.
            assert (by_nss(), by_openssl(), tls12_issuer(day, "demo.test")[0]) == (second,) * 3
            crowd.wait_more(3)
            assert {seen[-1] for seen in crowd.seen.values()} == {second}
            # A session of the key that is compromised is not resumed.
            issuer, is_resumed, _ = tls12_issuer(day, "demo.test", session)
            assert (issuer, is_resumed) == (second, False)

            # The audit says why; so does the store's own log.
            assert (line["name"], line["source"], line["reason"]) == (
                "demo.test", "ocsp", "keyCompromise"), line
            assert line["key_id"] == leaf.spki_sha256()
            [switch] = day.manager.switches()
            assert switch["id"] == line["switch"] and switch["author"] == "deputy-certmanager"
            assert "keyCompromise" in switch["reason"], switch

            # An operator takes it back, and is believed.
            day.manager.ctl("restore", str(line["switch"]))
            assert (by_nss(), by_openssl()) == (first, first)
            crowd.wait_more(3)
            assert {seen[-1] for seen in crowd.seen.values()} == {first}
        assert {frozenset(seen) for seen in crowd.seen.values()} == {frozenset((first, second))}

        # The other name's leaf is on its CA's list.
        day.one.revoke(listed, "superseded")
        day.one.files["/crl"] = day.one.crl()
        line = day.manager.wait_audit("switch", 2)[1]
        assert (line["name"], line["source"], line["reason"]) == ("listed.test", "crl", "superseded")
        seen = day.visit("listed.test")
        assert seen.issuer == second and seen.is_good and seen.fault is None, seen
        assert tls12_issuer(day, "demo.test")[0] == first
    finally:
        firefox.stop()
    assert day.proxy.metric("last_resort_total") == 0
    assert day.proxy.metric("dc_rejected_total") == 0
