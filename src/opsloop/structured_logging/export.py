"""``export``: all events that match, as JSON lines, CSV or Parquet, made while they are read.

``jsonl``
    One event a line, fields at their default left out: what ``opsloop ingest`` and :func:`decode_event` read back.
``csv``
    A head and a row per event, an absent number as an empty cell. A text that a spreadsheet would take for a formula
    (it begins with ``=``, ``+``, ``-``, ``@``, tab, line feed or carriage return) gets a ``'`` before it.
``parquet``
    The same columns with their types, ``severity`` as text, ``attributes`` as the JSON text; row groups of 65,536.

The engine writes CSV and Parquet itself. Rows are never held as a whole; of Parquet it holds the compressed file.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from typing import Final

import msgspec

from opsloop.endpoint import Download
from opsloop.errors import InputError
from opsloop.event import FIELDS, encode_event
from opsloop.filter import TEXT_FIELDS, Filter, Statement, compile_filter
from opsloop.stream import Database
from opsloop.structured_logging.rows import COLUMNS, event_of

__all__ = ["MEDIA_TYPES", "export", "guarded"]

MEDIA_TYPES: Final = {
    "jsonl": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
"""The formats, and how each is called over HTTP."""
_FORMULA: Final = re.compile(r"[=+\-@\t\n\r]")
_SETTINGS: Final = {
    "jsonl": "output_format_json_quote_64bit_integers = 0",
    "csv": "format_csv_null_representation = ''",
    "parquet": "output_format_parquet_row_group_size = 65536, max_threads = 1",
}
"""Part of the statement: with settings beside it, or a format with a head, the client would hold the whole answer."""
_HEAD: Final = (",".join(f'"{name}"' for name in FIELDS) + "\n").encode()
_ENGINE: Final = {"jsonl": "JSONEachRow", "csv": "CSV", "parquet": "Parquet"}
_ROW: Final = msgspec.json.Decoder(dict)


def guarded(text: str) -> str:
    """Return a cell's text so that no spreadsheet runs it.

    >>> guarded("=1+1"), guarded("1=1")
    ("'=1+1", '1=1')
    """
    return f"'{text}" if _FORMULA.match(text) else text


def export(database: Database, where: Filter, *, start_ns: int, end_ns: int, form: str) -> Download:
    """Return the file of all events in (start, end] that match, in time order.

    Raises :class:`InputError` for an unknown format, :class:`StoreError` when the store does not answer.
    """
    if form not in MEDIA_TYPES:
        raise InputError(f"unknown format {form!r}", fix=f"use one of {', '.join(MEDIA_TYPES)}")
    condition = compile_filter(where)
    sql = (
        f"SELECT {_columns(form)} FROM events WHERE ts_ns > {{start_ns:Int64}} AND ts_ns <= {{end_ns:Int64}}"
        f" AND {condition.sql} ORDER BY ts_ns, sequence SETTINGS {_SETTINGS[form]}"
    )
    statement = Statement(sql, condition.parameters | {"start_ns": start_ns, "end_ns": end_ns})
    written = database.raw(statement, _ENGINE[form])
    chunks = _json_lines(written) if form == "jsonl" else written
    first = next(chunks, b"")  # a store that fails says so before the answer has begun
    first = _HEAD + first if form == "csv" else first
    return Download(f"events.{form}", MEDIA_TYPES[form], _all(first, chunks))


def _columns(form: str) -> str:
    if form == "jsonl":
        return COLUMNS
    texts = TEXT_FIELDS if form == "csv" else frozenset[str]()
    return ", ".join(_column(name, cell=name in texts) for name in FIELDS)


def _column(name: str, *, cell: bool) -> str:
    """Return a column; as a cell of a table for people with :func:`guarded` in SQL."""
    if name == "severity":
        return "toString(events.severity) AS severity"
    text = f"toString(events.{name})"
    guard = f"if(match({text}, '^[=+\\\\-@\\\\t\\\\n\\\\r]'), concat('\\'', {text}), {text})"
    return f"{guard} AS {name}" if cell else f"events.{name}"


def _json_lines(chunks: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
    try:
        for lines in _whole_lines(chunks):
            yield b"".join(encode_event(event_of(tuple(_ROW.decode(line).values()))) + b"\n" for line in lines)
    finally:
        chunks.close()


def _whole_lines(chunks: Iterable[bytes]) -> Iterator[list[bytes]]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            yield lines
    if rest:
        yield [rest]


def _all(first: bytes, chunks: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
    try:
        if first:
            yield first
        yield from chunks
    finally:
        chunks.close()
