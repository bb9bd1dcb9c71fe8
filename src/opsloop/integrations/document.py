"""YAML as operators read it: keys in the order they were given, queries as blocks, several documents in one file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opsloop.errors import ConfigError, PayloadError

__all__ = ["read_yaml", "write_yaml"]


def write_yaml(documents: Sequence[Any], *, head: str = "") -> str:
    r"""Return documents as YAML below ``head``, whose lines become comments.

    >>> print(write_yaml([{"expr": "a\n+ b\n"}], head="generated"), end="")
    # generated
    expr: |
      a
      + b
    """
    yaml = _yaml()

    class Writer(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        """Writes texts of several lines as blocks, and nothing as an alias."""

        def ignore_aliases(self, data: object) -> bool:
            """Repeat what comes twice: an alias is hard to read and some readers refuse it."""
            del data
            return True

    Writer.add_representer(
        str, lambda writer, text: writer.represent_scalar(_TEXT, text, style="|" if "\n" in text else None)
    )
    comments = "".join(f"# {line}".rstrip() + "\n" for line in head.splitlines())
    parts = [yaml.dump(each, Dumper=Writer, sort_keys=False, width=4096, allow_unicode=True) for each in documents]
    return comments + "---\n".join(parts)


def read_yaml(text: str, *, name: str) -> list[dict[str, Any]]:
    r"""Return the mappings of a YAML file, one for each document. Raises :class:`PayloadError` naming the place.

    >>> read_yaml("a: 1\n---\nb: 2", name="two.yaml")
    [{'a': 1}, {'b': 2}]
    """
    yaml = _yaml()
    try:
        documents = [
            each
            for each in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            if each is not None
        ]
    except yaml.YAMLError as cause:
        place = " ".join(str(cause).split())
        raise PayloadError(f"{name} is not YAML: {place}", fix="mend the line it names") from cause
    for number, document in enumerate(documents, 1):
        if not isinstance(document, dict):
            kind = type(document).__name__
            raise PayloadError(f"{name}: document {number} is a {kind}, no mapping", fix="check the file")
    return documents


_TEXT = "tag:yaml.org,2002:str"


def _yaml() -> Any:
    try:
        import yaml  # noqa: PLC0415 - only who reads or writes YAML needs it
    except ImportError as cause:
        raise ConfigError("YAML needs PyYAML", fix='pip install "opsloop[cli]"') from cause
    return yaml
