"""Logfire's instrumentation of the OpenAI client, sending to another backend than its own."""

import logfire
from work import answer

logfire.configure(send_to_logfire=False, console=False)
logfire.instrument_openai()

with logfire.span(
    "answer {topic}", topic="refunds", tenant="acme", **{"user.id": "u-1", "gen_ai.conversation.id": "s-1"}
):
    answer()
    logfire.warn("index {index} is stale", index="kb-7")
logfire.shutdown()
