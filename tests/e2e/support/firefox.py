# SPDX-License-Identifier: Apache-2.0
"""Firefox ESR without a screen, driven over Marionette, cut off from the network.

    browser = Firefox(procs, "/run/front.sock", [ca.cert])   # where https://anything/ leads
    browser.open("demo.test")
    browser.text(), browser.security()["isDelegatedCredential"]

Marionette's frames are LENGTH:JSON. The browser greets; a command is
[0, id, name, parameters], its answer [1, id, error, result].
"""

import base64
import contextlib
import json
import os
import pathlib
import socket
import tempfile

from support import island
from support.procs import SLOW, wait_until

START_S = 60  # cold, on a busy machine
PAGE_S = 30

# Whatever a browser does on its own. On an island it cannot succeed, but it would
# fill the log and slow the start; where there is no island this is what keeps it
# silent: no name leads anywhere but here.
PREFS = {
    "marionette.port": 0,
    "network.dns.forceResolve": "127.0.0.1",
    "network.dns.disableIPv6": True,
    "network.proxy.type": 0,
    "network.trr.mode": 5,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.dns.disablePrefetch": True,
    "network.http.speculative-parallel-limit": 0,
    "network.prefetch-next": False,
    "security.OCSP.enabled": 0,
    "security.remote_settings.crlite_filters.enabled": False,
    "security.remote_settings.intermediates.enabled": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "app.normandy.enabled": False,
    "app.update.auto": False,
    "app.update.disabledForTesting": True,
    "browser.aboutConfig.showWarning": False,
    "browser.newtabpage.enabled": False,
    "browser.region.network.url": "",
    "browser.safebrowsing.downloads.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.safebrowsing.update.enabled": False,
    "browser.search.update": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "browser.startup.page": 0,
    "browser.topsites.contile.enabled": False,
    "datareporting.healthreport.uploadEnabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.push.connection.enabled": False,
    "extensions.getAddons.cache.enabled": False,
    "extensions.systemAddon.update.enabled": False,
    "extensions.update.enabled": False,
    "messaging-system.rsexperimentloader.enabled": False,
    "toolkit.telemetry.enabled": False,
    "toolkit.telemetry.server": "data:,",
    "toolkit.telemetry.unified": False,
}

SECURITY = """
const info = gBrowser.selectedBrowser.securityUI.secInfo;
if (!info) return null;
return {isDelegatedCredential: info.isDelegatedCredential, resumed: info.resumed,
        protocolVersion: info.protocolVersion, cipherName: info.cipherName,
        issuer: info.serverCert.issuerCommonName, sha256: info.serverCert.sha256Fingerprint,
        state: gBrowser.selectedBrowser.securityUI.state};
"""

# Closes idle connections and forgets TLS sessions: the next handshake is new and full.
FORGET = """
const done = arguments[arguments.length - 1];
Services.obs.notifyObservers(null, "net:cancel-all-connections");
const nss = Cc["@mozilla.org/psm;1"].getService(Ci.nsINSSComponent);
nss.asyncClearSSLExternalAndInternalSessionCache().then(() => done(true), e => done(String(e)));
"""


class Marionette:
    """The wire."""

    def __init__(self, path):
        self.last_id = 0
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(START_S * SLOW)
        self.sock.connect(str(path))
        self.file = self.sock.makefile("rb")
        assert self._receive()["marionetteProtocol"] == 3

    def _receive(self):
        digits = b""
        while (c := self.file.read(1)) != b":":
            if not c.isdigit():
                raise ConnectionError(f"no frame from Marionette: {digits + c!r}")
            digits += c
        return json.loads(self.file.read(int(digits)))

    def ask(self, name, **parameters):
        self.last_id += 1
        text = json.dumps([0, self.last_id, name, parameters]).encode()
        self.sock.sendall(b"%d:%s" % (len(text), text))
        kind, number, error, result = self._receive()
        assert (kind, number) == (1, self.last_id)
        if error is not None:
            raise MarionetteError(name, error["error"], error["message"])
        return result

    def close(self):
        self.file.close()
        self.sock.close()


class MarionetteError(Exception):
    """What the browser answered instead of a result."""


class Firefox:
    """One browser; `front` is the UNIX socket that every https URL leads to."""

    def __init__(self, procs, front, ca_paths, prefs=()):
        self.procs = procs
        self.folder = procs.folder / "firefox"
        self.folder.mkdir()
        self._make_profile(ca_paths, {**PREFS, **dict(prefs)})
        info = self.folder / "island"
        # A socket's path must be short: it is not in the folder of the test.
        short = tempfile.TemporaryDirectory(prefix="deputy-")
        inside = pathlib.Path(short.name) / "s"
        program = ["firefox-esr", "--headless", "--marionette", "--remote-allow-system-access",
                   "--no-remote", "--profile", self.folder]
        environment = {**os.environ, "MOZ_HEADLESS": "1", "HOME": str(self.folder),
                       "MOZ_CRASHREPORTER_DISABLE": "1", "MOZ_DATA_REPORTING": "0",
                       "MOZ_REMOTE_SETTINGS_DEVTOOLS": "1"}
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"):
            environment.pop(name, None)
        port_file = self.folder / "MarionetteActivePort"
        self.process = procs.foreign(
            "firefox", island.command(program, front, inside, port_file, info), env=environment)
        self.marionette = None
        try:
            wait_until(lambda: self._alive() and port_file.exists() and port_file.read_text() and
                       info.exists() and info.read_text(), "Firefox", START_S)
            self.port = int(info.read_text())
            self.marionette = Marionette(inside)
        except BaseException:
            self.process.stop()
            raise
        finally:
            short.cleanup()
        self.marionette.ask("WebDriver:NewSession")
        self.marionette.ask("WebDriver:SetTimeouts", pageLoad=PAGE_S * 1000 * SLOW,
                            script=PAGE_S * 1000 * SLOW)

    def _alive(self):
        assert self.process.is_running(), f"Firefox ended:\n{self.process.err()[-4000:]}"
        return True

    def _make_profile(self, ca_paths, prefs):
        lines = [f'user_pref("{name}", {json.dumps(value)});\n' for name, value in prefs.items()]
        (self.folder / "user.js").write_text("".join(lines))
        database = f"sql:{self.folder}"
        self.procs.run(["certutil", "-N", "-d", database, "--empty-password"], check=True)
        for i, path in enumerate(ca_paths):
            self.procs.run(["certutil", "-A", "-d", database, "-n", f"ca{i}", "-t", "C,,",
                            "-i", path], check=True)

    def open(self, host, path="/"):
        """Loads a page; an error page raises MarionetteError."""
        port = "" if self.port == 443 else f":{self.port}"
        self.marionette.ask("WebDriver:Navigate", url=f"https://{host}{port}{path}")

    def text(self):
        """The page's text, as a reader sees it."""
        return self.marionette.ask("WebDriver:ExecuteScript", args=[],
                                   script="return document.body.innerText;")["value"]

    def title(self):
        return self.marionette.ask("WebDriver:GetTitle")["value"]

    @contextlib.contextmanager
    def _chrome(self):
        self.marionette.ask("Marionette:SetContext", value="chrome")
        try:
            yield
        finally:
            self.marionette.ask("Marionette:SetContext", value="content")

    def security(self):
        """What the browser knows of the page's connection; None for an error page."""
        with self._chrome():
            return self.marionette.ask("WebDriver:ExecuteScript", args=[],
                                       script=SECURITY)["value"]

    def set_pref(self, name, value):
        with self._chrome():
            self.marionette.ask("WebDriver:ExecuteScript", args=[name, value],
                                script="Services.prefs.setBoolPref(arguments[0], arguments[1]);")

    def forget(self):
        """Drops connections and sessions."""
        with self._chrome():
            result = self.marionette.ask("WebDriver:ExecuteAsyncScript", args=[], script=FORGET)
        assert result["value"] is True, result

    def screenshot(self, path):
        """Writes a PNG of what is seen."""
        result = self.marionette.ask("WebDriver:TakeScreenshot", full=False)
        pathlib.Path(path).write_bytes(base64.b64decode(result["value"]))

    def stop(self):
        if self.marionette is not None:
            with contextlib.suppress(OSError, MarionetteError, ValueError):
                self.marionette.ask("Marionette:Quit", flags=["eForceQuit"])
            self.marionette.close()
            self.marionette = None
        self.process.stop(timeout=20)
