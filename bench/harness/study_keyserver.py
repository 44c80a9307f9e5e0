# SPDX-License-Identifier: Apache-2.0
"""keyserver: what a signature costs the key server, asked over mutual TLS with the whole
message, each authorised and audited; how long it takes; what an idle connection keeps; what
a second worker brings. bench/README.md says how each is measured."""

import json
import os
import pathlib
import resource
import time
import urllib.request
from datetime import datetime

from harness.base import BenchError, wait_until
from harness.deputy import Deputy, Where
from harness.servers import free_port
from harness.stats import median

KINDS = {"p256": "P-256", "rsa2048": "RSA-2048"}
SPARE_FILES = 500  # descriptors of a server beside its clients'


def spread_text(values, digits=1):
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def measure(s, name, values):
    s.result.measure(name, median(values), min(values), max(values))


class Server:
    """A key server, and deputy-bench as its client."""

    def __init__(self, s, name, kind="p256", core=None, workers=1, prefix=(), **more):
        self.s = s
        self.deputy = Deputy(s.procs, s.programs, "127.0.0.1:9", name=name, kind=kind,
                             keyserver=Where(core=core, prefix=prefix))
        self.leaf = self.deputy.leaves[0].cert
        self.workers = workers
        self.more = more
        self.audit = self.deputy.folder / "keyserver.audit"
        self.asked = 0

    def start(self, clients=()):
        self.deputy.start_keyserver(workers=self.workers, clients=clients, **self.more)
        return self

    @property
    def process(self):
        return self.deputy.keyserver

    def options(self, part="proxy", leaf=None, **options):
        identity = self.deputy.identity(part)
        if not options.get("ping") and not options.get("hold"):
            options["sign_certificate"] = leaf or self.leaf
        return {"target": self.deputy.keyserver_address, "host": "keyserver.parts", **identity,
                **options}

    def ask(self, **options):
        """The summary of a run in which nothing may fail."""
        options = {"verify": 200, "server_pid": self.process.pid, **self.options(**options)}
        summary = self.s.client()("keyserver", **options)
        self.s.result.count(summary)
        if summary["counts"]["ok"] == 0:
            raise BenchError(f"no answer: {summary['failures']}")
        if not options.get("ping"):
            self.asked += summary["counts"]["ok"] + summary["counts"]["warmup"]
        return summary

    def stop(self):
        """Ends it, and holds its audit against what was asked."""
        self.process.stop()  # writes what is left of the audit
        with open(self.audit, "rb") as f:
            lines = sum(block.count(b"\n") for block in iter(lambda: f.read(1 << 20), b""))
        if lines < self.asked:
            self.s.result.failed += self.asked - lines
        return lines


# --- CPU time ------------------------------------------------------------------------


def bare_us(s, kind):
    """The bare signature's CPU time, on the server's processor."""
    client = s.client()
    client.core = s.server_core
    ms = 2 if s.size == "smoke" else 60
    rows = client("floor", rounds=1, round_time=f"{ms}ms", only=f"{kind}.sign")["rows"]
    return rows[0]["median_us"]


def costs(s, kind):
    """Rounds of every shape, a bare signature before and after each; the capacity in the
    shape of many connections with one request each."""
    server = Server(s, f"cost-{kind}", kind=kind, core=s.server_core).start()
    shapes = [(*shape, poll) for shape in s.p["shapes"]
              for poll in ((True, False) if shape == [1, 1] else (False,))]
    per_s = {shape: [] for shape in shapes}
    of_bare = {shape: [] for shape in shapes}
    bare = []
    for i in range(s.p["rounds"] + 1):
        s.progress(f"{KINDS[kind]}, round {i} of {s.p['rounds']}" if i
                   else f"{KINDS[kind]}, warming up")
        before = bare_us(s, kind)
        for shape in shapes:
            connections, window, poll = shape
            count = s.p[kind] if i else max(10, s.p[kind] // 10)
            if connections * window == 1:
                count = max(10, count // 4)  # the wait is the wire's, not the processor's
            # Measuring begins with the first request: the handshakes are over by then.
            summary = server.ask(connections=connections, window=window, count=count,
                                 poll=poll, label=f"{KINDS[kind]} {shape}")
            after = bare_us(s, kind)
            if i:
                value = summary["server_cpu"]["ok_per_cpu_s"]
                per_s[shape].append(value)
                of_bare[shape].append(value * (before + after) / 2 / 1e6)
                bare.append(after)
            before = after
    lines = server.stop()
    s.result.note(f"{KINDS[kind]}: {server.asked} signatures, {lines} audit lines; the bare"
                  f" operation took {spread_text(bare)} us.")
    return per_s, of_bare


def tell_costs(s, found):
    rows = []
    for kind, (per_s, of_bare) in found.items():
        for shape, values in per_s.items():
            connections, window, poll = shape
            rows.append([KINDS[kind], connections, window, "polls" if poll else "sleeps",
                         spread_text(values, 0), f"{1e6 / median(values):.1f}",
                         spread_text(of_bare[shape], 3)])
            name = f"{kind}.{connections}x{window}{'.polled' if poll else ''}"
            measure(s, f"{name}.per_cpu_s", values)
        pipelined = [shape for shape in per_s if shape[1] > 1]
        worst = min(pipelined, key=lambda shape: median(per_s[shape]))
        measure(s, f"{kind}.pipelined.per_cpu_s", per_s[worst])
        measure(s, f"{kind}.pipelined.of_bare", of_bare[worst])
    s.result.table("Signatures per CPU second of one worker, authorised and audited",
                   ["key", "connections", "in flight on each", "client", "signatures per CPU second",
                    "us of CPU each", "of the bare operation's rate"], rows)


# --- latency -------------------------------------------------------------------------


def quantiles(summary):
    latency = summary["latency_us"]["request"]
    return latency["p50"], latency["p99"]


def load(s, rate, round_number, **more):
    return {"rate": rate, "arrivals": "poisson", "seed": round_number + 1,
            "connections": s.p["latency_connections"], "warmup": s.p["latency_connections"],
            "duration": f"{int(s.p['latency_s'] * 1000)}ms", **more}


def added_latency(s, capacity):
    """The same arrivals as pings and as signatures, turn by turn."""
    rate = round(capacity / 2)
    found = {"ping": [], "signature": []}
    with s.wall_time_part():
        server = Server(s, "latency", core=s.server_core).start()
        for i in range(s.p["rounds"]):
            s.progress(f"latency at half load, round {i + 1} of {s.p['rounds']}")
            for what in found:
                options = load(s, rate, i, label=what, **({"ping": True} if what == "ping" else {}))
                found[what].append(quantiles(server.ask(**options)))
        server.stop()
    rows = []
    for at, name in enumerate(("p50", "p99")):
        pings, signatures = ([q[at] for q in found[w]] for w in ("ping", "signature"))
        added = [b - a for a, b in zip(pings, signatures)]
        rows.append([name, spread_text(pings), spread_text(signatures), spread_text(added)])
        measure(s, f"added.{name}_us", added)
    s.result.table(f"P-256 at half load ({rate} per second, Poisson, over"
                   f" {s.p['latency_connections']} connections), us from when each was due",
                   ["", "ping: the wire's round trip", "signature", "added"], rows)


def gauge(address, name, lane):
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        for line in response.read().decode().splitlines():
            if line.startswith(f'deputy_keyserver_{name}{{lane="{lane}"'):
                return float(line.rpartition(" ")[2])
    return 0.0


def beside_slow(s, capacity):
    """P-256 while the queue of RSA-4096 is kept full, against the same without."""
    rate = max(10, round(capacity * s.p["slow_load"]))
    metrics = f"127.0.0.1:{free_port()}"
    # Never SCHED_RR: signer threads give way by their nice value, which that does not know.
    plain = ("chrt", "-o", "0") if s.may_raise else ()
    usual, beside, queued, done = [], [], [], []
    with s.wall_time_part():
        server = Server(s, "slow", core=s.server_core, prefix=plain,
                        metrics={"listen": metrics})
        big = server.deputy.cas[0].issue("big", ["DNS:big.test"], kind="rsa4096",
                                         key=server.deputy.keys / "big.key").cert
        server.start(clients=("slow",))
        for i in range(s.p["rounds"]):
            s.progress(f"beside {s.p['slow_queue']} RSA-4096, round {i + 1} of {s.p['rounds']}")
            usual.append(quantiles(server.ask(**load(s, rate, i)))[1])
            other = s.client().start(s.procs, "slow-client", "keyserver", **server.options(
                part="slow", leaf=big, window=s.p["slow_queue"], duration="60s", timeout="30s"))
            want = s.p["slow_queue"] * 0.7
            wait_until(lambda: gauge(metrics, "slow_queued", "rsa") >= want, "RSA-4096 to queue")
            before = gauge(metrics, "slow_done_total", "rsa")
            begin = time.monotonic()
            beside.append(quantiles(server.ask(**load(s, rate, i)))[1])
            queued.append(gauge(metrics, "slow_queued", "rsa"))
            done.append((gauge(metrics, "slow_done_total", "rsa") - before)
                        / (time.monotonic() - begin))
            other.stop()
            wait_until(lambda: gauge(metrics, "slow_queued", "rsa") == 0, "the queue's end")
        server.process.stop()
    ratios = [b / a for a, b in zip(usual, beside)]
    measure(s, "beside_rsa4096.p99_ratio", ratios)
    s.result.table(f"p99 of P-256 ({rate} per second), us, while {s.p['slow_queue']} RSA-4096"
                   " signatures are kept waiting, worker and signers on one processor",
                   ["usual", "beside RSA-4096", "ratio", "waiting at the end", "RSA-4096 per s"],
                   [[spread_text(usual), spread_text(beside), spread_text(ratios, 2),
                     spread_text(queued, 0), spread_text(done, 0)]])


# --- idle connections ----------------------------------------------------------------


def socket_memory():
    """Bytes that the kernel's TCP buffers take now, of all processes."""
    for line in pathlib.Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            words = line.split()
            return int(words[words.index("mem") + 1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def idle(s):
    """Batches of connections of one client key each; the growth by each batch."""
    batch = s.p["idle_batch"]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = s.p["idle"]
    if limit not in (-1, resource.RLIM_INFINITY) and wanted > limit - SPARE_FILES:
        wanted = limit - SPARE_FILES
        s.result.note(f"idle connections: {wanted}, not {s.p['idle']}: the limit of open files"
                      f" is {limit}.")
    parts = [f"idle{i}" for i in range(max(1, wanted // batch))]
    server = Server(s, "idle", core=s.server_core, limits={"idle_timeout": "10m",
                                                           "handshake_timeout": "60s"})
    server.start(clients=parts)
    server.ask(connections=4, window=1, count=8)  # what is set up once
    kernel = socket_memory()
    first = last = server.process.memory()
    each, holders = [], []
    for part in parts:
        s.progress(f"idle connections, {len(each) * batch} of {wanted}")
        holder = s.client().start(s.procs, f"hold-{part}", "keyserver", timeout="60s",
                                  connections=batch, **server.options(part=part, hold=True))
        holders.append(holder)
        wait_until(lambda: "holding" in holder.err_path.read_text() or holder.check(),
                   f"{batch} connections", 90)
        time.sleep(0.3)  # what the handshake needed is given back
        now = server.process.memory()
        each.append((now - last) / batch / 1024)
        last = now
    server.ask(connections=4, window=1, count=8)  # it still answers
    total = len(parts) * batch
    kernel = (socket_memory() - kernel) / total / 1024
    mean = (last - first) / total / 1024
    s.result.measure("idle.kib", mean, min(each), max(each))
    s.result.table("Memory of the key server per idle connection, KiB",
                   ["connections", "client keys", "proportional set size", "by batches"],
                   [[total, len(parts), f"{mean:.1f}", spread_text(each)]])
    s.result.note("Idle connections: growth of the proportional set size. What the kernel keeps"
                  " of each socket, file and epoll entry is not in it; the bytes that TCP buffers"
                  f" grew by {kernel:.1f} KiB for each.")
    for holder in holders:
        holder.stop()
    server.stop()


# --- workers -------------------------------------------------------------------------


def audit_times(path, begin):
    """Seconds of the signatures in the audit from byte `begin` on."""
    with open(path, "rb") as f:
        f.seek(begin)
        texts = [json.loads(line)["time"] for line in f.read().splitlines()]
    return sorted(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
                  for text in texts)


def burst(s, server):
    """(signatures per second, per CPU second) of a burst that the server works off alone."""
    connections, window = s.p["burst"]
    num = connections * window
    begin = server.audit.stat().st_size
    alone_ms = max(100, int(num / 15))  # longer than one worker needs
    summary = server.ask(connections=connections, window=window, count=num,
                         burst=f"{alone_ms}ms", verify=0)
    wait_until(lambda: server.audit.read_bytes()[begin:].count(b"\n") >= num, "the audit", 10)
    times = audit_times(server.audit, begin)
    # While all workers are at it: the kernel spreads connections unevenly, and one ends first.
    first, last = num // 20, num // 2
    return ((last - first) / max(1e-6, times[last] - times[first]),
            summary["server_cpu"]["ok_per_cpu_s"])


def workers(s):
    num_cores = len(os.sched_getaffinity(0))
    if num_cores < 2:
        s.result.note("two workers: one processor only; nothing to show.")
        return
    found = [[], []]
    # The audit's buffer holds a whole burst: its thread may have to wait for a processor.
    with s.wall_time_part():
        servers = [Server(s, f"workers{n}", workers=n).start() for n in (1, 2)]
        for i in range(s.p["workers_rounds"] + 1):
            s.progress(f"two workers, round {i} of {s.p['workers_rounds']}")
            for server, values in zip(servers, found):
                value = burst(s, server)
                if i:
                    values.append(value)
        for server in servers:
            server.stop()
    tell_workers(s, found, num_cores)


def tell_workers(s, found, num_cores):
    rows, ratios = [], []
    for at, what in enumerate(("per second, alone", "per CPU second")):
        one, two = ([v[at] for v in values] for values in found)
        ratio = [b / a for a, b in zip(one, two)]
        ratios.append(ratio)
        rows.append([what, spread_text(one, 0), spread_text(two, 0), spread_text(ratio, 2)])
    measure(s, "workers.two_over_one", ratios[0])
    measure(s, "workers.cpu_of_two_over_one", ratios[1])
    s.result.table("P-256 signatures of a burst, one worker and two",
                   ["", "one worker", "two workers", "two over one"], rows)
    s.result.note(f"Two workers: {num_cores} processors, servers not pinned; the requests were"
                  " sent while the server was stopped, and the client slept until they were"
                  " answered, so both processors were the workers'; times are those of the audit"
                  " lines, from the first twentieth to the half.")


def run(s):
    idle(s)  # before anything else fills the memory that it would need
    found = {kind: costs(s, kind) for kind in KINDS}
    tell_costs(s, found)
    single = [shape for shape in found["p256"][0] if shape[1] == 1 and shape[0] > 1][0]
    capacity = median(found["p256"][0][single])
    added_latency(s, capacity)
    beside_slow(s, capacity)
    workers(s)
