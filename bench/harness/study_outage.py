# SPDX-License-Identifier: Apache-2.0
"""outage: three kinds of client, each an open loop of new handshakes, while the key
server, then the issuer, are taken away and come back."""

import signal
import time

from harness.base import BenchError, wait_until
from harness.deputy import HOST, Deputy, Where
from harness.load import raw_lines
from harness.origin import Origin
from harness.stats import percentile

CLIENTS = {"DC": {"dc": "on"}, "keyless": {"dc": "off"},
           "resuming": {"dc": "on", "resume": True}}


class Phases:
    """(text, begin, end, may the keyless clients fail) on the wall clock."""

    def __init__(self, s):
        self.s = s
        self.list = []

    def run(self, text, seconds, keyless_may_fail=False, act=None):
        self.s.progress(text)
        begin = time.time()
        end = begin + seconds
        if act is None:
            time.sleep(seconds)
        else:
            act(end)
        self.list.append((text, begin, max(end, time.time()), keyless_may_fail))


def slow(process):
    """A key server that works a fifth of the time: stopped by the kernel, not by its will."""

    def act(end):
        while time.time() < end:
            process.signal(signal.SIGSTOP)
            time.sleep(0.08)
            process.signal(signal.SIGCONT)
            time.sleep(0.02)

    return act


def flap(deputy):
    """A key server that dies and comes back, again and again."""

    def act(end):
        while time.time() < end:
            deputy.keyserver.kill()
            time.sleep(0.2)
            deputy.start_keyserver()
            time.sleep(0.3)

    return act


def lose_keyserver(s, deputy, phases):
    seconds = s.p["phase_s"]
    phases.run("all well", seconds)
    deputy.keyserver.kill()
    phases.run("key server stopped", seconds, True)
    deputy.start_keyserver()
    wait_until(lambda: deputy.metric("key_servers_ready") >= 1, "the key server's return")
    phases.run("key server back", seconds)
    phases.run("key server slow (80 of 100 ms stopped)", seconds, True, slow(deputy.keyserver))
    phases.run("key server fast again", seconds)
    phases.run("key server flapping", seconds, True, flap(deputy))
    wait_until(lambda: deputy.metric("key_servers_ready") >= 1, "the key server's return")
    phases.run("key server steady again", seconds)


def lose_issuer(s, deputy, phases):
    """The proxy "short" asks for credentials of a few seconds, which end meanwhile."""
    p = s.p
    phases.run("short credentials, all well", p["phase_s"])
    deputy.issuer.kill()
    phases.run("issuer stopped for longer than a credential lives", p["dc_lifetime_s"] + 0.5)
    phases.run("issuer stopped, no credential left", p["phase_s"])
    deputy.start_issuer()
    back = time.time()
    wait_until(lambda: deputy.num_credentials("short") >= 1, "a new credential", 30)
    s.result.note(f"after the issuer's return a credential was there in {time.time() - back:.1f} s")
    phases.run("issuer back", p["phase_s"])


def row(text, kind, begin, end, samples, zero):
    mine = [x for x in samples if begin <= zero + x["scheduled_us"] / 1e6 < end]
    good = [x for x in mine if x["result"] == "ok"]
    latencies = [(x["handshake_us"] - x["scheduled_us"]) / 1000 for x in good]
    reasons = {}
    for x in mine:
        if x["result"] not in ("ok", "abandoned"):
            reasons[x["result"]] = reasons.get(x["result"], 0) + 1
    failed = sum(reasons.values())
    return failed, [
        text, kind, len(mine), failed, ", ".join(sorted(reasons)) or "-",
        f"{percentile(latencies, 50):.2f}" if latencies else "-",
        f"{percentile(latencies, 99):.2f}" if latencies else "-",
        sum(1 for x in good if x.get("dc")), sum(1 for x in good if x.get("resumed"))]


def start_loads(s, deputy, proxy):
    """{kind of client: (process, raw file)}, all at work."""
    loads = {}
    for kind, options in CLIENTS.items():
        raw = s.raw_path(f"{proxy}-{kind.lower()}")
        process = s.client().start(s.procs, f"load-{proxy}-{kind}", "handshakes",
                                   target=deputy.address(proxy), server_name=HOST,
                                   rate=s.p["rate_per_s"], duration="10m", raw=raw,
                                   label=f"{kind} clients", **options)
        loads[kind] = (process, raw)
    time.sleep(0.3)  # past the first handshakes, which warm caches up
    return loads


def part(s, deputy, proxy, act):
    """All clients at one proxy while `act` does its worst: the rows of the table."""
    loads = start_loads(s, deputy, proxy)
    phases = Phases(s)
    act(s, deputy, phases)
    rows, series = [], []
    start = phases.list[0][1]
    for kind, (process, raw) in loads.items():
        process.signal(signal.SIGINT)
        s.client().finish(process, timeout=30)
        about, samples = raw_lines(raw)
        zero = about["zero_wall_us"] / 1e6
        if not samples:
            raise BenchError(f"the {kind} clients did nothing")
        for i, (text, begin, end, keyless_may_fail) in enumerate(phases.list):
            failed, line = row(text, kind, begin, end, samples, zero)
            rows.append((i, line))
            if kind != "keyless" or not keyless_may_fail:
                s.result.failed += failed
        series.append({"title": kind, "points": [
            [zero + x["scheduled_us"] / 1e6 - start, (x["handshake_us"] - x["scheduled_us"]) / 1000]
            for x in samples if x["result"] == "ok" and zero + x["scheduled_us"] / 1e6 >= start]})
    s.result.plots.append({"name": f"time-{proxy}", "kind": "points", "series": series,
                           "title": "Each handshake that went well, while things go wrong",
                           "xlabel": "seconds", "ylabel": "latency, ms", "logy": True,
                           "marks": [[begin - start, text] for text, begin, _, _ in phases.list]})
    return [line for _, line in sorted(rows, key=lambda pair: pair[0])]


def run(s):
    p = s.p
    origin = Origin(s.procs, core=s.client_core)
    deputy = Deputy(s.procs, s.programs, origin.address, proxy=Where(core=s.server_core),
                    keyserver=Where(core=s.client_core))
    deputy.start_keyserver()
    deputy.start_issuer()
    how = {"deadline": f"{p['deadline_ms']}ms"}
    deputy.start_proxy("proxy", **how)
    rows = part(s, deputy, "proxy", lose_keyserver)
    deputy.dc = {"lifetime": f"{p['dc_lifetime_s']}s", "margin": "1s", "retry_min": "200ms",
                 "retry_max": "500ms"}
    # So that a session may outlive its credential, which nothing else could be seen of.
    deputy.start_proxy("short", tickets={"past_dc": "1h"}, **how)
    rows += part(s, deputy, "short", lose_issuer)
    s.result.table("By phase; ms", ["phase", "clients", "handshakes", "failed", "how", "p50", "p99",
                                    "with DC", "resumed"], rows)
    s.result.measure("failed", s.result.failed, s.result.failed, s.result.failed)
    s.result.note("Failures are expected of keyless clients alone, while the key server is away,"
                  f" slow or flapping (deadline of a signature: {p['deadline_ms']} ms); they are"
                  " not in the count above.")
