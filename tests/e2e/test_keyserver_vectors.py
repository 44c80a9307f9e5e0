# SPDX-License-Identifier: Apache-2.0
"""Recorded packets, byte for byte, over TLS 1.3 and over the foreign TLS 1.2."""

import hashlib
import ssl

import pytest
from cryptography.hazmat.primitives import serialization

from support import frames, pki as pki_module
from support import keyless_vectors as vectors
from support.keyserver import KeyServer


@pytest.fixture
def server(procs, pki):
    ks = KeyServer(procs, pki)
    ks.put_key("p256", vectors.p256_der())
    ks.put_key("ed25519", vectors.ed25519_der())
    return ks.start()


@pytest.fixture(params=["tls13", "tls12"])
def client(request, server):
    with server.connect("foreign", tls12=request.param == "tls12") as c:
        assert c.tls.version() == {"tls13": "TLSv1.3", "tls12": "TLSv1.2"}[request.param]
        yield c


def exchange(client, packet):
    client.send(packet)
    return client.receive()


def test_ping(client):
    assert exchange(client, vectors.PING.packet).raw == vectors.PONG.packet


def test_ecdsa_signs_a_blind_digest(client):
    reply = exchange(client, vectors.ECDSA.packet)
    assert (reply.id, reply.opcode, len(reply.raw)) == (0x01020304, frames.SUCCESS, 1024)
    frames.verify(vectors.P256_SPKI, frames.ECDSA_SHA256, reply.payload, digest=vectors.DIGEST)


def test_unknown_key(client):
    assert exchange(client, vectors.UNKNOWN_KEY.packet).raw == vectors.UNKNOWN_KEY_REPLY.packet


def test_pss_request_of_a_key_that_is_not_here(client):
    """Its private key is nowhere: the packet is understood, and the id is echoed."""
    reply = exchange(client, vectors.PSS.packet)
    assert (reply.id, reply.error) == (0xFFFFFFFE, frames.E_KEY_NOT_FOUND)


def test_ed25519_is_deterministic(client):
    assert exchange(client, vectors.ED25519.packet).raw == vectors.ED25519_REPLY.packet


@pytest.mark.parametrize("reply, spki, opcode", [
    (vectors.ECDSA_REPLY, vectors.P256_SPKI, frames.ECDSA_SHA256),
    (vectors.PSS_REPLY, vectors.RSA_SPKI, frames.PSS_SHA256),
])
def test_recorded_signatures_are_what_we_check_for(reply, spki, opcode):
    """What passes for a good signature in these tests is what the other side made."""
    frames.verify(spki, opcode, frames.Reply(reply.packet).payload, digest=vectors.DIGEST)


@pytest.mark.parametrize("spki, ski", [
    (vectors.P256_SPKI, vectors.P256_SKI), (vectors.RSA_SPKI, vectors.RSA_SKI),
    (vectors.ED25519_SPKI, vectors.ED25519_SKI)])
def test_identifiers(spki, ski):
    assert pki_module.spki_ski(spki) == ski


def test_digest_of_an_rsa_key():
    modulus = serialization.load_der_public_key(vectors.RSA_SPKI).public_numbers().n
    assert hashlib.sha256(f"{modulus:X}".encode()).digest() == vectors.RSA_DIGEST


@pytest.mark.parametrize("suite", frames.FOREIGN_SUITES.split(":"))
def test_foreign_suites(server, suite):
    if "RSA" in suite:  # needs an RSA server certificate
        rsa = server.ca.issue("server-rsa", kind="rsa2048", san=["DNS:localhost"],
                              key_usage="critical,digitalSignature,keyEncipherment")
        server.config["tls"].update(certificate=str(rsa.cert), key=str(rsa.key))
        server.reload()
    with server.connect("foreign", tls12=True, ciphers=suite) as c:
        assert c.tls.cipher()[0] == suite
        c.ping()


def test_other_suites_of_tls12_are_refused(server):
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        server.connect("foreign", tls12=True, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")


def test_tls12_is_off_unless_allowed(procs, pki):
    ks = KeyServer(procs, pki)
    ks.config["allow_tls12"] = False
    ks.start()
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        ks.connect("foreign", tls12=True)
    ks.connect("foreign").close()
