"""Length: an answer that is empty, a placeholder, or cut off.

Cut off means that the model said so (``finish_reason`` of ``length`` or ``max_tokens``), or, where it said nothing,
that the answer ends in a comma or in a word that cannot end a sentence.
"""

from __future__ import annotations

import re
from typing import Final

from opsloop.online_eval.answer import Answer
from opsloop.online_eval.scorers.score import Judgement, Score, scored, unscored
from opsloop.online_eval.text import words

__all__ = ["LENGTH", "length"]

CUT_REASONS: Final = frozenset({"length", "max_tokens", "max_output_tokens", "MAX_TOKENS"})
FILTER_REASONS: Final = frozenset({"content_filter", "SAFETY"})
_PLACEHOLDER: Final = re.compile(
    r"\W*(?:n/?a|none|null|nil|undefined|nan|todo|tbd|lorem ipsum.*|\{\{.*\}\}|<answer>|\[insert .*\])\W*",
    re.IGNORECASE | re.DOTALL,
)
_OPEN: Final = """
    a an and as at because but by for from if in of or the to which with your
"""
_OPEN_WORDS: Final = frozenset(_OPEN.split())


def length(answer: Answer, text: str) -> Score:
    """Score 1 for a whole answer, 0 for an empty or cut one; one that a content filter stopped is unscored."""
    if answer.finish_reason in FILTER_REASONS:
        return unscored(f"the model stopped with {answer.finish_reason}")
    if not text.strip():
        return scored(0.0, "empty", "the answer is empty")
    if _PLACEHOLDER.fullmatch(text):
        return scored(0.0, "placeholder", f"the answer is {text.strip()[:40]!r}")
    if answer.finish_reason in CUT_REASONS:
        return scored(0.0, "truncated", f"the model stopped with {answer.finish_reason}")
    tail = text.rstrip()
    last = (words(tail[-80:]) or [""])[-1]
    if not answer.finish_reason and (tail.endswith(",") or (tail[-1].isalpha() and last in _OPEN_WORDS)):
        return scored(0.0, "truncated", f"the answer ends in {tail[-12:]!r}")
    return scored(1.0, "whole", f"{len(text)} characters")


LENGTH: Final = Judgement("length", "1", length)
