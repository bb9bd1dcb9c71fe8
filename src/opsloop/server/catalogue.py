"""Every room's endpoints, in one tuple: what the server mounts and the command line calls."""

from __future__ import annotations

from opsloop.alerting.api import endpoints as alerting
from opsloop.clock import Clock
from opsloop.dashboard.api import endpoints as dashboard
from opsloop.endpoint import Endpoint
from opsloop.improvement.api import endpoints as improvement
from opsloop.online_eval.api import endpoints as online_eval
from opsloop.rate_limit.api import endpoints as rate_limit
from opsloop.settings import Settings
from opsloop.store import ClickHouseStream
from opsloop.store.api import endpoints as store
from opsloop.structured_logging.api import endpoints as structured_logging

__all__ = ["all_endpoints"]

ROOMS = (structured_logging, dashboard, online_eval, rate_limit, alerting, improvement)


def all_endpoints(database: ClickHouseStream, settings: Settings, clock: Clock) -> tuple[Endpoint, ...]:
    """Return the endpoints of all rooms over one database, and those of the store itself."""
    rooms = (endpoint for room in ROOMS for endpoint in room(database, settings, clock))
    return (*rooms, *store(database, settings, clock))
