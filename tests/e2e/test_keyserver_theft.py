# SPDX-License-Identifier: Apache-2.0
"""What a thief can get with the credentials of a part that is not his.

The rows of the purpose table, then every opcode, key and message shape tried
with each client's certificate: nothing but what the table allows is signed. And
the other half: what is allowed is signed, or the tests would prove nothing.
"""

import hashlib
import itertools
import os
import time

import pytest

from support import frames, pki as pki_module
from support.frames import ECDSA_SHA256, ECDSA_SHA384, ED25519, PSS_SHA256, RSA_SHA256
from support.keyserver import KeyServer
from support.procs import wait_until

DAY = 24 * 3600


@pytest.fixture(scope="module")
def server(module_procs, module_pki, tmp_path_factory):
    ks = KeyServer(module_procs, module_pki)
    ks.add_key("p256", "p256", "a.test")
    ks.add_key("p384", "p384", "b.test")
    ks.add_key("rsa", "rsa2048", "c.test")
    ks.add_key("ed25519", "ed25519", "d.test")
    ks.add_key("short", "p256", "short.test")
    ks.add_key("nodc", "p256", "nodc.test")
    ks.config["key_policies"] = [
        {"keys": ["label:short"], "dc_max_lifetime": "1d",
         "schemes": ["ecdsa_secp256r1_sha256"]},
        {"keys": ["label:nodc"], "dc_max_lifetime": "0s"},
    ]
    ks.grant("short-issuer", ["dc"], dc_max_lifetime="12h")
    ks.grant("narrow", ["tls13", "tls12"], ["label:p256", "name:c.test"])
    ks.made = tmp_path_factory.mktemp("made")
    ks.config["generation"] = {"folder": str(ks.made)}
    ks.grant("maker", ["generate"], ["label:made-*"])
    ks.dc_key = pki_module.make_key(tmp_path_factory.mktemp("dc") / "dc.key")
    ks.dc_spki = pki_module.key_spki(ks.dc_key)
    return ks.start()


def dc(server, label="p256", lifetime=2 * DAY, algorithm=0x0403, leaf=None, spki=None,
       scheme=0x0403, role=b"server", valid_time=None):
    leaf = leaf or server.keys[label].der()
    if valid_time is None:
        valid_time = frames.valid_time_for(leaf, lifetime)
    return frames.dc_message(leaf, valid_time, spki or server.dc_spki, scheme, algorithm, role)


def ask(server, who, label, opcode, message=None, payload=None):
    with server.connect(who) as client:
        reply = client.sign(1, opcode, server.keys[label].ski(), message, payload)
    if reply.error is None:
        frames.verify(server.keys[label].spki(), opcode, reply.payload, message,
                      payload if message is None else None)
    return reply.error


# --- what is allowed ---------------------------------------------------------------


def test_each_client_gets_what_is_its(server):
    csr = frames.csr_message(server.keys["p256"].key)
    assert ask(server, "proxy", "p256", ECDSA_SHA256, frames.tls13_message()) is None
    assert ask(server, "proxy", "p256", ECDSA_SHA256, frames.tls13_message(bytes(48))) is None
    assert ask(server, "proxy", "p256", ECDSA_SHA256, frames.tls12_message()) is None
    assert ask(server, "proxy", "rsa", RSA_SHA256, frames.tls12_message()) is None
    assert ask(server, "issuer", "p256", ECDSA_SHA256, dc(server)) is None
    assert ask(server, "issuer", "p384", ECDSA_SHA384, dc(server, "p384", algorithm=0x0503)) is None
    assert ask(server, "issuer", "ed25519", ED25519, dc(server, "ed25519", algorithm=0x0807)) in (
        None, frames.E_BAD_MESSAGE)  # by what clients take; never another purpose
    assert ask(server, "certmanager", "p256", ECDSA_SHA256, csr) is None
    assert ask(server, "foreign", "p256", ECDSA_SHA256, payload=bytes(32)) is None
    assert ask(server, "foreign", "rsa", PSS_SHA256, payload=bytes(32)) is None


# --- the wrong purpose ---------------------------------------------------------------


def shapes(server):
    """name: message of every purpose, for the key p256. The same each time: a credential made
    in the next second is another message."""
    if not hasattr(server, "shapes"):
        server.shapes = {
            "tls13": frames.tls13_message(),
            "tls12": frames.tls12_message(),
            "dc": dc(server),
            "csr": frames.csr_message(server.keys["p256"].key),
        }
    return server.shapes


RIGHTS = {
    "proxy": {"tls13", "tls12"}, "issuer": {"dc"}, "certmanager": {"csr"},
    "foreign": {"blind", "tls13"}, "stranger": set()}


@pytest.mark.parametrize("who", RIGHTS)
def test_only_granted_purposes(server, who):
    before = server.metric("refusals_total", reason="not_granted")
    refused = 0
    for purpose, message in shapes(server).items():
        error = ask(server, who, "p256", ECDSA_SHA256, message)
        assert error == (None if purpose in RIGHTS[who] else frames.E_NOT_AUTHORISED), purpose
        refused += error is not None and who != "stranger"
    error = ask(server, who, "p256", ECDSA_SHA256, payload=bytes(32))
    assert error == (None if "blind" in RIGHTS[who] else frames.E_NOT_AUTHORISED)
    refused += error is not None and who != "stranger"
    assert server.metric("refusals_total", reason="not_granted") == before + refused


@pytest.mark.parametrize("who, purpose", [
    ("proxy", "dc"), ("proxy", "csr"), ("issuer", "tls13"), ("issuer", "tls12"),
    ("certmanager", "dc"), ("certmanager", "tls13"), ("foreign", "dc")])
def test_refusals_are_audited_with_who_and_what(server, who, purpose):
    message = {
        "dc": lambda: dc(server, lifetime=2 * DAY - 60),
        "tls13": lambda: frames.tls13_message(os.urandom(32)),
        "tls12": lambda: frames.tls12_message(os.urandom(32)),
        "csr": lambda: frames.csr_message(server.keys["p256"].key),
    }[purpose]()
    asked = {"client": f"{who}.client.test",
             "message_sha256": hashlib.sha256(message).hexdigest()}
    before, num = server.metric("refusals_total", reason="not_granted"), len(server.audit(**asked))
    assert ask(server, who, "p256", ECDSA_SHA256, message) == frames.E_NOT_AUTHORISED
    assert server.metric("refusals_total", reason="not_granted") == before + 1
    line = server.audit_wait(num + 1, **asked)[-1]
    assert (line["purpose"], line["result"], line["reason"]) == (purpose, "refused", "not_granted")
    assert line["client_spki_sha256"] == server.client(who).spki_sha256()
    assert line["key"] == "p256" and line["ski"] == server.keys["p256"].ski().hex()
    assert line["opcode"] == "ecdsa_sha256" and line["peer"].startswith("127.0.0.1:")


def test_a_signed_credential_is_audited_with_its_key_and_end(server):
    message = dc(server, lifetime=2 * DAY - 30)
    assert ask(server, "issuer", "p256", ECDSA_SHA256, message) is None
    line = server.audit_wait(1, message_sha256=hashlib.sha256(message).hexdigest())[0]
    assert (line["client"], line["result"]) == ("issuer.client.test", "signed")
    assert line["dc_spki_sha256"] == hashlib.sha256(server.dc_spki).hexdigest()
    leaf = server.keys["p256"].der()
    assert line["certificate_sha256"] == hashlib.sha256(leaf).hexdigest()
    ends = time.strptime(line["dc_expires"], "%Y-%m-%dT%H:%M:%SZ")
    assert abs(time.mktime(ends) - time.timezone - time.time() - 2 * DAY) < 120


# --- every opcode, key and shape -------------------------------------------------------


def thief_shapes(server):
    """Messages that a thief would try, beside the honest ones."""
    good, csr = shapes(server)["dc"], shapes(server)["csr"]
    yield from shapes(server).values()
    yield dc(server, role=b"client")
    yield frames.tls13_message(role=b"client")
    for hash_len in (0, 20, 31, 33, 47, 49, 64, len(good)):
        yield frames.tls13_message(bytes(hash_len))
    yield good[:-2]
    yield good + b"\0"
    yield good[64:]                               # without the spaces
    yield good[:64] + good[65:]
    yield b" " * 65 + good[64:]
    yield b" " * 63 + good[64:]
    yield good.replace(b"TLS, server", b"TLS 1.3, server")
    yield frames.tls13_message()[:-32] + good[64:]  # one context inside the other
    yield frames.tls12_message(client_random=b" " * 32, server_random=b" " * 32)
    yield good[:64] + b"\x03\x00\x1d\x20" + bytes(32)
    yield frames.tls12_message(point=bytes(31))
    yield frames.tls12_message(point=bytes(33))
    yield frames.tls12_message(group=23, point=b"\x04" + bytes(64))  # not on the curve
    yield frames.tls12_message(group=23, point=b"\x02" + bytes(32))
    yield frames.tls12_message(group=0x1234)
    yield frames.tls12_message()[:-1]
    yield frames.tls12_message() + b"\0"
    yield b"\x01" + frames.tls12_message()[1:64] + b"\x01" + frames.tls12_message()[65:]
    yield csr + b"\0"
    yield csr[:-1]
    yield frames.csr_message(server.keys["p384"].key)
    yield b""
    yield b"\0"
    yield bytes(32)
    yield bytes(130)
    yield hashlib.sha256(good).digest()


@pytest.mark.parametrize("who", ["proxy", "issuer", "certmanager", "stranger"])
def test_no_shape_gets_more_than_the_table_allows(server, who):
    """Every shape x opcode x key; what was signed must be an honest message of a granted
    purpose, and never a credential or a request for anybody but those who may."""
    opcodes = [*range(0x01, 0x09), *range(0x12, 0x19), 0x21, 0x22, 0x23, 0x24, 0x35, 0x36, 0x37]
    allowed = {p: m for p, m in shapes(server).items() if p in RIGHTS[who]}
    honest = set(allowed.values()) | (
        {frames.csr_message(server.keys["p384"].key)} if who == "certmanager" else set())
    if who == "proxy":  # the randoms are anybody's
        honest |= {frames.tls12_message(b" " * 32, b" " * 32),
                   frames.tls12_message(b" " * 32, b" " * 32, point=bytes(32))}
    signed = set()
    with server.connect(who) as client:
        tries = list(itertools.product(thief_shapes(server), opcodes, server.keys))
        for start in range(0, len(tries), 500):
            batch = tries[start:start + 500]
            for n, (message, opcode, label) in enumerate(batch):
                payload = message
                if opcode != ED25519 and opcode & 7 in frames.HASHES and opcode not in range(1, 3):
                    payload = frames.digest_for(opcode, message)
                client.send(frames.packet(
                    n + 1, frames.item(frames.OPCODE, bytes([opcode])),
                    frames.item(frames.PAYLOAD, payload), frames.item(frames.EXTRA, message),
                    frames.item(frames.SKI, server.keys[label].ski())))
            replies = client.receive_all(len(batch))
            for n, (message, opcode, label) in enumerate(batch):
                if replies[n + 1].error is None:
                    signed.add(message)
    assert signed <= honest, [m.hex() for m in signed - honest]
    assert bool(signed) == (who != "stranger")  # else this test tried nothing


ALL_OPCODES = [n for n in range(256) if n != frames.PING]
WANTED = {  # what would outlive the theft, and the inputs of what others sign
    "dc": lambda server: dc(server),
    "dc of a client": lambda server: dc(server, role=b"client"),
    "client's handshake": lambda server: frames.tls13_message(role=b"client"),
    "csr": lambda server: frames.csr_message(server.keys["p256"].key),
    "server's handshake": lambda server: frames.tls13_message(),
}


def payloads_for(message):
    """The message as each opcode might take it: its digests, its whole, MD5 and SHA-1, a
    DigestInfo, a padded block for raw RSA."""
    for name in ("sha1", "sha224", "sha256", "sha384", "sha512"):
        yield hashlib.new(name, message).digest()
    yield hashlib.new("md5", message).digest() + hashlib.sha1(message).digest()
    info = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(message).digest()
    yield info
    yield b"\0\1" + b"\xff" * (256 - 3 - len(info)) + b"\0" + info
    yield message


@pytest.mark.parametrize("tls12", [False, True], ids=["tls13", "tls12"])
@pytest.mark.parametrize("who", ["proxy", "issuer", "certmanager", "stranger"])
def test_no_opcode_signs_without_the_message(server, who, tls12):
    """Every opcode, every key, every digest: without item 0x14, with an empty one, with the
    digest in its place. Only Ed25519 carries its message in the payload, and is judged by it."""
    before = server.metric("requests_total", purpose="blind", result="signed")
    signed = []
    with server.connect(who, tls12=tls12) as client:
        tries = []
        for name, make in WANTED.items():
            for payload in payloads_for(make(server)):
                forms = [[], [frames.item(frames.EXTRA, b"")], [frames.item(frames.EXTRA, payload)]]
                opcodes = ALL_OPCODES if name == "dc" and len(payload) == 32 else (
                    *range(0x01, 0x09), *range(0x12, 0x19), 0x35, 0x36, 0x37)
                tries += itertools.product([name], [payload], opcodes, forms, server.keys)
        for start in range(0, len(tries), 1000):
            batch = tries[start:start + 1000]
            client.send(b"".join(
                frames.packet(n, frames.item(frames.OPCODE, bytes([opcode])),
                              frames.item(frames.PAYLOAD, payload), *extra,
                              frames.item(frames.SKI, server.keys[label].ski()), pad=False)
                for n, (_, payload, opcode, extra, label) in enumerate(batch)))
            replies = client.receive_all(len(batch))
            signed += [(name, opcode, label) for n, (name, _, opcode, _, label) in enumerate(batch)
                       if replies[n].error is None]
    allowed = {"proxy": {("server's handshake", ED25519, "ed25519")}}.get(who, set())
    assert set(signed) == allowed
    assert server.metric("requests_total", purpose="blind", result="signed") == before


def twofold(spki):
    """100 bytes that are a certificate request for this Ed25519 key, and a TLS 1.2 input: 64
    bytes of randoms, curve X25519, a point. The attribute's value begins at byte 64."""
    attribute = bytes.fromhex("302d06032a030431260424") + b"\x03\x00\x1d\x20" + bytes(range(32))
    message = b"\x30\x62\x02\x01\x00\x30\x00" + spki + b"\xa0\x2f" + attribute
    assert len(message) == 100 and message[64:68] == b"\x03\x00\x1d\x20"
    return message


@pytest.mark.parametrize("who", ["proxy", "certmanager"])
def test_what_is_two_things_is_refused(server, who):
    """A request in the shape of a handshake is for neither of those who may have one of them."""
    message = twofold(server.keys["ed25519"].spki())
    assert ask(server, who, "ed25519", ED25519, message) == frames.E_BAD_MESSAGE
    # It is that it is both: with another curve's number it is a request, and nothing else.
    request = message[:66] + b"\x55" + message[67:]
    assert ask(server, who, "ed25519", ED25519, request) == (
        None if who == "certmanager" else frames.E_NOT_AUTHORISED)
    # And with another first byte it is a handshake.
    handshake = b"\x31" + message[1:]
    assert ask(server, who, "ed25519", ED25519, handshake) == (
        None if who == "proxy" else frames.E_NOT_AUTHORISED)


GROUPS = {  # RFC 8422: number and length of the point; each has one length, and no other
    29: bytes(range(32)),
    23: "p256", 24: "p384", 25: "p521",
}


def point_of(group, folder):
    """A good point of this group."""
    if isinstance(GROUPS[group], bytes):
        return GROUPS[group]
    spki = pki_module.key_spki(pki_module.make_key(folder / "ecdhe.key", GROUPS[group]))
    return spki[-{23: 65, 24: 97, 25: 133}[group]:]


@pytest.mark.parametrize("group", GROUPS)
def test_tls12_parameters_of_wrong_length(server, group, tmp_path):
    """Whole, they are signed; with one byte more or less anywhere, or with another curve's
    number or length byte, they are nothing."""
    point = point_of(group, tmp_path)
    good = frames.tls12_message(point=point, group=group)
    assert ask(server, "proxy", "p256", ECDSA_SHA256, good) is None
    others = [g for g in (*GROUPS, 30, 21, 0, 0x11EC) if g != group]
    bad = [good[:-1], good + b"\0", good[1:], b"\0" + good, good[:32], good[:64], good[:67], good[:68],
           frames.tls12_message(point=point[:-1], group=group),
           frames.tls12_message(point=point + b"\0", group=group),
           good[:67] + bytes([len(point) - 1]) + point, good[:67] + bytes([len(point) + 1]) + point,
           good[:67] + b"\0" + point, frames.tls12_message(client_random=bytes(31), point=point,
                                                          group=group),
           *(frames.tls12_message(point=point, group=g) for g in others),
           *(good[:64] + bytes([kind]) + good[65:] for kind in (0, 1, 2, 4, 255))]
    if group != 29:
        bad += [good[:68] + b"\2" + point[1:], good[:-1] + bytes([good[-1] ^ 1])]  # not on the curve
    before = server.metric("refusals_total", reason="no_purpose")
    for message in bad:
        assert ask(server, "proxy", "p256", ECDSA_SHA256, message) == frames.E_BAD_MESSAGE, message
    assert server.metric("refusals_total", reason="no_purpose") == before + len(bad)


@pytest.mark.parametrize("prefix", [b"\0", b" ", b"\x30\x82\x01\x00", bytes(32), bytes(64), b" " * 64,
                                    frames.tls13_message(), frames.tls12_message(),
                                    b" " * 64 + b"TLS 1.3, server CertificateVerify\0"],
                         ids=lambda prefix: prefix.hex()[:8] + f"x{len(prefix)}")
def test_a_credential_behind_or_before_something_else(server, prefix):
    good = dc(server)  # another one with each second
    for message in (prefix + good, good + prefix, prefix + good[64:]):
        for who in ("proxy", "issuer", "certmanager"):
            error = ask(server, who, "p256", ECDSA_SHA256, message)
            assert error == (None if message == good and who == "issuer"
                             else frames.E_BAD_MESSAGE if message != good
                             else frames.E_NOT_AUTHORISED)


def test_claims_in_other_items_change_nothing(server):
    """Names, addresses, regions, digests and contexts say nothing about who asks."""
    claims = [frames.item(frames.SNI, b"issuer.client.test"), frames.item(frames.CLIENT_IP, bytes(4)),
              frames.item(frames.SERVER_IP, b"\x7f\0\0\1"), frames.item(frames.CERT_ID, b"p256"),
              frames.item(0x13, b"deputy.generate_key"), frames.item(0x17, b"\x01"),
              frames.item(frames.CONTEXT, b'{"client":"issuer"}'),
              frames.item(frames.DIGEST, hashlib.sha256(b"p256").digest())]
    with server.connect("proxy") as client:
        for n, claim in enumerate([*claims, b"".join(claims)]):
            for message in (dc(server), frames.csr_message(server.keys["p256"].key)):
                reply = client.sign(n, ECDSA_SHA256, server.keys["p256"].ski(), message, more=[claim])
                assert reply.error == frames.E_NOT_AUTHORISED
            reply = client.sign(n, ECDSA_SHA256, server.keys["p256"].ski(),
                                frames.tls13_message(), more=[claim])
            assert reply.error is None


def test_a_client_of_some_keys_gets_no_other(server):
    """By label and by name; for every purpose, and with another key's SKI or digest in play."""
    with server.connect("narrow") as client:
        for label, key in server.keys.items():
            opcode = {"p384": ECDSA_SHA384, "rsa": PSS_SHA256, "ed25519": ED25519}.get(
                label, ECDSA_SHA256)
            may = label in ("p256", "rsa")
            for message in (frames.tls13_message(), frames.tls12_message()):
                assert client.sign(1, opcode, key.ski(), message).error == (
                    None if may else frames.E_NOT_AUTHORISED), label
            for message in (dc(server, "p256"), frames.csr_message(key.key)):
                assert client.sign(1, opcode, key.ski(), message).error == frames.E_NOT_AUTHORISED


@pytest.mark.parametrize("who", ["proxy", "issuer", "certmanager", "foreign", "stranger"])
def test_no_thief_makes_a_key(server, who):
    """Nor under a label that would give him one, nor over a file that is there."""
    before = sorted(p.name for p in server.made.iterdir())
    with server.connect(who) as client:
        for kind in range(0, 8):
            for label in (b"made-1", b"p256", b"p256.key", b"../x", b"/x", b"a\0b", b"", b"x" * 64):
                reply = client.ask(
                    1, frames.item(frames.OPCODE, b"\x24"), frames.item(0x13, b"deputy.generate_key"),
                    frames.item(frames.PAYLOAD, bytes([kind, len(label)]) + label),
                    frames.item(frames.EXTRA, dc(server)),
                    frames.item(frames.SKI, server.keys["p256"].ski()))
                assert reply.error in (frames.E_NOT_AUTHORISED, frames.E_BAD_MESSAGE), reply
        for function in (b"deputy.generate_key\0", b"deputy.", b"Deputy.generate_key", b"", b"sign"):
            reply = client.ask(1, frames.item(frames.OPCODE, b"\x24"), frames.item(0x13, function),
                               frames.item(frames.PAYLOAD, b"\x01\x06made-1"))
            assert reply.error == frames.E_BAD_OPCODE
    assert sorted(p.name for p in server.made.iterdir()) == before


def test_a_maker_of_keys_signs_nothing(server):
    """The right to make keys is no right to use them, not even one's own."""
    with server.connect("maker") as client:
        reply = client.ask(1, frames.item(frames.OPCODE, b"\x24"),
                           frames.item(0x13, b"deputy.generate_key"),
                           frames.item(frames.PAYLOAD, b"\x01\x06made-9"))
        assert reply.error is None
        for ski in (reply.payload[:20], server.keys["p256"].ski()):
            for message in shapes(server).values():
                assert client.sign(1, ECDSA_SHA256, ski, message).error in (
                    frames.E_NOT_AUTHORISED, frames.E_BAD_MESSAGE)
            assert client.sign(1, ECDSA_SHA256, ski, payload=bytes(32)).error == \
                frames.E_NOT_AUTHORISED


def test_a_digest_of_something_else_is_refused(server):
    """The message may be signed; the digest is that of a credential."""
    digest = frames.digest_for(ECDSA_SHA256, dc(server))
    for who in ("proxy", "foreign"):
        assert ask(server, who, "p256", ECDSA_SHA256, frames.tls13_message(),
                   digest) == frames.E_BAD_MESSAGE
    with server.connect("proxy") as client:  # Ed25519: payload and message are two things
        reply = client.ask(1, frames.item(frames.OPCODE, b"\x18"),
                           frames.item(frames.PAYLOAD, dc(server, "ed25519")),
                           frames.item(frames.EXTRA, frames.tls13_message()),
                           frames.item(frames.SKI, server.keys["ed25519"].ski()))
    assert reply.error == frames.E_BAD_MESSAGE


def test_rsa_pkcs1_never_signs_tls13(server):
    for opcode in (0x05, 0x06, 0x07):
        assert ask(server, "proxy", "rsa", opcode,
                   frames.tls13_message()) == frames.E_BAD_MESSAGE
    assert ask(server, "proxy", "p256", ECDSA_SHA384,
               frames.tls13_message()) == frames.E_BAD_MESSAGE


def test_a_blind_client_gets_no_ed25519_credential(server):
    assert ask(server, "foreign", "ed25519", ED25519,
               dc(server, "ed25519", algorithm=0x0807)) == frames.E_NOT_AUTHORISED
    assert ask(server, "foreign", "ed25519", ED25519, b"anything") == frames.E_BAD_MESSAGE
    assert ask(server, "foreign", "ed25519", ED25519, frames.tls13_message()) is None


def test_a_blind_grant_that_could_make_credentials_is_pointed_out(procs, pki):
    ks = KeyServer(procs, pki, clients={})
    ks.add_key("plain", "p256", "plain.test", delegation=False)
    ks.grant("foreign", ["blind"])
    ks.start()
    assert "blind_may_delegate" not in ks.process.err()
    ks.add_key("delegating", "p256", "d.test")
    ks.reload()
    wait_until(lambda: "blind_may_delegate client=foreign-0 key=delegating" in ks.process.err(),
               "the warning")
    assert "key=plain" not in ks.process.err()


# --- credentials that an issuer may not have -------------------------------------------------


def refused_dc(server, reason, error=frames.E_BAD_MESSAGE, label="p256", who="issuer",
               opcode=ECDSA_SHA256, **kwargs):
    before = server.metric("refusals_total", reason=reason)
    assert ask(server, who, label, opcode, dc(server, label, **kwargs)) == error
    assert server.metric("refusals_total", reason=reason) == before + 1


def test_dc_for_another_key(server):
    refused_dc(server, "dc_other_key", leaf=server.keys["short"].der())


def test_dc_for_a_certificate_without_delegation_usage(server):
    leaf = server.web_ca.issue_leaf("plain.test", key=server.keys["p256"].key, delegation=False)
    refused_dc(server, "dc_usage", leaf=leaf.der())


@pytest.mark.parametrize("key_usage", [None, "critical,keyAgreement"])
def test_dc_for_a_certificate_without_digital_signature(server, key_usage):
    leaf = server.web_ca.issue_leaf("ku.test", key=server.keys["p256"].key, key_usage=key_usage)
    refused_dc(server, "dc_usage", leaf=leaf.der())


def test_dc_of_an_rsa_certificate(server):
    refused_dc(server, "dc_usage", label="rsa", opcode=PSS_SHA256, algorithm=0x0804)


def test_dc_whose_algorithm_is_not_what_signs(server):
    refused_dc(server, "dc_algorithm", algorithm=0x0503)
    refused_dc(server, "dc_algorithm", opcode=ECDSA_SHA384, algorithm=0x0503)
    refused_dc(server, "dc_algorithm", label="p384", algorithm=0x0403)


def test_dc_for_the_certificates_own_key(server):
    refused_dc(server, "dc_own_key", spki=server.keys["p256"].spki())


def test_dc_in_the_client_context(server):
    refused_dc(server, "no_purpose", role=b"client")


def test_dc_whose_scheme_does_not_fit_its_key(server):
    refused_dc(server, "no_purpose", scheme=0x0503)
    refused_dc(server, "no_purpose", scheme=0x0804)


def test_dc_for_an_rsa_public_key(server, tmp_path):
    spki = pki_module.key_spki(pki_module.make_key(tmp_path / "rsa.key", "rsa2048"))
    refused_dc(server, "no_purpose", spki=spki, scheme=0x0804)


def test_dc_lifetimes(server):
    denied = frames.E_NOT_AUTHORISED
    refused_dc(server, "dc_lifetime", denied, lifetime=7 * DAY + 60)
    refused_dc(server, "dc_lifetime", denied, lifetime=30 * DAY)
    refused_dc(server, "dc_lifetime", denied, valid_time=0xFFFFFFFF)
    start = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() - DAY))
    old = server.web_ca.issue_leaf("old.test", key=server.keys["p256"].key, start=start)
    refused_dc(server, "dc_ended", leaf=old.der(), lifetime=-60)
    assert ask(server, "issuer", "p256", ECDSA_SHA256, dc(server, leaf=old.der())) is None
    refused_dc(server, "dc_ended", valid_time=0)
    refused_dc(server, "dc_lifetime", denied, label="short", lifetime=DAY + 600)
    refused_dc(server, "dc_lifetime", denied, label="nodc", lifetime=60)
    refused_dc(server, "dc_lifetime", denied, who="short-issuer", lifetime=13 * 3600)
    assert ask(server, "issuer", "p256", ECDSA_SHA256, dc(server, lifetime=7 * DAY - 60)) is None
    assert ask(server, "issuer", "short", ECDSA_SHA256, dc(server, "short", lifetime=DAY)) is None
    assert ask(server, "short-issuer", "p256", ECDSA_SHA256, dc(server, lifetime=12 * 3600)) is None


def test_dc_that_outlives_its_certificate(server):
    end = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + DAY))
    leaf = server.web_ca.issue_leaf("ends.test", key=server.keys["p256"].key, end=end)
    refused_dc(server, "dc_past_certificate", leaf=leaf.der(), lifetime=DAY + 60)
    assert ask(server, "issuer", "p256", ECDSA_SHA256,
               dc(server, leaf=leaf.der(), lifetime=DAY - 60)) is None


def test_dc_with_a_certificate_that_is_none(server):
    refused_dc(server, "dc_certificate", leaf=bytes.fromhex("30030101ff"), valid_time=1000)


def test_csr_for_another_key(server):
    message = frames.csr_message(server.keys["p384"].key)
    assert ask(server, "certmanager", "p256", ECDSA_SHA256, message) == frames.E_BAD_MESSAGE


def test_schemes_a_key_policy_leaves_out(server):
    assert ask(server, "proxy", "short", ECDSA_SHA384,
               frames.tls12_message()) == frames.E_NOT_AUTHORISED
    assert ask(server, "proxy", "short", ECDSA_SHA256, frames.tls12_message()) is None


# --- clients and keys --------------------------------------------------------------------------


def test_a_stranger_learns_nothing(server):
    """With a certificate of the right CA but no grant: the same answer for any key."""
    with server.connect("stranger") as client:
        client.ping()
        for ski in (server.keys["p256"].ski(), b"\x01" * 20):
            reply = client.sign(1, ECDSA_SHA256, ski, frames.tls13_message())
            assert reply.error == frames.E_NOT_AUTHORISED
    server.audit_wait(1, client="stranger.client.test", reason="unknown_client",
                      ski=("01" * 20))
