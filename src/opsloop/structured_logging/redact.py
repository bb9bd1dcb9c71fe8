"""Redaction: secrets and personal data leave an event before the event leaves the process.

Two means. **Keys by their exact name**: the value under ``password`` goes, whatever it is; ``session_id`` survives a
rule for ``session``, because names are compared whole, never by substring. **Patterns with a check**: a run of digits
is a card only if its Luhn sum is right, an IBAN only if its remainder modulo 97 is 1. What a pattern finds becomes a
token, ``[EMAIL_1]``; the same value has the same token throughout a request, so a reader still sees who is who.

Identifiers are never touched: without them nothing can be correlated. That is the id columns, and any attribute named
``id``, ``ids`` or ending in ``_id`` or ``_ids``, unless a rule names it exactly. Cost: one walk over the message and
the attributes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from re import Match
from typing import Any, Final

from opsloop.event import Event
from opsloop.structured_logging.patterns import PATTERNS, Pattern

__all__ = ["DEFAULT_RULES", "SECRET_KEYS", "Meaning", "Rules", "Tokens", "is_clean", "redact"]

MASK: Final = "[REDACTED]"
_ATOMS: Final = frozenset({int, float, bool, type(None)})
_SHORT: Final = 100
_MOST_REMEMBERED: Final = 10_000


class Tokens:
    """The tokens of one request: the same value of the same kind is the same token. Safe between threads.

    >>> tokens = Tokens()
    >>> tokens.token("EMAIL", "a@b.org"), tokens.token("EMAIL", "c@d.org"), tokens.token("EMAIL", "a@b.org")
    ('[EMAIL_1]', '[EMAIL_2]', '[EMAIL_1]')
    """

    def __init__(self) -> None:
        """Start without any."""
        self._lock = threading.Lock()
        self._tokens: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}

    def token(self, name: str, value: str) -> str:
        """Return the token of a value, a new one when it was not seen before."""
        with self._lock:
            known = self._tokens.get((name, value))
            if known is None:
                self._counts[name] = self._counts.get(name, 0) + 1
                known = self._tokens[(name, value)] = f"[{name}_{self._counts[name]}]"
            return known


SECRET_KEYS: Final = frozenset(
    {
        "password", "passwd", "pwd", "passphrase", "secret", "secrets", "client_secret", "private_key", "api_key",
        "apikey", "x_api_key", "authorization", "proxy_authorization", "auth_token", "access_token", "refresh_token",
        "id_token", "session_token", "csrf_token", "bearer_token", "cookie", "set_cookie", "credit_card", "card_number",
        "cvv", "cvc", "ssn", "iban",
    }
)  # fmt: skip
"""Key names whose value is masked whole. Compared whole, without case, with ``-`` as ``_``."""


class Meaning(Enum):
    """What the name of a key says of the value under it."""

    ORDINARY = "the patterns are tried on it"
    IDENTIFIER = "it is never touched"
    SECRET = "it is masked whole"  # noqa: S105 - what is done with one


@dataclass(frozen=True)
class Rules:
    """What is redacted.

    >>> Rules().extended(keys=["Badge-No"]).keys - SECRET_KEYS
    frozenset({'badge_no'})
    """

    keys: frozenset[str] = SECRET_KEYS
    patterns: tuple[Pattern, ...] = PATTERNS
    _meanings: dict[str, Meaning] = field(init=False, repr=False, compare=False, default_factory=dict)
    clean: set[str] = field(init=False, repr=False, compare=False, default_factory=set)
    """Short texts that were looked at and that no pattern matches: a program repeats most of what it says."""

    _searches: tuple[tuple[Callable[[str], Any] | None, Callable[[str], Any]], ...] = field(
        init=False, repr=False, compare=False
    )
    """Of each pattern its sign and its search: what is looked for in every text is not looked up as well."""

    def __post_init__(self) -> None:
        """Take the patterns apart once."""
        object.__setattr__(self, "_searches", tuple((each.sign, each.compiled.search) for each in self.patterns))

    def extended(self, *, keys: Iterable[str] = (), patterns: Iterable[Pattern] = ()) -> Rules:
        """Return rules with more key names and patterns; one's own patterns are tried first."""
        return Rules(self.keys | {_key(name) for name in keys}, (*patterns, *self.patterns))

    def meaning_of(self, name: str) -> Meaning:
        """Return what the name of a key says of the value under it.

        >>> [Rules().meaning_of(name).name for name in ("http.Authorization", "order_id", "note")]
        ['SECRET', 'IDENTIFIER', 'ORDINARY']
        """
        known = self._meanings.get(name)
        if known is None:
            key = _key(name)
            if key in self.keys or key.rpartition(".")[2] in self.keys:
                known = Meaning.SECRET
            elif key in {"id", "ids"} or key.endswith(("_id", "_ids", ".id")):
                known = Meaning.IDENTIFIER
            else:
                known = Meaning.ORDINARY
            _make_room(self._meanings)
            self._meanings[name] = known
        return known

    def matched(self, text: str) -> bool:
        """Tell whether any pattern matches in a text, whatever its check says of the match.

        >>> Rules().matched("write to bob@example.org"), Rules().matched("gpt-4o-mini")
        (True, False)
        """
        if text in self.clean:
            return False
        for sign, search in self._searches:
            if (sign is None or sign(text)) and search(text) is not None:
                return True
        if len(text) <= _SHORT:
            _make_room(self.clean)
            self.clean.add(text)
        return False


DEFAULT_RULES: Final = Rules()


def redact(event: Event, rules: Rules = DEFAULT_RULES, tokens: Tokens | None = None) -> Event:
    """Return the event without secrets and personal data; the same event when there are none.

    The result follows from the arguments alone; ``tokens`` remembers what it has named. Twice is the same as once.

    >>> redact(Event(ts_ns=0, event="log", message="mail bob@example.org", session_id="bob@example.org")).message
    'mail [EMAIL_1]'
    """
    tokens = Tokens() if tokens is None else tokens
    message = _text(event.message, rules, tokens)
    attributes = _value(event.attributes, rules, tokens)
    if message is event.message and attributes is event.attributes:
        return event
    return event.replace(message=message, attributes=attributes)


def is_clean(value: Any, rules: Rules = DEFAULT_RULES) -> bool:
    """Tell whether redaction leaves a value as it is. ``True`` is certain; ``False`` asks for a closer look.

    >>> is_clean("question received"), is_clean(["ann@example.org"]), is_clean({"password": 1}), is_clean({"a_id": "x"})
    (True, False, False, True)
    """
    kind = type(value)
    if kind is str:
        return not rules.matched(value)
    if kind is list:
        return all(is_clean(item, rules) for item in value)
    if kind is dict:
        return all(type(name) is str and _is_clean_entry(name, item, rules) for name, item in value.items())
    return kind in _ATOMS


def _is_clean_entry(name: str, value: Any, rules: Rules) -> bool:
    meaning = rules.meaning_of(name)
    return meaning is Meaning.IDENTIFIER or (meaning is Meaning.ORDINARY and is_clean(value, rules))


def _make_room(remembered: dict[str, Meaning] | set[str]) -> None:
    """Forget all before it becomes too much: what is said often is soon known again."""
    if len(remembered) >= _MOST_REMEMBERED:
        remembered.clear()


def _key(name: str) -> str:
    return name.lower().replace("-", "_")


def _value(value: Any, rules: Rules, tokens: Tokens) -> Any:
    """Return a value with its secrets replaced: the very same object when there were none."""
    if isinstance(value, str):
        return _text(value, rules, tokens)
    if isinstance(value, dict):
        changed = {name: _entry(name, item, rules, tokens) for name, item in value.items()}
        return changed if any(changed[name] is not value[name] for name in value) else value
    if isinstance(value, list):
        items = [_value(item, rules, tokens) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def _entry(name: str, value: Any, rules: Rules, tokens: Tokens) -> Any:
    meaning = rules.meaning_of(name)
    if meaning is Meaning.SECRET:
        return value if value is None or value == MASK else MASK
    return value if meaning is Meaning.IDENTIFIER else _value(value, rules, tokens)


def _text(text: str, rules: Rules, tokens: Tokens) -> str:
    if not rules.matched(text):
        return text
    result = text
    for pattern in rules.patterns:
        if pattern.matches(result):
            result = pattern.compiled.sub(partial(_replaced, pattern, tokens), result)
    return text if result == text else result


def _replaced(pattern: Pattern, tokens: Tokens, match: Match[str]) -> str:
    group: int | str = "value" if "value" in pattern.compiled.groupindex else 0
    value = match[group]
    if pattern.check is not None and not pattern.check(value):
        return match[0]
    start, end = match.span(group)
    whole = match[0]
    return whole[: start - match.start()] + tokens.token(pattern.name, value) + whole[end - match.start() :]
