# SPDX-License-Identifier: Apache-2.0
"""What every module of the harness shares: errors, progress, the bounds of a run."""

import json
import os
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZES = ("full", "quick", "smoke")


class BenchError(Exception):
    """A study cannot go on; the text is for the person who started it."""


class UsageError(BenchError):
    """The command line is wrong."""


class Progress:
    """Lines on standard error, each with the time since the start."""

    def __init__(self, quiet=False):
        self.begin = time.monotonic()
        self.quiet = quiet

    def __call__(self, text):
        if not self.quiet:
            print(f"[{time.monotonic() - self.begin:6.1f} s] {text}", file=sys.stderr, flush=True)


def wait_until(condition, what, timeout=15.0):
    """Polls `condition` until it holds; BenchError when it does not in time."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise BenchError(f"waited {timeout:.0f} s in vain for {what}")
        time.sleep(0.01)


def load_json(path):
    try:
        return json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError) as e:
        raise BenchError(f"{path}: {e}") from e


def which(program):
    """Path of a program, also where only root's PATH looks; None: not here."""
    for folder in [*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/sbin"]:
        path = pathlib.Path(folder) / program
        if folder and path.is_file() and os.access(path, os.X_OK):
            return str(path)
    return None


def need(program, package):
    path = which(program)
    if path is None:
        raise BenchError(f"the program {program} is missing; Debian's package {package} has it")
    return path
