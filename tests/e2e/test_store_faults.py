# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a store, and where it is tested.

| Fault | Test |
| --- | --- |
| corrupt file | test_store.py::test_damaged_and_strange_files_are_refused, test_proxy_store.py::test_stores_that_cannot_be_opened, test_proxy_store.py::test_a_damaged_record_is_one_names_matter, store_test.c::verify_finds_a_changed_byte |
| wrong version | test_store_faults.py::test_another_version_is_refused, store_test.c::refuses_a_later_format |
| disk full | test_store.py::test_a_full_disk_changes_nothing, test_store_faults.py::test_a_full_disk_refuses_the_proxys_switches |
| read-only disk | test_store.py::test_a_read_only_disk_is_read, test_admin_store.py::test_a_folder_that_is_read_only |
| map full | store_test.c::grows_the_map_by_itself, store_switch_test.c::a_map_grows_under_readers_of_other_processes |
| two writers | test_store.py::test_two_imports_at_once, test_store_faults.py::test_writers_at_once |
| a writer killed at any moment | store_kill_test.c::main |
| a reader that dies holding a slot | test_store_faults.py::test_readers_that_die |
| leaf and chain that do not fit | store_test.c::refuses_what_does_not_fit, store_test.c::refuses_a_name_that_the_leaf_does_not_cover |
| duplicate names | store_test.c::keeps_the_later_of_two_unless_told, store_test.c::keeps_a_leaf_once |
| expired backup | store_test.c::warns_of_the_same_ca_and_of_an_expired_backup |
| same key in primary and backup | test_store.py::test_a_backup_must_be_one, store_test.c::refuses_the_same_key_as_backup |
| same CA in both | test_store_faults.py::test_the_same_ca_in_both_is_warned_of_and_listed |
| a switch to nothing usable | test_admin_store.py::test_what_is_refused, store_switch_test.c::refuses_levels_with_nothing_usable, store_switch_test.c::refuses_a_ca_that_leaves_names_with_nothing_unless_forced |
| a store that cannot be read while it is served | test_store_faults.py::test_cold_names_wait_no_longer_than_they_may |
"""

import concurrent.futures
import json
import re
import shutil
import socket
import ssl

import pytest

from support.procs import BIN_DIR, SLOW, SOURCE_DIR, wait_until
from support.shop import CTL, many, shop  # noqa: F401 (fixtures)

PRIMARY = "Bench CA primary"


def check_config(shop):
    shop.proxy.write_config()
    return shop.procs.run([BIN_DIR / "deputy-proxy", "--check-config", "--config",
                           shop.procs.folder / "proxy.json"])


def test_the_index_above_is_true():
    tests = re.findall(r"([\w]+\.(?:py|c))::(\w+)", __doc__)
    assert len(tests) > 20
    for file, test in tests:
        paths = list((SOURCE_DIR / "tests").rglob(file))
        assert len(paths) == 1 and f"{test}(" in paths[0].read_text(), (file, test)


def test_another_version_is_refused(shop):
    shop = shop()
    shop.stack.start_servers()
    assert check_config(shop).returncode == 0
    for file in ("chains-1.mdb", "states.mdb"):
        path = shop.folder / file
        good = path.read_bytes()
        at = good.index(b"deputy-store\x01") + len("deputy-store")
        path.write_bytes(good[:at] + b"\x02" + good[at + 1:])
        says = "version 2, this program knows version 1"
        assert says in shop.store("stats", code=1).stderr
        assert says in shop.store("switch", "--ca", PRIMARY, "--reason", "x", code=1).stderr
        checked = check_config(shop)
        assert checked.returncode != 0 and says in checked.stderr, checked
        served = shop.procs.run([BIN_DIR / "deputy-proxy", "--config",
                                 shop.procs.folder / "proxy.json"])
        assert served.returncode != 0 and says in served.stderr
        path.write_bytes(good)
    shutil.rmtree(shop.folder)
    assert "Import certificates" in check_config(shop).stderr


def test_a_full_disk_refuses_the_proxys_switches(shop):
    shop = shop()
    shop.stack.start_servers()
    # A disk that is full: no file grows beyond what it is. (The limit is of the process.)
    length = (shop.folder / "states.mdb").stat().st_size
    shop.proxy.start(wrap=["prlimit", f"--fsize={length}:{length}"])
    assert shop.level("n0.bench.test") == "primary"
    refused = []
    for i in range(40):  # what is free in the file is used first
        done = shop.proxy.ctl("switch", "--name", f"n{i}.bench.test", "--reason", "x" * 250,
                              check=False)
        if done.returncode != 0:
            refused.append(done.stderr)
            assert shop.level(f"n{i}.bench.test") == "primary"
            break
        assert shop.level(f"n{i}.bench.test") == "backup"
    assert refused and "the disk is full" in refused[0] and "Nothing has changed" in refused[0]
    status, body = shop.proxy.admin("POST", "/v1/switch", {
        "level": "ca", "subject": PRIMARY, "reason": "y" * 250, "force": True})
    assert status in (200, 503) and (status == 200 or body["error"]["code"] == "not_kept"), body
    shop.store("verify")


def test_writers_at_once(shop):
    """Proxy, command and import do not disturb each other, and nothing is lost."""
    shop = shop().start()
    names = [f"n{i}.bench.test" for i in range(24)]
    leaf = shop.stack.leaf("more", "more.test")

    def switch(i):
        args = ["switch", "--name", names[i], "--reason", f"{i}", "--json"]
        if i % 2 == 0:
            return json.loads(shop.proxy.ctl(*args).stdout)["id"]
        return json.loads(shop.store(*args).stdout)["id"]

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        importing = pool.submit(shop.store, "import", leaf.chain)
        ids = list(pool.map(switch, range(len(names))))
        importing.result()
    assert sorted(ids) == list(range(1, len(names) + 1))
    assert {shop.level(name) for name in names} == {"backup"}
    listed = json.loads(shop.proxy.ctl("switches", "--standing", "--json").stdout)["switches"]
    assert {change["id"]: change["subject"] for change in listed} == dict(zip(ids, names))
    shop.store("verify")


def test_readers_that_die(shop):
    """Slots of readers that were killed are given back, and so are the pages that they held."""
    shop = shop().start()
    counts = []
    for i in range(4):
        assert shop.level("n0.bench.test") == ("primary" if i % 2 == 0 else "backup")
        shop.proxy.process.kill()
        shop.proxy.process.wait()
        shop.store("switch", "--fleet", "--to", "backup" if i % 2 == 0 else "primary", "--reason",
                   "x")
        shop.proxy.start()
        wait_until(lambda: shop.proxy.metric("key_servers_ready") >= 1, "the key server")
        counts.append(json.loads(shop.store("stats", "--json").stdout)["readers"])
    assert max(counts) <= counts[0] + 2, counts
    shop.store("verify")


def test_the_same_ca_in_both_is_warned_of_and_listed(shop):
    shop = shop()
    shop.add("twice.test", ca=0)
    leaf = shop.stack.leaf("twice-again", "twice.test", 0)
    done = shop.store("import", leaf.chain, "--level", "backup")
    assert "same CA" in done.stderr + done.stdout, done
    shop.start()
    web = shop.stack.web_cas[0].name
    for run in (lambda *args: shop.store(*args, code=3),
                lambda *args: shop.proxy.ctl(*args, check=False)):
        drilled = run("drill", "--ca", web, "--json")
        answer = json.loads(drilled.stdout)
        assert drilled.returncode == 3 and answer["same_ca"] == ["twice.test"], answer
        assert answer["num_same_ca"] == 1 and answer["without_backup"] == ["twice.test"]
    refused = shop.proxy.ctl("switch", "--ca", web, "--reason", "x", check=False)
    assert "1 of 2001 names would be left with nothing usable" in refused.stderr


def test_cold_names_wait_no_longer_than_they_may(shop):
    """While a store cannot be opened anew: hot names are served as ever, cold ones wait for the
    deadline and no longer, and beyond a number of them they are refused at once."""
    shop = shop()
    proxy = shop.proxy
    proxy.config["workers"] = 1
    proxy.config["store"]["deadline"] = f"{2 * SLOW}s"
    proxy.config["limits"]["linger"] = "200ms"
    shop.start()
    assert shop.level("n0.bench.test") == "primary"
    # A file that is newer, and no store.
    (shop.folder / "chains-2.mdb").write_bytes(b"no store\n" * 1000)
    wait_until(lambda: proxy.metric("store_is_open") == 0, "that it is noticed")
    assert "INTERNAL_ERROR" in shop.alert("n1.bench.test")
    assert proxy.failures("store_timeout") == 1
    assert "store_not_opened" in proxy.log()
    # Many cold names at once, of which only so many may wait; the hot one is not disturbed.
    hellos = []
    for i in range(300):
        tls = shop.context(verify=False).wrap_bio(ssl.MemoryBIO(), out := ssl.MemoryBIO(),
                                                  server_hostname=f"n{i + 100}.bench.test")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        hellos.append(out.read())
    conns = []
    for hello in hellos:
        conns.append(socket.create_connection(proxy.address))
        conns[-1].sendall(hello)
    assert shop.level("n0.bench.test") == "primary"
    wait_until(lambda: proxy.metric("store_waits_shed_total") >= 1 and
               proxy.metric("connections_open") == 0, "the end of all", timeout=30)
    shed, late = proxy.metric("store_waits_shed_total"), proxy.failures("store_timeout")
    assert shed >= 1 and late >= 2 and shed + late <= 300 + 1, (shed, late)
    for conn in conns:
        conn.close()
    # The store is there again: nobody need be told.
    (shop.folder / "chains-2.mdb").unlink()
    wait_until(lambda: proxy.metric("store_is_open") == 1, "that it is opened", timeout=30)
    assert shop.level("n1.bench.test") == "primary"
    shop.store("verify")
