"""What is said of how keys look is true of every key of that shape."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.providers import catalog, shape
from ostiary.providers.provider import Provider
from ostiary.secret import Secret

SHAPED = [row for row in catalog.load().providers.values() if row.key_shape]


@pytest.mark.parametrize("row", SHAPED, ids=lambda row: row.id)
@given(data=st.data())
def test_a_key_of_the_shape_begins_as_is_said_and_is_not_remarked_on(data: st.DataObject, row: Provider) -> None:
    assert row.key_shape
    key = data.draw(st.from_regex(re.compile(row.key_shape, re.ASCII), fullmatch=True))
    begins = shape.openings(row.key_shape)
    assert not begins or key.startswith(begins)
    assert not shape.remark(row, Secret(key))
    if begins:
        assert shape.remark(row, Secret(f"!{key}"))
