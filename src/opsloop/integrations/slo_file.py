"""Objectives from other files: what they say that we say too, a guess at what their queries mean, and what is lost.

Rule
    A query is not translated: we count our own events. A bucket bound in it (``le="0.4"``) makes it a latency, else it
    is taken as availability. Every guess and everything that is left out is a note beside the objective, and the notes
    stand as comments in the TOML: nothing is lost in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from opsloop.errors import PayloadError
from opsloop.settings import SloSettings

__all__ = ["Guess", "Imported", "guess", "objective_from", "slo_id", "to_toml", "unique"]


class Imported(msgspec.Struct, frozen=True):
    """One objective and what its file said beyond it."""

    slo: SloSettings
    notes: tuple[str, ...] = ()


class Guess(msgspec.Struct, frozen=True):
    """What a query seems to measure."""

    sli: str
    threshold_us: int | None
    why: str


_ID: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_BOUND: Final = re.compile(r"""\ble\s*=~?\s*["']([0-9.]+(?:[eE][-+]?[0-9]+)?)["']""")
_MILLISECONDS: Final = re.compile(r"_(milliseconds|millis|ms)(_|\b)")
_FIRST_TOKEN: Final = re.compile(r"first_?(token|chunk)|ttft", re.IGNORECASE)
_QUALITY: Final = re.compile(r"quality|score|grounded", re.IGNORECASE)
_SLOW: Final = re.compile(r"latency|duration", re.IGNORECASE)


def guess(queries: Iterable[str], *, name: str = "") -> Guess:
    """Return what queries seem to measure.

    >>> guess(['rate(http_request_duration_seconds_bucket{le="0.4"}[5m])']).threshold_us
    400000
    """
    text = " ".join(queries)
    bounds = {float(bound) for bound in _BOUND.findall(text)}
    if len(bounds) == 1:
        (bound,) = bounds
        unit = "ms" if _MILLISECONDS.search(text) else "s"
        threshold_us = round(bound * (1e3 if unit == "ms" else 1e6))
        if threshold_us > 0:
            sli = "time_to_first_token" if _FIRST_TOKEN.search(text + name) else "latency"
            return Guess(sli, threshold_us, f'guessed {sli} from the bucket le="{bound:g}", read as {bound:g} {unit}')
    if _QUALITY.search(name):
        return Guess("quality", None, "guessed quality from the name")
    if _SLOW.search(text + name):
        why = "it seems to be about latency but names no single bucket bound: taken as availability"
        return Guess("availability", None, f"{why}; set sli and threshold_us")
    return Guess("availability", None, "guessed availability: check sli and labels")


def objective_from(
    name: str, *, target: Decimal, term: Mapping[str, Any], queries: Sequence[str], notes: Sequence[str], where: str
) -> Imported:
    """Return an objective from a foreign one; ``term`` holds the fields of its period.

    Raises :class:`PayloadError` for a target outside (0, 1).
    """
    if not 0 < target < 1:
        message = f"{where}: a target of {float(target * 100):g}% leaves no budget, or promises nothing"
        raise PayloadError(message, fix="use a target between 0 and 100%")
    found = guess(queries, name=name)
    slo = msgspec.convert(
        {
            "id": slo_id(name),
            "sli": found.sli,
            "target": float(target),
            "threshold_us": found.threshold_us,
            **term,
        },
        SloSettings,
    )
    told = [f"query not translated: {' '.join(query.split())}" for query in queries if query.strip()]
    return Imported(slo, (found.why, *told, *notes))


def slo_id(name: str) -> str:
    """Return a name as an id that the settings take.

    >>> slo_id("99 requests/s"), slo_id("My SLO")
    ('slo-99-requests-s', 'My-SLO')
    """
    if _ID.fullmatch(name):
        return name
    text = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-")
    return (text if _ID.match(text) else f"slo-{text}".rstrip("-"))[:64]


def unique(found: Iterable[Imported]) -> list[Imported]:
    """Return the objectives with ids of their own: a second one of an id gets a number."""
    seen: dict[str, int] = {}
    result = []
    for each in found:
        name, number = each.slo.id, seen.get(each.slo.id, 0) + 1
        seen[name] = number
        if number > 1:
            fresh = f"{name[:60]}-{number}"
            notes = (*each.notes, f"renamed: another objective is called {name}")
            each = Imported(msgspec.structs.replace(each.slo, id=fresh), notes)  # noqa: PLW2901 - the renamed one
        result.append(each)
    return result


def to_toml(found: Sequence[Imported]) -> str:
    """Return ``[[slo]]`` tables for ``opsloop.toml``, with what was guessed or lost as comments above each.

    >>> print(to_toml([Imported(SloSettings(id="up", target=0.99), ("guessed",))]), end="")
    # guessed
    [[slo]]
    id = "up"
    sli = "availability"
    target = 0.99
    period_days = 30.0
    """
    return "\n".join("".join(f"# {_printable(note)}\n" for note in each.notes) + _table(each.slo) for each in found)


def _table(slo: SloSettings) -> str:
    """Return the table: what every objective says, and what differs from the default."""
    usual = SloSettings(id=slo.id)
    said = {name for name in slo.__struct_fields__ if getattr(slo, name) != getattr(usual, name)}
    said = (said - {"period_days"}) | {"id", "sli", "target"} | ({"period_days"} if slo.calendar is None else set())
    lines = [f"{name} = {_value(getattr(slo, name))}" for name in slo.__struct_fields__ if name in said]
    return "\n".join(["[[slo]]", *lines]) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_text(key)} = {_text(each)}" for key, each in value.items()) + " }"
    return _text(value) if isinstance(value, str) else repr(value)


def _text(text: str) -> str:
    """Return a TOML basic string: JSON's escapes are TOML's, but for the one control character that JSON leaves."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _printable(text: str) -> str:
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())
