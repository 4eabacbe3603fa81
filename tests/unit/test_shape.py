"""What is said of how keys look: what they begin with, or are made of, and that one looks otherwise."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ostiary.providers import catalog, shape
from ostiary.providers.provider import Probe, Provider
from ostiary.secret import Secret

ROW = Provider("acme", "Acme", ("llm",), None, Probe("/models"), key_shape="acme-[a-z0-9]{8}")


@pytest.mark.parametrize(
    ("pattern", "begins"),
    [
        ("gsk_[a-zA-Z0-9]{52}", ("gsk_",)),
        ("sk-(?:(?:proj|svcacct)-[A-Za-z]+|[A-Za-z0-9]+)T3BlbkFJ", ("sk-",)),
        (r"(?:AIzaSy[A-Za-z0-9_-]{33}|AQ\.[A-Za-z0-9_-]{20,})", ("AIzaSy", "AQ.")),
        ("(?:hf_|api_org_)[a-zA-Z0-9]{34}", ("hf_", "api_org_")),
        ("hf_[a-z]+|api_[a-z]+", ("hf_", "api_")),
        ("(?:a|(?:b|c)d)e", ()),
        (r"dapi[0-9a-f]{32}(?:-\d)?", ("dapi",)),
        ("abc?d", ("ab",)),
        ("abc{2}", ("ab",)),
        ("(?:ab-|cd-)?ef", ()),
        ("(?:sk_[a-f0-9]{48}|[a-f0-9]{32})", ()),
        ("[a|b]{2}-x", ()),
        (r"a\|b-[c)]x|d[|]", ("a", "d")),
        (r"a\.?b", ("a",)),
        ("[a-f0-9]{32}", ()),
        ("", ()),
    ],
)
def test_what_keys_begin_with(pattern: str, begins: tuple[str, ...]) -> None:
    re.compile(pattern)
    assert shape.openings(pattern) == begins


def test_a_hint_is_in_words() -> None:
    assert shape.hint(ROW) == "Keys of Acme usually begin with 'acme-'."
    assert shape.hint(replace(ROW, key_shape="a-[b]|c-[d]")) == "Keys of Acme usually begin with 'a-' or 'c-'."
    said = shape.hint(replace(ROW, key_shape="[a-f0-9]{32}"))
    assert said == "Keys of Acme usually are 32 lower-case hexadecimal digits."
    said = shape.hint(replace(ROW, key_shape="(?:sk_[a-f0-9]{48}|[a-f0-9]{32}|[a-zA-Z0-9]{20})"))
    kinds = "32 lower-case hexadecimal digits or 20 letters and digits"
    assert said == f"Keys of Acme usually begin with 'sk_', or are {kinds}."
    assert not shape.hint(replace(ROW, key_shape=None))


@pytest.mark.parametrize("pattern", ["(?:ab-|cd-)?ef", "[a-f0-9]{32,40}", "[!-~]{8}", r"sk_\w+|[A-Z]+", ""])
def test_what_words_do_not_say_is_not_hinted_at(pattern: str) -> None:
    row = replace(ROW, key_shape=pattern)
    assert shape.hint(row) == ""
    assert shape.remark(row, Secret("{}")) in (
        "",
        "It does not look like a key of Acme. Some of its keys may look otherwise.",
    )


def test_what_looks_otherwise_is_remarked_on_and_not_repeated() -> None:
    said = shape.remark(ROW, Secret("acme-12345678x"))
    assert said.startswith("It does not look like a key of Acme: they usually begin with 'acme-'.")
    assert "12345678" not in said
    for usual in ("acme-12345678", " acme-12345678\n", "", "x" * 3_000):
        assert shape.remark(ROW, Secret(usual)) == "", usual
    assert shape.remark(ROW, Secret("acme-1234567\u0663")) != "", "a digit is one that keys are made of"
    assert shape.remark(replace(ROW, key_shape=None), Secret("x")) == ""


def test_every_row_that_has_a_shape_has_a_hint() -> None:
    for row in catalog.load().providers.values():
        said = shape.hint(row)
        assert (row.name in said) is (row.key_shape is not None), row.id
        assert not set(said) & set("[]{}|\\"), "words, and no expression"
        assert len(said) < 150, row.id
