# SPDX-License-Identifier: Apache-2.0
"""bench/run as people use it: every study in the smallest form, and what goes wrong.
No figure is asserted: only that there is one."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest
from support.procs import BIN_DIR, SLOW, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUN = ROOT / "bench" / "run"
sys.path.insert(0, str(ROOT / "bench"))

from harness import peers, stats, targets  # noqa: E402
from harness.base import BenchError  # noqa: E402
from harness.pki import Ca  # noqa: E402
from harness.procs import Procs as BenchProcs  # noqa: E402

pytestmark = pytest.mark.skipif(os.environ.get("DEPUTY_SANITIZE", "") not in ("", "none"),
                                reason="what is measured is the program as built for users")


def bench(*args, timeout=120, **env):
    return subprocess.run([RUN, *map(str, args)], capture_output=True, text=True,
                          timeout=timeout * SLOW, check=False, stdin=subprocess.DEVNULL,
                          env={**os.environ, **env})


def smoke(out, *studies, **env):
    return bench("--smoke", *studies, "--bin", BIN_DIR, "--out", out, **env)


def results(out):
    return json.loads((out / "results.json").read_text())["studies"]


def fake_program(folder, name, script):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize("name", ["floor", "peers", "distance", "switch", "outage", "keyserver",
                                  "proxy", "endurance"])
def test_study_runs_and_reports(tmp_path, name):
    done = smoke(tmp_path, name)
    assert done.returncode == 0, done.stderr
    found = results(tmp_path)[name]
    assert found["state"] == "done"
    assert found["tables"] and all(table["rows"] for table in found["tables"])
    report = (tmp_path / "report.md").read_text()
    assert f"## {name}: " in report and "too few rounds" in report
    for plot in found["plots"]:
        if plot["is_drawn"]:
            assert (tmp_path / f"{name}-{plot['name']}.svg").stat().st_size > 500
            assert (tmp_path / f"{name}-{plot['name']}.png").stat().st_size > 500


def test_lists_all_studies():
    done = bench("--list")
    assert done.returncode == 0
    for name in ("distance", "switch", "outage", "peers", "floor", "keyserver", "proxy", "endurance",
                 "certstore"):
        assert f"\n{name} " in "\n" + done.stdout


@pytest.mark.parametrize("args, word", [
    (["nonsense"], "nonsense"),
    (["floor", "nonsense"], "nonsense"),
    (["targets", "--group", "nonsense"], "nonsense"),
    (["targets", "floor"], "--group"),
    (["floor", "--group", "handshake"], "targets"),
    (["floor", "--name", "../x"], "--name"),
    (["endurance", "--set", "idle"], "churn_s"),
    (["endurance", "floor", "--set", "idle=5"], "--set"),
    ([], "--list"),
])
def test_refuses_wrong_words(args, word):
    done = bench(*args)
    assert done.returncode == 2 and word in done.stderr and "Traceback" not in done.stderr


def test_refuses_unknown_option():
    done = bench("--nonsense")
    assert done.returncode == 2 and "--nonsense" in done.stderr


def test_says_which_program_is_missing(tmp_path):
    done = bench("--smoke", "floor", "--bin", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 1 and f"{tmp_path}/deputy-" in done.stderr


def test_peer_that_does_not_start_is_a_failed_row(tmp_path):
    path = fake_program(tmp_path / "fake", "hitch", "echo no luck today >&2; exit 3")
    done = smoke(tmp_path / "out", "peers", PATH=path)
    assert done.returncode == 0, done.stderr
    rows = next(table["rows"] for table in results(tmp_path / "out")["peers"]["tables"]
                if table["title"].startswith("Server CPU per full handshake, P-256"))
    row = next(row for row in rows if row[0] == "hitch")
    assert row[1].startswith("failed: ") and "no luck today" in row[1]
    assert any(row[0] == "nginx-stream" and not row[1].startswith("failed") for row in rows)


def test_port_in_use_is_said(tmp_path, monkeypatch):
    procs = BenchProcs(tmp_path)
    leaf = Ca(tmp_path / "ca", "ca").issue("leaf", ["DNS:bench.test"])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(peers, "free_port", lambda: port)
        try:
            with pytest.raises(BenchError, match="(?i)in use"):
                peer = peers.Peer(procs, "nginx-stream", leaf, "127.0.0.1:9", None)
                wait_until(lambda: peer.process.check(), "its end", 10)
        finally:
            procs.stop()


def test_without_rights_for_namespaces_it_falls_back(tmp_path):
    path = fake_program(tmp_path / "fake", "ip",
                        "echo mount of namespaces: Operation not permitted >&2; exit 1")
    done = smoke(tmp_path / "out", "distance", PATH=path)
    assert done.returncode == 0, done.stderr
    notes = " ".join(results(tmp_path / "out")["distance"]["notes"])
    assert "loopback" in notes and "Operation not permitted" in notes


def processes_below(pid):
    """Command lines of everything that this process has started."""
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found.append(int(child))
            found += processes_below(int(child))
    return found


def test_interrupt_stops_children_and_keeps_what_there_is(tmp_path):
    out = tmp_path / "out"
    log = tmp_path / "log"
    with open(log, "wb") as err:
        process = subprocess.Popen([RUN, "--smoke", "floor", "distance", "outage", "--bin", BIN_DIR,
                                    "--out", out], stderr=err, stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: "distance: light client" in log.read_text(), "the study's middle", 60)
        children = processes_below(process.pid)
        assert children
        process.send_signal(signal.SIGINT)
        assert process.wait(30 * SLOW) == 130, log.read_text()
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in children),
               "the children's end")
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert f"deputy-bench-{process.pid}-" not in listed.stdout
    found = results(out)
    assert found["floor"]["state"] == "done" and found["distance"]["state"] == "interrupted"
    assert "outage" not in found
    assert "## floor" in (out / "report.md").read_text()


# --- judging --------------------------------------------------------------------------


def judge(low, value, high, **bound):
    results = {"s": {"measures": {"m": {"value": value, "low": low, "high": high}}}}
    return targets.judge({"study": "s", "measure": "m", **bound}, results)[1]


def test_target_of_scale_is_not_met_in_small():
    results = {"s": {"size": "quick", "measures": {"m": {"value": 1, "low": 1, "high": 1}}}}
    target = {"name": "t", "study": "s", "measure": "m", "at_most": 2}
    assert targets.judge(target, results)[1] == "met"
    assert targets.judge({**target, "is_of_scale": True}, results)[1] == "not at scale"
    assert not targets.show([{**target, "group": "g", "is_of_scale": True}], results)
    results["s"]["size"] = "full"
    assert targets.judge({**target, "is_of_scale": True}, results)[1] == "met"


def test_verdict_needs_the_whole_spread_on_one_side():
    assert judge(0.5, 0.6, 0.7, at_most=0.75) == "met"
    assert judge(0.7, 0.74, 0.8, at_most=0.75) == "open"
    assert judge(0.8, 0.9, 1.0, at_most=0.75) == "not met"
    assert judge(5, 6, 7, at_least=4) == "met"
    assert judge(3, 6, 7, at_least=4) == "open"
    assert judge(1, 2, 3, at_least=4) == "not met"
    assert targets.judge({"study": "s", "measure": "m", "at_most": 1}, {})[1] == "not measured"


@pytest.mark.parametrize("measured, code", [(0.5, 0), (0.9, 1), (None, 1)])
def test_targets_exit_zero_only_when_all_are_met(tmp_path, measured, code):
    wanted = targets.load("handshake")
    studies = {}
    for target in wanted:
        bound = target["at_most"]
        value = bound * measured if measured is not None else None
        measures = studies.setdefault(target["study"], {"measures": {}})["measures"]
        if value is not None:
            high = bound + 1 if measured == 0.9 and target is wanted[0] else value
            measures[target["measure"]] = {"value": value, "low": value, "high": high}
    (tmp_path / "results.json").write_text(json.dumps({"studies": studies}))
    done = bench("targets", "--group", "handshake", "--from", tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == len(wanted)


def test_statistics():
    assert stats.percentile([4, 1, 3, 2], 50) == 2
    assert stats.percentile(list(range(1, 101)), 99) == 99
    assert stats.ratio([2, 6], [1, 2]) == {"median": 2.5, "min": 2, "max": 3, "rounds": 2}
    low, high = stats.bootstrap(lambda a: sum(a) / len(a), [1, 2, 3, 4, 5])
    assert 1 <= low < 3 < high <= 5
