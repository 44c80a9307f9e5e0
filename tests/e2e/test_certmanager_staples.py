# SPDX-License-Identifier: Apache-2.0
"""deputy-certmanager: staples of a store are fetched, kept, refreshed and served to their end."""

import datetime

from support import prometheus
from support.certmanager import ca, manager  # noqa: F401 (fixtures)
from support.procs import SLOW, free_port, wait_until
from support.revocation import RevokingCa


def now():
    return datetime.datetime.utcnow().replace(microsecond=0)


def answers(ca, leaf, life_s):
    """The CA answers for this leaf with responses of a short life."""
    def answer(request):
        end = now() + datetime.timedelta(seconds=life_s)
        return 200, {"Content-Type": "application/ocsp-response"}, ca.build(leaf, now(), end)
    ca.answer = answer


def test_staples_of_all_chains_are_fetched_and_kept(procs, pki, ca, manager):
    leaves = [ca.issue_chain(f"n{i}.test") for i in range(3)]
    silent = ca.issue_chain("silent.test", ocsp=None)
    manager.add(*leaves, silent)
    manager.start()
    lines = manager.wait_audit("staple", 3)
    assert {line["name"] for line in lines} == {"n0.test", "n1.test", "n2.test"}
    assert all(line["is_first"] for line in lines)
    assert manager.stats()["staples"] == 3
    assert manager.staple("silent.test") is None
    assert manager.metric('chains{kind="all"}') == 4
    assert manager.metric('chains{kind="ocsp"}') == 3
    prometheus.parse(manager.get("/metrics")[1])
    # A real client of OCSP agrees.
    path = manager.folder / "staple.der"
    path.write_bytes(manager.staple("n1.test"))
    done = procs.run(["openssl", "ocsp", "-no_nonce", "-respin", path, "-issuer", ca.ca.cert,
                      "-cert", leaves[1].cert, "-CAfile", ca.ca.cert], check=True)
    assert "good" in done.stdout
    # Names that come and go while it runs are noticed.
    late = ca.issue_chain("late.test")
    backup = RevokingCa(manager.procs, pki, "two")
    manager.add(late)
    manager.add(backup.issue_chain("n0.test", ocsp=backup.url + "/ocsp"), level="backup")
    manager.wait_audit("staple", 5)
    assert manager.staple("late.test") and manager.staple("n0.test", "backup")
    assert manager.metric('chains{kind="all"}') == 6
    manager.ctl("remove", "late.test")
    wait_until(lambda: manager.metric('chains{kind="all"}') == 5, "the chain to be forgotten")
    # So is a new file, after a compaction.
    manager.ctl("compact")
    wait_until(lambda: manager.metric("store_opened_again_total") == 1, "the new file")
    manager.add(ca.issue_chain("after.test"))
    wait_until(lambda: "after.test" in {line["name"] for line in manager.audit("staple")},
               "a staple in the new file")
    manager.ctl("verify", "--deep")
    backup.stop()


def test_a_staple_is_refreshed_from_half_its_life_on(ca, manager):
    leaf = ca.issue_chain("demo.test")
    manager.add(leaf)
    answers(ca, leaf, 12 * SLOW)
    manager.start(ocsp_poll="0s")
    manager.wait_audit("staple")
    first = manager.staple("demo.test")
    lines = manager.wait_audit("staple", 2, timeout=20)
    assert lines[1]["this_update"] > lines[0]["this_update"]
    assert lines[1]["old_next_update"] == lines[0]["next_update"] > lines[1]["time"]
    second = manager.staple("demo.test")
    assert second != first


def test_the_last_good_staple_serves_to_its_end_when_the_responder_dies(procs, pki, ca, manager):
    """A must-staple leaf: then its backup serves, and comes back with the next staple."""
    two = RevokingCa(procs, pki, "two")
    leaf = ca.issue_chain("demo.test", more=["tlsfeature=status_request"])
    manager.add(leaf)
    manager.add(two.issue_chain("demo.test", ocsp=None), level="backup")
    assert manager.serving("demo.test") == ["backup"]  # no staple yet
    answers(ca, leaf, 6 * SLOW)
    manager.start(ocsp_poll="1s")
    manager.wait_audit("staple")
    assert manager.serving("demo.test") == ["primary"]
    ca.answer = lambda request: (500, {}, b"")
    wait_until(lambda: manager.metric('answers_total{outcome="failed"}') >= 1, "the failure")
    last = manager.staple("demo.test")
    assert last and manager.serving("demo.test") == ["primary"]
    wait_until(lambda: manager.serving("demo.test") == ["backup"], "the staple's end", 20)
    assert manager.staple("demo.test") == last
    two.stop()


def test_a_restart_asks_nobody_before_it_is_due(ca, manager):
    leaves = [ca.issue_chain(f"n{i}.test") for i in range(4)]
    manager.add(*leaves)
    manager.start(ocsp_poll="4h")
    manager.wait_audit("staple", 4)
    asked = len(ca.requests)
    manager.process.stop()
    manager.start("again", ocsp_poll="4h")
    # A new chain is asked about, and with it had the others been, if at all.
    manager.add(ca.issue_chain("late.test"))
    manager.wait_audit("staple", 5)
    assert manager.metric('chains{kind="ocsp"}') == 5
    assert len(ca.requests) == asked + 1


def test_nothing_that_is_asked_for_and_kept_is_lost_by_kill(ca, manager):
    leaf = ca.issue_chain("demo.test")
    manager.add(leaf)
    manager.start()
    manager.wait_audit("staple")
    manager.process.kill()
    assert manager.staple("demo.test")
    manager.start("again")
    assert manager.metric("active") == 1
    manager.ctl("verify")


def test_cfssl_ocspserve_answers(procs, ca, manager):
    port = free_port()
    leaf = ca.issue_chain("demo.test", ocsp=f"http://127.0.0.1:{port}/")
    server = ca.cfssl(leaf, port, "-status", "good")
    manager.add(leaf)
    manager.start()
    manager.wait_audit("staple")
    good = manager.staple("demo.test")
    server.kill()
    manager.process.stop()
    ca.cfssl(leaf, port, "-status", "revoked", "-reason", "1")
    manager.start("again", policy="switch", ocsp_poll="1s")
    line = manager.wait_audit("switch")[0]
    assert line["reason"] == "keyCompromise"
    assert manager.staple("demo.test") == good  # nothing worse takes its place
