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
