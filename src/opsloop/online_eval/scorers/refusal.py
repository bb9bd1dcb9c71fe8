"""Refusal and deflection: an answer that does not answer what was asked.

Flagged when the answer's first 250 characters refuse in so many words, or when it shares less than .3 of the
question's content words (a deflection). Passages count for the answer: "Paris." shares no word with "What is the
capital of France?", but stands in the passage. On 105 human-labelled replies the phrases alone have precision 1.00 and
recall .71, phrases or overlap .97-1.00 and .87-.92; the threshold was chosen on that data.
"""

from __future__ import annotations

import re
from typing import Final

from opsloop.online_eval.answer import Answer
from opsloop.online_eval.scorers.groundedness import overlap
from opsloop.online_eval.scorers.score import Judgement, Score, scored, unscored
from opsloop.online_eval.text import content_stems, words

__all__ = ["REFUSAL", "question_overlap", "refusal", "refusal_phrase"]

HEAD_CHARACTERS: Final = 250
ON_TOPIC: Final = 0.3
"""A smaller share of the question's words in the answer is a deflection."""
FROM_PASSAGE: Final = 0.5
"""... unless at least this share of the answer's words stands in the passages."""
_WE: Final = r"\b(?:i|we)(?:'m|'re|\s+am|\s+are)\s+(?:\w+\s+)?"
_PHRASES: Final = re.compile(
    rf"""{_WE}(?:sorry|unable|not\s+able|not\s+comfortable)\b
    | \b(?:i|we)\s+(?:cannot|can't|can\s+not|won't|will\s+not|must\s+decline)\b
    | \bas\s+an?\s+(?:ai|(?:large\s+)?language\s+model|ai\s+assistant|assistant)\b
    | \bunable\s+to\s+(?:assist|help|provide|answer)\b
    | \bagainst\s+(?:\w+\s+){{0,3}}(?:guidelines|polic(?:y|ies))\b
    | \bnot\s+(?:appropriate|permitted)\b
    | \b(?:does|do)(?:\s+not|n't)\s+(?:contain|mention|provide|include|have)\s+(?:\w+\s+){{0,4}}information\b
    | \bcontent\s+filter
    """,
    re.IGNORECASE | re.VERBOSE,
)


def refusal_phrase(text: str) -> str:
    """Return the refusing words in the beginning of a text, or an empty text.

    >>> refusal_phrase("I\u2019m sorry, that is not possible.")
    "I'm sorry"
    """
    found = _PHRASES.search(text[:HEAD_CHARACTERS].replace("\u2019", "'"))
    return " ".join(found[0].split()) if found else ""


def question_overlap(question: str, answer: str) -> float | None:
    """Return the share of the question's content words found in the answer; ``None`` when it has none.

    >>> question_overlap("When do refunds arrive?", "A refund takes five days.")
    0.5
    """
    asked = content_stems(words(question))
    said = set(content_stems(words(answer)))
    return sum(stem in said for stem in asked) / len(asked) if asked else None


def refusal(answer: Answer, text: str) -> Score:
    """Score 1 for an answer to the point, 0 for a refusal or a deflection; unscored for an empty answer."""
    if not text.strip():
        return unscored("an empty answer neither answers nor refuses")
    phrase = refusal_phrase(text)
    if phrase:
        return scored(0.0, "refusal", f"the answer begins with {phrase!r}")
    share = question_overlap(answer.question, text)
    if share is None:
        return scored(1.0, "answered", "no refusing phrase; no question to compare with")
    if share >= ON_TOPIC:
        return scored(1.0, "answered", f"{share:.2f} of the question's words are in the answer")
    support = overlap(text, answer.contexts).uni if answer.contexts else None
    if support is not None and support >= FROM_PASSAGE:
        return scored(1.0, "answered", f"{support:.2f} of the answer's words are in the passages")
    return scored(0.0, "deflection", f"only {share:.2f} of the question's words are in the answer, below {ON_TOPIC}")


REFUSAL: Final = Judgement("refusal", "1", refusal)
