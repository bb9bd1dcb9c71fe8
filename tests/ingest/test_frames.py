"""Content in frames: the definition is asked once for each, and says the same."""

from __future__ import annotations

import json
from itertools import chain

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opsloop.ingest import content
from opsloop.ingest.content import ContentReader
from opsloop.ingest.frames import said_in

NAMES = [*content.NAMES, *(f"{name}.0.content" for name in (*content.INDEXED_INPUT, *content.INDEXED_OUTPUT))]
WAYS = {getattr(way, "__name__", "by a path"): way for of in ContentReader(NAMES).ways("llm").values() for way, _ in of}
HOLE = "HOLE"

texts = st.text(max_size=4) | st.sampled_from(
    ["user", "text", "x" * 60, 'say "hi"', "a\\b", "\\", '"', 'a","b', "one\ntwo", "größe 😀", "[]", "{}", "null",
     '["x"]', '"x"', '{"model":"m","input":"x"}', "\x00", "\x7f", "\u2028", r"\u0041", r"\ud800", r"\n", "\ufeff"]
)  # fmt: skip
keys = st.sampled_from(
    ["role", "parts", "type", "content", "text", "name", "arguments", "function", "tool_calls", "messages", "choices",
     "message", "model", "input", "finish_reason"]
)  # fmt: skip
strings = st.just(HOLE) | st.sampled_from(["user", "assistant", "system", "text", "tool_call", "", "x" * 40]) | texts
leaves = strings | st.sampled_from([None, True, 7, -0.0, 1e300])
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(keys, inner), max_size=4).map(tuple),
    max_leaves=12,
)


def said(way, values):
    """Return what each of some values says."""
    values = [*values]
    groups = [(places.tolist(), texts.to_pylist()) for places, texts in said_in(way, pa.array(values, pa.string()))]
    found = dict(chain.from_iterable(zip(places, texts, strict=True) for places, texts in groups))
    assert sum(len(places) for places, _ in groups) == len(found)
    return [found[place] for place in range(len(values))]


def objects(*required, **optional):
    """Return a strategy of objects, as tuples of items in any order, with items twice now and then."""
    one = [st.lists(st.tuples(st.just(name), value), min_size=1, max_size=1) for name, value in required]
    any_ = [st.lists(st.tuples(st.just(name), value), max_size=2) for name, value in optional.items()]
    return st.tuples(*one, *any_).map(lambda lists: [*chain(*lists)]).flatmap(st.permutations).map(tuple)


roles = st.sampled_from(["user", "assistant", "system", HOLE]) | leaves
kinds = st.sampled_from(["text", "tool_call", "function", "reasoning"]) | leaves
parts = st.lists(objects(("type", kinds), ("content", strings), text=leaves, name=leaves, arguments=trees), max_size=3)
messages = st.lists(
    objects(("role", roles), parts=parts | strings, content=strings, finish_reason=leaves, tool_calls=parts), max_size=3
)
requests = objects(("messages", messages), model=strings) | objects(("model", strings), ("input", strings))
answers = objects(("choices", st.lists(objects(("message", messages.map(lambda many: many[0] if many else None))))))
frames = messages | messages | requests | answers | st.lists(strings, max_size=2) | trees


def written(tree, separators, plain):
    """Return the JSON of a tree whose objects are tuples of items."""
    comma, colon = separators
    match tree:
        case tuple():
            inside = [f"{json.dumps(key)}{colon}{written(value, separators, plain)}" for key, value in tree]
            return "{" + comma.join(inside) + "}"
        case list():
            return "[" + comma.join([written(item, separators, plain) for item in tree]) + "]"
    return json.dumps(tree, ensure_ascii=not plain)


@st.composite
def columns(draw):
    """Return values of one attribute: a few frames, and in these any texts, written well or badly."""
    separators = draw(st.sampled_from([(", ", ": "), (",", ":"), (",\n ", " : ")]))
    around = [written(draw(frames), separators, draw(st.booleans())) for _ in range(draw(st.integers(1, 2)))]
    values = []
    for _ in range(draw(st.integers(1, 12))):
        text = draw(texts)
        inside = draw(st.sampled_from([json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], text]))
        value = draw(st.sampled_from(around)).replace(HOLE, inside)
        cut = draw(st.integers(0, len(value)) | st.none() | st.none())
        values.append(draw(st.sampled_from(["", "", "", " "])) + value[:cut] + draw(st.sampled_from(["", "", "", "]"])))
    return values


@settings(max_examples=300)
@given(name=st.sampled_from(sorted(WAYS)), values=columns())
@example(name="_reason", values=['["a"]', '["[7]"]', '["null"]'])
@example(name="_spoken_by_user", values=['"a"', '"[]"', '"null"'])
def test_a_value_in_a_frame_says_what_the_definition_says(name, values):
    """Whatever the values of an attribute, and in whatever order they come, each says what it says alone."""
    way = WAYS[name]
    assert said(way, values) == [way(value) for value in values]


@pytest.mark.parametrize(
    ("framed", "other"),
    [
        ('[{"role": "user", "content": "Hi"}]', '[{"role": "tool", "content": "Hi"}]'),
        ('[{"content": "Hi", "role": "user"}]', '[{"content": "Hi", "role": "tool"}]'),
        ('[{"role": "user", "content": "Hi"}]', '[{"role": "user", "content": "}]'),
        ('[{"role": "user", "content": "Hi"}]', '[{"role": "user", "content": "a"b"}]'),
        ('[{"role": "user", "content": "Hi"}]', '[{"role": "user", "content": "a\\"}]'),
        ('[{"role": "user", "content": "Hi"}]', '[{"role": "user", "content": "a\nb"}]'),
        ('[{"role": "user", "content": "Hi"}]', '[{"role": "user", "content": "\\ud800"}]'),
        ('[{"role": "user", "content": "Hi"}]', '[{"role": "user", "content": "a", "role": "tool", "name": "b"}]'),
        ('[{"role": "user", "content": "Hi"}]', '[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]'),
        ('[{"role": "user", "content": "a"}, {"content": "b"}]', '[{"role": "user", "content": "a"}, {"content": ""}]'),
    ],
)
def test_what_only_looks_like_a_frame_is_left_to_the_definition(framed, other):
    """What begins and ends much as a frame does is in it only if a string that is not empty stands between."""
    way = WAYS["_asked"]
    assert said(way, [framed, other]) == [way(framed), way(other)]


def test_of_two_frames_a_value_is_in_its_own():
    """Where another frame's text would begin, a value may have a quote within its own."""
    longer, shorter = '[{"role": "user", "name": "a", "content": "', '[{"role": "user", "content": "'
    quoting = "-" * (len(longer) - len(shorter) - 2) + '\\"Yes'
    values = [f'{before}{text}"}}]' for before, text in ((longer, "Hi"), (shorter, "Hi"), (shorter, quoting))]
    assert said(WAYS["_asked"], values) == ["Hi", "Hi", quoting.replace("\\", "")]


def test_a_value_that_is_made_to_deceive_makes_no_frame():
    """Where a value's role says the same as its text, and another of its texts what is put there, that is no frame."""
    for size in range(1, 200):
        first, *_ = values = [
            f'[{{"role":"user","content":"{"x" * size}"}},{{"content":"user","role":"{role}"}}]'
            for role in ("user", "tool")
        ]
        assert size < len(first)
        assert said(WAYS["_asked"], values) == ["user", "x" * size]


@pytest.mark.parametrize(
    "around",
    [
        lambda text: json.dumps([{"role": "user", "parts": [{"type": "text", "content": text}]}]),
        lambda text: json.dumps(
            [{"role": "user", "parts": [{"content": text, "type": "text"}]}], separators=(",", ":")
        ),
        lambda text: json.dumps([{"parts": [{"type": "text", "content": text}], "role": "user"}], ensure_ascii=False),
        lambda text: json.dumps([{"role": "system", "content": "Be kind."}, {"role": "user", "content": text}]),
        lambda text: json.dumps([{"role": "user", "content": text}, {"role": "assistant", "content": "And?"}]),
    ],
)
def test_the_definition_is_asked_once_for_a_frame(around):
    """In whichever way an SDK writes a message, a hundred of them take the definition no more than a few looks."""
    asked = []

    def way(value):
        asked.append(value)
        return WAYS["_asked"](value)

    texts = [f'Größe {number}\n"{number}"' for number in range(100)]
    assert said(way, map(around, texts)) == texts
    assert len(asked) <= 3
