# SPDX-License-Identifier: Apache-2.0
"""Key folders that are watched: what changes in them is in force without a signal, all at
once, and only when it has come to rest and is good."""

import os

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from support import frames, memory, pki as pki_module
from support.frames import ECDSA_SHA256
from support.keyserver import KeyServer
from support.procs import SANITIZE, SLOW, wait_until

SETTLE_MS = 200
LONG_SETTLE_MS = 1000 * SLOW


@pytest.fixture
def server(procs, pki):
    ks = KeyServer(procs, pki)
    ks.add_key("p256", "p256", "a.test")
    os.utime(ks.folder, (1, 1))  # or a quick start might count as a change since the load
    ks.config["key_folders_watch"] = True
    ks.config["key_folders_settle"] = f"{SETTLE_MS}ms"
    return ks


@pytest.fixture
def client(server):
    server.start()
    with server.connect("proxy") as c:
        yield c


def sign(server, client, label="p256"):
    return client.sign(1, ECDSA_SHA256, server.keys[label].ski(), frames.tls13_message()).error


def reloads(server, result="done"):
    return server.metric("reloads_total", result=result)


def wait_signed(server, client, label):
    wait_until(lambda: sign(server, client, label) is None, f"{label} to sign", 20)


def wait_gone(server, client, label):
    wait_until(lambda: sign(server, client, label) == frames.E_KEY_NOT_FOUND, f"{label} to go", 20)


def watches(server):
    """What the process watches by inotify."""
    found = []
    for fd in os.listdir(f"/proc/{server.process.pid}/fdinfo"):
        with open(f"/proc/{server.process.pid}/fdinfo/{fd}", encoding="ascii") as f:
            found += [line for line in f if line.startswith("inotify wd:")]
    return len(found)


def fresh_der():
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


# --- what comes and goes -----------------------------------------------------------------


def test_a_key_comes_and_goes(server, client):
    server.add_key("new", "p256")
    wait_signed(server, client, "new")
    server.audit_wait(1, result="key_added", key="new")
    (server.folder / "new.key").unlink()
    wait_gone(server, client, "new")
    server.audit_wait(1, result="key_removed", key="new")
    assert sign(server, client) is None
    assert reloads(server, "failed") == 0 and server.metric("keys") == 1


def test_a_key_that_is_renamed_over_another(server, client):
    old = server.keys["p256"]
    assert sign(server, client) is None
    beside = server.folder / "unfinished"
    pki_module.write_private(beside, fresh_der())
    os.rename(beside, old.key)
    wait_until(lambda: client.sign(1, ECDSA_SHA256, old.ski(), frames.tls13_message()).error ==
               frames.E_KEY_NOT_FOUND, "the old key to go", 20)
    server.keys["p256"] = pki_module.Identity(old.key, old.key)
    assert sign(server, client) is None
    assert reloads(server) == 1


def test_a_certificate_brings_its_names(server):
    server.grant("named", ["tls13"], ["name:late.test"])
    key = server.add_key("late", "p256")
    server.start()
    with server.connect("named") as client:
        assert sign(server, client, "late") == frames.E_NOT_AUTHORISED
        leaf = server.web_ca.issue_leaf("late.test", key=key.key, name="late")
        (server.folder / "late.crt").write_bytes(leaf.cert.read_bytes())
        wait_signed(server, client, "late")


def test_other_files_are_nothing(server, client):
    """Neither these nor the hidden ones are read; a key behind them shows that they were seen."""
    for name in ("README", ".hidden.key", "x.key.bak", ".x.pem"):
        (server.folder / name).write_text("no key")
    server.add_key("new", "p256")
    wait_signed(server, client, "new")
    assert reloads(server) == 1 and reloads(server, "failed") == 0


@pytest.mark.skipif(bool(SANITIZE) or not memory.may_trace(),
                    reason="a sanitizer keeps what was freed; else CAP_SYS_PTRACE is missing")
def test_a_key_that_is_removed_leaves_the_memory(server):
    """One of those that the server started with, whose configuration is still in force."""
    old = server.add_key("old", "p384")
    wanted = memory.patterns(old.key)
    server.start()
    with server.connect("proxy") as client:
        assert memory.search(memory.live(server.process.pid), wanted), "the search finds nothing"
        assert sign(server, client, "old") == frames.E_BAD_MESSAGE  # P-384 with SHA-256: it is there
        old.key.unlink()
        wait_gone(server, client, "old")
        wait_until(lambda: not memory.search(memory.live(server.process.pid), wanted),
                   "the key to leave the memory", 20)


# --- what is not whole, or not good ---------------------------------------------------------


def test_half_a_key_leaves_all_as_it_was(server, client):
    whole = pki_module.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    server.put_key("half", whole[:len(whole) // 2])
    server.add_key("good", "p256")  # beside it: nothing of this folder is taken
    wait_until(lambda: reloads(server, "failed") >= 1, "it to be tried", 20)
    wait_until(lambda: "half.key" in server.process.err(), "the reason in the log")
    assert "reload_failed" in server.process.err()
    assert sign(server, client) is None
    assert sign(server, client, "good") == frames.E_KEY_NOT_FOUND
    with open(server.folder / "half.key", "ab") as f:
        f.write(whole[len(whole) // 2:])
    wait_signed(server, client, "half")
    assert sign(server, client, "good") is None


def test_a_key_that_is_written_in_pieces_is_read_once(server):
    server.config["key_folders_settle"] = f"{LONG_SETTLE_MS}ms"
    server.start()
    whole = pki_module.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    path = server.folder / "slow.key"
    with server.connect("proxy") as client:
        pki_module.write_private(path, b"")
        for at in range(0, len(whole), 20):
            with open(path, "ab") as f:
                f.write(whole[at:at + 20])
        server.keys["slow"] = pki_module.Identity(path, path)
        wait_signed(server, client, "slow")
    assert (reloads(server), reloads(server, "failed")) == (1, 0)


def test_a_loose_mode_is_waited_out(server, client):
    key = server.add_key("loose", "p256")
    key.key.chmod(0o644)
    wait_until(lambda: reloads(server, "failed") >= 1 or sign(server, client, "loose") is None,
               "a reload", 20)
    key.key.chmod(0o640)
    wait_until(lambda: "loose.key" in server.process.err(), "the reason in the log", 20)
    assert sign(server, client) is None
    key.key.chmod(0o600)
    wait_signed(server, client, "loose")


def test_a_thousand_files_are_one_reload(server):
    server.config["key_folders_settle"] = f"{LONG_SETTLE_MS}ms"
    keys = {f"many{n:04}": fresh_der() for n in range(1000)}
    server.start()
    with server.connect("proxy") as client:
        for label, der in keys.items():
            pki_module.write_private(server.folder / f"{label}.key", der)
        for label in ("many0000", "many0999"):
            path = server.folder / f"{label}.key"
            server.keys[label] = pki_module.Identity(path, path)
            wait_until(lambda label=label: sign(server, client, label) is None, label, 60)
    assert server.metric("keys") == 1001
    assert (reloads(server), reloads(server, "failed")) == (1, 0)
    wait_until(lambda: len(server.audit(result="key_added")) == 1000, "the audit lines", 20)


# --- what is watched ------------------------------------------------------------------------------


def test_the_configuration_stays_what_it_is(server, client):
    """Only keys are read: a file of options that is being edited is not."""
    (server.procs.folder / "keyserver.json").write_text('{"clients": [')
    server.add_key("new", "p256")
    wait_signed(server, client, "new")
    assert reloads(server, "failed") == 0


def test_nothing_is_watched_unless_asked_for(server):
    server.config["key_folders_watch"] = False
    server.start()
    assert watches(server) == 0
    with server.connect("proxy") as client:
        server.config["key_folders_watch"] = True
        server.reload()
        assert watches(server) == 1
        server.add_key("new", "p256")
        wait_signed(server, client, "new")
        server.config["key_folders_watch"] = False
        server.reload()
        assert watches(server) == 0


def test_a_folder_that_goes_and_comes_back(server, client):
    away = server.folder.with_name("away")
    assert sign(server, client) is None
    server.folder.rename(away)
    wait_until(lambda: reloads(server, "failed") >= 1, "the loss to be noticed", 20)
    assert sign(server, client) is None
    wait_until(lambda: "folder_not_watched" in server.process.err(), "the log line", 20)
    away.rename(server.folder)
    wait_until(lambda: reloads(server) >= 1, "it to be loaded again", 20)
    server.add_key("new", "p256")
    wait_signed(server, client, "new")


def test_links_that_are_switched_together(server):
    """Files that are links into a folder behind a link, as orchestrators mount secrets."""
    folder = server.folder
    for version in ("1", "2"):
        (folder / f"..{version}").mkdir()
        pki_module.write_private(folder / f"..{version}" / "linked.key", fresh_der())
    (folder / "..data").symlink_to("..1")
    (folder / "linked.key").symlink_to("..data/linked.key")
    first, second = (pki_module.Identity(p, p) for p in
                     (folder / "..1" / "linked.key", folder / "..2" / "linked.key"))
    server.keys.update(first=first, second=second)
    server.start()
    with server.connect("proxy") as client:
        assert sign(server, client, "first") is None
        (folder / "..new").symlink_to("..2")
        (folder / "..new").rename(folder / "..data")
        wait_signed(server, client, "second")
        assert sign(server, client, "first") == frames.E_KEY_NOT_FOUND


def test_generated_keys_are_no_change(server, procs):
    """They are in force when they are answered for; what is taken away is noticed."""
    made = procs.folder / "made"
    made.mkdir(mode=0o700)
    server.config["generation"] = {"folder": str(made)}
    server.grant("maker", ["generate", "tls13"], ["label:gen-*"])
    server.start()
    with server.connect("maker") as client:
        reply = client.ask(1, frames.item(frames.OPCODE, b"\x24"),
                           frames.item(0x13, b"deputy.generate_key"),
                           frames.item(frames.PAYLOAD, b"\x01\x05gen-1"))
        ski = reply.payload[:20]
        path = made / "gen-1.key"
        server.keys["gen-1"] = pki_module.Identity(path, path)
        assert sign(server, client, "gen-1") is None and server.keys["gen-1"].ski() == ski
        server.add_key("new", "p256")
        wait_until(lambda: server.metric("keys") == 3, "the key in the other folder", 20)
        assert reloads(server) == 1
        path.rename(made / "gen-1.key.retired")
        wait_gone(server, client, "gen-1")


def test_no_request_is_lost_while_keys_come_and_go(server):
    server.config["key_folders_settle"] = "20ms"
    server.start()
    with server.load(3) as load:
        for n in range(15):
            before = reloads(server)
            path = server.folder / "extra.key"
            if n % 2 == 0:
                pki_module.write_private(path, fresh_der())
            else:
                path.unlink()
            wait_until(lambda before=before: reloads(server) > before, "a reload", 20)
    assert server.metric("requests_total", purpose="tls13", result="signed") == load.total
