"""Fingerprint: what stays the same when a failure comes back.

A fingerprint is a hash over the *kind* of a failure: where it happened, how it was noticed, and its message with
everything that varies masked. Ids, tenants, scores, free model text and the input are left out, or no failure would
ever come twice. So are model, prompt version and release: they are dimensions of an incident, else every upgrade would
make "new" problems out of old ones.

The algorithm has a version (``fp1``) and no memory: the same failure has the same fingerprint on every machine, in any
order of arrival. Clustering that learns from what came before has neither property. Masks can be added, and
:func:`preview` shows which groups a new mask would join or split before anyone commits to it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from opsloop.errors import ConfigError

__all__ = [
    "FINGERPRINT_VERSION",
    "MASKS",
    "FailureClass",
    "Mask",
    "Regrouping",
    "Signature",
    "fingerprint",
    "mask_message",
    "new_mask",
    "preview",
]

FINGERPRINT_VERSION: Final = 1

FailureClass = Literal[
    "abstention_failure",
    "dependency_failure",
    "generator_hallucination",
    "generator_ignores_context",
    "incorrect_final_output",
    "malformed_output",
    "policy_violation",
    "retrieval_grounding_failure",
    "retriever_miss",
    "retriever_noise",
    "timeout_or_budget_exhaustion",
    "tool_argument_error",
    "tool_selection_error",
    "unclassified",
]
"""The closed list of what can go wrong, so that two teams count the same things."""


class Mask(msgspec.Struct, frozen=True):
    """One replacement: everything that ``pattern`` matches becomes ``<name>``."""

    name: str
    pattern: str


_TOKEN: Final = r"[.:$@#/+\-]"  # noqa: S105 - punctuation of a token in a message, not a credential

MASKS: Final = (
    Mask("url", r"[A-Za-z][A-Za-z0-9+.\-]{0,30}+://\S+"),
    Mask("email", r"[\w.+\-]{1,64}+@[\w\-]{1,63}+(?:\.[\w\-]{1,63}+)+"),
    Mask("str", r"(?<!\w)(?:\"[^\"]*\"|'[^']*')(?!\w)"),
    Mask("path", r"(?<![\w.~/\-])~?/?[\w.\-]++(?:/[\w.\-]++)+/?"),
    Mask("val", r"(?<==)[^\s,;)\]}]+"),
    Mask("id", rf"(?<!\w)(?<!{_TOKEN})(?:[^\W\d]|{_TOKEN})*+\d(?:\w|{_TOKEN})*+"),
    Mask("id", r"\b[0-9A-Fa-f]{8,}\b"),
)
"""The seven masks of version 1, applied in this order; a team's own come before them. All take linear time."""

_REPEATED: Final = re.compile(r"(<\w+>)(?:[\s,;:|]*\1)+")
_SPACES: Final = re.compile(r"\s+")


class Signature(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The kind of one failure. Every field is low in cardinality; ``message`` may hold ids, they are masked."""

    service: str = ""
    route: str = ""
    stage: str = ""
    """retrieve, rerank, generate, tool:NAME, parse, guardrail or rate_limit; empty when not known."""
    failure_class: FailureClass = "unclassified"
    signal: str = ""
    """The signal or scorer that noticed it: errors, latency, quality:groundedness, …"""
    error_type: str = ""
    finish_reason: str = ""
    message: str = ""


def new_mask(name: str, pattern: str) -> Mask:
    """Return a checked mask. Raises :class:`ConfigError` for a name or a pattern that cannot work.

    >>> mask_message("order ORD_A missing", masks=(new_mask("order", r"ORD_[A-Z]+"), *MASKS))
    'order <order> missing'
    """
    if not re.fullmatch("[a-z]+", name):
        raise ConfigError(f"mask {name!r}: a name is lower-case letters", fix="call it after what it hides: order")
    try:
        compiled = re.compile(pattern)
    except re.error as cause:
        raise ConfigError(f"mask {name!r}: {cause} in {pattern!r}", fix="mend the regular expression") from cause
    if compiled.search("") is not None:
        raise ConfigError(f"mask {name!r} matches an empty text", fix="let the pattern need at least one character")
    return Mask(name, pattern)


def mask_message(message: str, *, masks: Sequence[Mask] = MASKS) -> str:
    """Return the message with what varies masked; equal masks in a row become one.

    >>> mask_message("ids 1, 2, 3 missing in deadbeefcafe")
    'ids <id> missing in <id>'
    >>> mask_message("can't read /srv/kb/a.txt for bob@example.org")
    "can't read <path> for <email>"
    """
    for mask in masks:
        message = re.sub(mask.pattern, f"<{mask.name}>", message)
    return _SPACES.sub(" ", _REPEATED.sub(r"\1", message)).strip()


def fingerprint(signature: Signature, *, masks: Sequence[Mask] = MASKS) -> str:
    """Return ``fp1:`` and the first 16 hex digits of SHA-256 over the signature's canonical JSON.

    Canonical means sorted keys, no spaces, UTF-8. The same kind of failure has the same fingerprint everywhere.

    >>> one = Signature(stage="retrieve", message="timed out after 3000ms")
    >>> two = Signature(stage="retrieve", message="timed out after 2750ms")
    >>> fingerprint(one) == fingerprint(two)
    True
    """
    kind = {
        "v": FINGERPRINT_VERSION,
        "service": signature.service,
        "route": signature.route,
        "stage": signature.stage,
        "class": signature.failure_class,
        "signal": signature.signal,
        "error_type": signature.error_type,
        "finish_reason": signature.finish_reason,
        "message": mask_message(signature.message, masks=masks),
    }
    canonical = msgspec.json.encode(kind, order="sorted")
    return f"fp{FINGERPRINT_VERSION}:{hashlib.sha256(canonical).hexdigest()[:16]}"


class Regrouping(msgspec.Struct, frozen=True, kw_only=True):
    """What a change of masks would do: groups are lists of fingerprints under the masks of before or after."""

    joined: dict[str, tuple[str, ...]]
    """New fingerprint → the old ones that would fall together in it. A wrong one invents repeats."""
    split: dict[str, tuple[str, ...]]
    """Old fingerprint → the new ones that it would fall apart into. A wrong one hides repeats."""
    renamed: int
    """Groups that only change their hash; the old one is kept as an alias."""
    unchanged: int


def preview(signatures: Iterable[Signature], *, before: Sequence[Mask] = MASKS, after: Sequence[Mask]) -> Regrouping:
    """Return which groups of past failures a change of masks would join, split or leave.

    >>> past = [Signature(message="order ORD_A missing"), Signature(message="order ORD_B missing")]
    >>> change = preview(past, after=(new_mask("order", "ORD_[A-Z]+"), *MASKS))
    >>> [len(old) for old in change.joined.values()], change.split
    ([2], {})
    """
    new_of: dict[str, set[str]] = {}
    old_of: dict[str, set[str]] = {}
    for signature in signatures:
        old, new = fingerprint(signature, masks=before), fingerprint(signature, masks=after)
        new_of.setdefault(old, set()).add(new)
        old_of.setdefault(new, set()).add(old)
    single = [(old, *new) for old, new in new_of.items() if len(new) == 1 and len(old_of[next(iter(new))]) == 1]
    return Regrouping(
        joined={new: tuple(sorted(old)) for new, old in sorted(old_of.items()) if len(old) > 1},
        split={old: tuple(sorted(new)) for old, new in sorted(new_of.items()) if len(new) > 1},
        renamed=sum(old != new for old, new in single),
        unchanged=sum(old == new for old, new in single),
    )
