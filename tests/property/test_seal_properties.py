"""Sealing under any input: what is sealed in a place opens there, and nowhere else."""

from __future__ import annotations

import pytest
from cryptography.fernet import InvalidToken
from hypothesis import assume, given
from hypothesis import strategies as st

from ostiary.secret import Secret
from ostiary.vault.seal import MasterKeys, Place, Undecryptable, record_key

texts = st.text(max_size=20)
data_keys = st.binary(min_size=32, max_size=32)
versions = st.integers(1, 12)
places = st.builds(Place, texts, texts, texts, texts, versions, texts)
MASTERS = MasterKeys.parse(Secret("A" * 43 + "="))


@given(data_keys, places, st.text())
def test_what_is_sealed_opens_in_its_place(data_key: bytes, place: Place, text: str) -> None:
    token = record_key(data_key, place).encrypt(text.encode())
    assert record_key(data_key, place).decrypt(token).decode() == text


@given(data_keys, places, places)
def test_what_is_sealed_does_not_open_in_another_place(data_key: bytes, place: Place, other: Place) -> None:
    assume(place != other)
    token = record_key(data_key, place).encrypt(b"text")
    with pytest.raises(InvalidToken):
        record_key(data_key, other).decrypt(token)


@given(places, places)
def test_no_two_places_read_alike(place: Place, other: Place) -> None:
    assert (place == other) == (place.info() == other.info())


@given(st.lists(texts, min_size=5, max_size=5), st.integers(0, 3), st.integers(0, 20))
def test_moving_the_border_between_two_parts_makes_another_place(parts: list[str], at: int, by: int) -> None:
    """`ab`,`c` is not `a`,`bc`, whatever the lengths."""
    joined = parts[at] + parts[at + 1]
    moved = [*parts[:at], joined[:by], joined[by:], *parts[at + 2 :]]
    assume(moved != parts)
    one, other = (Place(a, b, c, d, 1, e) for a, b, c, d, e in (parts, moved))
    assert one.info() != other.info()


@given(texts, versions, data_keys, texts, versions)
def test_a_data_key_opens_in_its_row_only(
    organization_id: str, version: int, data_key: bytes, other_id: str, other_version: int
) -> None:
    wrapped = MASTERS.wrap(organization_id, version, data_key)
    assert MASTERS.unwrap(organization_id, version, wrapped) == data_key
    if (organization_id, version) != (other_id, other_version):
        with pytest.raises(Undecryptable):
            MASTERS.unwrap(other_id, other_version, wrapped)
