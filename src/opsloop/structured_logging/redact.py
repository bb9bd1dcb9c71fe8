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

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from opsloop.event import Event

__all__ = [
    "DEFAULT_RULES",
    "PATTERNS",
    "SECRET_KEYS",
    "Pattern",
    "Rules",
    "Tokens",
    "iban_valid",
    "luhn_valid",
    "names_hold_secrets",
    "redact",
    "values_may_hold_secrets",
]

MASK: Final = "[REDACTED]"
_SEPARATORS: Final = str.maketrans("", "", " -().")


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


def luhn_valid(text: str) -> bool:
    """Tell whether a card number's check digit is right (Luhn, ISO/IEC 7812-1); separators are ignored.

    >>> luhn_valid("4111 1111 1111 1111"), luhn_valid("4111 1111 1111 1112")
    (True, False)
    """
    digits = [int(digit) for digit in text.translate(_SEPARATORS)]
    doubled = sum(sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + doubled) % 10 == 0


def iban_valid(text: str) -> bool:
    """Tell whether an IBAN's check digits are right (ISO 13616: the remainder modulo 97 is 1).

    >>> iban_valid("GB82 WEST 1234 5698 7654 32"), iban_valid("GB82 WEST 1234 5698 7654 33")
    (True, False)
    """
    compact = text.translate(_SEPARATORS).upper()
    return int("".join(str(int(sign, 36)) for sign in compact[4:] + compact[:4])) % 97 == 1


def _phone_valid(text: str) -> bool:
    """Tell whether a number has 8 to 15 digits (ITU-T E.164)."""
    return 8 <= sum(sign.isdigit() for sign in text) <= 15


@dataclass(frozen=True)
class Pattern:
    """What a secret looks like. ``value``, a group of the expression, is replaced; without one the whole match is.

    ``check`` confirms a candidate, and keeps look-alikes in the text.
    """

    name: str
    """The token's name, such as ``EMAIL``."""
    expression: str
    """A regular expression. Mind its cost: it runs over every text of every event."""
    check: Callable[[str], bool] | None = None
    compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile once; raises ``re.error`` for a wrong expression, where the rule is written."""
        object.__setattr__(self, "compiled", re.compile(self.expression))


_EDGE: Final = r"(?<![A-Za-z0-9_.+-])"
_END: Final = r"(?![A-Za-z0-9_])"
PATTERNS: Final = (
    Pattern(
        "PRIVATE_KEY", r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[\s\S]{1,8000}?-----END [A-Z ]{0,30}PRIVATE KEY-----"
    ),
    Pattern("BEARER", r"(?i:\bbearer\s+)(?P<value>[A-Za-z0-9._~+/-]{8,4096}=*)"),
    Pattern("JWT", rf"{_EDGE}eyJ[A-Za-z0-9_-]{{6,4096}}\.eyJ[A-Za-z0-9_-]{{6,4096}}\.[A-Za-z0-9_-]{{6,4096}}"),
    Pattern(
        "API_KEY",
        rf"{_EDGE}(?:sk-[A-Za-z0-9_-]{{16,200}}|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{{10,200}}"
        r"|gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_[A-Za-z0-9_]{22,255}|glpat-[A-Za-z0-9_-]{20,100}"
        r"|(?:AKIA|ASIA)[A-Z0-9]{16}|xox[abeoprs]-[A-Za-z0-9-]{10,250}|AIza[A-Za-z0-9_-]{35}|hf_[A-Za-z0-9]{30,100}"
        r"|npm_[A-Za-z0-9]{36}|SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,64})"
        r"(?![A-Za-z0-9])",
    ),
    Pattern("PASSWORD", r"://[^\s/:@]{0,256}:(?P<value>(?!\[)[^\s/@]{1,256})@"),
    Pattern(
        "SECRET",
        r"(?i:\b(?:password|passwd|pwd|secret|client_secret|api[_-]?key|access_token|refresh_token|auth_token)\b)"
        r"[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?P<value>(?!\[)[^\s\"',;&})\]]{1,512})",
    ),
    Pattern("EMAIL", r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])"),
    Pattern("IBAN", rf"{_EDGE}[A-Z]{{2}}[0-9]{{2}}(?: ?[A-Z0-9]{{4}}){{2,7}}(?: ?[A-Z0-9]{{1,3}})?{_END}", iban_valid),
    Pattern("CARD", rf"{_EDGE}[2-6][0-9]{{3}}(?:[ -]?[0-9]){{8,14}}[0-9]{_END}(?!-[0-9A-Za-z])", luhn_valid),
    Pattern(
        "PHONE",
        rf"{_EDGE}(?:\+[1-9](?:[ .()-]{{0,2}}[0-9]){{6,14}}|\([0-9]{{3}}\) ?[0-9]{{3}}[ .-][0-9]{{4}}"
        rf"|[0-9]{{3}}-[0-9]{{3}}-[0-9]{{4}}){_END}",
        _phone_valid,
    ),
)
"""The built-in patterns, in the order in which they are tried: the more specific first."""
_BUILT_IN: Final = frozenset(PATTERNS)
_SIGNS: Final = re.compile(r"[0-9@:=_-]|[bB][eE][aA][rR][eE][rR]|eyJ|A[KS]IA|AIza|SG\.")
"""A text without any of these matches no built-in pattern: one quick look instead of ten searches."""
_ATOMS: Final = frozenset({int, float, bool, type(None)})
_SHORT: Final = 100
_MOST_TEXTS: Final = 10_000

SECRET_KEYS: Final = frozenset(
    {
        "password", "passwd", "pwd", "passphrase", "secret", "secrets", "client_secret", "private_key", "api_key",
        "apikey", "x_api_key", "authorization", "proxy_authorization", "auth_token", "access_token", "refresh_token",
        "id_token", "session_token", "csrf_token", "bearer_token", "cookie", "set_cookie", "credit_card", "card_number",
        "cvv", "cvc", "ssn", "iban",
    }
)  # fmt: skip
"""Key names whose value is masked whole. Compared whole, without case, with ``-`` as ``_``."""


@dataclass(frozen=True)
class Rules:
    """What is redacted.

    >>> Rules().extended(keys=["Badge-No"]).keys - SECRET_KEYS
    frozenset({'badge_no'})
    """

    keys: frozenset[str] = SECRET_KEYS
    patterns: tuple[Pattern, ...] = PATTERNS
    own_patterns: tuple[Pattern, ...] = field(init=False, repr=False, compare=False)
    """Those of the patterns that are not built in."""
    harmless: set[str] = field(init=False, repr=False, compare=False, default_factory=set)
    """Short texts that were looked at and that no pattern can match: a program repeats most of what it says."""

    def __post_init__(self) -> None:
        """Tell one's own patterns from the built-in ones."""
        own = tuple(pattern for pattern in self.patterns if pattern not in _BUILT_IN)
        object.__setattr__(self, "own_patterns", own)

    def extended(self, *, keys: Iterable[str] = (), patterns: Iterable[Pattern] = ()) -> Rules:
        """Return rules with more key names and patterns; one's own patterns are tried first."""
        return Rules(self.keys | {_key(name) for name in keys}, (*patterns, *self.patterns))


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


def names_hold_secrets(names: Iterable[str], rules: Rules = DEFAULT_RULES) -> bool:
    """Tell whether the value under one of these names is masked, whatever it is.

    >>> names_hold_secrets(["words", "Password"]), names_hold_secrets(["session_id"])
    (True, False)
    """
    return any(_is_secret(name, rules) for name in names)


def values_may_hold_secrets(message: str, fields: Mapping[str, Any], rules: Rules = DEFAULT_RULES) -> bool:
    """Tell quickly whether a pattern could match in a call's texts; ``False`` is certain, ``True`` is not.

    >>> values_may_hold_secrets("question received", {"words": 5}), values_may_hold_secrets("ok", {"to": "a@b.org"})
    (False, True)
    """
    harmless = rules.harmless
    if message not in harmless and _is_suspicious(message, rules):
        return True
    for value in fields.values():
        kind = type(value)
        if kind is str:
            if value not in harmless and _is_suspicious(value, rules):
                return True
        elif kind not in _ATOMS:
            return True
    return False


def _is_suspicious(text: str, rules: Rules) -> bool:
    """Tell whether a pattern could match: a built-in one by its signs, one's own by a search."""
    if _SIGNS.search(text) is not None or any(pattern.compiled.search(text) for pattern in rules.own_patterns):
        return True
    if len(text) <= _SHORT and len(rules.harmless) < _MOST_TEXTS:
        rules.harmless.add(text)
    return False


def _is_secret(name: str, rules: Rules) -> bool:
    key = _key(name)
    return key in rules.keys or key.rpartition(".")[2] in rules.keys


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
    if _is_secret(name, rules):
        return value if value is None or value == MASK else MASK
    key = _key(name)
    if key in {"id", "ids"} or key.endswith(("_id", "_ids", ".id")):
        return value
    return _value(value, rules, tokens)


def _text(text: str, rules: Rules, tokens: Tokens) -> str:
    result = text
    for pattern in rules.patterns if _SIGNS.search(text) else rules.own_patterns:
        if pattern.compiled.search(result):
            result = pattern.compiled.sub(partial(_replaced, pattern, tokens), result)
    return text if result == text else result


def _replaced(pattern: Pattern, tokens: Tokens, match: re.Match[str]) -> str:
    group: int | str = "value" if "value" in pattern.compiled.groupindex else 0
    value = match[group]
    if pattern.check is not None and not pattern.check(value):
        return match[0]
    start, end = match.span(group)
    whole = match[0]
    return whole[: start - match.start()] + tokens.token(pattern.name, value) + whole[end - match.start() :]
