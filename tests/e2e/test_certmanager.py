# SPDX-License-Identifier: Apache-2.0
"""deputy-certmanager's life: one works and another stands by, what is wrong is said, reload,
and a store that somebody else is writing."""

import fcntl
import json
import signal

from support.certmanager import ca, manager, pair  # noqa: F401 (fixtures)
from support.procs import BIN_DIR, wait_until


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


def test_on_a_full_disk_staples_wait(procs, ca, manager):
    """Until there is room again; nothing that is there is lost, and /readyz says so."""
    leaves = [ca.issue_chain(f"n{i}.test") for i in range(8)]
    manager.add(leaves[0])
    manager.start()
    manager.wait_audit("staple")

    def limit(length):
        procs.run(["prlimit", "--pid", manager.process.pid, f"--fsize={length}:"], check=True)

    limit(2 * 4096)  # not a page but the first two of the store's file can be written
    manager.add(*leaves[1:])
    wait_until(lambda: manager.get("/readyz")[0] == 503, "the disk to be full", 20)
    assert manager.metric("store_writes_failed_total") >= 1
    assert manager.metric("store_failing") == 1
    assert manager.staple("n0.test")
    manager.ctl("verify")
    limit("unlimited")
    manager.wait_audit("staple", 8, timeout=30)  # it tries again each ten seconds
    wait_until(lambda: manager.get("/readyz")[0] == 200, "the disk to have room")
    assert manager.stats()["staples"] == 8


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


def test_the_audit_file_proves_itself(procs, ca, manager):
    """Chained and rotated, as everybody's (test_audit_chain)."""
    manager.audit_options = {"chain": True, "rotate_size": "4KiB", "rotate_keep": 1000}
    manager.add(*[ca.issue_chain(f"n{i}.test") for i in range(20)])
    manager.start()
    wait_until(lambda: manager.stats()["staples"] == 20, "the staples")
    assert manager.metric("audit_failing") == 0
    manager.process.stop()
    old = manager.audit_path.parent.glob(manager.audit_path.name + ".[0-9]*")
    files = [*sorted(old, key=lambda path: -int(path.suffix[1:])), manager.audit_path]
    assert len(files) > 1
    done = procs.run([BIN_DIR / "deputyctl", "keyserver", "verify-audit", *files])
    assert done.returncode == 0, done
    lines = files[0].read_text().splitlines(keepends=True)
    files[0].write_text("".join(lines[:2] + lines[3:]))
    done = procs.run([BIN_DIR / "deputyctl", "keyserver", "verify-audit", *files])
    assert done.returncode != 0, done
