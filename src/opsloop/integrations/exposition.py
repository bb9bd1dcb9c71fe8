"""The Prometheus text format and OpenMetrics: families of samples, written either way.

Formats: Prometheus "Exposition formats" 0.0.4; OpenMetrics 1.0.0, which adds exemplars and ends with ``# EOF``. A
number is written in one way in both (``le="1.0"``), or the same bucket would be two series.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from opsloop.clock import NANOSECONDS

__all__ = ["OPEN_METRICS", "TEXT", "Exemplar", "Family", "Sample", "render"]

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

MOST_EXEMPLAR: Final = 128
"""OpenMetrics allows an exemplar this many characters of labels, names and values together."""


class Exemplar(msgspec.Struct, frozen=True):
    """One request that a number counts."""

    labels: dict[str, str]
    value: float
    ts_ns: int


class Sample(msgspec.Struct, frozen=True):
    """One number; ``suffix`` is what follows the family's name, such as ``_bucket``."""

    value: float
    labels: dict[str, str] = {}
    suffix: str = ""
    exemplar: Exemplar | None = None


class Family(msgspec.Struct, frozen=True):
    """All samples of one name. A counter's name has no ``_total``: its samples get it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: tuple[Sample, ...]


def render(families: Iterable[Family], *, openmetrics: bool = False) -> str:
    """Return the families as text; exemplars are written in OpenMetrics only. A family without samples is left out.

    >>> print(render([Family("up", "gauge", "Whether it is up.", (Sample(1, {"service": "bot"}),))]), end="")
    # HELP up Whether it is up.
    # TYPE up gauge
    up{service="bot"} 1
    """
    lines = []
    for family in families:
        if not family.samples:
            continue
        total = "_total" if family.kind == "counter" else ""
        name = family.name if openmetrics else family.name + total
        lines += [f"# HELP {name} {_escaped(family.help)}", f"# TYPE {name} {family.kind}"]
        for sample in family.samples:
            line = f"{family.name}{sample.suffix or total}{_labels(sample.labels)} {_number(sample.value)}"
            lines.append(line + (_exemplar(sample.exemplar) if openmetrics else ""))
    if openmetrics:
        lines.append("# EOF")
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_escaped(value).replace(chr(34), chr(92) + chr(34))}"' for name, value in labels.items())
    return f"{{{','.join(pairs)}}}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)


def _exemplar(exemplar: Exemplar | None) -> str:
    if exemplar is None or sum(len(name) + len(value) for name, value in exemplar.labels.items()) > MOST_EXEMPLAR:
        return ""
    seconds, rest = divmod(exemplar.ts_ns, NANOSECONDS)
    return f" # {_labels(exemplar.labels)} {_number(exemplar.value)} {seconds}.{rest // 1_000_000:03d}"
