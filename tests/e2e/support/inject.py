# SPDX-License-Identifier: Apache-2.0
"""Makes a running process do a system call, in each of its threads: what somebody could
try who has taken it over. By ptrace, for which one must be root.

    calls = inject.Calls(procs, pid)
    calls.each("openat", AT_FDCWD, "/etc/passwd", 0, 0)    # [-errno.EACCES, ...]
    calls.main("execve", "/bin/true", 0, 0)                # None: it did not live to tell

A thread that stands in a system call has the instruction behind it; that one is used
again, with other registers, and then all is put back. It is this file that traces, as a
program of its own: the parent of a process should not also be its tracer.
"""

import ctypes
import json
import os
import pathlib
import platform
import signal
import struct
import sys

AT_FDCWD = -100
# Linux on x86-64.
NUMBERS = {"read": 0, "close": 3, "mmap": 9, "mprotect": 10, "socket": 41, "connect": 42, "bind": 49,
           "clone": 56, "fork": 57, "execve": 59, "kill": 62, "unlink": 87, "ptrace": 101,
           "setuid": 105, "openat": 257, "io_uring_setup": 425}
SINGLESTEP, GETREGS, SETREGS, ATTACH, DETACH = 9, 12, 13, 16, 17
WALL = 0x40000000
NUM_REGS = 27
R10, R9, R8, RAX, RDX, RSI, RDI, ORIG_RAX, RIP, RSP = 7, 8, 9, 10, 12, 13, 14, 15, 16, 19
SYSCALL = b"\x0f\x05"


def is_possible():
    """Our programs forbid ptrace; only who has CAP_SYS_PTRACE passes."""
    if platform.machine() != "x86_64":
        return False
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & (1 << 19))
    return False


class Calls:
    """System calls by the threads of `pid`. Results are as the kernel gives them: a
    negated errno is a refusal; None: the process ended by it."""

    def __init__(self, procs, pid):
        self.procs = procs
        self.pid = pid

    def _run(self, *args):
        done = self.procs.run([sys.executable, "-B", __file__, self.pid, json.dumps(args)],
                              check=True)
        return json.loads(done.stdout)

    def each(self, name, *args):
        """One result for each thread, the first one first."""
        return self._run(True, name, *args)

    def main(self, name, *args):
        return self._run(False, name, *args)[0]


# --- the tracer ------------------------------------------------------------------------

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, tid, data=None):
    if libc.ptrace(request, tid, None, data) < 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request} of {tid}")


class Thread:
    """A thread that stands still from here on."""

    def __init__(self, pid, tid):
        self.tid = tid
        self.mem = os.open(f"/proc/{pid}/mem", os.O_RDWR)
        ptrace(ATTACH, tid)
        self.wait()
        self.regs = self.read_regs()

    def wait(self):
        """Waits until it stands; False when it is no more."""
        _, status = os.waitpid(self.tid, WALL)
        return os.WIFSTOPPED(status)

    def read_regs(self):
        regs = (ctypes.c_ulonglong * NUM_REGS)()
        ptrace(GETREGS, self.tid, ctypes.cast(regs, ctypes.c_void_p))
        return regs

    def write_regs(self, regs):
        ptrace(SETREGS, self.tid, ctypes.cast(regs, ctypes.c_void_p))

    def is_in_call(self):
        return os.pread(self.mem, 2, self.regs[RIP] - 2) == SYSCALL

    def call(self, at, number, args):
        """Runs the instruction at `at` for this call, and puts everything back."""
        regs = (ctypes.c_ulonglong * NUM_REGS)(*self.regs)
        free = self.regs[RSP] - 4096  # far below what the stack holds
        for place, arg in zip((RDI, RSI, RDX, R10, R8, R9), args):
            if isinstance(arg, str):
                data = arg.encode() + b"\0"
                os.pwrite(self.mem, data, free)
                regs[place], free = free, free + len(data)
            else:
                regs[place] = arg & (2**64 - 1)
        # No call is under way any more, so none is to be begun again.
        regs[RIP], regs[RAX], regs[ORIG_RAX] = at, number, 2**64 - 1
        self.write_regs(regs)
        ptrace(SINGLESTEP, self.tid)
        if not self.wait():
            return None
        result, = struct.unpack("q", struct.pack("Q", self.read_regs()[RAX]))
        self.write_regs(self.regs)
        return result

    def release(self):
        ptrace(DETACH, self.tid)
        os.close(self.mem)


def trace(pid, is_each, name, *args):
    tids = sorted(int(tid) for tid in os.listdir(f"/proc/{pid}/task")) if is_each else [pid]
    threads = [Thread(pid, tid) for tid in tids]
    at = next(t.regs[RIP] - 2 for t in threads if t.is_in_call())
    results = []
    for thread in threads:
        results.append(thread.call(at, NUMBERS[name], args))
        if results[-1] is not None:
            thread.release()
    return results


if __name__ == "__main__":
    signal.alarm(60)
    print(json.dumps(trace(int(sys.argv[1]), *json.loads(sys.argv[2]))))
