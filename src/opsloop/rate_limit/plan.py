"""A plan: a policy made ready for the callers that come again and again.

:meth:`opsloop.rate_limit.policy.Policy.demands` is the definition. A plan answers the same and remembers, for the
callers that it saw last, which limits apply to them and under which keys.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from opsloop.rate_limit.context import SCOPES, Amounts, Context, amount_of
from opsloop.rate_limit.decision import Demand
from opsloop.rate_limit.limit import Limit
from opsloop.rate_limit.policy import Policy

__all__ = ["Caller", "Plan"]

REMEMBERED: Final = 1024
"""Callers whose keys are remembered: about half a kilobyte each, whatever the number of callers."""


class Caller:
    """What a policy has to say to one kind of caller, before cost and time are known."""

    __slots__ = ("demands", "plain", "settles")

    def __init__(self, limits: Iterable[Limit], context: Context) -> None:
        """Find the limits that apply to ``context``."""
        self.demands = tuple(
            Demand(limit, (limit.root, limit.read(context)), 1, limit.lease_ns)
            for limit in limits
            if limit.applies(context)
        )
        """A demand for every limit that applies, at a cost of 1; those of a quota lack their period."""
        self.settles = any(demand.limit.settles for demand in self.demands)
        """Whether there is something to settle or to release."""
        self.plain = not self.settles and all(demand.limit.calendar is None for demand in self.demands)
        """Whether all of it is rates of requests: then nothing depends on the time, and there is nothing to settle."""

    def costed(self, estimate: Amounts, now_ns: int) -> tuple[Demand, ...]:
        """Return the demands of a request with its costs, at wall-clock time ``now_ns``."""
        found = []
        for demand in self.demands:
            limit = demand.limit
            cost = estimate.get(limit.unit)
            if cost is None:
                said = None if limit.unit == "requests" else amount_of(limit.unit, estimate)
                cost = 1 if said is None else said
            if limit.calendar is not None:
                period = limit.calendar.period_at(now_ns)
                root, whose = demand.key
                found.append(Demand(limit, (root, whose, period.start_ns), cost, period.end_ns - now_ns))
            elif cost == 1:
                found.append(demand)
            else:
                found.append(Demand(limit, demand.key, cost, limit.lease_ns))
        return tuple(found)


class Plan:
    """Resolves callers against a policy, quickly. Safe between threads.

    >>> from opsloop.rate_limit import policy_from_settings
    >>> from opsloop.settings import LimitSettings
    >>> policy = policy_from_settings([LimitSettings(id="tpm", lever="rate", amount=600, unit="tokens")])
    >>> plan, acme = Plan(policy), Context(tenant="acme")
    >>> plan.caller(plan.read(acme)).costed({"tokens": 90}, 0) == policy.demands(acme, {"tokens": 90}, 0)
    True
    """

    def __init__(self, policy: Policy) -> None:
        """Compile ``policy``."""
        self.policy = policy
        used = {name for limit in policy.limits for name in (*limit.scope, *(name for name, _ in limit.when))}
        self._names = tuple(name for name in SCOPES if name in used)
        self.read = cast("Callable[[Context], Any]", operator.attrgetter(*self._names)) if used else _nobody
        """Returns what the policy has to know of a context."""
        self.caller: Callable[[Any], Caller] = functools.lru_cache(maxsize=REMEMBERED)(self._caller)
        """Returns the :class:`Caller` to what :attr:`read` read."""

    def _caller(self, values: Any) -> Caller:
        named = values if len(self._names) > 1 else (values,)
        return Caller(self.policy.limits, Context(**dict(zip(self._names, named, strict=False))))


def _nobody(_: Context) -> str:
    return ""
