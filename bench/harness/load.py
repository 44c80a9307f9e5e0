# SPDX-License-Identifier: Apache-2.0
"""deputy-bench, run and read."""

import json
import subprocess

from harness.base import BenchError
from harness.procs import Process, run


def options_of(options):
    """{"count": 5, "resume": True} as a command line."""
    words = []
    for name, value in options.items():
        if value is True:
            words.append(f"--{name.replace('_', '-')}")
        elif value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words


class Client:
    """Runs deputy-bench where the study's clients are."""

    def __init__(self, program, core=None, prefix=(), timeout=180.0):
        self.program = program
        self.core = core
        self.prefix = prefix
        self.timeout = timeout

    def __call__(self, subcommand, **options):
        """The summary of a run that took place."""
        done = run([self.program, subcommand, *options_of(options)], timeout=self.timeout,
                   core=self.core, prefix=self.prefix)
        return read_summary(subcommand, done.returncode, done.stdout, done.stderr)

    def start(self, procs, name, subcommand, **options):
        """The same in the background: a Process; `finish` reads it."""
        return procs.start(name, [self.program, subcommand, *options_of(options)],
                           core=self.core, prefix=self.prefix)

    def finish(self, process, timeout=None):
        try:
            code = process.popen.wait(timeout or self.timeout)
        except subprocess.TimeoutExpired as e:
            process.stop()
            raise BenchError(f"{process.name} did not end in time") from e
        return read_summary(process.name, code, process.out_path.read_text(),
                            process.err_path.read_text(errors="replace"))


def read_summary(what, code, out, err):
    if code != 0:
        raise BenchError(f"deputy-bench {what} ended with {code}: {err[-1500:].strip()}")
    try:
        return json.loads(out)
    except ValueError as e:
        raise BenchError(f"deputy-bench {what} printed no JSON: {out[-300:]!r}") from e


def raw_lines(path):
    """(the run's own line, samples) of a raw file; a last half line is left out."""
    samples = []
    with open(path) as f:
        about = json.loads(f.readline() or "{}")
        for line in f:
            if line.endswith("\n"):
                samples.append(json.loads(line))
    return about, samples


__all__ = ["Client", "Process", "options_of", "raw_lines"]
