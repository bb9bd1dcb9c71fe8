"""OpenTelemetry's instrumentation of the OpenAI client."""

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from work import answer

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
OpenAIInstrumentor().instrument()

with provider.get_tracer("app").start_as_current_span("POST /chat", kind=trace.SpanKind.SERVER) as request:
    request.set_attributes({"http.route": "/chat", "http.response.status_code": 200})
    request.set_attributes({"tenant": "acme", "user.id": "u-1", "session.id": "s-1"})
    answer()
provider.shutdown()
