# SPDX-License-Identifier: Apache-2.0
"""The worst day: a store with names, the CAs of their chains with real responders (`openssl
ocsp` as a server and a list for the primaries, `cfssl ocspserve` for the backups), the
certificate manager, and a proxy with delegated credentials; and a crowd that keeps coming.

    day.add("demo.test", more=[MUST_STAPLE])
    day.start_one("-nmin", "600"); day.start_two()
    day.manager.start(policy="switch")
    day.stack.start(wait_credentials=0)
    with Crowd(nss=fn).coming() as crowd: ...
"""

import contextlib
import datetime
import glob
import json
import re
import pathlib
import socket
import tempfile
import threading
import time

from support import island
from support.certmanager import Manager
from support.pki import make_key
from support.procs import SLOW, free_port, wait_until
from support.revocation import RawServer, RevokingCa
from support.stack import Origin, Stack, read_head

MUST_STAPLE = "tlsfeature=status_request"
PAGE = b"<!doctype html><title>Deputy</title><p>Hello from the origin</p>"


def page(conn):
    """One answer, then the end: a page load is a connection."""
    if read_head(conn):
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nCache-Control: no-store\r\n"
                     b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(PAGE) + PAGE)


def is_open(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def copy(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


class Day:
    """Names in a store, the CAs of their two chains with their responders, the manager,
    and a proxy with delegated credentials."""

    def __init__(self, procs, pki, folder):
        self.procs = procs
        self.stack = Stack(procs, pki, hosts=(), issuer=True, origin=Origin(page))
        self.proxy = self.stack.proxy
        self.manager = Manager(procs, folder)
        del self.proxy.config["states"]
        self.proxy.config["store"] = {"path": str(self.manager.store), "deadline": f"{3 * SLOW}s"}
        self.front = folder / "front"
        self.proxy.config["listeners"].append({"name": "front", "address": f"unix:{self.front}"})
        self.one, self.two = (RevokingCa(procs, pki, ca.name, ca=ca) for ca in self.stack.web_cas)
        self.two_port = free_port()
        # `openssl ocsp` listens on all interfaces, so it lives on an island; this leads there.
        self.short = tempfile.TemporaryDirectory(prefix="deputy-")
        self.one_socket = None
        self.one_front = RawServer(self._to_one)
        self.signed = []  # what the second CA's responder will say

    def stop(self):
        self.stack.stop()
        self.stack.origin.stop()
        self.one_front.stop()
        self.one.stop()
        self.two.stop()
        self.short.cleanup()

    def _to_one(self, conn):
        with socket.socket(socket.AF_UNIX) as far:
            far.connect(str(self.one_socket))
            back = threading.Thread(target=copy, args=(far, conn), daemon=True)
            back.start()
            copy(conn, far)
            back.join()

    def leaf(self, ca, host, level, **kwargs):
        key = make_key(self.stack.keyserver.folder / f"{host}-{level}.key")
        leaf = ca.issue_chain(host, key=key, name=f"{host}-{level}", delegation=True, **kwargs)
        self.manager.add(leaf, level=level)
        return leaf

    def add(self, host, **kwargs):
        """A name with both chains; returns the leaf of the primary."""
        kwargs.setdefault("ocsp", self.one_front.url + "/")
        primary = self.leaf(self.one, host, "primary", **kwargs)
        backup = self.leaf(self.two, host, "backup", ocsp=f"http://127.0.0.1:{self.two_port}/",
                           more=[MUST_STAPLE])
        self.signed.append(backup)
        return primary

    def start_one(self, *args, behind_s=0):
        """`openssl ocsp` as a server, whose clock is so far behind."""
        ca = self.one.ca
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.short.name))
        port = free_port()
        (folder / "port").write_text(str(port))
        words = []
        if behind_s:
            # The faketime program would stay in front of it, and not end it.
            [library] = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
            words = ["env", f"LD_PRELOAD={library}", f"FAKETIME=-{behind_s}s"]
        program = [*words, "openssl", "ocsp", "-port", port, "-index",
                   self.one.folder / "ocsp-index.txt", "-CA", ca.cert, "-rsigner", ca.cert,
                   "-rkey", ca.key, *args]
        server = self.procs.foreign("openssl-ocsp", island.command(
            program, folder / "out", folder / "in", folder / "port", folder / "info"))
        # A connection to see whether it is there would be the only one that it has.
        wait_until(lambda: "ACCEPT" in server.out() + server.err() and (folder / "info").exists(),
                   "openssl ocsp")
        self.one_socket = folder / "in"
        return server

    def start_two(self):
        """`cfssl ocspserve`."""
        responder = self.two.responder()
        responses = self.two.folder / "responses.txt"
        texts = []
        for leaf in self.signed:
            done = self.procs.run(["cfssl", "ocspsign", "-ca", self.two.ca.cert, "-responder",
                                   responder.cert, "-responder-key", responder.key, "-cert",
                                   leaf.cert, "-status", "good"], check=True)
            texts.append(json.loads(done.stdout)["ocspResponse"] + "\n")
        responses.write_text("".join(texts))
        server = self.procs.foreign("cfssl", [
            "cfssl", "ocspserve", "-address", "127.0.0.1", "-port", self.two_port, "-responses",
            responses])
        wait_until(lambda: is_open(self.two_port), "cfssl ocspserve")
        return server

    def visit(self, host):
        """One handshake of a client that asks for a staple (openssl s_client)."""
        began = time.time()
        done = self.stack.openssl("-status", "-tls1_3", host=host)
        seen = Seen(done.stdout)
        seen.began = began
        seen.fault = None if done.returncode == 0 else done.stdout + done.stderr
        return seen

    def wait_staples(self, host):
        """Waits until a handshake for this name is stapled: memory has caught up."""
        wait_until(lambda: self.visit(host).is_good, f"a staple for {host}")


class Seen:
    """What s_client printed about the chain, and the staple."""

    def __init__(self, text):
        issuer = re.search(r"^issuer=.*?CN = (\S+)", text, re.M)
        self.issuer = issuer[1] if issuer else None
        self.is_good = "OCSP Response Status: successful" in text and "Cert Status: good" in text
        update = re.search(r"Next Update: (.*) GMT", text)
        self.staple_ends = update and datetime.datetime.strptime(
            update[1], "%b %d %H:%M:%S %Y").replace(tzinfo=datetime.timezone.utc).timestamp()

    def __repr__(self):
        return f"<{self.issuer} good={self.is_good} ends={self.staple_ends} {self.fault}>"


class Crowd:
    """Clients that come again and again, each on a thread: fn() gives what it saw, and
    raises what went wrong."""

    def __init__(self, **clients):
        self.seen = {name: [] for name in clients}
        self.faults = []
        self.is_over = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(name, fn), daemon=True)
                        for name, fn in clients.items()]

    def _run(self, name, fn):
        while not self.is_over.is_set():
            try:
                self.seen[name].append(fn())
            except Exception as e:  # shown by the test
                self.faults.append((name, e))
                return

    def wait_more(self, num=2):
        """Waits until each has come so many times more: handshakes that began from now on
        are among them."""
        enough = {name: len(seen) + num for name, seen in self.seen.items()}
        wait_until(lambda: self.faults or all(len(self.seen[name]) >= n
                                              for name, n in enough.items()), "the clients", 30)
        assert not self.faults, self.faults[:3]

    @contextlib.contextmanager
    def coming(self):
        for thread in self.threads:
            thread.start()
        try:
            yield self
        finally:
            self.is_over.set()
            for thread in self.threads:
                thread.join(60 * SLOW)
        assert not self.faults, self.faults[:3]
