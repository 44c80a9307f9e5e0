# SPDX-License-Identifier: Apache-2.0
"""Sealed keys: the same files on every key server, which open only where their policy
allows (docs/SEALED-KEYS.md)."""

import base64
import contextlib
import json
import re
import shutil
import ssl
import subprocess

import pytest
from cryptography.hazmat.primitives import serialization

from support import frames
from support import memory
from support import pki as pki_module
from support.procs import BIN_DIR, SANITIZE, wait_until
from support.sealed import Ring, Sealed
from support.stack import BODY, Stack

EU = "region: EU"
NOT_FR = "(region: EU) and (not country: FR)"
KEYSERVER = BIN_DIR / "deputy-keyserver"


@pytest.fixture
def ring(procs):
    """Three servers in two regions."""
    ring = Ring(procs)
    ring.add("eu-1", "region: EU", "country: DE")
    ring.add("eu-2", "region: EU", "country: FR")
    ring.add("us-1", "region: US", "country: US")
    return ring


@pytest.fixture
def key(procs):
    return pki_module.make_key(procs.folder / "www.key")


def states(server):
    return {s: server.metric("sealed_keys", state=s)
            for s in ("loaded", "not_admitted", "not_recipient", "no_identity")
            if server.metric("sealed_keys", state=s)}


# --- the whole -------------------------------------------------------------------------


class Deployment:
    """A proxy with the key servers of a ring, the one that is nearest being no use."""

    def __init__(self, procs, pki, ring):
        self.ring = ring
        self.stack = Stack(procs, pki, hosts=(), issuer=False)
        for host, policy in (("eu.test", EU), ("notfr.test", NOT_FR)):
            key = pki_module.make_key(procs.folder / f"{host}.key")
            ring.seal(host, policy, key)
            leaf = self.stack.web_cas[0].issue_leaf(host, key=key, name=host)
            self.stack.add_name(host, [("only", leaf)])
        self.servers = {}
        for name in ("us-1", "eu-2", "eu-1", "eu-3"):
            member = ring.members.get(name) or ring.add(name, EU, "country: DE", is_listed=False)
            ring.members.setdefault(name, member)
            self.servers[name] = ring.server(pki, member, self.stack.keyserver)
            self.servers[name].start(wait=False)
        for server in self.servers.values():
            server.process.wait_ready()
        self.stack.proxy.config["key_servers"] = {"servers": [
            {"address": "%s:%d" % server.address, "name": "localhost"}
            for server in self.servers.values()]}
        self.stack.start()

    def num_signed(self, name):
        return sum(self.servers[name].metric("requests_total", purpose=p, result="signed")
                   for p in ("tls13", "tls12"))

    def kill(self, name):
        self.servers[name].process.kill()
        left = sum(s.process.is_running() for s in self.servers.values())
        wait_until(lambda: self.stack.proxy.metric("key_servers_ready") <= left,
                   f"the proxy to notice that {name} is gone")

    def serves(self, host):
        """Real clients: Python's OpenSSL with both versions, NSS."""
        for tls12 in (False, True):
            assert self.stack.get(host, tls12=tls12) == BODY
        assert self.stack.nss().run(host).is_ok


@pytest.fixture
def deployment(procs, pki, ring):
    deployment = Deployment(procs, pki, ring)
    yield deployment
    deployment.stack.stop()


def test_three_servers_two_regions(deployment):
    servers, ring, stack = deployment.servers, deployment.ring, deployment.stack
    assert states(servers["us-1"]) == {"not_admitted": 2}
    assert states(servers["eu-1"]) == {"loaded": 2}
    assert states(servers["eu-2"]) == {"loaded": 1, "not_admitted": 1}
    assert states(servers["eu-3"]) == {"not_recipient": 2}  # came after the keys were sealed
    wait_until(lambda: "serving" in servers["us-1"].process.err(), "the log")
    log = servers["us-1"].process.err()
    assert "sealed_key_not_loaded" in log and "eu.test.sealed" in log and NOT_FR in log, log
    assert "does not admit this server" in log

    # Whichever is nearest: one that does not hold the key passes the request on.
    deployment.serves("eu.test")
    assert deployment.num_signed("eu-1") + deployment.num_signed("eu-2") >= 3
    before = deployment.num_signed("eu-1")
    deployment.serves("notfr.test")
    assert deployment.num_signed("eu-1") >= before + 3
    assert stack.curl(host="eu.test").stdout.encode() == BODY
    assert deployment.num_signed("us-1") == 0

    # One server of the region is gone: the other has the key.
    deployment.kill("eu-2")
    deployment.serves("eu.test")

    # A member comes: sealed anew where a key server is that can, and loaded on SIGHUP.
    ring.write()
    files = sorted(ring.folder.glob("*.sealed"))
    spkis = [Sealed.read(f).spki for f in files]
    told = ring.reseal(ring.members["eu-1"], *files)
    assert "can open it: eu-1, eu-2, eu-3 (3 of 4 members)" in told.stdout, told
    assert "can open it: eu-1, eu-3 (2 of 4 members)" in told.stdout
    assert "warning" not in told.stderr
    assert [Sealed.read(f).spki for f in files] == spkis
    for name in ("eu-1", "eu-3", "us-1"):
        servers[name].reload()
    assert states(servers["eu-3"]) == {"loaded": 2}
    assert states(servers["eu-1"]) == {"loaded": 2}
    assert states(servers["us-1"]) == {"not_admitted": 2}
    deployment.kill("eu-1")
    deployment.serves("notfr.test")
    deployment.serves("eu.test")
    assert deployment.num_signed("eu-3") >= 6

    # The last one that may is gone, and the others do not help.
    deployment.kill("eu-3")
    with pytest.raises(ssl.SSLError):
        stack.get("eu.test")
    assert deployment.num_signed("us-1") == 0


# --- outside the policy ----------------------------------------------------------------------


class Checker:
    """What --check-config says of a key server with the ring's folder."""

    def __init__(self, procs, pki, ring):
        self.procs = procs
        self.server = ring.server(pki, ring.members["us-1"])

    def __call__(self, sealing=None):
        """(exit code, number of keys, output)"""
        config = dict(self.server.config)
        config.pop("sealing")
        if sealing is not None:
            config["sealing"] = sealing
        path = self.procs.folder / "check.json"
        path.write_text(json.dumps(config))
        done = self.procs.run([KEYSERVER, "--config", path, "--check-config"])
        found = re.search(r"good: (\d+) keys", done.stdout)
        return done.returncode, int(found.group(1)) if found else None, done.stdout + done.stderr


@pytest.fixture
def check(procs, pki, ring):
    return Checker(procs, pki, ring)


def test_server_outside_the_policy_says_so_and_cannot_be_talked_into_it(ring, key, check):
    path = ring.seal("www", EU, key)
    us, eu = ring.members["us-1"], ring.members["eu-1"]

    code, num, text = check(us.sealing())
    assert (code, num) == (0, 0), text
    assert str(path) in text and f'policy="{EU}"' in text and "does not admit" in text
    assert "1 sealed keys do not open here" in text

    # It claims to be in the EU.
    code, num, text = check({"identity": str(us.identity), "attributes": eu.attributes})
    assert (code, num) == (0, 0) and "not sealed to this server" in text, text
    # With an identity made up for the purpose.
    forged, _ = ring.identity("forged")
    code, num, text = check({"identity": str(forged), "attributes": eu.attributes})
    assert (code, num) == (0, 0) and "not sealed to this server" in text, text
    # The policy is made to fit.
    sealed = Sealed.read(path)
    sealed.policy = b"region: EU or region: US"
    sealed.write(path)
    code, num, text = check(us.sealing())
    assert (code, num) == (0, 0) and "not sealed to this server" in text, text
    # Its key id is written over that of a recipient.
    sealed.recipients[0][1] = bytes.fromhex(us.key_id)
    sealed.write(path)
    code, num, text = check(us.sealing())
    assert code == 1 and num is None and "changed since it was sealed" in text, text


def test_policy_is_held_also_where_the_file_could_be_opened(ring, key, check):
    """A server that was moved with its identity."""
    ring.seal("www", EU, key)
    eu = ring.members["eu-1"]
    assert check(eu.sealing())[:2] == (0, 1)
    for attributes in (["region: US"], ["country: DE"], ["datacenter: EU"]):
        code, num, text = check({"identity": str(eu.identity), "attributes": attributes})
        assert (code, num) == (0, 0) and "does not admit" in text, text


def test_server_without_identity_opens_nothing(ring, key, check):
    ring.seal("www", EU, key)
    code, num, text = check()
    assert (code, num) == (0, 0) and "no sealing.identity" in text, text


def test_label_is_that_of_the_sealer_whatever_the_file_is_called(ring, key, pki):
    path = ring.seal("www", EU, key)
    path.rename(path.with_name("other.sealed"))
    server = ring.server(pki, ring.members["eu-1"])
    server.start()
    spki = Sealed.read(path.with_name("other.sealed")).spki
    with server.connect("proxy") as client:
        client.sign(1, frames.ECDSA_SHA256, pki_module.spki_ski(spki), frames.tls13_message())
    assert server.audit_wait(1, result="signed")[0]["key"] == "www"


# --- what stays in memory ------------------------------------------------------------------------


def pieces_of(raw):
    """What can be left of 32 secret bytes, the clamped first and last of a scalar aside."""
    text = base64.b64encode(bytes(16) + raw)
    return {raw[1:17], raw[8:24], raw[15:31], raw[::-1][8:24], text[24:40], text[40:56]}


@pytest.mark.skipif(not memory.may_trace(), reason="no CAP_SYS_PTRACE: cannot read memory")
@pytest.mark.skipif(bool(SANITIZE), reason="a sanitizer keeps what was freed")
def test_identity_stays_no_longer_than_loading_takes(ring, key, pki):
    ring.seal("www", EU, key)
    wanted = memory.patterns(key)
    for name, holds in (("eu-1", True), ("us-1", False)):
        member = ring.members[name]
        server = ring.server(pki, member)
        server.start()
        server.reload()
        raw = member.private_key().private_bytes(
            serialization.Encoding.Raw, serialization.PrivateFormat.Raw,
            serialization.NoEncryption())
        found = memory.live(server.process.pid)
        assert bool(memory.search(found, wanted)) == holds, name
        assert not memory.search(found, {"identity": pieces_of(raw)}), name


# --- damage -----------------------------------------------------------------------------------


def edit(**fields):
    def change(path):
        sealed = Sealed.read(path)
        for name, value in fields.items():
            setattr(sealed, name, value)
        sealed.write(path)
    return change


def drop_recipient(path):
    sealed = Sealed.read(path)
    del sealed.recipients[1]
    sealed.write(path)


def flip_in_ciphertext(path):
    sealed = Sealed.read(path)
    flipped = bytearray(sealed.ciphertext)
    flipped[9] ^= 1
    sealed.ciphertext = bytes(flipped)
    sealed.write(path)


def text_edit(old, new):
    return lambda path: path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("change, words", [
    (text_edit("DEPUTY SEALED KEY", "PRIVATE KEY"), "no sealed key"),
    (text_edit("-----END DEPUTY SEALED KEY-----\n", ""), "is cut"),
    (text_edit("RFBTRUFMRUQB", "RFBTRUFM*UQB"), "base64 is damaged"),
    (lambda path: path.write_text(""), "no sealed key"),
    (lambda path: Sealed.read(path).write(path, cut=40), "is cut"),
    (edit(version=2), "version 2; this program knows version 1"),
    (edit(policy=b"region EU"), "policy: column 8: expected ':'"),
    (edit(policy=b"region: EU or country: US"), "changed since it was sealed"),
    (edit(policy=b"region: eu"), "changed since it was sealed"),
    (edit(label=b"admin"), "changed since it was sealed"),
    (drop_recipient, "changed since it was sealed"),
    (flip_in_ciphertext, "changed since it was sealed"),
])
def test_damaged_or_changed_file_is_named_and_refused(ring, key, check, change, words):
    path = ring.seal("www", EU, key)
    assert check(ring.members["eu-1"].sealing())[:2] == (0, 1)
    change(path)
    code, num, text = check(ring.members["eu-1"].sealing())
    assert code == 1 and num is None, text
    assert str(path) in text and words in text, text


def test_reload_with_a_changed_file_leaves_the_old_keys_in_force(ring, key, pki):
    path = ring.seal("www", EU, key)
    server = ring.server(pki, ring.members["eu-1"])
    server.start()
    assert states(server) == {"loaded": 1} and server.metric("keys") == 1
    edit(label=b"admin")(path)
    server.reload("failed")
    wait_until(lambda: str(path) in server.process.err(), "the log to name the file")
    assert states(server) == {"loaded": 1} and server.metric("keys") == 1
    path.unlink()
    server.reload()
    assert states(server) == {} and server.metric("keys") == 0


def test_new_identity_counts_from_the_next_reload(ring, key, pki):
    """An identity is replaced as any file is: another one is renamed over it."""
    path = ring.seal("www", EU, key)
    eu, fr = ring.members["eu-1"], ring.members["eu-2"]
    server = ring.server(pki, eu)
    server.start()
    assert states(server) == {"loaded": 1}
    old = eu.private_key()
    new, told = ring.identity("renewed")
    eu.public_key = told["public_key"]
    ring.write()
    new.rename(eu.identity)
    server.reload()
    assert states(server) == {"not_recipient": 1} and server.metric("keys") == 0
    ring.reseal(fr, path)
    server.reload()
    assert states(server) == {"loaded": 1} and server.metric("keys") == 1
    with pytest.raises(StopIteration):
        Sealed.read(path).open(old)


def test_watched_folder_opens_what_is_put_there(ring, key, pki, procs):
    server = ring.server(pki, ring.members["eu-1"])
    server.config.update(key_folders_watch=True, key_folders_settle="50ms")
    server.start()
    assert server.metric("keys") == 0
    made = procs.folder / "made"
    made.mkdir()
    ring.seal("www", EU, key, folder=made).rename(ring.folder / "www.sealed")
    wait_until(lambda: states(server) == {"loaded": 1}, "the sealed key to be loaded")
    ring.write("us-1")
    ring.reseal(ring.members["eu-1"], ring.folder / "www.sealed", policy="region: US")
    wait_until(lambda: states(server) == {"not_admitted": 1}, "the sealed key to be dropped")
    assert server.metric("keys") == 0


@pytest.mark.parametrize("change, exit_code, words", [
    (lambda s: s["path"].chmod(0o640), 1, "mode 0640"),
    (lambda s: s["path"].unlink(), 1, "cannot be opened"),
    (lambda s: s["path"].write_text("x"), 1, "no identity of a key server"),
    (lambda s: s["path"].write_bytes(pki_module.openssl("genpkey", "-algorithm", "ED25519")), 1,
     "no identity of a key server"),
    (lambda s: s["sealing"].update(attributes=["region EU"]), 2, "sealing.attributes[0]: column 8"),
    (lambda s: s["sealing"].update(attributes=[]), 2, "attributes"),
    (lambda s: s["sealing"].pop("attributes"), 2, "attributes"),
])
def test_identity_or_attributes_that_are_no_good_stop_the_start(ring, key, check, change, exit_code,
                                                                words):
    ring.seal("www", EU, key)
    member = ring.members["eu-1"]
    about = {"path": member.identity, "sealing": member.sealing()}
    change(about)
    code, num, text = check(about["sealing"])
    assert code == exit_code and num is None and words in text, text


# --- deputyctl key ---------------------------------------------------------------------------


def test_file_is_what_the_page_says(ring, key):
    """Opened by an implementation of the page alone."""
    sealed = Sealed.read(ring.seal("www", NOT_FR, key))
    assert sealed.names() == ["eu-1"] and sealed.policy.decode() == NOT_FR
    der = sealed.open(ring.members["eu-1"].private_key())
    opened = serialization.load_der_private_key(der, None)
    assert opened.private_numbers() == serialization.load_pem_private_key(
        key.read_bytes(), None).private_numbers()
    assert sealed.spki == pki_module.key_spki(key)
    for member in ("eu-2", "us-1"):
        with pytest.raises(StopIteration):
            sealed.open(ring.members[member].private_key())


def test_inspect_needs_no_secret(ring, key):
    path = ring.seal("www", EU, key)
    text = ring.ctl("inspect", path, check=True).stdout
    ski = pki_module.spki_ski(pki_module.key_spki(key)).hex()
    for word in ("label: www", f"policy: {EU}", "kind: p256", f"SKI: {ski}", "eu-1", "eu-2"):
        assert word in text, text
    assert "us-1" not in text
    told, = json.loads(ring.ctl("inspect", path, "--json", check=True).stdout)["sealed_keys"]
    assert told["ski"] == ski and told["policy"] == EU and told["label"] == "www"
    assert told["recipients"] == [{"name": n, "key_id": ring.members[n].key_id}
                                  for n in ("eu-1", "eu-2")]
    done = ring.ctl("inspect", path, key)
    assert done.returncode == 1 and "label: www" in done.stdout and "no sealed key" in done.stderr


def test_inspect_tells_what_is_to_be_sealed_anew(ring, key):
    path = ring.seal("www", EU, key)

    def due(*more):
        done = ring.ctl("inspect", "--members", ring.path, path, *more)
        return done.returncode, done.stdout + done.stderr

    code, text = due()
    assert code == 0 and "reseal" not in text, text
    ring.add("eu-3", EU)
    ring.write("eu-1", "eu-3", "us-1")
    code, text = due()
    assert code == 3, text
    assert "reseal: eu-3 may open it, but cannot yet" in text
    assert "reseal: eu-2 can open it, but may not any more" in text
    code, text = due("--json")
    told, = json.loads(text)["sealed_keys"]
    assert (code, told["missing"], told["surplus"]) == (3, ["eu-3"], ["eu-2"])
    assert due(key)[0] == 1
    ring.reseal(ring.members["eu-1"], path)
    assert due()[0] == 0
    # A new identity under the old name is another server.
    ring.members["eu-1"].public_key = ring.identity("other")[1]["public_key"]
    ring.write("eu-1", "eu-3")
    code, text = due()
    assert code == 3 and text.count("reseal: eu-1") == 2, text


def test_identity_is_for_its_owner_and_shown_again(ring, procs):
    path, told = ring.identity("new")
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(ring.ctl("identity", "show", path, "--json", check=True).stdout) == told
    done = ring.ctl("identity", "new", path)
    assert done.returncode == 1 and "is there already" in done.stderr
    assert ring.ctl("identity", "made", path).returncode == 2
    # What openssl makes of the same kind will do, and a public key in its form.
    other = procs.folder / "openssl.identity"
    pki_module.write_private(other, pki_module.openssl("genpkey", "-algorithm", "X25519"))
    told = json.loads(ring.ctl("identity", "show", other, "--json", check=True).stdout)
    pem = pki_module.openssl("pkey", "-in", other, "-pubout").decode().splitlines()
    assert pem[1].endswith(told["public_key"][-12:])
    ring.add("eu-4", EU)
    ring.members["eu-4"].public_key = pem[1]
    ring.write()
    ring.seal("again", EU, pki_module.make_key(procs.folder / "again.key"))


@pytest.mark.parametrize("policy, code, words", [
    ("region EU", 2, "the policy: column 8: expected ':' after a name, found \"EU\""),
    ("region: EU and", 2, "found the end"),
    ("", 2, "--policy is empty"),
    ("region: MARS", 1, "admits none of the 3 members"),
    ("not planet: Earth", 1, "no member"),  # and the slip in the name is warned of
])
def test_seal_refuses(ring, key, policy, code, words):
    done = ring.seal("www", policy, key, check=False)
    assert done.returncode == code and words in done.stderr, done
    assert not list(ring.folder.iterdir())


def test_seal_refuses_files_that_do_not_fit(ring, key, procs):
    path = ring.seal("www", EU, key)
    before = path.read_bytes()
    done = ring.seal("www", EU, key, check=False)
    assert done.returncode == 1 and "is there already" in done.stderr
    assert path.read_bytes() == before
    for out, words in (("www.key", "NAME.sealed"), ("a b.sealed", "label"), (".sealed", "NAME")):
        done = ring.ctl("seal", "--policy", EU, "--members", ring.path, key, ring.folder / out)
        assert done.returncode == 2 and words in done.stderr, done
    key.chmod(0o644)
    done = ring.seal("loose", EU, key, check=False)
    assert done.returncode == 1 and "mode 0644" in done.stderr
    done = ring.ctl("seal", "--policy", EU, "--members", procs.folder / "nowhere", key,
                    ring.folder / "x.sealed")
    assert done.returncode == 1 and "nowhere" in done.stderr
    assert ring.ctl("seal", "--policy", EU, key, ring.folder / "x.sealed").returncode == 2
    assert ring.ctl("seal", "--policy", EU, "--identity", key, "--members", ring.path, key,
                    ring.folder / "x.sealed").returncode == 2


def test_member_that_is_removed_keeps_what_it_had(ring, key, check):
    """As the warning says: resealing is not taking back."""
    path = ring.seal("www", EU, key)
    path.chmod(0o640)
    old = path.with_name("kept")
    shutil.copy(path, old)
    ring.write("eu-1", "us-1")
    done = ring.reseal(ring.members["eu-1"], path)
    assert "eu-2 cannot open it any more, but can still open a copy" in done.stderr, done
    assert path.stat().st_mode & 0o777 == 0o640
    assert Sealed.read(path).names() == ["eu-1"]
    code, num, text = check(ring.members["eu-2"].sealing())
    assert (code, num) == (0, 0) and "not sealed to this server" in text
    assert Sealed.read(old).open(ring.members["eu-2"].private_key())
    # It is another content key: the old one does not open the new file.
    assert Sealed.read(old).ciphertext != Sealed.read(path).ciphertext
    assert Sealed.read(old).open(ring.members["eu-1"].private_key()) == Sealed.read(path).open(
        ring.members["eu-1"].private_key())


def test_reseal_for_another_policy_and_refusals(ring, key):
    path = ring.seal("www", NOT_FR, key)
    before = path.read_bytes()
    for by, more, code, words in (
            ("us-1", {}, 1, "not sealed to this identity"),
            ("eu-2", {}, 1, "not sealed to this identity"),
            ("eu-1", {"policy": "region: MARS"}, 1, "admits none"),
            ("eu-1", {"policy": "region"}, 2, "column 7")):
        done = ring.reseal(ring.members[by], path, check=False, **more)
        assert done.returncode == code and words in done.stderr, done
        assert path.read_bytes() == before
    # One of two fails; the other is done.
    edit(label=b"admin")(ring.seal("bad", EU, key))
    done = ring.reseal(ring.members["eu-1"], ring.folder / "bad.sealed", path, policy=EU,
                       check=False)
    assert done.returncode == 1 and "bad.sealed: it has been changed" in done.stderr
    assert Sealed.read(path).names() == ["eu-1", "eu-2"]
    assert Sealed.read(path).policy.decode() == EU
    assert not list(ring.folder.glob("*.new.*"))


def test_killed_while_resealing_leaves_the_old_or_the_new(ring, key, procs):
    """Replaced whole: a file can always be opened."""
    paths = [ring.seal(f"www{i}", EU, key) for i in range(20)]
    args = [BIN_DIR / "deputyctl", "key", "reseal", "--members", ring.path, "--identity",
            ring.members["eu-1"].identity, *paths]
    for delay in (0.001, 0.004, 0.01, 0.02):
        running = subprocess.Popen([str(a) for a in args], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(delay)
        running.kill()
        running.wait()
        for path in paths:
            assert Sealed.read(path).open(ring.members["eu-1"].private_key())
