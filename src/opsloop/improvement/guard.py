"""Guard: a failure that happened, as a file that will notice if it happens again.

One YAML file per guard, in git beside the code: ``guards/<problem>/<id>.guard.yaml``. It holds the input, what must be
true of the answer (``case``), what must be true of any such traffic (``invariant``), and its *proof*: answers that are
known to be bad and good. A key that is not known is refused with its line; a team's own keys start with ``x-``.

::

    proposed ──▶ proved ──▶ active ◀──▶ quarantined
        └──────────┴──────────┴─────────────┴──────▶ retired

Capturing proposes, the proof proves, and a person's change of ``state`` in the file activates. A guard that passes
for a long time stays: only what is checked stays fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from opsloop.errors import ConfigError
from opsloop.event import Event
from opsloop.improvement.assertions import ASSERTION_TYPES, Answer, Assertion, check_assertions
from opsloop.improvement.document import dump_document, read_document

__all__ = [
    "GUARD_SUFFIX",
    "GUARD_TRANSITIONS",
    "AppliesTo",
    "Case",
    "Guard",
    "GuardFile",
    "GuardInput",
    "GuardRecord",
    "GuardRun",
    "GuardState",
    "Invariant",
    "Proof",
    "Provenance",
    "Redaction",
    "Rule",
    "SprtRule",
    "decode_guard",
    "encode_guard",
    "guard_event",
    "guard_record_from_events",
    "guard_schema",
    "load_guards",
    "read_guard",
    "survey_guards",
]

GUARD_SUFFIX: Final = ".guard.yaml"
GuardState = Literal["proposed", "proved", "active", "quarantined", "retired"]
Mode = Literal["selftest", "frozen", "live"]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]
Open = Annotated[float, msgspec.Meta(gt=0, lt=1)]

GUARD_TRANSITIONS: Final[Mapping[str, frozenset[str]]] = {
    "": frozenset({"proposed"}),
    "proposed": frozenset({"proved", "retired"}),
    "proved": frozenset({"active", "retired"}),
    "active": frozenset({"quarantined", "retired"}),
    "quarantined": frozenset({"active", "retired"}),
    "retired": frozenset(),
}


class _Strict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    pass


class Redaction(_Strict, frozen=True, kw_only=True):
    """What was taken out before the file was written: never the values, only what each token stands for."""

    policy: str = ""
    tokens: dict[str, str] = {}


class Provenance(_Strict, frozen=True, kw_only=True):
    """Where the guard comes from."""

    incident: str = ""
    request_id: str = ""
    captured_at: str = ""
    by: str = ""
    fingerprint: str = ""
    redaction: Redaction = Redaction()


class GuardInput(_Strict, frozen=True, kw_only=True):
    """What is asked."""

    vars: dict[str, Any]


class Case(_Strict, frozen=True, kw_only=True, rename={"assertions": "assert"}):
    """What must be true of the answer to this input."""

    assertions: tuple[Assertion, ...]


class AppliesTo(_Strict, frozen=True, kw_only=True):
    """Which traffic an invariant is about; an empty field is any."""

    route: str = ""
    stage: str = ""


class Invariant(_Strict, frozen=True, kw_only=True, rename={"assertions": "assert"}):
    """What must be true of every answer of matching traffic."""

    assertions: tuple[Assertion, ...]
    applies_to: AppliesTo = AppliesTo()


class Proof(_Strict, frozen=True, kw_only=True):
    """Answers that are known to be wrong and right."""

    bad: tuple[Answer, ...] = ()
    good: tuple[Answer, ...] = ()


class SprtRule(_Strict, frozen=True, kw_only=True):
    """The two pass probabilities that a live run tells apart."""

    good: Open = 0.95
    bad: Open = 0.5


class Rule(_Strict, frozen=True, kw_only=True):
    """How a live run decides."""

    sprt: SprtRule = SprtRule()


class GuardRun(_Strict, frozen=True, kw_only=True):
    """How the guard is run when nothing else is asked for."""

    mode: Mode = "selftest"
    rule: Rule = Rule()
    max_runs: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 25


class Guard(_Strict, frozen=True, kw_only=True, rename={"format": "schema"}):
    """One guard file."""

    format: Literal["guard/v1"]
    id: Name
    problem: Name
    input: GuardInput
    case: Case
    title: str = ""
    severity: Literal["blocking", "warning", "info"] = "blocking"
    state: Literal["proposed", "active", "quarantined", "retired"] = "active"
    owner: str = ""
    review_by: str = ""
    """When someone should look at it again; nothing is ever deleted by a date."""
    provenance: Provenance = Provenance()
    invariant: Invariant | None = None
    proof: Proof = Proof()
    run: GuardRun = GuardRun()
    extra: dict[str, Any] = {}
    """The ``x-`` keys of the file, kept as they are."""


class GuardFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file below the guards' folder: a guard, or why it cannot be read."""

    path: str
    guard: Guard | None
    error: str = ""


class GuardRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A guard's life as the stream tells it."""

    id: str
    problem_id: str
    steps: tuple[tuple[int, GuardState], ...]
    """(when, state), oldest first."""

    @property
    def state(self) -> str:
        """The state now; empty when it was never proposed."""
        return self.steps[-1][1] if self.steps else ""

    def state_at(self, ts_ns: int) -> str:
        """Return the state at a moment; empty before it was proposed."""
        return next((state for when, state in reversed(self.steps) if when <= ts_ns), "")

    @property
    def activated_ns(self) -> int | None:
        """When it first became active."""
        return next((when for when, state in self.steps if state == "active"), None)


def decode_guard(text: str, *, name: str = "guard") -> Guard:
    """Read a guard from YAML. Raises :class:`ConfigError` with the file's name and line.

    Whether the proof holds is another question: :func:`opsloop.improvement.proof.prove` answers it.
    """
    document = read_document(text, name=name)
    body = dict(document.value)
    extra = {key: body.pop(key) for key in list(body) if key.startswith("x-")}
    if "extra" in body:
        raise ConfigError(f"{document.place('$.extra')}: unknown key 'extra'", fix="start your own keys with x-")
    try:
        guard = msgspec.convert({**body, "extra": extra}, Guard)
    except msgspec.ValidationError as cause:
        raise document.error(str(cause)) from cause
    for path, assertions in _assertion_lists(guard):
        try:
            check_assertions(assertions, where=path)
        except ConfigError as cause:
            raise ConfigError(f"{document.place('$.' + path)}: {cause.message}", fix=cause.fix) from cause
    return guard


def _assertion_lists(guard: Guard) -> list[tuple[str, Sequence[Assertion]]]:
    lists: list[tuple[str, Sequence[Assertion]]] = [("case.assert", guard.case.assertions)]
    if guard.invariant is not None:
        lists.append(("invariant.assert", guard.invariant.assertions))
    return lists


def encode_guard(guard: Guard, *, schema_path: str = "../../docs/guard.schema.json") -> str:
    """Return the guard as YAML; :func:`decode_guard` reads the same guard back."""
    body = msgspec.to_builtins(guard)
    body.update(body.pop("extra", {}))
    return f"# yaml-language-server: $schema={schema_path}\n{dump_document(body)}"


def read_guard(path: str | Path) -> Guard:
    """Read one guard file; see :func:`decode_guard`."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"cannot read {path}: {cause}", fix="check the path") from cause
    return decode_guard(text, name=str(path))


def load_guards(folder: str | Path) -> dict[Path, Guard]:
    """Read every guard file below a folder, sorted by path; a folder that is not there holds none.

    Raises :class:`ConfigError` for the first wrong file and for two guards of one id: results are known by id.
    """
    guards: dict[Path, Guard] = {}
    homes: dict[str, Path] = {}
    for path in _guard_paths(folder):
        guard = read_guard(path)
        if guard.id in homes:
            raise ConfigError(f"{path}: the id {guard.id!r} is taken by {homes[guard.id]}", fix="give it its own id")
        homes[guard.id] = path
        guards[path] = guard
    return guards


def survey_guards(folder: str | Path) -> list[GuardFile]:
    """Return every file of :func:`load_guards`, a wrong one with its error: one bad file must not hide the others."""
    files: list[GuardFile] = []
    for path in _guard_paths(folder):
        try:
            files.append(GuardFile(path=str(path), guard=read_guard(path)))
        except ConfigError as cause:
            files.append(GuardFile(path=str(path), guard=None, error=str(cause)))
    return files


def _guard_paths(folder: str | Path) -> list[Path]:
    return sorted(Path(folder).rglob(f"*{GUARD_SUFFIX}"))


def guard_schema() -> dict[str, Any]:
    """Return the JSON Schema of a guard file, with the names of all assertions and room for ``x-`` keys."""
    schema = msgspec.json.schema(Guard)
    definitions = schema["$defs"]
    guard = definitions["Guard"]
    del guard["properties"]["extra"]
    guard["patternProperties"] = {"^x-": {}}
    definitions["Assertion"]["properties"]["type"]["enum"] = [
        prefix + name for prefix in ("", "not-") for name in ASSERTION_TYPES
    ]
    for owner in ("Case", "Invariant"):
        definitions[owner]["properties"]["assert"]["minItems"] = 1
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "opsloop guard, version 1", **schema}


def guard_event(guard_id: str, problem_id: str, state: GuardState, *, ts_ns: int, step: int = 0) -> Event:
    """Return the event of a guard's transition. ``step`` counts its earlier ones, so that a second quarantine counts.

    >>> guard_event("G-1", "P-1", "active", ts_ns=5).message
    'G-1 of P-1 is active'
    """
    return Event(
        ts_ns=ts_ns,
        event="guard",
        event_id=f"guard:{guard_id}:{step}:{state}",
        message=f"{guard_id} of {problem_id} is {state}",
        attributes={"guard_id": guard_id, "problem_id": problem_id, "state": state},
    )


def guard_record_from_events(events: Sequence[Event]) -> GuardRecord:
    """Fold all ``guard`` events of one guard; a step that the table does not allow changes nothing."""
    order = list(GUARD_TRANSITIONS)

    def key(event: Event) -> tuple[int, int, str]:
        state = event.attributes.get("state", "")
        return event.ts_ns, order.index(state) if state in order else 0, event.event_id

    ordered = sorted(events, key=key)
    steps: list[tuple[int, GuardState]] = []
    for event in ordered:
        state = event.attributes.get("state", "")
        if state in GUARD_TRANSITIONS[steps[-1][1] if steps else ""]:
            steps.append((event.ts_ns, state))
    first = ordered[0].attributes
    return GuardRecord(id=str(first["guard_id"]), problem_id=str(first.get("problem_id", "")), steps=tuple(steps))
