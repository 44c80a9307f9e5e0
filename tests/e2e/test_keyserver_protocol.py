# SPDX-License-Identifier: Apache-2.0
"""Packets of every bad shape: each request gets one answer, and the connection lives on."""

import struct

import pytest

from support import frames
from support.frames import (CONTEXT, DIGEST, ECDSA_SHA256, ECDSA_SHA384, ED25519, EXTRA, OPCODE,
                            PAYLOAD, PING, PSS_SHA256, RSA_SHA256, SKI, item, packet)
from support.keyserver import KeyServer

MESSAGE = frames.tls13_message()
HASH = frames.digest_for(ECDSA_SHA256, MESSAGE)


@pytest.fixture(scope="module")
def server(module_procs, module_pki):
    ks = KeyServer(module_procs, module_pki)
    ks.add_key("p256", "p256", "a.test")
    ks.add_key("p384", "p384")
    ks.add_key("rsa", "rsa2048")
    ks.add_key("ed25519", "ed25519")
    return ks.start()


@pytest.fixture
def proxy(server):
    with server.connect("proxy") as client:
        yield client
        client.ping()  # whatever came before, the connection lives


def ski(server, label):
    return item(SKI, server.keys[label].ski())


def good_items(server, label="p256", opcode=ECDSA_SHA256):
    return [item(OPCODE, bytes([opcode])), item(PAYLOAD, HASH), item(EXTRA, MESSAGE),
            ski(server, label)]


def expect_signed(server, reply, label="p256", opcode=ECDSA_SHA256, message=MESSAGE):
    assert reply.error is None, reply
    frames.verify(server.keys[label].spki(), opcode, reply.payload, message)


def test_every_key_signs_its_own_way(server, proxy):
    for label, opcode in (("p256", ECDSA_SHA256), ("p384", ECDSA_SHA384), ("rsa", PSS_SHA256),
                          ("rsa", 0x36), ("rsa", 0x37), ("ed25519", ED25519)):
        reply = proxy.sign(9, opcode, server.keys[label].ski(), MESSAGE)
        expect_signed(server, reply, label, opcode)
    tls12 = frames.tls12_message()
    for label, opcode in (("rsa", RSA_SHA256), ("rsa", 0x06), ("rsa", 0x07), ("p256", 0x16),
                          ("p256", 0x17), ("p384", ECDSA_SHA256)):
        reply = proxy.sign(9, opcode, server.keys[label].ski(), tls12)
        expect_signed(server, reply, label, opcode, tls12)


def test_order_padding_and_unknown_items_do_not_matter(server, proxy):
    items = good_items(server)
    expect_signed(server, proxy.ask(1, *reversed(items), pad=False))
    unknown = [item(0x7E, b"x"), item(0x7E, b"y"), item(CONTEXT, b"null"), item(0x15, b"junk")]
    expect_signed(server, proxy.ask(2, *unknown, *items))
    expect_signed(server, proxy.ask(3, *items, b"\x11", pad=False))
    expect_signed(server, proxy.ask(4, *items, b"\x11\x00", pad=False))
    expect_signed(server, proxy.ask(5, *items, minor=7))


def test_replies_are_padded_and_echo_the_id(server, proxy):
    for request_id in (0, 1, 0x7FFFFFFF, 0xFFFFFFFF):
        reply = proxy.ask(request_id, *good_items(server))
        assert len(reply.raw) == 1024 and (reply.major, reply.minor) == (1, 0)


@pytest.mark.parametrize("payload", [None, b"", b"x", bytes(1013), bytes(1014), bytes(65528)])
def test_ping_of_every_size(proxy, payload):
    items = [item(OPCODE, bytes([PING]))] + ([] if payload is None else [item(PAYLOAD, payload)])
    reply = proxy.ask(3, *items, pad=False)
    assert (reply.opcode, reply.payload) == (frames.PONG, payload or b"")
    assert len(reply.raw) >= 1024


@pytest.mark.parametrize("opcode, code", [
    (0x01, frames.E_BAD_OPCODE), (0x02, frames.E_BAD_OPCODE), (0x03, frames.E_BAD_OPCODE),
    (0x04, frames.E_BAD_OPCODE), (0x08, frames.E_BAD_OPCODE), (0x12, frames.E_BAD_OPCODE),
    (0x13, frames.E_BAD_OPCODE), (0x14, frames.E_BAD_OPCODE), (0x21, frames.E_BAD_OPCODE),
    (0x22, frames.E_BAD_OPCODE), (0x23, frames.E_BAD_OPCODE), (0x24, frames.E_BAD_OPCODE),
    (0xF3, frames.E_BAD_OPCODE), (0x00, frames.E_BAD_OPCODE), (0x99, frames.E_BAD_OPCODE),
    (0xF0, frames.E_UNEXPECTED), (0xF2, frames.E_UNEXPECTED), (0xFF, frames.E_UNEXPECTED)])
def test_opcodes_that_are_not_served(server, proxy, opcode, code):
    items = good_items(server)
    items[0] = item(OPCODE, bytes([opcode]))
    assert proxy.ask(1, *items).error == code


def test_no_opcode(server, proxy):
    assert proxy.ask(1, *good_items(server)[1:]).error == frames.E_BAD_OPCODE
    assert proxy.ask(2, pad=False).error == frames.E_BAD_OPCODE


@pytest.mark.parametrize("tag, length", [(OPCODE, 0), (OPCODE, 2), (0x03, 5), (0x05, 0), (0x17, 2)])
def test_items_of_wrong_length_are_malformed(server, proxy, tag, length):
    items = [i for i in good_items(server) if i[0] != tag]
    assert proxy.ask(1, *items, item(tag, bytes(length))).error == frames.E_FORMAT


@pytest.mark.parametrize("tag", [OPCODE, PAYLOAD, EXTRA, SKI, DIGEST, 0x02, 0x03, 0x20])
def test_a_known_item_twice_is_malformed(server, proxy, tag):
    values = {DIGEST: bytes(32), 0x02: b"x", 0x03: bytes(4), 0x20: b"", SKI: bytes(20)}
    twice = [item(tag, values.get(tag, b"\x15"))] * 2
    items = [i for i in good_items(server) if i[0] != tag]
    assert proxy.ask(1, *items, *twice, pad=False).error == frames.E_FORMAT


def test_an_item_past_the_end_is_malformed(server, proxy):
    cut = struct.pack(">BH", 0x7E, 10) + b"short"
    assert proxy.ask(1, *good_items(server), cut, pad=False).error == frames.E_FORMAT


def test_no_usable_ski(server, proxy):
    items = good_items(server)[:3]
    assert proxy.ask(1, *items).error == frames.E_INTERNAL
    assert proxy.ask(2, *items, item(SKI, bytes(20))).error == frames.E_INTERNAL
    assert proxy.ask(3, *items, item(SKI, bytes(19))).error == frames.E_INTERNAL
    assert proxy.ask(4, *items, item(DIGEST, bytes(32))).error == frames.E_INTERNAL
    assert proxy.ask(5, *items, item(SKI, b"\x01" * 20)).error == frames.E_KEY_NOT_FOUND


@pytest.mark.parametrize("length", [0, 1, 31, 33, 48, 64, 1000])
def test_digest_of_wrong_length(server, proxy, length):
    items = good_items(server)
    items[1] = item(PAYLOAD, bytes(length))
    assert proxy.ask(1, *items).error == frames.E_CRYPTOGRAPHY
    assert proxy.ask(2, items[0], items[2], items[3]).error == frames.E_CRYPTOGRAPHY


@pytest.mark.parametrize("label, opcodes", [
    ("rsa", (0x15, 0x16, 0x17, 0x18)), ("p256", (0x05, 0x06, 0x07, 0x18, 0x35, 0x36, 0x37)),
    ("ed25519", (0x05, 0x07, 0x15, 0x17, 0x35, 0x37))])
def test_opcode_that_does_not_fit_the_key(server, proxy, label, opcodes):
    for opcode in opcodes:
        reply = proxy.sign(1, opcode, server.keys[label].ski(), MESSAGE)
        assert reply.error == frames.E_CRYPTOGRAPHY, hex(opcode)


def test_wrong_major_version_is_answered_and_skipped(server, proxy):
    for major in (0, 2, 255):
        reply = proxy.ask(1, *good_items(server), major=major)
        assert (reply.error, reply.major) == (frames.E_VERSION, 1)
    expect_signed(server, proxy.ask(2, *good_items(server)))


def test_garbage_before_a_good_packet_costs_only_itself(server, proxy):
    """The length in the header is believed, so what follows it is read as a packet."""
    proxy.send(packet(1, b"\xff" * 500, pad=False) + packet(2, *good_items(server)))
    assert proxy.receive().error == frames.E_FORMAT
    expect_signed(server, proxy.receive())


def test_merged_and_cut_packets(server, proxy):
    packets = [packet(n, *good_items(server)) for n in range(1, 8)]
    stream = b"".join(packets)
    for at in range(0, len(stream), 777):
        proxy.send(stream[at:at + 777])
    replies = proxy.receive_all(7)
    for reply in replies.values():
        expect_signed(server, reply)


def test_one_byte_at_a_time(server, proxy):
    whole = packet(5, *good_items(server), pad=False)
    for byte in whole:  # each byte in a record of its own
        proxy.send(bytes([byte]))
    expect_signed(server, proxy.receive())
    record = proxy.sealed(packet(6, *good_items(server)))
    for at in range(0, len(record), 7):  # one record in many segments
        proxy.sock.sendall(record[at:at + 7])
    expect_signed(server, proxy.receive())


def test_repeated_ids_get_a_reply_each(server, proxy):
    proxy.send(b"".join(packet(7, *good_items(server)) for _ in range(50)))
    for _ in range(50):
        reply = proxy.receive()
        assert reply.id == 7
        expect_signed(server, reply)


def test_message_past_the_limit(server, proxy):
    long = MESSAGE + bytes(40000)
    items = [item(OPCODE, bytes([ECDSA_SHA256])), item(PAYLOAD, frames.digest_for(0x15, long)),
             item(EXTRA, long), ski(server, "p256")]
    assert proxy.ask(1, *items).error == frames.E_BAD_MESSAGE


def test_the_largest_packet(server, proxy):
    """A body of 65535 bytes, and a signature in it."""
    items = good_items(server)
    room = 65535 - sum(len(i) for i in items) - 3
    expect_signed(server, proxy.ask(1, *items, item(0x20, bytes(room)), pad=False))


@pytest.mark.parametrize("pad", [True, False])
def test_a_thousand_pipelined_requests(server, proxy, pad):
    """Without padding they come many to a read: more than are served in one turn."""
    messages = {n: frames.tls13_message(n.to_bytes(32, "big")) for n in range(1, 1001)}
    proxy.send(b"".join(
        frames.sign_packet(n, ECDSA_SHA256, server.keys["p256"].ski(), m, pad=pad)
        for n, m in messages.items()))
    replies = proxy.receive_all(1000)
    for n in (1, 2, 500, 999, 1000):
        expect_signed(server, replies[n], message=messages[n])
    assert all(reply.error is None for reply in replies.values())


@pytest.mark.parametrize("notify", [True, False])
def test_half_close_is_still_answered(server, notify):
    with server.connect("proxy") as client:
        client.send(b"".join(packet(n, *good_items(server)) for n in range(1, 201)))
        client.half_close(notify)
        replies = client.receive_all(200)
        for reply in replies.values():
            assert reply.error is None
        with pytest.raises(EOFError):
            client.receive()


def test_a_cut_packet_then_close_harms_nobody(server, proxy):
    with server.connect("proxy") as client:
        client.send(packet(1, *good_items(server)) + packet(2, *good_items(server))[:500])
        client.half_close()
        expect_signed(server, client.receive())
        with pytest.raises(EOFError):
            client.receive()
