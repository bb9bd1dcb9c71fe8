"""Shadow limits: tried on what the real ones let through, counted and recorded, and never rejecting anything.

They are a policy of their own over the same store: all or nothing among themselves, reserved and settled under an id
that follows from the request's. So they say what they would do, were they real: a request that one of them refuses
costs none of them anything, as it would then. What a store cannot do for them is left out: they never fail a request.
"""

from __future__ import annotations

import msgspec

from opsloop.rate_limit.decision import Request
from opsloop.rate_limit.policy import Policy

__all__ = ["shadow_id", "shadow_request"]

SUFFIX = "~shadow"


def shadow_id(reservation: str) -> str:
    """Return the id under which the shadow limits reserved for a request.

    >>> shadow_id("r-1"), shadow_id("")
    ('r-1~shadow', '')
    """
    return f"{reservation}{SUFFIX}" if reservation else ""


def shadow_request(policy: Policy, request: Request) -> Request | None:
    """Return what the shadow limits of a policy are asked about a request; ``None`` where none applies."""
    demands = Policy(policy.shadow).demands(request.context, request.estimate, request.ts_ns)
    if not demands:
        return None
    return msgspec.structs.replace(request, demands=demands, reservation=shadow_id(request.reservation))
