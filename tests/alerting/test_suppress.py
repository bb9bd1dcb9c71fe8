"""The suppressor's six vectors, and what always holds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.alerting.suppress import SuppressorState, suppress

VECTORS = {
    "the suppressor stays quiet": ({2: "C"}, [(4, True)]),
    "it appears while waiting": ({2: "C", 3: "S"}, []),
    "the alert changes back while waiting": ({2: "C", 3: "c"}, [(5, False)]),
    "it is on already": ({1: "S", 2: "C"}, []),
    "it clears": ({2: "C", 3: "S", 6: "s"}, [(9, True)]),
    "the alert changes during the extension": ({2: "C", 3: "S", 6: "s", 7: "c"}, [(9, False)]),
}


@pytest.mark.parametrize(("events", "expected"), VECTORS.values(), ids=VECTORS)
def test_the_vectors(events, expected):
    """With wait 2 and extension 3 the action follows the alert at exactly these times, and in this state."""
    state, acts = SuppressorState(), []
    for now in range(14):
        letter = events.get(now, "")
        firing = {"C": True, "c": False}.get(letter, state.firing)
        on = {"S": True, "s": False}.get(letter, state.on)
        state, acted = suppress(state, firing=firing, on=on, now_ns=now, wait_ns=2, extension_ns=3)
        if acted:
            acts.append((now, state.acted))
    assert acts == expected


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30), st.integers(0, 4), st.integers(0, 4))
def test_nothing_acts_while_it_is_on_and_everything_after_it_is_quiet(story, wait, extension):
    """While it is on nothing acts; once all is quiet for wait + extension, the action has followed the alert."""
    state, now = SuppressorState(), 0
    for now, (firing, on) in enumerate(story):
        state, acted = suppress(state, firing=firing, on=on, now_ns=now, wait_ns=wait, extension_ns=extension)
        assert not (on and acted)
    for later in range(now + 1, now + 2 + wait + extension):
        state, _ = suppress(state, firing=state.firing, on=False, now_ns=later, wait_ns=wait, extension_ns=extension)
    assert state.acted is state.firing
