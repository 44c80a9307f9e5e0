# SPDX-License-Identifier: Apache-2.0
"""The proxy's binary is replaced while it serves: no connection fails.

DEPUTY_HEAVY=1 makes it 20 upgrades and 200 reloads instead of a few.
"""

import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time

import pytest

from support.procs import BIN_DIR, SLOW, wait_until
from support.stack import BODY, PROXY, Origin, Stack, echo

IS_HEAVY = os.environ.get("DEPUTY_HEAVY", "") not in ("", "0")
NUM_UPGRADES = 20 if IS_HEAVY else 3
NUM_RELOADS = 200 if IS_HEAVY else 5


class Load:
    """Visitors in a loop until the end of the block; each failure is kept."""

    def __init__(self, stack, num=4):
        self.stack = stack
        self.failures = []
        self.num_done = 0
        self.is_over = False
        self.threads = [threading.Thread(target=self._run) for _ in range(num)]

    def _run(self):
        while not self.is_over:
            try:
                assert self.stack.get(timeout=20) == BODY
                self.num_done += 1
            except Exception as e:
                self.failures.append(repr(e))

    def wait_more(self, num=20):
        goal = self.num_done + num
        wait_until(lambda: self.num_done >= goal or self.failures, "visitors to be served", 30)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        self.wait_more()
        return self

    def __exit__(self, *_):
        self.is_over = True
        for thread in self.threads:
            thread.join()
        assert not self.failures, (len(self.failures), self.num_done, self.failures[:3])


@pytest.fixture
def stack(procs, pki):
    stack = Stack(procs, pki)
    stack.proxy.config["listeners"].append(
        {"name": "local", "address": f"unix:{stack.proxy.folder}/clients.sock"})
    stack.start()
    yield stack
    stack.stop()


def take_over(stack, workers=None, wait=True, args=("--takeover",), **popen):
    """Starts the next proxy; returns (the one before, the new one)."""
    proxy = stack.proxy
    before = proxy.process
    if workers is not None:
        proxy.config["workers"] = workers
    after = stack.procs.daemon_start(PROXY, proxy.config, proxy.name, args, **popen)
    if wait:
        after.wait_ready(30)
        proxy.process = after
    return before, after


def test_upgrades_and_reloads_under_load_fail_nobody(stack):
    """Also with more workers, with fewer, and as many."""
    proxy = stack.proxy
    port = proxy.port
    with Load(stack) as load:
        for i in range(NUM_UPGRADES):
            before, after = take_over(stack, workers=(3, 1, 2, 2)[i % 4])
            assert before.wait(30) == 0, before.err()
            assert proxy.port == port
            assert proxy.status()["workers"] == proxy.config["workers"]
            load.wait_more()
        for i in range(NUM_RELOADS):
            proxy.config["tickets"] = {"lifetime": f"{i % 40 + 1}h"}
            proxy.reload()
            load.wait_more(2)
        assert not load.failures, load.failures[:3]
    # It came with a credential for each chain: nobody paid for the change.
    assert "warm=true" in after.err()
    assert proxy.metric("handshakes_failed_total") == 0
    with socket.socket(socket.AF_UNIX) as plain:  # the UNIX socket came along as well
        plain.connect(str(proxy.folder / "clients.sock"))
        with stack.context().wrap_socket(plain, server_hostname="demo.test") as tls:
            tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert tls.recv(65536)


def test_who_waits_in_a_queue_is_served_by_the_next(stack):
    """The old one is frozen while they come, and then told to go."""
    stack.keyserver.process.freeze()  # the new one waits for it
    before, after = take_over(stack, workers=1, wait=False)
    wait_until(lambda: "sockets_lent" in before.err(), "the sockets to be lent")
    before.freeze()
    results = []
    threads = [threading.Thread(target=lambda: results.append(stack.get(timeout=30)))
               for _ in range(30)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)  # they are somewhere on their way; where does not matter
    stack.keyserver.process.thaw()
    before.thaw()
    after.wait_ready(30)
    stack.proxy.process = after
    for thread in threads:
        thread.join()
    assert results == [BODY] * 30
    assert before.wait(30) == 0


def test_connections_of_the_old_one_go_on_until_its_drain_ends(procs, pki):
    stack = Stack(procs, pki, issuer=False, origin=Origin(echo))
    stack.proxy.config["limits"]["drain"] = "1m"
    stack.start()
    with stack.connect() as client:
        client.sendall(b"one")
        assert client.recv(3) == b"one"
        before, after = take_over(stack)
        wait_until(lambda: "stopping" in before.err(), "the old one to drain")
        client.sendall(b"two")
        assert client.recv(3) == b"two"
        assert before.is_running()
    assert before.wait() == 0
    stack.origin.stop()


def assert_serves_on(stack, before):
    assert before.is_running()
    for _ in range(10):
        assert stack.get() == BODY
    assert stack.proxy.status()["is_draining"] is False


def test_configuration_is_checked_before_anything(stack):
    good = json.dumps(stack.proxy.config)
    stack.proxy.config["names"][0]["chains"][0]["certificate"] = "/none.pem"
    before, after = take_over(stack, wait=False)
    after.expected_exit = {0, 1, 2}
    assert after.wait(30) != 0
    assert "/none.pem" in after.err()
    wait_until(lambda: "takeover_failed" in before.err(), "the old one to say so")
    stack.proxy.config = json.loads(good)
    assert_serves_on(stack, before)
    take_over(stack)  # and the next one can
    assert before.wait(30) == 0
    assert stack.get() == BODY


def test_new_one_that_dies_on_the_way_changes_nothing(stack):
    before, after = take_over(stack, wait=False)
    wait_until(lambda: "sockets_lent" in before.err(), "the sockets to be lent")
    after.kill()
    wait_until(lambda: "takeover_failed" in before.err() or "taken_over" in before.err(), "an end")
    if "taken_over" not in before.err():
        assert_serves_on(stack, before)


def test_switch_in_between_is_not_lost(stack):
    """The key server does not answer, so the new one warms up long enough for a switch."""
    proxy = stack.proxy
    stack.keyserver.process.freeze()
    before, after = take_over(stack, wait=False)
    after.expected_exit = {1}
    wait_until(lambda: "sockets_lent" in before.err(), "the sockets to be lent")
    status, body = proxy.admin("POST", "/v1/switch", {
        "level": "name", "subject": "demo.test", "to": "backup", "reason": "in between"})
    assert status == 200, body
    stack.keyserver.process.thaw()
    assert after.wait(30) == 1
    assert "start it again" in after.err()
    assert_serves_on(stack, before)
    take_over(stack)
    assert before.wait(30) == 0
    name = proxy.admin("GET", "/v1/names")[1]["names"][0]
    assert name["serves"] == "backup"


def test_switch_in_memory_only_stops_a_takeover(procs, pki):
    stack = Stack(procs, pki, issuer=False)
    del stack.proxy.config["states"]
    stack.start()
    assert stack.proxy.admin("POST", "/v1/switch", {
        "level": "name", "subject": "demo.test", "to": "backup", "reason": "test"})[0] == 200
    before, after = take_over(stack, wait=False)
    after.expected_exit = {1}
    assert after.wait(30) == 1
    assert "would be lost" in after.err()
    assert_serves_on(stack, before)
    stack.stop()


def test_takeover_needs_somebody_to_take_over_from(procs, pki):
    stack = Stack(procs, pki, issuer=False)
    stack.start_servers()
    process = stack.procs.daemon_start(PROXY, stack.proxy.config, "lonely", ["--takeover"])
    process.expected_exit = {1}
    assert process.wait() == 1
    assert "no proxy answers" in process.err()
    stack.proxy.start(args=["--takeover-if-running"])
    assert stack.get() == BODY
    before, _ = take_over(stack, args=("--takeover-if-running",))
    assert before.wait(30) == 0
    assert stack.get() == BODY
    stack.stop()


def test_second_start_by_mistake_takes_no_visitors(procs, pki):
    """Without an admin socket or metrics, at which it would fail: the ports are shared."""
    stack = Stack(procs, pki, issuer=False).start()
    proxy = stack.proxy
    alone = json.loads(json.dumps(proxy.config))
    alone["listeners"][0]["address"] = "127.0.0.1:%d" % proxy.port
    del alone["admin"], alone["metrics"], alone["states"]
    with Load(stack) as load:
        second = stack.procs.daemon_start(PROXY, alone, "second")
        second.expected_exit = {1}
        assert second.wait(30) == 1
        assert "Address already in use" in second.err() and "--takeover" in second.err()
        load.wait_more()
    stack.stop()


def test_second_takeover_at_a_time_is_refused(stack):
    stack.keyserver.process.freeze()
    before, first = take_over(stack, wait=False)
    wait_until(lambda: "sockets_lent" in before.err(), "the sockets to be lent")
    done = stack.procs.run([BIN_DIR / PROXY, "--takeover", "--config",
                            stack.procs.folder / "proxy.json"])
    assert done.returncode == 1
    assert "already" in done.stderr, done.stderr
    stack.keyserver.process.thaw()
    first.wait_ready(30)
    stack.proxy.process = first
    assert before.wait(30) == 0
    assert stack.get() == BODY


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_other_users_are_refused(procs, pki):
    """Even one whom the admin socket's mode lets in: a socket is more than a switch."""
    stack = Stack(procs, pki, issuer=False)
    asker = ("import os, socket, sys; os.setgid(65534); os.setuid(65534)\n"
             "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
             "s.sendall(b'POST /v1/takeover HTTP/1.1\\r\\nHost: x\\r\\nContent-Type: "
             "application/json\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\n{}')\n"
             "data, fds, _, _ = socket.recv_fds(s, 65536, 8)\n"
             "print(len(fds), data.decode())\n")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        os.chmod(folder, 0o755)
        stack.proxy.config["admin"] = {"socket": folder + "/admin.sock", "mode": "0666"}
        stack.start()
        done = stack.procs.run(["/usr/bin/python3", "-c", asker, folder + "/admin.sock"])
        assert done.stdout.startswith("0 HTTP/1.1 403 "), (done.stdout, done.stderr)
        stack.proxy.process.stop()
    stack.stop()


def test_background_ends_when_the_new_one_serves(stack):
    before = stack.proxy.process
    log = stack.procs.folder / "background.log"
    with open(log, "wb") as out:
        done = subprocess.run(
            [BIN_DIR / PROXY, "--takeover", "--background", "--config",
             stack.procs.folder / "proxy.json"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=30 * SLOW, check=False,
            cwd=stack.procs.folder)
    assert done.returncode == 0, log.read_text()
    assert before.wait(30) == 0
    assert stack.get() == BODY
    pid = stack.proxy.status()["pid"]
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: '"stopped"' in log.read_text() or " stopped" in log.read_text(), "its end")
    # A failure is told at once, with the child's own code.
    done = stack.procs.run([BIN_DIR / PROXY, "--takeover", "--background", "--config",
                            stack.procs.folder / "proxy.json"])
    assert done.returncode == 1 and "no proxy answers" in done.stderr
