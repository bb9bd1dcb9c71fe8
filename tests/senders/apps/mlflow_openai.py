"""MLflow's automatic tracing of the OpenAI client, with its own spans for agents, tools and retrievers."""

import mlflow
import mlflow.openai
from mlflow.entities import Document
from work import QUESTION, answer

mlflow.openai.autolog()


@mlflow.trace(span_type="TOOL")
def search_kb(query):
    """Search the knowledge base."""
    return f"{query}: five days"


@mlflow.trace(span_type="RETRIEVER")
def kb(question):
    """Find the documents for a question."""
    return [Document(page_content="five days", id="d1")] if question else []


@mlflow.trace(span_type="AGENT")
def support(question):
    """Answer a question."""
    span = mlflow.get_current_active_span()
    span.set_attributes({"tenant": "acme", "user.id": "u-1", "session.id": "s-1"})
    text = answer()
    search_kb("refund")
    kb(question)
    return text


support(QUESTION)
mlflow.flush_trace_async_logging()
