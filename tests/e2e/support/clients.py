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

    def run(self, host="demo.test", dc=True, quit=True, args=("-V", "tls1.3:tls1.3"), input="",
            timeout=20):
        """One handshake (quit) or a connection that sends `input`."""
        command = ["tstclnt", "-h", "127.0.0.1", "-a", host, "-p", self.port, "-d",
                   f"sql:{self.folder}", "-v", "-C", *args]
        command += ["-B"] if dc else []
        command += ["-Q"] if quit else []
        return NssResult(self.procs.run(command, timeout, input=input))
