# SPDX-License-Identifier: Apache-2.0
"""SoftHSM tokens for tests, each folder with its own.

    hsm = SoftHsm(folder)            # sets SOFTHSM2_CONF for what is started from here on
    token = hsm.token("t1", pin="1234")
    token.import_key("www", key_path)
    spki = token.generate("ec1", "EC:prime256v1")
    config["pkcs11"] = [token.entry("www"), ...]
"""

import os
import pathlib
import subprocess

MODULES = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"]
MODULE = next((path for path in MODULES if os.path.exists(path)), MODULES[0])


def run(*args, **kwargs):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, check=False,
                          **kwargs)
    assert done.returncode == 0, f"{args}:\n{done.stdout}{done.stderr}"
    return done.stdout


class Token:
    def __init__(self, hsm, label, pin):
        self.hsm = hsm
        self.label = label
        self.pin = pin
        self.next_id = 1
        before = set(os.listdir(hsm.tokens))
        run("softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "so-" + pin,
            "--pin", pin)
        (name,) = set(os.listdir(hsm.tokens)) - before
        self.folder = hsm.tokens / name
        self.pin_file = hsm.folder / f"{label}.pin"
        self.write_pin(pin)

    def write_pin(self, pin, mode=0o600):
        self.pin_file.write_text(pin + "\n")
        self.pin_file.chmod(mode)

    def tool(self, *args):
        return run("pkcs11-tool", "--module", MODULE, "--token-label", self.label, "--login",
                   "--pin", self.pin, *args)

    def _id(self):
        self.next_id += 1
        return f"{self.next_id:02x}"

    def import_key(self, label, path):
        """Copies a private key (PKCS#8 PEM) into the token."""
        run("softhsm2-util", "--import", path, "--token", self.label, "--label", label, "--id",
            self._id(), "--pin", self.pin)

    def generate(self, label, kind):
        """Makes a key inside the token; returns its SubjectPublicKeyInfo."""
        self.tool("--keypairgen", "--key-type", kind, "--label", label, "--id", self._id())
        path = self.hsm.folder / f"{label}.pub"
        self.tool("--read-object", "--type", "pubkey", "--label", label, "-o", path)
        return path.read_bytes()

    def entry(self, key, label=None, **more):
        """The key's entry in the key server's configuration."""
        return {"module": MODULE, "uri": f"pkcs11:token={self.label};object={key};type=private",
                "pin_file": str(self.pin_file), "label": label or key, **more}


class SoftHsm:
    def __init__(self, folder, environ=os.environ):
        self.folder = pathlib.Path(folder)
        self.tokens = self.folder / "tokens"
        self.tokens.mkdir(parents=True)
        conf = self.folder / "softhsm2.conf"
        conf.write_text(f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\n"
                        "log.level = ERROR\nslots.removable = true\n")
        environ["SOFTHSM2_CONF"] = str(conf)

    def token(self, label, pin="1234"):
        return Token(self, label, pin)
