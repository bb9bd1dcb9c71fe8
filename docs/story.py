"""One failure, all the way round: log, breach, page, incident, guard, gate. Real rooms, a simulated bot.

The same bytes on every run. The README shows what it prints.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import msgspec

from opsloop.clock import NANOSECONDS, ManualClock, parse_time, utc
from opsloop.filter import equals
from opsloop.improvement import HISTORY_KINDS, Incident, capture, flywheel, landed_event, prove, rebuild, run_guards
from opsloop.improvement import write_guard as write
from opsloop.server import instants, rehearse
from opsloop.settings import GuardSettings, ReceiverSettings, Settings
from opsloop.sim import Fault, SupportBot, answer, consult
from opsloop.store import ClickHouseStream
from opsloop.structured_logging import correlate, query

START = parse_time("2026-01-05T09:00:00Z")
MINUTE = 60 * NANOSECONDS
END = START + 120 * MINUTE
OUTAGE = (START + 60 * MINUTE, START + 80 * MINUTE)


def main() -> None:
    """Tell the story in six steps."""
    with tempfile.TemporaryDirectory() as folder, ClickHouseStream(":memory:", database="story") as stream:
        settings = Settings(
            receiver=(ReceiverSettings(id="notices", path=f"{folder}/notices.jsonl"),),
            guards=GuardSettings(folder=f"{folder}/guards"),
        )
        faults = [Fault("retriever_outage", *OUTAGE, 0.15), Fault("slow_model", *OUTAGE, 3.0)]
        SupportBot(seed=1, start_ns=START, rate_per_minute=20, faults=faults).backfill(stream, end_ns=END, days=1)
        rehearse(stream, settings, instants(START, END, [OUTAGE]))
        incident = _what_broke(stream)
        _kept_fixed(stream, incident, settings)


def _what_broke(stream: ClickHouseStream) -> Incident:
    failed = query(stream, "event:retrieve error:true", start_ns=OUTAGE[0])
    print(f"1 log       {failed[0].request_id}: {failed[0].message}")
    story = correlate(stream, failed[0].request_id)
    print(f"            {len(story.events)} events in its story, which ended with {story.request.status_code}")
    for event in stream.query(equals(event="breach", verdict="BREACH")):
        print(f"2 breach    {utc(event.ts_ns)[11:19]} {event.attributes['id']}: {event.attributes['reason']}")
    alerts = stream.query(equals(event="alert", phase="transition"))
    for event in alerts:
        if event.attributes["state"] in {"firing", "resolved"}:
            print(f"3 alert     {utc(event.ts_ns)[11:19]} {event.message}")
    history = rebuild([event for kind in HISTORY_KINDS for event in stream.query(equals(event=kind))])
    for incident in history.incidents.values():
        print(f"4 incident  {incident.id} {incident.status}: {incident.title}")
    return next(iter(history.incidents.values()))


def _kept_fixed(stream: ClickHouseStream, incident: Incident, settings: Settings) -> None:
    clock, folder = ManualClock(END), Path(settings.guards.folder)
    question = incident.evidence["examples"][0]["input"]
    draft = capture(incident, now_ns=clock.now_ns(), good=[consult(question).output])
    guard = msgspec.structs.replace(draft, state="active", run=msgspec.structs.replace(draft.run, mode="frozen"))
    path = write(guard, folder)
    print(f"5 guard     {path.relative_to(folder)}: {prove(guard).reason}")
    clock.advance(seconds=60)
    rehearse(stream, settings, [clock.now_ns()])
    broken = partial(answer, fault="retriever_outage")
    for change, target in (("pr-7", broken), ("pr-7", answer)):
        clock.advance(seconds=600)
        report = run_guards(folder, mode="frozen", target=target, baseline=answer, change_id=change)
        stream.append(report.events(ts_ns=clock.now_ns()))
        result = report.results[0]
        print(f"6 gate      {change}: {result.verdict}, {result.reason} (exit code {report.exit_code})")
    clock.advance(seconds=600)
    stream.append([landed_event("pr-7", ts_ns=clock.now_ns())])
    events = [event for kind in HISTORY_KINDS for event in stream.query(equals(event=kind))]
    print(flywheel(events, now_ns=clock.now_ns(), weeks=1).text())


if __name__ == "__main__":
    main()
