# SPDX-License-Identifier: Apache-2.0
"""What the issuer gives to whom: good credentials, checked without our code, and every refusal."""

import collections
import datetime
import json
import time

import pytest

from support import pki as pki_module
from support.dcissuer import DAY, HOUR, PATH, Dc, DcKey, Issuer, b64
from support.keyserver import KeyServer
from support.procs import wait_until


@pytest.fixture(scope="module")
def ks(module_procs, module_pki):
    ks = KeyServer(module_procs, module_pki)
    ks.add_key("p256", "p256", "demo.test")
    ks.add_key("p384", "p384", "p384.test")
    ks.add_key("p521", "p521", "p521.test")
    ks.add_key("rsa", "rsa2048", "rsa.test")
    ks.add_key("plain", "p256", "plain.test", delegation=False)
    ks.add_key("other", "p256", "other.example")
    return ks.start()


@pytest.fixture(scope="module")
def issuer(module_procs, module_pki, ks):
    issuer = Issuer(module_procs, module_pki, ks)
    issuer.configure(ks.keys["p256"], "demo")
    issuer.configure(ks.keys["plain"], "plain")
    issuer.grant("wide", ["*"], schemes=["ecdsa_secp256r1_sha256", "ecdsa_secp384r1_sha384",
                                         "ecdsa_secp521r1_sha512", "ed25519"])
    issuer.grant("short", ["*.test"], max_lifetime="1h")
    issuer.grant("slow", ["*.test"], rate_per_minute=1, burst=3)
    return issuer.start()


@pytest.fixture
def leaf(ks):
    return ks.keys["p256"]


# --- what is given -----------------------------------------------------------------


def test_credential_is_good(issuer, leaf):
    dc = issuer.issue("proxy", leaf)
    assert len(dc.raw) in range(170, 180)


def test_certificate_by_hash(issuer, leaf):
    issuer.issue("proxy", leaf, by_hash=True)


def test_openssl_verifies_it(issuer, leaf, tmp_path):
    """The fact sheet's recipe: cut the signature off, build the input, openssl dgst."""
    key = DcKey()
    result = issuer.ask_one("proxy", key.entry(leaf))
    dc = Dc(result["credential"])
    (tmp_path / "sig").write_bytes(dc.signature)
    (tmp_path / "input").write_bytes(dc.signing_input(leaf.der()))
    public = pki_module.openssl("x509", "-in", leaf.cert, "-noout", "-pubkey")
    (tmp_path / "public.pem").write_bytes(public)
    args = ["dgst", "-sha256", "-verify", tmp_path / "public.pem", "-signature", tmp_path / "sig"]
    assert b"Verified OK" in pki_module.openssl(*args, tmp_path / "input")
    (tmp_path / "input").write_bytes(dc.signing_input(leaf.der())[:-1] + b"\x04")
    with pytest.raises(AssertionError, match="openssl"):
        pki_module.openssl(*args, tmp_path / "input")


@pytest.mark.parametrize("label", ["p256", "p384", "p521"])
@pytest.mark.parametrize("scheme", ["ecdsa_secp256r1_sha256", "ecdsa_secp384r1_sha384",
                                    "ecdsa_secp521r1_sha512", "ed25519"])
def test_every_kind_of_key(issuer, ks, label, scheme):
    issuer.issue("wide", ks.keys[label], scheme=scheme)


@pytest.mark.parametrize("lifetime", [1, 3600, 6 * DAY])
def test_lifetime_is_kept(issuer, leaf, lifetime):
    if lifetime == 1:  # may be over before we look
        result = issuer.ask_one("proxy", DcKey().entry(leaf, lifetime))
        assert "credential" in result
    else:
        issuer.issue("proxy", leaf, lifetime)


def test_lifetime_left_out_is_cut_to_the_grant(issuer, leaf):
    issuer.issue("short", leaf, expect=HOUR)


def test_lifetime_left_out_is_cut_to_the_certificate(issuer, ks):
    end = datetime.datetime.utcnow() + datetime.timedelta(hours=5)
    leaf = ks.web_ca.issue_leaf("demo.test", key=ks.keys["p256"].key, name="ends-soon",
                                end=end.strftime("%Y%m%d%H%M%SZ"))
    issuer.issue("proxy", leaf, expect=5 * HOUR - 1)
    assert issuer.error("proxy", DcKey().entry(leaf, 6 * HOUR)) == "lifetime_too_long"
    issuer.issue("proxy", leaf, 4 * HOUR)


def test_old_certificate(issuer, ks):
    """valid_time counts from notBefore, which may be long ago."""
    leaf = ks.web_ca.issue_leaf("demo.test", key=ks.keys["p256"].key, name="old",
                                start="20200101000000Z", end="20490101000000Z")
    assert issuer.issue("proxy", leaf).valid_time > 5 * 365 * DAY


def test_entries_are_independent_and_in_order(issuer, leaf, ks):
    keys = [DcKey() for _ in range(5)]
    entries = [keys[0].entry(leaf), 7, keys[1].entry(ks.keys["other"]), keys[2].entry(leaf, 5 * DAY),
               keys[3].entry(leaf, proof=b64(b"no")), keys[4].entry(leaf, by_hash=True)]
    status, body = issuer.ask("proxy", entries)
    assert status == 200
    results = body["results"]
    assert [r.get("error", {}).get("code") for r in results] == [
        None, "bad_request", "not_allowed", None, "bad_proof", None]
    Dc(results[0]["credential"]).verify(leaf, keys[0])
    Dc(results[3]["credential"]).verify(leaf, keys[2], 5 * DAY)
    Dc(results[5]["credential"]).verify(leaf, keys[4])


def test_batch_of_a_thousand(issuer, leaf):
    keys = [DcKey() for _ in range(20)]
    der = leaf.der()
    entries = [keys[i % 20].entry(der) for i in range(1000)]
    status, body = issuer.ask("proxy", entries, timeout=60)
    assert status == 200 and len(body["results"]) == 1000
    for i, result in enumerate(body["results"]):
        assert "credential" in result, (i, result)
        assert Dc(result["credential"]).spki == keys[i % 20].spki
    Dc(body["results"][999]["credential"]).verify(leaf, keys[19], slack=60)
    assert len({r["credential"] for r in body["results"]}) == 1000


# --- what is refused, each for its reason -------------------------------------------------


def refused(issuer, client, entry):
    """The code, after a look that the audit and the metrics have it too."""
    # A line of an earlier test may come only now: those of this client and reason count.
    who = {"result": "refused", "client": f"{client}.client.test"}
    before = collections.Counter(line["reason"] for line in issuer.audit(**who))
    code = issuer.error(client, entry)
    wait_until(lambda: len(issuer.audit(**who, reason=code)) > before[code], f"the line of {code}")
    assert issuer.metric("refused_total", reason=code) >= 1
    return code


def test_other_clients_name(issuer, ks):
    assert refused(issuer, "proxy", DcKey().entry(ks.keys["other"])) == "not_allowed"


def test_one_name_of_several_is_not_enough(issuer, ks):
    key = ks.keys["p256"].key
    for name, san in (("two", ["DNS:demo.test", "DNS:demo.example"]),
                      ("ip", ["DNS:demo.test", "IP:127.0.0.1"]),
                      ("uri", ["DNS:demo.test", "URI:https://demo.test/"]),
                      ("above", ["DNS:test"]), ("none", None)):
        leaf = ks.web_ca.issue_leaf("demo.test", key=key, name=name, san=san)
        assert refused(issuer, "proxy", DcKey().entry(leaf)) == "not_allowed", name
        issuer.issue("wide", leaf)


def test_wildcard_leaf_needs_a_wildcard_grant(issuer, ks):
    leaf = ks.web_ca.issue_leaf("*.deep.test", key=ks.keys["p256"].key)
    issuer.issue("proxy", leaf)  # "*.test" holds all below


def test_certificate_without_delegation_usage(issuer, ks):
    leaf = ks.keys["plain"]
    for by_hash in (False, True):
        entry = DcKey().entry(leaf, by_hash=by_hash)
        assert refused(issuer, "proxy", entry) == "certificate_not_delegable"


@pytest.mark.parametrize("usage", [None, "critical,keyAgreement"])
def test_certificate_without_digital_signature(issuer, ks, usage):
    leaf = ks.web_ca.issue_leaf("demo.test", key=ks.keys["p256"].key, name="usage", key_usage=usage)
    assert refused(issuer, "proxy", DcKey().entry(leaf)) == "certificate_not_delegable"


def test_rsa_certificate(issuer, ks):
    assert refused(issuer, "proxy", DcKey().entry(ks.keys["rsa"])) == "certificate_not_delegable"


@pytest.mark.parametrize("start, end", [("20200101000000Z", "20210101000000Z"),
                                        ("20480101000000Z", "20490101000000Z")])
def test_certificate_that_is_not_valid_now(issuer, ks, start, end):
    leaf = ks.web_ca.issue_leaf("demo.test", key=ks.keys["p256"].key, name="dated", start=start,
                                end=end)
    assert refused(issuer, "proxy", DcKey().entry(leaf)) == "certificate_not_valid"


def test_unknown_certificate(issuer, ks):
    assert refused(issuer, "proxy", DcKey().entry(ks.keys["p384"], by_hash=True)) == "unknown_certificate"


def test_certificate_that_is_none(issuer, leaf):
    der = leaf.der()
    for bad in (b"\x30\x03\x02\x01\x01", der[:-1], der + b"\0", bytes(500)):
        assert refused(issuer, "proxy", DcKey().entry(bad)) == "bad_certificate"


def test_key_that_no_key_server_has(issuer, ks):
    leaf = ks.web_ca.issue_leaf("lonely.test")
    assert refused(issuer, "proxy", DcKey().entry(leaf)) == "key_not_found"


@pytest.mark.parametrize("lifetime", [6 * DAY + 1, 7 * DAY, 8 * DAY, 2**31, 2**32 + 5, 2**62])
def test_lifetime_over_everybodys_maximum(issuer, leaf, lifetime):
    assert refused(issuer, "proxy", DcKey().entry(leaf, lifetime)) == "lifetime_too_long"


def test_lifetime_over_the_grant(issuer, leaf):
    issuer.issue("short", leaf, HOUR)
    assert refused(issuer, "short", DcKey().entry(leaf, HOUR + 1)) == "lifetime_too_long"


@pytest.mark.parametrize("scheme, name", [
    ("ecdsa_secp384r1_sha384", "ecdsa_secp384r1_sha384"), ("ed25519", "ed25519"),
    ("ecdsa_secp256r1_sha256", "rsa_pss_rsae_sha256"), ("ecdsa_secp256r1_sha256", "rsa_pkcs1_sha256"),
    ("ecdsa_secp256r1_sha256", "no_such_scheme"), ("ecdsa_secp256r1_sha256", "")])
def test_scheme_that_is_not_granted(issuer, leaf, scheme, name):
    entry = DcKey(scheme).entry(leaf, scheme=name)
    assert refused(issuer, "proxy", entry) == "scheme_not_allowed"


def test_key_that_does_not_fit_the_scheme(issuer, leaf):
    p384 = DcKey("ecdsa_secp384r1_sha384")
    entry = p384.entry(leaf, scheme="ecdsa_secp256r1_sha256")
    assert refused(issuer, "proxy", entry) == "bad_public_key"
    good = DcKey()
    for spki in (good.spki[:-1], good.spki + b"\0", good.spki[:-1] + b"\1", b"junk",
                 good.spki[:26] + b"\0" * 65):
        assert refused(issuer, "proxy", good.entry(leaf, public_key=b64(spki))) == "bad_public_key"


def test_compressed_point(issuer, leaf):
    """A second spelling of the same key."""
    from cryptography.hazmat.primitives import serialization
    key = DcKey()
    point = key.key.public_key().public_bytes(serialization.Encoding.X962,
                                              serialization.PublicFormat.CompressedPoint)
    key.spki = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point
    assert refused(issuer, "proxy", key.entry(leaf)) == "bad_public_key"


def test_the_certificates_own_key(issuer, leaf):
    from cryptography.hazmat.primitives import serialization
    own = serialization.load_pem_private_key(leaf.key.read_bytes(), None)
    assert refused(issuer, "proxy", DcKey(key=own).entry(leaf)) == "own_key"


def test_proofs_that_prove_nothing(issuer, leaf, ks):
    key, other = DcKey(), DcKey()
    der = leaf.der()
    bad = {
        "junk": b"junk",
        "other key": other.sign(key.proof_input(der)),
        "other certificate": key.sign(key.proof_input(ks.keys["plain"].der())),
        "other lifetime": key.sign(key.proof_input(der, 3600)),
        "other scheme": key.sign(key.proof_input(der, code=0x0503)),
        "other public key": key.sign(key.proof_input(der, spki=other.spki)),
        "a TLS signature": key.sign(b"\x20" * 64 + b"TLS 1.3, server CertificateVerify\0" + bytes(32)),
        "one bit": bytes([*key.sign(key.proof_input(der))[:-1],
                          key.sign(key.proof_input(der))[-1] ^ 1]),
    }
    for name, proof in bad.items():
        assert refused(issuer, "proxy", key.entry(der, proof=b64(proof))) == "bad_proof", name
    # The lifetime is part of the proof: nobody on the way can stretch it.
    entry = key.entry(der, 3600)
    entry["lifetime_seconds"] = 7200
    assert refused(issuer, "proxy", entry) == "bad_proof"


def test_rate(issuer, leaf):
    results = [issuer.ask_one("slow", DcKey().entry(leaf)) for _ in range(4)]
    assert ["credential" in r for r in results] == [True, True, True, False]
    assert results[3]["error"]["code"] == "rate_exceeded"
    issuer.issue("proxy", leaf)  # the others have a rate of their own


ENTRY = {"certificate": "MA==", "scheme": "ecdsa_secp256r1_sha256", "public_key": "MA==",
         "proof": "MA=="}


@pytest.mark.parametrize("change", [
    {"certificate": None}, {"scheme": None}, {"public_key": None}, {"proof": None},
    {"certificate": 1}, {"certificate": ""}, {"certificate": "%%%"}, {"certificate": "MA"},
    {"certificate": "MA== "}, {"certificate": "A" * 50000}, {"certificate": []},
    {"certificate_sha256": "00" * 32}, {"scheme": 3}, {"scheme": "x" * 100},
    {"public_key": {}}, {"public_key": ""}, {"public_key": "A" * 4000}, {"proof": True},
    {"proof": "!"}, {"proof": ""}, {"lifetime_seconds": "3600"}, {"lifetime_seconds": 0},
    {"lifetime_seconds": -1}, {"lifetime_seconds": 1.5}, {"lifetime_seconds": True},
    {"lifetime_seconds": "null"}, {"lifetime": 3600}, {"extra": 1}, {"Certificate": "MA=="}])
def test_malformed_entries(issuer, change):
    entry = {**ENTRY, **change}
    entry = {k: v for k, v in entry.items() if v is not None}
    assert refused(issuer, "proxy", entry) == "bad_request"


@pytest.mark.parametrize("value", ["", "00", "g" * 64, "00" * 33, "0" * 63])
def test_malformed_hash(issuer, value):
    entry = {**ENTRY, "certificate_sha256": value}
    del entry["certificate"]
    assert refused(issuer, "proxy", entry) == "bad_request"


def test_entries_that_are_no_objects(issuer):
    status, body = issuer.ask("proxy", [None, 1, "x", [], True, 1.5])
    assert status == 200
    assert {r["error"]["code"] for r in body["results"]} == {"bad_request"}


# --- whole requests ------------------------------------------------------------------------


@pytest.mark.parametrize("body", [
    "", "{", "null", "[]", "7", '"x"', "{}", '{"requests":{}}', '{"requests":[]}',
    '{"requests":null}', '{"requests":[{}],"more":1}', '{"requests":[{}]}x',
    '{"requests":[{}],"requests":[{}]}', '{"requests":[{"a":1,"a":2}]}', '{"requests":[\x00]}',
    '{"requests":["\xff"]}', "[" * 100000, '{"requests":' + "[" * 100000])
def test_malformed_body(issuer, body):
    status, reply = issuer.post("proxy", body.encode("latin-1"))
    assert (status, reply["error"]["code"]) == (400, "bad_request")


def test_too_many_entries(issuer):
    status, reply = issuer.ask("proxy", [{}] * 1001)
    assert (status, reply["error"]["code"]) == (413, "too_many_entries")
    # One entry, but a million values: not even parsed.
    status, reply = issuer.post("proxy", '{"requests":[[' + "1," * 1000000 + "1]]}")
    assert (status, reply["error"]["code"]) == (413, "too_many_entries")
    status, reply = issuer.ask("proxy", [{}] * 1000)
    assert status == 200 and len(reply["results"]) == 1000


def test_huge_body(issuer):
    status, reply = issuer.post("proxy", b" " * (4 << 20) + b"{}")
    assert (status, reply["error"]["code"]) == (413, "too_large")
    status, reply = issuer.post("proxy", b" " * ((4 << 20) - 2) + b"{}")
    assert status == 400  # not too large, but no request


def test_client_without_rights(issuer, leaf):
    status, reply = issuer.ask("stranger", [DcKey().entry(leaf)])
    assert (status, reply["error"]["code"]) == (403, "not_allowed")
    issuer.audit(num=1, client="stranger.client.test", reason="not_allowed")
    assert issuer.metric("requests_refused_total", reason="not_allowed") >= 1


def test_other_paths_and_methods(issuer):
    assert issuer.post("proxy", None, path="/", method="GET")[0] == 404
    assert issuer.post("proxy", None, path=PATH, method="GET")[0] == 405
    assert issuer.post("proxy", "{}", path="/healthz")[0] == 405
    assert issuer.post("proxy", "{}", path=PATH + "/")[0] == 404


def test_health_ready_metrics(issuer):
    for path in ("/healthz", "/readyz", "/metrics"):
        assert issuer.post("proxy", None, path=path, method="GET")[0] == 200
        assert issuer.plain(path)[0] == 200
    # The plain listener has figures, and nothing else.
    assert issuer.plain(PATH)[0] == 404


def test_audit_line_of_a_credential(issuer, leaf):
    import hashlib
    key = DcKey()
    result = issuer.ask_one("proxy", key.entry(leaf, 3600))
    spki = hashlib.sha256(key.spki).hexdigest()
    line, = issuer.audit(num=1, dc_spki_sha256=spki)
    assert line["result"] == "issued" and line["expires_at"] == result["expires_at"]
    assert line["client"] == "proxy.client.test" and line["grant"] == "proxy-0"
    assert line["client_spki_sha256"] == issuer.clients["proxy"].spki_sha256()
    assert line["certificate_sha256"] == hashlib.sha256(leaf.der()).hexdigest()
    assert line["names"] == "demo.test" and line["lifetime_seconds"] == 3600
    assert line["peer"].startswith("127.0.0.1:") and line["scheme"] == key.scheme


def test_curl(issuer, leaf, tmp_path, module_procs):
    host, port = issuer.process.address("api")
    identity = issuer.client("proxy")
    body = tmp_path / "body.json"
    key = DcKey()
    body.write_text(json.dumps({"requests": [key.entry(leaf)]}))
    done = module_procs.run(["curl", "-sS", "--fail", "--cacert", issuer.ca.cert, "--cert",
                             identity.cert, "--key", identity.key, "-H",
                             "Content-Type: application/json", "--data-binary", f"@{body}",
                             f"https://localhost:{port}{PATH}"], check=True)
    Dc(json.loads(done.stdout)["results"][0]["credential"]).verify(leaf, key)


def test_clock_is_ours(issuer, leaf):
    """The expiry is counted from now, not from the certificate's start."""
    dc = issuer.issue("proxy", leaf, 3600)
    assert abs(dc.expiry(leaf.der()) - time.time() - 3600) < 10
