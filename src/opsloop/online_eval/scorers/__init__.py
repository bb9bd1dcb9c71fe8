"""The scorers: one file each, all free, offline, deterministic, and without a reference answer.

==============  =======================================================================
``groundedness``  how much of the answer's wording stands in the retrieved passages
``refusal``       whether it answers what was asked, or refuses, or deflects
``citation``      whether the sources that it cites exist and carry the citing sentence
``repetition``    whether it loops
``length``        whether it is empty, a placeholder or cut off
``schema``        whether it is valid JSON
``language``      whether it is in the question's language
``leakage``       whether it gives away personal data, secrets or the system prompt
``numbers``       whether its numbers were given
==============  =======================================================================

Every score lies in [0, 1], and 1 is good. What cannot be judged is ``unscored``: a status, never a zero.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from opsloop.errors import ConfigError
from opsloop.online_eval.scorers.citation import CITATION
from opsloop.online_eval.scorers.groundedness import GROUNDEDNESS
from opsloop.online_eval.scorers.language import LANGUAGE
from opsloop.online_eval.scorers.leakage import LEAKAGE
from opsloop.online_eval.scorers.length import LENGTH
from opsloop.online_eval.scorers.numeric import NUMBERS
from opsloop.online_eval.scorers.refusal import REFUSAL
from opsloop.online_eval.scorers.repetition import REPETITION
from opsloop.online_eval.scorers.schema import SCHEMA, json_shape
from opsloop.online_eval.scorers.score import Judgement, Score, Scorer, scored, unscored

__all__ = ["SCORERS", "Judgement", "Score", "Scorer", "json_shape", "scored", "scorers_named", "unscored"]

_ALL: Final = (GROUNDEDNESS, REFUSAL, CITATION, REPETITION, LENGTH, SCHEMA, LANGUAGE, LEAKAGE, NUMBERS)
SCORERS: Final[Mapping[str, Scorer]] = MappingProxyType({scorer.name: scorer for scorer in _ALL})
"""Every scorer by the name that the settings use."""


def scorers_named(names: Iterable[str]) -> tuple[Scorer, ...]:
    """Return the scorers of these names, in order, each once. Raises :class:`ConfigError` for an unknown one.

    >>> [scorer.name for scorer in scorers_named(["refusal", "length"])]
    ['refusal', 'length']
    """
    found: dict[str, Scorer] = {}
    for name in names:
        if name not in SCORERS:
            near = difflib.get_close_matches(name, SCORERS, n=1)
            fix = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(SCORERS)}"
            raise ConfigError(f"there is no scorer {name!r}", fix=fix)
        found[name] = SCORERS[name]
    return tuple(found.values())
