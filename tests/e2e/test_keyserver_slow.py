# SPDX-License-Identifier: Apache-2.0
"""What takes long is signed by threads of its own, and delays nobody."""

import statistics
import time

import pytest

from support import frames
from support.keyserver import KeyServer
from support.pki import make_key
from support.procs import SLOW, wait_until

NUM_SLOW = 100


@pytest.fixture(scope="module")
def big_key(tmp_path_factory):
    """Made once: finding its primes takes seconds."""
    return make_key(tmp_path_factory.mktemp("big") / "big.key", "rsa4096").read_bytes()


@pytest.fixture
def ks(procs, pki, big_key):
    ks = KeyServer(procs, pki)
    ks.config["workers"] = 1
    ks.config["signers"] = 1
    # Signer threads get what others leave, on a busy machine next to nothing.
    ks.config["limits"] = {"sign_timeout": "5m", "drain_timeout": "5m"}
    ks.add_key("fast", "p256")
    ks.put_key("big", big_key)
    return ks


def tls13_message(n):
    return frames.tls13_message(n.to_bytes(32, "big"))


def slow_packets(ks, num, first=1000):
    ski = ks.keys["big"].ski()
    return {first + n: tls13_message(n) for n in range(num)}, b"".join(
        frames.sign_packet(first + n, frames.PSS_SHA256, ski, tls13_message(n)) for n in range(num))


def check_slow(ks, replies, messages):
    spki = ks.keys["big"].spki()
    assert set(replies) == set(messages)
    for request_id, message in messages.items():
        assert replies[request_id].error is None
        frames.verify(spki, frames.PSS_SHA256, replies[request_id].payload, message)


def fast_ms(ks, client, num):
    """How long each of `num` P-256 signatures took."""
    ski, spki, times = ks.keys["fast"].ski(), ks.keys["fast"].spki(), []
    for n in range(num):
        message = tls13_message(n)
        start = time.monotonic()
        reply = client.sign(n, frames.ECDSA_SHA256, ski, message)
        times.append((time.monotonic() - start) * 1000)
        frames.verify(spki, frames.ECDSA_SHA256, reply.payload, message)
    return times


def queued(ks, lane="rsa"):
    return ks.metric("slow_queued", lane=lane) + ks.metric("slow_running", lane=lane)


def test_p256_goes_on_while_rsa_4096_queues(ks):
    ks.start()
    with ks.connect("proxy") as quick, ks.connect("proxy", timeout=200) as slow:
        fast_ms(ks, quick, 20)
        messages, packets = slow_packets(ks, NUM_SLOW)
        slow.send(packets)
        wait_until(lambda: queued(ks) > 10, "signatures to queue")
        times = fast_ms(ks, quick, 20)
        still = queued(ks)
        check_slow(ks, slow.receive_all(NUM_SLOW), messages)
    # One of them takes some milliseconds; had the P-256 ones waited their turn, they
    # would have come after all hundred.
    assert still > 0, f"the queue was empty before the quick ones were through: {times}"
    assert statistics.median(times) < 20 * SLOW, times
    assert ks.metric("slow_done_total", lane="rsa") == NUM_SLOW


def test_a_p256_request_on_the_same_connection_overtakes(ks):
    ks.start()
    with ks.connect("proxy") as client:
        messages, packets = slow_packets(ks, 40)
        message = tls13_message(7)
        client.send(packets + frames.sign_packet(7, frames.ECDSA_SHA256, ks.keys["fast"].ski(),
                                                 message))
        order = [client.receive() for _ in range(41)]
    at = [reply.id for reply in order].index(7)
    assert at < 10, at
    frames.verify(ks.keys["fast"].spki(), frames.ECDSA_SHA256, order.pop(at).payload, message)
    check_slow(ks, {reply.id: reply for reply in order}, messages)


def test_more_than_the_output_holds_are_all_answered(ks):
    """Replies that are owed count as unread ones: reading stops, and goes on."""
    # The queue is long for an instrumented build on a busy machine: nothing is late here.
    ks.config["limits"] |= {"max_unread": "192KiB", "sign_timeout": "5m"}
    ks.start()
    with ks.connect("proxy", timeout=120) as client:
        messages, packets = slow_packets(ks, 400)
        client.send(packets)
        wait_until(lambda: queued(ks) > 100, "signatures to queue")
        # 192 KiB hold the replies of some 180.
        most = max(queued(ks) for _ in range(20))
        assert most <= 192 * 1024 / 1088, most
        client.half_close()
        check_slow(ks, client.receive_all(400), messages)
        client.wait_closed()


def test_a_full_queue_answers_busy(ks):
    ks.config["limits"] |= {"max_queued": 10}
    ks.start()
    with ks.connect("proxy") as client:
        messages, packets = slow_packets(ks, 60)
        client.send(packets)
        replies = client.receive_all(60)
    errors = {reply.error for reply in replies.values()}
    assert errors == {None, frames.E_BUSY}, errors
    num_busy = sum(reply.error is not None for reply in replies.values())
    good = {i: r for i, r in replies.items() if r.error is None}
    check_slow(ks, good, {i: messages[i] for i in good})
    assert ks.metric("refusals_total", reason="queue_full") == num_busy
    ks.audit_wait(num_busy, reason="queue_full", purpose="tls13", key="big")
    ks.audit_wait(60 - num_busy, result="signed")


def test_one_client_cannot_keep_another_from_the_queue(ks):
    """Half the queue is the most of one client, and clients take turns."""
    ks.config["limits"] |= {"max_queued": 400}

    def flow(name):  # keyserver/slow.c: by the client key's hash
        return int(ks.client(name).spki_sha256()[:2], 16) % 64

    stranger = next(name for name in (f"other-{i}" for i in range(9)) if flow(name) != flow("proxy"))
    ks.grant(stranger, ["tls13"])
    ks.start()
    with ks.connect("proxy") as greedy, ks.connect(stranger) as other:
        messages, packets = slow_packets(ks, 150)
        greedy.send(packets)
        wait_until(lambda: queued(ks) > 100, "signatures to queue")
        message = tls13_message(5)
        reply = other.sign(5, frames.PSS_SHA256, ks.keys["big"].ski(), message)
        still = queued(ks)
        frames.verify(ks.keys["big"].spki(), frames.PSS_SHA256, reply.payload, message)
        assert still > 20, still
        check_slow(ks, greedy.receive_all(150), messages)


def test_what_waits_for_a_client_that_left_is_cancelled(ks):
    ks.start()
    with ks.connect("proxy") as client:
        client.send(slow_packets(ks, 150)[1])
        wait_until(lambda: queued(ks) > 100, "signatures to queue")
        client.sock.close()
    wait_until(lambda: ks.metric("slow_cancelled_total", lane="rsa") > 50, "cancellations")
    wait_until(lambda: queued(ks) == 0, "an empty queue")
    num_signed = int(ks.metric("requests_total", purpose="tls13", result="signed"))
    num_gone = int(ks.metric("refusals_total", reason="client_gone"))
    assert num_signed + num_gone == 150  # each request ends once
    ks.audit_wait(num_gone, reason="client_gone")
    ks.audit_wait(num_signed, result="signed")


def test_what_waits_too_long_is_answered_busy(ks):
    ks.config["limits"] |= {"sign_timeout": "100ms"}
    ks.start()
    with ks.connect("proxy", timeout=200) as client:
        num = 220
        client.send(slow_packets(ks, num)[1])
        replies = client.receive_all(num)
    errors = [reply.error for reply in replies.values() if reply.error is not None]
    # On a very fast machine all are signed within the first look at the clock.
    assert set(errors) <= {frames.E_BUSY}
    assert ks.metric("refusals_total", reason="sign_timeout") == len(errors)
    assert ks.metric("requests_total", purpose="tls13", result="signed") == num - len(errors)


def test_a_reload_leaves_what_waits_alone(ks):
    ks.start()
    with ks.connect("proxy", timeout=200) as client:
        messages, packets = slow_packets(ks, NUM_SLOW)
        client.send(packets)
        wait_until(lambda: queued(ks) > 10, "signatures to queue")
        (ks.folder / "big.key").rename(ks.folder / "big.away")
        ks.reload()
        check_slow(ks, client.receive_all(NUM_SLOW), messages)
        reply = client.sign(1, frames.PSS_SHA256, ks.keys["big"].ski(), tls13_message(1))
        assert reply.error == frames.E_KEY_NOT_FOUND


def test_sigterm_answers_what_waits(ks):
    ks.start()
    with ks.connect("proxy", timeout=200) as client:
        messages, packets = slow_packets(ks, NUM_SLOW)
        client.send(packets)
        wait_until(lambda: queued(ks) > 10, "signatures to queue")
        ks.process.stop(timeout=200)
        check_slow(ks, client.receive_all(NUM_SLOW), messages)
