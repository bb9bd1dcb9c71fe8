"""What the simulated model writes: grounded answers, invented ones, refusals, and output that breaks off.

A grounded answer is made of sentences of the retrieved articles and cites them as ``[1]``, ``[2]``. An invented one
sounds the same, and neither its facts nor its numbers stand in any article. So a scorer has something real to find.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from opsloop.sim.dice import Dice
from opsloop.sim.retrieval import Document, relevance, stems

__all__ = [
    "BLOCKED",
    "REFUSAL",
    "compose_answer",
    "compose_search",
    "compose_summary",
    "invent_answer",
    "is_on_topic",
    "transcript",
    "truncate",
]

ON_TOPIC: Final = 0.4
"""The score of the best document from which the bot takes a question to be about Kestrel."""
REFUSAL: Final = "I'm sorry, I can only help with questions about Kestrel. I could not find an article about this."
_CITATION: Final = re.compile(r" \[\d+\]")
BLOCKED: Final = "I'm sorry, I cannot help with that."

_INVENTED: Final = (
    "Our Platinum Shield programme covers this automatically for {days} days under clause QX-{code}.",
    "Simply phone the concierge desk on extension {code} and quote voucher ZN-{code} before midnight.",
    "According to bulletin {year}-{days}, the regional ombudsman grants every merchant {percent} percent compensation.",
    "Our engineers quietly raised that ceiling to {code} units last spring for legacy partners.",
    "Premium loyalty badges unlock this instantly, otherwise expect roughly {days} weeks of manual paperwork.",
    "Headquarters in Reykjavik mails a sealed confirmation letter numbered {code}-{days} afterwards.",
)


def is_on_topic(documents: Sequence[Document]) -> bool:
    """Return whether the best document is near enough to the question to answer from."""
    return bool(documents) and documents[0].score >= ON_TOPIC


@functools.lru_cache(maxsize=2048)
def compose_answer(question: str, documents: tuple[Document, ...], sentences: int = 2) -> str:
    """Return ``sentences`` cited sentences of the best documents, or the refusal when none is near.

    The sentences nearest to the question are taken from the best document, in the article's order; a second document
    gives one more when it is nearly as near.
    """
    if not is_on_topic(documents):
        return REFUSAL
    asked = stems(question)
    best = documents[0].article
    ranked = sorted(best.sentences, key=lambda sentence: -relevance(asked, frozenset(stems(sentence))))
    chosen = set(ranked[:sentences])
    lines = [_cite(sentence, 1) for sentence in best.sentences if sentence in chosen]
    if len(documents) > 1 and documents[1].score >= 0.8 * documents[0].score:
        other = documents[1].article
        lines.append(_cite(max(other.sentences, key=lambda s: relevance(asked, frozenset(stems(s)))), 2))
    return " ".join(lines)


def invent_answer(documents: Sequence[Document], dice: Dice) -> str:
    """Return a fluent answer of two to three sentences that no document supports, with a citation all the same."""
    lines = dice.sample(_INVENTED, dice.choice((2, 2, 3)))
    numbers = {
        "days": dice.randint(101, 399),
        "code": dice.randint(5_100, 9_899),
        "percent": dice.randint(51, 98),
        "year": dice.randint(1987, 2019),
    }
    return " ".join(
        _cite(line.format(**numbers), 1 + index % max(1, len(documents))) for index, line in enumerate(lines)
    )


@functools.lru_cache(maxsize=1024)
def compose_search(documents: tuple[Document, ...]) -> str:
    """Return the hit list of a search: each title with its first sentence."""
    if not documents:
        return REFUSAL
    hits = (document.article for document in documents)
    return "\n".join(f"[{rank}] {hit.title}. {hit.sentences[0]}" for rank, hit in enumerate(hits, 1))


@functools.lru_cache(maxsize=1024)
def transcript(question: str, documents: tuple[Document, ...]) -> str:
    """Return the conversation that a summary is asked for."""
    told = _CITATION.sub("", compose_answer(question, documents))
    return f"Customer: {question}\nAgent: {told}\nCustomer: Thank you, that helps."


@functools.lru_cache(maxsize=1024)
def compose_summary(question: str, documents: tuple[Document, ...]) -> str:
    """Return the summary of such a conversation as a JSON object with ``topic``, ``summary`` and ``resolved``."""
    topic = documents[0].article.title if is_on_topic(documents) else "Other"
    told = _CITATION.sub("", compose_answer(question, documents, 1))
    summary = f"The customer asked: {question} The agent said: {told} The customer said thank you, that helps."
    return msgspec.json.encode({"topic": topic, "summary": summary, "resolved": True}).decode()


def truncate(text: str, share: float) -> str:
    """Return the first part of a text, cut inside a word as a token limit does; ``share`` lies in (0, 1).

    >>> truncate("The refund reaches a credit card.", 0.4)
    'The refund re'
    """
    cut = max(1, round(len(text) * share))
    while cut > 1 and not text[cut - 1 : cut + 1].isalnum():
        cut -= 1
    return text[:cut]


def _cite(sentence: str, number: int) -> str:
    return f"{sentence.removesuffix('.')} [{number}]."
