"""A simulated support bot: seeded traffic with faults that can be injected, for demos, tests and drills.

Objects: a world (:class:`SupportBot`) has a seed, a beginning, tenants, models, routes and a knowledge base; a
:class:`Fault` acts in a window with a strength; a :class:`Scenario` lays faults and deploys out in time. Rule: the same
arguments give the same events, however the time is cut, and a fault changes only its own consequences, since every
chance of a request is drawn before anything is decided. Limits: answers are put together from a small help centre of a
company that does not exist, by word overlap and not by a model; a person reading many of them will notice.

>>> answer("What does a return label cost?")["finish_reason"]
'stop'
"""

from __future__ import annotations

from opsloop.sim.faults import FAULT_KINDS, Fault, FaultKind
from opsloop.sim.scenario import Deploy, Scenario, history
from opsloop.sim.target import Consultation, answer, consult
from opsloop.sim.world import SupportBot

__all__ = [
    "FAULT_KINDS",
    "Consultation",
    "Deploy",
    "Fault",
    "FaultKind",
    "Scenario",
    "SupportBot",
    "answer",
    "consult",
    "history",
]
