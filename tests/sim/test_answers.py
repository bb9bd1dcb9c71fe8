"""What the bot knows, finds and says."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.clock import seeded
from opsloop.errors import InputError
from opsloop.online_eval import SCORERS, Answer, Document
from opsloop.sim import Consultation, answer, consult
from opsloop.sim.answers import REFUSAL, compose_answer, compose_search, invent_answer, truncate
from opsloop.sim.knowledge import ARTICLES
from opsloop.sim.questions import FOLLOW_UPS, OFF_TOPIC, QUESTIONS, UNSAFE
from opsloop.sim.retrieval import relevance, retrieve, stems

ASKED = [(article, q) for source in (QUESTIONS, FOLLOW_UPS) for article, asked in source.items() for q in asked]


def scores(question, output, documents):
    """Return the offline scores of one answer."""
    contexts = tuple(document.article.text for document in documents)
    passages = tuple(Document(id=d.article.id, content=d.article.text, score=d.score) for d in documents)
    given_answer = Answer(
        request_id="r", question=question, answer=output, contexts=contexts, documents=passages, finish_reason="stop"
    )
    return {
        name: SCORERS[name].score(given_answer).score for name in ("groundedness", "refusal", "citation", "numbers")
    }


def test_the_knowledge_base_is_whole():
    """25 articles with ids of their own and facts with numbers; each has its questions and a follow-up."""
    assert len({article.id for article in ARTICLES}) == len(ARTICLES) == 25
    for article in ARTICLES:
        assert len(article.sentences) >= 4
        assert len(re.findall(r"\d", " ".join(article.sentences))) >= 3
        assert all(sentence.endswith(".") for sentence in article.sentences)
    ids = {article.id for article in ARTICLES}
    assert set(QUESTIONS) == set(FOLLOW_UPS) == ids
    assert len(ASKED) == len({question for _, question in ASKED}) >= 85


@pytest.mark.parametrize(("article_id", "question"), ASKED)
def test_each_question_finds_its_article_and_a_grounded_answer(article_id, question):
    """The article comes first, and the answer made from it passes the offline scorers."""
    documents = retrieve(question)
    assert documents[0].article.id == article_id
    for sentences in (2, 3):
        found = scores(question, compose_answer(question, documents, sentences), documents)
        assert found["groundedness"] >= 0.8
        assert (found["refusal"], found["citation"]) == (1.0, 1.0)
        assert found["numbers"] in {1.0, None}


@pytest.mark.parametrize(("article_id", "question"), ASKED[::3])
def test_an_invented_answer_is_not_grounded(article_id, question):
    """Whatever is invented, its support in the contexts is far below that of a grounded answer."""
    documents = retrieve(question)
    assert documents[0].article.id == article_id
    for seed in range(5):
        output = invent_answer(documents, seeded(seed))
        found = scores(question, output, documents)
        assert found["groundedness"] < 0.3
        assert re.search(r"\d", output)
        assert f"[{min(2, len(documents))}]" in output


@pytest.mark.parametrize("question", OFF_TOPIC)
def test_what_no_article_answers_is_refused(question):
    """An off-topic question gets the refusal, whatever weak documents were found."""
    assert compose_answer(question, retrieve(question)) == REFUSAL


def test_a_search_lists_its_documents():
    """The hit list has each title with its first sentence, numbered."""
    assert compose_search(retrieve("How do I pair a terminal with a code?")) == (
        "[1] Point of sale terminals. Pair a terminal with the 6 digit code shown under Sales, Terminals.\n"
        "[2] Failed payments and retries. A failed payment is retried 4 times, after 1, 3, 5 and 7 days.\n"
        "[3] Discount codes. A discount code has 4 to 24 characters and can take off a percentage or a fixed amount."
    )
    assert compose_search(()) == REFUSAL


@given(st.text(max_size=60), st.text(max_size=60))
def test_relevance_is_a_share(question, text):
    """The score lies in [0, 1]: 1 for a text that holds every word, 0 for one that holds none."""
    asked, words = stems(question), frozenset(stems(text))
    score = relevance(asked, words)
    assert 0 <= score <= 1
    assert relevance(asked, frozenset(asked)) == (1 if asked else 0)
    assert (score == 0) == (not set(asked) & words)


@given(st.text(min_size=1, max_size=80), st.floats(0.01, 0.99))
def test_a_truncated_text_is_a_beginning(text, share):
    """What is left is a non-empty beginning, no longer than the share."""
    cut = truncate(text, share)
    assert text.startswith(cut)
    assert 1 <= len(cut) <= max(1, round(len(text) * share))


def test_the_target_answers_the_same_every_time():
    """The whole answer of a guard's target, from a text and from a guard's variables."""
    expected = {
        "output": (
            "A return label costs 4.90 euros and is taken from the refund unless the item is faulty [1]. "
            "Create a return label under Orders, Returns; it is valid for 21 days [1]."
        ),
        "finish_reason": "stop",
    }
    assert answer("What does a return label cost?") == expected
    assert answer({"question": "What does a return label cost?"}) == expected
    assert consult("What does a return label cost?").contexts[0] == ARTICLES[15].text


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (None, (200, "", "stop")),
        ("slow_model", (200, "", "stop")),
        ("retriever_outage", (503, "TimeoutError", "")),
        ("tenant_spike", (429, "rate_limited", "")),
        ("upstream_429", (503, "upstream_429", "")),
        ("bad_release", (500, "KeyError", "")),
        ("hallucination_drift", (200, "", "stop")),
        ("malformed_output", (200, "", "length")),
    ],
)
def test_the_target_fails_as_the_bot_does(fault, outcome):
    """Under each fault the target has the bot's status and class, and no output where there is none."""
    question = "How long is a gift card valid?"
    found = consult(question, fault=fault)
    assert isinstance(found, Consultation)
    assert (found.status_code, found.error_type, found.finish_reason) == outcome
    assert bool(found.output) == (found.status_code == 200)
    healthy = consult(question).output
    assert (found.output == healthy) == (fault in {None, "slow_model"})
    if fault == "malformed_output":
        assert healthy.startswith(found.output)


def test_the_target_blocks_what_the_guardrail_blocks():
    """An unsafe question is blocked with the finish reason of a content filter."""
    assert [answer(question)["finish_reason"] for question in UNSAFE] == ["content_filter", "content_filter"]


def test_the_target_refuses_what_it_does_not_know():
    """An unknown fault and a missing question are named, with what to do."""
    with pytest.raises(InputError, match=r"^unknown fault 'fire'; use one of retriever_outage, "):
        answer("How long?", fault="fire")
    with pytest.raises(InputError, match=r"^the variables hold no question; hand in "):
        answer({"prompt": "How long?"})
