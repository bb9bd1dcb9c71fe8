"""Gate: all guards over one change, with verdicts that can be believed.

Three modes, recorded in every result, because they check different things:

* ``selftest``: the assertions over the recorded answers. Checks the guard; offline; can only pass or be an error.
* ``frozen``: the application's code with replayed model answers. Checks code; one run is exact.
* ``live``: the application with its real model. Checks code, prompt and model; decided by :class:`Sprt`.

Nothing passes vacuously: a guard whose proof does not hold, an application that raises and a number that was not
measured are errors, and a run in which no guard ran says so. Exit codes: 0 pass, 1 confirmed regression, 2 usage or
configuration (raised as :class:`ConfigError`), 3 could not evaluate, 4 inconclusive under ``strict``, 5 nothing ran.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from opsloop.errors import ConfigError
from opsloop.event import Event
from opsloop.improvement.assertions import Answer, Judgement, UnmeasuredError, judge
from opsloop.improvement.fingerprint import Signature, fingerprint
from opsloop.improvement.guard import Guard, Mode, encode_guard, load_guards
from opsloop.improvement.proof import ProofResult, prove
from opsloop.improvement.sprt import Sprt

__all__ = [
    "GateReport",
    "GuardResult",
    "Target",
    "Verdict",
    "guard_set",
    "landed_event",
    "load_target",
    "run_guard",
    "run_guards",
]

Target = Callable[[Mapping[str, Any]], str | Mapping[str, Any] | Answer]
"""The application: takes a guard's ``input.vars`` and returns its answer."""
Verdict = Literal["pass", "fail", "inconclusive", "error", "skipped"]

MAX_ERRORS: Final = 3
"""A live run is given up after this many answers that could not be judged."""
VERDICTS: Final = ("fail", "error", "inconclusive", "skipped", "pass")


class GuardResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one guard says of one change."""

    guard_id: str
    problem_id: str
    severity: str
    mode: Mode
    verdict: Verdict
    n: int
    """Answers that were judged."""
    passes: int
    reason: str
    fingerprint: str = ""
    """Of the failure: the problem's own when the same assertion fails as on the proof's bad answers."""
    matches_proof: bool = False
    baseline_verdict: str = ""
    """What the same guard says of the baseline; empty when that was not asked."""
    power: float | None = None
    """Live: the chance to block a change that passes as seldom as ``bad``."""
    path: str = ""


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """One gate run."""

    results: tuple[GuardResult, ...]
    guard_set: str
    change_id: str = ""
    strict: bool = False

    def count(self, verdict: str) -> int:
        """Return how many guards have a verdict."""
        return sum(result.verdict == verdict for result in self.results)

    @property
    def exit_code(self) -> int:
        """What the process should end with; see the top of this file."""
        blocking = {result.verdict for result in self.results if result.severity == "blocking"}
        if "fail" in blocking:
            return 1
        if self.count("error"):
            return 3
        if self.strict and self.count("inconclusive"):
            return 4
        return 5 if self.count("skipped") == len(self.results) else 0

    def text(self) -> str:
        """Return the report for people: one line per guard, worst first, and a summary."""
        ordered = sorted(self.results, key=lambda result: (VERDICTS.index(result.verdict), result.guard_id))
        width = max((len(result.guard_id) for result in ordered), default=0)
        lines = [f"{_label(r):<13}{r.guard_id:<{width}}  {r.mode:<8}  {_said(r)}" for r in ordered]
        counts = ", ".join(f"{self.count(verdict)} {verdict}" for verdict in VERDICTS if self.count(verdict))
        lines.append(f"{len(self.results)} guards: {counts or 'none found'} (guard set {self.guard_set})")
        return "\n".join(lines)

    def events(self, *, ts_ns: int) -> list[Event]:
        """Return one ``gate`` event per guard, for the stream; the same run gives the same ids."""
        return [
            Event(
                ts_ns=ts_ns,
                event="gate",
                event_id=f"gate:{self.change_id}:{self.guard_set}:{ts_ns}:{result.guard_id}",
                severity="WARN" if result.verdict in {"fail", "error"} else "INFO",
                message=f"{result.guard_id} on {self.change_id or 'no change'}: {result.verdict}, {result.reason}",
                attributes={
                    "phase": "result",
                    "change_id": self.change_id,
                    "guard_set": self.guard_set,
                    **{
                        key: value for key, value in msgspec.to_builtins(result).items() if key not in {"power", "path"}
                    },
                },
            )
            for result in self.results
        ]


def _label(result: GuardResult) -> str:
    return result.verdict.upper() if result.severity == "blocking" else f"{result.verdict} ({result.severity[:4]})"


def _said(result: GuardResult) -> str:
    runs = f"{result.passes} of {result.n} runs passed: " if result.mode == "live" and result.n else ""
    baseline = f" (baseline: {result.baseline_verdict})" if result.baseline_verdict else ""
    power = f" (power {result.power:.2f})" if result.power is not None else ""
    return f"{runs}{result.reason}{baseline}{power}"


def landed_event(change_id: str, *, ts_ns: int, release: str = "") -> Event:
    """Return the event that a change was merged; a ``deploy`` event that names the change says the same."""
    return Event(
        ts_ns=ts_ns,
        event="gate",
        event_id=f"gate:{change_id}:landed:{ts_ns}",
        release=release,
        message=f"{change_id} landed",
        attributes={"phase": "landed", "change_id": change_id},
    )


def load_target(name: str) -> Target:
    """Return the application that ``module:function`` names; the working directory can be imported from.

    Raises :class:`ConfigError` when there is no such function.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        target = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as cause:
        raise ConfigError(f"no target {name!r}: {cause}", fix="write module:function, importable from here") from cause
    if not callable(target):
        raise ConfigError(f"the target {name!r} cannot be called", fix="name a function of one argument")
    return target  # type: ignore[no-any-return]


def guard_set(guards: Iterable[Guard]) -> str:
    """Return a short hash of the guards that count: two runs can be compared when it is equal."""
    texts = sorted(encode_guard(guard) for guard in guards if guard.state == "active")
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def run_guards(
    folder: str | Path,
    *,
    mode: Mode | None = "selftest",
    target: Target | None = None,
    baseline: Target | None = None,
    change_id: str = "",
    suite_alpha: float = 0.05,
    strict: bool = False,
    select: str = "",
) -> GateReport:
    """Run the guards below a folder over a change and return the report.

    ``mode=None`` runs each guard in the mode that it declares. ``target`` is the application with the change,
    ``baseline`` the one without: it is asked where the change fails, to tell what was broken before. ``select`` keeps
    guards whose id or problem contains it. ``suite_alpha`` is the chance that a harmless change is blocked by any of
    the blocking live guards; each gets its share. Raises :class:`ConfigError` for a wrong file or a missing target.
    """
    found = load_guards(folder)
    chosen = {path: guard for path, guard in found.items() if select in guard.id or select in guard.problem}
    live = [g for g in chosen.values() if (mode or g.run.mode) == "live" and g.state == "active"]
    blocking = sum(guard.severity == "blocking" for guard in live)
    results = []
    for path, guard in chosen.items():
        result = run_guard(
            guard,
            mode=mode or guard.run.mode,
            target=target,
            baseline=baseline,
            alpha=suite_alpha / max(1, blocking),
        )
        results.append(msgspec.structs.replace(result, path=str(path)))
    return GateReport(results=tuple(results), guard_set=guard_set(found.values()), change_id=change_id, strict=strict)


def run_guard(
    guard: Guard,
    *,
    mode: Mode = "selftest",
    target: Target | None = None,
    baseline: Target | None = None,
    alpha: float = 0.01,
) -> GuardResult:
    """Run one guard. A guard that is not active is skipped; one whose proof does not hold is an error."""
    if guard.state != "active":
        return _result(guard, mode, "skipped", reason=f"it is {guard.state}")
    proof = prove(guard)
    if not proof.proved:
        return _result(guard, mode, "error", reason=f"{proof.outcome}: {proof.reason}")
    if mode == "selftest":
        n = len(guard.proof.bad) + len(guard.proof.good)
        return _result(guard, mode, "pass", n=n, passes=n, reason=proof.reason)
    if target is None:
        raise ConfigError(f"{guard.id}: a {mode} run needs the application", fix="give --target module:function")
    outcome = _ask(guard, mode, target, alpha, proof)
    if outcome.verdict != "fail" or baseline is None:
        return outcome
    before = _ask(guard, mode, baseline, alpha, proof)
    return msgspec.structs.replace(outcome, baseline_verdict=before.verdict)


def _ask(guard: Guard, mode: Mode, target: Target, alpha: float, proof: ProofResult) -> GuardResult:
    if mode == "frozen":
        try:
            judgement = judge(guard.case.assertions, _answer(target, guard))
        except _NotJudged as cause:
            return _result(guard, mode, "error", reason=str(cause))
        except UnmeasuredError as cause:
            return _result(guard, mode, "error", reason=cause.message)
        return _judged(guard, mode, "pass" if judgement.passed else "fail", [judgement], proof)
    return _ask_live(guard, target, alpha, proof)


def _ask_live(guard: Guard, target: Target, alpha: float, proof: ProofResult) -> GuardResult:
    sides = guard.run.rule.sprt
    rule = Sprt(good=sides.good, bad=sides.bad, alpha=alpha, max_runs=guard.run.max_runs)
    judgements: list[Judgement] = []
    errors: list[str] = []
    decision = "continue"
    while decision == "continue":
        try:
            judgements.append(judge(guard.case.assertions, _answer(target, guard)))
        except (_NotJudged, UnmeasuredError) as cause:
            errors.append(str(cause))
            if len(errors) == MAX_ERRORS:
                return _result(guard, "live", "error", n=len(judgements), reason=errors[0])
            continue
        passes = sum(judgement.passed for judgement in judgements)
        decision = rule.decide(passes, len(judgements) - passes)
    verdict: Verdict = "pass" if decision == "pass" else "fail" if decision == "fail" else "inconclusive"
    result = _judged(guard, "live", verdict, judgements, proof)
    return msgspec.structs.replace(result, power=rule.outlook(sides.bad).block)


class _NotJudged(Exception):  # noqa: N818 - it is an outcome, not a fault of ours
    """The application gave no answer that could be judged."""


def _answer(target: Target, guard: Guard) -> Answer:
    try:
        given = target(dict(guard.input.vars))
    # Foreign code: whatever it raises means that nothing was evaluated, and is never a pass.
    except Exception as cause:
        raise _NotJudged(f"the application raised {type(cause).__name__}: {cause}") from cause
    if isinstance(given, Answer):
        return given
    try:
        return Answer(output=given) if isinstance(given, str) else msgspec.convert(given, Answer)
    except msgspec.ValidationError as cause:
        raise _NotJudged(f"the application returned no answer: {cause}") from cause


def _judged(guard: Guard, mode: Mode, verdict: Verdict, judgements: list[Judgement], proof: ProofResult) -> GuardResult:
    passes = sum(judgement.passed for judgement in judgements)
    failures = [judgement for judgement in judgements if not judgement.passed]
    result = _result(guard, mode, verdict, n=len(judgements), passes=passes, reason="every assertion holds")
    if not failures:
        return result
    matches = any(proof.red & set(judgement.failed) for judgement in failures)
    own = guard.provenance.fingerprint or fingerprint(Signature(signal=f"guard:{guard.id}"))
    return msgspec.structs.replace(
        result,
        reason=failures[0].reasons[0],
        matches_proof=matches,
        fingerprint=own if matches else _foreign(guard, failures[0]),
    )


def _foreign(guard: Guard, judgement: Judgement) -> str:
    """Return the fingerprint of a failure that the guard caught without having been made for it."""
    types = "+".join(guard.case.assertions[position].type for position in judgement.failed)
    return fingerprint(
        Signature(
            stage="generate",
            failure_class="incorrect_final_output",
            signal=f"guard:{guard.id}",
            message=f"{types}: {judgement.reasons[0]}",
        )
    )


def _result(guard: Guard, mode: Mode, verdict: Verdict, *, reason: str, n: int = 0, passes: int = 0) -> GuardResult:
    return GuardResult(
        guard_id=guard.id,
        problem_id=guard.problem,
        severity=guard.severity,
        mode=mode,
        verdict=verdict,
        n=n,
        passes=passes,
        reason=reason,
    )
