# SPDX-License-Identifier: Apache-2.0
"""Who gets which signature: real clients against a whole deployment."""

import pytest

from support.stack import Stack


@pytest.fixture(scope="module")
def stack(module_procs, module_pki):
    stack = Stack(module_procs, module_pki).start()
    yield stack
    stack.stop()


def test_nss_receives_a_delegated_credential(stack):
    before = stack.proxy.metric("handshakes_total", source="dc", version="1.3")
    result = stack.nss().run("demo.test")
    assert result.is_ok and result.got_dc, result
    assert stack.proxy.metric("handshakes_total", source="dc", version="1.3") == before + 1
