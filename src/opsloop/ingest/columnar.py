"""A large body of spans, mapped by the engine: the same mapping as one SELECT, generated from the same tables.

Objects
    :func:`statement` returns a SELECT over the raw protobuf body with one row per span: the columns of its event, and
    two more. ``plain`` says that the row is exactly what :func:`opsloop.ingest.mapping.map_span` makes of the span; any
    other span is read and mapped in Python. ``for_content`` holds, where the content is more than one text, the
    attributes that :func:`opsloop.ingest.content.content_of` has to find it in.
Rule
    The SELECT claims only what it can say exactly: texts where texts are expected, whole numbers where counts are,
    plain decimal fractions, lists of one short text; no name twice, no span events, and no name that the Python
    mapping asks for outside of the tables (:func:`asked_for` watches it ask). A property test on the real engine holds
    every plain row against the event of the Python mapping.
Limits
    A statement costs tens of milliseconds before its first row, so it pays from :data:`LEAST_SPANS` spans in one body.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

from opsloop.event import INT64_MAX
from opsloop.ingest import content, mapping
from opsloop.ingest.attributes import Attributes, Name

__all__ = ["LEAST_SPANS", "SCHEMA", "STRUCTURE", "asked_for", "source", "statement"]

LEAST_SPANS: Final = 2000
SCHEMA: Final = str(resources.files("opsloop.ingest").joinpath("otlp.proto"))

_TEXTS: Final[Mapping[str, tuple[Name, ...]]] = {
    **{f"mark_{place}": (name,) for place, name in enumerate((*mapping.KIND_NAMES, *mapping.KIND_FALLBACKS))},
    "model": mapping.MODEL,
    "provider": mapping.PROVIDER,
    "request_id": mapping.REQUEST,
    "tenant": mapping.TENANT,
    "user_id": mapping.USER,
    "session_id": mapping.SESSION,
    "named_tool": mapping.TOOL,
    "route": mapping.ROUTE,
    "error_type": ("error.type",),
    "entity": ("traceloop.entity.name",),
    "tool_call": ("gen_ai.tool.call.id",),
}
_TOOL_MARKS: Final = ("gen_ai.tool.name", "gen_ai.tool.call.id")
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
_ORIGIN: Final[Mapping[str, tuple[str, ...]]] = {
    "service": ("service.name",),
    "release": mapping.RELEASE,
    "environment": mapping.ENVIRONMENT,
}
_OWN: Final = (*_CONTENT, "documents", "span_name", "negative_duration_ns")
_SHAPED: Final = r'^[\\s\\[{"]|^null$'
"""How a content begins that is not just a text: JSON of any kind."""
_SPEAKING: Final = r'^[{][}]$|"(?:choices|messages|role|model)"|\\\\u'
"""What a JSON object has that holds more than itself, or nothing; any other, as of arguments, is its text."""
_PLAIN_TEXT: Final = r"^[ !#-\\[\\]-~]*$"


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


def asked_for() -> tuple[frozenset[str], frozenset[re.Pattern[str]]]:
    """Return every attribute name and every pattern of names that the mapping of a span asks for, of whatever kind."""
    names: set[Name] = set()
    patterns: set[re.Pattern[str]] = set()
    for mark in ("", *mapping.KINDS):
        watched = _Watched({mapping.KIND_NAMES[0]: mark} if mark else {})
        list(mapping.map_span(_empty_span(watched)))
        names |= watched.asked
        for asked in watched.shape:
            if isinstance(asked, re.Pattern):
                patterns.add(asked)
            elif isinstance(asked, tuple):
                names.update(asked)
    return frozenset(map(_attribute, names)), frozenset(patterns)


def _attribute(name: Name) -> str:
    """Return the attribute that a path leads into; a plain name is its own."""
    return name if isinstance(name, str) else str(name[0])


def _empty_span(attributes: Attributes) -> mapping.SpanRecord:
    return mapping.SpanRecord(
        resource={}, scope="", trace_id="", span_id="", parent_span_id="", name="", kind=0, start_ns=1, end_ns=1,
        status=mapping.STATUS_ERROR, status_message="", attributes=attributes, span_events=[],
    )  # fmt: skip


class _Numbers:
    """A number for each name that matters: a span's names are looked up once, and columns and classes are ranges.

    Numbers rise in the order of the tables, so that of two names of one column the smaller number wins.
    """

    def __init__(self) -> None:
        asked, self.patterns = asked_for()
        tables = (_TEXTS, _COUNTS, _REALS, _CONTENT)
        tabled = frozenset(name for table in tables for name in _flat(table))
        paths = {
            _attribute(name)
            for table in tables
            for names in table.values()
            for name in names
            if not isinstance(name, str)
        }
        structured = (asked & content.STRUCTURED) - tabled
        homes = Counter(name for _, names in _columns(tables) for name in frozenset(names))
        python_only = {
            *(asked - tabled - structured),
            *_OWN,
            *paths,
            *(_attribute(name) for name, count in homes.items() if count > 1),
        }
        self.of: dict[str, int] = {}
        self.ends: list[int] = []
        self.columns = [column for table in tables for column in table]
        for members in (*map(_flat, tables), sorted(structured)):
            self._number(name for name in members if name not in python_only)
        self._number(sorted(python_only))
        home = {
            name: place
            for place, (_, names) in enumerate(_columns(tables), 1)
            for name in names
            if isinstance(name, str)
        }
        self.homes = [home.get(name, 0) for name in self.of]

    def _number(self, names: Iterable[str]) -> None:
        for name in names:
            self.of.setdefault(name, len(self.of) + 1)
        self.ends.append(len(self.of))

    def within(self, place: int) -> str:
        """Return the condition that ``n`` is the number of a name of a class."""
        return f"n BETWEEN {(self.ends[place - 1] if place else 0) + 1} AND {self.ends[place]}"

    def of_content(self) -> str:
        """Return the JSON of what the content is found in, of a span where it has to be looked for; else nothing."""
        pair = "concat(toJSONString(name), ':', if(text IS NULL, leaf, toJSONString(leaf)))"
        asked = f"rich AND (told OR {self.within(_PLAIN_CONTENT)})"
        pairs = f"arrayMap((name, text, leaf, n, told) -> if({asked}, {pair}, ''), {_EACH_NAME})"
        return f"if(rich, concat('{{', arrayStringConcat(arrayFilter(pair -> pair != '', {pairs}), ','), '}}'), '')"

    def column(self, column: str) -> str:
        """Return the text of the first of a column's names that is there and not empty."""
        return f"known_texts[indexOf(known_columns, {self.columns.index(column) + 1})]"


_EACH_NAME: Final = "names, texts, own_leaves, numbers, telling"
_TEXT, _COUNT, _REAL, _PLAIN_CONTENT, _STRUCTURED, _PYTHON_ONLY = range(6)


def _columns(tables: Iterable[Mapping[str, tuple[Name, ...]]]) -> Iterator[tuple[str, tuple[Name, ...]]]:
    return (item for table in tables for item in table.items())


def _flat(table: Mapping[str, Iterable[Name]]) -> Iterator[str]:
    """Return the plain names of a table; what a path leads into is for Python to read."""
    return (name for names in table.values() for name in names if isinstance(name, str))


@cache
def _numbers() -> _Numbers:
    return _Numbers()


def statement(source: str) -> str:
    """Return the SELECT over ``source``, a table function with a column ``resource_spans`` of the body's structure."""
    numbers = _numbers()
    looked_up = f"SELECT *, {_number_of(numbers)}, {_LEAVES} FROM ({_spans(source)})"
    known = f"SELECT *, {_known(numbers)} FROM ({looked_up})"
    found = f"SELECT *, {_found(numbers)} FROM ({known})"
    kinds = f"SELECT *, {_kind()}, {_EXTRA}, {_ERROR} AS failed, {_HEX} FROM ({found})"
    columns = ", ".join(f"{sql} AS {column}" for column, sql in _COLUMNS.items())
    return f"SELECT {columns} FROM ({kinds}) SETTINGS {_SETTINGS}"


_SETTINGS: Final = (
    "max_threads = 1, output_format_json_escape_forward_slashes = 0, precise_float_parsing = 1,"
    " query_plan_enable_optimizations = 0, output_format_arrow_string_as_string = 1,"
    " output_format_arrow_compression_method = 'none',"
    f" format_schema = '{SCHEMA}:Request'"
)


_PAIRS: Final = (
    "Array(Tuple(key String, value Tuple(text Nullable(String), flag Nullable(Bool), whole Nullable(Int64),"
    " real Nullable(Float64), list Nullable(String), tree Nullable(String), binary Nullable(String))))"
)
STRUCTURE: Final = (
    f"resource_spans Array(Tuple(resource Tuple(attributes {_PAIRS}), scope_spans Array(Tuple(spans Array(Tuple("
    "trace_id String, span_id String, parent_span_id String, name String, kind UInt32, start_ns UInt64, end_ns UInt64,"
    f" attributes {_PAIRS}, events Array(String), status Tuple(message String, code UInt32)))))))"
)


def source(path: str) -> str:
    """Return the table function that reads a protobuf body from a file."""
    return f"file('{path}', ProtobufSingle, '{STRUCTURE}')"


def _spans(source: str) -> str:
    """Return the SELECT of all spans in the order of the body, with the texts of their resource."""
    texts = []
    origin = ", ".join(f"own_{column}" for column in _ORIGIN)
    for column, names in _ORIGIN.items():
        found = ", ".join(f"ifNull(own.value.text[indexOf(own.key, '{name}')], '')" for name in names)
        texts.append(f"{_first_text(f'[{found}]')} AS own_{column}")
    named = ", ".join(f"'{name}'" for name in _flat(_ORIGIN))
    unclear = f"arrayExists((k, t) -> k IN ({named}) AND (t IS NULL OR {_quoted('t')}), own.key, own.value.text)"
    unclear += " OR length(arrayDistinct(own.key)) != length(own.key)"
    groups = f"SELECT arrayJoin(resource_spans) AS g, g.resource.attributes AS own FROM {source}"
    scopes = f"SELECT {', '.join(texts)}, {unclear} AS unclear, arrayJoin(g.scope_spans) AS scope FROM ({groups})"
    spans = f"SELECT {origin}, unclear, arrayJoin(scope.spans) AS span FROM ({scopes})"
    fields = ", ".join(f"span.{name} AS {name}" for name in ("name", "kind", "start_ns", "end_ns", "events", "status"))
    values = ", ".join(
        f"span.attributes.value.{name} AS {name}s"
        for name in ("text", "flag", "whole", "real", "list", "tree", "binary")
    )
    ids = ", ".join(f"span.{name} AS {name}_bytes" for name in ("trace_id", "span_id", "parent_span_id"))
    return f"SELECT {origin}, unclear, {ids}, {fields}, span.attributes.key AS names, {values} FROM ({spans})"


def _quoted(text: str) -> str:
    """Return the condition that a text is in JSON quotes, and so stands for what it quotes."""
    return f"(startsWith({text}, '\"') AND endsWith({text}, '\"'))"


def _first_text(texts: str) -> str:
    return f"arrayFirst(t -> t != '', {texts})"


def _number_of(numbers: _Numbers) -> str:
    known = ", ".join(f"'{name}'" for name in numbers.of)
    own = ", ".join(str(number) for number in numbers.of.values())
    return f"arrayMap(n -> transform(n, [{known}], [{own}]::Array(UInt8), 0::UInt8), names) AS numbers"


_LEAVES: Final = """
arrayMap((t, f, w, r, l) -> multiIf(
    t IS NOT NULL, t,
    w IS NOT NULL, toString(w),
    r IS NOT NULL, if(r = trunc(r), concat(toString(toInt64(if(abs(r) <= 1e14, r, 0))), '.0'), toString(r)),
    f IS NOT NULL, if(f, 'true', 'false'),
    l IS NOT NULL, concat('["', substring(l, 5), '"]'),
    'null'), texts, flags, wholes, reals, lists)::Array(String) AS own_leaves
"""


def _known(numbers: _Numbers) -> str:
    """Return what is there and not empty, in the order of the tables: numbers, columns and texts."""
    return f"""arraySort(arrayFilter(p -> p.1 > 0 AND p.2 != '', arrayZip(numbers, own_leaves))) AS known,
        known.1 AS known_numbers, known.2 AS known_texts,
        arrayMap(n -> {numbers.homes}::Array(UInt8)[n], known_numbers) AS known_columns,
        {_telling(numbers)}, has(telling, 1) AS rich, {numbers.of_content()} AS for_content"""


def _found(numbers: _Numbers) -> str:
    """Return the values by column, and the marks."""
    texts = [f"{numbers.column(column)} AS own_{column}" for column in (*_TEXTS, *_CONTENT)]
    counts = [f"toUInt64OrNull({numbers.column(column)}) AS own_{column}" for column in _COUNTS]
    reals = [f"toFloat64OrNull({numbers.column(column)}) AS own_{column}" for column in _REALS]
    tool = f"hasAny(known_numbers, {[numbers.of[name] for name in _TOOL_MARKS]}) AS is_tool"
    return ", ".join([*texts, *counts, *reals, tool, f"{_odd(numbers)} AS odd"])


def _telling(numbers: _Numbers) -> str:
    """Return, name by name, whether it says something about the content that is more than one text."""
    patterns = "|".join(pattern.pattern.replace(r"\d{1,6}", "[^.]+") for pattern in numbers.patterns)
    quoted = patterns.replace("\\", "\\\\")
    return (
        f"arrayMap((n, t, name) -> {numbers.within(_STRUCTURED)}"
        f" OR ({numbers.within(_PLAIN_CONTENT)} AND (t IS NULL OR match(t, '{_SHAPED}')"
        f" AND NOT (startsWith(t, '{{') AND NOT match(t, '{_SPEAKING}'))))"
        f" OR (n = 0 AND match(name, '^(?:{quoted})$')), numbers, texts, names) AS telling"
    )


def _odd(numbers: _Numbers) -> str:
    """Return the condition that something about the span is for Python to say."""
    value = f"""arrayExists((n, t, w, r, l) ->
        ({numbers.within(_TEXT)} AND (t IS NULL OR {_quoted("t")}))
        OR ({numbers.within(_COUNT)} AND ifNull(w, -1) < 0)
        OR ({numbers.within(_REAL)} AND NOT ifNull(coalesce(r, toFloat64(w)) BETWEEN 0 AND 1e14, false))
        OR ({numbers.within(_PYTHON_ONLY)})
        OR (r IS NOT NULL AND NOT (abs(r) BETWEEN 1e-4 AND 1e14 OR reinterpretAsUInt64(assumeNotNull(r)) = 0))
        OR (l IS NOT NULL AND NOT (length(l) BETWEEN 4 AND 120 AND startsWith(l, concat('\\x0a',
            char(length(l) - 2), '\\x0a', char(length(l) - 4))) AND match(substring(l, 5), '{_PLAIN_TEXT}'))),
        numbers, texts, wholes, reals, lists)"""
    marks = " AND ".join(f"isValidASCII(own_mark_{place})" for place in range(len(mapping.KIND_NAMES)))
    zero = "match({name}_bytes, '^\\\\x00*$')"
    return f"""(unclear OR notEmpty(events) OR end_ns < start_ns OR start_ns = 0 OR end_ns > {INT64_MAX}
        OR length(trace_id_bytes) != 16 OR length(span_id_bytes) != 8 OR length(parent_span_id_bytes) NOT IN (0, 8)
        OR {zero.format(name="trace_id")} OR {zero.format(name="span_id")}
        OR (notEmpty(parent_span_id_bytes) AND {zero.format(name="parent_span_id")})
        OR length(arrayDistinct(names)) != length(names) OR NOT ({marks}) OR ifNull(own_status_code, 0) > 999
        OR arrayExists(t -> t IS NOT NULL, trees) OR arrayExists(t -> t IS NOT NULL, binarys)
        OR {value})"""


def _kind() -> str:
    """Return the event's kind: by the marks in their order, then by what is left to tell."""
    marks = len(mapping.KIND_NAMES)
    plain = ", ".join(f"own_mark_{place}, lower(own_mark_{place})" for place in range(marks))
    table = f"{_strings(mapping.KINDS)}, {_strings(mapping.KINDS.values())}"
    by_name = f"arrayFirst(k -> k != '', arrayMap(m -> transform(m, {table}, ''), [{plain}]))"
    late = ", ".join(f"own_mark_{place}" for place in range(marks, marks + len(mapping.KIND_FALLBACKS)))
    guess = f"transform(m, {table}, if(startsWith(m, 'ai.'), 'agent', ''))"
    by_fallback = (
        "arrayFirst(k -> k != '', arrayMap(m -> if(endsWith(m, '.doGenerate') OR endsWith(m, '.doStream'), 'llm', "
        f"{guess}), [{late}]))"
    )
    roots = _strings(("", *sorted(mapping.ROOT_KINDS)))
    return f"""{by_name} AS named_kind, {by_fallback} AS guessed_kind,
        multiIf(named_kind != '', named_kind, guessed_kind != '', guessed_kind, is_tool, 'tool', '') AS marked_kind,
        multiIf(kind = {mapping.SPAN_KIND_SERVER} AND marked_kind = '', 'request',
        parent_span_id_bytes = '' AND has({roots}, marked_kind), 'request',
        marked_kind = '', 'span', marked_kind) AS own_event"""


def _strings(texts: Iterable[str]) -> str:
    return "['" + "', '".join(texts) + "']"


_EXTRA: Final = f"""arrayFilter(pair -> pair.1 = 'span_name' OR
    (pair.2 != '' AND NOT rich AND NOT (pair.1 = 'output' AND own_event = 'embed')),
    [('span_name', name), {", ".join(f"('{name}', own_{name})" for name in _CONTENT)}]) AS extra"""
_SHAPE: Final = """concat('{', arrayStringConcat(arrayMap(
    (name, text) -> concat(toJSONString(name), if(text IS NULL, ':\\x01', ':"\\x01"')),
    arrayConcat(names, extra.1), arrayConcat(texts, extra.2)), ','), '}')"""
_COUNTED: Final = "own_event IN ('llm', 'embed')"
_ERROR: Final = f"(status.code = {mapping.STATUS_ERROR} OR ifNull(own_status_code, 0) >= 500)"
_HEX: Final = "lower(hex(trace_id_bytes)) AS trace_hex, lower(hex(span_id_bytes)) AS span_hex"
_COLUMNS: Final[Mapping[str, str]] = {
    "ts_ns": "toInt64(start_ns)",
    "event": "own_event",
    "stored_event_id": "'\\x01'",
    "service": "own_service",
    "environment": "own_environment",
    "release": "own_release",
    "request_id": "if(own_request_id = '', trace_hex, own_request_id)",
    "trace_id": "trace_hex",
    "span_id": "span_hex",
    "parent_span_id": "lower(hex(parent_span_id_bytes))",
    "tenant": "own_tenant",
    "user_id": "own_user_id",
    "session_id": "own_session_id",
    "route": "own_route",
    "severity": "if(failed, 'ERROR', 'INFO')",
    "status_code": "toUInt16(own_status_code)",
    "error": "failed::Bool",
    "error_type": "if(failed, own_error_type, '')",
    "duration_us": "intDiv(end_ns - start_ns, 1000)::Nullable(UInt64)",
    "time_to_first_token_us": "toUInt64(round(coalesce(own_first_seconds * 1000000, own_first_milliseconds * 1000)))",
    "model": "own_model",
    "provider": f"transform(own_provider, {_strings(mapping.PROVIDERS)}, {_strings(mapping.PROVIDERS.values())})",
    "input_tokens": f"if({_COUNTED}, own_input_tokens, NULL)",
    "output_tokens": f"if({_COUNTED}, own_output_tokens, NULL)",
    "cost_microusd": f"if({_COUNTED}, toUInt64(round(own_usd * 1000000)), NULL)",
    "tool": """multiIf(own_named_tool != '', own_named_tool, own_event = 'tool' AND own_entity != '', own_entity,
        own_event = 'tool', name, own_event = 'retrieve', 'retrieve', '')""",
    "message": "if(status.message = '', name, status.message)",
    "stored_attributes": "''",
    "leaves": "mapFromArrays(arrayConcat(names, extra.1), arrayConcat(own_leaves, extra.2))",
    "shape": _SHAPE,
    "for_content": "for_content",
    "plain": "NOT odd",
}
