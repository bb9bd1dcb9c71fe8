"""Rate limit: one exact call that says whether a request may go ahead, and why not.

Objects
    A *policy* is a list of *limits*. A limit has a *lever*: a **rate** (token bucket), a **quota** (counter per
    calendar period) or **concurrency** (leased slots); a *unit* that it counts; a *scope* that says whose bucket it is.
    A *decision* is the answer to one request; a yes is a *reservation*, which is settled once the real cost is known.
Rule
    All or nothing: a request is admitted by every limit that applies to it or by none, and a refusal writes nothing,
    names every limit that said no and how long the slowest of them has to be waited for. What can never be admitted is
    told so instead of being told to wait. Unknown is not zero: an amount that nobody estimated costs one unit.
Algorithm
    Integers only (:mod:`~opsloop.rate_limit.gcra`, :mod:`~opsloop.rate_limit.quota`,
    :mod:`~opsloop.rate_limit.concurrency`), put together by the pure functions of :mod:`~opsloop.rate_limit.admit`,
    run as one transaction by a store. Every decision can be an event, and a new policy can be tried on yesterday's.
Around it
    A request may wait for its yes (:class:`Waiting`), be estimated from its body and from experience
    (:class:`Estimator`), and be counted while it streams (:class:`Metered`). A limit may be tried in shadow, and a
    policy replaced while it runs.
Limits
    The store in memory serves one process; a restart begins with full buckets and untouched quotas. The store in Redis
    serves many, by the server's clock. In memory the wall clock only names the period of a quota; rates and leases run
    on the monotonic clock.
"""

from __future__ import annotations

from opsloop.rate_limit.adaptive import Aimd, Controller
from opsloop.rate_limit.asgi import RateLimitMiddleware
from opsloop.rate_limit.context import Amounts, Context
from opsloop.rate_limit.decision import Decision, Receipt, Violation, decision_event, receipt_event
from opsloop.rate_limit.estimate import Estimator, actual_of, estimate_of
from opsloop.rate_limit.headers import (
    UpstreamLimit,
    limit_headers,
    parse_retry_after,
    parse_upstream,
    problem,
    upstream_events,
)
from opsloop.rate_limit.limit import LimitState
from opsloop.rate_limit.limiter import Limiter, RateLimitedError, Slot
from opsloop.rate_limit.memory import MemoryStore, Store
from opsloop.rate_limit.metered import Metered
from opsloop.rate_limit.policy import Policy, policy_from_settings
from opsloop.rate_limit.policy_file import load_policy, read_policy
from opsloop.rate_limit.redis_store import RedisStore
from opsloop.rate_limit.remote import RemoteStore
from opsloop.rate_limit.simulate import Report, simulate
from opsloop.rate_limit.usage import Usage, usage
from opsloop.rate_limit.waiting import Waiting
from opsloop.rate_limit.wsgi import WsgiRateLimitMiddleware

__all__ = [
    "Aimd",
    "Amounts",
    "Context",
    "Controller",
    "Decision",
    "Estimator",
    "LimitState",
    "Limiter",
    "MemoryStore",
    "Metered",
    "Policy",
    "RateLimitMiddleware",
    "RateLimitedError",
    "Receipt",
    "RedisStore",
    "RemoteStore",
    "Report",
    "Slot",
    "Store",
    "UpstreamLimit",
    "Usage",
    "Violation",
    "Waiting",
    "WsgiRateLimitMiddleware",
    "actual_of",
    "decision_event",
    "estimate_of",
    "limit_headers",
    "load_policy",
    "parse_retry_after",
    "parse_upstream",
    "policy_from_settings",
    "problem",
    "read_policy",
    "receipt_event",
    "simulate",
    "upstream_events",
    "usage",
]
