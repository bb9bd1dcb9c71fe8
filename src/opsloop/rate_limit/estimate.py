"""How much a request will take: read from its body, learned from what was settled, and read from its answer.

An estimate that is too low lets everybody through at once, one that is too high turns good requests away. So:

* **The body bounds the output.** The most that any of its max-token fields allows, times the choices it asks for: a
  ``max_tokens`` of 1 beside a ``max_completion_tokens`` of 10000 reserves 10000.
* **Experience tightens it.** Per model and route the 90th percentile (nearest rank) of the last 200 actual outputs, as
  soon as there are 20; per model over all routes until then; the body's bound until then. Never above that bound.
* **The input is counted**, by a counter of yours or as one token for every 4 bytes of text.
"""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeGuard

from opsloop.event import Event
from opsloop.rate_limit.context import Amounts
from opsloop.rate_limit.decision import Receipt

__all__ = ["Estimator", "actual_of", "estimate_of"]

BYTES_PER_TOKEN: Final = 4
"""English text in byte-pair vocabularies; other scripts take more bytes per sign, and about as many per token."""
MESSAGE_TOKENS: Final = 4
"""What the frame of one chat message takes."""
MAX_FIELDS: Final = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "max_tokens_to_sample",
)
TEXT_FIELDS: Final = ("messages", "system", "prompt", "input", "instructions", "tools", "functions")
WINDOW: Final = 200
ENOUGH: Final = 20
MOST_SERIES: Final = 1000


def estimate_of(body: Mapping[str, Any], *, count_tokens: Callable[[str], int] | None = None) -> dict[str, int]:
    """Return what an OpenAI or Anthropic request body may take: ``input_tokens``, and ``output_tokens`` where bounded.

    ``count_tokens`` counts one text; without it 4 bytes are one token. Images and sounds are not counted.

    >>> estimate_of({"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 1, "max_completion_tokens": 300})
    {'input_tokens': 5, 'output_tokens': 300}
    """
    count = count_tokens or (lambda text: -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN))
    messages = body.get("messages")
    frames = MESSAGE_TOKENS * len(messages) if isinstance(messages, list) else 0
    found = {"input_tokens": frames + sum(count(text) for name in TEXT_FIELDS for text in _texts(body.get(name)))}
    bounds = [value for value in map(body.get, MAX_FIELDS) if _is_count(value)]
    if bounds:
        choices = max([1, *(value for value in map(body.get, ("n", "best_of")) if _is_count(value))])
        found["output_tokens"] = max(bounds) * choices
    return found


def actual_of(usage: Mapping[str, Any]) -> dict[str, int]:
    """Return the tokens that a provider's ``usage`` tells, cached ones included; what it does not tell is left out.

    OpenAI counts cached input among ``prompt_tokens`` (``input_tokens`` in its newer API); Anthropic tells it apart.

    >>> actual_of({"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 7})
    {'input_tokens': 100, 'output_tokens': 7}
    >>> actual_of({"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17})
    {'input_tokens': 12, 'output_tokens': 5}
    """
    found = {}
    for unit, names in (("input_tokens", ("input_tokens", "prompt_tokens")), ("output_tokens", _OUTPUT_NAMES)):
        told = next((usage[name] for name in names if _is_count(usage.get(name))), None)
        if told is not None:
            found[unit] = told
    if "input_tokens" in found:
        cached = ("cache_read_input_tokens", "cache_creation_input_tokens")
        found["input_tokens"] += sum(usage[name] for name in cached if _is_count(usage.get(name)))
    return found


_OUTPUT_NAMES: Final = ("output_tokens", "completion_tokens")


class Estimator:
    """Learns how long answers are. Safe between threads.

    >>> learned = Estimator()
    >>> for tokens in range(1, 101):
    ...     learned.observe(tokens, model="gpt", route="/chat")
    >>> learned.estimate({"input_tokens": 9, "output_tokens": 4000}, model="gpt", route="/chat")
    {'input_tokens': 9, 'output_tokens': 90}
    """

    def __init__(self, *, quantile: float = 0.9, window: int = WINDOW, enough: int = ENOUGH) -> None:
        """Estimate by the ``quantile`` of the last ``window`` actual outputs, once there are ``enough``."""
        if not 0 < quantile <= 1:
            raise ValueError(f"quantile is {quantile}, and lies between 0 and 1")
        self._quantile = quantile
        self._window = window
        self._enough = enough
        self._lock = threading.Lock()
        self._series: OrderedDict[tuple[str, str | None], _Series] = OrderedDict()

    def observe(self, output_tokens: int, *, model: str, route: str = "") -> None:
        """Remember how long one answer was."""
        with self._lock:
            for key in ((model, route), (model, None)):
                series = self._series.pop(key, None) or _Series()
                series.add(output_tokens, self._window)
                self._series[key] = series  # the least recently fed is in front
            while len(self._series) > MOST_SERIES:
                self._series.popitem(last=False)

    def learn(self, source: Receipt | Iterable[Event]) -> int:
        """Remember what was settled: a receipt, or recorded ``limit`` events; return how many answers that were."""
        if isinstance(source, Receipt):
            if source.request is None or source.status != "settled":
                return 0
            context = source.request.context
            return self._learn(source.actual, context.model, context.route)
        settled = (event for event in source if event.event == "limit" and event.attributes.get("phase") == "settle")
        return sum(self._learn(event.attributes.get("actual"), event.model, event.route) for event in settled)

    def expected(self, *, model: str, route: str = "") -> int | None:
        """Return the learned output tokens, or ``None`` when too few answers were seen."""
        with self._lock:
            for key in ((model, route), (model, None)):
                series = self._series.get(key)
                if series is not None and len(series.ordered) >= self._enough:
                    return series.at(self._quantile)
        return None

    def estimate(self, bound: Amounts, *, model: str, route: str = "") -> dict[str, int]:
        """Return the estimate of a body with its output replaced by the learned one, where that is less."""
        found = dict(bound)
        expected = self.expected(model=model, route=route)
        if expected is not None:
            found["output_tokens"] = min(expected, bound.get("output_tokens", expected))
        return found

    def _learn(self, actual: object, model: str, route: str) -> int:
        tokens = actual.get("output_tokens") if isinstance(actual, Mapping) else None
        if not _is_count(tokens):
            return 0
        self.observe(tokens, model=model, route=route)
        return 1


class _Series:
    """The last outputs, in the order they came and in order of size."""

    def __init__(self) -> None:
        self.ordered: list[int] = []
        self._recent: deque[int] = deque()

    def add(self, tokens: int, window: int) -> None:
        self._recent.append(tokens)
        bisect.insort(self.ordered, tokens)
        if len(self._recent) > window:
            self.ordered.pop(bisect.bisect_left(self.ordered, self._recent.popleft()))

    def at(self, quantile: float) -> int:
        """Return the nearest-rank quantile: the smallest value that at least this share does not exceed."""
        rank = -(-round(quantile * 10_000) * len(self.ordered) // 10_000)
        return self.ordered[max(1, rank) - 1]


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _texts(value: object) -> Iterable[str]:
    """Yield every text in a part of a body but the data of images and sounds."""
    if isinstance(value, str):
        if not value.startswith("data:"):
            yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            if name not in {"role", "type", "source", "image_url", "input_audio", "id", "cache_control"}:
                yield from _texts(part)
