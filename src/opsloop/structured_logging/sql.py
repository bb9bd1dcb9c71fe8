"""The fast forms of the room's ``facets`` and ``summary``; a property test holds each equal to its definition."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from opsloop.event import FIELDS
from opsloop.filter import INTEGER_FIELDS, And, Filter, Statement, compile_filter
from opsloop.rollup import BY_SLOTS, PLAN, WORTHWHILE, cut, on_keys
from opsloop.structured_logging.facets import FACETS, Facet, FacetValue, Histogram, apart, step_width_ns
from opsloop.structured_logging.summary import MAX_GROUPS, NUMBER, QUANTILES, Group, Summary

__all__ = [
    "facets_from_rows",
    "facets_statement",
    "groups_from_rows",
    "histogram_from_rows",
    "histogram_statement",
    "ids_statement",
    "mentions_statement",
    "summary_statement",
]

_WINDOW = "ts_ns > {start_ns:Int64} AND ts_ns <= {end_ns:Int64}"


def facets_statement(where: Filter, *, start_ns: int, end_ns: int, limit: int = 10) -> Statement:
    """Return the statement for :func:`facets`: rows of (field, value, count), from one reading of the window.

    Events are counted by all fields together; each field then leaves out its own conditions. Of a window of more than
    six hours whose conditions roll-ups know, the roll-ups are read (see :mod:`opsloop.rollup`).
    """
    common, own = apart(where)
    condition = compile_filter(common)
    parameters: dict[str, Any] = {**condition.parameters, "start_ns": start_ns, "end_ns": end_ns, "most": limit}
    pairs = []
    for number, field in enumerate(FACETS):
        others = compile_filter(And(tuple(own[name] for name in own if name != field)), prefix=f"f{number}_")
        parameters |= others.parameters
        pairs.append(f"('{field}', toString({field}), toBool({others.sql}))")
    counted = f"SELECT {', '.join(FACETS)}, count() AS n FROM events WHERE {{}} AND {condition.sql} GROUP BY ALL"
    split, plan, groups = cut((start_ns, end_ns)), "", counted.replace("{}", _WINDOW)
    if split.whole >= WORTHWHILE and on_keys(common):
        plan, whole, rest = PLAN, counted.replace("{}", split.slots), counted.replace("{}", split.rows)
        groups = f"SELECT * FROM ({whole}{BY_SLOTS}) UNION ALL {rest}"
    sql = (
        f"SELECT pair.1 AS name, pair.2 AS value, sum(n) AS occurrences FROM ({groups})"
        f" ARRAY JOIN [{', '.join(pairs)}] AS pair WHERE pair.3 AND value != '' GROUP BY name, value"
        f" ORDER BY occurrences DESC, value ASC LIMIT {{most:UInt32}} BY name{plan}"
    )
    return Statement(sql, parameters)


def facets_from_rows(rows: Iterable[Sequence[Any]]) -> tuple[Facet, ...]:
    """Return the facets of the statement's rows, whatever order they came in."""
    found: dict[str, list[tuple[int, bytes, str]]] = {field: [] for field in FACETS}
    for field, value, count in rows:
        found[field].append((-int(count), value.encode(), value))
    return tuple(
        Facet(field, tuple(FacetValue(value, -count) for count, _, value in sorted(ranked)))
        for field, ranked in found.items()
    )


def histogram_statement(where: Filter, *, start_ns: int, end_ns: int, steps: int = 60) -> Statement:
    """Return the statement for :func:`histogram`: rows of (step, total, errors), empty steps left out."""
    condition = compile_filter(where)
    width = step_width_ns(start_ns, end_ns, steps)
    sql = (
        "SELECT intDiv(ts_ns - {start_ns:Int64} - 1, {width:Int64}) AS step, count() AS total,"
        " countIf(error OR severity >= 'ERROR') AS errors FROM events"
        f" WHERE {_WINDOW} AND {condition.sql} GROUP BY step"
    )
    return Statement(sql, {**condition.parameters, "start_ns": start_ns, "end_ns": end_ns, "width": width})


def histogram_from_rows(rows: Iterable[Sequence[Any]], *, start_ns: int, end_ns: int, steps: int = 60) -> Histogram:
    """Return the histogram of the statement's rows, with zeros where there is no row."""
    total, errors = [0] * steps, [0] * steps
    for step, count, bad in rows:
        total[step], errors[step] = int(count), int(bad)
    return Histogram(start_ns, end_ns, step_width_ns(start_ns, end_ns, steps), tuple(total), tuple(errors))


def ids_statement(where: Filter, *, limit: int) -> Statement:
    """Return the statement of the (trace, request) of each of the first matching events: it reads few columns."""
    condition = compile_filter(where)
    sql = (
        f"SELECT trace_id, request_id FROM events WHERE {condition.sql} ORDER BY ts_ns, sequence LIMIT {{most:UInt64}}"
    )
    return Statement(sql, {**condition.parameters, "most": limit})


def mentions_statement(
    kinds: Sequence[str], names: Sequence[str], *, near: str, start_ns: int, end_ns: int
) -> Statement:
    """Return the statement of when events of some kinds may say one of ``names``: rows of (kind, first, last, names).

    It looks after ``start_ns`` into all that an event says as one text, so that no field which holds a name is missed
    and none has to be named. Events of the kind ``near`` count whatever they say, until ``end_ns``.
    """
    said = "concat(message, '\\n', request_id, '\\n', arrayStringConcat(mapValues(leaves), '\\n'))"
    sql = (
        "SELECT event, min(ts_ns), max(ts_ns), groupUniqArray(name) FROM events"
        " LEFT ARRAY JOIN {names:Array(String)} AS name WHERE ts_ns > {start_ns:Int64}"
        " AND event IN {kinds:Array(String)} AND if(event = {near:String}, ts_ns <= {end_ns:Int64},"
        f" positionCaseInsensitive({said}, name) > 0) GROUP BY event"
    )
    searched = {"kinds": [*(kinds if names else ()), near], "names": list(names), "near": near}
    return Statement(sql, {**searched, "start_ns": start_ns, "end_ns": end_ns})


def summary_statement(where: Filter, summary: Summary, *, start_ns: int, end_ns: int) -> Statement:
    """Return the statement for :func:`summarise`: rows of (group, value, n), the largest value first."""
    condition = compile_filter(where)
    q = QUANTILES.get(summary.function)
    function = f"quantileExactInclusive({q!r})" if q else summary.function
    sql = (
        f"SELECT name, toFloat64({function}(number)) AS value, count() AS n FROM"
        f" (SELECT {_text_of(summary.by, 'by')} AS name, {_number_of(summary)} AS number FROM events"
        f" WHERE {_WINDOW} AND {condition.sql})"
        " WHERE isNotNull(number) GROUP BY name ORDER BY value DESC, name ASC LIMIT {most:UInt32}"
    )
    named = {"by": summary.by, "of": summary.field, "start_ns": start_ns, "end_ns": end_ns, "most": MAX_GROUPS}
    return Statement(
        sql, {**condition.parameters, **{name: value for name, value in named.items() if f"{{{name}:" in sql}}
    )


def groups_from_rows(rows: Iterable[Sequence[Any]]) -> tuple[Group, ...]:
    """Return the groups of the statement's rows."""
    return tuple(Group(name, float(value), int(n)) for name, value, n in rows)


def _number_of(summary: Summary) -> str:
    if summary.function == "count":
        return "CAST(1 AS Nullable(Float64))"
    if summary.field in INTEGER_FIELDS:
        return f"CAST({summary.field} AS Nullable(Float64))"
    text = _text_of(summary.field, "of")
    pattern = NUMBER.replace("\\", "\\\\")
    return f"if(match({text}, '^{pattern}$'), toFloat64OrNull({text}), NULL)"


def _text_of(field: str, parameter: str) -> str:
    """Return the SQL of a field's text: a column that we know by name, or the attribute that a parameter names."""
    if not field:
        return "''"
    if field in FIELDS and field != "attributes":
        return f"ifNull(toString({field}), '')"
    return f"leaves[{{{parameter}:String}}]"
