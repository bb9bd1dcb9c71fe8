"""Redaction: what goes, what stays, and that ids always stay."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsloop.event import Event
from opsloop.structured_logging import Logger, Pattern, Rules, redact
from opsloop.structured_logging.patterns import PATTERNS, iban_valid, luhn_valid
from opsloop.structured_logging.redact import DEFAULT_RULES, Tokens
from tests.strategies import events


def text(message):
    """Redact one message."""
    return redact(Event(ts_ns=0, event="log", message=message)).message


@pytest.mark.parametrize(
    ("message", "redacted"),
    [
        ("write to ann.b+x@mail.example.org!", "write to [EMAIL_1]!"),
        ("a@b.org, c@d.org, a@b.org", "[EMAIL_1], [EMAIL_2], [EMAIL_1]"),
        ("card 4111 1111 1111 1111.", "card [CARD_1]."),
        ("card 5500-0000-0000-0004", "card [CARD_1]"),
        ("amex 378282246310005", "amex [CARD_1]"),
        ("iban GB82 WEST 1234 5698 7654 32", "iban [IBAN_1]"),
        ("iban DE89370400440532013000", "iban [IBAN_1]"),
        ("call +49 30 1234567 or (555) 123-4567", "call [PHONE_1] or [PHONE_2]"),
        ("call +1-555-123-4567", "call [PHONE_1]"),
        ("key sk-proj-abcdefghij0123456789", "key [API_KEY_1]"),
        ("key ghp_" + "a1" * 18, "key [API_KEY_1]"),
        ("key AKIAIOSFODNN7EXAMPLE", "key [API_KEY_1]"),
        ("key xoxb-123456789012-abcdef", "key [API_KEY_1]"),
        ("Authorization: Bearer abc.def-123456", "Authorization: Bearer [BEARER_1]"),
        ("jwt eyJhbGciOi.eyJzdWIiOi.abcdef_123", "jwt [JWT_1]"),
        ('{"password": "hunter2", "n": 1}', '{"password": "[SECRET_1]", "n": 1}'),
        ("api_key=abc123 rest", "api_key=[SECRET_1] rest"),
        ("redis://user:pa55@host:6379", "redis://user:[PASSWORD_1]@host:6379"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "[PRIVATE_KEY_1]"),
    ],
)
def test_a_secret_becomes_a_token(message, redacted):
    """Each built-in pattern replaces the secret and leaves the rest of the line."""
    assert text(message) == redacted


@pytest.mark.parametrize(
    "message",
    [
        "card 4111 1111 1111 1112",
        "iban GB82 WEST 1234 5698 7654 33",
        "order 1767603600250000000 at 2026-01-05T09:00:00.250Z",
        "trace 4bf92f3577b34da6a3ce929d0e0e4736",
        "id 4111111111111111-a",
        "span 00f067aa0ba902b7 took 3000 ms on kb-prod-7",
        "version 1.2.3, 10.0.0.1:8080, 50 % of @team",
        "session_id=abc, tokens: 512, max_tokens=100",
        "a mask-like-word sk-ip and ghp_short",
    ],
)
def test_a_look_alike_stays(message):
    """A wrong check digit, a timestamp, a trace id or an ordinary word is no secret."""
    assert text(message) == message


def test_keys_are_compared_whole():
    """The value under a secret's exact name goes; session_id survives a rule for session."""
    rules = Rules().extended(keys=["session"])
    attributes = {
        "session": "s",
        "session_id": "s",
        "Set-Cookie": {"a": 1},
        "http.authorization": ["x"],
        "authorized": True,
        "nested": [{"password": "p", "password_hint": "none"}],
        "api_key": None,
    }
    assert redact(Event(ts_ns=0, event="log", attributes=attributes), rules).attributes == {
        "session": "[REDACTED]",
        "session_id": "s",
        "Set-Cookie": "[REDACTED]",
        "http.authorization": "[REDACTED]",
        "authorized": True,
        "nested": [{"password": "[REDACTED]", "password_hint": "none"}],
        "api_key": None,
    }


def test_ids_are_never_touched():
    """Id columns and attributes that are ids keep even what looks like a card or an address."""
    card, mail = "4111111111111111", "ann@example.org"
    event = Event(
        ts_ns=0, event="log", event_id=card, request_id=mail, trace_id=card, session_id=mail, user_id=mail, tenant=mail,
        attributes={"documents": [{"id": card, "content": card}], "order_id": card, "request_ids": [mail]},
    )  # fmt: skip
    expected = {**event.attributes, "documents": [{"id": card, "content": "[CARD_1]"}]}
    assert redact(event) == event.replace(attributes=expected)


def test_own_rules_are_tried_first():
    """A person's pattern comes before the built-in ones, and its check keeps what it refuses."""
    order = Pattern("ORDER", r"\b[0-9]{16}\b", check=lambda value: value.endswith("1"))
    event = Event(ts_ns=0, event="log", message="4111111111111111 5500000000000004")
    assert redact(event, Rules().extended(patterns=[order])).message == "[ORDER_1] [CARD_1]"
    with pytest.raises(re.error):
        Pattern("BAD", "(")


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
@settings(max_examples=20, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(data=st.data(), before=st.text(max_size=4), after=st.text(max_size=4))
def test_whatever_a_pattern_matches_has_its_sign(pattern, data, before, after):
    """The sign is asked first to save time, so it must stand in every text that the expression matches."""
    text = before + data.draw(st.from_regex(re.sub(r",4096|,8000", ",40", pattern.expression))) + after
    assert pattern.matches(text) == (pattern.compiled.search(text) is not None)


def test_the_letters_of_the_signs_have_no_other_case():
    """What an expression takes for a letter of a sign without looking at its case folds to that letter."""
    letters = "".join(sorted(set("bearerpasswpwdsecretkey_token")))
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    for letter in letters:
        assert {sign.casefold() for sign in re.findall(f"(?i:{letter})", every)} == {letter}


def test_ones_own_pattern_is_tried_without_a_sign():
    """A pattern of a person's own is tried on every text, and one with a sign only where that is."""
    rules = Rules().extended(patterns=[Pattern("ORDER", "ord[a-z]+"), Pattern("B", "b", sign=lambda text: "c" in text)])
    attributes = {"first": "ordering", "second": "b", "third": "bc"}
    cleaned = redact(Event(ts_ns=0, event="log", attributes=attributes), rules).attributes
    assert cleaned == {"first": "[ORDER_1]", "second": "b", "third": "[B_1]c"}


def test_a_value_has_one_token_throughout_a_request(memory, clock, ids):
    """The same address is the same token in every event of a request, and starts anew in the next."""
    log = Logger(memory, clock=clock, ids=ids)
    for first in ("a@b.org", "c@d.org"):
        with log.request(input=f"from {first}") as request:
            log.info("mail " + first)  # noqa: G003 - our logger takes a message, not a format
            log.info("mail x@y.org", note=first)
            request.set(status_code=200)
    lines = [(event.message, event.attributes) for event in memory if event.event == "log"]
    assert lines == [("mail [EMAIL_1]", {}), ("mail [EMAIL_2]", {"note": "[EMAIL_1]"})] * 2
    assert [e.attributes["input"] for e in memory if e.event == "request"] == ["from [EMAIL_1]"] * 2


@given(event=events)
def test_what_holds_no_secret_is_the_same_event(event):
    """Without anything to hide nothing is copied."""
    assert redact(event) is event


secrets = st.sampled_from(
    [
        "a@b.org",
        "4111 1111 1111 1111",
        "password=x",
        "Bearer abcdefgh1",
        "AKIAIOSFODNN7EXAMPLE",
        "GB82WEST12345698765432",
    ]
)


@given(parts=st.lists(secrets | st.text(max_size=6), max_size=6), joint=st.sampled_from([" ", "", ", ", '"']))
def test_redacting_twice_is_redacting_once(parts, joint):
    """What was redacted stays as it is, and the same input gives the same output."""
    event = Event(ts_ns=0, event="log", message=joint.join(parts), attributes={"input": parts, "secret": "x"})
    once = redact(event, DEFAULT_RULES, Tokens())
    assert once == redact(event, DEFAULT_RULES, Tokens())
    assert redact(once, DEFAULT_RULES, Tokens()) == once


@given(digits=st.text("0123456789", min_size=12, max_size=18))
def test_luhn_finds_one_check_digit(digits):
    """For any number exactly one last digit is right, and changing any single digit is noticed."""
    valid = [digits + last for last in "0123456789" if luhn_valid(digits + last)]
    assert len(valid) == 1
    number = valid[0]
    for place, digit in enumerate(number):
        changed = number[:place] + str((int(digit) + 1) % 10) + number[place + 1 :]
        assert not luhn_valid(changed)


@given(body=st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=11, max_size=30))
def test_iban_finds_its_check_digits(body):
    """The check digits 98 minus the remainder are right for any account (ISO 13616), and their neighbour is not."""
    value = int("".join(str(int(sign, 36)) for sign in f"{body}GB00"))
    check = 98 - value % 97
    assert iban_valid(f"GB{check:02d}{body}")
    assert not iban_valid(f"GB{check % 97 + 2:02d}{body}") or check % 97 + 2 == check


def test_a_long_text_costs_little():
    """No pattern runs away on long runs of what it likes: each is bounded."""
    for sign in ("a", "1 ", "a@", "A1 ", "eyJ", "+1", "password=", "://:", "sk-"):
        assert len(text(sign * 5_000)) > 0
