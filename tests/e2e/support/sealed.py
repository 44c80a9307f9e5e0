# SPDX-License-Identifier: Apache-2.0
"""Sealed keys by docs/SEALED-KEYS.md alone, and key servers that get them.

    sealed = Sealed.read(path)                  # taken apart; every field can be changed
    sealed.open(private_key)                    # RFC 9180 by hand: PKCS#8
    sealed.write(path)

    ring = Ring(procs, pki)                     # identities, a membership file, a shared folder
    ring.add("eu-1", "region: EU", "country: DE")
    ring.seal("www", "region: EU", key_path)
"""

import base64
import hashlib
import json
import struct

from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from support.keyserver import KeyServer
from support.procs import BIN_DIR

BEGIN = "-----BEGIN DEPUTY SEALED KEY-----"
END = "-----END DEPUTY SEALED KEY-----"
CTL = BIN_DIR / "deputyctl"


def hmac_sha256(key, data):
    h = hmac.HMAC(key, hashes.SHA256())
    h.update(data)
    return h.finalize()


def labeled_extract(suite, salt, label, ikm):
    """RFC 9180, section 4."""
    return hmac_sha256(salt or bytes(32), b"HPKE-v1" + suite + label + ikm)


def labeled_expand(suite, secret, label, info, length):
    info = struct.pack(">H", length) + b"HPKE-v1" + suite + label + info
    out, block, i = b"", b"", 1
    while len(out) < length:
        block = hmac_sha256(secret, block + info + bytes([i]))
        out, i = out + block, i + 1
    return out[:length]


def hpke_open(private_key, enc, info, aad, sealed):
    """RFC 9180, sections 4.1, 5.1 and 5.2: base mode, one message."""
    kem = b"KEM" + struct.pack(">H", 0x20)
    suite = b"HPKE" + struct.pack(">HHH", 0x20, 1, 2)
    own = private_key.public_key().public_bytes(serialization.Encoding.Raw,
                                                serialization.PublicFormat.Raw)
    shared = private_key.exchange(x25519.X25519PublicKey.from_public_bytes(enc))
    secret = labeled_expand(kem, labeled_extract(kem, b"", b"eae_prk", shared), b"shared_secret",
                            enc + own, 32)
    context = (b"\0" + labeled_extract(suite, b"", b"psk_id_hash", b"") +
               labeled_extract(suite, b"", b"info_hash", info))
    secret = labeled_extract(suite, secret, b"secret", b"")
    key = labeled_expand(suite, secret, b"key", context, 32)
    nonce = labeled_expand(suite, secret, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, sealed, aad)


class Sealed:
    """One sealed key."""

    def __init__(self, data):
        assert data[:8] == b"DPSEALED", data[:8]
        self.version, at = data[8], 9
        self.label, at = self._take(data, at, "B")
        self.policy, at = self._take(data, at, "H")
        self.spki, at = self._take(data, at, "H")
        num, = struct.unpack_from(">H", data, at)
        at += 2
        self.recipients = []
        for _ in range(num):
            name, at = self._take(data, at, "B")
            self.recipients.append([name, data[at:at + 32], data[at + 32:at + 64],
                                    data[at + 64:at + 112]])
            at += 112
        self.nonce, at = data[at:at + 12], at + 12
        self.ciphertext, at = self._take(data, at, "H")
        assert at == len(data)

    @staticmethod
    def _take(data, at, size):
        length, = struct.unpack_from(">" + size, data, at)
        at += struct.calcsize(size)
        return data[at:at + length], at + length

    @classmethod
    def read(cls, path):
        lines = path.read_text().split()
        text = path.read_text()
        assert text.startswith(BEGIN + "\n") and text.endswith("\n" + END + "\n"), text
        assert all(len(line) == 64 for line in lines[4:-5])
        return cls(base64.b64decode("".join(text.splitlines()[1:-1])))

    def head(self):
        return (b"DPSEALED" + bytes([self.version, len(self.label)]) + self.label +
                struct.pack(">H", len(self.policy)) + self.policy +
                struct.pack(">H", len(self.spki)) + self.spki)

    def bound(self):
        """Everything before the ciphertext."""
        recipients = b"".join(bytes([len(name)]) + name + key_id + enc + content_key
                              for name, key_id, enc, content_key in self.recipients)
        return (self.head() + struct.pack(">H", len(self.recipients)) + recipients + self.nonce +
                struct.pack(">H", len(self.ciphertext)))

    def write(self, path, cut=0):
        """Writes the file; `cut` bytes are missing at its end."""
        data = self.bound() + self.ciphertext
        text = base64.b64encode(data[:len(data) - cut]).decode()
        lines = [text[i:i + 64] for i in range(0, len(text), 64)]
        path.write_text("\n".join([BEGIN, *lines, END, ""]))
        return path

    def names(self):
        return [r[0].decode() for r in self.recipients]

    def open(self, private_key):
        """The DER of the private key."""
        raw = private_key.public_key().public_bytes(serialization.Encoding.Raw,
                                                    serialization.PublicFormat.Raw)
        key_id = hashlib.sha256(raw).digest()
        _, _, enc, sealed = next(r for r in self.recipients if r[1] == key_id)
        content_key = hpke_open(private_key, enc, b"deputy sealed key 1", self.head(), sealed)
        return AESGCM(content_key).decrypt(self.nonce, self.ciphertext, self.bound())


class Member:
    """A key server's place in the membership file."""

    def __init__(self, name, attributes, identity, public_key, key_id):
        self.name = name
        self.attributes = list(attributes)
        self.identity = identity
        self.public_key = public_key
        self.key_id = key_id

    def sealing(self):
        """The object of the key server's configuration."""
        return {"identity": str(self.identity), "attributes": self.attributes}

    def private_key(self):
        return serialization.load_pem_private_key(self.identity.read_bytes(), None)


class Ring:
    """Members, and the folder with sealed keys that lies on all of them."""

    def __init__(self, procs):
        self.procs = procs
        self.folder = procs.folder / "sealed"
        self.folder.mkdir()
        self.members = {}
        self.path = procs.folder / "members.json"

    def identity(self, name):
        """A new identity, in nobody's list: (path, what deputyctl says of it)."""
        path = self.procs.folder / f"{name}.identity"
        return path, json.loads(self.ctl("identity", "new", path, "--json", check=True).stdout)

    def add(self, name, *attributes, is_listed=True):
        path, told = self.identity(name)
        member = Member(name, attributes, path, told["public_key"], told["key_id"])
        if is_listed:
            self.members[name] = member
            self.write()
        return member

    def write(self, *names):
        """The membership file, with all or with these."""
        self.path.write_text(json.dumps({"members": [
            {"name": m.name, "public_key": m.public_key, "attributes": m.attributes}
            for m in self.members.values() if not names or m.name in names]}, indent=2))

    def ctl(self, *args, check=False):
        return self.procs.run([CTL, "key", *args], check=check)

    def seal(self, label, policy, key, folder=None, check=True):
        path = (folder or self.folder) / f"{label}.sealed"
        done = self.ctl("seal", "--policy", policy, "--members", self.path, key, path, check=check)
        return path if check else done

    def reseal(self, by, *paths, policy=None, check=True):
        more = ["--policy", policy] if policy else []
        return self.ctl("reseal", "--members", self.path, "--identity", by.identity, *more, *paths,
                        check=check)

    def server(self, pki, member, ca_of=None):
        """A key server for this member; its CA and its clients are those of `ca_of`."""
        server = KeyServer(self.procs, pki, name=member.name)
        if ca_of is not None:
            server.ca = ca_of.ca
            server.clients = ca_of.clients
            server.server = ca_of.ca.issue(f"server-{member.name}",
                                           san=["DNS:localhost", "IP:127.0.0.1"], eku="serverAuth")
            server.config["tls"] = pki.tls(server.ca, server.server)
        server.config["key_folders"] = [str(self.folder)]
        server.config["sealing"] = member.sealing()
        server.config["workers"] = 1
        return server
