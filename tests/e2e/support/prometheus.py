# SPDX-License-Identifier: Apache-2.0
"""The Prometheus text format (0.0.4), read strictly: what promtool and a server's
parser would refuse, or promtool's linter would mind, fails here. What passes is shown
to promtool itself."""

import math
import re
import subprocess

from support.procs import SLOW

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (\S+)$")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count", "")}
# Prometheus wants base units.
NOT_BASE = ("_milliseconds", "_microseconds", "_minutes", "_hours", "_days", "_kilobytes",
            "_megabytes", "_percent", "_ms", "_us")


class Family:
    """One metric family: its samples as [(name, {label: value}, number)]."""

    def __init__(self, name, kind, text):
        self.name = name
        self.kind = kind
        self.help = text
        self.samples = []

    def takes(self, name):
        return name in [self.name + s for s in SUFFIXES.get(self.kind, ("",))]


def parse_labels(text):
    labels = {}
    at = 0
    while at < len(text):
        match = LABEL.match(text, at)
        assert match, f"bad labels: {text!r}"
        assert match[1] not in labels, f"label twice: {text!r}"
        assert not match[1].startswith("__"), f"reserved label: {text!r}"
        labels[match[1]] = match[2]
        at = match.end()
    return labels


def check_histogram(family):
    groups = {}
    for name, labels, value in family.samples:
        rest = tuple(sorted((k, v) for k, v in labels.items() if k != "le"))
        group = groups.setdefault(rest, {"buckets": []})
        if name.endswith("_bucket"):
            group["buckets"].append((float(labels["le"]), value))
        else:
            group[name[len(family.name):]] = value
    for labels, group in groups.items():
        where = (family.name, labels)
        bounds = [le for le, _ in group["buckets"]]
        counts = [count for _, count in group["buckets"]]
        assert bounds == sorted(set(bounds)) and bounds[-1] == math.inf, where
        assert counts == sorted(counts), where
        assert counts[-1] == group["_count"], where
        assert group["_sum"] >= 0, where


def check(family):
    assert family.help and not family.name.endswith(NOT_BASE), family.name
    if family.kind == "counter":
        assert family.name.endswith("_total"), family.name
    else:
        assert not family.name.endswith("_total"), family.name
    if family.kind != "histogram":
        assert not family.name.endswith(("_bucket", "_count", "_sum")), family.name
    seen = set()
    for name, labels, value in family.samples:
        key = (name, tuple(sorted(labels.items())))
        assert key not in seen, f"twice: {key}"
        seen.add(key)
        if family.kind in ("counter", "histogram"):
            assert value >= 0 and not math.isnan(value), key
    if family.kind == "histogram":
        check_histogram(family)


def check_by_promtool(text):
    done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True,
                          capture_output=True, timeout=60 * SLOW, check=False)
    # Its linter complains on standard error, and ends with 3.
    assert done.returncode == 0 and not done.stderr, (done.returncode, done.stdout, done.stderr)


def parse(text):
    """{name: Family}; AssertionError for anything that is not right."""
    families = {}
    current = None
    helps = {}
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            name, _, words = line[7:].partition(" ")
            assert re.fullmatch(NAME, name) and name not in helps, line
            helps[name] = words
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert kind in ("counter", "gauge", "histogram", "summary", "untyped"), line
            assert name not in families and name in helps, line
            current = families[name] = Family(name, kind, helps[name])
        else:
            match = SAMPLE.match(line)
            assert match, f"bad line: {line!r}"
            assert current is not None and current.takes(match[1]), f"out of place: {line!r}"
            current.samples.append((match[1], parse_labels(match[2] or ""), float(match[3])))
    for family in families.values():
        check(family)
    check_by_promtool(text)
    return families


def value(text, name, **labels):
    """The value of the one sample with just these labels; 0 when there is none."""
    want = ",".join(f'{k}="{v}"' for k, v in labels.items())
    sample = name + (f"{{{want}}} " if want else " ")
    for line in text.splitlines():
        if line.startswith(sample):
            return float(line.rpartition(" ")[2])
    return 0.0
