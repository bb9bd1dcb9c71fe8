"""The store in memory decides as the definition does, whatever happens, though it takes a shorter way."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.clock import ManualClock, SeededIds
from opsloop.rate_limit import Context, Limiter, MemoryStore, Policy, policy_from_settings
from opsloop.rate_limit import admit as core
from opsloop.rate_limit.plan import Plan
from opsloop.settings import LimitSettings

SECOND = 10**9


def rate(name, **table):
    """A rate."""
    return LimitSettings(id=name, lever="rate", **table)


SHAPES = {
    "one rate": [rate("a", amount=3, per="second")],
    "one rate, scaled": [rate("a", amount=54, burst=2)],
    "one rate of tokens": [rate("a", amount=7_000_000, burst=300, unit="tokens")],
    "four rates": [
        rate("a", amount=5, per="second"),
        rate("b", amount=54, burst=4, scope=("key",)),
        rate("c", amount=7, burst=3, scope=("tenant", "key"), unit="tokens"),
        rate("d", amount=90, burst=6, scope=()),
    ],
    "all levers": [
        rate("a", amount=54, burst=40, unit="tokens"),
        LimitSettings(id="q", lever="quota", amount=120, per="hour", unit="tokens", scope=()),
        LimitSettings(id="s", lever="concurrency", amount=2),
        LimitSettings(id="l", lever="concurrency", amount=1, scope=("key",), when={"model": "large"}),
    ],
}


class DefinedStore:
    """The definition as a store: the pure functions, three dictionaries, and nothing is ever forgotten."""

    def __init__(self, clock):
        self.clock = clock
        self.state = core.State({}, {}, {})

    def admit(self, request):
        """Decide and write."""
        return self.apply(core.decide(self.state, request, self.clock.monotonic_ns()))

    def settle(self, reservation, actual):
        """Settle and write."""
        return self.apply(core.settle(self.state, reservation, actual, self.clock.monotonic_ns()))

    def renew(self, reservation):
        """Renew and write."""
        return self.apply(core.renew(self.state, reservation, self.clock.monotonic_ns()))

    def release(self, reservation):
        """Release and write."""
        return self.apply(core.release(self.state, reservation, self.clock.monotonic_ns()))

    def apply(self, answer):
        """Write changes; return what was answered."""
        changes, told = answer
        for demand, value in zip(changes.demands, changes.values, strict=True):
            self.state.counts[demand.key] = value
        for key, reservation, expiry_ns in changes.leased:
            leases = self.state.leases.setdefault(key, {})
            leases.pop(reservation, None)
            leases[reservation] = expiry_ns
        for key, reservation in changes.dropped:
            self.state.leases.get(key, {}).pop(reservation, None)
        for reservation, held in changes.held:
            self.state.held[reservation] = held
            if held is None:
                del self.state.held[reservation]
        return told


def told(decision):
    """Everything that a decision says. Its raw numbers may differ where one store has forgotten a full bucket."""
    names = (
        "status",
        "now_ns",
        "reservation",
        "waits",
        "retry_after_ns",
        "status_code",
        "limits",
        "violated",
        "reason",
    )
    return {name: getattr(decision, name) for name in names}


def receipt_told(receipt):
    """Everything that a receipt says."""
    return receipt.status, receipt.reason, receipt.actual, [level.state() for level in receipt.levels]


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("admit"),
            st.sampled_from(["acme", "bolt"]),
            st.sampled_from(["k1", "k2"]),
            st.sampled_from(["large", "small"]),
            st.sampled_from([None, 0, 1, 5, 20, 50]),
            st.sampled_from(["", "", "mine-1", "mine-2"]),
        ),
        st.tuples(st.just("settle"), st.integers(0, 30), st.none() | st.integers(0, 60)),
        st.tuples(st.sampled_from(["renew", "release"]), st.integers(0, 30)),
        st.tuples(st.just("advance"), st.sampled_from([1, 333_333_333, SECOND, 12 * SECOND, 30 * SECOND])),
        st.tuples(st.just("advance"), st.sampled_from([59 * SECOND, 60 * SECOND, 3599 * SECOND, 7200 * SECOND])),
    ),
    min_size=10,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([*SHAPES, "all levers", "all levers"]), steps)
def test_every_answer_is_the_definitions(shape, story):
    """Admit, settle, renew and release answer alike in any order, for every shape of policy, at any time."""
    clock = ManualClock("2026-01-05T09:30:00Z")
    policy = policy_from_settings(SHAPES[shape])
    fast, defined = Limiter(policy, clock=clock, ids=SeededIds(1)), DefinedStore(clock)
    slow = Limiter(policy, store=defined, clock=clock, ids=SeededIds(1))
    reservations = [""]
    for step in story:
        if step[0] == "admit":
            _, tenant, key, model, tokens, name = step
            context = Context(tenant=tenant, key=key, model=model)
            estimate = None if tokens is None else {"tokens": tokens}
            answers = [limiter.admit(context, estimate, reservation=name) for limiter in (fast, slow)]
            assert told(answers[0]) == told(answers[1])
            reservations.append(answers[0].reservation)
        elif step[0] == "advance":
            clock.advance(ns=step[1])
        elif step[0] == "settle":
            actual = {} if step[2] is None else {"input_tokens": step[2]}
            name = reservations[step[1] % len(reservations)]
            answers = [limiter.settle(name, actual) for limiter in (fast, slow)]
            assert receipt_told(answers[0]) == receipt_told(answers[1])
        else:
            name = reservations[step[1] % len(reservations)]
            answers = [getattr(limiter, step[0])(name) for limiter in (fast, slow)]
            assert receipt_told(answers[0]) == receipt_told(answers[1])


names = st.sampled_from(["", "a", "b"])
contexts = st.builds(Context, organisation=names, tenant=names, key=names, model=names, route=names, request_id=names)
units = st.sampled_from(["requests", "input_tokens", "output_tokens", "tokens", "cost_microusd"])
scopes = st.lists(st.sampled_from(["organisation", "tenant", "key", "model", "route"]), unique=True).map(tuple)
whens = st.dictionaries(st.sampled_from(["tenant", "model"]), names, max_size=2)


@st.composite
def policies(draw):
    """Some limits of every lever."""
    limits = []
    for number in range(draw(st.integers(0, 4))):
        lever = draw(st.sampled_from(["rate", "quota", "concurrency"]))
        table = {"unit": draw(units)} if lever != "concurrency" else {}
        if lever == "quota":
            table["per"] = draw(st.sampled_from(["hour", "day", "month"]))
        limits.append(
            LimitSettings(id=f"l{number}", lever=lever, amount=5, scope=draw(scopes), when=draw(whens), **table)
        )
    return policy_from_settings(limits)


@settings(max_examples=60, deadline=None)
@given(policies(), st.lists(st.tuples(contexts, st.dictionaries(units, st.integers(0, 9)), st.integers(0, 2**61))))
def test_a_plan_resolves_as_its_policy_does(policy, asked):
    """For every caller, estimate and time the plan finds the same limits, keys, costs and periods."""
    plan = Plan(policy)
    for context, estimate, now_ns in asked:
        caller = plan.caller(plan.read(context))
        expected = policy.demands(context, estimate, now_ns)
        assert caller.costed(estimate, now_ns) == expected
        assert caller.settles == any(demand.limit.settles for demand in expected)
        if caller.plain:
            assert caller.demands == policy.demands(context, {}, now_ns)


def test_a_new_policy_applies_from_the_next_call_on(clock):
    """A limiter may be handed another policy while it runs."""
    limiter = Limiter(policy_from_settings([rate("a", amount=1)]), clock=clock)
    assert [limiter.admit(Context()).allowed for _ in range(2)] == [True, False]
    limiter.policy = Policy()
    assert (limiter.admit(Context()).allowed, limiter.policy.limits) == (True, ())


def test_each_store_has_its_own_numbers(clock):
    """Two limiters with one policy and two stores do not see each other; with one store they do."""
    policy = policy_from_settings([rate("a", amount=1)])
    store = MemoryStore(clock=clock)
    limiters = [Limiter(policy, clock=clock), *(Limiter(policy, store=store, clock=clock) for _ in range(2))]
    assert [limiter.admit(Context()).allowed for limiter in limiters] == [True, True, False]
