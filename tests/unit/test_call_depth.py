"""How deep a body is nested is known before anything parses it, whatever stands in its strings, and at once."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from ostiary.gateway.call import is_too_deep

DEEPEST = 64
HOSTILE_S = 5.0
"""Far above what the slowest machine needs; a check that is not linear takes hours."""


def nested(depth: int, inner: str = "") -> bytes:
    return ("[" * depth + inner + "]" * depth).encode()


def mixed(depth: int) -> bytes:
    """Arrays and objects by turns, as JSON."""
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return json.dumps(value).encode()


@pytest.mark.parametrize("make", [nested, mixed])
def test_sixty_four_levels_are_allowed_and_no_more(make: Any) -> None:
    assert not is_too_deep(make(DEEPEST))
    assert is_too_deep(make(DEEPEST + 1))
    assert is_too_deep(make(DEEPEST * 8))


def test_many_flat_ones_are_not_deep() -> None:
    assert not is_too_deep(json.dumps([[{"a": []}]] * 500).encode())


def test_a_deep_one_is_found_among_many_flat_ones() -> None:
    flat = b"[]," * 100_000
    assert not is_too_deep(b"[" + flat + nested(DEEPEST - 1) + b"]")
    assert is_too_deep(b"[" + flat + nested(DEEPEST) + b"]")
    assert is_too_deep(b"[" + nested(DEEPEST) + b"," + flat + b"1]")


@pytest.mark.parametrize("text", ["[" * 200, "{" * 200, '"[' * 100, "\\" * 7 + "[" * 99, '\\"[{' * 99, "\n[\t{" * 90])
def test_brackets_in_strings_do_not_count(text: str) -> None:
    body = json.dumps([{"content": text}] * 40).encode()
    assert not is_too_deep(body)


@pytest.mark.parametrize("text", ["]" * 200, '"]' * 100, "\\", '\\"', "\\\\", "é\\", '"'])
def test_brackets_in_strings_do_not_hide_real_ones(text: str) -> None:
    inner = json.dumps(text, ensure_ascii=False)
    assert is_too_deep(("[" + f"{inner},[" * DEEPEST + "]" * (DEEPEST + 1)).encode())
    assert not is_too_deep(("[" + f"{inner},[" * (DEEPEST - 1) + "]" * DEEPEST).encode())


def test_a_string_across_the_pieces_in_which_a_long_body_is_read_is_one_string() -> None:
    for length in range(65_400, 65_560, 3):
        assert not is_too_deep(json.dumps(["x" * length + "[" * 200]).encode())
        assert is_too_deep(json.dumps(["x" * length]).encode()[:-1] + b"," + nested(DEEPEST) + b"]")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 65 + b'\\"' * 4_000_000,
        b"[" * 65 + b'"' + b"\\" * 8_000_001,
        b"[" * 10_000_000,
        b"[" * 65 + b'""' * 4_900_000,
        (b"[" * 64 + b"]" * 64) * 78_000,
        b"[" + b"{}," * 3_300_000 + b"1]",
    ],
    ids=["escaped-quotes", "backslashes", "open", "empty-strings", "hills", "flat"],
)
def test_ten_hostile_megabytes_are_judged_at_once(body: bytes) -> None:
    begun = time.process_time()
    is_too_deep(body)
    assert time.process_time() - begun < HOSTILE_S
