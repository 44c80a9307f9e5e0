# SPDX-License-Identifier: Apache-2.0
"""Certificates for tests, made by the openssl program.

    ca = pki.ca("clients")
    proxy = ca.issue("proxy", san=["DNS:proxy.test"], eku="clientAuth")
    proxy.cert, proxy.key       # paths of PEM files; the key is mode 0600
    leaf = ca.issue_leaf("demo.test", delegation=True)
"""

import datetime
import functools
import hashlib
import os
import pathlib
import ssl
import subprocess

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

DELEGATION_USAGE = "1.3.6.1.4.1.44363.44"  # RFC 9345, section 4.2

KEY_ARGS = {
    "p256": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "p384": ["EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    "p521": ["EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
    "rsa2048": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "rsa4096": ["RSA", "-pkeyopt", "rsa_keygen_bits:4096"],
    "ed25519": ["ED25519"],
}


def openssl(*args, input=None):
    """Runs the openssl program and returns its standard output (bytes)."""
    done = subprocess.run(["openssl", *[str(a) for a in args]], input=input, capture_output=True,
                          check=False)
    if done.returncode != 0:
        raise AssertionError(f"openssl {args}:\n{done.stderr.decode(errors='replace')}")
    return done.stdout


def make_key(path, kind="p256"):
    """Writes a private key (PKCS#8 PEM, mode 0600) and returns its path."""
    pem = openssl("genpkey", "-algorithm", *KEY_ARGS[kind])
    write_private(path, pem)
    return path


def write_private(path, content):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as f:
        f.write(content)


def key_spki(path):
    """DER SubjectPublicKeyInfo of a private key's file."""
    return openssl("pkey", "-in", path, "-pubout", "-outform", "DER")


def der_item(data):
    """(tag, content, rest) of the first DER item."""
    tag, length, at = data[0], data[1], 2
    if length >= 0x80:
        num = length & 0x7F
        length = int.from_bytes(data[2:2 + num], "big")
        at += num
    return tag, data[at:at + length], data[at + length:]


def spki_ski(spki):
    """SHA-1 of the subjectPublicKey bits: how a key server finds a key."""
    _, inside, _ = der_item(spki)
    _, _, rest = der_item(inside)
    tag, bits, _ = der_item(rest)
    assert tag == 3 and bits[0] == 0
    return hashlib.sha1(bits[1:]).digest()


class Identity:
    """A certificate and its key, as files."""

    def __init__(self, cert, key, chain=None):
        self.cert = pathlib.Path(cert)
        self.key = pathlib.Path(key)
        self.chain = pathlib.Path(chain or cert)  # leaf and what a server sends after it

    def der(self):
        return ssl.PEM_cert_to_DER_cert(self.cert.read_text())

    @functools.cache
    def spki(self):
        return key_spki(self.key)

    def spki_sha256(self):
        return hashlib.sha256(self.spki()).hexdigest()

    @functools.cache
    def ski(self):
        return spki_ski(self.spki())


class Ca(Identity):
    """A certification authority in a folder of its own."""

    def __init__(self, folder, name, kind="p256"):
        self.folder = folder
        self.name = name
        folder.mkdir()
        key = make_key(folder / "ca.key", kind)
        cert = folder / "ca.pem"
        openssl("req", "-x509", "-new", "-key", key, "-subj", f"/CN={name}", "-days", "3650",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", cert)
        super().__init__(cert, key)

    def issue(self, name, san=None, eku="clientAuth,serverAuth", kind="p256", key=None, days=90,
              start=None, end=None, delegation=False, key_usage="critical,digitalSignature",
              more=()):
        """Makes NAME.pem (and NAME.key unless `key` is a path). `start` and `end` are
        openssl's YYYYMMDDHHMMSSZ; `more` holds further lines of extensions."""
        key = pathlib.Path(key) if key else make_key(self.folder / f"{name}.key", kind)
        csr = self.folder / f"{name}.csr"
        cert = self.folder / f"{name}.pem"
        ext = self.folder / f"{name}.ext"
        lines = ["basicConstraints=critical,CA:FALSE"]
        if key_usage:
            lines.append(f"keyUsage={key_usage}")
        if eku:
            lines.append(f"extendedKeyUsage={eku}")
        if san:
            lines.append("subjectAltName=" + ",".join(san))
        if delegation:
            lines.append(f"{DELEGATION_USAGE}=ASN1:NULL")
        lines += ["subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid", *more]
        ext.write_text("\n".join(["[e]", *lines, ""]))
        common_name = name[:64].replace("/", "_")
        openssl("req", "-new", "-key", key, "-subj", f"/CN={common_name}", "-out", csr)
        if start or end:
            self._sign_dated(csr, ext, cert, start, end)
        else:
            openssl("x509", "-req", "-in", csr, "-CA", self.cert, "-CAkey", self.key, "-set_serial",
                    "0x" + os.urandom(16).hex(), "-days", days, "-extfile", ext, "-extensions", "e",
                    "-out", cert)
        return Identity(cert, key)

    def sign_by(self, root):
        """Makes this one an intermediate of `root`: the same name and key."""
        csr, ext = self.folder / "ca.csr", self.folder / "ca.ext"
        ext.write_text("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
                       "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
        openssl("req", "-new", "-key", self.key, "-subj", f"/CN={self.name}", "-out", csr)
        openssl("x509", "-req", "-in", csr, "-CA", root.cert, "-CAkey", root.key, "-set_serial",
                "0x" + os.urandom(16).hex(), "-days", "3650", "-extfile", ext, "-out", self.cert)

    def issue_leaf(self, host, delegation=True, **kwargs):
        """A TLS server's certificate for one name, as our proxy serves it."""
        kwargs.setdefault("san", [f"DNS:{host}"])
        kwargs.setdefault("eku", "serverAuth")
        name = kwargs.pop("name", host.replace("*", "_"))
        return self.issue(name, delegation=delegation, **kwargs)

    def crl(self, path, revoked=(), start=-3600, end=7 * 86400, der=False, key=None):
        """Writes a revocation list of these identities. `start` and `end` count from now, in
        seconds; `key` is another CA whose key signs it."""
        now = datetime.datetime.utcnow().replace(microsecond=0)
        name = x509.load_pem_x509_certificate(self.cert.read_bytes()).subject
        builder = x509.CertificateRevocationListBuilder().issuer_name(name)
        builder = builder.last_update(now + datetime.timedelta(seconds=start))
        builder = builder.next_update(now + datetime.timedelta(seconds=end))
        for identity in revoked:
            serial = x509.load_der_x509_certificate(identity.der()).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial)
            builder = builder.add_revoked_certificate(entry.revocation_date(now).build())
        signer = serialization.load_pem_private_key((key or self).key.read_bytes(), None)
        crl = builder.sign(signer, hashes.SHA256())
        encoding = serialization.Encoding.DER if der else serialization.Encoding.PEM
        path.write_bytes(crl.public_bytes(encoding))
        return path

    def _sign_dated(self, csr, ext, cert, start, end):
        # "openssl x509" of 3.0 cannot choose dates; "openssl ca" can.
        config = self.folder / "ca.cnf"
        (self.folder / "index.txt").touch()
        (self.folder / "new").mkdir(exist_ok=True)
        config.write_text(f"""
[ca]
default_ca = d
[d]
database = {self.folder}/index.txt
new_certs_dir = {self.folder}/new
rand_serial = yes
unique_subject = no
default_md = sha256
default_days = 90
policy = p
[p]
commonName = supplied
""")
        dates = (["-startdate", start] if start else []) + (["-enddate", end] if end else [])
        openssl("ca", "-config", config, "-batch", "-notext", "-in", csr, "-cert", self.cert,
                "-keyfile", self.key, "-extfile", ext, "-extensions", "e", "-out", cert, *dates)


class Pki:
    """A folder of CAs."""

    def __init__(self, folder):
        self.folder = folder

    def ca(self, name, kind="p256"):
        return Ca(self.folder / name, name, kind)

    def tls(self, ca, identity):
        """The "tls" object of our configuration files."""
        return {"ca": str(ca.cert), "certificate": str(identity.chain), "key": str(identity.key)}
