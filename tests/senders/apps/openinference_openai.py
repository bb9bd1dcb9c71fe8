"""OpenInference's instrumentation of the OpenAI client, with its own spans for agents, tools and retrievers."""

from openinference.instrumentation import TracerProvider, using_attributes
from openinference.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from work import QUESTION, answer

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
OpenAIInstrumentor().instrument(tracer_provider=provider)
tracer = provider.get_tracer("app")


@tracer.tool
def search_kb(query):
    """Search the knowledge base."""
    return f"{query}: five days"


@tracer.agent
def support(question):
    """Answer a question."""
    text = answer()
    search_kb("refund")
    with tracer.start_as_current_span("kb", openinference_span_kind="retriever") as retrieval:
        retrieval.set_input(question)
        retrieval.set_attribute("retrieval.documents.0.document.id", "d1")
        retrieval.set_attribute("retrieval.documents.0.document.content", "five days")
    return text


with using_attributes(session_id="s-1", user_id="u-1", metadata={"tenant": "acme"}):
    support(QUESTION)
provider.shutdown()
