# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the end-to-end tests: a folder, certificates, processes."""

import pytest

from support import pki as pki_module
from support import procs as procs_module


@pytest.fixture
def procs(tmp_path):
    """Starts programs; at the end they are stopped and must end well."""
    runner = procs_module.Procs(tmp_path)
    yield runner
    runner.stop_all()


@pytest.fixture
def pki(tmp_path):
    """A folder of certificates: pki.ca("name").issue(...)."""
    folder = tmp_path / "pki"
    folder.mkdir()
    return pki_module.Pki(folder)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Puts the logs of every program under the report of a test that failed."""
    outcome = yield
    report = outcome.get_result()
    runner = item.funcargs.get("procs") if hasattr(item, "funcargs") else None
    if runner is None or not report.failed or report.when == "setup":
        return
    for title, text in runner.logs():
        report.sections.append((title, text))
