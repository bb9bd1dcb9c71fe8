"""The life cycle: Prometheus exactly, then what we add to it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.alerting.lifecycle import AlertState, Phase, Timing, announced, step
from opsloop.verdict import Verdict
from tests.alerting.readings import SECOND, START

MINUTE = 60 * SECOND
B, OK, ND, IN = Verdict.BREACH, Verdict.OK, Verdict.NO_DATA, Verdict.INSUFFICIENT


def run(verdicts, timing, *, every=MINUTE, state=None):
    """Step through verdicts and return (final state, [(minute, state text, reason)])."""
    state, changes = state or AlertState(), []
    for at, verdict in enumerate(verdicts):
        state, change = step(state, verdict, START + at * every, timing=timing)
        if change:
            changes.append((at, change.state, change.reason))
    return state, changes


def prometheus(truths, *, for_ns, keep_ns, times, in_for=lambda age, limit: age >= limit,
               in_keep=lambda age, limit: age < limit):  # fmt: skip
    """Run the rules of rules/alerting.go, Eval, in plain Python: the state after each evaluation."""
    state, active, keep_since, found = "inactive", 0, None, []
    for now, true in zip(times, truths, strict=True):
        if true:
            keep_since = None
            if state == "inactive":
                state, active = "pending", now
        elif state == "pending":
            state = "inactive"
        elif state == "firing":
            keep_since = now if keep_since is None else keep_since
            if not (keep_ns and in_keep(now - keep_since, keep_ns)):
                state, keep_since = "inactive", None
        if true and state == "pending" and in_for(now - active, for_ns):
            state = "firing"
        found.append(state)
    return found


def ours(truths, *, for_ns, keep_ns, times):
    """Run our machine without further hysteresis; recovering is shown as firing."""
    timing = Timing(for_seconds=for_ns / SECOND, clear_for_seconds=keep_ns / SECOND)
    state, found = AlertState(), []
    for now, true in zip(times, truths, strict=True):
        state, _ = step(state, B if true else OK, now, timing=timing)
        found.append("firing" if state.phase is Phase.RECOVERING else state.phase.value)
    return found


series = st.lists(st.tuples(st.booleans(), st.integers(1, 3)), min_size=1, max_size=80)


@settings(max_examples=100, deadline=None)
@given(series=series, for_minutes=st.integers(0, 6), keep_minutes=st.integers(0, 10))
def test_without_hysteresis_it_is_the_prometheus_machine(series, for_minutes, keep_minutes):
    """State by state equal to Prometheus's for any series, any gaps between evaluations, any for and keep."""
    times, now = [], START
    for _, gap in series:
        now += gap * MINUTE
        times.append(now)
    truths = [true for true, _ in series]
    given_ = {"for_ns": for_minutes * MINUTE, "keep_ns": keep_minutes * MINUTE, "times": times}
    assert ours(truths, **given_) == prometheus(truths, **given_)


def test_the_oracle_kills_its_mutants():
    """One fixed series tells the right machine from ``>`` in for and from ``<=`` in keep."""
    truths = [True] * 7 + [False] * 12
    given_ = {"for_ns": 5 * MINUTE, "keep_ns": 10 * MINUTE, "times": [START + at * MINUTE for at in range(19)]}
    right = ["pending"] * 5 + ["firing"] * 12 + ["inactive"] * 2
    assert ours(truths, **given_) == prometheus(truths, **given_) == right
    assert prometheus(truths, **given_, in_for=lambda age, limit: age > limit) != right
    assert prometheus(truths, **given_, in_keep=lambda age, limit: age <= limit) != right


def test_missing_data_is_not_recovery():
    """NO_DATA and INSUFFICIENT keep a firing alert firing and a pending one pending."""
    assert run([B, ND, IN, ND], Timing())[1] == [(0, "firing", "breach")]
    state, changes = run([B, ND, B], Timing(for_seconds=120))
    assert state.phase is Phase.FIRING
    assert changes == [(0, "pending", "breach; it fires after 120 s of it"), (2, "firing", "breach for 120 s")]


def test_silence_that_lasts_expires():
    """After expire_seconds without a clear verdict the alert is resolved as expired, not as recovered."""
    _, changes = run([B, ND, ND, ND], Timing(expire_seconds=120))
    assert changes[1:] == [(3, "resolved", "expired: no clear verdict for 120 s")]


def test_recovery_takes_clear_for_and_a_breach_in_between_starts_it_anew():
    """The quiet time is counted from the first OK after the last breach; the episode stays the same."""
    state, changes = run([B, OK, B, OK, OK, OK], Timing(clear_for_seconds=120))
    assert [(at, what) for at, what, _ in changes] == [
        (0, "firing"), (1, "recovering"), (2, "firing"), (3, "recovering"), (5, "resolved"),
    ]  # fmt: skip
    assert state.changes == 5


def test_an_episode_lasts_at_least_min_firing():
    """Clear at once, but resolved only when min_firing_seconds have passed since it fired."""
    assert run([B, OK, OK, OK], Timing(min_firing_seconds=180))[1][-1] == (3, "resolved", "recovered")


def test_a_breach_soon_after_the_resolve_reopens_the_episode():
    """Within reopen_seconds the same episode goes on, with running numbers; later a new one begins."""
    state, changes = run([B, OK, OK, B], Timing(reopen_seconds=120))
    assert changes[-1] == (3, "firing", "reopened")
    assert (state.episode, state.changes) == ("2026-01-05T09:00:00.000Z", 3)
    state, changes = run([B, OK, OK, OK, B], Timing(reopen_seconds=120))
    assert changes[-1] == (4, "firing", "breach")
    assert (state.episode, state.changes) == ("2026-01-05T09:04:00.000Z", 1)


def test_the_cool_down_delays_the_announcement_never_the_state():
    """A second episode within cool_down fires at once and is announced when the time is over."""
    state, changes = run([B, OK, B], Timing(cool_down_seconds=600))
    assert changes[-1] == (2, "firing", "breach")
    assert announced(state, START + 2 * MINUTE) == (False, "cool-down until 2026-01-05T09:10:00.000Z")
    assert announced(state, START + 10 * MINUTE) == (True, "")


def test_flapping_is_one_announcement_until_it_is_stable():
    """More than k turns are announced as one firing alert; after a whole quiet period it speaks for itself again."""
    timing = Timing(flap_changes=3, flap_seconds=600)
    state, changes = run([B, OK, B, OK], timing)
    assert state.flapping
    assert [what for _, what, _ in changes] == ["firing", "resolved", "firing", "resolved"]
    assert announced(state, START + 4 * MINUTE) == (True, "flapping: announced as firing until it is stable")
    state, _ = step(state, OK, START + 13 * MINUTE, timing=timing)
    assert announced(state, START + 13 * MINUTE) == (False, "")


timings = st.builds(
    Timing,
    for_seconds=st.sampled_from([0.0, 90.0]),
    clear_for_seconds=st.sampled_from([0.0, 90.0]),
    min_firing_seconds=st.sampled_from([0.0, 150.0]),
    reopen_seconds=st.sampled_from([0.0, 120.0]),
    expire_seconds=st.sampled_from([120.0, 86_400.0]),
    flap_changes=st.sampled_from([0, 2]),
)


@settings(deadline=None)
@given(verdicts=st.lists(st.sampled_from([B, OK, ND, IN]), max_size=30), timing=timings)
def test_the_same_instant_twice_changes_nothing(verdicts, timing):
    """A second evaluation of one instant with the same verdict gives no transition and no other state."""
    state = AlertState()
    for at, verdict in enumerate(verdicts):
        now = START + at * MINUTE
        state, _ = step(state, verdict, now, timing=timing)
        again, change = step(state, verdict, now, timing=timing)
        assert change is None
        assert again == state


@settings(deadline=None)
@given(verdicts=st.lists(st.sampled_from([B, OK, ND, IN]), max_size=30), timing=timings)
def test_every_change_of_phase_is_a_transition_with_its_own_number(verdicts, timing):
    """No phase changes without a transition, and (episode, number) never repeats."""
    state, seen = AlertState(), set()
    for at, verdict in enumerate(verdicts):
        after, change = step(state, verdict, START + at * MINUTE, timing=timing)
        assert (change is not None) is (after.phase is not state.phase)
        if change:
            assert (change.before, change.after) == (state.phase, after.phase)
            assert (change.episode, change.number) not in seen
            seen.add((change.episode, change.number))
        state = after
