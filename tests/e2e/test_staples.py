# SPDX-License-Identifier: Apache-2.0
"""deputyctl staple and revocation, with responders and CRLs of real programs, right and
wrong: what is fetched is checked, and nothing worse takes the place of a good staple."""

import datetime
import json
import os
import subprocess

import pytest

from support.pki import make_key
from support.procs import BIN_DIR, SANITIZE, free_port, wait_until
from support.revocation import DAY, RawServer, RevokingCa
from support.stack import Stack

GOOD, FAILED, USAGE, BAD, NOBODY = 0, 1, 2, 3, 4


@pytest.fixture
def ca(procs, pki):
    ca = RevokingCa(procs, pki, "one")
    yield ca
    ca.stop()


@pytest.fixture
def ctl(procs):
    def run(*args, code=GOOD, words=()):
        done = procs.run([*words, BIN_DIR / "deputyctl", *args])
        assert done.returncode == code, (args, done)
        return done

    return run


def staple_of(leaf):
    return leaf.chain.with_name(leaf.chain.name + ".ocsp")


def fetch(ctl, leaf, *args, code=GOOD, **kwargs):
    done = ctl("staple", "fetch", "--chain", leaf.chain, "--json", *args, code=code, **kwargs)
    return json.loads(done.stdout)


def refused(ctl, leaf, fault, code=FAILED):
    """The fetch fails for this reason, and leaves what is there alone."""
    path = staple_of(leaf)
    before = path.read_bytes() if path.exists() else None
    answer = fetch(ctl, leaf, code=code)
    assert answer["answer"]["fault"] == fault, answer
    assert not answer["written"]
    assert (path.read_bytes() if path.exists() else None) == before
    return answer


def revocation(ctl, leaf, *args, code=GOOD, **kwargs):
    done = ctl("revocation", "check", "--chain", leaf.chain, "--json", *args, code=code, **kwargs)
    return json.loads(done.stdout)


# --- staples -------------------------------------------------------------------------------


def test_a_staple_is_fetched_checked_and_written_beside_the_chain(ca, ctl):
    leaf = ca.issue_chain("demo.test")
    answer = fetch(ctl, leaf)
    assert answer["status"] == "good" and answer["written"]
    assert ca.requests[-1].method == "GET"  # short enough for caches
    assert staple_of(leaf).stat().st_mode & 0o777 == 0o644
    assert [p.name for p in leaf.chain.parent.glob("*.new.*")] == []
    done = ctl("staple", "check", "--chain", leaf.chain)
    assert done.stdout.startswith("good: ")
    # A copy elsewhere; a nonce goes by POST.
    out = leaf.chain.parent / "other.der"
    fetch(ctl, leaf, "--out", out, "--nonce")
    assert ca.requests[-1].method == "POST"
    ctl("staple", "check", out, "--chain", leaf.chain)
    ca.revoke(leaf)
    answer = fetch(ctl, leaf, code=BAD)
    assert answer["status"] == "revoked" and answer["answer"]["reason"] == "superseded"
    ctl("staple", "check", "--chain", leaf.chain)  # the good one is still there


def test_openssl_ocsp_as_a_server(procs, ca, ctl):
    """The program's own HTTP; it listens on all interfaces, so it lives on an island."""
    for words in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if subprocess.run([*words, "ip", "link", "set", "lo", "up"], capture_output=True,
                          check=False).returncode == 0:
            break
    else:
        pytest.skip("the kernel allows no network namespaces")
    leaf = ca.issue_chain("demo.test", ocsp="http://127.0.0.1:4000")
    responder = ca.responder()
    server = procs.foreign("ocsp", [
        *words, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", "openssl", "ocsp", "-port",
        "4000", "-index", ca.folder / "ocsp-index.txt", "-CA", ca.ca.cert, "-rsigner",
        responder.cert, "-rkey", responder.key, "-nmin", "600"])
    wait_until(lambda: "waiting for OCSP client connections" in server.err(), "openssl ocsp")
    inside = ["nsenter", "--target", str(server.pid), "--net"]
    if "--map-root-user" in words:
        inside += ["--user", "--preserve-credentials"]
    for args in ((), ("--nonce",)):
        answer = fetch(ctl, leaf, *args, words=inside)
        assert answer["written"]
    procs.run(["openssl", "ocsp", "-no_nonce", "-respin", staple_of(leaf), "-issuer", ca.ca.cert, "-cert",
               leaf.cert, "-CAfile", ca.ca.cert], check=True)


def test_cfssl_ocspserve(procs, ca, ctl):
    """Signed beforehand, found by the request's bytes in the URL, with HTTP's caching."""
    port = free_port()
    leaf = ca.issue_chain("demo.test", ocsp=f"http://127.0.0.1:{port}/")
    server = ca.cfssl(leaf, port, "-status", "good")
    assert fetch(ctl, leaf)["written"]
    server.kill()
    ca.cfssl(leaf, port, "-status", "revoked", "-reason", "1")
    answer = revocation(ctl, leaf, code=BAD)
    assert answer["sources"][0]["reason"] == "keyCompromise"


def test_the_proxy_shows_what_was_fetched(procs, pki):
    """A must-staple leaf is no good without a staple, and serves with the one fetched; a
    staple that says revoked takes the chain out of service."""
    stack = Stack(procs, pki, hosts=(), issuer=False)
    ca = RevokingCa(procs, pki, "one", ca=stack.web_cas[0])
    leaf = ca.issue_chain("demo.test", more=["tlsfeature=status_request"],
                          key=make_key(stack.keyserver.folder / "primary.key"))
    stack.add_name("demo.test", [("primary", leaf), ("backup", stack.leaf("b", "demo.test", 1))])
    stack.start()

    def issuer():
        with stack.connect() as tls:
            return dict(pair[0] for pair in tls.getpeercert()["issuer"])["commonName"]

    assert issuer() == "web-two"
    procs.run([BIN_DIR / "deputyctl", "staple", "fetch", "--chain", leaf.chain], check=True)
    stack.proxy.reload()
    assert issuer() == "web-one"
    assert "OCSP Response Status: successful" in stack.openssl("-status").stdout
    ca.revoke(leaf)
    done = procs.run([BIN_DIR / "deputyctl", "staple", "fetch", "--chain", leaf.chain])
    assert done.returncode == BAD
    # By hand, as the operator may: the proxy believes what the CA signed.
    staple_of(leaf).write_bytes(ca.respond(ca.requests[-1].ocsp()))
    stack.proxy.reload()
    assert issuer() == "web-two"
    stack.stop()
    ca.stop()


def test_a_chain_without_a_responder_costs_nothing(ca, ctl):
    leaf = ca.issue_chain("plain.test", ocsp=None)
    assert fetch(ctl, leaf)["status"] == "none"
    must = ca.issue_chain("must.test", ocsp=None, more=["tlsfeature=status_request"])
    fetch(ctl, must, code=FAILED)
    assert ca.requests == []


def test_wrong_answers_are_refused_by_name(ca, procs, pki, ctl):
    leaf, other = ca.issue_chain("demo.test"), ca.issue_chain("other.test")
    fetch(ctl, leaf)
    fetch(ctl, other)
    others = staple_of(other).read_bytes()
    now = datetime.datetime.utcnow().replace(microsecond=0)

    def answered(body, fault, code=FAILED):
        ca.answer = lambda request: (200, {}, body)
        refused(ctl, leaf, fault, code)

    answered(others, "other_leaf")
    answered(b"<html>no</html>", "malformed")
    answered(b"", "malformed")
    answered(others[:-20], "malformed")
    answered(ca.build(leaf, now - 3 * DAY, now + DAY), "replayed")
    answered(ca.build(leaf, now - 3 * DAY, now - DAY), "expired")
    answered(ca.build(leaf, now + DAY, now + 2 * DAY), "not_yet_valid")
    answered(bytes.fromhex("30030a0103"), "try_later")
    answered(bytes.fromhex("30030a0106"), "unauthorized")
    answered(bytes.fromhex("30030a0102"), "responder_error")

    ca.answer = ca.truth
    ca.ocsp_args = ["-badsig"]
    refused(ctl, leaf, "bad_signature")
    ca.ocsp_args = []
    # No nextUpdate: true, but nothing to show to clients.
    ca.answer = lambda request: (200, {}, ca.build(leaf, now, None))
    assert fetch(ctl, leaf, code=BAD)["status"] == "not usable"
    # Another question's answer: an old one has no nonce, or the wrong one.
    ca.answer = ca.truth
    old = {}

    def replay(request):
        old.setdefault("body", ca.respond(request.ocsp()))
        return 200, {}, old["body"]

    ca.answer = replay
    fetch(ctl, leaf, "--nonce")
    assert fetch(ctl, leaf, "--nonce", code=FAILED)["answer"]["fault"] == "wrong_nonce"
    ca.answer = lambda request: (200, {}, ca.build(leaf, now, now + DAY))
    assert fetch(ctl, leaf, "--nonce", code=FAILED)["answer"]["fault"] == "no_nonce"
    ca.forget(leaf)
    ca.answer = ca.truth
    assert fetch(ctl, leaf, code=BAD)["answer"]["status"] == "unknown"


def test_who_signed_it_matters(ca, procs, pki, ctl):
    leaf = ca.issue_chain("demo.test")
    ca.signer = ca.responder()
    assert fetch(ctl, leaf)["written"]
    now = datetime.datetime.utcnow()
    stamp = lambda t: t.strftime("%Y%m%d%H%M%SZ")
    ca.signer = ca.responder("no-eku", eku="serverAuth")
    refused(ctl, leaf, "signer_unfit")
    ca.signer = ca.responder("old", start=stamp(now - 9 * DAY), end=stamp(now - 5 * DAY))
    refused(ctl, leaf, "signer_expired")
    other = RevokingCa(procs, pki, "two")
    ca.signer = other.ca
    refused(ctl, leaf, "signer_foreign")
    ca.signer = other.responder()
    refused(ctl, leaf, "signer_foreign")
    # The leaf itself, which may sign as a responder: no answer for itself.
    eager = ca.issue_chain("eager.test", eku="serverAuth,OCSPSigning")
    ca.signer = eager
    refused(ctl, eager, "signer_is_leaf")
    other.stop()


def test_an_intermediate_is_the_issuer(procs, pki, ctl):
    """As on the Web: its key signs leaves, CRLs and responders; the root's does not."""
    root = pki.ca("root")
    ca = RevokingCa(procs, pki, "middle", kind="rsa2048")
    ca.ca.sign_by(root)
    leaf = ca.issue_chain("demo.test", crl=f"URI:{ca.url}/all.crl")
    leaf.chain.write_text(leaf.chain.read_text() + root.cert.read_text())
    assert fetch(ctl, leaf)["written"]
    ca.signer = ca.responder()
    ca.files["/all.crl"] = ca.crl()
    assert [s["status"] for s in revocation(ctl, leaf)["sources"]] == ["good", "good"]
    ca.files["/all.crl"] = ca.crl(signer=root)
    ca.signer = root.issue("responder", eku="OCSPSigning")
    answer = revocation(ctl, leaf, code=NOBODY)
    assert [s["fault"] for s in answer["sources"]] == ["signer_foreign", "other_issuer"]
    ca.stop()


def test_transport_faults_have_names_and_deadlines(ca, ctl, procs):
    leaf = ca.issue_chain("demo.test")
    fetch(ctl, leaf)

    def answered(answer, fault):
        ca.answer = answer
        num = len(ca.requests)
        refused(ctl, leaf, fault, NOBODY)
        return len(ca.requests) - num

    assert answered(lambda r: (500, {}, b""), "http_status") == 2  # GET, then POST
    assert answered(lambda r: (404, {}, b"x" * 100), "http_status") == 2
    assert answered(lambda r: (302, {"Location": r.path + "x"}, b""), "too_many_redirects") == 4
    assert answered(lambda r: (302, {}, b""), "too_many_redirects") == 1
    assert answered(lambda r: (302, {"Location": "https://127.0.0.1:1/"}, b""), "other_scheme") == 1
    assert answered(lambda r: (302, {"Location": "file:///etc/passwd"}, b""), "other_scheme") == 1
    # Another host, which is not a public one: nobody gets us to knock there.
    inside = f"http://localhost:{ca.port}/ocsp"
    assert answered(lambda r: (302, {"Location": inside}, b""), "inside") == 1
    assert answered(lambda r: (200, {}, b"\x30" * 40000), "too_long") == 2

    def endless(request):
        wfile = request.handler.wfile
        wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            wfile.write(b"1000\r\n" + b"0" * 4096 + b"\r\n")

    assert answered(endless, "too_long") == 2
    ca.answer = ca.truth
    # A redirect that behaves is followed: twice on the same host.
    hops = {}

    def hop(request):
        if request.path.startswith("/ocsp"):
            hops["path"] = request.path
            return 302, {"Location": "/a"}, b""
        if request.path == "/a":
            return 307, {"Location": f"{ca.url}/b"}, b""
        request.path = hops["path"]
        return ca.truth(request)

    ca.answer = hop
    assert fetch(ctl, leaf)["written"]


def test_nobody_there(ca, ctl, procs):
    refused(ctl, ca.issue_chain("a.test", ocsp=f"http://127.0.0.1:{free_port()}/"), "unreachable",
            NOBODY)
    refused(ctl, ca.issue_chain("b.test", ocsp="http://no-such-host.invalid/"), "unreachable",
            NOBODY)
    garbage = RawServer(lambda conn: conn.sendall(b"SSH-2.0-nobody\r\n"))
    refused(ctl, ca.issue_chain("c.test", ocsp=garbage.url), "broken", NOBODY)
    garbage.stop()
    cut = RawServer(lambda conn: (conn.recv(4096), conn.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n0123")))
    refused(ctl, ca.issue_chain("d.test", ocsp=cut.url), "broken", NOBODY)
    cut.stop()


# --- revocation --------------------------------------------------------------------------


def nginx(procs, folder):
    """nginx over a folder of CRLs; its URL."""
    port = free_port()
    run = procs.folder / "nginx"
    (run / "tmp").mkdir(parents=True)
    temporary = "".join(f"{kind}_temp_path {run}/tmp;" for kind in
                        ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.getuid() == 0 else ""
    (run / "nginx.conf").write_text(f"""
{user} daemon off; pid {run}/pid; error_log stderr;
events {{ }}
http {{ access_log {run}/access.log; {temporary}
  server {{ listen 127.0.0.1:{port}; root {folder}; }} }}
""")
    server = procs.foreign("nginx", ["nginx", "-c", run / "nginx.conf", "-p", run, "-e", "stderr"])
    wait_until(lambda: (run / "pid").exists() or not server.is_running(), "nginx")
    assert server.is_running(), server.err()
    return f"http://127.0.0.1:{port}"


def test_crls_of_openssl_served_by_nginx(ca, ctl, procs, pki):
    folder = procs.folder / "crls"
    folder.mkdir()
    url = nginx(procs, folder)
    leaf = ca.issue_chain("demo.test", ocsp=None, crl=f"URI:{url}/one.crl")
    put = lambda data: (folder / "one.crl").write_bytes(data)

    def told(status, code):
        answer = revocation(ctl, leaf, code=code)
        assert answer["status"] == status, answer
        return answer["sources"][0]

    put(ca.crl())
    assert told("good", GOOD)["fault"] is None
    for _ in range(3):  # others, before and after it
        ca.revoke(ca.issue_chain(f"x{len(ca.index)}.test"))
    ca.revoke(leaf, "keyCompromise")
    ca.revoke(ca.issue_chain("y.test"))
    put(ca.crl())
    source = told("revoked", BAD)
    assert source["reason"] == "keyCompromise" and source["revoked_at"]
    assert "keyCompromise" in ctl("revocation", "check", "--chain", leaf.chain, code=BAD).stdout

    def unusable(data, fault):
        put(data)
        assert told("unknown", NOBODY)["fault"] == fault

    whole = ca.crl()
    other = RevokingCa(procs, pki, "two")
    point = f"issuingDistributionPoint=critical,@p\n[p]\nfullname=URI:{url}/"
    unusable(other.crl(), "other_issuer")
    unusable(whole[:-1] + bytes([whole[-1] ^ 1]), "bad_signature")
    unusable(whole[:-100], "malformed")
    unusable(whole + b"\0", "malformed")
    unusable(b"", "malformed")
    unusable(ca.crl(extensions=[point + "two.crl"]), "not_covering")
    unusable(ca.crl(extensions=[point + "one.crl\nonlyCA=TRUE"]), "not_covering")
    unusable(ca.crl(extensions=[point + "one.crl\nindirectCRL=TRUE"]), "indirect")
    unusable(ca.crl(extensions=["2.5.29.27=critical,ASN1:INTEGER:1"]), "delta")
    unusable(ca.crl(extensions=["1.2.3.4=critical,ASN1:NULL"]), "unknown_critical")
    put(ca.crl(extensions=[point + "one.crl\nonlyuser=TRUE"]))
    assert told("revoked", BAD)["reason"] == "keyCompromise"
    (folder / "one.crl").unlink()
    assert told("unknown", NOBODY)["fault"] == "http_status"
    other.stop()


def test_a_crl_that_is_too_long_is_refused_at_the_limit(ca, ctl, procs):
    """100 MB of it: by its Content-Length, and when there is none, as it comes."""
    length = 100 * 1000 * 1000
    sent = []

    def long(request):
        wfile = request.handler.wfile
        head = b"" if request.path == "/endless.crl" else b"Content-Length: %d\r\n" % length
        wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + head + b"\r\n")
        for _ in range(length // 100000):
            wfile.write(b"\x30" * 100000)
            sent.append(100000)

    ca.answer = long
    for path in ("long.crl", "endless.crl"):
        leaf = ca.issue_chain(f"{path}.test", ocsp=None, crl=f"URI:{ca.url}/{path}")
        del sent[:]
        answer = revocation(ctl, leaf, "--max-crl", "4", code=NOBODY)
        assert answer["sources"][0]["fault"] == "too_long"
        assert sum(sent) < 50 * 1000 * 1000  # it did not listen to the end
    ctl("revocation", "check", "--chain", leaf.chain, "--max-crl", "0", code=USAGE)
    ctl("revocation", "check", "--chain", leaf.chain, "--max-crl", "x", code=USAGE)


def test_a_long_crl_costs_no_more_than_itself(ca, ctl):
    """20 MB, 600,000 entries: read where it lies."""
    leaf = ca.issue_chain("demo.test", ocsp=None, crl=f"URI:{ca.url}/long.crl")
    ca.revoke(leaf, "keyCompromise")
    ca.files["/long.crl"] = ca.long_crl(600000, leaf)
    assert len(ca.files["/long.crl"]) > 20 * 1000 * 1000
    # 80 MB of data at most: the list, what its buffer may have over, and the program.
    words = [] if SANITIZE else ["sh", "-c", 'ulimit -d 80000 && exec "$@"', "sh"]
    answer = revocation(ctl, leaf, code=BAD, words=words)
    assert answer["sources"][0]["reason"] == "keyCompromise"


def test_one_source_that_says_revoked_is_enough(ca, ctl):
    ca.files["/all.crl"] = b""
    leaf = ca.issue_chain("demo.test", crl=f"URI:{ca.url}/all.crl")
    assert revocation(ctl, leaf)["status"] == "good"  # OCSP alone
    ca.files["/all.crl"] = ca.crl()
    assert [s["status"] for s in revocation(ctl, leaf)["sources"]] == ["good", "good"]
    before = ca.files["/all.crl"]
    ca.revoke(leaf)
    ca.files["/all.crl"], after = before, ca.crl()
    assert [s["status"] for s in revocation(ctl, leaf, code=BAD)["sources"]] == ["revoked", "good"]
    ca.files["/all.crl"] = after
    ca.forget(leaf)
    answer = revocation(ctl, leaf, code=BAD)
    assert [s["status"] for s in answer["sources"]] == ["unknown", "revoked"]
    nothing = ca.issue_chain("nothing.test", ocsp=None)
    assert revocation(ctl, nothing, code=NOBODY)["sources"] == []
