"""A pydantic-ai agent with a tool, an embedding, and two runs that the model refuses."""

import asyncio
import contextlib

from openai import AsyncOpenAI
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from pydantic_ai import Agent, Embedder
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from work import QUESTION

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
Agent.instrument_all()
Embedder.instrument_all()

models = OpenAIProvider(openai_client=AsyncOpenAI(max_retries=0))
agent = Agent(OpenAIChatModel("gpt-4o", provider=models), name="support", instructions="Answer from the base.")
embedder = Embedder(OpenAIEmbeddingModel("text-embedding-3-small", provider=models))


@agent.tool_plain
def search_kb(query: str) -> str:
    """Search the knowledge base."""
    return f"{query}: five days"


async def main() -> None:
    """Run the agent once whole, once streamed and twice in vain."""
    await agent.run(QUESTION, conversation_id="s-1")
    async with agent.run_stream(QUESTION, conversation_id="s-2") as run:
        await run.get_output()
    await embedder.embed_query("refund policy")
    for refused in ("limited", "broken"):
        with contextlib.suppress(ModelHTTPError):
            await agent.run(QUESTION, model=OpenAIChatModel(refused, provider=models))


asyncio.run(main())
provider.shutdown()
