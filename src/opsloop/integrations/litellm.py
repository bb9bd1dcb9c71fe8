"""Our limits in front of a LiteLLM proxy, as one of its callbacks.

In a module beside the proxy's configuration::

    limits = litellm_callback(Limiter(policy, sink=sink))  # litellm_settings: callbacks: limits_module.limits

Before a call it admits on every limit or on none and keeps the slot alive; after it, it settles with the usage that the
provider told, once. A stream that the client leaves settles with the chunks that came through. A retry or fallback
inside the proxy is the same request: only its final end is one.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from typing import Any, Final

from opsloop.rate_limit import Amounts, Context, Decision, Limiter, limit_headers
from opsloop.rate_limit.answer import usage_of, written_in
from opsloop.rate_limit.estimate import Estimator, estimate_of
from opsloop.rate_limit.metered import Metered
from opsloop.rate_limit.waiting import Waiting

__all__ = ["LiteLLMHooks", "key_context", "litellm_callback"]

METADATA_KEY: Final = "opsloop_reservation"
MOST_OPEN: Final = 100_000


def key_context(user_api_key_dict: Any, data: Mapping[str, Any]) -> Context:
    """Return who asks: organisation, team (else user) as the tenant, the key by its alias or hash, and the model."""

    def told(name: str) -> str:
        return str(getattr(user_api_key_dict, name, None) or "")

    key = told("key_alias") or told("token") or told("api_key")
    if key.startswith("sk-"):  # never the secret itself
        key = hashlib.sha256(key.encode()).hexdigest()[:16]
    return Context(
        organisation=told("org_id"),
        tenant=told("team_id") or told("user_id"),
        key=key,
        model=str(data.get("model") or ""),
        request_id=str(data.get("litellm_call_id") or ""),
    )


def litellm_callback(limiter: Limiter, **options: Any) -> Any:
    """Return the callback for a proxy: :class:`LiteLLMHooks` as one of LiteLLM's own loggers, where it is installed."""
    try:
        from litellm.integrations.custom_logger import CustomLogger  # noqa: PLC0415 - an extra
    except ImportError:
        return LiteLLMHooks(limiter, **options)
    return type("OpsloopLimits", (LiteLLMHooks, CustomLogger), {})(limiter, **options)


class LiteLLMHooks:
    """The hooks of LiteLLM's ``CustomLogger`` that a limiter needs, by their names and signatures there."""

    def __init__(
        self,
        limiter: Limiter,
        *,
        context: Callable[[Any, Mapping[str, Any]], Context] = key_context,
        estimator: Estimator | None = None,
        count_tokens: Callable[[str], int] | None = None,
        wait_seconds: float = 0.0,
    ) -> None:
        """Limit by ``limiter``; ``estimator`` learns from every answer and tightens the estimates."""
        super().__init__()
        self._waiting = Waiting(limiter)
        self._limiter = limiter
        self._context = context
        self._estimator = estimator or Estimator()
        self._count_tokens = count_tokens
        self._wait_seconds = wait_seconds
        self._open: dict[str, Metered] = {}

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: MutableMapping[str, Any], call_type: str
    ) -> MutableMapping[str, Any]:
        """Admit, or raise the ``HTTPException`` that the proxy answers with."""
        del cache, call_type
        who = self._context(user_api_key_dict, data)
        estimate = self._estimate(who, data)
        decision = await self._waiting.admit_async(who, estimate, wait_seconds=self._wait_seconds)
        if not decision.allowed:
            raise _refused(decision)
        # Where both are there, "metadata" is the client's own and goes on to the provider.
        name = "litellm_metadata" if isinstance(data.get("litellm_metadata"), Mapping) else "metadata"
        kept = dict(data.get(name) or {})
        kept[METADATA_KEY] = decision.reservation  # always ours, whatever the client sent under that name
        data[name] = kept
        if decision.reservation:
            self._limiter.keep_alive(decision)
            self._open[decision.reservation] = Metered(self._limiter, decision, estimator=self._estimator)
            while len(self._open) > MOST_OPEN:  # a proxy that forgets its ends does not fill our memory
                self._open.pop(next(iter(self._open)))
        return data

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: AsyncIterator[Any], request_data: Mapping[str, Any]
    ) -> AsyncIterator[Any]:
        """Count a stream as it passes; one that is left or breaks settles with what came through."""
        del user_api_key_dict
        reservation = _reservation(request_data)
        answer, ended = self._open.get(reservation), False
        try:
            async for chunk in response:
                if answer is not None:
                    answer.add(written_in(chunk))
                    answer.tell(usage_of(chunk))
                yield chunk
            ended = True
        finally:
            if not ended:  # one that ends is settled by its success event, which has the provider's count
                self._end(reservation, completed=False)

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Settle with the usage of a complete answer."""
        del start_time, end_time
        self._end(_reservation(kwargs.get("litellm_params") or {}), usage=usage_of(response_obj), completed=True)

    async def async_post_call_failure_hook(
        self, request_data: Any, original_exception: Exception, user_api_key_dict: Any, traceback_str: Any = None
    ) -> None:
        """Settle a request that failed for good with what was counted of it."""
        del original_exception, user_api_key_dict, traceback_str
        self._end(_reservation(request_data), completed=False)

    def _estimate(self, who: Context, data: Mapping[str, Any]) -> Amounts:
        found = estimate_of(data, count_tokens=self._count_tokens)
        return self._estimator.estimate(found, model=who.model, route=who.route)

    def _end(self, reservation: str, *, usage: Mapping[str, Any] | None = None, completed: bool) -> None:
        answer = self._open.pop(reservation, None)
        if answer is None:
            return
        answer.tell(usage or {})
        if completed and not usage:
            self._limiter.release(reservation)  # a complete answer that nobody counted: its estimate stands
        else:
            answer.close(completed=completed)


def _refused(decision: Decision) -> Exception:
    from starlette.exceptions import HTTPException  # noqa: PLC0415 - what the proxy's framework is built on

    headers = dict(limit_headers(decision, dialects=("ietf", "openai")))
    refused: Exception = HTTPException(decision.status_code, decision.reason, headers)
    return refused


def _reservation(data: Mapping[str, Any]) -> str:
    for name in ("litellm_metadata", "metadata"):
        metadata = data.get(name)
        if isinstance(metadata, Mapping) and metadata.get(METADATA_KEY):
            return str(metadata[METADATA_KEY])
    return ""
