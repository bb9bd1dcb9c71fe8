"""Citations exist, and carry the sentence that cites them.

A citation is ``[2]`` (the second passage), ``[1, 3]``, or ``[id]`` with a retrieved document's id. A bracket with
letters only, such as ``[sic]``, is none unless such a document was retrieved; nor is a Markdown link.
"""

from __future__ import annotations

import re
from typing import Final

from opsloop.online_eval.answer import Answer
from opsloop.online_eval.scorers.score import Judgement, Score, scored, unscored
from opsloop.online_eval.text import content_stems, sentences, words

__all__ = ["CITATION", "citation", "cited_names"]

CARRIED: Final = 0.3
"""A passage carries a sentence when it has at least this share of the sentence's content words."""
_BRACKET: Final = re.compile(r"\[([^\[\]\n]{1,80})\](?!\()")
_LIKE_AN_ID: Final = re.compile(r"(?=[^\s]*[0-9])[\w.:/#-]+")


def cited_names(text: str, known: frozenset[str] = frozenset()) -> list[str]:
    """Return what a text cites, in order: numbers, known ids, and what looks like an id.

    >>> cited_names("See [1, 2] and [doc-7], not [sic] or [here](https://example.com).")
    ['1', '2', 'doc-7']
    """
    names = []
    for bracket in _BRACKET.findall(text):
        inner = bracket.strip()
        parts = [inner] if inner in known else [part.strip() for part in re.split("[,;]", inner)]
        names += [part for part in parts if part in known or _LIKE_AN_ID.fullmatch(part)]
    return names


def citation(answer: Answer, text: str) -> Score:
    """Score the share of citations that exist and carry their sentence; unscored without a citation."""
    passages = {document.id: document.content for document in answer.documents if document.id}
    numbered = [document.content for document in answer.documents] or list(answer.contexts)
    passages = {str(number): content for number, content in enumerate(numbered, 1)} | passages
    known = frozenset(passages)
    total, missing, foreign, uncited = 0, [], [], 0
    parts = sentences(_joined(text))
    for sentence in parts:
        names = cited_names(sentence.text, known)
        uncited += not names
        total += len(names)
        stems = content_stems(words(_BRACKET.sub(" ", sentence.text)))
        missing += [name for name in names if name not in known]
        foreign += [name for name in names if name in known and not _carries(passages[name], stems)]
    if not total:
        return unscored("the answer cites nothing")
    good = total - len(missing) - len(foreign)
    faults = [f"{', '.join(missing)} not retrieved"] if missing else []
    faults += [f"{', '.join(foreign)} without the sentence's words"] if foreign else []
    explanation = f"{good} of {total} citations hold; {uncited} of {len(parts)} sentences cite nothing"
    return scored(good / total, "cited" if good == total else "miscited", "; ".join([explanation, *faults]))


def _joined(text: str) -> str:
    """Put a citation that follows the full stop back in front of it: ``So it is. [1]`` cites for ``So it is``."""
    return re.sub(r"([.!?])((?:[ \t]*\[[^\[\]\n]{1,80}\](?!\())+)", r"\2\1", text)


def _carries(passage: str, stems: list[str]) -> bool:
    """Tell whether a passage holds enough of a sentence; one whose text was not recorded is believed."""
    if not passage or not stems:
        return True
    found = set(content_stems(words(passage)))
    return sum(stem in found for stem in stems) / len(stems) >= CARRIED


CITATION: Final = Judgement("citation", "1", citation)
