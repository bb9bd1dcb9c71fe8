"""The life of one alert: a pure machine from verdicts to transitions.

::

             BREACH                 BREACH for for_seconds         OK
    inactive ──────▶ pending ─────────────────────────▶ firing ──────▶ recovering
       ▲  ▲             │                                  ▲               │   │
       │  └──── OK ─────┘                                  └──── BREACH ───┘   │
       └──────────────── OK for clear_for_seconds, at the earliest ────────────┘
                         min_firing_seconds after it fired (resolved)

    NO_DATA, INSUFFICIENT: every state is kept (missing data is not recovery) until expire_seconds have passed.

``for_seconds = 0`` goes from inactive to firing in one evaluation, ``clear_for_seconds = 0`` from firing to resolved.
``clear_for_seconds`` is what Prometheus calls ``keep_firing_for``; with the other knobs off the machine equals that of
Prometheus exactly, where ``recovering`` is still shown as firing (``prometheus/rules/alerting.go``, ``Eval``).

An *episode* runs from the first breach to the resolve. Its id is the time at which it began, with the key; a breach
within ``reopen_seconds`` of the resolve reopens the same episode. Fires and resolves beyond ``flap_changes`` within
``flap_seconds`` are flapping: announced once as firing, until no change was seen for ``flap_seconds``.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from opsloop.clock import NANOSECONDS, utc
from opsloop.verdict import Verdict

__all__ = ["AlertState", "Phase", "Timing", "Transition", "announced", "step"]


class Phase(StrEnum):
    """Where an alert stands."""

    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"
    RECOVERING = "recovering"


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """The knobs of one rule, in seconds; zero turns each off, except ``expire_seconds``."""

    for_seconds: float = 0.0
    clear_for_seconds: float = 0.0
    min_firing_seconds: float = 0.0
    expire_seconds: float = 86_400.0
    reopen_seconds: float = 0.0
    cool_down_seconds: float = 0.0
    flap_changes: int = 0
    flap_seconds: float = 3600.0


class AlertState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything that the next step needs to know."""

    phase: Phase = Phase.INACTIVE
    episode: str = ""
    changes: int = 0
    """How many transitions the episode has had: with its id, a transition's identity."""
    active_at_ns: int = 0
    """When the condition became true: ``for_seconds`` count from here."""
    fired_at_ns: int | None = None
    resolved_at_ns: int | None = None
    quiet_since_ns: int | None = None
    """The first OK since it last breached."""
    silent_since_ns: int | None = None
    """The first evaluation without a usable verdict since the last one with."""
    announce_at_ns: int = 0
    """The cool-down ends here: no page before."""
    turns_ns: tuple[int, ...] = ()
    """When it fired and resolved lately, for flap counting."""
    flapping: bool = False


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """One change of phase. ``state`` is ``resolved`` where a firing alert became inactive, else the new phase."""

    at_ns: int
    episode: str
    number: int
    before: Phase
    after: Phase
    state: str
    reason: str


def step(
    state: AlertState, verdict: Verdict, now_ns: int, *, timing: Timing, key: str = ""
) -> tuple[AlertState, Transition | None]:
    """Return the next state and the transition that led there, if there was one.

    >>> state, change = step(AlertState(), Verdict.BREACH, 60 * 10**9, timing=Timing())
    >>> state.phase, change.episode, change.reason
    (<Phase.FIRING: 'firing'>, '1970-01-01T00:01:00.000Z', 'breach')
    >>> step(state, Verdict.NO_DATA, 120 * 10**9, timing=Timing())[1] is None
    True
    """
    if state.flapping and _past(state.turns_ns[-1], timing.flap_seconds, now_ns):
        state = msgspec.structs.replace(state, flapping=False, turns_ns=())
    if verdict is Verdict.BREACH:
        state = msgspec.structs.replace(state, silent_since_ns=None, quiet_since_ns=None)
        return _breach(state, now_ns, timing, key)
    if verdict is Verdict.OK:
        state = msgspec.structs.replace(state, silent_since_ns=None)
        return _quiet(state, now_ns, timing)
    if state.phase is Phase.INACTIVE:
        return state, None
    since = now_ns if state.silent_since_ns is None else state.silent_since_ns
    state = msgspec.structs.replace(state, silent_since_ns=since)
    if _past(since, timing.expire_seconds, now_ns):
        return _end(state, now_ns, timing, f"expired: no clear verdict for {timing.expire_seconds:g} s")
    return state, None


def _past(since_ns: int, seconds: float, now_ns: int) -> bool:
    return now_ns - since_ns >= round(seconds * NANOSECONDS)


def _breach(state: AlertState, now_ns: int, timing: Timing, key: str) -> tuple[AlertState, Transition | None]:
    if state.phase is Phase.FIRING:
        return state, None
    if state.phase is Phase.RECOVERING:
        return _move(state, Phase.FIRING, now_ns, "breached again before it was clear")
    reason = "breach"
    if state.phase is Phase.INACTIVE:
        reopened = state.resolved_at_ns is not None and (
            now_ns - state.resolved_at_ns <= round(timing.reopen_seconds * NANOSECONDS)
        )
        if reopened and timing.reopen_seconds:
            state, reason = msgspec.structs.replace(state, active_at_ns=now_ns), "reopened"
        else:
            episode = f"{utc(now_ns)}/{key}" if key else utc(now_ns)
            state = msgspec.structs.replace(state, active_at_ns=now_ns, episode=episode, changes=0)
    if not _past(state.active_at_ns, timing.for_seconds, now_ns):
        if state.phase is Phase.PENDING:
            return state, None
        return _move(state, Phase.PENDING, now_ns, f"{reason}; it fires after {timing.for_seconds:g} s of it")
    if state.phase is Phase.PENDING and timing.for_seconds:
        reason = f"breach for {timing.for_seconds:g} s"
    last = state.fired_at_ns
    announce = now_ns if last is None else max(now_ns, last + round(timing.cool_down_seconds * NANOSECONDS))
    state = msgspec.structs.replace(_turn(state, now_ns, timing), fired_at_ns=now_ns, announce_at_ns=announce)
    return _move(state, Phase.FIRING, now_ns, f"{reason}; flapping" if state.flapping else reason)


def _quiet(state: AlertState, now_ns: int, timing: Timing) -> tuple[AlertState, Transition | None]:
    if state.phase is Phase.INACTIVE:
        return state, None
    if state.phase is Phase.PENDING:
        return _move(state, Phase.INACTIVE, now_ns, f"clear before {timing.for_seconds:g} s had passed")
    since = now_ns if state.quiet_since_ns is None else state.quiet_since_ns
    state = msgspec.structs.replace(state, quiet_since_ns=since)
    clear = _past(since, timing.clear_for_seconds, now_ns)
    if clear and _past(state.fired_at_ns or 0, timing.min_firing_seconds, now_ns):
        return _end(state, now_ns, timing, "recovered")
    if state.phase is Phase.RECOVERING:
        return state, None
    return _move(state, Phase.RECOVERING, now_ns, f"clear; resolved after {timing.clear_for_seconds:g} s of it")


def _end(state: AlertState, now_ns: int, timing: Timing, reason: str) -> tuple[AlertState, Transition]:
    """Close the episode, whatever phase it is in."""
    if state.phase is not Phase.PENDING:
        state = msgspec.structs.replace(_turn(state, now_ns, timing), resolved_at_ns=now_ns)
    return _move(msgspec.structs.replace(state, silent_since_ns=None), Phase.INACTIVE, now_ns, reason)


def _turn(state: AlertState, now_ns: int, timing: Timing) -> AlertState:
    """Count a fire or a resolve against flapping."""
    if not timing.flap_changes:
        return state
    recent = (*(at for at in state.turns_ns if not _past(at, timing.flap_seconds, now_ns)), now_ns)
    return msgspec.structs.replace(state, turns_ns=recent, flapping=state.flapping or len(recent) > timing.flap_changes)


def _move(state: AlertState, after: Phase, now_ns: int, reason: str) -> tuple[AlertState, Transition]:
    resolved = after is Phase.INACTIVE and state.phase is not Phase.PENDING
    change = Transition(
        at_ns=now_ns,
        episode=state.episode,
        number=state.changes + 1,
        before=state.phase,
        after=after,
        state="resolved" if resolved else after.value,
        reason=reason,
    )
    return msgspec.structs.replace(state, phase=after, changes=state.changes + 1), change


def announced(state: AlertState, now_ns: int) -> tuple[bool, str]:
    """Return whether the alert is to be announced as firing, and what holds its present phase back, if anything.

    Holding back touches the action only, never the state or its history.
    """
    firing = state.phase in {Phase.FIRING, Phase.RECOVERING}
    if state.flapping:
        return True, "" if firing else "flapping: announced as firing until it is stable"
    if firing and now_ns < state.announce_at_ns:
        return False, f"cool-down until {utc(state.announce_at_ns)}"
    return firing, ""
