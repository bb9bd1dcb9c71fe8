"""What a new policy takes over from the one before it.

Rule: a state belongs to a limit's id, unit, scope and period, so quotas and slots go on under a new amount without
anything being done. Only a rate's state means nothing under other numbers: what is owed is **moved, in units**, at the
moment of the change. Units missing before are missing after, and are repaid at the new rate. A limit whose unit or
scope changed counts something else and begins anew; so does one whose id is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from opsloop.rate_limit import gcra
from opsloop.rate_limit.context import Context
from opsloop.rate_limit.limit import Key, Limit
from opsloop.rate_limit.policy import Policy

__all__ = ["moved"]


def moved(counts: Mapping[Key, int], before: Policy, after: Policy, now_ns: int) -> list[tuple[Key, Limit, Key, int]]:
    """Return (old key, new limit, new key, new state) for every bucket whose rate changed and that still owes."""
    new = {limit.id: limit for limit in _all(after)}
    old = {
        form.root: (form, new[limit.id])
        for limit in _all(before)
        for form in _forms(limit)
        if limit.id in new and (limit.unit, limit.scope) == (new[limit.id].unit, new[limit.id].scope)
    }
    found = []
    for key, value in counts.items():
        if key[0] not in old:
            continue
        bucket, heir = old[key[0]][0].bucket, old[key[0]][1]
        limit = heir.case(_context(heir, key[1])) if heir.cases else heir
        if bucket is None or limit.bucket is None or limit.root == key[0]:
            continue
        owed = -(-gcra.debt(bucket, value, now_ns) * limit.bucket.weight // bucket.weight)
        if owed > 0:
            new_key = (limit.root, key[1])
            state = max(counts.get(new_key, 0), now_ns * limit.bucket.gain) + owed
            found.append((key, limit, new_key, state))
    return found


def _all(policy: Policy) -> Iterable[Limit]:
    return (*policy.limits, *policy.shadow)


def _forms(limit: Limit) -> Iterator[Limit]:
    """Yield a limit and all that stands in for it."""
    yield limit
    for _, other in limit.cases:
        yield from _forms(other)


def _context(limit: Limit, values: object) -> Context:
    """Return the part of a context that a key tells: enough for overrides, which choose by the scope alone."""
    names = limit.scope
    parts = values if isinstance(values, tuple) and len(names) > 1 else (values,)
    return Context(**dict(zip(names, parts, strict=False)))
