# SPDX-License-Identifier: Apache-2.0
"""The proxy with names in a store on disk: cold, hot and unknown names, switches by other
processes, imports and compactions under it, and stores that are gone or damaged."""

import concurrent.futures
import datetime
import json
import socket
import ssl
import threading

import pytest

from support import prometheus
from support.pki import make_key
from support.procs import BIN_DIR, SLOW, wait_until
from support.revocation import RevokingCa
from support.shop import CTL, NUM_KEYS, many, shop  # noqa: F401 (fixtures)
from support.stack import BODY

def test_cold_hot_unknown_and_wildcard(shop):
    shop = shop()
    shop.add("*.wild.test")
    shop.add("exact.wild.test", ca=1)
    shop.start()
    proxy = shop.proxy
    assert shop.stack.get("n0.bench.test", context=shop.context()) == BODY
    assert proxy.metric("store_loads_total", result="found") == 1
    assert proxy.metric("store_waits_total") == 1
    for tls12 in (False, True):
        assert shop.level("N0.bench.test", tls12=tls12) == "primary"
    assert proxy.metric("store_loads_total", result="found") == 1  # hot
    assert shop.level("n1.bench.test", tls12=True) == "primary"  # cold, in TLS 1.2
    assert proxy.metric("store_loads_total", result="found") == 2

    assert "UNRECOGNIZED_NAME" in shop.alert("n0.elsewhere.test")
    assert "UNRECOGNIZED_NAME" in shop.alert("n0.elsewhere.test")
    assert proxy.metric("store_loads_total", result="absent") == 1  # remembered
    assert "UNRECOGNIZED_NAME" in shop.alert("a.b.wild.test")

    assert shop.issuer("one.wild.test") == "web-one"
    assert shop.issuer("two.wild.test") == "web-one"
    assert shop.issuer("exact.wild.test") == "web-two"
    assert proxy.metric("store_cached") == 4
    with pytest.raises(ssl.SSLError):  # no server name, no default
        shop.stack.connect(None, context=shop.context(verify=False))


def test_configured_names_go_first(shop):
    shop = shop()
    shop.add("demo.test", ca=1)
    shop.add("other.test", ca=0)
    shop.stack.add_name("demo.test")
    shop.proxy.config["default_name"] = "demo.test"
    shop.start()
    assert shop.issuer("demo.test") == "web-one"
    assert shop.level("n3.bench.test") == "primary"
    context = shop.context()
    context.check_hostname = False
    with shop.stack.connect("unknown.test", context=context) as tls:  # the default
        assert ("commonName", "demo.test-primary") in [i[0] for i in tls.getpeercert()["subject"]]
    # What is said in the store counts for configured names, too.
    shop.store("switch", "--ca", "web-one", "--reason", "test", "--force")
    assert shop.issuer("demo.test") == "web-two"


def test_another_processes_switches_count_at_the_next_handshake(shop):
    shop = shop().start()
    names = [f"n{i}.bench.test" for i in range(6)]
    assert {shop.level(name) for name in names} == {"primary"}

    def switched(*args):
        done = shop.store("switch", *args, "--reason", "test", "--json")
        return str(json.loads(done.stdout)["id"])

    for args, moved in [(("--name", names[0], "--to", "backup"), 1),
                        (("--ca", "Bench CA primary"), len(names)),
                        (("--fleet", "--to", "backup"), len(names))]:
        change = switched(*args)
        # No waiting: the very next handshake.
        assert [shop.level(name) for name in names[:moved]] == ["backup"] * moved, args
        assert [shop.level(name) for name in names[moved:]] == ["primary"] * (len(names) - moved)
        assert shop.level("n20.bench.test") == ("backup" if moved > 1 else "primary")
        shop.store("restore", change)
        assert [shop.level(name) for name in names] == ["primary"] * len(names), args
    found = json.loads(shop.store("find", names[1], "--json").stdout)["chains"]
    key = [chain["key"] for chain in found if chain["level"] == "primary"][0]
    change = switched("--key", key)
    assert [shop.level(name) for name in names[:3]] == ["primary", "backup", "primary"]
    # The control thread brings memory up to date, and workers need not look any more.
    count = shop.proxy.metric("store_states_read_total")
    assert count >= 1

    def is_in_memory():
        before = shop.proxy.metric("store_states_read_total")
        assert shop.level(names[1]) == "backup"
        return shop.proxy.metric("store_states_read_total") == before

    wait_until(is_in_memory, "the words of states in memory")
    shop.store("restore", change)
    assert shop.level(names[1]) == "primary"


def test_no_switch_is_missed_on_a_slow_disk(shop):
    """LMDB's file says that a transaction is there while its last sync is under way, and
    readers do not have it yet: what they read then is not what the file says."""
    shop = shop().start()
    assert shop.level("n0.bench.test") == "primary"
    # A write to the file takes longer to return than the proxy takes to look again.
    # (Nor can LeakSanitizer work in what is traced.)
    slow = ["env", "ASAN_OPTIONS=detect_leaks=0", "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64", "-e",
            "inject=pwrite64:delay_exit=300000", CTL, "store"]
    done = shop.procs.run([*slow, "switch", "--ca", "Bench CA primary", "--reason", "test",
                           "--store", shop.folder], timeout=60)
    assert done.returncode == 0, done
    assert shop.level("n0.bench.test") == "backup"
    assert shop.level("n1.bench.test") == "backup"
    leaf = shop.stack.leaf("slow", "slow.test")
    shop.stack.keyserver.reload()
    assert "UNRECOGNIZED_NAME" in shop.alert("slow.test")
    done = shop.procs.run([*slow, "import", leaf.chain, "--store", shop.folder], timeout=60)
    assert done.returncode == 0, done

    def is_served():
        try:
            return shop.issuer("slow.test") == "web-one"
        except ssl.SSLError:
            return False

    wait_until(is_served, "the new name")


def test_a_switch_ends_by_itself(shop):
    shop = shop().start()
    assert shop.level("n0.bench.test") == "primary"
    end = datetime.datetime.utcnow() + datetime.timedelta(seconds=4 * SLOW)
    shop.store("switch", "--ca", "Bench CA primary", "--until", end.strftime("%Y-%m-%dT%H:%M:%SZ"),
               "--reason", "test")
    assert shop.level("n0.bench.test") == "backup"
    wait_until(lambda: shop.level("n0.bench.test") == "primary", "the end", timeout=30)


def test_imports_and_renewals_while_serving(shop):
    shop = shop().start()

    def issuer():
        try:
            return shop.issuer("new.demo.test")
        except ssl.SSLError as e:
            assert "UNRECOGNIZED_NAME" in e.reason
            return None

    assert shop.level("n0.bench.test") == "primary"
    assert issuer() is None
    shop.add("new.demo.test")
    wait_until(lambda: issuer() == "web-one", "the new name")
    leaf = shop.stack.leaf("new-again", "new.demo.test", 1)
    shop.stack.keyserver.reload()
    shop.store("import", leaf.chain, "--replace")
    wait_until(lambda: issuer() == "web-two", "the later leaf, where the name is hot")
    shop.store("remove", "new.demo.test")
    wait_until(lambda: issuer() is None, "the end of the name")
    assert shop.level("n0.bench.test") == "primary"
    assert shop.proxy.metric("store_renewed_total") == 1  # nothing else was made anew


def test_a_small_cache_serves_all_names(shop):
    shop = shop()
    shop.proxy.config["store"]["cache"] = 8
    shop.start()
    for _ in range(2):
        for i in range(NUM_KEYS):
            assert shop.level(f"n{i}.bench.test") == "primary"
    metrics = shop.proxy.metrics()
    assert metrics["deputy_proxy_store_cached"] <= 8
    assert metrics["deputy_proxy_store_evicted_total"] >= NUM_KEYS - 8
    assert "deputy_proxy_store_cached" in prometheus.parse(shop.proxy.ctl("metrics").stdout)
    names = [f"n{i % NUM_KEYS}.bench.test" for i in range(200)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert set(pool.map(shop.level, names)) == {"primary"}


def test_many_misses_of_one_name_are_one_load(shop):
    shop = shop().start()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert set(pool.map(shop.level, ["n5.bench.test"] * 32)) == {"primary"}
    assert shop.proxy.metric("store_loads_total") == 1


def test_compaction_under_load(shop):
    shop = shop().start()
    stop = threading.Event()
    failures = []

    def visit(first):
        i = first
        while not stop.is_set():
            try:
                assert shop.level(f"n{i % NUM_KEYS}.bench.test") in ("primary", "backup")
            except Exception as e:  # shown below
                failures.append(e)
            i += 7

    threads = [threading.Thread(target=visit, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    try:
        for num in (1, 2):
            shop.store("compact")
            wait_until(lambda num=num: shop.proxy.metric("store_reopened_total") == num,
                       "the new file")
        shop.store("switch", "--ca", "Bench CA primary", "--reason", "test")
        assert shop.level("n0.bench.test") == "backup"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures[:3]
    shop.add("after.demo.test")
    assert shop.issuer("after.demo.test") == "web-one"


def test_the_proxy_is_killed_and_serves_again(shop):
    shop = shop().start()
    shop.store("switch", "--ca", "Bench CA primary", "--reason", "test")
    for _ in range(3):
        assert shop.level("n0.bench.test") == "backup"
        shop.proxy.process.kill()
        shop.proxy.process.wait()
        shop.proxy.start()
        wait_until(lambda: shop.proxy.metric("key_servers_ready") >= 1, "the key server")
    shop.store("verify")


def test_stores_that_cannot_be_opened(shop, procs):
    shop = shop()
    shop.stack.start_servers()
    chains = shop.folder / "chains-1.mdb"
    good = chains.read_bytes()

    def refused():
        shop.proxy.write_config()
        done = procs.run([BIN_DIR / "deputy-proxy", "--config", procs.folder / "proxy.json"])
        assert done.returncode in (1, 2)
        return done.stderr

    chains.write_bytes(good[:len(good) // 2])
    assert "cut off" in refused()
    chains.write_bytes(b"plain text\n" * 2000)
    assert "damaged" in refused()
    chains.write_bytes(good)
    shop.proxy.config["store"]["path"] = str(procs.folder / "nowhere")
    assert "Import certificates" in refused()
    shop.proxy.config["store"]["path"] = str(shop.folder)
    shop.proxy.config["states"] = str(procs.folder / "states.json")
    assert "both states and store" in refused()
    del shop.proxy.config["states"]
    shop.proxy.start()


def test_a_damaged_record_is_one_names_matter(shop):
    shop = shop()
    leaf = shop.add("broken.test").der()
    path = shop.folder / "chains-1.mdb"
    data = path.read_bytes()
    at = data.index(leaf)
    path.write_bytes(data[:at] + b"\xff" * 16 + data[at + 16:])
    shop.start()
    assert "INTERNAL_ERROR" in shop.alert("broken.test")
    assert shop.proxy.failures("store_unreadable") == 1
    assert shop.level("n0.bench.test") == "primary"


def test_delegated_credentials_for_names_of_the_store(shop):
    shop = shop(issuer=True)
    shop.add("demo.test")
    shop.add("demo.test", ca=1, level="backup")
    shop.start()
    nss = shop.stack.nss()
    first = nss.run()
    assert first.is_ok and not first.got_dc  # cold: by the certificate's key
    shop.proxy.wait_credentials(2)  # the backup's too
    assert 40 * 3600 < shop.proxy.metric("store_seconds_left", of="dc") <= 48 * 3600
    assert shop.proxy.metric("store_seconds_left", of="certificate") > 48 * 3600
    again = nss.run()
    assert again.is_ok and again.got_dc and again.issuer == "web-one", again
    shop.store("switch", "--ca", "web-one", "--reason", "test")
    moved = nss.run()
    assert moved.is_ok and moved.got_dc and moved.issuer == "web-two", moved
    # A staple, or an import of something else, loses no credential; an end of the name does.
    shop.add("other.test")
    assert nss.run().got_dc
    shop.store("remove", "demo.test")
    wait_until(lambda: shop.proxy.metric("dc_chains") == 0, "the end of its credentials")
    assert not shop.proxy.metric("store_seconds_left", of="dc")


def test_staples_and_sessions_of_the_store(shop, procs, pki):
    shop = shop()
    ca = RevokingCa(procs, pki, "one", ca=shop.stack.web_cas[0])
    leaf = ca.issue_chain("staple.test", key=make_key(shop.stack.keyserver.folder / "s.key"),
                          more=["tlsfeature=status_request"])
    shop.store("import", leaf.chain)
    shop.start()
    assert shop.issuer("staple.test") == "web-one"  # the last resort: it must have a staple
    assert shop.proxy.metric("last_resort_total") == 1
    now = datetime.datetime.utcnow()

    def staple(seconds):
        """A staple that ends then, as an import brings it."""
        leaf.chain.with_name(leaf.chain.name + ".ocsp").write_bytes(
            ca.build(leaf, now - datetime.timedelta(hours=1),
                     datetime.datetime.utcnow() + datetime.timedelta(seconds=seconds)))
        shop.store("import", leaf.chain)

    def shown(*args):
        done = shop.stack.openssl("-status", *args, host="staple.test")
        return "OCSP Response Status: successful" in done.stdout

    staple(3600)
    wait_until(lambda: shown("-tls1_3"), "the staple of a name that is hot")
    assert shown("-tls1_2")
    view = json.loads(shop.proxy.ctl("names", "staple.test", "--json").stdout)["names"][0]
    chain = view["levels"][0]["chains"][0]
    assert chain["usable"] and chain["must_staple"] and chain["staple_ends_at"], chain
    # Its last good second, and no longer.
    staple(3 * SLOW)
    wait_until(lambda: not shown("-tls1_3"), "the end of the staple", timeout=30)
    view = json.loads(shop.proxy.ctl("names", "staple.test", "--json").stdout)["names"][0]
    assert view["levels"][0]["chains"][0]["fault"] == "no_staple" and not view["usable"]
    # Sessions are kept for names of the store, and go on where the name is cold again.
    context = shop.context()
    for tls12 in (False, True):
        context = shop.context(tls12=tls12)
        reused = []
        session = None
        for _ in range(3):
            with context.wrap_socket(socket.create_connection(shop.proxy.address),
                                     server_hostname="n0.bench.test", session=session) as tls:
                tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
                while tls.recv(65536):
                    pass
                session = tls.session
                reused.append(tls.session_reused)
        assert reused == [False, True, True], tls12
    ca.stop()


def test_clients_that_leave_while_a_name_is_read(shop):
    shop = shop().start()
    for i in range(NUM_KEYS):
        tls = shop.context().wrap_bio(ssl.MemoryBIO(), out := ssl.MemoryBIO(),
                                      server_hostname=f"n{i}.bench.test")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        with socket.create_connection(shop.proxy.address) as plain:
            plain.sendall(out.read())
    wait_until(lambda: shop.proxy.metric("connections_open") == 0, "their end")
    assert shop.level("n0.bench.test") == "primary"


def test_names_of_the_store_have_a_policy_together(shop):
    shop = shop()
    clients = shop.stack.pki.ca("visitors")
    alice = clients.issue("alice", eku="clientAuth")
    shop.stack.add_name("demo.test")
    shop.proxy.config["default_name"] = "demo.test"
    shop.proxy.config["tls"] = {"min_version": "1.3"}
    shop.proxy.config["store"]["tls"] = {
        "min_version": "1.2", "max_version": "1.2", "groups": "P-384",
        "client_certificates": {"mode": "required", "ca": str(clients.cert)}}
    shop.start()

    def visit(host, identity=None, check=True):
        context = shop.context(verify=check)
        if identity:
            context.load_cert_chain(identity.chain, identity.key)
        with shop.stack.connect(host, context=context) as tls:
            tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert tls.recv(65536).startswith(b"HTTP/1.")
            return tls.version()

    for _ in range(2):  # cold and hot
        assert visit("n0.bench.test", alice) == "TLSv1.2"
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            visit("n0.bench.test")
        assert visit("demo.test") == "TLSv1.3"
    wait_until(lambda: 'name="n0.bench.test" version=1.2' in shop.proxy.log() and
               "group=P-384" in shop.proxy.log(), "the line")
    # A name in neither begins under the store's policy, and is answered by the default,
    # which does not want that version.
    before = shop.proxy.failures("version")
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        visit("nobody.test", alice, check=False)
    assert shop.proxy.failures("version") == before + 1
