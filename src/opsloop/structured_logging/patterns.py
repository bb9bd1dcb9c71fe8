"""What a secret looks like: a regular expression, a check that confirms it, and a sign that is looked for first.

Most texts hold no secret, and an expression that finds none has looked at every character, often at many twice. So a
built-in pattern that does not begin with a fixed text names a sign: a test at a fraction of that cost, which every text
with a match passes. A property test holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["PATTERNS", "Pattern", "iban_valid", "luhn_valid"]

_SEPARATORS: Final = str.maketrans("", "", " -().")


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

    ``check`` confirms a candidate, and keeps look-alikes in the text. ``sign`` is asked before the expression is tried:
    what it returns must be true for every text in which the expression matches.

    >>> order = Pattern("ORDER", r"ORD-[0-9]{6}", sign=lambda text: "ORD-" in text)
    >>> order.matches("your order ORD-123456"), order.matches("your order")
    (True, False)
    """

    name: str
    """The token's name, such as ``EMAIL``."""
    expression: str
    """A regular expression. Mind its cost: it runs over every text of every event that has the sign."""
    check: Callable[[str], bool] | None = None
    sign: Callable[[str], Any] | None = field(default=None, compare=False)
    compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile once; raises ``re.error`` for a wrong expression, where the rule is written."""
        object.__setattr__(self, "compiled", re.compile(self.expression))

    def matches(self, text: str) -> bool:
        """Tell whether the expression matches somewhere in a text, whatever the check says of it."""
        return (self.sign is None or bool(self.sign(text))) and self.compiled.search(text) is not None


def _holds_any(parts: tuple[str, ...], text: str) -> bool:
    for part in parts:  # noqa: SIM110 - a generator would cost as much as the search
        if part in text:
            return True
    return False


def _bearer(text: str) -> bool:
    return "bearer" in text.casefold()


def _secret(text: str) -> bool:
    """Look without case, as the expression does: a long s and a Kelvin sign fold to the letters they stand for."""
    return (":" in text or "=" in text) and _holds_any(("passw", "pwd", "secret", "key", "_token"), text.casefold())


def _api_key(text: str) -> bool:
    if ("-" in text or "_" in text) and _holds_any(_KEYS_WITH_A_DASH, text):
        return True
    return _holds_any(("AKIA", "ASIA", "AIza", "SG."), text)


_KEYS_WITH_A_DASH: Final = (
    "sk-", "k_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "hf_", "npm_"
)  # fmt: skip
_EDGE: Final = r"(?<![A-Za-z0-9_.+-])"
_END: Final = r"(?![A-Za-z0-9_])"
PATTERNS: Final = (
    Pattern(
        "PRIVATE_KEY",
        r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[\s\S]{1,8000}?-----END [A-Z ]{0,30}PRIVATE KEY-----",
    ),
    Pattern("BEARER", r"(?i:\bbearer\s+)(?P<value>[A-Za-z0-9._~+/-]{8,4096}=*)", sign=_bearer),
    Pattern(
        "JWT",
        rf"{_EDGE}eyJ[A-Za-z0-9_-]{{6,4096}}\.eyJ[A-Za-z0-9_-]{{6,4096}}\.[A-Za-z0-9_-]{{6,4096}}",
        sign=lambda text: "eyJ" in text,
    ),
    Pattern(
        "API_KEY",
        rf"{_EDGE}(?:sk-[A-Za-z0-9_-]{{16,200}}|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{{10,200}}"
        r"|gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_[A-Za-z0-9_]{22,255}|glpat-[A-Za-z0-9_-]{20,100}"
        r"|(?:AKIA|ASIA)[A-Z0-9]{16}|xox[abeoprs]-[A-Za-z0-9-]{10,250}|AIza[A-Za-z0-9_-]{35}|hf_[A-Za-z0-9]{30,100}"
        r"|npm_[A-Za-z0-9]{36}|SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,64})"
        r"(?![A-Za-z0-9])",
        sign=_api_key,
    ),
    Pattern("PASSWORD", r"://[^\s/:@]{0,256}:(?P<value>(?!\[)[^\s/@]{1,256})@"),
    Pattern(
        "SECRET",
        r"(?i:\b(?:password|passwd|pwd|secret|client_secret|api[_-]?key|access_token|refresh_token|auth_token)\b)"
        r"[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?P<value>(?!\[)[^\s\"',;&})\]]{1,512})",
        sign=_secret,
    ),
    Pattern(
        "EMAIL",
        r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])",
        sign=lambda text: "@" in text,
    ),
    Pattern(
        "IBAN",
        rf"{_EDGE}[A-Z]{{2}}[0-9]{{2}}(?: ?[A-Z0-9]{{4}}){{2,7}}(?: ?[A-Z0-9]{{1,3}})?{_END}",
        iban_valid,
        sign=re.compile("[A-Z]{2}[0-9]{2}").search,
    ),
    Pattern(
        "CARD",
        rf"{_EDGE}[2-6][0-9]{{3}}(?:[ -]?[0-9]){{8,14}}[0-9]{_END}(?!-[0-9A-Za-z])",
        luhn_valid,
        sign=re.compile("[0-9]{4}(?:[ -]?[0-9]){8}").search,
    ),
    Pattern(
        "PHONE",
        rf"{_EDGE}(?:\+[1-9](?:[ .()-]{{0,2}}[0-9]){{6,14}}|\([0-9]{{3}}\) ?[0-9]{{3}}[ .-][0-9]{{4}}"
        rf"|[0-9]{{3}}-[0-9]{{3}}-[0-9]{{4}}){_END}",
        _phone_valid,
        sign=re.compile("[0-9](?:[ .()-]{0,2}[0-9]){6}").search,
    ),
)
"""The built-in patterns, in the order in which they are tried: the more specific first."""
