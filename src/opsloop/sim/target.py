"""The bot without traffic: a question in, an answer out, the same every time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from opsloop.clock import seeded
from opsloop.errors import InputError
from opsloop.sim.answers import BLOCKED, compose_answer, invent_answer, truncate
from opsloop.sim.faults import FAULT_KINDS
from opsloop.sim.questions import UNSAFE
from opsloop.sim.retrieval import retrieve

__all__ = ["Consultation", "answer", "consult"]

_FAILED: Final[Mapping[str, tuple[int, str]]] = {
    "retriever_outage": (503, "TimeoutError"),
    "upstream_429": (503, "upstream_429"),
    "bad_release": (500, "KeyError"),
    "tenant_spike": (429, "rate_limited"),
}
"""The faults under which a question gets no answer, with the status and class that the caller sees."""


class Consultation(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one question, with what the answer was made from."""

    output: str
    """The answer; empty when the request failed."""
    finish_reason: str
    contexts: tuple[str, ...]
    """The texts of the retrieved documents, best first."""
    document_ids: tuple[str, ...]
    status_code: int
    error_type: str


def consult(question: str, *, fault: str | None = None) -> Consultation:
    """Ask the bot one question.

    ``fault`` makes it answer as it would under that fault at full strength; a slow model leaves an answer as it is.
    Raises :class:`InputError` for an unknown fault.

    >>> consult("What does a return label cost?").document_ids[0]
    'kb-116'
    >>> consult("What does a return label cost?", fault="retriever_outage").error_type
    'TimeoutError'
    """
    if fault is not None and fault not in FAULT_KINDS:
        raise InputError(f"unknown fault {fault!r}", fix=f"use one of {', '.join(FAULT_KINDS)}")
    documents = () if fault in {"retriever_outage", "tenant_spike"} else retrieve(question)
    output, finish_reason = "", ""
    status_code, error_type = _FAILED.get(fault or "", (200, ""))
    if status_code == 200:
        output, finish_reason = compose_answer(question, documents), "stop"
        if fault == "hallucination_drift":
            output = invent_answer(documents, seeded(question))
        if fault == "malformed_output":
            output, finish_reason = truncate(output, 0.5), "length"
        if question in UNSAFE:
            output, finish_reason = BLOCKED, "content_filter"
    return Consultation(
        output=output,
        finish_reason=finish_reason,
        contexts=tuple(document.article.text for document in documents),
        document_ids=tuple(document.article.id for document in documents),
        status_code=status_code,
        error_type=error_type,
    )


def answer(question: str | Mapping[str, Any], *, fault: str | None = None) -> dict[str, str]:
    """Answer a question with ``output`` and ``finish_reason``: the target ``opsloop.sim:answer`` of a guard or gate.

    ``question`` is a text, or a guard's variables with the text under ``question``; ``fault`` as in :func:`consult`.
    Raises :class:`InputError` when there is no question.

    >>> answer({"question": "What does a return label cost?"})["output"].partition(" and ")[0]
    'A return label costs 4.90 euros'
    """
    text = question if isinstance(question, str) else question.get("question")
    if not isinstance(text, str):
        raise InputError("the variables hold no question", fix='hand in {"question": "…"}')
    found = consult(text, fault=fault)
    return {"output": found.output, "finish_reason": found.finish_reason}
