"""Run every sender and write the tables of docs/senders.md anew: ``python -m tests.senders.write_page``."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from tests.senders.conftest import PAGE, SENDERS, running_senders
from tests.senders.fields import column_table, field_table


def main() -> None:
    """Write the tables."""
    page = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, running_senders(Path(folder), SENDERS) as senders:
        stories = senders.stories()
    page = re.sub(
        r"^\| \| OpenTelemetry.*?\n\n",
        lambda _: f"{column_table(stories)}\n\n",
        page,
        count=1,
        flags=re.MULTILINE | re.DOTALL,
    )
    for title, (_, events) in stories.items():
        head, mark, rest = page.partition(f"\n## {title}\n")
        section, after, tail = rest.partition("\n## ")
        text = section[: section.index("| field |")]
        page = f"{head}{mark}{text}{field_table(events)}\n{after}{tail}"
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
