# SPDX-License-Identifier: Apache-2.0
"""endurance: does the proxy hold very many idle connections in little memory, and has it,
after a long time in which clients come and go in every way, the memory that it had after
the first minutes? Asked for by name alone, as in full it takes more than an hour."""

import contextlib
import os
import pathlib
import resource
import socket
import time

from harness.base import BenchError, wait_until
from harness.deputy import HOST, Deputy
from harness.origin import Origin
from harness.stats import median
from harness.study_keyserver import socket_memory

SPARE_FILES = 1000  # of a process, for what is not a connection
PROGRESS_S = 30


# --- idle connections ------------------------------------------------------------------


def files_limit():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1 << 30 if hard == resource.RLIM_INFINITY else hard


def available_bytes():
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def hold(s, proxy, index, num):
    """A client that has `num` connections to the proxy, from an address of its own."""
    holder = s.client().start(s.procs, f"hold{index}", "handshakes", bind=f"127.0.0.{10 + index}",
                              target=proxy.address("main"), server_name=HOST, dc="on", hold=num,
                              concurrency=16)
    wait_until(lambda: "holding" in holder.err_path.read_text() or holder.check(),
               f"{num} connections", 60 + num / 50)
    return holder


def idle(s):
    """As many proxies as the limit of open files makes necessary: each connection needs one
    descriptor for the client and one for the origin."""
    total = s.p["idle"]
    need_bytes = total * 40 * 1024  # with the kernel's part of four sockets
    if available_bytes() < need_bytes * 2:
        raise BenchError(f"{total} connections want {need_bytes * 2 >> 20} MiB of free memory")
    each = min(total, (files_limit() - SPARE_FILES) // 2)
    num = -(-total // each)
    each = -(-total // num)
    kernel = socket_memory()
    holders, proxies, rows = [], [], []
    deputy = None
    for i in range(num):
        # nginx closes what is idle once fewer than a sixteenth of its connections are free.
        origin = Origin(s.procs, core=s.client_core, name=f"origin{i}",
                        connections=each + each // 8 + 500)
        if deputy is None:
            deputy = Deputy(s.procs, s.programs, origin.address, name="deputy-idle")
            deputy.start_keyserver()
            deputy.start_issuer()
        deputy.origin = origin.address
        proxy = deputy.start_proxy(f"proxy{i}", limits={"idle": "1h", "drain": "100ms"})
        s.client()("handshakes", target=proxy.address("main"), server_name=HOST, count=8)
        proxies.append(proxy)
        before = proxy.memory()
        s.progress(f"idle connections, {i * each} of {total}")
        holders.append(hold(s, proxy, i, each))
        time.sleep(0.5)  # what the handshake needed is given back
        rows.append((proxy.memory() - before) / each / 1024)
    held = sum(deputy.metric("connections_open", proxy=f"proxy{i}") for i in range(num))
    refused = sum(deputy.metric("connections_refused_total", proxy=f"proxy{i}")
                  for i in range(num))
    s.result.note(f"idle connections: {int(refused)} were refused on the way.")
    for proxy in proxies:  # new ones are served beside them
        s.result.count(s.client()("handshakes", target=proxy.address("main"), server_name=HOST,
                                  count=20))
    s.result.measure("idle.kib", median(rows), min(rows), max(rows))
    s.result.measure("idle.held", held, held, held)
    s.result.table("Idle TLS connections, all at once", [
        "held", "processes", "proportional set size for each, KiB", "TCP buffers for each, KiB"],
        [[int(held), num, f"{median(rows):.2f} ({min(rows):.2f} to {max(rows):.2f})",
          f"{(socket_memory() - kernel) / total / 1024:.1f}"]])
    if num > 1:
        s.result.note(f"{num} proxies share the connections: the limit of open files is"
                      f" {files_limit()}, and each connection takes two.")
    for process in [*holders, *proxies]:
        process.stop(20)


# --- coming and going -------------------------------------------------------------------


def rude(address, name, num):
    """Clients that do not know, or want, how it is done."""
    host, _, port = address.rpartition(":")
    parts = [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.0\r\n\r\n", os.urandom(600),
             b"\x16\x03\x01\xff\xff" + bytes(100), b"\x15\x03\x01\x00\x02\x02\x28"]
    for i in range(num):
        with contextlib.suppress(OSError):
            with socket.create_connection((host, int(port)), timeout=5) as sock:
                sock.sendall(parts[i % len(parts)])
                if i % 2:
                    sock.settimeout(0.02)
                    sock.recv(100)


def ways(count):
    """How clients come and leave: options of deputy-bench handshakes."""
    crowd = {"count": count, "concurrency": 16}
    return {
        "full": crowd,
        "keyless": {**crowd, "dc": "off"},
        "resumed": {**crowd, "resume": True, "prime_request": True, "path": "/small"},
        "requests": {**crowd, "requests": 3, "path": "/small"},
        "reset": {**crowd, "close": "reset"},
        "reset with bytes under way": {**crowd, "close": "reset", "download": 65536,
                                       "path": "/bulk"},
        "crowd": {"count": 2 * count, "concurrency": count // 2},
    }


def churn(s):
    origin = Origin(s.procs, core=s.client_core)
    deputy = Deputy(s.procs, s.programs, origin.address, name="deputy-churn")
    deputy.start_keyserver()
    deputy.start_issuer()
    proxy = deputy.start_proxy(limits={"handshake": "5s", "linger": "200ms", "drain": "100ms"})
    target = proxy.address("main")
    begin = shown = time.monotonic()
    samples = []
    num_cycles = 0
    while time.monotonic() - begin < s.p["churn_s"] or not samples:
        for how in ways(s.p["count"]).values():
            s.result.count(s.client()("handshakes", target=target, server_name=HOST, **how))
        rude(target, HOST, s.p["count"] // 2)
        num_cycles += 1
        wait_until(lambda: deputy.metric("connections_open") == 0, "the connections to end", 30)
        samples.append((time.monotonic() - begin, proxy.memory() / 1024))
        if time.monotonic() - shown > PROGRESS_S:
            shown = time.monotonic()
            s.progress(f"churn, {int(shown - begin)} of {s.p['churn_s']} s: "
                       f"{samples[-1][1]:.0f} KiB")
    early = [kib for at, kib in samples if at <= max(s.p["settle_s"], samples[0][0])]
    late = [kib for at, kib in samples if at >= samples[-1][0] * 0.9]
    growth = median(late) - median(early)
    accepted = deputy.metric("connections_accepted_total")
    late_ones = deputy.metric("handshakes_failed_total", reason="timeout")
    s.result.note(f"{int(late_ones)} handshakes were given up by the proxy for their deadline (5 s).")
    s.result.measure("churn.growth_kib", growth, min(late) - max(early), max(late) - min(early))
    s.result.table("Memory of the proxy while clients come and go, KiB (proportional set size)", [
        "seconds", "cycles", "connections", "first minutes", "last tenth", "growth"],
        [[int(samples[-1][0]), num_cycles, int(accepted), f"{median(early):.0f}",
          f"{median(late):.0f}", f"{growth:.0f}"]])
    s.result.plots.append({"name": "churn", "kind": "lines", "title": "Memory during churn",
                           "xlabel": "s", "ylabel": "KiB", "series": [
                               {"title": "proportional set size", "points": samples}]})
    proxy.stop()


def run(s):
    idle(s)
    churn(s)
