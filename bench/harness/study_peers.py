# SPDX-License-Identifier: Apache-2.0
"""peers: what a unit of work costs each terminator's server, side by side.

All servers of a kind of key run at once, idle but for the one whose turn it is; the
rounds interleave them, so that a slow moment of the machine hits all alike."""

from harness.field import TCP_PEERS, Field, show, spread_text, three
from harness.origin import Origin
from harness.peers import PEERS
from harness.stats import median, ratio


def full_handshakes(s, field, count, key):
    names = ["deputy-dc", "deputy-keyless", "deputy-local-key", *TCP_PEERS]
    costs, summaries = field.rounds(f"full handshakes, {key}", field.only(*names), count=count,
                                    concurrency=16)
    best = show(s, field, f"Server CPU per full handshake, {key}, TCP mode, origin connected",
                "us", costs, 1e6, summaries=summaries)
    for name, values in costs.items():
        s.result.measure(f"full.{field.kind}.{name}.us", *three(values, 1e6))
    if field.kind == "p256" and best is not None and "deputy-dc" in costs:
        r = ratio(costs["deputy-dc"], costs[best])
        s.result.measure("full.p256.dc_over_best", r["median"], r["min"], r["max"])
        s.result.note(f"full handshake P-256 with DC against {best}: {r['median']:.3f} "
                      f"({r['min']:.3f} to {r['max']:.3f}).")
    return costs


def resumed(s, field):
    names = ["deputy-dc", *TCP_PEERS]
    costs, summaries = field.rounds("resumed handshakes", field.only(*names), resume=True,
                                    tickets=4, count=s.p["resumed"], concurrency=16)
    show(s, field, "Server CPU per resumed handshake (psk_dhe_ke), TCP mode", "us", costs, 1e6,
         summaries=summaries)
    for name, summary in summaries.items():
        counts = summary["counts"]
        if counts["resumed"] < counts["ok"]:
            s.result.note(f"{name}: only {counts['resumed']} of {counts['ok']} were resumed")
    return costs


def requests(s, field):
    servers = field.only("deputy-dc", *PEERS)
    per, num = 8, s.p["requests"]
    costs, _ = field.rounds("small requests", servers, units=num, count=per, concurrency=per,
                            requests=num // per, path="/small")
    show(s, field, "Server CPU per small request (1 KB answer, keep-alive)", "us", costs, 1e6)
    s.result.note("Small requests and bulk: deputy-dc, *-tcp, nginx-stream and hitch pass bytes"
                  " on; the *-http ones speak HTTP to both sides and do more for it.")
    return costs


def gigabyte(s, field):
    servers = field.only("deputy-dc", *PEERS)
    size = s.p["gigabyte_mib"] << 20
    costs = {server.name: [] for server in servers}
    for i in range(s.p["rounds"]):
        s.progress(f"bulk, round {i + 1} of {s.p['rounds']}")
        for server in servers:
            cost, _ = field.cost(server, size / 1e9, count=1, concurrency=1, download=size,
                                 path="/bulk")
            costs[server.name].append(cost)
    show(s, field, "Server CPU per gigabyte (10^9 bytes) to the client", "ms", costs, 1e3)
    return costs


def idle(s, field):
    """Proportional memory for each idle connection, origin's side connected too."""
    rows = []
    for server in field.only("deputy-dc", *PEERS):
        each = field.idle(server, s.p["idle"])
        rows.append([server.name, f"{each / 1024:.1f}"])
        s.result.measure(f"idle.{server.name}.kib", each / 1024, each / 1024, each / 1024)
    s.result.table("Memory of the server per idle connection, in KiB",
                   ["server", "proportional set size"], rows)
    s.result.note(f"Memory: growth of the proportional set size over {s.p['idle']} connections,"
                  " of a server that has done nothing before, without the kernel's socket"
                  " buffers; what it sets up once for all connections is part of it.")


def offered(s, field):
    """Latency under the same offered load, open loop."""
    servers = field.only("deputy-dc", "deputy-keyless", "deputy-local-key", *TCP_PEERS)
    found = {server.name: {"p50": [], "p99": []} for server in servers}
    for i in range(s.p["rounds"]):
        s.progress(f"offered load, round {i + 1} of {s.p['rounds']}")
        for server in servers:
            _, summary = field.cost(server, None, rate=s.p["load_per_s"], arrivals="poisson",
                                    seed=i + 1, duration=f"{int(s.p['load_s'] * 1000)}ms")
            latency = summary["latency_us"]["handshake"]
            for p in ("p50", "p99"):
                found[server.name][p].append(latency[p])
    rows = [[name, spread_text(v["p50"], 1e-3, 2), spread_text(v["p99"], 1e-3, 2)]
            for name, v in found.items()]
    s.result.table(f"Full handshake P-256 at {s.p['load_per_s']} per second (Poisson), latency in"
                   " ms from when it was due", ["server", "p50", "p99"], rows)


def floor_of(s):
    summary = s.client()("floor", rounds=5, round_time="10ms" if s.size != "smoke" else "2ms",
                         only="handshake")
    return {row["name"]: row["median_us"] for row in summary["rows"]}


def plot_bars(s, floor, by_unit):
    """CPU per handshake of everybody beside the floor."""
    labels = sorted({name for costs in by_unit.values() for name in costs},
                    key=lambda n: (not n.startswith("deputy"), n))
    series = []
    for unit, costs in by_unit.items():
        series.append({"title": unit,
                       "values": [median(costs[n]) * 1e6 if n in costs else None for n in labels],
                       "low": [min(costs[n]) * 1e6 if n in costs else None for n in labels],
                       "high": [max(costs[n]) * 1e6 if n in costs else None for n in labels]})
        at = {"full, P-256": "handshake.p256", "full, RSA-2048": "handshake.rsa2048",
              "resumed": "handshake.resumed"}[unit]
        for key in ("values", "low", "high"):
            series[-1][key].append(floor.get(at))
    s.result.plots.append({"name": "cpu", "kind": "bars", "labels": [*labels, "floor"],
                           "title": "Server CPU per handshake, median with min and max",
                           "ylabel": "us", "series": series})


def run(s):
    origin = Origin(s.procs, core=s.client_core)
    floor = floor_of(s)
    field = Field(s, origin, "p256")
    idle(s, field)  # first: what a server freed after other work hides what connections cost
    by_unit = {"full, P-256": full_handshakes(s, field, s.p["full"], "P-256"),
               "resumed": resumed(s, field)}
    requests(s, field)
    gigabyte(s, field)
    offered(s, field)
    rsa = Field(s, origin, "rsa2048")
    by_unit["full, RSA-2048"] = full_handshakes(s, rsa, s.p["rsa"], "RSA-2048")
    s.result.note("deputy-keyless: the proxy's CPU alone; the signature is made in the key server"
                  " (study keyserver). RSA leaves never delegate.")
    rows = [[name, f"{us:.1f}"] for name, us in floor.items()]
    s.result.table("The floor: the same handshake in memory, us", ["what", "median"], rows)
    dc = by_unit["full, P-256"].get("deputy-dc")
    if dc and "handshake.p256_dc" in floor:
        s.result.note(f"Deputy's full handshake with DC is {median(dc) * 1e6 / floor['handshake.p256_dc']:.2f}"
                      " times the floor; the rest is sockets, epoll and the connection to the"
                      " origin.")
    plot_bars(s, floor, by_unit)
