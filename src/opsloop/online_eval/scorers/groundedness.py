"""Groundedness: how much of the answer's wording stands in the retrieved passages.

The mean of three overlaps, untrained::

    uni   share of the answer's content words that occur in any passage
    bi    share of the answer's word pairs that are word pairs of a passage
    best  mean over the answer's sentences of the best passage sentence's share of its content words

Citation marks such as ``[2]`` are no wording and are passed over.

On public sets of human-labelled answers the mean ranks faithful over unfaithful with AUC .92-.96 (dialogue on given
knowledge), .80 (near-extractive summaries) and .64-.65 (abstractive or adversarial). It sees lost support, not a wrong
meaning in the same words, and it was measured on English only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from opsloop.online_eval.answer import Answer
from opsloop.online_eval.scorers.score import Judgement, Score, scored, unscored
from opsloop.online_eval.text import bigrams, content_stems, sentences, words

__all__ = ["GROUNDEDNESS", "Overlap", "SentenceSupport", "groundedness", "overlap", "sentence_support"]

SUPPORTED: Final = 0.5
"""A sentence with less than this share of its content words in one passage sentence is shown as ungrounded."""
_MARK: Final = re.compile(r"\[[0-9]{1,3}(?:[,;] ?[0-9]{1,3})*\]")
MAX_CHARACTERS: Final = 200_000
"""Longer texts are unscored: comparing sentences pairwise has to stay bounded."""


class Overlap(msgspec.Struct, frozen=True):
    """The three shares; ``None`` where the answer has nothing to count."""

    uni: float | None
    bi: float | None
    best: float | None

    @property
    def mean(self) -> float | None:
        """The mean of the shares that exist."""
        parts = [part for part in (self.uni, self.bi, self.best) if part is not None]
        return sum(parts) / len(parts) if parts else None


class SentenceSupport(msgspec.Struct, frozen=True):
    """One sentence of the answer, where it stands, and its best support; ``None`` without a content word."""

    start: int
    end: int
    text: str
    support: float | None
    grounded: bool | None


class _Passage(msgspec.Struct, frozen=True):
    """What one passage offers, worked out once."""

    stems: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    sentences: tuple[frozenset[str], ...]


@lru_cache(maxsize=1024)
def _passage(text: str) -> _Passage:
    tokens = words(text)
    parts = tuple(frozenset(content_stems(words(part.text))) for part in sentences(text))
    return _Passage(frozenset(content_stems(tokens)), frozenset(bigrams(tokens)), tuple(filter(None, parts)))


def _share(items: Sequence[object], known: frozenset[object] | set[object]) -> float | None:
    return sum(item in known for item in items) / len(items) if items else None


def _uncited(text: str) -> str:
    return _MARK.sub(" ", text)


def overlap(answer: str, contexts: Sequence[str]) -> Overlap:
    """Return the three overlaps of an answer with its passages.

    >>> overlap("Refunds take five days.", ["Refunds take five working days."])
    Overlap(uni=1.0, bi=0.6666666666666666, best=1.0)
    """
    passages = [_passage(context) for context in contexts]
    tokens = words(_uncited(answer))
    support = [part.support for part in sentence_support(answer, contexts) if part.support is not None]
    return Overlap(
        uni=_share(content_stems(tokens), {stem for passage in passages for stem in passage.stems}),
        bi=_share(bigrams(tokens), {pair for passage in passages for pair in passage.pairs}),
        best=sum(support) / len(support) if support else None,
    )


def sentence_support(answer: str, contexts: Sequence[str]) -> list[SentenceSupport]:
    """Return each sentence of the answer with its best support in one passage sentence: what a page highlights.

    >>> [part.grounded for part in sentence_support("Refunds take five days. Dragons fly.", ["Refunds take days."])]
    [True, False]
    """
    candidates = [part for context in contexts for part in _passage(context).sentences]
    found = []
    for sentence in sentences(answer):
        stems = content_stems(words(_uncited(sentence.text)))
        hits = max((sum(stem in part for stem in stems) for part in candidates), default=0)
        support = hits / len(stems) if stems else None
        grounded = None if support is None else support >= SUPPORTED
        found.append(SentenceSupport(sentence.start, sentence.end, sentence.text, support, grounded))
    return found


def groundedness(answer: Answer, text: str) -> Score:
    """Score an answer's text against its passages; unscored without a passage or a content word."""
    if not answer.contexts:
        return unscored("no passage was retrieved, so there is nothing to be grounded in")
    if max(len(text), sum(map(len, answer.contexts))) > MAX_CHARACTERS:
        return unscored(f"answer or passages exceed {MAX_CHARACTERS} characters")
    found = overlap(text, answer.contexts)
    mean = found.mean
    if found.uni is None or mean is None:
        return unscored("the answer has no content word")
    parts = ", ".join(
        f"{name} {'-' if part is None else format(part, '.2f')}"
        for name, part in (("words", found.uni), ("pairs", found.bi), ("best sentence", found.best))
    )
    return scored(mean, "grounded" if mean >= SUPPORTED else "ungrounded", f"share found in the passages: {parts}")


GROUNDEDNESS: Final = Judgement("groundedness", "1", groundedness)
