"""Windows and durations as people write them."""

from __future__ import annotations

import pytest

from opsloop.clock import ManualClock, parse_time
from opsloop.endpoint import duration_seconds, window_of
from opsloop.errors import InputError

NOW = "2026-01-05T09:00:00Z"


@pytest.mark.parametrize(
    ("arguments", "start", "end"),
    [
        ({}, "2026-01-05T08:00:00Z", NOW),
        ({"from": "30m"}, "2026-01-05T08:30:00Z", NOW),
        ({"from": "2h", "to": "1h"}, "2026-01-05T07:00:00Z", "2026-01-05T08:00:00Z"),
        ({"from": "2026-01-01T00:00:00Z", "to": "now"}, "2026-01-01T00:00:00Z", NOW),
        ({"to": "1d"}, "2026-01-04T08:00:00Z", "2026-01-04T09:00:00Z"),
        ({"from": "1767600000000000000"}, "2026-01-05T08:00:00Z", NOW),
    ],
)
def test_a_window_is_read(arguments, start, end):
    """Relative, ISO and nanosecond times mix; an hour up to now is the default."""
    assert window_of(arguments, clock=ManualClock(NOW)) == (parse_time(start), parse_time(end))


@pytest.mark.parametrize(
    "arguments",
    [{"from": "soon"}, {"from": "²"}, {"to": "9" * 5000}, {"from": "1h", "to": "2h"}, {"to": "2026-01-05T09:00:00"}],
)
def test_a_wrong_window_is_refused(arguments):
    """An unreadable time, a window that ends before it starts, and a time without a zone each get a sentence."""
    with pytest.raises(InputError):
        window_of(arguments, clock=ManualClock(NOW))


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("90s", 90), ("15m", 900), ("1.5h", 5400), ("2w", 1_209_600)]
)
def test_durations(text, seconds):
    """A number with a unit."""
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["-15m", "15m ago"])
def test_a_time_ago_is_no_duration(text, clock):
    """A window may begin ``-15m`` or ``15m ago``; a length of time is neither."""
    with pytest.raises(InputError, match="is no duration"):
        duration_seconds(text)
    now_ns = clock.now_ns()
    assert window_of({"from": text}, clock=clock) == (now_ns - 900 * 10**9, now_ns)


def test_a_duration_needs_a_unit():
    """A bare number is ninety of what."""
    with pytest.raises(InputError, match="'90' is no duration; write a number with us, ms, s, m, h, d or w"):
        duration_seconds("90")
