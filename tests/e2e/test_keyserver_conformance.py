# SPDX-License-Identifier: Apache-2.0
"""A client of another make at our key server, as the protocol's description has it.

It sends digests alone, over TLS 1.2 with its two suites or TLS 1.3, the header in one
record and the body in another, its items in an order of its own. Recorded packets are in
test_keyserver_vectors.py, what is malformed in test_keyserver_protocol.py, and a server of
another make in test_keyclient_conformance.py.
"""

import hashlib
import struct

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, utils

from support import frames
from support.frames import (CERT_ID, CLIENT_IP, CONTEXT, DIGEST, ECDSA_SHA256, ED25519, OPCODE,
                            PADDING, PAYLOAD, PING, PONG, PSS_SHA256, RSA_SHA256, SERVER_IP, SKI,
                            SNI, SUCCESS, item, packet)
from support.keyserver import KeyServer
from support.procs import wait_until

HASH = hashlib.sha256(b"hello keyless").digest()
REGION, SPAN = 0x17, 0x15


@pytest.fixture(scope="module")
def server(module_procs, module_pki):
    ks = KeyServer(module_procs, module_pki)
    ks.add_key("p256", "p256")
    ks.add_key("p384", "p384")
    ks.add_key("rsa", "rsa2048")
    ks.add_key("rsa4096", "rsa4096")
    ks.add_key("ed25519", "ed25519")
    return ks.start()


@pytest.fixture(params=["tls12", "tls13"])
def client(request, server):
    with server.connect("foreign", tls12=request.param == "tls12") as c:
        yield c
        c.ping()  # whatever came before, the connection lives


def foreign(server, request_id, opcode=ECDSA_SHA256, label="p256", payload=HASH, more=()):
    """A request as a foreign client writes it, in its order of items."""
    return packet(request_id, item(OPCODE, bytes([opcode])), item(PAYLOAD, payload),
                  item(SKI, server.keys[label].ski()), *more)


def send_in_records(client, *parts):
    """Each part in a TLS record (or several) of its own, all at once."""
    client.sock.sendall(b"".join(client.sealed(part) for part in parts))


def expect_signed(server, reply, opcode=ECDSA_SHA256, label="p256", digest=HASH):
    assert reply.error is None, reply
    assert reply.opcode == SUCCESS
    frames.verify(server.keys[label].spki(), opcode, reply.payload, digest=digest)


# --- records and packets -------------------------------------------------------------


def test_header_and_body_come_in_two_records(server, client):
    for n in range(5):
        whole = foreign(server, n)
        send_in_records(client, whole[:8], whole[8:])
        reply = client.receive()
        assert reply.id == n
        expect_signed(server, reply)
    ping = packet(9, item(OPCODE, bytes([PING])))
    send_in_records(client, ping[:8], ping[8:])
    assert client.receive().opcode == PONG


def test_two_and_more_packets_in_one_record(server, client):
    """Twelve at once, padded to 1024 bytes as foreign clients do: less than a record."""
    send_in_records(client, b"".join(foreign(server, n) for n in range(12)))
    for reply in client.receive_all(12).values():
        expect_signed(server, reply)
    small = [packet(n, item(OPCODE, bytes([PING])), pad=False) for n in range(1000)]
    send_in_records(client, b"".join(small))  # 12 bytes each: all of them in one
    assert all(reply.opcode == PONG for reply in client.receive_all(1000).values())


@pytest.mark.parametrize("length", [1, 5, 9, 100, 1023])
def test_one_packet_over_several_records(server, client, length):
    stream = b"".join(foreign(server, n) for n in range(3))
    send_in_records(client, *(stream[at:at + length] for at in range(0, len(stream), length)))
    for reply in client.receive_all(3).values():
        expect_signed(server, reply)


def test_a_record_that_ends_one_packet_and_begins_the_next(server, client):
    one, two = foreign(server, 1), foreign(server, 2)
    for cut in (1, 7, 8, 9, 11, 1020):  # in the header, at its end, within an item's head
        send_in_records(client, one[:500], one[500:] + two[:cut], two[cut:])
        for reply in client.receive_all(2).values():
            expect_signed(server, reply)


def test_the_largest_ping_in_five_records(client):
    payload = bytes(range(256)) * 255 + bytes(248)  # 65528: an opcode beside it fills the packet
    assert len(payload) == 65528
    whole = packet(1, item(OPCODE, bytes([PING])), item(PAYLOAD, payload), pad=False)
    assert len(whole) == 65543
    client.send(whole)
    reply = client.receive()
    assert (reply.opcode, reply.payload, reply.raw[8:]) == (PONG, payload, b"\x11\0\1\xf2" + whole[12:])


# --- ids -----------------------------------------------------------------------------------


def test_ids_in_any_order_large_and_again(server, client):
    ids = [0, 1, 2, 0xFFFFFFFF, 0x80000000, 0xFFFFFFFE, 3, 0x01020304, 256, 7]
    client.send(b"".join(foreign(server, n) for n in ids))
    assert set(client.receive_all(len(ids))) == set(ids)
    for n in (5, 5, 5):  # one after the other
        client.send(foreign(server, n))
        reply = client.receive()
        assert reply.id == 5
        expect_signed(server, reply)


def test_thousands_of_ids_used_again_while_they_are_under_way(server, client):
    """Each request gets a reply of its own, whatever its id: four ids, 4000 requests."""
    total, counts = 4000, {n: 0 for n in range(4)}
    for start in range(0, total, 1000):
        client.send(b"".join(packet(n % 4, item(OPCODE, bytes([ECDSA_SHA256])), item(PAYLOAD, HASH),
                                    item(SKI, server.keys["p256"].ski()), pad=False)
                             for n in range(start, start + 1000)))
        for _ in range(1000):
            reply = client.receive()
            assert reply.error is None
            counts[reply.id] += 1
    assert counts == {n: total // 4 for n in range(4)}


def test_replies_come_in_any_order(server, client):
    """What is quick overtakes: pings and P-256 behind a slow key's signatures."""
    client.send(b"".join(foreign(server, n, RSA_SHA256, "rsa4096") for n in range(100, 104)) +
                b"".join(packet(n, item(OPCODE, bytes([PING]))) for n in range(200, 204)) +
                b"".join(foreign(server, n) for n in range(300, 304)))
    order = [client.receive().id for _ in range(12)]
    assert sorted(order) == [*range(100, 104), *range(200, 204), *range(300, 304)]
    assert order.index(203) < order.index(103) and order.index(303) < order.index(103)


# --- items -------------------------------------------------------------------------------------


def test_everything_that_foreign_clients_send(server, client):
    """All items of the table but those that only errors carry, in several orders."""
    rest = [item(DIGEST, bytes(32)), item(CLIENT_IP, bytes(4)), item(SERVER_IP, bytes(16)),
            item(SNI, b"www.example.com"), item(CERT_ID, b"id \xff\0"), item(0x13, b"name"),
            item(SPAN, b"junk \0\xff"), item(CONTEXT, b'{"request_id":"1"}'), item(REGION, b"\x01")]
    core = [item(OPCODE, bytes([ECDSA_SHA256])), item(PAYLOAD, HASH),
            item(SKI, server.keys["p256"].ski())]
    for n, items in enumerate([core + rest, rest + core, (core + rest)[::-1],
                               rest[:4] + core + rest[4:]]):
        expect_signed(server, client.ask(n, *items))
        expect_signed(server, client.ask(n, item(PADDING, b"any bytes"), *items, pad=False))


def test_unknown_tags_anywhere_and_again(server, client):
    known = set(range(0x01, 0x07)) | set(range(0x11, 0x18)) | {0x20}
    odd = [item(tag, bytes([tag]) * (tag % 5)) for tag in range(256) if tag not in known]
    core = [item(OPCODE, bytes([ECDSA_SHA256])), item(PAYLOAD, HASH),
            item(SKI, server.keys["p256"].ski())]
    expect_signed(server, client.ask(1, *odd, *core, *odd))
    expect_signed(server, client.ask(2, core[0], *odd, core[1], *odd, core[2], pad=False))


@pytest.mark.parametrize("context", [
    b"null", b"", b"[]", b'"x"', b"{}", b'{"request_id":null}', b'{"request_id":[[[[', b"\xff\0",
    b"[" * 60000])
@pytest.mark.parametrize("tag", [CONTEXT, SPAN])
def test_what_is_for_tracing_is_never_looked_at(server, client, tag, context):
    """JSON null in item 0x16 costs a request its reply elsewhere."""
    items = [item(OPCODE, bytes([ECDSA_SHA256])), item(PAYLOAD, HASH),
             item(SKI, server.keys["p256"].ski()), item(tag, context)]
    expect_signed(server, client.ask(1, *items))
    assert client.ask(2, item(OPCODE, bytes([PING])), item(tag, context)).opcode == PONG


def test_padding_of_replies_by_the_rule(client):
    """1024 bytes; 1025 and 1026 where the padding item's own head does not fit."""
    for length in [*range(0, 8), *range(1000, 1030), 2000, 65000]:
        reply = client.ask(1, item(OPCODE, bytes([PING])), item(PAYLOAD, bytes(length)), pad=False)
        n = 8 + 4 + (3 + length if length else 0)
        want = n if n >= 1024 else n + 3 + max(0, 1024 - n - 3)
        assert len(reply.raw) == want, length
        tags = tags_of(reply.raw[8:])
        assert tags == [OPCODE] + [PAYLOAD] * (length > 0) + [PADDING] * (n < 1024)


def tags_of(body):
    tags, at = [], 0
    while at < len(body):
        tags.append(body[at])
        at += 3 + struct.unpack_from(">H", body, at + 1)[0]
    return tags


def test_every_kind_of_reply_has_its_items_in_order(server, client):
    for reply in (client.ask(1, *[item(OPCODE, bytes([PING])), item(PAYLOAD, b"x")]),
                  client.ask(2, item(OPCODE, b"\x99")),
                  client.ask(3, item(OPCODE, bytes([ECDSA_SHA256])), item(PAYLOAD, HASH),
                             item(SKI, server.keys["p256"].ski()))):
        assert tags_of(reply.raw[8:]) == [OPCODE, PAYLOAD, PADDING]
        assert len(reply.raw) == 1024 and set(reply.raw[-900:-300]) == {0}


@pytest.mark.parametrize("major, minor", [(1, 0), (1, 7), (1, 255), (0, 0), (2, 0), (9, 9), (255, 0)])
def test_version_bytes(server, client, major, minor):
    """Another major version is answered with 4, as in the older implementation, and skipped."""
    reply = client.ask(1, item(OPCODE, bytes([ECDSA_SHA256])), item(PAYLOAD, HASH),
                       item(SKI, server.keys["p256"].ski()), major=major, minor=minor)
    assert (reply.major, reply.minor) == (1, 0)
    if major == 1:
        expect_signed(server, reply)
    else:
        assert reply.error == frames.E_VERSION


# --- which key -------------------------------------------------------------------------------------


def test_only_the_ski_finds_a_key(server, client):
    """Not digest, names, addresses or certificate ids, alone or against a good SKI."""
    modulus = serialization.load_der_public_key(server.keys["rsa"].spki()).public_numbers().n
    digest = item(DIGEST, hashlib.sha256(f"{modulus:X}".encode()).digest())
    core = [item(OPCODE, bytes([RSA_SHA256])), item(PAYLOAD, HASH)]
    ski, other = item(SKI, server.keys["rsa"].ski()), item(SKI, b"\x01" * 20)
    selectors = [digest, item(SNI, b"rsa"), item(SERVER_IP, b"\x7f\0\0\1"), item(CERT_ID, b"rsa"),
                 item(CLIENT_IP, b"\x7f\0\0\1")]
    for n, selector in enumerate(selectors):
        assert client.ask(n, *core, selector).error == frames.E_INTERNAL
        assert client.ask(n, *core, selector, item(SKI, bytes(20))).error == frames.E_INTERNAL
        assert client.ask(n, *core, selector, item(SKI, bytes(21))).error == frames.E_INTERNAL
        assert client.ask(n, *core, selector, other).error == frames.E_KEY_NOT_FOUND
        expect_signed(server, client.ask(n, *core, selector, ski), RSA_SHA256, "rsa")
    for wrong in (bytes(32), bytes(31), bytes(33), b""):  # of another length: as if not there
        expect_signed(server, client.ask(9, *core, item(DIGEST, wrong), ski), RSA_SHA256, "rsa")


# --- opcodes ---------------------------------------------------------------------------------------


SIGNING = {0x05: 32, 0x06: 48, 0x07: 64, 0x15: 32, 0x16: 48, 0x17: 64, 0x35: 32, 0x36: 48, 0x37: 64}
OF_KIND = {"rsa": {0x05, 0x06, 0x07, 0x35, 0x36, 0x37}, "p256": {0x15, 0x16, 0x17},
           "p384": {0x15, 0x16, 0x17}, "ed25519": set()}


@pytest.mark.parametrize("label", ["p256", "p384", "rsa", "ed25519"])
def test_every_opcode_with_every_key(server, client, label):
    """A byte of opcode gets a good signature or the one error that the table gives it."""
    payload = frames.tls13_message()
    client.send(b"".join(foreign(server, opcode, opcode, label, payload[:SIGNING.get(opcode, 130)])
                         for opcode in range(256)))
    for opcode, reply in client.receive_all(256).items():
        if opcode in (frames.SUCCESS, PONG, frames.ERROR):
            assert reply.error == frames.E_UNEXPECTED, hex(opcode)
        elif opcode == PING:
            assert (reply.opcode, reply.payload) == (PONG, payload)
        elif opcode not in SIGNING and opcode != ED25519:
            assert reply.error == frames.E_BAD_OPCODE, hex(opcode)
        elif label == "ed25519" and opcode == ED25519:
            frames.verify(server.keys[label].spki(), opcode, reply.payload, payload)
        elif opcode in OF_KIND[label]:
            expect_signed(server, reply, opcode, label, payload[:SIGNING[opcode]])
        else:
            assert reply.error == frames.E_CRYPTOGRAPHY, hex(opcode)


def test_pkcs1_byte_for_byte(server, client):
    """The one deterministic signature beside Ed25519: our DigestInfo is everybody's."""
    key = serialization.load_pem_private_key(server.keys["rsa"].key.read_bytes(), None)
    for opcode, algorithm in ((0x05, hashes.SHA256()), (0x06, hashes.SHA384()),
                              (0x07, hashes.SHA512())):
        digest = bytes(range(algorithm.digest_size))
        reply = client.ask(1, *[item(OPCODE, bytes([opcode])), item(PAYLOAD, digest),
                                item(SKI, server.keys["rsa"].ski())])
        assert reply.payload == key.sign(digest, padding.PKCS1v15(), utils.Prehashed(algorithm))


def test_pss_salt_is_as_long_as_the_hash(server, client):
    key = serialization.load_der_public_key(server.keys["rsa"].spki())
    for opcode, algorithm in ((0x35, hashes.SHA256()), (0x36, hashes.SHA384()),
                              (0x37, hashes.SHA512())):
        digest = bytes(algorithm.digest_size)
        reply = client.ask(1, *[item(OPCODE, bytes([opcode])), item(PAYLOAD, digest),
                                item(SKI, server.keys["rsa"].ski())])
        pss = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
        key.verify(reply.payload, digest, pss, utils.Prehashed(algorithm))


# --- no reply is lost ------------------------------------------------------------------------------


def test_a_malformed_packet_costs_no_other_its_reply(server, client):
    """Sixteen RSA requests and one that is malformed: elsewhere, no reply at all."""
    client.send(b"".join(foreign(server, n, PSS_SHA256, "rsa") for n in range(16)) +
                packet(99, b"\x11\0\5\xf1", pad=False) + foreign(server, 16))
    replies = client.receive_all(18)
    assert replies[99].error == frames.E_FORMAT
    for n in range(16):
        expect_signed(server, replies[n], PSS_SHA256, "rsa")
    expect_signed(server, replies[16])


@pytest.mark.parametrize("tls12", [True, False])
@pytest.mark.parametrize("label", ["rsa", "rsa4096"])
def test_close_notify_behind_sixteen_requests(server, tls12, label):
    with server.connect("foreign", tls12=tls12) as client:
        client.send(b"".join(foreign(server, n, PSS_SHA256, label) for n in range(16)))
        client.half_close()
        for reply in client.receive_all(16).values():
            expect_signed(server, reply, PSS_SHA256, label)
        with pytest.raises(EOFError):
            client.receive()


def test_two_thousand_operations_at_once(server, client):
    client.send(b"".join(foreign(server, n) for n in range(2048)))
    replies = client.receive_all(2048)
    assert all(reply.error is None for reply in replies.values())


def test_connections_closed_under_way_harm_nobody(server):
    """A storm of connections that ask and leave; one that stays is served throughout."""
    with server.connect("foreign", tls12=True) as steady:
        for n in range(40):
            with server.connect("foreign", tls12=n % 2 == 0) as hasty:
                hasty.send(b"".join(foreign(server, i, PSS_SHA256, "rsa") for i in range(8)))
            steady.send(foreign(server, n))
            expect_signed(server, steady.receive())
    wait_until(lambda: server.metric("connections_open") == 0, "all to be gone")


# --- TLS -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", ["X25519:P-256", "P-256", "P-384:P-256"])
def test_groups(server, groups):
    """P-256 is in each list, as the server's certificate is of that curve."""
    identity = server.client("foreign")
    done = server.procs.run(
        ["openssl", "s_client", "-connect", "%s:%d" % server.address, "-tls1_2", "-groups",
         groups, "-cert", identity.chain, "-key", identity.key, "-CAfile",
         server.ca.cert, "-verify_return_error", "-brief"], 20)
    assert "ECDHE-ECDSA-AES256-GCM-SHA384" in done.stdout + done.stderr
    assert "error" not in (done.stdout + done.stderr).lower(), done.stderr


def test_alpn_is_ignored(server):
    with server.connect("foreign", alpn=["h2", "http/1.1"]) as client:
        client.ping()
        assert client.tls.selected_alpn_protocol() is None
