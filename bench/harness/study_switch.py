# SPDX-License-Identifier: Apache-2.0
"""switch: what clients notice of a switch. Two open loops run all the time, one that
takes delegated credentials and one that does not; by name, by key, by CA the name goes
to its backup and back. Each handshake is placed by when it was due, each switch by when
deputyctl had returned."""

import hashlib
import time

from harness.deputy import CAS, HOST, Deputy, Where
from harness.load import raw_lines
from harness.origin import Origin
from harness.procs import checked
from harness.stats import bootstrap, median, percentile


def key_id(leaf):
    """The id that deputyctl knows a key by: SHA-256 of its SubjectPublicKeyInfo."""
    der = leaf.key.parent / "public.der"
    checked(["openssl", "pkey", "-in", leaf.key, "-pubout", "-outform", "DER", "-out", der])
    try:
        return hashlib.sha256(der.read_bytes()).hexdigest()
    finally:
        der.unlink()


class Event:
    def __init__(self, text, before, after, issuer):
        self.text = text
        self.asked_at = before
        self.at = after
        self.issuer = issuer  # of every handshake from now on


def change_all(s, deputy):
    """Switches and restores in rounds; the list of events."""
    p = s.p
    subjects = {"name": ("--name", HOST), "key": ("--key", key_id(deputy.leaves[0])),
                "CA": ("--ca", CAS[0])}
    events = []
    for i in range(p["rounds"]):
        s.progress(f"round {i + 1} of {p['rounds']}")
        for what, subject in subjects.items():
            for verb, issuer in (("switch", CAS[1]), ("restore", CAS[0])):
                time.sleep(p["window_s"] + p["gap_s"])
                events.append(Event(f"{verb} {what}", *deputy.switch(verb, *subject), issuer))
                time.sleep(p["window_s"])
    return events


def read_samples(raw):
    """[(due, wall clock in s), latency ms or None, issuer, failure or None]"""
    about, samples = raw_lines(raw)
    zero = about["zero_wall_us"]
    found = []
    for x in samples:
        ok = x["result"] == "ok"
        latency = (x["handshake_us"] - x["scheduled_us"]) / 1000 if ok else None
        found.append(((zero + x["scheduled_us"]) / 1e6, latency, x.get("issuer"),
                      None if ok else x["result"]))
    return found


def within(samples, begin, end):
    return [ms for at, ms, _, _ in samples if begin <= at < end and ms is not None]


def typical_p99(groups):
    """The median of the windows' own p99: one stall of the machine does not make it."""
    return median([percentile(one, 99) for one in groups])


def typical_ratio(pairs):
    """Of windows before and after the same event."""
    return median([percentile(after, 99) / percentile(before, 99) for before, after in pairs])


def compare(s, kind, samples, events):
    """Rows for the table: the second before and the second after each kind of event."""
    window = s.p["window_s"]
    rows = []
    for text in [*dict.fromkeys(e.text for e in events), "all"]:
        mine = [e for e in events if text in (e.text, "all")]
        before = [within(samples, e.asked_at - window, e.asked_at) for e in mine]
        after = [within(samples, e.at, e.at + window) for e in mine]
        failed = sum(1 for at, _, _, why in samples for e in mine
                     if why and e.asked_at - window <= at < e.at + window)
        stale = sum(1 for at, ms, issuer, _ in samples for e in mine
                    if ms is not None and e.at <= at < e.at + window and issuer != e.issuer)
        if not all(before) or not all(after):
            s.result.note(f"{kind}, {text}: too few handshakes for a figure")
            continue
        pairs = list(zip(before, after))
        ratio = typical_ratio(pairs)
        low, high = bootstrap(typical_ratio, pairs, repeats=300)
        low, high = min(low, ratio), max(high, ratio)
        rows.append([kind, text, sum(map(len, after)), f"{typical_p99(before):.2f}",
                     f"{typical_p99(after):.2f}", f"{ratio:.3f} ({low:.3f} to {high:.3f})", failed,
                     stale])
        if text == "all":
            s.result.measure(f"{kind}.p99_after_over_before", ratio, low, high)
            s.result.measure(f"{kind}.stale", stale, stale, stale)
    return rows


def placebo(s, kind, samples, events):
    """The same comparison where nothing happened: half a window earlier."""
    window = s.p["window_s"] / 2
    first = [within(samples, e.asked_at - 2 * window, e.asked_at - window) for e in events]
    second = [within(samples, e.asked_at - window, e.asked_at) for e in events]
    if all(first) and all(second):
        pairs = list(zip(first, second))
        low, high = bootstrap(typical_ratio, pairs, repeats=300)
        s.result.note(f"{kind}: the same ratio of the half second before a switch and the half"
                      f" second before that, when nothing happened: {typical_ratio(pairs):.3f}"
                      f" ({low:.3f} to {high:.3f}): what the machine does by itself.")


def plot(s, by_kind, events):
    """Latency over time around the first round's events."""
    if not events:
        return
    zero = events[0].at
    shown = events[:6]
    end = shown[-1].at + s.p["window_s"]
    begin = shown[0].at - s.p["window_s"]
    series = [{"title": kind, "points": [[at - zero, ms] for at, ms, _, _ in samples
                                         if ms is not None and begin <= at < end]}
              for kind, samples in by_kind.items()]
    s.result.plots.append({"name": "time", "kind": "points", "series": series,
                           "title": "Each handshake around switches and back",
                           "xlabel": "seconds since the first switch", "ylabel": "latency, ms",
                           "logy": True, "marks": [[e.at - zero, e.text] for e in shown]})


def run(s):
    origin = Origin(s.procs, core=s.client_core)
    deputy = Deputy(s.procs, s.programs, origin.address, proxy=Where(core=s.server_core),
                    keyserver=Where(core=s.client_core))
    deputy.start_keyserver()
    deputy.start_issuer()
    deputy.start_proxy()
    client = s.client()
    loads = {}
    for kind, dc, rate in (("DC", "on", s.p["rate_per_s"]),
                           ("keyless", "off", s.p["keyless_rate_per_s"])):
        raw = s.raw_path(kind.lower())
        process = client.start(s.procs, f"load-{kind}", "handshakes", target=deputy.address(),
                               server_name=HOST, dc=dc, rate=rate, duration="10m", raw=raw,
                               label=f"{kind} clients", verify=10)
        loads[kind] = (process, raw)
    time.sleep(0.5)  # past the first handshakes, which warm caches up
    events = change_all(s, deputy)
    by_kind, rows = {}, []
    for kind, (process, raw) in loads.items():
        process.signal(2)
        summary = client.finish(process, timeout=30)
        s.result.count(summary)
        by_kind[kind] = read_samples(raw)
        rows += compare(s, kind, by_kind[kind], events)
        placebo(s, kind, by_kind[kind], events)
    s.result.measure("failed", s.result.failed, s.result.failed, s.result.failed)
    s.result.table("The second after against the second before, ms",
                   ["clients", "what", "handshakes after", "p99 before", "p99 after",
                    "ratio of p99", "failed", "still the old chain"], rows)
    took = [(e.at - e.asked_at) * 1000 for e in events]
    if took:
        s.result.note(f"deputyctl took {percentile(took, 50):.0f} ms at the median, its start"
                      " included; p99: of each window, then the median of the windows; ratios within each event; in brackets 95 %, events drawn anew.")
    plot(s, by_kind, events)
