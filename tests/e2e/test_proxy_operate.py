# SPDX-License-Identifier: Apache-2.0
"""What the service manager, the operator and the monitoring have to do with a proxy."""

import contextlib
import ctypes
import json
import os
import pathlib
import shutil
import signal
import socket

import pytest

from support import prometheus
from support.procs import SLOW, SOURCE_DIR, free_port, wait_until
from support.stack import BODY, PROXY, Origin, Stack, echo


class ServiceManager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, folder):
        self.path = str(folder / "notify.sock")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)
        self.lines = []

    def heard(self):
        """All lines so far."""
        while True:
            try:
                self.lines += self.socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self.lines

    def count(self, line):
        return self.heard().count(line)

    def env(self, **more):
        return {**os.environ, "NOTIFY_SOCKET": self.path, **more}

    def close(self):
        self.socket.close()


@pytest.fixture
def manager(tmp_path):
    manager = ServiceManager(tmp_path)
    yield manager
    manager.close()


@pytest.fixture
def servers(procs, pki):
    """A stack whose proxy the test starts itself."""
    stack = Stack(procs, pki, issuer=False).start_servers()
    yield stack
    stack.stop()


def start(stack, **kwargs):
    proxy = stack.proxy
    proxy.process = stack.procs.daemon_start(PROXY, proxy.config, proxy.name, **kwargs)
    proxy.process.wait_ready()
    return proxy.process


# --- service manager ---------------------------------------------------------------------


def test_service_manager_hears_of_start_reload_and_stop(servers, manager):
    process = start(servers, env=manager.env())
    wait_until(lambda: "READY=1" in manager.heard(), "READY=1")
    assert f"MAINPID={process.pid}" in manager.heard()
    assert "WATCHDOG=1" not in manager.heard()  # it did not ask
    servers.proxy.reload()
    wait_until(lambda: manager.count("READY=1") == 2, "the reload")
    heard = manager.heard()
    assert heard.index("RELOADING=1") < len(heard) - 1 - heard[::-1].index("READY=1")
    assert any(line.startswith("MONOTONIC_USEC=") for line in heard)
    process.stop()
    wait_until(lambda: "STOPPING=1" in manager.heard(), "STOPPING=1")


def test_service_manager_hears_of_a_takeover(servers, manager):
    """One unit: the new process is the main one, and the old one's end is not the unit's."""
    proxy = servers.proxy
    env = manager.env(INVOCATION_ID="one-unit")
    before = start(servers, env={**env, "WATCHDOG_USEC": str(4000000 * SLOW)})
    after = start(servers, env=env, args=["--takeover"])
    assert before.wait(30) == 0
    wait_until(lambda: f"MAINPID={after.pid}" in manager.heard(), "MAINPID")
    assert "STOPPING=1" not in manager.heard()
    count = manager.count("WATCHDOG=1")
    wait_until(lambda: manager.count("WATCHDOG=1") > count + 2, "the watchdog, inherited", 15)
    assert servers.get() == BODY
    # Of two units, the old one's is over.
    proxy.process = start(servers, env=manager.env(INVOCATION_ID="another"), args=["--takeover"])
    assert after.wait(30) == 0
    assert "STOPPING=1" in manager.heard()


PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17


class Stalled:
    """One thread of a process stands still."""

    def __init__(self, process, name):
        tasks = pathlib.Path(f"/proc/{process.pid}/task")
        self.tid = next(int(task.name) for task in tasks.iterdir()
                        if (task / "comm").read_text().strip() == name)
        self.libc = ctypes.CDLL(None, use_errno=True)

    def _ptrace(self, request):
        if self.libc.ptrace(ctypes.c_long(request), ctypes.c_long(self.tid), None, None) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def __enter__(self):
        try:
            self._ptrace(PTRACE_SEIZE)
        except PermissionError:
            pytest.skip("other processes may not be traced here")
        self._ptrace(PTRACE_INTERRUPT)
        os.waitpid(self.tid, 0x40000000)  # __WALL
        return self

    def __exit__(self, *_):
        self._ptrace(PTRACE_DETACH)


def test_watchdog_hears_nothing_while_a_worker_hangs(servers, manager):
    limit_us = 400000 * SLOW
    process = start(servers, env=manager.env(WATCHDOG_USEC=str(limit_us)))
    wait_until(lambda: manager.count("WATCHDOG=1") > 3, "the watchdog")
    with Stalled(process, "worker-1"):
        wait_until(lambda: "worker_silent" in process.err(), "it to be said")
        count = manager.count("WATCHDOG=1")
        assert servers.proxy.status()["workers"] == 2  # control's loop itself goes on
        assert manager.count("WATCHDOG=1") == count
    wait_until(lambda: manager.count("WATCHDOG=1") > count + 2, "the worker to be back")


ACTIVATE = ("import os, sys\n"
            "fds = [int(fd) for fd in sys.argv[1].split(',')]\n"
            "fds = [os.dup2(os.dup(fd), 20 + i) for i, fd in enumerate(fds)]\n"
            "for i, fd in enumerate(fds): os.dup2(fd, 3 + i, inheritable=True); os.close(fd)\n"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)))\n"
            "os.execv(sys.argv[2], sys.argv[2:])\n")


def activate(stack, sockets, names):
    fds = [s.fileno() for s in sockets]
    return start(stack, wrap=["/usr/bin/python3", "-c", ACTIVATE, ",".join(map(str, fds))],
                 pass_fds=fds, env={**os.environ, "LISTEN_FDNAMES": ":".join(names)})


def test_sockets_of_the_service_manager_are_used_by_name(servers, tmp_path):
    """Two for one listener, as ReusePort= makes them, one of all workers, and one too many."""
    proxy = servers.proxy
    proxy.config["listeners"] = [{"name": "main", "address": "127.0.0.1:0"},
                                 {"name": "second", "address": "127.0.0.1:0"}]
    proxy.config["workers"] = 3
    first = socket.socket()
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    first.bind(("127.0.0.1", 0))
    twin = socket.socket()
    twin.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    twin.bind(first.getsockname())
    second = socket.create_server(("127.0.0.1", 0))
    admin = socket.socket(socket.AF_UNIX)
    admin.bind(proxy.socket_path)
    nobody = socket.create_server(("127.0.0.1", 0))
    for s in (first, twin, admin):
        s.listen(100)
    sockets = [first, second, admin, nobody, twin]
    addresses = [s.getsockname() for s in (first, second)]
    process = activate(servers, sockets, ["main", "second", "admin", "nobody", "main"])
    for s in sockets:
        s.close()  # the proxy alone has them now
    assert "socket_not_wanted name=nobody" in process.err()
    assert [process.address("main"), process.address("second")] == addresses
    for address in addresses * 8:
        with socket.create_connection(address, timeout=10 * SLOW) as plain:
            with servers.context().wrap_socket(plain, server_hostname="demo.test") as tls:
                tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert tls.recv(65536)
    assert proxy.status()["workers"] == 3
    # And from there to the next process, by whomever they were opened.
    before = process
    proxy.process = start(servers, args=["--takeover"])
    assert before.wait(30) == 0
    assert proxy.address == addresses[0]
    for _ in range(8):
        assert servers.get() == BODY


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="no systemd")
def test_systemd_socket_activate(servers):
    """systemd's own tool opens the socket, and starts the proxy with the first visitor."""
    proxy = servers.proxy
    port = free_port()
    proxy.write_config()
    proxy.process = servers.procs.daemon_start(
        PROXY, proxy.config, proxy.name,
        wrap=["systemd-socket-activate", "-l", f"127.0.0.1:{port}", "--fdname=main"])

    def visit():
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10 * SLOW) as plain:
                with servers.context().wrap_socket(plain, server_hostname="demo.test") as tls:
                    tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    return tls.recv(65536)
        except OSError:
            return b""

    wait_until(visit, "an answer")
    proxy.process.wait_ready()
    assert proxy.port == port
    assert servers.get() == BODY


def test_bad_sockets_of_the_service_manager_stop_the_start(servers):
    with socket.socket() as not_listening:
        not_listening.bind(("127.0.0.1", 0))
        with pytest.raises(AssertionError, match="no listening stream socket"):
            activate(servers, [not_listening], ["main"])
    servers.procs.processes[-1].expected_exit = {2}


# --- operator --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stack(module_procs, module_pki):
    """One whose origin keeps connections open."""
    stack = Stack(module_procs, module_pki, issuer=False, origin=Origin(echo),
                  hosts=("demo.test", "other.test"))
    stack.start()
    yield stack
    stack.origin.stop()


def connections(stack, *args):
    return json.loads(stack.proxy.ctl("--json", "connections", *args).stdout)


def test_connections_are_listed_with_filters(stack):
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(stack.connect(host))
                   for host in ("demo.test", "demo.test", "other.test")]
        silent = opened.enter_context(socket.create_connection(stack.proxy.address))
        silent.sendall(b"\x16")
        for client in clients:
            client.sendall(b"12345")
            assert client.recv(5) == b"12345"
        wait_until(lambda: connections(stack, "--state", "handshake")["total"] == 1, "the silent")
        everyone = connections(stack)
        assert everyone["total"] == 4 and everyone["not_looked_at"] == 0
        rows = everyone["connections"]
        assert {row["worker"] for row in rows} <= {0, 1}
        assert len({row["id"] for row in rows}) == 4
        shaking = [row for row in rows if row["state"] == "handshake"]
        assert [(row["name"], row["chain"], row["source"]) for row in shaking] == [(None,) * 3]
        assert shaking[0]["client"] == "127.0.0.1:%d" % silent.getsockname()[1]
        talking = [row for row in rows if row["state"] == "relay"]
        assert {row["client"].partition(":")[0] for row in talking} == {"127.0.0.1"}
        assert [(row["chain"], row["source"], row["version"], row["up"], row["down"])
                for row in talking] == [("primary", "certificate", "1.3", 5, 5)] * 3
        assert all(0 <= row["idle_s"] <= row["age_s"] + 1 for row in talking)
        assert connections(stack, "--name", "other.test")["total"] == 1
        assert connections(stack, "--name", "OTHER.test")["total"] == 1
        assert connections(stack, "--name", "nobody.test")["connections"] == []
        assert connections(stack, "--address", "127.0.0.1")["total"] == 4
        assert connections(stack, "--address", "127.0.0.2")["total"] == 0
        assert connections(stack, "--older", "3600")["total"] == 0
        few = connections(stack, "--limit", "2")
        assert len(few["connections"]) == 2 and few["total"] == 4
        table = stack.proxy.ctl("connections", "--name", "other.test").stdout
        assert "other.test" in table and "1 of 1 connections" in table
    wait_until(lambda: connections(stack)["total"] == 0, "their end")


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "state=sleeping", "older=-1",
                                   "client=demo.test", "name=" + "a" * 300])
def test_bad_questions_for_connections_are_refused(stack, query):
    status, body = stack.proxy.admin("GET", "/v1/connections?" + query)
    assert status == 400 and body["error"]["code"] == "bad_request", body


def test_log_level_is_changed_while_it_runs(stack):
    def states():
        return stack.proxy.log().count(" state from=")

    assert stack.proxy.ctl("loglevel").stdout == "info\n"
    assert states() == 0
    assert stack.proxy.ctl("loglevel", "debug").stdout == "debug (before: info)\n"
    with stack.connect():
        wait_until(states, "lines of the level debug")
    assert json.loads(stack.proxy.ctl("--json", "loglevel").stdout) == {"level": "debug"}
    assert stack.proxy.ctl("loglevel", "info").returncode == 0
    done = stack.proxy.ctl("loglevel", "loud", check=False)
    assert done.returncode == 1 and "error, warn, info or debug" in done.stderr
    assert stack.proxy.ctl("loglevel").stdout == "info\n"


def test_reload_by_the_operator_answers_with_the_reason(servers):
    process = start(servers)
    assert servers.proxy.ctl("reload").stdout == "reloaded: 1 names, 2 chains\n"
    good = json.dumps(servers.proxy.config)
    servers.proxy.config["names"][0]["chains"][0]["certificate"] = "/none.pem"
    servers.proxy.write_config()
    done = servers.proxy.ctl("reload", check=False)
    assert done.returncode == 1 and "/none.pem" in done.stderr
    servers.proxy.config = json.loads(good)
    assert servers.get() == BODY
    # Drain: the answer comes, then the end, as with SIGTERM.
    assert "accepts no more" in servers.proxy.ctl("drain").stdout
    assert process.wait() == 0


# --- metrics --------------------------------------------------------------------------------


def test_metrics_are_what_prometheus_reads(procs, pki):
    """By a strict reading, and by promtool."""
    stack = Stack(procs, pki).start()
    proxy = stack.proxy
    context = stack.context()
    for _ in range(2):
        assert stack.get(context=context) == BODY
    stack.nss().run("demo.test")
    with contextlib.suppress(OSError):
        stack.connect("nobody.test", verify=False).close()
    wait_until(lambda: proxy.failures("unknown_name") == 1, "a failure to be counted")
    text = proxy.ctl("metrics").stdout
    families = prometheus.parse(text)
    times = families["deputy_proxy_handshake_seconds"]
    assert times.kind == "histogram"
    counts = {labels["source"]: value for name, labels, value in times.samples
              if name.endswith("_count")}
    assert counts["certificate"] >= 2 and counts["dc"] >= 1 and counts["resumed"] == 0
    for family in ("deputy_proxy_dc_seconds_left", "deputy_proxy_certificate_seconds_left",
                   "deputy_proxy_chain_usable"):
        samples = families[family].samples
        assert {labels["name"] for _, labels, _ in samples} == {"demo.test"}
        assert {labels["chain"] for _, labels, _ in samples} == {"primary", "backup"}
    assert all(value > 3600 for _, _, value in families["deputy_proxy_dc_seconds_left"].samples)
    with socket.create_connection(stack.proxy.process.address("metrics"), 10 * SLOW) as plain:
        plain.sendall(b"nonsense\r\n\r\n")
        while plain.recv(1000):
            pass
    stack.proxy.wait_metric(1, "http_refused_total", service="metrics", reason="malformed")
    # Each label of a closed list is explained.
    page = (SOURCE_DIR / "docs" / "deputy-proxy.md").read_text()
    for family in ("handshakes_failed_total", "connections_ended_total", "client_faults_total",
                   "connections_refused_total", "client_certificates_refused_total"):
        for _, labels, _ in families[f"deputy_proxy_{family}"].samples:
            (label,) = labels.values()
            assert f"`{label}`" in page, (family, label)
    stack.stop()


def test_gauges_by_name_are_bounded(servers):
    leaf = servers.leaf("many", "*.many.test")
    servers.keyserver.reload()
    for i in range(1500):
        servers.add_name(f"n{i}.many.test", [("primary", leaf)])
    start(servers)
    families = prometheus.parse(servers.proxy.ctl("metrics").stdout)
    names = {labels["name"] for _, labels, _ in families["deputy_proxy_chain_usable"].samples}
    assert len(names) == 1000
    assert families["deputy_proxy_names_not_shown"].samples[0][2] == 501


@pytest.mark.parametrize("text", [
    "a_total 1", "# HELP a b\n# TYPE a counter\na 1\n", "# TYPE a_total counter\na_total 1\n",
    "# HELP a b\n# TYPE a gauge\na 1\na 1\n", "# HELP a b\n# TYPE a gauge\nb 1\n",
    "# HELP a b\n# TYPE a gauge\na{x=\"1} 1\n", "# HELP a_days b\n# TYPE a_days gauge\na_days 1\n",
    "# HELP a b\n# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\na_sum 1\n"
    "a_count 1\n"])
def test_the_strict_reading_is_strict(text):
    with pytest.raises((AssertionError, KeyError)):
        prometheus.parse(text)


def test_promtool_is_strict():
    prometheus.check_by_promtool("# HELP a_total b\n# TYPE a_total counter\na_total 1\n")
    for text in ("# HELP a b\n# TYPE a counter\na 1\n", "a_total\n"):
        with pytest.raises(AssertionError):
            prometheus.check_by_promtool(text)


# --- logs --------------------------------------------------------------------------------------

WANTED = {"time", "event", "conn", "outcome", "client", "name", "version", "group", "source",
          "resumed", "chain", "ca", "handshake_us", "connect_us", "up", "down", "ms"}


def json_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_access_log_as_json_in_a_file_of_its_own(servers):
    proxy = servers.proxy
    path = proxy.folder / "access.jsonl"
    proxy.config.update(access_log_format="json", access_log_file=str(path))
    process = start(servers, args=["--log-level", "warn"])  # its file does not depend on that
    context = servers.context(tls12=True)
    with servers.connect(context=context) as first:
        first.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while first.recv(65536):
            pass
        session = first.session
    with socket.create_connection(proxy.address, timeout=10 * SLOW) as plain:
        with context.wrap_socket(plain, server_hostname="demo.test", session=session) as again:
            assert again.session_reused
    with contextlib.suppress(OSError):
        servers.connect("no\"body.test", verify=False).close()
    wait_until(lambda: path.exists() and len(json_lines(path)) == 3, "three lines")
    lines = {(line.get("resumed"), line["name"]): line for line in json_lines(path)}
    done = lines[(False, "demo.test")]
    assert WANTED <= set(done), WANTED - set(done)
    assert done["outcome"] in ("done", "truncated") and done["source"] == "certificate"
    assert (done["version"], done["chain"], done["up"]) == ("1.2", "primary", 18)
    assert done["handshake_us"] > 0 and done["connect_us"] > 0
    assert done["down"] > 50 and done["client"].startswith("127.0.0.1:") and done["ms"] >= 0
    assert lines[(True, "demo.test")]["source"] == "resumed"
    failed = lines[(None, 'no"body.test')]
    assert (failed["outcome"], failed["failure"]) == ("handshake_failed", "unknown_name")
    assert " closed " not in process.err()
    # Rotation: the file is moved aside, and made anew by the signal.
    path.rename(path.with_suffix(".1"))
    process.signal(signal.SIGUSR1)
    wait_until(path.exists, "the new file")
    servers.get()
    wait_until(lambda: len(json_lines(path)) == 1, "a line there")
    # The format is a matter of a reload; the file is not.
    proxy.config["access_log_format"] = "text"
    proxy.reload()
    servers.get()
    wait_until(lambda: " closed outcome=" in path.read_text(), "a line of text")
    assert " resumed=no chain=primary ca=" in path.read_text()


def test_access_log_as_json_among_the_others(servers):
    servers.proxy.config["access_log_format"] = "json"
    process = start(servers)
    servers.get()
    wait_until(lambda: '"event":"closed"' in process.err(), "the line")
    line = next(line for line in process.err().splitlines() if line.startswith("{"))
    assert json.loads(line)["source"] == "certificate"


def test_full_disk_costs_log_lines_and_nothing_else(servers):
    proxy = servers.proxy
    proxy.config.update(log="/dev/full", access_log_file="/dev/full")
    proxy.config["audit"] = {"path": "/dev/full"}
    process = start(servers)
    for _ in range(20):
        assert servers.get() == BODY
    proxy.reload()
    assert proxy.admin("POST", "/v1/switch", {"level": "name", "subject": "demo.test",
                                              "to": "backup", "reason": "audited"})[0] == 200
    for metric in ("log_failing", "access_log_failing", "audit_failing"):
        wait_until(lambda: proxy.metric(metric) == 1, metric)
    # What comes while the disk is full is counted, and waits for nothing.
    assert servers.get() == BODY
    wait_until(lambda: proxy.metric("access_log_lines_lost_total") >= 1, "lines to be lost")
    process.kill()  # its end would wait for the disk for a while
