"""JUnit: a gate report as the XML that every CI shows.

``failure`` is a confirmed regression, ``error`` could not be evaluated, ``skipped`` did not run. A test is known by its
guard's id, never by its position.
"""

from __future__ import annotations

import re
from typing import Final

from opsloop.improvement.gate import GateReport, GuardResult

__all__ = ["junit_xml"]

_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ENTITIES: Final = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\n": "&#10;", "\t": "&#9;", "\r": "&#13;"}
)
_ELEMENTS: Final = {"fail": "failure", "error": "error", "inconclusive": "skipped", "skipped": "skipped"}


def junit_xml(report: GateReport) -> str:
    """Return the report as JUnit XML; under ``strict`` an inconclusive result is an error."""
    cases = [_case(result, strict=report.strict) for result in report.results]
    skipped = report.count("skipped") + (0 if report.strict else report.count("inconclusive"))
    errors = report.count("error") + (report.count("inconclusive") if report.strict else 0)
    head = (
        f'<testsuite name="guards" tests="{len(cases)}" failures="{report.count("fail")}"'
        f' errors="{errors}" skipped="{skipped}">'
    )
    body = "\n".join(['<?xml version="1.0" encoding="utf-8"?>', "<testsuites>", head, *cases])
    return f"{body}\n</testsuite>\n</testsuites>\n"


def _case(result: GuardResult, *, strict: bool) -> str:
    values = {
        "verdict": result.verdict,
        "mode": result.mode,
        "n": str(result.n),
        "passes": str(result.passes),
        "severity": result.severity,
        "baseline_verdict": result.baseline_verdict,
        "fingerprint": result.fingerprint,
    }
    lines = [f"<testcase classname={_attribute(f'guards.{result.problem_id}')} name={_attribute(result.guard_id)}>"]
    lines.append("<properties>")
    lines += [f'<property name="{name}" value={_attribute(value)}/>' for name, value in values.items() if value]
    lines.append("</properties>")
    element = "error" if strict and result.verdict == "inconclusive" else _ELEMENTS.get(result.verdict)
    if element == "skipped":
        lines.append(f"<skipped message={_attribute(result.reason)}/>")
    elif element:
        lines.append(f"<{element} message={_attribute(result.reason)}>{_escaped(result.path)}</{element}>")
    lines.append("</testcase>")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Return a text as XML shows it, in an element or in double quotes; what XML cannot hold is replaced."""
    return _NOT_XML.sub("\ufffd", text).translate(_ENTITIES)


def _attribute(text: str) -> str:
    return f'"{_escaped(text)}"'
