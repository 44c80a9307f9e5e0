# SPDX-License-Identifier: Apache-2.0
"""What comes all of a sudden: a key server or an issuer killed while it is being asked, a
disk that is full, a wall clock that somebody sets back and forth by a day. Deadlines do not care about the wall
clock; certificates, credentials and staples are judged by nothing else.
"""

import concurrent.futures
import contextlib
import datetime
import fcntl
import os
import signal
import socket
import ssl
import struct
import termios
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from support.procs import BIN_DIR, SLOW, Procs, wait_until
from support.stack import Origin, Stack, echo

DAY_S = 86400
HANDSHAKE_S, KEY_SERVER_S = 1.0 * SLOW, 2.0 * SLOW


def talks(client):
    client.sendall(b"are you there")
    return client.recv(100) == b"are you there"


# --- killed while being asked -------------------------------------------------------------


@pytest.fixture
def stack(procs, pki):
    stack = Stack(procs, pki, origin=Origin(echo))
    stack.proxy.config["delegated_credentials"] = {
        "lifetime": "8s", "margin": "2s", "retry_min": "50ms", "retry_max": "500ms"}
    stack.start()
    yield stack
    stack.origin.stop()


def key_failures(stack):
    return sum(stack.proxy.failures(reason) for reason in (
        "key_server_timeout", "key_server_refused", "key_not_found", "key_server_unavailable",
        "key_server_bad_signature"))


def test_key_server_killed_in_mid_handshake(stack):
    """Handshakes that wait for it end with an answer of another connection or an alert,
    within their deadline and counted; nobody else notices."""
    for is_back_at_once in (False, True):
        kill_key_server(stack, is_back_at_once)


def kill_key_server(stack, is_back_at_once):
    num = 12
    keyserver = stack.keyserver

    def one(_):
        try:
            with stack.connect() as client:
                return "served" if talks(client) else "cut off"
        except ssl.SSLError as e:
            return "alert" if "INTERNAL_ERROR" in str(e) else repr(e)

    keyserver.config["listen"] = ["127.0.0.1:%d" % keyserver.address[1]]
    with stack.connect() as live, concurrent.futures.ThreadPoolExecutor(num) as pool:
        failed = key_failures(stack)
        keyserver.process.freeze()
        clients = [pool.submit(one, i) for i in range(num)]
        wait_until(lambda: stack.proxy.metric("handshakes_signing") == num, "all to be asked")
        begin = time.monotonic()
        keyserver.process.kill()
        if is_back_at_once:
            keyserver.start()
        ends = [client.result() for client in clients]
        assert time.monotonic() - begin < KEY_SERVER_S + 2.5 * SLOW
        assert set(ends) <= {"served", "alert"}, ends
        assert key_failures(stack) - failed == ends.count("alert")
        assert stack.proxy.metric("handshakes_signing") == 0
        assert stack.nss().run().got_dc  # who takes a credential needs no key server
        assert talks(live)
        if not is_back_at_once:
            assert ends.count("alert") == num
            keyserver.start()
        wait_until(lambda: one(0) == "served", "the key server to be used again", 15)
        assert talks(live)


def test_issuer_killed_in_mid_request(stack):
    """A renewal is under way when it dies: credentials stay until their margin, then the
    certificate's key answers; the next renewal comes by itself."""
    issuer = stack.issuer
    nss = stack.nss()

    def left():
        return stack.proxy.metric("dc_seconds_left", chain="primary", name="demo.test")

    issuer.config["listen"] = ["127.0.0.1:%d" % issuer.process.address("api")[1]]
    with stack.connect() as live:
        issuer.process.freeze()
        # Renewal is at half life: it has been asked, and does not answer.
        wait_until(lambda: 0 < left() <= 3, "renewal to be under way", 15)
        assert nss.run().is_ok
        issuer.process.kill()
        wait_until(lambda: left() < 2, "the margin", 15)
        result = nss.run()
        assert result.is_ok and not result.got_dc, result
        issuer.start()
        wait_until(lambda: nss.run().got_dc, "a new credential", 15)
        assert talks(live)


# --- a full disk ---------------------------------------------------------------------------


def test_disk_full_for_logs(procs, pki):
    """Clients notice nothing, what is lost is counted, and a log that is opened again on a
    disk with room goes on."""
    stack = Stack(procs, pki, issuer=False, origin=Origin(echo))
    log = stack.proxy.folder / "proxy.log"
    log.symlink_to("/dev/full")
    stack.proxy.config["log"] = str(log)
    stack.start()
    for _ in range(20):
        with stack.connect() as client:
            assert talks(client)
    wait_until(lambda: stack.proxy.metric("log_lines_lost_total") >= 20, "the losses")
    log.unlink()
    log.touch(mode=0o600)
    stack.proxy.process.signal(signal.SIGUSR1)

    def is_written():
        with stack.connect() as client:
            assert talks(client)
        return "closed" in log.read_text()

    wait_until(is_written, "the log")
    lost = stack.proxy.metric("log_lines_lost_total")
    with stack.connect() as client:
        assert talks(client)
    assert stack.proxy.metric("log_lines_lost_total") == lost
    stack.origin.stop()


def start_with_stderr(stack, path):
    """With much to say, and without a file for it."""
    stack.start_servers()
    stack.proxy.start(args=["--log-level", "debug"],
                      wrap=["/bin/sh", "-c", f'exec "$@" 2>{path}', "sh"])
    wait_until(lambda: stack.proxy.metric("key_servers_ready") >= 1, "the key server")


def visit(stack):
    with stack.connect() as client:
        assert talks(client)


def test_standard_error_on_a_full_disk(procs, pki):
    stack = Stack(procs, pki, issuer=False, origin=Origin(echo))
    start_with_stderr(stack, "/dev/full")
    for _ in range(10):
        visit(stack)
    wait_until(lambda: stack.proxy.metric("log_failing") == 1, "the log to fail")
    lost = stack.proxy.metric("log_lines_lost_total")
    for _ in range(10):
        visit(stack)
    wait_until(lambda: stack.proxy.metric("log_lines_lost_total") > lost, "the losses")
    stack.proxy.process.kill()  # its end would wait for the disk for a while
    stack.origin.stop()


def test_standard_error_is_a_pipe_that_nobody_reads(procs, pki, tmp_path):
    """A journal that hangs. Nobody waits for it, and when it reads again it misses nothing."""
    stack = Stack(procs, pki, issuer=False, origin=Origin(echo))
    path = tmp_path / "stderr"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def num_waiting():
        return struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, bytes(4)))[0]

    start_with_stderr(stack, path)
    num = 0
    sizes = []
    while len(sizes) < 30 or sizes[-1] < 4096 or len(set(sizes[-30:])) > 1:  # until it is full
        visit(stack)
        num += 1
        sizes.append(num_waiting())
    text = b""

    def is_written():
        nonlocal text
        with contextlib.suppress(BlockingIOError):
            text += os.read(reader, 1 << 16)
        return text.count(b" closed outcome=") == num

    wait_until(is_written, "the log to be written")
    assert stack.proxy.metric("log_lines_lost_total") == 0
    stack.proxy.process.stop()
    os.close(reader)
    stack.origin.stop()


# --- somebody sets the clock ---------------------------------------------------------------


class Clock:
    """The wall clock of programs started with it: real time and some days."""

    def __init__(self, path):
        self.path = path
        self.set(0)

    def set(self, days):
        # In place: programs have mapped it.
        with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
            file.write(struct.pack("q", int(days * DAY_S)))

    def env(self):
        return {**os.environ, "LD_PRELOAD": str(BIN_DIR / "shifted_clock.so"),
                "SHIFTED_CLOCK": str(self.path),
                "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}


class ClockProcs(Procs):
    def __init__(self, folder, clock):
        super().__init__(folder)
        self.clock = clock

    def start(self, name, args, **popen):
        if str(args[0]).startswith(str(BIN_DIR)):
            popen.setdefault("env", self.clock.env())
        return super().start(name, args, **popen)


def days_from_now(days):
    when = datetime.datetime.utcnow() + datetime.timedelta(days=days)
    return when.strftime("%Y%m%d%H%M%SZ")


def staple(stack, leaf, end_days):
    """Writes a good OCSP response that ends so many days from now beside the chain."""
    ca = stack.web_cas[0]
    now = datetime.datetime.utcnow().replace(microsecond=0)
    issuer = x509.load_pem_x509_certificate(ca.cert.read_bytes())
    built = ocsp.OCSPResponseBuilder().add_response(
        cert=x509.load_der_x509_certificate(leaf.der()), issuer=issuer, algorithm=hashes.SHA1(),
        cert_status=ocsp.OCSPCertStatus.GOOD, this_update=now - datetime.timedelta(hours=1),
        next_update=now + datetime.timedelta(days=end_days), revocation_time=None,
        revocation_reason=None).responder_id(ocsp.OCSPResponderEncoding.HASH, issuer)
    key = serialization.load_pem_private_key(ca.key.read_bytes(), None)
    response = built.sign(key, hashes.SHA256())
    leaf.chain.with_name(leaf.chain.name + ".ocsp").write_bytes(
        response.public_bytes(serialization.Encoding.DER))


# The programs live two days ahead of the certificates' beginning, so that a day back is
# still after it.
TODAY, YESTERDAY, TOMORROW = 2, 1, 3


@pytest.fixture
def shifted(tmp_path, pki):
    clock = Clock(tmp_path / "clock")
    clock.set(TODAY)
    procs = ClockProcs(tmp_path, clock)
    stack = Stack(procs, pki, origin=Origin(echo))
    stack.clock = clock
    stack.proxy.config["listeners"].append(
        {"name": "raw", "address": "127.0.0.1:0", "deferred": False})
    stack.proxy.config["limits"]["handshake"] = f"{int(HANDSHAKE_S * 1000)}ms"
    stack.proxy.config["tickets"] = {"lifetime": "12h"}
    stack.proxy.config["delegated_credentials"] = {"lifetime": "12h", "margin": "1h",
                                                   "retry_min": "50ms", "retry_max": "500ms"}
    for host, more in (("young.test", {"start": days_from_now(1.5)}),
                       ("old.test", {"end": days_from_now(2.5)}), ("stapled.test", {})):
        leaf = stack.leaf(host, host, delegation=False, **more)
        backup = stack.leaf(f"{host}-backup", host, 1, delegation=False)
        stack.add_name(host, [("primary", leaf), ("backup", backup)])
    staple(stack, leaf, 2.5)
    stack.start(wait_credentials=2)
    yield stack
    procs.stop_all()
    stack.origin.stop()


def shows(stack):
    """Which of the names with a date are answered by their primary; and the staple."""
    found = set()
    for host in ("young.test", "old.test"):
        with stack.connect(host, verify=False) as client:
            leaf = x509.load_der_x509_certificate(client.getpeercert(True))
        if "web-one" in leaf.issuer.rfc4514_string():
            found.add(host)
    done = stack.procs.run(["openssl", "s_client", "-connect", f"127.0.0.1:{stack.proxy.port}",
                            "-servername", "stapled.test", "-status"], input="")
    if "OCSP Response Status: successful" in done.stdout:
        found.add("staple")
    return found


class Sessions:
    """A client of one name, which keeps the session of the first day."""

    def __init__(self, stack, **kwargs):
        self.stack = stack
        self.context = stack.context(**kwargs)
        self.first = None
        self.first = self.visit()[1]

    def visit(self, session=None):
        """Whether `session` was resumed, and the one to come back with."""
        plain = socket.create_connection(self.stack.proxy.address, timeout=10 * SLOW)
        with self.context.wrap_socket(plain, server_hostname="stapled.test",
                                      session=session) as client:
            assert talks(client)
            return client.session_reused, client.session

    def check(self, day):
        """Made today, it is resumed today; on another day it is too old, or not made yet. One of
        that day is resumed on that day: the keys of tickets are not in disorder."""
        is_reused, again = self.visit(self.first)
        assert is_reused == (day == TODAY), day
        assert self.visit(again)[0], day


def silent(stack):
    """How long a client that says nothing is borne."""
    begin = time.monotonic()
    with socket.create_connection(stack.proxy.process.address("raw"), timeout=30 * SLOW) as sock:
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""
    return time.monotonic() - begin


def test_clock_set_back_and_forth_by_a_day(shifted):
    stack, nss = shifted, shifted.nss()
    clients = [Sessions(stack), Sessions(stack, tls12=True)]
    keys = stack.proxy.metric("ticket_key_changes_total")
    with stack.connect() as live, concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert shows(stack) == {"young.test", "old.test", "staple"}
        assert nss.run().got_dc
        for day, shown in ((YESTERDAY, {"old.test", "staple"}),
                           (TODAY, {"young.test", "old.test", "staple"}),
                           (TOMORROW, {"young.test"}),
                           (TODAY, {"young.test", "old.test", "staple"})):
            waiting = None
            if day != TODAY:
                waiting = pool.submit(silent, stack)
                wait_until(lambda: stack.proxy.metric("handshakes_under_way") >= 1, "it to wait")
            if day == TOMORROW:
                stack.issuer.process.freeze()
            stack.clock.set(day)
            # The very next handshake goes by the new date.
            assert shows(stack) == shown, day
            result = nss.run()
            assert result.is_ok, result
            for client in clients:
                client.check(day)
            if day == TOMORROW:
                # The credential has ended; without an issuer nobody is shown one.
                assert not result.got_dc, result
                stack.issuer.process.thaw()
                wait_until(lambda: nss.run().got_dc, "a new credential", 30)
            if waiting:
                assert HANDSHAKE_S * 0.9 < waiting.result() < HANDSHAKE_S + 2.5 * SLOW, day
            assert talks(live)
            assert 0 <= stack.proxy.status()["uptime_s"] < DAY_S / 2
    # Keys of its own change with time that has passed.
    assert stack.proxy.metric("ticket_key_changes_total") == keys
    for day in (YESTERDAY, TOMORROW):
        wait_for_key_server(stack, day)


def wait_for_key_server(stack, day):
    """The wait for a signature goes by the monotonic clock as well."""
    before = stack.proxy.failures("key_server_timeout")
    wait_until(lambda: stack.proxy.metric("key_servers_ready") >= 1, "the key server")
    stack.keyserver.process.freeze()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        begin = time.monotonic()
        client = pool.submit(stack.connect)
        wait_until(lambda: stack.proxy.metric("handshakes_signing") == 1, "the signature")
        stack.clock.set(day)
        with pytest.raises(ssl.SSLError, match="(?i)alert.internal.error"):
            client.result()
        assert KEY_SERVER_S * 0.9 < time.monotonic() - begin < KEY_SERVER_S + 2.5 * SLOW
    stack.keyserver.process.thaw()
    stack.clock.set(TODAY)
    assert stack.proxy.failures("key_server_timeout") == before + 1
