# SPDX-License-Identifier: Apache-2.0
"""A proxy with names in a store on disk. The fixtures `many` and `shop` are for a test file to
import."""

import shutil
import ssl

import pytest

from support.procs import BIN_DIR, SLOW
from support.stack import Stack

NUM_NAMES = 2000
NUM_KEYS = 40  # of these, names that the key server can sign for
CTL = BIN_DIR / "deputyctl"


@pytest.fixture(scope="module")
def many(module_procs, tmp_path_factory):
    """A folder with primary.der and backup.der of n0.bench.test, n1.bench.test, ..."""
    out = tmp_path_factory.mktemp("many") / "out"
    module_procs.run([BIN_DIR / "deputy-bench", "make-certificates", "--count", str(NUM_NAMES),
                      "--keys", str(NUM_KEYS), "--out", out], timeout=120, check=True)
    for level in ("primary", "backup"):
        module_procs.run([CTL, "store", "import", out / f"{level}.der", "--level", level, "--store",
                          out / "store", "--quiet"], timeout=120, check=True)
    return out


class Shop:
    """A stack whose proxy serves a copy of that store."""

    def __init__(self, procs, pki, many, issuer=False):
        self.procs = procs
        self.folder = procs.folder / "store"
        shutil.copytree(many / "store", self.folder)
        self.stack = Stack(procs, pki, hosts=(), issuer=issuer)
        for key in (many / "keys").iterdir():
            shutil.copy(key, self.stack.keyserver.folder / key.name)
        self.proxy = self.stack.proxy
        del self.proxy.config["states"]
        self.proxy.config["store"] = {"path": str(self.folder), "deadline": f"{3 * SLOW}s"}
        self.ca_file = procs.folder / "all-cas.pem"
        self.ca_file.write_bytes((many / "roots.pem").read_bytes() +
                                 self.stack.ca_file().read_bytes())

    def start(self):
        self.stack.start(wait_credentials=0)
        return self

    def store(self, *args, code=0, timeout=60):
        done = self.procs.run([CTL, "store", *args, "--store", self.folder], timeout)
        assert done.returncode == code, (args, done.stdout, done.stderr)
        return done

    def add(self, host, ca=0, level="primary"):
        """A leaf of the stack's own, with its key in the key server, into the store."""
        leaf = self.stack.leaf(f"{host.replace('*', '_')}-{level}", host, ca)
        if self.stack.keyserver.process is not None:
            self.stack.keyserver.reload()
        self.store("import", leaf.chain, "--level", level)
        return leaf

    def context(self, **kwargs):
        context = self.stack.context(**kwargs)
        context.load_verify_locations(self.ca_file)
        return context

    def issuer(self, host, **kwargs):
        """Who issued the leaf that answers for `host`; the handshake must succeed."""
        with self.stack.connect(host, context=self.context(**kwargs)) as tls:
            return dict(item[0] for item in tls.getpeercert()["issuer"])["commonName"]

    def level(self, host, **kwargs):
        """primary or backup, of a name of the many."""
        return self.issuer(host, **kwargs).rpartition(" ")[2]

    def alert(self, host):
        """The alert that ends a handshake for `host`."""
        with pytest.raises(ssl.SSLError) as failed:
            self.issuer(host)
        return failed.value.reason


@pytest.fixture
def shop(procs, pki, many):
    made = []

    def make(**kwargs):
        made.append(Shop(procs, pki, many, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.stack.stop()
