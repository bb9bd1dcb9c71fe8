"""Langfuse's drop-in for the OpenAI client, with its own spans for agents, tools and retrievers."""

from langfuse import get_client, propagate_attributes
from langfuse.openai import OpenAI
from work import QUESTION, answer

langfuse = get_client()
with (
    langfuse.start_as_current_observation(name="support", as_type="agent", input=QUESTION) as agent,
    propagate_attributes(user_id="u-1", session_id="s-1", metadata={"tenant": "acme"}),
):
    agent.update(output=answer(OpenAI(max_retries=0)))
    with langfuse.start_as_current_observation(name="search_kb", as_type="tool", input={"query": "refund"}) as tool:
        tool.update(output="refund: five days")
    with langfuse.start_as_current_observation(name="kb", as_type="retriever", input=QUESTION) as retriever:
        retriever.update(output=[{"id": "d1", "content": "five days"}])
langfuse.shutdown()
