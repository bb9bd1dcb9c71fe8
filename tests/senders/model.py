"""A model service on loopback that speaks the OpenAI protocol and always answers the same."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER = "Refunds take five days."
FIRST_CHUNK_SECONDS = 0.05
USAGE = {
    "prompt_tokens": 31,
    "completion_tokens": 7,
    "total_tokens": 38,
    "prompt_tokens_details": {"cached_tokens": 12, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 0},
}
EMBEDDING_USAGE = {"prompt_tokens": 9, "total_tokens": 9}
REFUSALS = {
    "limited": (429, {"message": "Rate limit reached", "type": "requests", "param": None, "code": "rate_limit"}),
    "broken": (500, {"message": "The server had an error", "type": "server_error", "param": None, "code": None}),
}
HEAD = {"id": "chatcmpl-77", "created": 1_767_600_000, "system_fingerprint": "fp_1", "service_tier": "default"}
SERVED = "gpt-4o-2024-08-06"
TOOL_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "search_kb", "arguments": '{"query": "refund"}'},
}


def answer_of(asked):
    """Return the message and its finish reason: a tool is called once, when there is one to call."""
    called = any(message["role"] == "tool" for message in asked["messages"])
    if asked.get("tools") and not called:
        return {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}, "tool_calls"
    return {"role": "assistant", "content": ANSWER, "refusal": None}, "stop"


def completion(asked):
    """Return a whole chat completion."""
    message, reason = answer_of(asked)
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
    return {**HEAD, "object": "chat.completion", "model": SERVED, "choices": [choice], "usage": USAGE}


def chunks(asked):
    """Yield the chunks of a streamed chat completion; usage comes last when it was asked for."""
    head = {**HEAD, "object": "chat.completion.chunk", "model": SERVED}
    if asked.get("stream_options", {}).get("include_usage"):
        head["usage"] = None
    deltas = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": word}, None) for word in ANSWER.replace(" ", " |").split("|")]
    for delta, reason in [*deltas, ({}, "stop")]:
        yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}]}
    if "usage" in head:
        yield {**head, "choices": [], "usage": USAGE}


class Handler(BaseHTTPRequestHandler):
    """Answers ``/v1/chat/completions`` and ``/v1/embeddings``; a model named in REFUSALS is refused."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Say nothing."""

    def do_POST(self):
        """Answer one call."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        refusal = REFUSALS.get(asked["model"])
        if refusal:
            self._send(refusal[0], {"error": refusal[1]})
        elif self.path.endswith("/embeddings"):
            vector = [0.25, -0.5, 0.125]
            data = [{"object": "embedding", "index": 0, "embedding": vector}]
            self._send(200, {"object": "list", "model": asked["model"], "data": data, "usage": EMBEDDING_USAGE})
        elif asked.get("stream"):
            self._stream(chunks(asked))
        else:
            self._send(200, completion(asked))

    def _send(self, status, answer):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, answers):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        time.sleep(FIRST_CHUNK_SECONDS)
        for answer in answers:
            self.wfile.write(f"data: {json.dumps(answer)}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


class Model:
    """The service in a thread of this process; ``url`` is what a client takes as its base URL."""

    def __enter__(self):
        """Listen on a free port."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        return self

    def __exit__(self, *_):
        """Stop and give the port back."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
