"""Repetition: a model that loops says the same four words again and again.

score = 1 - share of word 4-grams that occurred before in the same answer.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from opsloop.online_eval.answer import Answer
from opsloop.online_eval.scorers.score import Judgement, Score, scored, unscored
from opsloop.online_eval.text import words

__all__ = ["REPETITION", "repeated_share", "repetition"]

GRAM: Final = 4
LOOPING: Final = 0.3
"""From this share on the label says so."""


def repeated_share(text: str) -> float | None:
    """Return the share of 4-grams that were said before; ``None`` below two 4-grams.

    >>> repeated_share("the same four words the same four words")
    0.2
    """
    tokens = words(text)
    grams = Counter(zip(*(tokens[start:] for start in range(GRAM)), strict=False))
    total = grams.total()
    return (total - len(grams)) / total if total > 1 else None


def repetition(answer: Answer, text: str) -> Score:
    """Score an answer by how little it repeats itself; unscored below five words."""
    del answer
    share = repeated_share(text)
    if share is None:
        return unscored(f"fewer than {GRAM + 1} words")
    label = "looping" if share >= LOOPING else "varied"
    return scored(1 - share, label, f"{share:.2f} of its {GRAM}-word runs were said before")


REPETITION: Final = Judgement("repetition", "1", repetition)
