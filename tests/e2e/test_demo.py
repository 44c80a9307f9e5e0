# SPDX-License-Identifier: Apache-2.0
"""scripts/demo as a new user runs it, with the programs of this build: every row comes out as it
should, and testssl.sh and sslscan find no weakness in the very deployment that it makes."""

import os
import re
import signal
import subprocess

import pytest

from support.procs import BIN_DIR, SANITIZE, SLOW, SOURCE_DIR

pytestmark = pytest.mark.skipif(bool(SANITIZE), reason="its rows are of programs as users have them")


@pytest.fixture
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")  # short: there are UNIX sockets in it


def run(folder, *args):
    """(exit code, output) of the demo; whatever happens, its processes end."""
    demo = subprocess.Popen([SOURCE_DIR / "scripts/demo", "--no-setup", "--bin", BIN_DIR, *args],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True,
                            env={**os.environ, "TMPDIR": str(folder)})
    try:
        return demo.communicate(timeout=200 * SLOW)[0], demo.returncode
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGTERM)
            demo.communicate()


def test_every_row_and_what_scanners_find(folder):
    out, code = run(folder, "--scan")
    logs = "\n".join(path.read_text(errors="replace")[-4000:]
                     for pattern in ("run/*.log", "run/*.err", "scan/*.log")
                     for path in folder.glob(f"deputy-demo.*/{pattern}"))
    assert code == 0, out + logs
    rows = re.findall(r"^  (.{34}) (.*\S)\s+(ok|FAILED)$", out, re.M)
    assert len(rows) >= 17 and {row[2] for row in rows} == {"ok"}, out
    said = {client.strip(): what for client, what, _ in rows}
    findings = int(re.fullmatch(r"(\d+) findings, no weakness", said["testssl.sh"])[1])
    assert findings > 60, out
    assert said["sslscan"] == "6 ciphers, no weakness"
    assert f"All {len(rows)} rows came out as they should" in out
    assert not list(folder.iterdir())  # nothing is left behind


def test_what_it_does_not_know_is_said(folder):
    out, code = run(folder, "--scam")
    assert code == 2 and "unknown option --scam" in out
