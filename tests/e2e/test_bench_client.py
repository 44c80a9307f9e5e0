# SPDX-License-Identifier: Apache-2.0
"""deputy-bench against real servers: what it counts is what happened. No figure of time
is asserted."""

import json
import signal
import socket

import pytest
from support.pki import make_key, openssl
from support.procs import BIN_DIR, SLOW, free_port, wait_until
from support.stack import Origin, Stack

BENCH = BIN_DIR / "deputy-bench"


def is_listening(process, port):
    """Whether a foreign server accepts; one that ended cannot."""
    assert process.is_running(), process.err()
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def bench(procs, *args, code=0, timeout=60):
    """Runs deputy-bench; returns its summary, or its complaint when it is to fail."""
    done = procs.run([BENCH, *args], timeout)
    assert done.returncode == code, done.stderr
    if code == 0:
        assert done.stdout.count("\n") == 1, done.stdout
        return json.loads(done.stdout)
    return done.stderr


def light(procs, port, *args, **kwargs):
    return bench(procs, "handshakes", "--target", f"127.0.0.1:{port}", "--timeout",
                 f"{5 * SLOW}s", *args, **kwargs)


def nss(procs, port, *args, **kwargs):
    return bench(procs, "nss", "--target", f"127.0.0.1:{port}", "--timeout", f"{5 * SLOW}s", *args,
                 **kwargs)


@pytest.fixture
def s_server(procs, pki):
    """openssl s_server with a leaf of a kind; returns its port."""
    ca = pki.ca("web")

    def start(*args, kind="p256"):
        identity = ca.issue_leaf("localhost", kind=kind, name=f"leaf-{kind}")
        port = free_port()
        process = procs.foreign("s_server", ["openssl", "s_server", "-accept", f"127.0.0.1:{port}",
                                             "-cert", identity.cert, "-key", identity.key, "-quiet",
                                             "-www", *args])
        wait_until(lambda: is_listening(process, port), "s_server")
        return port

    start.ca = ca
    return start


# --- foreign servers -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa2048"])
def test_openssl_with_each_kind_of_key(procs, s_server, kind):
    summary = light(procs, s_server("-tls1_3", kind=kind), "--count", "12", "--verify", "1")
    assert summary["counts"]["ok"] == summary["counts"]["verified"] == 12
    assert summary["counts"]["dc"] == 0
    assert summary["issuers"] == {"web": 12}
    assert summary["latency_us"]["handshake"]["num"] == 12


@pytest.mark.parametrize("suite", ["aes128", "aes256", "chacha20"])
@pytest.mark.parametrize("share", ["fresh", "reused", "base"])
def test_openssl_resumes(procs, s_server, suite, share):
    summary = light(procs, s_server("-tls1_3"), "--count", "6", "--resume", "--tickets", "2",
                    "--ciphers", suite, "--key-share", share)
    assert summary["counts"]["resumed"] == summary["counts"]["ok"] == 6
    assert summary["suites"] == {suite: 6}


@pytest.mark.parametrize("args,reason", [
    (["-tls1_2"], "alert_70"),                        # protocol_version
    (["-tls1_3", "-groups", "P-256"], "alert_40"),    # handshake_failure: we have X25519
    (["-tls1_3", "-Verify", "1"], "certificate_request"),
])
def test_openssl_that_cannot_be_pleased(procs, s_server, args, reason):
    summary = light(procs, s_server(*args), "--count", "4")
    assert summary["counts"]["ok"] == 0
    assert summary["failures"] == {reason: 4}


def test_nobody_there_is_refused(procs):
    port = free_port()
    assert light(procs, port, "--count", "3")["failures"] == {"refused": 3}
    assert nss(procs, port, "--count", "3")["failures"] == {"refused": 3}
    complaint = light(procs, port, "--resume", code=1)
    assert "no ticket" in complaint and "refused" in complaint


def say_something_else(conn):
    conn.sendall(b"SSH-2.0-x\r\n")
    conn.recv(65536)


def test_another_protocol_is_told_at_once(procs):
    origin = Origin(say_something_else)
    try:
        port = int(origin.address.rpartition(":")[2])
        assert light(procs, port, "--count", "2")["failures"] == {"decode": 2}
    finally:
        origin.stop()


@pytest.fixture
def nginx(procs, pki):
    """nginx with TLS 1.3 over a small and a large file; returns its port."""
    folder = procs.folder / "nginx"
    (folder / "www").mkdir(parents=True)
    (folder / "www" / "small").write_bytes(b"s" * 1024)
    (folder / "www" / "large").write_bytes(b"l" * (4 << 20))
    identity = pki.ca("nginx-ca").issue_leaf("localhost", name="nginx-leaf")
    port = free_port()
    temp = "".join(f"{n}_temp_path {folder}/{n};" for n in
                   ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(f"""
        user root; daemon off; worker_processes 1; pid {folder}/pid; error_log stderr;
        events {{ worker_connections 512; }}
        http {{ access_log off; {temp} keepalive_requests 100000;
          server {{ listen 127.0.0.1:{port} ssl; root {folder}/www; ssl_protocols TLSv1.3;
            ssl_certificate {identity.chain}; ssl_certificate_key {identity.key}; }} }}""")
    process = procs.foreign("nginx", ["nginx", "-c", folder / "nginx.conf", "-p", folder])
    wait_until(lambda: is_listening(process, port), "nginx")
    return port


def test_nginx_requests_downloads_and_resumption(procs, nginx):
    summary = light(procs, nginx, "--count", "3", "--requests", "20", "--path", "/small",
                    "--concurrency", "3")
    assert summary["counts"]["requests"] == 60 and summary["counts"]["bytes"] > 60 * 1024
    assert summary["latency_us"]["request"]["num"] == 60
    summary = light(procs, nginx, "--count", "2", "--download", "4MiB", "--path", "/large")
    assert summary["counts"]["ok"] == 2 and summary["counts"]["bytes"] >= 8 << 20
    for client in light, nss:
        summary = client(procs, nginx, "--count", "2", "--requests", "2", "--path", "/absent")
        assert summary["failures"] == {"http_404": 2}
    summary = light(procs, nginx, "--count", "2", "--download", "5MiB", "--path", "/large")
    assert summary["failures"] == {"short_response": 2}
    summary = light(procs, nginx, "--count", "10", "--resume", "--concurrency", "4")
    assert summary["counts"]["resumed"] == 10
    summary = nss(procs, nginx, "--count", "5", "--resume", "--requests", "2", "--path", "/small")
    assert summary["counts"]["resumed"] == 5 and summary["counts"]["requests"] == 10


# --- NSS's checks --------------------------------------------------------------------


def test_nss_checks_chain_and_name(procs, pki, s_server):
    port = s_server("-tls1_3")
    other = pki.ca("other")
    good = nss(procs, port, "--count", "3", "--ca", s_server.ca.cert)
    assert good["counts"]["ok"] == 3 and good["verifies_chain"] is True
    assert good["issuers"] == {"web": 3}
    summary = nss(procs, port, "--count", "3", "--ca", other.cert)
    assert summary["failures"] == {"sec_error_unknown_issuer": 3}
    summary = nss(procs, port, "--count", "3", "--ca", s_server.ca.cert, "--server-name", "x.test")
    assert summary["failures"] == {"ssl_error_bad_cert_domain": 3}
    assert nss(procs, port, "--count", "3")["verifies_chain"] is False
    assert "cannot" in nss(procs, port, "--ca", procs.folder / "absent.pem", code=1)


# --- a whole deployment ------------------------------------------------------------------


@pytest.fixture(scope="module")
def stack(module_procs, module_pki):
    stack = Stack(module_procs, module_pki)
    stack.add_name("plain.test",
                   [("primary", stack.leaf("plain", "plain.test", delegation=False))])
    stack.start(wait_credentials=2)
    yield stack
    stack.stop()


@pytest.mark.parametrize("client", [light, nss])
def test_deputy_with_and_without_credentials(stack, client):
    for args, source, num_dc in [((), "dc", 8), (("--dc", "off"), "certificate", 0)]:
        before = stack.proxy.metric("handshakes_total", source=source, version="1.3")
        summary = client(stack.procs, stack.proxy.port, "--server-name", "demo.test", "--count",
                         "8", *args)
        assert summary["counts"]["ok"] == 8, summary
        assert summary["counts"]["dc"] == num_dc
        assert summary["issuers"] == {"web-one": 8}
        stack.proxy.wait_metric(before + 8, "handshakes_total", source=source, version="1.3")


@pytest.mark.parametrize("client", [light, nss])
def test_deputy_resumes(stack, client):
    summary = client(stack.procs, stack.proxy.port, "--server-name", "demo.test", "--count", "8",
                     "--resume", "--requests", "1")
    assert summary["counts"]["resumed"] == summary["counts"]["requests"] == 8, summary
    assert summary["counts"]["dc"] == 0


@pytest.mark.parametrize("client", [light, nss])
def test_deputy_refuses_a_name(stack, client):
    summary = client(stack.procs, stack.proxy.port, "--server-name", "unknown.test", "--count", "3")
    assert summary["failures"] == {"alert_112": 3}


def test_names_take_turns_and_raw_lines_tell_each(stack, tmp_path):
    raw = tmp_path / "raw.jsonl"
    summary = light(stack.procs, stack.proxy.port, "--server-name", "demo.test,plain.test",
                    "--count", "10", "--warmup", "2", "--raw", raw, "--rate", "500", "--arrivals",
                    "poisson", "--label", "turns")
    assert summary["counts"]["dc"] == 5 and summary["counts"]["warmup"] == 2
    assert summary["label"] == "turns" and summary["loop"] == "open"
    run, *lines = [json.loads(line) for line in raw.read_text().splitlines()]
    assert run["type"] == "run" and run["zero_monotonic_us"] == summary["zero_monotonic_us"]
    assert len(lines) == 12
    assert sum(line.get("warmup", False) for line in lines) == 2
    for line in lines:
        assert line["result"] == "ok" and line["dc"] == (line["name"] == "demo.test")
        assert (line["scheduled_us"] <= line["start_us"] <= line["connected_us"]
                <= line["handshake_us"] <= line["end_us"])


def test_the_servers_cpu_time_is_counted(stack):
    summary = light(stack.procs, stack.proxy.port, "--server-name", "demo.test", "--count", "100",
                    "--server-pid", stack.proxy.process.pid)
    assert summary["server_cpu"]["per_handshake_us"] > 0
    assert "no process" in light(stack.procs, stack.proxy.port, "--server-pid", "2147483000",
                                 code=2)


def test_idle_connections_are_held_until_the_signal(stack):
    process = stack.procs.start("hold", [BENCH, "handshakes", "--target",
                                         f"127.0.0.1:{stack.proxy.port}", "--server-name",
                                         "demo.test", "--hold", "20", "--concurrency", "5"])
    wait_until(lambda: "holding 20" in process.err(), "20 connections")
    process.signal(signal.SIGINT)
    assert process.wait() == 0
    summary = json.loads(process.out())
    assert summary["interrupted"] is True and summary["held_lost"] == 0
    assert summary["counts"]["ok"] == 20


@pytest.mark.parametrize("args", [["handshakes"], ["nss", "--concurrency", "2"]])
def test_interrupt_keeps_what_there_is(stack, args):
    process = stack.procs.start("bench", [BENCH, *args, "--target",
                                          f"127.0.0.1:{stack.proxy.port}", "--server-name",
                                          "demo.test", "--duration", "60s", "--progress"])
    wait_until(lambda: " ok," in process.err(), "the first second")
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    summary = json.loads(process.out())
    assert summary["interrupted"] is True and summary["counts"]["ok"] > 0
    assert summary["counts"]["failed"] == 0


# --- the key server ------------------------------------------------------------------------


def key_args(stack, client="proxy"):
    identity = stack.keyserver.client(client)
    return ["keyserver", "--target", "%s:%d" % stack.keyserver.address, "--ca",
            stack.keyserver.ca.cert, "--certificate", identity.cert, "--key", identity.key]


def test_keyserver_signs_and_every_signature_is_checked(stack):
    leaf = stack.leaves["demo.test-primary"].cert
    for args in (["--window", "16", "--connections", "3"], ["--rate", "500"], []):
        summary = bench(stack.procs, *key_args(stack), "--sign-certificate", leaf, "--count", "50",
                        "--warmup", "5", "--verify", "1", *args)
        assert summary["counts"]["ok"] == summary["counts"]["verified"] == 50, summary
        assert summary["schemes"] == {"ecdsa_secp256r1_sha256": 50}
        assert summary["latency_us"]["request"]["num"] == 50
    summary = bench(stack.procs, *key_args(stack), "--ping", "--count", "20")
    assert summary["schemes"] == {"ping": 20}


def test_keyserver_refusals_are_told_by_code(stack, tmp_path):
    leaf = stack.leaves["demo.test-primary"].cert
    key = make_key(tmp_path / "x.key")
    openssl("req", "-x509", "-key", key, "-subj", "/CN=x", "-out", tmp_path / "x.pem")
    for args, reason in [
            ([*key_args(stack, "stranger"), "--sign-certificate", leaf], "not_authorised"),
            ([*key_args(stack), "--sign-certificate", leaf, "--blind"], "not_authorised"),
            ([*key_args(stack), "--sign-certificate", tmp_path / "x.pem"], "key_not_found"),
            ([*key_args(stack), "--ski", "ab" * 20, "--scheme", "ed25519"], "key_not_found")]:
        summary = bench(stack.procs, *args, "--count", "5")
        assert summary["counts"]["ok"] == 0 and summary["failures"] == {reason: 5}, summary


def test_keyserver_connections_are_held_idle(stack):
    process = stack.procs.start("hold-keys", [BENCH, *key_args(stack), "--hold", "--connections",
                                              "12", "--timeout", f"{5 * SLOW}s"])
    wait_until(lambda: "holding 12" in process.err(), "12 connections")
    assert process.is_running()
    process.signal(signal.SIGINT)
    assert process.wait(10) == 0
    summary = json.loads(process.out())
    assert summary["connections_opened"] == 12 and summary["counts"]["ok"] == 0
    summary = bench(stack.procs, *key_args(stack), "--hold", "--duration", "50ms")
    assert summary["connections_opened"] == 1 and summary["connection_ends"] == {}


def test_keyserver_works_a_burst_off_alone(stack):
    leaf = stack.leaves["demo.test-primary"].cert
    summary = bench(stack.procs, *key_args(stack), "--sign-certificate", leaf, "--connections", "4",
                    "--window", "8", "--count", "32", "--burst", "100ms", "--verify", "1",
                    "--server-pid", str(stack.keyserver.process.pid))
    assert summary["counts"]["ok"] == summary["counts"]["verified"] == 32, summary
    # Nobody reads before the time is up.
    assert summary["latency_us"]["request"]["min"] >= 100000


def test_no_key_server(stack):
    args = key_args(stack)
    complaint = bench(stack.procs, *args[:2], f"127.0.0.1:{free_port()}", *args[3:], "--ping",
                      "--timeout", "1s", code=1)
    assert "no connection to the key server" in complaint
    complaint = bench(stack.procs, *args, "--ping", "--host", "other.test", "--timeout", "1s", code=1)
    assert "no connection to the key server" in complaint


# --- the command line ------------------------------------------------------------------------


def test_floor(procs):
    rows = bench(procs, "floor", "--rounds", "2", "--round-time", "1ms")["rows"]
    assert {"handshake.p256", "handshake.p256_dc", "client.base", "p256.sign"} <= {
        row["name"] for row in rows}
    assert all(0 < row["min_us"] <= row["median_us"] <= row["max_us"] for row in rows)


KEYSERVER = ["keyserver", "--target", "127.0.0.1:1", "--ca", "x", "--certificate", "x", "--key",
             "x"]


@pytest.mark.parametrize("args,about", [
    ([], "usage:"),
    (["nonsense"], "unknown subcommand"),
    (["handshakes"], "--target is required"),
    (["handshakes", "--target", "127.0.0.1:1", "--nonsense", "1"], "unknown option"),
    (["handshakes", "--target", "127.0.0.1"], "host:port"),
    (["handshakes", "--target", "127.0.0.1:1", "--rate", "-1"], "--rate"),
    (["handshakes", "--target", "127.0.0.1:1", "--hold", "5", "--count", "5"], "--hold"),
    (["handshakes", "--target", "127.0.0.1:1", "--ciphers", "rc4"], "--ciphers"),
    (["handshakes", "--target", "127.0.0.1:1", "--bind", "nowhere"], "--bind"),
    (["handshakes", "--target", "127.0.0.1:1", "--requests", "1", "--download", "5"], "exclude"),
    (["keyserver", "--target", "127.0.0.1:1"], "is required"),
    ([*KEYSERVER, "--hold", "--count", "5"], "--hold"),
    ([*KEYSERVER, "--ping", "--burst", "5ms"], "--server-pid"),
    (["nss", "--target", "127.0.0.1:1", "--path", "x"], "--path"),
    (["floor", "--only", "nonsense"], "no such row"),
])
def test_bad_command_lines_say_what_is_wrong(procs, args, about):
    assert about in bench(procs, *args, code=2)


@pytest.mark.parametrize("name", ["handshakes", "nss", "keyserver", "floor"])
def test_help_names_every_option_with_its_default(procs, name):
    done = procs.run([BENCH, name, "--help"])
    assert done.returncode == 0
    assert f"usage: deputy-bench {name}" in done.stdout and "(default" in done.stdout


def test_a_raw_file_that_cannot_be_written(procs):
    assert "cannot write" in light(procs, 1, "--raw", procs.folder / "no" / "file", code=1)
