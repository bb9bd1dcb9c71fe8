"""The dashboard: one window's signals, their verdicts, the budgets, and a first sentence that says how it is.

Plain Python over events: what a lab, a test or a notebook calls. The server reads the same values through SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from opsloop.clock import NANOSECONDS, utc
from opsloop.dashboard.amount import NONE, amount, share, span
from opsloop.dashboard.burn import TierReading
from opsloop.dashboard.measure import measure
from opsloop.dashboard.objective import judge
from opsloop.dashboard.signals import Signals, signals
from opsloop.dashboard.slo import SloReading, count_slo, judge_slo
from opsloop.dashboard.window import Window
from opsloop.event import Event
from opsloop.settings import DEFAULT_OBJECTIVES, DEFAULT_SLOS, ObjectiveSettings, SloSettings
from opsloop.verdict import Reading, Verdict

__all__ = ["NEEDED", "SHAPES", "Dashboard", "dashboard", "headline"]

NEEDED: Final = 2
"""How many different signals have to breach at once before anybody is paged."""

SHAPES: Final = {
    Verdict.OK: "●",
    Verdict.BREACH: "◆",
    Verdict.NO_DATA: "○",
    Verdict.INSUFFICIENT: "◌",
}
"""A verdict's shape, to be told apart without colour; ``▲`` is a warning: a breach that opens a ticket, not a page."""

_WARNING: Final = "▲"
_INDENT: Final = " " * 16
_TRAFFIC: Final = (
    "requests_per_second",
    "tokens_per_second",
    "time_to_first_token_us_p95",
    "cost_microusd_per_request",
)


class Dashboard(msgspec.Struct, frozen=True, kw_only=True):
    """What one window says."""

    sentence: str
    signals: Signals
    readings: tuple[Reading, ...]
    slos: tuple[SloReading, ...]
    objectives: tuple[ObjectiveSettings, ...]

    def text(self) -> str:
        """Return one screen of plain text for a terminal."""
        start, end = utc(self.signals.start_ns), utc(self.signals.end_ns)
        lines = [self.sentence, f"{start[:10]}  {start[11:19]} to {end[11:19]} UTC", ""]
        lines.append(_row(" ", "SIGNAL", "MEASURE", "VALUE", "LIMIT", "N", "VERDICT"))
        for objective, reading in zip(self.objectives, self.readings, strict=True):
            lines.append(_reading_row(objective, reading))
        judged = {objective.measure for objective in self.objectives}
        lines += [_plain_row(name, self.signals) for name in _TRAFFIC if name not in judged]
        lines += ["", _row(" ", "OBJECTIVE", "BURN OVER", "BURN", "LIMIT", "", "VERDICT")]
        for slo in self.slos:
            for index, tier in enumerate(slo.tiers):
                lines.append(_tier_row(slo.id if index == 0 else "", tier))
            told = slo.sentence.replace(". ", ".\n" + _INDENT)
            lines.append(f"{_INDENT}{share(slo.target)} promised. {told}")
        return "\n".join(line.rstrip() for line in lines)


def dashboard(
    events: Iterable[Event],
    *,
    end_ns: int,
    window_seconds: float = 300.0,
    objectives: Sequence[ObjectiveSettings] = DEFAULT_OBJECTIVES,
    slos: Sequence[SloSettings] = DEFAULT_SLOS,
    slots: int | None = None,
    needed: int = NEEDED,
) -> Dashboard:
    """Work out the dashboard of the window of ``window_seconds`` that ends at ``end_ns``.

    Every objective is judged in that one window, whatever window it has in the settings; the budgets are counted over
    as much of their period as ``events`` hold. ``slots`` is how many requests may run at once; without it ``in_flight``
    says nothing. ``needed`` is how many signals in breach make a page. Raises :class:`opsloop.errors.ConfigError` for
    an unknown measure.

    >>> print(dashboard([], end_ns=300 * 10**9).sentence)
    No data. Nothing was measured in 5 m.
    """
    seen = list(events)
    start_ns = end_ns - round(window_seconds * NANOSECONDS)
    by_labels: dict[tuple[tuple[str, str], ...], Signals] = {}

    def found(labels: dict[str, str]) -> Signals:
        key = tuple(sorted(labels.items()))
        if key not in by_labels:
            by_labels[key] = signals(Window.of(seen, start_ns=start_ns, end_ns=end_ns, labels=labels), slots=slots)
        return by_labels[key]

    readings = tuple(
        judge(measure(each.measure).read(found(each.labels)), each, start_ns=start_ns, end_ns=end_ns)
        for each in objectives
    )
    judged = tuple(judge_slo(slo, count_slo(slo, seen, end_ns=end_ns), end_ns=end_ns) for slo in slos)
    return Dashboard(
        sentence=headline(readings, judged, needed=needed),
        signals=found({}),
        readings=readings,
        slos=judged,
        objectives=tuple(objectives),
    )


def headline(readings: Sequence[Reading], slos: Sequence[SloReading], *, needed: int = NEEDED) -> str:
    """Return the first sentence: how many different signals are in breach, and which budgets burn.

    Readings of one group are one signal. A group is in breach when one of its readings is.
    """
    groups = {reading.group for reading in readings}
    breaching = {reading.group for reading in readings if reading.verdict is Verdict.BREACH}
    burning = [slo.id for slo in slos if slo.tiers and any(_pages(tier) for tier in slo.tiers)]
    if readings and all(reading.verdict is Verdict.NO_DATA for reading in readings) and not burning:
        longest = max(reading.window_end_ns - reading.window_start_ns for reading in readings) / NANOSECONDS
        return f"No data. Nothing was measured in {span(longest)}."
    state = "Page" if len(breaching) >= needed else "Watch" if breaching or burning else "Quiet"
    text = f"{state}. {len(breaching)} of {len(groups)} signals in breach; a page needs {needed}."
    return f"{text} Burning: {', '.join(burning)}." if burning else text


def _pages(tier: TierReading) -> bool:
    return tier.severity == "page" and tier.verdict is Verdict.BREACH


def _row(*cells: str) -> str:
    shape, signal, what, value, limit, n, verdict = cells
    return f"{shape} {signal:<13} {what:<23} {value:>13}  {limit:>10}  {n:>6}  {verdict}"


def _reading_row(objective: ObjectiveSettings, reading: Reading) -> str:
    what = measure(objective.measure)
    sign = ">" if objective.direction == "above" else "<"
    verdict = reading.verdict.replace("_", " ") + (", severe" if reading.severe else "")
    return _row(
        SHAPES[reading.verdict],
        reading.id,
        what.title,
        amount(reading.value, what.unit),
        f"{sign} {amount(objective.threshold, what.unit)}",
        str(reading.n),
        verdict,
    )


def _plain_row(name: str, found: Signals) -> str:
    what = measure(name)
    measured = what.read(found)
    signal = "traffic" if what.unit == "1/s" else ""
    return _row(" ", signal, what.title, amount(measured.value, what.unit), NONE, str(measured.n), "no objective")


def _tier_row(name: str, tier: TierReading) -> str:
    shape = SHAPES[tier.verdict]
    if tier.severity == "ticket" and tier.verdict is Verdict.BREACH:
        shape = _WARNING
    pair = f"{span(tier.long_seconds)} / {span(tier.short_seconds)}"
    values = f"{amount(tier.burn_long, 'burn')} / {amount(tier.burn_short, 'burn')}"
    verdict = tier.verdict.replace("_", " ") + (f", {tier.severity}" if tier.verdict is Verdict.BREACH else "")
    return _row(shape, name, pair, values, f"> {amount(tier.factor, 'burn')}", "", verdict)
