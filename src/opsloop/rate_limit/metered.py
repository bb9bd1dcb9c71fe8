"""A streamed answer, counted as it comes and settled however it ends.

A stream that the client cancels or that breaks off costs what was produced until then: not nothing, and not all that
was reserved. What was not counted keeps its estimate: unknown is not zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from opsloop.rate_limit.decision import Decision, Receipt
from opsloop.rate_limit.estimate import Estimator, actual_of
from opsloop.rate_limit.limiter import Limiter

__all__ = ["Metered"]


class Metered:
    """Counts one admitted answer; leaving the block, in any way, settles it once.

    >>> from opsloop.rate_limit import Context, policy_from_settings
    >>> from opsloop.settings import LimitSettings
    >>> daily = LimitSettings(id="daily", lever="quota", amount=1000, per="day", unit="tokens")
    >>> limiter = Limiter(policy_from_settings([daily]))
    >>> decision = limiter.admit(Context(tenant="acme"), {"input_tokens": 100, "output_tokens": 800})
    >>> with Metered(limiter, decision) as answer:
    ...     for _ in range(30):
    ...         answer.add(1)
    >>> limiter.peek(Context(tenant="acme"), {"tokens": 0}).limits["daily"].remaining
    870
    """

    def __init__(self, limiter: Limiter, decision: Decision, *, estimator: Estimator | None = None) -> None:
        """Count for ``decision``; ``estimator`` learns from answers that came to their end."""
        self._limiter = limiter
        self._decision = decision
        self._estimator = estimator
        self._output_tokens = 0
        self._told: dict[str, int] = {}
        self.receipt: Receipt | None = None
        """What the settlement said; ``None`` until the block is left."""

    def add(self, output_tokens: int) -> None:
        """Count tokens that were produced."""
        self._output_tokens += output_tokens

    def tell(self, usage: Mapping[str, Any]) -> None:
        """Take the provider's own count in place of ours; it may come in parts."""
        self._told.update(actual_of(usage))

    @property
    def actual(self) -> dict[str, int]:
        """What is known to be used so far, with the estimate in place of what nobody counted."""
        estimate = self._decision.request.estimate
        kept = {unit: amount for unit, amount in estimate.items() if unit != "output_tokens"}
        return {**kept, "output_tokens": self._output_tokens, **self._told}

    def __enter__(self) -> Self:
        """Begin to count."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Settle with what was counted."""
        self.close(completed=kind is None)

    def close(self, *, completed: bool) -> None:
        """Settle with what was counted, the first time only; the estimator learns from what was completed."""
        if self._decision.reservation and self.receipt is None:
            self.receipt = self._limiter.settle(self._decision.reservation, self._settled())
            if self._estimator is not None and completed:
                self._estimator.learn(self.receipt)

    async def __aenter__(self) -> Self:
        """As for ``with``."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As for ``with``; nothing is awaited, so a second cancellation cannot stop it."""
        self.__exit__(kind, error, trace)

    def _settled(self) -> dict[str, int]:
        """Return the actual cost; a total that was estimated gives way once both of its parts are known."""
        actual = self.actual
        if "tokens" in actual and "input_tokens" in actual:
            del actual["tokens"]
        return actual
