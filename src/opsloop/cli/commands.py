"""The table of commands, and what happens around each: errors in one line, exit codes that mean something."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App
from cyclopts.exceptions import CycloptsError

from opsloop.cli import alert, guard, incident, limit, store
from opsloop.cli.demo import demo
from opsloop.cli.evaluate import evaluate
from opsloop.cli.exports import exports, imports
from opsloop.cli.ingest import ingest
from opsloop.cli.logs import logs
from opsloop.cli.output import EXIT_WRONG, failure
from opsloop.cli.signals import dashboard
from opsloop.errors import OpsloopError

__all__ = ["app", "run"]

app = App(
    name="opsloop",
    help="Keep an LLM service in good order: find what broke, page once, keep it fixed.",
    version=version("opsloop"),
    version_flags=["--version"],
    result_action="return_value",
)
app.command(
    "opsloop.cli.up:up",  # loads the server only when it is asked for
    name="up",
    help="Start everything on one port: OTLP/HTTP in, the API, live pages, metrics and health.",
)
app.command(demo)
app.command(ingest)
app.command(logs)
app.command(dashboard)
app.command(evaluate, name="eval")
app.command(limit.app)
app.command(alert.app)
app.command(incident.app)
app.command(guard.app)
app.command(store.app)
app.command(exports)
app.command(imports)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        code = app(list(arguments), exit_on_error=False, print_error=True)
    except CycloptsError:
        return EXIT_WRONG
    except OpsloopError as error:
        return failure(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # whoever read our output has left, as `head` does; leave quietly, without a second failure at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code if isinstance(code, int) else 0
