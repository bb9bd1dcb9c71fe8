"""``opsloop limit peek``, ``admit``, ``settle`` and ``release``: decisions from the command line.

A running server answers, or a Redis that is named: the limits are the same for everybody who counts there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.text import Text

from opsloop.cli.client import Api, LocalApi, connect, server_of
from opsloop.cli.options import Asking
from opsloop.cli.output import console, count, percent, show_json, table
from opsloop.errors import StoreError
from opsloop.rate_limit.context import PARTS
from opsloop.rate_limit.desk import desk, desk_endpoints

__all__ = ["Limits", "Who", "admit", "peek", "release", "settle"]


@Parameter(name="*")
@dataclass(frozen=True)
class Who:
    """Whose request it is, and for how much."""

    organisation: str = ""
    tenant: str = ""
    key: Annotated[str, Parameter(help="The key's id, never the key.")] = ""
    model: str = ""
    route: str = ""
    priority: str = ""
    tokens: Annotated[int | None, Parameter(help="How many it takes; 1 when left out.")] = None
    cost_microusd: int | None = None

    def context(self) -> dict[str, str]:
        """Return the parts that were given."""
        return {name: getattr(self, name) for name in PARTS if getattr(self, name)}

    def amounts(self) -> dict[str, int]:
        """Return the amounts that were given."""
        given = {"tokens": self.tokens, "cost_microusd": self.cost_microusd}
        return {unit: amount for unit, amount in given.items() if amount is not None}


Limits = Annotated[str, Parameter(help="Ask this Redis itself, by the settings' limits, and no server.")]


def peek(*, who: Who | None = None, limits: Limits = "", asking: Asking | None = None) -> int:
    """Say what a request would be answered now, and how full its limits are; nothing is reserved."""
    asked = who or Who()
    with _desk(asking, limits) as api:
        return _decided(api.call("/api/limits/peek", {**asked.context(), **asked.amounts()}), asking)


def admit(*, who: Who | None = None, limits: Limits = "", asking: Asking | None = None) -> int:
    """Admit one request and reserve what it takes: settle or release it by the reservation that is printed.

    The exit code is 1 for a request that is refused.
    """
    asked = who or Who()
    body = msgspec.json.encode({"context": asked.context(), "estimate": asked.amounts()})
    with _desk(asking, limits) as api:
        return _decided(api.call("/api/limits/admit", method="POST", body=body), asking)


def settle(
    reservation: str, /, *, tokens: int = 0, cost_microusd: int = 0, limits: Limits = "", asking: Asking | None = None
) -> int:
    """Replace a reservation's estimate by what it really cost, and give its slots back."""
    actual = {"tokens": tokens, "cost_microusd": cost_microusd}
    return _ended("settle", {"reservation": reservation, "actual": actual}, limits, asking)


def release(reservation: str, /, *, limits: Limits = "", asking: Asking | None = None) -> int:
    """Give a reservation's slots back and let its estimate stand."""
    return _ended("release", {"reservation": reservation}, limits, asking)


@contextmanager
def _desk(asking: Asking | None, limits: str) -> Iterator[Api]:
    """Return who decides: the Redis that was named, the server, or the Redis of the settings where none runs."""
    options = asking or Asking()
    settings = options.settings()
    url = limits
    if not url and not server_of(settings, url=options.url):
        url = settings.server.limits
        if not url:
            message = "no server runs, and the limits of a server in memory end with it"
            raise StoreError(message, fix="start one with opsloop up, or name --limits redis://host:6379/0")
    if not url:
        with connect(settings, url=options.url) as api:
            yield api
        return
    chosen = msgspec.structs.replace(settings, server=msgspec.structs.replace(settings.server, limits=url))
    yield LocalApi(None, desk_endpoints(desk(chosen)), chosen)


def _decided(answer: dict[str, Any], asking: Asking | None) -> int:
    if (asking or Asking()).json:
        show_json(answer)
        return 0 if answer["allowed"] else 1
    screen = console()
    screen.print(Text(f"{answer['status']}: {answer['reason']}", style="bold"))
    if answer["reservation"]:
        screen.print(f"reservation {answer['reservation']}")
    rows = [
        (name, count(state["remaining"]), percent(state["used_ratio"]), f"{state['reset_seconds']:.0f} s")
        for name, state in answer["limits"].items()
    ]
    screen.print(table(("limit", "remaining", "used", "free again in"), rows, right=("remaining", "used")))
    return 0 if answer["allowed"] else 1


def _ended(what: str, body: dict[str, Any], limits: str, asking: Asking | None) -> int:
    with _desk(asking, limits) as api:
        answer = api.call(f"/api/limits/{what}", method="POST", body=msgspec.json.encode(body))
    if (asking or Asking()).json:
        show_json(answer)
    else:
        print(f"{answer['status']}: {answer['reason']}")
    return 1 if answer["status"] == "not_held" else 0
