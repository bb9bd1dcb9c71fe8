"""Rate limit in one screen: a rate, a daily quota and two slots, each with its reasons and its time to wait."""

from __future__ import annotations

from opsloop import ManualClock
from opsloop.rate_limit import Context, Decision, Limiter, policy_from_settings
from opsloop.settings import LimitSettings

ACME = Context(tenant="acme", route="/chat")


def limiter(limit: LimitSettings, clock: ManualClock) -> Limiter:
    return Limiter(policy_from_settings([limit]), clock=clock)


def show(what: str, decision: Decision) -> None:
    state = next(iter(decision.limits.values()))
    print(f"  {what:22}{decision.status_code}  {decision.status:18}{state.remaining} left")
    if not decision.allowed:
        wait = decision.retry_after_seconds
        print(f"      {decision.reason}")
        print("      waiting does not help" if wait is None else f"      retry after {wait:g} s")


def rate() -> None:
    print("rate: 20 requests per minute, bursts of 5")
    clock = ManualClock("2026-01-05T09:00:00Z")
    gate = limiter(LimitSettings(id="per-minute", lever="rate", amount=20, per="minute", burst=5), clock)
    for n in range(1, 9):
        show(f"t=0 #{n}", gate.admit(ACME))
    clock.advance(seconds=3)
    show("t=3 #9", gate.admit(ACME))


def quota() -> None:
    print("\nquota: 3 requests per day in Berlin, on the 23-hour day")
    clock = ManualClock("2026-03-29T09:00:00Z")
    limit = LimitSettings(id="per-day", lever="quota", amount=3, per="day", time_zone="Europe/Berlin")
    gate = limiter(limit, clock)
    for n in range(1, 5):
        show(f"day #{n}", gate.admit(ACME))
    clock.set_time("2026-03-29T22:00:00Z")
    show("next day", gate.admit(ACME))


def concurrency() -> None:
    print("\nconcurrency: 2 at once")
    gate = limiter(LimitSettings(id="slots", lever="concurrency", amount=2), ManualClock("2026-01-05T09:00:00Z"))
    with gate.slot(ACME) as first:
        show("slot #1", first)
        with gate.slot(ACME) as second:
            show("slot #2", second)
            show("slot #3", gate.peek(ACME))
        show("a slot is back, #3", gate.peek(ACME))


def tokens() -> None:
    print("\nreserve and settle: 1000 tokens per minute, and no request may ask for more")
    gate = limiter(
        LimitSettings(id="tokens", lever="rate", amount=1000, unit="tokens"), ManualClock("2026-01-05T09:00:00Z")
    )
    reserved = gate.admit(ACME, {"tokens": 800})
    show("ask 800", reserved)
    gate.settle(reserved.reservation, {"tokens": 150})
    show("used 150, ask 700", gate.admit(ACME, {"tokens": 700}))
    show("ask 5000", gate.admit(ACME, {"tokens": 5000}))


def main() -> None:
    rate()
    quota()
    concurrency()
    tokens()


if __name__ == "__main__":
    main()
