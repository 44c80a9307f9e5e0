# SPDX-License-Identifier: Apache-2.0
"""A must-staple leaf whose responder dies is served to its staple's end, then the backup: no
handshake without a staple, or with a bad one."""

import pytest

from support.day import MUST_STAPLE, Crowd, Day
from support.procs import SLOW, wait_until

LIFE_S = 60  # of the shortest answers that `openssl ocsp` gives (-nmin 1)
LEFT_S = min(12 * SLOW, 30)  # of that, when they come: its clock is behind
CLOCK_S = 1  # what counts whole seconds may be so far from what does not


@pytest.fixture
def day(procs, pki, tmp_path):
    day = Day(procs, pki, tmp_path)
    yield day
    day.stop()


def test_a_must_staple_leaf_is_served_to_its_staples_end_then_the_backup(day):
    """Never without a staple, never with one that has ended; and back with the next one."""
    first, second = (ca.name for ca in day.stack.web_cas)
    day.add("demo.test", more=[MUST_STAPLE])
    responder = day.start_one("-nmin", "1", behind_s=LIFE_S - LEFT_S)
    day.start_two()
    day.stack.start(wait_credentials=0)
    nss = day.stack.nss()
    # There is no staple yet, so clients refuse what is served. But the name is known from
    # then on, and the credentials of both chains are fetched.
    nss.run()
    day.proxy.wait_credentials(2)
    day.manager.start(policy="report", poll="7d", ocsp_poll="0s")
    day.manager.wait_audit("staple", 2)
    responder.stop()  # a second answer would not matter, but there is none
    day.wait_staples("demo.test")

    def by_openssl():
        seen = day.visit("demo.test")
        # Whichever chain it is: with its own staple, which is good at this moment.
        assert seen.fault is None and seen.is_good, seen
        assert seen.began < seen.staple_ends + CLOCK_S, seen
        return seen.issuer, seen.staple_ends, seen.began

    def by_nss():
        result = nss.run()
        assert result.is_ok and result.got_dc, result
        return result.issuer

    crowd = Crowd(openssl=by_openssl, nss=by_nss)
    with crowd.coming():
        wait_until(lambda: crowd.faults or by_openssl()[0] == second, "the backup", 30)
        crowd.wait_more()
    by_one = [seen for seen in crowd.seen["openssl"] if seen[0] == first]
    assert by_one and crowd.seen["openssl"][-1][0] == second
    assert crowd.seen["nss"][0] == first and crowd.seen["nss"][-1] == second
    # To its last second; and once the backup serves, nobody sees the primary again.
    [ends] = {seen[1] for seen in by_one}
    first_by_two = min(seen[2] for seen in crowd.seen["openssl"] if seen[0] == second)
    assert ends - CLOCK_S <= first_by_two, (ends, first_by_two)
    assert all(seen[2] < first_by_two for seen in by_one)
    assert not day.manager.switches() and not day.manager.audit("revoked")

    # The responder is back, and the manager, which would have asked again by itself in a
    # minute, is started anew: overdue.
    day.start_one("-nmin", "600")
    day.manager.process.stop()
    day.manager.start("again", policy="report", poll="7d", ocsp_poll="0s")
    wait_until(lambda: by_openssl()[0] == first, "the primary")
    assert nss.run().issuer == first
    assert day.proxy.metric("dc_rejected_total") == 0
