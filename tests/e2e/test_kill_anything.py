# SPDX-License-Identifier: Apache-2.0
"""kill -9 of any part, at any moment: nothing is lost, the others find it again.

The listening sockets come back at the same addresses, as under a supervisor.
"""

import random
import socket
import threading
import time

import pytest

from support.procs import SLOW, wait_until
from support.stack import Stack

ROUNDS = 9


@pytest.fixture
def stack(procs, pki):
    stack = Stack(procs, pki)
    # Short, so that credentials are renewed all the time.
    stack.proxy.config["delegated_credentials"] = {
        "lifetime": "6s", "margin": "1s", "retry_min": "50ms", "retry_max": "500ms"}
    stack.start()
    stack.keyserver.config["listen"] = ["127.0.0.1:%d" % stack.keyserver.address[1]]
    stack.issuer.config["listen"] = ["127.0.0.1:%d" % stack.issuer.process.address("api")[1]]
    stack.proxy.config["listeners"][0]["address"] = "127.0.0.1:%d" % stack.proxy.port
    yield stack
    stack.stop()


class Visitors:
    """Clients that keep coming, and keep a diary of failures."""

    def __init__(self, stack, num=2):
        self.address = stack.proxy.address
        self.context = stack.context()
        self.nss = stack.nss()
        self.is_over = threading.Event()
        self.served = 0
        self.threads = [threading.Thread(target=self._run, args=(i,)) for i in range(num)]
        for thread in self.threads:
            thread.start()

    def _run(self, index):
        while not self.is_over.is_set():
            try:
                if index == 0:
                    self.served += self.nss.run().got_dc
                else:
                    with socket.create_connection(self.address, timeout=10 * SLOW) as plain:
                        self.context.wrap_socket(plain, server_hostname="demo.test").close()
                    self.served += 1
            except OSError:
                time.sleep(0.01)  # nobody there: as a person would, again

    def stop(self):
        self.is_over.set()
        for thread in self.threads:
            thread.join()


def is_well(stack):
    """Everything works: both paths, and credentials are fresh."""
    try:
        stack.connect().close()
    except OSError:
        return False
    return stack.nss().run().got_dc


def test_any_part_any_time(stack):
    first, second = (ca.name for ca in stack.web_cas)
    dice = random.Random(9345)
    parts = {"key server": stack.keyserver, "issuer": stack.issuer, "proxy": stack.proxy}
    visitors = Visitors(stack)
    try:
        for i in range(ROUNDS):
            # A change that was answered must stand after whatever comes next.
            words = ("switch", "--reason", "test") if i % 2 == 0 else ("restore",)
            stack.proxy.ctl(words[0], "--ca", first, *words[1:])
            name = list(parts)[i % 3]
            time.sleep(dice.random() * 0.3)
            parts[name].process.kill()
            time.sleep(dice.random() * 0.3)
            parts[name].start()
            wait_until(lambda: is_well(stack), f"all to be well after the death of the {name}", 20)
            shown = stack.nss().run().issuer
            assert shown == (second if i % 2 == 0 else first), (i, name)
            served = visitors.served
            wait_until(lambda: visitors.served > served + 2, "visitors to be served")
    finally:
        visitors.stop()
    # Renewal goes on, for both chains.
    ends = {c["leaf_sha256"]: c["dc_ends_at"] for c in stack.proxy.chains()}
    wait_until(lambda: all(c["dc_ends_at"] and c["dc_ends_at"] > ends[c["leaf_sha256"]]
                           for c in stack.proxy.chains() if ends[c["leaf_sha256"]]),
               "newer credentials", 15)


def test_all_at_once(stack):
    """Power fails. Whatever comes up first waits for the others."""
    first, second = (ca.name for ca in stack.web_cas)
    stack.proxy.ctl("switch", "--ca", first, "--reason", "test")
    for part in (stack.proxy, stack.keyserver, stack.issuer):
        part.process.kill()
    stack.proxy.start()
    with pytest.raises(OSError):
        stack.connect()
    stack.issuer.start(ready=False)
    stack.keyserver.start()
    wait_until(lambda: is_well(stack), "all to be well", 20 * SLOW)
    assert stack.nss().run().issuer == second
    for audit in (stack.keyserver.audit(), stack.issuer.audit()):
        assert audit  # every line that is there can be read
