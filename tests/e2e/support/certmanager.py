# SPDX-License-Identifier: Apache-2.0
"""deputy-certmanager on a store with chains: what it says, and what it has put there.

    manager = Manager(procs, folder)
    manager.add(ca.issue_chain("demo.test"))    # a RevokingCa (support/revocation.py)
    manager.start(policy="switch", ocsp_poll="1s")
    manager.wait_audit("switch")

Tests import the fixtures `ca`, `manager` and `pair`.
"""

import json
import re
import urllib.error
import urllib.request

import pytest

from support.procs import BIN_DIR, SLOW, wait_until
from support.revocation import RevokingCa

CTL = BIN_DIR / "deputyctl"


class Manager:
    """A store with chains, and managers on it."""

    def __init__(self, procs, folder):
        self.procs = procs
        self.folder = folder
        self.store = folder / "store"
        self.audit_path = folder / "certmanager.audit"
        self.audit_options = {}  # more than its path
        self.num = 0
        self.process = None

    def ctl(self, *args, code=0):
        done = self.procs.run([CTL, "store", *args, "--store", self.store])
        assert done.returncode == code, (args, done)
        return done.stdout

    def add(self, *leaves, level="primary"):
        self.ctl("import", *[leaf.chain for leaf in leaves], "--level", level, "--quiet")

    def start(self, name="certmanager", staples=None, is_ready=True, **revocation):
        config = {
            "store": str(self.store), "audit": {"path": str(self.audit_path), **self.audit_options},
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


# --- fixtures ------------------------------------------------------------------------------


@pytest.fixture
def ca(procs, pki):
    ca = RevokingCa(procs, pki, "one")
    yield ca
    ca.stop()


@pytest.fixture
def manager(procs, tmp_path):
    return Manager(procs, tmp_path)


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
