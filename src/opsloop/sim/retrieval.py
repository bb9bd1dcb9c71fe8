"""The bot's retriever: words weighed by how rare they are in the knowledge base.

A document's score is the share of the question's word weight that its text contains, so it lies in [0, 1]:
``score(q, d) = sum(idf(w) for w in q if w in d) / sum(idf(w) for w in q)`` with ``idf(w) = ln(1 + N / n_w)``, N
articles of which n_w contain w (a word that none contains weighs most). Ties keep the order of the articles.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from opsloop.sim.knowledge import ARTICLES, Article

__all__ = ["Document", "relevance", "retrieve", "stems"]

DEPTH: Final = 3
"""How many documents a retrieval returns."""
_WORD: Final = re.compile(r"[^\W_]+(?:[-.][^\W_]+)*")
_ENDINGS: Final = ("ing", "ied", "ies", "ed", "es", "s")
_STOP_TEXT: Final = """
a an and any are as at be by can do does for from get have how i if in into is it last me my no of on or that the there
this to up was were what when where which who why will with would you your
"""
_STOP: Final = frozenset(_STOP_TEXT.split())


class Document(msgspec.Struct, frozen=True):
    """One retrieved article with its score in [0, 1]."""

    article: Article
    score: float


def stems(text: str) -> tuple[str, ...]:
    """Return the content words of a text, lower case and without common endings, in order.

    >>> stems("How long are the invoices kept?")
    ('long', 'invoic', 'kept')
    """
    return tuple(_stem(word) for word in _WORD.findall(text.lower()) if word not in _STOP)


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word.removesuffix("e") if len(word) > 4 else word


_WORDS: Final = {article.id: frozenset(stems(article.text)) for article in ARTICLES}


@functools.cache
def _weight(word: str) -> float:
    holders = sum(word in words for words in _WORDS.values())
    return math.log1p(len(ARTICLES) / max(holders, 0.5))


def relevance(question: Iterable[str], words: frozenset[str]) -> float:
    """Return the share of the question's weight that ``words`` hold; 0 for a question without content words."""
    asked = set(question)
    total = math.fsum(_weight(word) for word in asked)
    return math.fsum(_weight(word) for word in asked & words) / total if total else 0.0


@functools.lru_cache(maxsize=1024)
def retrieve(question: str) -> tuple[Document, ...]:
    """Return the best documents for a question, best first; articles that share no word with it are left out.

    >>> [document.article.id for document in retrieve("How do I pair a terminal?")][0]
    'kb-125'
    """
    asked = stems(question)
    found = [Document(article, round(relevance(asked, _WORDS[article.id]), 4)) for article in ARTICLES]
    found.sort(key=lambda document: -document.score)
    return tuple(document for document in found[:DEPTH] if document.score > 0)
