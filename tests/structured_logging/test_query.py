"""The query line: what it means, how it fails, and that a filter can be written as a line and read back."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opsloop.errors import FilterError
from opsloop.event import Event
from opsloop.filter import ALL, And, Compare, Not, Op, Or, matches
from opsloop.structured_logging import Query, Summary, format_query, parse_query, query
from tests.strategies import events, filters

HOUR = 3600 * 10**9
NOW = 10 * HOUR


def where(line):
    """Parse a line at a fixed time."""
    return parse_query(line, now_ns=NOW).where


def contains(word):
    """Build what a bare word means."""
    return Compare("message", Op.CONTAINS, word)


A, B, C = contains("a"), contains("b"), contains("c")


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("", ALL),
        ("  *  ", ALL),
        ("tool:retrieve", Compare("tool", Op.EQ, "retrieve")),
        ("tool=retrieve", Compare("tool", Op.EQ, "retrieve")),
        ("error:true", Compare("error", Op.EQ, value=True)),
        ("duration>500ms", Compare("duration_us", Op.GT, 500_000)),
        ("duration:>=1.5s", Compare("duration_us", Op.GE, 1_500_000)),
        ("duration_us<20", Compare("duration_us", Op.LT, 20)),
        ("ttft<=80us", Compare("time_to_first_token_us", Op.LE, 80)),
        ("cost>0.01", Compare("cost_microusd", Op.GT, 10_000)),
        ("cost:$2", Compare("cost_microusd", Op.EQ, 2_000_000)),
        ("status:503", Compare("status_code", Op.EQ, 503)),
        ("level:error", Compare("severity", Op.EQ, "ERROR")),
        ("level>=warning", Compare("severity", Op.GE, "WARNING")),
        ("model:gpt*", Compare("model", Op.GLOB, "gpt*")),
        ("model:*mini", Compare("model", Op.GLOB, "*mini")),
        ('model:"gpt*"', Compare("model", Op.EQ, "gpt*")),
        ("model:*", Compare("model", Op.EXISTS)),
        ("score:>0.5", Compare("score", Op.GT, "0.5")),
        ("attributes.score:>0.5", Compare("score", Op.GT, "0.5")),
        ("attributes.duration:5", Compare("duration", Op.EQ, "5")),
        ("retry.count:2", Compare("retry.count", Op.EQ, "2")),
        ('"gen ai":x', Compare("gen ai", Op.EQ, "x")),
        ("tool!=x", Compare("tool", Op.NE, "x")),
        ("tool~x", Compare("tool", Op.CONTAINS, "x")),
        ("message:down", contains("down")),
        ('message=="down"', Compare("message", Op.EQ, "down")),
        ('"timed \\"out\\""', contains('timed "out"')),
        ("timeout*", Compare("message", Op.GLOB, "*timeout*")),
        ("a b", And((A, B))),
        ("a AND b", And((A, B))),
        ("a OR b c", Or((A, And((B, C))))),
        ("(a OR b) c", And((Or((A, B)), C))),
        ("-a", Not(A)),
        ("NOT a", Not(A)),
        ("NOT (a b)", Not(And((A, B)))),
        ("not a", And((contains("not"), A))),
        ("tool:(x OR y)", Or((Compare("tool", Op.EQ, "x"), Compare("tool", Op.EQ, "y")))),
        ("tool:(x* OR -y)", Or((Compare("tool", Op.GLOB, "x*"), Not(Compare("tool", Op.EQ, "y"))))),
        ("duration:(>1s OR <2ms)", Or((Compare("duration_us", Op.GT, 10**6), Compare("duration_us", Op.LT, 2000)))),
        ("status:[500 TO 599]", And((Compare("status_code", Op.GE, 500), Compare("status_code", Op.LE, 599)))),
        ("status:[500 TO *]", Compare("status_code", Op.GE, 500)),
        ("status:[* TO *]", Compare("status_code", Op.EXISTS)),
        ("ts:>-15m", Compare("ts_ns", Op.GT, NOW - HOUR // 4)),
        ("ts>=now", Compare("ts_ns", Op.GE, NOW)),
        ("ts:[-2h TO -1h]", And((Compare("ts_ns", Op.GE, NOW - 2 * HOUR), Compare("ts_ns", Op.LE, NOW - HOUR)))),
        ("ts_ns:5", Compare("ts_ns", Op.EQ, 5)),
        ('"a b.c":>2', Compare("a b.c", Op.GT, "2")),
        ('attributes.a/b-c:"x"', Compare("a/b-c", Op.EQ, "x")),
        ("a|b", contains("a|b")),
        ("url:http://x/y?z=1", Compare("url", Op.EQ, "http://x/y?z=1")),
    ],
)
def test_a_line_means_one_filter(line, meaning):
    """Each form of the language has exactly the filter that its table promises."""
    assert where(line) == meaning


def test_an_attribute_may_be_called_attributes():
    """A path that begins with ``attributes`` itself is found, and its line is read back as what was meant."""
    event = Event(ts_ns=1, event="log", attributes={"attributes": {"0": "x"}, "0": "y"})
    found = where("attributes.attributes.0:x")
    assert matches(found, event)
    assert not matches(where("attributes.attributes.0:y"), event)
    assert where(format_query(found)) == found


@pytest.mark.parametrize(
    ("line", "pointed"),
    [
        ("tool:", 'tool:\n     ^ expected a value; write one, or "" for the empty text'),
        (
            "tenat:acme",
            (
                "tenat:acme\n^^^^^ "
                "unknown field 'tenat': did you mean 'tenant'?; write attributes.tenat for an attribute"
            ),
        ),
        (
            "x durations>5",
            (
                "x durations>5\n  ^^^^^^^^^ "
                "unknown field 'durations': did you mean 'duration'?; write attributes.durations for an attribute"
            ),
        ),
        (
            "duration>500",
            ("duration>500\n         ^^^ '500' has no unit; write us, ms, s, m or h, such as duration>500ms"),
        ),
        (
            "tokens>5",
            (
                "tokens>5\n^^^^^^ "
                "'tokens' is more than one field; write input_tokens or output_tokens, or attributes.tokens"
            ),
        ),
        (
            "cost>cheap",
            ("cost>cheap\n     ^^^^^ 'cheap' is no amount in US dollars; write cost>0.01, or use cost_microusd"),
        ),
        (
            "level:loud",
            ("level:loud\n      ^^^^ unknown severity 'LOUD'; use one of TRACE, DEBUG, INFO, WARN, ERROR, FATAL"),
        ),
        (
            "status:5*",
            ("status:5*\n       ^^ status_code cannot be matched by a text pattern; compare it with = < <= > >="),
        ),
        ("a OR", "a OR\n    ^ expected a term"),
        ("AND a", "AND a\n^ expected a term"),
        ("(a", "(a\n^ ( is not closed; add )"),
        ("a)", "a)\n ^ unexpected ); remove it, or open it before"),
        ('"a', '"a\n^^ the quote is not closed; add "'),
        ("status:[1 TO", "status:[1 TO\n       ^^^^^ expected [low TO high]; write status_code:[1 TO 5]"),
        ("-since:1h", "-since:1h\n ^^^^^^^^ since stands outside of NOT and parentheses; move it out"),
        ("a OR since:1h", "a OR since:1h\n     ^^^^^^^^ a window cannot be one side of OR; put the OR in parentheses"),
        ("since:1h since:2h", "since:1h since:2h\n         ^^^^^^^^ since is given twice; keep one"),
        ("since>1h", "since>1h\n^^^^^^ since takes a colon; write since:1h"),
        ("ts:>soon", "ts:>soon\n    ^^^^ 'soon' is no time; write 1h, now, or ISO 8601 with a zone"),
        (
            "a | total x",
            (
                "a | total x\n    ^^^^^ expected a function after |; use one of "
                "count, sum, avg, min, max, p50, p90, p95, p99"
            ),
        ),
        ("| p59 x", "| p59 x\n  ^^^ expected a function after |; did you mean p99?"),
        ("| avg", "| avg\n     ^ what is the avg of?; name a field"),
        ("| count on x", "| count on x\n        ^^ expected by; write | count by tenant"),
        ("| count by", "| count by\n          ^ by which field?; name a field"),
        (
            "| count by tenat",
            (
                "| count by tenat\n           ^^^^^ unknown field 'tenat': did you mean 'tenant'?; "
                "write attributes.tenat for an attribute"
            ),
        ),
        (
            "| count | count",
            "| count | count\n        ^ unexpected |; write | count by tenant",
        ),
        ("(a |b)", "(a |b)\n   ^ | stands outside of NOT and parentheses; move it to the end, or quote it"),
        ("since:soon", "since:soon\n      ^^^^ 'soon' is no time; write 1h, now, or ISO 8601 with a zone"),
    ],
)
def test_a_fault_is_pointed_at(line, pointed):
    """A line that does not parse says what is wrong, where, and what to write instead."""
    with pytest.raises(FilterError) as caught:
        where(line)
    assert caught.value.pointed() == pointed


def test_a_line_names_its_window():
    """The times since and until are times ago, now, or ISO 8601; they set the window and leave the filter alone."""
    asked = parse_query("since:1h a until:10m", now_ns=NOW)
    assert (asked.where, asked.start_ns, asked.end_ns) == (A, NOW - HOUR, NOW - HOUR // 6)
    assert parse_query("until:now since:1970-01-01T00:00:01Z", now_ns=NOW).start_ns == 10**9
    assert parse_query("since:99999w", now_ns=NOW).start_ns == 0


def test_a_pipe_asks_for_a_number():
    """What stands after the bar is a function, its field and the field to group by; the filter stays as it is."""
    assert parse_query("a since:1h | p95 duration by model", now_ns=NOW) == Query(
        A, start_ns=NOW - HOUR, summary=Summary("p95", "duration_us", "model")
    )
    assert parse_query('|count by "gen ai"', now_ns=NOW).summary == Summary("count", by="gen ai")
    assert parse_query("a | count ", now_ns=NOW).summary == Summary("count")


signs = [":", "=", ">", "<=", "!=", "~", "*=", "(", ")", "[", "]", '"', "\\", "-", "*", "$", " ", "é"]
known = ["tool", "duration", "since", "attributes.", "message", "severity", "error", "AND", "OR", "NOT", "TO"]
pieces = st.sampled_from([*signs, *known, "500ms", "1h", "9" * 400])
lines = st.lists(pieces | st.text(max_size=3), max_size=14).map("".join)


@given(line=lines)
@example(line="since:" + "9" * 400 + "w")
@example(line="(" * 3000)
@example(line="-" * 4000)
@example(line="NOT " * 900)
@example(line="tool:" + "(" * 500)
@example(line="x" * 5000)
@example(line="attributes.attributes.0:0")
def test_the_parser_raises_nothing_but_its_own_error(line):
    """Whatever is typed, the answer is a filter that can be applied, or a FilterError with a span inside the line."""
    fault, found = None, ALL
    try:
        found = where(line)
    except FilterError as raised:
        fault = raised
    if fault is not None:
        assert 0 <= fault.start <= fault.end <= max(len(line), fault.start + 1)
    matches(found, Event(ts_ns=1, event="tool", message="x", attributes={"a": 1}))
    assert where(format_query(found)) == found


@given(line=lines)
def test_formatting_is_stable(line):
    """A line that parses, written out and read back, is the same filter, and the written form stays as it is."""
    try:
        found = where(line)
    except FilterError:
        return
    text = format_query(found)
    assert format_query(where(text)) == text


names = st.sampled_from(
    ["tool", "tenant", "score", "duration", "since", "tenat", "gen ai", 'q"x', "größe", "AND", "tokens"]
)
texts = st.text(max_size=5) | st.sampled_from(["*", "a*", "", "a b", "AND", "-x", "[1 TO 2]", "(", '"', "\\", "500"])
canonical = st.recursive(
    st.one_of(
        st.builds(Compare, names, st.sampled_from([Op.EQ, Op.NE, Op.LT, Op.GE, Op.GLOB, Op.CONTAINS]), texts),
        st.builds(Compare, names, st.just(Op.EXISTS)),
        st.builds(Compare, st.just("message"), st.sampled_from([Op.EQ, Op.NE, Op.GLOB, Op.CONTAINS, Op.GT]), texts),
        st.builds(
            Compare,
            st.sampled_from(["duration_us", "cost_microusd"]),
            st.sampled_from([Op.EQ, Op.NE, Op.LT, Op.GE]),
            st.integers(-(2**62), 2**62) | st.floats(0.001, 1e9),
        ),
        st.builds(Compare, st.just("severity"), st.sampled_from([Op.EQ, Op.GE]), st.sampled_from(["WARN", "ERROR"])),
        st.builds(Compare, st.just("error"), st.sampled_from([Op.EQ, Op.NE]), st.booleans()),
    ),
    lambda inner: st.one_of(
        st.builds(lambda parts: And(tuple(parts)), st.lists(inner, min_size=2, max_size=3)),
        st.builds(lambda parts: Or(tuple(parts)), st.lists(inner, min_size=2, max_size=3)),
        st.builds(Not, inner),
    ),
    max_leaves=6,
)


@given(tree=canonical)
def test_a_filter_written_as_a_line_reads_back(tree):
    """parse(format(f)) == f, whatever the field's name, the operator and the value."""
    assert where(format_query(tree)) == tree


@given(tree=filters, event=events)
def test_a_written_filter_means_the_same(tree, event):
    """Any filter at all, written and read back, passes and refuses the same events."""
    assert matches(where(format_query(tree)), event) == matches(tree, event)


def test_query_joins_the_line_the_keywords_and_the_window(stream):
    """Keywords and line must both hold; the narrower of the two windows counts, and both forms find the same."""
    failed = Event(ts_ns=NOW - 5, event="tool", tool="retrieve", error=True, duration_us=600_000)
    early = failed.replace(ts_ns=NOW - 2 * HOUR)
    fine = failed.replace(error=False, ts_ns=NOW - 4)
    stream.append([early, failed, fine])
    assert query(stream, event="tool", tool="retrieve", error=True) == [early, failed]
    assert query(stream, "error:true duration>500ms since:1h", now_ns=NOW, event="tool") == [failed]
    assert query(stream, "since:3h", now_ns=NOW, start_ns=NOW - HOUR) == [failed, fine]
    assert query(stream, limit=1, newest_first=True) == [fine]
    assert query(stream) == [early, failed, fine]
    with pytest.raises(FilterError, match="query returns events; use summarise for a number"):
        query(stream, "tool:retrieve | count")
