# SPDX-License-Identifier: Apache-2.0
"""Several key servers: the nearest that has the key is asked, one that hangs, dies, drains or
grows slow costs no handshake, and a slow one is not asked twice by everybody."""

import asyncio
import concurrent.futures
import contextlib
import signal
import statistics
import threading
import time

import pytest

from support.keyserver import KeyServer
from support.procs import SLOW, split_address, wait_until
from support.stack import Stack

ATTEMPT_S = 1.5 * SLOW
FLOOR_S = 0.1 * SLOW  # below this a loaded machine is not held to anything


class Distance:
    """A TCP relay that takes its time: half of delay_s each way."""

    def __init__(self, address, delay_s=0.0):
        self.target = address
        self.delay_s = delay_s
        self.loop = asyncio.new_event_loop()
        self.tasks = set()
        started = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self.thread.start()
        started.wait()

    def _run(self, started):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(
            asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.address = server.sockets[0].getsockname()
        started.set()
        self.loop.run_forever()

    async def _accept(self, reader, writer):
        try:
            far = await asyncio.open_connection(*self.target)
        except OSError:
            writer.close()
            return
        for pair in ((reader, far[1]), (far[0], writer)):
            task = self.loop.create_task(self._pump(*pair))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _pump(self, reader, writer):
        due = 0.0
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                due = max(due, self.loop.time() + self.delay_s / 2)  # in order
                self.loop.call_at(due, writer.write, data)
        self.loop.call_at(max(due, self.loop.time()), writer.close)

    async def _end(self):
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def stop(self):
        asyncio.run_coroutine_threadsafe(self._end(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Servers:
    """A proxy and two key servers with one identity, the same clients and, unless a test
    wants otherwise, the same keys."""

    def __init__(self, procs, pki):
        self.stack = Stack(procs, pki, issuer=False)
        self.first = self.stack.keyserver
        self.second = KeyServer(procs, pki, name="second")
        for key in ("tls", "key_folders", "clients"):
            self.second.config[key] = self.first.config[key]
        self.relays = []

    def start(self, far_s=None, **options):
        """Starts all. far_s: who is how much farther away than the machine makes it, as
        {index: seconds}; else nobody can say which of them is the nearer."""
        stack = self.stack
        for server in (self.first, self.second):
            server.start()
            # One that comes back is where it was.
            server.config["listen"] = ["%s:%d" % server.address]
        self.addresses = ["%s:%d" % s.address for s in (self.first, self.second)]
        for i, delay_s in (far_s or {}).items():
            self.relays.append(Distance((self.first, self.second)[i].address, delay_s))
            self.addresses[i] = "%s:%d" % self.relays[-1].address
        config = stack.proxy.config
        config["workers"] = 1
        config["key_servers"] = {
            "servers": [{"address": a, "name": "localhost"} for a in self.addresses],
            "deadline": f"{int(3000 * SLOW)}ms", "attempt_timeout": f"{int(ATTEMPT_S * 1000)}ms",
            "ping_interval": "200ms",
            "tls": stack.pki.tls(self.first.ca, self.first.client("proxy")), **options}
        config["origin"]["address"] = stack.origin.address
        stack.proxy.start()
        for i in range(2):
            wait_until(lambda i=i: self.metric("distance_seconds", i) > 0, "its distance")
        self.context = stack.context()
        return self

    def stop(self):
        for relay in self.relays:
            relay.stop()
        self.stack.stop()

    def metric(self, name, i, **labels):
        return self.stack.proxy.metric(f"key_server_{name}", server=self.addresses[i], **labels)

    def sent(self, i):
        return self.metric("sent_total", i)

    def handshake(self, host="demo.test"):
        """How long one took; it must not fail."""
        began = time.monotonic()
        self.stack.connect(host, context=self.context).close()
        return time.monotonic() - began

    def handshakes(self, num):
        return [self.handshake() for _ in range(num)]

    def during(self, what, clients=3):
        """Runs `what` while several clients make handshakes, none of which may fail. Returns
        what it returned and how long the handshakes took."""
        stop = threading.Event()

        def client():
            times = []
            while not stop.is_set():
                times.append(self.handshake())
            return times

        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            futures = [pool.submit(client) for _ in range(clients)]
            try:
                result = what()
            finally:
                stop.set()
            times = [t for future in futures for t in future.result()]
        assert self.stack.proxy.metric("handshakes_failed_total") == 0
        return result, times

    def is_avoided(self, i):
        return self.metric("breaker", i, state="closed") == 0


@pytest.fixture
def servers(procs, pki):
    servers = Servers(procs, pki)
    yield servers
    servers.stop()


def p99(times):
    return statistics.quantiles(times, n=100)[98]


# --- one that hangs ----------------------------------------------------------------------


def test_one_that_hangs_is_avoided_and_used_again(servers):
    servers.start(attempt_timeout=f"{int(400 * SLOW)}ms")
    healthy = servers.handshakes(200 // SLOW)
    # One of them is nearer, if only by the moods of a loaded machine: that one is to hang.
    nearer = 0 if servers.sent(0) >= servers.sent(1) else 1
    process = (servers.first, servers.second)[nearer].process
    process.freeze()
    try:
        # These may take as long as an attempt, and a copy at the second cures most.
        noticing = []
        wait_until(lambda: noticing.append(servers.handshake()) or servers.is_avoided(nearer),
                   "the breaker to open", 20)
        assert max(noticing) < 3 * SLOW
        assert statistics.median(noticing) < max(2 * p99(healthy), FLOOR_S)
        without = servers.handshakes(200 // SLOW)
        assert p99(without) < max(2 * p99(healthy), FLOOR_S)
        assert servers.stack.proxy.metric("handshakes_failed_total") == 0
        status = servers.stack.proxy.ctl("status").stdout
        row = next(line for line in status.splitlines() if line.startswith(servers.addresses[nearer]))
        assert "avoided" in row or "down" in row, status
    finally:
        process.thaw()
    wait_until(lambda: not servers.is_avoided(nearer), "the breaker to close", 20)
    before = servers.metric("answered_total", nearer)
    wait_until(lambda: servers.handshake() and servers.metric("answered_total", nearer) > before,
               "it to be asked again")
    assert servers.metric("breaker_openings_total", nearer) >= 1
    assert servers.metric("failures_total", nearer, reason="timeout") >= 1
    assert servers.stack.proxy.metric("handshakes_failed_total") == 0


# --- distance ----------------------------------------------------------------------------


def test_the_nearer_is_asked_whatever_the_order(servers):
    # On a loaded machine a moment's pause of the nearer sends one or the other elsewhere.
    servers.start(far_s={0: 0.05}, hedge_budget=0)
    assert servers.metric("distance_seconds", 0) > 0.04
    servers.handshakes(20)
    assert servers.sent(1) >= 15
    # The farther one serves while the nearer is away ...
    servers.second.process.stop()
    wait_until(lambda: servers.metric("up", 1) == 0, "its end to be noticed")
    far = servers.sent(0)
    times = servers.handshakes(10)
    assert min(times) > 0.04
    assert servers.sent(0) >= far + 10
    # ... and not longer.
    servers.second.start()
    wait_until(lambda: servers.metric("up", 1) == 1 and not servers.is_avoided(1),
               "it to be back")
    near = servers.sent(1)
    servers.handshakes(20)
    assert servers.sent(1) >= near + 15
    assert servers.stack.proxy.metric("handshakes_failed_total") == 0


def test_one_that_moves_away_is_left_for_the_other(servers):
    # Which one is nearer at first is not said: the relay's own time is the machine's mood.
    servers.start(far_s={0: 0}, hedge_budget=0)
    servers.handshakes(10)
    servers.relays[0].delay_s = 0.05
    before = servers.metric("distance_seconds", 0)
    wait_until(lambda: servers.handshake() and servers.metric("distance_seconds", 0) >
               before + 0.04, "the distance to be measured", 20)
    near = servers.sent(1)
    servers.handshakes(20)
    assert servers.sent(1) >= near + 15


# --- ends ----------------------------------------------------------------------------------


def test_one_is_killed_in_the_middle_of_requests(servers):
    # No ping meanwhile: one that is not answered would send the requests to the other.
    servers.start(far_s={1: 0.05}, hedge_budget=0, ping_interval="20s",
                  attempt_timeout=f"{int(2500 * SLOW)}ms")
    servers.handshakes(30)
    servers.first.process.freeze()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(servers.handshake) for _ in range(3)]
        wait_until(lambda: servers.metric("in_flight", 0) >= 1, "a request to be under way")
        servers.first.process.kill()
        times = [future.result() for future in futures]
    assert max(times) < 2 * SLOW  # at once, not after the attempt's time
    wait_until(lambda: servers.metric("up", 0) == 0, "its end to be noticed")
    servers.handshakes(10)
    assert servers.stack.proxy.metric("handshakes_failed_total") == 0


def test_one_is_drained_under_load(servers):
    servers.start()
    servers.handshakes(10)

    def drain():
        before = servers.metric("answered_total", 1)
        began = time.monotonic()
        servers.first.process.signal(signal.SIGTERM)
        assert servers.first.process.wait() == 0
        took = time.monotonic() - began
        wait_until(lambda: servers.metric("answered_total", 1) > before + 20, "the other to serve")
        return took

    took, times = servers.during(drain)
    servers.first.process.is_checked = True
    assert took < 2 * SLOW  # not limits.drain_timeout, which is 10 s
    assert max(times) < 2 * SLOW
    assert servers.metric("drained_total", 0) == 2  # both connections, in good order
    assert servers.metric("failures_total", 0, reason="lost") == 0


# --- keys ----------------------------------------------------------------------------------


def test_who_has_not_got_a_key_is_passed_over(servers, procs):
    stack = servers.stack
    own = procs.folder / "first-keys"
    own.mkdir()
    for path in servers.first.folder.iterdir():
        (own / path.name).write_bytes(path.read_bytes())
        (own / path.name).chmod(0o600)
    stack.add_name("region.test")  # in the shared folder, which only the second one reads
    servers.first.config["key_folders"] = [str(own)]
    servers.start(far_s={1: 0.05}, hedge_budget=0)
    servers.handshake("region.test")
    assert servers.metric("failures_total", 0, reason="no_key") == 1
    assert servers.sent(0) == servers.sent(1) == 1
    for _ in range(5):
        servers.handshake("region.test")
    assert servers.metric("failures_total", 0, reason="no_key") == 1
    assert servers.metric("skipped_total", 0) == 5
    assert servers.sent(0) == 1 and servers.sent(1) == 6
    servers.handshake("demo.test")  # another key
    assert servers.sent(0) == 2


# --- the budget ------------------------------------------------------------------------------


def test_a_slow_one_does_not_double_the_load(servers):
    """Many handshakes at once, just when the first server becomes slow."""
    servers.start(far_s={0: 0}, hedge_budget=10)
    num = 60
    servers.handshakes(num)
    servers.relays[0].delay_s = 0.04
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        for future in [pool.submit(servers.handshake) for _ in range(80)]:
            future.result()
    num += 80
    hedges = sum(servers.metric("hedges_total", i) for i in range(2))
    failovers = servers.stack.proxy.metric("key_server_failovers_total")
    assert hedges <= 0.1 * num + 10
    assert servers.sent(0) + servers.sent(1) == num + hedges + failovers
    assert failovers <= 0.1 * num


# --- revocation --------------------------------------------------------------------------------


def test_a_revoked_key_server_is_left_with_a_reload(servers, procs):
    path = procs.folder / "key-servers.crl"
    stack = servers.stack
    ca = servers.first.ca
    ca.crl(path)
    servers.start(tls={**stack.pki.tls(ca, servers.first.client("proxy")), "crl": [str(path)]})
    servers.handshake()
    ca.crl(path, revoked=[servers.first.server])  # which is the second's as well
    stack.proxy.reload()
    wait_until(lambda: stack.proxy.metric("key_servers_ready") == 0 and
               servers.metric("failures_total", 0, reason="connect") > 0, "no key server")


# --- what operators see --------------------------------------------------------------------


def test_each_server_is_shown(servers):
    servers.start()
    servers.handshakes(3)
    for i, address in enumerate(servers.addresses):
        assert servers.metric("up", i) == 1
        wait_until(lambda i=i: servers.metric("connections", i) == 2, "both connections")
        assert servers.metric("in_flight", i) == 0
        assert servers.metric("srtt_seconds", i) > 0
        assert servers.metric("breaker", i, state="closed") == 1
        assert split_address(address)
    by_name = {s["name"]: s for s in servers.stack.proxy.status()["key_servers"]}
    assert [by_name[a]["state"] for a in servers.addresses] == ["up", "up"]
    # By whichever was the nearer on this machine just then.
    assert sum(by_name[a]["answered"] for a in servers.addresses) >= 3
    status = servers.stack.proxy.ctl("status").stdout
    assert all(address in status for address in servers.addresses)
