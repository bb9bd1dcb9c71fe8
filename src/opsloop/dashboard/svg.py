"""One panel as an SVG picture: for a notice, a post-mortem or a page that runs no script.

Rule
    The picture shows what ``GET /api/signals`` answered and nothing else. What was not measured is a gap, never 0. An
    objective is a dashed line with its value. The value axis begins at 0 and ends on a round number above everything
    shown. Colours follow the reader's theme, and lines differ by dashes as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

from opsloop.clock import utc
from opsloop.dashboard.amount import amount
from opsloop.dashboard.measure import measure
from opsloop.errors import InputError

__all__ = ["PANELS", "ceiling", "panel_svg"]

PANELS: Final[Mapping[str, tuple[str, ...]]] = {
    "latency": ("latency_us_p50", "latency_us_p95", "latency_us_p99"),
    "first_token": ("time_to_first_token_us_p95",),
    "traffic": ("requests_per_second",),
    "tokens": ("tokens_per_second",),
    "errors": ("error_ratio", "rejected_ratio"),
    "saturation": ("saturation_ratio",),
    "quality": ("quality_mean",),
}
"""Each panel and the measures that it draws."""

WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 44, 24
_DASHES: Final = ("", "7 3", "2 3")
_COLOURS: Final = ("#2f6fb0", "#b0552f", "#6b4fa0")
_STYLE: Final = (
    "text{font:11px system-ui,sans-serif;fill:#16181b}.t{font-size:13px;font-weight:600}.g{stroke:#d8d8d3}"
    ".o{stroke:#b3261e;stroke-dasharray:4 3}.l{fill:none;stroke-width:1.5}.p{fill:#fff}"
    "@media(prefers-color-scheme:dark){text{fill:#e8ebef}.p{fill:#12161c}.g{stroke:#2a3038}}"
)


def panel_svg(answer: Mapping[str, Any], panel: str) -> str:
    """Return a panel of an answer of ``/api/signals`` as a whole SVG document.

    Raises :class:`InputError` for a panel that does not exist.

    >>> found = {"ts_ns": [0, 60 * 10**9], "error_ratio": [0.0, 0.5], "rejected_ratio": [None, None]}
    >>> panel_svg({"series": found, "objectives": []}, "errors")[:4]
    '<svg'
    """
    if panel not in PANELS:
        raise InputError(f"there is no panel {panel!r}", fix=f"use one of {', '.join(PANELS)}")
    names = PANELS[panel]
    series = {name: list(answer["series"].get(name) or []) for name in names}
    limits = [each for each in answer["objectives"] if each["measure"] in names]
    unit = measure(names[0]).unit
    shown = [value for values in series.values() for value in values if value is not None]
    top = ceiling([*shown, *(each["threshold"] for each in limits)])
    times = answer["series"]["ts_ns"]
    parts = [
        f'<rect class="p" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="t" x="{LEFT}" y="18">{escape(panel.replace("_", " "))}</text>',
        *_grid(times, top, unit),
        *(_limit(each, top, unit) for each in limits),
        *(line for place, name in enumerate(names) for line in _line(series[name], top, place)),
        *_legend(series, unit),
    ]
    if not shown:
        parts.append(f'<text x="{WIDTH // 2}" y="{HEIGHT // 2}" text-anchor="middle">nothing was measured</text>')
    about = quoteattr(f"{panel}: {_told(series, unit)}")
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label={about}>'
    return f"{head}<style>{_STYLE}</style>{''.join(parts)}</svg>\n"


def ceiling(values: Sequence[float]) -> float:
    """Return the end of an axis: the smallest of 1, 2, 2.5, 5 times a power of ten that is not below any value.

    >>> ceiling([0.31, 1.7]), ceiling([])
    (2.0, 1.0)
    """
    most = max(values, default=0.0)
    if most <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(most))
    return next((step * size for step in (1.0, 2.0, 2.5, 5.0, 10.0) if step * size >= most), most)


def _x(place: int, count: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * place / max(1, count - 1)


def _y(value: float, top: float) -> float:
    share = min(1.0, max(0.0, value / top))
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share


def _grid(times: Sequence[int], top: float, unit: str) -> list[str]:
    lines = []
    for share in (0.0, 0.5, 1.0):
        y = _y(top * share, top)
        lines.append(f'<line class="g" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        label = escape(amount(top * share, unit)) if share else "0"
        lines.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    if times:
        for place, anchor in ((0, "start"), (len(times) - 1, "end")):
            x = _x(place, len(times)) if len(times) > 1 or anchor == "start" else WIDTH - RIGHT
            moment = utc(times[place])[:16].replace("T", " ")
            lines.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{moment}</text>')
    return lines


def _limit(objective: Mapping[str, Any], top: float, unit: str) -> str:
    y = _y(objective["threshold"], top)
    label = escape(f"{objective['id']} {amount(objective['threshold'], unit)}")
    line = f'<line class="o" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text x="{WIDTH - RIGHT - 4}" y="{y - 4:.1f}" text-anchor="end">{label}</text>'


def _line(values: Sequence[float | None], top: float, place: int) -> list[str]:
    """Return a line for each stretch without a gap; a value alone between gaps is a dot."""
    lines = []
    stretch: list[str] = []
    style = f'stroke="{_COLOURS[place]}" stroke-dasharray="{_DASHES[place]}"'
    for step, value in enumerate([*values, None]):
        if value is not None:
            stretch.append(f"{_x(step, len(values)):.1f},{_y(value, top):.1f}")
        elif len(stretch) > 1:
            lines.append(f'<polyline class="l" {style} points="{" ".join(stretch)}"/>')
            stretch = []
        elif stretch:
            x, _, y = stretch.pop().partition(",")
            lines.append(f'<circle cx="{x}" cy="{y}" r="1.5" fill="{_COLOURS[place]}"/>')
    return lines


def _legend(series: Mapping[str, Sequence[float | None]], unit: str) -> list[str]:
    lines = []
    for place, (name, values) in enumerate(series.items()):
        x = LEFT + place * 200
        style = f'stroke="{_COLOURS[place]}" stroke-dasharray="{_DASHES[place]}"'
        lines.append(f'<line class="l" {style} x1="{x}" x2="{x + 18}" y1="32" y2="32"/>')
        label = escape(f"{measure(name).title} {amount(_latest(values), unit)}")
        lines.append(f'<text x="{x + 24}" y="36">{label}</text>')
    return lines


def _told(series: Mapping[str, Sequence[float | None]], unit: str) -> str:
    return ", ".join(f"{measure(name).title} {amount(_latest(values), unit)}" for name, values in series.items())


def _latest(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)
