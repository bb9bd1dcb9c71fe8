"""A plan: a policy made ready for the callers that come again and again.

:meth:`opsloop.rate_limit.policy.Policy.demands` is the definition. A plan answers the same and remembers, for the
callers that it saw last, which limits apply to them and under which keys.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import msgspec

from opsloop.rate_limit.context import PARTS, Amounts, Context, amount_of
from opsloop.rate_limit.decision import Demand
from opsloop.rate_limit.limit import Limit
from opsloop.rate_limit.policy import Policy, rest_ns

__all__ = ["Caller", "Plan"]

REMEMBERED: Final = 1024
"""Callers whose keys are remembered: about half a kilobyte each, whatever the number of callers."""


class Caller(msgspec.Struct, frozen=True, gc=False):
    """What a policy has to say to one kind of caller, before cost and time are known."""

    demands: tuple[Demand, ...]
    """A demand for every limit that applies, at a cost of 1; those of a quota lack their period."""
    settles: bool
    """Whether there is something to settle or to release."""
    plain: bool
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
                found.append(Demand(limit, demand.key, cost, demand.resets_in_ns))
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
        self.shadow = bool(policy.shadow)
        """Whether limits are tried that refuse nobody."""
        used = {name for limit in policy.limits for name in _names(limit)}
        names = tuple(name for name in PARTS if name in used)
        self.read = cast("Callable[[Context], Any]", operator.attrgetter(*names)) if used else _nobody
        """Returns what the policy has to know of a context."""
        self.caller: Callable[[Any], Caller] = functools.lru_cache(maxsize=REMEMBERED)(self._caller)
        """Returns the :class:`Caller` to what :attr:`read` read."""
        self._names = names
        self._limits = [(limit, _part(names, limit.scope)) for limit in policy.limits]
        self._cases = any(limit.cases for limit in policy.limits)
        self._whens = [[(_part(names, (name,)), value) for name, value in limit.when] for limit in policy.limits]
        self._always = not any(self._whens)
        self._settles = any(limit.settles for limit in policy.limits)
        self._plain = not self._settles and all(limit.calendar is None for limit in policy.limits)

    def _caller(self, values: Any) -> Caller:
        limits = self._limits
        if self._cases:
            context = Context(**dict(zip(self._names, values if len(self._names) > 1 else (values,), strict=True)))
            limits = [(limit.case(context), part) for limit, part in limits]
        demands = [Demand(limit, (limit.root, part(values)), 1, rest_ns(limit)) for limit, part in limits]
        if self._always:
            return Caller(tuple(demands), self._settles, self._plain)
        applying = tuple(
            demand
            for demand, when in zip(demands, self._whens, strict=True)
            if all(part(values) == value for part, value in when)
        )
        settles = any(demand.limit.settles for demand in applying)
        return Caller(applying, settles, not settles and all(demand.limit.calendar is None for demand in applying))


def _names(limit: Limit) -> Iterator[str]:
    """Yield the parts of a context that a limit looks at, in any of its cases."""
    yield from limit.scope
    yield from (name for name, _ in limit.when)
    for parts, other in limit.cases:
        yield from (name for name, _ in parts)
        yield from _names(other)


def _part(names: tuple[str, ...], scope: tuple[str, ...]) -> Callable[[Any], Any]:
    """Return a function that picks a scope out of what was read under ``names``."""
    if not scope:
        return _nobody
    if names == scope:
        return _all
    return operator.itemgetter(*(names.index(name) for name in scope))


def _all(values: Any) -> Any:
    return values


def _nobody(_: object) -> str:
    return ""
