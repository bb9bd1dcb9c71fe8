"""A support bot's hour, as the API would answer it: quiet, then a slow and failing retriever, still in breach now."""

from __future__ import annotations

import math
import random
from typing import Any

MINUTE = 60 * 10**9
NOW_NS = 1_767_607_200_000_000_000
STEP = 15
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> \u202egnp.exe\u0000\u001b[31mred\u001b[0m " + "x" * 5000
)
TENANTS = ("acme", "globex", "initech", "umbrella")
STAGES = ("retrieve", "rerank", "generate", "tool")
FAULTS = {
    "retrieve": "vector index timed out after 2000 ms",
    "rerank": "reranker fell back to BM25",
    "llm": "model overloaded, second try",
    "tool": "tool returned 502",
}


def trouble(share: float) -> float:
    """Return how bad it is, 0 to 1, at a share of the hour: a hill early on, and a rise that is still going."""
    return math.exp(-(((share - 0.28) / 0.09) ** 2)) + 0.9 / (1 + math.exp(-(share - 0.86) * 60))


def series() -> dict[str, Any]:
    """Return the hour's series in steps of 15 s."""
    chance = random.Random(7)
    count = 3600 // STEP
    at = [NOW_NS - (count - 1 - i) * STEP * 10**9 for i in range(count)]
    bad = [trouble(i / count) for i in range(count)]
    stages = {
        name: [max(0.0, weight * (0.002 + 0.02 * b) * chance.gauss(1, 0.45)) for b in bad]
        for name, weight in zip(STAGES, (1.0, 0.25, 0.5, 0.35), strict=True)
    }
    p50 = [(480_000 + 420_000 * b) * chance.gauss(1, 0.03) for b in bad]
    return {
        "step_seconds": STEP,
        "ts_ns": at,
        "latency_us_p50": p50,
        "latency_us_p95": [v * (2.3 + 1.4 * b) * chance.gauss(1, 0.04) for v, b in zip(p50, bad, strict=True)],
        "latency_us_p99": [v * (3.6 + 3.0 * b) * chance.gauss(1, 0.08) for v, b in zip(p50, bad, strict=True)],
        "time_to_first_token_us_p95": [v * 0.8 * chance.gauss(1, 0.06) for v in p50],
        "requests_per_second": [53.6 * chance.gauss(1, 0.035) - 5 * b for b in bad],
        "tokens_per_second": [41_000 * chance.gauss(1, 0.05) - 6_000 * b for b in bad],
        "error_ratio": [sum(values[i] for values in stages.values()) for i in range(count)],
        "errors_by_stage": stages,
        "rejected_ratio": [max(0.0, 0.004 * chance.gauss(1, 0.6) + 0.05 * max(0.0, b - 0.6)) for b in bad],
        "saturation_ratio": [min(1.0, (0.48 + 0.27 * b) * chance.gauss(1, 0.02)) for b in bad],
        "quality_mean": [0.91 - 0.12 * b + chance.gauss(0, 0.012) if i % 4 == 0 else None for i, b in enumerate(bad)],
    }


def reading(name: str, group: str, verdict: str, value: float | None, limit: tuple[float, str]) -> dict[str, Any]:
    """Return one reading of the last five minutes."""
    threshold, unit = limit
    return {
        "id": name,
        "group": group,
        "verdict": verdict,
        "value": value,
        "threshold": threshold,
        "unit": unit,
        "n": 12 if verdict == "INSUFFICIENT" else 16_072,
        "window_start_ns": NOW_NS - 5 * MINUTE,
        "window_end_ns": NOW_NS,
        "reason": f"{name} against {threshold} {unit}",
    }


READINGS = [
    reading("latency-p95", "latency", "BREACH", 2_940_000, (1_500_000, "us")),
    reading("error-ratio", "errors", "BREACH", 0.0341, (0.01, "ratio")),
    reading("saturation", "saturation", "OK", 0.712, (0.8, "ratio")),
    reading("quality", "quality", "INSUFFICIENT", 0.82, (0.85, "score")),
]


def budget(name: str, target: float, remaining: float, verdicts: tuple[str, ...], days: float | None) -> dict[str, Any]:
    """Return one objective's error budget over 30 days, with a bad day on the seventh."""
    at = [NOW_NS - (30 * 24 - hour) * 60 * MINUTE for hour in range(0, 30 * 24 + 1, 6)]
    left = [
        max(0.0, 1 - (1 - remaining) * (0.66 * i / 120 + (0.22 if i > 28 else 0) + 0.12 * (i > 116)))
        for i in range(121)
    ]
    left[-1] = remaining
    tiers = zip(
        ("page", "page", "ticket", "ticket"),
        (3600, 21_600, 86_400, 259_200),
        (14.4, 6, 3, 1),
        ((21.8, 24.1), (5.31, 19.6), (1.96, 5.42), (1.24, 1.88)),
        verdicts,
        strict=True,
    )
    return {
        "id": name,
        "sli": f"{name} sli",
        "target": target,
        "period_days": 30,
        "bad": 41_022,
        "total": 9_212_011,
        "remaining_ratio": remaining,
        "exhausts_in_seconds": None if days is None else days * 86_400,
        "sentence": f"{target:.1%} of answers succeed over 30 days: 41,022 of 9,212,011 did not.",
        "tiers": [
            {
                "severity": severity,
                "long_seconds": long,
                "short_seconds": long // 12,
                "factor": factor,
                "burn_long": burns[0],
                "burn_short": burns[1],
                "verdict": verdict,
                "reason": f"burn {burns[0]} over {long} s against {factor}",
            }
            for severity, long, factor, burns, verdict in tiers
        ],
        "series": {"ts_ns": at, "remaining_ratio": left},
    }


def signals() -> dict[str, Any]:
    """Return the answer of /api/signals."""
    return {
        "now_ns": NOW_NS,
        "start_ns": NOW_NS - 60 * MINUTE,
        "end_ns": NOW_NS,
        "sentence": "Paging. 2 of 4 signals in breach; a page needs 2.",
        "breaching": 2,
        "signals": 4,
        "needed": 2,
        "readings": READINGS,
        "totals": {
            "requests": 192_960,
            "errors": 2_410,
            "rejected": 902,
            "requests_per_second": 53.6,
            "tokens_per_second": 40_120.0,
            "latency_us_p50": 512_000,
            "latency_us_p95": 2_940_000,
            "latency_us_p99": 5_100_000,
            "time_to_first_token_us_p95": 640_000,
            "error_ratio": 0.0341,
            "saturation_ratio": 0.712,
            "quality_mean": 0.82,
            "cost_microusd": 88_120_000,
        },
        "series": series(),
        "objectives": [
            {
                "id": "latency-p95",
                "group": "latency",
                "measure": "latency_us_p95",
                "threshold": 1_500_000,
                "direction": "above",
                "unit": "us",
            },
            {
                "id": "error-ratio",
                "group": "errors",
                "measure": "error_ratio",
                "threshold": 0.01,
                "direction": "above",
                "unit": "ratio",
            },
            {
                "id": "saturation",
                "group": "saturation",
                "measure": "saturation_ratio",
                "threshold": 0.8,
                "direction": "above",
                "unit": "ratio",
            },
            {
                "id": "quality",
                "group": "quality",
                "measure": "quality_mean",
                "threshold": 0.85,
                "direction": "below",
                "unit": "score",
            },
        ],
        "slos": [
            budget("availability", 0.995, 0.109, ("BREACH", "OK", "OK", "BREACH"), 2.4),
            budget("fast-answers", 0.95, 0.62, ("OK", "OK", "OK", "OK"), None),
            budget("grounded", 0.9, 0.81, ("INSUFFICIENT", "INSUFFICIENT", "OK", "OK"), None),
            monthly(),
        ],
    }


def monthly() -> dict[str, Any]:
    """Return a budget of the calendar's month, which began 4 days and 10 hours ago."""
    start = NOW_NS - (4 * 24 + 10) * 60 * MINUTE
    at = [start + hour * 60 * MINUTE for hour in range(1, 4 * 24 + 11)]
    return budget("monthly", 0.99, 0.86, ("OK", "OK", "OK", "BREACH"), 31.0) | {
        "calendar": "month",
        "period_start_ns": start - 1,
        "period_end_ns": start + 31 * 24 * 60 * MINUTE - 1,
        "series": {"ts_ns": at, "remaining_ratio": [1 - 0.14 * (i + 1) / len(at) for i in range(len(at))]},
    }


def breakdown(dimension: str, *, empty: bool) -> dict[str, Any]:
    """Return the answer of /api/signals/by."""
    keys = {"tenant": (*TENANTS, "", HOSTILE), "model": ("gpt-4.1-mini", "claude-haiku-4-5")}
    rows = [
        {
            "key": key,
            "n": 90_000 // (place + 1) ** 3,
            "rejected": 902 // (place + 1) ** 2,
            "failed": 1_900 // (place + 1) ** 3,
            "upstream": 300 // (place + 1) ** 3,
            "server_errors": 1_200 // (place + 1) ** 3,
            "error_ratio": 0.0211 + place / 500,
            "latency_us_p50": 512_000 + 9_000 * place,
            "latency_us_p95": 2_940_000 - 90_000 * place,
            "few": place > 4,
        }
        for place, key in enumerate(keys.get(dimension, ("/chat", "/search", "/summarise")))
    ]
    counted = "model calls" if dimension == "model" else "requests"
    left_out = 11 if dimension == "tenant" else 0
    return {"dimension": dimension, "counted": counted, "rows": [] if empty else rows, "left_out": left_out}


def silent() -> dict[str, Any]:
    """Return the same hour once the errors are held in breach and the latency is known from before only."""
    held = reading("error-ratio", "errors", "BREACH", 0.008, (0.01, "ratio")) | {"held": True}
    unknown = reading("latency-p95", "latency", "NO_DATA", None, (1_500_000, "us"))
    last = reading("latency-p95", "latency", "OK", 1_210_000, (1_500_000, "us"))
    found = signals()
    objectives = [each | ({"clear": 0.005} if each["id"] == "error-ratio" else {}) for each in found["objectives"]]
    return found | {
        "readings": [unknown, held, *READINGS[2:]],
        "last_known": {"latency-p95": last | {"window_end_ns": NOW_NS - 12 * MINUTE}},
        "objectives": objectives,
    }


def empty_signals() -> dict[str, Any]:
    """Return what /api/signals answers when nothing has arrived."""
    nothing = dict.fromkeys(signals()["totals"]) | {"requests": 0, "errors": 0, "rejected": 0}
    return signals() | {
        "sentence": "No data. 0 of 4 signals have data; nothing can be said.",
        "breaching": 0,
        "readings": [reading(r["id"], r["group"], "NO_DATA", None, (r["threshold"], r["unit"])) for r in READINGS],
        "totals": nothing,
        "series": {"step_seconds": STEP, "ts_ns": []},
        "slos": [],
    }


def breaches() -> list[dict[str, Any]]:
    """Return the breach events of the hour: two signals went over and came back, and went over again."""
    changes = (
        ("latency-p95", "latency", ((0.17, "BREACH"), (0.42, "OK"), (0.85, "BREACH"))),
        ("error-ratio", "errors", ((0.19, "BREACH"), (0.40, "OK"), (0.86, "BREACH"))),
        ("saturation", "saturation", ((0.26, "BREACH"), (0.31, "OK"))),
    )
    start = NOW_NS - 60 * MINUTE
    return [
        {
            "ts_ns": start + round(share * 60 * MINUTE),
            "event": "breach",
            "event_id": f"breach:{name}::{share}",
            "severity": "WARN" if verdict == "BREACH" else "INFO",
            "message": f"{name}: {verdict}",
            "attributes": {"id": name, "group": group, "verdict": verdict},
        }
        for name, group, moves in changes
        for share, verdict in moves
    ]


def events(count: int = 1200) -> list[dict[str, Any]]:
    """Return log events, newest first: mostly fine, failing where the hour is in trouble, one of them hostile."""
    chance = random.Random(11)
    found: list[dict[str, Any]] = []
    for i in range(count):
        share = (1 - i / count) ** 0.8 if i % 3 else chance.choice((0.28, 0.95)) + chance.gauss(0, 0.04)
        share = min(max(share, 0.0), 1.0)
        kind = chance.choice(("request", "retrieve", "rerank", "llm", "tool", "limit"))
        failed = chance.random() < 0.03 + 0.3 * trouble(share) and kind not in {"limit", "request"}
        event: dict[str, Any] = {
            "ts_ns": NOW_NS - round(60 * MINUTE * (1 - share)) - chance.randrange(10**6),
            "event": kind,
            "service": "support-bot",
            "request_id": f"req-{0x5F3A00 + count - i:06x}",
            "tenant": chance.choices(TENANTS, (8, 4, 3, 1))[0],
            "route": "/v1/answer",
            "duration_us": round(chance.lognormvariate(12.2, 0.9)),
            "attributes": {},
        }
        if kind in {"retrieve", "tool"}:
            event["tool"] = "retrieve" if kind == "retrieve" else "order_status"
        if kind in {"llm", "rerank"}:
            event["model"] = "bge-reranker" if kind == "rerank" else "small-1"
        if kind == "request":
            event |= {"status_code": 200, "attributes": {"input": "Where is my order?"}}
        if kind == "limit":
            event["attributes"] = {"phase": "admit", "allowed": chance.random() > 0.06, "violated": []}
        if failed:
            event |= {"error": True, "severity": "ERROR", "error_type": "TimeoutError", "message": FAULTS[kind]}
        elif chance.random() < 0.03:
            event |= {"severity": "WARN", "message": "0 passages above the threshold"}
        found.append(event)
    found.sort(key=lambda event: -event["ts_ns"])
    found[3] |= {"message": HOSTILE, "tenant": "<b>acme</b>", "severity": "WARN"}
    return found


def story() -> dict[str, Any]:
    """Return one failed request: the retriever timed out twice, a fallback answered, the answer was ungrounded."""
    start = NOW_NS - 7 * MINUTE
    milli = 10**6
    base = {
        "request_id": "req-5f3a10",
        "tenant": "acme",
        "service": "support-bot",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }

    def span(kind: str, own: str, parent: str, at: float, took: float, **more: Any) -> dict[str, Any]:
        return {
            **base,
            "ts_ns": start + round(at * milli),
            "event": kind,
            "span_id": own,
            "parent_span_id": parent,
            "duration_us": round(took * 1000),
            **more,
        }

    late = {"error": True, "severity": "ERROR", "error_type": "TimeoutError"}
    documents = [
        {"id": "returns-7", "score": 0.41, "content": "Returns are accepted within 30 days of delivery."},
        {"id": "shipping-2", "score": 0.38, "content": "Orders ship within two working days."},
    ]
    limits = {
        "tenant-rpm": {"used_ratio": 0.62, "remaining": 380},
        "org-tokens": {"used_ratio": 0.18, "remaining": 8_200_000},
    }
    answer = "You can return it within 60 days."
    request = span("request", "a0", "", 0, 4310, route="/v1/answer", status_code=503, time_to_first_token_us=2_980_000)
    request |= {**late, "input_tokens": 1840, "output_tokens": 212, "cost_microusd": 1320}
    request["attributes"] = {"input": "How long do I have to return a jacket?", "output": answer, "in_flight": 41}
    found = [
        request,
        span(
            "limit",
            "a1",
            "a0",
            0.2,
            0.4,
            attributes={"phase": "admit", "allowed": True, "violated": [], "limits": limits},
        ),
        span("embed", "a2", "a0", 2, 67, model="embed-small", input_tokens=14),
        span("retrieve", "a3", "a0", 70, 2040, tool="retrieve", attributes={"documents": documents}, **late),
        span("tool", "a4", "a3", 71, 1000, tool="ann_search", message="timed out, try 1", **late),
        span("tool", "a5", "a3", 1110, 1000, tool="ann_search", message="timed out, try 2", **late),
        span("tool", "a6", "a0", 2112, 88, tool="bm25_fallback"),
        span("rerank", "a7", "a0", 2205, 141, model="bge-reranker"),
        span("llm", "a8", "a0", 2350, 1955, model="small-1", time_to_first_token_us=640_000, output_tokens=212),
        {
            **base,
            "ts_ns": start + 2360 * milli,
            "event": "log",
            "severity": "WARN",
            "parent_span_id": "a8",
            "message": "context cut to 2 passages",
        },
        span("guardrail", "a9", "a0", 4306, 4, attributes={"name": "grounded", "action": "allow"}),
    ]
    for scorer, score, label in (("groundedness", 0.31, "ungrounded"), ("language", 1.0, "ok"), ("citation", None, "")):
        own = {
            "scorer": scorer,
            "status": "unscored" if score is None else "scored",
            "label": label,
            "probability": 0.2,
        }
        found.append(
            {
                **base,
                "ts_ns": start,
                "event": "score",
                "event_id": f"score:{scorer}",
                "attributes": own | ({} if score is None else {"score": score}),
            }
        )
    missing = ["the answer of the scorer citation: it was not scored"]
    return {"request_id": "req-5f3a10", "events": found, "tree": tree(found), "failure": found[4], "missing": missing}


def tree(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events below their parents, as the story nests them."""
    nodes = [{"event": event, "children": []} for event in found if event["event"] != "score"]
    by_span = {node["event"].get("span_id", ""): node for node in nodes}
    roots = []
    for node in nodes:
        parent = by_span.get(node["event"].get("parent_span_id", "")) if node["event"].get("parent_span_id") else None
        (parent["children"] if parent else roots).append(node)
    return roots
