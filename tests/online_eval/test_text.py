"""Words, stems and sentences."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from opsloop.online_eval.text import bigrams, content_stems, sentences, stem, words


def test_words_of_scripts_without_spaces_are_their_signs():
    """Han, kana and Thai signs count one by one, so overlap and pairs mean something there; Latin stays whole."""
    assert words("GPT模型很好") == ["gpt", "模", "型", "很", "好"]
    assert words("It\u2019s größer") == ["it's", "größer"]


def test_a_suffix_goes_only_when_three_letters_stay():
    """The listed suffixes, in their order; a short word keeps its end."""
    given = ["surprisingly", "supposedly", "findings", "shipping", "carried", "cities", "refunded", "boxes", "quickly"]
    assert [stem(word) for word in given] == [
        "surpris",
        "suppos",
        "find",
        "shipp",
        "carr",
        "cit",
        "refund",
        "box",
        "quick",
    ]
    assert [stem(word) for word in ("as", "ring", "bed", "ally")] == ["as", "ring", "bed", "ally"]


def test_sentences_end_where_they_end():
    """At . ! ? before a space, at full-width forms, at line ends; not inside numbers or addresses."""
    text = "Pay 4.99 at a.example!  Now?\n\n- first\n好的。谢谢"
    assert [part.text for part in sentences(text)] == ["Pay 4.99 at a.example!", "Now?", "- first", "好的。", "谢谢"]


@given(st.text(max_size=200))
def test_sentences_cover_what_is_not_blank(text):
    """Each sentence stands where it says, in order, without overlap, and no word is lost."""
    parts = sentences(text)
    assert all(text[part.start : part.end] == part.text != "" for part in parts)
    assert all(a.end <= b.start for a, b in pairwise(parts))
    assert "".join("".join(part.text.split()) for part in parts) == "".join(text.split())


@given(st.text(max_size=200))
def test_any_text_can_be_read(text):
    """Counts fit together: pairs are one fewer than words, content words are no more than words."""
    tokens = words(text)
    assert len(bigrams(tokens)) == max(0, len(tokens) - 1)
    assert len(content_stems(tokens)) <= len(tokens)
