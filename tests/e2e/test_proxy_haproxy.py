# SPDX-License-Identifier: Apache-2.0
"""haproxy on both sides: as the balancer before the proxy, and as its origin. What one says
by the PROXY protocol the other must understand."""

import shutil
import socket

import pytest

from support.procs import free_port, wait_until
from support.stack import Stack

pytestmark = pytest.mark.skipif(not shutil.which("haproxy", path="/usr/sbin:/usr/bin"),
                                reason="no haproxy")

SAYS = '%[src] %[src_port] %[dst_port] name=%[fc_pp_authority] ' \
       'cn=%[ssl_c_s_dn(cn)] sni=%[ssl_fc_sni] alpn=%[ssl_fc_alpn]'


def is_up(address):
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


class Haproxy:
    def __init__(self, procs, name, lines):
        path = procs.folder / f"{name}.cfg"
        path.write_text("global\n  maxconn 100\ndefaults\n  timeout connect 30s\n"
                        "  timeout client 30s\n  timeout server 30s\n" + lines)
        self.process = procs.foreign(name, ["/usr/sbin/haproxy", "-db", "-f", path])


@pytest.fixture
def ports():
    return [free_port() for _ in range(3)]


def test_what_haproxy_is_told_and_tells(procs, pki, ports, tmp_path):
    plain, tls, front = ports
    parts = pki.ca("parts")
    server = parts.issue("app", san=["DNS:app.internal"], eku="serverAuth")
    own = parts.issue("deputy", eku="clientAuth")
    pem = tmp_path / "app.pem"
    pem.write_bytes(server.chain.read_bytes() + server.key.read_bytes())
    Haproxy(procs, "haproxy-origin", f"""
frontend plain
  mode http
  bind 127.0.0.3:{plain} accept-proxy
  http-request return status 200 content-type text/plain lf-string "{SAYS}"
frontend tls
  mode http
  bind 127.0.0.3:{tls} accept-proxy ssl crt {pem} ca-file {parts.cert} verify required alpn http/1.1
  http-request return status 200 content-type text/plain lf-string "{SAYS}"
""")
    stack = Stack(procs, pki, hosts=("demo.test", "tls.test"), issuer=False).start_servers()
    proxy = stack.proxy
    proxy.config.pop("origin")
    proxy.config["names"][1]["origin"] = "tls"
    proxy.config["names"][1]["alpn"] = ["http/1.1"]
    proxy.config["origins"] = [
        {"name": "plain", "proxy_protocol": "v2", "check": {"interval": "1s"},
         "servers": [{"address": f"127.0.0.3:{plain}"}]},
        {"name": "tls", "proxy_protocol": "v2", "servers": [{"address": f"127.0.0.3:{tls}"}],
         "tls": {"ca": str(parts.cert), "name": "app.internal", "certificate": str(own.chain),
                 "key": str(own.key)}}]
    proxy.config["listeners"].append({"name": "behind", "address": "127.0.0.1:0",
                                      "proxy_protocol": {"from": ["127.0.0.2"]}})
    proxy.config["access_log_silent"] = False
    proxy.start()
    behind = proxy.process.address("behind")[1]
    Haproxy(procs, "haproxy-balancer", f"""
listen balancer
  mode tcp
  bind 127.0.0.1:{front}
  server deputy 127.0.0.1:{behind} source 127.0.0.2 send-proxy-v2 proxy-v2-options crc32c,unique-id,authority check inter 200ms
""")
    for address in (("127.0.0.3", plain), ("127.0.0.3", tls), ("127.0.0.1", front)):
        wait_until(lambda: is_up(address), f"haproxy at {address}")

    def get(port, host, **kwargs):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            own_port = sock.getsockname()[1]
            with stack.context(**kwargs).wrap_socket(sock, server_hostname=host) as client:
                client.sendall(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
                answer = b""
                while data := client.recv(65536):
                    answer += data
        return own_port, answer.partition(b"\r\n\r\n")[2].decode()

    # Through the balancer the proxy is told, with a checksum, whom it talks to, and tells the
    # origin: the addresses are those that the client sees.
    for port in (proxy.port, front):
        own_port, said = get(port, "demo.test")
        assert said == f"127.0.0.1 {own_port} {port} name=demo.test cn= sni= alpn="
        own_port, said = get(port, "tls.test", alpn=["http/1.1"])
        assert said == (f"127.0.0.1 {own_port} {port} name=tls.test cn=deputy sni=app.internal "
                        "alpn=http/1.1")
    # Its checks, and ours, stand for nobody, and are understood.
    assert proxy.failures("proxy_header") == 0
    wait_until(lambda: proxy.failures("scan") > 0, "a check")
    assert "failure=scan" not in proxy.log()
    assert proxy.metric("origin_up", pool="plain") == 1
