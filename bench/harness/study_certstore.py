# SPDX-License-Identifier: Apache-2.0
"""certstore: a million names with a primary and a backup each. Import, size, drill, the
proxy's start and memory, cold and hot names, a switch of their CA under load, and haproxy
and nginx beside it. bench/README.md says how each is measured."""

import json
import pathlib
import shutil
import time

from harness import certstore_peers
from harness.base import BenchError
from harness.certstore_data import CA, LEVELS, Names, need_disk
from harness.certstore_shop import Shop, drop_pages, measure, spread_text, warm_pages
from harness.origin import Origin
from harness.procs import checked
from harness.stats import bootstrap
from harness.study_switch import placebo, read_samples, typical_ratio, within

MB = 1e6


# --- the store by itself -------------------------------------------------------------


def tell_import(s, names):
    rates = [names.num / seconds for seconds in names.imports]
    measure(s, "import.per_s", rates)
    s.result.table("Import by deputyctl, the whole command, to the last sync",
                   ["level", "leaves", "seconds", "leaves per second"],
                   [[level, f"{names.num:,}", f"{seconds:.1f}", f"{rate:.0f}"]
                    for level, seconds, rate in zip(LEVELS, names.imports, rates)])


def size(s, names):
    stats = names.stats()
    if stats["names"] != names.num or stats["staples"] != 2 * names.num:
        raise BenchError(f"the store is not whole: {stats}")
    lens = names.check_staples()
    value = (stats["bytes"] + stats["state_bytes"]) / names.num
    s.result.measure("size.bytes", value, value, value)
    s.result.table("The store's file, both chains and staples of each name in it, as the import"
                   " left it", ["names", "chains", "staples", "bytes", "of these free",
                                "bytes for each name"],
                   [[f"{stats[k]:,}" for k in ("names", "chains", "staples", "bytes",
                                               "free_bytes")] + [f"{value:.0f}"]])
    s.result.note("Leaves are as long as those of public CAs (OCSP and CRL address, policy, two"
                  f" SCTs: some 900 bytes); staples of {min(lens)} to {max(lens)} bytes are"
                  " signed by the CA's own P-256 key; OpenSSL verified six of them.")


def drill(s, names):
    seconds = []
    for i in range(s.p["rounds"]):
        s.progress(f"drill, round {i + 1} of {s.p['rounds']}")
        begin = time.monotonic()
        done = checked(names.ctl("drill", "--ca", CA["primary"], "--json", "--quiet"), timeout=120)
        seconds.append(time.monotonic() - begin)
        found = json.loads(done.stdout)
        if found["num_moved"] != names.num or found["num_without_backup"] != 0:
            raise BenchError(f"the drill found something else: {found}")
    measure(s, "drill.s", seconds)
    s.result.table("Drill: what if the primary CA were out of service, the whole command",
                   ["names that move", "seconds"], [[f"{names.num:,}", spread_text(seconds, 2)]])


def decide(s, names):
    """The decision for a hot name: 1,000 of them, and as many as the cache holds."""
    rows = []
    client = s.client()
    client.core = s.server_core
    for num in s.p["hot_names"]:
        p50, p99, hot = [], [], 0
        for i in range(s.p["rounds"]):
            s.progress(f"{num} hot names, round {i + 1} of {s.p['rounds']}")
            found = client("decide", store=names.store, names=num, count=s.p["decisions"],
                           every=max(1, names.num // num))
            p50.append(found["p50_ns"] / 1000)
            p99.append(found["p99_ns"] / 1000)
            hot = found["hot"]
        rows.append([hot, spread_text(p50, 3), spread_text(p99, 3)])
        measure(s, "decide.p50_us", p50)  # the last, with the most names, counts
    s.result.table("The decision from a hot name to chain and signature source, us (the proxy's"
                   " code in its certificate callback, names at random)",
                   ["hot names", "p50", "p99"], rows)


# --- start and memory ------------------------------------------------------------------


def start_once(s, shop, names, what):
    """(seconds to the first served handshake, memory when idle after it)."""
    seconds, tries = shop.start(names)
    time.sleep(s.p["settle_s"])
    memory = shop.process.memory()
    if tries > 1:
        s.result.note(f"start, {what}: the first handshakes failed ({tries - 1}) before one was"
                      " served; the time is that of the latter.")
    return seconds, memory


def starts(s, shop, names, small):
    warm, cold, of_small, memory, memory_small, left = [], [], [], [], [], []
    files = [*names.store.glob("*.mdb"), s.programs["deputy-proxy"]]
    for i in range(s.p["rounds"] + 1):  # the first warms up
        s.progress(f"start, round {i} of {s.p['rounds']}" if i else "start, warming up")
        one = start_once(s, shop, names, "warm")
        shop.stop()
        two = start_once(s, shop, small, "few names")
        shop.stop()
        resident = drop_pages(files)
        three = start_once(s, shop, names, "cold")
        shop.stop()
        if i:
            warm.append(one[0])
            of_small.append(two[0])
            cold.append(three[0])
            memory.append(one[1] / MB)
            memory_small.append(two[1] / MB)
            left.append(resident)
    measure(s, "start.warm_s", warm)
    measure(s, "start.cold_s", cold)
    measure(s, "memory.mb", memory)
    ratios = [a / b for a, b in zip(memory, memory_small)]
    measure(s, "memory.over_small", ratios)
    leaves = f"{2 * names.num:,} leaves"
    s.result.table("From the start of deputy-proxy to the first served handshake, ms",
                   ["store", "page cache", "ms", "memory after it, idle, MB"],
                   [[leaves, "warm", spread_text([x * 1000 for x in warm]),
                     spread_text(memory, 2)],
                    [leaves, "cold", spread_text([x * 1000 for x in cold]), "-"],
                    [f"{2 * small.num:,} leaves", "warm", spread_text([x * 1000 for x in of_small]),
                     spread_text(memory_small, 2)]])
    s.result.note("cold: posix_fadvise(DONTNEED) on the store and on the program, while nothing had"
                  f" them mapped; fincore then found {max(left) / MB:.1f} MB of them in memory.")
    s.result.note(f"memory: proportional set size {s.p['settle_s']:g} s after the first handshake;"
                  f" over that with {small.num:,} names: {spread_text(ratios, 3)}.")


# --- cold and hot names ------------------------------------------------------------------


def visit(s, shop, names, first, num, what):
    """p50, p99 in ms of one handshake for each of these names, one after the other."""
    summary = s.client()("handshakes", target=shop.address, count=num, concurrency=1, dc="off",
                         verify=0, label=f"{what} names", **names.client_names(first, num))
    s.result.count(summary)
    latency = summary["latency_us"]["handshake"]
    return latency["p50"] / 1000, latency["p99"] / 1000


def cold_names(s, shop, names):
    num = min(s.p["cold_names"], names.num_keys // s.p["rounds"])
    found = {"cold": [], "hot": [], "on disk": [], "hot again": []}
    warm_pages(names.store.glob("*.mdb"))
    shop.start(names)
    visit(s, shop, names, 0, 1, "warming")
    for i in range(s.p["rounds"]):
        s.progress(f"cold and hot names, round {i + 1} of {s.p['rounds']}")
        for what in ("cold", "hot"):
            found[what].append(visit(s, shop, names, i * num, num, what))
    loads = shop.metric("store_loads_total", result="found")
    if loads < num * s.p["rounds"]:
        raise BenchError(f"only {loads:.0f} names were cold")
    busy = shop.process.memory() / MB
    time.sleep(s.p["visited_s"])
    visited = shop.process.memory() / MB
    shop.stop()
    for i in range(s.p["disk_rounds"]):
        s.progress(f"names on disk, round {i + 1} of {s.p['disk_rounds']}")
        drop_pages(names.store.glob("*.mdb"))
        shop.start(names)
        for what in ("on disk", "hot again"):
            found[what].append(visit(s, shop, names, i * num, num, what))
        shop.stop()
    tell_cold_names(s, num, found)
    s.result.measure("memory.visited_mb", visited, visited, visited)
    s.result.note(f"Memory of the proxy after {loads:.0f} names were read (store.cache 8192):"
                  f" {busy:.1f} MB at once, {visited:.1f} MB {s.p['visited_s']:g} s later, when it has"
                  " given back the store's pages that it had looked at.")


def tell_cold_names(s, num, found):
    added = [b[1] - a[1] for a, b in zip(found["hot"], found["cold"])]
    on_disk = [b[1] - a[1] for a, b in zip(found["hot again"], found["on disk"])]
    measure(s, "cold.added_p99_ms", added)
    measure(s, "cold.added_p99_ms.on_disk", on_disk)
    s.result.table("One keyless handshake for each name, one after the other, ms",
                   ["names", "p50", "p99", "p99 over hot ones'"],
                   [[what, spread_text([v[0] for v in values], 3),
                     spread_text([v[1] for v in values], 3), more]
                    for what, values, more in (
                        ("hot", found["hot"], ""),
                        ("cold, pages in memory", found["cold"], spread_text(added, 3)),
                        ("cold, pages on disk", found["on disk"], spread_text(on_disk, 3)))])
    s.result.note(f"cold names: {num} in a round, spread over the store, never asked for since the"
                  " proxy's start; hot: the same once more, by a new client.")


# --- a switch of the CA --------------------------------------------------------------------


def copy_store(names, folder):
    """The states of a store of its own, the chains shared: switches leave the cache as it was."""
    folder.mkdir()
    for path in names.store.iterdir():
        if path.name.startswith("chains-") and path.suffix == ".mdb":
            (folder / path.name).hardlink_to(path)
        elif path.name == "states.mdb":
            shutil.copy(path, folder / path.name)
    return folder


def probe(s, options):
    """How long after the answer was the old CA still seen?"""
    summary = s.client()("switch-store", rounds=s.p["probe_rounds"], probes=s.p["probes"],
                         before="30ms", after="30ms", **options)
    lags, first, stale, probes = [], [], 0, 0
    for event in summary["events"]:
        lags.append(event["last_stale_us"] / 1000)
        first.append(min(event["sent_us"], default=0) / 1000)
        stale += event["stale"]
        probes += event["stale"] + event["obeyed"]
    s.result.failed += summary["probes_failed"]
    if not probes:
        raise BenchError("no probe was answered")
    measure(s, "switch.lag_ms", lags)
    took = [event["took_us"] / 1000 for event in summary["events"]]
    s.result.table("After the answer to a switch of the CA, and back: ClientHellos on connections"
                   " that were open before, to all workers",
                   ["changes", "probes", "first one after, ms", "with the old CA",
                    "last of these, ms", "the writing call took, ms"],
                   [[len(lags), probes, spread_text(first, 3), stale, spread_text(lags, 3),
                     spread_text(took, 2)]])


class Event:
    def __init__(self, found):
        self.asked_at = found["asked_wall_us"] / 1e6
        self.at = found["answered_wall_us"] / 1e6
        self.issuer = found["issuer"]


def around(s, shop, names, options):
    """p99 of the second after over that before, under steady load."""
    raw = s.raw_path("switch")
    client = s.client()
    load = client.start(s.procs, "load", "handshakes", target=shop.address, dc="off",
                        rate=s.p["rate_per_s"], duration="10m", raw=raw, label="around switches",
                        verify=20, **names.client_names(0, s.p["load_names"]))
    time.sleep(s.p["window_s"])
    # The first round is not looked at: in it the client meets each backup leaf for the first
    # time, which costs itself, not the proxy, a look at the certificate.
    summary = client("switch-store", rounds=s.p["switch_rounds"] + 1,
                     before=f"{int((s.p['window_s'] + s.p['gap_s']) * 1000)}ms",
                     after=f"{int(s.p['window_s'] * 1000)}ms", **options)
    load.signal(2)
    s.result.count(client.finish(load, timeout=30))
    samples = read_samples(raw)
    events = [Event(found) for found in summary["events"][2:]]
    window = s.p["window_s"]
    pairs = [(within(samples, e.asked_at - window, e.asked_at),
              within(samples, e.at, e.at + window)) for e in events]
    if not all(before and after for before, after in pairs):
        raise BenchError("too few handshakes around the switches")
    ratio = typical_ratio(pairs)
    low, high = bootstrap(typical_ratio, pairs, repeats=300)
    s.result.measure("switch.p99_after_over_before", ratio, min(low, ratio), max(high, ratio))
    stale = sum(1 for at, ms, issuer, _ in samples for e in events
                if ms is not None and e.at <= at < e.at + window and issuer != e.issuer)
    s.result.table(f"The second after a switch of the CA, and back, against the second before"
                   f" ({s.p['rate_per_s']} keyless handshakes per second, {s.p['load_names']} names;"
                   f" {s.p['switched_hot']} in the cache)",
                   ["changes", "handshakes", "ratio of p99", "still the old CA"],
                   [[len(events), sum(len(after) for _, after in pairs),
                     f"{ratio:.3f} ({low:.3f} to {high:.3f})", stale]])
    placebo(s, "keyless", samples, events)


def switch(s, shop, names):
    folder = copy_store(names, s.folder / "switched")
    failed = s.result.failed
    shop.start(names, store=folder, workers=2)
    hot = min(s.p["switched_hot"], names.num_keys)
    visit(s, shop, names, 0, hot, "to be hot")
    options = {"store": folder, "target": shop.address, "ca": CA["primary"],
               "instead": CA["backup"], "name_every": names.key_every, "names": hot}
    s.progress(f"switch of {names.num:,} names: probes")
    probe(s, options)
    s.progress(f"switch of {names.num:,} names, under load: about"
               f" {(s.p['switch_rounds'] + 1) * 2 * (2 * s.p['window_s'] + s.p['gap_s']):.0f} s")
    around(s, shop, names, options)
    shop.stop()
    failed = s.result.failed - failed
    s.result.measure("switch.failed", failed, failed, failed)


# --- all of it ---------------------------------------------------------------------------------


def prepare(s):
    base = pathlib.Path(s.cache or s.folder).resolve()
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise BenchError(f"--cache {base}: {e.strerror}") from e
    need_disk(s, base, s.p["names"])
    names = Names(s, base / f"names-{s.p['names']}", s.p["names"], s.p["keys"])
    small = Names(s, base / f"names-{s.p['small']}-small", s.p["small"], s.p["small"])
    few = Names(s, base / f"names-{s.p['peers']}-peers", s.p["peers"], s.p["peers"], s.p["peers"])
    small.prepare()
    few.prepare()
    names.prepare()
    return names, small, few


def run(s):
    names, small, few = prepare(s)
    tell_import(s, names)
    size(s, names)
    drill(s, names)
    origin = Origin(s.procs, core=s.client_core)
    with s.wall_time_part():
        decide(s, names)
        shop = Shop(s, origin, names)
        starts(s, shop, names, small)
        cold_names(s, shop, names)
        switch(s, shop, names)
        shop.close()
    certstore_peers.run(s, origin, few)
