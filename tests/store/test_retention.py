"""Retention row by row: the settings' rule, its SQL, and the engine that enforces it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsloop.clock import parse_time
from opsloop.errors import ConfigError
from opsloop.event import Event
from opsloop.filter import Statement
from opsloop.server.workers import Workers
from opsloop.settings import RETENTION_FIELDS, RetentionSettings, ServerSettings, Settings, load_settings
from opsloop.store.retention import apply_retention, days_sql, drop_old_days, ttl_sql
from tests.strategies import events

DAY_NS = 86_400 * 10**9
FILE = """
[server]
retention_days = 30
[[retention]]
when = { tenant = "acme" }
days = 7
[[retention]]
when = { event = ["incident", "guard", "score"] }
days = 400
[[retention]]
when = { event = "span", service = "batch" }
days = 3
"""
names = st.sampled_from(["", "acme", "o'hara", "back\\slash", "größe", "span", "score", "log", "tool"])
rules = st.builds(
    RetentionSettings,
    when=st.dictionaries(
        st.sampled_from(RETENTION_FIELDS), names | st.lists(names, min_size=1, max_size=3).map(tuple), min_size=1
    ),
    days=st.integers(1, 36_500),
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(batch=st.lists(events, min_size=1, max_size=8), named=names, rules=st.lists(rules, max_size=4).map(tuple))
def test_sql_agrees_with_the_definition(clickhouse, batch, named, rules):
    """For any rules and any events, the table's expression is the number of days that the settings say."""
    batch = [event.replace(event_id="", tenant=named) for event in batch]
    clickhouse.command(Statement("TRUNCATE TABLE events"))
    clickhouse.append(batch)
    chosen = Settings(retention=rules)
    found = clickhouse.rows(Statement(f"SELECT {days_sql(chosen)} FROM events ORDER BY ts_ns, sequence"))
    assert found == [(chosen.days_kept(event),) for event in clickhouse.query()]


def kept(stream):
    """Merge everything, as the engine does by and by, and return what is left."""
    stream.command(Statement("OPTIMIZE TABLE events FINAL"))
    return [event.message for event in stream.query()]


def test_the_engine_drops_each_row_in_its_time(clickhouse, tmp_path):
    """Spans go after a month, a tenant's after a week, scores stay a year; a new rule counts for what is stored."""
    path = tmp_path / "opsloop.toml"
    path.write_text(FILE)
    chosen = load_settings(path, environ={})
    ((now_ns,),) = clickhouse.rows(Statement("SELECT toUnixTimestamp64Nano(now64(9))"))  # the engine drops by its own

    def old(days, **fields):
        fields = {"event": "span", **fields}
        clickhouse.append([Event(ts_ns=now_ns - days * DAY_NS, message=f"{fields['event']} {days}", **fields)])

    for days in (2, 5, 29, 32, 399, 402):
        old(days)
        old(days, event="score")
    old(6, tenant="acme")
    old(9, tenant="acme", event="incident")
    old(4, service="batch")
    assert apply_retention(clickhouse, chosen, now_ns=now_ns)
    left = ["score 399", "score 32", "score 29", "span 29", "span 6", "score 5", "span 5", "span 2", "score 2"]
    assert sorted(kept(clickhouse)) == sorted(left)
    assert not apply_retention(clickhouse, chosen, now_ns=now_ns)
    assert apply_retention(clickhouse, Settings(server=ServerSettings(retention_days=3), retention=()), now_ns=now_ns)
    assert sorted(kept(clickhouse)) == ["score 2", "span 2"]
    history = clickhouse.rows(Statement("SELECT ttl FROM retentions"))
    assert len(history) == 2


def test_the_server_puts_the_rules_in_force(clickhouse, clock):
    """It does so once, and does not undo each turn what a server with other rules has set; a rehearsal never does."""
    clickhouse.append([Event(ts_ns=clock.now_ns() - 20 * DAY_NS, event="log", message="of the past")])
    chosen = Settings(server=ServerSettings(retention_days=30), retention=())
    workers = Workers(clickhouse, chosen, clock)
    workers.tick()
    assert "of the past" in kept(clickhouse)  # by the clock of the workers it is not old, by the engine's it is
    for _ in range(2):
        workers.enforce_retention()
    assert clickhouse.rows(Statement("SELECT ttl FROM retentions")) == [(ttl_sql(chosen),)]
    assert "of the past" not in kept(clickhouse)
    apply_retention(clickhouse, Settings(), now_ns=clock.now_ns() + 1)
    workers.enforce_retention()
    ((text,),) = clickhouse.rows(
        Statement("SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND name = 'events'")
    )
    assert "TTL toDate(fromUnixTimestamp64Nano(ts_ns, 'UTC')) + toIntervalDay(multiIf(" in text


def test_old_days_are_dropped_whole(clickhouse):
    """Days before the longest retention go at once, later ones stay, and a second pass finds nothing."""
    days = ["2026-01-01", "2026-01-02", "2026-01-05"]
    clickhouse.append([Event(ts_ns=parse_time(f"{day}T12:00:00Z"), event="log", message=day) for day in days])
    now_ns = parse_time("2026-01-05T13:00:00Z")
    assert drop_old_days(clickhouse, retention_days=3, now_ns=now_ns) == ["20260101"]
    assert drop_old_days(clickhouse, retention_days=3, now_ns=now_ns) == []
    assert [event.message for event in clickhouse.query()] == days[1:]


def test_decisions_are_kept_longer_by_default():
    """Scores, incidents and guards stay two years, and never shorter than everything else."""
    for days, expected in ((90, (90, 730, 730)), (1000, (1000, 1000, 1000))):
        chosen = Settings(server=ServerSettings(retention_days=days))
        assert tuple(chosen.days_kept(Event(ts_ns=0, event=kind)) for kind in ("span", "score", "guard")) == expected
        assert (chosen.shortest_days, chosen.longest_days) == (min(expected), max(expected))


@pytest.mark.parametrize("when", ["{}", '{ message = "x" }'])
def test_a_rule_by_what_it_cannot_be_is_refused(tmp_path, when):
    """A rule needs names that stand in every row; the error lists them."""
    (tmp_path / "opsloop.toml").write_text(f"[[retention]]\nwhen = {when}\ndays = 3\n")
    with pytest.raises(ConfigError, match=r"a \[\[retention\]\] is by '.*', which it cannot be; let when name one"):
        load_settings(tmp_path / "opsloop.toml", environ={})
