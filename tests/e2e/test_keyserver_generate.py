# SPDX-License-Identifier: Apache-2.0
"""Keys made on request: stored before the answer, in force everywhere by then, and only
for those who may. Retired and destroyed by hand."""

import os
import stat
import struct

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from support import frames, pki as pki_module
from support.frames import (E_BAD_MESSAGE, E_BAD_OPCODE, E_BUSY, E_NOT_AUTHORISED, E_RATE,
                            ECDSA_SHA256, ED25519, RSA_SHA256)
from support.keyserver import KeyServer
from support.procs import BIN_DIR, wait_until

CUSTOM_OPCODE, CUSTOM_ITEM, FUNCTION = 0x24, 0x13, b"deputy.generate_key"
KINDS = {"p256": 1, "p384": 2, "rsa2048": 3, "rsa3072": 4, "rsa4096": 5, "ed25519": 6}


@pytest.fixture
def ks(procs, pki):
    ks = KeyServer(procs, pki)
    ks.made = procs.folder / "made"
    ks.made.mkdir(mode=0o700)
    ks.config["generation"] = {"folder": str(ks.made)}
    ks.config["clients"] = []
    ks.grant("proxy", ["tls13", "tls12"])
    ks.grant("certmanager", ["generate", "csr"], keys=["label:cm-*"])
    ks.grant("narrow", ["generate"], keys=["label:only-this", "ski:" + "00" * 20, "name:*.x.test"])
    ks.add_key("old", "p256")
    return ks


def packet(request_id, kind, label, function=FUNCTION, payload=None):
    label = label.encode() if isinstance(label, str) else label
    if payload is None:
        payload = bytes([KINDS.get(kind, kind), len(label)]) + label
    return frames.packet(request_id, frames.item(frames.OPCODE, bytes([CUSTOM_OPCODE])),
                         frames.item(frames.PAYLOAD, payload),
                         frames.item(CUSTOM_ITEM, function))


def generate(ks, kind, label, who="certmanager", **kwargs):
    with ks.connect(who, timeout=60) as client:
        client.send(packet(1, kind, label, **kwargs))
        return client.receive()


def spki_of(reply):
    assert reply.error is None, hex(reply.error)
    ski, length = reply.payload[:20], struct.unpack(">H", reply.payload[20:22])[0]
    spki = reply.payload[22:]
    assert len(spki) == length and pki_module.spki_ski(spki) == ski
    return spki


def sign_csr(ks, path, spki, opcode):
    message = frames.csr_message(path)
    with ks.connect("certmanager") as client:
        reply = client.sign(2, opcode, pki_module.spki_ski(spki), message)
    assert reply.error is None
    frames.verify(spki, opcode, reply.payload, message)


@pytest.mark.parametrize("kind, opcode", [("p256", ECDSA_SHA256), ("p384", 0x16),
                                          ("rsa2048", RSA_SHA256), ("rsa3072", RSA_SHA256),
                                          ("ed25519", ED25519)])
def test_a_key_is_made_stored_and_signs_its_request(ks, kind, opcode):
    ks.start()
    spki = spki_of(generate(ks, kind, f"cm-{kind}"))
    path = ks.made / f"cm-{kind}.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert pki_module.key_spki(path) == spki
    key = serialization.load_der_public_key(spki)
    if kind.startswith("rsa"):
        assert isinstance(key, rsa.RSAPublicKey) and key.key_size == int(kind[3:])
        assert key.public_numbers().e == 65537
    else:
        assert isinstance(key, (ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey))
    sign_csr(ks, path, spki, opcode)
    assert sorted(os.listdir(ks.made)) == [path.name]
    ks.audit_wait(1, result="generated", key=f"cm-{kind}", kind=kind, purpose="generate")
    # It is there after a reload and after a new start, too.
    ks.reload()
    sign_csr(ks, path, spki, opcode)
    ks.process.kill()
    ks.start()
    sign_csr(ks, path, spki, opcode)


def test_a_new_key_is_in_force_on_every_connection_from_the_answer_on(ks):
    ks.config["workers"] = 2
    ks.start()
    clients = [ks.connect("proxy") for _ in range(8)]
    try:
        for n in range(10):
            ski = pki_module.spki_ski(spki_of(generate(ks, "p256", f"cm-{n}")))
            for client in clients:
                reply = client.sign(n, ECDSA_SHA256, ski, frames.tls13_message())
                assert reply.error is None
    finally:
        for client in clients:
            client.close()


def test_others_go_on_while_primes_are_looked_for(ks):
    ks.config["workers"] = 1
    ks.start()
    with ks.connect("certmanager", timeout=120) as slow, ks.connect("proxy") as quick:
        slow.send(b"".join(packet(n, "rsa4096", f"cm-{n}") for n in range(2)))
        wait_until(lambda: ks.metric("slow_running", lane="generate") == 1, "the work to begin")
        for n in range(20):
            reply = quick.sign(n, ECDSA_SHA256, ks.keys["old"].ski(), frames.tls13_message())
            assert reply.error is None
        assert ks.metric("slow_done_total", lane="generate") < 2
        replies = slow.receive_all(2)
        assert len({spki_of(reply) for reply in replies.values()}) == 2


@pytest.mark.parametrize("who, label, error", [
    ("certmanager", "www", E_NOT_AUTHORISED),     # not what its grant says
    ("certmanager", "cm", E_NOT_AUTHORISED),
    ("narrow", "only-that", E_NOT_AUTHORISED),
    ("narrow", "only-this-too", E_NOT_AUTHORISED),
    ("narrow", "a.x.test", E_NOT_AUTHORISED),     # a label is no name
    ("proxy", "cm-1", E_NOT_AUTHORISED),
    ("stranger", "cm-1", E_NOT_AUTHORISED),
    ("certmanager", "../cm-1", E_BAD_MESSAGE),
    ("certmanager", "cm-/../../x", E_BAD_MESSAGE),
    ("certmanager", "cm-\0", E_BAD_MESSAGE),
    ("certmanager", "", E_BAD_MESSAGE),
    ("certmanager", "cm-" + "a" * 62, E_BAD_MESSAGE),
    ("certmanager", ".cm-1", E_BAD_MESSAGE),
])
def test_what_is_not_granted_or_no_label_is_refused(ks, who, label, error):
    ks.start()
    assert generate(ks, "p256", label, who).error == error
    assert os.listdir(ks.made) == []
    assert ks.metric("slow_done_total", lane="generate") == 0
    ks.audit_wait(1, result="refused", client=f"{who}.client.test")


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x00\x04cm-1", b"\x07\x04cm-1",
                                     b"\x01\x04cm-1x", b"\x01\x05cm-1", b"{\"kind\":\"p256\"}"])
def test_what_is_no_request_is_refused(ks, payload):
    ks.start()
    assert generate(ks, "p256", "", payload=payload).error == E_BAD_MESSAGE


def test_another_function_is_none(ks):
    ks.start()
    for function in (b"deputy.generate_key2", b"deputy.generate_ke", b"x"):
        assert generate(ks, "p256", "cm-1", function=function).error == E_BAD_OPCODE


def test_a_label_is_given_once(ks):
    ks.add_key("cm-file", "p256")
    ks.start()
    first = spki_of(generate(ks, "p256", "cm-1"))
    content = (ks.made / "cm-1.key").read_bytes()
    assert generate(ks, "rsa2048", "cm-1").error == E_BAD_MESSAGE
    assert generate(ks, "p256", "cm-file").error == E_BAD_MESSAGE
    (ks.made / "cm-2.key.retired").write_bytes(b"x")
    assert generate(ks, "p256", "cm-2").error == E_BAD_MESSAGE
    with ks.connect("certmanager") as client:  # both at once
        client.send(packet(1, "p256", "cm-3") + packet(2, "p256", "cm-3"))
        errors = sorted(str(r.error) for r in client.receive_all(2).values())
    assert errors == sorted([str(None), str(E_BAD_MESSAGE)])
    assert (ks.made / "cm-1.key").read_bytes() == content
    assert pki_module.key_spki(ks.made / "cm-1.key") == first
    assert ks.metric("refusals_total", reason="key_exists") == 4


def test_without_a_folder_none_is_made(ks):
    del ks.config["generation"]
    ks.start()
    assert generate(ks, "p256", "cm-1").error == E_BAD_OPCODE
    ks.audit_wait(1, reason="generate_off")


def test_what_cannot_be_stored_is_not_there(ks):
    ks.start()
    ks.made.rename(ks.made.with_name("elsewhere"))
    num = ks.metric("keys")
    assert generate(ks, "p256", "cm-1").error == E_BUSY
    assert ks.metric("keys") == num
    ks.audit_wait(1, reason="key_not_stored", key="cm-1")


def test_rates_of_grant_and_server(ks):
    ks.config["generation"]["per_minute"] = 5
    ks.start()
    errors = [generate(ks, "p256", f"cm-{n}").error for n in range(7)]
    assert errors == [None] * 5 + [E_RATE] * 2


def test_a_full_store_takes_no_more(ks):
    ks.config["generation"]["max_keys"] = 3
    ks.start()
    errors = [generate(ks, "p256", f"cm-{n}").error for n in range(3)]
    assert errors == [None, None, E_RATE]


def test_policies_hold_for_new_keys(ks):
    ks.config["key_policies"] = [{"keys": ["label:cm-*"], "schemes": ["ecdsa_secp384r1_sha384"]}]
    ks.start()
    ski = pki_module.spki_ski(spki_of(generate(ks, "p256", "cm-1")))
    with ks.connect("proxy") as client:
        assert client.sign(1, ECDSA_SHA256, ski, frames.tls13_message()).error == E_NOT_AUTHORISED


# --- the end of a key -----------------------------------------------------------------------


def ctl_key(procs, *args):
    return procs.run([BIN_DIR / "deputyctl", "key", *args])


def test_retire_and_destroy(ks, procs):
    ks.start()
    ski = pki_module.spki_ski(spki_of(generate(ks, "p256", "cm-1")))
    path = ks.made / "cm-1.key"
    assert ctl_key(procs, "destroy", path).returncode == 1  # not before it is retired
    assert path.exists()
    assert ctl_key(procs, "retire", path).returncode == 0
    assert not path.exists() and (ks.made / "cm-1.key.retired").exists()
    ks.reload()
    with ks.connect("proxy") as client:
        reply = client.sign(1, ECDSA_SHA256, ski, frames.tls13_message())
    assert reply.error == frames.E_KEY_NOT_FOUND
    ks.audit_wait(1, result="key_removed", key="cm-1", ski=ski.hex())
    assert generate(ks, "p256", "cm-1").error == E_BAD_MESSAGE  # the label is still its
    retired = ks.made / "cm-1.key.retired"
    os.link(retired, procs.folder / "look")  # what is wiped is the content
    content = retired.read_bytes()
    assert ctl_key(procs, "destroy", retired).returncode == 0
    assert not retired.exists()
    left = (procs.folder / "look").read_bytes()
    assert len(left) == len(content) and left != content and b"PRIVATE" not in left


@pytest.mark.parametrize("args", [["retire", "none.key"], ["retire", "x.pem"], ["burn", "x.key"],
                                  ["destroy", "x.key"], ["destroy", "none.key.retired"]])
def test_ctl_key_refuses_what_is_no_such_file(procs, args):
    (procs.folder / "x.pem").write_text("x")
    (procs.folder / "x.key").write_text("x")
    done = procs.run([BIN_DIR / "deputyctl", "key", args[0], procs.folder / args[1]])
    assert done.returncode in (1, 2) and done.stderr
    assert (procs.folder / "x.key").read_text() == "x"


def test_retire_does_not_take_the_place_of_another(procs):
    (procs.folder / "x.key").write_text("new")
    (procs.folder / "x.key.retired").write_text("old")
    assert ctl_key(procs, "retire", procs.folder / "x.key").returncode == 1
    assert (procs.folder / "x.key.retired").read_text() == "old"
    assert (procs.folder / "x.key").read_text() == "new"
