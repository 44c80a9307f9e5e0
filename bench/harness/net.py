# SPDX-License-Identifier: Apache-2.0
"""Distance between client, proxy and key server.

    client --- proxy --- key server          each in a network namespace of its own

Three ways, the best that this machine allows: netem; NFQUEUE with deputy-netdelay;
none (loopback alone, when there are no rights for namespaces). Each link delays what
comes in at either end by half of its round trip, which the time to a refused connection then shows.
"""

import contextlib
import os
import subprocess
import sys

from harness.base import BenchError, wait_until, which
from harness.deputy import Where
from harness.procs import checked, run

ROLES = ("client", "proxy", "keyserver")
# link: (one end, address), (other end, address)
LINKS = {
    "access": (("client", "10.77.1.1"), ("proxy", "10.77.1.2")),
    "key": (("proxy", "10.77.2.1"), ("keyserver", "10.77.2.2")),
}


class Loopback:
    """No distance at all."""

    method = "none: everything on loopback"

    def __init__(self, cores):
        self.where = {role: Where("127.0.0.1", (), cores[role]) for role in ROLES}

    def set_round_trip(self, link, ms):
        if ms:
            raise BenchError("loopback has no distance")

    def measure(self, link, count=5):
        return measure_round_trip((), "127.0.0.1", count)

    def close(self):
        pass


# A connect to a port that nobody serves ends with the RST, one round trip later.
PROBE = """
import socket, sys, time
for _ in range(int(sys.argv[2])):
    with socket.socket() as s:
        begin = time.perf_counter()
        s.connect_ex((sys.argv[1], 9))
        print((time.perf_counter() - begin) * 1000)
"""


def measure_round_trip(prefix, host, count):
    """{"min", "median", "max"} of round trips in ms."""
    done = checked([sys.executable, "-c", PROBE, host, count], prefix=prefix)
    times = sorted(float(line) for line in done.stdout.split())
    return {"min": times[0], "median": times[len(times) // 2], "max": times[-1]}


class Namespaces:
    """Namespaces of this process, named after it; `close` removes them."""

    def __init__(self, procs, cores, netdelay=None):
        self.procs = procs
        self.prefix = f"deputy-bench-{os.getpid()}"
        self.names = {role: f"{self.prefix}-{role}" for role in ROLES}
        self.delayers = {}
        self.round_trips = dict.fromkeys(LINKS, 0)
        self.cores = cores
        self.netdelay = netdelay
        # A link's address belongs to the part that the others talk to.
        hosts = {"client": "10.77.1.1", "proxy": "10.77.1.2", "keyserver": "10.77.2.2"}
        self.where = {role: Where(hosts[role], self.inside(role), cores[role]) for role in ROLES}
        try:
            self.build()
        except BaseException:
            self.close()
            raise

    def inside(self, role):
        return ("ip", "netns", "exec", self.names[role])

    def ip(self, role, *args):
        checked(["ip", "-n", self.names[role], *args])

    def build(self):
        for role in ROLES:
            checked(["ip", "netns", "add", self.names[role]])
            self.ip(role, "link", "set", "lo", "up")
        for link, ends in LINKS.items():
            (a, a_host), (b, b_host) = ends
            checked(["ip", "link", "add", f"{link}0", "netns", self.names[a], "type", "veth",
                     "peer", "name", f"{link}1", "netns", self.names[b]])
            for i, (role, host) in enumerate(((a, a_host), (b, b_host))):
                self.ip(role, "addr", "add", f"{host}/24", "dev", f"{link}{i}")
                self.ip(role, "link", "set", f"{link}{i}", "up")
        self.method = "netem" if self.try_netem() else self.start_netdelay()

    # --- netem ---

    def try_netem(self):
        done = run(["tc", "-n", self.names["client"], "qdisc", "add", "dev", "access0", "root",
                    "netem", "delay", "0ms", "limit", "100000"])
        return done.returncode == 0

    def set_netem(self, link, ms):
        for i, (role, _) in enumerate(LINKS[link]):
            checked(["tc", "-n", self.names[role], "qdisc", "replace", "dev", f"{link}{i}", "root",
                     "netem", "delay", f"{ms / 2}ms", "limit", "100000"])

    # --- NFQUEUE ---

    def queue_of(self, link):
        return list(LINKS).index(link) + 1

    def start_netdelay(self):
        if self.netdelay is None or not os.path.exists(self.netdelay):
            raise BenchError("this kernel has no netem, and deputy-netdelay was not built"
                             " (libnetfilter-queue-dev is missing)")
        if which("iptables") is None:
            raise BenchError("this kernel has no netem, and iptables is missing")
        for role in ROLES:
            queues = [f"{self.queue_of(link)}:0" for link, ends in LINKS.items()
                      if role in (ends[0][0], ends[1][0])]
            process = self.procs.start(f"netdelay-{role}", [self.netdelay, *queues],
                                       prefix=self.inside(role), stdin=subprocess.PIPE)

            def is_up(process=process):
                process.check()
                return "ready" in process.out_path.read_text()

            wait_until(is_up, "deputy-netdelay")
            self.delayers[role] = process
        return "NFQUEUE at each receiver, held by deputy-netdelay (this kernel has no netem)"

    def set_queue(self, link, ms):
        was = self.round_trips[link]
        queue = self.queue_of(link)
        for i, (role, _) in enumerate(LINKS[link]):
            rule = ["PREROUTING", "-i", f"{link}{i}", "-j", "NFQUEUE", "--queue-num", str(queue)]
            if was == 0 and ms > 0:
                checked(["iptables", "-w", "-t", "mangle", "-A", *rule], prefix=self.inside(role))
            process = self.delayers[role]
            answers = process.out_path.read_text().count("\n")
            process.popen.stdin.write(f"{queue} {int(ms * 500)}\n".encode())
            process.popen.stdin.flush()
            wait_until(lambda p=process, n=answers: p.out_path.read_text().count("\n") > n,
                       "deputy-netdelay's answer")
            if was > 0 and ms == 0:
                # No queue at all is nearer to no distance than a queue without delay.
                checked(["iptables", "-w", "-t", "mangle", "-D", *rule], prefix=self.inside(role))

    # --- both ---

    def set_round_trip(self, link, ms):
        if ms != self.round_trips[link]:
            (self.set_netem if self.method == "netem" else self.set_queue)(link, ms)
            self.round_trips[link] = ms

    def measure(self, link, count=10):
        (near, _), (_, far_host) = LINKS[link]
        return measure_round_trip(self.inside(near), far_host, count)

    def close(self):
        for process in self.delayers.values():
            with contextlib.suppress(OSError):
                process.popen.stdin.close()
        for name in self.names.values():
            run(["ip", "netns", "del", name])


def make(procs, cores, netdelay, progress):
    """The network of a study, and why it is not a better one (or None)."""
    if which("ip") is None:
        return Loopback(cores), "the program ip is missing"
    try:
        return Namespaces(procs, cores, netdelay), None
    except BenchError as e:
        progress(f"no distance: {str(e).strip().splitlines()[-1]}")
        return Loopback(cores), str(e)
