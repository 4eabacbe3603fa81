"""A body in memory or on disk is the same body, from wherever it is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.providers.upload import IN_MEMORY, Upload, UploadedBody


def whole(body: UploadedBody, count: int) -> bytes:
    reader, found = body.reader(), b""
    while not reader.is_done:
        found += reader.take(count)
    assert reader.take(count) == b""
    return found


@given(
    pieces=st.lists(st.binary(max_size=40), max_size=8),
    at=st.integers(0, 400),
    put_in=st.binary(max_size=9),
    count=st.integers(1, 50),
)
def test_what_is_put_in_stands_at_its_place(pieces: list[bytes], at: int, put_in: bytes, count: int) -> None:
    upload = Upload(Path("/nowhere"))
    for piece in pieces:
        upload.write(piece)
    plain = b"".join(pieces)
    at = min(at, len(plain))
    body = UploadedBody(upload, at, put_in, "text/plain")
    assert len(body) == len(plain) + len(put_in)
    assert whole(body, count) == plain[:at] + put_in + plain[at:]
    assert whole(body, count) == plain[:at] + put_in + plain[at:], "it can be sent again"


@pytest.mark.parametrize("size", [IN_MEMORY - 1, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY])
def test_a_large_one_is_on_disk_without_a_name(tmp_path: Path, size: int) -> None:
    folder = tmp_path / "uploads"
    upload = Upload(folder)
    block = bytes(range(256)) * 64
    plain = (block * (size // len(block) + 1))[:size]
    for start in range(0, size, 10_000):
        upload.write(plain[start : start + 10_000])
    assert upload.is_on_disk == (size > IN_MEMORY)
    assert not folder.exists() or list(folder.iterdir()) == []
    assert whole(UploadedBody(upload, 100, b"!", ""), 65_536) == plain[:100] + b"!" + plain[100:]
    upload.close()
    upload.close()
    assert not upload.is_on_disk
