"""Exports: every matching event, in three formats, and back again."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from opsloop.errors import InputError
from opsloop.event import FIELDS, Event
from opsloop.filter import ALL, TEXT_FIELDS, Statement, equals, matches
from opsloop.ingest import read_json_lines
from opsloop.structured_logging.export import export, guarded
from tests.strategies import events, filters

START, END = 1_767_600_000_000_000_000, 1_767_600_000_000_000_020
ONCE = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def written(database, form, where=ALL):
    """Return an export of the whole window."""
    return b"".join(export(database, where, start_ns=START, end_ns=END, form=form).chunks)


def stored(database, batch, where=ALL):
    """Store a batch in an empty table; return what of it an export should hold."""
    database.command(Statement("TRUNCATE TABLE events"))
    database.append(batch)
    inside = [event for event in batch if START < event.ts_ns <= END and matches(where, event)]
    return sorted(inside, key=lambda event: event.ts_ns)


@ONCE
@given(batch=st.lists(events, max_size=12), where=filters)
def test_json_lines_can_be_ingested_again(clickhouse, batch, where):
    """What the ingest reads from an export is exactly what was stored, all of it and in time order."""
    expected = stored(clickhouse, batch, where)
    read = read_json_lines(written(clickhouse, "jsonl", where))
    assert (list(read.events), read.rejected) == (expected, 0)


cells = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6) | st.sampled_from(
    ["=1+1", "+1", "-2", "@x", "\tx", "\r=", "\n", '"', 'a"b,c\nd', "'x", "\\N", "ü"]
)


@ONCE
@given(texts=st.lists(cells, min_size=1, max_size=8))
@example(texts=["=cmd|' /C calc'!A0", "", "ok"])
def test_csv_holds_every_cell_and_runs_none(clickhouse, texts):
    """A reader of CSV finds every column of every event, and no text cell begins as a formula does."""
    batch = [Event(ts_ns=START + 1, event="log", message=text, tool=text, attributes={"a": text}) for text in texts]
    expected = stored(clickhouse, batch)
    head, *rows = csv.reader(io.StringIO(written(clickhouse, "csv").decode(), newline=""))
    assert tuple(head) == FIELDS
    assert [row[FIELDS.index("message")] for row in rows] == [guarded(event.message) for event in expected]
    assert not [cell for row in rows for name, cell in zip(FIELDS, row, strict=True) if name in TEXT_FIELDS
                and cell[:1] in set("=+-@\t\r\n")]  # fmt: skip
    assert {row[FIELDS.index("duration_us")] for row in rows} == {""}


@ONCE
@given(batch=st.lists(events, min_size=1, max_size=12))
def test_parquet_is_read_back_by_the_engine(clickhouse, tmp_path_factory, batch):
    """A Parquet file has every event with every value; an absent number is absent, and a severity is its name."""
    expected = stored(clickhouse, batch)
    file = tmp_path_factory.mktemp("export") / "events.parquet"
    file.write_bytes(written(clickhouse, "parquet"))
    if not expected:
        return
    clickhouse.command(Statement("TRUNCATE TABLE events"))
    names = ", ".join(FIELDS)
    stored_names = names.replace("event_id", "stored_event_id").replace("attributes", "stored_attributes")
    read = f"INSERT INTO events ({stored_names}) SELECT {names} FROM file({{file:String}}, 'Parquet')"
    clickhouse.command(Statement(read, {"file": str(file)}))
    found = clickhouse.query()
    assert sorted(map(repr, found)) == sorted(map(repr, expected))


def test_an_export_is_all_and_arrives_in_pieces(clickhouse):
    """More rows than any page has come out whole, in pieces much smaller than the whole."""
    clickhouse.append(Event(ts_ns=START + 1 + n % 20, event="log", message=f"{n} {'x' * 200}") for n in range(20_000))
    for form in ("jsonl", "csv"):
        pieces = list(export(clickhouse, ALL, start_ns=START, end_ns=END, form=form).chunks)
        assert b"".join(pieces).count(b"\n") == 20_000 + (form == "csv")
        assert max(map(len, pieces)) < sum(map(len, pieces)) / 10


def test_leaving_early_and_asking_wrongly(clickhouse):
    """A download that is given up ends its statement; nothing matches is an empty file; a format is one of three."""
    clickhouse.append(Event(ts_ns=START + 1, event="log", message="x" * 200) for n in range(20_000))
    download = export(clickhouse, ALL, start_ns=START, end_ns=END, form="csv")
    next(download.chunks)
    download.chunks.close()
    assert written(clickhouse, "jsonl", equals(tenant="none")) == b""
    assert download.filename == "events.csv"
    with pytest.raises(InputError, match="unknown format 'xlsx'; use one of jsonl, csv, parquet"):
        export(clickhouse, ALL, start_ns=START, end_ns=END, form="xlsx")
