# SPDX-License-Identifier: Apache-2.0
"""An island: a program in a network namespace of its own, with two bridges.

A browser talks to its maker's servers as soon as it runs. On an island there is
nothing but a loopback interface; what the test needs crosses by UNIX sockets,
which are files and know no namespaces:

    island TCP port  -->  UNIX socket outside     (the program reaches the proxy)
    UNIX socket      -->  island TCP port         (the test reaches the program)

This file is both: `command` for the test, and the script that runs inside.
"""

import asyncio
import os
import pathlib
import shutil
import signal
import subprocess
import sys

OUT_PORT = 443


def namespace():
    """The words that put a command into a namespace; none where the kernel forbids it."""
    for words in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if shutil.which("unshare") and subprocess.run(
                [*words, "ip", "link", "set", "lo", "up"], capture_output=True,
                check=False).returncode == 0:
            return words
    return []


def command(program, out_path, in_path, port_file, info_path):
    """The command that runs `program` on an island, if there can be one, else here.

    A connection to the port written in `info_path` leads to the UNIX socket `out_path`;
    one to the UNIX socket `in_path` leads to the port in `port_file`, which the program
    writes."""
    words = namespace()
    return [*words, sys.executable, "-B", __file__, "island" if words else "mainland",
            str(out_path), str(in_path), str(port_file), str(info_path), *map(str, program)]


async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()


async def bridge(near, connect):
    try:
        far = await connect()
    except (OSError, ValueError):
        near[1].close()
        return
    await asyncio.gather(pump(near[0], far[1]), pump(far[0], near[1]))
    near[1].close()
    far[1].close()


async def main(is_island, out_path, in_path, port_file, info_path, program):
    if is_island:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    async def outwards(reader, writer):
        await bridge((reader, writer), lambda: asyncio.open_unix_connection(out_path))

    async def inwards(reader, writer):
        await bridge((reader, writer), lambda: asyncio.open_connection(
            "127.0.0.1", int(pathlib.Path(port_file).read_text())))

    out = await asyncio.start_server(outwards, "127.0.0.1", OUT_PORT if is_island else 0)
    await asyncio.start_unix_server(inwards, in_path)
    child = await asyncio.create_subprocess_exec(*program, start_new_session=True)
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, lambda: os.killpg(child.pid, signal.SIGKILL))
    pathlib.Path(info_path).write_text(str(out.sockets[0].getsockname()[1]))
    return await child.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1] == "island", *sys.argv[2:6], sys.argv[6:])) != 0)
