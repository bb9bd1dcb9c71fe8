"""A server decides for those who ask it, and its replicas decide as one."""

from __future__ import annotations

import msgspec
import pytest

from opsloop.clock import ManualClock
from opsloop.errors import ConfigError, InputError, PayloadError
from opsloop.rate_limit import MemoryStore, RedisStore
from opsloop.rate_limit.api import endpoints
from opsloop.rate_limit.place import store_at
from opsloop.settings import LimitSettings, ServerSettings, Settings
from opsloop.stream import MemoryStream
from tests.rate_limit.conftest import MORNING

LIMITS = (
    LimitSettings(id="requests", lever="rate", amount=3, per="hour"),
    LimitSettings(id="tokens", lever="quota", amount=1000, per="day", unit="tokens"),
    LimitSettings(id="slots", lever="concurrency", amount=2),
)
ACME = {"context": {"tenant": "acme", "request_id": "req-1"}, "estimate": {"tokens": 400}}


class Replica:
    """The endpoints of one server."""

    def __init__(self, limits=""):
        self.stream = MemoryStream()
        settings = Settings(limit=LIMITS, server=ServerSettings(limits=limits))
        found = endpoints(self.stream, settings, ManualClock(MORNING))
        self.handlers = {endpoint.path.rpartition("/")[2]: endpoint.handler for endpoint in found}

    def post(self, name, body):
        """What it answers, as JSON carries it."""
        return msgspec.to_builtins(self.handlers[name]({}, msgspec.json.encode(body)))

    def get(self, name, **arguments):
        """What it answers, as JSON carries it."""
        return msgspec.to_builtins(self.handlers[name](arguments, b""))


def left(replica):
    """What is left of every limit."""
    answer = replica.get("peek", tenant="acme", tokens="1000000")
    return {name: state["remaining"] for name, state in answer["limits"].items()}


@pytest.mark.parametrize("place", ["memory", "redis"])
def test_a_request_is_admitted_settled_and_released_over_http(request, place):
    """Each operation does over HTTP what the limiter's method does, and every decision is recorded."""
    url = f"{request.getfixturevalue('redis_server').url}?prefix=desk&deadline_seconds=5" if place == "redis" else ""
    one = Replica(url)
    two = Replica(url) if url else one
    admitted = one.post("admit", ACME)
    assert (admitted["allowed"], admitted["status_code"], left(two)) == (
        True,
        200,
        {"requests": 2, "tokens": 600, "slots": 1},
    )
    assert two.post("renew", {"reservation": admitted["reservation"]})["status"] == "renewed"
    assert two.post("settle", {"reservation": admitted["reservation"], "actual": {"tokens": 10}}) == {
        "reservation": admitted["reservation"],
        "status": "settled",
        "reason": "corrected tokens",
    }
    second = two.post("admit", {**ACME, "reservation": "mine"})
    assert one.post("admit", {**ACME, "reservation": "mine"})["limits"] == second["limits"]
    assert one.post("release", {"reservation": "mine"})["reason"] == "1 slots given back"
    assert left(one) == {"requests": 1, "tokens": 590, "slots": 2}
    refused = one.post("admit", {**ACME, "estimate": {"tokens": 600}})
    assert (refused["status_code"], [each["limit"] for each in refused["violated"]]) == (429, ["tokens"])
    assert 0 < refused["retry_after_seconds"] <= 86_400
    assert [event.attributes["allowed"] for event in one.stream.query()][-1] is False
    where = one.get("limits")["counted_in"]
    assert where == ("memory" if place == "memory" else f"<server {request.getfixturevalue('redis_server').url[8:]}>")


def test_a_body_that_is_none_is_refused_with_what_to_do():
    """Unknown fields, units and numbers are named."""
    desk = Replica()
    with pytest.raises(PayloadError, match=r"the body is no Asked: .*`tenant`"):
        desk.post("admit", {"tenant": "acme"})
    with pytest.raises(InputError, match="unknown unit 'dollars'"):
        desk.post("admit", {"estimate": {"dollars": 3}})
    with pytest.raises(InputError, match="tokens is 'many'"):
        desk.get("peek", tokens="many")


def test_a_url_says_where_limits_are_counted_and_how():
    """Nothing is memory; the rest is Redis with its prefix, root, workers and deadline; what is none is refused."""
    assert isinstance(store_at(""), MemoryStore)
    store = store_at("redis+cluster://one:7000?root=&prefix=mine&workers=4&deadline_seconds=0.2")
    assert isinstance(store, RedisStore)
    assert (store._core.keys.root, store._core.keys._prefix, store._workers, store._deadline) == ("", "mine", 4, 0.2)
    assert store_at("redis://one/2?socket_keepalive=yes&workers=2")._address.url == "redis://one/2?socket_keepalive=yes"
    with pytest.raises(ConfigError, match="workers of the limits is 'four'; give a number"):
        store_at("redis://one?workers=four")
    with pytest.raises(ConfigError, match="is no kind of Redis"):
        Replica("postgres://one")
