# SPDX-License-Identifier: Apache-2.0
"""Whoever writes an audit file can rotate it and bind its lines: what key server, issuer and
proxy have written between start and end is proved whole by one command, and what is cut out
shows."""

import json

import pytest

from support.procs import BIN_DIR, wait_until
from support.stack import Stack

CHAINED = {"chain": True, "rotate_size": "4KiB", "rotate_keep": 1000}
NUM_SWITCHES = 20


def files_of(path):
    """The oldest first."""
    old = sorted(path.parent.glob(path.name + ".[0-9]*"), key=lambda p: -int(p.suffix[1:]))
    return [*old, path]


def verify(procs, *args):
    done = procs.run([BIN_DIR / "deputyctl", "keyserver", "verify-audit", "--json", *args])
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def stack(procs, pki):
    stack = Stack(procs, pki)
    stack.keyserver.config["audit"].update(CHAINED)
    stack.proxy.config["audit"].update(CHAINED)
    stack.issuer_audit = CHAINED
    stack.start()
    yield stack
    stack.stop()


def test_each_audit_file_proves_itself(stack, procs):
    proxy = stack.proxy
    for i in range(NUM_SWITCHES):
        change = proxy.ctl("switch", "--name", "demo.test", "--to", "backup", "--reason",
                           f"exercise {i}", "--json")
        proxy.ctl("restore", str(json.loads(change.stdout)["id"]))
    assert proxy.metric("audit_rotations_total", result="done") > 0
    assert proxy.metric("audit_failing") == 0
    logs = {}
    for part in (proxy, stack.issuer, stack.keyserver):
        part.process.stop()
        logs[part] = part.process.err()
        files = files_of(part.audit_path)
        assert all(path.exists() for path in files)
        head = [line.split("audit_head ")[1] for line in logs[part].splitlines()
                if "audit_head" in line][-1]
        seq, chain = (word.split("=")[1] for word in head.split())
        code, report = verify(procs, "--anchor", f"{seq}:{chain}", *files)
        assert code == 0, report
    files = files_of(proxy.audit_path)
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert sum(line.get("event") == "switch" for line in lines) == NUM_SWITCHES
    # One line less, in the midst of it.
    victim = files[0]
    text = victim.read_text().splitlines(keepends=True)
    victim.write_text("".join(text[:2] + text[3:]))
    code, report = verify(procs, *files)
    assert code != 0, report


def test_a_reload_says_that_the_audit_file_stays(stack):
    stack.proxy.config["audit"]["rotate_size"] = "8KiB"
    stack.proxy.reload()
    wait_until(lambda: "option=audit.rotate_size" in stack.proxy.log(), "the warning")
