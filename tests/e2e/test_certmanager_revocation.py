# SPDX-License-Identifier: Apache-2.0
"""deputy-certmanager: what a CA revokes is seen, and reported or switched, never more than
the ceiling."""

import json
import signal

import pytest

from support.certmanager import ca, manager, pair  # noqa: F401 (fixtures)
from support.procs import wait_until


def test_report_says_what_the_list_says_and_moves_nobody(ca, manager, pair):
    manager.start(policy="report", ocsp_poll="0s")
    manager.wait_audit("staple", 2)
    ca.revoke(pair, "superseded")
    ca.files["/crl"] = ca.crl()
    line = manager.wait_audit("revoked")[0]
    assert (line["name"], line["source"], line["reason"]) == ("demo.test", "crl", "superseded")
    assert line["list"].endswith("/crl") and line["revoked_at"] and line["num_names"] == 1
    assert manager.metric("revoked") == 1
    polls = manager.metric('lists_total{result="good"}')
    wait_until(lambda: manager.metric('lists_total{result="good"}') >= polls + 2, "two polls")
    assert manager.serving("demo.test") == ["primary"] and manager.switches() == []
    # The same configuration with another policy, by SIGHUP.
    manager.config["revocation"]["policy"] = "switch"
    (manager.folder / "certmanager.json").write_text(json.dumps(manager.config))
    manager.process.signal(signal.SIGHUP)
    manager.wait_audit("switch")
    assert manager.serving("demo.test") == ["backup"]


@pytest.mark.parametrize("source", ["ocsp", "crl"])
def test_switch_puts_the_name_on_its_backup_and_a_person_takes_it_back(ca, manager, pair, source):
    polls = {"ocsp": {"poll": "7d", "ocsp_poll": "1s"}, "crl": {"ocsp_poll": "0s"}}
    manager.start(policy="switch", **polls[source])
    manager.wait_audit("staple", 2)
    ca.revoke(pair, "keyCompromise")
    ca.files["/crl"] = ca.crl()
    line = manager.wait_audit("switch")[0]
    assert (line["name"], line["source"], line["reason"]) == ("demo.test", source, "keyCompromise")
    assert manager.serving("demo.test") == ["backup"]
    [switch] = manager.switches()
    assert switch["id"] == line["switch"] and switch["author"] == "deputy-certmanager"
    assert "keyCompromise" in switch["reason"], switch
    # An operator takes it back: it stays so, also after a restart.
    manager.ctl("restore", str(line["switch"]))
    assert manager.serving("demo.test") == ["primary"]
    manager.process.stop()
    manager.start("again", policy="switch", **polls[source])
    [held] = manager.wait_audit("switch_withheld")
    assert held["why"] == "restored"
    assert manager.serving("demo.test") == ["primary"] and len(manager.audit("switch")) == 1


def test_off_looks_at_no_list_and_notes_nothing(ca, manager, pair):
    ca.revoke(pair)
    ca.files["/crl"] = ca.crl()
    manager.start(policy="off")
    wait_until(lambda: manager.metric('answers_total{outcome="revoked"}') == 1, "the answer")
    manager.add(ca.issue_chain("late.test", crl=f"URI:{ca.url}/crl"))
    wait_until(lambda: "late.test" in {line["name"] for line in manager.audit("staple")},
               "a line that comes after")
    assert manager.metric('chains{kind="crl"}') == 0 and manager.metric("lists") == 0
    assert not manager.audit("revoked") and manager.switches() == []
    assert all(r.path != "/crl" for r in ca.requests)


def test_the_ceiling_holds(ca, manager):
    """Two names a minute: of three leaves two are switched; one with three names, never."""
    leaves = [ca.issue_chain(f"n{i}.test", ocsp=None, crl=f"URI:{ca.url}/crl") for i in range(3)]
    wide = ca.issue_chain("w0.test", ocsp=None, crl=f"URI:{ca.url}/crl",
                          san=["DNS:w0.test", "DNS:w1.test", "DNS:w2.test"])
    for leaf in [*leaves, wide]:
        ca.revoke(leaf)
    ca.files["/crl"] = ca.crl()
    manager.add(*leaves, wide)
    manager.start(policy="switch", ceiling=2)
    manager.wait_audit("switch", 2)
    waiting = lambda: [line for line in manager.audit("switch_withheld") if line["why"] == "waits"]
    wait_until(waiting, "one to wait")
    assert len(manager.wait_audit("revoked", 4)) == 4
    assert manager.metric("ceiling_used") == 2
    # A new process does not begin a new minute.
    manager.process.stop()
    manager.start("again", policy="switch", ceiling=2)
    wait_until(lambda: len(waiting()) == 2, "it to wait again")
    assert len(manager.audit("switch")) == 2
    # A person raises it.
    manager.config["revocation"]["ceiling"] = 100
    (manager.folder / "again.json").write_text(json.dumps(manager.config))
    manager.process.signal(signal.SIGHUP)
    assert len(manager.wait_audit("switch", 4)) == 4


def test_a_switch_with_an_end(ca, manager, pair):
    ca.revoke(pair)
    manager.start(policy="switch", until="1d", poll="7d")
    line = manager.wait_audit("switch")[0]
    assert line["until"] > line["time"]
    assert manager.switches()[0]["until"] is not None


def test_a_hold_that_is_lifted_is_told_and_moves_nobody(ca, manager, pair):
    ca.revoke(pair, "certificateHold")
    ca.files["/crl"] = ca.crl()
    manager.start(policy="switch", ocsp_poll="0s", staples={"on": False})
    manager.wait_audit("switch")
    for serial, text in ca.index.items():
        fields = text.split("\t")
        fields[0], fields[2] = "V", ""
        ca.index[serial] = "\t".join(fields)
    ca.write_index()
    ca.files["/crl"] = ca.crl()
    manager.wait_audit("revoked_no_more")
    assert manager.serving("demo.test") == ["backup"]
    assert manager.metric("revoked") == 0
