"""Names and addresses: what is taken, and how it is spelled from then on."""

from __future__ import annotations

import pytest

from ostiary.names import checked_email, checked_name, sought_name
from tests.people import refused


@pytest.mark.parametrize(
    ("text", "name"),
    [("ci", "ci"), ("  ci \n", "ci"), ("cafe\u0301", "café"), ("日本 ✓", "日本 ✓"), ("x" * 200, "x" * 200)],
)
def test_a_name_is_kept_in_one_spelling(text: str, name: str) -> None:
    assert checked_name(text) == sought_name(text) == name


@pytest.mark.parametrize(
    "text",
    ["", " ", "\t", "a\0b", "a\nb", "a\x1b[31m", "a\x7f", "\ud800", "\u202etxt.exe", "a\u200bb", "a\u2028b", "x" * 201],
)
def test_what_no_eye_can_read_is_no_name(text: str) -> None:
    with refused("invalid_field", "name"):
        checked_name(text)
    assert sought_name(text) is None


@pytest.mark.parametrize("text", ["alice@example.org", " Alice@Example.ORG\n"])
def test_an_address_is_kept_in_lower_case(text: str) -> None:
    assert checked_email(text) == "alice@example.org"


@pytest.mark.parametrize(
    "text", ["", "x", "@", "a@", "@b", "a b@example.org", "a\0@b.c", "a\n@b.c", "\ud800@b.c", "x" * 320 + "@b.c"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with refused("invalid_field", "email"):
        checked_email(text)
