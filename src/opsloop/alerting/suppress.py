"""A suppressor holds an alert's action back while something known is going on; the state and its history go on.

Objects
    The alert (firing or not), the suppressor's condition (on or off), and at most one running period.
Rule (AWS CloudWatch, "Composite alarm action suppression")
    1. When the alert changes and the suppressor is off, the action waits ``wait`` for it to appear. If it appears the
       wait is dropped and the action is held back.
    2. When the suppressor goes off, the action waits ``extension`` more, then follows the alert's *present* state.
    3. Any change of the alert drops a running period and starts a new ``wait``.
"""

from __future__ import annotations

import msgspec

__all__ = ["SuppressorState", "suppress"]


class SuppressorState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the next step needs to know."""

    firing: bool = False
    on: bool = False
    acted: bool = False
    """The state that the action last followed."""
    due_ns: int | None = None
    """When the running period ends."""


def suppress(
    state: SuppressorState, *, firing: bool, on: bool, now_ns: int, wait_ns: int = 0, extension_ns: int = 0
) -> tuple[SuppressorState, bool]:
    """Return the next state, and whether the action follows the alert at this moment.

    >>> suppress(SuppressorState(), firing=True, on=False, now_ns=2)
    (SuppressorState(firing=True, on=False, acted=True, due_ns=None), True)
    """
    due = state.due_ns
    if firing is not state.firing:
        due = None if on else now_ns + wait_ns
    elif on and not state.on:
        due = None
    elif state.on and not on:
        due = now_ns + extension_ns if firing is not state.acted else None
    acts = due is not None and now_ns >= due
    if acts:
        due = None
    return SuppressorState(firing=firing, on=on, acted=firing if acts else state.acted, due_ns=due), acts
