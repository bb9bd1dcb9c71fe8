"""The port of a store that lies outside this process, so that its answers have to be waited for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from opsloop.rate_limit.context import Amounts
from opsloop.rate_limit.decision import Decision, Receipt, Request
from opsloop.rate_limit.memory import Store
from opsloop.rate_limit.policy import Policy

__all__ = ["RemoteStore"]


@runtime_checkable
class RemoteStore(Store, Protocol):
    """A :class:`~opsloop.rate_limit.Store` with the same calls for event loops.

    A caller of ``admit_async`` that is cancelled has reserved nothing in the end; the calls that end a reservation are
    carried out whether their caller still waits or not.
    """

    def check(self, policy: Policy) -> None:
        """Raise :class:`opsloop.errors.ConfigError` for a policy that the store cannot keep."""
        ...

    def renew_all(self, reservations: Sequence[str]) -> list[Receipt]:
        """As ``renew`` for each, in as few calls as it takes."""
        ...

    async def admit_async(self, request: Request) -> Decision:
        """As ``admit``."""
        ...

    async def peek_async(self, request: Request) -> Decision:
        """As ``peek``."""
        ...

    async def settle_async(self, reservation: str, actual: Amounts) -> Receipt:
        """As ``settle``."""
        ...

    async def renew_async(self, reservation: str) -> Receipt:
        """As ``renew``."""
        ...

    async def release_async(self, reservation: str) -> Receipt:
        """As ``release``."""
        ...
