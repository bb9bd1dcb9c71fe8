"""What follows from a span's names and the types of their values: where each column of its row comes from.

Rule
    The spans of one instrumentation have the same names with values of the same types: one *shape*. So a :class:`Plan`
    is made once per shape, from the same tables that :mod:`opsloop.ingest.mapping` looks names up in.
Limits
    A shape is left to the definition, as ``odd``, where it is not plain: a name twice, a tree of names, a value of
    another type than a column is made of, or any name that the definition asks for outside of the tables
    (:func:`asked_for` watches it ask).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from opsloop.ingest import content, mapping
from opsloop.ingest.attributes import Attributes, Name
from opsloop.ingest.content import ContentReader
from opsloop.ingest.flat import OTHER, REAL, TEXT, WHOLE

__all__ = [
    "ADDED",
    "HOLE",
    "TOOL_MARKS",
    "Plan",
    "asked_for",
    "bare_span",
    "plan_of",
    "shape_text",
]

_MARKS: Final = (*mapping.KIND_NAMES, *mapping.KIND_FALLBACKS)
TOOL_MARKS: Final = ("gen_ai.tool.name", "gen_ai.tool.call.id")
_TEXTS: Final[Mapping[str, tuple[Name, ...]]] = {
    "model": mapping.MODEL,
    "provider": mapping.PROVIDER,
    "request_id": mapping.REQUEST,
    "tenant": mapping.TENANT,
    "user_id": mapping.USER,
    "session_id": mapping.SESSION,
    "tool": mapping.TOOL,
    "route": mapping.ROUTE,
    "error_type": ("error.type",),
    "entity": ("traceloop.entity.name",),
    "tool_call": ("gen_ai.tool.call.id",),
    **{name: (name,) for name in _MARKS},
}
_COUNTS: Final[Mapping[str, tuple[Name, ...]]] = {
    "status_code": mapping.STATUS_CODE,
    "input_tokens": mapping.INPUT_TOKENS,
    "output_tokens": mapping.OUTPUT_TOKENS,
}
_REALS: Final[Mapping[str, tuple[Name, ...]]] = {
    "usd": mapping.COST_USD,
    "first_seconds": mapping.FIRST_TOKEN_SECONDS,
    "first_milliseconds": mapping.FIRST_TOKEN_MILLISECONDS,
}
_CONTENT: Final[Mapping[str, tuple[Name, ...]]] = {
    "input": content.INPUT,
    "output": content.OUTPUT,
    "finish_reason": content.FINISH,
}
ADDED: Final = ("span_name", "input", "output", "finish_reason", "documents")
"""What the mapping adds to the attributes."""
_OWN: Final = frozenset({*ADDED, "negative_duration_ns"})
_ENCODE: Final = msgspec.json.Encoder().encode
HOLE: Final = "\x01"
"""Stands for a leaf in the shape of attributes, as the store has it."""


class _Watched(Attributes):
    """Attributes that note every name they are asked for."""

    __slots__ = ("asked",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.shape = type(self.shape)()  # one of its own: what is kept in it is what was asked
        self.asked: set[Name] = set()

    def get(self, name: Any, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)


def asked_for() -> frozenset[str]:
    """Return every attribute that the mapping of a span asks for, of whatever kind, but those with an index."""
    names: set[Name] = {*content.NAMES}
    for mark in ("", *mapping.KINDS):
        watched = _Watched({mapping.KIND_NAMES[0]: mark} if mark else {})
        list(mapping.map_span(bare_span(watched)))
        names |= watched.asked
        names.update(*(asked for asked in watched.shape if isinstance(asked, tuple)))
    return frozenset(map(_attribute, names))


def _attribute(name: Name) -> str:
    """Return the attribute that a path leads into; a plain name is its own."""
    return name if isinstance(name, str) else str(name[0])


def bare_span(attributes: Attributes, *, kind: int = 0, parent_span_id: str = "") -> mapping.SpanRecord:
    """Return a span of which the mapping can be asked what follows from some attributes."""
    return mapping.SpanRecord(
        resource={}, scope="", trace_id="", span_id="", parent_span_id=parent_span_id, name="", kind=kind, start_ns=1,
        end_ns=1, status=mapping.STATUS_ERROR, status_message="", attributes=attributes, span_events=[],
    )  # fmt: skip


# ---- what follows from names and types ------------------------------------------------------------------------------


class _Home(NamedTuple):
    """Where the value of a name goes."""

    table: str
    """``text``, ``count``, ``real``, ``content``, ``structured`` or ``python``."""
    column: str = ""
    preference: int = 0


@cache
def _homes() -> Mapping[str, _Home]:
    """Return where each name goes that the mapping asks for."""
    asked = asked_for()
    tables = {"text": _TEXTS, "count": _COUNTS, "real": _REALS, "content": _CONTENT}
    columns = [(table, column, names) for table, of in tables.items() for column, names in of.items()]
    uses = Counter(_attribute(name) for _, _, names in columns for name in frozenset(names))
    homes = dict.fromkeys(asked, _Home("python"))
    homes |= {name: _Home("structured") for name in asked & content.STRUCTURED}
    for table, column, names in columns:
        plain = {_attribute(name): place for place, name in enumerate(names) if isinstance(name, str)}
        homes |= {name: _Home(table, column, place) for name, place in plain.items()}
    paths = {_attribute(name) for _, _, names in columns for name in names if not isinstance(name, str)}
    twice = {name for name, count in uses.items() if count > 1}
    homes |= dict.fromkeys({*_OWN, *paths, *twice}, _Home("python"))
    return homes


class Plan(NamedTuple):
    """What follows from the names and types of a shape, as positions among its attributes."""

    names: tuple[str, ...]
    types: tuple[int, ...]
    odd: bool
    """Whether the definition has to map these spans."""
    texts: dict[str, list[int]]
    """By column the attributes that it may have its text from, the preferred first."""
    numbers: dict[str, int]
    counts: list[int]
    reals: list[int]
    quotable: list[int]
    """Where a text must not be in quotes."""
    content: ContentReader
    """What finds the content."""
    positions: dict[str, int]
    """Where each name is."""
    marks: list[int]
    """What the kind of the event is told by."""


@lru_cache(maxsize=1024)
def plan_of(names: tuple[str, ...], types: tuple[int, ...]) -> Plan:
    """Return the plan for spans that have these names with values of these types."""
    homes = _homes()
    found: dict[str, list[tuple[str, int, int]]] = {}
    odd = OTHER in types or len({*names}) != len(names)
    told = []
    for position, (name, kind) in enumerate(zip(names, types, strict=True)):
        home = homes.get(name) or _Home("structured" if content.INDEXED.fullmatch(name) else "")
        table = home.table
        found.setdefault(table, []).append((home.column, home.preference, position))
        fits = {"text": (TEXT, WHOLE), "count": (WHOLE,), "real": (REAL, WHOLE), "python": ()}.get(table)
        fits = (TEXT,) if name in {*_MARKS, *TOOL_MARKS} else fits
        odd |= fits is not None and kind not in fits
        if table in {"structured", "content"}:
            told.append(name)
    texts: dict[str, list[int]] = {}
    for column, _, position in sorted(found.get("text", [])):
        texts.setdefault(column, []).append(position)
    numbers: dict[str, int] = {}
    for column, _, position in sorted(found.get("count", []) + found.get("real", [])):
        numbers.setdefault(column, position)

    def of(table: str, *kinds: int) -> list[int]:
        return [position for _, _, position in found.get(table, []) if types[position] in kinds]

    return Plan(
        names, types, odd, texts, numbers, counts=of("count", WHOLE), reals=of("real", REAL, WHOLE),
        quotable=of("text", TEXT), content=ContentReader(told),
        positions={name: position for position, name in enumerate(names)},
        marks=[place for place, name in enumerate(names) if name in {*_MARKS, *TOOL_MARKS}],
    )  # fmt: skip


@lru_cache(maxsize=4096)
def shape_text(names: tuple[str, ...], types: tuple[int, ...], added: int) -> str:
    """Return the JSON of the attributes with a hole for each leaf; ``added`` has a bit for each that was added."""
    holes = [f'"{HOLE}"' if kind == TEXT else HOLE for kind in types]
    more = [place for place in range(len(ADDED)) if added >> place & 1]
    names += tuple(ADDED[place] for place in more)
    holes += [HOLE if ADDED[place] == "documents" else f'"{HOLE}"' for place in more]
    return "{" + ",".join(f"{_ENCODE(name).decode()}:{hole}" for name, hole in zip(names, holes, strict=True)) + "}"
