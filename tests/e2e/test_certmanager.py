# SPDX-License-Identifier: Apache-2.0
"""deputy-certmanager: staples of a store are fetched, kept and refreshed; what a CA revokes
is seen, and reported or switched, never more than the ceiling."""

import datetime
import fcntl
import json
import re
import signal
import socket
import urllib.error
import urllib.request

import pytest

from support.procs import BIN_DIR, SLOW, free_port, wait_until
from support.revocation import RevokingCa

CTL = BIN_DIR / "deputyctl"


@pytest.fixture
def ca(procs, pki):
    ca = RevokingCa(procs, pki, "one")
    yield ca
    ca.stop()


class Manager:
    """A store with chains, and managers on it."""

    def __init__(self, procs, folder):
        self.procs = procs
        self.folder = folder
        self.store = folder / "store"
        self.audit_path = folder / "certmanager.audit"
        self.num = 0
        self.process = None

    def ctl(self, *args, code=0):
        done = self.procs.run([CTL, "store", *args, "--store", self.store])
        assert done.returncode == code, (args, done)
        return done.stdout

    def add(self, *leaves, level="primary"):
        for leaf in leaves:
            self.ctl("import", leaf.chain, "--level", level, "--quiet")

    def start(self, name="certmanager", staples=None, is_ready=True, **revocation):
        config = {
            "store": str(self.store), "audit": {"path": str(self.audit_path)},
            "metrics": {"listen": "127.0.0.1:0"}, "staples": staples or {},
            "revocation": {"policy": "report", "poll": "1s", "ocsp_poll": "4h", **revocation},
        }
        self.config = config
        self.process = self.procs.daemon("deputy-certmanager", config, name)
        if is_ready:
            wait_until(lambda: self.get("/readyz")[0] == 200, "the names to be read")
        return self.process

    def get(self, path, process=None):
        host, port = (process or self.process).address("metrics")
        try:
            with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10 * SLOW) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()

    def metric(self, name, process=None):
        """The value of `name{...}`, without the prefix."""
        text = self.get("/metrics", process)[1]
        found = re.search(r"^deputy_certmanager_" + re.escape(name) + r" (\S+)$", text, re.M)
        assert found, (name, text)
        return float(found[1])

    def audit(self, event=None):
        text = self.audit_path.read_text() if self.audit_path.exists() else ""
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in lines if event in (None, line["event"])]

    def wait_audit(self, event, num=1, timeout=10.0):
        return wait_until(lambda: len(self.audit(event)) >= num and self.audit(event),
                          f"{num} lines of {event}", timeout)

    def stats(self):
        return json.loads(self.ctl("stats", "--json"))

    def find(self, name):
        return {c["level"]: c for c in json.loads(self.ctl("find", name, "--json"))["chains"]}

    def serving(self, name):
        return [level for level, c in self.find(name).items() if c["serves"]]

    def staple(self, name, level="primary"):
        """The staple that the store has for a name: bytes, or None."""
        self.num += 1
        out = self.folder / f"export-{self.num}"
        self.ctl("export", out, "--name", name, "--quiet")
        found = [p for p in out.rglob("*.ocsp") if level in p.parts]
        return found[0].read_bytes() if found else None

    def switches(self):
        return json.loads(self.ctl("switches", "--json"))["switches"]


@pytest.fixture
def manager(procs, tmp_path):
    return Manager(procs, tmp_path)


def now():
    return datetime.datetime.utcnow().replace(microsecond=0)


def answers(ca, leaf, life_s):
    """The CA answers for this leaf with responses of a short life."""
    def answer(request):
        end = now() + datetime.timedelta(seconds=life_s)
        return 200, {"Content-Type": "application/ocsp-response"}, ca.build(leaf, now(), end)
    ca.answer = answer


# --- staples -------------------------------------------------------------------------------


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
    answers(ca, leaf, 20)
    manager.start(ocsp_poll="0s")
    manager.wait_audit("staple")
    first = manager.staple("demo.test")
    lines = manager.wait_audit("staple", 2, timeout=25)
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
    answers(ca, leaf, 10 * SLOW)
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
    responder = ca.responder()
    responses = ca.folder / "responses.txt"

    def serve(*args):
        signed = procs.run(["cfssl", "ocspsign", "-ca", ca.ca.cert, "-responder", responder.cert,
                            "-responder-key", responder.key, "-cert", leaf.cert, *args], check=True)
        responses.write_text(json.loads(signed.stdout)["ocspResponse"] + "\n")
        server = procs.foreign("cfssl", ["cfssl", "ocspserve", "-address", "127.0.0.1", "-port",
                                         port, "-responses", responses])

        def is_there():
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", port)) == 0

        wait_until(is_there, "cfssl ocspserve")
        return server

    server = serve("-status", "good")
    manager.add(leaf)
    manager.start()
    manager.wait_audit("staple")
    good = manager.staple("demo.test")
    server.kill()
    manager.process.stop()
    serve("-status", "revoked", "-reason", "1")
    manager.start("again", policy="switch", ocsp_poll="1s")
    line = manager.wait_audit("switch")[0]
    assert line["reason"] == "keyCompromise"
    assert manager.staple("demo.test") == good  # nothing worse takes its place


# --- revocation ----------------------------------------------------------------------------


@pytest.fixture
def pair(procs, pki, ca, manager):
    """demo.test with a primary of `ca` and a backup of another CA, which has a responder."""
    two = RevokingCa(procs, pki, "two")
    primary = ca.issue_chain("demo.test", crl=f"URI:{ca.url}/crl")
    ca.files["/crl"] = ca.crl()
    manager.add(primary)
    manager.add(two.issue_chain("demo.test"), level="backup")
    yield primary
    two.stop()


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


# --- life ----------------------------------------------------------------------------------


def test_a_second_one_stands_by_and_takes_over(ca, manager):
    manager.add(ca.issue_chain("demo.test"))
    first = manager.start()
    manager.wait_audit("staple")
    second = manager.start("second")
    assert json.loads(manager.get("/readyz")[1]) == {"ready": True, "active": False}
    assert manager.metric("active") == 0 and manager.metric("active", first) == 1
    first.kill()
    wait_until(lambda: manager.metric("active", second) == 1, "the second to take over")
    wait_until(lambda: manager.get("/readyz", second)[0] == 200, "its names to be read")


def test_while_another_writes_staples_wait_and_switches_do_not(ca, manager, pair):
    with open(manager.store / "writer.lock", "rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as an import that takes its time
        manager.start(policy="switch", ocsp_poll="0s")
        wait_until(lambda: manager.metric("staples_to_write") == 2, "the staples to wait")
        wait_until(lambda: manager.metric('lists_total{result="good"}') >= 2, "two polls")
        ca.revoke(pair)
        ca.files["/crl"] = ca.crl()
        manager.wait_audit("switch")
        assert manager.stats()["staples"] == 0
        assert manager.serving("demo.test") == ["backup"]
    manager.wait_audit("staple", 2)
    assert manager.stats()["staples"] == 2


def test_what_is_wrong_is_said(procs, manager, tmp_path):
    path = tmp_path / "c.json"
    program = BIN_DIR / "deputy-certmanager"

    def run(config, *args):
        path.write_text(json.dumps(config))
        return procs.run([program, "--config", path, *args])

    config = {"store": str(tmp_path / "none"), "audit": {"path": "stderr"}}
    done = run(config, "--check-config")
    assert done.returncode == 0 and "good" in done.stdout
    done = run(config)
    assert done.returncode == 1 and "mport certificates" in done.stderr
    done = run({**config, "metrics": {"listen": "0.0.0.0:1"}}, "--check-config")
    assert done.returncode == 2 and "plain HTTP" in done.stderr
    done = run({**config, "staples": {"on": False}, "revocation": {"policy": "off"}},
               "--check-config")
    assert done.returncode == 2 and "nothing is left" in done.stderr
    done = run({**config, "revocation": {"polcy": "off"}}, "--check-config")
    assert done.returncode == 2 and "policy" in done.stderr
    assert "--check-config" in procs.run([program, "--help"], check=True).stdout
    assert "deputy-certmanager" in procs.run([program, "--version"], check=True).stdout


def test_a_reload_that_is_wrong_keeps_the_old(ca, manager):
    manager.add(ca.issue_chain("demo.test"))
    manager.start()
    (manager.folder / "certmanager.json").write_text("{")
    manager.process.signal(signal.SIGHUP)
    wait_until(lambda: manager.metric('reloads_total{result="failed"}') == 1, "the reload")
    manager.config["staples"] = {"concurrency": 3}
    (manager.folder / "certmanager.json").write_text(json.dumps(manager.config))
    manager.process.signal(signal.SIGHUP)
    wait_until(lambda: manager.metric('reloads_total{result="ok"}') == 1, "the reload")
    wait_until(lambda: "reload_needs_restart" in manager.process.err(), "the log")
