# SPDX-License-Identifier: Apache-2.0
"""The origin behind every server under test: nginx in plain HTTP, on the client's core."""

import re
import urllib.request

from harness.base import need, wait_until
from harness.servers import free_port, is_listening

BULK_LEN = 1 << 30  # bytes of /bulk


class Origin:
    """/small answers 1 KB, /bulk BULK_LEN bytes (sparse zeros), /status counts."""

    def __init__(self, procs, core=None, prefix=(), host="127.0.0.1", name="origin",
                 connections=8000):
        folder = procs.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "small").write_bytes(b"x" * 1023 + b"\n")
        with open(folder / "bulk", "wb") as bulk:
            bulk.truncate(BULK_LEN)
        self.host = host
        self.port = free_port()
        self.prefix = prefix
        config = folder / "nginx.conf"
        config.write_text(f"""
daemon off;
worker_processes 1;
worker_rlimit_nofile {connections + 200};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  sendfile on;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_header_timeout 600s;
  open_file_cache max=16;
  {temp_paths(folder)}
  server {{
    listen {host}:{self.port} backlog=4096;
    root {folder};
    location = /status {{ stub_status; }}
  }}
}}
""")
        self.process = procs.start(name, [need("nginx", "nginx-light"), "-p", folder, "-c",
                                              config, "-e", folder / "error.log"],
                                   core=core, prefix=prefix)
        wait_until(lambda: self.process.check() or is_listening(self.process, self.port),
                   "the origin")

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    def accepted(self):
        """Connections accepted so far, this question's among them."""
        with urllib.request.urlopen(f"http://{self.address}/status", timeout=10) as reply:
            text = reply.read().decode()
        return int(re.search(r"\n\s*(\d+) \d+ \d+", text).group(1))


def temp_paths(folder):
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return " ".join(f"{kind}_temp_path {folder};" for kind in kinds)
