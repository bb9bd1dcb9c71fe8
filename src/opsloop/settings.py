"""Settings: every value that a person may set, declared once, and the only reader of the environment.

One file, ``opsloop.toml``, in the working directory or where ``OPSLOOP_CONFIG`` or ``--config`` says. Without one the
defaults below serve a laptop. A value in the environment wins over the file; an argument on the command line wins over
both. A wrong value is refused with its place, and nothing runs until it is mended.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from opsloop.errors import ConfigError, FilterError
from opsloop.event import Event
from opsloop.filter import compile_filter, equals
from opsloop.verdict import GROUPS

__all__ = [
    "ENVIRONMENT",
    "AlertSettings",
    "CeilingSettings",
    "EvalSettings",
    "GaugeSettings",
    "GuardSettings",
    "JudgeSettings",
    "LimitSettings",
    "LogSettings",
    "ObjectiveSettings",
    "OverrideSettings",
    "ReceiverSettings",
    "RetentionSettings",
    "ServerSettings",
    "Settings",
    "SloSettings",
    "environment",
    "load_settings",
    "without_password",
]

Positive = Annotated[float, msgspec.Meta(gt=0)]
PositiveInt = Annotated[int, msgspec.Meta(gt=0, le=2**53)]
Days = Annotated[int, msgspec.Meta(gt=0, le=36_500)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]


CALENDAR_DAYS: Final[Mapping[str, float]] = {"week": 7.0, "month": 30.0, "quarter": 90.0}
"""What a calendar period is taken as where a fixed length is needed."""
LONGEST_DAYS: Final[Mapping[str, float]] = {"week": 8.0, "month": 32.0, "quarter": 93.0}
"""How many days of events one can need: the longest, and the hour of a clock change."""


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[log]``: what a process stamps on its own events."""

    service: str = "app"
    """The service's name on every event."""
    environment: str = ""
    """production, staging, …"""
    release: str = ""
    """The version that is running."""
    level: Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"] = "INFO"
    """Events below this severity are not written."""
    redact: bool = True
    """Mask secrets and personal data before an event leaves the process."""
    export_url: str = ""
    """A server that gets the events too, such as ``http://127.0.0.1:4318``; none by default."""
    export_spool: str = ""
    """A folder in which events wait for that server, so that a crash loses none; in memory by default."""


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[server]``: what ``opsloop up`` listens on and keeps."""

    host: str = "127.0.0.1"
    """The address to listen on; anything but loopback needs tokens."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 4318
    """The port; 4318 is where OpenTelemetry exporters send by default."""
    grpc_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    """A second port, for OTLP over gRPC (4317 by custom); none unless set. Needs ``opsloop[grpc]``."""
    store: str = ".opsloop"
    """A folder for the embedded store, ``:memory:``, or ``clickhouse://user:password@host:8123/database``, there with
    ``?cluster=NAME`` for a cluster."""
    limits: str = ""
    """Where limits are counted: in memory, or at ``redis://host:6379/0`` together with all other replicas."""
    retention_days: Days = 90
    """Events older than this are dropped, a day at a time, unless ``[[retention]]`` says otherwise."""
    max_body_bytes: PositiveInt = 64 * 1024 * 1024
    """The largest request body, before and after decompression."""
    batch_rows: PositiveInt = 10_000
    """A commit is made when this many rows wait."""
    batch_milliseconds: PositiveInt = 30
    """... or so long after the one before began: what comes after a pause waits for nobody."""
    queue_rows: PositiveInt = 200_000
    """Above this many waiting rows ingest answers 503 with Retry-After."""
    evaluate_seconds: Positive = 15.0
    """How often signals, quality, alerts and incidents are worked out anew."""


class GaugeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[gauge]]``: how much an ingested gauge can hold, so that it counts for saturation."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    """The gauge's name as it is sent, such as ``vllm:num_requests_running``."""
    limit: Positive
    """What is full: the level is the gauge's value over this."""
    queue: str = ""
    """Gauges that count who waits for it, the first that is there; nobody waiting, it is not short however full."""


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[retention]]``: how long some events are kept; the first that fits an event counts."""

    when: dict[str, str | tuple[str, ...]]
    """Which events: names on them and their values, such as ``{ event = ["span", "llm"], tenant = "acme" }``."""
    days: Days
    """In place of ``server.retention_days``."""

    def fits(self, event: Event) -> bool:
        """Return whether the rule counts for an event.

        >>> rule = RetentionSettings(when={"event": ("span", "llm"), "tenant": "acme"}, days=7)
        >>> rule.fits(Event(ts_ns=0, event="span", tenant="acme")), rule.fits(Event(ts_ns=0, event="span"))
        (True, False)
        """
        return all(self.allows(name, {name: getattr(event, name)}) for name in self.when)

    def allows(self, name: str, told: Mapping[str, str]) -> bool:
        """Return whether one of its values is told under a name."""
        values = self.when[name]
        return name in told and (told[name] == values if isinstance(values, str) else told[name] in values)


class ObjectiveSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[objective]]``: a signal that must stay on one side of a threshold in a short window."""

    id: Name
    group: str
    """One of latency, traffic, errors, saturation, quality, cost, retrieval, upstream."""
    measure: str
    """What is measured: see docs/dashboard.md for the list, such as ``latency_us_p95`` or ``error_ratio``."""
    threshold: float
    """Where a breach begins, in the measure's unit."""
    direction: Literal["above", "below"] = "above"
    """On which side of the threshold the breach lies."""
    window_seconds: Positive = 300.0
    min_samples: PositiveInt = 20
    """Fewer events than this are INSUFFICIENT, never OK and never BREACH."""
    severe_factor: Annotated[float, msgspec.Meta(gt=1)] | None = None
    """At this many times the threshold the signal may page alone."""
    clear: float | None = None
    """Once in breach, it is over when the value is at this or better; at the threshold unless set."""
    clear_for_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Once in breach, it is over when it was clear for this long without a pause."""
    absent_seconds: Positive | None = None
    """When nothing was measured for this long, the signal ``absent-ID`` is in breach; never unless set."""
    labels: dict[str, str] = {}
    """Only events with these field values count."""


class SloSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[slo]]``: a share of good requests that is promised over a period."""

    id: Name
    sli: Literal["availability", "latency", "time_to_first_token", "quality", "goodput"] = "availability"
    target: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.999
    """The promised share of good events."""
    threshold_us: PositiveInt | None = None
    """For latency and time_to_first_token: the limit a good request stays under."""
    threshold: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    """For quality and goodput: a score under this is bad; an answer without a score never counts."""
    scorer: str = ""
    """For quality and goodput: the scorer whose scores count, such as ``groundedness``; all of them unless set."""
    period_days: Positive = 30.0
    """The length of a rolling period."""
    calendar: Literal["week", "month", "quarter"] | None = None
    """The budget is of the calendar's week, month or quarter, in place of a rolling period."""
    time_zone: str = "UTC"
    """Where the calendar's days begin."""
    absent_seconds: Positive | None = None
    """When no event counted for this long, the signal ``absent-ID`` is in breach; never unless set."""
    labels: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Give a calendar period its usual length, which burn windows are scaled from: 7, 30 or 90 days."""
        if self.calendar is None:
            return
        usual = CALENDAR_DAYS[self.calendar]
        if self.period_days not in {usual, 30.0}:
            raise ValueError(f"slo {self.id!r} has both a calendar and period_days: leave period_days out")
        msgspec.structs.force_setattr(self, "period_days", usual)


class JudgeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[eval.judge]``: a model that judges a few answers; any OpenAI-compatible server, none by default."""

    url: str
    """The base URL, such as ``http://127.0.0.1:8000/v1``."""
    model: str
    key_env: str = ""
    """The environment variable that holds the API key; none for a server that takes none."""
    answers_per_tick: PositiveInt = 5
    """At most this many answers are judged every ``server.evaluate_seconds``, doubtful ones more likely."""
    input_microusd_per_million: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    output_microusd_per_million: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    call_limit_microusd: PositiveInt = 50_000
    """A call that could cost more is not made."""
    day_limit_microusd: PositiveInt = 5_000_000
    """Once a UTC day has cost this much no further call is made."""
    timeout_seconds: Positive = 20.0


class EvalSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[eval]``: which answers are scored, by what, and when the scores have drifted."""

    sample_rate: Share = 1.0
    """The share of requests that is scored; the free scorers afford 1."""
    scorers: tuple[str, ...] = ("groundedness", "refusal", "citation", "repetition", "length")
    floor: Annotated[float, msgspec.Meta(ge=0, le=0.99)] = 0.8
    """m0: a conditional mean score at or above this is healthy."""
    floors: dict[str, Annotated[float, msgspec.Meta(ge=0, le=0.99)]] = {}
    """The floor of single scorers where it differs from ``floor``."""
    baseline: Literal["declared", "learned"] = "declared"
    """``learned`` lowers each floor to what a stratum's first 200 scores support."""
    scores_per_false_page: Annotated[float, msgspec.Meta(ge=1)] = 10_000.0
    """A: at most one false drift alarm per this many scored answers."""
    judge: JudgeSettings | None = None


class OverrideSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[limit.override]]``: another amount for some of those that a limit is counted by."""

    when: dict[str, str]
    """Whose: parts of the limit's scope and their values. The first override that fits counts."""
    amount: PositiveInt
    """In place of the limit's amount, which stays the default for everybody who is not listed."""
    burst: PositiveInt | None = None
    """A rate's bucket size; as large as this ``amount`` unless set."""


class CeilingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[limit.ceiling]]``: how far some requests may fill a bucket that they share with others."""

    when: dict[str, str]
    """Which requests: parts of the context, such as ``{ priority = "batch" }``. The first ceiling that fits counts."""
    share: Annotated[float, msgspec.Meta(gt=0, le=1)]
    """The share of the limit that they may fill; the rest is reserved for all others."""


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[limit]]``: one limit of the admission policy."""

    id: Name
    lever: Literal["rate", "quota", "concurrency"]
    amount: PositiveInt
    """Units per period for a rate, per calendar period for a quota, at once for concurrency."""
    per: Literal["second", "minute", "hour", "day", "week", "month"] = "minute"
    """The period of a rate or quota; concurrency has none."""
    burst: PositiveInt | None = None
    """A rate's bucket size; as large as ``amount`` unless set."""
    unit: Literal["requests", "input_tokens", "output_tokens", "tokens", "cost_microusd"] = "requests"
    scope: tuple[Literal["organisation", "tenant", "key", "model", "route"], ...] = ("tenant",)
    """One bucket for each combination of these; empty means one for all."""
    when: dict[str, str] = {}
    """Only requests whose context has these values are counted."""
    time_zone: str = "UTC"
    """Where a quota's day, week or month begins."""
    reset_at: Annotated[str, msgspec.Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")] = "00:00"
    """The local time at which a quota's day, week or month begins."""
    week_start: Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"] = "monday"
    """The day on which a quota's week begins."""
    rolling: Annotated[int, msgspec.Meta(gt=0, le=1000)] | None = None
    """Makes a quota count the last so many seconds, minutes, hours, days or weeks (``per``) instead of a calendar's."""
    lease_seconds: Positive = 30.0
    """How long a concurrency slot outlives a holder that stopped renewing it."""
    shadow: bool = False
    """Decide and record, but never reject."""
    override: tuple[OverrideSettings, ...] = ()
    """Other amounts for some callers: ``[[limit.override]]`` tables with ``when``, ``amount`` and ``burst``."""
    ceiling: tuple[CeilingSettings, ...] = ()
    """How far some requests may fill the bucket: ``[[limit.ceiling]]`` tables with ``when`` and ``share``."""
    on_store_failure: Literal["open", "closed", "local"] = "closed"
    """When the store does not answer: admit uncounted, refuse with 503, or count this process's share in memory."""


class AlertSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[alert]]``: when someone is told."""

    id: Name
    when: str
    """The composite, such as ``AT_LEAST(2, BREACH, (latency, errors, saturation, quality))``."""
    severe_alone: bool = True
    """Whether one severe reading pages without a second signal."""
    for_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """How long the condition must hold before it fires."""
    clear_for_seconds: Annotated[float, msgspec.Meta(ge=0)] = 300.0
    """How long it must be quiet before it is resolved."""
    severity: Literal["page", "ticket"] = "page"
    unless: str = ""
    """A composite that holds the notice back while it is true, never the state."""
    repeat_seconds: Positive = 14_400.0
    """A firing alert is told again after this long."""
    notify: tuple[str, ...] = ()
    """Receivers by name; none means all."""
    points: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    """Judge this many of the newest evaluations together ..."""
    points_to_fire: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    """... and breach when at least this many of them do."""
    clear_factor: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.9
    """A signal that breaches from above has recovered at this share of its threshold; in between the state holds."""
    min_firing_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """An episode lasts at least this long."""
    expire_seconds: Positive = 86_400.0
    """An alert without data for this long is resolved as expired; until then it is kept."""
    reopen_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """A new breach this soon after a resolve reopens the same episode, with the same key."""
    cool_down_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """No second page this soon after the last one began."""
    flap_changes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """More fires and resolves than this within flap_seconds are one flapping notice, then quiet; 0 never."""
    flap_seconds: Positive = 3600.0
    wait_seconds: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """With ``unless``: how long a notice waits for the suppressor to appear; one evaluation interval unless set."""
    extension_seconds: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """With ``unless``: how long after it clears the notice still waits; one evaluation interval unless set."""
    group_wait_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """How long a first notice waits for further keys (tenants, routes) of the same alert."""
    group_interval_seconds: Annotated[float, msgspec.Meta(ge=0)] = 300.0
    """The shortest time between two notices of an alert that keeps firing."""


class ReceiverSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[receiver]]``: where a notice goes."""

    id: Name
    kind: Literal["file", "webhook", "alertmanager", "slack", "pagerduty"] = "file"
    path: str = ""
    """For a file: one JSON line per notice is appended here."""
    url: str = ""
    secret_env: str = ""
    """The environment variable that holds the routing key or the URL's secret; never written anywhere."""


class GuardSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[guards]``: where guards live in the repository."""

    folder: str = "guards"


DEFAULT_OBJECTIVES: Final = (
    ObjectiveSettings(id="latency", group="latency", measure="latency_us_p95", threshold=1_500_000, severe_factor=4.0),
    ObjectiveSettings(id="errors", group="errors", measure="error_ratio", threshold=0.02, severe_factor=10.0),
    ObjectiveSettings(id="saturation", group="saturation", measure="saturation_ratio", threshold=0.8, min_samples=1),
    ObjectiveSettings(
        id="quality", group="quality", measure="quality_mean", threshold=0.75, direction="below", min_samples=50
    ),
    ObjectiveSettings(id="retrieval", group="retrieval", measure="retrieval_error_ratio", threshold=0.05),
)
DEFAULT_SLOS: Final = (
    SloSettings(id="availability", sli="availability", target=0.995),
    SloSettings(id="fast", sli="latency", target=0.95, threshold_us=1_500_000),
)
DEFAULT_ALERTS: Final = (
    AlertSettings(
        id="service-unhealthy", when="AT_LEAST(2, BREACH, (latency, errors, saturation, quality, retrieval))"
    ),
)
DECISION_DAYS: Final = 730
DEFAULT_RETENTION: Final = (
    RetentionSettings(
        when={"event": ("alert", "deploy", "gate", "guard", "incident", "problem", "score")}, days=DECISION_DAYS
    ),
)
RETENTION_FIELDS: Final = ("event", "tenant", "service", "environment", "route", "model", "provider", "tool")
DEFAULT_LIMITS: Final = (
    LimitSettings(id="tenant-requests", lever="rate", amount=600, per="minute", burst=100),
    LimitSettings(id="tenant-tokens-per-day", lever="quota", amount=20_000_000, per="day", unit="tokens"),
    LimitSettings(id="service-slots", lever="concurrency", amount=32, scope=()),
)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. A table that is missing has its defaults; a list that is given replaces the default list."""

    log: LogSettings = LogSettings()
    server: ServerSettings = ServerSettings()
    gauge: tuple[GaugeSettings, ...] = ()
    retention: tuple[RetentionSettings, ...] = DEFAULT_RETENTION
    objective: tuple[ObjectiveSettings, ...] = DEFAULT_OBJECTIVES
    slo: tuple[SloSettings, ...] = DEFAULT_SLOS
    eval: EvalSettings = EvalSettings()
    limit: tuple[LimitSettings, ...] = DEFAULT_LIMITS
    alert: tuple[AlertSettings, ...] = DEFAULT_ALERTS
    receiver: tuple[ReceiverSettings, ...] = (ReceiverSettings(id="notices", path="notices.jsonl"),)
    guards: GuardSettings = GuardSettings()

    @property
    def retention_rules(self) -> tuple[RetentionSettings, ...]:
        """The rules in force: those of the file, or the default ones, which keep nothing shorter than the others."""
        if self.retention != DEFAULT_RETENTION:
            return self.retention
        days = max(DECISION_DAYS, self.server.retention_days)
        return tuple(msgspec.structs.replace(rule, days=days) for rule in self.retention)

    @property
    def longest_days(self) -> int:
        """The longest that any event is kept."""
        return max([self.server.retention_days, *(rule.days for rule in self.retention_rules)])

    @property
    def shortest_days(self) -> int:
        """The shortest that any event is kept."""
        return min([self.server.retention_days, *(rule.days for rule in self.retention_rules)])

    def days_counted(self, kind: str, labels: Mapping[str, str]) -> int:
        """Return how many days all events of a kind with these labels are kept, but for rules about some of them.

        >>> week = RetentionSettings(when={"event": ("request", "span"), "tenant": "acme"}, days=7)
        >>> settings = Settings(retention=(week,))
        >>> settings.days_counted("request", {}), settings.days_counted("request", {"tenant": "acme"})
        (90, 7)
        """
        told = {**labels, "event": kind}
        sure = (rule.days for rule in self.retention_rules if all(rule.allows(name, told) for name in rule.when))
        return next(sure, self.server.retention_days)

    def days_kept(self, event: Event) -> int:
        """Return how many days an event is kept.

        >>> Settings().days_kept(Event(ts_ns=0, event="span")), Settings().days_kept(Event(ts_ns=0, event="score"))
        (90, 730)
        """
        return next((rule.days for rule in self.retention_rules if rule.fits(event)), self.server.retention_days)


ENVIRONMENT: Final[Mapping[str, str]] = {
    "OPSLOOP_SERVICE": "log.service",
    "OPSLOOP_ENVIRONMENT": "log.environment",
    "OPSLOOP_RELEASE": "log.release",
    "OPSLOOP_LOG_LEVEL": "log.level",
    "OPSLOOP_EXPORT_URL": "log.export_url",
    "OPSLOOP_EXPORT_SPOOL": "log.export_spool",
    "OPSLOOP_HOST": "server.host",
    "OPSLOOP_PORT": "server.port",
    "OPSLOOP_GRPC_PORT": "server.grpc_port",
    "OPSLOOP_STORE": "server.store",
    "OPSLOOP_LIMITS": "server.limits",
}
"""Each variable and the setting that it overrides. ``OPSLOOP_CONFIG`` names the file, ``OPSLOOP_URL`` a server."""

SECRET_VARIABLES: Final = ("OPSLOOP_TOKEN", "OPSLOOP_INGEST_TOKEN", "OPSLOOP_READ_TOKEN", "OPSLOOP_ADMIN_TOKEN")


def environment() -> Mapping[str, str]:
    """Return the process environment: the one place where it is read."""
    return os.environ


def without_password(address: str) -> str:
    """Return an address as it may be shown and logged.

    >>> without_password("clickhouse://ann:secret@db:8123/opsloop")
    'clickhouse://ann:***@db:8123/opsloop'
    """
    return re.sub(r"(?<=://)([^:/@]*):[^/]*@", r"\1:***@", address)


def load_settings(path: str | Path | None = None, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from a file and the environment.

    ``path`` must exist when it is given; without one, ``OPSLOOP_CONFIG`` is used, then ``opsloop.toml`` if it is there.
    Raises :class:`ConfigError` with the file and the place of what is wrong.

    >>> load_settings(environ={"OPSLOOP_PORT": "9000"}).server.port
    9000
    """
    variables = environment() if environ is None else environ
    named = path or variables.get("OPSLOOP_CONFIG")
    file = Path(named) if named else Path("opsloop.toml")
    table: dict[str, Any] = {}
    if named or file.is_file():
        table = _read(file)
    for variable, setting in ENVIRONMENT.items():
        if variable in variables:
            section, _, name = setting.partition(".")
            table.setdefault(section, {})[name] = variables[variable]
    try:
        settings = msgspec.convert(table, Settings, strict=False)
    except msgspec.ValidationError as cause:
        raise ConfigError(f"{file}: {cause}", fix="see docs/settings.md for every setting") from cause
    _check(settings, file)
    return settings


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as cause:
        raise ConfigError(f"cannot read {file}: {cause.strerror}", fix="check --config or OPSLOOP_CONFIG") from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise ConfigError(f"{file} is not TOML: {cause}", fix="mend the line it names") from cause


def _check(settings: Settings, file: Path) -> None:
    """Refuse what each part allows but the whole does not."""
    lists: tuple[tuple[str, tuple[Any, ...]], ...] = (
        ("objective", settings.objective),
        ("slo", settings.slo),
        ("limit", settings.limit),
        ("alert", settings.alert),
        ("receiver", settings.receiver),
    )
    for kind, items in lists:
        seen: set[str] = set()
        for item in items:
            if item.id in seen:
                raise ConfigError(f"{file}: two [[{kind}]] have the id {item.id!r}", fix="give each its own id")
            seen.add(item.id)
    for rule in settings.retention:
        for name in rule.when or ("",):
            if name not in RETENTION_FIELDS:
                message = f"{file}: a [[retention]] is by {name!r}, which it cannot be"
                raise ConfigError(message, fix=f"let when name one or more of {', '.join(RETENTION_FIELDS)}")
    for objective in settings.objective:
        if objective.group not in GROUPS:
            message = f"{file}: objective {objective.id!r} has the unknown group {objective.group!r}"
            raise ConfigError(message, fix=f"use one of {', '.join(GROUPS)}")
        _check_objective(objective, settings, file)
    for slo in settings.slo:
        _check_slo(slo, settings, file)
    receivers = {receiver.id for receiver in settings.receiver}
    for alert in settings.alert:
        for name in alert.notify:
            if name not in receivers:
                message = f"{file}: alert {alert.id!r} notifies {name!r}, which is no receiver"
                raise ConfigError(message, fix=f"use one of {', '.join(sorted(receivers)) or 'none defined'}")


def _check_objective(objective: ObjectiveSettings, settings: Settings, file: Path) -> None:
    where = f"{file}: objective {objective.id!r}"
    above = objective.direction == "above"
    for name in ("threshold", "clear"):
        value = getattr(objective, name)
        if value is not None and not math.isfinite(value):
            raise ConfigError(f"{where}: {name} is {value}, no number to compare with", fix="write a finite number")
    if objective.clear is not None and (
        objective.clear > objective.threshold if above else objective.clear < objective.threshold
    ):
        side = "above" if above else "below"
        raise ConfigError(
            f"{where}: clear = {objective.clear:g} is {side} the threshold {objective.threshold:g}, inside the breach",
            fix=f"let clear be at {'most' if above else 'least'} the threshold",
        )
    _check_labels(where, objective.labels)
    kept = settings.days_counted("request", objective.labels)
    _check_kept(where, "window_seconds", objective.window_seconds / 86_400, kept)


def _check_slo(slo: SloSettings, settings: Settings, file: Path) -> None:
    where = f"{file}: slo {slo.id!r}"
    if slo.sli in {"latency", "time_to_first_token"} and slo.threshold_us is None:
        raise ConfigError(f"{where} of kind {slo.sli} needs threshold_us", fix="add threshold_us")
    _check_labels(where, slo.labels)
    try:
        ZoneInfo(slo.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as cause:
        raise ConfigError(f"{where}: {slo.time_zone!r} is no time zone", fix="write one like Europe/Berlin") from cause
    days = slo.period_days if slo.calendar is None else LONGEST_DAYS[slo.calendar]
    kinds = {"quality": ("score",), "goodput": ("request", "score")}.get(slo.sli, ("request",))
    _check_kept(where, "the period", days, min(settings.days_counted(kind, slo.labels) for kind in kinds))


def _check_labels(where: str, labels: Mapping[str, str]) -> None:
    try:
        compile_filter(equals(**labels))
    except FilterError as cause:
        raise ConfigError(f"{where}: {cause.message}", fix=cause.fix) from cause


def _check_kept(where: str, name: str, days: float, kept: int) -> None:
    """Refuse a window that reaches back beyond the events that are kept: its counts would be too small, in silence."""
    if days > kept:
        raise ConfigError(
            f"{where}: {name} needs {days:g} days of events, but only {kept} are kept",
            fix="shorten it, or raise retention_days of [server], or the days of the [[retention]] that fits",
        )
