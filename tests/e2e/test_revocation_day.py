# SPDX-License-Identifier: Apache-2.0
"""The worst day, with real responders: a CA revokes a leaf, or its responder dies, while
clients keep coming. Nobody may notice: the next handshakes are on the backup, with the
backup's staple and delegated credential.

The primary's CA answers by `openssl ocsp` as a server and has a list, the backup's by
`cfssl ocspserve`, with answers signed beforehand."""

import contextlib
import datetime
import glob
import json
import os
import re
import socket
import threading
import time

import pytest

from support.certmanager import Manager
from support.firefox import Firefox
from support.pki import make_key
from support.procs import SLOW, free_port, wait_until
from support.revocation import RevokingCa
from support.stack import Origin, Stack, read_head

MUST_STAPLE = "tlsfeature=status_request"
LIFE_S = 60  # of the shortest answers that `openssl ocsp` gives (-nmin 1)
LEFT_S = 8 * SLOW  # of that, when they come: its clock is behind
CLOCK_S = 1  # what counts whole seconds may be so far from what does not
PAGE = b"<!doctype html><title>Deputy</title><p>Hello from the origin</p>"


def page(conn):
    """One answer, then the end: a page load is a connection."""
    if read_head(conn):
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nCache-Control: no-store\r\n"
                     b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(PAGE) + PAGE)


def is_open(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


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
        self.one_port, self.two_port = free_port(), free_port()
        self.signed = []  # what the second CA's responder will say

    def stop(self):
        self.stack.stop()
        self.stack.origin.stop()
        self.one.stop()
        self.two.stop()

    def leaf(self, ca, host, level, **kwargs):
        key = make_key(self.stack.keyserver.folder / f"{host}-{level}.key")
        leaf = ca.issue_chain(host, key=key, name=f"{host}-{level}", delegation=True, **kwargs)
        self.manager.add(leaf, level=level)
        return leaf

    def add(self, host, **kwargs):
        """A name with both chains; returns the leaf of the primary."""
        kwargs.setdefault("ocsp", f"http://127.0.0.1:{self.one_port}/")
        primary = self.leaf(self.one, host, "primary", **kwargs)
        backup = self.leaf(self.two, host, "backup", ocsp=f"http://127.0.0.1:{self.two_port}/",
                           more=[MUST_STAPLE])
        self.signed.append(backup)
        return primary

    def start_one(self, *args, behind_s=0):
        """`openssl ocsp` as a server, whose clock is so far behind."""
        ca = self.one.ca
        environment = dict(os.environ)
        if behind_s:
            # The faketime program would stay in front of it, and not end it.
            [library] = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
            environment.update(LD_PRELOAD=library, FAKETIME=f"-{behind_s}s")
        server = self.procs.foreign("openssl-ocsp", [
            "openssl", "ocsp", "-port", self.one_port, "-index",
            self.one.folder / "ocsp-index.txt", "-CA", ca.cert, "-rsigner", ca.cert, "-rkey",
            ca.key, *args], env=environment)
        # A connection to see whether it is there would be the only one that it has.
        wait_until(lambda: "ACCEPT" in server.out() + server.err(), "openssl ocsp")
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


@pytest.fixture
def day(procs, pki, tmp_path):
    day = Day(procs, pki, tmp_path)
    yield day
    day.stop()


def tls12_issuer(day, host, session=None):
    """(who issued the leaf, was it resumed, session) of a handshake in TLS 1.2."""
    plain = socket.create_connection(day.proxy.address, timeout=10 * SLOW)
    context = session[0] if session else day.stack.context(tls12=True)
    with contextlib.closing(plain), context.wrap_socket(
            plain, server_hostname=host, session=session and session[1]) as tls:
        issuer = dict(item[0] for item in tls.getpeercert()["issuer"])["commonName"]
        return issuer, tls.session_reused, (context, tls.session)


def test_a_leaf_is_revoked_and_nobody_notices(day, procs):
    first, second = (ca.name for ca in day.stack.web_cas)
    leaf = day.add("demo.test", more=[MUST_STAPLE])
    listed = day.add("listed.test", ocsp=None, crl=f"URI:{day.one.url}/crl")
    day.one.files["/crl"] = day.one.crl()
    day.start_one("-nmin", "600")
    day.start_two()
    day.manager.start(policy="switch", poll="1s", ocsp_poll="1s")
    day.manager.wait_audit("staple", 3)
    day.stack.start(wait_credentials=0)
    nss = day.stack.nss()
    firefox = Firefox(procs, day.front, [ca.cert for ca in day.stack.web_cas])

    def by_nss():
        result = nss.run()
        assert result.is_ok and result.got_dc, result
        return result.issuer

    def by_openssl():
        seen = day.visit("demo.test")
        assert seen.fault is None and seen.is_good, seen
        return seen.issuer

    def by_firefox():
        firefox.forget()
        firefox.open("demo.test")
        security = firefox.security()
        assert security["isDelegatedCredential"] and not security["resumed"], security
        return security["issuer"]

    try:
        assert nss.run().is_ok  # cold
        day.proxy.wait_credentials(2)  # the backup's is ready, too
        day.wait_staples("demo.test")
        assert day.visit("listed.test").issuer == first
        _, _, session = tls12_issuer(day, "demo.test")
        assert tls12_issuer(day, "demo.test", session)[1]

        crowd = Crowd(nss=by_nss, openssl=by_openssl, firefox=by_firefox,
                      tls12=lambda: tls12_issuer(day, "demo.test")[0])
        with crowd.coming():
            crowd.wait_more()
            assert {issuer for seen in crowd.seen.values() for issuer in seen} == {first}
            day.one.revoke(leaf, "keyCompromise")
            line = day.manager.wait_audit("switch")[0]
            # The very next handshakes, of every kind: staple and credential are there.
            assert (by_nss(), by_openssl(), tls12_issuer(day, "demo.test")[0]) == (second,) * 3
            crowd.wait_more(3)
            assert {seen[-1] for seen in crowd.seen.values()} == {second}
            # A session of the key that is compromised is not resumed.
            issuer, is_resumed, _ = tls12_issuer(day, "demo.test", session)
            assert (issuer, is_resumed) == (second, False)

            # The audit says why; so does the store's own log.
            assert (line["name"], line["source"], line["reason"]) == (
                "demo.test", "ocsp", "keyCompromise"), line
            assert line["key_id"] == leaf.spki_sha256()
            [switch] = day.manager.switches()
            assert switch["id"] == line["switch"] and switch["author"] == "deputy-certmanager"
            assert "keyCompromise" in switch["reason"], switch

            # An operator takes it back, and is believed.
            day.manager.ctl("restore", str(line["switch"]))
            assert (by_nss(), by_openssl()) == (first, first)
            crowd.wait_more(3)
            assert {seen[-1] for seen in crowd.seen.values()} == {first}
        assert {frozenset(seen) for seen in crowd.seen.values()} == {frozenset((first, second))}

        # The other name's leaf is on its CA's list.
        day.one.revoke(listed, "superseded")
        day.one.files["/crl"] = day.one.crl()
        line = day.manager.wait_audit("switch", 2)[1]
        assert (line["name"], line["source"], line["reason"]) == ("listed.test", "crl", "superseded")
        seen = day.visit("listed.test")
        assert seen.issuer == second and seen.is_good and seen.fault is None, seen
        assert tls12_issuer(day, "demo.test")[0] == first
    finally:
        firefox.stop()
    assert day.proxy.metric("last_resort_total") == 0
    assert day.proxy.metric("dc_rejected_total") == 0


def test_a_must_staple_leaf_is_served_to_its_staples_end_then_the_backup(day):
    """Never without a staple, never with one that has ended; and back with the next one."""
    first, second = (ca.name for ca in day.stack.web_cas)
    day.add("demo.test", more=[MUST_STAPLE])
    responder = day.start_one("-nmin", "1", behind_s=LIFE_S - LEFT_S)
    day.start_two()
    day.stack.start(wait_credentials=0)
    nss = day.stack.nss()
    # There is no staple yet, so clients refuse what is served. But the name is known from
    # then on, and the credentials of both chains are fetched.
    nss.run()
    day.proxy.wait_credentials(2)
    day.manager.start(policy="report", poll="7d", ocsp_poll="0s")
    day.manager.wait_audit("staple", 2)
    responder.kill()  # a second answer would not matter, but there is none
    day.wait_staples("demo.test")

    def by_openssl():
        seen = day.visit("demo.test")
        # Whichever chain it is: with its own staple, which is good at this moment.
        assert seen.fault is None and seen.is_good, seen
        assert seen.began < seen.staple_ends + CLOCK_S, seen
        return seen.issuer, seen.staple_ends, seen.began

    def by_nss():
        result = nss.run()
        assert result.is_ok and result.got_dc, result
        return result.issuer

    crowd = Crowd(openssl=by_openssl, nss=by_nss)
    with crowd.coming():
        wait_until(lambda: crowd.faults or by_openssl()[0] == second, "the backup", 25)
        crowd.wait_more()
    by_one = [seen for seen in crowd.seen["openssl"] if seen[0] == first]
    assert by_one and crowd.seen["openssl"][-1][0] == second
    assert crowd.seen["nss"][0] == first and crowd.seen["nss"][-1] == second
    # To its last second; and once the backup serves, nobody sees the primary again.
    [ends] = {seen[1] for seen in by_one}
    first_by_two = min(seen[2] for seen in crowd.seen["openssl"] if seen[0] == second)
    assert ends - CLOCK_S <= first_by_two, (ends, first_by_two)
    assert all(seen[2] < first_by_two for seen in by_one)
    assert not day.manager.switches() and not day.manager.audit("revoked")

    # The responder is back, and the manager, which would have asked again by itself in a
    # minute, is started anew: overdue.
    day.start_one("-nmin", "600")
    day.manager.process.stop()
    day.manager.start("again", policy="report", poll="7d", ocsp_poll="0s")
    wait_until(lambda: by_openssl()[0] == first, "the primary")
    assert nss.run().issuer == first
    assert day.proxy.metric("dc_rejected_total") == 0
