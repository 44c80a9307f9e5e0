# SPDX-License-Identifier: Apache-2.0
"""Keys in a PKCS #11 token (SoftHSM) serve handshakes and credentials; tokens that go
away, and PINs that are wrong."""

import os
import time

import pytest

from support import frames, pki as pki_module
from support.frames import (E_BUSY, ECDSA_SHA256, ECDSA_SHA384, ED25519, PSS_SHA256, RSA_SHA256)
from support.keyserver import KeyServer
from support.procs import wait_until
from support.softhsm import SoftHsm
from support.stack import BODY, Stack


@pytest.fixture
def hsm(tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTHSM2_CONF", "")
    return SoftHsm(tmp_path / "softhsm", os.environ)


@pytest.fixture
def token(hsm):
    return hsm.token("t1")


@pytest.fixture
def ks(procs, pki):
    ks = KeyServer(procs, pki)
    ks.add_key("file", "p256")
    return ks


def check(client, spki, opcode, message=None, request_id=1):
    """One signature by the key of `spki`."""
    message = message or frames.tls13_message(os.urandom(32))
    reply = client.sign(request_id, opcode, pki_module.spki_ski(spki), message)
    if reply.error is None:
        frames.verify(spki, opcode, reply.payload, message)
    return reply.error


def put(ks, token, *keys, **more):
    ks.config["pkcs11"] = [token.entry(key, **more) for key in keys]


def up(ks, name="t1"):
    return ks.metric("token_up", token=name)


# --- every kind of key ------------------------------------------------------------------


KINDS = {  # the last three are imported: pkcs11-tool cannot show what it has made of them
    "EC:prime256v1": [ECDSA_SHA256],
    "rsa:2048": [PSS_SHA256, 0x36, 0x37],
    "p384": [ECDSA_SHA384],
    "p521": [0x17],
    "ed25519": [ED25519],
}


def make(token, label, kind, folder):
    if ":" in kind:
        return token.generate(label, kind)
    path = pki_module.make_key(folder / f"{label}.key", kind)
    token.import_key(label, path)
    return pki_module.key_spki(path)


def test_every_kind_of_key_in_a_token_signs(ks, token, tmp_path):
    spkis = {f"k{n}": make(token, f"k{n}", kind, tmp_path) for n, kind in enumerate(KINDS)}
    put(ks, token, *spkis)
    ks.start()
    with ks.connect("proxy") as client:
        for (label, spki), opcodes in zip(spkis.items(), KINDS.values()):
            for opcode in opcodes:
                assert check(client, spki, opcode) is None, (label, hex(opcode))
        # As TLS 1.2 has it: PKCS #1 v1.5, and a curve with a longer hash.
        for opcode in (RSA_SHA256, 0x06, 0x07):
            assert check(client, spkis["k1"], opcode, frames.tls12_message()) is None
        for opcode in (ECDSA_SHA384, 0x17):
            assert check(client, spkis["k0"], opcode, frames.tls12_message()) is None
        assert check(client, ks.keys["file"].spki(), ECDSA_SHA256) is None
    assert ks.metric("token_signatures_total", token="t1") >= 11
    assert up(ks) == 1
    ks.audit_wait(1, key="file", result="signed")


def test_many_at_once_through_few_sessions(ks, token):
    spki = token.generate("ec", "EC:prime256v1")
    put(ks, token, "ec", sessions=2)
    ks.start()
    ski = pki_module.spki_ski(spki)
    messages = {n: frames.tls13_message(os.urandom(32)) for n in range(1, 201)}
    with ks.connect("proxy") as client:
        client.send(b"".join(frames.sign_packet(n, ECDSA_SHA256, ski, message)
                             for n, message in messages.items()))
        for n, reply in client.receive_all(len(messages)).items():
            assert reply.error is None
            frames.verify(spki, ECDSA_SHA256, reply.payload, messages[n])


def test_rights_and_policies_hold_for_tokens(ks, token):
    spki = token.generate("ec", "EC:prime256v1")
    put(ks, token, "ec", label="in-token")
    ks.config["key_policies"] = [{"keys": ["label:in-token"],
                                  "schemes": ["ecdsa_secp256r1_sha256"]}]
    ks.start()
    with ks.connect("issuer") as client:
        assert check(client, spki, ECDSA_SHA256) == frames.E_NOT_AUTHORISED
    with ks.connect("proxy") as client:
        assert check(client, spki, ECDSA_SHA256) is None
        assert check(client, spki, ECDSA_SHA384, frames.tls12_message()) == frames.E_NOT_AUTHORISED
    with ks.connect("stranger") as client:
        assert check(client, spki, ECDSA_SHA256) == frames.E_NOT_AUTHORISED


# --- end to end ---------------------------------------------------------------------------


def test_handshakes_and_credentials_by_a_token(procs, pki, token, tmp_path):
    stack = Stack(procs, pki, hosts=())
    chains = []
    for number, label in enumerate(("primary", "backup")):
        key = pki_module.make_key(tmp_path / f"{label}.key")
        identity = stack.web_cas[number].issue_leaf("hsm.test", key=key, name=label)
        token.import_key(label, key)
        key.unlink()  # from here on it is in the token only
        stack.keyserver.config.setdefault("pkcs11", []).append(
            token.entry(label, certificate=str(identity.cert)))
        chains.append((label, identity))
    stack.add_name("hsm.test", chains)
    try:
        stack.start()
        assert stack.get("hsm.test") == BODY
        stack.proxy.wait_metric(1, "handshakes_total", source="certificate", version="1.3")
        assert stack.get("hsm.test", tls12=True) == BODY
        stack.nss().run("hsm.test")
        stack.proxy.wait_metric(1, "handshakes_total", source="dc", version="1.3")
        assert len(stack.keyserver.audit(purpose="dc", result="signed")) >= 2
        assert stack.keyserver.metric("token_signatures_total", token="t1") >= 4
    finally:
        stack.stop()


# --- PINs -----------------------------------------------------------------------------------


def start_fails(ks):
    ks.start(wait=False)
    ks.process.expected_exit = {1, 2}
    assert ks.process.wait(20) != 0
    return ks.process.err()


def test_a_wrong_pin_is_shown_once(ks, token):
    token.generate("ec", "EC:prime256v1")
    put(ks, token, "ec")
    token.write_pin("wrong")
    text = start_fails(ks)
    assert "refuses the PIN" in text and "wrong" not in text.replace("wrong one", "")


def test_a_pin_that_others_may_read_is_refused(ks, token):
    token.generate("ec", "EC:prime256v1")
    put(ks, token, "ec")
    token.write_pin("1234", mode=0o644)
    assert "t1.pin" in start_fails(ks)


def test_a_missing_pin_is_said(ks, token):
    token.generate("ec", "EC:prime256v1")
    put(ks, token, "ec")
    del ks.config["pkcs11"][0]["pin_file"]
    assert "pin_file" in start_fails(ks)


@pytest.mark.parametrize("uri, part", [
    ("pkcs11:token=t1;object=none", "no such private key"),
    ("pkcs11:token=t2;object=ec", "no such token"),
    ("pkcs11:token=t1", "names no key"),
    ("pkcs11:token=t1;object=ec;type=public", "type=private"),
    ("pkcs11:token=t1;object=ec?pin-value=1234", "pin_file"),
    ("pkcs11:token=t1;objekt=ec", "not known"),
    ("pkcs11:object=ec;token=t1;id=%09", "no such private key"),
])
def test_a_uri_that_names_no_key_stops_the_start(ks, token, uri, part):
    token.generate("ec", "EC:prime256v1")
    put(ks, token, "ec")
    ks.config["pkcs11"][0]["uri"] = uri
    text = start_fails(ks)
    assert part in text and "pkcs11[0] (ec)" in text


def test_two_keys_that_fit_are_none(ks, token):
    token.generate("ec", "EC:prime256v1")
    token.generate("ec", "EC:prime256v1")
    put(ks, token, "ec")
    assert "more than one private key" in start_fails(ks)


def test_a_module_that_is_none_is_said(ks, token, tmp_path):
    put(ks, token, "ec")
    ks.config["pkcs11"][0]["module"] = str(tmp_path / "none.so")
    assert "none.so" in start_fails(ks)


def test_a_certificate_of_another_key_is_refused(ks, token, pki):
    token.generate("ec", "EC:prime256v1")
    put(ks, token, "ec", certificate=str(pki.ca("other").issue_leaf("x.test").cert))
    assert "ec" in start_fails(ks)


# --- tokens that go and come back ---------------------------------------------------------


def away(token):
    token.folder.rename(token.hsm.folder / "away")


def back(token):
    (token.hsm.folder / "away").rename(token.folder)


def test_a_token_goes_and_comes_back(ks, token):
    spki = token.generate("ec", "EC:prime256v1")
    put(ks, token, "ec")
    ks.start()
    with ks.connect("proxy") as client:
        assert check(client, spki, ECDSA_SHA256) is None
        away(token)
        wait_until(lambda: check(client, spki, ECDSA_SHA256) == E_BUSY, "the loss to be noticed")
        assert up(ks) == 0
        # Others' keys go on, and each request has its answer at once.
        assert check(client, ks.keys["file"].spki(), ECDSA_SHA256) is None
        start = time.monotonic()
        assert check(client, spki, ECDSA_SHA256) == E_BUSY
        assert time.monotonic() - start < 2
        ks.reload()  # a reload meanwhile keeps the key, as it is known
        assert check(client, spki, ECDSA_SHA256) == E_BUSY
        back(token)
        wait_until(lambda: up(ks) == 1, "the token to be back", timeout=40)
        wait_until(lambda: check(client, spki, ECDSA_SHA256) is None, "a signature", timeout=40)
    assert ks.metric("token_lost_total", token="t1") >= 1
    assert ks.metric("refusals_total", reason="token") >= 2


def test_starts_without_the_token_when_the_certificate_is_known(procs, pki, ks, token, tmp_path):
    key = pki_module.make_key(tmp_path / "k.key")
    identity = ks.web_ca.issue_leaf("hsm.test", key=key, name="hsm")
    token.import_key("k", key)
    put(ks, token, "k", certificate=str(identity.cert))
    away(token)
    ks.start()
    with ks.connect("proxy") as client:
        assert check(client, identity.spki(), ECDSA_SHA256) == E_BUSY
        back(token)
        wait_until(lambda: check(client, identity.spki(), ECDSA_SHA256) is None, "the token",
                   timeout=40)
