# SPDX-License-Identifier: Apache-2.0
"""certstore: a proxy that serves a store, its key server, and how its start is timed."""

import contextlib
import os
import socket
import ssl
import time

from harness.base import BenchError, wait_until, which
from harness.deputy import Deputy, Where
from harness.procs import run
from harness.servers import free_port
from harness.stats import median

START_S = 600  # the longest that anybody may take to his first handshake


def spread_text(values, digits=1):
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def measure(s, name, values):
    s.result.measure(name, median(values), min(values), max(values))


def drop_pages(files):
    """Takes these files out of the page cache; bytes of them that stay in it."""
    left = 0
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
        if which("fincore"):
            found = run(["fincore", "--bytes", "--noheadings", "-o", "RES", path]).stdout.split()
            left += int(found[0]) if found else 0
    return left


def warm_pages(files):
    """Reads them, so that they are in the page cache."""
    for path in files:
        with open(path, "rb", buffering=0) as f:
            while f.read(1 << 23):
                pass


def first_handshake(process, port, host, roots, pause=0.0005):
    """Tries until a handshake is served and verified; (when it was, number of handshakes)."""
    context = ssl.create_default_context(cafile=roots)
    tries = 0
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        process.check()
        with contextlib.suppress(OSError):
            with socket.create_connection(("127.0.0.1", port), 5) as plain:
                tries += 1
                with context.wrap_socket(plain, server_hostname=host):
                    return time.monotonic(), tries
        time.sleep(pause)
    raise BenchError(f"{process.name} served nothing within {START_S} s:\n{process.log()}")


class Shop:
    """Key server with the keys of `names`; a proxy, again and again."""

    def __init__(self, s, origin, names, name="shop", keys=None):
        self.s = s
        self.origin = origin
        self.deputy = Deputy(s.procs, s.programs, origin.address, name=name,
                             proxy=Where(core=s.server_core), keyserver=Where(core=s.client_core))
        self.started_s = time.monotonic()
        self.deputy.start_keyserver(key_folders=[str(keys or names.keys)])
        self.started_s = time.monotonic() - self.started_s
        self.process = None
        self.port = None

    @property
    def keyserver(self):
        return self.deputy.keyserver

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def config(self, store, workers):
        folder = self.deputy.folder
        return self.deputy.write("proxy", {
            "listeners": [{"name": "main", "address": self.address}],
            "store": {"path": str(store)},
            "key_servers": {"servers": [{"address": self.deputy.keyserver_address,
                                         "name": "keyserver.parts"}],
                            "tls": self.deputy.identity("proxy")},
            "origin": {"address": self.origin.address},
            "workers": workers,
            "access_log": False,
            "admin": {"socket": str(folder / "proxy.sock")},
            "audit": {"path": str(folder / "proxy.audit")},
            "log": str(folder / "proxy.log"),
            "limits": {"drain": "1s"},
        })

    def start(self, names, store=None, workers=1):
        """Starts the proxy; (seconds to its first served handshake, handshakes tried)."""
        self.port = free_port()
        path = self.config(store or names.store, workers)
        begin = time.monotonic()
        self.process = self.s.procs.start(
            "proxy", [self.s.programs["deputy-proxy"], "--config", path],
            core=self.deputy.where["proxy"].core)
        try:
            end, tries = first_handshake(self.process, self.port, names.name(), names.roots)
        except BenchError as e:
            raise BenchError(f"{e}\n{self.deputy.log_of('proxy')}") from e
        return end - begin, tries

    def metric(self, family, **labels):
        return self.deputy.metric(family, **labels)

    def stop(self):
        self.process.stop()
        wait_until(lambda: not self.process.is_running(), "the proxy's end")

    def close(self):
        if self.process is not None:
            self.process.stop()
        self.keyserver.stop()
