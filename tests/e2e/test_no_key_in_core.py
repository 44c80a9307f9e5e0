# SPDX-License-Identifier: Apache-2.0
"""A core of the running proxy holds no certificate key.

The search is worth something only if it finds keys where they are: first it must
find each of them in the key server, and in the proxy the one key that is its own.
"""

import pathlib
import threading

import pytest

from support import memory
from support.procs import SANITIZE
from support.stack import Stack

# Each kind of key that a key server holds and a handshake uses.
KEYS = {"p384.test": "p384", "rsa.test": "rsa2048"}
TAKES = 1 if SANITIZE else 3  # a sanitizer keeps what was freed: much to search


pytestmark = pytest.mark.skipif(not memory.may_trace(), reason="no CAP_SYS_PTRACE: cannot read memory")


@pytest.fixture(scope="module")
def stack(module_procs, module_pki):
    stack = Stack(module_procs, module_pki)
    for host, kind in KEYS.items():
        usage = "critical,digitalSignature" + (",keyEncipherment" if "rsa" in kind else "")
        leaf = stack.leaf(host, host, kind=kind, delegation=False, key_usage=usage)
        stack.add_name(host, [("primary", leaf)], delegated_credentials=False)
    stack.start()
    yield stack
    stack.stop()


@pytest.fixture(scope="module")
def load(stack):
    """Handshakes with every key, certificate and credential, without end."""
    is_over = threading.Event()
    hosts = ["demo.test", *KEYS]
    made, contexts = [], [stack.context(), stack.context(tls12=True)]
    nss = stack.nss()

    def certificate(context):
        while not is_over.is_set():
            for host in hosts:
                stack.get(host, context=context)
                made.append(host)

    def credential():
        while not is_over.is_set():
            result = nss.run("demo.test")
            assert result.got_dc, result
            made.append("dc")

    threads = [threading.Thread(target=certificate, args=(c,)) for c in contexts]
    threads.append(threading.Thread(target=credential))
    for thread in threads:
        thread.start()
    yield made
    is_over.set()
    for thread in threads:
        thread.join()


@pytest.fixture(scope="module")
def wanted(stack):
    """{key's label: what it can look like}."""
    return {label: memory.patterns(leaf.key) for label, leaf in stack.leaves.items()}


def take(how, stack, process, tmp_path):
    if how == "live":
        return memory.live(process.pid)
    return memory.core(stack.procs, process.pid, tmp_path / "core")


HOWS = [pytest.param("core", marks=pytest.mark.skipif(
    bool(SANITIZE), reason="a sanitizer's shadow makes cores of terabytes")), "live"]


@pytest.mark.parametrize("how", HOWS)
def test_search_finds_every_key_in_the_key_server(how, stack, load, wanted, tmp_path):
    found = take(how, stack, stack.keyserver.process, tmp_path)
    for label, patterns in wanted.items():
        forms = memory.search(found, patterns)
        assert forms, f"{label}: the search does not find it where it is"
        if "rsa" in label:
            assert {"p", "q"} <= {form.split(",")[0] for form in forms}, forms


@pytest.mark.parametrize("how", HOWS)
def test_no_certificate_key_in_the_proxy(how, stack, load, wanted, tmp_path):
    def signed():
        return [stack.proxy.metric("handshakes_total", source=s) for s in ("dc", "certificate")]

    before, num = signed(), len(load)
    for _ in range(TAKES):  # a key may be there for a moment only
        found = take(how, stack, stack.proxy.process, tmp_path)
        for label, patterns in wanted.items():
            assert memory.search(found, patterns) == [], label
        # What is there: its identity towards key servers, not a certificate's key.
        own = memory.patterns(stack.keyserver.client("proxy").key)
        assert memory.search(found, own), "the proxy's own key is not found either"
    assert len(load) > num and all(b > a for a, b in zip(before, signed())), "there was no load"


def test_neither_writes_a_core_by_itself(stack):
    for process in (stack.proxy.process, stack.keyserver.process):
        limits = pathlib.Path(f"/proc/{process.pid}/limits").read_text()
        line, = (x for x in limits.splitlines() if x.startswith("Max core file size"))
        assert line.split()[4:6] == ["0", "0"], line
