"""What every application does with the plain OpenAI client: six calls, two of them refused."""

from __future__ import annotations

import contextlib

import openai

QUESTION = "How long do refunds take?"
MESSAGES = [{"role": "system", "content": "Answer from the knowledge base."}, {"role": "user", "content": QUESTION}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "search_kb",
            "description": "Search the knowledge base",
            "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
        },
    }
]


def answer(client: openai.OpenAI | None = None) -> str:
    """Make the six calls; return the streamed answer."""
    client = client or openai.OpenAI(max_retries=0)
    chat = client.chat.completions.create
    chat(model="gpt-4o", messages=MESSAGES, temperature=0.5)
    stream = chat(model="gpt-4o", messages=MESSAGES, stream=True, stream_options={"include_usage": True})
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    chat(model="gpt-4o", messages=MESSAGES, tools=TOOLS)
    client.embeddings.create(model="text-embedding-3-small", input="refund policy")
    for refused in ("limited", "broken"):
        with contextlib.suppress(openai.APIStatusError):
            chat(model=refused, messages=MESSAGES)
    return text
