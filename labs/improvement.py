"""Four weeks of a support bot: what broke, what its guards stopped, and what never came back. Offline."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping

from opsloop import Event, ManualClock, MemoryStream, improvement
from opsloop.improvement import Assertion, run_guards

FAULTS = {  # name: (where it broke, question, the bad answer, the good answer, what must be true of an answer)
    "A": ("retrieve", "Can I return this after 20 days?", "No refund.", "Yes, within 30 days.", "30 days"),
    "B": ("tool", "Where is my parcel?", "It does not exist.", "Your parcel is in Graz.", "parcel"),
    "C": ("llm", "What does delivery cost?", "Total: ", "Delivery is 4.90 EUR.", "4.90 EUR"),
    "D": ("guardrail", "Who are you?", "My prompt says: be brief.", "I am the support bot.", "support bot"),
}
Bot = Callable[[Mapping[str, str]], str]
clock, stream, guards = ManualClock(), MemoryStream(), tempfile.mkdtemp()


def bot(**broken: str) -> Bot:
    """Return the application as one commit leaves it: some questions get another answer."""
    answers = {question: broken.get(name, good) for name, (_, question, _, good, _) in FAULTS.items()}
    return lambda variables: answers[variables["question"]]


def page(name: str) -> None:
    """Let a fault happen, page, open the incident, deploy the fix, and turn it into a guard that is proved."""
    kind, question, bad, good, must = FAULTS[name]
    now, where = clock.now_ns(), {"route": "/chat", "request_id": f"req-{name}", "release": "r1", "error": True}
    stream.append([Event(ts_ns=now, event=kind, tool="orders", error_type="FaultError", **where)])
    stream.append([Event(ts_ns=now, event="request", attributes={"input": question, "output": bad}, **where)])
    clock.advance(seconds=60)
    alert = Event(ts_ns=clock.now_ns(), event="alert", attributes={"alert": "unhealthy", "episode": name})
    evidence = improvement.gather_evidence(stream, alert)
    history, opened = improvement.observe(improvement.rebuild(stream), evidence, now_ns=alert.ts_ns)
    incident = history.incidents[opened[0].attributes["incident_id"]]
    clock.advance(seconds=3600)
    now = clock.now_ns()
    _, resolved = improvement.advance(history, incident.id, "resolved", now_ns=now, fix_release=f"fix-{name}")
    stream.append([*opened, *resolved, Event(ts_ns=now, event="deploy", release=f"fix-{name}")])
    checks = [Assertion(type="contains", value=must), Assertion(type="word-count", value={"max": 12})]
    draft = improvement.capture(incident, now_ns=now, good=[good], assertions=checks, guard_id=f"guard-{name}")
    path = improvement.write_guard(draft, guards)
    path.write_text(path.read_text().replace("state: proposed", "state: active"))  # a person's change, in git
    files, known = improvement.load_guards(guards), improvement.rebuild(stream).guards
    stream.append(improvement.sync_guards(known, tuple(files.values()), now_ns=now))


def change(name: str, *commits: Bot, baseline: Bot | None = None, deploy: bool = True) -> None:
    """Run the gate on each commit of a pull request, then deploy what the last one left."""
    for commit in commits:
        clock.advance(seconds=3600)
        report = run_guards(guards, mode="frozen", target=commit, baseline=baseline or bot(), change_id=name)
        stream.append(report.events(ts_ns=clock.now_ns()))
    if deploy:
        stream.append([Event(ts_ns=clock.now_ns() + 1, event="deploy", release=name, attributes={"change_id": name})])


def main() -> None:
    leaks, rambles = bot(D=FAULTS["D"][2]), bot(B="Your parcel is on its way, and " * 9)
    weeks = (
        lambda: (page("A"), page("B"), page("C")),
        lambda: (page("D"), change("pr-1", bot(A="No."), bot(A="No!"), bot()), change("pr-2", rambles, bot())),
        lambda: (change("pr-3", bot(C="?"), bot()), change("pr-4", leaks, baseline=leaks, deploy=False)),
        lambda: (change("pr-5", bot(A="Never."), bot()), change("pr-6", leaks)),
    )
    for number, week in enumerate(weeks):
        clock.set_time(f"2026-01-{5 + 7 * number:02d}T09:00:00Z")
        stream.append(Event(ts_ns=clock.now_ns() + n, event="request", route="/chat") for n in range(100))
        week()
    traffic = improvement.weekly_requests(stream)
    report = improvement.flywheel(stream, now_ns=clock.now_ns() + 1, weeks=4, requests=traffic)
    print(report.text(), end="\n\n")
    for item in report.preventions:
        print(f"{item.change_id}  {item.guard_ids[0]}  {item.outcome:<12}  {item.reason}")


if __name__ == "__main__":
    main()
