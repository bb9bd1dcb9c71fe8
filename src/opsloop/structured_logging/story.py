"""A request's story: what it holds, and its text of a fixed width for terminals, tickets and chat."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import msgspec

from opsloop.event import Event
from opsloop.structured_logging.baseline import Siblings, Slow
from opsloop.structured_logging.tree import Node, PathStep

__all__ = ["Story", "Totals", "duration_text", "label", "story_text"]

_MARKS = {"TRACE": " ", "DEBUG": " ", "INFO": " ", "WARN": "!", "ERROR": "x", "FATAL": "x"}


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the story; ``None`` where nothing was measured."""

    events: int
    errors: int
    """Failed spans, the request's own line aside."""
    model_calls: int
    input_tokens: int | None
    output_tokens: int | None
    cost_microusd: int | None
    retries: int
    duration_us: int | None
    """How long the request took by its own line."""


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a request; :meth:`text` is for a terminal, ``msgspec.to_builtins`` for JSON."""

    request_id: str
    trace_ids: tuple[str, ...]
    request: Event | None
    """The canonical line; ``None`` while the request runs or when its line was lost."""
    requests: tuple[Event, ...]
    """All canonical lines: of a session, or of the services that a trace runs through."""
    events: tuple[Event, ...]
    """Every event, in the order in which they were written."""
    tree: tuple[Node, ...]
    failure: Event | None
    """The first step that failed: the candidate for the cause, not a proof."""
    critical_path: tuple[PathStep, ...]
    totals: Totals
    limits: tuple[Event, ...]
    scores: tuple[Event, ...]
    links: tuple[Event, ...]
    """Alerts, incidents, guards and gate results that name it."""
    missing: tuple[str, ...]
    """What should be here and is not, a sentence each."""
    notes: tuple[str, ...]
    """What had to be mended to tell it, such as a circle of spans that was cut."""
    complete: bool
    """Whether nothing is known to be missing."""
    slow: tuple[Slow, ...] = ()
    """Steps that took longer than 95 % of their like on this route."""
    siblings: Siblings | None = None
    """Other requests that failed in the same way at about the same time; ``None`` without a failure."""

    def text(self, *, width: int = 100) -> str:
        """Return the story as a tree with offsets and durations, at most ``width`` columns wide."""
        return story_text(self, width=width)


def duration_text(duration_us: float | None) -> str:
    """Return a duration in the unit that a person would say it in; empty when there is none.

    >>> [duration_text(us) for us in (None, 12, 1_234, 67_000, 3_000_000, 130_000_000)]
    ['', '12 us', '1.23 ms', '67 ms', '3.00 s', '2 min 10 s']
    """
    if duration_us is None:
        return ""
    if duration_us < 1_000:
        return f"{duration_us:.0f} us"
    for unit, size, most in (("ms", 1e3, 1e6), ("s", 1e6, 6e7)):
        if duration_us < most:
            amount = duration_us / size
            return f"{amount:.2f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    minutes, seconds = divmod(round(duration_us / 1e6), 60)
    return f"{minutes} min {seconds} s"


def story_text(story: Story, *, width: int = 100) -> str:
    """Return a heading, the tree with offset and duration of each event, and what there is to know about it."""
    origin = story.request.ts_ns if story.request is not None else min(event.ts_ns for event in story.events)
    lines = [_heading(story), ""]
    lines += [_row(*entry, origin=origin, width=width) for entry in _rows(story.tree)]
    lines += ["", *_facts(story, width)]
    return "\n".join(line[:width].rstrip() for line in lines).rstrip()


def _heading(story: Story) -> str:
    request = story.request
    if request is None:
        return f"{story.request_id or 'a trace'}  not finished"
    outcome = "failed" if request.error else "answered"
    status = "" if request.status_code is None else str(request.status_code)
    tenant = f"tenant {request.tenant}" if request.tenant else ""
    parts = (f"{request.request_id} {outcome}", status, request.error_type, request.route, tenant)
    return "  ".join(part for part in (*parts, duration_text(request.duration_us)) if part)


def _rows(tree: Sequence[Node]) -> list[tuple[Node, str]]:
    """Return each node with the branches before it, parents first."""
    rows: list[tuple[Node, str]] = []
    stack = [(node, "", "") for node in reversed(tree)]
    while stack:
        node, lead, below = stack.pop()
        rows.append((node, lead))
        last = len(node.children) - 1
        for index in range(last, -1, -1):
            corner, rest = ("└─ ", "   ") if index == last else ("├─ ", "│  ")
            stack.append((node.children[index], below + corner, below + rest))
    return rows


def _row(node: Node, lead: str, *, origin: int, width: int) -> str:
    event = node.event
    mark = "x" if event.error else _MARKS[event.severity]
    offset = duration_text(max(0, event.ts_ns - origin) / 1000) or "0 us"
    flag = " (orphan)" if node.orphan else " (circle cut)" if node.cycle else ""
    shown = f"{lead}{label(event)}{flag}"
    room = max(20, width - 24)
    if len(shown) > room:
        shown = f"{shown[: room - 3]}..."
    return f"{offset:>10} {mark} {shown:<{room}} {duration_text(event.duration_us):>9}"


def label(event: Event) -> str:
    """Return what an event is, in one line."""
    name = event.tool if event.tool and event.tool != event.event else ""
    status = "" if event.status_code is None else str(event.status_code)
    detail = event.model or (event.route if event.event == "request" else "")
    parts = (event.event, name, detail, status, event.error_type, _score(event), _one_line(event.message))
    return "  ".join(part for part in parts if part)


def _one_line(text: str) -> str:
    """Return a text without line ends and without what would steer a terminal."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _score(event: Event) -> str:
    if event.event != "score":
        return ""
    score = event.attributes.get("score")
    value = f"{score:.2f}" if isinstance(score, int | float) else str(event.attributes.get("status", "unscored"))
    return f"{event.attributes.get('scorer', '')} {value}".strip()


def _facts(story: Story, width: int) -> list[str]:
    totals = story.totals
    counted = (("tokens in", totals.input_tokens), ("tokens out", totals.output_tokens))
    figures = [f"{value} {name}" for name, value in counted if value is not None]
    if totals.cost_microusd is not None:
        figures.append(f"{totals.cost_microusd / 1e6:.6f} USD")
    facts: list[tuple[str, str]] = []
    if story.failure is not None:
        facts.append(("first failure", label(story.failure)))
    if len(story.critical_path) > 1:
        path = [f"{step.name} {duration_text(step.self_ns / 1000)}" for step in story.critical_path]
        unbroken = (step.replace(" ", "\xa0") for step in path)
        facts.append(("critical path", "\xa0> ".join(unbroken)))
    for slow in story.slow:
        usual = f"{duration_text(slow.event.duration_us)}, 95 % of {slow.n} took at most {duration_text(slow.p95_us)}"
        facts.append(("slow", f"{slow.event.tool or slow.event.model or slow.event.event}  {usual}"))
    if story.siblings is not None and story.siblings.events:
        among = story.siblings
        facts.append(("siblings", f"{among.events} × {among.fingerprint} within 15 min: {', '.join(among.requests)}"))
    if totals.model_calls:
        facts.append(("model calls", ", ".join((str(totals.model_calls), *figures))))
    facts += [("linked", label(event)) for event in story.links]
    facts += [("missing", sentence) for sentence in story.missing]
    facts += [("note", sentence) for sentence in story.notes]
    return [
        f"{name if first else '':<14} {part}"
        for name, value in facts
        for first, part in _wrapped(value, max(20, width - 15))
    ]


def _wrapped(text: str, width: int) -> list[tuple[bool, str]]:
    return [(number == 0, line.replace("\xa0", " ")) for number, line in enumerate(textwrap.wrap(text, width))]
