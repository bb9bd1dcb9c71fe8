"""The whole machine: readings in, pages and reasons out."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.alerting import Book, decide, load_rules
from opsloop.alerting.ledger import decision_events, explanation_of, restore
from opsloop.verdict import Verdict
from tests.alerting.readings import LETTERS, SECOND, START, alert, breach, fine, reading, settings_of

MINUTE = 60 * SECOND
NAMES = ("latency", "latency-p99", "errors", "quality")


def run(story, *alerts, severe=(), book=None, every=MINUTE):
    """Judge a story of letters such as ``X00X`` over NAMES; return [(minute, outcome, line)] and the last book."""
    rules, book, told = load_rules(settings_of(*(alerts or [alert()]))), book or Book(), []
    for at, letters in enumerate(story):
        now = START + at * every
        readings = [
            reading(name, LETTERS[letter], end_ns=now, severe=name in severe and letter == "X")
            for name, letter in zip(NAMES, letters, strict=True)
            if letter != " "
        ]
        book, decisions = decide(rules, book, readings, now)
        told.extend((at, one.explanation.outcome, one.explanation.line()) for one in decisions)
    return told, book


def outcomes(story, *alerts, **given_):
    """Return only what went out, by evaluation."""
    return [outcome for _, outcome, _ in run(story, *alerts, **given_)[0]]


def test_two_signals_page_once_and_one_never_does():
    """Quiet, one signal, two signals, still two, one after recovery, one signal under two ids: a single page."""
    told = outcomes(["0000", "X000", "X0X0", "X0X0", "0000", "000X", "XX00"])
    assert told == ["no page", "no page", "page", "no page", "resolved", "no page", "no page"]


def test_a_missing_reading_stands_for_one_interval():
    """A room that measures a moment later keeps its last word for one evaluation interval, not for two."""
    rules = load_rules(settings_of(alert(), evaluate_seconds=15.0))
    book, _ = decide(rules, Book(), [breach("latency"), breach("errors")], START)
    near, far = START + 15 * SECOND, START + 16 * SECOND
    assert decide(rules, book, [breach("latency", near)], near)[1][0].explanation.verdict is Verdict.BREACH
    assert decide(rules, book, [breach("latency", far)], far)[1][0].explanation.verdict is Verdict.NO_DATA


def test_the_page_says_what_breached():
    """The line of a page names the count, each vote with value, threshold and n, and how far the notice came."""
    (_, _, line), *_ = run(["X0X0"])[0]
    assert line == (
        "unhealthy is firing, page: 2 of 3 signals breach in one window: latency (p95 2.00 > 1.00, n=240), "
        "errors (p95 2.00 > 1.00, n=240); receiver pager: first notification"
    )


def test_a_signal_that_goes_silent_keeps_the_alert():
    """Errors vanish while firing: kept, with the reason; when they come back OK it is resolved."""
    told, _ = run(["X0X0", "X0 0", "X0-0", "X0?0", "X000"])
    assert [outcome for _, outcome, _ in told] == ["page", "no page", "no page", "no page", "resolved"]
    assert "breaching before and silent now: errors" in told[1][2]
    assert "not seen to recover: errors" in told[3][2] or "too few events" in told[3][2]


def test_signals_that_never_had_data_do_not_keep_an_alert():
    """Quality was never measured: the others' recovery is enough."""
    assert outcomes(["X0X ", "000 "]) == ["page", "resolved"]


def test_a_signal_clears_below_its_clear_line_only():
    """At 0.95 of the threshold the alert is kept, at 0.9 it is resolved."""
    rules, book, phases = load_rules(settings_of(alert())), Book(), []
    for at, value in enumerate([2.0, 0.95, 0.9]):
        now = START + at * MINUTE
        state = Verdict.BREACH if value > 1 else Verdict.OK
        readings = [breach("latency", now), reading("errors", state, end_ns=now, value=value)]
        book, (decision,) = decide(rules, book, readings, now)
        phases.append(decision.explanation.phase)
    assert phases == ["firing", "firing", "inactive"]


def test_a_severe_single_pages_and_holds_until_its_signal_recovers():
    """Latency alone pages when severe; while it still breaches, though less, the episode goes on."""
    assert outcomes(["X000"], severe={"latency"}) == ["page"]
    _, book = run(["X000"], severe={"latency"})
    told, _ = run(["X000", "X000"], book=book, every=0)
    assert told[-1][2].startswith("unhealthy is firing, no page: the severe single latency still breaches")
    assert outcomes(["X000"], alert(severe_alone=False), severe={"latency"}) == ["no page"]


def test_two_tenants_never_add_up_and_each_pages_for_itself():
    """Latency of one tenant and errors of another are no page; both at one tenant are, and only for that tenant."""
    rules = load_rules(settings_of(alert()))
    a, b = {"tenant": "a"}, {"tenant": "b"}
    _, apart = decide(rules, Book(), [breach("latency", labels=a), breach("errors", labels=b)], START)
    assert [one.explanation.outcome for one in apart] == ["no page", "no page"]
    both = [breach("latency", labels=a), breach("errors", labels=a), fine("latency", labels=b)]
    _, together = decide(rules, Book(), both, START)
    assert [(one.explanation.key, one.explanation.phase) for one in together] == [
        ("tenant=a", "firing"),
        ("tenant=b", "inactive"),
    ]
    (notice,) = together[0].notices
    assert [member.labels["tenant"] for member in notice.members] == ["a"]


def test_a_second_tenant_joins_the_group_and_does_not_page_at_once():
    """Within the group's interval a further key waits, then one notice tells of both."""
    rules, book, sent = load_rules(settings_of(alert())), Book(), []
    for at in range(8):
        now = START + at * MINUTE
        tenants = ["a"] if at == 0 else ["a", "b"]
        readings = [breach(name, now, labels={"tenant": t}) for t in tenants for name in ("latency", "errors")]
        book, decisions = decide(rules, book, readings, now)
        sent.extend((at, n.reason, len(n.members), n.title[-12:]) for one in decisions for n in one.notices)
    assert sent[0][:3] == (0, "first notification", 1)
    assert sent[1:] == [(5, "new alerts added", 2, " (and 1 more)"[-12:])]


def test_a_suppressor_holds_the_notice_back_never_the_state():
    """During a known quality breach the alert fires unseen; when that clears it is told, and nothing is lost."""
    quiet = alert(
        "AT_LEAST(2, BREACH, (latency, errors))", unless="BREACH(quality)", wait_seconds=0, extension_seconds=60
    )
    told, _ = run(["000X", "X0XX", "X0X0", "X0X0"], quiet)
    assert [outcome for _, outcome, _ in told] == ["no page", "no page", "no page", "page"]
    assert told[1][2].endswith("suppressor: held back by BREACH(quality)")
    assert "is firing" in told[1][2]
    assert told[2][2].endswith("suppressor: waits for the suppressor")


def test_m_of_n_asks_for_more_than_one_evaluation():
    """Two of the last three evaluations must breach; a single spike does not page."""
    rule = alert(points=3, points_to_fire=2)
    assert outcomes(["0000", "0000", "0000", "X0X0", "0000", "X0X0"], rule)[3:] == ["no page", "no page", "page"]


def test_a_composite_over_composites_pages():
    """A rule over two other rules holds when both do."""
    rules = [
        alert("BREACH(latency)", id="slow", severity="ticket"),
        alert("BREACH(errors)", id="failing", severity="ticket"),
        alert("BREACH(slow) AND BREACH(failing)", id="both"),
    ]
    assert outcomes(["X000"], *rules) == ["ticket", "no ticket", "no page"]
    assert outcomes(["X0X0"], *rules) == ["ticket", "ticket", "page"]


def test_a_reopened_episode_goes_on_counting_its_notices():
    """Page, resolve and page again within reopen_seconds are notices 1, 2 and 3 of one episode and one key."""
    rules, book, sent = load_rules(settings_of(alert(reopen_seconds=300.0))), Book(), []
    for at, make in enumerate([breach, fine, breach]):
        now = START + at * MINUTE
        book, decisions = decide(rules, book, [make("latency", now), make("errors", now)], now)
        sent.extend((n.number, n.status, n.episode) for one in decisions for n in one.notices)
    episode = "2026-01-05T09:00:00.000Z"
    assert sent == [(1, "firing", episode), (2, "resolved", episode), (3, "firing", episode)]


def test_an_alert_is_told_again_after_its_repeat_interval():
    """Still firing after repeat_seconds: one repeat, in the same episode with the next number."""
    rules, book, sent = load_rules(settings_of(alert(repeat_seconds=600.0))), Book(), []
    for at in range(12):
        now = START + at * MINUTE
        book, decisions = decide(rules, book, [breach("latency", now), breach("errors", now)], now)
        sent.extend((at, n.reason, n.number, n.incident_key) for one in decisions for n in one.notices)
    key = "opsloop/unhealthy/2026-01-05T09:00:00.000Z"
    assert sent == [(0, "first notification", 1, key), (10, "repeat interval elapsed", 2, key)]


letters = st.text(alphabet="X0-? ", min_size=4, max_size=4)
rules_ = st.builds(
    alert,
    for_seconds=st.sampled_from([0.0, 90.0]),
    clear_for_seconds=st.sampled_from([0.0, 90.0]),
    points=st.just(3),
    points_to_fire=st.sampled_from([1, 2]),
    unless=st.sampled_from(["", "NO_DATA(quality)"]),
    flap_changes=st.sampled_from([0, 2]),
    cool_down_seconds=st.sampled_from([0.0, 180.0]),
    reopen_seconds=st.sampled_from([0.0, 120.0]),
    group_interval_seconds=st.sampled_from([0.0, 120.0]),
    repeat_seconds=st.sampled_from([300.0, 14_400.0]),
)


@settings(max_examples=60, deadline=None)
@given(story=st.lists(letters, min_size=1, max_size=14), rule=rules_, severe=st.sets(st.sampled_from(NAMES)))
def test_a_restart_at_any_moment_decides_the_same(story, rule, severe):
    """A machine rebuilt from the stored events before every evaluation stores exactly the same events."""
    rules = load_rules(settings_of(rule, evaluate_seconds=1.0))
    kept, steady, rebuilt = Book(), [], []
    for at, row in enumerate(story):
        now = START + at * MINUTE
        readings = [
            reading(name, LETTERS[letter], end_ns=now, severe=name in severe and letter == "X")
            for name, letter in zip(NAMES, row, strict=True)
            if letter != " "
        ]
        kept, decisions = decide(rules, kept, readings, now)
        steady.extend(event for one in decisions for event in decision_events(one))
        _, again = decide(rules, restore(rebuilt), readings, now)
        rebuilt.extend(event for one in again for event in decision_events(one))
    assert rebuilt == steady
    assert len({event.event_id for event in steady}) == len(steady)


def test_an_explanation_survives_the_stream(stream):
    """What is stored reads back as the same record, votes, path and all, from every form of the stream."""
    rules = load_rules(settings_of(alert()))
    _, decisions = decide(rules, Book(), [breach("latency"), breach("errors")], START)
    stream.append(decision_events(decisions[0]))
    first, notice = stream.query()
    assert explanation_of(first) == decisions[0].explanation
    assert (first.attributes["state"], first.attributes["phase"], first.severity) == ("firing", "transition", "ERROR")
    assert [vote["id"] for vote in first.attributes["votes"]] == ["latency", "errors"]
    assert first.event_id == "alert:unhealthy:2026-01-05T09:00:00.000Z:1-firing"
    assert (notice.attributes["phase"], notice.attributes["outcome"]) == ("notice", "pending")
    assert restore(stream.query()).memories[("unhealthy", "")] == decisions[0].memory


def test_the_text_of_an_explanation_goes_from_inputs_to_the_stop():
    """Every input with its numbers, the absent ones too, the result, and where the notice stopped."""
    rules = load_rules(settings_of(alert("AT_LEAST(2, BREACH, (latency, errors))")))
    _, (decision,) = decide(rules, Book(), [breach("latency")], START)
    assert decision.explanation.text() == (
        "unhealthy at 2026-01-05T09:00:00.000Z: no page\n"
        "  formula     AT_LEAST(2, BREACH, (latency, errors))\n"
        "  window      (2026-01-05T08:59:00.000Z, 2026-01-05T09:00:00.000Z]\n"
        "  input       BREACH       latency (p95 2.00 > 1.00, n=240)\n"
        "  input       NO_DATA      errors\n"
        "  result      OK, 1 of 2 signals breach in one window, 2 needed\n"
        "  transition  stays inactive\n"
        "  stopped     condition: the alert is not firing"
    )
