"""Words, stems and sentences: the little linguistics that the lexical scorers share.

Words are runs of letters and digits, lower-cased, with an apostrophe inside. Characters of scripts that write no spaces
(Han, kana, Thai) are one word each, so that overlaps and bigrams still mean something there. Stemming and stop words
are English; the scorers were measured on English only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final

import msgspec

__all__ = ["STOP_WORDS", "Sentence", "bigrams", "content_stems", "sentences", "stem", "words"]

_ENGLISH: Final = """
    a about after all also am an and any are as at be because been before being but by can could did do does doing
    don't during each few for from further had has have having he her here hers him his how i if in into is isn't it
    it's its just me more most my no nor not of off on once only or other our ours out over own s same she should so
    some such t than that that's the their theirs them then there these they this those through to too under until up
    very was we were what when where which while who whom why will with would you your yours
"""
STOP_WORDS: Final = frozenset(_ENGLISH.split())
"""English words that carry no content of their own."""

_SUFFIXES: Final = ("ingly", "edly", "ings", "ing", "ied", "ies", "ed", "es", "ly", "s")
_SPACELESS: Final = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_HAS_SPACELESS: Final = re.compile(f"[{_SPACELESS}]")
_WORD: Final = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_WORD_OR_SIGN: Final = re.compile(rf"[{_SPACELESS}]|(?:(?![{_SPACELESS}])[^\W_])+")
_SENTENCE: Final = re.compile(r"[^\n]+?(?:[.!?](?=\s)|[\u3002\uff01\uff1f]|(?=\n)|\Z)")


class Sentence(msgspec.Struct, frozen=True):
    """One sentence and where it stands: ``text == whole[start:end]``."""

    start: int
    end: int
    text: str


def words(text: str) -> list[str]:
    """Return the words of a text in order, lower-cased, neither stemmed nor filtered.

    >>> words("Don\u2019t ship 2 parcels_now!")
    ["don't", 'ship', '2', 'parcels', 'now']
    """
    pattern = _WORD_OR_SIGN if _HAS_SPACELESS.search(text) else _WORD
    return pattern.findall(text.lower().replace("\u2019", "'"))


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """Strip one common English suffix if at least three characters remain.

    >>> [stem(word) for word in ("refunds", "refunded", "is", "bus")]
    ['refund', 'refund', 'is', 'bus']
    """
    for suffix in _SUFFIXES:
        if word.endswith(suffix):
            return word[: -len(suffix)] if len(word) - len(suffix) >= 3 else word
    return word


def content_stems(tokens: Iterable[str]) -> list[str]:
    """Return the stems of the words that are no stop words, in order, repeats kept.

    >>> content_stems(words("The refunds are issued to the card"))
    ['refund', 'issu', 'card']
    """
    return [stem(token) for token in tokens if token not in STOP_WORDS]


def bigrams(tokens: Sequence[str]) -> list[tuple[str, str]]:
    """Return each word's stem with the next one's, stop words included.

    >>> bigrams(["to", "the", "cards"])
    [('to', 'the'), ('the', 'card')]
    """
    stems = [stem(token) for token in tokens]
    return list(pairwise(stems))


def sentences(text: str) -> list[Sentence]:
    r"""Split at ``. ! ?`` before a space, at their full-width forms, and at line ends; blank ones are left out.

    >>> [sentence.text for sentence in sentences("It costs 4.99 euros. Ask us!\nBye")]
    ['It costs 4.99 euros.', 'Ask us!', 'Bye']
    """
    found = []
    for match in _SENTENCE.finditer(text):
        inner = match[0].strip()
        if inner:
            start = match.start() + len(match[0]) - len(match[0].lstrip())
            found.append(Sentence(start, start + len(inner), inner))
    return found
