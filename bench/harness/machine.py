# SPDX-License-Identifier: Apache-2.0
"""What a report must say of the machine and of the versions that were measured."""

import os
import pathlib
import platform
import re

from harness.base import ROOT, which
from harness.procs import run


def first_line(args):
    program = args[0] if "/" in args[0] else which(args[0])
    if program is None:
        return "not installed"
    done = run([program, *args[1:]])
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else "?"


def processor():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    found = re.search(r"model name\s*:\s*(.*)", text)
    return found.group(1).strip() if found else platform.machine()


def memory():
    found = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return f"{int(found.group(1)) / 1048576:.1f} GiB" if found else "?"


def commit():
    done = run(["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"])
    if done.returncode != 0:
        return "not a git tree"
    dirty = run(["git", "-C", ROOT, "status", "--porcelain", "--untracked-files=no", "--",
                 "common", "certstore", "proxy", "keyserver", "dcissuer", "bench"])
    return done.stdout.strip() + (" with uncommitted changes" if dirty.stdout.strip() else "")


def about(programs):
    return {
        "processor": processor(),
        "processors": len(os.sched_getaffinity(0)),
        "memory": memory(),
        "kernel": platform.release(),
        "system": first_line(["lsb_release", "-ds"]) if which("lsb_release") else os_name(),
        "load_before": " ".join(f"{x:.2f}" for x in os.getloadavg()),
        "commit": commit(),
        "deputy": first_line([str(programs["deputy-proxy"]), "--version"])
                  if programs["deputy-proxy"].exists() else "not built",
        "nginx": first_line(["nginx", "-v"]),
        "haproxy": first_line(["haproxy", "-v"]),
        "hitch": first_line(["hitch", "--version"]),
        "openssl": first_line(["openssl", "version"]),
    }


def os_name():
    text = pathlib.Path("/etc/os-release").read_text()
    found = re.search(r'PRETTY_NAME="([^"]*)"', text)
    return found.group(1) if found else "?"
