# SPDX-License-Identifier: Apache-2.0
"""The audit file: what is in it, what no name can do to it, disks that are full,
rotation, and the chain that shows what is missing."""

import datetime
import hashlib
import itertools
import json
import os
import re
import signal
import subprocess

import pytest

from support import frames, pki as pki_module
from support.frames import ECDSA_SHA256, OPCODE, PAYLOAD, SKI, SNI, EXTRA, item
from support.keyserver import KeyServer
from support.procs import BIN_DIR, wait_until

CTL = BIN_DIR / "deputyctl"


@pytest.fixture
def server(procs, pki):
    ks = KeyServer(procs, pki)
    ks.add_key("p256", "p256", "a.test")
    return ks


def sign(server, client, message=None, request_id=1, more=()):
    return client.sign(request_id, ECDSA_SHA256, server.keys["p256"].ski(),
                       message or frames.tls13_message(), more=more).error


def sign_many(server, client, num):
    """Signs `num` times, some together."""
    for start in range(0, num, 50):
        ids = range(start, min(num, start + 50))
        client.send(b"".join(frames.sign_packet(
            n, ECDSA_SHA256, server.keys["p256"].ski(), frames.tls13_message()) for n in ids))
        assert all(r.error is None for r in client.receive_all(len(ids)).values())


# --- what is in a line -------------------------------------------------------------------


def test_a_line_says_who_asked_what_and_what_came_of_it(server):
    server.start()
    before = datetime.datetime.now(datetime.timezone.utc)
    message = frames.tls13_message(os.urandom(32))
    with server.connect("proxy") as client:
        assert sign(server, client, message, more=[item(SNI, b"shop.test")]) is None
        peer = "%s:%d" % client.sock.getsockname()
    line, = server.audit_wait(1)
    time = datetime.datetime.fromisoformat(line.pop("time").replace("Z", "+00:00"))
    assert before <= time <= datetime.datetime.now(datetime.timezone.utc)
    assert line == {
        "result": "signed", "client": "proxy.client.test", "peer": peer,
        "client_spki_sha256": server.client("proxy").spki_sha256(), "opcode": "ecdsa_sha256",
        "ski": server.keys["p256"].ski().hex(), "key": "p256", "grant": "proxy-0",
        "purpose": "tls13", "message_sha256": hashlib.sha256(message).hexdigest(),
        "sni": "shop.test"}


# --- forging -------------------------------------------------------------------------------

NASTY = [
    b'a"b', b"a\\", b"a\nb", b'","result":"signed","x":"',
    b'x"}\n{"time":"2026-01-01T00:00:00Z","result":"signed","client":"admin"}\n',
    b"\r\n\r\n", b"\0\0", bytes(range(1, 32)), b"\x7f\x80\xff", b"\xc3\x28", b"\xe2\x82\xac",
    b"\xed\xa0\x80", b"\xe2\x80\xa8", b'","seq":1,"chain":"' + b"0" * 64 + b'"}',
]


@pytest.mark.parametrize("chain", [False, True])
def test_no_sni_forges_a_line(server, chain):
    """Whatever a client calls the visitor's name, there is one line for its request, and the
    name's bytes are in one value."""
    server.config["audit"]["chain"] = chain
    server.start()
    names = [*NASTY, b'"' * 2000]
    with server.connect("proxy") as client:
        for n, name in enumerate(names):
            assert sign(server, client, request_id=n + 1, more=[item(SNI, name)]) in (
                None, frames.E_FORMAT)
    raw = wait_until(lambda: (server.audit_path.read_bytes()
                              if server.audit_path.read_bytes().count(b"\n") >= len(names) + chain
                              else None), "all lines")
    assert raw.count(b"\n") == len(names) + chain
    assert all(b == 10 or 0x20 <= b < 0x7F for b in raw)  # what a terminal takes for text
    lines = [json.loads(line, object_pairs_hook=unique) for line in raw.splitlines()][chain:]
    for name, line in zip(names, lines):
        assert line["client"] == "proxy.client.test"
        if line["result"] == "signed":
            assert line["sni"].encode("latin-1") == name[:255]


def unique(pairs):
    assert len({k for k, _ in pairs}) == len(pairs), pairs
    return dict(pairs)


@pytest.fixture(scope="module")
def named(module_procs, module_pki):
    ks = KeyServer(module_procs, module_pki, name="named")
    ks.add_key("p256", "p256", "a.test")
    return ks.start()


@pytest.mark.parametrize("tag", [0x82, 0x86], ids=["dns", "uri"])
@pytest.mark.parametrize("number", [n for n, name in enumerate(NASTY) if len(name) < 60])
def test_no_client_name_forges_a_line(named, tag, number):
    name = NASTY[number]
    names = bytes([0x30, len(name) + 2, tag, len(name)]) + name
    identity = named.client(f"nasty-{tag}-{number}", san=None,
                            more=[f"subjectAltName=DER:{names.hex()}"])
    before = named.audit_path.read_bytes() if named.audit_path.exists() else b""
    try:
        with named.connect(identity) as client:
            sign(named, client)
    except (OSError, EOFError):
        return  # such a certificate is not let in at all
    wait_until(lambda: len(named.audit_path.read_bytes()) > len(before), "the line")
    raw = named.audit_path.read_bytes()[len(before):]
    assert raw.count(b"\n") == 1 and all(b == 10 or 0x20 <= b < 0x7F for b in raw)
    line = json.loads(raw, object_pairs_hook=unique)
    assert (line["result"], line["reason"]) == ("refused", "unknown_client")
    assert line["client_spki_sha256"] == identity.spki_sha256()
    assert not set(line["client"]) & set('" \n')


def test_those_names_were_let_in(named):
    """Or the test above tried nothing: the handshake takes any name from the right CA."""
    assert len(named.audit(reason="unknown_client")) > len(NASTY)


def test_no_label_forges_a_line(server):
    """Labels come from file names: an operator's, or a client's that may have keys made (whose
    letters are checked, test_keyserver_generate.py)."""
    for n, label in enumerate(['a"b', "c\nd", "e\\f", "\x1b[31mred", "\u00e9"]):
        server.put_key(label, pki_module.make_key(
            server.procs.folder / f"nasty{n}.key").read_bytes())
    server.start()
    with server.connect("proxy") as client:
        for n, label in enumerate(server.keys):
            assert client.sign(n, ECDSA_SHA256, server.keys[label].ski(),
                               frames.tls13_message()).error is None
    lines = server.audit_wait(len(server.keys))
    raw = server.audit_path.read_bytes()
    assert all(b == 10 or 0x20 <= b < 0x7F for b in raw)
    assert [line["key"].encode("latin-1").decode() for line in lines] == list(server.keys)


# --- a full disk -----------------------------------------------------------------------------

# In a mount namespace of its own, so that the tiny disk is nobody else's. The loop waits for
# the folder to be filled or emptied from outside, by /proc/PID/root.
MOUNT = 'mount -t tmpfs -o size=64k,mode=0700 none "$1" && shift && exec "$@"'


def can_mount():
    done = subprocess.run(["unshare", "-m", "sh", "-c", MOUNT, "sh", "/mnt", "true"],
                          capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.skipif(not can_mount(), reason="no mount namespace to be had")
@pytest.mark.parametrize("policy", ["refuse", "sign"])
def test_a_disk_that_fills_up_and_gets_room_again(server, policy):
    disk = server.procs.folder / "disk"
    disk.mkdir()
    server.config["audit"] = {"path": str(disk / "audit.jsonl"), "when_unavailable": policy,
                              "chain": True}
    server.write_config()
    server.process = server.procs.daemon_start(
        "deputy-keyserver", server.config, "keyserver",
        wrap=["unshare", "-m", "sh", "-c", MOUNT, "sh", str(disk)])
    server.process.wait_ready()
    inside = f"/proc/{server.process.pid}/root{disk}"
    server.audit_path = type(server.audit_path)(inside) / "audit.jsonl"
    with server.connect("proxy") as client:
        for n in itertools.count():
            error = sign(server, client)
            if server.metric("audit_failing") == 1:
                break
            assert error is None and n < 5000
        want = frames.E_BUSY if policy == "refuse" else None
        assert sign(server, client) == want
        client.ping()
        assert server.audit_path.read_bytes().endswith(b"}\n")  # no half line
        assert server.metric("audit_lost_total") > 0
        if policy == "refuse":
            assert server.metric("refusals_total", reason="audit") > 0
            with pytest.raises(OSError):
                server.http("/readyz")
        else:
            assert server.metric("unaudited_signatures_total") > 0
        wait_until(lambda: "audit_failing" in server.process.err(), "the log line")
        # An operator moves the file away: the server goes on by itself.
        saved = server.audit_path.read_bytes()
        os.rename(server.audit_path, f"{inside}/old")
        os.unlink(f"{inside}/old")
        server.process.signal(signal.SIGUSR1)
        wait_until(lambda: server.metric("audit_failing") == 0, "the file to be written again")
        assert sign(server, client) is None
        wait_until(lambda: server.audit(result="signed"), "its line")
        wait_until(lambda: "audit_recovered" in server.process.err(), "the log line")
        copies = [server.procs.folder / "one.jsonl", server.procs.folder / "two.jsonl"]
        copies[0].write_bytes(saved)
        copies[1].write_bytes(server.audit_path.read_bytes())
    check_chain(copies)
    # The mark may have found room in what was left of the full disk.
    assert [line["lost"] for line in read_lines(copies) if line.get("event") == "lost"]


# --- rotation ------------------------------------------------------------------------------------


def all_files(server):
    """The audit files, the oldest first."""
    old = sorted(server.audit_path.parent.glob(server.audit_path.name + ".[0-9]*"),
                 key=lambda path: -int(path.suffix[1:]))
    return [*old, server.audit_path]


def read_lines(paths):
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def check_chain(paths):
    """The chain as its description has it, without our programs; returns the lines."""
    hash_, seq, num = bytes(32), 0, 0
    for path in paths:
        for text in path.read_bytes().splitlines():
            line = json.loads(text)
            covered, _, _ = text.rpartition(b',"chain":"')
            if num == 0 and line.get("event") == "file":
                hash_, seq = bytes.fromhex(line["previous"]), line["previous_seq"]
            seq, num = seq + 1, num + 1
            assert line["seq"] == seq, (path, text)
            hash_ = hashlib.sha256(hash_ + covered).digest()
            assert line["chain"] == hash_.hex(), (path, text)
    return num


def test_rotation_loses_nothing_under_load(server):
    server.config["audit"].update(rotate_size="64KiB", rotate_keep=1000, chain=True)
    server.start()
    with server.connect("proxy") as client:
        sign_many(server, client, 3000)
    wait_until(lambda: server.metric("audit_rotations_total", result="done") > 5, "rotations")
    def num_signed():
        try:
            return sum(line["result"] == "signed" for line in read_lines(all_files(server)))
        except FileNotFoundError:
            return 0  # moved on just now

    wait_until(lambda: num_signed() == 3000, "every line")
    files = all_files(server)
    for path in files[:-1]:
        assert 64 << 10 <= path.stat().st_size < 64 << 12
        assert oct(path.stat().st_mode & 0o777) == "0o600"
    check_chain(files)
    for path in files[1:]:
        assert json.loads(path.read_text().splitlines()[0])["event"] == "file"


def test_only_so_many_old_files_are_kept(server):
    server.config["audit"].update(rotate_size="4KiB", rotate_keep=2)
    server.start()
    with server.connect("proxy") as client:
        while server.metric("audit_rotations_total", result="done") < 5:
            sign_many(server, client, 20)
    server.process.stop()  # names are moved one after the other
    assert len(all_files(server)) == 3


# --- the chain -------------------------------------------------------------------------------


def verify(server, *args):
    """(exit code, what it printed as JSON, standard error)"""
    done = server.procs.run([CTL, "keyserver", "verify-audit", "--json", *args])
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


@pytest.fixture(scope="module")
def chained(module_procs, module_pki):
    """A server that has been killed twice and stopped once, with several files, and the head."""
    ks = KeyServer(module_procs, module_pki, name="chained")
    ks.add_key("p256", "p256", "a.test")
    ks.config["audit"].update(chain=True, rotate_size="16KiB", rotate_keep=1000)
    for end in ("kill", "kill", "stop"):
        ks.start()
        with ks.connect("proxy") as client:
            sign_many(ks, client, 200)
            ks.seen = json.loads(ks.http("/audit-head"))
        getattr(ks.process, end)()
    seq, chain = re.findall(r"audit_head seq=(\d+) chain=(\w+)", ks.process.err())[-1]
    ks.head = {"seq": int(seq), "chain": chain}
    return ks


def test_chain_over_restarts_and_rotations(chained):
    files = all_files(chained)
    num = check_chain(files)
    code, report, _ = verify(chained, *files)
    assert code == 0 and report["whole"] is True
    assert report["lines"] == num == report["last_seq"] == chained.head["seq"]
    assert report["first_seq"] == 1 and report["last_chain"] == chained.head["chain"]
    assert chained.seen in [{"seq": line["seq"], "chain": line["chain"]}
                            for line in read_lines(files)]
    # In any order, and from the middle on: what is given is what is checked.
    assert verify(chained, *reversed(files))[0] == 0
    code, report, _ = verify(chained, *files[2:])
    assert code == 0 and report["first_seq"] > 1
    anchor = f"{chained.head['seq']}:{chained.head['chain']}"
    assert verify(chained, "--anchor", anchor, *files)[0] == 0
    text = chained.procs.run([CTL, "keyserver", "verify-audit", *files], check=True).stdout
    assert f"{num} lines" in text and chained.head["chain"] in text


def drop(lines, n):
    del lines[n]


def change(lines, n):
    lines[n] = lines[n].replace(b'"purpose":"tls13"', b'"purpose":"tls12"')


def swap(lines, n):
    lines[n], lines[n + 1] = lines[n + 1], lines[n]


def twice(lines, n):
    lines.insert(n, lines[n])


def strip_seal(lines, n):
    lines[n] = lines[n].rpartition(b',"seq":')[0] + b"}\n"


def reseal(lines, n):
    """Changed, and sealed anew with the right hash: the next line gives it away."""
    before = json.loads(lines[n - 1])["chain"]
    change(lines, n)
    covered = lines[n].rpartition(b',"chain":"')[0]
    digest = hashlib.sha256(bytes.fromhex(before) + covered).hexdigest()
    lines[n] = covered + b',"chain":"' + digest.encode() + b'"}\n'


def cut_line(lines, n):
    lines[n] = lines[n][:40] + b"\n"


def insert_text(lines, n):
    lines.insert(n, b"# a remark\n")


def long_line(lines, n):
    lines.insert(n, b"x" * 100000 + b"\n")


@pytest.mark.parametrize("harm, kind, offset", [
    (drop, "missing", 0), (change, "changed", 0), (swap, "missing", 0), (twice, "repeated", 1),
    (strip_seal, "unsealed", 0), (reseal, "changed", 1), (cut_line, "unsealed", 0),
    (insert_text, "unsealed", 0), (long_line, "too_long", 0),
])
def test_what_was_done_to_a_file_shows(chained, tmp_path, harm, kind, offset):
    files = all_files(chained)
    copies = []
    for n, path in enumerate(files):
        lines = path.read_bytes().splitlines(keepends=True)
        if n == 3:
            at = next(i for i in range(5, len(lines)) if b'"purpose":"tls13"' in lines[i])
            harm(lines, at)
        copies.append(tmp_path / f"audit.{n}")
        copies[-1].write_bytes(b"".join(lines))
    code, report, error = verify(chained, *copies)
    assert code == 1 and report["whole"] is False
    assert report["break"]["kind"] == kind
    assert report["break"]["file"] == str(copies[3])
    assert report["break"]["line"] == at + 1 + offset
    assert f"{copies[3]}:{at + 1 + offset}: " in error


def test_a_file_that_is_missing_shows(chained):
    files = all_files(chained)
    code, report, _ = verify(chained, files[0], *files[2:])
    assert code == 1 and report["break"]["kind"] == "missing"
    assert report["break"]["file"] == str(files[2]) and report["break"]["line"] == 1


def test_a_new_chain_in_the_place_of_the_old_one_shows(chained, tmp_path):
    """Everything sealed anew: whole in itself, and only a head noted elsewhere tells."""
    out, hash_ = [], bytes(32)
    for text in b"".join(path.read_bytes() for path in all_files(chained)).splitlines():
        covered = text.rpartition(b',"chain":"')[0].replace(b"proxy.client", b"nobody.client")
        hash_ = hashlib.sha256(hash_ + covered).digest()
        if b'"event":"' not in covered:
            out.append(covered + b',"chain":"' + hash_.hex().encode() + b'"}\n')
        else:  # marks repeat what was before them
            break
    anchor = f"{chained.head['seq']}:{chained.head['chain']}"
    forged = tmp_path / "forged"
    forged.write_bytes(b"".join(out))
    short = all_files(chained)[:-1]  # cut off at the end: whole, too, but for the anchor
    assert verify(chained, *short)[0] == 0
    code, report, _ = verify(chained, "--anchor", anchor, *short)
    assert code == 1 and report["break"]["kind"] == "anchor"
    code, report, _ = verify(chained, "--anchor", f"5:{'0' * 64}", *all_files(chained))
    assert code == 1 and report["break"]["kind"] == "anchor"


def test_a_torn_line_is_marked_and_no_error_for_ever(server):
    server.config["audit"]["chain"] = True
    server.start()
    with server.connect("proxy") as client:
        sign_many(server, client, 3)
    server.audit_wait(3, result="signed")
    server.process.kill()
    whole = server.audit_path.read_bytes()
    server.audit_path.write_bytes(whole[:-30])  # as a crash would leave it
    assert verify(server, server.audit_path)[0] == 0  # it may be in the writing just now
    assert verify(server, server.audit_path)[1]["torn_end"] is True
    server.start()
    with server.connect("proxy") as client:
        sign_many(server, client, 3)
    wait_until(lambda: b'"event":"resume"' in server.audit_path.read_bytes(), "the mark")
    server.process.stop()
    code, report, _ = verify(server, server.audit_path)
    assert code == 0 and report["torn"] == 1, report
    # The piece is bound, too.
    text = server.audit_path.read_bytes()
    piece = text.splitlines(keepends=True)[3]
    server.audit_path.write_bytes(text.replace(piece, piece[:10] + b"#" + piece[11:]))
    code, report, _ = verify(server, server.audit_path)
    assert code == 1 and report["break"]["kind"] == "unsealed"


def test_verify_says_what_it_cannot_read(chained, tmp_path):
    code, report, error = verify(chained, tmp_path / "none")
    assert code == 2 and "none" in error and report is None
    assert verify(chained, tmp_path)[0] == 2
    assert chained.procs.run([CTL, "keyserver", "verify-audit"]).returncode == 2
    assert chained.procs.run([CTL, "keyserver", "verify-audit", "--anchor", "x",
                              all_files(chained)[0]]).returncode == 2
    plain = tmp_path / "plain"
    plain.write_text('{"result":"signed"}\n')
    code, report, _ = verify(chained, plain)
    assert code == 1 and report["break"]["kind"] == "unsealed"
    plain.write_text("")
    code, report, _ = verify(chained, plain)
    assert code == 0 and report["lines"] == 0
