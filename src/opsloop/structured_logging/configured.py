"""What the settings say of the ready logger: loaded when that one is first used."""

from __future__ import annotations

import sys

from opsloop.errors import ConfigError
from opsloop.settings import LogSettings, environment, load_settings
from opsloop.stream import Sink
from opsloop.structured_logging.buffered import BufferedSink
from opsloop.structured_logging.sinks import JsonLinesSink, Tee

__all__ = ["configured"]


def configured() -> tuple[LogSettings, Sink, str]:
    """Return the settings, where they say to write, and what is wrong with them: then they are the defaults."""
    try:
        settings = load_settings().log
        return settings, _sink(settings), ""
    except (ConfigError, OSError) as cause:
        settings = LogSettings()
        return settings, _sink(settings), str(cause)


def _sink(settings: LogSettings) -> Sink:
    """Return standard output, and behind a buffer the server too when the settings name one."""
    lines = JsonLinesSink(sys.stdout)
    if not settings.export_url:
        return lines
    from opsloop.structured_logging.exporter import Exporter  # noqa: PLC0415 - most send nothing: HTTP takes a while
    from opsloop.structured_logging.spool import Spool  # noqa: PLC0415

    spool = Spool(settings.export_spool) if settings.export_spool else None
    variables = environment()
    token = variables.get("OPSLOOP_INGEST_TOKEN") or variables.get("OPSLOOP_TOKEN") or ""
    return BufferedSink(Tee(lines, Exporter(settings.export_url, token=token, spool=spool)))
