# SPDX-License-Identifier: Apache-2.0
"""proxy: what the data path of deputy-proxy costs against the best of its peers, against
BoringSSL in memory, and against itself with two workers. The targets of group proxy."""

import contextlib
import os

from harness.field import TCP_PEERS, Field, Server, show, three
from harness.origin import Origin
from harness.peers import PEERS
from harness.procs import children, stat_split
from harness.stats import bootstrap, median, ratio


def user_s(process):
    return sum(stat_split(pid)[0] for pid in children(process.pid))


def measure_ratio(s, name, ratios):
    """What a target is held against: the median, and how sure it is. The tables have the
    single rounds' spread."""
    s.result.measure(name, median(ratios), *bootstrap(median, ratios))


def against_best(s, name, costs, best, mine="deputy-dc"):
    measure_ratio(s, name, [a / b for a, b in zip(costs[mine], costs[best])])
    for server, values in costs.items():
        s.result.measure(f"{name.partition('_')[0]}.{server}", *three(values, 1e6))


def floor_us(s):
    """{name: us} of the handshake in memory, median of its own rounds."""
    summary = s.client()("floor", rounds=5, round_time="10ms" if s.size != "smoke" else "2ms",
                         only="handshake")
    return {row["name"]: row["median_us"] for row in summary["rows"]}


def full(s, field):
    """Full handshakes; the user-space share of those with DC is counted along the way."""
    servers = field.only("deputy-dc", "deputy-local-key", *TCP_PEERS)
    deputy = field.only("deputy-dc")[0]
    begin, cpu_begin = user_s(deputy.process), deputy.process.cpu_s()
    before = floor_us(s)["handshake.p256_dc"]
    costs, summaries = field.rounds("full handshakes", servers, count=s.p["full"], concurrency=16)
    user, cpu = user_s(deputy.process) - begin, deputy.process.cpu_s() - cpu_begin
    floors = (before, floor_us(s)["handshake.p256_dc"])
    best = show(s, field, "Server CPU per full handshake, P-256, TCP mode, origin connected",
                "us", costs, 1e6, summaries=summaries)
    against_best(s, "full_over_best", costs, best)
    share = user / max(cpu, 1e-9)
    per = median(costs["deputy-dc"]) * 1e6 * share
    found = sorted(per / us for us in floors)
    s.result.measure("user_over_memory", sum(found) / 2, found[0], found[1])
    s.result.table("Where the CPU of a full handshake with DC goes", ["what", "us"], [
        ["user space", f"{per:.1f}"],
        ["kernel: sockets, epoll", f"{median(costs['deputy-dc']) * 1e6 - per:.1f}"],
        ["the same handshake with BoringSSL in memory", " and ".join(f"{us:.1f}" for us in floors)]])
    s.result.note("targets: in brackets the 95 % interval of the median of the rounds; tables: the"
                  " smallest and the largest round.")
    s.result.note("user space and kernel are told apart by the kernel's ticks over all rounds.")


def against_local_key(s, field):
    """The difference is smaller than that between two rounds: many, and an interval of the
    median."""
    servers = field.only("deputy-dc", "deputy-local-key")
    if len(servers) < 2:
        return
    costs, _ = field.rounds("DC and local key", servers, num=s.p["pairs"], count=s.p["full"],
                            concurrency=16)
    ratios = [a / b for a, b in zip(costs["deputy-dc"], costs["deputy-local-key"])]
    measure_ratio(s, "full_dc_over_local", ratios)
    s.result.note(f"DC against local key: {len(ratios)} pairs of their own; single pairs gave"
                  f" {min(ratios):.3f} to {max(ratios):.3f}.")


def resumed(s, field):
    costs, summaries = field.rounds("resumed handshakes", field.only("deputy-dc", *TCP_PEERS),
                                    resume=True, tickets=4, count=s.p["resumed"], concurrency=16)
    best = show(s, field, "Server CPU per resumed handshake (psk_dhe_ke), TCP mode", "us", costs,
                1e6, summaries=summaries)
    against_best(s, "resumed_over_best", costs, best)


def requests(s, field):
    # With few connections a server is mostly waiting for its client, and what is measured is
    # falling asleep and waking up; the more there are, the more it finds to do at a time.
    for connections, name in ((64, "request_over_best"), (8, "request8_over_best")):
        each = max(1, s.p["requests"] // connections)
        costs, _ = field.rounds(f"small requests, {connections} connections",
                                field.only("deputy-dc", *PEERS), units=each * connections,
                                count=connections, concurrency=connections, requests=each,
                                path="/small")
        best = show(s, field, "Server CPU per small request (1 KB answer, keep-alive,"
                    f" {connections} connections)", "us", costs, 1e6)
        against_best(s, name, costs, best)


def gigabyte(s, field):
    servers = field.only("deputy-dc", *PEERS)
    size = s.p["gigabyte_mib"] << 20
    costs, _ = field.rounds("bulk", servers, units=size / 1e9, count=1, concurrency=1,
                            download=size, path="/bulk")
    best = show(s, field, "Server CPU per gigabyte (10^9 bytes) to the client", "ms", costs, 1e3)
    against_best(s, "gigabyte_over_best", costs, best)


def idle(s, origin):
    """Fresh servers each round: what one has freed after other work would hide the cost."""
    costs = {}
    for i in range(s.p["idle_rounds"]):
        s.progress(f"idle connections, round {i + 1} of {s.p['idle_rounds']}")
        field = Field(s, origin, "p256", name=f"idle{i}")
        for server in field.only("deputy-dc", *PEERS):
            costs.setdefault(server.name, []).append(field.idle(server, s.p["idle"]))
        field.stop()
    best = show(s, field, f"Proportional memory of each of {s.p['idle']} idle connections", "KiB",
                costs, 1 / 1024)
    r = ratio(costs["deputy-dc"], costs[best])
    s.result.measure("idle_over_best", r["median"], r["min"], r["max"])


@contextlib.contextmanager
def anywhere(deputy):
    """What is started meanwhile may run on each processor."""
    where = deputy.where["proxy"]
    core, where.core = where.core, None
    try:
        yield
    finally:
        where.core = core


def workers(s, field):
    """What two workers that are both busy pay for each other. The client runs on the same two
    processors, so that wall time would measure it instead: capacity is taken from CPU time."""
    if len(os.sched_getaffinity(0)) < 2:
        s.result.note("two workers: one processor only; nothing to show.")
        return
    deputy = field.deputy
    process = {}
    with anywhere(deputy):
        for num in (1, 2):
            process[num] = deputy.start_proxy(f"workers{num}", workers=num)
    servers = {num: Server(f"{num} worker{'s' * (num > 1)}", process[num],
                           deputy.address(f"workers{num}")) for num in (1, 2)}
    client = field.client
    field.client = s.client()
    field.client.core = None
    costs, _ = field.rounds("two workers", list(servers.values()), count=s.p["full"],
                            concurrency=32)
    field.client = client
    one, two = (costs[servers[num].name] for num in (1, 2))
    found = [2 * a / b for a, b in zip(one, two)]
    measure_ratio(s, "two_over_one", found)
    s.result.note(f"two workers against one: single rounds gave {min(found):.2f} to {max(found):.2f}.")
    rows = [[name, f"{median(v) * 1e6:.1f} ({min(v) * 1e6:.1f} to {max(v) * 1e6:.1f})"]
            for name, v in costs.items()]
    s.result.table("Server CPU per full handshake, both processors open to client and server",
                   ["server", "us"], rows)
    for num in (1, 2):
        process[num].stop()


def run(s):
    origin = Origin(s.procs, core=s.client_core)
    idle(s, origin)
    field = Field(s, origin, "p256")
    full(s, field)
    against_local_key(s, field)
    resumed(s, field)
    requests(s, field)
    gigabyte(s, field)
    workers(s, field)
