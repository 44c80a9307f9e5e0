# SPDX-License-Identifier: Apache-2.0
"""Where decrypted bytes go: pools of origins, real (nginx) and misbehaving ones."""

import collections
import contextlib
import os
import socket
import struct
import threading

import pytest

from support.procs import SLOW, wait_until
from support.stack import Origin, Stack, config  # noqa: F401 (fixtures)


@pytest.fixture(scope="module")
def stack(module_procs, module_pki):
    stack = Stack(module_procs, module_pki, hosts=("demo.test", "other.test"), issuer=False)
    stack.start()
    yield stack
    stack.stop()


class Nginx:
    """A real origin, which answers with `text`; listens on a port or a UNIX socket."""

    def __init__(self, procs, folder, name, text, unix=False, more=""):
        self.procs = procs
        self.name = name
        self.folder = folder / name
        self.folder.mkdir()
        os.chmod(folder, 0o755)
        os.chmod(self.folder, 0o755)
        if unix:
            self.address = f"unix:{self.folder}/origin.sock"
            listen = self.address
        else:
            with socket.create_server(("127.0.0.3", 0)) as free:
                listen = self.address = "127.0.0.3:%d" % free.getsockname()[1]
        self.process = None
        (self.folder / "nginx.conf").write_text(f"""
daemon off; master_process off; pid {self.folder}/nginx.pid; error_log {self.folder}/error.log;
user root;
events {{ worker_connections 256; }}
http {{
  access_log off; lingering_close off;
  client_body_temp_path {self.folder}/a; proxy_temp_path {self.folder}/b;
  fastcgi_temp_path {self.folder}/c; uwsgi_temp_path {self.folder}/d;
  scgi_temp_path {self.folder}/e;
  server {{
    listen {listen} {more};
    location / {{ return 200 "{text}"; }}
  }}
}}
""")

    def is_up(self):
        unix = self.address.startswith("unix:")
        with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as probe:
            host, _, port = self.address.partition(":")
            return probe.connect_ex(port if unix else (host, int(port))) == 0

    def start(self):
        self.process = self.procs.foreign(
            self.name, ["/usr/sbin/nginx", "-e", self.folder / "error.log", "-c",
                        self.folder / "nginx.conf"])
        wait_until(self.is_up, f"nginx {self.name}")
        return self

    def stop(self):
        self.process.stop()


# --- PROXY protocol ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_nginx_learns_the_client_by_the_proxy_protocol(stack, config, procs, tmp_path, version,
                                                       unix):
    nginx = Nginx(procs, tmp_path, "nginx", "$proxy_protocol_addr $proxy_protocol_port "
                  "$proxy_protocol_server_port", unix, "proxy_protocol").start()
    config["origin"] = {"address": nginx.address, "proxy_protocol": version}
    stack.proxy.reload()
    with stack.connect() as client:
        client.sendall(b"GET / HTTP/1.0\r\nHost: demo.test\r\n\r\n")
        answer = b""
        while data := client.recv(65536):
            answer += data
        want = "%s %d %d" % (*client.getsockname(), stack.proxy.port)
        assert answer.endswith(want.encode()), answer


def test_the_clients_certificate_is_told(stack, config):
    seen = []

    def handler(conn):
        seen.append(conn.recv(65536))
        conn.sendall(b"ok")

    origin = Origin(handler)
    ca = stack.pki.ca("people")
    anna = ca.issue("anna", eku="clientAuth")
    config["tls"] = {"client_certificates": {"mode": "optional", "ca": str(ca.cert)}}
    config["origin"] = {"address": origin.address, "proxy_protocol": "v2"}
    stack.proxy.reload()

    def told(context):
        with stack.connect(context=context) as client:
            client.sendall(b"?")
            assert client.recv(10) == b"ok"
        return seen[-1]

    context = stack.context(tls12=True)  # the certificate, then the session that has it
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    assert b"\x01\x00\x00\x00\x01\x21\x00\x07TLSv1.2" in told(context)
    context.load_cert_chain(anna.chain, anna.key)
    header = told(context)
    assert b"\x07\x00\x00\x00\x00\x21\x00\x07TLSv1.2" in header
    assert b"\x22\x00\x04anna" in header
    assert b"\x23\x00\x1dECDHE-ECDSA-AES128-GCM-SHA256" in header  # as OpenSSL calls it
    origin.stop()


# --- pools --------------------------------------------------------------------------------------


def pool(name, *servers, **more):
    """An element of `origins`; a server is an address, or (address, weight)."""
    return {"name": name, **more,
            "servers": [{"address": s} if isinstance(s, str) else
                        {"address": s[0], "weight": s[1]} for s in servers]}


def use(stack, config, *pools, **more):
    """Puts these pools in force, and nothing else."""
    config.pop("origin", None)
    config.update(origins=list(pools), **more)
    stack.proxy.reload()


def named(text):
    """An origin that says its name and what it was sent."""
    def handler(conn):
        while data := conn.recv(65536):
            conn.sendall(text.encode() + b":" + data)
    return Origin(handler)


def ask(stack, host="demo.test", **kwargs):
    """Who answers a request."""
    with stack.connect(host, **kwargs) as client:
        client.sendall(b"?")
        return client.recv(100).decode().partition(":")[0]


def metric(stack, family, origin, **labels):
    return stack.proxy.metric(f"origin_{family}", origin=origin, **labels)


def outcome(stack, name):
    return stack.proxy.metric("connections_ended_total", outcome=name)


@pytest.fixture
def three():
    origins = [named(name) for name in "abc"]
    yield origins
    for origin in origins:
        origin.stop()


@pytest.fixture
def closed():
    """An address where connections are refused: bound, not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield "127.0.0.1:%d" % bound.getsockname()[1]


@pytest.fixture
def hanging():
    """An address where nothing answers: its queue is full, SYNs are dropped."""
    with contextlib.ExitStack() as opened:
        full = opened.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(8):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield "127.0.0.1:%d" % full.getsockname()[1]


def test_each_in_turn_and_by_weight(stack, config, three):
    a, b, c = (o.address for o in three)
    use(stack, config, pool("web", a, b, c))
    assert collections.Counter(ask(stack) for _ in range(9)) == {"a": 3, "b": 3, "c": 3}
    assert metric(stack, "connections_total", a, pool="web") == 3
    assert metric(stack, "connecting_seconds_total", a) > 0
    use(stack, config, pool("web", (a, 3), (b, 1)))
    counts = collections.Counter(ask(stack) for _ in range(24))
    assert abs(counts["a"] - 18) <= 2 and counts["a"] + counts["b"] == 24, counts
    # What was counted before the reload counts on.
    assert metric(stack, "connections_total", a) == 3 + counts["a"]


def test_the_fewest_connections(stack, config, three):
    a, b, _ = (o.address for o in three)
    use(stack, config, pool("web", (a, 1), (b, 3), balance="least_connections"))
    with contextlib.ExitStack() as opened:
        for _ in range(8):
            client = opened.enter_context(stack.connect())
            client.sendall(b"?")
            assert client.recv(10)
        assert metric(stack, "connections_open", a) == 2
        assert metric(stack, "connections_open", b) == 6
    wait_until(lambda: metric(stack, "connections_open", b) == 0, "the end of all")


def test_a_client_keeps_its_origin(stack, config, three):
    use(stack, config, pool("web", *(o.address for o in three), balance="hash_client"))

    def ask_from(host):
        plain = socket.create_connection(stack.proxy.address, 10 * SLOW, (host, 0))
        with stack.context().wrap_socket(plain, server_hostname="demo.test") as client:
            client.sendall(b"?")
            return client.recv(10)

    hosts = ["127.0.0.%d" % (i + 1) for i in range(12)]
    first = [ask_from(host) for host in hosts]
    assert len(set(first)) > 1, first  # ports differ each time, and so do the shares
    assert [ask_from(host) for host in hosts] == first


def test_backups_and_servers_that_are_full(stack, config, three, closed):
    """A server at its limit is passed over; a backup serves when no other can."""
    a, b, c = three
    web = pool("web", a.address, b.address, c.address)
    web["servers"][0]["max_connections"] = 2
    web["servers"][1].update(max_connections=1)
    web["servers"][2].update(backup=True, max_connections=1)
    use(stack, config, web)
    full = outcome(stack, "origin_full")
    with contextlib.ExitStack() as held:
        def who():
            client = held.enter_context(stack.connect())
            client.sendall(b"?")
            return client.recv(100).decode().partition(":")[0]
        assert sorted(who() for _ in range(3)) == ["a", "a", "b"]
        assert who() == "c"
        assert who() == ""  # an orderly close
        stack.proxy.wait_metric(full + 1, "connections_ended_total", outcome="origin_full")
        # A reload changes the limits of what is there.
        web["servers"][1]["max_connections"] = 2
        stack.proxy.reload()
        assert who() == "b"
    wait_until(lambda: all(metric(stack, "connections_open", o.address) == 0 for o in three),
               "room again")
    assert {ask(stack) for _ in range(6)} <= {"a", "b"}
    # Who refuses is out, and then out of the question; the backup is tried all the same.
    use(stack, config, pool("web", closed, c.address, max_failures=1))
    config["origins"][0]["servers"][1]["backup"] = True
    stack.proxy.reload()
    assert [ask(stack) for _ in range(3)] == ["c"] * 3
    assert metric(stack, "failures_total", closed) == 1


def test_names_and_protocols_choose_a_pool(stack, config, three):
    a, b, c = (o.address for o in three)
    config["tls"] = {"alpn": ["h2", "http/1.1", "x"]}
    config["names"][1]["origin"] = "two"
    use(stack, config, pool("one", a), pool("two", b), pool("three", c),
        alpn_origins=[{"protocol": "h2", "origin": "three"}])
    assert ask(stack) == "a"
    assert ask(stack, alpn=["http/1.1"]) == "a"
    assert ask(stack, alpn=["h2"]) == "c"
    assert ask(stack, "other.test") == "b"
    assert ask(stack, "other.test", alpn=["h2"]) == "b"
    config["names"][1]["alpn_origins"] = [{"protocol": "x", "origin": "one"}]
    stack.proxy.reload()
    assert ask(stack, "other.test", alpn=["x"]) == "a"
    assert ask(stack, "other.test", alpn=["h2"]) == "b"
    assert ask(stack, alpn=["x"]) == "a"
    # The short form beside pools is the one of all who name none.
    config["origin"] = {"address": b}
    stack.proxy.reload()
    assert ask(stack) == "b" and ask(stack, alpn=["h2"]) == "c"


def test_all_addresses_of_a_host_name(stack, config, three):
    port = three[0].address.rpartition(":")[2]
    use(stack, config, pool("web", f"localhost:{port}"))
    for _ in range(4):  # ::1, where it has that, refuses
        assert ask(stack) == "a"
    assert metric(stack, "addresses", f"localhost:{port}") >= 1
    config["origin"] = {"address": f"localhost:{port}"}
    del config["origins"]
    stack.proxy.reload()
    assert ask(stack) == "a"


def test_a_name_that_does_not_exist(stack, config, three):
    use(stack, config, pool("web", "nowhere.invalid:80", connect_timeout="500ms"),
        pool("both", "nowhere.invalid:80", three[0].address))
    before = outcome(stack, "origin_none")
    with stack.connect() as client:
        assert client.recv(1) == b""
    assert outcome(stack, "origin_none") == before + 1
    config["names"][0]["origin"] = "both"
    stack.proxy.reload()
    assert ask(stack) == "a"


# --- origins that fail ------------------------------------------------------------------------


def test_one_that_refuses(stack, config, three):
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    closed = "127.0.0.1:%d" % bound.getsockname()[1]
    use(stack, config, pool("web", closed, three[0].address, retry_min="10ms"))
    refused = metric(stack, "failures_total", closed, reason="refused")
    for _ in range(12):
        assert ask(stack) == "a"
    assert metric(stack, "failures_total", closed, reason="refused") == refused + 3
    assert metric(stack, "up", closed) == 0 and metric(stack, "up", three[0].address) == 1
    status = {o["name"]: o for o in stack.proxy.status()["origins"]}
    assert status[closed]["state"] == "down" and status[closed]["failures"] >= 3
    text = stack.proxy.ctl("status").stdout
    assert "POOL" in text and closed in text
    # What is known of it is kept by a reload; once it listens, a probe finds it.
    stack.proxy.reload()
    assert metric(stack, "up", closed) == 0
    bound.listen(64)
    wait_until(lambda: metric(stack, "up", closed) == 1, "the probe")
    bound.close()


def test_one_that_hangs(stack, config, three, hanging):
    use(stack, config, pool("web", hanging, three[0].address, attempt_timeout=f"{400 * SLOW}ms",
                            max_failures=2))
    for _ in range(8):
        assert ask(stack) == "a"
    assert metric(stack, "failures_total", hanging, reason="timeout") == 2
    assert metric(stack, "up", hanging) == 0


def test_nobody_left_is_a_clean_end_at_once(stack, config, closed, hanging):
    use(stack, config, pool("web", closed, hanging, attempt_timeout="100ms",
                            connect_timeout="5m", max_failures=1, retry_min="1m",
                            retry_max="1m"))
    ends = {name: outcome(stack, name)
            for name in ("origin_refused", "origin_timeout", "origin_none")}
    with stack.connect() as client:
        assert client.recv(1) == b""  # close_notify, or this would be an error
    with stack.connect() as client:
        assert client.recv(1) == b""
    assert outcome(stack, "origin_none") == ends["origin_none"] + 1
    assert (outcome(stack, "origin_refused") + outcome(stack, "origin_timeout") ==
            ends["origin_refused"] + ends["origin_timeout"] + 1)


def test_the_deadline_counts_for_all_tries(stack, config, hanging, closed):
    use(stack, config, pool("web", hanging, closed.replace("127.0.0.1", "127.0.0.2"),
                            attempt_timeout="5m", connect_timeout="300ms", max_failures=0))
    before = outcome(stack, "origin_timeout")
    with stack.connect() as client, stack.connect() as other:
        assert client.recv(1) == b"" and other.recv(1) == b""
    wait_until(lambda: outcome(stack, "origin_timeout") > before, "the deadline")


def test_one_that_resets_is_counted(stack, config):
    def handler(conn):
        conn.recv(1)
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    origin = Origin(handler)
    use(stack, config, pool("web", origin.address))
    with stack.connect() as client:
        client.sendall(b"?")
        with pytest.raises(OSError):
            client.recv(1)
    assert metric(stack, "failures_total", origin.address, reason="reset") == 1
    origin.stop()


def test_checks_find_what_no_client_asked_for(stack, config, procs, tmp_path, three):
    nginx = Nginx(procs, tmp_path, "checked", "n:", more="proxy_protocol").start()
    use(stack, config, pool("web", nginx.address, three[0].address, proxy_protocol="v2",
                            check={"interval": f"{100 * SLOW}ms", "timeout": f"{100 * SLOW}ms",
                                   "rise": 2, "fall": 2}))
    up = lambda: metric(stack, "up", nginx.address)
    wait_until(lambda: up() == 1, "it to be up")
    nginx.stop()
    wait_until(lambda: up() == 0, "the checks to see that it is gone")
    assert metric(stack, "failures_total", nginx.address) == 0  # no client has
    nginx.start()
    wait_until(lambda: up() == 1, "the checks to see that it is back")
    assert "broken header" not in (nginx.folder / "error.log").read_text()
    # Without checks nobody says any more that it is down.
    nginx.stop()
    wait_until(lambda: up() == 0, "the checks to see that it is gone again")
    del config["origins"][0]["check"]
    stack.proxy.reload()
    assert up() == 1


class Load:
    """Clients that ask all the time; pause() returns when no request is under way."""

    def __init__(self, stack, num=4):
        self.stack = stack
        self.seen = collections.Counter()
        self.failures = []
        self.may_run = threading.Event()
        self.may_run.set()
        self.is_over = False
        self.locks = [threading.Lock() for _ in range(num)]
        self.threads = [threading.Thread(target=self.run, args=(lock,), daemon=True)
                        for lock in self.locks]
        for thread in self.threads:
            thread.start()

    def run(self, lock):
        while not self.is_over:
            self.may_run.wait()
            with lock:
                try:
                    answer = self.stack.get()
                    assert answer, "an end without an answer"
                    self.seen[answer] += 1
                except Exception as e:
                    self.failures.append(e)

    @contextlib.contextmanager
    def pause(self):
        self.may_run.clear()
        with contextlib.ExitStack() as held:
            for lock in self.locks:
                held.enter_context(lock)
            yield
        self.may_run.set()

    def more(self, num, *who):
        """Waits until each of these has answered so many times more."""
        before = self.seen.copy()
        wait_until(lambda: all(self.seen[w] >= before[w] + num for w in who), f"answers of {who}")

    def stop(self):
        self.is_over = True
        self.may_run.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.parametrize("balance", ["round_robin", "least_connections"])
def test_dying_and_coming_back_under_load_fails_no_request(stack, config, procs, tmp_path,
                                                           balance):
    one = Nginx(procs, tmp_path, "one", "one").start()
    two = Nginx(procs, tmp_path, "two", "two", unix=True).start()
    use(stack, config, pool("web", one.address, two.address, balance=balance, retry_min="50ms",
                            retry_max="200ms"))
    load = Load(stack)
    try:
        load.more(5, b"one", b"two")
        for nginx, name, other in ((one, b"one", b"two"), (two, b"two", b"one")):
            with load.pause():  # what it has half answered dies with it
                nginx.process.popen.kill()
                nginx.process.popen.wait()
            load.more(20, other)
            if nginx is two:
                (nginx.folder / "origin.sock").unlink()
            nginx.start()
            load.more(5, name, other)
    finally:
        load.stop()
    assert not load.failures, load.failures[:3]


# --- PROXY headers that come in --------------------------------------------------------------


def v2(source="192.0.2.7", port=1234, destination="198.51.100.1", command=1, length=None):
    """A PROXY header of version 2 (haproxy's proxy-protocol.txt, section 2.2)."""
    body = b"" if command == 0 else struct.pack(
        ">4s4sHH", socket.inet_aton(source), socket.inet_aton(destination), port, 443)
    return (b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x20 | command, 0x11]) +
            struct.pack(">H", len(body) if length is None else length) + body)


@pytest.fixture
def balanced(stack, config):
    """A listener that believes 127.0.0.2, before an origin that says what it is told."""
    def handler(conn):
        told = b""
        while not told.endswith(b"?"):
            told += conn.recv(65536)
        conn.sendall(told)

    origin = Origin(handler)
    config["listeners"][0]["proxy_protocol"] = {"from": ["127.0.0.2", "2001:db8::/32"]}
    config["origin"] = {"address": origin.address, "proxy_protocol": "v1"}
    stack.proxy.reload()
    yield stack
    origin.stop()


@contextlib.contextmanager
def plain_from(stack, host):
    with socket.create_connection(stack.proxy.address, 10 * SLOW, (host, 0)) as plain:
        yield plain


def told_after(stack, *parts, host="127.0.0.2"):
    """What the origin is told when a peer begins with these bytes."""
    with plain_from(stack, host) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            plain.sendall(part)
        with stack.context().wrap_socket(plain, server_hostname="demo.test") as client:
            client.sendall(b"?")
            return client.recv(1000).decode(), plain


def test_a_balancer_says_who_the_client_is(balanced):
    proxy = balanced.proxy
    told, _ = told_after(balanced, v2())
    assert told == "PROXY TCP4 192.0.2.7 198.51.100.1 1234 443\r\n?"
    wait_until(lambda: "client=192.0.2.7:1234 " in proxy.log(), "the access line")
    header = v2("192.0.2.8")
    told, _ = told_after(balanced, *(header[i:i + 1] for i in range(len(header))))
    assert told.startswith("PROXY TCP4 192.0.2.8 198.51.100.1 ")
    # A header of nobody's: the peer itself is the client.
    told, _ = told_after(balanced, v2(command=0))
    assert told.startswith("PROXY TCP4 127.0.0.2 127.0.0.1 ")
    # Others are clients, and say nothing first.
    told, _ = told_after(balanced, host="127.0.0.1")
    assert told.startswith("PROXY TCP4 127.0.0.1 127.0.0.1 ")


def ends(plain):
    """Waits for the end of a connection, in whichever way."""
    try:
        while plain.recv(1000):
            pass
    except OSError:
        pass
    return True


@pytest.mark.parametrize("start", [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # TLS at once
    b"PROXY TCP4 192.0.2.7 198.51.100.1 1234 443\r\n",
    v2(length=0xffff),
    v2(length=3),
    v2(command=2),
    b"\r\n\r\n\0\r\nQUIT\r",
], ids=["tls", "version_1", "too_long", "too_short", "command", "signature"])
def test_a_balancer_that_sends_no_header_of_ours(balanced, start):
    before = balanced.proxy.failures("proxy_header")
    with plain_from(balanced, "127.0.0.2") as plain:
        plain.sendall(start)
        assert ends(plain)
    balanced.proxy.wait_metric(before + 1, "handshakes_failed_total", reason="proxy_header")


def test_a_header_of_somebody_who_is_not_trusted(balanced):
    before = balanced.proxy.metric("handshakes_failed_total")
    with plain_from(balanced, "127.0.0.1") as plain:
        plain.sendall(v2())
        assert ends(plain)
    balanced.proxy.wait_metric(before + 1, "handshakes_failed_total")


def test_a_header_that_does_not_come(balanced, config):
    proxy = balanced.proxy
    config["limits"] = {**config["limits"], "handshake": "300ms"}
    before = {reason: proxy.failures(reason) for reason in ("timeout", "scan", "closed")}
    proxy.reload()
    with plain_from(balanced, "127.0.0.2") as slow:
        slow.sendall(v2()[:20])
        assert ends(slow)
    # So late that it is a deadline's, so early that it is not the test's.
    config["limits"]["handshake"] = "30s"
    proxy.reload()
    with plain_from(balanced, "127.0.0.2") as cut, plain_from(balanced, "127.0.0.2") as check:
        cut.sendall(v2()[:20])
        check.sendall(v2(command=0))  # how a balancer looks whether we are there
    for reason, num in before.items():
        proxy.wait_metric(num + 1, "handshakes_failed_total", reason=reason)


def test_the_clients_address_counts_not_the_balancers(balanced, config, three):
    config["limits"] = {**config["limits"], "address_connections": 1}
    use(balanced, config, pool("web", *(o.address for o in three), balance="hash_client"))

    @contextlib.contextmanager
    def client_of(source):
        with plain_from(balanced, "127.0.0.2") as plain:
            plain.sendall(v2(source))
            with balanced.context().wrap_socket(plain, server_hostname="demo.test") as client:
                client.sendall(b"?")
                yield client.recv(10)

    refused = balanced.proxy.metric("connections_refused_total", reason="address_connections")
    sources = ["192.0.2.%d" % i for i in range(1, 13)]
    with contextlib.ExitStack() as opened:
        first = [opened.enter_context(client_of(source)) for source in sources]
        assert len(set(first)) > 1, first  # ports differ each time, and so do the shares
        with pytest.raises(OSError), client_of(sources[0]):
            pass
    balanced.proxy.wait_metric(refused + 1, "connections_refused_total",
                               reason="address_connections")
    wait_until(lambda: f"failure=address_limit" in balanced.proxy.log(), "its line")
    line = next(l for l in balanced.proxy.log().splitlines() if "failure=address_limit" in l)
    assert f"client={sources[0]}:" in line, line
    wait_until(lambda: balanced.proxy.metric("connections_open") == 0, "the end of all")
    for source, answer in zip(sources, first):
        with client_of(source) as again:
            assert again == answer
        wait_until(lambda: balanced.proxy.metric("connections_open") == 0, "its end")
