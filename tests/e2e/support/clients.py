# SPDX-License-Identifier: Apache-2.0
"""Clients that are not Python's: NSS, which takes delegated credentials."""

import re


class NssResult:
    """What tstclnt printed."""

    def __init__(self, done):
        self.code = done.returncode
        self.text = done.stdout + done.stderr
        self.got_dc = "Received a Delegated Credential" in self.text

    @property
    def is_ok(self):
        return self.code == 0

    @property
    def issuer(self):
        """The CN of who issued the leaf (with -C)."""
        found = re.search(r'Issuer: "?CN=([^",\n]*)', self.text)
        return found.group(1) if found else None

    @property
    def error(self):
        """The NSS error name, as SSL_ERROR_DC_EXPIRED."""
        found = re.search(r"\b((?:SSL|SEC|PR)_(?:ERROR_)?\w+_ERROR|(?:SSL|SEC)_ERROR_\w+)", self.text)
        return found.group(1) if found else None

    def __repr__(self):
        return f"<tstclnt {self.code} dc={self.got_dc}>\n{self.text}"


class Nss:
    """tstclnt with a database that trusts these CAs."""

    def __init__(self, procs, port, ca_paths):
        self.procs = procs
        self.port = port
        self.folder = procs.folder / "nss"
        if not self.folder.exists():
            self.folder.mkdir()
            procs.run(["certutil", "-N", "-d", f"sql:{self.folder}", "--empty-password"], check=True)
            for i, path in enumerate(ca_paths):
                procs.run(["certutil", "-A", "-d", f"sql:{self.folder}", "-n", f"ca{i}", "-t", "C,,",
                           "-i", path], check=True)

    def command(self, host, dc, args):
        command = ["tstclnt", "-h", "127.0.0.1", "-a", host, "-p", self.port, "-d",
                   f"sql:{self.folder}", "-v", "-C", *args]
        return command + (["-B"] if dc else [])

    def run(self, host="demo.test", dc=True, args=("-V", "tls1.3:tls1.3"), timeout=20):
        """One handshake."""
        # An empty pipe, not /dev/null: with that tstclnt -Q waits for one more event of
        # the socket, and BoringSSL sends tickets only with the first data.
        return NssResult(self.procs.run([*self.command(host, dc, args), "-Q"], timeout, input=""))

    def start(self, host="demo.test", dc=True, args=("-V", "tls1.3:tls1.3"), input=""):
        """A connection that sends `input` and stays; the caller kills it. With -L N it
        connects N times, each as soon as the one before has ended; only the first
        sends anything, as the input is a file that is read once."""
        path = self.procs.folder / "nss-input"
        path.write_text(input)
        process = self.procs.foreign("tstclnt", ["/bin/sh", "-c", 'exec "$@" < "$0"', path,
                                                 *self.command(host, dc, args)])
        return process
