"""Numbers: each one in the answer stands in its passages or the question.

A poor measure of truth on its own (AUC .50-.57), but a mismatch explains itself precisely.
"""

from __future__ import annotations

import re
from typing import Final

from opsloop.online_eval.answer import Answer
from opsloop.online_eval.scorers.score import Judgement, Score, scored, unscored

__all__ = ["NUMBERS", "numbers", "numbers_in"]

_NUMBER: Final = re.compile(r"(?<![\w.,])[0-9]+(?:[.,:/-][0-9]+)*(?![0-9])")
_NOT_SAID: Final = re.compile(r"^[ \t]*[0-9]+[.)](?=\s)|\[[^\[\]\n]{1,80}\]", re.MULTILINE)
_GROUPED: Final = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_COUNTED: Final = """
    zero one two three four five six seven eight nine ten eleven twelve
"""
_NAMES: Final = {name: str(number) for number, name in enumerate(_COUNTED.split())}
_NAME: Final = re.compile(rf"\b(?:{'|'.join(_NAMES)})\b", re.IGNORECASE)


def numbers_in(text: str) -> list[str]:
    """Return the numbers and dates of a text in one spelling; list marks and citations are none.

    >>> numbers_in("1. Pay $1,500.50 within 30 days [2], by 2026-01-05.")
    ['1500.5', '30', '2026-01-05']
    """
    return [_plain(found) for found in _NUMBER.findall(_NOT_SAID.sub(" ", text))]


def numbers(answer: Answer, text: str) -> Score:
    """Score the share of the answer's numbers that were given; unscored without a number or a passage."""
    if not answer.contexts:
        return unscored("no passage was retrieved")
    said = numbers_in(text)
    if not said:
        return unscored("the answer has no number")
    given: set[str] = set()
    for source in (answer.question, *answer.contexts):
        given.update(_plain(found) for found in _NUMBER.findall(source))
        given.update(_NAMES[name.lower()] for name in _NAME.findall(source))
    invented = [number for number in said if number not in given]
    share = 1 - len(invented) / len(said)
    if invented:
        return scored(share, "invented number", f"not in the passages: {', '.join(invented[:5])}")
    return scored(share, "given", f"all of {len(said)} numbers are in the passages")


def _plain(number: str) -> str:
    if _GROUPED.fullmatch(number):
        number = number.replace(",", "")
    if "." in number and number.replace(".", "", 1).isdigit():
        number = number.rstrip("0").rstrip(".")
    return number.lstrip("0") or "0"


NUMBERS: Final = Judgement("numbers", "1", numbers)
