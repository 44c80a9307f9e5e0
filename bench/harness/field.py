# SPDX-License-Identifier: Apache-2.0
"""Deputy and its peers with one kind of key, all running at once, each idle but when it
is its turn: what a unit of work costs each one's server, round by round."""

import time

from harness.base import BenchError
from harness.deputy import HOST, Deputy, Where
from harness.peers import PEERS, Peer
from harness.stats import median, ratio

TCP_PEERS = ("nginx-stream", "haproxy-tcp", "hitch")


class Server:
    """One competitor: where it listens, its processes, how its clients ask."""

    def __init__(self, name, process, address, dc="on"):
        self.name = name
        self.process = process
        self.address = address
        self.dc = dc


def spread_text(values, scale=1.0, digits=1):
    return (f"{median(values) * scale:.{digits}f} ({min(values) * scale:.{digits}f} to "
            f"{max(values) * scale:.{digits}f})")


class Field:
    """All competitors with one kind of key."""

    def __init__(self, s, origin, kind, name=None):
        self.s = s
        self.kind = kind
        self.origin = origin
        self.client = s.client()
        self.servers = []
        self.failed = []  # (name, why) of those that did not start
        deputy = Deputy(s.procs, s.programs, origin.address, proxy=Where(core=s.server_core),
                        keyserver=Where(core=s.client_core), kind=kind, name=name)
        deputy.start_keyserver()
        if deputy.can_delegate:
            deputy.start_issuer()
        proxy = deputy.start_proxy(f"proxy-{kind}", dc=deputy.can_delegate)
        address = deputy.address(f"proxy-{kind}")
        if deputy.can_delegate:
            self.servers.append(Server("deputy-dc", proxy, address))
        self.servers.append(Server("deputy-keyless", proxy, address, dc="off"))
        self.deputy = deputy
        if s.has("deputy-proxy-local-key"):
            local = deputy.start_proxy(f"local-{kind}", dc=False, local_key=True)
            self.servers.append(Server("deputy-local-key", local, deputy.address(f"local-{kind}")))
        for name in PEERS:
            try:
                peer = Peer(s.procs, name, deputy.leaves[0], origin.address, s.server_core)
                self.servers.append(Server(name, peer.process, peer.address))
            except BenchError as e:
                self.failed.append((name, str(e)))
                s.progress(f"{name} did not start")

    def stop(self):
        """Ends them all."""
        for server in self.servers:
            server.process.stop()
        for process in (self.deputy.issuer, self.deputy.keyserver):
            if process is not None:
                process.stop()

    def only(self, *names):
        return [server for server in self.servers if server.name in names]

    def cost(self, server, units, **options):
        """CPU seconds of the server for each unit, with what the client saw."""
        accepted = self.origin.accepted()
        before = server.process.cpu_s()
        summary = self.client("handshakes", target=server.address, server_name=HOST,
                              dc=server.dc, label=f"{server.name} {self.kind}", verify=100,
                              **options)
        cpu = server.process.cpu_s() - before
        self.s.result.count(summary)
        summary["origin_accepted"] = self.origin.accepted() - accepted - 1
        done = units if units else summary["counts"]["ok"]
        if summary["counts"]["ok"] == 0:
            raise BenchError(f"{server.name}: not one handshake went well: {summary['failures']}")
        return cpu / done, summary

    def rounds(self, what, servers, units=None, num=None, **options):
        """{name: [CPU seconds per unit of each round]}, and the last summaries. Another server
        begins in each round."""
        num = num or self.s.p["rounds"]
        costs = {server.name: [] for server in servers}
        summaries = {}
        for server in servers:  # warms caches, tickets, upstream connections; not counted
            self.cost(server, units, **{**options, **self.warm(options)})
        for i in range(num):
            self.s.progress(f"{what}, round {i + 1} of {num}")
            first = i % len(servers)
            for server in servers[first:] + servers[:first]:
                cost, summaries[server.name] = self.cost(server, units, **options)
                costs[server.name].append(cost)
        return costs, summaries

    def idle(self, server, num):
        """Bytes of proportional memory that each of `num` idle connections costs."""
        before = server.process.memory()
        holder = self.client.start(self.s.procs, f"hold-{server.name}", "handshakes",
                                   target=server.address, server_name=HOST, dc=server.dc,
                                   hold=num, concurrency=16)
        try:
            end = time.monotonic() + 30 + num / 200
            while "holding" not in holder.err_path.read_text() and holder.is_running():
                if time.monotonic() > end:
                    raise BenchError(f"{server.name}: idle connections did not open in time")
                time.sleep(0.02)
            time.sleep(0.3)  # what comes after the handshake: tickets, buffers given back
            return (server.process.memory() - before) / num
        finally:
            holder.stop()

    @staticmethod
    def warm(options):
        return {"count": max(1, min(options["count"], 100))}


def show(s, field, title, unit, costs, scale, digits=1, summaries=None):
    """A table of one unit's costs; each against the best of the peers, round by round."""
    peers = {n: v for n, v in costs.items() if n in PEERS}
    best = min(peers, key=lambda n: median(peers[n])) if peers else None
    rows = []
    for name, values in costs.items():
        against = "-"
        if best is not None:
            r = ratio(values, costs[best])
            against = f"{r['median']:.2f} ({r['min']:.2f} to {r['max']:.2f})"
        row = [name, spread_text(values, scale, digits), against]
        if summaries:
            row.append(summaries[name]["origin_accepted"])
        rows.append(row)
    rows += [[name, "failed: " + why.strip()[-300:], "-"] + (["-"] if summaries else [])
             for name, why in field.failed if not summaries or name in TCP_PEERS]
    columns = ["server", unit, f"ratio to {best or 'the best peer'}"]
    s.result.table(title, columns + (["connections to the origin"] if summaries else []), rows)
    return best


def three(values, scale=1.0):
    return median(values) * scale, min(values) * scale, max(values) * scale
