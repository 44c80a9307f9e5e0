# SPDX-License-Identifier: Apache-2.0
"""The fixtures themselves: a helper that cannot fail proves nothing."""

import sys

import pytest

from support import pki as pki_module
from support.procs import wait_until

ANNOUNCER = """
import sys, time
print('{"ready":true,"listeners":[{"name":"a","address":"127.0.0.1:7"},'
      '{"name":"b","address":"unix:/x/y"}]}', flush=True)
time.sleep(60)
"""


def test_reads_the_readiness_line(procs):
    daemon = procs.foreign("announcer", [sys.executable, "-c", ANNOUNCER])
    daemon.wait_ready()
    assert daemon.address("a") == ("127.0.0.1", 7)
    assert daemon.address("b") == "/x/y"


def test_says_so_when_a_daemon_ends_before_it_is_ready(procs):
    dead = procs.foreign("dead", [sys.executable, "-c", "import sys; sys.exit('out of luck')"])
    with pytest.raises(AssertionError, match="out of luck"):
        dead.wait_ready()


def test_complains_about_a_bad_exit_code(procs):
    bad = procs.start("bad", [sys.executable, "-c", "raise SystemExit(3)"])
    wait_until(lambda: not bad.is_running(), "its end")
    with pytest.raises(AssertionError, match="ended with 3"):
        bad.stop()


def test_makes_certificates_that_verify(pki):
    ca = pki.ca("root")
    leaf = ca.issue_leaf("demo.test")
    old = ca.issue("old", start="20260101000000Z", end="20260201000000Z")
    pki_module.openssl("verify", "-CAfile", ca.cert, "-purpose", "sslserver", leaf.cert)
    text = pki_module.openssl("x509", "-in", leaf.cert, "-noout", "-text").decode()
    assert pki_module.DELEGATION_USAGE in text
    assert "DNS:demo.test" in text
    assert len(leaf.ski()) == 20
    with pytest.raises(AssertionError, match="expired"):
        pki_module.openssl("verify", "-CAfile", ca.cert, old.cert)
