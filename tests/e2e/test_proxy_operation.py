# SPDX-License-Identifier: Apache-2.0
"""Reload, drain, configuration: what an operator does to a proxy that serves."""

import contextlib
import json
import os
import random
import resource
import signal
import socket
import ssl
import struct
import threading
import time

import pytest

from support.procs import BIN_DIR, SANITIZE, SLOW, free_port, wait_until
from support.stack import BODY, PROXY, Origin, Stack, echo, read_head
from support.tls import MemoryTls


@pytest.fixture(scope="module")
def stack(module_procs, module_pki):
    stack = Stack(module_procs, module_pki).start()
    yield stack
    stack.stop()


class Load:
    """Clients in a loop, until stopped; every failure is kept."""

    def __init__(self, stack, num=4):
        self.stack = stack
        self.failures = []
        self.num_done = 0
        self.is_stopping = False
        self.threads = [threading.Thread(target=self._run) for _ in range(num)]
        for thread in self.threads:
            thread.start()

    def _run(self):
        while not self.is_stopping:
            try:
                assert self.stack.get(timeout=20) == BODY
                self.num_done += 1
            except Exception as e:
                self.failures.append(repr(e))

    def __enter__(self):
        wait_until(lambda: self.num_done > 10 or self.failures, "the load to begin")
        return self

    def __exit__(self, *_):
        self.is_stopping = True
        for thread in self.threads:
            thread.join()
        assert not self.failures, (len(self.failures), self.num_done, self.failures[:3])


@pytest.fixture
def config(stack):
    """The proxy's configuration, put back at the end."""
    keep = json.dumps(stack.proxy.config)
    yield stack.proxy.config
    stack.proxy.config = json.loads(keep)
    stack.proxy.reload()


# --- reload -------------------------------------------------------------------------


def test_reloads_under_load_fail_nobody(stack, config):
    rng = random.Random(7)
    with Load(stack) as load:
        for i in range(30):
            config["tickets"] = {"lifetime": f"{rng.randrange(1, 48)}h"}
            config["tls"] = {"alpn": ["h2"][:i % 2]}
            done = load.num_done
            stack.proxy.reload()
            wait_until(lambda: load.num_done > done + 1, "clients to go on")


def test_sites_of_earlier_reloads_are_freed(stack, config):
    """A connection that stays through many reloads holds none of them."""
    leaf = stack.leaf("bulk", "*.bulk.test")
    stack.keyserver.reload()
    for i in range(2000):
        stack.add_name(f"n{i}.bulk.test", [("primary", leaf)])
    with stack.connect() as client:
        stack.proxy.reload()
        for _ in range(10):
            stack.proxy.reload()
        rss = stack.proxy.process.rss_bytes()
        for _ in range(40):
            stack.proxy.reload()
        # Forty sites of two thousand names each would be far more.
        assert stack.proxy.process.rss_bytes() - rss < (400 if SANITIZE else 4) << 20
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(65536)


def test_new_name_is_served(stack, config):
    stack.add_name("new.test", [("primary", stack.leaf("new", "new.test"))])
    stack.keyserver.reload()
    stack.proxy.reload()
    assert stack.get("new.test") == BODY
    assert stack.get() == BODY


def bad(change):
    def apply(config):
        change(config)
        return json.dumps(config, indent=2)
    return apply


BAD_CONFIGS = {
    "chians": (lambda c: c["names"][0].update(chians=[]), 'unknown option "chians"'),
    "no file": (lambda c: c["names"][0]["chains"][0].update(certificate="/none.pem"), "/none.pem"),
    "a key in the chain": (lambda c: c["names"][0]["chains"][0].update(
        certificate=c["key_servers"]["tls"]["key"]), "private key"),
    "other name": (lambda c: c["names"][0].update(name="other.test"), "other.test"),
    "no such default": (lambda c: c.update(default_name="nobody.test"), "nobody.test"),
    "twice": (lambda c: c["names"].append(c["names"][0]), "demo.test"),
    "origin": (lambda c: c["origin"].update(address="nowhere"), "origin.address"),
    "group": (lambda c: c.update(tls={"groups": "P-999"}), "P-999"),
    "margin": (lambda c: c.update(delegated_credentials={"margin": "24h"}), "margin"),
    "url": (lambda c: c["issuers"].update(urls=["http://localhost"]), "https://"),
    "identity": (lambda c: c["key_servers"]["tls"].update(certificate="/none.pem"), "/none.pem"),
    "address": (lambda c: c["listeners"][0].update(address="256.0.0.1:443"), "256.0.0.1"),
    "two at one": (lambda c: c["listeners"].extend(
        {"name": name, "address": "127.0.0.1:1443"} for name in ("one", "two")), "both listen at"),
    "a key server without a port": (lambda c: c["key_servers"]["servers"][0].update(
        address="nowhere"), "key_servers.servers[0].address"),
    "another's key": (lambda c: c["key_servers"]["tls"].update(key=c["issuers"]["tls"]["key"]),
                      "does not belong to the certificate"),
    "no ticket keys": (lambda c: c.update(tickets={"key_file": "/none.keys"}), "tickets.key_file"),
    "mode": (lambda c: c["admin"].update(mode="rw"), "admin.mode"),
    "taken": (None, "cannot listen"),
    "not JSON": (None, "JSON"),
    "empty": (None, "JSON"),
    "no text": (None, "JSON"),
    "too long": (None, "longer than"),
    "gone": (None, "No such file or directory"),
    "versions": (lambda c: c.update(tls={"min_version": "1.3", "max_version": "1.2"}),
                 "min_version"),
    "same key": (lambda c: c["names"][0]["chains"][1].update(
        certificate=c["names"][0]["chains"][0]["certificate"]), "same key"),
}


BAD_TEXTS = {
    "not JSON": lambda text: text[:-1],
    "empty": lambda text: "",
    "no text": lambda text: "\0\x01\x02" * 100,
    "too long": lambda text: text + " " * (64 << 20),
}
# What to write instead, where that can be known.
REMEDIES = {
    "chians": 'did you mean "chains"?',
    "a key in the chain": "keep keys in files of their own",
    "origin": "write name.example:443",
    "group": "there are X25519MLKEM768, X25519, P-256",
    "url": "it must begin with https://",
    "address": "write 127.0.0.1:443",
    "same key": "must have a key of its own",
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_bad_configuration_changes_nothing_and_says_why(stack, config, name):
    change, why = BAD_CONFIGS[name]
    text = None
    with contextlib.ExitStack() as opened:
        if name == "taken":
            taken = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            config["listeners"].append({"name": "second",
                                        "address": "127.0.0.1:%d" % taken.getsockname()[1]})
        elif name in BAD_TEXTS:
            text = BAD_TEXTS[name](json.dumps(config))
        elif change is None:
            text = ""
        else:
            change(config)
        before = stack.proxy.metric("reloads_total", result="failed")
        log = len(stack.proxy.log())
        path = stack.procs.folder / "proxy.json"
        stack.proxy.write_config(text)
        if name == "gone":
            path.unlink()
        stack.proxy.process.signal(signal.SIGHUP)
        wait_until(lambda: stack.proxy.metric("reloads_total", result="failed") > before, "it")
    wait_until(lambda: "reload_failed" in stack.proxy.log()[log:], "the line")
    lines = stack.proxy.log()[log:].replace('\\"', '"')
    assert why in lines, lines
    assert f"reload_failed path={path} " in lines
    assert "effect=the_earlier_configuration_stays" in lines
    line_of = {"chians": '"chians"', "not JSON": None}
    if name in line_of:  # what is wrong with the text itself has a line
        text = path.read_text().splitlines()
        line = next((i for i, row in enumerate(text, 1) if line_of[name] and line_of[name] in row),
                    len(text))
        assert f"{path}:{line}: " in lines, (line, lines)
    if name in REMEDIES:
        assert REMEDIES[name] in lines, lines
    assert stack.get() == BODY
    # The admin API says the same, and --check-config before anything happens.
    if name != "taken":
        status, body = stack.proxy.admin("POST", "/v1/reload", {})
        assert status != 200 and why in json.dumps(body).replace('\\"', '"'), body
        done = stack.proxy.ctl("reload", check=False)
        assert done.returncode == 1 and why in done.stderr, done.stderr
        done = stack.procs.run([BIN_DIR / PROXY, "--check-config", "--config",
                                stack.procs.folder / "proxy.json"])
        code = 1 if name in ("gone", "too long") else 2  # the system's reason, the file's own
        assert done.returncode == code and why in done.stderr, done.stderr


def test_good_configuration_is_checked_as_such(stack):
    stack.proxy.write_config()
    done = stack.procs.run([BIN_DIR / PROXY, "--check-config", "--config",
                            stack.procs.folder / "proxy.json"])
    assert done.returncode == 0 and done.stderr == "", done.stderr
    # What a reload would not read, a start will: a user, the file of switches, folders.
    damaged = stack.proxy.folder / "damaged.json"
    damaged.write_text("{")
    for option, value, code, why in (
            ("user", "nobody-of-that-name", 2, "there is no user"),
            ("states", str(damaged), 2, "the file of switches is damaged"),
            ("log", "/none/log", 0, "hint: log: a start needs the folder /none")):
        stack.proxy.write_config(json.dumps({**stack.proxy.config, option: value}))
        done = stack.procs.run([BIN_DIR / PROXY, "--check-config", "--config",
                                stack.procs.folder / "proxy.json"])
        assert done.returncode == code and why in done.stderr, (option, done)
    stack.proxy.write_config()


def test_reload_of_listeners(stack, config):
    """Added, moved and removed; the one that stays is not disturbed."""
    port = free_port()
    config["listeners"].append({"name": "second", "address": f"127.0.0.1:{port}"})
    with Load(stack, 2):
        stack.proxy.reload()
        with MemoryTls(("127.0.0.1", port), stack.context(), "demo.test") as second:
            assert stack.proxy.status()["listeners"][1]["address"] == f"127.0.0.1:{port}"
            config["listeners"].pop()
            stack.proxy.reload()
            wait_until(lambda: not is_open(port), "the port to be closed")
            second.send(b"GET / HTTP/1.0\r\n\r\n")  # who is connected stays connected
            assert second.read_all().endswith(BODY)


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_reload_of_key_servers_and_limits(stack, config):
    with Load(stack, 2):
        for connections in (1, 3, 2):
            config["key_servers"]["connections"] = connections
            config["limits"]["idle"] = f"{connections}m"
            stack.proxy.reload()


def test_what_a_reload_cannot_change_is_said(stack, config):
    log = len(stack.proxy.log())
    config["workers"] = 3
    config["states"] = "elsewhere.json"
    stack.proxy.reload()
    wait_until(lambda: "option=states" in stack.proxy.log()[log:], "the warning")
    assert "option=workers" in stack.proxy.log()[log:]
    done = stack.proxy.ctl("reload")  # they stay as they were, so they are told of again
    assert "workers is not changed by a reload" in done.stderr and "states" in done.stderr
    assert stack.proxy.status()["workers"] == 2


# --- limits --------------------------------------------------------------------------------


def test_limit_on_connections(procs, pki):
    stack = Stack(procs, pki, issuer=False, origin=Origin(echo))
    stack.proxy.config["workers"] = 1
    stack.proxy.config["limits"]["connections"] = 5
    stack.start()
    with contextlib.ExitStack() as opened:
        for _ in range(5):
            opened.enter_context(stack.connect())
        with pytest.raises(OSError):
            stack.connect()
        assert stack.proxy.metric("connections_refused_total", reason="limit") == 1
    wait_until(lambda: stack.proxy.metric("connections_open") == 0, "room")
    with stack.connect() as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    stack.origin.stop()


def test_no_descriptors_left(procs, pki):
    """Accepting pauses, and goes on by itself; who waits meanwhile is served in the end."""
    stack = Stack(procs, pki, issuer=False)
    stack.proxy.config["workers"] = 1
    stack.start()
    process = stack.proxy.process
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    cpu = process.cpu_s()
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (8, before[1]))  # lower ones are in use
    answers = []
    client = threading.Thread(target=lambda: answers.append(stack.get(timeout=20)))
    client.start()
    wait_until(lambda: "accept_paused" in stack.proxy.log(), "the pause")
    time.sleep(0.5)
    assert not answers
    assert process.cpu_s() - cpu < 0.3 * SLOW  # it waits, it does not spin
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
    client.join()
    assert answers == [BODY]
    assert stack.proxy.metric("connections_refused_total", reason="descriptors") >= 1
    stack.stop()


# --- stop -------------------------------------------------------------------------------------


@pytest.fixture
def own(procs, pki):
    """A stack that the test stops itself."""
    stack = Stack(procs, pki, issuer=False, origin=Origin(slow_answer))
    stack.proxy.config["limits"]["drain"] = f"{3 * SLOW}s"
    stack.start()
    yield stack
    stack.origin.stop()


def slow_answer(conn):
    if read_head(conn):
        time.sleep(1)
        conn.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + BODY)


def test_sigterm_lets_connections_finish(own):
    with MemoryTls(own.proxy.address, own.context(), "demo.test") as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        start = time.monotonic()
        own.proxy.process.signal(signal.SIGTERM)
        wait_until(lambda: not is_open(own.proxy.port), "the port to be closed")
        assert client.read_all().endswith(BODY)
    assert own.proxy.process.wait() == 0
    assert time.monotonic() - start < 2.9 * SLOW


def test_sigterm_is_bounded(own):
    with MemoryTls(own.proxy.address, own.context(), "demo.test") as client:
        start = time.monotonic()
        own.proxy.process.signal(signal.SIGTERM)
        assert own.proxy.process.wait() == 0
        assert 2.5 < time.monotonic() - start < 4.5 * SLOW
        assert "drain_over reason=limit connections=1" in own.proxy.log()
        assert client.read() == b""  # an orderly end all the same


def test_second_sigterm_is_at_once(own):
    with MemoryTls(own.proxy.address, own.context(), "demo.test"):
        own.proxy.process.signal(signal.SIGTERM)
        wait_until(lambda: "stopping" in own.proxy.log(), "the first")
        start = time.monotonic()
        own.proxy.process.signal(signal.SIGTERM)
        assert own.proxy.process.wait() == 0
        assert time.monotonic() - start < 1.5 * SLOW
        assert "drain_over reason=asked_twice connections=1" in own.proxy.log()


def test_sigterm_under_load_fails_no_connection_that_was_accepted(own):
    own.origin.handler = None
    own.origin.handler = lambda conn: (read_head(conn),
                                       conn.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + BODY))
    failures = []
    done = []
    is_over = threading.Event()

    def run():
        while not is_over.is_set():
            try:
                plain = socket.create_connection(own.proxy.address, timeout=20)
            except ConnectionRefusedError:
                return  # the port is closed: nobody was let down
            except OSError:
                return
            try:
                with plain, own.context().wrap_socket(plain, server_hostname="demo.test") as tls:
                    tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    answer = b""
                    while BODY not in answer:
                        data = tls.recv(65536)
                        assert data, "cut off"
                        answer += data
                    done.append(1)
            except (OSError, AssertionError) as e:
                failures.append(repr(e))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(done) > 20, "the load")
    own.proxy.process.signal(signal.SIGTERM)
    assert own.proxy.process.wait() == 0
    is_over.set()
    for thread in threads:
        thread.join()
    # A connection may be in the queue of a socket at the very moment it closes.
    assert len(failures) <= 1, failures


def test_sigterm_serves_who_waits_in_the_queue(own):
    own.origin.handler = lambda conn: (read_head(conn),
                                       conn.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + BODY))
    process = own.proxy.process
    process.signal(signal.SIGSTOP)
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(MemoryTls(own.proxy.address, own.context(), "demo.test",
                                                  handshake=False)) for _ in range(40)]
        for client in clients:
            with contextlib.suppress(ssl.SSLWantReadError):
                client.tls.do_handshake()
            client.flush()
        process.signal(signal.SIGTERM)
        process.signal(signal.SIGCONT)
        for client in clients:
            client.handshake()
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            assert client.read_all().endswith(BODY)
    assert process.wait() == 0


def test_idle_proxy_stops_at_once(own):
    start = time.monotonic()
    own.proxy.process.signal(signal.SIGTERM)
    assert own.proxy.process.wait() == 0
    assert time.monotonic() - start < 1.5 * SLOW


def test_logs_are_opened_again(own, tmp_path):
    path = own.proxy.audit_path
    os.rename(path, str(path) + ".1")
    own.proxy.process.signal(signal.SIGUSR1)
    wait_until(path.exists, "the new audit file")


# --- PROXY protocol ----------------------------------------------------------------------------


def parse_v2(data):
    """(source, destination, {tlv}, rest) of a PROXY v2 header (haproxy's proxy-protocol.txt)."""
    assert data[:12] == b"\r\n\r\n\x00\r\nQUIT\n" and data[12] == 0x21 and data[13] == 0x11
    length = struct.unpack_from(">H", data, 14)[0]
    body, rest = data[16:16 + length], data[16 + length:]
    source = (socket.inet_ntoa(body[:4]), struct.unpack_from(">H", body, 8)[0])
    destination = (socket.inet_ntoa(body[4:8]), struct.unpack_from(">H", body, 10)[0])
    tlvs = {}
    at = 12
    while at < len(body):
        kind, size = struct.unpack_from(">BH", body, at)
        tlvs[kind] = body[at + 3:at + 3 + size]
        at += 3 + size
    return source, destination, tlvs, rest


def test_proxy_protocol_v2(stack, config):
    seen = []

    def handler(conn):
        seen.append(conn.recv(65536))
        conn.sendall(b"ok")

    origin = Origin(handler)
    config["origin"] = {"address": origin.address, "proxy_protocol": "v2"}
    config["tls"] = {"alpn": ["http/1.1"]}
    stack.proxy.reload()
    with stack.connect(alpn=["http/1.1"]) as client:
        client.sendall(b"the first bytes")
        assert client.recv(10) == b"ok"
        source, destination, tlvs, rest = parse_v2(seen[0] if b"first" in seen[0] else seen[0] + b"")
        assert source == client.getsockname() and destination == stack.proxy.address
        assert tlvs[1] == b"http/1.1" and tlvs[2] == b"demo.test"
        assert b"TLSv1.3" in tlvs[0x20] and b"TLS_A" in tlvs[0x20]
        assert rest in (b"", b"the first bytes")
    origin.stop()


def test_proxy_protocol_v2_is_understood_by_nginx(stack, config, procs, tmp_path):
    path = tmp_path / "nginx.conf"
    address = tmp_path / "nginx.sock"
    path.write_text(f"""
daemon off; worker_processes 1; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log;
user root;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {tmp_path}/a; proxy_temp_path {tmp_path}/b; fastcgi_temp_path {tmp_path}/c;
  uwsgi_temp_path {tmp_path}/d; scgi_temp_path {tmp_path}/e;
  server {{
    listen unix:{address} proxy_protocol;
    location / {{ return 200 "$proxy_protocol_addr $proxy_protocol_port"; }}
  }}
}}
""")
    os.chmod(tmp_path, 0o755)
    procs.foreign("nginx", ["/usr/sbin/nginx", "-e", tmp_path / "error.log", "-c", path])
    wait_until(address.exists, "nginx")
    config["origin"] = {"address": f"unix:{address}", "proxy_protocol": "v2"}
    stack.proxy.reload()
    with stack.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: demo.test\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := client.recv(65536):
            answer += data
        host, port = client.getsockname()
        assert answer.endswith(f"{host} {port}".encode()), answer
