"""Classify: which kind of failure one event shows, by rules that can be read.

Each rule looks at the kind of the step, its error type and, for a score, its scorer. Nothing is guessed from free text
and nothing is learned: the same event gives the same signature on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from opsloop.event import Event
from opsloop.improvement.fingerprint import FailureClass, Signature

__all__ = ["classify", "signature_of", "stage_of"]

STAGES: Final[Mapping[str, str]] = {
    "retrieve": "retrieve",
    "embed": "retrieve",
    "rerank": "rerank",
    "llm": "generate",
    "score": "generate",
    "guardrail": "guardrail",
    "limit": "rate_limit",
}
STAGE_NAMES: Final[Mapping[str, str]] = {
    "retrieve": "retrieve",
    "retrieval": "retrieve",
    "embed": "retrieve",
    "rerank": "rerank",
    "llm": "generate",
    "generate": "generate",
    "parse": "parse",
    "guardrail": "guardrail",
}
SCORERS: Final[Mapping[str, FailureClass]] = {
    "groundedness": "generator_hallucination",
    "citation": "generator_ignores_context",
    "refusal": "abstention_failure",
    "schema": "malformed_output",
    "repetition": "malformed_output",
    "leakage": "policy_violation",
}
_OUT_OF_TIME: Final = ("timeout", "timedout", "deadline", "429", "ratelimit", "rate_limit", "budget", "quota")
_MALFORMED: Final = ("json", "decode", "parse", "schema")
_BAD_ARGUMENT: Final = ("validation", "valueerror", "typeerror", "argument")
_UNKNOWN_TOOL: Final = ("unknowntool", "unknown_tool", "toolnotfound", "tool_not_found")


def stage_of(event: Event) -> str:
    """Return the stage that an event belongs to; empty when it names none.

    >>> stage_of(Event(ts_ns=0, event="tool", tool="refund"))
    'tool:refund'
    """
    if event.event == "tool":
        return "retrieve" if event.tool == "retrieve" else f"tool:{event.tool}"
    if event.event in STAGES:
        return STAGES[event.event]
    if event.event == "request" and any(word in event.error_type.lower() for word in _MALFORMED):
        return "parse"
    return ""


def classify(event: Event, signal: str) -> FailureClass:
    """Return the class of failure that an event shows.

    >>> classify(Event(ts_ns=0, event="retrieve", error=True, error_type="TimeoutError"), "errors")
    'timeout_or_budget_exhaustion'
    """
    kind = event.error_type.lower()
    if signal in {"latency", "saturation"} or any(word in kind for word in _OUT_OF_TIME):
        return "timeout_or_budget_exhaustion"
    if event.event == "score":
        return SCORERS.get(str(event.attributes.get("scorer", "")), "incorrect_final_output")
    if event.event == "guardrail":
        return "policy_violation"
    if any(word in kind for word in _MALFORMED):
        return "malformed_output"
    if event.event == "tool" and any(word in kind for word in _UNKNOWN_TOOL):
        return "tool_selection_error"
    if event.event == "tool" and any(word in kind for word in _BAD_ARGUMENT):
        return "tool_argument_error"
    if event.event in {"retrieve", "rerank"} or stage_of(event) == "retrieve":
        return "retriever_miss" if event.attributes.get("documents") == [] else "retrieval_grounding_failure"
    if event.event in {"llm", "tool", "embed"}:
        return "dependency_failure"
    return "unclassified"


def signature_of(event: Event, signal: str) -> Signature:
    """Return the signature of the failure that an event shows, as ``signal`` noticed it.

    A slow request carries no message: the stage that took longest is what is the same when it comes back. Neither does
    a poor score: its explanation is free text and would make every answer a problem of its own.
    """
    return Signature(
        service=event.service,
        route=event.route,
        stage=_slowest_stage(event) if signal == "latency" else stage_of(event),
        failure_class=classify(event, signal),
        signal=signal,
        error_type=event.error_type if signal == "errors" else "",
        finish_reason=str(event.attributes.get("finish_reason", "")) if signal == "errors" else "",
        message=_message(event) if signal == "errors" else _violated(event),
    )


def _message(event: Event) -> str:
    return event.message or str(event.attributes.get("error_message", ""))


def _violated(event: Event) -> str:
    violated = event.attributes.get("violated", [])
    return " ".join(sorted(map(str, violated))) if isinstance(violated, list) else ""


def _slowest_stage(event: Event) -> str:
    stages = event.attributes.get("stages", {})
    timed = {name: us for name, us in stages.items() if isinstance(us, int | float)} if isinstance(stages, dict) else {}
    if not timed:
        return ""
    slowest = max(timed, key=lambda name: (timed[name], name))
    return STAGE_NAMES.get(slowest, slowest)
