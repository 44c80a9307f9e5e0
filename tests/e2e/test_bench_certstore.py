# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the store in its smallest form: every target is measured, none is met at
that scale, and what the cache keeps is used again. No figure is asserted."""

import json
import os
import pathlib
import subprocess
import tempfile

import pytest
from support.procs import BIN_DIR, SLOW

ROOT = pathlib.Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(os.environ.get("DEPUTY_SANITIZE", "") not in ("", "none"),
                                reason="what is measured is the program as built for users")


def bench(*args, temp):
    return subprocess.run([ROOT / "bench" / "run", *map(str, args)], capture_output=True, text=True,
                          timeout=100 * SLOW, check=False, stdin=subprocess.DEVNULL,
                          env={**os.environ, "TMPDIR": str(temp)})


def test_every_target_is_measured_and_the_cache_serves_again(tmp_path):
    # Sockets' paths are short.
    with tempfile.TemporaryDirectory(prefix="b.") as temp:
        for i, out in enumerate((tmp_path / "first", tmp_path / "second")):
            done = bench("targets", "--group", "certstore", "--smoke", "--bin", BIN_DIR, "--out",
                         out, "--cache", tmp_path / "cache", temp=temp)
            assert done.returncode == 1, done.stderr  # measured, and too small to be met
            lines = done.stdout.splitlines()
            assert len(lines) > 15
            assert all("not at scale" in line for line in lines), done.stdout
            found = json.loads((out / "results.json").read_text())["studies"]["certstore"]
            assert found["state"] == "done" and found["failed"] == 0, found["notes"]
            notes = " ".join(found["notes"])
            assert ("are from the cache" in notes) == (i == 1)
            assert ("certificates were made" in notes) == (i == 0)
            assert found["measures"]["switch.lag_ms"]["high"] == 0
        assert os.listdir(temp) == []  # nothing but the cache is left


def test_cache_without_room_is_refused(tmp_path):
    os.chmod(tmp_path, 0o755)
    (tmp_path / "cache").write_text("")  # not a folder
    done = bench("--smoke", "certstore", "--bin", BIN_DIR, "--out", tmp_path / "out", "--cache",
                 tmp_path / "cache", temp=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "cache" in done.stderr
