"""The dashboard: one window, one sentence, one screen."""

from __future__ import annotations

import pytest

from opsloop.clock import NANOSECONDS
from opsloop.dashboard import dashboard
from opsloop.errors import ConfigError
from opsloop.event import Event
from opsloop.settings import ObjectiveSettings, SloSettings

END_NS = 1_767_603_600 * NANOSECONDS
ERRORS = ObjectiveSettings(id="errors", group="errors", measure="error_ratio", threshold=0.02)
SLOW = ObjectiveSettings(id="slow", group="latency", measure="latency_us_p95", threshold=1000)
SLOWER = ObjectiveSettings(id="slower", group="latency", measure="latency_us_p99", threshold=1000)
ACME = ObjectiveSettings(
    id="acme", group="errors", measure="error_ratio", threshold=0.02, labels={"tenant": "acme"}, min_samples=1
)


def requests(count, **fields):
    """Build requests, one a second, that end now."""
    return [Event(ts_ns=END_NS - i * NANOSECONDS, event="request", **fields) for i in range(count)]


def board(events, *objectives, **options):
    """Work out a dashboard without budgets."""
    return dashboard(events, end_ns=END_NS, objectives=objectives, slos=(), **options)


def test_the_sentence_counts_different_signals():
    """Two quantiles of one latency are one signal: it takes two groups to page."""
    slow = requests(50, duration_us=2000)
    assert board(requests(50), ERRORS).sentence == "Quiet. 0 of 1 signals in breach; a page needs 2."
    assert board(slow, SLOW, SLOWER).sentence == "Watch. 1 of 1 signals in breach; a page needs 2."
    failed = requests(50, duration_us=2000, error=True)
    assert board(failed, SLOW, ERRORS).sentence == "Page. 2 of 2 signals in breach; a page needs 2."
    assert board([], ERRORS).sentence == "No data. Nothing was measured in 5 m."


def test_an_objective_with_labels_sees_only_its_events():
    """One tenant's failures breach that tenant's objective and carry its label."""
    found = board(requests(90) + requests(1, tenant="acme", error=True), ERRORS, ACME)
    assert [(each.verdict, each.n, each.labels) for each in found.readings] == [
        ("OK", 91, {}),
        ("BREACH", 1, {"tenant": "acme"}),
    ]


def test_an_unknown_measure_is_refused():
    """A dashboard with an objective that cannot be measured is not drawn at all."""
    odd = ObjectiveSettings(id="odd", group="errors", measure="eror_ratio", threshold=1)
    with pytest.raises(ConfigError, match="did you mean error_ratio"):
        board([], odd)


def test_a_quiet_screen_shows_what_is_not_known():
    """Every verdict has a shape of its own, an unknown value is a dash and never a zero."""
    events = requests(30, duration_us=500)
    quality = ObjectiveSettings(id="quality", group="quality", measure="quality_mean", threshold=0.8, direction="below")
    found = dashboard(
        events, end_ns=END_NS, objectives=(ERRORS, ACME, quality), slos=(SloSettings(id="up", target=0.9995),)
    )
    many = dashboard(requests(10), end_ns=END_NS, objectives=(ERRORS,), slos=())
    assert many.text().splitlines()[4].startswith("◌ errors")
    assert (
        found.text()
        == """\
Quiet. 0 of 2 signals in breach; a page needs 2.
2026-01-05  08:55:00 to 09:00:00 UTC

  SIGNAL        MEASURE                         VALUE       LIMIT       N  VERDICT
● errors        failed requests                 0.00%     > 2.00%      30  OK
○ acme          failed requests                     -     > 2.00%       0  NO DATA
○ quality       mean score                          -      < 0.80       0  NO DATA
  traffic       request rate                  0.10 /s           -      30  no objective
  traffic       token rate                          -           -       0  no objective
                p95 time to first token             -           -       0  no objective
                cost per request                    -           -       0  no objective

  OBJECTIVE     BURN OVER                        BURN       LIMIT          VERDICT
● up            1 h / 5 m               0.00x / 0.00x     > 14.4x          OK
●               6 h / 30 m              0.00x / 0.00x     > 6.00x          OK
●               1 d / 2 h               0.00x / 0.00x     > 3.00x          OK
●               3 d / 6 h               0.00x / 0.00x     > 1.00x          OK
                99.95% promised. 100% of the budget is left: 0 of 30 bad in 30 d, 0.05% allowed.
                Nothing was lost in the last hour."""
    )
