# SPDX-License-Identifier: Apache-2.0
"""Delegated credentials in the proxy: fetched, checked, renewed, dropped; issuers gone wrong."""

import base64
import datetime
import time

import pytest

from support.broken_issuer import BrokenIssuer
from support.procs import SLOW, wait_until
from support.stack import BODY, Stack


@pytest.fixture
def make(procs, pki):
    """make(...) -> a stack with a broken issuer instead of a real one, not started."""
    made = []

    def make(hosts=("demo.test",), **dc):
        stack = Stack(procs, pki, hosts=hosts, issuer=False)
        stack.broken = BrokenIssuer(stack)
        stack.proxy.config["issuers"] = stack.broken.options()
        stack.proxy.config["delegated_credentials"] = {
            "retry_min": "50ms", "retry_max": "200ms", **dc}
        made.append(stack)
        return stack

    yield make
    for stack in made:
        stack.stop()
        stack.broken.stop()


def days_from_now(days):
    when = datetime.datetime.utcnow() + datetime.timedelta(days=days)
    return when.strftime("%Y%m%d%H%M%SZ")


def source(stack, result):
    """What a handshake of NSS was authenticated by."""
    assert result.is_ok, result
    return "dc" if result.got_dc else "certificate"


# --- the way it should be ------------------------------------------------------------


def test_backups_are_supplied_too(make):
    stack = make().start()
    stack.proxy.wait_credentials(2)
    asked = {base64.b64decode(e["certificate"]) for r in stack.broken.requests for e in r}
    assert asked == {leaf.der() for leaf in stack.leaves.values()}
    assert source(stack, stack.nss().run()) == "dc"


def test_each_credential_has_its_own_key(make):
    stack = make(lifetime="2s", margin="0s").start()
    wait_until(lambda: len(stack.broken.requests) >= 4, "renewals")
    keys = [e["public_key"] for r in stack.broken.requests for e in r]
    assert len(set(keys)) == len(keys)


def test_renewal_at_half_life(make):
    stack = make(lifetime="6s", margin="1s").start()
    stack.proxy.wait_credentials(2)
    wait_until(lambda: sum(map(len, stack.broken.requests)) >= 6, "two renewals of each", 20)
    first, *_, last = stack.broken.times
    assert 4.5 < last - first < 7.5 * SLOW  # two times half of six, give or take a tenth
    assert source(stack, stack.nss().run()) == "dc"


def test_many_in_batches(make):
    stack = make(hosts=["n%d.test" % i for i in range(40)], batch=25)
    stack.broken.load()  # not while the proxy waits
    stack.proxy.config["issuers"]["timeout"] = "30s"
    stack.start()
    stack.proxy.wait_credentials(80, 30)
    assert sum(map(len, stack.broken.requests)) == 80
    assert max(map(len, stack.broken.requests)) == 25


def test_names_that_may_not_use_one_are_not_supplied(make):
    stack = make()
    stack.proxy.config["names"][0]["delegated_credentials"] = False
    stack.start()
    assert stack.proxy.metric("dc_chains") == 0 and not stack.broken.requests
    assert source(stack, stack.nss().run()) == "certificate"


def test_leaves_that_cannot_delegate_are_not_asked_for(make):
    stack = make(hosts=())
    stack.add_name("rsa.test", [("primary", stack.leaf(
        "rsa", "rsa.test", kind="rsa2048", key_usage="critical,digitalSignature,keyEncipherment"))])
    stack.add_name("plain.test", [("primary", stack.leaf("plain", "plain.test", delegation=False))])
    stack.add_name("demo.test", [("primary", stack.leaf("demo", "demo.test"))])
    stack.start()
    stack.proxy.wait_credentials(1)
    assert stack.proxy.metric("dc_chains") == 1
    reasons = {c["path"].rpartition("/")[2]: c["why_no_dc"] for c in stack.proxy.chains()}
    assert reasons == {"rsa.pem": "RSA leaf", "plain.pem": "leaf without DelegationUsage",
                       "demo.pem": None}


def test_leaf_that_ends_soon_gets_a_shorter_one(make):
    stack = make(hosts=())
    stack.add_name("demo.test", [("primary", stack.leaf("demo", "demo.test", days=1))])
    stack.start()
    stack.proxy.wait_credentials(1)
    lifetime = stack.broken.requests[0][0]["lifetime_seconds"]
    assert 86400 - 60 * SLOW < lifetime < 86400


# --- answers that are wrong -------------------------------------------------------------

WRONG = {
    "expired": "expired",
    "ends_within_the_margin": "expired",
    "too_long": "too_long",
    "longer_than_asked": "too_long",
    "of_another_certificate": "signature",
    "by_another_key": "signature",
    "for_clients": "signature",
    "for_another_key": "key",
    "for_the_leafs_own_key": None,
    "of_another_scheme": None,
    "cut": "format",
    "garbage": "format",
    "huge": None,
    "not_base64": None,
    "refused": None,
    "nothing_of_it": None,
    "too_few": None,
    "too_many": None,
    "other_json": None,
    "not_json": None,
    "endless": None,
    "hangs_up": None,
}


def test_wrong_answers_are_not_served_and_not_final(make):
    """Each kind in turn: never a credential of it; the next good one is taken."""
    stack = make(hosts=())
    # Old enough that a credential can have ended after its start.
    dates = {"start": days_from_now(-10), "end": days_from_now(80)}
    stack.add_name("demo.test", [("primary", stack.leaf("one", "demo.test", 0, **dates)),
                                 ("backup", stack.leaf("two", "demo.test", 1, **dates))])
    stack.broken.answer = stack.broken.expired
    stack.start()
    nss = stack.nss()
    for wrong, fault in WRONG.items():
        stack.broken.answer = getattr(stack.broken, wrong)
        num = len(stack.broken.requests)
        wait_until(lambda: len(stack.broken.requests) >= num + 3, f"requests answered {wrong}")
        assert all(c["dc_ends_at"] is None for c in stack.proxy.chains()), wrong
        if fault:
            assert stack.proxy.metric("dc_faults_total", fault=fault) > 0, wrong
    assert source(stack, nss.run()) == "certificate"
    assert stack.get() == BODY
    stack.broken.answer = stack.broken.good
    stack.proxy.wait_credentials(2)
    assert source(stack, nss.run()) == "dc"
    assert stack.proxy.metric("dc_fetches_total", result="refused") > 0
    assert stack.proxy.metric("dc_fetches_total", result="bad_answer") > 0
    assert stack.proxy.metric("dc_fetches_total", result="no_connection") > 0
    assert "no\nno" not in stack.proxy.log()  # the issuer's text is escaped


def test_http_errors(make):
    stack = make()
    stack.broken.status = 503
    stack.start()
    wait_until(lambda: stack.proxy.metric("dc_fetches_total", result="http_status") > 2, "tries")
    stack.broken.status = 200
    stack.proxy.wait_credentials(2)


def test_issuer_that_does_not_answer(make):
    stack = make()
    stack.proxy.config["issuers"]["timeout"] = "300ms"
    stack.broken.answer = stack.broken.hangs
    stack.start()
    wait_until(lambda: stack.proxy.metric("dc_fetches_total", result="no_connection") > 2, "tries")
    assert stack.get() == BODY  # nobody waits for it
    stack.broken.answer = stack.broken.good
    stack.proxy.wait_credentials(2)


def test_issuer_whose_certificate_we_do_not_trust(make):
    stack = make()
    stack.proxy.config["issuers"]["tls"] = stack.pki.tls(stack.web_cas[0], stack.broken.client)
    stack.start()
    wait_until(lambda: stack.proxy.metric("dc_fetches_total", result="no_connection") > 2, "tries")
    assert not stack.broken.requests


def test_back_off_is_bounded_and_grows(make):
    stack = make(retry_min="100ms", retry_max="800ms")
    stack.broken.answer = stack.broken.refused
    stack.start()
    wait_until(lambda: len(stack.broken.times) >= 12, "tries", 30)
    gaps = [b - a for a, b in zip(stack.broken.times, stack.broken.times[1:])]
    assert max(gaps) < 1.2 * SLOW
    assert sum(gaps[-4:]) > 4 * 0.2  # not every tenth of a second for ever


def test_next_issuer_is_asked_at_once(make):
    stack = make(retry_min="1m", retry_max="1m")
    good = BrokenIssuer(stack, "second-issuer")
    # Both must know one client: the second trusts the CA of the first's clients.
    stack.proxy.config["issuers"] = good.options("https://127.0.0.1:1", good.url)
    stack.start()
    stack.proxy.wait_credentials(2)
    assert stack.proxy.metric("dc_fetches_total", result="no_connection") >= 1
    good.stop()


# --- outages -------------------------------------------------------------------------------


def test_old_credential_serves_while_the_issuer_is_away(make):
    stack = make(lifetime="12s", margin="4s")
    stack.start()
    nss = stack.nss()
    started = time.monotonic()
    stack.proxy.wait_credentials(2)
    stack.broken.answer = stack.broken.hangs_up
    wait_until(lambda: stack.proxy.metric("dc_fetches_total", result="no_connection") > 0, "a try")
    assert source(stack, nss.run()) == "dc"
    # Within the margin of its end it is not served any more; nobody sees an error.
    expired = stack.proxy.metric("dc_guard_total", cause="expired")
    wait_until(lambda: source(stack, nss.run()) == "certificate", "the margin", 15)
    assert 6.5 < time.monotonic() - started < 9 * SLOW
    assert stack.proxy.metric("dc_guard_total", cause="expired") == expired + 1
    # Past its end the key is gone.
    wait_until(lambda: "dc_ended" in stack.proxy.log(), "the end", 15)
    assert all(c["dc_ends_at"] is None for c in stack.proxy.chains())
    stack.broken.answer = stack.broken.good
    stack.proxy.wait_credentials(2)
    assert source(stack, nss.run()) == "dc"


def test_start_without_an_issuer(make):
    stack = make()
    stack.proxy.config["issuers"]["urls"] = ["https://127.0.0.1:1"]
    stack.start()
    assert source(stack, stack.nss().run()) == "certificate"
    stack.proxy.config["issuers"]["urls"] = [stack.broken.url]
    stack.proxy.reload()
    stack.proxy.wait_credentials(2)
    assert source(stack, stack.nss().run()) == "dc"


def test_reload_keeps_credentials(make):
    stack = make()
    stack.start()
    stack.proxy.wait_credentials(2)
    num = len(stack.broken.requests)
    stack.broken.answer = stack.broken.refused
    stack.add_name("more.test", [("primary", stack.leaf("more", "more.test"))])
    nss = stack.nss()
    for _ in range(5):
        stack.proxy.reload()
        assert source(stack, nss.run()) == "dc"
    # Only the new leaf was asked for.
    new = {e["certificate"] for r in stack.broken.requests[num:] for e in r}
    assert new == {base64.b64encode(stack.leaves["more"].der()).decode()}


def test_credentials_go_when_they_are_configured_away(make):
    stack = make()
    stack.start()
    stack.proxy.wait_credentials(2)
    nss = stack.nss()
    issuers = stack.proxy.config.pop("issuers")
    stack.proxy.reload()
    assert source(stack, nss.run()) == "certificate"
    assert all(c["dc_ends_at"] is None for c in stack.proxy.chains())
    stack.proxy.config["issuers"] = issuers
    stack.proxy.reload()
    stack.proxy.wait_credentials(2)
    assert source(stack, nss.run()) == "dc"


def test_renewed_leaf_drops_the_credential_of_the_old(make):
    stack = make()
    stack.start()
    stack.proxy.wait_credentials(2)
    stack.broken.answer = stack.broken.refused
    path = stack.proxy.config["names"][0]["chains"][0]["certificate"]
    renewed = stack.web_cas[0].issue_leaf("demo.test", key=stack.leaves["demo.test-primary"].key,
                                          name="renewed")
    stack.leaves["renewed"] = renewed
    with open(path, "wb") as f:
        f.write(renewed.chain.read_bytes())
    stack.proxy.reload()
    nss = stack.nss()
    assert source(stack, nss.run()) == "certificate"  # RFC 9345: a DC is of one certificate
    stack.broken.answer = stack.broken.good
    stack.proxy.wait_credentials(2)
    assert source(stack, nss.run()) == "dc"


# --- clients and their clocks ---------------------------------------------------------------


def test_client_whose_clock_is_far_ahead(make):
    """It refuses the credential; that is seen."""
    stack = make().start()
    stack.proxy.wait_credentials(2)
    done = stack.procs.run(["faketime", "-f", "+3d", *map(str, stack.nss().command(
        "demo.test", True, ("-V", "tls1.3:tls1.3", "-Q")))], input="")
    assert "SSL_ERROR_DC_EXPIRED" in done.stdout + done.stderr
    stack.proxy.wait_metric(1, "dc_rejected_total")
    assert stack.proxy.metric("alerts_received_total", alert="illegal_parameter") == 1


# --- resumption ------------------------------------------------------------------------------


def hold_then_answer(seconds):
    def handler(conn):
        if conn.recv(65536):
            time.sleep(seconds)
            conn.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + BODY)
    return handler


@pytest.mark.parametrize("past_dc, resumes", [("0s", False), ("1h", True)])
def test_session_does_not_outlive_its_credential(make, past_dc, resumes):
    """NSS itself would resume long after the credential has ended: only we can end it."""
    stack = make(lifetime="4s", margin="1s")
    stack.proxy.config["tickets"] = {"past_dc": past_dc}
    stack.origin.handler = hold_then_answer(5)
    stack.start()
    stack.proxy.wait_credentials(2)
    before = stack.proxy.metric("handshakes_total", source="dc")
    client = stack.nss().start(input="GET / HTTP/1.0\r\n\r\n",
                               args=("-V", "tls1.3:tls1.3", "-u", "-L", "2"))
    if resumes:
        stack.proxy.wait_metric(1, "handshakes_total", source="resumed")
        assert stack.proxy.metric("handshakes_total", source="dc") == before + 1
    else:
        stack.proxy.wait_metric(before + 2, "handshakes_total", source="dc")
        assert stack.proxy.metric("handshakes_total", source="resumed") == 0
    client.kill()
