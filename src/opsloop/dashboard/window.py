"""A window of events: what every signal is worked out from.

A window is ``(start_ns, end_ns]``: an event at the start is outside, one at the end inside, so that neighbours share
no event and miss none. A request belongs to the window in which it *began*, because its line carries its start.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from opsloop.clock import NANOSECONDS
from opsloop.errors import InputError
from opsloop.event import Event
from opsloop.filter import equals, matches

__all__ = ["JUDGEMENTS", "OWN_SERVICE", "STAGES", "Window", "number", "rejected", "stage"]

STAGES: Final = ("retrieve", "rerank", "llm", "embed", "tool", "guardrail")
"""The steps of a request that can fail on their own. ``agent`` and ``span`` wrap others and would count them twice."""

JUDGEMENTS: Final = frozenset({"alert", "breach", "gate", "guard", "incident", "score"})
"""Kinds that opsloop writes itself: they prove nothing about whether the application is still sending."""

OWN_SERVICE: Final = "opsloop"
"""The service that opsloop writes its own log lines under: they prove nothing either."""

_NUMBER: Final = re.compile(r"-?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Window:
    """The events of one window, in time order, with the groups that signals ask for.

    >>> events = [Event(ts_ns=0, event="request"), Event(ts_ns=10, event="request"), Event(ts_ns=10, event="llm")]
    >>> window = Window.of(events, start_ns=0, end_ns=10)
    >>> len(window.requests), len(window.calls)
    (1, 1)
    """

    start_ns: int
    end_ns: int
    events: tuple[Event, ...]

    @classmethod
    def of(
        cls, events: Iterable[Event], *, start_ns: int, end_ns: int, labels: Mapping[str, str] | None = None
    ) -> Window:
        """Select the events of a window whose fields have the values in ``labels`` (a column or attribute path each).

        Raises :class:`InputError` when the window is empty of time.
        """
        if start_ns >= end_ns:
            raise InputError("the window's start is not before its end", fix="let start_ns be less than end_ns")
        where = equals(**(labels or {}))
        inside = [event for event in events if start_ns < event.ts_ns <= end_ns and matches(where, event)]
        return cls(start_ns, end_ns, tuple(sorted(inside, key=lambda event: event.ts_ns)))

    @property
    def seconds(self) -> float:
        """How long the window is."""
        return (self.end_ns - self.start_ns) / NANOSECONDS

    @cached_property
    def requests(self) -> tuple[Event, ...]:
        """Every request, the rejected ones too."""
        return self.of_kind("request")

    @cached_property
    def served(self) -> tuple[Event, ...]:
        """The requests that our own limiter let in: what latency and errors are about."""
        return tuple(event for event in self.requests if not rejected(event))

    @cached_property
    def calls(self) -> tuple[Event, ...]:
        """The model calls, where tokens and cost happen."""
        return self.of_kind("llm", "embed")

    @property
    def received(self) -> int:
        """How many events the application sent, of any kind: the proof that the stream is alive."""
        return sum(event.event not in JUDGEMENTS and event.service != OWN_SERVICE for event in self.events)

    @property
    def billed(self) -> tuple[Event, ...]:
        """What tokens and cost are counted on: the model calls, or the request lines where no call was recorded.

        Never both, because a request line repeats the sum of its calls.
        """
        return self.calls or self.requests

    def of_kind(self, *kinds: str) -> tuple[Event, ...]:
        """Return the events of these kinds."""
        return tuple(event for event in self.events if event.event in kinds)

    def of_stage(self, name: str) -> tuple[Event, ...]:
        """Return the events of one stage of :data:`STAGES`."""
        return tuple(event for event in self.events if stage(event) == name)


def rejected(event: Event) -> bool:
    """Tell whether a request was turned away by our own limiter: a 429 that is no failure of the service.

    >>> rejected(Event(ts_ns=0, event="request", status_code=429, error_type="rate_limited"))
    True
    """
    return event.error_type == "rate_limited"


def stage(event: Event) -> str:
    """Return the stage that an event is, or an empty text; a tool call named ``retrieve`` is a retrieval.

    >>> stage(Event(ts_ns=0, event="tool", tool="retrieve"))
    'retrieve'
    """
    if event.event == "tool" and event.tool == "retrieve":
        return "retrieve"
    return event.event if event.event in STAGES else ""


def number(leaf: str | None) -> float | None:
    """Return the number that an attribute's leaf holds, or ``None`` for anything else; never NaN or infinity.

    >>> number("0.25"), number("many"), number("1e999")
    (0.25, None, None)
    """
    if leaf is None or not _NUMBER.fullmatch(leaf):
        return None
    value = float(leaf)
    return value if math.isfinite(value) else None
