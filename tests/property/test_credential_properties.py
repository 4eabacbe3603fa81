"""Credentials under any input: parse undoes mint, and takes nothing that was altered."""

from __future__ import annotations

import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from ostiary.agents import credential
from ostiary.ids import BASE62
from ostiary.secret import Secret

kinds = st.sampled_from(["pat", "eph", "ck", "cs", "inv"])


@given(kinds)
def test_parse_undoes_mint(kind: credential.Kind) -> None:
    text = credential.mint(kind).reveal()
    assert credential.parse(text) == (kind, text)


@given(st.data())
def test_one_altered_character_is_always_seen(data: st.DataObject) -> None:
    """CRC-32 sees every error burst of up to 32 bits, so no typing mistake of one character gets to the store."""
    text = credential.mint("pat").reveal()
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from(BASE62 + "_-. ").filter(lambda letter: letter != text[place]))
    assert credential.parse(text[:place] + letter + text[place + 1 :]) is None


@given(st.data())
def test_two_swapped_neighbours_are_always_seen(data: st.DataObject) -> None:
    text = credential.mint("pat").reveal()
    place = data.draw(st.integers(0, len(text) - 2).filter(lambda place: text[place] != text[place + 1]))
    assert credential.parse(text[:place] + text[place + 1] + text[place] + text[place + 2 :]) is None


@given(st.text(max_size=300))
def test_any_text_is_parsed_or_none(text: str) -> None:
    found = credential.parse(text)
    assert found is None or found.text == text


@given(st.text(min_size=1, max_size=100).filter(lambda text: text.isprintable()), st.text(BASE62, max_size=200))
def test_the_digest_is_hmac_sha256(pepper: str, text: str) -> None:
    expected = hmac.new(pepper.encode(), text.encode(), hashlib.sha256).digest()
    assert credential.digest(Secret(pepper), text) == expected
