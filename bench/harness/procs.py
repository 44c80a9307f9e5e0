# SPDX-License-Identifier: Apache-2.0
"""The processes of a run: started on a core, awaited, measured, and ended again.

Only what was started here is ever ended, by its process id. CPU time is that of the
process's CPU clock (nanoseconds, user and system, every thread, also those that are
gone), added up over the process and its descendants."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time

from harness.base import BenchError, wait_until

LOG_SHOWN = 3000  # characters of a log in a message


def children(pid):
    """Process ids of the living descendants of `pid`, itself first."""
    found = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += children(int(child))
    return found


def cpu_of(pid):
    """CPU seconds so far of one process; 0 when it is gone."""
    # clock_getcpuclockid(3), as the kernel encodes it: every thread, scheduler's clock.
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def stat_split(pid):
    """(user, system) seconds so far, as /proc/PID/stat counts them, in ticks."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0.0
    tick = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / tick, int(fields[12]) / tick


def memory_of(pid):
    """Proportional set size in bytes; without smaps_rollup, the resident size."""
    for name, key in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{pid}/{name}").read_text().splitlines():
                if line.startswith(key):
                    return int(line.split()[1]) * 1024
    return 0


class Process:
    """One program. `core` pins it; `prefix` is put before it (ip netns exec ...)."""

    def __init__(self, name, args, folder, core=None, prefix=(), stdin=subprocess.DEVNULL):
        self.name = name
        self.args = [str(a) for a in args]
        self.out_path = folder / f"{name}.out"
        self.err_path = folder / f"{name}.err"
        words = [*prefix]
        if core is not None:
            words += ["taskset", "-c", str(core)]
        with open(self.out_path, "wb") as out, open(self.err_path, "ab") as err:
            try:
                # A session of its own: Ctrl-C reaches bench/run alone, which ends its children.
                self.popen = subprocess.Popen([*words, *self.args], stdin=stdin, stdout=out,
                                              stderr=err, cwd=folder, start_new_session=True)
            except OSError as e:
                raise BenchError(f"{name} cannot be started: {e}") from e
        self.ready = None

    @property
    def pid(self):
        return self.popen.pid

    def is_running(self):
        return self.popen.poll() is None

    def log(self):
        text = self.out_path.read_text(errors="replace") + self.err_path.read_text(errors="replace")
        return text[-LOG_SHOWN:]

    def check(self):
        if not self.is_running():
            raise BenchError(f"{self.name} ended with {self.popen.returncode}:\n{self.log()}")

    def wait_ready(self, timeout=20.0):
        """Waits for the JSON line that our programs print when they serve."""

        def is_ready():
            self.check()
            text = self.out_path.read_text(errors="replace")
            if "\n" in text:
                self.ready = json.loads(text.splitlines()[0])
            return self.ready is not None

        wait_until(is_ready, f"{self.name} to be ready", timeout)
        return self

    def address(self, name):
        for listener in self.ready["listeners"]:
            if listener["name"] == name:
                return listener["address"]
        raise BenchError(f"{self.name} does not say where {name} is: {self.ready}")

    def pids(self):
        return children(self.pid)

    def cpu_s(self):
        return sum(cpu_of(pid) for pid in self.pids())

    def memory(self):
        return sum(memory_of(pid) for pid in self.pids())

    def signal(self, signo):
        with contextlib.suppress(ProcessLookupError):
            self.popen.send_signal(signo)

    def stop(self, timeout=5.0):
        if not self.is_running():
            return
        family = self.pids()
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        for pid in family[1:]:  # a worker that outlived its master
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def kill(self):
        """The way power fails."""
        self.popen.kill()
        self.popen.wait()


class Procs:
    """All processes of a study; `stop` ends them, the last one first."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []

    def start(self, name, args, **how):
        names = {p.name for p in self.processes}
        unique, i = name, 2
        while unique in names:
            unique, i = f"{name}.{i}", i + 1
        process = Process(unique, args, self.folder, **how)
        self.processes.append(process)
        return process

    def stop(self):
        for process in reversed(self.processes):
            process.stop()
        self.processes.clear()


def run(args, timeout=60.0, core=None, prefix=(), input=None):
    """Runs a program to its end; returns the CompletedProcess (text)."""
    words = [*prefix]
    if core is not None:
        words += ["taskset", "-c", str(core)]
    words += [str(a) for a in args]
    try:
        return subprocess.run(words, capture_output=True, text=True, errors="replace",
                              timeout=timeout, check=False, input=input,
                              stdin=None if input is not None else subprocess.DEVNULL,
                              start_new_session=True)
    except FileNotFoundError as e:
        raise BenchError(f"{words[0]}: {e.strerror}") from e
    except subprocess.TimeoutExpired as e:
        raise BenchError(f"{args[0]} did not end within {timeout:.0f} s") from e


def checked(args, **how):
    """The same; BenchError unless it exits 0."""
    done = run(args, **how)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(map(str, args))} ended with {done.returncode}:\n"
                         f"{(done.stdout + done.stderr)[-LOG_SHOWN:]}")
    return done
