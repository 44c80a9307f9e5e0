# SPDX-License-Identifier: Apache-2.0
"""deputy-certmanager against responders and lists that are slow, wrong or hostile, all at
once: good staples stay as they are, nobody is switched for what cannot be believed, what
works goes on, and a figure names each fault.

Where each kind of bad input has its test:

  responder  slow, silent        here (ends, endless); unit staple_fetch gives_a_slow_responder_up
             wrong               here; test_staples wrong_answers_are_refused_by_name; fuzz_ocsp
             replaying           here; test_staples (nonces); unit ocsp refuses_what_is_older_...
             wrong key           here; test_staples who_signed_it_matters
             redirecting         here; test_staples transport_faults_have_names_and_deadlines
             endless             here; the same
             dead                here; test_must_staple; unit leaves_a_dead_responder_alone
  list       of 100 MB, endless  here; test_staples a_crl_that_is_too_long_is_refused_at_the_limit
             malformed           here; test_staples crls_of_openssl_served_by_nginx; fuzz_crl
             stale, replayed     here; unit revocation_watch believes_no_list_that_is_older_or_wrong
             of another issuer   here; unit crl believes_the_issuer_only
"""

import datetime
import functools
import threading

import pytest

from support.certmanager import Manager
from support.procs import SANITIZE, SLOW, free_port, wait_until
from support.revocation import DAY, OCSP_TYPE, RevokingCa

MB = 1000 * 1000


def now():
    return datetime.datetime.utcnow().replace(microsecond=0)


class Web:
    """HTTP servers of one CA: each responder and each list of the test has one of its own,
    so that one that fails is left alone without the others."""

    def __init__(self, procs, pki):
        self.procs = procs
        self.pki = pki
        self.ca = RevokingCa(procs, pki, "one")
        self.servers = [self.ca]
        self.is_over = threading.Event()

    def server(self):
        server = RevokingCa(self.procs, self.pki, "one", ca=self.ca.ca)
        server.index, server.lock = self.ca.index, self.ca.lock
        self.servers.append(server)
        return server

    def stop(self):
        self.is_over.set()
        for server in self.servers:
            server.stop()


@pytest.fixture
def web(procs, pki):
    web = Web(procs, pki)
    yield web
    web.stop()


@pytest.fixture
def manager(procs, tmp_path):
    return Manager(procs, tmp_path)


def body(content):
    return lambda request: (200, {"Content-Type": OCSP_TYPE}, content)


def redirect(place):
    return lambda request: (302, {"Location": place(request)}, b"")


def slow(web, request):
    """A byte now and then, and never the last."""
    wfile = request.handler.wfile
    wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while not web.is_over.wait(0.1):
        wfile.write(b"0")
        wfile.flush()


def silent(web, request):
    web.is_over.wait()


def endless(web, length, request):
    """`length` bytes are said, or (0) nothing is: they come until nobody listens."""
    wfile = request.handler.wfile
    head = b"Content-Length: %d\r\n" % length if length else b""
    wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + head + b"\r\n")
    while not web.is_over.is_set():
        wfile.write(b"\x30" * 100000)


def bad_answers(web, leaves, other):
    """row: (answer, fault in the figures)."""
    ca = web.ca
    signer, forger = web.server(), web.server()
    signer.signer = other.ca
    forger.ocsp_args = ["-badsig"]
    build = lambda row, begin, end: ca.build(leaves[row], now() + begin, now() + end)
    return {
        "slow": (functools.partial(slow, web), "timeout"),
        "silent": (functools.partial(silent, web), "timeout"),
        "garbage": (body(b"<html>login, please</html>"), "malformed"),
        "empty": (body(b""), "malformed"),
        "other-leaf": (body(ca.build(leaves["good"], now(), now() + DAY)), "other_leaf"),
        "replaying": (body(build("replaying", -3 * DAY, DAY)), "replayed"),
        "stale": (body(build("stale", -3 * DAY, -DAY)), "expired"),
        "wrong-key": (signer.truth, "signer_foreign"),
        "bad-signature": (forger.truth, "bad_signature"),
        "loop": (redirect(lambda r: r.path + "x"), "too_many_redirects"),
        "inside": (redirect(lambda r: f"http://localhost:{ca.port}/ocsp"), "inside"),
        "file": (redirect(lambda r: "file:///etc/passwd"), "other_scheme"),
        "endless": (functools.partial(endless, web, 0), "too_long"),
        "failing": (lambda r: (503, {"Retry-After": "1"}, b""), "http_status"),
    }


def test_responders_of_every_bad_kind(procs, pki, web, manager):
    other = RevokingCa(procs, pki, "two")
    web.servers.append(other)
    rows = ["slow", "silent", "garbage", "empty", "other-leaf", "replaying", "stale", "wrong-key",
            "bad-signature", "loop", "inside", "file", "endless", "failing", "dead", "good"]
    servers = {row: web.server() for row in rows}
    leaves = {row: web.ca.issue_chain(f"{row}.test", ocsp=servers[row].url + "/ocsp")
              for row in rows}
    never = web.ca.issue_chain("never.test", ocsp=f"http://127.0.0.1:{free_port()}/")
    manager.add(*leaves.values(), never)
    manager.start(policy="switch", ocsp_poll="1s", poll="7d", staples={"timeout": f"{2 * SLOW}s"})
    manager.wait_audit("staple", len(rows), timeout=20)
    answers = bad_answers(web, leaves, other)
    servers["dead"].stop()
    # A good answer may be under way. Whoever has asked twice since has had it.
    asked = {row: len(servers[row].requests) for row in answers}
    for row in answers:
        servers[row].answer = lambda request: (503, {}, b"")
    wait_until(lambda: all(len(servers[row].requests) >= num + 2 for row, num in asked.items()),
               "nothing good to be under way", 20)
    for row, (answer, _) in answers.items():
        servers[row].answer = answer
    before = {row: manager.staple(f"{row}.test") for row in rows}
    num_asked = len(servers["good"].requests)

    # Each was asked once more at least, and has its fault; the good one is asked on.
    ocsp_faults = ("malformed", "other_leaf", "replayed", "expired", "signer_foreign",
                   "bad_signature")
    for fault in {fault for _, fault in answers.values()} | {"unreachable"}:
        layer = "ocsp" if fault in ocsp_faults else "http"
        num = sum(fault == of_row for _, of_row in answers.values()) or 1
        sample = f'answers_failed_total{{fault="{fault}",layer="{layer}"}}'
        wait_until(lambda: manager.metric(sample) >= num, fault, 30)
    assert len(servers["good"].requests) > num_asked
    # What is there stays, byte for byte: nothing worse has taken its place.
    assert all(before.values())
    for row in answers:
        assert manager.staple(f"{row}.test") == before[row], row
    assert manager.staple("never.test") is None
    assert not manager.audit("revoked") and not manager.switches()
    assert manager.get("/readyz")[0] == 200
    if not SANITIZE:
        assert manager.process.rss_bytes() < 60 * MB


def test_lists_of_every_bad_kind(procs, pki, web, manager):
    """A leaf is on each of them; none but the good one may be believed."""
    other = RevokingCa(procs, pki, "two")
    web.servers.append(other)
    rows = ["long", "endless", "malformed", "cut", "empty", "stale", "other-issuer", "bad-signature",
            "older", "inside", "gone", "good"]
    servers = {row: web.server() for row in rows}
    leaves = {row: web.ca.issue_chain(f"{row}.test", ocsp=None, crl=f"URI:{servers[row].url}/crl")
              for row in rows}
    manager.add(*leaves.values())
    path = manager.folder / "list"
    make = lambda *args, ca=web.ca.ca, **kwargs: ca.crl(
        path, *args, der=True, **kwargs).read_bytes()
    first = make(start=-100)
    for server in servers.values():
        server.files["/crl"] = first
    manager.start(policy="switch", poll="1s", ocsp_poll="0s", max_list="4MiB")
    good = lambda: manager.metric('lists_total{result="good"}')
    wait_until(lambda: good() >= len(rows), "all lists, while they are good", 20)

    everybody = list(leaves.values())
    revoking = make(everybody, start=-50)
    answers = {
        "long": (functools.partial(endless, web, 100 * MB), "too_long"),
        "endless": (functools.partial(endless, web, 0), "too_long"),
        "malformed": (body(b"\x30\x82" + b"\x30" * 5000), "malformed"),
        "cut": (body(revoking[:-100]), "malformed"),
        "empty": (body(b""), "malformed"),
        "stale": (body(make(everybody, start=-9000, end=-600)), "expired"),
        "other-issuer": (body(make(everybody, start=-50, ca=other.ca)), "other_issuer"),
        "bad-signature": (body(make(everybody, start=-50, key=other.ca)), "bad_signature"),
        "older": (body(make(everybody, start=-200)), "replayed"),
        "inside": (redirect(lambda r: f"http://localhost:{web.ca.port}/crl"), "inside"),
        "gone": (lambda r: (404, {}, b""), "http_status"),
        "good": (body(revoking), None),
    }
    web.ca.files["/crl"] = revoking  # where one would be led
    for row, (answer, _) in answers.items():
        servers[row].answer = answer
    for row, (_, fault) in answers.items():
        if fault:
            wait_until(lambda: manager.metric(f'lists_total{{result="{fault}"}}') >= 1, row, 20)
    line = manager.wait_audit("switch")[0]
    assert line["name"] == "good.test"
    for fault, num in (("too_long", 2), ("malformed", 3)):
        wait_until(lambda: manager.metric(f'lists_total{{result="{fault}"}}') >= num, fault, 20)
    assert [line["name"] for line in manager.audit("revoked")] == ["good.test"]
    assert len(manager.switches()) == 1
    assert manager.get("/readyz")[0] == 200
    if not SANITIZE:
        assert manager.process.rss_bytes() < 60 * MB
