# SPDX-License-Identifier: Apache-2.0
"""keyserver: what a signature costs the key server, asked over mutual TLS with the whole
message, each authorised and audited."""

from harness.base import BenchError
from harness.deputy import Deputy, Where
from harness.stats import median

KINDS = {"p256": "P-256", "rsa2048": "RSA-2048"}


def one_round(s, deputy, kind, connections, window, count):
    """(CPU seconds per signature, summary)."""
    identity = deputy.identity("proxy")
    process = deputy.keyserver
    before = process.cpu_s()
    summary = s.client()("keyserver", target=deputy.keyserver_address, host="keyserver.parts",
                         ca=identity["ca"], certificate=identity["certificate"],
                         key=identity["key"], sign_certificate=deputy.leaves[0].cert,
                         connections=connections, window=window, count=count, verify=200,
                         label=f"{kind} over {connections}")
    cpu = process.cpu_s() - before
    s.result.count(summary)
    if summary["counts"]["ok"] == 0:
        raise BenchError(f"no signature: {summary['failures']}")
    return cpu / summary["counts"]["ok"], summary


def audit_lines(deputy):
    path = deputy.folder / "keyserver.audit"
    with open(path, "rb") as f:
        return sum(block.count(b"\n") for block in iter(lambda: f.read(1 << 20), b""))


def run(s):
    floor = {row["name"]: row["median_us"] for row in s.client()(
        "floor", rounds=5, round_time="10ms")["rows"]}
    rows = []
    for kind, title in KINDS.items():
        deputy = Deputy(s.procs, s.programs, "127.0.0.1:9", keyserver=Where(core=s.server_core),
                        kind=kind)
        deputy.start_keyserver()
        costs = {n: [] for n in s.p["connections"]}
        latest = {}
        asked = 0
        for i in range(s.p["rounds"] + 1):
            s.progress(f"{title}, round {i} of {s.p['rounds']}" if i else f"{title}, warming up")
            for connections in costs:
                window = max(1, s.p["in_flight"] // connections)
                count = s.p[kind] if i else max(10, s.p[kind] // 10)
                cost, latest[connections] = one_round(s, deputy, kind, connections, window, count)
                asked += latest[connections]["counts"]["ok"]
                if i:
                    costs[connections].append(cost)
        bare = floor.get(f"{kind}.sign")
        for connections, values in costs.items():
            per_s = sorted(1 / v for v in values)
            latency = next(v for v in latest[connections]["latency_us"].values() if v["num"])
            rows.append([title, connections, max(1, s.p["in_flight"] // connections),
                         f"{median(per_s):.0f} ({per_s[0]:.0f} to {per_s[-1]:.0f})",
                         f"{median(values) * 1e6:.1f}",
                         f"{median(values) * 1e6 / bare:.2f}" if bare else "-",
                         f"{latency['p50'] / 1000:.2f}", f"{latency['p99'] / 1000:.2f}"])
            s.result.measure(f"{kind}.{connections}.per_cpu_s", median(per_s), per_s[0],
                             per_s[-1])
        deputy.keyserver.stop()  # writes what is left of the audit
        lines = audit_lines(deputy)
        s.result.note(f"{title}: {asked} signatures, {lines} audit lines.")
        if lines < asked:
            s.result.failed += asked - lines
    s.result.table("Key server, one worker",
                   ["key", "connections", "in flight on each", "signatures per CPU second",
                    "us of CPU each", "times the bare operation", "p50, ms", "p99, ms"], rows)
