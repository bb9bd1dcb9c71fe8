"""The worker: evaluates all rules at each tick, stores what was decided, and delivers the notices.

One tick is: decide (pure) -> one append of transitions and pending notices -> deliver what is due, each receiver in a
thread of its own so that a slow one delays no other -> one append of the outcomes. All state comes back from the stream
when a worker is made, so a restart decides the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from opsloop.alerting.decide import Decision, decide, open_alerts
from opsloop.alerting.ledger import decision_events, notice_event, restore
from opsloop.alerting.notice import Notice
from opsloop.alerting.notify.delivery import HttpTransport, Outcome, Transport, attempt
from opsloop.alerting.outbox import Waiting, outbox, split_replaced
from opsloop.alerting.rule import Rules, load_rules, with_retired
from opsloop.clock import Clock
from opsloop.event import Event
from opsloop.filter import equals
from opsloop.settings import ReceiverSettings, Settings, environment
from opsloop.stream import Stream
from opsloop.verdict import Reading

__all__ = ["AlertWorker"]


class AlertWorker:
    """Evaluates and delivers; call :meth:`tick` at the evaluation interval, from one thread."""

    def __init__(
        self,
        database: Stream,
        settings: Settings,
        clock: Clock,
        transport: Transport | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        groups: Mapping[str, str] | None = None,
    ) -> None:
        """Load the rules and rebuild the state from the stored ``alert`` events.

        ``groups`` adds signals by id that :func:`load_rules` does not know from the settings. Raises
        :class:`ConfigError` for a wrong rule.
        """
        self.rules: Rules = load_rules(settings, groups=groups)
        self._database = database
        self._clock = clock
        self._transport = transport or HttpTransport()
        self._environ = environment() if environ is None else environ
        self._receivers: dict[str, ReceiverSettings] = {receiver.id: receiver for receiver in settings.receiver}
        stored = database.query(equals(event="alert"))
        self._book = restore(stored)
        self.rules = with_retired(self.rules, open_alerts(self._book), receivers=tuple(self._receivers))
        self._outbox = outbox(stored)
        self._last_ns = max((event.ts_ns for event in stored), default=-1)
        self.decisions: tuple[Decision, ...] = ()
        """What the last tick decided, one record per rule and key."""

    def tick(self, readings: Sequence[Reading]) -> list[Event]:
        """Evaluate all rules now and deliver what is due; return the events that were stored.

        Evaluating the same instant again decides nothing, it only retries deliveries. Raises :class:`StoreError` when
        the decision cannot be stored; then nothing was sent and the next tick decides again.
        """
        now_ns = self._clock.now_ns()
        stored: list[Event] = []
        if now_ns != self._last_ns:  # a clock that was set back must not silence the alerts
            book, decisions = decide(self.rules, self._book, readings, now_ns)
            stored = [event for decision in decisions for event in decision_events(decision)]
            if stored:
                self._database.append(stored)
            self._book, self.decisions, self._last_ns = book, decisions, now_ns
            for notice in (notice for decision in decisions for notice in decision.notices):
                self._outbox[notice.id] = Waiting(notice, due_ns=now_ns)
        return stored + self._deliver(now_ns)

    def _deliver(self, now_ns: int) -> list[Event]:
        """Deliver due notices and store what became of them."""
        kept, replaced = split_replaced(self._outbox.values())
        events = [_replaced(item.notice, now_ns) for item in replaced]
        due = [item for item in kept if item.due_ns <= now_ns]
        by_receiver: dict[str, list[Waiting]] = {}
        for item in due:
            by_receiver.setdefault(item.notice.receiver, []).append(item)
        if by_receiver:
            with ThreadPoolExecutor(len(by_receiver), thread_name_prefix="opsloop-notify") as pool:
                runs = pool.map(lambda items: [self._attempt(item, now_ns) for item in items], by_receiver.values())
            told = {name: outcome for run in runs for name, outcome in run}
            events.extend(_outcome(item, told[item.notice.id], now_ns) for item in due)
        if events:
            self._database.append(events)
        self._forget(replaced, due, events[len(replaced) :])
        return events

    def _attempt(self, item: Waiting, now_ns: int) -> tuple[str, Outcome]:
        name = item.notice.id
        receiver = self._receivers.get(item.notice.receiver)
        if receiver is None:
            return name, Outcome("failed", "the receiver is not configured any more: final")
        return name, attempt(
            receiver,
            item.notice,
            item.attempts + 1,
            now_ns=now_ns,
            transport=self._transport,
            environ=self._environ,
        )

    def _forget(self, replaced: Sequence[Waiting], due: Sequence[Waiting], outcomes: Sequence[Event]) -> None:
        """Take what is done out of the outbox, once that is stored."""
        for item in replaced:
            del self._outbox[item.notice.id]
        for item, event in zip(due, outcomes, strict=True):
            if event.attributes["outcome"] == "retry":
                retry_at_ns = event.attributes["retry_at_ns"]
                self._outbox[item.notice.id] = Waiting(item.notice, item.attempts + 1, retry_at_ns)
            else:
                del self._outbox[item.notice.id]


def _replaced(notice: Notice, now_ns: int) -> Event:
    return notice_event(notice, outcome="replaced", at_ns=now_ns, reason="a newer notice tells the newer state")


def _outcome(item: Waiting, outcome: Outcome, now_ns: int) -> Event:
    return notice_event(
        item.notice,
        outcome=outcome.outcome,
        at_ns=now_ns,
        attempt=item.attempts + 1,
        reason=outcome.reason,
        retry_at_ns=outcome.retry_at_ns,
    )
