"""The pytest plugin: every ``*.guard.yaml`` that pytest is pointed at is one test.

``pytest guards/`` runs the guards' self-tests; ``--guard-mode`` and ``--guard-target`` run them against the
application. A test is known by its guard's id, repeats stay inside it, and the verdict's numbers land in JUnit as
properties. A failure is a confirmed regression; what could not be evaluated is an error in the set-up. Nothing is
printed, and nothing is read, unless guards are collected.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from opsloop.errors import ConfigError

if TYPE_CHECKING:
    from opsloop.improvement.gate import GuardResult
    from opsloop.improvement.guard import Guard

__all__ = ["GuardItem", "GuardModule", "pytest_addoption", "pytest_collect_file"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that guards take."""
    group = parser.getgroup("opsloop", "opsloop guards")
    group.addoption(
        "--guard-mode",
        choices=("selftest", "frozen", "live"),
        default="selftest",
        help="how *.guard.yaml files are run",
    )
    group.addoption("--guard-target", default="", help="the application, as module:function, for frozen and live")
    group.addoption(
        "--guard-strict", action="store_true", help="count a live run that cannot decide as an error, not as skipped"
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a guard file."""
    if file_path.name.endswith(".guard.yaml"):
        module: GuardModule = GuardModule.from_parent(parent, path=file_path)
        return module
    return None


class GuardModule(pytest.File):
    """One guard file."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield its one test; a wrong file is a collection error with the line."""
        from opsloop.improvement.guard import read_guard  # noqa: PLC0415 - nothing is loaded before a guard is met

        try:
            guard = read_guard(self.path)
        except ConfigError as cause:
            raise self.CollectError(str(cause)) from cause
        yield GuardItem.from_parent(self, name=guard.id, guard=guard)


class GuardItem(pytest.Item):
    """One guard."""

    def __init__(self, *, guard: Guard, **kwargs: Any) -> None:
        """Keep the guard, and let ``-k`` find it by its problem and fingerprint."""
        super().__init__(**kwargs)
        self.guard = guard
        self.result: GuardResult | None = None
        self.extra_keyword_matches.update(filter(None, (guard.problem, guard.provenance.fingerprint)))

    def setup(self) -> None:
        """Run the guard: what cannot be evaluated is an error here, and not a failure."""
        from opsloop.improvement.gate import load_target, run_guard  # noqa: PLC0415 - as above

        named = self.config.getoption("--guard-target")
        try:
            target = load_target(named) if named else None
            result = run_guard(self.guard, mode=self.config.getoption("--guard-mode"), target=target)
        except ConfigError as cause:
            self._fail(str(cause))
        for name in ("verdict", "mode", "n", "passes", "fingerprint"):
            self.user_properties.append((name, str(getattr(result, name))))
        self.result = result
        strict = self.config.getoption("--guard-strict")
        if result.verdict == "error" or (strict and result.verdict == "inconclusive"):
            self._fail(result.reason)
        if result.verdict in {"skipped", "inconclusive"}:
            pytest.skip(f"{result.verdict}: {result.reason}")

    def runtest(self) -> None:
        """Fail on a confirmed regression."""
        if self.result is not None and self.result.verdict == "fail":
            self._fail(f"{self.result.passes} of {self.result.n} passed: {self.result.reason}")

    def _fail(self, reason: str) -> NoReturn:
        """Fail with the reason alone: a traceback would be ours."""
        pytest.fail(f"{self.guard.id} ({self.guard.title or self.guard.problem}): {reason}", pytrace=False)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Name the test by its guard and problem, whatever its position."""
        return self.path, 0, f"{self.guard.problem}/{self.guard.id}"
