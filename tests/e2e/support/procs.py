# SPDX-License-Identifier: Apache-2.0
"""Programs under test: started, awaited, stopped, and their logs shown on failure.

A daemon of ours listens on port 0 and prints, once it serves, one line of JSON
on standard output with the addresses that the kernel chose (common/net/ready.h);
`Procs.daemon` waits for it. Other programs are awaited by a condition. Nothing
here sleeps and hopes.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time

SOURCE_DIR = pathlib.Path(
    os.environ.get("DEPUTY_SOURCE_DIR") or pathlib.Path(__file__).resolve().parents[3])
BIN_DIR = pathlib.Path(os.environ.get("DEPUTY_BIN_DIR") or SOURCE_DIR / "build/dev/bin")
SANITIZE = os.environ.get("DEPUTY_SANITIZE", "")

# Instrumented programs are slower: every deadline is stretched by this.
SLOW = 4 if SANITIZE else 1
# What a sanitizer's finding exits with (cmake/Targets.cmake).
SANITIZER_EXIT = 66
LOG_SHOWN = 16000  # characters of each log's end
NOTE_SHOWN = 3000  # the same, of logs that are long and regular


def wait_until(condition, what, timeout=10.0, interval=0.01):
    """Polls `condition` until it gives something true, which is returned."""
    deadline = time.monotonic() + timeout * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout * SLOW:.0f} s in vain for {what}")
        time.sleep(interval)


def split_address(text):
    """("127.0.0.1", 1234) of "127.0.0.1:1234"; the path of "unix:/path"."""
    if text.startswith("unix:"):
        return text[len("unix:"):]
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def free_port():
    """A port that was free just now, for programs that cannot listen on port 0."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Process:
    """One started program; standard output and error go to files."""

    def __init__(self, name, args, folder, **popen):
        self.name = name
        self.args = [str(a) for a in args]
        self.out_path = folder / f"{name}.out"
        self.err_path = folder / f"{name}.err"
        self.listeners = {}
        self.expected_exit = {0}
        self.is_checked = False
        with open(self.out_path, "wb") as out, open(self.err_path, "wb") as err:
            self.popen = subprocess.Popen(self.args, stdin=subprocess.DEVNULL, stdout=out,
                                          stderr=err, **popen)

    @property
    def pid(self):
        return self.popen.pid

    def out(self):
        return self.out_path.read_text(errors="backslashreplace")

    def err(self):
        return self.err_path.read_text(errors="backslashreplace")

    def is_running(self):
        return self.popen.poll() is None

    def wait_ready(self, timeout=10.0):
        """Waits for the readiness line, and keeps the addresses it names."""

        def line():
            for text in self.out().splitlines(keepends=True):
                if text.endswith("\n") and '"ready":true' in text:
                    return json.loads(text)
            if not self.is_running():
                raise AssertionError(f"{self.name} ended with {self.popen.returncode} before it was "
                                     f"ready:\n{self.err()[-LOG_SHOWN:]}")
            return None

        ready = wait_until(line, f"{self.name} to be ready", timeout)
        for listener in ready["listeners"]:
            self.listeners[listener["name"]] = split_address(listener["address"])
        return self

    def address(self, name=None):
        """(host, port) or path of the listener `name`, or of the only one."""
        if name is None:
            assert len(self.listeners) == 1, self.listeners
            return next(iter(self.listeners.values()))
        return self.listeners[name]

    def signal(self, signo):
        self.popen.send_signal(signo)

    def wait(self, timeout=10.0):
        """Waits for the end and returns the exit code; checks nothing."""
        code = self.popen.wait(timeout * SLOW)
        if code == SANITIZER_EXIT:
            raise AssertionError(f"{self.name}: a sanitizer found something:\n{self.err()}")
        return code

    def stop(self, timeout=10.0):
        """SIGTERM, then the end within `timeout`, with an expected exit code."""
        if self.is_checked:
            return
        self.is_checked = True
        if self.is_running():
            self.signal(signal.SIGTERM)
        try:
            code = self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"{self.name} did not end on SIGTERM in {timeout * SLOW:.0f} s")
        assert code in self.expected_exit, (
            f"{self.name} ended with {code}:\n{self.err()[-LOG_SHOWN:]}")

    def freeze(self):
        """SIGSTOP, and returns when every thread stands still: a process that hangs."""
        self.signal(signal.SIGSTOP)
        tasks = pathlib.Path(f"/proc/{self.pid}/task")
        wait_until(lambda: all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T"
                               for task in tasks.iterdir()), f"{self.name} to stand still")

    def thaw(self):
        self.signal(signal.SIGCONT)

    def kill(self):
        """SIGKILL, the way power fails."""
        self.is_checked = True
        if self.is_running():
            self.popen.kill()
        self.popen.wait()

    def cpu_s(self):
        """User and system time so far, in seconds."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_bytes(self):
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def num_fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))


class Procs:
    """The processes of one test; the fixture `procs` stops them all."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        self.notes = {}  # name: path of further logs to show on failure

    def start(self, name, args, **popen):
        """Starts a program. A foreign one may end in its own way: see stop_all."""
        names = [p.name for p in self.processes]
        unique = name if name not in names else f"{name}.{len(names)}"
        process = Process(unique, args, self.folder, **popen)
        self.processes.append(process)
        return process

    def foreign(self, name, args, **popen):
        """Starts a program that is not ours: any end is fine."""
        process = self.start(name, args, **popen)
        process.expected_exit = range(-64, 256)
        return process

    def daemon(self, program, config, name=None, args=(), timeout=10.0, **popen):
        """Starts a daemon of ours with a configuration (a dict), and waits for it."""
        process = self.daemon_start(program, config, name, args, **popen)
        return process.wait_ready(timeout)

    def daemon_start(self, program, config, name=None, args=(), wrap=(), **popen):
        """`wrap`: a program that becomes ours, and its arguments."""
        name = name or program
        path = self.folder / f"{name}.json"
        if config is not None:
            path.write_text(json.dumps(config, indent=2))
        popen.setdefault("cwd", self.folder)
        return self.start(name, [*wrap, BIN_DIR / program, "--config", path, *args], **popen)

    def run(self, args, timeout=30.0, check=False, **kwargs):
        """Runs a program to its end and returns it with its output as text."""
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        if "input" in kwargs:
            del kwargs["stdin"]
        done = subprocess.run([str(a) for a in args], capture_output=True, text=True,
                              errors="backslashreplace", timeout=timeout * SLOW, check=False,
                              **kwargs)
        if done.returncode == SANITIZER_EXIT and str(args[0]).startswith(str(BIN_DIR)):
            raise AssertionError(f"{args[0]}: a sanitizer found something:\n{done.stderr}")
        if check and done.returncode != 0:
            raise AssertionError(f"{args} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def logs(self):
        """(title, text) of everything worth showing when a test fails."""
        for process in self.processes:
            state = "running" if process.is_running() else f"ended: {process.popen.returncode}"
            title = f"{process.name} ({' '.join(process.args)}; {state})"
            yield title, (process.out() + process.err())[-LOG_SHOWN:]
        for name, path in self.notes.items():
            if path.exists():
                yield name, path.read_text(errors="backslashreplace")[-NOTE_SHOWN:]

    def stop_all(self):
        """Stops what still runs, all of it, and only then complains."""
        complaints = []
        for process in reversed(self.processes):
            try:
                process.stop()
            except AssertionError as e:
                complaints.append(str(e))
        assert not complaints, "\n".join(complaints)
