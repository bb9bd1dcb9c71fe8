"""The limiter against a model of fractions and dictionaries, through any sequence of events."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from opsloop.clock import ManualClock, SeededIds, parse_time
from opsloop.rate_limit import Context, Limiter, policy_from_settings
from opsloop.settings import LimitSettings

START = "2026-01-05T23:00:00Z"
DAY_NS = 86_400 * 10**9
LEASE_NS = 30 * 10**9
HOLD_NS = 3600 * 10**9
LIMITS = (
    LimitSettings(id="rate", lever="rate", amount=7, per="minute", burst=5),
    LimitSettings(id="tokens", lever="rate", amount=54, per="minute", burst=40, unit="tokens", scope=()),
    LimitSettings(id="daily", lever="quota", amount=120, per="day", unit="tokens"),
    LimitSettings(id="rolls", lever="quota", amount=100, per="hour", rolling=1, unit="tokens"),
    LimitSettings(id="slots", lever="concurrency", amount=2),
)
SLICE_NS = 60 * 10**9
tenants = st.sampled_from(["acme", "bolt"])


class LimiterMachine(RuleBasedStateMachine):
    """Each rule does one thing to the limiter and to the model, and compares the answers."""

    admitted = Bundle("admitted")

    def __init__(self):
        super().__init__()
        self.clock = ManualClock(START)
        self.limiter = self.make_limiter()
        self.debts = {}
        self.days = {}
        self.slices = {}
        self.leases = {}
        self.open = {}
        self.number = 0

    def make_limiter(self):
        """The limiter that is put to the test."""
        return Limiter(policy_from_settings(LIMITS), clock=self.clock, ids=SeededIds(1))

    def now(self):
        """The store's time."""
        return self.clock.monotonic_ns()

    def day(self):
        """The day that a quota is counted in."""
        return self.clock.now_ns() // DAY_NS

    def debt(self, name, key):
        """What a bucket owes, in units."""
        amount = {"rate": 7, "tokens": 54}[name]
        value, then = self.debts.get((name, key), (Fraction(0), 0))
        return max(Fraction(0), value - Fraction(amount, 60 * 10**9) * (self.now() - then))

    def charge(self, name, key, units):
        """Owe more, or less but never below nothing."""
        self.debts[name, key] = (max(Fraction(0), self.debt(name, key) + units), self.now())

    def rolled(self, tenant):
        """What counts in the last hour, and in the minute that is leaving it."""
        oldest = self.now() // SLICE_NS - 60
        return sum(units for (who, number), units in self.slices.items() if who == tenant and number >= oldest)

    def slots(self, tenant):
        """The reservations whose lease runs."""
        return [r for r, (who, expiry) in self.leases.items() if who == tenant and expiry > self.now()]

    def refusals(self, tenant, tokens):
        """The limits that a request would violate."""
        day = self.day()
        checks = {
            "rate": self.debt("rate", tenant) + 1 <= 5,
            "tokens": self.debt("tokens", "") + tokens <= 40,
            "daily": self.days.get((tenant, day), 0) + tokens <= 120,
            "rolls": self.rolled(tenant) + tokens <= 100,
            "slots": len(self.slots(tenant)) < 2,
        }
        return [name for name, fits in checks.items() if not fits]

    @rule(target=admitted, tenant=tenants, tokens=st.integers(0, 130), named=st.booleans())
    def admit(self, tenant, tokens, named):
        """All limits agree with the model, and a refusal names exactly those that the model names."""
        self.number += 1
        expected = self.refusals(tenant, tokens)
        name = f"mine-{self.number}" if named else ""
        decision = self.limiter.admit(Context(tenant=tenant), {"tokens": tokens}, reservation=name)
        assert [violation.limit for violation in decision.violated] == expected
        assert decision.allowed == (not expected)
        assert (decision.status == "never_admissible") == (tokens > 40)
        waits = {violation.limit: violation.retry_after_ns for violation in decision.violated}
        if waits.get("rolls") is not None:
            self.check_rolling_wait(tenant, tokens, waits["rolls"])
        if not decision.allowed:
            return ""
        day = self.day()
        self.charge("rate", tenant, 1)
        self.charge("tokens", "", tokens)
        self.days[tenant, day] = self.days.get((tenant, day), 0) + tokens
        part = (tenant, self.now() // SLICE_NS)
        self.slices[part] = self.slices.get(part, 0) + tokens
        self.leases[decision.reservation] = (tenant, self.now() + LEASE_NS)
        self.open[decision.reservation] = (tenant, day, tokens, self.now() + HOLD_NS, part)
        return decision.reservation

    def check_rolling_wait(self, tenant, tokens, wait_ns):
        """It is the time to the end of a minute, and then there is room; a minute earlier there is not."""
        then = self.now() + wait_ns
        assert then % SLICE_NS == 0
        for moment, fits in ((then, True), (then - 1, False)):
            oldest = moment // SLICE_NS - 60
            left = sum(units for (who, number), units in self.slices.items() if who == tenant and number >= oldest)
            assert (left + tokens <= 100) is fits

    @rule(reservation=admitted, actual=st.integers(0, 200))
    def settle(self, reservation, actual):
        """A settlement counts once, in its own period, whether its lease is still there or not."""
        status = self.limiter.settle(reservation, {"tokens": actual}).status
        known = self.open.pop(reservation, None)
        if known is None or known[3] <= self.now():
            assert status == "not_held"
            return
        assert status == "settled"
        tenant, day, tokens, _, part = known
        self.charge("tokens", "", actual - tokens)
        self.days[tenant, day] = max(0, self.days[tenant, day] + actual - tokens)
        self.slices[part] += actual - tokens
        self.leases.pop(reservation, None)

    @rule(reservation=admitted)
    def renew(self, reservation):
        """Only a running lease is prolonged."""
        status = self.limiter.renew(reservation).status
        tenant, expiry = self.leases.get(reservation, ("", 0))
        held = reservation in self.open and self.open[reservation][3] >= self.now() + LEASE_NS
        assert (status == "renewed") == (expiry > self.now() and held)
        if status == "renewed":
            self.leases[reservation] = (tenant, self.now() + LEASE_NS)

    @rule(reservation=consumes(admitted))
    def release(self, reservation):
        """A released slot is free; what was reserved stays reserved."""
        self.limiter.release(reservation)
        self.leases.pop(reservation, None)
        self.open.pop(reservation, None)

    @rule(reservation=consumes(admitted))
    def crash(self, reservation):
        """A holder vanishes: nothing happens until its lease runs out."""

    @rule(seconds=st.sampled_from([0.000000001, 0.5, 1.1111, 8.571428571, 29.999999999, 30, 60, 4000]))
    def advance(self, seconds):
        """Time goes on."""
        self.clock.advance(seconds=seconds)

    @rule(minutes=st.sampled_from([-30, 0, 30]))
    def set_wall_clock(self, minutes):
        """The wall clock alone is wrong by so much: only the day of the quota may change."""
        self.clock.set_time(parse_time(START) + self.now() + minutes * 60 * 10**9)

    @rule(tenant=tenants, tokens=st.integers(0, 130))
    def peek(self, tenant, tokens):
        """Looking answers as admitting would."""
        decision = self.limiter.peek(Context(tenant=tenant), {"tokens": tokens})
        assert [violation.limit for violation in decision.violated] == self.refusals(tenant, tokens)

    @invariant()
    def levels_agree(self):
        """Never more than two slots, and what remains of every limit is what the model says."""
        for tenant in ("acme", "bolt"):
            assert len(self.slots(tenant)) <= 2
            limits = self.limiter.peek(Context(tenant=tenant), {"tokens": 1000}).limits
            day = self.day()
            assert {name: state.remaining for name, state in limits.items()} == {
                "rate": max(Fraction(0), 5 - self.debt("rate", tenant)) // 1,
                "tokens": max(Fraction(0), 40 - self.debt("tokens", "")) // 1,
                "daily": max(0, 120 - self.days.get((tenant, day), 0)),
                "rolls": max(0, 100 - self.rolled(tenant)),
                "slots": 2 - len(self.slots(tenant)),
            }


LimiterMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestLimiterMachine = LimiterMachine.TestCase
