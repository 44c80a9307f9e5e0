# SPDX-License-Identifier: Apache-2.0
"""deputyctl store: certificates in the layouts that others leave, into a store and out
again; what is bad is named, and nothing is half-done."""

import json
import os
import re
import resource
import shutil
import subprocess

import pytest

from support.procs import BIN_DIR, SANITIZE, SLOW

CTL = BIN_DIR / "deputyctl"
NAMES = ["a.test", "b.test", "*.w.test"]


@pytest.fixture(scope="module")
def certs(module_pki):
    """Leaves of two CAs for each name: {(name, ca): Identity}."""
    cas = [module_pki.ca("one"), module_pki.ca("two")]
    leaves = {(name, ca.name): ca.issue_leaf(name) for name in NAMES for ca in cas}
    return {"cas": {ca.name: ca for ca in cas}, "leaves": leaves}


@pytest.fixture
def store(procs, tmp_path):
    """Runs `deputyctl store ...` on a store of the test's own."""

    def run(*args, code=0, folder=None, **popen):
        done = procs.run([CTL, "store", *args, "--store", folder or tmp_path / "store"], **popen)
        assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
        return done

    return run


def stats(store, **kwargs):
    return json.loads(store("stats", "--json", **kwargs).stdout)


def bundle(certs, name, ca, key=False):
    leaf = certs["leaves"][name, ca]
    text = leaf.cert.read_text() + certs["cas"][ca].cert.read_text()
    return (leaf.key.read_text() if key else "") + text


def combined(certs, folder, ca, key=True):
    """A folder as hitch and haproxy want it."""
    folder.mkdir()
    for name in NAMES:
        (folder / (name.replace("*", "_") + ".pem")).write_text(bundle(certs, name, ca, key))
    return folder


def serving(store, name):
    chains = json.loads(store("find", name, "--json").stdout)["chains"]
    return [c["level"] for c in chains if c["serves"]][0]


def test_imports_the_layouts_of_others(store, certs, tmp_path):
    live = tmp_path / "letsencrypt" / "live"
    (tmp_path / "letsencrypt" / "archive" / "a.test").mkdir(parents=True)
    (tmp_path / "letsencrypt" / "archive" / "a.test" / "cert1.pem").write_text("old")
    for name in ("a.test", "b.test"):
        (live / name).mkdir(parents=True)
        (live / name / "fullchain.pem").write_text(bundle(certs, name, "one"))
        (live / name / "cert.pem").write_text(certs["leaves"][name, "one"].cert.read_text())
        (live / name / "chain.pem").write_text(certs["cas"]["one"].cert.read_text())
        (live / name / "privkey.pem").write_text(certs["leaves"][name, "one"].key.read_text())
    (live / "README").write_text("text")
    done = json.loads(store("import", tmp_path / "letsencrypt", "--json").stdout)
    assert (done["chains"], done["private_keys_ignored"]) == (2, 0)

    acme = tmp_path / "acme.sh"
    (acme / "a.test_ecc").mkdir(parents=True)
    (acme / "a.test_ecc" / "fullchain.cer").write_text(bundle(certs, "a.test", "two"))
    (acme / "a.test_ecc" / "a.test.cer").write_text(certs["leaves"]["a.test", "two"].cert.read_text())
    (acme / "a.test_ecc" / "a.test.key").write_text(certs["leaves"]["a.test", "two"].key.read_text())
    assert json.loads(store("import", acme, "--level", "backup", "--json").stdout)["chains"] == 1

    hitch = combined(certs, tmp_path / "hitch", "two")
    (hitch / "dhparams.pem").write_text(
        "-----BEGIN DH PARAMETERS-----\nMAYCAQ==\n-----END DH PARAMETERS-----\n")
    (hitch / "ca.pem").write_text(certs["cas"]["two"].cert.read_text())
    done = store("import", hitch, "--level", "backup").stdout
    assert "3 private keys seen and passed over" in done
    assert "2 files without a leaf" in done

    assert stats(store)["names"] == 3
    assert serving(store, "a.test") == "primary"
    assert serving(store, "x.w.test") == "backup"
    assert "is not in this store" in store("find", "x.y.w.test", code=1).stderr
    store("verify", "--deep")
    held = (tmp_path / "store" / "chains-1.mdb").read_bytes()
    assert b"PRIVATE KEY" not in held
    for leaf in certs["leaves"].values():
        private = bytes.fromhex(re.sub(r"[^0-9a-f]", "", subprocess.run(
            ["openssl", "ec", "-in", leaf.key, "-noout", "-text"], check=True, text=True,
            capture_output=True).stdout.partition("priv:")[2].partition("pub:")[0]))
        assert private not in held


def test_exports_what_it_imports(store, certs, tmp_path):
    store("import", combined(certs, tmp_path / "one", "one"))
    store("import", combined(certs, tmp_path / "two", "two"), "--level", "backup")
    store("export", tmp_path / "out")
    path = tmp_path / "out" / "backup" / "live" / "_.w.test" / "fullchain.pem"
    assert path.read_text() == bundle(certs, "*.w.test", "two")
    for level in ("primary", "backup"):
        store("import", tmp_path / "out" / level, "--level", level, folder=tmp_path / "again")
    assert stats(store, folder=tmp_path / "again")["chains"] == 6
    assert (json.loads(store("find", "a.test", "--json", folder=tmp_path / "again").stdout)["chains"][0]["key"]
            == json.loads(store("find", "a.test", "--json").stdout)["chains"][0]["key"])


def test_a_bad_file_stops_it_or_is_left_out(store, certs, tmp_path):
    folder = combined(certs, tmp_path / "in", "one")
    bad = {
        "z1.pem": ("not a certificate at all", "there is no PEM or DER certificate"),
        "z2.pem": (bundle(certs, "a.test", "one").replace("MII", "%%%", 1), "damaged"),
        "z3.pem": (certs["leaves"]["a.test", "one"].cert.read_text()
                   + certs["cas"]["two"].cert.read_text(), "did not issue"),
        "z4.pem": (certs["cas"]["one"].cert.read_text()
                   + certs["leaves"]["a.test", "one"].cert.read_text(), "comes before the leaf"),
        "z5.pem": (bundle(certs, "a.test", "one")[:700], "damaged"),
    }
    for name, (text, why) in bad.items():
        (folder / name).write_text(text)
        failed = store("import", folder, code=1)
        assert name in failed.stderr and why in failed.stderr, failed.stderr
        assert "nothing was imported" in failed.stderr
        assert stats(store)["names"] == 0
        (folder / name).unlink()
    for name, (text, _) in bad.items():
        (folder / name).write_text(text)
    done = store("import", folder, "--skip-bad")
    assert "5 bad files" in done.stdout
    assert all(name in done.stderr for name in bad)
    assert stats(store)["names"] == 3
    store("verify")


def test_a_backup_must_be_one(store, certs, tmp_path):
    one = combined(certs, tmp_path / "one", "one")
    store("import", one)
    failed = store("import", one, "--level", "backup", code=1)
    assert "same key" in failed.stderr and "nothing was imported" in failed.stderr
    done = json.loads(store("import", one, "--level", "backup", "--skip-bad", "--json").stdout)
    assert (done["bad"], done["same_key"]) == (3, 3)
    again = certs["cas"]["one"].issue_leaf("a.test", name="again")
    (tmp_path / "again.pem").write_text(again.cert.read_text()
                                        + certs["cas"]["one"].cert.read_text())
    assert "same CA" in store("import", tmp_path / "again.pem", "--level", "backup").stderr
    drill = json.loads(store("drill", "--ca", "one", "--json", code=3).stdout)
    assert (drill["num_same_ca"], drill["same_ca"]) == (1, ["a.test"])
    assert drill["num_without_backup"] == 3
    old = certs["cas"]["two"].issue_leaf("b.test", name="old", start="20200101000000Z",
                                         end="20200201000000Z")
    assert "has expired" in store("import", old.cert, "--level", "backup").stderr
    assert "is not for b.test" in store("import", tmp_path / "again.pem", "--name", "b.test",
                                        code=1).stderr


def test_names_in_any_letters(store, certs, tmp_path):
    leaf = certs["cas"]["one"].issue_leaf("xn--bcher-kva.test", name="idn")
    store("import", leaf.cert)
    assert json.loads(store("find", "BÜCHER.test", "--json").stdout)["name"] == "xn--bcher-kva.test"
    store("switch", "--name", "bücher.test", "--to", "primary", "--reason", "letters")
    assert json.loads(store("switches", "--json").stdout)["switches"][0]["subject"] == "xn--bcher-kva.test"
    assert "is not a host name" in store("find", "a\u0378.test", code=1).stderr
    store("remove", "bücher.test")
    assert stats(store)["names"] == 0


def test_switches_drills_and_restores(store, certs, tmp_path):
    store("import", combined(certs, tmp_path / "one", "one"))
    failed = store("switch", "--ca", "one", "--reason", "gone", code=1)
    assert "3 of 3 names would be left with nothing usable" in failed.stderr
    store("import", combined(certs, tmp_path / "two", "two"), "--level", "backup")
    assert "ready" in store("drill", "--ca", "ONE").stdout
    store("switch", "--ca", "one", "--reason", "gone", "--until", "2h", "--compromised")
    assert serving(store, "a.test") == "backup"
    listed = json.loads(store("switches", "--standing", "--json").stdout)["switches"]
    assert listed[0]["reason"] == "gone" and listed[0]["compromised"] and listed[0]["until"]
    to_what_is_out = ("switch", "--name", "a.test", "--to", "primary", "--reason", "no use")
    assert "nothing usable" in store(*to_what_is_out, code=1).stderr
    store(*to_what_is_out, "--force")
    assert "in force already" in store(*to_what_is_out, "--force").stdout
    assert serving(store, "a.test") == "backup"
    key = json.loads(store("find", "a.test", "--json").stdout)["chains"][0]["key"]
    store("switch", "--key", key[:10], "--in-service", "--reason", "this one is good")
    assert serving(store, "a.test") == "primary" and serving(store, "b.test") == "backup"
    store("restore", "1")
    assert serving(store, "b.test") == "primary"
    assert "restored already" in store("restore", "1", code=1).stderr
    assert len(json.loads(store("switches", "--standing", "--json").stdout)["switches"]) == 2
    store("switch", "--fleet", "--to", "backup", "--reason", "rehearsal")
    assert serving(store, "b.test") == "backup"
    store("verify")


def test_a_ca_by_its_file_and_by_its_key(store, certs, module_pki, tmp_path):
    """Whoever holds a CA's certificate need not know how leaves name it."""
    root, below = module_pki.ca("root"), certs["cas"]["one"]
    store("import", combined(certs, tmp_path / "one", "one"))
    store("import", combined(certs, tmp_path / "two", "two"), "--level", "backup")
    listed = {ca["issuer"]: ca["id"] for ca in json.loads(store("cas", "--json").stdout)["cas"]}
    assert set(listed) == {"one", "two"}
    key = below.spki_sha256()
    for way in (below.cert, key, key[:12].upper(), listed["one"], listed["one"][:8], "ONE"):
        done = json.loads(store("switch", "--ca", way, "--reason", "x", "--json").stdout)
        assert done["subject"] == listed["one"] and not done["already"], way
        assert serving(store, "a.test") == "backup"
        store("restore", "--ca", way, "--reason", "over")
        assert serving(store, "a.test") == "primary"
    strange = store("switch", "--ca", root.cert, "--reason", "x", code=1)
    assert "issued no leaf here" in strange.stderr and "store cas" in strange.stderr
    assert "cannot be" in store("drill", "--ca", tmp_path / "none.pem", code=1).stderr
    (tmp_path / "text.pem").write_text("plain text")
    assert "text.pem" in store("drill", "--ca", tmp_path / "text.pem", code=1).stderr


def test_command_lines_that_are_wrong(store, tmp_path):
    for args, why in [(["switch", "--ca", "x"], "needs --reason"), (["nothing"], "unknown command"),
                      (["stats", "--deep"], "does not take --deep"), (["import"], "usage"),
                      (["import", "x", "--level", "third"], "is no level")]:
        assert why in store(*args, code=2).stderr, args
    assert "no such folder" in store("stats", code=1).stderr
    assert "cannot be read" in store("import", tmp_path / "nowhere", code=1).stderr
    (tmp_path / "empty").mkdir()
    assert "no certificates below it" in store("import", tmp_path / "empty", code=1).stderr


def limit_file_size(length):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (length, length))
    return limit


def test_a_full_disk_changes_nothing(store, procs, certs, tmp_path):
    store("import", combined(certs, tmp_path / "one", "one"))
    before = stats(store)
    procs.run([BIN_DIR / "deputy-bench", "make-certificates", "--count", "300", "--out",
               tmp_path / "many"], check=True)
    length = os.path.getsize(tmp_path / "store" / "chains-1.mdb") + 65536
    failed = store("import", tmp_path / "many" / "primary.der", code=1,
                   preexec_fn=limit_file_size(length))
    assert "the disk is full" in failed.stderr and "nothing was imported" in failed.stderr
    assert {**stats(store), "bytes": 0, "free_bytes": 0, "readers": 0, "bytes_per_name": 0} == {
        **before, "bytes": 0, "free_bytes": 0, "readers": 0, "bytes_per_name": 0}
    store("verify")
    store("import", tmp_path / "many" / "primary.der")
    store("import", tmp_path / "many" / "backup.der", "--level", "backup")
    assert stats(store)["names"] == 303
    store("verify", "--deep")
    # A disk that is full while it compacts: the old file stays.
    failed = store("compact", code=1, preexec_fn=limit_file_size(65536))
    assert "the disk is full" in failed.stderr
    assert stats(store)["generation"] == 1
    store("compact")
    assert stats(store)["generation"] == 2
    store("verify")


def test_a_read_only_disk_is_read(store, certs, tmp_path):
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0:
        pytest.skip("no mount namespace of our own")
    store("import", combined(certs, tmp_path / "one", "one"))
    folder = tmp_path / "store"
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'

    def inside(*args):
        return subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", folder, CTL, "store",
                               *args, "--store", folder], capture_output=True, text=True,
                              check=False, timeout=60 * SLOW)

    assert inside("stats").returncode == 0
    assert inside("find", "a.test").returncode == 0
    for args in (["import", tmp_path / "one"], ["compact"],
                 ["switch", "--ca", "one", "--reason", "x", "--force"]):
        failed = inside(*args)
        assert failed.returncode == 1 and "read-only" in failed.stderr, (args, failed.stderr)


def test_damaged_and_strange_files_are_refused(store, certs, tmp_path):
    store("import", combined(certs, tmp_path / "one", "one"))
    path = tmp_path / "store" / "chains-1.mdb"
    good = path.read_bytes()
    for bad, why in [(good[:len(good) // 2], "cut off"), (b"\0" * len(good), "damaged"),
                     (b"plain text\n" * 2000, "damaged"), (b"", "damaged")]:
        path.write_bytes(bad)
        failed = store("stats", code=1)
        assert why in failed.stderr and "Put back a copy" in failed.stderr, failed.stderr
    # Pages that LMDB trusts: whatever it makes of them, verify says so. (Where it ends in a
    # signal, a sanitizer would end the process first.)
    for at in () if SANITIZE else range(8192, len(good), 4096):
        path.write_bytes(good[:at] + b"\xff" * 4096 + good[at + 4096:])
        done = subprocess.run([CTL, "store", "verify", "--store", tmp_path / "store"],
                              capture_output=True, text=True, check=False, timeout=60 * SLOW)
        assert done.returncode in (0, 1), (at, done)
    path.write_bytes(good)
    store("verify")


def test_two_imports_at_once(store, procs, certs, tmp_path):
    procs.run([BIN_DIR / "deputy-bench", "make-certificates", "--count", "2000", "--out",
               tmp_path / "many"], check=True)
    folder = tmp_path / "store"
    running = [subprocess.Popen([CTL, "store", "import", tmp_path / "many" / f"{level}.der", "--level",
                                 level, "--store", folder], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)
               for level in ("primary", "backup")]
    for process in running:
        _, err = process.communicate(timeout=60 * SLOW)
        assert process.returncode == 0, err
    assert stats(store)["chains"] == 4000
    store("verify")
    shutil.rmtree(folder)
