"""The options that every command shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from opsloop.settings import Settings, load_settings

__all__ = ["Asking", "Place", "Window"]


@Parameter(name="*")
@dataclass(frozen=True)
class Place:
    """Which settings and which store."""

    config: Annotated[Path | None, Parameter(help="Settings file; opsloop.toml here if there is one.")] = None
    store: Annotated[str, Parameter(help="Folder, :memory: or clickhouse://host:8123/database.")] = ""

    def settings(self) -> Settings:
        """Return the settings with what the command line overrides."""
        settings = load_settings(self.config)
        if not self.store:
            return settings
        return msgspec.structs.replace(settings, server=msgspec.structs.replace(settings.server, store=self.store))


@Parameter(name="*")
@dataclass(frozen=True)
class Asking(Place):
    """Whom to ask, and in which form to answer."""

    url: Annotated[str, Parameter(help="A running server; found by itself when it has the store open.")] = ""
    json: Annotated[bool, Parameter(help="Answer in JSON, for machines.", negative=())] = False


@Parameter(name="*")
@dataclass(frozen=True)
class Window:
    """Which stretch of time."""

    since: Annotated[str, Parameter(name=["--from", "-f"], help="Start: 15m, 1h, 7d ago, or ISO 8601.")] = ""
    until: Annotated[str, Parameter(name=["--to", "-t"], help="End, in the same forms; now when left out.")] = ""

    def arguments(self) -> dict[str, str | None]:
        """Return the endpoint arguments of the window."""
        return {"from": self.since or None, "to": self.until or None}
