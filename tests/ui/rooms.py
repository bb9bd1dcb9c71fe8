"""The other rooms' answers, in the shapes of their ``api`` files, for the simpler pages."""

from __future__ import annotations

import random
from typing import Any

from tests.ui.scene import MINUTE, NOW_NS

START_NS = NOW_NS - 60 * MINUTE
WEEKS = ((3, 0, 0, 1), (1, 1, 0, 3), (1, 0, 2, 4), (0, 0, 1, 4), (1, 0, 3, 5), (0, 1, 4, 6), (0, 0, 4, 6), (0, 0, 6, 6))
SCORERS = (("groundedness", 0.92), ("citation", 0.97), ("language", 0.99))


def quality() -> dict[str, Any]:
    """Return the answer of /api/quality: groundedness drifts from the middle of the hour."""
    chance = random.Random(5)

    def course(name: str, mean: float) -> list[dict[str, Any]]:
        lost = [0.25 if name == "groundedness" and i > 34 else 0 for i in range(60)]
        return [
            {"ts_ns": START_NS + (i + 1) * MINUTE, "mean": min(1.0, mean - lost[i] + chance.gauss(0, 0.015)), "n": 9}
            for i in range(60)
        ]

    reading = {
        "id": "drift",
        "group": "quality",
        "verdict": "BREACH",
        "value": 0.71,
        "threshold": 0.85,
        "unit": "score",
        "n": 540,
        "window_start_ns": START_NS,
        "window_end_ns": NOW_NS,
        "reason": "groundedness of /v1/answer fell below its floor of 0.85: at most one false alarm in 20,000 answers",
    }
    name = "groundedness /v1/answer small-1"
    return {
        "start_ns": START_NS,
        "end_ns": NOW_NS,
        "bucket_ns": MINUTE,
        "scorers": [
            {
                "scorer": scorer,
                "version": "1",
                "estimate": {"mean": mean - 0.02, "low": mean - 0.05, "high": mean + 0.01, "n": 540, "n_eff": 512.0},
                "unscored": 12,
                "series": course(scorer, mean),
            }
            for scorer, mean in SCORERS
        ],
        "drift": {
            "reading": reading,
            "evidence": 31_000.0,
            "alarm_at": 20_000.0,
            "drifts": [
                {
                    "stratum": name,
                    "floor": 0.85,
                    "onset_ns": START_NS + 35 * MINUTE,
                    "alarm_ns": START_NS + 41 * MINUTE,
                    "evidence": 21_000.0,
                }
            ],
            "strata": [
                {"stratum": name, "floor": 0.85, "n": 540, "evidence": 31_000.0, "drifted": True},
                {"stratum": "citation /v1/answer small-1", "floor": 0.9, "n": 538, "evidence": 0.02, "drifted": False},
            ],
        },
        "worst": [
            {
                "request_id": f"req-5f3a{i:02x}",
                "ts_ns": NOW_NS - i * 2 * MINUTE,
                "scorer": "groundedness",
                "score": 0.2 + i / 40,
                "label": "ungrounded",
                "explanation": "2 of 3 sentences have no support",
            }
            for i in range(1, 10)
        ],
        "coverage": {"answered": 5_410, "sampled": 552, "scored": 540},
    }


def limits() -> dict[str, Any]:
    """Return the answer of /api/limits: one tenant asks for too much, for ten minutes."""
    chance = random.Random(6)
    rejected = [max(0, round(60 * chance.gauss(1, 0.2))) if 20 <= i < 30 else 0 for i in range(60)]
    policy = (
        ("tenant-rpm", "rate", 1000, "minute", "requests", ["tenant"]),
        ("org-tokens", "quota", 10_000_000, "day", "tokens", []),
        ("slots", "concurrency", 64, "minute", "requests", ["model"]),
    )
    return {
        "start_ns": START_NS,
        "end_ns": NOW_NS,
        "counted_in": "<server limits.internal:6379>",
        "policy": [dict(zip(("id", "lever", "amount", "per", "unit", "scope"), each, strict=True)) for each in policy],
        "usage": {
            "decisions": 192_960,
            "rejected": sum(rejected),
            "limits": [
                {
                    "limit": "tenant-rpm",
                    "decisions": 192_960,
                    "rejected": sum(rejected),
                    "used_ratio": 0.62,
                    "used_ratio_max": 1.0,
                    "top_rejected": [{"tenant": "globex", "rejected": sum(rejected)}],
                },
                {
                    "limit": "org-tokens",
                    "decisions": 192_960,
                    "rejected": 0,
                    "used_ratio": 0.18,
                    "used_ratio_max": 0.18,
                    "top_rejected": [],
                },
            ],
            "series": [
                {
                    "start_ns": START_NS + i * MINUTE,
                    "end_ns": START_NS + (i + 1) * MINUTE,
                    "allowed": round(3200 * chance.gauss(1, 0.03)),
                    "rejected": rejected[i],
                }
                for i in range(60)
            ],
            "recent": [
                {
                    "ts_ns": NOW_NS - (30 + i) * MINUTE,
                    "request_id": f"req-5f2b{i:02x}",
                    "tenant": "globex",
                    "violated": ["tenant-rpm"],
                    "retry_after_seconds": 1.4 + i,
                    "reason": "tenant-rpm is used up",
                }
                for i in range(8)
            ],
        },
    }


def alerts() -> dict[str, Any]:
    """Return the answer of /api/alerts: the composite fires on two signals, a ticket rule is quiet."""
    votes = [
        {"id": "latency-p95", "group": "latency", "verdict": "BREACH", "value": 2_940_000, "unit": "us"},
        {"id": "error-ratio", "group": "errors", "verdict": "BREACH", "value": 0.0341, "unit": "ratio"},
    ]
    key = {"key": "", "phase": "firing", "verdict": "BREACH", "since": "2026-01-05T09:53:00Z", "votes": votes}
    quiet = {"key": "", "phase": "inactive", "verdict": "OK", "since": None, "votes": []}
    rule = {"unless": "", "severe_alone": True, "receivers": ["on-call"], "signals": {}}

    def told(at: float, **attributes: Any) -> dict[str, Any]:
        return {
            "ts_ns": NOW_NS - round(at * MINUTE),
            "event": "alert",
            "attributes": {"alert": "two-signals", **attributes},
        }

    return {
        "rules": [
            {
                **rule,
                "id": "two-signals",
                "formula": "AT_LEAST(2, BREACH, (latency, errors, saturation, quality))",
                "severity": "page",
                "keys": [key],
            },
            {**rule, "id": "slow-burn", "formula": "BREACH(burn-availability)", "severity": "ticket", "keys": [quiet]},
        ],
        "transitions": [
            told(46, state="firing", reason="latency and errors breach in one window"),
            told(35, state="resolved", reason="OK for 300 s"),
            told(7, state="firing", reason="latency and errors breach in one window"),
        ],
        "notices": [told(7, receiver="on-call", outcome="sent", reason="first notice of the episode")],
    }


def incident(number: int, episode: int, status: str, hours: float, guards: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return one incident's line."""
    started = NOW_NS - round(hours * 60 * MINUTE)
    return {
        "id": f"INC-5c91de{number}{episode}",
        "problem_id": f"P-2cdfd49{number}",
        "episode_no": episode,
        "title": ("retrieve fails with TimeoutError", "answers lose their ground", "llm answers 429")[number],
        "status": status,
        "relation": "new" if episode == 1 else "repeat",
        "severity": 2,
        "release": "2026.1.0",
        "started_ns": started,
        "detected_ns": started + 2 * MINUTE,
        "resolved_ns": started + 95 * MINUTE if status == "resolved" else None,
        "pages": 1,
        "guards": list(guards),
    }


def incidents() -> list[dict[str, Any]]:
    """Return the answer of /api/incidents."""
    return [
        incident(0, 2, "active", 0.2, ("G-retrieve-timeout",)),
        incident(1, 1, "mitigated", 20),
        incident(2, 1, "resolved", 90),
        incident(0, 1, "resolved", 300, ("G-retrieve-timeout",)),
    ]


def detail() -> dict[str, Any]:
    """Return the answer of /api/incidents/{id}."""
    first = incidents()[0]
    detected = first["detected_ns"]
    return {
        "incident": {
            **first,
            "matched_by": "fingerprint",
            "reason": "the fingerprint fp1:2cdfd497ce94125f was seen in INC-5c91de01",
            "fingerprint": "fp1:2cdfd497ce94125f",
            "acknowledged_ns": detected + 3 * MINUTE,
            "mitigated_ns": None,
            "timeline": [
                {"ts_ns": detected, "status": "active", "text": "opened by the page two-signals"},
                {"ts_ns": detected + 3 * MINUTE, "status": "acknowledged", "text": "by ada: looking at the index"},
            ],
            "evidence": {
                "failing": 412,
                "reason": "latency and errors breach in one window",
                "examples": [
                    {
                        "request_id": "req-5f3a10",
                        "stage": "retrieve",
                        "input": "How long do I have to return a jacket?",
                        "duration_us": 4_310_000,
                    }
                ],
            },
        },
        "problem": {"id": first["problem_id"], "state": "fixed", "fix": {"release": "2025.12.4"}},
        "episodes": [incidents()[3], first],
    }


def flywheel() -> dict[str, Any]:
    """Return the answer of /api/flywheel: eight weeks in which the guards take over."""
    rate = {"k": 20, "n": 22, "value": 20 / 22, "low": 0.708, "high": 0.989}
    time = {"n": 6, "median_seconds": 130.0, "mean_seconds": 190.0}
    return {
        "weeks": [
            {
                "week": f"2025-W{45 + i}",
                "new": new,
                "repeats_guarded": 0,
                "repeats_unguarded": repeats,
                "prevented": prevented,
                "guards_active": guards,
                "requests": 900_000,
            }
            for i, (new, repeats, prevented, guards) in enumerate(WEEKS)
        ],
        "totals": {
            "prevention_rate": rate,
            "repeat_rate": {"k": 2, "n": 8, "value": 0.25, "low": 0.032, "high": 0.651},
            "guard_escape_rate": {"k": 0, "n": 20, "value": 0.0, "low": 0.0, "high": 0.168},
            **{f"time_to_{name}": time for name in ("detect", "acknowledge", "mitigate", "resolve", "guard")},
        },
        "preventions": [
            {
                "problem_id": "P-2cdfd490",
                "change_id": "PR-311",
                "outcome": "prevented",
                "state": "settled",
                "reason": "the guard failed on the change, and the change was not released",
            },
            {
                "problem_id": "P-2cdfd491",
                "change_id": "PR-320",
                "outcome": "prevented",
                "state": "pending",
                "reason": "the guard failed; the change is still open",
            },
        ],
    }


NOTHING: dict[str, Any] = {
    "/api/quality": quality() | {"scorers": [], "worst": []},
    "/api/limits": limits() | {"policy": [], "usage": limits()["usage"] | {"decisions": 0}},
    "/api/alerts": {"rules": [], "transitions": [], "notices": []},
    "/api/incidents": [],
    "/api/flywheel": {"weeks": [], "totals": {}, "preventions": []},
}
FULL: dict[str, Any] = {
    "/api/quality": quality(),
    "/api/limits": limits(),
    "/api/alerts": alerts(),
    "/api/alerts/explain": {
        "text": "two-signals fires since 09:53\n  latency   BREACH  2.94 s > 1.50 s\n  errors    BREACH  3.41% > 1.00%"
    },
    "/api/incidents": incidents(),
    "/api/incidents/INC-5c91de02": detail(),
    "/api/flywheel": flywheel(),
}


def answer(path: str, *, empty: bool) -> Any:
    """Return what a room answers, or None for an address that no room has."""
    return NOTHING.get(path) if empty else FULL.get(path)
