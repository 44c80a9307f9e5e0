# SPDX-License-Identifier: Apache-2.0
"""What lies in a process's memory: a core dump, the live memory, private keys in it.

A key is searched for in each form a library may hold it in: as a big-endian string
(DER, PEM's content), as little-endian words of 8 or 4 bytes (bignums), words in the
other order, and in Montgomery form. Each form is searched piece by piece, so that
half of a key is found too.
"""

import base64
import math
import os
import pathlib
import re

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

PIECE = 16     # bytes; no accident finds 128 bits
MAX_PIECES = 4  # of one number: its ends and some between
PAGE = 4096
HUGE = 1 << 28  # a sanitizer's shadow, of which almost nothing is there

ORDERS = {
    "secp256r1": 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551,
    "secp384r1": int("ffffffffffffffffffffffffffffffffffffffffffffffff"
                     "c7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16),
}


def spellings(number, size):
    """{name: bytes} of one number of `size` bytes."""
    big = number.to_bytes(size, "big")
    found = {"big endian": big, "little endian": big[::-1]}
    for word in (4, 8):
        words = [big[i:i + word] for i in range(0, size, word)]
        found[f"words of {word}, high one first"] = b"".join(w[::-1] for w in words)
        found[f"words of {word}, low one first, each big endian"] = b"".join(reversed(words))
    return found


def numbers(key):
    """{name: (number, bytes)} of everything that is secret in a private key."""
    private = key.private_numbers()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        size = (key.curve.key_size + 7) // 8
        order = ORDERS[key.curve.name]
        return {"scalar": (private.private_value, size),
                "scalar, Montgomery": ((private.private_value << (8 * size)) % order, size)}
    size = key.key_size // 16
    found = {"p": (private.p, size), "q": (private.q, size), "d": (private.d, 2 * size),
             "d mod p-1": (private.dmp1, size), "d mod q-1": (private.dmq1, size),
             "1/q mod p": (private.iqmp, size)}
    shift = 8 * size
    for name, modulus in (("1/q mod p", private.p), ("1/p mod q", private.q)):
        inverse = pow(private.q if modulus == private.p else private.p, -1, modulus)
        found[f"{name}, Montgomery"] = ((inverse << shift) % modulus, size)
    carmichael = (private.p - 1) * (private.q - 1) // math.gcd(private.p - 1, private.q - 1)
    found["d, the shorter"] = (private.d % carmichael, 2 * size)
    return found


def pieces(data):
    """Some pieces of a string, the first and the last among them."""
    starts = list(range(0, len(data) - PIECE + 1, PIECE))
    step = max(1, -(-len(starts) // MAX_PIECES))
    chosen = {*starts[::step], len(data) - PIECE}
    return {data[i:i + PIECE] for i in chosen}


def in_pem(pem, secrets):
    """Pieces of a PEM file that are base64 of a secret and of nothing else."""
    body = b"".join(line for line in pem.splitlines() if not line.startswith(b"-"))
    der = base64.b64decode(body)
    found = set()
    for secret in secrets:
        at = der.find(secret)
        if at >= 0:
            found |= pieces(body[-(-at // 3) * 4:(at + len(secret)) // 3 * 4])
    return found


def patterns(path):
    """{what it is: set of strings} for the private key in a PEM file."""
    pem = path.read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    found, plain = {}, []
    if isinstance(key, ed25519.Ed25519PrivateKey):
        plain = [key.private_bytes(serialization.Encoding.Raw, serialization.PrivateFormat.Raw,
                                   serialization.NoEncryption())]
        found["seed"] = pieces(plain[0])
    else:
        for name, (number, size) in numbers(key).items():
            plain.append(number.to_bytes(size, "big"))
            for spelling, data in spellings(number, size).items():
                found[f"{name}, {spelling}"] = pieces(data)
    found["PEM"] = in_pem(pem, plain)
    assert all(found.values())
    return found


def search(memory, wanted):
    """The names of `wanted` ({name: strings}) of which something is in `memory`."""
    return sorted(name for name, strings in wanted.items()
                  if any(memory.find(s) >= 0 for s in strings))


def without_zeros(data):
    """The same without pages of nothing, which are most of it: no piece of a key is in one."""
    zeros = bytes(PAGE)
    pages = (data[i:i + PAGE] for i in range(0, len(data), PAGE))
    return b"".join(page for page in pages if page != zeros)


def may_trace():
    """Programs with keys forbid ptrace; only who has CAP_SYS_PTRACE passes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & (1 << 19))
    return False


def read_range(fd, begin, end):
    """The readable bytes of an address range."""
    parts = []
    while begin < end:
        try:
            data = os.pread(fd, min(end - begin, 1 << 20), begin)
        except OSError:
            data = b""
        parts.append(without_zeros(data))
        begin += len(data) or PAGE  # a page that cannot be read is passed over
    return b"".join(parts)


def live(pid):
    """All that a process can have written to its memory, as it is now."""
    parts = []
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
            begin, end, rights, path = re.match(
                r"(\w+)-(\w+) (\S+) \S+ \S+ \S+ *(.*)", line).groups()
            begin, end = int(begin, 16), int(end, 16)
            is_program = rights[1] != "w" and path.startswith("/")
            if rights[0] == "r" and not is_program and end - begin < HUGE and path[:2] != "[v":
                parts.append(read_range(fd, begin, end))
    finally:
        os.close(fd)
    return b"".join(parts)


def core(procs, pid, path):
    """The memory as gcore writes it, with the parts that are marked to be left out."""
    procs.run(["gcore", "-a", "-o", path, pid], 120, check=True)
    made = path.with_name(f"{path.name}.{pid}")
    try:
        return without_zeros(made.read_bytes())
    finally:
        made.unlink()  # it may be large, and it may hold keys
