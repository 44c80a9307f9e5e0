# SPDX-License-Identifier: Apache-2.0
"""Delegated credentials for many names: cold names and their backups, budgets of memory,
outages of issuers and the way back, refusals of some, keys that are shared, and names that
come, go and change."""

import base64
import collections
import json
import shutil
import time

import pytest

from support.broken_issuer import BrokenIssuer
from support.procs import BIN_DIR, SLOW, wait_until
from support.stack import BODY, Stack

NUM_NAMES = 3000
NUM_KEYS = 48  # of these, names that the key server can sign for
CTL = BIN_DIR / "deputyctl"
BENCH = BIN_DIR / "deputy-bench"


@pytest.fixture(scope="module")
def many(module_procs, tmp_path_factory):
    """A store with n0.bench.test, n1.bench.test, ..., each with primary and backup."""
    out = tmp_path_factory.mktemp("many") / "out"
    module_procs.run([BENCH, "make-certificates", "--count", str(NUM_NAMES), "--keys",
                      str(NUM_KEYS), "--out", out], timeout=120, check=True)
    for level in ("primary", "backup"):
        module_procs.run([CTL, "store", "import", out / f"{level}.der", "--level", level, "--store",
                          out / "store", "--quiet"], timeout=120, check=True)
    return out


class Shop:
    """A stack with an issuer, whose proxy serves a copy of that store."""

    def __init__(self, procs, pki, many, **dc):
        self.procs = procs
        self.folder = procs.folder / "store"
        shutil.copytree(many / "store", self.folder)
        self.stack = Stack(procs, pki, hosts=())
        for key in (many / "keys").iterdir():
            shutil.copy(key, self.stack.keyserver.folder / key.name)
        self.proxy = self.stack.proxy
        del self.proxy.config["states"]
        self.proxy.config["store"] = {"path": str(self.folder), "deadline": f"{3 * SLOW}s"}
        self.proxy.config["delegated_credentials"] = {
            "retry_min": "50ms", "retry_max": "200ms", **dc}

    def start(self):
        self.stack.start(wait_credentials=0)
        return self

    def store(self, *args):
        return self.procs.run([CTL, "store", *args, "--store", self.folder], timeout=60, check=True)

    def add(self, host, ca=0, level="primary"):
        """A leaf of the stack's own, with its key in the key server, into the store."""
        leaf = self.stack.leaf(f"{host}-{level}", host, ca)
        if self.stack.keyserver.process is not None:
            self.stack.keyserver.reload()
        self.store("import", leaf.chain, "--level", level)
        return leaf

    def visit(self, *numbers, count=None, dc="on"):
        """Handshakes with n<i>.bench.test in turn; returns how many came with a credential."""
        names = ",".join(f"n{i}.bench.test" for i in numbers)
        done = self.procs.run([BENCH, "handshakes", "--target", f"127.0.0.1:{self.proxy.port}",
                               "--server-name", names, "--dc", dc, "--count",
                               str(count or len(numbers)), "--timeout", f"{5 * SLOW}s"],
                              timeout=60, check=True)
        result = json.loads(done.stdout)
        assert result["counts"]["failed"] == 0, result
        return result["counts"]["dc"]

    def metric(self, name, **labels):
        return self.proxy.metric(f"dc_{name}", **labels)

    def wait_ready(self, num):
        wait_until(lambda: self.metric("ready") >= num, f"{num} credentials")


@pytest.fixture
def shop(procs, pki, many):
    made = []

    def make(**dc):
        made.append(Shop(procs, pki, many, **dc))
        return made[-1]

    yield make
    for one in made:
        one.stack.stop()


@pytest.fixture
def make(procs, pki):
    """make(...) -> a stack of configured names, with an issuer that does as it is told."""
    made = []

    def make(hosts, **dc):
        stack = Stack(procs, pki, hosts=hosts, issuer=False)
        stack.broken = BrokenIssuer(stack)
        stack.broken.load()
        stack.proxy.config["issuers"] = stack.broken.options(timeout="20s")
        stack.proxy.config["delegated_credentials"] = {
            "retry_min": "50ms", "retry_max": "200ms", **dc}
        made.append(stack)
        return stack

    yield make
    for stack in made:
        stack.stop()
        stack.broken.stop()


# --- names of a store ------------------------------------------------------------------------


def test_a_cold_name_is_keyless_then_it_and_its_backup_are_ready(shop):
    shop = shop().start()
    # Who takes no credential costs no issuer anything.
    assert shop.visit(*range(10), dc="off") == 0
    assert shop.visit(0) == 0
    shop.wait_ready(2)
    assert shop.visit(0, count=20) == 20
    assert shop.metric("chains") == 2 and shop.metric("leaves") == 20
    assert shop.metric("fetches_total", result="ok") == 2
    # The backup's is there before anybody needs it.
    shop.store("switch", "--ca", "Bench CA primary", "--reason", "test")
    assert shop.visit(0, count=20) == 20
    assert shop.visit(1) == 0
    shop.wait_ready(4)
    assert shop.visit(0, 1, count=20) == 20
    assert shop.metric("fetches_total", result="ok") == 4
    status = shop.proxy.status()["credentials"]
    assert (status["ready"], status["wanted"], status["due"]) == (4, 4, 0)
    assert status["bytes"] == shop.metric("bytes") > 4 * 500
    assert set(status["failures"].values()) == {0}
    assert "credentials ready" in shop.proxy.ctl("status").stdout


def test_the_budget_is_kept_and_the_coldest_go(shop):
    most = 16
    shop = shop(max_credentials=most).start()
    assert shop.visit(*range(8)) == 0
    shop.wait_ready(most)
    assert shop.visit(*range(8)) == 8
    # Names that are as cold as these drive none of them out.
    assert shop.visit(*range(8, 16)) == 0
    wait_until(lambda: shop.metric("evicted_total", reason="no_room") > 0, "their refusal")
    assert shop.visit(*range(8)) == 8
    # A hot one does, with its backup.
    assert shop.visit(20, 21, count=200) >= 0
    wait_until(lambda: shop.visit(20, 21) == 2, "those of the hot names")
    wait_until(lambda: shop.metric("evicted_total", reason="room") >= 4, "room for their backups")
    for i in range(20, NUM_KEYS, 4):
        shop.visit(*range(i, i + 4), count=100)
        assert shop.metric("ready") + shop.metric("kept") <= most
    assert shop.visit(20, 21) == 2
    # A reload with less room takes effect at once, and with more at the next visits.
    shop.proxy.config["delegated_credentials"]["max_credentials"] = 4
    shop.proxy.reload()
    wait_until(lambda: shop.metric("ready") + shop.metric("kept") <= 4, "the smaller budget")
    assert shop.visit(20, 21) == 2
    shop.proxy.config["delegated_credentials"]["max_credentials"] = 1000
    shop.proxy.reload()
    shop.visit(*range(NUM_KEYS))
    shop.wait_ready(2 * NUM_KEYS)
    assert shop.visit(*range(NUM_KEYS)) == NUM_KEYS
    assert shop.metric("heat_lost_total") == 0


def test_names_that_change_leave_and_come_back(shop):
    shop = shop()
    shop.proxy.config["store"]["cache"] = 8
    shop.add("demo.test")
    shop.start()
    nss = shop.stack.nss()
    first = nss.run()
    assert first.is_ok and not first.got_dc
    shop.wait_ready(1)
    assert nss.run().got_dc
    # A renewed leaf has one without anybody asking.
    again = shop.stack.leaf("again", "demo.test", 1)
    shop.stack.keyserver.reload()
    shop.store("import", again.chain, "--replace")
    wait_until(lambda: shop.metric("fetches_total", result="ok") == 2, "one for the new leaf")
    renewed = nss.run()
    assert renewed.got_dc and renewed.issuer == "web-two", renewed
    # The cache is small: names leave it, their credentials stay while there is room.
    num = 24
    for i in range(0, num, 4):
        shop.visit(*range(i, i + 4))
        wait_until(lambda num=i: shop.metric("ready") + shop.metric("kept") == 2 * (num + 4) + 2,
                   f"those of {i + 4} names")
    assert shop.metric("kept") >= 2 * (num - 8)
    assert shop.visit(*range(num)) == num
    assert shop.metric("fetches_total", result="ok") == 2 * num + 2
    # Off, they are gone; on again, they come back with their visitors.
    shop.proxy.config["store"]["delegated_credentials"] = False
    shop.proxy.reload()
    assert shop.visit(*range(8)) == 0 and shop.metric("ready") == 0
    shop.proxy.config["store"]["delegated_credentials"] = True
    shop.proxy.reload()
    wait_until(lambda: shop.visit(num - 1) == 1, "one of a name that was in the cache")


# --- issuers ------------------------------------------------------------------------------------


def test_an_outage_longer_than_lives_and_the_way_back(make):
    stack = make([f"n{i}.test" for i in range(12)], lifetime=f"{3 * SLOW}s", margin="1s")
    stack.start()
    stack.proxy.wait_credentials(24)
    nss = stack.nss()
    assert nss.run("n3.test").got_dc
    stack.broken.answer = stack.broken.hangs_up
    # Every one ends, and nobody sees more of it than the key server.
    wait_until(lambda: stack.proxy.metric("dc_ready") == 0, "their ends", 10)
    assert stack.proxy.metric("dc_evicted_total", reason="ended") == 24
    result = nss.run("n3.test")
    assert result.is_ok and not result.got_dc
    assert stack.get("n4.test") == BODY
    num = len(stack.broken.requests)
    began = time.monotonic()
    wait_until(lambda: len(stack.broken.requests) >= num + 5, "tries")
    assert max(map(len, stack.broken.requests[num:])) <= 4  # it is tried with a few
    assert time.monotonic() - began > 0.3  # after pauses: 5 of at least 100 ms
    # And nobody runs it over when it is back.
    stack.broken.answer = stack.broken.good
    stack.proxy.wait_credentials(24)
    sizes = [len(r) for r in stack.broken.requests[num:]]
    assert all(after <= 4 * before for before, after in zip(sizes, sizes[1:])), sizes
    assert nss.run("n3.test").got_dc
    assert stack.proxy.metric("dc_issuers_paused") == 0


def test_some_of_a_batch_are_refused(make):
    """The others get theirs; a refusal by policy is not asked about at full speed."""
    stack = make([f"n{i}.test" for i in range(6)], retry_max="30s")
    firm = stack.leaves["n0.test-primary"].der()
    busy = stack.leaves["n1.test-primary"].der()
    bad = stack.leaves["n2.test-primary"].der()
    asked = collections.Counter()

    def answer(entries):
        results = []
        for entry in entries:
            der = base64.b64decode(entry["certificate"])
            asked[der] += 1
            if der == firm:
                results.append({"error": {"code": "not_allowed", "message": "policy"}})
            elif der == busy and asked[der] <= 3:
                results.append({"error": {"code": "rate_exceeded", "message": "later"}})
            elif der == bad and asked[der] <= 3:
                results += stack.broken.ends_within_the_margin([entry])["results"]
            else:
                results += stack.broken.good([entry])["results"]
        return {"results": results}

    stack.broken.answer = answer
    stack.start()
    stack.proxy.wait_credentials(11)
    assert asked[busy] == 4 and asked[bad] == 4
    assert asked[firm] == 1
    assert all(num == 1 for der, num in asked.items() if der not in (busy, bad))
    why = {c["path"].rpartition("/")[2]: c["why_no_dc"] for c in stack.proxy.chains()}
    assert why["n0.test-primary.pem"] == "issuer_refused"
    assert stack.proxy.metric("dc_waiting") == 1
    # Whoever has changed the policy reloads, and need not wait.
    stack.broken.answer = stack.broken.good
    stack.proxy.reload()
    stack.proxy.wait_credentials(12)


def test_shared_keys_are_shared_for_a_period_and_rotate(make):
    hosts = [f"n{i}.test" for i in range(4)]
    stack = make(hosts, lifetime=f"{3 * SLOW}s", margin="0s", keys="shared",
                 key_rotation=f"{SLOW}s")
    stack.start()
    stack.proxy.wait_credentials(8)
    first = {e["public_key"] for r in stack.broken.requests for e in r}
    assert len(first) == 1
    assert stack.nss().run("n1.test").got_dc
    wait_until(lambda: sum(map(len, stack.broken.requests)) >= 20, "renewals", 25)
    keys_of = collections.defaultdict(list)
    for request in stack.broken.requests:
        for entry in request:
            keys_of[entry["certificate"]].append(entry["public_key"])
    for keys in keys_of.values():  # a renewal never meets the key that it had
        assert len(set(keys)) == len(keys)
    asked = sum(map(len, stack.broken.requests))
    made = stack.proxy.metric("dc_keys_made_total")
    assert 2 <= made < asked
    assert len({key for keys in keys_of.values() for key in keys}) <= made
    # Too long a period would let a credential be renewed with its key.
    stack.proxy.config["delegated_credentials"]["key_rotation"] = f"{2 * SLOW}s"
    stack.proxy.reload("failed")
    wait_until(lambda: "at most a third of lifetime" in stack.proxy.log(), "the reason")
