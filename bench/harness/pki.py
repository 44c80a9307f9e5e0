# SPDX-License-Identifier: Apache-2.0
"""Certificates of a run, made by the openssl program."""

import os

from harness.procs import checked

DELEGATION_USAGE = "1.3.6.1.4.1.44363.44"  # RFC 9345, section 4.2

KEYS = {
    "p256": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "rsa2048": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "rsa4096": ["RSA", "-pkeyopt", "rsa_keygen_bits:4096"],
    "ed25519": ["ED25519"],
}


class Identity:
    def __init__(self, cert, key):
        self.cert = cert
        self.key = key


def make_key(path, kind):
    old = os.umask(0o077)
    try:
        checked(["openssl", "genpkey", "-algorithm", *KEYS[kind], "-out", path])
    finally:
        os.umask(old)
    return path


class Ca(Identity):
    def __init__(self, folder, name):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        key = make_key(folder / "ca.key", "p256")
        cert = folder / "ca.pem"
        checked(["openssl", "req", "-x509", "-new", "-key", key, "-subj", f"/CN={name}", "-days",
                 "365", "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", cert])
        super().__init__(cert, key)

    def issue(self, name, sans, usage="serverAuth", kind="p256", key=None, delegation=False):
        """NAME.pem and, unless `key` is a file that exists, NAME.key."""
        key = key or self.folder / f"{name}.key"
        if not key.exists():
            make_key(key, kind)
        csr, cert, ext = (self.folder / f"{name}.{end}" for end in ("csr", "pem", "ext"))
        lines = ["basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature",
                 f"extendedKeyUsage={usage}", "subjectAltName=" + ",".join(sans),
                 "subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid"]
        if delegation:
            lines.append(f"{DELEGATION_USAGE}=ASN1:NULL")
        ext.write_text("\n".join(lines) + "\n")
        checked(["openssl", "req", "-new", "-key", key, "-subj", f"/CN={name}", "-out", csr])
        checked(["openssl", "x509", "-req", "-in", csr, "-CA", self.cert, "-CAkey", self.key,
                 "-set_serial", "0x" + os.urandom(16).hex(), "-days", "90", "-extfile", ext,
                 "-out", cert])
        return Identity(cert, key)
