"""Online eval: live answers drift away from their sources while the fixed offline gate still passes.

A shop's bot quotes its help pages. From the 26th request on, people ask about gift cards, which no page covers, and
the bot invents. The gate's questions were written before gift cards existed, so it goes on passing.
"""

from __future__ import annotations

from textwrap import shorten

from opsloop import Event, MemoryStream, Verdict
from opsloop.online_eval import Answer, Detector, answers_from_events, run_gate, sampled, scorers_named, update

RATE, FLOOR, SCORES_PER_FALSE_PAGE = 0.2, 0.9, 1000
PAGES = (
    "Refunds arrive within five working days after we receive the parcel.",
    "Orders ship within two days and carry a tracking number.",
    "Passwords reset from the account page under security settings.",
    "Invoices are stored under billing history for seven years.",
)
KNOWN = (
    ("When do refunds arrive?", PAGES[0]),
    ("How fast do orders ship?", PAGES[1]),
    ("How do I reset my password?", PAGES[2]),
    ("Where are my invoices?", PAGES[3]),
)
GIFT_CARDS = (
    ("Do gift cards come by post?", "The parcel carries redeemable golden vouchers."),
    ("Can I track a gift card?", "A tracking voucher unlocks holiday prices."),
    ("Do gift cards get an invoice?", "Invoices are redeemable near birthday presents."),
)


def serve(n: int) -> list[Event]:
    """Answer the n-th request as the bot does, and return what its instruments wrote."""
    question, answer = KNOWN[n % 4] if n <= 25 else GIFT_CARDS[n % 3]
    request_id, ts_ns = f"live-{n:03}", n * 1_000_000_000
    documents = [{"id": f"page-{i}", "content": page} for i, page in enumerate(PAGES)]
    said = {"input": question, "output": answer, "finish_reason": "stop"}
    return [
        Event(ts_ns=ts_ns, event="request", request_id=request_id, status_code=200, attributes=said),
        Event(ts_ns=ts_ns, event="retrieve", request_id=request_id, attributes={"documents": documents}),
    ]


def main() -> None:
    stream = MemoryStream(event for n in range(1, 51) for event in serve(n))
    (groundedness,) = scorers_named(["groundedness"])
    answers = answers_from_events(stream.query())
    chosen = [answer for answer in answers if sampled(answer.request_id, RATE).taken]
    print(f"{len(answers)} live answers; the hash of the request id takes {len(chosen)} of them at rate {RATE}\n")

    detector, scores, alarms = Detector(floor=FLOOR, scores_per_false_page=SCORES_PER_FALSE_PAGE), [], []
    print("request   groundedness  evidence  answer")
    for n, answer in enumerate(chosen):
        score = groundedness.score(answer).score
        detector, decision = update(detector, score, n)
        scores.append(score)
        alarms += [decision] if decision.alarm else []
        said = shorten(answer.answer, 48, placeholder=" ...")
        print(f"{answer.request_id}  {score:12.1f}  {decision.evidence:8.1f}  {said}")
        if n == 4:
            print(f"-- the healthy half: avg {sum(scores) / len(scores):.1f}, {'drift' if alarms else 'no drift'} --")
    print(f"-- the full stream:  avg {sum(scores) / len(scores):.1f}, {'DRIFT' if alarms else 'no drift'} --\n")
    for alarm in alarms:
        print(f"drift: evidence {alarm.evidence:.0f} >= {SCORES_PER_FALSE_PAGE} against a mean of {FLOOR} or more,")
        print(
            f"       since {chosen[alarm.onset].request_id}; at most one false alarm in {SCORES_PER_FALSE_PAGE} scores"
        )

    fixed = [Answer(request_id=f"case-{i}", question=q, answer=a, contexts=PAGES) for i, (q, a) in enumerate(KNOWN)]
    gate = run_gate(fixed, [groundedness], pass_mark=FLOOR)
    print(f"gate:  {'passes' if gate.verdict is Verdict.OK else 'fails'}: {gate.reason}; it has no gift card question")


if __name__ == "__main__":
    main()
