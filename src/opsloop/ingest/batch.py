"""What a body became: the events in it, and what had to be refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from opsloop.event import Event

__all__ = ["Batch"]

NAMED_REASONS = 3


class Batch(msgspec.Struct):
    """Events of one body, with the records that can never be accepted and why.

    >>> batch = Batch()
    >>> batch.reject("line 3: not JSON")
    >>> batch.rejected, batch.reason()
    (1, 'line 3: not JSON')
    """

    events: list[Event] = []
    rows: Any = None
    """Further events of a large body, as an Arrow table with the columns of the store; see ``columnar``."""
    rejected: int = 0
    """How many records were refused."""
    reasons: list[str] = []
    """The first few reasons, each naming its record."""

    def reject(self, reason: str, *, records: int = 1) -> None:
        """Count refused records and keep the reason if it is among the first."""
        self.rejected += records
        if len(self.reasons) < NAMED_REASONS and reason not in self.reasons:
            self.reasons.append(reason)

    @property
    def accepted(self) -> int:
        """How many events there are, in either form."""
        return len(self.events) + (0 if self.rows is None else self.rows.num_rows)

    def extend(self, events: Iterable[Event]) -> None:
        """Add events."""
        self.events.extend(events)

    def reason(self) -> str:
        """Return the kept reasons as one text, empty when nothing was refused."""
        more = f"; {self.rejected} rejected in all" if self.rejected > len(self.reasons) else ""
        return "; ".join(self.reasons) + (more if self.reasons else "")
