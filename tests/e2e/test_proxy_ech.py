# SPDX-License-Identifier: Apache-2.0
"""Encrypted ClientHello with NSS's client: the name is not on the wire, keys are renewed by
a reload, and a client with an old one is told the new one."""

import base64
import contextlib
import os
import socket
import struct
import threading

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from support.clients import Nss
from support.pki import write_private
from support.procs import wait_until
from support.stack import Stack

PUBLIC = "public.test"


class EchKey:
    """A key with its configuration, as RFC 9849 (section 4) and RFC 9934 write them."""

    def __init__(self, path, number):
        key = X25519PrivateKey.generate()
        public = key.public_key().public_bytes(serialization.Encoding.Raw,
                                               serialization.PublicFormat.Raw)
        name = PUBLIC.encode()
        # HpkeKeyConfig: id, DHKEM(X25519, HKDF-SHA256), key, HKDF-SHA256 with AES-128-GCM
        contents = (struct.pack(">BHH", number, 0x20, len(public)) + public +
                    struct.pack(">HHH", 4, 1, 1) + struct.pack(">BB", 64, len(name)) + name +
                    struct.pack(">H", 0))
        config = struct.pack(">HH", 0xFE0D, len(contents)) + contents
        self.configs = base64.b64encode(struct.pack(">H", len(config)) + config).decode()
        self.path = path
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                serialization.NoEncryption()).decode()
        write_private(path, (f"{pem}-----BEGIN ECHCONFIG-----\n{self.configs}\n"
                             "-----END ECHCONFIG-----\n").encode())


class Wire:
    """Passes one connection on, and keeps what the client said."""

    def __init__(self, address):
        self.address = address
        self.said = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        client, _ = self.listener.accept()
        server = socket.create_connection(self.address)
        threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()
        self._pass(client, server, True)

    def _pass(self, source, target, is_client):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if is_client:
                    self.said += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def stack(module_procs, module_pki):
    stack = Stack(module_procs, module_pki, hosts=("demo.test", PUBLIC))
    stack.keys = [EchKey(module_procs.folder / f"ech-{i}.pem", i) for i in range(3)]
    stack.proxy.config["tls"] = {"ech_keys": [str(stack.keys[0].path)]}
    stack.start()
    stack.proxy.config["listeners"][0]["address"] = "127.0.0.1:%d" % stack.proxy.port
    yield stack
    stack.stop()


def visit(stack, key, args=()):
    """One handshake; what NSS printed, and what was on the wire."""
    wire = Wire(stack.proxy.address)
    nss = Nss(stack.procs, wire.port, [ca.cert for ca in stack.web_cas])
    result = nss.run("demo.test", args=("-V", "tls1.3:tls1.3", "-N", key.configs, *args))
    wire.listener.close()
    return result, wire.said


def test_the_name_is_not_on_the_wire(stack):
    result, said = visit(stack, stack.keys[0])
    # A delegated credential goes with it as without.
    assert result.is_ok and result.got_dc, result
    assert b"demo.test" not in said and PUBLIC.encode() in said
    stack.proxy.wait_metric(1, "ech_accepted_total")
    wait_until(lambda: 'name="demo.test"' in stack.proxy.log(), "the line")
    # Who comes without is served as ever.
    assert stack.nss().run("demo.test").got_dc
    assert stack.proxy.metric("ech_accepted_total") == 1


def test_an_old_key_is_answered_by_the_new_one(stack):
    before = stack.proxy.metric("ech_accepted_total")
    stack.proxy.config["tls"]["ech_keys"] = [str(k.path) for k in (stack.keys[1], stack.keys[0])]
    stack.proxy.reload()
    for key in stack.keys[:2]:
        result, said = visit(stack, key)
        assert result.is_ok and b"demo.test" not in said, result
    stack.proxy.wait_metric(before + 2, "ech_accepted_total")
    # One that is gone: the handshake is made for the public name, and tells the new key.
    # (-o: tstclnt compares the certificate with the name it wanted, not with the public one.)
    result, said = visit(stack, stack.keys[2], ["-o"])
    assert not result.is_ok and "ECH_RETRY_WITH_ECH" in result.text, result
    assert b"demo.test" not in said
    assert stack.proxy.metric("ech_accepted_total") == before + 2


def test_a_file_that_others_may_read_is_refused(stack):
    os.chmod(stack.keys[1].path, 0o644)
    stack.proxy.reload("failed")
    wait_until(lambda: "tls.ech_keys" in stack.proxy.log().split("reload_failed")[-1], "the reason")
    os.chmod(stack.keys[1].path, 0o600)
    result, _ = visit(stack, stack.keys[1])
    assert result.is_ok, result
