# SPDX-License-Identifier: Apache-2.0
"""The targets that the project has set itself: bench/targets.json, one object each:

    name     what it is called
    group    handshake, ...
    study    which study measures it
    measure  the name under which that study gives {"value", "low", "high"}
    at_most / at_least   the bound
    what     what is measured
    why      why this bound
    is_of_scale  true: only the full size is of the scale that the target is about; in
             another it is measured and shown, and never met
"""

from harness.base import ROOT, UsageError, load_json
from harness.stats import verdict

FILE = ROOT / "bench" / "targets.json"


def load(group=None):
    every = load_json(FILE)["targets"]
    if group is None:
        return every
    found = [t for t in every if t["group"] == group]
    if not found:
        groups = sorted({t["group"] for t in every})
        raise UsageError(f"unknown group \"{group}\"; there are {', '.join(groups)}")
    return found


def judge(target, results):
    """(measure or None, "met" | "not met" | "open" | "not measured" | "not at scale")."""
    found = results.get(target["study"], {}).get("measures", {}).get(target["measure"])
    if found is None:
        return None, "not measured"
    if target.get("is_of_scale") and results[target["study"]].get("size", "full") != "full":
        return found, "not at scale"
    if "at_most" in target:
        return found, verdict(found["low"], found["high"], target["at_most"])
    return found, verdict(-found["high"], -found["low"], -target["at_least"])


def bound_of(target):
    if "at_most" in target:
        return f"<= {target['at_most']:g}"
    return f">= {target['at_least']:g}"


def row(target, results):
    """The words of one line."""
    found, result = judge(target, results)
    measured = ("-" if found is None else
                f"{found['value']:.4g} ({found['low']:.4g} to {found['high']:.4g})")
    if result == "not at scale":
        result = "not at scale: says nothing, run it in full"
    if result == "open":
        result = "open: the spread is larger than the difference"
    return [target["name"], bound_of(target), measured, result]


def show(wanted, results):
    """A line for each; True when all are met."""
    are_met = True
    for target in wanted:
        words = row(target, results)
        print(f"{target['group']:10s} {words[0]:36s} {words[1]:>9s}  measured {words[2]:28s} "
              f"{words[3]}")
        are_met = are_met and words[3] == "met"
    return are_met
