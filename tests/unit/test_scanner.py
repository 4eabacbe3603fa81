"""What counts as a credential in a text: ours by checksum, a provider's by a shape that only keys have."""

from __future__ import annotations

import base64
import random
import re
import secrets
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.agents import credential
from ostiary.cli.scan import ours
from ostiary.providers.catalog import load
from ostiary.vault.scanning import Found, Scanner, is_telling, text_of

ROW = load().get("groq")
ROWS = (
    replace(ROW, id="groq", key_shape="gsk_[a-zA-Z0-9]{52}"),
    replace(ROW, id="deep", key_shape="sk-[a-z0-9]{32}"),
    replace(ROW, id="moon", key_shape="sk-[a-zA-Z0-9]{32,40}"),
    replace(ROW, id="vague", key_shape="[a-f0-9]{32}"),
    replace(ROW, id="unsaid", key_shape=None),
)
SCANNER = Scanner(ours(), ROWS)


def found(text: str) -> list[Found]:
    return list(SCANNER.find(text))


def test_ours_are_found_wherever_they_stand() -> None:
    pat, eph = credential.mint("pat").reveal(), credential.mint("eph").reveal()
    triple = credential.mint_triple("org_" + "a" * 22).reveal()
    text = f'{{"a": "{pat}"}}\n# x{eph}\\n\r\nauth={triple};\n{triple.split(":")[1]}'
    assert [(one.line, one.kind, one.secret.reveal()) for one in found(text)] == [
        (1, "agent key", pat),
        (2, "ephemeral key", eph),
        (3, "client credential", triple),
        (4, "part of a client credential", triple.split(":")[1]),
    ]
    assert all(one.secret.reveal() not in one.preview and one.providers == () for one in found(text))


def test_what_only_looks_like_ours_is_nothing() -> None:
    """The documentation and the tests of everybody who uses us are full of such."""
    pat = credential.mint("pat").reveal()
    swapped = pat[:-1] + ("a" if pat[-1] != "a" else "b")
    assert found(f"{swapped} {pat[:-1]} ost_pat_{'x' * 49} ost_zzz_{pat[8:]}") == []


def test_of_a_triple_that_is_torn_the_parts_are_found() -> None:
    triple = credential.mint_triple("org_" + "a" * 22).reveal()
    torn = triple[:-1] + ("a" if triple[-1] != "a" else "b")
    assert [one.kind for one in found(torn)] == ["part of a client credential"]


def test_theirs_are_found_by_shape_and_named_when_several_can_be() -> None:
    key = "gsk_" + secrets.token_hex(26)
    both = "sk-" + "a1" * 16
    text = f"GROQ={key}\n\n'{both}'"
    assert [(one.line, one.kind, one.providers, one.preview) for one in found(text)] == [
        (1, "provider key", ("groq",), f"gsk_…{key[-3:]}"),
        (3, "provider key", ("deep", "moon"), f"sk-a…{both[-3:]}"),
    ]


@pytest.mark.parametrize("around", ["x{}", "{}x", "{}_", "-{}", "a_{}"])
def test_a_part_of_a_longer_word_is_none(around: str) -> None:
    assert found(around.format("gsk_" + "a" * 52)) == []


def test_a_shape_that_any_checksum_fits_is_not_looked_for() -> None:
    assert SCANNER.providers == ("groq", "deep", "moon")
    assert found(f"md5: {'d41d8cd98f00b204e9800998ecf8427e'}\nid: {secrets.token_hex(16)}") == []
    for shape, telling in (("[A-Z]{20}", False), (r"[0-9a-f-]{36}", False), (r"\w+", False), ("key-[0-9]{4}", True)):
        assert is_telling(re.compile(shape)) is telling, shape


def test_the_catalogue_s_shapes_can_be_looked_for() -> None:
    scanner = Scanner(ours(), load().providers.values())
    assert {"groq", "xai", "openrouter", "nvidia"} <= set(scanner.providers)
    chance = random.Random(1)  # noqa: S311 - the same every time: one in some thousands begins as keys do
    drawn = [chance.randbytes(n) for n in range(8, 65)]
    text = " ".join([*(one.hex() for one in drawn), *(base64.urlsafe_b64encode(one).decode() for one in drawn)])
    assert list(scanner.find(text)) == []
    assert list(scanner.find("a" * 1_000_000)) == []


def test_what_stands_behind_a_key_is_no_part_of_it() -> None:
    """Nor is the shape itself a key, where somebody wrote it down."""
    scanner = Scanner(ours(), [replace(ROW, id="wide", key_shape=r"wide-key-\S+")])
    (one,) = scanner.find('{"key":"wide-key-a1b2c3d4","x":"wide-key-\\S+"}')
    assert one.secret.reveal() == "wide-key-a1b2c3d4"


def test_texts_are_told_from_what_is_none() -> None:
    assert text_of(b"plain \xff\xfe bytes") is not None
    assert text_of(b"\x7fELF\0\0\0") is None
    assert text_of("ost_…".encode("utf-16")) == "ost_…"
    assert text_of(b"") == ""


@given(st.text(max_size=300))
def test_a_key_is_found_in_any_text(text: str) -> None:
    pat = "ost_pat_" + "0" * 43
    whole = credential.mint("pat").reveal()
    places = found(f"{text}\n{whole}\n{pat}")
    assert places[-1].secret.reveal() == whole
    assert places[-1].line == text.count("\n") + 2
