"""Many spans at once, mapped column by column: the same mapping as :mod:`opsloop.ingest.mapping`, from the same tables.

Objects
    :func:`rows_of` makes of flat spans (:mod:`opsloop.ingest.flat`) one row per event, in the columns of the store, and
    names the spans that it leaves to :func:`opsloop.ingest.mapping.map_span`.
Rule
    Where a column comes from follows from a span's shape (:mod:`opsloop.ingest.plan`); what is left to do per span is
    to look texts up by number. All texts of a body and all that is made of them are one list, the *pool*, where 0 is
    the empty text. What few values decide, such as the kind of an event, the definition is asked once for each.
Limits
    Besides odd shapes, a span is left to the definition that has quoted texts or numbers out of range where a column is
    looked for, span events or links, or wrong ids or times, and so are all spans of a shape that less than
    :data:`opsloop.ingest.flat.LEAST_OF_A_SHAPE` have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from opsloop.ingest import mapping
from opsloop.ingest.attributes import Attributes
from opsloop.ingest.flat import FLAG, LIST, NOTHING, REAL, TEXT, WHOLE, FlatSpans
from opsloop.ingest.frames import said_in
from opsloop.ingest.otlp import list_of
from opsloop.ingest.plan import ADDED, HOLE, TOOL_MARKS, Plan, bare_span, plan_of, shape_text
from opsloop.ingest.texts import QUOTE, are_escaped, are_filled, bytes_of, edges_of

__all__ = ["rows_of"]

_SPEAKING: Final = r'^[{][}]$|"(?:choices|messages|role|model)"|\\u'
"""What a JSON object has that holds more than itself, or nothing; any other, as of arguments, is its text."""
_OPENING: Final = np.isin(np.arange(256), np.frombuffer(b'\t\n\x0b\x0c\r ["', np.uint8))
"""How a content begins that may not just be a text: JSON of any kind but an object."""
_MOST_REAL: Final = 1e12
"""A cost or a time of which a millionth is still a whole number of 64 bits."""
_MOST_STATUS: Final = 999
_FAILED_STATUS: Final = 500
_ENCODE: Final = msgspec.json.Encoder().encode

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]


# ---- texts by number -----------------------------------------------------------------------------------------------


class _Pool:
    """Texts by number, from 1 up; 0 is the empty text."""

    def __init__(self) -> None:
        self._texts = [pa.array([""], pa.string())]
        self._size = 1

    def add(self, texts: pa.Array) -> int:
        """Take texts and return the number of the first."""
        self._texts.append(texts)
        first, self._size = self._size, self._size + len(texts)
        return first

    def take(self, numbers: Numbers) -> pa.Array:
        """Return the texts of some numbers."""
        if len(self._texts) > 1:
            self._texts = [pa.concat_arrays(self._texts)]
        return self._texts[0].take(pa.array(numbers))


def _json_texts(reals: NDArray[np.float64]) -> pa.Array:
    """Return the JSON of numbers, each as a text: what stands between the commas of a list of them."""
    written = np.frombuffer(_ENCODE(reals.tolist()), np.uint8)[1:-1]
    is_comma = written == ord(",")
    commas = np.flatnonzero(is_comma)
    ends = np.append(commas - np.arange(len(commas)), len(written) - len(commas))
    edges = np.concatenate([[0], ends]).astype(np.int32)
    return pa.StringArray.from_buffers(len(reals), pa.py_buffer(edges), pa.py_buffer(written[~is_comma]))


_list_of = lru_cache(maxsize=1024)(list_of)
"""Many spans have the same short lists; nobody changes one."""


def _distinct(numbers: Numbers) -> tuple[list[int], Numbers]:
    """Return the different ones among numbers from 0 up, and the place of each among these."""
    most = numbers.max(initial=0)
    if len(numbers) and numbers.min() == most:
        return [int(most)], np.zeros(len(numbers), np.int64)
    if most > 2 * len(numbers):
        found, of = np.unique(numbers, return_inverse=True)
        return found.tolist(), of
    there = np.bincount(numbers) > 0
    return np.flatnonzero(there).tolist(), (np.cumsum(there) - 1)[numbers]


def _json_strings(texts: pa.Array) -> pa.Array:
    """Return the JSON of texts, without the quotes."""
    escaped = are_escaped(texts)
    if not escaped.any():
        return texts
    mask = pa.array(escaped)
    strings = [_ENCODE(text)[1:-1] for text in texts.filter(mask).to_pylist()]
    return pc.replace_with_mask(texts, mask, pa.array(strings, pa.binary()).view(pa.string()))


def _joined(pieces: Sequence[str], leaves: pa.Array, order: Numbers) -> pa.Array:
    """Return texts that have the same pieces and, between these, leaves of their own.

    The leaves of one place stand together, those of all texts; ``order`` tells which stand first.
    """
    size = len(leaves) // len(order)
    parts = np.empty((size, len(pieces) + len(order)), np.int64)
    parts[:, 0::2] = len(leaves) + np.arange(len(pieces))
    parts[:, 1::2] = np.add.outer(np.arange(size), order * size)
    every = pa.concat_arrays([leaves, pa.array(pieces, pa.string())]).take(pa.array(parts.ravel()))
    edges = pa.array(np.arange(size + 1, dtype=np.int32) * np.int32(parts.shape[1]))
    return pc.binary_join(pa.ListArray.from_arrays(edges, every), "")


class _Attributes:
    """All attributes of some spans by their places, with one behind the last that stands for none."""

    def __init__(self, spans: FlatSpans, pool: _Pool) -> None:
        types = spans.types
        there, edges, data = are_filled(spans.texts), edges_of(spans.texts), bytes_of(spans.texts)
        self.lengths = np.diff(edges)
        """The length of each text, in bytes."""
        self.first: NDArray[np.uint8] = data.take(edges[:-1], mode="clip") * there
        """The first byte of each text, 0 of an empty one."""
        self.quoted: Mask = self.first == QUOTE
        """Which texts begin and end with a quotation mark."""
        some = np.flatnonzero(self.quoted)
        self.quoted[some] = data[edges[some + 1] - 1] == QUOTE
        self.some_quoted = bool(self.quoted.any())
        self.numbers = np.arange(len(types) + 1) + pool.add(spans.texts)
        self.numbers[-1] = 0
        """Under which number each has its text, or its JSON."""
        wholes, reals, flags, nothing = (np.flatnonzero(types == kind) for kind in (WHOLE, REAL, FLAG, NOTHING))
        lists = spans.lists.dictionary_encode()
        self._listed = spans.listed
        self._lists = [_list_of(value) for value in lists.dictionary.to_pylist()]
        self._list_numbers: Numbers = lists.indices.to_numpy().astype(np.int64)
        written = [
            (nothing, pa.array(["null"]), np.zeros(len(nothing), np.int64)),
            (flags, pa.array(["false", "true"]), spans.wholes[flags]),
            (wholes, pa.array(spans.wholes[wholes]).cast(pa.string()), np.arange(len(wholes))),
            (reals, _json_texts(spans.reals[reals]), np.arange(len(reals))),
            (spans.listed, pa.array([_ENCODE(each).decode() for each in self._lists], pa.string()), self._list_numbers),
        ]
        self.written = pa.concat_arrays([texts for _, texts, _ in written])
        """The JSON of all that are no texts."""
        self.first_written = first = pool.add(self.written)
        for places, texts, of in written:
            self.numbers[places] = first + of
            first += len(texts)
        self.wholes = np.concatenate([spans.wholes, [0]])
        self.amounts = np.concatenate([np.where(types == REAL, spans.reals, spans.wholes), [0.0]])
        self.filled = np.concatenate([there | (types == WHOLE), [False]])
        """Whether a column can have its text from it."""

    def lists(self, places: Numbers) -> tuple[list[list[Any]], Numbers]:
        """Return the different lists at some places, and which of them each place has."""
        numbers, of = _distinct(self._list_numbers[np.searchsorted(self._listed, places)])
        return [self._lists[number] for number in numbers], of


# ---- span by span ----------------------------------------------------------------------------------------------------


class _Found:
    """What the plans find of each span: from which place its columns come, its kind, and what is added to it."""

    def __init__(self, spans: FlatSpans) -> None:
        size = len(spans.group)
        self.spans = spans
        self.pool = _Pool()
        self.attributes = _Attributes(spans, self.pool)
        self.odd: Mask = np.ones(size, np.bool_)
        self.rooted: Mask = are_filled(spans.parent_span_id)
        self.plans: list[Plan] = []
        self.plan_of: Numbers = np.zeros(size, np.int64)
        self.events: list[str] = ["", "llm", "embed", "tool", "retrieve"]
        self.event: Numbers = np.zeros(size, np.int64)
        names = self.pool.add(spans.name) + np.arange(size)
        self.added = {name: np.zeros(size, np.int64) for name in ADDED} | {"span_name": names}
        """The number of each text that is added to the attributes, or 0."""
        self._places: dict[str, Numbers] = {}
        for shape in spans.shapes:
            plan = plan_of(shape.names, shape.types)
            if not plan.odd:
                self._look_up(shape.rows, plan)

    def place(self, column: str) -> Numbers:
        """Return where each span has the attribute of a column, or the place that stands for none."""
        if column not in self._places:
            self._places[column] = np.full(len(self.odd), -1)
        return self._places[column]

    def is_event(self, *kinds: str) -> Mask:
        """Return which spans become events of some kinds."""
        return np.array([event in kinds for event in self.events])[self.event]

    def _look_up(self, rows: Numbers, plan: Plan) -> None:
        attributes, starts = self.attributes, self.spans.starts[rows]
        for column, positions in plan.texts.items():
            places = starts + positions[-1]
            for position in reversed(positions[:-1]):
                preferred = starts + position
                places = np.where(attributes.filled[preferred], preferred, places)
            self.place(column)[rows] = places
        for column, position in plan.numbers.items():
            self.place(column)[rows] = starts + position
        self.odd[rows] = self._is_odd(starts, plan)
        self.plan_of[rows] = len(self.plans)
        self.plans.append(plan)
        rows = rows[~self.odd[rows]]
        if len(rows):
            self._tell_kinds(rows, plan)
            self._find_content(rows, plan)

    def _is_odd(self, starts: Numbers, plan: Plan) -> Mask:
        """Return whose values are not as plain as their types."""
        attributes = self.attributes
        odd = np.zeros(len(starts), np.bool_)
        for position in plan.counts:
            odd |= attributes.wholes[starts + position] < 0
        for position in plan.reals:
            amounts = attributes.amounts[starts + position]
            odd |= ~((amounts >= 0) & (amounts <= _MOST_REAL))
        for position in plan.quotable if attributes.some_quoted else ():
            odd |= attributes.quoted[starts + position]
        for position in (place for place, kind in enumerate(plan.types) if kind == REAL):
            odd |= ~np.isfinite(attributes.amounts[starts + position])
        if "status_code" in plan.numbers:
            odd |= attributes.wholes[starts + plan.numbers["status_code"]] > _MOST_STATUS
        return odd

    def _tell_kinds(self, rows: Numbers, plan: Plan) -> None:
        """Ask the definition for the kind of an event, once for each combination of marks."""
        names = [plan.names[position] for position in plan.marks]
        starts = self.spans.starts[rows]
        choices: list[tuple[Sequence[Any], Numbers]] = [
            _distinct(2 * self.spans.kind[rows] + self.rooted[rows]),
            *(self._marks(name, starts + position) for name, position in zip(names, plan.marks, strict=True)),
        ]
        sizes = [len(values) for values, _ in choices]
        combinations, of = _distinct(np.ravel_multi_index([numbers for _, numbers in choices], sizes))
        events = []
        for numbers in zip(*np.unravel_index(combinations, sizes), strict=True):
            chosen, *marks = [values[number] for (values, _), number in zip(choices, numbers, strict=True)]
            kind, rooted = divmod(chosen, 2)
            parent = "another" if rooted else ""
            span = bare_span(Attributes(zip(names, marks, strict=True)), kind=kind, parent_span_id=parent)
            events.append(self._number_of(mapping.span_kind(span)))
        self.event[rows] = np.array(events)[of]

    def _marks(self, name: str, places: Numbers) -> tuple[list[str], Numbers]:
        """Return what marks say, each once, and which of it each says; of a tool's only whether it is there matters."""
        if name in TOOL_MARKS:
            return ["", "a tool"], self.attributes.filled[places].astype(np.int64)
        coded = self.spans.texts.take(pa.array(places)).dictionary_encode()
        return coded.dictionary.to_pylist(), np.asarray(coded.indices)

    def _number_of(self, event: str) -> int:
        if event not in self.events:
            self.events.append(event)
        return self.events.index(event)

    def _find_content(self, rows: Numbers, plan: Plan) -> None:
        """Find what was asked and answered, by the ways of the definition: the first that makes any text counts."""
        events, of = _distinct(self.event[rows])
        for number, event in enumerate(events):
            alike = rows[of == number]
            for column, ways in plan.content.ways(self.events[event]).items():
                silent = alike
                for way, name in ways:
                    position = plan.positions[name]
                    found = self._said(way, self.spans.starts[silent] + position, plan.types[position])
                    self.added[column][silent] = found
                    silent = silent[found == 0]
            self._find_documents(alike, plan, self.events[event])

    def _said(self, way: Callable[[Any], str], places: Numbers, kind: int) -> Numbers:
        """Return the numbers of what a way makes of values that have one type, 0 for an empty text."""
        if kind == LIST:
            lists, of = self.attributes.lists(places)
            return self._add(pa.array([way(value) for value in lists], pa.string()))[of]
        if kind != TEXT:
            return self._add(pa.array([way(value) for value in self._values(places, kind)], pa.string()))
        numbers = np.where(self.attributes.filled[places], self.attributes.numbers[places], 0)
        takes_any = way("any text") == "any text"  # as it is, if it is not JSON
        telling = np.flatnonzero(self._is_telling(places)) if takes_any else np.arange(len(places))
        for some, said in said_in(way, self.spans.texts.take(pa.array(places[telling]))):
            numbers[telling[some]] = self._add(said)
        return numbers

    def _add(self, texts: pa.Array) -> Numbers:
        """Take texts and return their numbers, 0 of an empty one."""
        first = self.pool.add(texts)
        numbers: Numbers = np.where(are_filled(texts), first + np.arange(len(texts)), 0)
        return numbers

    def _find_documents(self, rows: Numbers, plan: Plan, event: str) -> None:
        """Write what was retrieved: documents with indexed names by columns, a list of them by the definition."""
        reader = plan.content
        if reader.slots and not reader.is_listed:
            self.added["documents"][rows] = self._add(self._indexed_documents(self.spans.starts[rows], plan))
        elif reader.is_listed or event == "retrieve":
            positions = [plan.positions[name] for name in reader.names]
            listed = np.full(len(rows), bool(reader.slots))
            for position in positions:
                listed |= plan.types[position] != TEXT or self._is_telling(self.spans.starts[rows] + position)
            rows = rows[listed]
            columns = [self._values(self.spans.starts[rows] + place, plan.types[place]) for place in positions]
            found = [
                reader.documents(dict(zip(reader.names, values, strict=True)), kind=event)
                for values in zip(*columns, strict=True)
            ]
            texts = ["" if documents is None else _ENCODE(documents).decode() for documents in found]
            self.added["documents"][rows] = self._add(pa.array(texts, pa.string()))

    def _indexed_documents(self, starts: Numbers, plan: Plan) -> pa.Array:
        """Return the JSON of documents: what stands around their fields is the same in all spans of a plan."""
        slots = [{field: plan.positions[name] for field, name in slot.items()} for slot in plan.content.slots]
        around = [shape_text(tuple(slot), tuple(plan.types[place] for place in slot.values()), 0) for slot in slots]
        positions = np.array([position for slot in slots for position in slot.values()])
        is_text = np.array(plan.types)[positions] == TEXT
        texts, others = (np.add.outer(positions[which], starts).ravel() for which in (is_text, ~is_text))
        leaves = [
            _json_strings(self.spans.texts.take(pa.array(texts))),
            self.attributes.written.take(pa.array(self.attributes.numbers[others] - self.attributes.first_written)),
        ]
        order = np.argsort(np.argsort(~is_text, kind="stable"))  # where the leaves of each position stand among these
        return _joined(f"[{','.join(around)}]".split(HOLE), pa.concat_arrays(leaves), order)

    def _is_telling(self, places: Numbers) -> Mask:
        """Return which texts may be JSON that holds more than itself."""
        attributes = self.attributes
        first = attributes.first[places]
        telling: Mask = _OPENING[first] | ((first == ord("n")) & (attributes.lengths[places] == len("null")))
        objects = np.flatnonzero(first == ord("{"))
        if len(objects):
            texts = self.spans.texts.take(pa.array(places[objects]))
            telling[objects] = np.asarray(pc.match_substring_regex(texts, _SPEAKING).cast(pa.int8())).astype(np.bool_)
        return telling

    def _values(self, places: Numbers, kind: int) -> list[Any]:
        """Return the values of attributes that have one type."""
        if kind == TEXT:
            return list(self.spans.texts.take(pa.array(places)).to_pylist())
        if kind == LIST:
            lists, of = self.attributes.lists(places)
            return [lists[number] for number in of.tolist()]
        if kind == NOTHING:
            return [None] * len(places)
        values: NDArray[Any] = self.spans.reals[places] if kind == REAL else self.spans.wholes[places]
        return list((values.astype(np.bool_) if kind == FLAG else values).tolist())


# ---- the rows --------------------------------------------------------------------------------------------------------


def rows_of(spans: FlatSpans, origins: Sequence[Mapping[str, str]]) -> tuple[pa.Table, list[int]]:
    """Return the rows of such spans as are plain, in their order, and the positions of all others.

    ``origins`` has the service, release and environment of each resource.
    """
    found = _Found(spans)
    kept = np.flatnonzero(~found.odd)
    columns = {
        **_told(found, kept),
        **_origins(spans.group[kept], origins),
        **_texts_of(found, kept),
        **_numbers_of(found, kept),
        "stored_attributes": pa.repeat(pa.scalar(""), len(kept)),
        **_attributes_of(found, kept),
    }
    return pa.table(columns), np.flatnonzero(found.odd).tolist()


def _told(found: _Found, kept: Numbers) -> dict[str, pa.Array]:
    """Return what a span says of itself without attributes."""
    spans = found.spans
    took = (spans.end_ns[kept] - spans.start_ns[kept]) // np.uint64(1000)
    return {
        "ts_ns": pa.array(spans.start_ns[kept].astype(np.int64)),
        "event": _coded(found.event[kept], pa.array(found.events)),
        "stored_event_id": pa.repeat(pa.scalar(HOLE), len(kept)),
        "trace_id": _those(spans.trace_id, kept),
        "span_id": _those(spans.span_id, kept),
        "parent_span_id": _those(spans.parent_span_id, kept),
        "duration_us": pa.array(took, pa.uint64()),
    }


def _those(values: pa.Array, kept: Numbers) -> pa.Array:
    """Return the values of those spans that are kept, which mostly are all."""
    return values if len(kept) == len(values) else values.take(pa.array(kept))


def _coded(numbers: NDArray[Any], values: pa.Array) -> pa.DictionaryArray:
    """Return values by their numbers; no value is there twice."""
    return pa.DictionaryArray.from_arrays(pa.array(numbers.astype(np.int32, copy=False)), values)


def _origins(group: Numbers, origins: Sequence[Mapping[str, str]]) -> dict[str, pa.Array]:
    of = pa.array(group)
    return {
        name: pa.array([origin.get(name, "") for origin in origins], pa.string()).dictionary_encode().take(of)
        for name in ("service", "environment", "release")
    }


def _texts_of(found: _Found, kept: Numbers) -> dict[str, pa.Array]:
    """Return the columns that are looked up, or the text that stands for one that is not there."""
    attributes, pool, spans = found.attributes, found.pool, found.spans

    def number(column: str, otherwise: Numbers | int = 0) -> Numbers:
        places = found.place(column)[kept]
        looked_up: Numbers = np.where(attributes.filled[places], attributes.numbers[places], otherwise)
        return looked_up

    name = found.added["span_name"][kept]
    tool = np.where(found.is_event("tool")[kept], number("entity", name), 0)
    tool[found.is_event("retrieve")[kept]] = pool.add(pa.array(["retrieve"]))
    error = _failed(found)[kept]
    message = np.where(are_filled(spans.message)[kept], pool.add(spans.message) + kept, name)
    numbers = {
        "request_id": number("request_id", pool.add(spans.trace_id) + kept),
        "tool": number("tool", tool),
        "message": message,
        "error_type": np.where(error, number("error_type"), 0),
        "severity": np.where(error, pool.add(pa.array(["ERROR"])), pool.add(pa.array(["INFO"]))),
        **{column: number(column) for column in ("tenant", "user_id", "session_id", "route", "model", "provider")},
    }
    looked_up = pool.take(np.concatenate([*numbers.values()]))
    texts = {column: looked_up.slice(len(kept) * place, len(kept)) for place, column in enumerate(numbers)}
    coded = texts["provider"].dictionary_encode()
    present = pa.array([mapping.PROVIDERS.get(each, each) for each in coded.dictionary.to_pylist()], pa.string())
    return {**texts, "provider": present.take(coded.indices), "error": pa.array(error)}


def _failed(found: _Found) -> Mask:
    status = found.place("status_code")
    failed: Mask = (found.spans.status == mapping.STATUS_ERROR) | (found.attributes.wholes[status] >= _FAILED_STATUS)
    return failed


def _numbers_of(found: _Found, kept: Numbers) -> dict[str, pa.Array]:
    """Return the columns that are numbers, with nulls where there is none."""
    counted = found.is_event("llm", "embed")[kept]
    seconds, milliseconds = found.place("first_seconds")[kept], found.place("first_milliseconds")[kept]
    amounts = found.attributes.amounts
    first_token = np.where(seconds >= 0, amounts[seconds] * 1_000_000, amounts[milliseconds] * 1000)

    def whole(values: NDArray[Any], there: Mask, kind: type[np.unsignedinteger[Any]] = np.uint64) -> pa.Array:
        return pa.array(np.rint(values).astype(kind), mask=~there)

    def tokens(column: str) -> pa.Array:
        places = found.place(column)[kept]
        there = counted & (places >= 0)
        return pa.array(np.where(there, found.attributes.wholes[places], 0).astype(np.uint64), mask=~there)

    status, usd = found.place("status_code")[kept], found.place("usd")[kept]
    return {
        "status_code": whole(amounts[status], status >= 0, np.uint16),
        "time_to_first_token_us": whole(first_token, (seconds >= 0) | (milliseconds >= 0)),
        "input_tokens": tokens("input_tokens"),
        "output_tokens": tokens("output_tokens"),
        "cost_microusd": whole(amounts[usd] * 1_000_000, counted & (usd >= 0)),
    }


def _attributes_of(found: _Found, kept: Numbers) -> dict[str, pa.Array]:
    """Return the leaves of each row, its own and behind them what was added, and its shape."""
    spans, plans = found.spans, found.plan_of[kept]
    firsts = len(ADDED) + np.cumsum([0, *(len(plan.names) for plan in found.plans)])
    starts, sizes = spans.starts[kept], np.diff(spans.starts)[kept]
    added = [(place, found.added[name][kept]) for place, name in enumerate(ADDED)]
    more = np.sum([numbers > 0 for _, numbers in added], axis=0)
    edges = np.concatenate([[0], np.cumsum(sizes + more)])
    paths = pa.array([*ADDED, *(name for plan in found.plans for name in plan.names)], pa.string()).dictionary_encode()
    numbered = paths.indices.to_numpy()
    items, codes, is_own = np.empty(edges[-1], np.int64), np.empty(edges[-1], np.int32), np.ones(edges[-1], np.bool_)
    free, bits = edges[:-1] + sizes, np.zeros(len(kept), np.int64)
    for place, numbers in added:
        rows = np.flatnonzero(numbers)
        at = free[rows]
        items[at], codes[at], is_own[at] = numbers[rows], place, False
        free[rows] += 1
        bits[rows] |= 1 << place
    own, before = np.arange(sizes.sum()), np.cumsum(sizes) - sizes
    codes[is_own] = numbered.take(own + np.repeat(firsts[plans] - before, sizes))
    ahead = starts - before  # by how many attributes of spans that are not kept
    items[is_own] = found.attributes.numbers[own + np.repeat(ahead, sizes) if ahead.any() else slice(len(own))]
    kinds, of = _distinct(plans * 32 + bits)
    shapes = [shape_text(found.plans[kind // 32].names, found.plans[kind // 32].types, kind % 32) for kind in kinds]
    keys = _coded(codes, paths.dictionary)
    leaves = pa.MapArray.from_arrays(pa.array(edges.astype(np.int32)), keys, found.pool.take(items))
    return {"leaves": leaves, "shape": pa.array(shapes, pa.string()).dictionary_encode().take(pa.array(of))}
