# SPDX-License-Identifier: Apache-2.0
"""The key server is away: clients that take credentials notice nothing, the others
get an alert in time, and all is well again when it is back, without a hand on the proxy.
"""

import concurrent.futures
import json
import signal
import ssl
import time

import pytest

from support.keyserver import KeyServer
from support.procs import BIN_DIR, SLOW, wait_until
from support.stack import Stack

DEADLINE_S = 1 * SLOW
SLACK_S = 0.25 * SLOW  # of a busy machine, on top of a deadline
HANDSHAKES = 500 // SLOW
OF_TSTCLNT = 20 // SLOW


@pytest.fixture
def stack(procs, pki):
    stack = Stack(procs, pki)
    stack.proxy.config["key_servers"] = {"deadline": f"{DEADLINE_S}s",
                                         "attempt_timeout": f"{DEADLINE_S * 800}ms"}
    stack.start()
    # It comes back where it was.
    stack.keyserver.config["listen"] = ["127.0.0.1:%d" % stack.keyserver.address[1]]
    yield stack
    stack.stop()


def refused_after(stack, host="demo.test"):
    """A handshake with the certificate's key that must fail: (seconds, alert)."""
    began = time.monotonic()
    with pytest.raises(ssl.SSLError) as caught:
        stack.connect(host).close()
    return time.monotonic() - began, caught.value.reason


def many_handshakes(stack, count):
    """So many DC handshakes by NSS, which checks everything; returns the summary."""
    done = stack.procs.run([BIN_DIR / "deputy-bench", "nss", "--target",
                            "127.0.0.1:%d" % stack.proxy.port, "--server-name", "demo.test",
                            "--ca", stack.ca_file(), "--count", count, "--concurrency", 4], 60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tstclnt_handshakes(stack, count):
    """DC handshakes by a program of NSS's own; how long each took."""
    nss = stack.nss()

    def one(_):
        began = time.monotonic()
        result = nss.run("demo.test")
        assert result.is_ok and result.got_dc, result
        return time.monotonic() - began

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, range(count)))


def key_failures(stack):
    return sum(stack.proxy.failures(f"key_server_{why}") for why in ("timeout", "unavailable"))


def is_served(stack):
    try:
        stack.connect().close()
        return True
    except ssl.SSLError:
        return False


def away(stack, how):
    if how == signal.SIGKILL:
        stack.keyserver.process.kill()
    elif how == signal.SIGSTOP:
        stack.keyserver.process.freeze()
    else:
        stack.keyserver.process.stop()
    if how != signal.SIGSTOP:
        wait_until(lambda: stack.proxy.metric("key_servers_ready") == 0, "the loss to be noticed")


def back(stack, how):
    if how == signal.SIGSTOP:
        stack.keyserver.process.thaw()
    else:
        stack.keyserver.start()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP],
                         ids=["stopped", "killed", "hanging"])
def test_only_the_certificates_key_is_missed(stack, how):
    assert is_served(stack)  # which also makes the file of CAs, before there are threads
    away(stack, how)
    try:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            # These wait for the key server all the while; nobody else does.
            waiting = [pool.submit(refused_after, stack) for _ in range(4)]
            before = stack.proxy.metric("handshakes_total", source="dc")
            summary = many_handshakes(stack, HANDSHAKES)
            times = tstclnt_handshakes(stack, OF_TSTCLNT)
            refusals = [w.result() for w in waiting]
        assert summary["counts"]["ok"] == summary["counts"]["dc"] == HANDSHAKES, summary
        assert summary["counts"]["failed"] == 0, summary
        slowest_s = max(*times, summary["latency_us"]["handshake"]["max"] / 1e6)
        assert slowest_s < 0.5 * DEADLINE_S, "a handshake with a credential waited"
        # The client is done a moment before the server has its Finished.
        stack.proxy.wait_metric(before + HANDSHAKES + OF_TSTCLNT, "handshakes_total", source="dc")
        for seconds, alert in refusals:
            assert alert == "TLSV1_ALERT_INTERNAL_ERROR", alert
            assert seconds < DEADLINE_S + SLACK_S, seconds
        assert key_failures(stack) == len(refusals)
    finally:
        back(stack, how)
    wait_until(lambda: is_served(stack), "the certificate path to be back")
    assert all(is_served(stack) for _ in range(20))


@pytest.fixture
def pair(procs, pki):
    """Two key servers with the same keys; the first of them is preferred."""
    stack = Stack(procs, pki)
    second = KeyServer(procs, pki, name="second")
    first = stack.keyserver
    second.config.update({key: first.config[key] for key in ("tls", "key_folders", "clients")})
    first.start()
    second.start()
    stack.proxy.config["key_servers"] = {
        "deadline": f"{2 * DEADLINE_S}s", "attempt_timeout": f"{DEADLINE_S * 300}ms",
        "servers": [{"address": "%s:%d" % ks.address, "name": "localhost"}
                    for ks in (first, second)]}
    first.process.stop()
    first.config["listen"] = ["127.0.0.1:%d" % first.address[1]]
    stack.start()
    wait_until(lambda: stack.proxy.metric("key_servers_ready") == 2, "both key servers")
    stack.second = second
    yield stack
    stack.stop()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP],
                         ids=["stopped", "killed", "hanging"])
def test_the_next_key_server_takes_over(pair, how):
    """In the middle of many handshakes, of which none fails."""
    context = pair.context()
    signed = pair.second.metric("requests_total", purpose="tls13", result="signed")
    rounds = 40 // SLOW if how != signal.SIGSTOP else 4

    def client(i):
        times = []
        for n in range(rounds):
            if (i, n) == (0, rounds // 4):
                if how == signal.SIGTERM:
                    pair.keyserver.process.stop()
                elif how == signal.SIGKILL:
                    pair.keyserver.process.kill()
                else:
                    pair.keyserver.process.signal(how)
            began = time.monotonic()
            pair.connect(context=context).close()
            times.append(time.monotonic() - began)
        return times

    try:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            times = [t for times in pool.map(client, range(4)) for t in times]
        assert max(times) < 2 * DEADLINE_S
        assert pair.proxy.metric("handshakes_failed_total") == 0
        assert pair.second.metric("requests_total", purpose="tls13", result="signed") > signed
    finally:
        if how == signal.SIGSTOP:
            pair.keyserver.process.signal(signal.SIGCONT)
