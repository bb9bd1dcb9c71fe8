"""The error tree. Each error says whose fault it is and what to do about it.

::

    OpsloopError
    ├── InputError            the sender's: what was handed in is wrong; sending it again will not help
    │   ├── EventError        an event has a wrong field, and where
    │   ├── FilterError       a query line does not parse; carries the span for a caret
    │   ├── NotFoundError     what was asked for by its id does not exist
    │   └── PayloadError      a request body or file cannot be decoded
    ├── ConfigError           the operator's: a setting, rule, policy or file is wrong
    └── StoreError            the machine's: the store cannot be opened, read or written now
        └── StoreBusyError    another process owns the path, or a queue is full; try again later
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "EventError",
    "FilterError",
    "InputError",
    "NotFoundError",
    "OpsloopError",
    "PayloadError",
    "StoreBusyError",
    "StoreError",
]


class OpsloopError(Exception):
    """The root of everything that opsloop raises on purpose.

    ``message`` says what was wrong and where; ``fix`` says what to do, in one short sentence.

    >>> str(OpsloopError("port 4318 is in use", fix="choose another with --port"))
    'port 4318 is in use; choose another with --port'
    """

    def __init__(self, message: str, *, fix: str = "") -> None:
        """Keep both halves, so that an API can answer them apart."""
        self.message = message
        self.fix = fix
        super().__init__(f"{message}; {fix}" if fix else message)


class InputError(OpsloopError):
    """What the caller handed in can never be accepted as it is."""


class EventError(InputError):
    """An event has a missing, unknown or wrongly typed field."""


class FilterError(InputError):
    """A query line does not parse, or names something that cannot be compared.

    ``text`` is the whole line, ``start`` and ``end`` the half-open span of the fault in it.

    >>> print(FilterError("expected a value", text="tool:", start=5, end=5).pointed())
    tool:
         ^ expected a value
    """

    def __init__(self, message: str, *, text: str = "", start: int = 0, end: int = 0, fix: str = "") -> None:
        """Keep the span, so that a page or a terminal can point at it."""
        self.text = text
        self.start = start
        self.end = max(end, start)
        super().__init__(message, fix=fix)

    def pointed(self) -> str:
        """Return the line with a caret under the fault and the message behind it."""
        carets = "^" * max(1, self.end - self.start)
        return f"{self.text}\n{' ' * self.start}{carets} {self}"


class NotFoundError(InputError):
    """Nothing has the id that was asked for."""


class PayloadError(InputError):
    """A request body, file or line cannot be decoded at all."""


class ConfigError(OpsloopError):
    """A setting, objective, policy, rule or guard file is wrong; nothing runs until it is mended."""


class StoreError(OpsloopError):
    """The store cannot be opened, read or written at the moment."""


class StoreBusyError(StoreError):
    """The store is owned by another process, or its queue is full: a later try can succeed."""
