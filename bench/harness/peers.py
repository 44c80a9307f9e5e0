# SPDX-License-Identifier: Apache-2.0
"""The terminators that Deputy is compared with: nginx, haproxy and hitch of Debian,
one worker each, TLS 1.3, with the same certificate and the same origin.

Each is a function that writes a configuration and returns the command line. All are
left at their own defaults but for what the table in bench/README.md names."""

import os
import resource

from harness.base import BenchError, need, wait_until
from harness.origin import temp_paths
from harness.servers import free_port, is_listening

# Two descriptors for each connection, within what this machine lets anybody open.
OPEN_FILES = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1] % (1 << 63), 1 << 16)
CONNECTIONS = (OPEN_FILES - 200) // 2


def nginx_config(folder, port, leaf, origin, modules, blocks):
    path = folder / "nginx.conf"
    path.write_text(f"""
{modules}
daemon off;
worker_processes 1;
worker_rlimit_nofile {OPEN_FILES};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections {2 * CONNECTIONS}; }}
{blocks}
""")
    return [need("nginx", "nginx-light"), "-p", folder, "-c", path, "-e", folder / "error.log"]


def nginx_tls(port, leaf):
    return (f"listen 127.0.0.1:{port} ssl backlog=4096; ssl_certificate {leaf.cert};"
            f" ssl_certificate_key {leaf.key}; ssl_protocols TLSv1.3;"
            " ssl_session_cache off; ssl_session_tickets on;")


def nginx_stream(folder, port, leaf, origin):
    module = "/usr/lib/nginx/modules/ngx_stream_module.so"
    return nginx_config(folder, port, leaf, origin, f"load_module {module};", f"""
stream {{
  server {{
    {nginx_tls(port, leaf)}
    proxy_pass {origin};
  }}
}}""")


def nginx_http(folder, port, leaf, origin):
    return nginx_config(folder, port, leaf, origin, "", f"""
http {{
  access_log off;
  keepalive_requests 1000000000;
  {temp_paths(folder)}
  upstream origin {{ server {origin}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    {nginx_tls(port, leaf)}
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
}}""")


def haproxy(mode):
    def command(folder, port, leaf, origin):
        pem = folder / "leaf.pem"
        pem.write_bytes(leaf.cert.read_bytes() + leaf.key.read_bytes())
        pem.chmod(0o600)
        path = folder / "haproxy.cfg"
        path.write_text(f"""
global
  nbthread 1
  maxconn {CONNECTIONS}
defaults
  mode {mode}
  maxconn {CONNECTIONS}
  timeout connect 5s
  timeout client 10m
  timeout server 10m
listen tls
  bind 127.0.0.1:{port} backlog 4096 ssl crt {pem} ssl-min-ver TLSv1.3
  server origin {origin}
""")
        return [need("haproxy", "haproxy"), "-db", "-f", path]

    return command


def hitch(folder, port, leaf, origin):
    pem = folder / "leaf.pem"
    pem.write_bytes(leaf.key.read_bytes() + leaf.cert.read_bytes())
    pem.chmod(0o600)
    host, _, origin_port = origin.rpartition(":")
    path = folder / "hitch.conf"
    path.write_text(f"""
frontend = "[127.0.0.1]:{port}"
backend = "[{host}]:{origin_port}"
pem-file = "{pem}"
workers = 1
backlog = 4096
tls-protos = TLSv1.3
daemon = off
syslog = off
write-proxy-v2 = off
{'user = "nobody"' if os.getuid() == 0 else ''}
""")
    return [need("hitch", "hitch"), f"--config={path}"]


# name: (command, what it does with the bytes)
PEERS = {
    "nginx-stream": (nginx_stream, "tcp"),
    "haproxy-tcp": (haproxy("tcp"), "tcp"),
    "hitch": (hitch, "tcp"),
    "nginx-http": (nginx_http, "http"),
    "haproxy-http": (haproxy("http"), "http"),
}


class Peer:
    """One running peer."""

    def __init__(self, procs, name, leaf, origin, core):
        make, self.mode = PEERS[name]
        self.name = name
        folder = procs.folder / f"peer-{name}-{leaf.key.stem}-{len(procs.processes)}"
        folder.mkdir()
        self.port = free_port()
        command = make(folder, self.port, leaf, origin)
        self.process = procs.start(name, command, core=core)

        def is_up():
            if not self.process.is_running():
                error = folder / "error.log"
                log = error.read_text(errors="replace") if error.exists() else ""
                raise BenchError(f"{name} ended with {self.process.popen.returncode}:\n"
                                 f"{self.process.log()}{log[-1000:]}")
            return is_listening(self.process, self.port)

        wait_until(is_up, f"{name} to listen")

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"
