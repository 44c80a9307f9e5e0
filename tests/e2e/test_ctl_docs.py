# SPDX-License-Identifier: Apache-2.0
"""docs/API.admin.md and docs/deputyctl.md against the programs: what is served is
documented, and what is documented is served."""

import re

import pytest

from support.procs import BIN_DIR, SOURCE_DIR
from support.stack import Stack

API = (SOURCE_DIR / "docs/API.admin.md").read_text()
MANUAL = (SOURCE_DIR / "docs/deputyctl.md").read_text()


@pytest.fixture(scope="module")
def stack(module_procs, module_pki):
    stack = Stack(module_procs, module_pki, issuer=False)
    stack.start()
    yield stack
    stack.stop()


def section(title):
    """The text under a heading, up to the next one of its rank or higher."""
    level = len(title) - len(title.lstrip("#"))
    start = API.index(f"\n{title}\n") + len(title) + 2
    end = re.search(rf"^#{{1,{level}}} ", API[start:], re.M)
    return API[start:start + end.start()] if end else API[start:]


def documented(title):
    """Every word between backticks in a section."""
    return set(re.findall(r"`([\w.]+)`", section(title)))


def members(value, prefix=""):
    """Names of an object's members; those of nested objects after a dot."""
    for key, inside in value.items():
        if isinstance(inside, dict) and not prefix:
            yield from members(inside, f"{key}.")
        else:
            yield prefix + key


def test_every_route_is_documented_and_served(stack):
    routes = re.findall(r"(GET|POST) (/(?:v1/)?[a-z]+)", "\n".join(
        line for line in API.splitlines() if line.startswith("### ")))
    assert len(routes) == 15
    for method, path in routes:
        other = "POST" if method == "GET" else "GET"
        status, _ = stack.proxy.admin(method, path, None if method == "GET" else {"x": 1})
        assert status in (200, 400, 422), (method, path, status)
        status, body = stack.proxy.admin(other, path, {} if other == "POST" else None)
        assert status == 405 and body["error"]["code"] == "method_not_allowed"
    assert stack.proxy.admin("GET", "/v1/nothing")[0] == 404


def test_every_member_is_documented(stack):
    get = lambda path: stack.proxy.admin("GET", path)[1]
    post = lambda path, body: stack.proxy.admin("POST", path, body)[1]
    subject = {"level": "ca", "subject": "web-one"}
    switched = post("/v1/switch", {**subject, "reason": "docs"})
    chain_words = documented("### GET /v1/chains")
    name = get("/v1/names")["names"][0]
    chain = dict(name["levels"][0]["chains"][0])
    assert {chain.pop("serves"), chain.pop("serves_rsa_only")} <= {True, False}
    shown = {
        "### GET /v1/names": [name, name["levels"][0]],
        "### GET /v1/chains": [chain, *get("/v1/chains")["chains"]],
        "### GET /v1/switches": get("/v1/switches")["switches"],
        "### POST /v1/switch": [switched],
        "### POST /v1/drill": [post("/v1/drill", subject)],
        "### POST /v1/restore": [post("/v1/restore", subject)],
    }
    words = documented("## Switching") | documented("## Looking")
    for title, objects in shown.items():
        for value in objects:
            missing = set(value) - (documented(title) | (words if "restore" in title else set()))
            assert not missing, (title, missing)
    status = set(members(get("/v1/status")))
    missing = {m for m in status if m not in documented("### GET /v1/status")
               and m.partition(".")[0] not in documented("### GET /v1/status")}
    assert not missing, missing
    # And the other way: no member in the tables that is not there.
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section("### GET /v1/chains"), re.M)
    told = {m for row in rows for m in re.findall(r"`(\w+)`", row)}
    assert told == set(get("/v1/chains")["chains"][0]), told
    assert chain_words


def test_every_metric_is_documented(stack):
    families = {re.match(r"\w+", sample).group() for sample in stack.proxy.ctl("metrics").stdout
                .splitlines() if sample.startswith("deputy_states_")}
    assert families == {w for w in documented("### GET /metrics, GET /healthz")
                        | set(re.findall(r"`(deputy_states_\w+)", API))
                        if w.startswith("deputy_states_")}


def test_every_command_and_option_is_in_the_manual(procs):
    text = procs.run([BIN_DIR / "deputyctl", "--help"], check=True).stdout
    for command in re.findall(r"^  ([a-z]+)  ", text, re.M):
        assert re.search(rf"`{command}[ `\[]|\*\*`{command}", MANUAL), command
        options = procs.run([BIN_DIR / "deputyctl", command, "--help"], check=True).stdout
        for option in re.findall(r"^  (--[a-z-]+)", options, re.M):
            assert option in MANUAL, (command, option)
