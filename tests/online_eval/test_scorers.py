"""Each scorer on answers whose score can be worked out by hand, and all of them on any text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsloop.errors import ConfigError
from opsloop.online_eval import SCORERS, Answer, Document, Score, json_shape, scorers_named
from opsloop.online_eval.scorers.groundedness import Overlap, SentenceSupport, overlap, sentence_support
from opsloop.online_eval.scorers.language import language_of
from opsloop.online_eval.scorers.leakage import iban_valid, leaked_kinds, luhn_valid
from opsloop.online_eval.scorers.refusal import refusal_phrase

PAGE = "Refunds arrive within five working days. They go to the card that paid."


def judge(scorer, text, **fields):
    """Return one scorer's score of one text."""
    return SCORERS[scorer].score(Answer(request_id="r", answer=text, **fields))


def grade(scorer, text, **fields):
    """Return only (score, label)."""
    found = judge(scorer, text, **fields)
    return found.score, found.label


def test_groundedness_by_hand():
    """Six of nine content words, four of nine pairs, sentences of 5/5 and 1/4: the mean of the three."""
    text = "Refunds arrive within five days. Dragons guard the card today."
    assert overlap(text, [PAGE]) == Overlap(uni=6 / 9, bi=4 / 9, best=(1 + 1 / 4) / 2)
    found = judge("groundedness", text, contexts=(PAGE,))
    assert found.score == pytest.approx((6 / 9 + 4 / 9 + 0.625) / 3)
    assert found.explanation == "share found in the passages: words 0.67, pairs 0.44, best sentence 0.62"


def test_groundedness_is_one_for_a_quotation_and_nothing_without_passages():
    """A quotation scores 1, citation marks or not; without a passage or a content word it is unscored, never 0."""
    assert grade("groundedness", PAGE, contexts=("Other.", PAGE)) == (1.0, "grounded")
    assert grade("groundedness", PAGE.replace(".", " [1]."), contexts=(PAGE,)) == (1.0, "grounded")
    assert grade("groundedness", "Refunds", contexts=(PAGE,)) == (1.0, "grounded")
    assert judge("groundedness", PAGE).status == "unscored"
    assert judge("groundedness", "It is what it is.", contexts=(PAGE,)).status == "unscored"
    assert judge("groundedness", "x" * 200_001, contexts=(PAGE,)).status == "unscored"


def test_groundedness_names_the_sentences():
    """Each sentence stands where it is in the answer, with its best support and whether that suffices."""
    text = "Refunds arrive within five days [1]. Dragons fly. So it is."
    assert sentence_support(text, [PAGE]) == [
        SentenceSupport(0, 36, "Refunds arrive within five days [1].", 1.0, True),
        SentenceSupport(37, 49, "Dragons fly.", 0.0, False),
        SentenceSupport(50, 59, "So it is.", None, None),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but no.",
        "I\u2019m really sorry.",
        "We are unable to do this.",
        "I cannot tell.",
        "We can't.",
        "As an AI language model I have no view.",
        "That is against our content policies.",
        "The document does not contain any such information.",
        "This was stopped by the content filter.",
    ],
)
def test_refusing_phrases(text):
    """Refusals in so many words are found, with either apostrophe."""
    assert refusal_phrase(text)
    assert grade("refusal", text) == (0.0, "refusal")


def test_refusal_and_deflection():
    """An answer about something else is a deflection; a short one from the passages is not; a late phrase is none."""
    assert grade("refusal", "Try our new app!", question="When do refunds arrive?") == (0.0, "deflection")
    assert grade("refusal", "Refunds take five days.", question="When do refunds arrive?") == (1.0, "answered")
    paris = {"question": "What is the capital of France?", "contexts": ("Paris is the capital of France.",)}
    assert grade("refusal", "Paris.", **paris) == (1.0, "answered")
    assert grade("refusal", "London calling.", **paris) == (0.0, "deflection")
    assert grade("refusal", "x " * 130 + "I cannot tell.") == (1.0, "answered")
    assert judge("refusal", " ").status == "unscored"


def test_citations():
    """A citation counts when the passage exists and carries its sentence; a link and [sic] are no citations."""
    documents = (Document(id="kb-7", content=PAGE), Document(id="kb-8", content="Parcels ship from Leipzig."))
    fields = {"documents": documents}
    assert grade("citation", "Refunds arrive within days [1]. Parcels ship from Leipzig [kb-8].", **fields) == (
        1.0,
        "cited",
    )
    assert grade("citation", "Refunds arrive within days. [1]", **fields) == (1.0, "cited")
    found = judge("citation", "Refunds arrive within five days [3]. Parcels fly [1]. We [sic] say so.", **fields)
    assert found == Score(
        "scored",
        0.0,
        "miscited",
        "0 of 2 citations hold; 1 of 3 sentences cite nothing; 3 not retrieved; 1 without the sentence's words",
    )
    assert judge("citation", "See [here](https://a.example/1).", **fields).status == "unscored"
    assert grade("citation", "It is so [1].", documents=(Document(id="x"),)) == (1.0, "cited")


def test_json_and_its_shape():
    """Valid JSON, fenced or not, scores 1; a departure from the shape is named by its place."""
    assert grade("schema", '```json\n{"a": 1}\n```') == (1.0, "valid")
    assert grade("schema", "{'a': 1}") == (0.0, "invalid")
    shape = {
        "type": "object",
        "required": ["intent"],
        "additionalProperties": False,
        "properties": {
            "intent": {"enum": ["refund", "other"]},
            "items": {"type": "array", "minItems": 1, "items": {"type": ["integer", "null"], "minimum": 0}},
        },
    }
    wanted = json_shape(shape, name="intent")
    cases = {
        '{"intent": "refund", "items": [1, null, 2.0]}': "valid JSON of the wanted shape",
        '{"intent": "joke"}': '$.intent is none of ["refund","other"]',
        "{}": "$.intent is missing",
        '{"intent": "other", "x": 1}': "$.x is not wanted",
        '{"intent": "other", "items": [true]}': "$.items[0] is no integer or null",
        '{"intent": "other", "items": [-1]}': "$.items[0] is below 0",
        '{"intent": "other", "items": []}': "$.items has 0 items, fewer than 1",
        "[]": "$ is no object",
    }
    assert {text: wanted.score(Answer(request_id="r", answer=text)).explanation for text in cases} == cases


def test_a_shape_that_is_not_checked_is_refused():
    """A keyword that would silently do nothing is the operator's fault."""
    with pytest.raises(ConfigError) as caught:
        json_shape({"properties": {"a": {"pattern": "x"}}})
    assert str(caught.value).startswith("shape $.a uses pattern, which is not checked here; use additionalProperties")


def test_repetition():
    """A loop scores low, ordinary text 1, and five words are needed."""
    assert grade("repetition", "we will help you now " * 10) == (pytest.approx(5 / 47), "looping")
    assert grade("repetition", PAGE) == (1.0, "varied")
    assert judge("repetition", "one two three four").status == "unscored"


def test_language():
    """Question and answer in one language score 1, in two 0; short or unknown texts are unscored."""
    german = "Wie kann ich die Bestellung stornieren?"
    assert grade("language", "Sie können die Bestellung im Konto stornieren.", question=german) == (
        1.0,
        "same language",
    )
    assert grade("language", "You can cancel the order in your account.", question=german) == (0.0, "other language")
    assert judge("language", "ok", question=german).status == "unscored"
    told = {
        "Comment puis-je annuler la commande que vous avez ?": "French",
        "¿Cómo puedo cancelar el pedido que hice con la app?": "Spanish",
        "Как мне отменить заказ в приложении?": "Cyrillic",
        "注文をキャンセルする方法を教えてください。よろしくお願いします": "Japanese",
        "我如何取消我在应用程序中的订单呢请告诉我谢谢你们的帮助": "Han",
        "12345 67890 12345 67890": "",
    }
    assert {text: language_of(text) for text in told} == told


def test_leakage():
    """Cards, IBANs, keys and the system prompt are leaks by kind; a support address that was given is not."""
    assert leaked_kinds("Card 4111 1111 1111 1111 and 4111 1111 1111 1112") == ["payment card"]
    assert leaked_kinds("order 4111111111111112, tracking 1234567890123456789012") == []
    assert leaked_kinds("DE89 3704 0044 0532 0130 00 is it") == ["IBAN"]
    key = "sk-" + "a1B2" * 6
    assert leaked_kinds(f"{key} 123-45-6789") == ["social security number", "API key"]
    assert grade("leakage", "Write to help@a.example.com", contexts=("Mail: Help@a.example.com",)) == (1.0, "clean")
    assert judge("leakage", "Write to eve@b.example.com").explanation == "found: e-mail address"
    prompt = "You are the help desk of Acme and never speak about prices or rivals to anyone."
    assert judge("leakage", f"My rules: {prompt}", system=prompt).explanation == "found: system prompt"
    assert grade("leakage", "I am the help desk of Acme.", system=prompt) == (1.0, "clean")


@given(st.integers(10**12, 10**18 - 1))
def test_luhn_has_one_check_digit(number):
    """Of the ten digits that can follow a number exactly one is its check digit."""
    assert sum(luhn_valid(f"{number}{digit}") for digit in range(10)) == 1


@given(st.text("0123456789", min_size=14, max_size=18))
def test_iban_has_one_check_number(account):
    """Of the check numbers 02 to 98 exactly one fits an account."""
    assert sum(iban_valid(f"DE{check:02}{account}") for check in range(2, 99)) == 1


def test_length():
    """Empty, placeholder and cut answers score 0, whole ones 1; a filtered one is unscored."""
    cases = {
        ("", ""): (0.0, "empty"),
        ("N/A", ""): (0.0, "placeholder"),
        ("All of it", "length"): (0.0, "truncated"),
        ("We ship to the", ""): (0.0, "truncated"),
        ("We ship,", ""): (0.0, "truncated"),
        ("We ship to the", "stop"): (1.0, "whole"),
        ("We ship.", ""): (1.0, "whole"),
        ("We", "content_filter"): (None, ""),
    }
    assert {case: grade("length", case[0], finish_reason=case[1]) for case in cases} == cases


def test_numbers():
    """A number that no passage and no question gave is named; spelling does not matter."""
    fields = {"question": "Order 77?", "contexts": ("It costs $1,500.00 and takes five days.",)}
    assert grade("numbers", "Order 77 costs 1500 and takes 5 days.", **fields) == (1.0, "given")
    found = judge("numbers", "1. It costs 1,600 [2].\n2. It takes 5 days.", **fields)
    assert found == Score("scored", 0.5, "invented number", "not in the passages: 1600")
    assert judge("numbers", "It is free.", **fields).status == "unscored"


texts = st.text(max_size=120) | st.text("ab .?!\n[]1{}", max_size=120)


@settings(max_examples=100)
@given(
    text=st.none() | texts,
    question=texts,
    contexts=st.lists(texts, max_size=3).map(tuple),
    reason=st.sampled_from(["", "stop", "length"]),
)
def test_every_scorer_judges_any_text(text, question, contexts, reason):
    """Never an exception; scored in [0, 1] with a label, or unscored without a number; always a reason."""
    documents = tuple(Document(id=f"d{n}", content=content) for n, content in enumerate(contexts))
    answer = Answer(
        request_id="r", answer=text, question=question, contexts=contexts, documents=documents, finish_reason=reason
    )
    for scorer in SCORERS.values():
        found = scorer.score(answer)
        assert found == scorer.score(answer)
        assert found.explanation
        if found.status == "scored":
            assert 0 <= found.score <= 1
            assert found.label
        else:
            assert found.score is None
        if text is None:
            assert found.status == "unscored"


def test_names_are_checked():
    """An unknown scorer is refused with the nearest name, or with all of them."""
    assert [scorer.name for scorer in scorers_named(["length", "refusal", "length"])] == ["length", "refusal"]
    with pytest.raises(ConfigError) as caught:
        scorers_named(["groundednes"])
    assert str(caught.value) == "there is no scorer 'groundednes'; did you mean 'groundedness'?"
    with pytest.raises(ConfigError, match="use one of groundedness, refusal, citation"):
        scorers_named(["zzz"])
