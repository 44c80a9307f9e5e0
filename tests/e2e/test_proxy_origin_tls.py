# SPDX-License-Identifier: Apache-2.0
"""TLS to origins: real ones (nginx), and ones that a test decides every byte of."""

import contextlib
import os
import socket
import ssl
import threading
import time

import pytest

from support.procs import SANITIZE, SLOW, wait_until
from support.stack import Origin, Stack, config, echo  # noqa: F401 (fixtures)
from support.tls import MemoryTls


@pytest.fixture(scope="module")
def stack(module_procs, module_pki):
    stack = Stack(module_procs, module_pki, issuer=False)
    stack.start()
    yield stack
    stack.stop()


@pytest.fixture(scope="module")
def ca(stack):
    return stack.pki.ca("origins")


@pytest.fixture(scope="module")
def app(ca):
    return ca.issue("app", san=["DNS:app.test", "IP:127.0.0.1"], eku="serverAuth")


def use(stack, config, *addresses, tls, **more):
    config.pop("origin", None)
    config["origins"] = [{"name": "app", "servers": [{"address": a} for a in addresses],
                          "tls": tls, **more}]
    stack.proxy.reload()


class TlsOrigin(Origin):
    """An Origin whose handler is given a TLS connection."""

    def __init__(self, identity, handler, tune=lambda context: None):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(identity.chain, identity.key)
        tune(self.context)
        self.sockets = []

        def serve(conn):
            with contextlib.suppress(ssl.SSLError, OSError):
                tls = self.context.wrap_socket(conn, server_side=True)
                self.sockets.append(tls)
                handler(tls)
        super().__init__(serve)


def tls_echo(tls):
    """Sends back what comes until close_notify, then says the same."""
    while data := tls.recv(65536):
        tls.sendall(data)
    with contextlib.suppress(OSError):
        tls.unwrap().close()


def metric(stack, family, **labels):
    return stack.proxy.metric(f"origin_{family}", pool="app", **labels)


def test_nginx_over_tls(stack, config, procs, tmp_path, ca, app):
    own = ca.issue("own", san=["DNS:proxy.test"], eku="clientAuth")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        with contextlib.suppress(PermissionError):
            os.chmod(folder, 0o755)
    address = tmp_path / "nginx.sock"
    (tmp_path / "nginx.conf").write_text(f"""
daemon off; master_process off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {tmp_path}/a; proxy_temp_path {tmp_path}/b; fastcgi_temp_path {tmp_path}/c;
  uwsgi_temp_path {tmp_path}/d; scgi_temp_path {tmp_path}/e;
  ssl_certificate {app.chain}; ssl_certificate_key {app.key};
  ssl_client_certificate {ca.cert}; ssl_verify_client on;
  ssl_session_cache shared:s:1m;
  server {{
    listen unix:{address} ssl proxy_protocol;
    location / {{
      return 200 "$proxy_protocol_addr $ssl_server_name $ssl_client_verify $ssl_alpn_protocol $ssl_session_reused";
    }}
  }}
}}
""")
    procs.foreign("nginx", ["/usr/sbin/nginx", "-e", tmp_path / "error.log", "-c",
                            tmp_path / "nginx.conf"])
    wait_until(address.exists, "nginx")
    config["tls"] = {"alpn": ["http/1.1"]}
    config["workers"] = 1
    use(stack, config, f"unix:{address}", proxy_protocol="v2",
        tls={"ca": str(ca.cert), "name": "app.test", "certificate": str(own.chain),
             "key": str(own.key)})

    def get():
        with stack.connect(alpn=["http/1.1"]) as client:
            client.sendall(b"GET / HTTP/1.0\r\nHost: demo.test\r\n\r\n")
            answer = b""
            while data := client.recv(65536):
                answer += data
            return answer.partition(b"\r\n\r\n")[2].decode()

    assert get() == "127.0.0.1 app.test SUCCESS http/1.1 ."
    wait_until(lambda: get() == "127.0.0.1 app.test SUCCESS http/1.1 r", "a session to be resumed")
    assert metric(stack, "failures_total") == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_many_bytes_both_ways(stack, config, ca, app, version):
    def tune(context):
        context.maximum_version = version

    origin = TlsOrigin(app, tls_echo, tune)
    use(stack, config, origin.address, tls={"ca": str(ca.cert)})  # its certificate has the IP
    data = os.urandom(3 << 20)
    with MemoryTls(stack.proxy.address, stack.context(), "demo.test", timeout=30) as client:
        # Sealed beforehand: two threads must not use one of OpenSSL's connections at once.
        sealed = [client.sealed(data[at:at + 16384]) for at in range(0, len(data), 16384)]
        sender = threading.Thread(target=lambda: [client.sock.sendall(s) for s in sealed],
                                  daemon=True)
        sender.start()
        assert client.read_exactly(len(data)) == data
        sender.join()
        client.send(b"and on")
        assert client.read_exactly(6) == b"and on"
        # The client's end is the origin's to know, and the other way round.
        client.close_notify()
        assert client.read() == b""
    wait_until(lambda: metric(stack, "connections_open") == 0, "the end")
    assert origin.failures == [] and metric(stack, "failures_total") == 0
    origin.stop()


def test_an_origin_with_nagles_algorithm_waits_for_no_delayed_ack(stack, config, ca, app):
    """Its tickets go before its answer, which waits until they are confirmed."""
    origin = TlsOrigin(app, tls_echo)
    use(stack, config, origin.address, tls={"ca": str(ca.cert)})
    took = []
    for _ in range(15):
        with stack.connect() as client:
            start = time.monotonic()
            client.sendall(b"?")
            assert client.recv(10) == b"?"
            took.append(time.monotonic() - start)
    if not SANITIZE:  # which may take as long as what is looked for: 40 ms
        assert min(took) < 0.03, took
    origin.stop()


def test_an_origin_that_speaks_first(stack, config, ca, app):
    origin = TlsOrigin(app, lambda tls: (tls.sendall(b"220 ready\r\n"), tls_echo(tls)))
    use(stack, config, origin.address, tls={"ca": str(ca.cert)})
    for _ in range(3):
        with stack.connect() as client:
            assert client.recv(100) == b"220 ready\r\n"
    origin.stop()


def failed(stack, config, origin, other, attempt_s=10, **tls):
    """An origin that must not be believed: the other one is taken."""
    use(stack, config, origin.address, other.address, tls=tls, max_failures=0,
        attempt_timeout=f"{attempt_s * SLOW}s", connect_timeout=f"{20 * SLOW}s")
    for _ in range(4):
        with stack.connect() as client:
            client.sendall(b"secret")
            assert client.recv(10) == b"secret"
    num = metric(stack, "failures_total", origin=origin.address)
    assert num >= 2
    return metric(stack, "failures_total", origin=origin.address, reason="tls")


def test_an_origin_that_is_not_who_it_should_be(stack, config, ca, app):
    other = TlsOrigin(app, tls_echo)
    seen = []

    def spy(tls):
        seen.append(tls.recv(100))

    stranger_ca = stack.pki.ca("stranger")
    impostors = [
        stranger_ca.issue("app", san=["DNS:app.test", "IP:127.0.0.1"], eku="serverAuth"),
        ca.issue("else", san=["DNS:else.test"], eku="serverAuth"),
        ca.issue("old", san=["DNS:app.test", "IP:127.0.0.1"], eku="serverAuth", days=-1),
        ca.issue("client", san=["DNS:app.test", "IP:127.0.0.1"], eku="clientAuth"),
    ]
    for identity in impostors:
        origin = TlsOrigin(identity, spy)
        assert failed(stack, config, origin, other, ca=str(ca.cert), name="app.test") >= 2
        origin.stop()
    assert not [data for data in seen if data], seen  # not a byte of the client's
    wait_until(lambda: "origin_tls_failed" in stack.proxy.log(), "the reason")
    other.stop()


def reasons(stack, origin):
    """What the log says of TLS with an origin: of its certificate, and in the library's words."""
    lines = [line for line in stack.proxy.log().splitlines()
             if "origin_tls_failed" in line and f"origin={origin.address} " in line]
    return {part for line in lines for part in (line.partition('certificate="')[2].partition('"')[0],
                                                line.partition("reason=")[2].partition(" ")[0])}


def test_an_origin_that_wants_a_certificate_of_ours(stack, config, ca, app):
    """In TLS 1.3 it says so after the handshake: too late for another, but not unsaid."""
    def tune(context):
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(ca.cert)

    origin = TlsOrigin(app, tls_echo, tune)
    use(stack, config, origin.address, tls={"ca": str(ca.cert)})

    def is_told():
        with stack.connect() as client, contextlib.suppress(OSError):
            client.recv(10)
        return any("CERTIFICATE_REQUIRED" in reason for reason in reasons(stack, origin))

    wait_until(is_told, "the reason", interval=0.2)
    assert metric(stack, "failures_total", reason="reset") >= 1
    origin.stop()


def test_revoked_origins(stack, config, ca, app):
    lists = stack.pki.folder / "lists"
    lists.mkdir()
    stolen = ca.issue("stolen", san=["DNS:app.test", "IP:127.0.0.1"], eku="serverAuth")
    other, origin = TlsOrigin(app, tls_echo), TlsOrigin(stolen, tls_echo)
    ca.crl(lists / "ca.crl", revoked=[stolen])
    tls = {"ca": str(ca.cert), "crl": [str(lists)]}
    assert failed(stack, config, origin, other, **tls) >= 2


    def is_told():  # one line a second, of whichever connection
        stack.connect().close()
        return "certificate revoked" in reasons(stack, origin)

    wait_until(is_told, "the reason", interval=0.2)
    # A list that has ended says nothing of anybody, unless one lives with that.
    ca.crl(lists / "ca.crl", revoked=[stolen], start=-7200, end=-3600)
    use(stack, config, other.address, tls={**tls, "crl_when_stale": "accept"})
    with stack.connect() as client:
        client.sendall(b"?")
        assert client.recv(10) == b"?"
    use(stack, config, other.address, tls=tls)
    with stack.connect() as client:
        assert client.recv(10) == b""
    origin.stop()
    other.stop()


def test_an_origin_that_speaks_no_tls(stack, config, ca, app):
    other = TlsOrigin(app, tls_echo)
    rude = Origin(lambda conn: (conn.recv(10), conn.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")))
    assert failed(stack, config, rude, other, ca=str(ca.cert)) >= 2
    rude.stop()
    ends = Origin(lambda conn: None)
    assert failed(stack, config, ends, other, ca=str(ca.cert)) >= 2
    ends.stop()
    # Probes, which see nothing of TLS, bring it back, for a shorter and shorter share of time.
    rude = Origin(lambda conn: (conn.recv(10), conn.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")))
    use(stack, config, rude.address, other.address, tls={"ca": str(ca.cert)}, max_failures=1,
        retry_min="100ms", retry_max="1m", check={"interval": "200ms", "timeout": "200ms"})
    until = time.monotonic() + 3
    while time.monotonic() < until:
        stack.connect().close()
    assert 1 <= metric(stack, "failures_total", origin=rude.address) <= 10
    rude.stop()
    # One that accepts and says nothing has its attempt, no more.
    over = threading.Event()
    silent = Origin(lambda conn: over.wait(60 * SLOW))
    failed(stack, config, silent, other, 1, ca=str(ca.cert))
    assert metric(stack, "failures_total", origin=silent.address, reason="timeout") >= 2
    over.set()
    silent.stop()
    other.stop()


def test_an_end_without_close_notify_is_passed_on_as_one(stack, config, ca, app):
    def cut(tls):
        tls.recv(10)
        tls.sendall(b"half of")
        socket.socket.shutdown(tls, socket.SHUT_RDWR)

    origin = TlsOrigin(app, cut)
    use(stack, config, origin.address, tls={"ca": str(ca.cert)})
    with stack.connect() as client:
        client.sendall(b"?")
        assert client.recv(100) == b"half of"
        with pytest.raises(OSError):
            client.recv(1)
    assert metric(stack, "failures_total", reason="reset") == 1
    origin.stop()


def test_a_certificate_that_cannot_be_read_stops_a_reload(stack, config, ca, app, tmp_path):
    origin = Origin(echo)
    config.pop("origin", None)
    config["origins"] = [{"name": "app", "servers": [{"address": origin.address}],
                          "tls": {"ca": str(tmp_path / "none.pem")}}]
    stack.proxy.reload("failed")
    wait_until(lambda: "origins[0]: tls: " in stack.proxy.log(), "the reason")
    origin.stop()
