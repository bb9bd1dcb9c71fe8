"""The language of the answer is that of the question.

Told from the script, and for Latin letters from the commonest words of seven languages. Cheap and deterministic, and
honest about what it cannot tell: a text under 20 characters, a mixed one, or a Latin-script language that it does not
know leaves the answer unscored. Languages of one script other than Latin (Russian and Ukrainian) count as one.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import Final

from opsloop.online_eval.answer import Answer
from opsloop.online_eval.scorers.score import Judgement, Score, scored, unscored
from opsloop.online_eval.text import words

__all__ = ["LANGUAGE", "language", "language_of"]

MIN_CHARACTERS: Final = 20
READ_CHARACTERS: Final = 2000
"""The beginning is enough to tell."""
_SCRIPTS: Final[Mapping[str, str]] = {
    "LATIN": "Latin",
    "CYRILLIC": "Cyrillic",
    "GREEK": "Greek",
    "ARABIC": "Arabic",
    "HEBREW": "Hebrew",
    "DEVANAGARI": "Devanagari",
    "THAI": "Thai",
    "HANGUL": "Korean",
    "CJK": "Han",
    "HIRAGANA": "Japanese",
    "KATAKANA": "Japanese",
}
_COMMON: Final[Mapping[str, frozenset[str]]] = {
    name: frozenset(listed.split())
    for name, listed in {
        "English": "the and is are of to in for you your with that this it not on be have can how what when my do i",
        "German": "der die das und ist sind nicht ein eine ich sie wie zu mit auf für von den dem wir ihr kann wann",
        "French": "le la les des et est une un vous je que qui pour dans sur avec pas votre nous ne du au comment",
        "Spanish": "el la los las que es una un por para con su no del se en y cómo mi puedo usted está cuando",
        "Italian": "il la gli che è una un per con non di del della sono come mi si può quando le nel vostro",
        "Portuguese": "o os as que é uma um para com não do da em você seu sua como por se meu posso quando está",
        "Dutch": "de het een en is zijn niet van ik je uw wij met op voor dat te hoe kan naar bij wanneer mijn",
    }.items()
}


def language_of(text: str) -> str:
    """Return the language or script of a text, or an empty text when it cannot be told.

    >>> language_of("Wie kann ich die Bestellung stornieren?"), language_of("ok")
    ('German', '')
    """
    head = re.sub(r"```.*?```|https?://\S+", " ", text[:READ_CHARACTERS], flags=re.DOTALL).strip()
    if len(head) < MIN_CHARACTERS:
        return ""
    scripts = Counter(map(_script, filter(str.isalpha, head)))
    if scripts["Japanese"] and scripts["Japanese"] + scripts["Han"] > scripts.total() / 2:
        return "Japanese"
    script, count = scripts.most_common(1)[0] if scripts else ("", 0)
    if count < 0.6 * scripts.total() or not script:
        return ""
    return _latin(head) if script == "Latin" else script


def language(answer: Answer, text: str) -> Score:
    """Score 1 when question and answer are in one language, 0 when not; unscored when either cannot be told."""
    asked, said = language_of(answer.question), language_of(text)
    if not asked or not said:
        return unscored(f"the language of the {'answer' if asked else 'question'} cannot be told")
    same = asked == said
    label = "same language" if same else "other language"
    return scored(float(same), label, f"asked in {asked}, answered in {said}")


def _script(letter: str) -> str:
    return _SCRIPTS.get(unicodedata.name(letter, "").partition(" ")[0], "")


def _latin(text: str) -> str:
    """Return the language with the most common words, if it leads clearly."""
    tokens = Counter(words(text))
    hits = Counter({name: sum(tokens[word] for word in common) for name, common in _COMMON.items()})
    (best, most), (_, second) = hits.most_common(2)
    return best if most >= 2 and most > second else ""


LANGUAGE: Final = Judgement("language", "1", language)
