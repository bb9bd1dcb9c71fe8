"""Live updates: what an open page is told."""

from __future__ import annotations

from opsloop.clock import ManualClock
from opsloop.server.runtime import Runtime
from opsloop.settings import Settings


class Once:
    """A stop that comes after one round."""

    def __init__(self):
        self.rounds = 0

    def wait(self, seconds):
        """Return whether to stop."""
        self.rounds += 1
        return self.rounds > 1


class SlowWorkers:
    """Workers whose evaluation takes a minute."""

    def __init__(self, clock):
        self.clock = clock

    def enforce_retention(self):
        """Do nothing."""

    def tick(self):
        """Look at what is stored now, and take a minute to think."""
        self.clock.advance(seconds=60)


def test_a_page_is_told_the_instant_that_was_evaluated(clickhouse):
    """What is stored while an evaluation runs is not in it, so the page is told when it began, not when it ended."""
    clock = ManualClock(1_000 * 10**9)
    with Runtime(Settings(), database=clickhouse, clock=clock) as runtime:
        runtime._evaluate(SlowWorkers(clock), Once())
        assert b'"now_ns":1000000000000' in runtime.live._message()
