# SPDX-License-Identifier: Apache-2.0
"""Where decrypted bytes go: pools of origins, real (nginx) and misbehaving ones."""

import copy
import os
import socket

import pytest

from support.procs import wait_until
from support.stack import Stack


@pytest.fixture(scope="module")
def stack(module_procs, module_pki):
    stack = Stack(module_procs, module_pki, hosts=("demo.test", "other.test"), issuer=False)
    stack.start()
    yield stack
    stack.stop()


@pytest.fixture
def config(stack):
    """The configuration, as it was again after the test."""
    keep = copy.deepcopy(stack.proxy.config)
    yield stack.proxy.config
    stack.proxy.config.clear()
    stack.proxy.config.update(keep)
    stack.proxy.reload()


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
            with socket.create_server(("127.0.0.1", 0)) as free:
                listen = self.address = "127.0.0.1:%d" % free.getsockname()[1]
        self.process = None
        (self.folder / "nginx.conf").write_text(f"""
daemon off; worker_processes 1; pid {self.folder}/nginx.pid; error_log {self.folder}/error.log;
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
