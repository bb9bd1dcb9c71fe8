"""``opsloop export`` and ``opsloop import``: objectives and rules in the formats of other tools."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from opsloop.cli.options import Place
from opsloop.errors import InputError
from opsloop.integrations.alertmanager import alertmanager_config
from opsloop.integrations.grafana import grafana_dashboard
from opsloop.integrations.openslo import from_openslo, to_openslo
from opsloop.integrations.prometheus_rules import prometheus_rules
from opsloop.integrations.slo_file import to_toml
from opsloop.integrations.sloth import alert_windows, from_sloth, to_sloth

__all__ = [
    "alertmanager",
    "exports",
    "grafana",
    "import_openslo",
    "import_sloth",
    "imports",
    "openslo",
    "prometheus",
    "sloth",
]

exports = App(name="export", help="Print objectives for Prometheus, Alertmanager, Grafana, OpenSLO or Sloth.")
imports = App(name="import", help="Print the objectives of an OpenSLO or Sloth file as TOML for opsloop.toml.")


@exports.command
def prometheus(
    *,
    plain: Annotated[bool, Parameter(help="Two-window rules without the evidence guard.", negative=())] = False,
    place: Place | None = None,
) -> int:
    """Print recording rules and burn alerts, for rule_files in prometheus.yml."""
    return _print(prometheus_rules((place or Place()).settings(), evidence=not plain))


@exports.command
def alertmanager(*, place: Place | None = None) -> int:
    """Print routes, receivers and the inhibition of tickets by pages, for alertmanager.yml."""
    return _print(alertmanager_config((place or Place()).settings()))


@exports.command
def grafana(*, place: Place | None = None) -> int:
    """Print a dashboard of signals and budgets, to be imported into Grafana."""
    return _print(json.dumps(grafana_dashboard((place or Place()).settings()), indent=2) + "\n")


@exports.command
def openslo(*, place: Place | None = None) -> int:
    """Print the objectives as OpenSLO v1; the head says what is lost."""
    return _print(to_openslo((place or Place()).settings()))


@exports.command
def sloth(
    *,
    windows: Annotated[
        float | None, Parameter(help="Print the AlertWindows file of a period of this many days instead.")
    ] = None,
    place: Place | None = None,
) -> int:
    """Print the objectives as a Sloth file; the head says what is lost."""
    return _print(to_sloth((place or Place()).settings()) if windows is None else alert_windows(windows))


@imports.command(name="openslo")
def import_openslo(file: Annotated[Path, Parameter(help="OpenSLO v1 documents; - reads standard input.")], /) -> int:
    """Print [[slo]] tables; what was guessed or lost stands above each as a comment."""
    return _print(to_toml(from_openslo(_text(file), name=file.name)))


@imports.command(name="sloth")
def import_sloth(
    file: Annotated[Path, Parameter(help="A Sloth file; - reads standard input.")],
    /,
    *,
    days: Annotated[float, Parameter(help="The period, which a Sloth file does not say.")] = 30.0,
) -> int:
    """Print [[slo]] tables; what was guessed or lost stands above each as a comment."""
    return _print(to_toml(from_sloth(_text(file), name=file.name, period_days=days)))


def _print(text: str) -> int:
    sys.stdout.write(text)
    return 0


def _text(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        reason = getattr(cause, "strerror", None) or "it is not UTF-8"
        raise InputError(f"cannot read {file}: {reason}", fix="check the path") from cause
