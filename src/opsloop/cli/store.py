"""``opsloop store``: what the store holds, whether it is sound, and its schema for one server or a cluster."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.text import Text

from opsloop.cli.client import connect
from opsloop.cli.options import Asking
from opsloop.cli.output import console, count, moment, show_json, table

__all__ = ["app", "check", "ddl", "store"]

app = App(name="store", help="The store: what it holds, whether it is sound, its schema for a cluster.")


@app.default
def store(*, asking: Asking | None = None) -> int:
    """Show what the store holds, how long each kind of event is kept, and what is damaged."""
    options = asking or Asking()
    with connect(options.settings(), url=options.url) as api:
        answer = api.call("/api/store")
    if options.json:
        show_json(answer)
        return 0
    screen = console()
    head = f"{count(answer['events'])} events in {answer['location']}, schema version {answer['schema_version']}"
    screen.print(Text(head, style="bold"))
    if answer["events"]:
        window = f"{moment(answer['first_ns'])} to {moment(answer['last_ns'])} UTC"
        screen.print(Text(window, style="dim"))
    rules = [(_spelled(rule["when"]), count(rule["days"])) for rule in answer["retention"]]
    screen.print(table(("kept", "days"), [*rules, ("everything else", count(answer["days_kept"]))], right=("days",)))
    _damage(answer["damaged_parts"])
    return 0


@app.command
def check(
    *,
    set_aside: Annotated[
        bool, Parameter(help="Take damaged parts out of the table, so that the rest can be read.", negative=())
    ] = False,
    asking: Asking | None = None,
) -> int:
    """Read everything that is stored and name the parts that are not what was written; exit code 1 if there are any.

    A damaged part makes every question fail that touches it, until it is set aside; its files stay.
    """
    options = asking or Asking()
    with connect(options.settings(), url=options.url) as api:
        answer = api.call("/api/store/set-aside", method="POST") if set_aside else api.call("/api/store/check")
    found = answer["damaged_parts"]
    if options.json:
        show_json(answer)
    elif found:
        _damage(found)
    else:
        print("every part is what was written")
    return 1 if found else 0


@app.command
def ddl(
    *,
    cluster: Annotated[str, Parameter(help="Name of the cluster, as its servers know it.")] = "",
    database: Annotated[str, Parameter(help="The database.")] = "opsloop",
) -> int:
    """Print the schema's statements: for one server, or with --cluster replicated and distributed over all its nodes.

    Opening clickhouse://HOST:8123/DATABASE?cluster=NAME runs the same ones; each may be run again.
    """
    from opsloop.store.ddl import schema  # noqa: PLC0415 - only this command needs it

    for statement in schema(cluster, database):
        print(f"{statement};\n")
    return 0


def _spelled(when: dict[str, Any]) -> str:
    """Return a rule's condition as people say it."""
    parts = [f"{name} {', '.join([values] if isinstance(values, str) else values)}" for name, values in when.items()]
    return " and ".join(parts)


def _damage(parts: list[dict[str, Any]]) -> None:
    for part in parts:
        print(f"{part['message']}; its files are in {part['path']}")
