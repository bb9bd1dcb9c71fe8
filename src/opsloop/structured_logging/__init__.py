"""Structured logging: one event per thing that happened, and the way back from a request id to all of it.

Objects
    A :class:`Logger` makes events of calls and writes them to a sink. A *request* scope gives everything inside it one
    ``request_id`` and ends in exactly one canonical ``request`` event; a *step* is a span within. The context travels
    in one ``ContextVar``. :class:`BufferedSink` takes the writing off the caller's thread. A :class:`Query` is what a
    typed line means; a :class:`Story` is one request with all that belongs to it.
Rule
    The host never pays: a log call does not raise, a full buffer drops the least valuable event and counts it. What is
    secret is masked before an event leaves the process. Tokens and cost are counted once, on the innermost model call.
Limits
    The level thins ``log`` lines only, since the other kinds are measurements. Redaction finds what its rules describe,
    and no more. A story is as complete as what arrived; it says what it knows to be missing.

What a logging process does without, the way back and the way to a server, loads on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opsloop.lazy import lazy
from opsloop.structured_logging.buffered import BufferedSink
from opsloop.structured_logging.context import isolated, wrap
from opsloop.structured_logging.logger import Logger, log
from opsloop.structured_logging.patterns import Pattern
from opsloop.structured_logging.propagation import incoming, outgoing
from opsloop.structured_logging.redact import Rules, redact
from opsloop.structured_logging.sample import Sampling
from opsloop.structured_logging.scope import RequestScope, StepScope
from opsloop.structured_logging.sinks import JsonLinesSink, Tee

if TYPE_CHECKING:
    from opsloop.structured_logging.correlation import correlate
    from opsloop.structured_logging.exporter import Exporter
    from opsloop.structured_logging.find import query
    from opsloop.structured_logging.format import format_query
    from opsloop.structured_logging.grammar import Query, parse_query
    from opsloop.structured_logging.handler import LoggingHandler
    from opsloop.structured_logging.journeys import Journey, journey
    from opsloop.structured_logging.spool import Spool
    from opsloop.structured_logging.story import Story
    from opsloop.structured_logging.summary import Summary, summarise

__all__ = [
    "BufferedSink",
    "Exporter",
    "Journey",
    "JsonLinesSink",
    "Logger",
    "LoggingHandler",
    "Pattern",
    "Query",
    "RequestScope",
    "Rules",
    "Sampling",
    "Spool",
    "StepScope",
    "Story",
    "Summary",
    "Tee",
    "correlate",
    "format_query",
    "incoming",
    "isolated",
    "journey",
    "log",
    "outgoing",
    "parse_query",
    "query",
    "redact",
    "summarise",
    "wrap",
]

_HOMES = {
    "Exporter": "exporter",
    "Journey": "journeys",
    "LoggingHandler": "handler",
    "Query": "grammar",
    "Spool": "spool",
    "Story": "story",
    "Summary": "summary",
    "correlate": "correlation",
    "format_query": "format",
    "journey": "journeys",
    "parse_query": "grammar",
    "query": "find",
    "summarise": "summary",
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
