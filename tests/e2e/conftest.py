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


@pytest.fixture(scope="module")
def module_procs(tmp_path_factory):
    """The same for all tests of one file that can share their programs."""
    runner = procs_module.Procs(tmp_path_factory.mktemp("procs"))
    yield runner
    runner.stop_all()


@pytest.fixture(scope="module")
def module_pki(tmp_path_factory):
    """The certificates of a whole file."""
    return pki_module.Pki(tmp_path_factory.mktemp("pki"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Puts the logs of every program under the report of a test that failed."""
    outcome = yield
    report = outcome.get_result()
    if not report.failed:
        return
    for name in ("procs", "module_procs"):
        runner = getattr(item, "funcargs", {}).get(name)
        for title, text in runner.logs() if runner else ():
            report.sections.append((title, text))
