"""Prometheus as the second opinion: series, rules and expected samples for ``promtool test rules``."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess

import pytest

INVERSE = 1 / 1e-9
"""What ``round(x, 1e-9)`` multiplies with in Prometheus."""


def _version():
    """Return promtool's major version, 0 when there is none."""
    if shutil.which("promtool") is None:
        return 0
    done = subprocess.run(["promtool", "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\d+)", done.stdout + done.stderr)
    return int(found[1]) if found else 0


needs_closed_windows = pytest.mark.skipif(
    _version() != 2, reason="promtool 2 is not installed; in 3 a range leaves its first sample out"
)
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
needs_amtool = pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is not installed")


def rounded(value):
    """Return a number as ``round(x, 1e-9)`` of Prometheus gives it."""
    return math.floor(value * INVERSE + 0.5) / INVERSE


def series(name, values):
    """Return an input series: numbers, ``None`` for a sample that is missing, or ``stale``."""
    return {"series": name, "values": " ".join("_" if value is None else str(value) for value in values)}


def expect(expr, seconds, samples):
    """Return a test of one query at one moment; samples are (labels, value)."""
    found = [{"labels": labels, "value": value} for labels, value in samples]
    return {"expr": expr, "eval_time": f"{seconds}s", "exp_samples": found}


def run(folder, groups, *, interval_seconds, inputs, tests):
    """Run the tests over the rules; return promtool's exit code and what it said."""
    (folder / "rules.json").write_text(json.dumps({"groups": groups}))
    suite = {
        "rule_files": ["rules.json"],
        "evaluation_interval": f"{interval_seconds}s",
        "group_eval_order": [group["name"] for group in groups],
        "tests": [
            {"interval": f"{interval_seconds}s", "input_series": inputs, "promql_expr_test": tests},
        ],
    }
    (folder / "tests.json").write_text(json.dumps(suite))
    done = subprocess.run(
        ["promtool", "test", "rules", "tests.json"], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr
