# SPDX-License-Identifier: Apache-2.0
"""What the three programs give up before they hear a peer: rights, system calls, files.

A whole deployment runs as another user, with sandbox "require": it does everything it
is for, and its threads try what a thief would (support/inject.py).
"""

import ctypes
import errno
import os
import pathlib
import pwd
import shutil
import signal
import socket
import stat
import tempfile

import pytest

from support import frames, inject
from support import pki as pki_module
from support.dcissuer import Issuer
from support.keyserver import KeyServer
from support.procs import BIN_DIR, SANITIZE, Procs, wait_until
from support.softhsm import SoftHsm
from support.stack import BODY, Stack
from test_keyserver_generate import generate, spki_of

PARTS = ["keyserver", "issuer", "proxy"]
USER = "nobody"
IS_ROOT = os.geteuid() == 0
PROT_READ, PROT_EXEC, MAP_PRIVATE_ANONYMOUS = 1, 4, 0x22
LANDLOCK_CREATE_RULESET, ASK_VERSION = 444, 1


def has_landlock():
    return ctypes.CDLL(None).syscall(LANDLOCK_CREATE_RULESET, None, 0, ASK_VERSION) > 0


pytestmark = pytest.mark.skipif(not has_landlock(), reason="this kernel has no Landlock")
needs_tracing = pytest.mark.skipif(not inject.is_possible(), reason="threads cannot be steered here")


class OwnedProcs(Procs):
    """Programs that become USER, to whom all belongs that is there when one starts."""

    def own(self):
        if IS_ROOT:
            user = pwd.getpwnam(USER)
            for path in [self.folder, *self.folder.rglob("*")]:
                os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)

    def start(self, name, args, **popen):
        if str(args[0]).startswith(str(BIN_DIR)):
            self.own()
        return super().start(name, args, **popen)


class Deployment:
    """All three, each with a folder of its own for what it writes."""

    def __init__(self, folder):
        self.folder = folder
        self.procs = OwnedProcs(folder / "parts")
        for path in (folder, self.procs.folder, self.procs.folder / "pki", folder / "outside"):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
        (folder / "outside").chmod(0o777)
        self.secret = folder / "outside" / "secret"
        self.secret.write_text("readable by everybody\n")
        self.logs = {}
        self.pki = pki_module.Pki(self.procs.folder / "pki")
        self.stack = Stack(self.procs, self.pki)
        self.made = self.procs.folder / "made"
        self.made.mkdir(mode=0o700)

    def confine(self, part, config):
        written = self.procs.folder / f"{part}-written"
        written.mkdir()
        self.logs[part] = [written / "log", written / "audit"]
        self.procs.notes[f"{part}-log"] = self.logs[part][0]
        config.update(log=str(self.logs[part][0]), audit={"path": str(self.logs[part][1])},
                      sandbox="require", **({"user": USER} if IS_ROOT else {}))

    def start(self):
        stack = self.stack
        ks, proxy = stack.keyserver, stack.proxy
        self.confine("keyserver", ks.config)
        ks.config["generation"] = {"folder": str(self.made)}
        ks.grant("certmanager", ["generate"], keys=["label:cm-*"])
        ks.start()
        # By names, so that the resolvers have to work.
        by_name = f"localhost:{ks.address[1]}"
        stack.issuer = Issuer(self.procs, self.pki, ks, server_addresses=[by_name])
        self.confine("issuer", stack.issuer.config)
        stack.issuer.start()
        self.confine("proxy", proxy.config)
        del proxy.config["sandbox_paths"]
        proxy.config["key_servers"] = {"servers": [{"address": by_name, "name": "localhost"}]}
        proxy.config["issuers"] = {
            "urls": [f"https://localhost:{stack.issuer.process.address('api')[1]}"],
            "tls": self.pki.tls(stack.issuer.ca, stack.issuer.client("proxy")),
        }
        proxy.config["key_servers"]["tls"] = self.pki.tls(ks.ca, ks.client("proxy"))
        proxy.config["origin"]["address"] = stack.origin.address
        self.sockets = self.procs.folder / "sockets"
        self.sockets.mkdir()
        self.add_socket("first")
        proxy.start()
        proxy.wait_credentials(stack.num_delegable())
        wait_until(lambda: proxy.metric("key_servers_ready") >= 1, "the key server")

    def add_socket(self, name):
        self.stack.proxy.config["listeners"].append(
            {"name": name, "address": f"unix:{self.sockets / name}"})

    def part(self, name):
        return {"keyserver": self.stack.keyserver, "issuer": self.stack.issuer,
                "proxy": self.stack.proxy}[name]

    def pid(self, name):
        return self.part(name).process.pid


@pytest.fixture(scope="module")
def deployment():
    # Where USER can get to, which pytest's own folder is not.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="deputy-sandbox."))
    deployment = Deployment(folder)
    try:
        deployment.start()
        yield deployment
    finally:
        try:
            deployment.procs.stop_all()
        finally:
            deployment.stack.stop()
            shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def module_procs(request):
    """So that the logs of a module's programs are shown when a test fails."""
    if "deployment" in request.fixturenames:
        return request.getfixturevalue("deployment").procs
    return Procs(pathlib.Path("."))


def statuses(pid):
    """{thread: {key: value}} of /proc/PID/task/*/status."""
    found = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        found[task.name] = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return found


# --- what is in force ---------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS)
def test_every_thread_is_inside_and_without_rights(deployment, part):
    threads = statuses(deployment.pid(part))
    assert len(threads) > 2
    for thread in threads.values():
        assert thread["Seccomp"] == "2" and thread["NoNewPrivs"] == "1", thread
        if IS_ROOT and SANITIZE != "tsan":  # whose runtime has a thread before main
            for caps in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(thread[caps], 16) == 0, thread
        if IS_ROOT:
            uid = str(pwd.getpwnam(USER).pw_uid)
            assert thread["Uid"].split() == [uid] * 4
            assert "0" not in thread["Groups"].split() + thread["Gid"].split()
    names = {thread["Name"] for thread in threads.values()}
    assert "sink" in names and (part != "proxy" or {"worker-0", "worker-1"} <= names), names
    limits = pathlib.Path(f"/proc/{deployment.pid(part)}/limits").read_text()
    line, = (x for x in limits.splitlines() if x.startswith("Max core file size"))
    assert line.split()[4:6] == ["0", "0"], line


@pytest.mark.parametrize("part", PARTS)
def test_it_says_so(deployment, part):
    log = deployment.logs[part][0]
    wait_until(lambda: "sandbox seccomp=on landlock=abi" in log.read_text(), "the line")
    line, = (x for x in log.read_text().splitlines() if " sandbox " in x)
    assert line.startswith("info") and "no_new_privs=on" in line and "files=" not in line
    for kind in ("seccomp", "landlock", "no_new_privs"):
        assert deployment.part(part).metric("sandbox_active", kind=kind) == 1


# --- it works -----------------------------------------------------------------------------


def test_both_kinds_of_handshakes(deployment):
    stack = deployment.stack
    result = stack.nss().run("demo.test")
    assert result.got_dc, result
    assert stack.get() == BODY


def test_keys_are_made_and_read_again(deployment):
    ks = deployment.stack.keyserver
    spki = spki_of(generate(ks, "p256", "cm-1"))
    assert (deployment.made / "cm-1.key").exists()
    ks.add_key("later", "p256")
    deployment.procs.own()
    ks.reload()
    with ks.connect("proxy") as client:
        for ski in (ks.keys["later"].ski(), pki_module.spki_ski(spki)):
            assert client.sign(1, frames.ECDSA_SHA256, ski, frames.tls13_message()).error is None


def test_reloads_bring_names_and_listeners(deployment):
    stack = deployment.stack
    stack.add_name("new.test")
    deployment.procs.own()
    stack.keyserver.reload()
    stack.issuer.reload()
    deployment.add_socket("second")
    stack.proxy.config["listeners"].append({"name": "more", "address": "127.0.0.1:0"})
    stack.proxy.reload()
    assert stack.get("new.test") == BODY
    assert stat.S_ISSOCK((deployment.sockets / "second").stat().st_mode)
    stack.proxy.wait_credentials(stack.num_delegable())


def test_a_switch_is_kept(deployment):
    proxy = deployment.stack.proxy
    proxy.ctl("switch", "--name", "demo.test", "--to", "backup", "--reason", "a test")
    assert "demo.test" in (proxy.folder / "states.json").read_text()


def test_files_are_opened_again(deployment):
    for part in PARTS:
        for path in deployment.logs[part]:
            path.rename(f"{path}.1")
        deployment.part(part).process.signal(signal.SIGUSR1)
        wait_until(lambda: all(path.exists() for path in deployment.logs[part]), "new files")


# --- a thief's attempts -------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS)
@needs_tracing
def test_files_of_others_are_out_of_reach_of_every_thread(deployment, part):
    calls = inject.Calls(deployment.procs, deployment.pid(part))
    config = deployment.procs.folder / {"issuer": "dcissuer.json"}.get(part, f"{part}.json")
    num = len(statuses(deployment.pid(part)))

    def open_file(path, flags):
        return calls.each("openat", inject.AT_FDCWD, str(path), flags, 0o600)

    assert all(fd >= 0 for fd in open_file(config, os.O_RDONLY)), "the attempt itself does not work"
    if not SANITIZE:
        assert open_file(deployment.secret, os.O_RDONLY) == [-errno.EACCES] * num
        assert open_file("/proc/self/environ", os.O_RDONLY) == [-errno.EACCES] * num
    # Its own files, its user's, everybody's: only where it has something to write.
    for path in (config, deployment.procs.folder / "pki" / "new", deployment.folder / "outside/new"):
        assert open_file(path, os.O_WRONLY | os.O_CREAT) == [-errno.EACCES] * num
    new = deployment.logs[part][0].with_name("new")
    assert min(open_file(new, os.O_WRONLY | os.O_CREAT)) >= 0


@pytest.mark.parametrize("part", PARTS)
@needs_tracing
def test_calls_without_use_are_refused_in_every_thread(deployment, part):
    calls = inject.Calls(deployment.procs, deployment.pid(part))
    num = len(statuses(deployment.pid(part)))
    assert calls.each("socket", socket.AF_NETLINK, socket.SOCK_RAW, 0) == [-errno.EAFNOSUPPORT] * num
    if SANITIZE:
        return  # what is not deadly is allowed there
    assert calls.each("mmap", 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE_ANONYMOUS, -1,
                      0) == [-errno.EPERM] * num
    assert calls.each("io_uring_setup", 1, 0) == [-errno.ENOSYS] * num
    internet = calls.each("socket", socket.AF_INET, socket.SOCK_STREAM, 0)
    if part == "keyserver":  # calls nobody
        assert internet == [-errno.ENOSYS] * num
    else:
        assert min(internet) >= 0
    assert calls.each("kill", os.getpid(), 0) == [-errno.ENOSYS] * num


def test_all_of_them_end_well(deployment):
    for part in reversed(PARTS):
        deployment.part(part).process.stop()


DEADLY = [("setuid", 0), ("socket", socket.AF_PACKET, socket.SOCK_RAW, 0)]
if not SANITIZE:
    DEADLY += [("execve", "/bin/true", 0, 0), ("fork",), ("clone", 0, 0, 0, 0, 0),
               ("ptrace", 0, 0, 0, 0)]


@pytest.mark.parametrize("part", PARTS)
@needs_tracing
def test_what_no_honest_line_does_is_the_end(deployment, part):
    for attempt in DEADLY if part == "keyserver" else DEADLY[-1:]:
        if part == "issuer":
            deployment.part(part).start(ready=False)
        else:
            deployment.part(part).start()
        process = deployment.part(part).process
        process.expected_exit = {-signal.SIGSYS}
        assert inject.Calls(deployment.procs, process.pid).main(*attempt) is None
        assert process.wait() == -signal.SIGSYS, attempt
    process.stop()


def free_low_port():
    for port in range(1023, 512, -1):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    pytest.skip("no low port is free")


@pytest.mark.skipif(not IS_ROOT or not shutil.which("setpriv"), reason="nobody to lend rights")
def test_a_right_that_was_lent_is_given_back():
    """As AmbientCapabilities= of systemd gives a service its low port."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        (folder / "pki").mkdir()
        procs = OwnedProcs(folder)
        ks = KeyServer(procs, pki_module.Pki(folder / "pki"))
        ks.add_key("file", "p256")
        ks.config["listen"] = [f"127.0.0.1:{free_low_port()}"]
        procs.own()
        ks.process = procs.daemon_start(
            "deputy-keyserver", ks.config, "keyserver",
            wrap=["setpriv", "--reuid", USER, "--clear-groups", "--inh-caps=-all,+net_bind_service",
                  "--ambient-caps=-all,+net_bind_service", "--"]).wait_ready()
        try:
            assert ks.address[1] < 1024
            for thread in statuses(ks.process.pid).values():
                for caps in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                    assert int(thread[caps], 16) == 0, thread
        finally:
            procs.stop_all()


# --- what an operator says ----------------------------------------------------------------


@pytest.fixture
def ks(procs, pki):
    ks = KeyServer(procs, pki)
    ks.add_key("file", "p256")
    return ks


def sandbox_line(ks):
    wait_until(lambda: " sandbox " in ks.process.err(), "the line")
    line, = (x for x in ks.process.err().splitlines() if " sandbox " in x)
    return line


def test_off_leaves_what_costs_nothing(ks):
    ks.config["sandbox"] = "off"
    ks.start()
    for thread in statuses(ks.process.pid).values():
        assert thread["Seccomp"] == "0" and thread["NoNewPrivs"] == "1"
    assert "seccomp=off landlock=off no_new_privs=on" in sandbox_line(ks)
    assert ks.metric("sandbox_active", kind="seccomp") == 0
    assert ks.metric("sandbox_active", kind="no_new_privs") == 1
    ks.config["sandbox"] = "auto"
    ks.reload()
    wait_until(lambda: "restart_needed option=sandbox" in ks.process.err(), "the warning")


def test_it_is_on_by_default(ks):
    ks.start()
    assert all(thread["Seccomp"] == "2" for thread in statuses(ks.process.pid).values())
    assert "landlock=abi" in sandbox_line(ks)


@pytest.mark.skipif(bool(SANITIZE), reason="there everything may be read")
def test_a_reload_that_names_a_folder_elsewhere(ks, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    ks.start()
    ks.config["key_folders"].append(str(elsewhere))
    ks.reload(result="failed")
    wait_until(lambda: "sandbox_paths" in ks.process.err(), "the hint")
    ks.process.stop()
    ks.config["key_folders"].pop()
    ks.config["sandbox_paths"] = [str(elsewhere)]
    ks.start()
    ks.config["key_folders"].append(str(elsewhere))
    ks.reload()


# --- PKCS #11 modules -----------------------------------------------------------------------


@pytest.fixture
def token(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SOFTHSM2_CONF", "")
    return SoftHsm(tmp_path_factory.mktemp("softhsm"), os.environ).token("t1")


def sign(ks, spki):
    with ks.connect("proxy") as client:
        return client.sign(1, frames.ECDSA_SHA256, pki_module.spki_ski(spki),
                           frames.tls13_message()).error


def test_a_modules_files_are_its_own_business(ks, token):
    spki = token.generate("ec1", "EC:prime256v1")
    ks.config["pkcs11"] = [token.entry("ec1")]
    ks.start()
    assert "files=modules" in sandbox_line(ks)
    assert sign(ks, spki) is None


@needs_tracing
def test_unless_the_operator_says_which(ks, token, tmp_path_factory):
    spki = token.generate("ec1", "EC:prime256v1")
    ks.config["pkcs11"] = [token.entry("ec1")]
    ks.config["sandbox_paths"] = [str(token.hsm.folder)]
    ks.start()
    assert "files=" not in sandbox_line(ks)
    assert sign(ks, spki) is None
    new = str(tmp_path_factory.mktemp("outside") / "new")
    calls = inject.Calls(ks.procs, ks.process.pid)
    assert set(calls.each("openat", inject.AT_FDCWD, new, os.O_WRONLY | os.O_CREAT, 0o600)) == {
        -errno.EACCES}


@pytest.mark.skipif(bool(SANITIZE), reason="there code may be loaded")
def test_the_first_module_needs_a_restart(ks, token):
    spki = token.generate("ec1", "EC:prime256v1")
    ks.start()
    ks.config["pkcs11"] = [token.entry("ec1")]
    ks.reload(result="failed")
    wait_until(lambda: "restart makes it know others" in ks.process.err(), "the reason")
    ks.process.stop()
    ks.start()
    assert sign(ks, spki) is None
