# SPDX-License-Identifier: Apache-2.0
"""deputyctl against a running proxy: what it shows, and what the next handshake shows
once a switch has returned."""

import json
import os
import pwd
import re

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from support.stack import BODY, Stack

UNKNOWN_ID = "0123456789abcdef"


@pytest.fixture(scope="module")
def stack(module_procs, module_pki):
    stack = Stack(module_procs, module_pki, issuer=False)
    stack.add_name("single.test", [("primary", stack.leaf("single", "single.test", 1))])
    rsa = dict(kind="rsa2048", key_usage="critical,digitalSignature,keyEncipherment")
    stack.add_name("both.test", [
        ("primary", stack.leaf("both-ec", "both.test", 0)),
        ("primary", stack.leaf("both-rsa", "both.test", 0, **rsa)),
        ("backup", stack.leaf("both-backup", "both.test", 1))])
    stack.add_name("*.wild.test")
    stack.start()
    yield stack
    stack.stop()


@pytest.fixture(autouse=True)
def nothing_stands(stack):
    """Each test leaves the proxy as it found it."""
    yield
    for change in switches(stack, "--standing"):
        stack.proxy.ctl("restore", change["id"])


def switches(stack, *args):
    return json.loads(stack.proxy.ctl("switches", "--json", *args).stdout)["switches"]


def names(stack, name):
    return json.loads(stack.proxy.ctl("names", name, "--json").stdout)["names"][0]


def chain_of(stack, name, level):
    """The first chain of the level, as the API shows it."""
    return [l for l in names(stack, name)["levels"] if l["label"] == level][0]["chains"][0]


def issuer(stack, host="demo.test"):
    """Who issued the leaf of a new handshake; a request goes through as well."""
    with stack.connect(host) as tls:
        cert = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True))
        tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert tls.recv(65536).startswith(b"HTTP/1.1 200")
    return cert.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value


def audit(stack):
    """The audit lines, oldest first."""
    return [json.loads(line) for line in stack.proxy.audit_path.read_text().splitlines()]


def wait_audit(stack, **fields):
    """The last audit line, once it has these fields."""
    from support.procs import wait_until

    def found():
        lines = audit(stack)
        return lines and all(lines[-1].get(k) == v for k, v in fields.items()) and lines[-1]

    return wait_until(found, f"the audit line {fields}")


# --- looking ---------------------------------------------------------------------------


def test_status_is_a_table_and_json(stack):
    text = stack.proxy.ctl("status").stdout
    assert re.search(r"^names total +4$", text, re.M), text
    assert re.search(r"^names on first level +4$", text, re.M), text
    assert re.search(r"^switches kept +yes$", text, re.M), text
    assert "ALERT" not in text
    status = json.loads(stack.proxy.ctl("status", "--json").stdout)
    assert status["chains"] == 8 and status["names"]["unserved"] == 0
    assert status["fleet"] == {"dc": True, "preferred_level": None}


def test_names_tell_who_serves_and_why_not_the_others(stack):
    stack.proxy.ctl("switch", "--ca", "web-one", "--reason", "table")
    lines = stack.proxy.ctl("names").stdout.splitlines()
    assert lines[0].split()[:3] == ["NAME", "CHAIN", "STATE"]
    row = [line for line in lines if line.startswith("demo.test")][0]
    assert "CA out of service" in row and "web-one" in row and "first usable" not in row
    after = lines[lines.index(row) + 1]
    assert re.match(r" +backup +serves +first usable .*web-two", after), after
    assert re.search(r" (89|90)d ", row), row  # of ninety, made in this second or before
    one = stack.proxy.ctl("names", "demo.test").stdout
    assert "serves: backup (first_usable)" in one
    assert "primary: CA out of service" in one
    assert chain_of(stack, "demo.test", "primary")["ca_id"] in one
    # A name below a wildcard shows the wildcard, any case; an unknown one is refused.
    assert stack.proxy.ctl("names", "A.Wild.Test").stdout.startswith("*.wild.test\n")
    done = stack.proxy.ctl("names", "nobody.test", check=False)
    assert done.returncode == 1 and "no such name" in done.stderr


def test_chains_count_their_names(stack):
    lines = stack.proxy.ctl("chains").stdout.splitlines()
    assert len(lines) == 9
    chains = json.loads(stack.proxy.ctl("chains", "--json").stdout)["chains"]
    assert [c["num_names"] for c in chains] == [1] * 8
    assert {c["issuer"] for c in chains} == {"web-one", "web-two"}
    assert [c["why_no_dc"] for c in chains if c["kind"].startswith("rsa")] == ["RSA leaf"]


def test_lists_come_in_pages(stack):
    status, page = stack.proxy.admin("GET", "/v1/names?start=1&limit=2")
    assert status == 200 and page["total"] == 4 and page["next"] == 3
    assert [n["name"] for n in page["names"]] == ["single.test", "both.test"]
    status, page = stack.proxy.admin("GET", "/v1/names?start=3&limit=2")
    assert page["next"] is None and len(page["names"]) == 1
    for query in ("limit=0", "limit=10001", "start=-1", "start=x", "limit="):
        assert stack.proxy.admin("GET", f"/v1/names?{query}")[0] == 400, query


def test_metrics_and_health(stack):
    assert stack.proxy.admin("GET", "/healthz") == (200, "ok\n")
    text = stack.proxy.ctl("metrics").stdout
    assert "deputy_states_kept 1\n" in text and "deputy_proxy_" in text


# --- switching -------------------------------------------------------------------------


def test_a_ca_goes_out_and_comes_back(stack):
    assert issuer(stack) == "web-one"
    out = stack.proxy.ctl("switch", "--ca", "Web-One", "--reason", "CA one is distrusted").stdout
    assert "out of service; 3 names moved" in out, out
    for host in ("demo.test", "both.test", "x.wild.test", "single.test"):
        assert issuer(stack, host) == "web-two"
    change = switches(stack, "--standing")[-1]
    assert change["known_as"] == "web-one" and change["action"] == "out"
    assert change["reason"] == "CA one is distrusted"
    assert change["author"] == pwd.getpwuid(os.getuid()).pw_name
    assert change["author_uid"] == os.getuid()
    line = wait_audit(stack, event="switch", outcome="done", id=change["id"])
    assert line["level"] == "ca" and line["subject"] == change["subject"] and line["kept"] is True
    out = stack.proxy.ctl("restore", "--ca", "web-one").stdout
    assert out == f"restored: {change['id']} (ca web-one ({change['subject'][:12]}))\n"
    assert issuer(stack) == "web-one"
    history = stack.proxy.ctl("switches").stdout
    assert re.search(rf"^{change['id']} .*out of service.*restored by ", history, re.M), history
    wait_audit(stack, event="restore", outcome="done", id=change["id"])


def test_a_key_goes_out_by_its_short_id(stack):
    key = chain_of(stack, "demo.test", "primary")["key_id"]
    stack.proxy.ctl("switch", "--key", key[:8].upper(), "--reason", "leaked", "--compromised")
    assert issuer(stack) == "web-two"
    assert issuer(stack, "x.wild.test") == "web-one"
    change = switches(stack, "--standing")[-1]
    assert change["compromised"] is True and change["subject"] == key
    assert "out of service, compromised" in stack.proxy.ctl("switches").stdout
    stack.proxy.ctl("restore", change["id"])
    assert issuer(stack) == "web-one"


def test_a_key_in_service_outranks_its_ca(stack):
    key = chain_of(stack, "demo.test", "primary")["key_id"]
    stack.proxy.ctl("switch", "--ca", "web-one", "--reason", "out")
    stack.proxy.ctl("switch", "--key", key, "--in-service", "--reason", "pinned clients")
    assert issuer(stack) == "web-one"
    assert issuer(stack, "x.wild.test") == "web-two"
    stack.proxy.ctl("restore", "--key", key)
    assert issuer(stack) == "web-two"


def test_a_name_goes_to_the_other_level_or_the_one_asked_for(stack):
    stack.proxy.ctl("switch", "--name", "Demo.Test.", "--reason", "try")
    assert issuer(stack) == "web-two"
    assert names(stack, "demo.test")["why"] == "name_preferred"
    assert issuer(stack, "x.wild.test") == "web-one"
    stack.proxy.ctl("switch", "--name", "demo.test", "--to", "primary", "--reason", "back")
    assert issuer(stack) == "web-one"
    done = stack.proxy.ctl("switch", "--name", "demo.test", "--to", "third", "--reason", "x",
                           check=False)
    assert done.returncode == 1 and "it has: primary, backup" in done.stderr
    assert "restored: " in stack.proxy.ctl("restore", "--name", "demo.test").stdout
    assert not switches(stack, "--standing")


def test_all_names_go_to_a_level(stack):
    done = stack.proxy.ctl("switch", "--fleet", "--to", "backup", "--reason", "exercise")
    assert "1 of 4 names have nothing usable at the level" in done.stderr
    assert {issuer(stack, h) for h in ("demo.test", "both.test", "x.wild.test")} == {"web-two"}
    stack.proxy.ctl("switch", "--name", "demo.test", "--to", "primary", "--reason", "but this one")
    assert issuer(stack) == "web-one"  # the narrower word
    stack.proxy.ctl("restore", "--fleet")
    assert issuer(stack, "both.test") == "web-one"


def test_what_is_in_force_already_makes_no_second_switch(stack):
    stack.proxy.ctl("switch", "--ca", "web-one", "--reason", "once")
    out = stack.proxy.ctl("switch", "--ca", "web-one", "--reason", "twice").stdout
    assert out.startswith("already so, by switch")
    assert len(switches(stack, "--standing")) == 1


def test_undone_in_any_order(stack):
    ids = []
    for reason in ("--compromised", None):
        done = stack.proxy.ctl("switch", "--ca", "web-one", "--reason", "x", "--json",
                               *([reason] if reason else []))
        ids.append(json.loads(done.stdout)["id"])
    stack.proxy.ctl("restore", ids[0])
    assert issuer(stack) == "web-two"
    done = stack.proxy.ctl("restore", ids[0], check=False)
    assert done.returncode == 1 and "restored already" in done.stderr
    stack.proxy.ctl("restore", ids[1])
    assert issuer(stack) == "web-one"
    done = stack.proxy.ctl("restore", "--ca", "web-one", check=False)
    assert done.returncode == 1 and "no switch stands" in done.stderr


def test_tls12_and_rsa_clients_follow_too(stack):
    context = stack.context(tls12=True)
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    assert stack.get("both.test", context=context) == BODY
    done = stack.proxy.ctl("switch", "--ca", "web-one", "--reason", "x")
    assert "clients that take only RSA have no usable chain left for 1 names" in done.stderr
    # The last resort for them is what they can verify: better than nothing.
    assert stack.get("both.test", context=context) == BODY
    assert issuer(stack, "both.test") == "web-two"


# --- refusals ---------------------------------------------------------------------------


def test_a_switch_that_leaves_names_with_nothing_needs_force(stack):
    done = stack.proxy.ctl("switch", "--ca", "web-two", "--reason", "x", check=False)
    assert done.returncode == 1
    assert "1 of 4 names would be left with nothing usable: single.test" in done.stderr
    assert not switches(stack, "--standing")
    wait_audit(stack, event="switch", outcome="no_backup")
    status, body = stack.proxy.admin(
        "POST", "/v1/switch", {"level": "ca", "subject": "web-two", "reason": "x", "author": "me"})
    assert status == 409 and body["error"]["code"] == "no_backup"
    assert body["error"]["without_backup"] == ["single.test"]
    done = stack.proxy.ctl("switch", "--ca", "web-two", "--reason", "x", "--force")
    assert "forced: 1 of 4 names have nothing usable left: single.test" in done.stderr
    assert issuer(stack, "single.test") == "web-two"  # the last resort is unexpired
    text = stack.proxy.ctl("status").stdout
    assert "ALERT: 1 names have nothing usable" in text
    assert "serves as last resort" in stack.proxy.ctl("names").stdout


def test_a_name_with_nowhere_to_go_stays(stack):
    done = stack.proxy.ctl("switch", "--name", "single.test", "--reason", "x", check=False)
    assert done.returncode == 1 and "no other usable level" in done.stderr
    stack.proxy.ctl("switch", "--ca", "web-two", "--force", "--reason", "x")
    args = ["switch", "--name", "demo.test", "--to", "backup", "--reason", "x"]
    done = stack.proxy.ctl(*args, check=False)
    assert done.returncode == 1 and "has nothing usable" in done.stderr
    done = stack.proxy.ctl(*args, "--force")
    assert "is not served until it has" in done.stderr
    assert issuer(stack) == "web-one"
    stack.proxy.ctl("restore", "--ca", "web-two")
    assert issuer(stack) == "web-two"  # now it has


@pytest.mark.parametrize("args, says", [
    (["switch", "--ca", "nobody", "--reason", "x"], "no chain here has the CA"),
    (["switch", "--ca", UNKNOWN_ID, "--reason", "x"], "no chain here has the CA"),
    (["switch", "--key", "abc", "--reason", "x"], "at least 8 hex digits"),
    (["switch", "--name", "nobody.test", "--reason", "x"], "not a name of this proxy"),
    (["switch", "--fleet", "--reason", "x"], '"to" is missing'),
    (["switch", "--fleet", "--to", "third", "--reason", "x"], "no name has a level"),
    (["switch", "--ca", "web-one", "--to", "backup", "--reason", "x"], '"to" is for names'),
    (["switch", "--name", "demo.test", "--compromised", "--reason", "x"], "for keys and CAs"),
    (["switch", "--ca", "web-one", "--reason", "x" * 256], "more than the 255"),
    (["restore", "99999"], "there is no switch 99999"),
    (["drill", "--ca", "nobody"], "no chain here has the CA"),
])
def test_refusals_say_why(stack, args, says):
    done = stack.proxy.ctl(*args, check=False)
    assert done.returncode == 1 and says in done.stderr, done
    assert done.stdout == "" and not switches(stack, "--standing")


@pytest.mark.parametrize("path, body, says", [
    ("/v1/switch", {"level": "ca", "subject": "web-one"}, '"reason" is missing'),
    ("/v1/switch", {"level": "ca", "subject": "web-one", "reason": ""}, "must not be empty"),
    ("/v1/switch", {"level": "planet", "subject": "x", "reason": "x"}, "name, key, ca or fleet"),
    ("/v1/switch", {"level": "ca", "subject": 7, "reason": "x"}, "must be a text"),
    ("/v1/switch", {"level": "ca", "subject": "web-one", "reason": "x", "frce": True},
     'unknown field "frce"'),
    ("/v1/switch", {"level": "ca", "subject": "web-one", "reason": "x", "force": 1},
     "true or false"),
    ("/v1/switch", {"level": "ca", "subject": "web-one", "reason": "x", "service": "off"},
     "out or in"),
    ("/v1/switch", [], "not a JSON object"),
    ("/v1/restore", {}, 'give either "id"'),
    ("/v1/restore", {"id": 1, "level": "ca", "subject": "x"}, 'give either "id"'),
    ("/v1/restore", {"id": 0}, "number from 1"),
    ("/v1/dc", {"name": "demo.test", "fleet": True, "enabled": True, "reason": "x"},
     'give either "name"'),
    ("/v1/dc", {"enabled": True, "reason": "x"}, 'give either "name"'),
    ("/v1/drill", {"level": "x"}, "must be name"),
])
def test_bodies_are_read_strictly(stack, path, body, says):
    status, answer = stack.proxy.admin("POST", path, body)
    assert status == 400 and says in answer["error"]["message"], answer
    assert not switches(stack, "--standing")


def test_web_pages_cannot_switch(stack):
    done = stack.procs.run(["curl", "-sS", "--unix-socket", stack.proxy.socket_path,
                            "http://localhost/v1/dc", "-d",
                            '{"fleet":true,"enabled":false,"reason":"x"}'])
    assert "not_json" in done.stdout
    done = stack.procs.run(["curl", "-sS", "--unix-socket", stack.proxy.socket_path,
                            "http://localhost/v1/dc", "-d",
                            '{"fleet":true,"enabled":false,"reason":"x"}', "-H",
                            "Content-Type: application/json", "-H", "Origin: https://evil.test"])
    assert "no_browsers" in done.stdout
    assert not switches(stack, "--standing")


# --- drill ---------------------------------------------------------------------------------


def test_drill_tells_and_changes_nothing(stack):
    done = stack.proxy.ctl("drill", "--ca", "web-one")
    assert re.search(r"^ +3  would move$", done.stdout, re.M), done.stdout
    assert re.search(r"^ +0  would have nothing usable$", done.stdout, re.M)
    assert re.search(r"^ +1  would have nothing for RSA-only clients$", done.stdout, re.M)
    assert done.stdout.endswith("\nready\n")
    done = stack.proxy.ctl("drill", "--ca", "web-two", check=False)
    assert done.returncode == 3 and "NOT READY" in done.stdout and "  single.test\n" in done.stdout
    done = stack.proxy.ctl("drill", "--ca", "web-two", "--json", check=False)
    assert done.returncode == 3 and json.loads(done.stdout)["without_backup"] == ["single.test"]
    assert stack.proxy.ctl("drill", "--name", "demo.test").returncode == 0
    assert stack.proxy.ctl("drill", "--name", "single.test", check=False).returncode == 3
    key = chain_of(stack, "demo.test", "backup")["key_id"]
    drill = json.loads(stack.proxy.ctl("drill", "--key", key, "--json").stdout)
    assert drill["ready"] is True and drill["num_moved"] == 0
    assert issuer(stack) == "web-one" and not switches(stack, "--standing")


# --- delegated credentials, by word ------------------------------------------------------------


def test_dc_off_and_on(stack):
    stack.proxy.ctl("dc", "off", "--name", "demo.test", "--reason", "trouble")
    assert names(stack, "demo.test")["dc_off_by"] == "name"
    stack.proxy.ctl("dc", "off", "--fleet", "--reason", "more trouble")
    assert names(stack, "both.test")["dc_off_by"] == "fleet"
    assert json.loads(stack.proxy.ctl("status", "--json").stdout)["fleet"]["dc"] is False
    done = stack.proxy.ctl("dc", "on", "--name", "demo.test", "--reason", "over")
    assert "off for the whole fleet" in done.stderr
    assert names(stack, "demo.test")["dc_off_by"] == "fleet"
    stack.proxy.ctl("dc", "on", "--fleet", "--reason", "over")
    assert names(stack, "demo.test")["dc_off_by"] in (None, "configuration")
    # Levels and credentials are two things: restoring a level leaves the other alone.
    stack.proxy.ctl("dc", "off", "--name", "demo.test", "--reason", "again")
    stack.proxy.ctl("switch", "--name", "demo.test", "--reason", "try")
    stack.proxy.ctl("restore", "--name", "demo.test")
    assert names(stack, "demo.test")["dc_off_by"] == "name"
    assert issuer(stack) == "web-one"
