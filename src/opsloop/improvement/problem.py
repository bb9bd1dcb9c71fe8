"""Problem: one cause of failures, over all the incidents that it ever made.

::

    open ──▶ fixed ──▶ open        every incident of it is over ──▶ it came back
     │  ▲                 │
     ▼  └─────────────────┤        a person decides
    accepted, obsolete ◀──┘

``open`` and ``fixed`` follow from the incidents and are never set by hand. A person may accept a problem, call it
obsolete, or merge it into another one; each is a ``problem`` event, so it is logged and can be taken back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from opsloop.errors import InputError
from opsloop.event import Event

__all__ = ["PROBLEM_TRANSITIONS", "Fix", "Problem", "ProblemState", "problem_event", "problem_id"]

ProblemState = Literal["open", "fixed", "accepted", "obsolete"]

PROBLEM_TRANSITIONS: Final[Mapping[ProblemState, frozenset[ProblemState]]] = {
    "open": frozenset({"fixed", "accepted", "obsolete"}),
    "fixed": frozenset({"open", "accepted", "obsolete"}),
    "accepted": frozenset({"open", "obsolete"}),
    "obsolete": frozenset({"open"}),
}


class Fix(msgspec.Struct, frozen=True, kw_only=True):
    """What was said to end a problem."""

    resolved_at_ns: int
    """When the incident was resolved."""
    release: str = ""
    """The release that carries the fix; empty when nobody named one."""
    commit: str = ""
    deployed_at_ns: int | None = None
    """When that release first went live; ``None`` while it has not, or when no release was named."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One cause. Its incidents point to it; it is never re-opened by hand and never deleted."""

    id: str
    title: str
    fingerprints: tuple[str, ...]
    """Every fingerprint that it was ever seen under, sorted."""
    state: ProblemState = "open"
    fix: Fix | None = None
    merged_into: str = ""
    """The problem that a person says it is the same as."""
    incident_ids: tuple[str, ...] = ()
    """Its incidents in the order of their episodes."""


def problem_id(fingerprint: str) -> str:
    """Return the id of the problem that a fingerprint first opens: the same everywhere.

    >>> problem_id("fp1:2cdfd497ce94125f")
    'P-2cdfd497'
    """
    _, _, digest = fingerprint.partition(":")
    if len(digest) < 8:
        digest = hashlib.sha256(fingerprint.encode()).hexdigest()
    return f"P-{digest[:8]}"


def problem_event(
    problem_id: str,
    *,
    ts_ns: int,
    by: str,
    merged_into: str | None = None,
    state: Literal["open", "accepted", "obsolete"] | None = None,
) -> Event:
    """Return the event of a person's decision about a problem.

    ``merged_into`` names the problem that it is the same as, and ``""`` takes a merge back. ``state`` accepts it,
    calls it obsolete, or opens it again. Raises :class:`InputError` when neither is given or it is merged into itself.

    >>> problem_event("P-2", ts_ns=5, by="ana", merged_into="P-1").message
    'P-2 merged into P-1 by ana'
    """
    if merged_into is None and state is None:
        raise InputError(f"nothing is decided about {problem_id}", fix="give merged_into or state")
    if merged_into == problem_id:
        raise InputError(f"{problem_id} cannot be merged into itself", fix="name the other problem")
    attributes: dict[str, Any] = {"problem_id": problem_id, "by": by}
    said: list[str] = []
    if merged_into is not None:
        attributes["merged_into"] = merged_into
        said.append(f"merged into {merged_into}" if merged_into else "stands alone again")
    if state is not None:
        attributes["state"] = state
        said.append(f"is {state}")
    return Event(
        ts_ns=ts_ns,
        event="problem",
        event_id=f"problem:{problem_id}:{ts_ns}:{merged_into}:{state}",
        message=f"{problem_id} {' and '.join(said)} by {by}",
        attributes=attributes,
    )
