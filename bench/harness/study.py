# SPDX-License-Identifier: Apache-2.0
"""A study: a small file bench/studies/NAME.json says what it varies and how much of it
in each size; bench/harness/study_KIND.py does it.

    {"title": "...", "kind": "distance", "varies": "...",
     "sizes": {"full": {...}, "quick": {...}, "smoke": {...}}}

What a study found is a dict, kept as JSON and shown by report.py:

    tables    [{"title", "columns", "rows"}]     what people read
    plots     [{"name", "title", "kind", ...}]   what plots.py draws
    measures  {name: {"value", "low", "high"}}   what targets.json asks about
    notes     [text]                             how it was measured, what went wrong
    failed    number of failed handshakes (or signatures) where none should fail
"""

import contextlib
import importlib
import os
import pathlib
import shutil
import tempfile

from harness.base import ROOT, BenchError, UsageError, load_json
from harness.load import Client
from harness.procs import Procs

STUDIES = ROOT / "bench" / "studies"


def names():
    return sorted(path.stem for path in STUDIES.glob("*.json"))


def describe(name):
    path = STUDIES / f"{name}.json"
    if not path.exists():
        raise UsageError(f"unknown study \"{name}\"; there are {', '.join(names())}")
    return load_json(path)


def changed(parameters, changes):
    """The parameters with NAME=N for some of them."""
    result = dict(parameters)
    for change in changes:
        name, _, value = change.partition("=")
        if name not in parameters or not value.isdecimal():
            raise UsageError(f"--set {change}: there are {', '.join(parameters)}, each a number")
        result[name] = int(value)
    return result


def cores():
    """(server's, clients'), one processor each; (None, None) where there is but one."""
    mine = sorted(os.sched_getaffinity(0))
    return (mine[0], mine[-1]) if len(mine) > 1 else (None, None)


class Result:
    def __init__(self):
        self.tables = []
        self.plots = []
        self.measures = {}
        self.notes = []
        self.failed = 0

    def table(self, title, columns, rows):
        self.tables.append({"title": title, "columns": columns, "rows": rows})

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)

    def measure(self, name, value, low, high):
        self.measures[name] = {"value": value, "low": low, "high": high}

    def count(self, summary):
        """Keeps the failures of a run in which there should be none."""
        failed = summary["counts"]["failed"]
        self.failed += failed
        if failed:
            self.note(f"{failed} failed in {summary.get('label') or summary['subcommand']}: "
                      f"{summary['failures']}")
        return summary

    def as_dict(self):
        return {"tables": self.tables, "plots": self.plots, "measures": self.measures,
                "notes": self.notes, "failed": self.failed}


class Study:
    """What a study's code gets: parameters, programs, processes, folders."""

    def __init__(self, name, size, programs, raw, progress, cache=None):
        about = describe(name)
        self.name = name
        self.title = about["title"]
        self.varies = about["varies"]
        self.kind = about.get("kind", name)
        self.size = size
        self.p = about["sizes"][size]
        self.programs = programs
        self.raw = raw
        self.progress = lambda text: progress(f"{name}: {text}")
        self.server_core, self.client_core = cores()
        self.result = Result()
        self.folder = None
        self.cache = cache  # what takes long to make is kept here, if given
        self.procs = None
        self.cleanups = contextlib.ExitStack()
        self.may_raise = False
        self.wants_realtime = about.get("is_latency", False)

    def change(self, changes):
        """--set: the report says so, as it is not the study that others run."""
        self.p = changed(self.p, changes)
        if changes:
            self.result.note(f"with {', '.join(changes)} (--set).")

    def raise_priority(self, who="all processes of this study"):
        """SCHED_RR for this process and all that it starts from now on, until the study ends:
        on a machine that others use too, latency would otherwise be theirs."""
        try:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        except OSError as e:
            self.result.note(f"--realtime had no effect: {e}")
            return
        self.cleanups.callback(os.sched_setscheduler, 0, os.SCHED_OTHER, os.sched_param(0))
        self.result.note(f"{who} ran under SCHED_RR (--realtime).")

    def has(self, program):
        return self.programs[program].exists()

    def client(self, prefix=()):
        return Client(self.programs["deputy-bench"], core=self.client_core, prefix=prefix)

    def raw_path(self, label):
        return self.raw / f"{self.name}-{label}.jsonl"

    @contextlib.contextmanager
    def wall_time_part(self):
        """A part of a study of costs that is about wall time: within it --realtime counts."""
        with contextlib.ExitStack() as stack:
            if self.may_raise and os.sched_getscheduler(0) != os.SCHED_RR:
                outer, self.cleanups = self.cleanups, stack
                try:
                    self.raise_priority("what was measured in wall time")
                finally:
                    self.cleanups = outer
            yield

    def run(self, realtime=False):
        """Does it; what was found is in self.result whatever happens."""
        self.may_raise = realtime
        if realtime and self.wants_realtime:
            self.raise_priority()
        module = importlib.import_module(f"harness.study_{self.kind}")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="deputy-bench."))
        # hitch's and nginx's workers leave root behind, and read the certificates then.
        self.folder.chmod(0o711)
        self.procs = Procs(self.folder)
        failed = True
        try:
            module.run(self)
            failed = False
        finally:
            self.procs.stop()
            self.cleanups.close()
            if failed and "DEPUTY_BENCH_KEEP" in os.environ:
                self.progress(f"its files are kept in {self.folder}")
            else:
                shutil.rmtree(self.folder, ignore_errors=True)


__all__ = ["BenchError", "Result", "Study", "describe", "names"]
