"""The simulated support bot: limit → embed → retrieve → rerank → llm → guardrail → answer.

:func:`serve` takes one arrival through the stages of its route and tells what each did and how long it took; it is a
pure function of the arrival, its luck, the faults and the limiter's decision. Times are lognormal around each stage's
median; a model's time is its first token and then a time for each token written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from opsloop.clock import seeded
from opsloop.event import Severity
from opsloop.sim.admission import Admission
from opsloop.sim.answers import (
    BLOCKED,
    compose_answer,
    compose_search,
    compose_summary,
    invent_answer,
    is_on_topic,
    transcript,
    truncate,
)
from opsloop.sim.faults import Fault, FaultKind, share_of
from opsloop.sim.questions import UNSAFE
from opsloop.sim.retrieval import Document, retrieve
from opsloop.sim.spans import Served, Step
from opsloop.sim.traffic import MODELS, Arrival

__all__ = ["estimate_tokens", "serve"]

EMBEDDER: Final = "text-embedding-3-small"
EMBEDDER_PRICE: Final = 0.02
RERANKER: Final = "bge-reranker-v2-m3"
PROMPT_VERSION: Final = "answer-v14"
PROMPT_TOKENS: Final = 180
"""The system prompt."""
MEDIAN_US: Final = {"embed": 22_000, "retrieve": 52_000, "rerank": 36_000, "guardrail": 9_000}
SPREAD: Final = 0.22
"""The sigma of every lognormal time."""
OVERHEAD_US: Final = 4_000
LIMITER_US: Final = 900
MODEL_TIMEOUT_US: Final = 30_000_000
ATTEMPTS: Final = 3
BASE: Final = {"retrieve": 0.0006, "refused": 0.003, "timeout": 0.0001, "malform": 0.0003, "invent": 0.004}
"""What goes wrong at rest: shares of retrievals, model calls and answers."""


def estimate_tokens(question: str) -> int:
    """Return what the limiter reserves: the prompt, three documents and a usual answer."""
    return PROMPT_TOKENS + 500 + _tokens(question)


def serve(
    arrival: Arrival, *, admission: Admission, in_flight: int, release: str, faults: Sequence[Fault] = ()
) -> Served:
    """Take one request through the bot and return all that happened."""
    run = _Run(arrival, faults)
    run.limited(admission)
    if admission.allowed:
        for stage in STAGES[arrival.route]:
            if run.failure is None:
                stage(run)
        run.settled()
    else:
        run.failure = (429, "rate_limited", f"rejected by {', '.join(admission.violated)}")
    return Served(arrival=arrival, release=release, request=run.canonical(in_flight), steps=tuple(run.steps))


class _Run:
    """One request on its way: where it is in time, what it has found, what it has cost."""

    def __init__(self, arrival: Arrival, faults: Sequence[Fault]) -> None:
        self.arrival = arrival
        self.luck = arrival.luck
        self.faults = faults
        self.at_us = 0
        self.steps: list[Step] = []
        self.stages: dict[str, int] = {}
        self.failure: tuple[int, str, str] | None = None
        self.documents: tuple[Document, ...] = ()
        self.output = ""
        self.finish_reason = ""
        self.first_token_us: int | None = None
        self.retries = 0
        self.input_tokens = self.output_tokens = self.cost = 0
        self.question = arrival.question
        if arrival.route == "support.summary":
            self.question = transcript(arrival.question, retrieve(arrival.question))

    def limited(self, admission: Admission) -> None:
        attributes: dict[str, Any] = {
            "phase": "admit",
            "allowed": admission.allowed,
            "violated": list(admission.violated),
            "limits": admission.limits,
            "estimate": {"requests": 1, "tokens": estimate_tokens(self.arrival.question)},
            "reservation": self.arrival.request_id,
        }
        fields: dict[str, Any] = {"model": self.arrival.model}
        if not admission.allowed:
            attributes["retry_after_seconds"] = admission.retry_after_seconds
            fields |= {"status_code": 429, "error_type": "rate_limited"}
        severity: Severity = "INFO" if admission.allowed else "WARN"
        self._step("limit", LIMITER_US, severity=severity, fields=fields, attributes=attributes)

    def settled(self) -> None:
        attributes = {
            "phase": "settle",
            "allowed": True,
            "estimate": {"requests": 1, "tokens": estimate_tokens(self.arrival.question)},
            "actual": {"requests": 1, "tokens": self.input_tokens + self.output_tokens},
            "reservation": self.arrival.request_id,
        }
        fields = {"model": self.arrival.model}
        self.steps.append(Step(kind="limit", offset_us=self.at_us, duration_us=0, fields=fields, attributes=attributes))

    def canonical(self, in_flight: int) -> Step:
        """Return the request's one line, and log its failure under it."""
        status, error_type, reason = self.failure or (200, "", "")
        is_error = bool(error_type) and status != 429
        if is_error:
            self._log("ERROR", f"{error_type}: {reason}", logger="support.handler")
        duration_us = self.at_us + OVERHEAD_US
        attributes: dict[str, Any] = {"input": self.question, "in_flight": in_flight, "stages": self.stages}
        if self.output:
            attributes["output"] = self.output
            attributes["finish_reason"] = self.finish_reason
        if self.retries:
            attributes["retries"] = self.retries
        fields: dict[str, Any] = {"status_code": status, "error": is_error, "error_type": error_type}
        if self.arrival.route != "support.search":
            fields["model"] = self.arrival.model
            fields["provider"] = MODELS[self.arrival.model].provider
        if self.first_token_us is not None:
            fields["time_to_first_token_us"] = self.first_token_us
        if self.input_tokens:
            fields["input_tokens"] = self.input_tokens
            fields["cost_microusd"] = self.cost
        if self.output_tokens:
            fields["output_tokens"] = self.output_tokens
        text = f"{self.arrival.route} {status} in {duration_us // 1000} ms"
        return Step(
            kind="request",
            offset_us=0,
            duration_us=duration_us,
            severity="ERROR" if is_error else "INFO" if status == 200 else "WARN",
            message=f"{text}: {reason}" if reason else text,
            fields=fields,
            attributes=attributes,
        )

    def embed(self) -> None:
        tokens = _tokens(self.question)
        cost = self._charge(tokens, 0, EMBEDDER_PRICE, 0.0)
        fields = {"model": EMBEDDER, "provider": "openai", "input_tokens": tokens, "cost_microusd": cost}
        self._step("embed", self._time("embed", 0), fields=fields, attributes={"input": self.question})

    def retrieve(self) -> None:
        share = self._share("retriever_outage", self.arrival.route, BASE["retrieve"])
        fields: dict[str, Any] = {"tool": "retrieve"}
        if self.luck.retrieve < share:
            # The chance is uniform below the share, so its place there is a second, free chance.
            place = self.luck.retrieve / share
            attempt, milliseconds = 1 + int(place * 3), (2_750, 3_000, 3_250)[int(place * 9) % 3]
            index = f"kb-prod-{7 + int(place * 27) % 3}"
            message = f"retrieve timed out after {milliseconds}ms for index {index} (attempt {attempt} of 3)"
            self.failure = (503, "TimeoutError", message)
            self.retries += attempt - 1
            fields |= {"error": True, "error_type": "TimeoutError"}
            attributes: dict[str, Any] = {"input": self.question, "index": index}
            self._step("retrieve", milliseconds * 1_000, "ERROR", message, fields=fields, attributes=attributes)
            return
        self.documents = retrieve(self.question)
        documents = [{"id": d.article.id, "score": d.score, "content": d.article.text} for d in self.documents]
        attributes = {"input": self.question, "documents": documents}
        self._step("retrieve", self._time("retrieve", 1), fields=fields, attributes=attributes)
        if not documents:
            self._log("WARN", "no article shares a word with the question", logger="support.retrieve")

    def rerank(self) -> None:
        documents = [{"id": d.article.id, "score": round(d.score**0.5, 4)} for d in self.documents]
        self._step("rerank", self._time("rerank", 2), fields={"model": RERANKER}, attributes={"documents": documents})
        if self.arrival.route == "support.search":
            self.output, self.finish_reason = compose_search(self.documents), "stop"

    def prompt(self) -> None:
        if self.luck.crash < max((f.strength for f in self._acting("bad_release")), default=0.0):
            self.failure = (500, "KeyError", f"prompt template {PROMPT_VERSION} has no field 'customer_tier'")

    def llm(self) -> None:
        model = MODELS[self.arrival.model]
        share = self._share("upstream_429", model.provider, BASE["refused"])
        for attempt in range(ATTEMPTS):
            if self.luck.refused[attempt] >= share:
                self._generate()
                return
            self._refused(attempt)
        self.failure = (503, "upstream_429", f"{model.provider} refused {ATTEMPTS} attempts with status 429")

    def _refused(self, attempt: int) -> None:
        model = MODELS[self.arrival.model]
        fields = {"model": model.name, "provider": model.provider, "status_code": 429, "error": True}
        message = f"{model.provider} answered 429 Too Many Requests (attempt {attempt + 1} of {ATTEMPTS})"
        attributes = {"input": self.question, "prompt_version": PROMPT_VERSION}
        self._step(
            "llm",
            self._lognormal(90_000, 3),
            "ERROR",
            message,
            fields=fields | {"error_type": "upstream_429"},
            attributes=attributes,
        )
        if attempt + 1 < ATTEMPTS:
            wait_us = 150_000 * 2**attempt
            self.retries += 1
            self._log("WARN", f"{message}, next in {wait_us // 1000} ms", logger="support.llm")
            self.at_us += wait_us

    def _generate(self) -> None:
        model = MODELS[self.arrival.model]
        text, finish_reason = self._write()
        written = _tokens(text)
        slow = self._share("slow_model", model.name, 1.0)
        first_us = round(slow * self._lognormal(model.first_token_us, 4))
        duration_us = first_us + round(slow * written * self._lognormal(model.token_us, 5))
        fields: dict[str, Any] = {"model": model.name, "provider": model.provider}
        attributes = {"input": self.question, "prompt_version": PROMPT_VERSION}
        if duration_us > MODEL_TIMEOUT_US or self.luck.timeout < BASE["timeout"]:
            message = f"{model.name} gave no answer within {MODEL_TIMEOUT_US // 1_000_000}s"
            self.failure = (504, "TimeoutError", message)
            fields |= {"error": True, "error_type": "TimeoutError"}
            self._step("llm", MODEL_TIMEOUT_US, "ERROR", message, fields=fields, attributes=attributes)
            return
        read = PROMPT_TOKENS + _tokens(self.question) + sum(_tokens(d.article.text) for d in self.documents)
        cost = self._charge(read, written, model.input_price, model.output_price)
        fields |= {"input_tokens": read, "output_tokens": written, "cost_microusd": cost}
        fields["time_to_first_token_us"] = first_us
        self.first_token_us = self.at_us + first_us
        self.output, self.finish_reason = text, finish_reason
        attributes |= {"output": text, "finish_reason": finish_reason}
        self._step("llm", duration_us, fields=fields, attributes=attributes)
        self._check_output()

    def _write(self) -> tuple[str, str]:
        """Return what the model writes and why it stopped."""
        luck, arrival = self.luck, self.arrival
        if arrival.route == "support.summary":
            text = compose_summary(arrival.question, retrieve(arrival.question))
        elif luck.invent < self._share("hallucination_drift", arrival.model, BASE["invent"]):
            text = invent_answer(self.documents, seeded(f"{arrival.key}:invent"))
        else:
            text = compose_answer(self.question, self.documents, 2 if luck.length < 0.6 else 3)
        share = self._share("malformed_output", arrival.route, BASE["malform"])
        if luck.malform < share:
            return truncate(text, 0.3 + 0.5 * luck.malform / share), "length"
        return text, "stop"

    def _check_output(self) -> None:
        """Parse a summary, as the application does, and log what a person would want to know."""
        if self.finish_reason == "length":
            self._log("WARN", f"{self.arrival.model} stopped at the token limit", logger="support.llm")
            if self.arrival.route == "support.summary":
                self.failure = (502, "InvalidJSON", f"{self.arrival.model} wrote a summary that is not JSON")
        elif self.luck.log < 0.03:
            self._log("DEBUG", f"prompt {PROMPT_VERSION} served from the prefix cache", logger="support.llm")
        elif self.documents and not is_on_topic(self.documents):
            self._log("INFO", "question is off topic, answered with the refusal", logger="support.llm")

    def guardrail(self) -> None:
        action = "allow"
        if self.question in UNSAFE:
            action, self.output, self.finish_reason = "block", BLOCKED, "content_filter"
        self._step("guardrail", self._time("guardrail", 6), attributes={"name": "output-policy", "action": action})

    def _acting(self, kind: FaultKind) -> list[Fault]:
        return [fault for fault in self.faults if fault.kind == kind and fault.acts_at(self.arrival.ts_ns)]

    def _share(self, kind: FaultKind, target: str, base: float) -> float:
        return share_of(self.faults, kind, self.arrival.ts_ns, target, base=base) if self.faults else base

    def _time(self, stage: str, noise: int) -> int:
        return self._lognormal(MEDIAN_US[stage], noise)

    def _lognormal(self, median: float, noise: int) -> int:
        return round(median * math.exp(SPREAD * self.luck.noise[noise]))

    def _charge(self, read: int, written: int, input_price: float, output_price: float) -> int:
        cost = math.ceil(read * input_price + written * output_price)
        self.input_tokens += read
        self.output_tokens += written
        self.cost += cost
        return cost

    def _step(
        self,
        kind: str,
        duration_us: int,
        severity: Severity = "INFO",
        message: str = "",
        *,
        fields: dict[str, Any] | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        self.steps.append(
            Step(
                kind=kind,
                offset_us=self.at_us,
                duration_us=duration_us,
                severity=severity,
                message=message,
                fields=fields or {},
                attributes=attributes or {},
            )
        )
        self.stages[kind] = self.stages.get(kind, 0) + duration_us
        self.at_us += duration_us

    def _log(self, severity: Severity, message: str, *, logger: str) -> None:
        within = next((n for n in range(len(self.steps), 0, -1) if self.steps[n - 1].kind != "log"), 0)
        if logger == "support.handler":
            within = 0
        self.steps.append(
            Step(
                kind="log",
                offset_us=self.at_us,
                severity=severity,
                message=message,
                attributes={"logger": logger},
                within=within,
            )
        )


STAGES: Final[Mapping[str, tuple[Callable[[_Run], None], ...]]] = {
    "support.answer": (_Run.embed, _Run.retrieve, _Run.rerank, _Run.prompt, _Run.llm, _Run.guardrail),
    "support.search": (_Run.embed, _Run.retrieve, _Run.rerank),
    "support.summary": (_Run.prompt, _Run.llm, _Run.guardrail),
}
"""What each route goes through, until a stage fails."""


def _tokens(text: str) -> int:
    """Return how many tokens a text takes: about one for four characters."""
    return len(text) // 4 + 1
