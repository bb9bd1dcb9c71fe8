"""Redaction: nothing personal and no secret reaches git.

Every value becomes an indexed token, and equal values the same token: ``[EMAIL_1]`` in the question is ``[EMAIL_1]`` in
the answer, so a guard that compares them still can. Only what a token stands for is kept, never the value.
"""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["REDACTION_POLICY", "Redactor", "find_secrets"]

REDACTION_POLICY: Final = "default@1"

_CREDENTIALS: Final = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\beyJ[\w\-]{8,}\.[\w\-]{8,}\.[\w\-]*"
    r"|\b(?:sk|pk|rk)[-_](?:live[-_]|test[-_]|proj[-_]|ant[-_])?[A-Za-z0-9_\-]{16,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bxox[abprs]-[A-Za-z0-9\-]{10,}"
    r"|\bA(?:KI|SI)A[A-Z0-9]{16}\b|\bAIza[\w\-]{35}"
    r"|(?i:\bbearer\s+)[A-Za-z0-9._~+/\-]{12,}=*"
    r"|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"
)
_PATTERNS: Final = (
    ("SECRET", re.compile(_CREDENTIALS)),
    ("EMAIL", re.compile(r"[\w.+\-]{1,64}+@[\w\-]{1,63}+(?:\.[\w\-]{1,63}+)+")),
    ("CARD", re.compile(r"(?<![\w.])\d(?:[ \-]?\d){12,18}(?![\w.]\d)")),
    ("IBAN", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")),
    ("PHONE", re.compile(r"(?<![\w.])(?:\+\d{1,3}[ .\-/]?)\(?\d{1,4}\)?(?:[ .\-/]?\d{2,4}){2,4}(?!\w)")),
    ("IP", re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])")),
)


def find_secrets(text: str) -> list[str]:
    """Return the secrets that stand in a text, shortened so that a message can show them.

    >>> find_secrets("use sk-live-abcdefghijklmnopqrst")
    ['sk-liv...']
    """
    return [f"{match.group()[:6]}..." for match in _PATTERNS[0][1].finditer(text)]


class Redactor:
    """Takes values out, and remembers which token stands for which within one guard.

    >>> redactor = Redactor()
    >>> redactor.redact({"question": "I am bob@example.org", "again": ["bob@example.org"]})
    {'question': 'I am [EMAIL_1]', 'again': ['[EMAIL_1]']}
    >>> redactor.tokens
    {'EMAIL_1': 'email'}
    """

    def __init__(self) -> None:
        """Start with no token."""
        self._token_of: dict[str, str] = {}
        self.tokens: dict[str, str] = {}

    def redact(self, value: Any) -> Any:
        """Return a JSON value with every text in it redacted, keys too."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return {self._text(str(key)): self.redact(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.redact(item) for item in value]
        return value

    def _text(self, text: str) -> str:
        for kind, pattern in _PATTERNS:
            text = pattern.sub(lambda match, kind=kind: self._token(kind, match.group()), text)  # type: ignore[misc]
        return text

    def _token(self, kind: str, value: str) -> str:
        if value not in self._token_of:
            name = f"{kind}_{sum(known.startswith(kind) for known in self.tokens) + 1}"
            self._token_of[value] = f"[{name}]"
            self.tokens[name] = kind.lower()
        return self._token_of[value]
