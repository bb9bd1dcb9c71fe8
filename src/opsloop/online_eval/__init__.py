"""Online eval: whether live quality still is what was promised, and if not, since when.

Objects
    An *answer*, put together from the events of one request. A *scorer* judges one answer: a score in [0, 1] where 1
    is good, or *unscored*. A *sample* decides from the request's id alone who is scored, and with what probability.
    A *detector* holds one number, the evidence E against "the mean is still at least the floor".
Rule
    Free scorers judge every sampled answer offline, without a reference answer and without a model. Means weigh each
    score by its inverse probability. Drift is declared when E reaches A, and that happens falsely at most once per A
    scored answers, whatever the scores look like. An alarm names the stratum and the answer where it began.
Limits
    A lexical score sees lost support, not a wrong meaning in the same words. An offline gate that still passes says
    nothing about questions that it never asks; drift says nothing about what was never good.
"""

from __future__ import annotations

from opsloop.online_eval.answer import Answer, Document, answer_from_events, answers_from_events
from opsloop.online_eval.drift import Decision, Detector, Stratum, declare, update
from opsloop.online_eval.estimate import (
    Agreement,
    Estimate,
    Sums,
    agreement,
    estimate,
    horvitz_thompson,
    lower_bound,
    ppi_mean,
    rogan_gladen,
    sums,
)
from opsloop.online_eval.gate import GateCase, GateReport, read_cases, run_gate
from opsloop.online_eval.sample import Sampled, priority_sample, sample_key, sampled, stratum_rates
from opsloop.online_eval.scorers import SCORERS, Score, Scorer, json_shape, scorers_named

__all__ = [
    "SCORERS",
    "Agreement",
    "Answer",
    "Decision",
    "Detector",
    "Document",
    "Estimate",
    "GateCase",
    "GateReport",
    "Sampled",
    "Score",
    "Scorer",
    "Stratum",
    "Sums",
    "agreement",
    "answer_from_events",
    "answers_from_events",
    "declare",
    "estimate",
    "horvitz_thompson",
    "json_shape",
    "lower_bound",
    "ppi_mean",
    "priority_sample",
    "read_cases",
    "rogan_gladen",
    "run_gate",
    "sample_key",
    "sampled",
    "scorers_named",
    "stratum_rates",
    "sums",
    "update",
]
