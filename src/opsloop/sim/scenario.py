"""Scenarios: a history of deploys and incidents, laid out so that each room has something to find.

The timetable below covers three days and is counted back from ``end_ns``; a longer history repeats it, so that the
same problems come back and a flywheel has something to count.

======================  ==============================================  =======================================
hours before the end    what happens                                    what should be said about it
======================  ==============================================  =======================================
70                      a healthy deploy                                nothing
62, for 20 minutes      OpenAI refuses 30 % of the calls                upstream breach; retries hide most of it
50, for 25 minutes      15 % of retrievals time out, models 3x slow     a page: several signals at once
38, for 12 minutes      initech sends 40 times its traffic              rejections only: one signal, no page
28, for 35 minutes      a bad release crashes 10 %, then a rollback     an error breach that names the release
27                      a deploy with the fix                           nothing
18, for 5 hours         up to 80 % of the answers are invented          quality drift
8, for 20 minutes       retrieval and models again, as at 50            a page, and a repeat
3, for 30 minutes       30 % of the outputs break off                   cut-off answers, some invalid JSON
5 minutes *after*       retrieval and models once more, for 8 minutes   a page that a live demo shows being born
======================  ==============================================  =======================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from opsloop.clock import NANOSECONDS, seeded
from opsloop.event import Event
from opsloop.sim.faults import Fault
from opsloop.sim.spans import ENVIRONMENT, SERVICE

__all__ = ["FIRST_RELEASE", "Deploy", "Releases", "Scenario", "history"]

FIRST_RELEASE: Final = "4.0.0"
"""What runs when the world begins."""
MINUTE_NS: Final = 60 * NANOSECONDS
HOUR_NS: Final = 60 * MINUTE_NS
CYCLE_HOURS: Final = 72


class Deploy(msgspec.Struct, frozen=True):
    """A release that goes live at a moment."""

    ts_ns: int
    release: str


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """What a world goes through: hand its three parts to :class:`opsloop.sim.SupportBot`."""

    start_ns: int
    faults: tuple[Fault, ...]
    deploys: tuple[Deploy, ...]


class Releases:
    """Which release ran when: the planned deploys, and for each bad release its deploy and its rollback.

    >>> releases = Releases([Deploy(10, "4.1.0")], [Fault("bad_release", 20, 30, 0.1, "4.2.0")])
    >>> [releases.at(moment) for moment in (10, 11, 21, 31)]
    ['4.0.0', '4.1.0', '4.2.0', '4.1.0']
    """

    def __init__(self, deploys: Iterable[Deploy], faults: Iterable[Fault]) -> None:
        """Lay the deploys and the bad releases out in time."""
        self._deploys = sorted(deploys, key=_ts_ns)
        for bad in sorted((fault for fault in faults if fault.kind == "bad_release"), key=_start_ns):
            before = self.at(bad.start_ns)
            self._deploys += [Deploy(bad.start_ns, bad.target), Deploy(bad.end_ns, before)]
            self._deploys.sort(key=_ts_ns)

    def at(self, ts_ns: int) -> str:
        """Return the release that runs at a moment: the last one deployed before it."""
        return next((deploy.release for deploy in reversed(self._deploys) if deploy.ts_ns < ts_ns), FIRST_RELEASE)

    def events(self, *, start_ns: int, end_ns: int) -> Iterator[Event]:
        """Yield the deploy events with ``start_ns < ts_ns <= end_ns``."""
        for number, deploy in enumerate(self._deploys):
            if start_ns < deploy.ts_ns <= end_ns:
                seen = any(earlier.release == deploy.release for earlier in self._deploys[:number])
                yield _deploy_event(deploy, is_rollback=seen)


def history(days: float, end_ns: int) -> Scenario:
    """Return the timetable of this module over so many days before ``end_ns``, and the outage just after it.

    What would begin before the first hour of the history is left out. Releases count up in the order of their deploys.

    >>> sorted({fault.kind for fault in history(3, 10**18).faults})[:3]
    ['bad_release', 'hallucination_drift', 'malformed_output']
    """
    start_ns = end_ns - round(days * 24 * HOUR_NS)
    faults = list(_outage(end_ns + 5 * MINUTE_NS, minutes=8))
    deploys: list[Deploy] = []
    minor = 0
    for cycle in range(int(days * 24 // CYCLE_HOURS), -1, -1):
        base_ns = end_ns - cycle * CYCLE_HOURS * HOUR_NS
        if base_ns - 70 * HOUR_NS > start_ns:
            minor += 1
            deploys.append(Deploy(base_ns - 70 * HOUR_NS, f"4.{minor}.0"))
        bad_ns = base_ns - 28 * HOUR_NS
        if bad_ns > start_ns:
            faults.append(Fault("bad_release", bad_ns, bad_ns + 35 * MINUTE_NS, 0.1, f"4.{minor + 1}.0"))
            deploys.append(Deploy(base_ns - 27 * HOUR_NS, f"4.{minor + 2}.0"))
            minor += 2
        faults += _incidents(base_ns)
    faults = [fault for fault in faults if fault.start_ns >= start_ns + HOUR_NS]
    return Scenario(start_ns=start_ns, faults=tuple(sorted(faults, key=_start_ns)), deploys=tuple(deploys))


def _incidents(base_ns: int) -> Sequence[Fault]:
    def ago(hours: int) -> int:
        return base_ns - hours * HOUR_NS

    return (
        Fault("upstream_429", ago(62), ago(62) + 20 * MINUTE_NS, 0.3, "openai"),
        *_outage(ago(50), minutes=25),
        Fault("tenant_spike", ago(38), ago(38) + 12 * MINUTE_NS, 40.0, "initech"),
        Fault("hallucination_drift", ago(18), ago(13), 0.8),
        *_outage(ago(8), minutes=20),
        Fault("malformed_output", ago(3), ago(3) + 30 * MINUTE_NS, 0.3),
    )


def _outage(start_ns: int, *, minutes: int) -> tuple[Fault, Fault]:
    """Return the incident that deserves a page: retrieval times out while every model is slow."""
    end_ns = start_ns + minutes * MINUTE_NS
    return Fault("retriever_outage", start_ns, end_ns, 0.15), Fault("slow_model", start_ns, end_ns, 3.0)


def _deploy_event(deploy: Deploy, *, is_rollback: bool) -> Event:
    dice = seeded(f"release:{deploy.release}")
    commit, number = f"{dice.getrandbits(160):040x}", dice.randint(100, 999)
    return Event(
        ts_ns=deploy.ts_ns,
        event="deploy",
        event_id=f"deploy:{SERVICE}:{deploy.release}:{deploy.ts_ns}",
        service=SERVICE,
        environment=ENVIRONMENT,
        release=deploy.release,
        message=f"{'rolled back to' if is_rollback else 'deployed'} {deploy.release}",
        attributes={"commit": commit, "change_id": f"{'rollback' if is_rollback else 'pr'}-{number}"},
    )


def _ts_ns(deploy: Deploy) -> int:
    return deploy.ts_ns


def _start_ns(fault: Fault) -> int:
    return fault.start_ns
