"""Time and ids are handed in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.clock import ManualClock, SeededIds, SystemClock, SystemIds, parse_time, utc


def test_a_manual_clock_moves_only_when_told():
    """Advancing moves both clocks, setting the wall clock back moves that one alone."""
    clock = ManualClock("2026-01-05T09:00:00Z")
    clock.advance(seconds=2, ns=5)
    assert (clock.now_ns() - parse_time("2026-01-05T09:00:00Z"), clock.monotonic_ns()) == (2_000_000_005, 2_000_000_005)
    clock.set_time(7)
    assert (clock.now_ns(), clock.monotonic_ns()) == (7, 2_000_000_005)
    with pytest.raises(ValueError, match="use set_time"):
        clock.advance(seconds=-1)


@given(st.integers(0, 4_000_000_000_999_999_999))
def test_iso_times_are_exact_to_the_nanosecond(ts_ns):
    """Writing a time with nine digits and reading it back loses nothing."""
    seconds, rest = divmod(ts_ns, 10**9)
    text = f"{utc(seconds * 10**9)[:19]}.{rest:09d}Z"
    assert parse_time(text) == ts_ns


@pytest.mark.parametrize(
    ("text", "ts_ns"),
    [
        ("2026-01-05T10:00:00+01:00", 1_767_603_600_000_000_000),
        ("2026-01-05T09:00:00.5Z", 1_767_603_600_500_000_000),
        ("2026-01-05 09:00:00Z", 1_767_603_600_000_000_000),
    ],
)
def test_forms_of_iso_8601(text, ts_ns):
    """Offsets, fractions of any length and a space for the T are read."""
    assert parse_time(text) == ts_ns


@pytest.mark.parametrize("text", ["2026-01-05T09:00:00", "yesterday", ""])
def test_a_time_without_a_zone_is_refused(text):
    """A local time would be a guess."""
    with pytest.raises(ValueError, match=r"zone|Invalid isoformat"):
        parse_time(text)


def test_the_system_clock_runs_forward():
    """Both of the machine's clocks give nanoseconds, the monotonic one never goes back."""
    clock = SystemClock()
    first = clock.monotonic_ns()
    assert clock.now_ns() > parse_time("2025-01-01T00:00:00Z")
    assert clock.monotonic_ns() >= first


@pytest.mark.parametrize("ids", [SystemIds(), SeededIds(3)])
def test_ids_have_the_shape_that_trace_context_wants(ids):
    """Request, trace and span ids are hex of their length and never repeat."""
    assert len({ids.request_id() for _ in range(100)}) == 100
    assert len(ids.trace_id()) == 32
    assert len(ids.span_id()) == 16
    int(ids.trace_id(), 16)
