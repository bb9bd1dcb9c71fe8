"""M of n against CloudWatch's published table."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.alerting.datapoints import m_of_n
from opsloop.verdict import Verdict

POINTS = {"X": True, "0": False, "-": None}
RESULTS = {"OK": Verdict.OK, "ALARM": Verdict.BREACH, "INSUFFICIENT": Verdict.INSUFFICIENT, "KEEP": None}
TABLE = """
3 0-X-X OK OK OK OK
3 0---- OK OK OK OK
3 ----- INSUFFICIENT KEEP ALARM OK
3 0XX-X ALARM ALARM ALARM ALARM
3 --X-- ALARM KEEP ALARM OK
2 0-X-X ALARM ALARM ALARM ALARM
2 00X0X ALARM ALARM ALARM ALARM
2 0-X-- OK OK ALARM OK
2 ----0 OK OK ALARM OK
2 ---X- ALARM KEEP ALARM OK
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row[:2]))
def test_the_table(row):
    """All forty cells of the table hold, for each way of treating missing points."""
    m, points, *cells = row
    found = [
        m_of_n([POINTS[point] for point in points], m=int(m), n=3, missing=missing)
        for missing in ("missing", "ignore", "breaching", "not_breaching")
    ]
    assert found == [RESULTS[cell] for cell in cells]


def test_a_breach_that_only_began_is_not_yet_an_alarm():
    """``----X`` with m = 3 is young: the missing points before it do not make it an alarm."""
    assert m_of_n([None, None, None, None, True], m=3, n=3, missing="missing") is not Verdict.BREACH


@settings(deadline=None)
@given(points=st.lists(st.booleans(), min_size=3, max_size=9), m=st.integers(1, 3), missing=st.sampled_from(
    ["missing", "ignore", "breaching", "not_breaching"]))  # fmt: skip
def test_without_missing_points_the_setting_is_unused(points, m, missing):
    """With n real points the verdict is the count over the newest n, whatever the setting."""
    expected = Verdict.BREACH if sum(points[-3:]) >= m else Verdict.OK
    assert m_of_n(points, m=m, n=3, missing=missing) is expected
