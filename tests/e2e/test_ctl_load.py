# SPDX-License-Identifier: Apache-2.0
"""A CA is switched away and back while clients keep coming: none of them fails, and the
first handshake that starts after the command has returned shows the new chain."""

import threading

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from support.stack import Stack

NUM_CLIENTS = 4
NUM_HANDSHAKES = 2000
NUM_SWITCHES = 20


@pytest.fixture
def stack(procs, pki):
    stack = Stack(procs, pki, issuer=False)
    stack.start()
    yield stack
    stack.stop()


def issuer(stack, context):
    with stack.connect(context=context) as tls:
        cert = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True))
    return cert.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value


class Clients:
    """Threads that make handshakes until told to stop."""

    def __init__(self, stack):
        self.stack = stack
        self.seen = []
        self.failures = []
        self.is_over = False
        self.threads = [threading.Thread(target=self._run) for _ in range(NUM_CLIENTS)]
        for thread in self.threads:
            thread.start()

    def _run(self):
        context = self.stack.context()
        while not self.is_over and not self.failures:
            try:
                self.seen.append(issuer(self.stack, context))
            except Exception as e:  # any failure is one too many
                self.failures.append(e)

    def stop(self):
        self.is_over = True
        for thread in self.threads:
            thread.join()


def test_no_handshake_fails_while_a_ca_is_switched(stack):
    context = stack.context()
    clients = Clients(stack)
    try:
        for i in range(NUM_SWITCHES):
            while len(clients.seen) < NUM_HANDSHAKES * i // NUM_SWITCHES and not clients.failures:
                threading.Event().wait(0.002)
            if i % 2 == 0:
                stack.proxy.ctl("switch", "--ca", "web-one", "--reason", f"round {i}")
            else:
                stack.proxy.ctl("restore", "--ca", "web-one")
            for _ in range(3):  # whichever worker takes it
                assert issuer(stack, context) == ("web-two" if i % 2 == 0 else "web-one")
        while len(clients.seen) < NUM_HANDSHAKES and not clients.failures:
            threading.Event().wait(0.002)
    finally:
        clients.stop()
    assert not clients.failures, clients.failures
    assert len(clients.seen) >= NUM_HANDSHAKES
    assert set(clients.seen) == {"web-one", "web-two"}
    assert sum(v for k, v in stack.proxy.metrics().items()
               if k.startswith("deputy_proxy_handshakes_failed_total")) == 0
