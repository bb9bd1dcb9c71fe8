"""The score, and what a scorer is: a name, a version, and a function of one answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

from opsloop.online_eval.answer import Answer

__all__ = ["Judgement", "Score", "Scorer", "scored", "unscored"]


class Score(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a scorer says about one answer. An answer that it cannot judge is ``unscored``, which is no number."""

    status: Literal["scored", "unscored"]
    score: float | None = None
    """In [0, 1], and 1 is good; ``None`` when unscored."""
    label: str = ""
    """One word for a person or a filter: ``grounded``, ``refusal``, ``truncated``."""
    explanation: str = ""
    """One sentence from which a person can recompute the score."""


class Scorer(Protocol):
    """What the worker, the gate and the judge's callers hold. ``version`` changes whenever a score could."""

    @property
    def name(self) -> str:
        """The name in the settings and on the score."""
        ...

    @property
    def version(self) -> str:
        """Part of the drift stratum's key, so that a changed scorer never looks like a changed service."""
        ...

    def score(self, answer: Answer) -> Score:
        """Judge one answer. Never raises for any text."""
        ...


class Judgement(msgspec.Struct, frozen=True):
    """A scorer made of a pure function; an answer whose text was not recorded is unscored for all of them."""

    name: str
    version: str
    judge: Callable[[Answer, str], Score]
    """Called with the answer and its text."""

    def score(self, answer: Answer) -> Score:
        """Judge one answer."""
        if answer.answer is None:
            return unscored("no answer text was recorded")
        return self.judge(answer, answer.answer)


def scored(score: float, label: str, explanation: str) -> Score:
    """Return a score, kept inside [0, 1].

    >>> scored(1.0, "valid", "parses as JSON").status
    'scored'
    """
    return Score("scored", min(1.0, max(0.0, score)), label, explanation)


def unscored(explanation: str) -> Score:
    """Return the status of an answer that cannot be judged, with the reason."""
    return Score("unscored", None, "", explanation)
