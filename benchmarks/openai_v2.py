"""The instrumentation that cannot live beside its successor: installed in an environment of its own, run, and shown.

    python benchmarks/openai_v2.py

opentelemetry-instrumentation-openai-v2 2.4b0 imports a module that opentelemetry-util-genai has not had since 1.2b0,
and its successor needs 1.3b0. So it gets the OpenTelemetry of its time, in a folder that is gone afterwards. It needs a
package index; the test suite needs none, which is why this is a script.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.senders.conftest import APPS, running_senders

PACKAGES = (
    "opentelemetry-instrumentation-openai-v2==2.4b0",
    "opentelemetry-util-genai==0.4b0",
    "opentelemetry-exporter-otlp-proto-http",
    "openai==3.57.0",
    "httpx",  # it imports what current releases of openai no longer bring
)
SENDER = "opentelemetry_openai"
OPT_IN = {"OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental"}  # else it sends no content on spans
SHOWN = ("event", "model", "provider", "input_tokens", "output_tokens", "error_type", "duration_us")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = str(folder / "venv" / "bin" / "python")
        venv.create(folder / "venv", with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        apps = shutil.copytree(APPS, folder / "apps")
        application = apps / f"{SENDER}.py"
        text = application.read_text().replace("instrumentation.genai.openai", "instrumentation.openai_v2")
        application.write_text(f"import os\n\nos.environ.update({OPT_IN})\n{text}")
        with running_senders(folder, [SENDER], python=python, apps=apps) as senders:
            events = senders.events(SENDER)
    for event in events:
        texts = {key: event.attributes[key] for key in ("input", "output") if key in event.attributes}
        print({key: value for key in SHOWN if (value := getattr(event, key)) not in {None, ""}} | texts)


if __name__ == "__main__":
    main()
