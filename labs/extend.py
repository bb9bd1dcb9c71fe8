"""Extend: one composite alert that pages only when two different signals breach in one shared window."""

from __future__ import annotations

from textwrap import fill

from opsloop import ManualClock, Reading, Settings, Verdict
from opsloop.alerting import Book, decide, load_rules
from opsloop.settings import AlertSettings, ObjectiveSettings

WHEN = "AT_LEAST(2, BREACH, (latency-p95, latency-p99, errors, saturation, quality, retrieval))"
OBJECTIVES = {
    "latency-p95": ("latency", "latency_us_p95", 1_500_000, "us", 900_000),
    "latency-p99": ("latency", "latency_us_p99", 3_000_000, "us", 1_600_000),
    "errors": ("errors", "error_ratio", 0.02, "ratio", 0.004),
    "saturation": ("saturation", "saturation_ratio", 0.8, "ratio", 0.35),
    "quality": ("quality", "quality_mean", 0.75, "score", 0.97),
    "retrieval": ("retrieval", "retrieval_error_ratio", 0.05, "ratio", 0.01),
}
STORY = [
    ("quiet", {}),
    ("latency alone", {"latency-p95": 2_310_000}),
    ("latency and errors", {"latency-p95": 2_310_000, "errors": 0.042}),
    ("still latency and errors", {"latency-p95": 2_480_000, "errors": 0.051}),
    ("all well again", {}),
    ("quality alone", {"quality": 0.62}),
    ("p95 and p99 of one latency", {"latency-p95": 2_310_000, "latency-p99": 4_900_000}),
]
SETTINGS = Settings(
    objective=tuple(
        ObjectiveSettings(id=name, group=group, measure=measure, threshold=threshold)
        for name, (group, measure, threshold, _, _) in OBJECTIVES.items()
    ),
    alert=(AlertSettings(id="service-unhealthy", when=WHEN, clear_for_seconds=0),),
)


def readings(now_ns: int, changed: dict[str, float]) -> list[Reading]:
    """Measure every signal over the minute that ends now: 240 requests, healthy but for what changed."""
    found = []
    for name, (group, _, threshold, unit, healthy) in OBJECTIVES.items():
        value = changed.get(name, healthy)
        breach = value < threshold if name == "quality" else value > threshold
        found.append(
            Reading(
                id=name,
                group=group,
                verdict=Verdict.BREACH if breach else Verdict.OK,
                value=value,
                threshold=threshold,
                unit=unit,
                n=240,
                window_start_ns=now_ns - 60_000_000_000,
                window_end_ns=now_ns,
                reason=f"{value} against {threshold}",
            )
        )
    return found


def main() -> None:
    clock = ManualClock("2026-01-05T09:00:00Z")
    rules, book, pages = load_rules(SETTINGS), Book(), 0
    print(f"page when {WHEN}\n")
    for title, changed in STORY:
        clock.advance(seconds=60)
        book, (decision,) = decide(rules, book, readings(clock.now_ns(), changed), clock.now_ns())
        why = decision.explanation
        pages += why.outcome == "page"
        print(f"{title} -> {why.outcome.upper()}")
        print(fill(why.line(), width=100, initial_indent="  ", subsequent_indent="  "))
    print(f"\n{len(STORY)} evaluations, {pages} page. Why the third one paged, in full:\n")
    book, now_ns = Book(), ManualClock("2026-01-05T09:03:00Z").now_ns()
    print(decide(rules, book, readings(now_ns, STORY[2][1]), now_ns)[1][0].explanation.text())


if __name__ == "__main__":
    main()
