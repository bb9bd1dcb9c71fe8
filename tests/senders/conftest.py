"""The senders, run as their documentation says, against a real server and a model service on loopback."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from opsloop.event import Event
from tests.senders.model import Model
from tests.server.conftest import Server

APPS = Path(__file__).parent / "apps"
PAGE = Path(__file__).parents[2] / "docs" / "senders.md"
TOKENS = {"OPSLOOP_INGEST_TOKEN": "may-send", "OPSLOOP_READ_TOKEN": "may-read"}


class Sender(NamedTuple):
    """One sender: its title on the page, the distribution that it comes in, and the module that has to be there."""

    title: str
    distribution: str
    module: str


SENDERS = {
    "opentelemetry_openai": Sender(
        "OpenTelemetry", "opentelemetry-instrumentation-genai-openai", "opentelemetry.instrumentation.genai.openai"
    ),
    "openinference_openai": Sender(
        "OpenInference", "openinference-instrumentation-openai", "openinference.instrumentation.openai"
    ),
    "traceloop_openai": Sender(
        "Traceloop", "opentelemetry-instrumentation-openai", "opentelemetry.instrumentation.openai"
    ),
    "logfire_openai": Sender("Logfire", "logfire", "logfire"),
    "pydantic_agent": Sender("pydantic-ai", "pydantic-ai-slim", "pydantic_ai"),
    "langfuse_openai": Sender("Langfuse", "langfuse", "langfuse"),
    "mlflow_openai": Sender("MLflow", "mlflow-tracing", "mlflow"),
}
"""The senders by the application that stands for each in ``apps``."""
SETTINGS = re.compile(r"^<!-- (\w+) -->\n+```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def is_installed(sender: str) -> bool:
    """Tell whether a sender is there, without importing it."""
    try:
        return importlib.util.find_spec(SENDERS[sender].module) is not None
    except ModuleNotFoundError:
        return False


def settings_of(page: str, *, url: str) -> dict[str, dict[str, str]]:
    """Return each sender's environment as the page gives it, for a server at another address with a token."""
    found: dict[str, dict[str, str]] = {}
    here = page.replace("http://127.0.0.1:4318", url).replace("$OPSLOOP_INGEST_TOKEN", TOKENS["OPSLOOP_INGEST_TOKEN"])
    for sender, text in SETTINGS.findall(here):
        found[sender] = dict(line.removeprefix("export ").replace('"', "").split("=", 1) for line in text.splitlines())
    return found


class Senders:
    """Runs applications, two at a time since each is a process, and finds what the server made of what they sent."""

    def __init__(
        self,
        server: Server,
        model: Model,
        folder: Path,
        wanted: Iterable[str],
        *,
        python: str = sys.executable,
        apps: Path = APPS,
    ):
        self._server = server
        self._python = python
        self._apps = apps
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "OPENAI_BASE_URL": model.url,
            "OPENAI_API_KEY": "not-a-key",
            "DO_NOT_TRACK": "true",
            "HTTP_PROXY": "http://127.0.0.1:9",  # whoever calls anything beyond loopback fails at once
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "127.0.0.1",
        }
        self._folder = folder
        self._settings = settings_of(PAGE.read_text(encoding="utf-8"), url=server.url)
        self._pool = ThreadPoolExecutor(2)
        self._runs = {sender: self._pool.submit(self._run, sender) for sender in wanted}

    def _run(self, sender: str) -> subprocess.CompletedProcess[str]:
        environ = {**self._environ, **self._settings[sender], "OTEL_SERVICE_NAME": sender}
        command = [self._python, str(self._apps / f"{sender}.py")]
        return subprocess.run(
            command, env=environ, cwd=self._folder, capture_output=True, text=True, timeout=200, check=False
        )

    def events(self, sender: str) -> list[Event]:
        """Return what a sender's application left, in order of time."""
        if sender not in self._runs:
            pytest.skip(f"{SENDERS[sender].distribution} is not installed; see the dependency group senders")
        done = self._runs[sender].result()
        assert done.returncode == 0, done.stderr
        headers = {"Authorization": f"Bearer {TOKENS['OPSLOOP_READ_TOKEN']}"}
        page = self._server.ask(f"/api/logs?q=service:{sender}&limit=1000", headers=headers)
        return sorted(msgspec.convert(page["events"], list[Event]), key=lambda event: event.ts_ns)

    def stories(self) -> dict[str, tuple[str, list[Event]]]:
        """Return the release and the events of every sender, by its title."""
        events = {sender: self.events(sender) for sender in SENDERS}
        return {one.title: (version(one.distribution), events[sender]) for sender, one in SENDERS.items()}

    def close(self) -> None:
        """Wait for what still runs."""
        self._pool.shutdown()


@contextmanager
def running_senders(folder: Path, wanted: Iterable[str], **options: Any) -> Iterator[Senders]:
    """Start a server, a model service and the applications of senders."""
    server = Server(folder, environ=TOKENS).start()
    try:
        with Model() as model:
            senders = Senders(server, model, folder, wanted, **options)
            yield senders
            senders.close()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def senders(request, tmp_path_factory):
    """The applications that this module's tests ask for, all under way."""
    names = [item.name for item in request.session.items if item.module is request.module]
    asked = [sender for sender in SENDERS if any(sender in name or "[" not in name for name in names)]
    wanted = [sender for sender in asked if is_installed(sender)]
    with running_senders(tmp_path_factory.mktemp("senders"), wanted) as senders:
        yield senders
