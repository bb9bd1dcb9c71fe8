"""What alerting answers over HTTP and on the command line."""

from __future__ import annotations

import tomllib
from typing import Any

import msgspec

from opsloop.alerting.backtest import STAND_SECONDS, Report, backtest, replay_instants
from opsloop.alerting.composite import leaves_of
from opsloop.alerting.expression import show
from opsloop.alerting.ledger import explanation_of, restore
from opsloop.alerting.rule import Rules, load_rules, read_rules
from opsloop.clock import NANOSECONDS, Clock, utc
from opsloop.endpoint import WINDOW_PARAMETERS, Arguments, Endpoint, Parameter, window_of
from opsloop.errors import InputError, PayloadError
from opsloop.event import Event
from opsloop.filter import And, Compare, Filter, Op, Or, equals
from opsloop.settings import Settings
from opsloop.stream import Database

__all__ = ["Alerts", "KeyState", "RuleState", "Why", "endpoints"]


class KeyState(msgspec.Struct, frozen=True, kw_only=True):
    """Where one key of a rule stands."""

    key: str
    phase: str
    verdict: str | None
    since: str | None
    episode: str
    votes: list[dict[str, Any]]
    announced: bool


class RuleState(msgspec.Struct, frozen=True, kw_only=True):
    """One rule with its present state."""

    id: str
    formula: str
    unless: str
    severity: str
    severe_alone: bool
    receivers: tuple[str, ...]
    signals: dict[str, str]
    keys: list[KeyState]


class Alerts(msgspec.Struct, frozen=True, kw_only=True):
    """All rules and what happened to them in a window."""

    rules: list[RuleState]
    transitions: list[Event]
    notices: list[Event]


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """Why a rule did or did not page: the newest record of each key, and the records before it."""

    id: str
    text: str
    explanations: list[dict[str, Any]]


def endpoints(database: Database, settings: Settings, clock: Clock) -> tuple[Endpoint, ...]:
    """Return the operations of this room; raises :class:`ConfigError` for a wrong rule."""
    room = _Room(database, settings, clock)
    moment = Parameter("to", "the moment to explain: ISO 8601, ns since the epoch, or a time ago such as 1h; now")
    return (
        Endpoint(
            path="/api/alerts",
            summary="Every alert rule with its present state, and the transitions and notices of a window",
            handler=room.alerts,
            parameters=WINDOW_PARAMETERS,
        ),
        Endpoint(
            path="/api/alerts/explain",
            summary="Why an alert did or did not page",
            handler=room.explain,
            parameters=(Parameter("id", "the alert's id", required=True), moment),
        ),
        Endpoint(
            path="/api/alerts/backtest",
            summary="What other rules would have done over the stored readings of a window; the body is TOML [[alert]]",
            handler=room.backtest,
            method="POST",
            parameters=WINDOW_PARAMETERS,
        ),
    )


class _Room:
    """The handlers over one database."""

    def __init__(self, database: Database, settings: Settings, clock: Clock) -> None:
        self.database, self.settings, self.clock = database, settings, clock
        self.rules = load_rules(settings)

    def alerts(self, arguments: Arguments, _body: bytes) -> Alerts:
        start_ns, end_ns = window_of(arguments, clock=self.clock)
        book = restore(self.database.query(equals(event="alert"), end_ns=end_ns))
        states = []
        for rule in self.rules.rules:
            keys = [
                KeyState(
                    key=key,
                    phase=memory.alert.phase.value,
                    verdict=memory.verdict.value if memory.verdict else None,
                    since=utc(memory.alert.active_at_ns) if memory.alert.phase != "inactive" else None,
                    episode=memory.alert.episode,
                    votes=msgspec.to_builtins(memory.told.votes) if memory.alert.phase != "inactive" else [],
                    announced=memory.suppressor.acted,
                )
                for (name, key), memory in sorted(book.memories.items())
                if name == rule.id
            ]
            states.append(_rule_state(self.rules, rule.id, keys))
        events = self.database.query(equals(event="alert"), start_ns=start_ns, end_ns=end_ns)
        return Alerts(
            rules=states,
            transitions=[_brief(event) for event in events if event.attributes.get("phase") == "transition"],
            notices=[_brief(event) for event in events if event.attributes.get("phase") == "notice"],
        )

    def explain(self, arguments: Arguments, _body: bytes) -> Why:
        name = arguments.get("id", "")
        if name not in {rule.id for rule in self.rules.rules}:
            known = ", ".join(rule.id for rule in self.rules.rules) or "none is configured"
            raise InputError(f"there is no alert {name!r}", fix=f"use one of: {known}")
        _, end_ns = window_of({"to": arguments.get("to", "")}, clock=self.clock)
        records = [explanation_of(event) for event in self.database.query(_records(name), end_ns=end_ns)]
        if not records:
            return Why(id=name, text=f"{name} has not been evaluated yet", explanations=[])
        newest = {record.key: record for record in records}
        parts = [record.text() for _, record in sorted(newest.items())]
        parts.extend(_deliveries(self.database.query(_notices(name), end_ns=end_ns)))
        return Why(
            id=name,
            text="\n".join(parts),
            explanations=[{**msgspec.to_builtins(record), "line": record.line()} for record in records[-50:]],
        )

    def backtest(self, arguments: Arguments, body: bytes) -> Report:
        start_ns, end_ns = window_of(arguments, clock=self.clock, default_seconds=86_400)
        try:
            tables = tomllib.loads(body.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
            raise PayloadError(f"the rule file is not TOML: {cause}", fix="send [[alert]] tables") from cause
        if not isinstance(tables.get("alert"), list):
            raise PayloadError("the rule file has no [[alert]] table", fix="send at least one [[alert]]")
        rules = read_rules(tables["alert"], self.settings)
        before_ns = start_ns - round(STAND_SECONDS * NANOSECONDS)
        events = self.database.query(equals(event="breach"), start_ns=before_ns, end_ns=end_ns)
        instants = replay_instants(events, start_ns=start_ns, end_ns=end_ns, interval_ns=rules.hold_ns)
        return backtest(rules, instants)


def _rule_state(rules: Rules, name: str, keys: list[KeyState]) -> RuleState:
    rule = next(rule for rule in rules.rules if rule.id == name)
    return RuleState(
        id=rule.id,
        formula=show(rule.when),
        unless=show(rule.unless) if rule.unless else "",
        severity=rule.severity,
        severe_alone=rule.severe_alone,
        receivers=rule.receivers,
        signals={name: rules.groups[name] for name in leaves_of(rule.when, rules.composites)},
        keys=keys,
    )


def _brief(event: Event) -> Event:
    """Leave out what only the machine needs to remember."""
    kept = {name: value for name, value in event.attributes.items() if name not in {"memory", "explanation", "notice"}}
    return event.replace(attributes=kept)


def _records(name: str) -> Filter:
    phases = ("transition", "evaluation")
    return _alert(name, tuple(Compare("phase", Op.EQ, phase) for phase in phases))


def _notices(name: str) -> Filter:
    return _alert(name, (Compare("phase", Op.EQ, "notice"),))


def _alert(name: str, phases: tuple[Filter, ...]) -> Filter:
    return And((Compare("event", Op.EQ, "alert"), Compare("alert", Op.EQ, name), Or(phases)))


def _deliveries(events: list[Event]) -> list[str]:
    """Return what became of the newest notice at each receiver."""
    newest = {event.attributes["receiver"]: event for event in events}
    return [
        f"  delivery    {receiver}: {event.attributes['outcome']} at {utc(event.ts_ns)}, {event.attributes['reason']}"
        for receiver, event in sorted(newest.items())
    ]
