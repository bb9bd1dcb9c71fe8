"""The fingerprint: what is the same when a failure comes back, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsloop.errors import ConfigError
from opsloop.improvement.fingerprint import MASKS, Signature, fingerprint, mask_message, new_mask, preview

TIMED_OUT = "retrieve timed out after 3000ms for index kb-prod-7 (attempt 2 of 3)"
TIMED_OUT_AGAIN = "retrieve timed out after 2750ms for index kb-prod-9 (attempt 3 of 3)"


def timeout(message):
    """Build the signature of a retrieval that timed out."""
    return Signature(
        service="support",
        route="support.answer",
        stage="retrieve",
        failure_class="timeout_or_budget_exhaustion",
        signal="errors",
        error_type="TimeoutError",
        message=message,
    )


def test_the_golden_fingerprint():
    """Version 1 is frozen: this failure has this hash, whatever its numbers are."""
    assert mask_message(TIMED_OUT) == "retrieve timed out after <id> for index <id> (attempt <id> of <id>)"
    assert fingerprint(timeout(TIMED_OUT)) == "fp1:2cdfd497ce94125f"
    assert fingerprint(timeout(TIMED_OUT_AGAIN)) == "fp1:2cdfd497ce94125f"


@pytest.mark.parametrize(
    ("message", "masked"),
    [
        ("ids 1, 2, 3 missing in deadbeefcafe", "ids <id> missing in <id>"),
        ("GET https://kb.example/a?b=1 failed", "GET <url> failed"),
        ("no mailbox for bob.b+x@mail.example.org here", "no mailbox for <email> here"),
        ("tool 'lookup' said \"no such order\"", "tool <str> said <str>"),
        ("can't open it, won't retry", "can't open it, won't retry"),
        ("cannot read /srv/kb/article.txt", "cannot read <path>"),
        ("limit=high, mode=strict; (size=big)", "limit=<val>, mode=<val>; (size=<val>)"),
        ("order A-17:9 and run_5#b", "order <id> and <id>"),
        ("  many \n spaces\t ", "many spaces"),
        ("'a'|'b' , 'c'", "<str>"),
        ("", ""),
    ],
)
def test_each_mask(message, masked):
    """Every mask takes what it is for and leaves the words around it."""
    assert mask_message(message) == masked


words = st.lists(st.sampled_from(["index", "missing", "after", "for", "tool"]), min_size=1, max_size=5)


@given(words, st.integers(0, 10**9), st.integers(0, 10**9))
def test_numbers_never_matter(words, one, two):
    """Two messages that differ in a number are one kind of failure."""
    left, right = (timeout(f"{' '.join(words)} {n}ms {' '.join(words)}") for n in (one, two))
    assert fingerprint(left) == fingerprint(right)


@given(st.text(max_size=200))
def test_masking_any_text_leaves_no_digit(message):
    """Whatever comes in, no number is left to make two failures differ."""
    assert not any(letter.isdecimal() for letter in mask_message(message))


def test_a_long_message_is_masked_in_linear_time():
    """A megabyte of one token does not hang the worker that reads it."""
    assert mask_message("z" * 200_000) == "z" * 200_000
    assert mask_message("." * 100_000 + "1") == "<id>"
    assert mask_message("x@" * 40_000) == "x@" * 40_000
    assert mask_message("a/" * 50_000) == "<path>"


@pytest.mark.parametrize("field", ["service", "route", "stage", "signal", "error_type", "finish_reason", "message"])
def test_every_field_of_the_kind_counts(field):
    """A failure elsewhere, or noticed otherwise, is another kind."""
    changed = {name: getattr(timeout("x"), name) for name in Signature.__struct_fields__} | {field: "other"}
    assert fingerprint(Signature(**changed)) != fingerprint(timeout("x"))


def test_a_new_mask_is_previewed_before_it_is_used():
    """The preview says which groups would be joined, split or only renamed, so nobody merges by accident."""
    past = [Signature(message=text) for text in ("order ORD_A lost", "order ORD_B lost", "cart CRT_X lost", "plain")]
    change = preview(past, after=(new_mask("order", "ORD_[A-Z]"), new_mask("cart", "CRT_[A-Z]"), *MASKS))
    old = sorted(fingerprint(signature) for signature in past[:2])
    assert list(change.joined.values()) == [tuple(old)]
    assert (change.split, change.renamed, change.unchanged) == ({}, 1, 1)
    back = preview(past, before=(new_mask("order", "ORD_[A-Z]"), *MASKS), after=MASKS)
    assert [len(new) for new in back.split.values()] == [2]


@pytest.mark.parametrize(("name", "pattern"), [("Order", "x"), ("order", "("), ("order", "x*")])
def test_a_mask_that_cannot_work_is_refused(name, pattern):
    """A bad name, a broken pattern and one that matches nothing at all are named as such."""
    with pytest.raises(ConfigError, match="mask"):
        new_mask(name, pattern)
