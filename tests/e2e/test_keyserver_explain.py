# SPDX-License-Identifier: Apache-2.0
"""`deputyctl keyserver explain`: what it says of a request is what the server answers."""

import hashlib
import itertools
import json
import os
import pathlib
import shutil
import tempfile
import time

import pytest

from support import frames, pki as pki_module
from support.frames import ECDSA_SHA256, ECDSA_SHA384, OPCODE, PAYLOAD, PSS_SHA256, item
from support.keyserver import KeyServer
from support.procs import BIN_DIR, wait_until

CTL = BIN_DIR / "deputyctl"
DAY = 86400
SCHEMES = {ECDSA_SHA256: "ecdsa_secp256r1_sha256", ECDSA_SHA384: "ecdsa_secp384r1_sha384",
           PSS_SHA256: "rsa_pss_rsae_sha256", 0x05: "rsa_pkcs1_sha256"}


@pytest.fixture(scope="module")
def server(module_procs, module_pki, tmp_path_factory):
    ks = KeyServer(module_procs, module_pki)
    ks.add_key("p256", "p256", "a.test")
    ks.add_key("p384", "p384", "b.test")
    ks.add_key("rsa", "rsa2048", "c.test")
    ks.add_key("plain", "p256", "plain.test", delegation=False)
    ks.made = tmp_path_factory.mktemp("made")
    ks.config["generation"] = {"folder": str(ks.made)}
    ks.config["key_policies"] = [
        {"keys": ["name:b.test"], "dc_max_lifetime": "1d", "schemes": ["ecdsa_secp384r1_sha384"]}]
    ks.grant("proxy", ["dc"], ["label:p3*"], dc_max_lifetime="12h")
    ks.grant("narrow", ["tls13"], ["label:p256", "name:c.test"], rate_per_s=1000)
    ks.grant("maker", ["generate"], ["label:made-*"])
    return ks.start()


def explain(server, *args, client="proxy", config=None):
    """(exit code, the answer as JSON, what is on standard error)"""
    who = ["--client", server.client(client).cert] if client else []
    done = server.procs.run([CTL, "keyserver", "explain", "--json", "--config",
                             config or server.procs.folder / "keyserver.json", *who, *args])
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def answer_of(server, client, packet):
    """The error code that the real server gives to a packet; None: it was done."""
    client.send(packet)
    return client.receive().error


def message_for(server, label, purpose, lifetime):
    leaf = server.keys[label]
    if purpose == "dc":
        spki = pki_module.key_spki(server.dc_key)
        algorithm = {"p384": 0x0503, "rsa": 0x0804}.get(label, 0x0403)
        return frames.dc_message(leaf.der(), frames.valid_time_for(leaf.der(), lifetime), spki,
                                 0x0403, algorithm)
    if purpose == "csr":
        return frames.csr_message(leaf.key)
    return frames.tls12_message() if purpose == "tls12" else frames.tls13_message()


CLIENTS = ["proxy", "issuer", "certmanager", "foreign", "narrow", "maker", "stranger"]
LABELS = ["p256", "p384", "rsa", "plain"]
PURPOSES = ["tls13", "tls12", "dc", "csr", "blind"]


@pytest.mark.parametrize("who", CLIENTS)
def test_its_verdict_is_the_servers(server, who, tmp_path):
    """Clients x keys x purposes: the same verdict, the same error, the same reason."""
    server.dc_key = pki_module.make_key(tmp_path / "dc.key")
    opcodes = {"p256": ECDSA_SHA256, "p384": ECDSA_SHA384, "rsa": PSS_SHA256,
               "plain": ECDSA_SHA256}
    with server.connect(who) as client:
        for label, purpose in itertools.product(LABELS, PURPOSES):
            lifetime = 2 * DAY if label != "p384" else DAY // 2
            message = None if purpose == "blind" else message_for(server, label, purpose, lifetime)
            digest = bytes({ECDSA_SHA384: 48}.get(opcodes[label], 32)) if message is None else None
            error = answer_of(server, client, frames.sign_packet(
                1, opcodes[label], server.keys[label].ski(), message, digest))
            code, found, text = explain(
                server, "--key", f"label:{label}", "--purpose", purpose, "--scheme",
                SCHEMES[opcodes[label]], "--lifetime", f"{lifetime}s", client=who)
            where = (who, label, purpose, found, text)
            assert code == (0 if error is None else 1), where
            assert found["allowed"] is (error is None), where
            assert (found["error"] or {}).get("code") == error, where
            said = {hashlib.sha256(message).hexdigest(),
                    frames.digest_for(opcodes[label], message).hex()} if message else {digest.hex()}
            line = wait_until(lambda want=said: next(
                (entry for entry in reversed(server.audit(client=f"{who}.client.test",
                                                          ski=server.keys[label].ski().hex()))
                 if {entry.get("message_sha256"), entry.get("digest")} & want), None), "its line")
            assert line.get("reason", "none") == found["reason"], where
            # The very message says the same.
            if message is not None:
                path = tmp_path / "message"
                path.write_bytes(message)
                again = explain(server, "--key", f"label:{label}", "--message", path, "--scheme",
                                SCHEMES[opcodes[label]], client=who)
                assert again[0] == code and again[1]["reason"] == found["reason"], where
            assert sum(grant["counts"] for grant in found["grants"]) <= 1
            if error is None:
                grant = next(g for g in found["grants"] if g["counts"])
                assert grant["client"] and grant["key"] and grant["purpose"]


@pytest.mark.parametrize("who, args, reason", [
    ("proxy", ["--key", "label:p256", "--purpose", "tls13"], "none"),
    ("stranger", ["--key", "label:p256", "--purpose", "tls13"], "unknown_client"),
    ("proxy", ["--key", "label:none", "--purpose", "tls13"], "no_such_key"),
    ("proxy", ["--key", "ski:" + "ab" * 20, "--purpose", "tls13"], "no_such_key"),
    ("proxy", ["--key", "name:b.test", "--purpose", "csr"], "not_granted"),
    ("narrow", ["--key", "label:p384", "--purpose", "tls13"], "not_granted"),
    ("proxy", ["--key", "label:rsa", "--purpose", "tls13", "--scheme",
               "ecdsa_secp256r1_sha256"], "key_kind"),
    ("proxy", ["--key", "label:rsa", "--purpose", "tls13", "--scheme", "rsa_pkcs1_sha256"],
     "tls13_scheme"),
    ("proxy", ["--key", "label:p384", "--purpose", "tls12", "--scheme",
               "ecdsa_secp256r1_sha256"], "scheme_policy"),
    ("issuer", ["--key", "label:p256", "--purpose", "dc", "--lifetime", "6d"], "none"),
    ("issuer", ["--key", "label:p256", "--purpose", "dc", "--lifetime", "8d"], "dc_lifetime"),
    ("issuer", ["--key", "label:p384", "--purpose", "dc", "--lifetime", "2d"], "dc_lifetime"),
    ("proxy", ["--key", "label:p384", "--purpose", "dc", "--lifetime", "13h"], "dc_lifetime"),
    ("proxy", ["--key", "label:p384", "--purpose", "dc", "--lifetime", "12h"], "none"),
    ("issuer", ["--key", "label:plain", "--purpose", "dc"], "dc_usage"),
    ("issuer", ["--key", "label:rsa", "--purpose", "dc"], "dc_usage"),
    ("maker", ["--key", "label:made-1", "--purpose", "generate"], "none"),
    ("maker", ["--key", "label:other", "--purpose", "generate"], "not_granted"),
    ("proxy", ["--key", "label:made-1", "--purpose", "generate"], "not_granted"),
])
def test_each_reason(server, who, args, reason):
    code, found, text = explain(server, *args, client=who)
    assert found is not None, text
    assert (code, found["reason"]) == (0 if reason == "none" else 1, reason), found
    assert found["why"] and found["purpose"] == args[3]


@pytest.mark.parametrize("message, who, reason", [
    (lambda s: b"no message", "proxy", "no_purpose"),
    (lambda s: frames.csr_message(s.keys["p384"].key), "certmanager", "csr_other_key"),
    (lambda s: frames.dc_message(s.keys["plain"].der(), 1000000, s.keys["p384"].spki(), 0x0503),
     "issuer", "dc_other_key"),
    (lambda s: frames.dc_message(s.keys["p256"].der(), 0, s.keys["plain"].spki()),
     "issuer", "dc_ended"),
    (lambda s: frames.dc_message(s.keys["p256"].der(), 1000000, s.keys["p256"].spki()),
     "issuer", "dc_own_key"),
    (lambda s: frames.dc_message(s.keys["p256"].der(), 1000000, s.keys["plain"].spki(),
                                 algorithm=0x0503), "issuer", "dc_algorithm"),
    (lambda s: frames.dc_message(b"\x30\x03\x01\x01\xff", 1000, s.keys["plain"].spki()),
     "issuer", "dc_certificate"),
])
def test_each_reason_that_is_in_the_message(server, tmp_path, message, who, reason):
    path = tmp_path / "message"
    path.write_bytes(message(server))
    code, found, _ = explain(server, "--key", "label:p256", "--message", path, client=who)
    assert (code, found["reason"]) == (1, reason), found
    if reason == "no_purpose":
        assert found["detail"]


def test_a_label_that_is_taken(server):
    with server.connect("maker") as client:
        client.send(frames.packet(1, item(OPCODE, b"\x24"), item(0x13, b"deputy.generate_key"),
                                  item(PAYLOAD, b"\1" + bytes([len("made-2")]) + b"made-2")))
        error = client.receive().error
    code, found, _ = explain(server, "--key", "label:made-2", "--purpose", "generate",
                             client="maker")
    if error is None:
        assert (code, found["reason"]) == (1, "key_exists")
    (server.made / "made-3.key.retired").write_text("")
    code, found, _ = explain(server, "--key", "label:made-3", "--purpose", "generate",
                             client="maker")
    assert (code, found["reason"]) == (1, "key_exists")


def test_certificates_that_the_handshake_refuses(server, tmp_path):
    stamp = [time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + s)) for s in (-DAY, -3600)]
    server.clients["expired"] = server.ca.issue(
        "expired", san=["DNS:proxy.client.test"], eku="clientAuth", start=stamp[0], end=stamp[1])
    args = ["--key", "label:p256", "--purpose", "tls13"]
    code, found, _ = explain(server, *args, client="expired")
    assert (code, found["reason"], found["client"]["certificate"]) == (1, "handshake", "expired")
    config = json.loads((server.procs.folder / "keyserver.json").read_text())
    config["tls"]["crl"] = [str(server.ca.crl(tmp_path / "list", [server.client("proxy")]))]
    (tmp_path / "new.json").write_text(json.dumps(config))
    code, found, _ = explain(server, *args, config=tmp_path / "new.json")
    assert (code, found["client"]["certificate"]) == (1, "revoked")  # before any reload
    assert explain(server, *args)[0] == 0


def test_by_name_alone(server):
    code, found, _ = explain(server, "--client-name", "PROXY.client.test", "--key", "label:p256",
                             "--purpose", "tls13", client=None)
    assert code == 0 and found["client"]["certificate"] is None
    assert explain(server, "--client-name", "nobody", "--key", "label:p256", "--purpose", "tls13",
                   client=None)[1]["reason"] == "unknown_client"


def test_a_key_by_its_certificate(server):
    code, found, _ = explain(server, "--key", server.keys["p256"].cert, "--purpose", "tls13")
    assert code == 0 and found["key"]["label"] == "p256" and found["key"]["names"] == ["a.test"]
    code, found, _ = explain(server, "--key", server.server.cert, "--purpose", "tls13")
    assert (code, found["reason"], found["key"]) == (1, "no_such_key", None)


def test_the_table_for_people(server):
    done = server.procs.run([
        CTL, "keyserver", "explain", "--config", server.procs.folder / "keyserver.json",
        "--client", server.client("proxy").cert, "--key", "label:p384", "--purpose", "dc",
        "--lifetime", "13h"])
    assert done.returncode == 1
    for words in ("proxy.client.test", "p384", "key_policies[0]", "not this client",
                  "not this purpose", "fits: it counts", "REFUSED", "dc_lifetime", "not_authorised",
                  "12h", "1000"):
        assert words in done.stdout, done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_it_needs_no_private_key(server, request):
    """An operator who may read certificates, but no keys, gets the same answer."""
    # Not among pytest's own, which each of its runs closes to others.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="deputy-explain-"))
    request.addfinalizer(lambda: shutil.rmtree(folder))
    folder.chmod(0o755)
    config = json.loads((server.procs.folder / "keyserver.json").read_text())
    config["key_folders"] = [str(folder)]
    del config["generation"]
    config["tls"] = {"ca": str(folder / "ca.crt"), "certificate": "/none", "key": "/none"}
    (folder / "ca.crt").write_bytes(server.ca.cert.read_bytes())
    (folder / "client.pem").write_bytes(server.client("issuer").cert.read_bytes())
    for label in ("p256", "p384"):
        (folder / f"{label}.pem").write_bytes(server.keys[label].cert.read_bytes())
        pki_module.write_private(folder / f"{label}.key", server.keys[label].key.read_bytes())
    pki_module.write_private(folder / "bare.key", server.keys["rsa"].key.read_bytes())
    (folder / "config.json").write_text(json.dumps(config))

    # Where the build lies need not be open to others.
    ctl = shutil.copy(CTL, folder / "deputyctl")

    def run(key, purpose):
        done = server.procs.run(
            [ctl, "keyserver", "explain", "--json", "--config", folder / "config.json",
             "--client", folder / "client.pem", "--key", key, "--purpose", purpose],
            user="nobody", group="nogroup")
        return done.returncode, json.loads(done.stdout), done.stderr

    assert run("label:p256", "dc")[:1] == (0,)
    assert run("label:p384", "tls13")[1]["reason"] == "not_granted"
    code, found, text = run("label:bare", "dc")
    assert found["reason"] == "no_such_key" and "bare.key" in text


@pytest.mark.parametrize("args, words", [
    ([], "--key"),
    (["--key", "label:p256"], "--purpose"),
    (["--key", "*", "--purpose", "tls13"], "one key"),
    (["--key", "name:*.test", "--purpose", "tls13"], "several"),
    (["--key", "label:p256", "--purpose", "tls14"], "generate"),
    (["--key", "label:p256", "--purpose", "tls13", "--scheme", "md5"], "md5"),
    (["--key", "label:p256", "--purpose", "dc", "--lifetime", "x"], "--lifetime"),
    (["--key", "label:p256", "--message", "/none"], "/none"),
    (["--key", "/none", "--purpose", "tls13"], "/none"),
    (["--key", "p256", "--purpose", "generate"], "label:NAME"),
])
def test_questions_that_make_no_sense(server, args, words):
    code, found, text = explain(server, *args)
    assert code == 2 and found is None and words in text, text


def test_a_configuration_that_cannot_be_read(server, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    code, found, text = explain(server, "--key", "label:p256", "--purpose", "tls13", config=bad)
    assert code == 2 and "bad.json" in text
