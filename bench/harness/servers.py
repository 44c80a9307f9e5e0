# SPDX-License-Identifier: Apache-2.0
"""Ports, and whether one is served, seen from inside any network namespace."""

import pathlib
import socket


def free_port():
    """A TCP port of loopback that is free now. Programs that cannot let the kernel choose
    get it; one that is taken meanwhile makes them fail to start, which is reported."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def is_listening(process, port):
    """Is there a listening socket with this port in the process's network namespace?"""
    wanted = f":{port:04X}"
    for table in ("tcp", "tcp6"):
        path = pathlib.Path(f"/proc/{process.pid}/net/{table}")
        try:
            lines = path.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[1].endswith(wanted) and fields[3] == "0A":
                return True
    return False
