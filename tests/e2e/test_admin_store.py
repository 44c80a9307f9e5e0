# SPDX-License-Identifier: Apache-2.0
"""The running proxy's own switches of what is in a store: written to the store's states, obeyed
by every worker of every process at the next handshake, told in the audit log."""

import json
import os
import subprocess
import time

import pytest

from support.procs import SLOW, wait_until
from support.shop import CTL, many, shop  # noqa: F401 (fixtures)
from support.stack import Proxy

PRIMARY = "Bench CA primary"


def ctl(shop, *args, code=0, proxy=None):
    done = (proxy or shop.proxy).ctl(*args, check=False)
    assert done.returncode == code, (args, done.stdout, done.stderr)
    return done


def switch(shop, *args, proxy=None):
    done = ctl(shop, "switch", *args, "--reason", "test", "--json", proxy=proxy)
    return json.loads(done.stdout)


def name_of(shop, host):
    return json.loads(ctl(shop, "names", host, "--json").stdout)["names"][0]


def audit(shop):
    return [json.loads(line) for line in shop.proxy.audit_path.read_text().splitlines()]


def wait_audit(shop, **members):
    """The one line with these members."""
    def found():
        return [line for line in audit(shop) if all(line[k] == v for k, v in members.items())]

    wait_until(found, f"{members} in the audit log")
    lines = found()
    assert len(lines) == 1, lines
    return lines[0]


def test_every_level_of_states(shop, procs):
    """Two proxies of one store: what one is told, both obey at the next handshake."""
    shop = shop()
    shop.add("here.test", ca=1)
    shop.stack.add_name("conf.test")
    shop.start()
    second = Proxy(shop.stack, "second")
    for part in ("names", "key_servers", "origin", "store"):
        second.config[part] = shop.proxy.config[part]
    del second.config["states"]
    second.start()
    first = shop.proxy

    def level(host, proxy):
        shop.stack.proxy = proxy
        try:
            return shop.level(host)
        finally:
            shop.stack.proxy = first

    def levels(host):
        found = {level(host, proxy) for proxy in (first, second) for _ in range(2)}
        assert len(found) == 1, found
        return found.pop()

    names = ["n0.bench.test", "n1.bench.test"]
    assert [levels(name) for name in names] == ["primary"] * 2
    key = [chain["key_id"] for chain_level in name_of(shop, names[1])["levels"]
           for chain in chain_level["chains"] if chain_level["label"] == "primary"][0]
    for args, moved in [(("--name", names[0]), 1), (("--key", key), 1),
                        (("--ca", PRIMARY), 2), (("--fleet", "--to", "backup"), 2)]:
        done = switch(shop, *args, proxy=second if args[0] == "--ca" else first)
        assert done["kept"] and not done["already"], done
        subject = names[1] if args[0] == "--key" else names[0]
        assert levels(subject) == "backup"
        assert levels(names[1]) == ("backup" if moved == 2 or args[0] == "--key" else "primary")
        view = name_of(shop, subject)
        assert view["serves"] == "backup" and view["usable"], view
        again = switch(shop, *args, *(("--to", "backup") if args[0] == "--name" else ()))
        assert again["already"] and again["id"] == done["id"], again
        line = wait_audit(shop, id=done["id"], outcome="already")
        assert line["reason"] == "test" and line["author_uid"] == os.getuid(), line
        assert str(done["id"]) in ctl(shop, "switches", "--standing").stdout
        ctl(shop, "restore", str(done["id"]), "--reason", "over")
        assert wait_audit(shop, event="restore", id=done["id"], outcome="done")["kept"]
        assert [levels(name) for name in names] == ["primary"] * 2
    # Configured names obey the same words, and the same commands.
    assert shop.issuer("conf.test") == "web-one"
    assert switch(shop, "--name", "conf.test")["to"] == "backup"
    assert shop.issuer("conf.test") == "web-two"
    done = switch(shop, "--name", "conf.test", "--to", "primary")
    assert shop.issuer("conf.test") == "web-one"
    ctl(shop, "restore", "--name", "conf.test", "--reason", "both")
    assert shop.issuer("conf.test") == "web-one"
    assert ctl(shop, "switches", "--standing").stdout == "no switches\n"
    # By the CA's file, and by a key's hash, which the store's own command takes as well.
    ca = shop.stack.web_cas[0]
    assert switch(shop, "--ca", str(ca.cert))["known_as"] == ca.name
    assert shop.issuer("conf.test") == "web-two"
    ctl(shop, "restore", "--ca", str(ca.cert), "--reason", "over")
    status = json.loads(ctl(shop, "status", "--json").stdout)
    assert status["store"]["may_switch"] and status["store"]["names"] == 2001, status
    listed = json.loads(ctl(shop, "names", "--json").stdout)
    assert listed["total"] == 2002 and len(listed["names"]) == 2002
    assert len({name["name"] for name in listed["names"]}) == 2002
    assert shop.store("verify")


def test_what_is_refused(shop):
    shop = shop()
    shop.add("alone.test")
    shop.start()
    web = shop.stack.web_cas[0].name
    drill = ctl(shop, "drill", "--ca", web, code=3)
    assert "alone.test" in drill.stdout
    assert ctl(shop, "drill", "--ca", PRIMARY).returncode == 0
    refused = ctl(shop, "switch", "--ca", web, "--reason", "x", code=1)
    assert "1 of 2001 names would be left with nothing usable (the first is alone.test)" \
        in refused.stderr
    assert shop.issuer("alone.test") == web
    assert wait_audit(shop, outcome="no_backup")["why"]
    # The store's own command says the same: there is one rule.
    assert "1 of 2001 names would be left" in shop.store("switch", "--ca", web, "--reason", "x",
                                                         code=1).stderr
    no_level = ctl(shop, "switch", "--name", "alone.test", "--reason", "x", code=1)
    assert "no other usable level" in no_level.stderr
    nowhere = ctl(shop, "switch", "--fleet", "--to", "spare2", "--reason", "x", code=1)
    assert "none of 2001 names has anything usable" in nowhere.stderr
    for args, says in [(("--name", "nobody.test"), "not a name in this store"),
                       (("--ca", "f" * 64), "no chain here has the CA"),
                       (("--key", "f" * 64), "no chain here has the key"),
                       (("--name", "n0.bench.test", "--to", "tertiary"), "no level of the store"),
                       (("--ca", PRIMARY, "--to", "backup"), "for names and the fleet"),
                       (("--name", "n0.bench.test", "--compromised"), "for keys and CAs"),
                       (("--ca", PRIMARY, "--until", "2020-01-01T00:00:00Z"), "a time to come")]:
        done = shop.proxy.ctl("switch", *args, "--reason", "x", check=False)
        assert done.returncode in (1, 2) and says in done.stderr, (args, done.stderr)
    assert "there is no switch 99" in ctl(shop, "restore", "99", code=1).stderr
    # Force is for the day on which there is nothing else.
    done = switch(shop, "--ca", web, "--force")
    assert done["num_without_backup"] == 1 and "forced: 1 of 2001" in done["warnings"][0], done
    assert shop.issuer("alone.test") == web  # the last resort
    ctl(shop, "restore", "--ca", web, "--reason", "over")
    # The fleet is told though nobody has asked for any of these names yet.
    done = switch(shop, "--fleet", "--to", "backup")
    assert done["num_usable"] == 2000 and "1 of 2001 names" in done["warnings"][0], done
    assert json.loads(ctl(shop, "status", "--json").stdout)["fleet"]["preferred_level"] == 2
    assert name_of(shop, "n300.bench.test")["serves"] == "backup"
    ctl(shop, "restore", "--fleet", "--reason", "over")
    assert name_of(shop, "n300.bench.test")["serves"] == "primary"
    # A switch that ends by itself.
    switch(shop, "--ca", PRIMARY, "--until",
           time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3 * SLOW)))
    assert shop.level("n0.bench.test") == "backup"
    assert "stands until" in ctl(shop, "switches").stdout
    wait_until(lambda: shop.level("n0.bench.test") == "primary", "the end", timeout=30)
    assert name_of(shop, "n0.bench.test")["serves"] == "primary"
    shop.store("verify")


def test_credentials_by_name(shop):
    shop = shop(issuer=True)
    shop.add("demo.test")
    shop.start()
    nss = shop.stack.nss()
    nss.run()
    shop.proxy.wait_credentials(1)
    assert nss.run().got_dc
    ctl(shop, "dc", "off", "--name", "demo.test", "--reason", "test")
    assert not nss.run().got_dc
    assert name_of(shop, "demo.test")["dc_off_by"] == "name"
    ctl(shop, "dc", "on", "--name", "demo.test", "--reason", "test")
    assert nss.run().got_dc
    ctl(shop, "dc", "off", "--fleet", "--reason", "test")
    assert not nss.run().got_dc
    assert wait_audit(shop, event="dc", level="fleet")["action"] == "dc_off"


def test_changes_while_the_store_is_compacted(shop):
    """A task that is on its way when the file is replaced is done in the new one."""
    shop = shop().start()
    for i in range(3):
        compacting = shop.procs.start("compact", [CTL, "store", "compact", "--store", shop.folder])
        done = [switch(shop, "--ca", PRIMARY)["already"] for _ in range(2)]
        assert done == [False, True]
        assert shop.level(f"n{i}.bench.test") == "backup"
        assert compacting.wait(60) == 0
        ctl(shop, "restore", "--ca", PRIMARY, "--reason", "over")
        assert shop.level(f"n{i}.bench.test") == "primary"
    assert shop.store("verify")


def test_the_log_is_trimmed(shop):
    shop = shop()
    shop.proxy.config["store"]["log"] = 5
    shop.start()
    for _ in range(6):
        switch(shop, "--name", "n0.bench.test")
        ctl(shop, "restore", "--name", "n0.bench.test", "--reason", "over")
    last = switch(shop, "--name", "n1.bench.test")
    listed = json.loads(shop.store("switches", "--json").stdout)["switches"]
    assert len(listed) == 5 and listed[-1]["id"] == last["id"] == 7
    shop.store("trim-log", "--keep", "1")
    assert [c["id"] for c in json.loads(shop.store("switches", "--json").stdout)["switches"]] == [7]
    assert shop.level("n1.bench.test") == "backup"
    shop.store("verify")


def test_a_file_of_states_is_taken_over(shop, procs):
    """What a proxy has kept in its file counts in the store that it gets."""
    shop = shop()
    cas = json.loads(shop.store("cas", "--json").stdout)["cas"]
    ca = [ca["id"] for ca in cas if ca["issuer"] == PRIMARY][0]
    change = {"author": "ada", "author_uid": 1000, "at": 1795305095}
    states = {"format": "deputy-states", "version": 1, "next_id": 4, "changes": [
        {"id": 1, "level": "ca", "subject": ca, "service": "out", "compromised": True,
         "reason": "distrusted", **change},
        {"id": 2, "level": "name", "subject": "n0.bench.test", "preferred": 2, "reason": "moved",
         **change},
        {"id": 3, "level": "fleet", "subject": "", "preferred": 2, "reason": "rehearsal", **change,
         "undone_by": "bob", "undone_at": 1795305100}]}
    path = procs.folder / "states.json"
    path.write_text(json.dumps({**states, "version": 9}))
    shop.store("import-states", path, code=1)
    path.write_text(json.dumps(states))
    assert "3 changes taken over" in shop.store("import-states", path).stdout
    assert "switches of its own" in shop.store("import-states", path, code=1).stderr
    shop.store("verify")
    shop.start()
    assert shop.level("n0.bench.test") == shop.level("n1.bench.test") == "backup"
    listed = json.loads(ctl(shop, "switches", "--json").stdout)["switches"]
    assert [(c["reason"], c["author"], c["stands"]) for c in listed] == [
        ("distrusted", "ada", True), ("moved", "ada", True), ("rehearsal", "ada", False)]
    ctl(shop, "restore", "--ca", PRIMARY, "--reason", "over")
    assert shop.level("n0.bench.test") == "backup" and shop.level("n1.bench.test") == "primary"


def test_a_folder_that_is_read_only(shop):
    """Then the proxy serves, and says that it cannot switch."""
    if os.geteuid() != 0 or subprocess.run(
            ["unshare", "-m", "true"], check=False).returncode != 0:
        pytest.skip("no mount namespace of our own")
    shop = shop()
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    shop.stack.start_servers()
    shop.proxy.start(wrap=["unshare", "-m", "sh", "-c", script, "sh", shop.folder])
    assert shop.level("n0.bench.test") == "primary"
    refused = ctl(shop, "switch", "--name", "n0.bench.test", "--reason", "x", code=1)
    assert "reading only" in refused.stderr
    assert not json.loads(ctl(shop, "status", "--json").stdout)["store"]["may_switch"]
    assert name_of(shop, "n0.bench.test")["serves"] == "primary"
