"""The endpoints answer from the stream, whichever form it has, and blame the right side."""

from __future__ import annotations

import msgspec
import pytest

from opsloop.cli.limit import check
from opsloop.clock import SeededIds
from opsloop.errors import ConfigError, InputError, PayloadError
from opsloop.event import Event
from opsloop.rate_limit import Context, Limiter, policy_from_settings
from opsloop.rate_limit.api import endpoints
from opsloop.settings import LimitSettings, Settings

LIMIT = LimitSettings(id="rpm", lever="rate", amount=60, burst=2)


@pytest.fixture
def ask(stream, clock):
    """Call an operation over four recorded admissions, a minute ago: two allowed, two rejected."""
    limiter = Limiter(policy_from_settings([LIMIT]), clock=clock, ids=SeededIds(1), sink=stream)
    for number, tenant in enumerate(["acme", "acme", "acme", "acme"]):
        limiter.admit(Context(tenant=tenant, request_id=f"req-{number}"))
    clock.advance(seconds=60)
    found = {
        (endpoint.method, endpoint.path): endpoint.handler
        for endpoint in endpoints(stream, Settings(limit=(LIMIT,)), clock)
    }

    def call(path, body=b"", *, method="GET", **arguments):
        return msgspec.json.decode(msgspec.json.encode(found[method, path](arguments, body)))

    return call


def test_limits_tells_the_policy_and_its_use(ask):
    """As configured, counted by limit and tenant, in intervals, with the latest rejections first."""
    answer = ask("/api/limits", **{"from": "2m"})
    assert [limit["id"] for limit in answer["policy"]] == ["rpm"]
    usage = answer["usage"]
    assert (usage["decisions"], usage["rejected"]) == (4, 2)
    assert usage["limits"] == [
        {
            "limit": "rpm",
            "decisions": 4,
            "rejected": 2,
            "used_ratio": 1.0,
            "used_ratio_max": 1.0,
            "top_rejected": [{"tenant": "acme", "rejected": 2}],
        }
    ]
    assert len(usage["series"]) == 60
    counted = [(part["allowed"], part["rejected"]) for part in usage["series"]]
    assert counted == [(0, 0)] * 29 + [(2, 2)] + [(0, 0)] * 30
    assert [refusal["request_id"] for refusal in usage["recent"]] == ["req-3", "req-2"]
    assert usage["recent"][0]["violated"] == ["rpm"]
    assert usage["recent"][0]["retry_after_seconds"] == 1.0


@pytest.mark.parametrize(
    "body",
    [
        b'[[limit]]\nid = "tight"\nlever = "rate"\namount = 1\nper = "hour"\n',
        b'{"limit": [{"id": "tight", "lever": "rate", "amount": 1, "per": "hour"}]}',
        b'[{"id": "tight", "lever": "rate", "amount": 1, "per": "hour"}]',
    ],
)
def test_simulate_takes_toml_and_json(ask, body):
    """One per hour would have rejected three of the four."""
    report = ask("/api/limits/simulate", body, method="POST", **{"from": "2m"})
    assert (report["decisions"], report["rejected"], report["newly_rejected"]) == (4, 3, 1)


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        (b"{]", PayloadError, "the body is neither JSON nor TOML"),
        (b"", PayloadError, "the body holds no limit"),
        (b'[[limit]]\nid = "x"\nlever = "rat"\namount = 1', PayloadError, "Invalid enum value 'rat'"),
        (b'[[limit]]\nid = "x"\nlever = "quota"\namount = 1', InputError, "a quota per minute is no calendar period"),
    ],
)
def test_a_wrong_policy_is_the_senders_mistake(ask, body, error, said):
    """Each says what is wrong; none is an error of the service."""
    with pytest.raises(error, match=said):
        ask("/api/limits/simulate", body, method="POST")


def test_explain_tells_one_requests_decisions(ask):
    """Why it was rejected, in one sentence and in full."""
    answer = ask("/api/limits/explain", request_id="req-3")
    assert answer["reason"] == (
        "rejected 1 of 1 times, the last by rpm for tenant acme: "
        "0 of 60 requests per minute left, 1 asked, admissible in 1 s"
    )
    assert [decision["status"] for decision in answer["decisions"]] == ["rejected"]
    assert ask("/api/limits/explain", request_id="req-0")["reason"] == "admitted 1 times, never rejected"
    assert ask("/api/limits/explain", request_id="x")["reason"] == "no limit decision was recorded for x"
    with pytest.raises(InputError, match="request_id is missing"):
        ask("/api/limits/explain")


def test_events_that_others_wrote_badly_do_not_break_the_page(ask, stream, clock):
    """Whatever a limit event's attributes hold is counted as far as it can be read."""
    odd = {"allowed": False, "violated": "rpm", "limits": {"rpm": 5, "x": {"used_ratio": "full"}}, "estimate": [1]}
    stream.append([Event(ts_ns=clock.now_ns(), event="limit", attributes=odd)])
    usage = ask("/api/limits", **{"from": "1s"})["usage"]
    assert (usage["rejected"], [(u["limit"], u["used_ratio"]) for u in usage["limits"]]) == (
        1,
        [("rpm", None), ("x", None)],
    )
    body = b'[[limit]]\nid = "x"\nlever = "rate"\namount = 1'
    assert ask("/api/limits/simulate", body, method="POST", **{"from": "1s"})["decisions"] == 1


def test_explain_tells_of_waiting_and_of_shadow_limits(stream, clock):
    """What would have been rejected, and by what, were the shadow limits real; and how long was waited."""
    shadow = LimitSettings(id="strict", lever="rate", amount=1, per="hour", burst=1, shadow=True)
    limiter = Limiter(policy_from_settings([LIMIT, shadow]), clock=clock, ids=SeededIds(1), sink=stream)
    who = Context(tenant="acme", request_id="req-s")
    limiter.admit(who)
    decision, found = limiter.attempt(who)
    limiter.record(decision, shadow=found, waited_seconds=1.5)
    handlers = {endpoint.path: endpoint.handler for endpoint in endpoints(stream, Settings(limit=(LIMIT,)), clock)}
    assert handlers["/api/limits/explain"]({"request_id": "req-s"}, b"").reason == (
        "admitted 2 times, never rejected, after waiting 1.500 s; shadow limits would have rejected 1, "
        "strict for tenant acme: 0 of 1 requests per hour left, 1 asked, admissible in 3600 s"
    )


def test_a_server_does_not_start_with_limits_that_contradict_themselves(stream, clock):
    """The mistake is found at load, and not at the first request."""
    wrong = LimitSettings(id="x", lever="quota", amount=1, per="day", burst=2)
    with pytest.raises(ConfigError, match="limit 'x': a quota has no burst"):
        endpoints(stream, Settings(limit=(wrong,)), clock)


def test_check_says_what_a_policy_means_or_in_which_line_it_is_wrong(tmp_path, capsys):
    """The command reads a file as the limiter would."""
    file = tmp_path / "limits.toml"
    file.write_text('[[limit]]\nid = "rpm"\nlever = "rate"\namount = 60\nshadow = true\n')
    assert check(file) == 0
    said = capsys.readouterr().out.split("\n")
    assert any("60 requests per minute" in line and "shadow" in line for line in said)
    file.write_text('[[limit]]\nid = "rpm"\nlever = "rate"\namount = 60\nrolling = 2\n')
    with pytest.raises(ConfigError, match=r"limits.toml:5: limit 'rpm': a rate does not roll"):
        check(file)
