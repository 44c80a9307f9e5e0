# SPDX-License-Identifier: Apache-2.0
"""Start, reload, rotate, drain, die: the key server as an operator meets it."""

import json
import os
import pathlib
import pwd
import signal
import tempfile
import threading

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from support import frames, pki as pki_module, prometheus
from support.frames import ECDSA_SHA256, OPCODE, PING, item, packet
from support.keyserver import KeyServer
from support.procs import BIN_DIR, wait_until

PROGRAM = BIN_DIR / "deputy-keyserver"


@pytest.fixture
def server(procs, pki):
    ks = KeyServer(procs, pki)
    ks.add_key("p256", "p256", "a.test")
    return ks


def sign(server, client, label="p256", request_id=1):
    return client.sign(request_id, ECDSA_SHA256, server.keys[label].ski(),
                       frames.tls13_message()).error


def check(server, *args):
    """--check-config of the present configuration: (exit code, output)."""
    server.write_config()
    done = server.procs.run([PROGRAM, "--config", server.procs.folder / "keyserver.json",
                             "--check-config", *args])
    return done.returncode, done.stdout + done.stderr


# --- start -----------------------------------------------------------------------------


def test_check_config_reports(server):
    code, text = check(server)
    assert code == 0 and "1 keys, 4 grants" in text, text


def test_config_reference_names_every_option(server):
    text = server.procs.run([PROGRAM, "--config-reference"], check=True).stdout
    for option in ("listen", "key_folders", "when_unavailable", "max_unread", "rate_per_s",
                   "dc_max_lifetime", "schemes", "allow_tls12"):
        assert option in text


@pytest.mark.parametrize("change, words", [
    (lambda c: c.update(chients=[]), ["chients", "clients"]),
    (lambda c: c.pop("audit"), ["audit"]),
    (lambda c: c.update(workers=100000), ["workers"]),
    (lambda c: c.update(listen=["nonsense"]), ["nonsense"]),
    (lambda c: c.update(listen=["unix:/x/y"]), ["TCP"]),
    (lambda c: c["clients"][0].update(purposes=["tls14"]), ["clients[0]", "tls14", "csr"]),
    (lambda c: c["clients"][0].update(keys=["p256"]), ["clients[0]", "p256", "label:NAME"]),
    (lambda c: c["clients"][0].update(keys=["ski:12"]), ["40 hex digits"]),
    (lambda c: c["clients"][0].update(names=[]), ["clients[0]", "spki_sha256"]),
    (lambda c: c["clients"][0].update(spki_sha256=["zz"]), ["64 hex digits"]),
    (lambda c: c.update(key_policies=[{"keys": ["*"], "schemes": ["md5"]}]),
     ["key_policies[0]", "md5"]),
    (lambda c: c.update(key_folders=["/does/not/exist"]), ["/does/not/exist"]),
    (lambda c: c.update(metrics={"listen": "0.0.0.0:0"}), ["loopback"]),
    (lambda c: c.update(user="nobody-here"), ["nobody-here"]),
    (lambda c: c["tls"].update(key="/no/key"), ["/no/key"]),
])
def test_bad_configuration_is_named(server, change, words):
    change(server.config)
    process = server.start(wait=False).process
    process.expected_exit = {1, 2}
    assert process.wait() in (1, 2)
    for word in words:
        assert word in process.err(), process.err()


def bad_key(server, content, mode=0o600):
    path = server.folder / "bad.key"
    pki_module.write_private(path, content)
    os.chmod(path, mode)
    code, text = check(server)
    assert code != 0
    assert "bad.key" in text, text
    return text


def test_key_files_that_stop_the_start(server, tmp_path):
    good = server.keys["p256"].key.read_bytes()
    for mode in (0o640, 0o604, 0o666):
        assert "0600" in bad_key(server, good, mode)
    encrypted = pki_module.openssl("pkey", "-in", server.keys["p256"].key, "-aes256", "-passout",
                                   "pass:x")
    assert "encrypted" in bad_key(server, encrypted)
    assert "encrypted" in bad_key(server, pki_module.openssl(  # the older way, by headers
        "ec", "-in", server.keys["p256"].key, "-aes128", "-passout", "pass:x"))
    bad_key(server, pki_module.openssl("pkcs8", "-topk8", "-v2", "aes256", "-outform", "DER", "-in",
                                       server.keys["p256"].key, "-passout", "pass:x"))
    bad_key(server, b"")
    bad_key(server, b"garbage")
    bad_key(server, good[:len(good) // 2])
    bad_key(server, good + pki_module.make_key(tmp_path / "second.key").read_bytes())
    bad_key(server, server.ca.cert.read_bytes())
    for kind in ("X25519", "X448", "ED448"):
        bad_key(server, pki_module.openssl("genpkey", "-algorithm", kind))
    for curve in ("secp256k1", "secp224r1", "brainpoolP256r1"):
        bad_key(server, pki_module.openssl("genpkey", "-algorithm", "EC", "-pkeyopt",
                                           f"ec_paramgen_curve:{curve}"))
    bad_key(server, pki_module.openssl("pkey", "-in", server.keys["p256"].key, "-pubout"))
    bad_key(server, bytes(100000))
    bad_key(server, pki_module.openssl("genpkey", "-algorithm", "RSA", "-pkeyopt",
                                       "rsa_keygen_bits:1024"))
    (server.folder / "bad.key").unlink()
    assert check(server)[0] == 0


def test_a_key_among_the_certificates_stops_the_start(server):
    (server.folder / "both.pem").write_bytes(server.keys["p256"].key.read_bytes() +
                                             server.keys["p256"].cert.read_bytes())
    code, text = check(server)
    assert code != 0 and "both.pem" in text and "*.key" in text


def test_what_does_not_stop_the_start(server):
    """Other files, the same key twice, certificates that are none or of other keys."""
    (server.folder / "README").write_text("hello")
    (server.folder / ".hidden.key").write_text("no key")
    (server.folder / "old.key.bak").write_text("no key")
    (server.folder / "broken.pem").write_text("no certificate")
    (server.folder / "ca.crt").write_bytes(server.ca.cert.read_bytes())
    (server.folder / "sub.pem.d").mkdir()
    server.put_key("twice", server.keys["p256"].key.read_bytes())
    code, text = check(server)
    assert code == 0 and "1 keys" in text
    assert "broken.pem" in text and "twice.key" in text


def test_der_keys_and_every_syntax(server):
    p256 = server.keys["p256"].key
    files = {
        "der-pkcs8": pki_module.openssl("pkcs8", "-topk8", "-nocrypt", "-in", p256, "-outform",
                                        "DER"),
        "sec1": pki_module.openssl("ec", "-in", p256),
        "params": pki_module.openssl("ecparam", "-name", "prime256v1", "-genkey"),
        "p521": pki_module.openssl("genpkey", "-algorithm", "EC", "-pkeyopt",
                                   "ec_paramgen_curve:P-521"),
        "rsa-pkcs1": pki_module.openssl("rsa", "-traditional", "-in", pki_module.make_key(
            server.procs.folder / "rsa.pem", "rsa2048")),
    }
    for label, content in files.items():
        server.put_key(label, content)
    p256.unlink()  # the same key as two others
    server.start()
    with server.connect("proxy") as client:
        assert sign(server, client, "der-pkcs8") is None
        assert sign(server, client, "params") is None
        assert client.sign(1, 0x17, server.keys["p521"].ski(),
                           frames.tls13_message()).error is None
        assert client.sign(1, 0x35, server.keys["rsa-pkcs1"].ski(),
                           frames.tls13_message()).error is None


def test_port_in_use(server, procs):
    server.start()
    host, port = server.address
    server.config["workers"] = 1  # or the port would be shared
    server.config["listen"] = [f"{host}:{port}"]
    second = procs.daemon_start("deputy-keyserver", server.config, "second")
    second.expected_exit = {1}
    assert second.wait() == 1
    assert str(port) in second.err()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root")
def test_drops_root(server):
    nobody = pwd.getpwnam("nobody").pw_uid
    with tempfile.TemporaryDirectory() as folder:  # where nobody can get to
        os.chmod(folder, 0o777)
        server.config["user"] = "nobody"
        server.config["audit"]["path"] = f"{folder}/audit.jsonl"
        server.start()
        status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
        assert f"Uid:\t{nobody}\t{nobody}\t{nobody}\t{nobody}" in status
        assert "NoNewPrivs:\t1" in status and "Groups:\t0" not in status
        assert os.stat(f"{folder}/audit.jsonl").st_uid == nobody
        with server.connect("proxy") as client:
            assert sign(server, client) is None
            # What root owns cannot be read again: a reload says so, and the keys stay.
            server.reload(result="failed")
            wait_until(lambda: "reload_failed" in server.process.err(), "the log line")
            assert sign(server, client) is None
        server.process.stop()


# --- reload --------------------------------------------------------------------------------


def test_reload_brings_keys_and_rights(server):
    server.start()
    with server.connect("proxy") as proxy, server.connect("issuer") as issuer:
        server.add_key("new", "p256", "new.test")
        assert sign(server, proxy, "new") == frames.E_KEY_NOT_FOUND
        server.config["clients"] = []
        server.grant("issuer", ["tls13"])
        server.reload()
        # On connections that were open before.
        wait_until(lambda: sign(server, issuer, "new") is None, "the new key and grant")
        wait_until(lambda: sign(server, proxy) == frames.E_NOT_AUTHORISED, "the grant to be gone")
        (server.folder / "new.key").unlink()
        server.reload()
        wait_until(lambda: sign(server, issuer, "new") == frames.E_KEY_NOT_FOUND, "the key to go")
    assert server.metric("keys") == 1


def test_a_bad_reload_changes_nothing(server):
    server.start()
    with server.connect("proxy") as client:
        bad = server.folder / "bad.key"
        pki_module.write_private(bad, b"-----BEGIN PRIVATE KEY-----\nMIGH")
        server.reload(result="failed")
        wait_until(lambda: "bad.key" in server.process.err(), "the log line")
        assert sign(server, client) is None
        bad.unlink()
        server.config["clients"][0]["purposes"] = ["nonsense"]
        server.reload(result="failed")
        wait_until(lambda: "nonsense" in server.process.err(), "the log line")
        assert sign(server, client) is None
        assert server.metric("configuration_generation") == 1
        server.config["clients"][0]["purposes"] = ["tls13"]
        server.reload()
        assert sign(server, client) is None


def test_reload_says_what_needs_a_restart(server):
    server.start()
    server.config["workers"] = 1
    server.reload()
    wait_until(lambda: "restart_needed option=workers" in server.process.err(), "the log line")


def test_reload_changes_the_ca_of_clients(server, pki):
    server.start()
    other = pki.ca("other")
    newcomer = other.issue("newcomer", san=["DNS:proxy.client.test"], eku="clientAuth")
    server.config["tls"]["ca"] = str(other.cert)
    server.reload()
    with server.connect(newcomer) as client:
        wait_until(lambda: sign(server, client) is None, "the new CA's client")
    with pytest.raises((OSError, EOFError)):
        with server.connect("proxy") as client:
            client.ping()


def test_reload_under_load_drops_no_request(server):
    """Connections sign without pause while keys and rights are loaded thirty times."""
    server.start()
    with server.load(4) as load:
        for n in range(30):
            if n % 3 == 0:
                pki_module.make_key(server.folder / f"extra{n}.key")
            server.reload()
    assert server.metric("configuration_generation") == 31
    total = server.metric("requests_total", purpose="tls13", result="signed")
    assert total == load.total
    wait_until(lambda: len(server.audit(result="signed")) == total, "every audit line")


def test_a_long_reload_holds_nobody_up(server):
    """Thousands of key files are read beside the control thread: it answers meanwhile, and so
    do the workers."""
    for n in range(1500):
        key = ec.generate_private_key(ec.SECP256R1())
        pki_module.write_private(server.folder / f"many{n}.key", key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption()))
    server.start()
    assert server.metric("keys") == 1501
    (server.folder / "many0.key").unlink()
    with server.connect("proxy") as client:
        before = server.metric("reloads_total", result="done")
        server.process.signal(signal.SIGHUP)
        server.process.signal(signal.SIGHUP)  # one more while it runs is not forgotten
        num_answers = 0
        while server.metric("reloads_total", result="done") == before:
            assert json.loads(server.http("/healthz"))["status"] == "ok"
            assert sign(server, client) is None
            num_answers += 1
    assert num_answers >= 3  # on the control thread it was none, or one before the signal came
    wait_until(lambda: server.metric("keys") == 1500, "the keys that are left")
    server.audit_wait(1, result="key_removed", key="many0")


# --- stop ------------------------------------------------------------------------------------


def test_sigterm_finishes_what_is_in_hand(server):
    server.config["workers"] = 1
    server.start()
    num = 1000
    with server.connect("proxy") as client, server.connect("issuer") as idle:
        idle.ping()
        client.send(b"".join(frames.sign_packet(
            n, ECDSA_SHA256, server.keys["p256"].ski(), frames.tls13_message())
            for n in range(num)))
        server.process.signal(signal.SIGTERM)
        replies = client.receive_all(num)
        assert all(r.error is None for r in replies.values())
        with pytest.raises(EOFError):
            client.receive()
        with pytest.raises(EOFError):
            idle.receive()
    assert server.process.wait() == 0
    assert len(server.audit(result="signed")) == num
    with pytest.raises(OSError):
        server.connect("proxy")


def test_sigterm_is_bounded(server):
    """A client that never stops asking does not keep the server from ending."""
    server.config["limits"] = {"drain_timeout": "500ms"}
    server.start()
    stop = threading.Event()

    def ask():
        try:
            with server.connect("proxy") as client:
                while not stop.is_set():
                    client.ping()
        except (OSError, EOFError):
            pass

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: server.metric("pings_total") > 10, "the client to be busy")
    server.process.signal(signal.SIGTERM)
    try:
        assert server.process.wait(timeout=5) == 0
    finally:
        stop.set()
        thread.join()


def test_two_sigterms_end_at_once(server):
    server.config["limits"] = {"drain_timeout": "10m"}
    server.start()
    with server.connect("proxy") as client:
        client.send(packet(1, item(OPCODE, bytes([PING])))[:100])  # half a packet, in hand
        server.process.signal(signal.SIGTERM)
        wait_until(lambda: "draining" in server.process.err(), "the first")
        server.process.signal(signal.SIGTERM)
        assert server.process.wait(timeout=3) == 0


def test_kill_then_start_again(server):
    server.start()
    host, port = server.address
    with server.connect("proxy") as client:
        client.send(frames.sign_packet(1, ECDSA_SHA256, server.keys["p256"].ski(),
                                       frames.tls13_message()) * 100)
        server.process.kill()
    server.config["listen"] = [f"{host}:{port}"]
    server.start()
    with server.connect("proxy") as client:
        assert sign(server, client) is None


# --- logs --------------------------------------------------------------------------------------


def test_audit_and_log_are_opened_again(server):
    log = server.procs.folder / "server.log"
    server.config["log"] = str(log)
    server.start()
    with server.connect("proxy") as client:
        assert sign(server, client) is None
        server.audit_wait(1)
        server.audit_path.rename(server.audit_path.with_suffix(".1"))
        log.rename(log.with_suffix(".1"))
        server.process.signal(signal.SIGUSR1)
        wait_until(lambda: server.audit_path.exists() and log.exists(), "new files")
        assert sign(server, client) is None
        server.audit_wait(1)
    assert oct(server.audit_path.stat().st_mode & 0o777) == "0o600"
    first = json.loads(server.audit_path.with_suffix(".1").read_text())
    assert first["result"] == "signed" and first["grant"].startswith("proxy")


@pytest.mark.parametrize("policy", ["refuse", "sign"])
def test_an_audit_file_that_cannot_be_written(server, policy):
    server.config["audit"] = {"path": "/dev/full", "when_unavailable": policy}
    server.start()
    with server.connect("proxy") as client:
        want = frames.E_BUSY if policy == "refuse" else None
        wait_until(lambda: server.metric("audit_failing") == 1 or sign(server, client) == 99,
                   "the sink to notice")
        assert sign(server, client) == want
        client.ping()
    assert server.metric("audit_lost_total") > 0
    if policy == "refuse":
        assert server.metric("refusals_total", reason="audit") > 0
    else:
        assert server.metric("unaudited_signatures_total") > 0


def test_metrics_and_health(server):
    server.start()
    with server.connect("proxy") as client:
        assert sign(server, client) is None
        assert sign(server, client) is None
        client.sign(1, ECDSA_SHA256, b"\x02" * 20, frames.tls13_message())
        client.ping()
        assert server.metric("connections_open") == 1
    assert server.metric("requests_total", purpose="tls13", result="signed") == 2
    assert server.metric("requests_total", purpose="none", result="refused") == 1
    assert server.metric("refusals_total", reason="no_such_key") == 1
    assert server.metric("signatures_total", kind="p256") == 2
    assert server.metric("pings_total") == 1
    assert server.metric("handshakes_total") == 1
    assert server.metric("keys") == 1 and server.metric("grants") == 4
    assert json.loads(server.http("/healthz"))["status"] == "ok"
    assert json.loads(server.http("/readyz"))["status"] == "ready"
    families = prometheus.parse(server.http("/metrics"))
    assert all(name.startswith("deputy_keyserver_") for name in families), families.keys()


def test_no_core_dump(server):
    server.start()
    limits = pathlib.Path(f"/proc/{server.process.pid}/limits").read_text()
    line = next(text for text in limits.splitlines() if text.startswith("Max core file size"))
    assert line.split()[4:6] == ["0", "0"]
