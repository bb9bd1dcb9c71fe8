"""An answer: what a scorer looks at, put together from the events of one request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from opsloop.event import Event

__all__ = ["Answer", "Document", "answer_from_events", "answers_from_events"]


class Document(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One retrieved passage."""

    id: str = ""
    content: str = ""
    score: float | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer with what it was given to answer from.

    >>> Answer(request_id="req-A", answer="Paris.", contexts=("Paris is the capital.",)).contexts
    ('Paris is the capital.',)
    """

    request_id: str
    answer: str | None = None
    """``None`` when no text was recorded; ``""`` when the service really answered nothing."""
    question: str = ""
    contexts: tuple[str, ...] = ()
    """The passages' texts, in the order in which they were retrieved."""
    documents: tuple[Document, ...] = ()
    """The passages with their ids, where the instrument recorded them."""
    system: str = ""
    """The system prompt, where the model's input was recorded as messages."""
    finish_reason: str = ""
    """``stop``, ``length``, ``content_filter``, … as the model gave it."""
    ts_ns: int = 0
    """When the request began, in nanoseconds since the epoch, UTC."""
    service: str = ""
    tenant: str = ""
    route: str = ""
    model: str = ""


def answer_from_events(events: Sequence[Event]) -> Answer | None:
    """Assemble one request's answer from its events; ``None`` without a ``request`` event.

    Question and answer come from the request itself, else from its last model call; passages from its ``retrieve``
    events; the model from its last model call when the request does not name one.
    """
    request = next((event for event in events if event.event == "request"), None)
    if request is None:
        return None
    calls = [event for event in events if event.event == "llm"]
    last = calls[-1] if calls else request
    documents = tuple(document for event in events if event.event == "retrieve" for document in _documents(event))
    output = _first("output", (request, last))
    return Answer(
        request_id=request.request_id,
        answer=None if output is None else _text(output),
        question=_question(_first("input", (request, *calls))),
        contexts=tuple(document.content for document in documents if document.content),
        documents=documents,
        system=next((found for call in calls if (found := _said(call.attributes.get("input"), "system"))), ""),
        finish_reason=str(_first("finish_reason", (request, last)) or ""),
        ts_ns=request.ts_ns,
        service=request.service,
        tenant=request.tenant,
        route=request.route,
        model=request.model or last.model,
    )


def answers_from_events(events: Iterable[Event]) -> list[Answer]:
    """Assemble the answers of all requests among the events, by start of the request, then id.

    >>> question, answer = {"input": "Capital of France?"}, {"output": "Paris."}
    >>> ask = Event(ts_ns=1, event="request", request_id="req-A", attributes=question | answer)
    >>> answers_from_events([ask])[0].answer
    'Paris.'
    """
    by_request: dict[str, list[Event]] = {}
    for event in events:
        if event.request_id:
            by_request.setdefault(event.request_id, []).append(event)
    answers = [found for group in by_request.values() if (found := answer_from_events(group)) is not None]
    return sorted(answers, key=lambda answer: (answer.ts_ns, answer.request_id))


def _first(name: str, events: Iterable[Event]) -> Any:
    return next((event.attributes[name] for event in events if event.attributes.get(name) is not None), None)


def _documents(event: Event) -> Iterable[Document]:
    listed = event.attributes.get("documents")
    for item in listed if isinstance(listed, list) else ():
        if isinstance(item, str):
            yield Document(content=item)
        elif isinstance(item, dict):
            score = item.get("score")
            yield Document(
                id=str(item.get("id", "")),
                content=_text(item.get("content")),
                score=float(score) if isinstance(score, int | float) else None,
            )


def _question(value: Any) -> str:
    """Return the text asked: a text itself, or what the user said last in a list of messages."""
    return _said(value, "user") if isinstance(value, list) else _text(value)


def _said(value: Any, role: str) -> str:
    messages = value if isinstance(value, list) else ()
    spoken = [_text(m.get("content")) for m in messages if isinstance(m, dict) and m.get("role") == role]
    return spoken[-1] if spoken else ""


def _text(value: Any) -> str:
    """Return a text for what instruments call one: a text, a message, parts of a message, or any JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, dict) and isinstance(value.get("content", value.get("text")), str | list):
        return _text(value.get("content", value.get("text")))
    if isinstance(value, list) and value and all(isinstance(part, dict | str) for part in value):
        return "\n".join(_text(part) for part in value)
    return msgspec.json.encode(value).decode()
