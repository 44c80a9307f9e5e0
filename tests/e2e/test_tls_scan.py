# SPDX-License-Identifier: Apache-2.0
"""What scanners say of the proxy with both kinds of certificate (test_demo.py: of the demo):
scripts/scan runs testssl.sh and sslscan, and names every weakness."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

from support.procs import SLOW, SOURCE_DIR
from support.stack import Stack

OF_EACH_CERTIFICATE = {
    "cert_signatureAlgorithm", "cert_keySize", "cert_trust", "cert_chain_of_trust",
    "cert_expirationStatus", "cert_crlDistributionPoints",
}
NOT_OFFERED = {"SSLv2", "SSLv3", "TLS1", "TLS1_1", "cipherlist_NULL", "cipherlist_aNULL",
               "cipherlist_EXPORT", "cipherlist_LOW", "cipherlist_3DES_IDEA", "cipherlist_AVERAGE"}


@pytest.fixture(scope="module")
def stack(module_procs, module_pki):
    stack = Stack(module_procs, module_pki)
    stack.proxy.config["tls"] = {"alpn": ["http/1.1"]}
    stack.proxy.config["default_name"] = "demo.test"
    stack.proxy.config["names"] = []
    more = ["crlDistributionPoints=URI:http://crl.demo.test/ca.crl"]
    ecdsa = stack.leaf("ecdsa", "demo.test", more=more)
    rsa = stack.leaf("rsa", "demo.test", kind="rsa2048", more=more,
                     key_usage="critical,digitalSignature,keyEncipherment")
    stack.add_name("demo.test", [("primary", ecdsa), ("primary", rsa)])
    stack.start(wait_credentials=1)
    yield stack
    stack.stop()


def test_testssl_finds_no_weakness(stack, tmp_path):
    done = stack.procs.run([SOURCE_DIR / "scripts/scan", f"127.0.0.1:{stack.proxy.port}",
                            "demo.test", stack.ca_file(), tmp_path], timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    findings = [finding for path in tmp_path.glob("testssl-*.json")
                for finding in json.loads(path.read_text())]
    by_id = {}
    for finding in findings:
        by_id.setdefault(finding["id"].split(" ")[0], []).append(finding)
    for check in OF_EACH_CERTIFICATE:
        assert len(by_id[check]) == 2, check
    for check in NOT_OFFERED:
        assert by_id[check][0]["finding"] == "not offered", by_id[check]
    skipped = [f for f in findings if "skipped" in f["finding"] or "not tested" in f["finding"]]
    # RFC 8659's record is in the DNS, which these names are not.
    assert all(f["id"].startswith("DNS_CAArecord") for f in skipped), skipped


@pytest.mark.parametrize("kind", ["ECDSA", "RSA"])
def test_sslscan_finds_no_weakness(stack, tmp_path, kind):
    if kind == "RSA":
        stack.proxy.config["names"][0]["chains"].pop(0)
        stack.proxy.reload()
    path = tmp_path / "scan.xml"
    done = stack.procs.run(
        ["sslscan", f"--xml={path}", "--no-colour", "--sni-name=demo.test",
         f"127.0.0.1:{stack.proxy.port}"], timeout=60 * SLOW)
    assert done.returncode == 0, done.stdout + done.stderr
    scan = ElementTree.parse(path).getroot().find("ssltest")
    assert {(p.get("type"), p.get("version")) for p in scan.iter("protocol")
            if p.get("enabled") == "1"} == {("tls", "1.2"), ("tls", "1.3")}
    assert len(list(scan.iter("protocol"))) == 6
    ciphers = {c.get("cipher") for c in scan.iter("cipher")}
    assert ciphers == {
        "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
        f"ECDHE-{kind}-AES128-GCM-SHA256", f"ECDHE-{kind}-AES256-GCM-SHA384",
        f"ECDHE-{kind}-CHACHA20-POLY1305"}
    assert {c.get("strength") for c in scan.iter("cipher")} <= {"strong", "acceptable"}
    assert {g.get("id") for g in scan.iter("group")} >= {"0x0017", "0x001d"}
    assert all(int(g.get("bits")) >= 128 for g in scan.iter("group"))
    heartbleed = list(scan.iter("heartbleed"))
    assert heartbleed and all(h.get("vulnerable") == "0" for h in heartbleed)
    assert scan.find("renegotiation").get("supported") == "0"
    certificate = scan.find("certificates/certificate")
    assert certificate.find("pk").get("error") == "false"
    assert certificate.findtext("expired") == "false"
    assert certificate.findtext("self-signed") == "false"
    assert certificate.findtext("signature-algorithm") == "ecdsa-with-SHA256"
