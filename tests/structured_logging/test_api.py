"""The room's endpoints, as the server and the command line call them."""

from __future__ import annotations

import msgspec
import pytest

from opsloop.errors import FilterError, InputError
from opsloop.event import Event
from opsloop.settings import Settings
from opsloop.structured_logging.api import LogPage, endpoints

SECOND = 10**9


@pytest.fixture
def ask(clickhouse, clock):
    """Call an endpoint and return its answer as JSON values; ten seconds hold a log line each, the third an error."""
    now = clock.now_ns()
    clickhouse.append(
        Event(ts_ns=now - n * SECOND, event="log", tenant="ab"[n % 2], error=n == 3, request_id=f"req-{n}")
        for n in range(10)
    )
    table = {endpoint.path: endpoint for endpoint in endpoints(clickhouse, Settings(), clock)}

    def call(path, **arguments):
        return msgspec.json.decode(msgspec.json.encode(table[path].handler(arguments, b"")))

    call.table = table
    return call


def test_logs_come_newest_first_in_pages(ask, clock):
    """A page has its window, its events as they are stored, and whether there are more."""
    now = clock.now_ns()
    page = ask("/api/logs", q="tenant:a", limit="2", offset="1", **{"from": "1m"})
    assert msgspec.convert(page, LogPage) == LogPage(
        query="tenant:a",
        start_ns=now - 60 * SECOND,
        end_ns=now,
        events=tuple(Event(ts_ns=now - n * SECOND, event="log", tenant="a", request_id=f"req-{n}") for n in (2, 4)),
        more=True,
    )
    assert ask("/api/logs", limit="10")["more"] is False


def test_the_line_may_name_the_window(ask):
    """since: and until: in the line win over from and to."""
    found = ask("/api/logs", q="since:5s until:2s", **{"from": "1m"})
    assert [event["request_id"] for event in found["events"]] == ["req-2", "req-3", "req-4"]


def test_histogram_and_facets_count_the_same_events(ask, clock):
    """The bars add up to the lines, the errors among them, and a facet ignores its own condition."""
    bars = ask("/api/logs/histogram", steps="5", **{"from": "10s"})
    assert bars == {
        "start_ns": clock.now_ns() - 10 * SECOND,
        "end_ns": clock.now_ns(),
        "step_ns": 2 * SECOND,
        "total": [2, 2, 2, 2, 2],
        "errors": [0, 0, 0, 1, 0],
    }
    counted = ask("/api/logs/facets", q="tenant:a")
    assert {facet["field"]: facet["values"] for facet in counted["facets"]}["tenant"] == [
        {"value": "a", "count": 5},
        {"value": "b", "count": 5},
    ]


def test_a_pipe_is_answered(ask, clock):
    """A number per group over the window, and a clear answer to a line without a pipe."""
    answer = ask("/api/logs/groups", q="-error:true | count by tenant", **{"from": "5s"})
    assert answer == {
        "query": "-error:true | count by tenant",
        "start_ns": clock.now_ns() - 5 * SECOND,
        "end_ns": clock.now_ns(),
        "summary": {"function": "count", "field": "", "by": "tenant"},
        "groups": [{"group": "a", "value": 3.0, "n": 3}, {"group": "b", "value": 1.0, "n": 1}],
    }
    with pytest.raises(InputError, match=r"the line asks for no number; end it with \| count by tenant"):
        ask("/api/logs/groups", q="tenant:a")


def test_a_request_is_told(ask):
    """The story of one request, and a clear answer when nobody knows it."""
    assert ask("/api/requests/{request_id}", request_id="req-3")["failure"]["request_id"] == "req-3"
    with pytest.raises(InputError, match="no event has request_id 'req-x'; check the id and the store's retention"):
        ask("/api/requests/{request_id}", request_id="req-x")


def test_a_request_is_a_trace_and_a_person_has_a_journey(ask):
    """The story as a file for other tools; who has no request is not found, and a wrong format is refused."""
    path = "/api/requests/{request_id}/trace"
    for form, start in (("perfetto", b'{"displayTimeUnit"'), ("otlp", b'{"resourceSpans"')):
        download = ask.table[path].handler({"request_id": "req-3", "format": form}, b"")
        assert b"".join(download.chunks).startswith(start)
        assert download.filename == f"trace.{form}.json"
    with pytest.raises(InputError, match="unknown format 'zip'; use one of otlp, perfetto"):
        ask(path, request_id="req-3", format="zip")
    with pytest.raises(InputError, match="no request has user_id 'u'"):
        ask("/api/journeys", user_id="u")


@pytest.mark.parametrize(
    "arguments",
    [
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "ten"},
        {"limit": "²"},
        {"limit": "0000000000019999999"},
        {"offset": "-1"},
        {"offset": "9" * 5000},
        {"q": "since:1h until:2h"},
    ],
)
def test_a_senseless_page_is_refused(ask, arguments):
    """Numbers out of range and windows that end before they begin are the caller's mistake."""
    with pytest.raises(InputError):
        ask("/api/logs", **arguments)


def test_a_line_that_does_not_parse_is_pointed_at(ask):
    """The error carries the span, for the caret under the search box."""
    with pytest.raises(FilterError) as caught:
        ask("/api/logs", q="tool:x (")
    assert (caught.value.start, caught.value.text) == (8, "tool:x (")


def test_every_parameter_is_described(ask):
    """A parameter that a handler reads is in the endpoint's list, with a help text."""
    assert {path: [p.name for p in endpoint.parameters] for path, endpoint in ask.table.items()} == {
        "/api/logs": ["q", "from", "to", "limit", "offset"],
        "/api/logs/histogram": ["q", "from", "to", "steps"],
        "/api/logs/facets": ["q", "from", "to", "limit"],
        "/api/logs/groups": ["q", "from", "to"],
        "/api/logs/export": ["q", "from", "to", "format"],
        "/api/requests/{request_id}": ["request_id"],
        "/api/requests/{request_id}/trace": ["request_id", "format"],
        "/api/journeys": ["session_id", "user_id", "limit"],
    }
