"""Improvement: what broke stays fixed.

Objects
    *Problem*, one cause. *Incident*, one episode of it, with its evidence frozen. *Guard*, a file that would notice if
    it came back. *Gate run*, all guards over one change. *Prevention*, a pair (problem, change) that was stopped.
Rule
    A page opens an incident or joins the one that is running. It is a repeat when the same failure is seen after the
    fix was deployed. A guard counts once it was red on the failure and green on the fix. A prevention counts when five
    conditions hold, and never when something merely failed.
State
    None of its own: everything is folded out of the stream's events, in one canonical order.
Limits
    Fingerprints group by kind and masked message: two causes with one message are one problem until a guard tells them
    apart. Selftest and frozen runs cannot show what a new model does. Live runs assume independent answers.
"""

from __future__ import annotations

from opsloop.improvement.assertions import ASSERTION_TYPES, Answer, Assertion, Judgement, UnmeasuredError, judge
from opsloop.improvement.evidence import Evidence, Example, Sighting, alert_episode, gather_evidence
from opsloop.improvement.fingerprint import (
    MASKS,
    Mask,
    Regrouping,
    Signature,
    fingerprint,
    mask_message,
    new_mask,
    preview,
)
from opsloop.improvement.flywheel import Flywheel, Week, flywheel, weekly_requests
from opsloop.improvement.gate import GateReport, GuardResult, landed_event, load_target, run_guard, run_guards
from opsloop.improvement.guard import (
    Guard,
    GuardRecord,
    decode_guard,
    encode_guard,
    guard_event,
    guard_schema,
    load_guards,
    read_guard,
)
from opsloop.improvement.history import HISTORY_KINDS, History, rebuild
from opsloop.improvement.incident import Incident, incident_id
from opsloop.improvement.junit import junit_xml
from opsloop.improvement.postmortem import postmortem
from opsloop.improvement.prevention import Prevention, find_preventions
from opsloop.improvement.problem import Fix, Problem, problem_event, problem_id
from opsloop.improvement.proof import ProofResult, capture, prove, sync_guards, write_guard
from opsloop.improvement.recurrence import Match, advance, match_problem, observe
from opsloop.improvement.sprt import Outlook, Sprt

__all__ = [
    "ASSERTION_TYPES",
    "HISTORY_KINDS",
    "MASKS",
    "Answer",
    "Assertion",
    "Evidence",
    "Example",
    "Fix",
    "Flywheel",
    "GateReport",
    "Guard",
    "GuardRecord",
    "GuardResult",
    "History",
    "Incident",
    "Judgement",
    "Mask",
    "Match",
    "Outlook",
    "Prevention",
    "Problem",
    "ProofResult",
    "Regrouping",
    "Sighting",
    "Signature",
    "Sprt",
    "UnmeasuredError",
    "Week",
    "advance",
    "alert_episode",
    "capture",
    "decode_guard",
    "encode_guard",
    "find_preventions",
    "fingerprint",
    "flywheel",
    "gather_evidence",
    "guard_event",
    "guard_schema",
    "incident_id",
    "judge",
    "junit_xml",
    "landed_event",
    "load_guards",
    "load_target",
    "mask_message",
    "match_problem",
    "new_mask",
    "observe",
    "postmortem",
    "preview",
    "problem_event",
    "problem_id",
    "prove",
    "read_guard",
    "rebuild",
    "run_guard",
    "run_guards",
    "sync_guards",
    "weekly_requests",
    "write_guard",
]
