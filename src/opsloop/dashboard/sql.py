"""The signals and the budgets in SQL: what the plain functions say, over any number of windows at once.

One statement gives every count, sum and exact quantile of a window or of each step of a series; a second the levels of
its resources; a third bad and total events of every objective in every window that its tiers and budget need. A
property test holds each equal to its plain form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from opsloop.clock import NANOSECONDS
from opsloop.dashboard.burn import Count
from opsloop.dashboard.cost import Cost
from opsloop.dashboard.errors import Errors
from opsloop.dashboard.latency import Latencies, Latency
from opsloop.dashboard.quality import LEAST_PROBABILITY, Quality
from opsloop.dashboard.saturation import LARGEST, LEVEL, SLOTS, Gauge, Saturation, Series, fullest, short
from opsloop.dashboard.signals import Signals
from opsloop.dashboard.slo import slo_windows
from opsloop.dashboard.traffic import Traffic
from opsloop.dashboard.window import JUDGEMENTS, OWN_SERVICE, STAGES
from opsloop.filter import Statement, compile_filter, equals
from opsloop.settings import SloSettings

__all__ = [
    "budget_series_from_rows",
    "budget_series_statement",
    "judged",
    "levels_statement",
    "signals_from_rows",
    "signals_statement",
    "slo_band",
    "slo_counts_from_rows",
    "slo_starts",
    "slo_statement",
]


_WHOLE: Final = -1
"""What a row about a whole window has for a step: on the grid of a clock since 1970 there is no such one."""


def _names(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in sorted(values))


def _number(leaf: str) -> str:
    """Return the number that a leaf holds, or NULL: the twin of ``window.number``."""
    value = f"toFloat64OrNull({leaf})"
    return f"if(match({leaf}, '^-?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?$') AND isFinite({value}), {value}, NULL)"


_SERVED: Final = "event = 'request' AND error_type != 'rate_limited'"
_MARK: Final = "leaves['score']"
_SHARE: Final = "leaves['probability']"
_NAMED: Final = (
    f"{_SERVED} AS served",
    "event IN ('llm', 'embed') AS call",
    f"multiIf(event = 'tool' AND tool = 'retrieve', 'retrieve', event IN ({_names(STAGES)}), event, '') AS stage",
)
"""What several columns ask for, worked out once per row."""
_SCORING: Final = (
    f"{_number(_MARK)} AS score",
    f"if(mapContains(leaves, 'probability'), {_number(_SHARE)}, 1.) AS share",
    "ifNull(score >= 0 AND score <= 1, false) AS in_range",
    f"ifNull(share >= {LEAST_PROBABILITY!r} AND share <= 1, false) AS possible",
    "event = 'score' AND leaves['status'] = 'scored' AND in_range AND possible AS scored",
)
_LEAVES: Final = (
    "leaves['status'] AS status",
    "if(mapContains(leaves, 'finish_reason'), leaves['finish_reason'], NULL) AS finish",
    "if(mapContains(leaves, 'documents'), leaves['documents'], NULL) AS documents",
)


def _latency(name: str, where: str, *, column: str = "duration_us") -> dict[str, str]:
    return {
        f"{name}_n": f"countIf({where} AND isNotNull({column}))",
        f"{name}_skipped": f"countIf({where} AND isNull({column}))",
        f"{name}_quantiles": (
            f"quantilesExactInclusiveIf(0.5, 0.9, 0.95, 0.99)({column}, {where} AND isNotNull({column}))"
        ),
    }


def _sums(name: str, where: str) -> dict[str, str]:
    """Return what is added up twice: over model calls and over request lines, of which one is then taken."""
    return {
        f"{name}_metered": f"countIf({where} AND (isNotNull(input_tokens) OR isNotNull(output_tokens)))",
        f"{name}_input": f"sumIf(input_tokens, {where})",
        f"{name}_output": f"sumIf(output_tokens, {where})",
        f"{name}_cost": f"sumIf(cost_microusd, {where})",
        f"{name}_priced": f"countIf({where} AND isNotNull(cost_microusd))",
    }


_COLUMNS: Final[Mapping[str, str]] = {
    **_latency("served", "served"),
    **_latency("success", "served AND NOT error"),
    **_latency("error", "served AND error"),
    **_latency("first_token", "served", column="time_to_first_token_us"),
    **_latency("retrieve", "stage = 'retrieve'"),
    **_latency("llm", "event = 'llm'"),
    "events": f"countIf(event NOT IN ({_names(JUDGEMENTS)}) AND service != '{OWN_SERVICE}')",
    "requests": "countIf(event = 'request')",
    **_sums("calls", "call"),
    **_sums("lines", "event = 'request'"),
    "rejected": "countIf(event = 'request' AND NOT served)",
    "failed": "countIf(served AND error)",
    "server_errors": "countIf(served AND ifNull(status_code >= 500, false))",
    "calls": "countIf(call)",
    "failed_calls": "countIf(call AND error)",
    "upstream_429": "countIf(call AND error_type = 'upstream_429')",
    "truncated": "countIf(call AND ifNull(finish = 'length', false))",
    "finished": "countIf(call AND isNotNull(finish))",
    "retrievals": "countIf(stage = 'retrieve')",
    "failed_retrievals": "countIf(stage = 'retrieve' AND error)",
    "listed": "countIf(stage = 'retrieve' AND NOT error AND isNotNull(documents))",
    "empty": "countIf(stage = 'retrieve' AND NOT error AND ifNull(documents = '[]', false))",
    "tools": "countIf(stage = 'tool')",
    "failed_tools": "countIf(stage = 'tool' AND error)",
    "by_stage": "sumMapIf(map(stage, toUInt64(1)), error AND stage != '')",
    "by_type": "sumMapIf(map(toString(error_type), toUInt64(1)), served AND error)",
    "scored": "countIf(scored)",
    "unscored": "countIf(event = 'score' AND status = 'unscored')",
    "weighted": "sumKahanIf(ifNull(score / share, 0), scored)",
    "weights": "sumKahanIf(ifNull(1 / share, 0), scored)",
}


def signals_statement(
    *, start_ns: int, end_ns: int, step_ns: int | None = None, labels: Mapping[str, str] | None = None
) -> Statement:
    """Return the statement of all counts, sums and quantiles of ``(start_ns, end_ns]``, and of each step in it.

    Steps lie on the grid of multiples of ``step_ns``; each row begins with its number on the grid, that of the whole
    window with -1. Both come from one reading.
    """
    where, key, parameters = _scope(start_ns=start_ns, end_ns=end_ns, step_ns=step_ns, labels=labels)
    inner = ", ".join((f"*, {key} AS step", *_NAMED, *_SCORING, *_LEAVES))
    columns = ", ".join(_COLUMNS.values())
    step, groups = _grouped(step_ns)
    sql = f"SELECT {step}, {columns} FROM (SELECT {inner} FROM events WHERE {where}) GROUP BY {groups}"
    return Statement(sql, parameters)


_HEAD, _TAIL = len("limits."), len(".used_ratio")
_VALUE, _MOST, _RUNNING = (_number(f"leaves['{name}']") for name in ("value", "limit", "in_flight"))
_LATEST: Final = "argMax(level, (ts_ns, sequence))"
_HIGH: Final = f"quantileExactInclusive({LEVEL!r})(level)"


class _Levels(NamedTuple):
    """How levels are read off the events of one kind: apart, each kind reads only its own leaves."""

    told: str
    """What a row tells, as ``level`` and by the keys."""
    source: str
    keys: tuple[str, ...]
    result: str
    """Kind, name, observations, level, service, model, series and queue of a group."""


_LEVELS: Final[Mapping[str, _Levels]] = {
    "gauge": _Levels(
        "seen.1 AS kind, leaves['name'] AS name, toString(service) AS by_service, toString(model) AS by_model,"
        " leaves['series'] AS series, seen.2 AS queue, seen.3 AS level, ts_ns, sequence",
        f"events ARRAY JOIN [tuple('gauge', leaves['queue'], if({_MOST} != 0, {_VALUE} / {_MOST}, NULL)),"
        f" tuple('queue', '', if(has(queues, leaves['name']), {_VALUE}, NULL))] AS seen",
        ("kind", "name", "by_service", "by_model", "series"),
        f"kind, name, count(), {_LATEST}, by_service, by_model, series, argMax(queue, (ts_ns, sequence))",
    ),
    "limit": _Levels(
        f"path, if(startsWith(path, 'limits.') AND endsWith(path, '.used_ratio') AND length(path) > {_HEAD + _TAIL},"
        f" {_number('leaf')}, NULL) AS level",
        "events ARRAY JOIN mapKeys(leaves) AS path, mapValues(leaves) AS leaf",
        ("path",),
        f"'limit', substring(path, {_HEAD + 1}, length(path) - {_HEAD + _TAIL}), count(), {_HIGH}, '', '', '', ''",
    ),
    "request": _Levels(f"{_RUNNING} AS level", "events", (), f"'{SLOTS}', '', count(), {_HIGH}, '', '', '', ''"),
}


def levels_statement(
    *, start_ns: int, end_ns: int, step_ns: int | None = None, labels: Mapping[str, str] | None = None
) -> Statement:
    """Return the statement of the resources' levels, in the window and in each of its steps.

    Its rows are (step, kind, name, observations, level, service, model, series, queue). A gauge that others name as
    their queue has a second row, of the kind ``queue``, whose level is its latest value.
    """
    where, key, parameters = _scope(start_ns=start_ns, end_ns=end_ns, step_ns=step_ns, labels=labels)
    parts = []
    for kind, (told, source, keys, result) in _LEVELS.items():
        step, groups = _grouped(step_ns, *keys)
        parts.append(
            f"SELECT {step}, {result} FROM (SELECT {key} AS step, {told} FROM {source} WHERE {where}"
            f" AND event = '{kind}') WHERE ifNull(level >= 0 AND level <= {LARGEST!r}, false) GROUP BY {groups}"
        )
    queues = (
        f"SELECT groupUniqArrayArray(splitByChar(' ', leaves['queue'])) FROM events WHERE {where}"
        " AND event = 'gauge' AND leaves['queue'] != ''"
    )
    return Statement(f"WITH ({queues}) AS queues {' UNION ALL '.join(parts)}", parameters)


def signals_from_rows(
    rows: Iterable[Sequence[Any]],
    levels: Iterable[Sequence[Any]],
    *,
    windows: Sequence[tuple[int, int]],
    step_ns: int | None = None,
    slots: int | None = None,
) -> list[Signals]:
    """Return the signals of each window ``(start_ns, end_ns]``, empty ones too, from both statements' rows."""
    found = {row[0]: dict(zip(_COLUMNS, row[1:], strict=True)) for row in rows}
    seen: dict[int, list[Sequence[Any]]] = {}
    for row in levels:
        seen.setdefault(row[0], []).append(row)
    result = []
    for start_ns, end_ns in windows:
        step = _WHOLE if step_ns is None else -(-end_ns // step_ns)
        numbers = found.get(step, _NOTHING)
        result.append(_signals(numbers, _saturation(seen.get(step, ()), slots), start_ns=start_ns, end_ns=end_ns))
    return result


_NOTHING: Final[dict[str, Any]] = {
    name: {} if name in {"by_stage", "by_type"} else None if name.endswith(("_input", "_output", "_cost")) else 0
    for name in _COLUMNS
}


def _grouped(step_ns: int | None, *keys: str) -> tuple[str, str]:
    """Return the step to select and what to group by: these keys in the whole window, and in each of its steps."""
    by_step, whole = ", ".join(("step", *keys)), ", ".join(keys)
    if step_ns is None:
        return "step", by_step
    return f"if(grouping(step) = 1, {_WHOLE}, step)", f"GROUPING SETS (({by_step}), ({whole})) HAVING count() > 0"


def _scope(
    *, start_ns: int, end_ns: int, step_ns: int | None, labels: Mapping[str, str] | None
) -> tuple[str, str, dict[str, Any]]:
    """Return the condition of a window, the expression of a row's step, and the parameters of both."""
    selected = compile_filter(equals(**(labels or {})), prefix="label")
    parameters = {**selected.parameters, "start_ns": start_ns, "end_ns": end_ns}
    key = f"{_WHOLE}"
    if step_ns is not None:
        parameters["step_ns"] = step_ns
        key = "intDiv(ts_ns + {step_ns:Int64} - 1, {step_ns:Int64})"
    return f"ts_ns > {{start_ns:Int64}} AND ts_ns <= {{end_ns:Int64}} AND {selected.sql}", key, parameters


def _signals(row: Mapping[str, Any], saturation: Saturation, *, start_ns: int, end_ns: int) -> Signals:
    billed = "calls" if row["calls"] else "lines"
    whole = [name for name in Errors.__struct_fields__ if name in row]
    mean = row["weighted"] / row["weights"] if row["scored"] else None
    return Signals(
        start_ns=start_ns,
        end_ns=end_ns,
        latency=Latencies(**{name: _quantiles(row, name) for name in Latencies.__struct_fields__}),
        traffic=Traffic(
            seconds=(end_ns - start_ns) / NANOSECONDS,
            events=row["events"],
            requests=row["requests"],
            metered=row[f"{billed}_metered"],
            input_tokens=row[f"{billed}_input"],
            output_tokens=row[f"{billed}_output"],
        ),
        errors=Errors(**{name: row[name] for name in whole}),
        saturation=saturation,
        quality=Quality(mean=mean, scored=row["scored"], unscored=row["unscored"]),
        cost=Cost(
            microusd=row[f"{billed}_cost"],
            priced=row[f"{billed}_priced"],
            requests=row["requests"] - row["rejected"],
        ),
    )


def _quantiles(row: Mapping[str, Any], name: str) -> Latency:
    n, skipped = row[f"{name}_n"], row[f"{name}_skipped"]
    if not n:
        return Latency(skipped=skipped)
    p50, p90, p95, p99 = row[f"{name}_quantiles"]
    return Latency(n=n, skipped=skipped, p50=p50, p90=p90, p95=p95, p99=p99)


def _saturation(rows: Iterable[Sequence[Any]], slots: int | None) -> Saturation:
    gauges: dict[Series, Gauge] = {}
    values: dict[Series, float] = {}
    levels = []
    for _, kind, name, observations, level, service, model, series, queue in rows:
        match kind:
            case "gauge":
                gauges[name, service, model, series] = Gauge(level, queue, observations)
            case "queue":
                values[name, service, model, series] = level
            case "limit":
                levels.append((f"limit {name}", level, observations))
            case _ if slots:
                levels.append((SLOTS, level / slots, observations))
    return fullest([*short(gauges, values), *levels])


def slo_statement(slos: Sequence[SloSettings], *, end_ns: int) -> Statement:
    """Return one statement that counts bad and total events of every objective in the windows that all of them need.

    All windows end now, so they lie in one another: each row is one *band*, the events that a window has more than the
    next shorter one, and its number is that window's place in order of length.
    """
    starts = slo_starts(slos, end_ns=end_ns)
    inner, parameters = judged(slos, start_ns=starts[-1], end_ns=end_ns)
    sql = f"SELECT {slo_band(starts)} AS band, {_counts(slos)} FROM ({inner}) GROUP BY band"
    return Statement(sql, parameters)


def slo_starts(slos: Sequence[SloSettings], *, end_ns: int) -> list[int]:
    """Return the start of every window that the objectives need, the shortest window first."""
    return list(_windows(slos, end_ns=end_ns).values())


def slo_band(starts: Sequence[int]) -> str:
    """Return the expression of a row's band: the place of the shortest window that it lies in."""
    tests = "".join(f"ts_ns > {start_ns}, {band}, " for band, start_ns in enumerate(starts[:-1]))
    return f"multiIf({tests}{len(starts) - 1})"


def slo_counts_from_rows(
    rows: Iterable[Sequence[int]], slos: Sequence[SloSettings], *, end_ns: int
) -> dict[str, dict[float, Count]]:
    """Return the counts of each objective by window length, as :func:`opsloop.dashboard.slo.count_slo` does."""
    bands, lengths = list(rows), list(_windows(slos, end_ns=end_ns))
    found: dict[str, dict[float, Count]] = {}
    for index, slo in enumerate(slos):
        bad, total = 1 + 2 * index, 2 + 2 * index
        found[slo.id] = {}
        for seconds in slo_windows(slo, end_ns=end_ns):
            inside = [row for row in bands if row[0] <= lengths.index(seconds)]
            found[slo.id][seconds] = Count(sum(row[bad] for row in inside), sum(row[total] for row in inside))
    return found


def _windows(slos: Sequence[SloSettings], *, end_ns: int) -> dict[float, int]:
    """Return the start of every window by its length, shortest first."""
    return dict(sorted(pair for slo in slos for pair in slo_windows(slo, end_ns=end_ns).items()))


def _counts(slos: Sequence[SloSettings]) -> str:
    return ", ".join(f"countIf({name}{index})" for index in range(len(slos)) for name in ("bad", "counted"))


def budget_series_statement(slos: Sequence[SloSettings], *, start_ns: int, end_ns: int, step_ns: int) -> Statement:
    """Return bad and total events of every objective per step, counted back from ``end_ns``: the newest is step 0."""
    inner, parameters = judged(slos, start_ns=start_ns, end_ns=end_ns)
    key = "intDiv({end_ns:Int64} - ts_ns, {step_ns:Int64})"
    parameters["step_ns"] = step_ns
    return Statement(f"SELECT {key} AS step, {_counts(slos)} FROM ({inner}) GROUP BY step", parameters)


def budget_series_from_rows(
    rows: Iterable[Sequence[int]], slos: Sequence[SloSettings], *, steps: int
) -> dict[str, list[Count]]:
    """Return the counts of each objective per step, oldest first."""
    by_step = {row[0]: row[1:] for row in rows}
    nothing = (0,) * (2 * len(slos))
    ordered = [by_step.get(step, nothing) for step in reversed(range(steps))]
    return {slo.id: [Count(row[2 * index], row[2 * index + 1]) for row in ordered] for index, slo in enumerate(slos)}


def judged(
    slos: Sequence[SloSettings], *, start_ns: int, end_ns: int, within: str = "true"
) -> tuple[str, dict[str, Any]]:
    """Return the query that tells of each event whether an objective counts it and whether it is bad.

    ``within`` is a further condition on the rows that are read.
    """
    kinds = {"score" if slo.sli == "quality" else "request" for slo in slos}
    named = [f"{_SERVED} AS served", *(_SCORING if "score" in kinds else ())]
    columns = ["ts_ns"]
    parameters: dict[str, Any] = {"start_ns": start_ns, "end_ns": end_ns}
    for index, slo in enumerate(slos):
        selected = compile_filter(equals(**slo.labels), prefix=f"s{index}_label")
        parameters |= selected.parameters
        if slo.threshold_us is not None:
            parameters[f"s{index}_limit"] = slo.threshold_us
        if slo.sli in {"quality", "goodput"}:
            parameters |= {f"s{index}_score": slo.threshold, f"s{index}_scorer": slo.scorer}
        if slo.sli == "goodput":
            parameters[f"s{index}_start"] = min(slo_windows(slo, end_ns=end_ns).values())
            named.append(f"request_id IN {_poorly_answered(index)} AS poor{index}")
        named.append(f"{selected.sql} AS selected{index}")
        counted, bad = _sli(slo, index)
        columns += [f"selected{index} AND {counted} AS counted{index}", f"counted{index} AND ({bad}) AS bad{index}"]
    where = f"ts_ns > {{start_ns:Int64}} AND ts_ns <= {{end_ns:Int64}} AND event IN ({_names(kinds)}) AND {within}"
    return f"SELECT {', '.join(columns)} FROM (SELECT *, {', '.join(named)} FROM events WHERE {where})", parameters


def _poorly_answered(index: int) -> str:
    """Return the query of the requests with a score under the objective's threshold in its period."""
    return (
        f"(SELECT request_id FROM (SELECT request_id, leaves, {', '.join(_SCORING)} FROM events WHERE event = 'score'"
        f" AND ts_ns > {{s{index}_start:Int64}} AND ts_ns <= {{end_ns:Int64}} AND request_id != '')"
        f" WHERE scored AND {_by_scorer(index)} AND {_poor(index)})"
    )


def _by_scorer(index: int) -> str:
    return f"({{s{index}_scorer:String}} = '' OR leaves['scorer'] = {{s{index}_scorer:String}})"


def _poor(index: int) -> str:
    return f"ifNull(score < {{s{index}_score:Float64}}, false)"


def _sli(slo: SloSettings, index: int) -> tuple[str, str]:
    """Return which events count and which of them are bad: the twin of ``slo.count_slo``."""
    limit, limited = f"{{s{index}_limit:UInt64}}", slo.threshold_us is not None
    match slo.sli:
        case "quality":
            return f"scored AND {_by_scorer(index)}", _poor(index)
        case "availability":
            return "served", "error"
        case "goodput":
            failed = f"error OR poor{index}"
            if not limited:
                return "served", failed
            return (
                f"served AND ({failed} OR isNotNull(duration_us))",
                f"{failed} OR ifNull(duration_us > {limit}, false)",
            )
        case _:
            column = "duration_us" if slo.sli == "latency" else "time_to_first_token_us"
            if not limited:
                return "false", "false"
            return f"served AND isNotNull({column})", f"ifNull({column} > {limit}, false)"
