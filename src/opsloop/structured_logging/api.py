"""Logs over HTTP and on the command line: lines, their histogram and facets, and one request's story."""

from __future__ import annotations

import msgspec

from opsloop.clock import Clock
from opsloop.endpoint import WINDOW_PARAMETERS, Arguments, Download, Endpoint, Parameter, window_of
from opsloop.errors import InputError
from opsloop.event import Event
from opsloop.filter import Filter
from opsloop.settings import Settings
from opsloop.stream import Database
from opsloop.structured_logging.correlation import correlate
from opsloop.structured_logging.export import MEDIA_TYPES, export
from opsloop.structured_logging.facets import Facet, Histogram
from opsloop.structured_logging.grammar import parse_query
from opsloop.structured_logging.journeys import MAX_REQUESTS, Journey, journey
from opsloop.structured_logging.sql import (
    facets_from_rows,
    facets_statement,
    groups_from_rows,
    histogram_from_rows,
    histogram_statement,
    summary_statement,
)
from opsloop.structured_logging.story import Story
from opsloop.structured_logging.summary import Group, Summary
from opsloop.structured_logging.trace import TRACE_FORMATS, encode_otlp_traces, encode_trace_events

MAX_LIMIT = 1_000
MAX_OFFSET = 10_000
_MOST_DIGITS = 12
_WINDOW = (Parameter("q", "a query line, such as: tool:retrieve error:true duration>500ms"), *WINDOW_PARAMETERS)


class LogPage(msgspec.Struct, frozen=True):
    """Matching events, the newest first."""

    query: str
    start_ns: int
    end_ns: int
    events: tuple[Event, ...]
    more: bool
    """Whether the window holds further ones."""


class Groups(msgspec.Struct, frozen=True):
    """What a line with a pipe asks: a number per group, the largest first."""

    query: str
    start_ns: int
    end_ns: int
    summary: Summary
    groups: tuple[Group, ...]


class Facets(msgspec.Struct, frozen=True):
    """The top values of each facet in a window."""

    query: str
    start_ns: int
    end_ns: int
    facets: tuple[Facet, ...]


def endpoints(database: Database, settings: Settings, clock: Clock) -> tuple[Endpoint, ...]:
    """Return this room's operations over a database."""
    del settings  # nothing here is configured
    return (*_finding(database, clock), *_counting(database, clock), *_telling(database))


def _finding(database: Database, clock: Clock) -> tuple[Endpoint, ...]:
    """Return what gives back events: a page of them, or a file of all."""

    def logs(arguments: Arguments, _body: bytes) -> LogPage:
        where, start_ns, end_ns, _ = _asked(arguments, clock)
        limit = _integer(arguments, "limit", default=100, least=1, most=MAX_LIMIT)
        offset = _integer(arguments, "offset", default=0, least=0, most=MAX_OFFSET)
        found = database.query(where, start_ns=start_ns, end_ns=end_ns, limit=offset + limit + 1, newest_first=True)
        page = tuple(found[offset : offset + limit])
        return LogPage(arguments.get("q", ""), start_ns, end_ns, page, len(found) > offset + limit)

    def exported(arguments: Arguments, _body: bytes) -> Download:
        where, start_ns, end_ns, summary = _asked(arguments, clock)
        if summary is not None:
            raise InputError("an export is of events", fix="leave out what stands after |")
        return export(database, where, start_ns=start_ns, end_ns=end_ns, form=arguments.get("format") or "jsonl")

    limit = Parameter("limit", f"at most this many, up to {MAX_LIMIT}; 100 unless given", "integer")
    offset = Parameter("offset", f"skip this many, up to {MAX_OFFSET}; move to= back for more", "integer")
    form = Parameter("format", f"{', '.join(MEDIA_TYPES)}; jsonl unless given")
    return (
        Endpoint(
            path="/api/logs",
            summary="Find events, the newest first",
            handler=logs,
            parameters=(*_WINDOW, limit, offset),
        ),
        Endpoint(
            path="/api/logs/export",
            summary="Return all matching events as a file, in time order",
            handler=exported,
            parameters=(*_WINDOW, form),
        ),
    )


def _counting(database: Database, clock: Clock) -> tuple[Endpoint, ...]:
    """Return what gives back numbers: over time, by value, by group."""

    def histogram(arguments: Arguments, _body: bytes) -> Histogram:
        where, start_ns, end_ns, _ = _asked(arguments, clock)
        steps = _integer(arguments, "steps", default=60, least=1, most=MAX_LIMIT)
        rows = database.rows(histogram_statement(where, start_ns=start_ns, end_ns=end_ns, steps=steps))
        return histogram_from_rows(rows, start_ns=start_ns, end_ns=end_ns, steps=steps)

    def facets(arguments: Arguments, _body: bytes) -> Facets:
        where, start_ns, end_ns, _ = _asked(arguments, clock)
        limit = _integer(arguments, "limit", default=10, least=1, most=100)
        rows = database.rows(facets_statement(where, start_ns=start_ns, end_ns=end_ns, limit=limit))
        return Facets(arguments.get("q", ""), start_ns, end_ns, facets_from_rows(rows))

    def groups(arguments: Arguments, _body: bytes) -> Groups:
        where, start_ns, end_ns, summary = _asked(arguments, clock)
        if summary is None:
            raise InputError("the line asks for no number", fix="end it with | count by tenant")
        rows = database.rows(summary_statement(where, summary, start_ns=start_ns, end_ns=end_ns))
        return Groups(arguments.get("q", ""), start_ns, end_ns, summary, groups_from_rows(rows))

    steps = Parameter("steps", "how many steps the window is divided into; 60 unless given", "integer")
    values = Parameter("limit", "at most this many values per field; 10 unless given", "integer")
    return (
        Endpoint(
            path="/api/logs/histogram",
            summary="Count matching events and failures over time",
            handler=histogram,
            parameters=(*_WINDOW, steps),
        ),
        Endpoint(
            path="/api/logs/facets",
            summary="Count the most frequent values of each field",
            handler=facets,
            parameters=(*_WINDOW, values),
        ),
        Endpoint(
            path="/api/logs/groups",
            summary="Answer a line that ends with a pipe: a number per group",
            handler=groups,
            parameters=_WINDOW,
        ),
    )


def _telling(database: Database) -> tuple[Endpoint, ...]:
    """Return what tells a story: of one request, as a trace too, and of a session or a person."""

    def request(arguments: Arguments, _body: bytes) -> Story:
        return correlate(database, arguments["request_id"])

    def trace(arguments: Arguments, _body: bytes) -> Download:
        form, name = arguments.get("format") or "perfetto", arguments["request_id"]
        if form not in TRACE_FORMATS:
            raise InputError(f"unknown format {form!r}", fix=f"use one of {', '.join(TRACE_FORMATS)}")
        encode = encode_otlp_traces if form == "otlp" else encode_trace_events
        body = encode(correlate(database, name))
        return Download(f"trace.{form}.json", "application/json", (piece for piece in (body,)))

    def way(arguments: Arguments, _body: bytes) -> Journey:
        limit = _integer(arguments, "limit", default=50, least=1, most=MAX_REQUESTS)
        named = {name: arguments.get(name, "") for name in ("session_id", "user_id")}
        return journey(database, **named, limit=limit)

    named = Parameter("request_id", "the id that all its events share", required=True)
    form = Parameter("format", f"{', '.join(TRACE_FORMATS)}; perfetto unless given")
    limit = Parameter("limit", f"at most this many requests, up to {MAX_REQUESTS}; 50 unless given", "integer")
    return (
        Endpoint(
            path="/api/requests/{request_id}",
            summary="Tell one request's whole story",
            handler=request,
            parameters=(named,),
        ),
        Endpoint(
            path="/api/requests/{request_id}/trace",
            summary="Return one request's story as a trace for other tools",
            handler=trace,
            parameters=(named, form),
        ),
        Endpoint(
            path="/api/journeys",
            summary="Tell the requests of a session or of a person, each with how it ended",
            handler=way,
            parameters=(Parameter("session_id", "the conversation"), Parameter("user_id", "the person"), limit),
        ),
    )


def _asked(arguments: Arguments, clock: Clock) -> tuple[Filter, int, int, Summary | None]:
    """Return (filter, start, end, summary): the window of the line, where it names one, wins over from and to."""
    asked = parse_query(arguments.get("q", ""), now_ns=clock.now_ns())
    start_ns, end_ns = window_of(arguments, clock=clock)
    start_ns = start_ns if asked.start_ns is None else asked.start_ns
    end_ns = end_ns if asked.end_ns is None else asked.end_ns
    if start_ns >= end_ns:
        raise InputError("the window's start is not before its end", fix="let since be earlier than until")
    return asked.where, start_ns, end_ns, asked.summary


def _integer(arguments: Arguments, name: str, *, default: int, least: int, most: int) -> int:
    text = arguments.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or len(text) > _MOST_DIGITS or not least <= int(text) <= most:
        raise InputError(f"{name} is {text[:40]!r}", fix=f"give a whole number from {least} to {most}")
    return int(text)
