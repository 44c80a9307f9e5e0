# SPDX-License-Identifier: Apache-2.0
"""Switches over the life of a proxy: restarts, kill -9, disks that fail, a damaged file;
reloads by deputyctl; and what deputyctl says when it reaches no proxy."""

import json
import os
import shutil
import socket
import stat
import subprocess

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from support.procs import BIN_DIR, wait_until
from support.stack import Stack


@pytest.fixture
def stack(procs, pki):
    stack = Stack(procs, pki, issuer=False)
    stack.proxy.states = stack.proxy.folder / "kept" / "states.json"
    stack.proxy.states.parent.mkdir()
    stack.proxy.config["states"] = str(stack.proxy.states)
    stack.start()
    yield stack
    stack.stop()


def issuer(stack, host="demo.test"):
    with stack.connect(host) as tls:
        cert = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True))
    return cert.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value


def start_again(stack):
    """A second proxy process on the same configuration and states."""
    stack.proxy.start()
    wait_until(lambda: stack.proxy.metric("key_servers_ready") >= 1, "the key server")


# --- what is kept ------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_switch_survives(stack, end):
    stack.proxy.ctl("switch", "--ca", "web-one", "--reason", "kept")
    assert stat.S_IMODE(stack.proxy.states.stat().st_mode) == 0o600
    getattr(stack.proxy.process, end)()
    start_again(stack)
    assert issuer(stack) == "web-two"
    change = json.loads(stack.proxy.ctl("switches", "--json").stdout)["switches"][0]
    assert change["reason"] == "kept" and change["stands"] is True
    stack.proxy.ctl("restore", change["id"])
    getattr(stack.proxy.process, end)()
    start_again(stack)
    assert issuer(stack) == "web-one"
    # Ids go on where they were: the history of a proxy has each number once.
    done = stack.proxy.ctl("switch", "--name", "demo.test", "--reason", "x", "--json")
    assert json.loads(done.stdout)["id"] == change["id"] + 1


def test_what_was_answered_survives_kill_9_in_the_middle(stack):
    """deputyctl runs in a loop while the proxy is killed, again and again."""
    answered = []
    for _ in range(10):
        loop = subprocess.Popen(
            ["/bin/sh", "-c", 'while "$0" --socket "$1" --json switch --name demo.test --to $2 '
             '--reason x >>"$3" && "$0" --socket "$1" --json switch --name demo.test --to $4 '
             '--reason x >>"$3"; do :; done', BIN_DIR / "deputyctl", stack.proxy.socket_path,
             "backup", stack.procs.folder / "answers", "primary"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        answers = stack.procs.folder / "answers"
        size = answers.stat().st_size if answers.exists() else 0
        wait_until(lambda: answers.exists() and answers.stat().st_size > size + 1000, "answers")
        stack.proxy.process.kill()
        loop.wait(10)
        decoder, text, at = json.JSONDecoder(), answers.read_text(), 0
        answered = []
        while at < len(text):
            value, at = decoder.raw_decode(text, at)
            answered.append(value["id"])
            at += 1
        start_again(stack)
        kept = json.loads(stack.proxy.ctl("switches", "--json").stdout)["switches"]
        assert set(answered) <= {c["id"] for c in kept}
    assert len(answered) > 20


def test_a_damaged_file_stops_the_start(stack):
    stack.proxy.ctl("switch", "--ca", "web-one", "--reason", "kept")
    stack.proxy.process.stop()
    whole = stack.proxy.states.read_bytes()
    for damaged in (whole[:-3], b"", b"\0" * len(whole), whole.replace(b'"out"', b'"off"'),
                    whole.replace(b'"version": 1', b'"version": 2')):
        stack.proxy.states.write_bytes(damaged)
        stack.proxy.start(wait=False)
        process = stack.proxy.process
        process.expected_exit = {1, 2}
        assert process.wait() in (1, 2)
        assert str(stack.proxy.states) in process.err(), process.err()
        assert "ut back a copy" in process.err() or "tart the version" in process.err()
        assert stack.proxy.states.read_bytes() == damaged
    stack.proxy.states.write_bytes(whole)
    start_again(stack)
    assert issuer(stack) == "web-two"


def test_a_switch_that_cannot_be_written_is_refused_or_forced(stack):
    folder = stack.proxy.states.parent
    aside = folder.with_name("aside")
    folder.rename(aside)
    args = ["switch", "--ca", "web-one", "--reason", "x"]
    done = stack.proxy.ctl(*args, check=False)
    assert done.returncode == 1 and "No such file" in done.stderr, done
    assert issuer(stack) == "web-one"
    done = stack.proxy.ctl(*args, "--force")
    assert "in memory only" in done.stderr
    assert issuer(stack) == "web-two"
    assert "ALERT: switches are in memory only" in stack.proxy.ctl("status").stdout
    assert "deputy_states_kept 0\n" in stack.proxy.ctl("metrics").stdout
    # The next change, or the next try, keeps what was forced as well.
    aside.rename(folder)
    stack.proxy.ctl("switch", "--name", "demo.test", "--to", "backup", "--reason", "y")
    assert "ALERT" not in stack.proxy.ctl("status").stdout
    stack.proxy.process.kill()
    start_again(stack)
    assert issuer(stack) == "web-two"
    assert len(json.loads(stack.proxy.ctl("switches", "--json").stdout)["switches"]) == 2


def test_a_folder_that_is_not_there_stops_the_start(stack):
    stack.proxy.process.stop()
    shutil.rmtree(stack.proxy.states.parent)
    stack.proxy.start(wait=False)
    stack.proxy.process.expected_exit = {1, 2}
    assert stack.proxy.process.wait() in (1, 2)
    assert "no switch would survive a restart" in stack.proxy.process.err()


# --- reload ------------------------------------------------------------------------------


def test_reload_by_deputyctl(stack):
    stack.proxy.ctl("switch", "--ca", "web-one", "--reason", "before")
    stack.add_name("new.test")
    stack.keyserver.reload()
    stack.proxy.write_config()
    assert stack.proxy.ctl("reload").stdout == "reloaded: 2 names, 4 chains\n"
    # What was said of the CA holds for chains that were not there when it was said.
    assert issuer(stack, "new.test") == "web-two"
    stack.proxy.write_config('{"listeners": []}')
    done = stack.proxy.ctl("reload", check=False)
    assert done.returncode == 1 and "proxy.json" in done.stderr, done
    assert issuer(stack, "new.test") == "web-two"


def test_a_switch_of_a_name_that_is_gone_can_be_restored(stack):
    stack.add_name("gone.test")
    stack.keyserver.reload()
    stack.proxy.write_config()
    stack.proxy.ctl("reload")
    stack.proxy.ctl("switch", "--name", "gone.test", "--reason", "x")
    del stack.proxy.config["names"][-1]
    stack.proxy.write_config()
    stack.proxy.ctl("reload")
    assert "gone.test" in stack.proxy.ctl("switches", "--standing").stdout
    assert "restored" in stack.proxy.ctl("restore", "--name", "Gone.test").stdout
    assert stack.proxy.ctl("switches", "--standing").stdout == "no switches\n"


# --- reaching the proxy ---------------------------------------------------------------------


def ctl(procs, socket_path, *args, **kwargs):
    return procs.run([BIN_DIR / "deputyctl", "--socket", socket_path, *args], **kwargs)


def test_no_socket(procs, tmp_path):
    path = tmp_path / "none.sock"
    done = ctl(procs, path, "status")
    assert done.returncode == 4 and done.stdout == ""
    assert f"there is no socket {path}" in done.stderr and "is deputy-proxy running" in done.stderr
    done = procs.run([BIN_DIR / "deputyctl", "status"], env={"DEPUTY_SOCKET": str(path)})
    assert done.returncode == 4 and str(path) in done.stderr
    done = ctl(procs, "/" + "x" * 200, "status")
    assert done.returncode == 4 and "too long" in done.stderr


def test_nobody_listens(procs, tmp_path):
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(path))
    done = ctl(procs, path, "switch", "--ca", "x", "--reason", "y")
    assert done.returncode == 4 and "nobody listens" in done.stderr


def test_not_permitted(procs, tmp_path):
    path = tmp_path / "shut.sock"
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(path))
        s.listen()
        path.chmod(0)
        for folder in [tmp_path, *tmp_path.parents][:3]:
            folder.chmod(folder.stat().st_mode | 0o055)
        shutil.copy(BIN_DIR / "deputyctl", tmp_path / "deputyctl")
        if os.getuid() == 0:
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        else:
            command = []
        done = procs.run([*command, tmp_path / "deputyctl", "--socket", path, "status"])
    assert done.returncode == 4 and "you may not use the socket" in done.stderr, done


@pytest.mark.parametrize("command, answer", [
    ("status", b"SSH-2.0-something\r\n"),  # something else listens
    ("names", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"names\": ["),  # it ends
])
def test_what_answers_is_no_proxy_or_ends_in_the_middle(tmp_path, command, answer):
    path = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(path))
        s.listen()
        run = subprocess.Popen([BIN_DIR / "deputyctl", "--socket", path, command],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        conn, _ = s.accept()
        conn.recv(65536)
        conn.sendall(answer)
        conn.close()
        out, err = run.communicate(timeout=20)
    assert run.returncode == 4 and out == "" and "did not answer" in err


def test_standard_output_that_is_full(stack):
    with open("/dev/full", "w") as full:
        done = subprocess.run([BIN_DIR / "deputyctl", "--socket", stack.proxy.socket_path, "status"],
                              stdout=full, stderr=subprocess.PIPE, text=True, timeout=20)
    assert done.returncode == 1 and "standard output" in done.stderr


def test_help_names_every_command(procs):
    text = procs.run([BIN_DIR / "deputyctl", "--help"], check=True).stdout
    commands = [line.split()[0] for line in text.split("commands:\n")[1].split("\n\n")[0].splitlines()]
    assert {"status", "names", "switch", "restore", "switches", "drill", "dc", "reload",
            "metrics"} <= set(commands)
    for command in commands:
        done = procs.run([BIN_DIR / "deputyctl", command, "--help"], check=True)
        assert done.stdout.startswith(f"usage: deputyctl {command}")
