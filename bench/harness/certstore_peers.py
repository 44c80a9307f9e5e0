# SPDX-License-Identifier: Apache-2.0
"""certstore: haproxy and nginx with many certificates, and Deputy beside them: from the
start to the first served handshake, and memory."""

import time

from harness.base import BenchError, need
from harness.certstore_shop import Shop, first_handshake, measure, spread_text
from harness.origin import temp_paths
from harness.servers import free_port

MB = 1e6


def haproxy(folder, port, names, origin):
    path = folder / "haproxy.cfg"
    path.write_text(f"""
global
  nbthread 1
  maxconn 1000
defaults
  mode http
  timeout connect 5s
  timeout client 1m
  timeout server 1m
listen tls
  bind 127.0.0.1:{port} ssl crt {names.bundles} ssl-min-ver TLSv1.3
  server origin {origin}
""")
    return [need("haproxy", "haproxy"), "-db", "-f", path]


def nginx(folder, port, names, origin):
    """A server for each name: what holds them all in memory, as haproxy does."""
    path = folder / "nginx.conf"
    hosts = sorted(p.stem for p in names.bundles.glob("*.pem"))
    servers = "\n".join(
        f"server {{ listen 127.0.0.1:{port} ssl; server_name {host};"
        f" ssl_certificate {names.bundles}/{host}.pem;"
        f" ssl_certificate_key {names.bundles}/{host}.pem;"
        f" location / {{ proxy_pass http://{origin}; }} }}" for host in hosts)
    path.write_text(f"""
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1000; }}
http {{
  access_log off;
  server_names_hash_max_size {4 * len(hosts) + 512};
  server_names_hash_bucket_size 128;
  ssl_protocols TLSv1.3;
  {temp_paths(folder)}
{servers}
}}
""")
    return [need("nginx", "nginx-light"), "-p", folder, "-c", path, "-e", folder / "error.log"]


PEERS = {"haproxy": haproxy, "nginx": nginx}


def peer_once(s, name, names, origin):
    """(seconds, bytes) of one start."""
    folder = s.procs.folder / f"many-{name}-{len(s.procs.processes)}"
    folder.mkdir()
    port = free_port()
    command = PEERS[name](folder, port, names, origin.address)
    begin = time.monotonic()
    process = s.procs.start(f"many-{name}", command, core=s.server_core)
    try:
        end, _ = first_handshake(process, port, names.name(), names.roots, pause=0.005)
        time.sleep(s.p["settle_s"])
        return end - begin, process.memory()
    finally:
        process.stop(timeout=30)


def deputy_once(s, shop, names):
    seconds, _ = shop.start(names)
    time.sleep(s.p["settle_s"])
    memory = shop.process.memory()
    shop.stop()
    return seconds, memory


def run(s, origin, names):
    for key in names.keys.glob("*.backup.key"):
        key.unlink()  # the peers have none either
    shop = Shop(s, origin, names, name="peers-shop")
    found = {"deputy-proxy": [], **{name: [] for name in PEERS}}
    missing = []
    for i in range(s.p["peer_rounds"]):
        for name in found:
            if name in missing:
                continue
            s.progress(f"{names.num:,} certificates, round {i + 1} of {s.p['peer_rounds']}: {name}")
            try:
                found[name].append(deputy_once(s, shop, names) if name == "deputy-proxy"
                                   else peer_once(s, name, names, origin))
            except BenchError as e:
                if name == "deputy-proxy":
                    raise
                missing.append(name)
                s.result.note(f"{name} could not be measured: {e}")
    tell(s, names, shop, found)
    shop.close()


def tell(s, names, shop, found):
    rows = []
    mine = found["deputy-proxy"]
    for name, values in found.items():
        if not values:
            continue
        words = ["", ""]
        if name != "deputy-proxy":
            faster = [b[0] / a[0] for a, b in zip(mine, values)]
            share = [a[1] / b[1] for a, b in zip(mine, values)]
            measure(s, f"peers.{name}.times_faster", faster)
            measure(s, f"peers.{name}.memory_share", share)
            words = [spread_text(faster, 0), spread_text(share, 3)]
        rows.append([name, spread_text([v[0] for v in values], 3),
                     spread_text([v[1] / MB for v in values], 1), *words])
    s.result.table(f"{names.num:,} certificates, from the start to the first served handshake,"
                   " memory after it", ["server", "seconds", "MB", "times as long as deputy-proxy",
                                        "deputy-proxy's memory of its"], rows)
    s.result.note(f"{names.num:,} certificates: proportional set size of all processes. Deputy's"
                  " private keys are in its key server, which is not in the row: it was ready"
                  f" {shop.started_s:.2f} s after its start with the same {names.num:,} keys and"
                  f" took {shop.keyserver.memory() / MB:.0f} MB.")
