# SPDX-License-Identifier: Apache-2.0
"""certstore: the certificates, staples and stores that its measurements work on, made once
and kept in the cache folder (--cache) for the next run; without one, gone with the run."""

import json
import pathlib
import shutil
import time

from harness.base import BenchError
from harness.procs import checked, run

LEVELS = ("primary", "backup")
CA = {level: f"Bench CA {level}" for level in LEVELS}
DOMAIN = "bench.test"
VERSION = 1  # of what is in the cache: another one, and it is made anew
MAX_AGE_S = 4 * 86400  # staples last 7 days, leaves 90
CERTIFICATES_KB = 2.5  # on disk for each name: two chains in DER
STORE_KB = 4.1
STEP_S = 1500  # the longest that one step may take
TELL_S = 10


def work(s, name, words, what):
    """Runs a program that takes a while, telling how far it is; its JSON, seconds."""
    begin = told = time.monotonic()
    process = s.procs.start(name, words)
    while process.is_running():
        now = time.monotonic()
        if now - begin > STEP_S:
            process.stop()
            raise BenchError(f"{what} took longer than {STEP_S} s")
        if now - told >= TELL_S:
            told = now
            lines = process.err_path.read_text(errors="replace").strip().splitlines()
            s.progress(f"{what}: {lines[-1] if lines else f'{now - begin:.0f} s'}")
        time.sleep(0.02)
    seconds = time.monotonic() - begin
    if process.popen.returncode != 0:
        raise BenchError(f"{what} failed:\n{process.log()}")
    try:
        return json.loads(process.out_path.read_text()), seconds
    except ValueError as e:
        raise BenchError(f"{what}: no JSON in {process.out_path.read_text()[-300:]!r}") from e


class Names:
    """`num` names with certificates; keys of every `key_every`-th, `num_keys` of them."""

    def __init__(self, s, folder, num, num_keys, num_bundles=0):
        self.s = s
        self.num = num
        self.num_keys = min(num, num_keys)
        self.key_every = max(1, num // self.num_keys)
        self.num_bundles = num_bundles
        self.folder = folder
        self.keys = folder / "keys"
        self.bundles = folder / "bundles"
        self.roots = folder / "roots.pem"
        self.store = folder / "store"
        self.imports = []  # seconds of each level, of this run

    @property
    def about(self):
        return {"version": VERSION, "names": self.num, "keys": self.num_keys,
                "bundles": self.num_bundles}

    def name(self, i=0):
        """The i-th of those whose keys a key server is given."""
        return f"n{i * self.key_every}.{DOMAIN}"

    def client_names(self, first, num):
        """Options of `deputy-bench handshakes` for `num` of them."""
        return {"server_name": DOMAIN, "names": num, "first_name": first * self.key_every,
                "name_every": self.key_every}

    def is_kept(self):
        try:
            made = json.loads((self.folder / "made.json").read_text())
        except (OSError, ValueError):
            return False
        age = time.time() - made.pop("at", 0)
        return made == self.about and 0 <= age < MAX_AGE_S

    def ctl(self, *words, store=None):
        return [self.s.programs["deputyctl"], "store", *words, "--store", store or self.store]

    def stats(self):
        return json.loads(checked(self.ctl("stats", "--json"), timeout=120).stdout)

    def prepare(self):
        """Certificates, import, staples; or what the cache has, and the import alone."""
        if self.is_kept():
            self.s.result.note(f"{self.num:,} names: certificates and store are from the cache;"
                               " what was measured is an import beside it.")
            beside = self.folder / "import"
            try:
                self.import_into(beside)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.make()
        self.import_into(self.store)
        self.make_staples()
        (self.folder / "made.json").write_text(json.dumps({**self.about, "at": time.time()}))

    def make(self):
        summary, _ = work(self.s, "make", [
            self.s.programs["deputy-bench"], "make-certificates", "--count", self.num, "--profile",
            "public", "--keys", self.num_keys, "--key-every", self.key_every, "--bundles",
            self.num_bundles, "--out", self.folder, "--progress"],
            f"making {2 * self.num:,} certificates")
        self.s.result.note(f"{2 * self.num:,} certificates were made in {summary['seconds']:.1f} s,"
                           f" {summary['leaves_per_second']:.0f} leaves a second.")

    def import_into(self, store):
        self.imports = []
        for level in LEVELS:
            summary, seconds = work(self.s, "import", self.ctl(
                "import", self.folder / f"{level}.der", "--level", level, "--json", "--quiet",
                store=store), f"importing {self.num:,} as {level}")
            if summary["chains"] != self.num or summary["bad"] != 0:
                raise BenchError(f"the import of {level} left something out: {summary}")
            self.imports.append(seconds)

    def make_staples(self):
        summary, _ = work(self.s, "staples", [
            self.s.programs["deputy-bench"], "make-staples", "--store", self.store, "--progress"],
            f"making {2 * self.num:,} staples")
        self.s.result.note(f"{summary['staples']:,} staples were made, signed and filed in"
                           f" {summary['seconds']:.1f} s.")

    def check_staples(self):
        """OpenSSL's opinion of a few; their length."""
        lens = []
        out = self.s.folder / "export"
        for i in (0, self.num // 2, self.num - 1):
            checked(self.ctl("export", out, "--name", f"n{i}.{DOMAIN}"))
            for level in LEVELS:
                chain = out / level / "live" / f"n{i}.{DOMAIN}" / "fullchain.pem"
                lens.append(self.check_staple(chain))
        shutil.rmtree(out, ignore_errors=True)
        return lens

    def check_staple(self, chain):
        leaf, issuer = chain.read_text().split("-----END CERTIFICATE-----\n")[:2]
        end = "-----END CERTIFICATE-----\n"
        one, two = chain.with_name("leaf.pem"), chain.with_name("issuer.pem")
        one.write_text(leaf + end)
        two.write_text(issuer + end)
        staple = pathlib.Path(f"{chain}.ocsp")
        done = run(["openssl", "ocsp", "-respin", staple, "-issuer", two, "-cert", one, "-CAfile",
                    self.roots, "-no_nonce"])
        said = done.stdout + done.stderr
        if "Response verify OK" not in said or ": good" not in said:
            raise BenchError(f"OpenSSL does not take the staple {staple}: {said}")
        return staple.stat().st_size


def need_disk(s, folder, num_names):
    """Says how much it takes; BenchError when it is not there."""
    need = num_names * (CERTIFICATES_KB + 2 * STORE_KB) * 1000
    free = shutil.disk_usage(folder).free
    s.progress(f"needs up to {need / 1e9:.1f} GB of disk in {folder}, {free / 1e9:.0f} GB are free")
    if free < need * 1.1:
        raise BenchError(f"{folder} has {free / 1e9:.1f} GB free, {need / 1e9:.1f} GB are needed:"
                         " give another folder with --cache")
